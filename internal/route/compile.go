package route

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Compile is the whole plan of a node in a world, from nothing: what a [Graph]
// arrives at step by step, the slow and obvious way. The routes that BGP
// learned and those that the user fixed are by prefix.
func Compile(node string, w model.World, learned map[netip.Prefix]bgp.Learned, fixed map[netip.Prefix]plan.Hops, env ...model.FelixConfig) plan.Node {
	self, _ := w[model.Node{Name: node}.Key()].(model.Node)
	self.Name = node
	s := SettingsFor(self, maps.Values(w), env...)

	// Weakest first: what comes later replaces what was put for the same prefix.
	routes := map[netip.Prefix]plan.Route{}
	for p, l := range learned {
		if !slices.Contains(ownPrefixes(self), p) {
			routes[p] = s.remote(p, plan.MakeHops(l.NextHops...))
		}
	}
	for p, via := range fixed {
		routes[p] = s.remote(p, via)
	}
	for _, v := range w {
		if b, ok := v.(model.Block); ok && concerns(node, b) && !b.CIDR.IsSingleIP() {
			routes[b.CIDR] = blackhole(b.CIDR)
		}
	}
	links, neighbors := map[string]plan.Link{}, map[netip.Addr]maybe[plan.Neighbor]{}
	for _, e := range slices.Backward(endpoints(node, w)) {
		l := links[e.Link]
		l.Name = e.Link
		for _, a := range e.Addrs {
			l.V4, l.V6 = l.V4 || a.Is4(), l.V6 || a.Is6()
			routes[host(a)] = s.workload(a, e.Link)
			neighbors[a] = neighborOf(e, a)
		}
		links[e.Link] = l
	}
	return fold(routes, links, neighbors)
}

// endpoints are those on node that have a link, by key.
func endpoints(node string, w model.World) []model.Endpoint {
	var out []model.Endpoint
	for _, v := range w {
		if e, ok := v.(model.Endpoint); ok && e.Node == node && e.Link != "" {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b model.Endpoint) int { return compareKeys(a.Key(), b.Key()) })
	return out
}

func fold(routes map[netip.Prefix]plan.Route, links map[string]plan.Link, neighbors map[netip.Addr]maybe[plan.Neighbor]) plan.Node {
	var d plan.Delta
	d.PutRoutes = slices.Collect(maps.Values(routes))
	d.PutLinks = slices.Collect(maps.Values(links))
	for _, n := range neighbors {
		if n.ok {
			d.PutNeighbors = append(d.PutNeighbors, n.v)
		}
	}
	return plan.Node{}.Apply(d)
}
