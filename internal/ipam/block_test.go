package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// noon is when tests begin.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// parseBlock reads a block in the notation "10.0.0.0/30 a - ~60 b | 1": for each
// address the handle that has it, "-" when free, "~60" when released 60 seconds
// before noon. After the bar comes the queue of free ordinals; without a bar
// they stand in order.
func parseBlock(t *testing.T, text string) model.Block {
	t.Helper()
	text, queue, queued := strings.Cut(text, " |")
	fields := strings.Fields(text)
	b := NewBlock(netip.MustParsePrefix(fields[0]), model.HostAffinity("node-a"), noon.Add(-time.Hour))
	if len(fields) != 1+len(b.Allocations) {
		t.Fatalf("block %q: %d addresses, want %d", text, len(fields)-1, len(b.Allocations))
	}
	b.Sequence, b.Unallocated = 100, nil
	for ord, f := range fields[1:] {
		seconds, cooling := strings.CutPrefix(f, "~")
		switch {
		case f == "-" && !queued:
			b.Unallocated = append(b.Unallocated, ord)
		case f == "-":
		case cooling:
			d, err := time.ParseDuration(seconds + "s")
			if err != nil {
				t.Fatal(err)
			}
			b.Allocations[ord] = attribute(&b, model.Attribute{ReleasedAt: noon.Add(-d)})
		default:
			b.Allocations[ord] = attribute(&b, model.Attribute{Handle: f})
			b.SequenceOf[ord] = uint64(ord)
		}
	}
	for _, f := range strings.Fields(queue) {
		var ord int
		if _, err := fmt.Sscan(f, &ord); err != nil {
			t.Fatal(err)
		}
		b.Unallocated = append(b.Unallocated, ord)
	}
	return b
}

// format prints a block in the notation of parseBlock, with its queue.
func format(b model.Block) string {
	var s strings.Builder
	s.WriteString(b.CIDR.String())
	for _, at := range b.Allocations {
		switch {
		case at < 0:
			s.WriteString(" -")
		case !b.Attributes[at].ReleasedAt.IsZero():
			fmt.Fprintf(&s, " ~%d", int(noon.Sub(b.Attributes[at].ReleasedAt).Seconds()))
		default:
			s.WriteString(" " + b.Attributes[at].Handle)
		}
	}
	s.WriteString(" |")
	for _, ord := range b.Unallocated {
		fmt.Fprintf(&s, " %d", ord)
	}
	return s.String()
}

func TestAllocate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		block, skip string
		n           int
		want, after string
	}{
		"first free":     {block: "10.0.0.0/30 a - - -", n: 1, want: "10.0.0.1", after: "10.0.0.0/30 a h - - | 2 3"},
		"ordinal 0":      {block: "10.0.0.0/30 - - - -", n: 1, want: "10.0.0.0", after: "10.0.0.0/30 h - - - | 1 2 3"},
		"queue order":    {block: "10.0.0.0/30 - a - - | 3 0 2", n: 2, want: "10.0.0.3 10.0.0.0", after: "10.0.0.0/30 h a - h | 2"},
		"skip reserved":  {block: "10.0.0.0/30 - - - -", skip: "10.0.0.0", n: 1, want: "10.0.0.1", after: "10.0.0.0/30 - h - - | 0 2 3"},
		"skip all":       {block: "10.0.0.0/31 - -", skip: "10.0.0.0 10.0.0.1", n: 1, after: "10.0.0.0/31 - - | 0 1"},
		"full":           {block: "10.0.0.0/31 a b", n: 1, after: "10.0.0.0/31 a b |"},
		"fewer than n":   {block: "10.0.0.0/31 a -", n: 2, want: "10.0.0.1", after: "10.0.0.0/31 a h |"},
		"cooling":        {block: "10.0.0.0/31 ~1 ~90", n: 1, after: "10.0.0.0/31 ~1 ~90 |"},
		"single address": {block: "10.0.0.7/32 -", n: 1, want: "10.0.0.7", after: "10.0.0.7/32 h |"},
		"IPv6":           {block: "fd00::fffc/126 a - - -", n: 2, want: "fd00::fffd fd00::fffe", after: "fd00::fffc/126 a h h - | 3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := parseBlock(t, tt.block)
			before := format(b)
			skip := func(a netip.Addr) bool { return strings.Contains(" "+tt.skip+" ", " "+a.String()+" ") }
			got, addrs := Allocate(b, model.Attribute{Handle: "h"}, tt.n, skip)
			if text := strings.Trim(fmt.Sprint(addrs), "[]"); text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
			if format(got) != tt.after {
				t.Errorf("block is %q, want %q", format(got), tt.after)
			}
			if format(b) != before {
				t.Errorf("the argument became %q", format(b))
			}
			wantSeq := b.Sequence
			if tt.want != "" {
				wantSeq++
			}
			if got.Sequence != wantSeq {
				t.Errorf("sequence %d, want %d", got.Sequence, wantSeq)
			}
			for _, a := range addrs {
				if seq := got.SequenceOf[ordinal(got.CIDR, a)]; seq != b.Sequence {
					t.Errorf("%v has sequence %d, want that before the change, %d", a, seq, b.Sequence)
				}
			}
		})
	}
}

func TestAllocateAt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		block, addr, after string
		want               error
	}{
		"free":    {block: "10.0.0.0/30 a - - -", addr: "10.0.0.2", after: "10.0.0.0/30 a - h - | 1 3"},
		"taken":   {block: "10.0.0.0/30 a - - -", addr: "10.0.0.0", want: ErrTaken},
		"cooling": {block: "10.0.0.0/30 ~1 - - -", addr: "10.0.0.0", want: ErrTaken},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := AllocateAt(parseBlock(t, tt.block), model.Attribute{Handle: "h"}, netip.MustParseAddr(tt.addr))
			if !errors.Is(err, tt.want) {
				t.Fatalf("error is %v, want %v", err, tt.want)
			}
			if err == nil && format(got) != tt.after {
				t.Errorf("block is %q, want %q", format(got), tt.after)
			}
		})
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		block, addr string
		handle      string // released as a whole, if there is no addr
		check       Check
		cooldown    time.Duration
		after       string
		want        error
	}{
		"to the end of the queue": {block: "10.0.0.0/30 a b - -", addr: "10.0.0.0", after: "10.0.0.0/30 - b - - | 2 3 0"},
		"handle":                  {block: "10.0.0.0/30 a b a -", handle: "a", after: "10.0.0.0/30 - b - - | 3 0 2"},
		"unknown handle":          {block: "10.0.0.0/30 a b a -", handle: "c", after: "10.0.0.0/30 a b a - | 3"},
		"cool-down":               {block: "10.0.0.0/30 a b a -", handle: "a", cooldown: time.Second, after: "10.0.0.0/30 ~0 b ~0 - | 3"},
		"free already":            {block: "10.0.0.0/30 a - - -", addr: "10.0.0.1", want: ErrNotAssigned},
		"cooling already":         {block: "10.0.0.0/30 ~5 - - -", addr: "10.0.0.0", want: ErrNotAssigned},
		"right handle":            {block: "10.0.0.0/30 a b - -", addr: "10.0.0.1", check: Check{Handle: "b"}, after: "10.0.0.0/30 a - - - | 2 3 1"},
		"wrong handle":            {block: "10.0.0.0/30 a b - -", addr: "10.0.0.1", check: Check{Handle: "a"}, want: ErrChanged},
		"right sequence":          {block: "10.0.0.0/30 a b - -", addr: "10.0.0.1", check: Check{Sequence: 1}, after: "10.0.0.0/30 a - - - | 2 3 1"},
		"wrong sequence":          {block: "10.0.0.0/30 a b - -", addr: "10.0.0.1", check: Check{Sequence: 2}, want: ErrChanged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := parseBlock(t, tt.block)
			before := format(b)
			var got model.Block
			var err error
			if tt.addr != "" {
				got, _, err = ReleaseAt(b, netip.MustParseAddr(tt.addr), tt.check, tt.cooldown, noon)
			} else {
				got, _ = ReleaseHandle(b, tt.handle, tt.cooldown, noon)
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("error is %v, want %v", err, tt.want)
			}
			if err == nil && format(got) != tt.after {
				t.Errorf("block is %q, want %q", format(got), tt.after)
			}
			if format(b) != before {
				t.Errorf("the argument became %q", format(b))
			}
		})
	}
}

func TestThaw(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ block, after string }{
		"not yet":              {"10.0.0.0/30 ~59 a - -", "10.0.0.0/30 ~59 a - - | 2 3"},
		"at the end":           {"10.0.0.0/30 ~60 a - -", "10.0.0.0/30 - a - - | 2 3 0"},
		"in order of release":  {"10.0.0.0/30 ~70 ~10 ~90 ~80", "10.0.0.0/30 - ~10 - - | 2 3 0"},
		"what is in use stays": {"10.0.0.0/31 a b", "10.0.0.0/31 a b |"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := format(Thaw(parseBlock(t, tt.block), time.Minute, noon)); got != tt.after {
				t.Errorf("block is %q, want %q", got, tt.after)
			}
		})
	}
}

// TestNextBlock walks pools with some blocks taken; node-a starts at the second
// block of eight, as Calico's node-a does.
func TestNextBlock(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pool            string
		bits            int
		taken, reserved string
		want            string
	}{
		"first":             {pool: "10.10.0.0/27", bits: 30, want: "10.10.0.4/30"},
		"next":              {pool: "10.10.0.0/27", bits: 30, taken: "10.10.0.4/30", want: "10.10.0.8/30"},
		"round the end":     {pool: "10.10.0.0/29", bits: 30, taken: "10.10.0.4/30", want: "10.10.0.0/30"},
		"all taken":         {pool: "10.10.0.0/29", bits: 30, taken: "10.10.0.4/30 10.10.0.0/30"},
		"one block":         {pool: "10.10.0.0/26", bits: 26, want: "10.10.0.0/26"},
		"one block, taken":  {pool: "10.10.0.0/26", bits: 26, taken: "10.10.0.0/26"},
		"reserved":          {pool: "10.10.0.0/27", bits: 30, reserved: "10.10.0.0/29", want: "10.10.0.8/30"},
		"reserved in parts": {pool: "10.10.0.0/27", bits: 30, reserved: "10.10.0.4/31 10.10.0.6/31", want: "10.10.0.8/30"},
		"partly reserved":   {pool: "10.10.0.0/27", bits: 30, reserved: "10.10.0.4/31 10.10.0.6/32", want: "10.10.0.4/30"},
		"pool reserved":     {pool: "10.10.0.0/27", bits: 30, reserved: "10.0.0.0/8"},
		"half and half":     {pool: "10.10.0.0/27", bits: 30, reserved: "10.10.0.0/28 10.10.0.16/28"},
		"huge reservation":  {pool: "fd00::/20", bits: 122, reserved: "fd00::/21 fd00:800::/21"},
		"nearly all":        {pool: "fd00::/20", bits: 122, reserved: "fd00::/21 fd00:800::/22", want: "fd00:c00::/122"},
		"last of all":       {pool: "255.255.255.248/29", bits: 30, taken: "255.255.255.252/30", want: "255.255.255.248/30"},
		"IPv6":              {pool: "fd00:20::/112", bits: 122, want: "fd00:20::ae80/122"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool := model.Pool{CIDR: netip.MustParsePrefix(tt.pool), BlockBits: tt.bits}
			var reserved []netip.Prefix
			for _, r := range strings.Fields(tt.reserved) {
				reserved = append(reserved, netip.MustParsePrefix(r))
			}
			got, ok := NextBlock(pool, "node-a", reserved, func(c netip.Prefix) bool {
				return strings.Contains(" "+tt.taken+" ", " "+c.String()+" ")
			})
			if ok != (tt.want != "") || ok && got.String() != tt.want {
				t.Errorf("got %v, %v, want %q", got, ok, tt.want)
			}
		})
	}
}
