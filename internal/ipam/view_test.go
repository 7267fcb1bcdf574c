package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/selector"
	"pgregory.net/rapid"
)

// cluster is a whole datastore in the hands of the test.
type cluster struct {
	view       View
	affinities map[model.Key]model.BlockAffinity
}

// pools of the random cluster: small, so that they fill; of both families; one
// with single-address blocks, one for rack r1 only, one manual, one disabled.
func randomPools(t *rapid.T) []model.Pool {
	r1, err := selector.Parse("rack == 'r1'")
	if err != nil {
		t.Fatal(err)
	}
	pool := func(name, cidr string, bits int) model.Pool {
		return model.Pool{Name: name, CIDR: netip.MustParsePrefix(cidr), BlockBits: bits, Uses: model.UseWorkload | model.UseTunnel}
	}
	pools := []model.Pool{
		pool("a", "10.0.0.0/28", 30), pool("b", "10.1.0.0/30", 32), pool("c", "10.2.0.0/29", 30),
		pool("d", "10.3.0.0/29", 30), pool("e", "10.4.0.0/29", 30), pool("f", "fd00::/123", 126),
	}
	pools[2].NodeSelector, pools[3].Manual, pools[4].Disabled = r1, true, true
	return pools
}

// as is the cluster as a node sees it: everything, or its own blocks only.
func (c *cluster) as(node string, complete bool) *View {
	v := c.view
	v.Name, v.Complete = node, complete
	v.Node = &model.Node{Name: node, Labels: map[string]string{"rack": map[string]string{"n1": "r1", "n2": "r2", "n3": "r1"}[node]}}
	v.Blocks, v.Handles, v.Missing = maps.Clone(v.Blocks), maps.Clone(v.Handles), map[model.Key]bool{}
	if !complete {
		maps.DeleteFunc(v.Blocks, func(_ netip.Prefix, b model.Block) bool { return b.Owner != v.owner() })
		clear(v.Handles)
	}
	return &v
}

// decide asks a view that knows little, shows it what it asks for, and checks
// that a view which knows everything decides the same.
func (c *cluster) decide(t *rapid.T, node string, what func(*View) (Change, error)) (Change, error) {
	full, fullErr := what(c.as(node, true).with(c))
	v := c.as(node, false)
	for {
		got, err := what(v)
		var need *NeedError
		if key, ok := c.refuses(v, got); ok {
			c.show(t, v, key)
			continue
		}
		if !errors.As(err, &need) {
			if fmt.Sprint(got, err) != fmt.Sprint(full, fullErr) {
				t.Fatalf("with little known: %v, %v\nwith all known: %v, %v", got, err, full, fullErr)
			}
			return got, err
		}
		c.show(t, v, need.Key)
	}
}

// refuses reports whether a datastore would refuse the change, as it creates a
// handle that exists: a request takes a handle of which nothing is known as new.
func (c *cluster) refuses(v *View, ch Change) (model.Key, bool) {
	for _, h := range ch.Handles {
		_, exists := c.view.Handles[h.ID]
		if _, known := v.Handles[h.ID]; exists && !known {
			return h.Key(), true
		}
	}
	return model.Key{}, false
}

// with marks the handles that do not exist as missing.
func (v *View) with(c *cluster) *View {
	for _, h := range handleNames() {
		if _, ok := c.view.Handles[h]; !ok {
			v.Missing[model.HandleKey(h)] = true
		}
	}
	return v
}

func handleNames() []string { return []string{"h1", "h2", "h3", "h4", "h5", "h6"} }

func (c *cluster) show(t *rapid.T, v *View, key model.Key) {
	switch key.Kind {
	case "":
		if v.Complete {
			t.Fatal("a complete view asks for more")
		}
		v.Blocks, v.Complete = maps.Clone(c.view.Blocks), true
	case model.KindIPAMHandle:
		h, ok := c.view.Handles[key.Name]
		if v.Missing[key] = !ok; ok {
			v.Handles[key.Name] = h
		}
	default:
		v.Missing[key] = true
		for cidr, b := range c.view.Blocks {
			if b.Key() == key {
				v.Blocks[cidr], v.Missing[key] = b, false
			}
		}
	}
}

// write carries a change out.
func (c *cluster) write(ch Change) {
	c.view.Missing = map[model.Key]bool{}
	c.view.Apply(ch)
	for _, a := range ch.Unclaim {
		delete(c.affinities, a.Key())
	}
	for _, a := range ch.Claim {
		c.affinities[a.Key()] = a
	}
}

// check fails unless all that must always hold does.
func (c *cluster) check(t *rapid.T) {
	counts := map[string]map[netip.Prefix]int{}
	for cidr, b := range c.view.Blocks {
		checkBlock(t, b)
		_, claimed := c.affinities[model.AffinityKey(b.Owner, cidr)]
		if claimed != (b.Owner != model.Affinity{}) {
			t.Fatalf("block %v of %q: has an affinity is %v", cidr, b.Owner, claimed)
		}
		for _, h := range handleNames() {
			if n := len(Held(b, h)); n > 0 {
				if counts[h] == nil {
					counts[h] = map[netip.Prefix]int{}
				}
				counts[h][cidr] = n
			}
		}
		for other := range c.view.Blocks {
			if other != cidr && other.Overlaps(cidr) {
				t.Fatalf("blocks %v and %v overlap", cidr, other)
			}
		}
	}
	if len(counts) != len(c.view.Handles) {
		t.Fatalf("handles are %v, blocks say %v", c.view.Handles, counts)
	}
	for h, count := range counts {
		if !maps.Equal(count, c.view.Handles[h].Blocks) {
			t.Fatalf("handle %s counts %v, blocks say %v", h, c.view.Handles[h].Blocks, count)
		}
	}
	for key, a := range c.affinities {
		if b, ok := c.view.Blocks[a.CIDR]; !ok || b.Owner != a.Owner {
			t.Fatalf("%v: the block is %v", key, b)
		}
	}
}

// checkBlock fails unless each address is free or has a holder, and nothing is
// in the block that belongs to no address.
func checkBlock(t *rapid.T, b model.Block) {
	used := map[int]bool{}
	for ord, at := range b.Allocations {
		if free := slices.Contains(b.Unallocated, ord); free != (at < 0) {
			t.Fatalf("block %v: ordinal %d: free is %v, holder %d", b.CIDR, ord, free, at)
		}
		if _, ok := b.SequenceOf[ord]; ok != (at >= 0) {
			t.Fatalf("block %v: ordinal %d: holder %d, has a sequence is %v", b.CIDR, ord, at, ok)
		}
		used[at] = true
	}
	for i := range b.Attributes {
		if !used[i] {
			t.Fatalf("block %v: attribute %d is not used", b.CIDR, i)
		}
	}
	distinct := slices.Compact(slices.Sorted(slices.Values(b.Unallocated)))
	if len(distinct) != len(b.Unallocated) {
		t.Fatalf("block %v: queue %v names an address twice", b.CIDR, b.Unallocated)
	}
}

// reference is the first address that a request for one should get, found the
// slow and obvious way; false when there is none.
func reference(v *View, r Request, v6 bool) (netip.Addr, bool) {
	var pools []model.Pool
	for _, p := range v.Pools {
		rack := p.NodeSelector == nil || v.Node.Labels["rack"] == "r1"
		if p.CIDR.Addr().Is6() == v6 && !p.Disabled && (slices.Contains(r.family(v6).Pools, p.Name) ||
			len(r.family(v6).Pools) == 0 && !p.Manual && rack) {
			pools = append(pools, p)
		}
	}
	blocks := slices.SortedFunc(maps.Values(v.Blocks), func(a, b model.Block) int {
		return cmp.Compare(model.CIDRName(a.CIDR), model.CIDRName(b.CIDR))
	})
	in := func(c netip.Prefix) bool {
		return slices.ContainsFunc(pools, func(p model.Pool) bool { return p.CIDR.Overlaps(c) })
	}
	first := func(b model.Block) (netip.Addr, bool) {
		for _, ord := range Thaw(b, v.Config.Cooldown, v.Now).Unallocated {
			if a := AddrAt(b.CIDR, ord); !slices.ContainsFunc(v.Reserved, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return a, true
			}
		}
		return netip.Addr{}, false
	}
	mine := 0
	for _, b := range blocks {
		if b.Owner == v.owner() && b.CIDR.Addr().Is6() == v6 {
			mine++
		}
		if a, ok := first(b); ok && b.Owner == v.owner() && in(b.CIDR) {
			return a, true
		}
	}
	for _, p := range pools {
		if mine >= v.Config.MaxBlocksPerHost || !v.Config.AutoAllocateBlocks {
			break
		}
		for _, idle := range []bool{false, true} {
			for _, cidr := range rotated(p, v.Name) {
				b, exists := v.Blocks[cidr]
				empty := InUse(Thaw(b, v.Config.Cooldown, v.Now)) == 0 && b.Owner != v.owner() && v.Now.Sub(b.ClaimedAt) >= time.Minute
				if a, ok := first(NewBlock(cidr, v.owner(), v.Now)); ok && (!idle && !exists || idle && exists && empty) {
					return a, true
				}
			}
		}
	}
	for _, b := range blocks {
		if a, ok := first(b); ok && in(b.CIDR) && !v.Config.StrictAffinity {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// rotated is all blocks of a pool from the node's start on.
func rotated(p model.Pool, node string) []netip.Prefix {
	var all []netip.Prefix
	for at := p.CIDR.Addr(); p.CIDR.Contains(at); {
		block := netip.PrefixFrom(at, p.BlockBits)
		all = append(all, block)
		for at = block.Addr(); block.Contains(at); {
			at = at.Next()
		}
	}
	i := slices.Index(all, firstBlock(p, node))
	return slices.Concat(all[i:], all[:i])
}

// TestRandomCluster carries out random requests of three nodes on one small
// cluster. After each step every invariant holds; what a request for one
// address gets is what the reference says; a view that knows little decides as
// one that knows everything; and in the end everything can be freed.
func TestRandomCluster(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		c := &cluster{affinities: map[model.Key]model.BlockAffinity{}}
		c.view = View{
			Pools: randomPools(t), Now: noon,
			Blocks: map[netip.Prefix]model.Block{}, Handles: map[string]model.Handle{},
			Config: model.IPAMConfig{
				AutoAllocateBlocks: rapid.IntRange(0, 9).Draw(t, "auto") > 0, StrictAffinity: rapid.Bool().Draw(t, "strict"),
				MaxBlocksPerHost: rapid.IntRange(1, 4).Draw(t, "max"),
				Cooldown:         time.Duration(rapid.SampledFrom([]int{0, 0, 45}).Draw(t, "cooldown")) * time.Second,
			},
		}
		if rapid.Bool().Draw(t, "reserve") {
			c.view.Reserved = []netip.Prefix{netip.MustParsePrefix("10.0.0.2/31"), netip.MustParsePrefix("10.0.0.4/30")}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			c.step(t)
			c.check(t)
		}
		for _, h := range handleNames() {
			ch, err := c.decide(t, "n1", func(v *View) (Change, error) { return v.Release(h) })
			if err != nil {
				t.Fatal(err)
			}
			c.write(ch)
			c.check(t)
		}
		c.view.Now = c.view.Now.Add(time.Hour)
		for cidr, b := range c.view.Blocks {
			if n := InUse(Thaw(b, c.view.Config.Cooldown, c.view.Now)); n > 0 {
				t.Fatalf("block %v: %d addresses leaked", cidr, n)
			}
		}
	})
}

func (c *cluster) step(t *rapid.T) {
	node := rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node")
	handle := rapid.SampledFrom(handleNames()).Draw(t, "handle")
	switch rapid.SampledFrom([]string{"assign", "assign", "assign", "at", "release", "address", "give up", "tidy", "wait"}).Draw(t, "do") {
	case "assign":
		c.assign(t, node, handle)
	case "at":
		addr := AddrAt(netip.MustParsePrefix(rapid.SampledFrom([]string{"10.0.0.0/28", "10.1.0.0/30", "fd00::/123"}).Draw(t, "pool")), rapid.IntRange(0, 3).Draw(t, "n"))
		ch, err := c.decide(t, node, func(v *View) (Change, error) {
			return v.Assign(Request{Holder: model.Attribute{Handle: handle}, Use: model.UseWorkload, Addrs: []netip.Addr{addr}})
		})
		if err == nil && ch.Addrs[0].Addr != addr {
			t.Fatalf("asked for %v, got %v", addr, ch.Addrs)
		}
		c.write(ch)
	case "release":
		ch, err := c.decide(t, node, func(v *View) (Change, error) { return v.Release(handle) })
		if err != nil {
			t.Fatal(err)
		}
		c.write(ch)
	case "address":
		addr := AddrAt(netip.MustParsePrefix("10.0.0.0/28"), rapid.IntRange(0, 15).Draw(t, "n"))
		ch, err := c.decide(t, node, func(v *View) (Change, error) { return v.ReleaseAddr(addr, Check{}) })
		if err != nil && !errors.Is(err, ErrNotAssigned) {
			t.Fatal(err)
		}
		c.write(ch)
	case "give up":
		cidr := netip.PrefixFrom(AddrAt(netip.MustParsePrefix("10.0.0.0/28"), 4*rapid.IntRange(0, 3).Draw(t, "n")), 30)
		ch, err := c.decide(t, node, func(v *View) (Change, error) { return v.GiveUp(cidr) })
		if err != nil {
			t.Fatal(err)
		}
		c.write(ch)
	case "tidy":
		c.write(c.as(node, true).Tidy(slices.Collect(maps.Values(c.affinities))))
	case "wait":
		c.view.Now = c.view.Now.Add(time.Duration(rapid.SampledFrom([]int{1, 30, 70}).Draw(t, "seconds")) * time.Second)
	}
}

// assign asks for one address of a family, or for one of each.
func (c *cluster) assign(t *rapid.T, node, handle string) {
	r := Request{Holder: model.Attribute{Handle: handle}, Use: model.UseWorkload}
	r.V4.Count, r.V6.Count = rapid.IntRange(0, 2).Draw(t, "v4"), rapid.IntRange(0, 1).Draw(t, "v6")
	r.V4.Pools = rapid.SampledFrom([][]string{nil, nil, {"d"}, {"c"}, {"a", "b"}}).Draw(t, "pools")
	before := c.as(node, true)
	ch, err := c.decide(t, node, func(v *View) (Change, error) { return v.Assign(r) })
	if err != nil && !ch.Empty() {
		t.Fatalf("an error and a change: %v, %v", err, ch)
	}
	if err == nil && len(ch.Addrs) != r.V4.Count+r.V6.Count {
		t.Fatalf("asked for %d and %d addresses, got %v", r.V4.Count, r.V6.Count, ch.Addrs)
	}
	if _, held := before.Handles[handle]; !held && r.V4.Count+r.V6.Count == 1 {
		want, ok := reference(before, r, r.V6.Count == 1)
		if ok != (err == nil) || ok && want != ch.Addrs[0].Addr {
			t.Fatalf("got %v, %v, the reference says %v, %v", ch.Addrs, err, want, ok)
		}
	}
	c.write(ch)
	again, err2 := c.as(node, true).Assign(r)
	// What the handle had and what came new may stand in another order.
	for _, addrs := range [][]Assigned{again.Addrs, ch.Addrs} {
		slices.SortFunc(addrs, func(a, b Assigned) int { return a.Addr.Compare(b.Addr) })
	}
	if err == nil && (err2 != nil || !slices.Equal(again.Addrs, ch.Addrs) || !again.Empty()) {
		t.Fatalf("asked again: %v, %v, want %v and nothing to write", again, err2, ch.Addrs)
	}
}
