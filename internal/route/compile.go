package route

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Compile is the whole plan of a node in a world, from nothing: what a [Graph]
// arrives at step by step, the slow and obvious way. The routes that BGP
// learned and those that the user fixed are by prefix.
func Compile(o Options, u Underlay, w model.World, learned map[netip.Prefix]bgp.Learned, fixed map[netip.Prefix]plan.Hops) plan.Node {
	c := newCompiler(o, u, w)
	routes := c.remote(learned)
	for p, via := range fixed {
		routes[p] = c.site.form.remote(p, via)
	}
	for _, v := range w {
		if b, ok := v.(model.Block); ok && b.Owner == model.HostAffinity(o.Node) && !b.Deleted && !b.CIDR.IsSingleIP() {
			routes[b.CIDR] = blackhole(b.CIDR)
		}
	}
	links, neighbors := map[string]plan.Link{}, map[netip.Addr]maybe[plan.Neighbor]{}
	for _, e := range slices.Backward(endpoints(o.Node, w)) {
		l := links[e.Link]
		l.Name = e.Link
		for _, a := range e.Addrs {
			l.V4, l.V6 = l.V4 || a.Is4(), l.V6 || a.Is6()
			routes[host(a)] = c.site.form.workload(a, e.Link)
			neighbors[a] = neighborOf(e, a)
		}
		links[e.Link] = l
	}
	return c.fold(routes, links, neighbors)
}

// compiler is a world as Compile looks at it.
type compiler struct {
	world model.World
	pools []model.Pool // the one that counts for a prefix comes first
	nodes []model.Node // others than this one, by name
	tun   Tunnel
	site  site
}

func newCompiler(o Options, u Underlay, w model.World) compiler {
	self := model.Node{Name: o.Node}
	c := compiler{world: w}
	for _, v := range w {
		switch v := v.(type) {
		case model.Pool:
			c.pools = append(c.pools, v)
		case model.Node:
			if v.Name == o.Node {
				self = v
			} else {
				c.nodes = append(c.nodes, v)
			}
		}
	}
	slices.SortFunc(c.nodes, func(a, b model.Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(c.pools, func(a, b model.Pool) int {
		return cmp.Or(b.CIDR.Bits()-a.CIDR.Bits(), a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	s := SettingsFor(self, maps.Values(w), o.Env...)
	c.tun, c.site = s.Tunnel, siteFor(o, s, self, c.pools, u)
	return c
}

// remote is the routes to elsewhere, weakest first: what comes later replaces what was put
// for the same prefix.
func (c compiler) remote(learned map[netip.Prefix]bgp.Learned) map[netip.Prefix]plan.Route {
	routes := map[netip.Prefix]plan.Route{}
	for p, l := range learned {
		at := slices.IndexFunc(c.nodes, func(n model.Node) bool {
			return len(l.NextHops) == 1 && n.Addr(p.Addr().Is6()).Addr() == l.NextHops[0]
		})
		if e := c.encap(p); e.tunnel == plain || at < 0 {
			routes[p] = c.site.form.remote(p, plan.MakeHops(l.NextHops...))
		} else if r := c.site.towards(p, e, memberOf(c.nodes[at])); r.ok {
			routes[p] = r.v
		}
	}
	for p, node := range c.homes() {
		e := c.encap(p)
		at := slices.IndexFunc(c.nodes, func(n model.Node) bool { return n.Name == node })
		if at < 0 || e.tunnel == plain && !c.site.noBGP {
			continue
		}
		if r := c.site.towards(p, e, memberOf(c.nodes[at])); r.ok {
			routes[p] = r.v
		}
	}
	maps.DeleteFunc(routes, func(p netip.Prefix, _ plan.Route) bool { return c.site.own(p) })
	return routes
}

// homes says on which node a prefix is: a block with its owner, or a single address with
// who took it from the smallest block that has it.
func (c compiler) homes() map[netip.Prefix]string {
	var blocks []model.Block
	for _, v := range c.world {
		if b, ok := v.(model.Block); ok {
			blocks = append(blocks, b)
		}
	}
	slices.SortFunc(blocks, func(a, b model.Block) int { return a.CIDR.Bits() - b.CIDR.Bits() })
	homes := map[netip.Prefix]string{}
	for _, b := range blocks {
		for p, node := range b.Homes() {
			homes[p] = node
		}
	}
	for _, b := range blocks {
		if b.Owner.Type == model.AffinityHost && !b.Deleted {
			homes[b.CIDR] = b.Owner.Node
		}
	}
	return homes
}

func (c compiler) encap(p netip.Prefix) encap {
	for _, q := range c.pools {
		if q.CIDR.Overlaps(p) && q.CIDR.Bits() <= p.Bits() {
			e, _ := encapOf(q, c.tun)
			return e
		}
	}
	return encap{}
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

func (c compiler) fold(routes map[netip.Prefix]plan.Route, links map[string]plan.Link, neighbors map[netip.Addr]maybe[plan.Neighbor]) plan.Node {
	var d plan.Delta
	d.PutRoutes = slices.Collect(maps.Values(routes))
	d.PutLinks = slices.Collect(maps.Values(links))
	for _, n := range neighbors {
		if n.ok {
			d.PutNeighbors = append(d.PutNeighbors, n.v)
		}
	}
	for _, v := range c.site.devices {
		if v.Name != "" {
			d.PutDevices = append(d.PutDevices, v)
		}
	}
	for _, n := range slices.Backward(c.nodes) { // the first by name replaces the others
		d.PutVTEPs = append(d.PutVTEPs, memberOf(n).vteps()...)
	}
	out := plan.Node{}.Apply(d)
	maps.DeleteFunc(out.VTEPs, func(k plan.VTEPKey, a plan.VTEPAttrs) bool {
		return !c.site.vtep(plan.VTEP{VTEPKey: k, VTEPAttrs: a})
	})
	return out
}
