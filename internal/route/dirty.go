package route

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// maybe is a thing that is wanted, or none.
type maybe[T any] struct {
	v  T
	ok bool
}

// change is a new version of an object, nil for none, in the place of an old one.
type change struct {
	key    model.Key
	old, v model.Value
}

// dirty is how things looked before the first change that touches them.
type dirty struct {
	routes    map[netip.Prefix]maybe[plan.Route]
	neighbors map[netip.Addr]maybe[plan.Neighbor]
	links     map[string]maybe[plan.Link]
	vteps     map[plan.VTEPKey]maybe[plan.VTEP]
	settings  bool // settings, pools or this node's place may have changed
}

func newDirty() dirty {
	return dirty{
		routes:    map[netip.Prefix]maybe[plan.Route]{},
		neighbors: map[netip.Addr]maybe[plan.Neighbor]{},
		links:     map[string]maybe[plan.Link]{},
		vteps:     map[plan.VTEPKey]maybe[plan.VTEP]{},
	}
}

// replace puts one version of an object in the place of another.
func (g *Graph) replace(c change) {
	for _, v := range []model.Value{c.old, c.v} {
		if v != nil {
			g.touch(v)
		}
	}
	if c.old != nil {
		g.unindex(c.key, c.old)
		delete(g.known, c.key)
	}
	if c.v != nil {
		g.known[c.key] = c.v
		g.index(c.key, c.v)
	}
}

// touch notes how everything that v bears upon looks before a change.
func (g *Graph) touch(v model.Value) {
	switch v := v.(type) {
	case model.Endpoint:
		g.touchLink(v.Link)
		for _, a := range v.Addrs {
			g.touchAddr(a)
		}
	case block:
		g.trouble.stuckKnown = false
		for p := range v.homes {
			g.touchPrefix(p)
		}
	case member:
		g.trouble.stuckKnown = false
		for _, p := range g.homes[v.name] {
			g.touchPrefix(p)
		}
		for _, t := range v.vteps() {
			g.touchVTEP(t.VTEPKey)
		}
	default:
		g.dirty.settings = true
	}
}

func (g *Graph) touchPrefix(p netip.Prefix) {
	if _, ok := g.dirty.routes[p]; !ok {
		g.dirty.routes[p] = g.route(p)
	}
}

func (g *Graph) touchAddr(a netip.Addr) {
	g.touchPrefix(host(a))
	if _, ok := g.dirty.neighbors[a]; !ok {
		g.dirty.neighbors[a] = g.neighbor(a)
	}
}

func (g *Graph) touchLink(name string) {
	if _, ok := g.dirty.links[name]; !ok {
		g.dirty.links[name] = g.link(name)
	}
}

func (g *Graph) touchVTEP(k plan.VTEPKey) {
	if _, ok := g.dirty.vteps[k]; !ok {
		g.dirty.vteps[k] = g.vtep(k)
	}
}

// touchLearned touches the learned routes through nodes that are about to change. It
// looks at all learned routes, once a batch, if one of the nodes is the gateway of any.
func (g *Graph) touchLearned(changes []change) {
	if !g.pools.encapsulate() || len(g.learned.ids) == 0 {
		return
	}
	through := map[uint32]bool{}
	for _, c := range changes {
		for _, v := range []model.Value{c.old, c.v} {
			m, _ := v.(member)
			for _, a := range m.addr {
				if a.IsValid() {
					if id, ok := g.learned.byHops[plan.MakeHops(a)]; ok {
						through[id] = true
					}
				}
			}
		}
	}
	if len(through) == 0 {
		return
	}
	for k, id := range g.learned.ids {
		if through[id] {
			g.touchPrefix(k.prefix())
		}
	}
}

// touchHomes touches the routes to what blocks have, of which in reports true.
func (g *Graph) touchHomes(in func(netip.Prefix) bool) {
	for p := range g.blocks {
		if in(p) {
			g.touchPrefix(p)
		}
	}
	for a := range g.loans {
		if p := host(a); in(p) {
			g.touchPrefix(p)
		}
	}
}

// touchRemote touches the routes to elsewhere of which in reports true.
func (g *Graph) touchRemote(in func(netip.Prefix) bool) {
	g.touchHomes(in)
	for p := range g.learned.all() {
		if in(p) {
			g.touchPrefix(p)
		}
	}
}

func always(netip.Prefix) bool { return true }

// resettle works out again what holds for the node as a whole, and touches whatever looks
// different then.
func (g *Graph) resettle() (devices [tunnels]maybe[plan.Device]) {
	for t := range devices {
		devices[t] = g.device(tunnel(t))
	}
	list := g.poolList()
	settings := SettingsFor(g.self(), maps.Values(g.configs), g.options.Env...)
	ordered := poolsOf(list, settings.Tunnel)
	now := siteFor(g.options, settings, g.self(), list, g.underlay)
	if g.site.form != now.form {
		for a := range g.claims {
			g.touchPrefix(host(a))
		}
		for p := range g.fixed {
			g.touchPrefix(p)
		}
		g.touchRemote(always)
	}
	g.touchPools(ordered)
	if was := g.site.reach(); was != now.reach() {
		g.touchReach(was.addr, now.addr)
	}
	g.settings, g.pools, g.site = settings, ordered, now
	g.carries = now.noBGP || ordered.encapsulate()
	g.trouble.site = now.problems(g.options.Node, list, settings.Tunnel)
	g.trouble.stuckKnown = false
	return devices
}

// poolList is all pools, in no order.
func (g *Graph) poolList() []model.Pool {
	var out []model.Pool
	for _, v := range g.configs {
		if p, ok := v.(model.Pool); ok {
			out = append(out, p)
		}
	}
	return out
}

// touchPools touches what is in pools that change.
func (g *Graph) touchPools(now pools) {
	if !g.carries && !now.encapsulate() {
		return // what comes of pools without encapsulation is the same for all
	}
	var changed []netip.Prefix
	for i, list := range []pools{g.pools, now} {
		other := []pools{now, g.pools}[i]
		for _, p := range list {
			if !slices.Contains(other, p) {
				changed = append(changed, p.cidr)
			}
		}
	}
	if len(changed) > 0 {
		g.touchRemote(func(p netip.Prefix) bool {
			return slices.ContainsFunc(changed, func(c netip.Prefix) bool { return within(c, p) })
		})
	}
}

// touchReach touches what depends on the node's addresses and on which tunnels there are, in
// pools that stay as they are.
func (g *Graph) touchReach(was, now [2]netip.Prefix) {
	for _, a := range slices.Concat(was[:], now[:]) {
		if a.IsValid() {
			g.touchPrefix(a.Masked())
			g.touchPrefix(host(a.Addr()))
		}
	}
	for k := range g.vteps {
		g.touchVTEP(k)
	}
	if g.carries {
		g.touchRemote(func(p netip.Prefix) bool { return g.site.noBGP || g.pools.of(p).tunnel != plain })
	}
}

// flush says what became of everything that is dirty, and cleans it.
func (g *Graph) flush() plan.Delta {
	var d plan.Delta
	if g.opening {
		return d
	}
	settings := g.dirty.settings
	if settings {
		for t, was := range g.resettle() {
			differ(&d.PutDevices, &d.DeleteDevices, was, g.device(tunnel(t)), func(v plan.Device) string { return v.Name })
		}
	}
	if !settings && len(g.dirty.routes)+len(g.dirty.links)+len(g.dirty.vteps) == 0 {
		return d
	}
	for p, was := range g.dirty.routes {
		differ(&d.PutRoutes, &d.DeleteRoutes, was, g.route(p), keyOfRoute)
	}
	for a, was := range g.dirty.neighbors {
		differ(&d.PutNeighbors, &d.DeleteNeighbors, was, g.neighbor(a), func(n plan.Neighbor) plan.NeighborKey { return n.NeighborKey })
	}
	for name, was := range g.dirty.links {
		differ(&d.PutLinks, &d.DeleteLinks, was, g.link(name), func(l plan.Link) string { return l.Name })
	}
	for k, was := range g.dirty.vteps {
		differ(&d.PutVTEPs, &d.DeleteVTEPs, was, g.vtep(k), func(v plan.VTEP) plan.VTEPKey { return v.VTEPKey })
	}
	g.dirty = newDirty()
	sortDelta(d)
	return d
}

func keyOfRoute(r plan.Route) plan.RouteKey { return r.RouteKey }

// differ adds to puts and dels what makes was into now.
func differ[T comparable, K comparable](puts *[]T, dels *[]K, was, now maybe[T], key func(T) K) {
	if now.ok && now != was {
		*puts = append(*puts, now.v)
	}
	if was.ok && (!now.ok || key(was.v) != key(now.v)) {
		*dels = append(*dels, key(was.v))
	}
}
