package ipam

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// viewOf is a view of node a on these pools, with all blocks known.
func viewOf(pools ...model.Pool) *View {
	for i := range pools {
		if pools[i].Uses == 0 {
			pools[i].Uses = model.UseWorkload
		}
	}
	return &View{
		Name: "a", Node: &model.Node{Name: "a"}, Pools: pools, Complete: true,
		Config: model.DefaultIPAMConfig(), Now: time.Unix(1_000_000, 0),
		Blocks: map[netip.Prefix]model.Block{}, Handles: map[string]model.Handle{}, Missing: map[model.Key]bool{model.HandleKey("h"): true},
	}
}

func poolAt(name, cidr string, created int64) model.Pool {
	p := model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), Created: time.Unix(created, 0)}
	p.BlockBits = min(p.CIDR.Bits()+2, p.CIDR.Addr().BitLen())
	return p
}

// TestShutPools: from a pool that is being deleted, and from one that overlaps an
// older one, nothing is given out, neither by itself nor on request.
func TestShutPools(t *testing.T) {
	t.Parallel()
	dying := poolAt("dying", "10.0.0.0/28", 1)
	dying.Terminating = true
	off := poolAt("off", "10.0.0.0/24", 1)
	off.Disabled = true
	for name, tt := range map[string]struct {
		pools []model.Pool
		want  string // pool of the address, or the reason why there is none
	}{
		"being deleted":        {[]model.Pool{dying}, "being deleted"},
		"overlaps an older":    {[]model.Pool{poolAt("new", "10.0.0.0/28", 2), poolAt("old", "10.0.0.0/24", 1)}, "old"},
		"is overlapped":        {[]model.Pool{poolAt("b-old", "10.0.0.0/28", 1), poolAt("a-new", "10.0.0.0/24", 2)}, "b-old"},
		"of the same age":      {[]model.Pool{poolAt("b", "10.0.0.0/28", 1), poolAt("a", "10.0.0.0/24", 1)}, "a"},
		"overlaps a disabled":  {[]model.Pool{poolAt("new", "10.0.0.0/28", 2), off}, "new"},
		"of another, disjoint": {[]model.Pool{poolAt("new", "10.0.1.0/28", 2), dying}, "new"},
	} {
		v := viewOf(tt.pools...)
		c, err := v.Assign(Request{Holder: model.Attribute{Handle: "h"}, Use: model.UseWorkload, V4: Family{Count: 1}})
		if err != nil {
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %s", name, err, tt.want)
			}
		} else if got := c.Addrs[0].Pool; got != tt.want {
			t.Errorf("%s: from pool %s, want %s", name, got, tt.want)
		}
		for _, p := range tt.pools {
			_, err := v.Assign(Request{Holder: model.Attribute{Handle: "h"}, Use: model.UseWorkload, V4: Family{Count: 1, Pools: []string{p.Name}}})
			if (err == nil) != (p.Name == tt.want) {
				t.Errorf("%s: asked for pool %s by name: %v", name, p.Name, err)
			}
		}
	}
	if _, err := viewOf(dying).Assign(Request{Holder: model.Attribute{Handle: "h"}, Use: model.UseWorkload, Addrs: []netip.Addr{dying.CIDR.Addr()}}); !errors.Is(err, ErrNoPool) {
		t.Errorf("an address of a pool that is being deleted: %v", err)
	}
}

// TestTakeOver: an empty block of another node is taken a minute after its claim,
// with sequence numbers that go on; one of a load balancer never is.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	const old = 1 << 62 // beyond what a new block starts with
	for name, tt := range map[string]struct {
		owner model.Affinity
		age   time.Duration
		used  bool
		want  bool
	}{
		"old and empty":      {model.HostAffinity("b"), time.Minute, false, true},
		"young":              {model.HostAffinity("b"), time.Minute - time.Second, false, false},
		"in use":             {model.HostAffinity("b"), time.Hour, true, false},
		"a load balancer's":  {model.Affinity{Type: model.AffinityVirtual, Node: "load-balancer"}, time.Hour, false, false},
		"nobody's and empty": {model.Affinity{}, time.Hour, false, true},
	} {
		p := poolAt("p", "10.0.0.0/30", 1)
		p.BlockBits = 30
		v := viewOf(p)
		v.Config.StrictAffinity = true
		b := NewBlock(p.CIDR, tt.owner, v.Now.Add(-tt.age))
		b.Sequence = old
		if tt.used {
			b, _ = Allocate(b, model.Attribute{Handle: "x"}, 1, func(netip.Addr) bool { return false })
		}
		v.Blocks[p.CIDR] = b
		c, err := v.Assign(Request{Holder: model.Attribute{Handle: "h"}, Use: model.UseWorkload, V4: Family{Count: 1}})
		if (err == nil) != tt.want {
			t.Errorf("%s: %v, want taken: %v", name, err, tt.want)
			continue
		}
		if !tt.want {
			continue
		}
		if got := c.Put[0]; got.Owner != model.HostAffinity("a") || got.Sequence <= old || got.SequenceOf[0] <= old {
			t.Errorf("%s: the block is %v's with sequence %d, of the address %d", name, got.Owner, got.Sequence, got.SequenceOf[0])
		}
		if named := tt.owner != (model.Affinity{}); named != (len(c.Unclaim) == 1) {
			t.Errorf("%s: affinities to delete: %v", name, c.Unclaim)
		}
	}
}

func TestOverlaps(t *testing.T) {
	t.Parallel()
	pool := func(name, cidr string, day int, disabled bool) model.Pool {
		return model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), Created: time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC), Disabled: disabled}
	}
	for name, tt := range map[string]struct {
		pools []model.Pool
		want  string // the pools that give nothing, and because of which
	}{
		"apart":              {[]model.Pool{pool("a", "10.0.0.0/16", 1, false), pool("b", "10.1.0.0/16", 2, false), pool("c", "fd00::/48", 3, false)}, ""},
		"the younger":        {[]model.Pool{pool("a", "10.0.0.0/16", 2, false), pool("b", "10.0.0.0/8", 1, false)}, "a<b"},
		"of one age":         {[]model.Pool{pool("b", "10.0.0.0/16", 1, false), pool("a", "10.0.1.0/24", 1, false)}, "b<a"},
		"the lost keep none": {[]model.Pool{pool("a", "10.0.0.0/16", 1, false), pool("b", "10.0.0.0/15", 2, false), pool("c", "10.1.0.0/24", 3, false)}, "b<a"},
		"disabled is out":    {[]model.Pool{pool("a", "10.0.0.0/16", 1, true), pool("b", "10.0.0.0/24", 2, false)}, ""},
		"disabled itself":    {[]model.Pool{pool("a", "10.0.0.0/16", 1, false), pool("b", "10.0.0.0/24", 2, true)}, ""},
	} {
		var got []string
		for _, p := range Overlaps(tt.pools) {
			_, after, _ := strings.Cut(p.Text, "older pool ")
			by, _, _ := strings.Cut(after, ":")
			got = append(got, p.Key.Name+"<"+by)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}
