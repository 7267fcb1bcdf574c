// Package route decides which routes, workload links and neighbour entries one
// node must have. It is told what changed in the cluster and what BGP learned,
// and answers with what changes on the node.
//
//	model.Batch ──────► Graph.Step ──┐
//	bgp.LearnedBatch ─► Graph.Learn ─┼─► plan.Delta ─► kernel/fib
//	peering's routes ─► Graph.Fix ───┘
//
// For one prefix there is one route. Where several would fit, the first of
// this list stands, and the others take over when it goes:
//
//  1. the address of a workload on this node: unicast to its link
//  2. a block of addresses that this node owns: blackhole
//  3. a route to a BGP peer that the user wrote (reachableBy)
//  4. a route learned by BGP; but never one for the subnet or the address of
//     the node itself, which are the kernel's own
//
// It is deliberately no RIB: choosing among paths is package bgp's trade, and
// resolving next hops is the kernel door's.
//
// Invariant: what was emitted is a function of what is known. A Graph keeps no
// copy of it: before a change touches a prefix it notes what the prefix looks
// like, and afterwards compares. [Compile] is that function, slow and obvious.
package route

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Graph is the incremental form of [Compile]. It is for one goroutine.
type Graph struct {
	node string
	env  []model.FelixConfig

	// known is what concerns this node, last good versions. stale are the keys
	// of known that the snapshot in progress has not mentioned yet.
	known map[model.Key]model.Value
	stale map[model.Key]struct{}

	claims    map[netip.Addr][]model.Key // who has an address, sorted: the first wins
	contested int                        // addresses that several have: almost always none
	links     map[string][]model.Key     // endpoints by host side link
	blocks    map[netip.Prefix]struct{}  // own, of more than one address
	fixed     map[netip.Prefix]plan.Hops
	learned   learned

	settings Settings
	dirty    dirty
}

// dirty is how things looked before the first change that touches them.
type dirty struct {
	routes    map[netip.Prefix]maybe[plan.Route]
	neighbors map[netip.Addr]maybe[plan.Neighbor]
	links     map[string]maybe[plan.Link]
	settings  bool // settings may have changed
}

// maybe is a thing that is wanted, or none.
type maybe[T any] struct {
	v  T
	ok bool
}

// NewGraph returns a Graph for the node of that name which knows nothing yet.
// What env sets wins over every FelixConfiguration, first over later: the
// environment variables and the configuration file of the agent.
func NewGraph(node string, env ...model.FelixConfig) *Graph {
	return &Graph{
		node: node, env: env,
		known:    map[model.Key]model.Value{},
		claims:   map[netip.Addr][]model.Key{},
		links:    map[string][]model.Key{},
		blocks:   map[netip.Prefix]struct{}{},
		learned:  newLearned(),
		settings: SettingsFor(model.Node{Name: node}, nil, env...),
		dirty:    newDirty(),
	}
}

func newDirty() dirty {
	return dirty{
		routes:    map[netip.Prefix]maybe[plan.Route]{},
		neighbors: map[netip.Addr]maybe[plan.Neighbor]{},
		links:     map[string]maybe[plan.Link]{},
	}
}

// Settings is what holds for this node now.
func (g *Graph) Settings() Settings { return g.settings }

// Step takes in a batch and returns how the plan changes. During a snapshot
// what was known stays until the batch with Synced, so a snapshot that equals
// what is known changes nothing. The slices of the result are sorted.
func (g *Graph) Step(b model.Batch) plan.Delta {
	if b.Reset {
		g.stale = make(map[model.Key]struct{}, len(g.known))
		for k := range g.known {
			g.stale[k] = struct{}{}
		}
	}
	for _, in := range b.Invalids {
		delete(g.stale, in.Key) // the last good version stays
	}
	for _, v := range b.Puts {
		k := v.Key()
		delete(g.stale, k)
		if !concerns(g.node, v) {
			v = nil
		}
		g.replace(k, v)
	}
	for _, k := range b.Deletes {
		delete(g.stale, k)
		g.replace(k, nil)
	}
	if b.Synced {
		for k := range g.stale {
			g.replace(k, nil)
		}
		g.stale = nil
	}
	return g.flush()
}

// concerns reports whether v can make a difference to the plan of node.
func concerns(node string, v model.Value) bool {
	switch v := v.(type) {
	case model.Endpoint:
		return v.Node == node
	case model.Block:
		return v.Owner == model.HostAffinity(node) && !v.Deleted
	case model.Node:
		return v.Name == node
	case model.FelixConfig:
		return v.Name == "default" || v.Name == "node."+node || v.NodeSelector != nil
	case model.BGPConfig:
		return v.Name == "default" || v.Name == "node."+node
	}
	return false
}

// replace makes v, nil for none, the known version of k.
func (g *Graph) replace(k model.Key, v model.Value) {
	old, had := g.known[k]
	if !had && v == nil {
		return
	}
	for _, o := range []model.Value{old, v} {
		if o != nil {
			g.touch(o)
		}
	}
	if had {
		g.unindex(k, old)
		delete(g.known, k)
	}
	if v != nil {
		g.known[k] = v
		g.index(k, v)
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
	case model.Block:
		g.touchPrefix(v.CIDR)
	case model.Node:
		for _, p := range ownPrefixes(v) {
			g.touchPrefix(p)
		}
		g.dirty.settings = true
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

func (g *Graph) index(k model.Key, v model.Value) {
	switch v := v.(type) {
	case model.Endpoint:
		if v.Link == "" {
			return // there is nothing to route to yet
		}
		g.links[v.Link] = append(g.links[v.Link], k)
		for _, a := range v.Addrs {
			if at, found := slices.BinarySearchFunc(g.claims[a], k, compareKeys); !found {
				if g.claims[a] = slices.Insert(g.claims[a], at, k); len(g.claims[a]) == 2 {
					g.contested++
				}
			}
		}
	case model.Block:
		if !v.CIDR.IsSingleIP() {
			g.blocks[v.CIDR] = struct{}{}
		}
		g.known[k] = model.Block{CIDR: v.CIDR, Owner: v.Owner} // the rest is large and of no use here
	}
}

func (g *Graph) unindex(k model.Key, v model.Value) {
	switch v := v.(type) {
	case model.Endpoint:
		removeKey(g.links, v.Link, k)
		for _, a := range v.Addrs {
			had := len(g.claims[a])
			if removeKey(g.claims, a, k); had == 2 && len(g.claims[a]) == 1 {
				g.contested--
			}
		}
	case model.Block:
		delete(g.blocks, v.CIDR)
	}
}

func removeKey[K comparable](m map[K][]model.Key, at K, k model.Key) {
	i := slices.Index(m[at], k)
	if i < 0 {
		return
	}
	if m[at] = slices.Delete(m[at], i, i+1); len(m[at]) == 0 {
		delete(m, at)
	}
}

// route is what the node's routing table must have for p.
func (g *Graph) route(p netip.Prefix) maybe[plan.Route] {
	if keys := g.claims[p.Addr()]; p.IsSingleIP() && len(keys) > 0 {
		e := g.known[keys[0]].(model.Endpoint)
		return maybe[plan.Route]{g.settings.workload(p.Addr(), e.Link), true}
	}
	if _, ok := g.blocks[p]; ok {
		return maybe[plan.Route]{blackhole(p), true}
	}
	if via, ok := g.fixed[p]; ok {
		return maybe[plan.Route]{g.settings.remote(p, via), true}
	}
	if via, ok := g.learned.get(p); ok && !slices.Contains(ownPrefixes(g.self()), p) {
		return maybe[plan.Route]{g.settings.remote(p, via), true}
	}
	return maybe[plan.Route]{}
}

// neighbor is the neighbour entry for a, known if its workload's MAC is.
func (g *Graph) neighbor(a netip.Addr) maybe[plan.Neighbor] {
	if keys := g.claims[a]; len(keys) > 0 {
		return neighborOf(g.known[keys[0]].(model.Endpoint), a)
	}
	return maybe[plan.Neighbor]{}
}

func neighborOf(e model.Endpoint, a netip.Addr) maybe[plan.Neighbor] {
	return maybe[plan.Neighbor]{
		plan.Neighbor{NeighborKey: plan.NeighborKey{Link: e.Link, Addr: a}, MAC: e.MAC}, e.MAC != "",
	}
}

// link is the workload link of that name with the families of its endpoints.
func (g *Graph) link(name string) maybe[plan.Link] {
	l := plan.Link{Name: name}
	for _, k := range g.links[name] {
		for _, a := range g.known[k].(model.Endpoint).Addrs {
			l.V4, l.V6 = l.V4 || a.Is4(), l.V6 || !a.Is4()
		}
	}
	return maybe[plan.Link]{l, len(g.links[name]) > 0}
}

// self is this node's own object; one with only a name while it is not known.
func (g *Graph) self() model.Node {
	if n, ok := g.known[model.Node{Name: g.node}.Key()].(model.Node); ok {
		return n
	}
	return model.Node{Name: g.node}
}

// flush says what became of everything that is dirty, and cleans it.
func (g *Graph) flush() plan.Delta {
	if g.dirty.settings {
		g.resettle()
	}
	var d plan.Delta
	for p, was := range g.dirty.routes {
		put, del := change(was, g.route(p), func(r plan.Route) plan.RouteKey { return r.RouteKey })
		d.PutRoutes, d.DeleteRoutes = append(d.PutRoutes, put...), append(d.DeleteRoutes, del...)
	}
	for a, was := range g.dirty.neighbors {
		put, del := change(was, g.neighbor(a), func(n plan.Neighbor) plan.NeighborKey { return n.NeighborKey })
		d.PutNeighbors, d.DeleteNeighbors = append(d.PutNeighbors, put...), append(d.DeleteNeighbors, del...)
	}
	for name, was := range g.dirty.links {
		put, del := change(was, g.link(name), func(l plan.Link) string { return l.Name })
		d.PutLinks, d.DeleteLinks = append(d.PutLinks, put...), append(d.DeleteLinks, del...)
	}
	if len(g.dirty.routes)+len(g.dirty.links) > 0 || g.dirty.settings {
		g.dirty = newDirty()
	}
	sortDelta(d)
	return d
}

// resettle works the settings out again and, if they change what routes look
// like, touches them all.
func (g *Graph) resettle() {
	now := SettingsFor(g.self(), maps.Values(g.known), g.env...)
	if now.Form != g.settings.Form {
		for a := range g.claims {
			g.touchPrefix(host(a))
		}
		for p := range g.fixed {
			g.touchPrefix(p)
		}
		for p := range g.learned.all() {
			g.touchPrefix(p)
		}
	}
	g.settings = now
}

// change says what to put and what to delete so that was becomes now.
func change[T comparable, K comparable](was, now maybe[T], key func(T) K) (put []T, del []K) {
	if now.ok && now != was {
		put = []T{now.v}
	}
	if was.ok && (!now.ok || key(was.v) != key(now.v)) {
		del = []K{key(was.v)}
	}
	return put, del
}

// host is the prefix that holds a alone.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ownPrefixes are the subnets and addresses of n itself.
func ownPrefixes(n model.Node) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{n.IPv4, n.IPv6} {
		if p.IsValid() {
			out = append(out, p.Masked(), host(p.Addr()))
		}
	}
	return out
}
