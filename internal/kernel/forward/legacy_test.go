package forward

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// builder makes a legacy table entry by entry, as iptables-legacy does.
type builder struct {
	layout
	b     []byte
	marks map[string]uint32 // offsets of chains
	jumps map[uint32]string // offsets of verdicts, and the chains to which they lead
}

// add adds an entry that does the verdict, and matches TCP or nothing.
func (b *builder) add(verdict int32, tcp bool) uint32 {
	at := uint32(len(b.b))
	e := make([]byte, b.bytes+partBytes+verdictBytes)
	if tcp {
		e[b.flags-2] = 6 // some byte of the header
	}
	e[b.counters] = byte(at / 8)
	netlink.Native.PutUint16(e[b.target:], uint16(b.bytes))
	netlink.Native.PutUint16(e[b.target+2:], uint16(len(e)))
	netlink.Native.PutUint16(e[b.bytes:], partBytes+verdictBytes)
	netlink.Native.PutUint32(e[b.bytes+partBytes:], uint32(verdict))
	b.b = append(b.b, e...)
	return at
}

func (b *builder) jump(chain string) {
	at := b.add(0, false)
	b.jumps[at+uint32(b.bytes)+partBytes] = chain
}

// errorEntry adds the head of a chain, or, without a name, the end of the table.
func (b *builder) errorEntry(name string) {
	e := make([]byte, b.bytes+64)
	netlink.Native.PutUint16(e[b.target:], uint16(b.bytes))
	netlink.Native.PutUint16(e[b.target+2:], uint16(len(e)))
	netlink.Native.PutUint16(e[b.bytes:], 64)
	copy(e[b.bytes+partName:], "ERROR")
	copy(e[b.bytes+partBytes:], name)
	b.b = append(b.b, e...)
	b.marks[name] = uint32(len(b.b))
}

// sample has a rule in INPUT, four in FORWARD, one of which is empty and one of which
// jumps, policy drop, and a chain of two rules.
func sample(t testing.TB, l layout) *legacy {
	b := &builder{layout: l, marks: map[string]uint32{}, jumps: map[uint32]string{}}
	var begin, end [hooks]uint32
	begin[unix.NF_INET_LOCAL_IN] = b.add(legacyAccept, true)
	end[unix.NF_INET_LOCAL_IN] = b.add(legacyAccept, false)
	begin[unix.NF_INET_FORWARD] = b.add(legacyDrop, true)
	at := b.add(0, false) // falls through
	netlink.Native.PutUint32(b.b[int(at)+b.bytes+partBytes:], uint32(len(b.b)))
	b.jump("user")
	at = b.add(0, true) // falls through to the policy
	netlink.Native.PutUint32(b.b[int(at)+b.bytes+partBytes:], uint32(len(b.b)))
	end[unix.NF_INET_FORWARD] = b.add(legacyDrop, false)
	begin[unix.NF_INET_LOCAL_OUT] = uint32(len(b.b))
	b.jump("user")
	end[unix.NF_INET_LOCAL_OUT] = b.add(legacyAccept, false)
	b.errorEntry("user")
	b.add(legacyDrop, true)
	b.add(legacyReturn, false)
	b.errorEntry("ERROR")
	for at, chain := range b.jumps {
		netlink.Native.PutUint32(b.b[at:], b.marks[chain])
	}
	table, err := parseLegacy(l, 1<<unix.NF_INET_LOCAL_IN|1<<unix.NF_INET_FORWARD|1<<unix.NF_INET_LOCAL_OUT, begin, end, b.b)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// String prints the chains of a table, one a line, with jumps by the number of the
// entry that they lead to.
func (t *legacy) String() string {
	var out strings.Builder
	for i, e := range t.entries {
		for h := range hooks {
			if t.validHooks&(1<<h) != 0 && t.begin[h] == e.at {
				fmt.Fprintf(&out, "\nhook %d:", h)
			}
		}
		name, data := t.targetOf(e)
		r := t.rule(e)
		switch code := int32(netlink.Native.Uint32(data)); {
		case name == "ERROR":
			fmt.Fprintf(&out, "\nchain:")
		case r.ours:
			fmt.Fprintf(&out, " %s/%t", r.gate.prefix, r.gate.out)
		case code >= 0 && t.byOffset[uint32(code)] == i+1:
			out.WriteString(" next")
		case code >= 0:
			target := t.byOffset[uint32(code)]
			head, _ := t.targetOf(t.entries[target-1])
			fmt.Fprintf(&out, " jump behind %s", head)
		default:
			fmt.Fprintf(&out, " %d", code)
		}
		for h := range hooks {
			if t.validHooks&(1<<h) != 0 && t.end[h] == e.at {
				out.WriteString(".")
			}
		}
	}
	return out.String()
}

// read cuts the bytes of an edited table anew, as the kernel would.
func (t *legacy) read(tb testing.TB) *legacy {
	tb.Helper()
	again, err := parseLegacy(t.layout, t.validHooks, t.begin, t.end, t.bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return again
}

func TestLegacyEdit(t *testing.T) {
	t.Parallel()
	for _, l := range layouts() {
		t.Run(l.public, func(t *testing.T) {
			t.Parallel()
			table := sample(t, l)
			gates := gatesFor([]string{"cali"})
			was := table.String()
			want := "\nhook 1: -2 -2.\nhook 2: -1 next jump behind ERROR next -1.\nhook 3: jump behind ERROR -2.\nchain: -1 -5\nchain:"
			if was != want {
				t.Fatalf("the sample is%s\nwant%s", was, want)
			}
			before := slices.Clone(table.bytes)
			for name, tt := range map[string]struct {
				e    edit
				want string
			}{
				"first": {edit{insert: gates, first: true}, strings.Replace(want, "2: ", "2: cali/false cali/true ", 1)},
				"last":  {edit{insert: gates}, strings.Replace(want, "next -1.", "next cali/false cali/true -1.", 1)},
			} {
				rules, dropping := table.forward()
				if !dropping || len(rules) != 4 {
					t.Fatalf("%d rules, policy drop %t", len(rules), dropping)
				}
				next, err := table.edited(tt.e)
				if err != nil {
					t.Fatal(err)
				}
				next = next.read(t)
				if got := next.String(); got != tt.want {
					t.Errorf("%s:%s\nwant%s", name, got, tt.want)
				}
				rules, _ = next.forward()
				undo := editFor(rules, false, next.chain, gates, !tt.e.first, false)
				if fit := editFor(rules, true, next.chain, gates, !tt.e.first, false); !fit.empty() {
					t.Errorf("%s: once more it is %v", name, fit)
				}
				back, err := next.edited(undo)
				if err != nil || back.read(t).String() != was || !bytes.Equal(back.bytes, before) {
					t.Errorf("%s: taken back (%v) it is%s\nwant%s", name, err, back, was)
				}
			}
			if !bytes.Equal(table.bytes, before) {
				t.Error("an edit changed the table that it is of")
			}
		})
	}
}

// TestLegacyCounters: entries keep their counters, and new ones begin at zero.
func TestLegacyCounters(t *testing.T) {
	t.Parallel()
	table := sample(t, layouts()[0])
	next, err := table.edited(edit{insert: gatesFor([]string{"cali"}), first: true})
	if err != nil {
		t.Fatal(err)
	}
	former := make([]byte, len(table.entries)*counterBytes)
	for i := range table.entries {
		former[i*counterBytes] = byte(i + 1)
	}
	var got []byte
	for i, c := 0, next.counted(former); i < len(c); i += counterBytes {
		got = append(got, c[i])
	}
	if want := []byte{1, 2, 0, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}; !bytes.Equal(got, want) {
		t.Errorf("counters %v, want %v", got, want)
	}
}

// FuzzLegacy: no bytes of a table make it panic.
func FuzzLegacy(f *testing.F) {
	for i, l := range layouts() {
		table := sample(f, l)
		f.Add(i == 1, table.begin[2], table.end[2], table.bytes)
	}
	f.Fuzz(func(_ *testing.T, v6 bool, begin, end uint32, b []byte) {
		l := layouts()[0]
		if v6 {
			l = layouts()[1]
		}
		table, err := parseLegacy(l, 1<<unix.NF_INET_FORWARD, [hooks]uint32{2: begin}, [hooks]uint32{2: end}, b)
		if err != nil {
			return
		}
		rules, dropping := table.forward()
		e := editFor(rules, dropping, table.chain, gatesFor([]string{"cali"}), false, false)
		if next, err := table.edited(e); err == nil {
			_ = next.counted(nil)
		}
	})
}

// FuzzMessages: no bytes of a message make it panic, and a rule of ours is read back.
func FuzzMessages(f *testing.F) {
	c := chain{unix.NFPROTO_INET, "t", "f"}
	f.Add(c.appendRule(nil, gate{"cali", true}, 7))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = parseChain(b)
		_ = chainOfRule(b)
		_, _ = parseRule(b)
	})
}

func TestRuleOnTheWire(t *testing.T) {
	t.Parallel()
	c := chain{unix.NFPROTO_IPV6, "filter", "FORWARD"}
	for _, g := range gatesFor([]string{"cali", "t", "fifteen-bytes-x"}) {
		b := c.appendRule(nil, g, 0)
		r, ok := parseRule(appendBE64(b, unix.NFTA_RULE_HANDLE, 9))
		if !ok || !r.ours || r.gate != g || r.at != 9 || chainOfRule(b) != c {
			t.Errorf("%v is read back as %+v in %+v", g, r, chainOfRule(b))
		}
	}
}
