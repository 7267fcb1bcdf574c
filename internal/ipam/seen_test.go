package ipam

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
)

func seenView(t *testing.T) (*View, []Assignment) {
	t.Helper()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	cidr := netip.MustParsePrefix("10.0.0.0/30")
	b := NewBlock(cidr, model.HostAffinity("a"), now)
	b, got := Allocate(b, model.Attribute{Handle: "net.c"}, 2, nil)
	v := &View{
		Config: model.DefaultIPAMConfig(), Now: now, Complete: true, Missing: map[model.Key]bool{},
		Pools:   []model.Pool{{Name: "p", CIDR: netip.MustParsePrefix("10.0.0.0/24"), BlockBits: 30}},
		Blocks:  map[netip.Prefix]model.Block{cidr: b},
		Handles: map[string]model.Handle{"net.c": {ID: "net.c", Blocks: map[netip.Prefix]int{cidr: 2}}},
	}
	var seen []Assignment
	for _, a := range got {
		seen = append(seen, Assignment{a, cidr, b.SequenceOf[ordinal(cidr, a)]})
	}
	return v, seen
}

func TestReleaseSeen(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(v *View, seen []Assignment) []Assignment
		freed  int
		err    error
	}{
		"as it was": {change: func(_ *View, seen []Assignment) []Assignment { return seen }, freed: 2},
		"one was given back": {change: func(_ *View, seen []Assignment) []Assignment {
			return append(seen, Assignment{netip.MustParseAddr("10.0.0.3"), seen[0].Block, 7})
		}, freed: 2},
		"one more since":  {change: func(_ *View, seen []Assignment) []Assignment { return seen[:1] }, err: ErrChanged},
		"given out again": {change: func(_ *View, seen []Assignment) []Assignment { seen[1].Sequence--; return seen }, err: ErrChanged},
		"block is gone":   {change: func(v *View, seen []Assignment) []Assignment { clear(v.Blocks); return seen }},
		"block can't be read": {change: func(v *View, seen []Assignment) []Assignment {
			v.Blocks[seen[0].Block] = model.Block{CIDR: seen[0].Block, Deleted: true}
			return seen
		}, err: ErrUnusable},
		"handle is gone": {change: func(v *View, seen []Assignment) []Assignment {
			clear(v.Handles)
			v.Missing[model.HandleKey("net.c")] = true
			return seen
		}, freed: 2},
		"handle is not known": {change: func(v *View, seen []Assignment) []Assignment { clear(v.Handles); return seen }, err: &NeedError{model.HandleKey("net.c")}},
		"block is not known":  {change: func(v *View, seen []Assignment) []Assignment { v.Complete = false; clear(v.Blocks); return seen }, err: &NeedError{model.BlockKey(netip.MustParsePrefix("10.0.0.0/30"))}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, seen := seenView(t)
			c, err := v.ReleaseSeen("net.c", tt.change(v, seen))
			var need, wanted *NeedError
			switch {
			case errors.As(tt.err, &wanted):
				if !errors.As(err, &need) || *need != *wanted {
					t.Errorf("got %v, want %v", err, tt.err)
				}
			case !errors.Is(err, tt.err):
				t.Errorf("got %v, want %v", err, tt.err)
			}
			if len(c.Released) != tt.freed {
				t.Errorf("released %v, want %d", c.Released, tt.freed)
			}
		})
	}
}

func TestGiveUpEmpty(t *testing.T) {
	t.Parallel()
	v, seen := seenView(t)
	cidr := seen[0].Block
	if _, err := v.GiveUpEmpty(cidr, v.Blocks[cidr].Sequence); !errors.Is(err, ErrChanged) {
		t.Errorf("a block in use: got %v, want ErrChanged", err)
	}
	free, _ := ReleaseHandle(v.Blocks[cidr], "net.c", 0, v.Now)
	v.Blocks[cidr] = free
	if _, err := v.GiveUpEmpty(cidr, free.Sequence-1); !errors.Is(err, ErrChanged) {
		t.Errorf("another sequence: got %v, want ErrChanged", err)
	}
	c, err := v.GiveUpEmpty(cidr, free.Sequence)
	if err != nil || len(c.Delete) != 1 || len(c.Unclaim) != 1 || len(c.Put) != 0 {
		t.Errorf("an empty block: %+v, %v", c, err)
	}
	if c, err := v.GiveUpEmpty(netip.MustParsePrefix("10.0.0.4/30"), 1); err != nil || !c.Empty() {
		t.Errorf("no such block: %+v, %v", c, err)
	}
}

// TestVirtual: a virtual owner has blocks of its own, as many as it needs, and keeps no
// empty ones; nodes don't take from them.
func TestVirtual(t *testing.T) {
	t.Parallel()
	v, _ := seenView(t)
	v.Name, v.Virtual, v.Node = "load-balancer", true, &model.Node{Name: "load-balancer"}
	v.Pools[0].Uses = model.UseLoadBalancer
	v.Config = model.IPAMConfig{StrictAffinity: true}
	r := Request{Use: model.UseLoadBalancer, Holder: model.Attribute{Handle: "lb-x"}, V4: Family{Count: 1}}
	v.Missing[model.HandleKey("lb-x")] = true
	c, err := v.Assign(r)
	if err != nil || len(c.Put) != 1 || c.Put[0].Owner.String() != "virtual:load-balancer" || len(c.Claim) != 1 {
		t.Fatalf("assign: %+v, %v", c, err)
	}
	v.Apply(c)
	c, err = v.Release("lb-x")
	if err != nil || len(c.Delete) != 1 || len(c.Unclaim) != 1 {
		t.Errorf("release: %+v, %v", c, err)
	}
}
