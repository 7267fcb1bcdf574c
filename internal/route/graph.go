// Package route decides which routes, workload links and neighbour entries one
// node must have, and which tunnels to other nodes. It is told what changed in the
// cluster and what BGP learned, and answers with what changes on the node.
//
//	model.Batch ──────► Graph.Step ───────┐
//	bgp.LearnedBatch ─► Graph.Learn ──────┼─► plan.Delta ─► kernel/fib, kernel/device
//	peering's routes ─► Graph.Fix ────────┤
//	MTU of the NICs ──► Graph.SetUnderlay ┘
//
// For one prefix there is one route. Where several would fit, the first of
// this list stands, and the others take over when it goes:
//
//  1. the address of a workload on this node: unicast to its link
//  2. a block of addresses that this node owns: blackhole
//  3. a route to a BGP peer that the user wrote (reachableBy)
//  4. what the datastore says another node has, a block or an address borrowed from one:
//     only in pools that are encapsulated, or where there is no BGP
//  5. a route learned by BGP; in a pool that is encapsulated, through the tunnel to the
//     node that is its gateway
//
// but, of the last two, never one for the subnet or the address of the node itself, which
// are the kernel's own.
//
// It is deliberately no RIB: choosing among paths is package bgp's trade, and
// resolving next hops is the kernel door's. WireGuard is package wireguard's; here it counts
// for MTUs only.
//
// Invariant: what was emitted is a function of what is known. A Graph keeps no
// copy of it: before a change touches a prefix it notes what the prefix looks
// like, and afterwards compares. [Compile] is that function, slow and obvious.
package route

import (
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Graph is the incremental form of [Compile]. It is for one goroutine.
type Graph struct {
	options  Options
	underlay Underlay

	// known is the last good version of what bears upon the plan; of blocks and other
	// nodes, of which there are many, the little that is needed. stale are the keys of
	// known that the snapshot in progress has not mentioned yet.
	known map[model.Key]model.Value
	stale map[model.Key]struct{}

	configs   map[model.Key]model.Value  // those of known that the settings come from
	claims    map[netip.Addr][]model.Key // who has an address, sorted: the first wins
	contested int                        // addresses that several have: almost always none
	links     map[string][]model.Key     // endpoints by host side link
	blocks    map[netip.Prefix]string    // owners
	loans     map[netip.Addr][]loan      // sorted by compareLoans: the first counts
	homes     map[string][]netip.Prefix  // what of blocks and loans is on a node, in no order
	addrs     owners[netip.Addr]         // of other nodes
	vteps     owners[plan.VTEPKey]       // likewise
	fixed     map[netip.Prefix]plan.Hops
	learned   learned

	settings Settings
	pools    pools
	site     site
	carries  bool // learned routes may have to be carried: some pool is encapsulated, or there is no BGP
	trouble  trouble
	dirty    dirty

	// opening says that the first snapshot is in progress: nothing is said before all of
	// it is known. Without its pool a block's route would be another one.
	opening, synced bool
}

// NewGraph returns a Graph which knows nothing of the cluster yet.
func NewGraph(o Options) *Graph {
	g := &Graph{
		options:  o,
		known:    map[model.Key]model.Value{},
		configs:  map[model.Key]model.Value{},
		claims:   map[netip.Addr][]model.Key{},
		links:    map[string][]model.Key{},
		blocks:   map[netip.Prefix]string{},
		loans:    map[netip.Addr][]loan{},
		homes:    map[string][]netip.Prefix{},
		addrs:    owners[netip.Addr]{},
		vteps:    owners[plan.VTEPKey]{},
		learned:  newLearned(),
		settings: SettingsFor(model.Node{Name: o.Node}, nil, o.Env...),
		dirty:    newDirty(),
	}
	g.site = siteFor(o, g.settings, g.self(), nil, g.underlay)
	g.carries = o.NoBGP
	return g
}

// Settings is what holds for this node now.
func (g *Graph) Settings() Settings { return g.settings }

// Step takes in a batch and returns how the plan changes. During a snapshot
// what was known stays until the batch with Synced, so a snapshot that equals
// what is known changes nothing; from the Reset of the first one until its Synced
// nothing changes at all. The slices of the result are sorted.
func (g *Graph) Step(b model.Batch) plan.Delta {
	g.synced = g.synced || b.Synced
	g.opening = !g.synced && (g.opening || b.Reset)
	if b.Reset {
		g.stale = make(map[model.Key]struct{}, len(g.known))
		for k := range g.known {
			g.stale[k] = struct{}{}
		}
	}
	for _, in := range b.Invalids {
		delete(g.stale, in.Key) // the last good version stays
	}
	changes := make([]change, 0, len(b.Puts)+len(b.Deletes))
	add := func(k model.Key, v model.Value) {
		delete(g.stale, k)
		if old := g.known[k]; !same(old, v) {
			changes = append(changes, change{k, old, v})
		}
	}
	for _, v := range b.Puts {
		add(v.Key(), relevant(g.options.Node, v))
	}
	for _, k := range b.Deletes {
		add(k, nil)
	}
	if b.Synced {
		for k := range g.stale {
			add(k, nil)
		}
		g.stale = nil
	}
	g.touchLearned(changes)
	for _, c := range changes {
		g.replace(c)
	}
	return g.flush()
}

// SetUnderlay tells what is known of the network between the nodes, and returns how the
// plan changes.
func (g *Graph) SetUnderlay(u Underlay) plan.Delta {
	g.underlay = u
	g.dirty.settings = true
	return g.flush()
}

// Tunnels says which tunnels this node takes part in now.
func (g *Graph) Tunnels() Tunnels { return g.site.tunnels() }

// PodMTU is the MTU of workloads' links and routes, bytes: the underlay's less what the
// largest tunnel in use adds, where the settings say no other MTU for a tunnel; at least
// 576. 0: the underlay's is not known.
func (g *Graph) PodMTU() int {
	mtu, _ := g.site.podMTU()
	return mtu
}

// relevant is what of v can make a difference to the plan of node; nil: nothing.
func relevant(node string, v model.Value) model.Value {
	switch v := v.(type) {
	case model.Endpoint:
		if v.Node == node {
			return v
		}
	case model.Block:
		if b := blockOf(v); !b.empty() {
			return b
		}
	case model.Node:
		if v.Name == node {
			return v
		}
		return memberOf(v)
	case model.Pool:
		return v
	case model.FelixConfig:
		if v.Name == "default" || v.Name == "node."+node || v.NodeSelector != nil {
			return v
		}
	case model.BGPConfig:
		if v.Name == "default" || v.Name == "node."+node {
			return v
		}
	}
	return nil
}

// same reports whether to replace old by v changes nothing; false if that is not easily said.
func same(old, v model.Value) bool {
	switch old := old.(type) {
	case nil:
		return v == nil
	case member:
		v, ok := v.(member)
		return ok && old == v
	case block:
		v, ok := v.(block)
		return ok && old.equal(v)
	}
	return false
}

// route is what the node's routing table must have for p.
func (g *Graph) route(p netip.Prefix) maybe[plan.Route] {
	if keys := g.claims[p.Addr()]; p.IsSingleIP() && len(keys) > 0 {
		e := g.known[keys[0]].(model.Endpoint)
		return maybe[plan.Route]{g.site.form.workload(p.Addr(), e.Link), true}
	}
	if g.ownBlock(p) {
		return maybe[plan.Route]{blackhole(p), true}
	}
	if via, ok := g.fixed[p]; ok {
		return maybe[plan.Route]{g.site.form.remote(p, via), true}
	}
	if g.site.own(p) {
		return maybe[plan.Route]{}
	}
	if r := g.stored(p); r.ok {
		return r
	}
	if via, ok := g.learned.get(p); ok {
		return g.carry(p, via)
	}
	return maybe[plan.Route]{}
}

// ownBlock reports whether p is a block of this node that has a route of its own.
func (g *Graph) ownBlock(p netip.Prefix) bool {
	owner, ok := g.blocks[p]
	return ok && owner == g.options.Node && !p.IsSingleIP()
}

// home is the node that has all of p according to the datastore; empty: none.
func (g *Graph) home(p netip.Prefix) string {
	if owner, ok := g.blocks[p]; ok {
		return owner
	}
	if p.IsSingleIP() {
		if loans := g.loans[p.Addr()]; len(loans) > 0 {
			return loans[0].node
		}
	}
	return ""
}

// stored is the route to p that the datastore asks for.
func (g *Graph) stored(p netip.Prefix) maybe[plan.Route] {
	if !g.carries {
		return maybe[plan.Route]{}
	}
	m, ok := g.member(g.home(p))
	if !ok {
		return maybe[plan.Route]{}
	}
	e := g.pools.of(p).encap
	if e.tunnel == plain && !g.site.noBGP {
		return maybe[plan.Route]{}
	}
	return g.site.towards(p, e, m)
}

// carry is the route to p for which BGP told via: through the tunnel of its pool, if via
// is another node.
func (g *Graph) carry(p netip.Prefix, via plan.Hops) maybe[plan.Route] {
	if g.carries {
		if e := g.pools.of(p).encap; e.tunnel != plain {
			if m, ok := g.memberAt(p, via); ok {
				return g.site.towards(p, e, m)
			}
		}
	}
	return maybe[plan.Route]{g.site.form.remote(p, via), true}
}

// memberAt is the other node that is the only gateway in via, of the family of p.
func (g *Graph) memberAt(p netip.Prefix, via plan.Hops) (member, bool) {
	var names []string
	for a := range via.All() {
		if names != nil || a.Is6() != p.Addr().Is6() {
			return member{}, false
		}
		if names = g.addrs[a]; len(names) == 0 {
			return member{}, false
		}
	}
	return g.member(names[0])
}

// member is the other node of that name.
func (g *Graph) member(name string) (member, bool) {
	if name == "" || name == g.options.Node {
		return member{}, false
	}
	m, ok := g.known[model.Node{Name: name}.Key()].(member)
	return m, ok
}

// vtep is the other end of a VXLAN that this node must know.
func (g *Graph) vtep(k plan.VTEPKey) maybe[plan.VTEP] {
	if names := g.vteps[k]; len(names) > 0 {
		m, _ := g.member(names[0])
		for _, v := range m.vteps() {
			if v.VTEPKey == k && g.site.vtep(v) {
				return maybe[plan.VTEP]{v, true}
			}
		}
	}
	return maybe[plan.VTEP]{}
}

// device is the device of t.
func (g *Graph) device(t tunnel) maybe[plan.Device] {
	return maybe[plan.Device]{g.site.devices[t], g.site.has(t)}
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
	if n, ok := g.known[model.Node{Name: g.options.Node}.Key()].(model.Node); ok {
		return n
	}
	return model.Node{Name: g.options.Node}
}

// host is the prefix that holds a alone.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
