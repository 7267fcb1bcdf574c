package route

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/plan"
)

// Learn takes in what BGP learned and returns how the plan changes. Each
// prefix stands once in a batch. Its cost does not depend on how much is known
// already, but for the batches with Reset and Synced: as with Step, what was
// learned before a Reset stays until it is learned again or Synced comes.
func (g *Graph) Learn(b bgp.LearnedBatch) plan.Delta {
	if b.Reset {
		g.learned.stale = make(map[prefixKey]struct{}, len(g.learned.ids))
		for k := range g.learned.ids {
			g.learned.stale[k] = struct{}{}
		}
	}
	d := plan.Delta{PutRoutes: make([]plan.Route, 0, len(b.Puts))}
	for _, l := range b.Puts {
		g.learn(&d, l.Prefix, l.NextHops)
	}
	gone := b.Deletes
	if b.Synced {
		gone = slices.Clone(gone)
		for k := range g.learned.stale {
			gone = append(gone, k.prefix())
		}
		g.learned.stale = nil
		slices.SortFunc(gone, comparePrefixes)
	}
	for _, p := range gone {
		g.learn(&d, p, nil)
	}
	return d
}

// learn makes via the gateways of p, none if there are none, and adds to d how the plan
// changes.
func (g *Graph) learn(d *plan.Delta, p netip.Prefix, via []netip.Addr) {
	set := func() bool {
		if len(via) == 0 {
			return g.learned.delete(p)
		}
		return g.learned.put(p, via)
	}
	if g.opening {
		g.touchPrefix(p)
		set()
		return
	}
	if g.carries && (g.site.noBGP || g.pools.of(p).tunnel != plain) {
		was := g.route(p)
		if !set() {
			return
		}
		differ(&d.PutRoutes, &d.DeleteRoutes, was, g.route(p), keyOfRoute)
		return
	}
	if !set() || g.shadowed(p) {
		return
	}
	hops, ok := g.learned.get(p)
	r := g.site.form.remote(p, hops)
	if ok {
		d.PutRoutes = append(d.PutRoutes, r)
	} else {
		d.DeleteRoutes = append(d.DeleteRoutes, r.RouteKey)
	}
}

// shadowed reports whether something stands before a learned route for p.
func (g *Graph) shadowed(p netip.Prefix) bool {
	if p.IsSingleIP() && len(g.claims[p.Addr()]) > 0 || g.ownBlock(p) {
		return true
	}
	if _, ok := g.fixed[p]; ok {
		return true
	}
	return g.site.own(p)
}

// Fix makes the given routes, and no others, the ones that the user wrote for
// reaching BGP peers: destination and gateways. It returns how the plan
// changes. The map is the caller's again afterwards.
func (g *Graph) Fix(routes map[netip.Prefix]plan.Hops) plan.Delta {
	for p := range g.fixed {
		g.touchPrefix(p)
	}
	next := make(map[netip.Prefix]plan.Hops, len(routes))
	for p, via := range routes {
		g.touchPrefix(p)
		next[p] = via
	}
	g.fixed = next
	return g.flush()
}

// learned is the routes that BGP learned, small: hundreds of thousands of
// prefixes share few next hops, so a prefix maps to the number of its hops,
// and nothing in the map is a pointer that the garbage collector would follow.
type learned struct {
	ids    map[prefixKey]uint32
	stale  map[prefixKey]struct{} // learned before the last Reset and not since
	hops   []hopSet               // by number
	free   []uint32               // numbers not in use
	byHops map[plan.Hops]uint32

	// The last hops asked for: routes come in long runs of the same ones.
	lastAddrs []netip.Addr
	lastHops  plan.Hops
}

// hopSet is hops with the number of prefixes that have them.
type hopSet struct {
	via   plan.Hops
	users int
}

func newLearned() learned {
	return learned{ids: map[prefixKey]uint32{}, byHops: map[plan.Hops]uint32{}}
}

func (l *learned) get(p netip.Prefix) (plan.Hops, bool) {
	id, ok := l.ids[keyOf(p)]
	if !ok {
		return "", false
	}
	return l.hops[id].via, true
}

// put reports whether the hops of p changed. addrs must be sorted.
func (l *learned) put(p netip.Prefix, addrs []netip.Addr) bool {
	if !slices.Equal(addrs, l.lastAddrs) {
		l.lastAddrs, l.lastHops = slices.Clone(addrs), plan.MakeHops(addrs...)
	}
	k := keyOf(p)
	delete(l.stale, k)
	old, had := l.ids[k]
	if had && l.hops[old].via == l.lastHops {
		return false
	}
	if had {
		l.release(old)
	}
	l.ids[k] = l.take(l.lastHops)
	return true
}

// delete reports whether p was there.
func (l *learned) delete(p netip.Prefix) bool {
	k := keyOf(p)
	delete(l.stale, k)
	id, had := l.ids[k]
	if had {
		l.release(id)
		delete(l.ids, k)
	}
	return had
}

func (l *learned) take(via plan.Hops) uint32 {
	id, ok := l.byHops[via]
	switch {
	case ok:
	case len(l.free) > 0:
		id, l.free = l.free[len(l.free)-1], l.free[:len(l.free)-1]
		l.hops[id].via = via
	default:
		id = uint32(len(l.hops))
		l.hops = append(l.hops, hopSet{via: via})
	}
	l.byHops[via] = id
	l.hops[id].users++
	return id
}

func (l *learned) release(id uint32) {
	if l.hops[id].users--; l.hops[id].users == 0 {
		delete(l.byHops, l.hops[id].via)
		l.hops[id].via = ""
		l.free = append(l.free, id)
	}
}

func (l *learned) all() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for k := range l.ids {
			if !yield(k.prefix()) {
				return
			}
		}
	}
}

// prefixKey is a prefix without pointers: 16 bytes of address, IPv4 mapped
// into IPv6, and the length in the prefix's own family. As no prefix is
// 4-in-6, this is unambiguous.
type prefixKey [17]byte

func keyOf(p netip.Prefix) (k prefixKey) {
	a := p.Addr().As16()
	copy(k[:], a[:])
	k[16] = byte(p.Bits())
	return k
}

func (k prefixKey) prefix() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte(k[:16])).Unmap(), int(k[16]))
}
