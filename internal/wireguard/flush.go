package wireguard

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// flush says how everything that is dirty differs from what was emitted.
func (g *Graph) flush() plan.Delta {
	var d plan.Delta
	if g.dirty.self {
		g.flushSelf(&d)
	}
	if g.dirty.all {
		g.touchAll()
	}
	gone := map[plan.WireGuardPeerKey]struct{}{}
	for name := range g.dirty.nodes {
		for p := range g.won[name] {
			g.dirty.prefixes[p] = struct{}{}
		}
		for f := range g.ends {
			g.flushEnd(&d, gone, f, name)
		}
	}
	for _, p := range d.PutPeers { // another node may have got the key
		delete(gone, p.WireGuardPeerKey)
	}
	d.DeletePeers = slices.Collect(maps.Keys(gone))
	for p := range g.dirty.prefixes {
		g.flushRoute(&d, p)
	}
	if len(g.dirty.nodes)+len(g.dirty.prefixes) > 0 || g.dirty.self || g.dirty.all {
		g.dirty = newDirty()
	}
	sortDelta(d)
	return d
}

// flushSelf works out devices and rules; if anything of this node has changed then
// everything may look different.
func (g *Graph) flushSelf(d *plan.Delta) {
	n := g.self()
	now := sidesOf(n, settingsFor(n, maps.Values(g.configs), g.opts.Env), g.underlay, g.keys)
	was := g.sides
	if now == was {
		return
	}
	g.sides, g.dirty.all, g.filter.stale = now, true, true
	devices, rules := map[string]plan.Device{}, map[plan.RoutingRule]struct{}{}
	for f := range now {
		if dev, ok := now[f].device(); ok {
			devices[dev.Name] = dev
		}
		if r, ok := now[f].rule(f); ok {
			rules[r] = struct{}{}
		}
	}
	for f := range was {
		if dev, ok := was[f].device(); ok {
			switch next, still := devices[dev.Name]; {
			case !still:
				d.DeleteDevices = append(d.DeleteDevices, dev.Name)
			case next == dev:
				delete(devices, dev.Name)
			}
		}
		if r, ok := was[f].rule(f); ok {
			if _, still := rules[r]; still {
				delete(rules, r)
			} else {
				d.DeleteRules = append(d.DeleteRules, r)
			}
		}
	}
	d.PutDevices = slices.Collect(maps.Values(devices))
	d.PutRules = slices.Collect(maps.Keys(rules))
}

func (g *Graph) touchAll() {
	for k := range g.known {
		if k.Kind == model.KindNode {
			g.dirty.nodes[k.Name] = struct{}{}
		}
	}
	for _, m := range g.ends {
		for name := range m {
			g.dirty.nodes[name] = struct{}{}
		}
	}
	for p := range g.claims {
		g.dirty.prefixes[p] = struct{}{}
	}
	for p := range g.pools {
		g.dirty.prefixes[p] = struct{}{}
	}
	for p := range g.routes {
		g.dirty.prefixes[p] = struct{}{}
	}
}

func (g *Graph) flushEnd(d *plan.Delta, gone map[plan.WireGuardPeerKey]struct{}, f int, name string) {
	was, had := g.ends[f][name]
	now, ok := g.end(f, name)
	if had && (!ok || was.peer.WireGuardPeerKey != now.peer.WireGuardPeerKey) {
		gone[was.peer.WireGuardPeerKey] = struct{}{}
	}
	if !ok {
		delete(g.ends[f], name)
		return
	}
	if !had || was.peer != now.peer {
		d.PutPeers = append(d.PutPeers, now.peer)
	}
	g.ends[f][name] = now
}

// end is a node as a peer.
func (g *Graph) end(f int, name string) (end, bool) {
	s := g.sides[f]
	if name == g.opts.Node || !s.usable() {
		return end{}, false
	}
	n := g.node(name)
	key := keyOf(n, f)
	if key == (plan.PublicKey{}) {
		return end{}, false
	}
	var allowed []netip.Prefix
	for p := range g.won[name] {
		if p.Addr().Is6() == (f == 1) {
			allowed = append(allowed, p)
		}
	}
	theirs := settingsFor(n, maps.Values(g.configs), g.opts.Env)[f]
	return s.peer(n, f, theirs, len(g.holders[f][key]) == 1, plan.MakePrefixes(allowed...))
}

func (g *Graph) flushRoute(d *plan.Delta, p netip.Prefix) {
	f := family(p.Addr().Is6())
	c := g.winner(p)
	e, isPeer := g.ends[f][c.node]
	now, ok := g.sides[f].route(p, g.opts.Node, c, e, isPeer, g.pools[p] > 0, c.rank == address && g.pooled(p))
	was, had := g.routes[p]
	if had && (!ok || was.RouteKey != now.RouteKey) {
		d.DeleteRoutes = append(d.DeleteRoutes, was.RouteKey)
	}
	if !ok {
		delete(g.routes, p)
		return
	}
	if !had || was != now {
		d.PutRoutes = append(d.PutRoutes, now)
		g.routes[p] = now
	}
}

// pooled reports whether p is in the range of a pool.
func (g *Graph) pooled(p netip.Prefix) bool {
	for pool := range g.pools {
		if pool.Overlaps(p) {
			return true
		}
	}
	return false
}

// sortDelta makes a delta that was collected from maps the same each time. Of routes
// those that drop come last, so that what they must not catch is thrown back before.
func sortDelta(d plan.Delta) {
	slices.SortFunc(d.PutRoutes, func(a, b plan.Route) int {
		return cmp.Or(cmp.Compare(order(a.Type), order(b.Type)), compareRouteKeys(a.RouteKey, b.RouteKey))
	})
	slices.SortFunc(d.DeleteRoutes, compareRouteKeys)
	slices.SortFunc(d.PutPeers, func(a, b plan.WireGuardPeer) int { return comparePeerKeys(a.WireGuardPeerKey, b.WireGuardPeerKey) })
	slices.SortFunc(d.DeletePeers, comparePeerKeys)
	slices.SortFunc(d.PutDevices, func(a, b plan.Device) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.DeleteDevices)
	slices.SortFunc(d.PutRules, compareRules)
	slices.SortFunc(d.DeleteRules, compareRules)
}

func order(t plan.RouteType) int {
	switch t {
	case plan.Throw:
		return 0
	case plan.Blackhole:
		return 2
	}
	return 1
}

func compareRouteKeys(a, b plan.RouteKey) int {
	return cmp.Or(a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(b.Dst.Bits(), a.Dst.Bits()), cmp.Compare(a.Table, b.Table))
}

func comparePeerKeys(a, b plan.WireGuardPeerKey) int {
	return cmp.Or(strings.Compare(a.Link, b.Link), strings.Compare(string(a.Key[:]), string(b.Key[:])))
}

func compareRules(a, b plan.RoutingRule) int { return strings.Compare(a.String(), b.String()) }
