// Package wireguard decides how one node encrypts what it sends to the others: its
// WireGuard devices, their peers, and the routes and rules that lead into them.
//
//	model.Batch ────────► Graph.Step ───────┐
//	MTU of the underlay ► Graph.SetUnderlay ┼─► plan.Delta ─► kernel/{fib,device,wg}
//	key of the device ──► Graph.SetKey ─────┘   Graph.Filter ► kernel/nft
//
// Each family has a device of its own, whose outer packets are of the same family. A
// rule ahead of the main table sends every packet into a table of ours, but those that
// have [Mark], as the device's own outer packets do. In that table is a route for
// everything that is another node's (its blocks, the addresses it borrowed, its tunnel
// addresses): into the device if the node has a key, and back to the main table (throw)
// if not, so that a prefix of another node around it does not catch it. What is this
// node's own is thrown back likewise. A pool's encapsulation does not matter here: between
// nodes with keys WireGuard stands in place of IPIP and VXLAN.
//
// With wireguardCleartext: Drop the table drops (blackhole) instead of throwing back, and
// so the whole of each pool. What the node does not know yet, a block or a node
// that joins, is then dropped rather than sent in clear; the order in which the doors
// work makes no difference.
//
// With wireguardHostEncryptionEnabled the nodes' own addresses are routed likewise,
// between nodes that both have the setting. A node whose device has got a new key, after it
// was rebooted, must be able to say so to a datastore on a node that knows its old one
// only. Therefore: hosts talk in clear until the node's record has the key of its device
// (SetKey); a peer may always send from its node address, so whoever is ahead is
// understood; and what comes in clear is answered in clear ([Graph.Filter]). See
// docs/networking.md.
//
// Invariant: a prefix is one node's and a key is one node's; of prefixes claimed twice
// the first claim counts (the order is that of the rank constants, then of names), of keys
// none, since the kernel would take the last of either.
package wireguard

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Mark is the bit of packets' marks that means "not through WireGuard": the one that
// Calico takes, within its mask 0xffff0000. Package policy has lower ones.
const Mark uint32 = 0x100000

// Bytes that WireGuard adds to a packet: outer IP header, UDP, its own header and tag.
const (
	overhead4 = 60
	overhead6 = 80
)

// Options say whose graph it is.
type Options struct {
	Node string
	// Env is what wins over every FelixConfiguration, first over later.
	Env []model.FelixConfig
}

// Graph is the incremental form of [Compile]. It is for one goroutine.
type Graph struct {
	opts  Options
	known map[model.Key]model.Value
	stale map[model.Key]struct{} // not yet mentioned by the snapshot in progress

	configs map[model.Key]model.Value // of known
	pools   map[netip.Prefix]int      // pools with that range
	claims  map[netip.Prefix][]claim  // sorted: the first counts
	won     map[string]map[netip.Prefix]struct{}
	holders [2]map[plan.PublicKey][]string // nodes by key, sorted
	doubled [2]map[plan.PublicKey]struct{} // keys that several have

	underlay int
	keys     map[string]plan.PublicKey // of our devices, by link
	sides    [2]side
	ends     [2]map[string]end // what was emitted, by node
	routes   map[netip.Prefix]plan.Route
	filter   filter
	dirty    dirty
}

// dirty is what may look different from what was emitted.
type dirty struct {
	nodes    map[string]struct{}
	prefixes map[netip.Prefix]struct{}
	self     bool // this node's own record, or a setting
	all      bool
}

// end is another node as a peer.
type end struct {
	peer  plan.WireGuardPeer
	hosts bool // traffic of the node itself goes there, too
}

// NewGraph returns a Graph that knows nothing yet.
func NewGraph(o Options) *Graph {
	g := &Graph{
		opts:  o,
		known: map[model.Key]model.Value{}, configs: map[model.Key]model.Value{},
		pools: map[netip.Prefix]int{}, claims: map[netip.Prefix][]claim{}, won: map[string]map[netip.Prefix]struct{}{},
		keys: map[string]plan.PublicKey{}, routes: map[netip.Prefix]plan.Route{},
		dirty: newDirty(),
	}
	for f := range g.holders {
		g.holders[f] = map[plan.PublicKey][]string{}
		g.doubled[f] = map[plan.PublicKey]struct{}{}
		g.ends[f] = map[string]end{}
	}
	g.dirty.self = true // Env may enable it
	return g
}

func newDirty() dirty {
	return dirty{nodes: map[string]struct{}{}, prefixes: map[netip.Prefix]struct{}{}}
}

// Step takes in a batch and returns how the plan changes. During a snapshot what was
// known stays until the batch with Synced.
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
		g.replace(k, g.relevant(v))
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

// SetUnderlay says what the MTU of the underlay is, bytes; 0: not known.
func (g *Graph) SetUnderlay(mtu int) plan.Delta {
	g.underlay, g.dirty.self = mtu, true
	return g.flush()
}

// SetKey says which public key the device of that name has; the zero key: none.
func (g *Graph) SetKey(link string, key plan.PublicKey) plan.Delta {
	g.keys[link], g.dirty.self = key, true
	return g.flush()
}

// Enabled reports whether packets of that family are to be encrypted on this node.
func (g *Graph) Enabled(v6 bool) bool { return g.sides[family(v6)].on }

// Table is the kernel's routing table of that family, used or not; 0 before the first Step.
func (g *Graph) Table(v6 bool) uint32 { return g.sides[family(v6)].table }

// Key is the public key that the node's record must have for that family: wanted says
// whether it must have one, and a zero key that it is not known yet.
func (g *Graph) Key(v6 bool) (key plan.PublicKey, wanted bool) {
	s := g.sides[family(v6)]
	if !s.usable() {
		return plan.PublicKey{}, false
	}
	return g.keys[s.link], true
}

// Published reports whether the node's record has the key of every device of this node.
func (g *Graph) Published() bool {
	for _, s := range g.sides {
		if s.usable() && !s.published {
			return false
		}
	}
	return true
}

// relevant is what is kept of v; nil: nothing.
func (g *Graph) relevant(v model.Value) model.Value {
	switch v := v.(type) {
	case model.Endpoint:
		if v.Node == g.opts.Node {
			return v
		}
		return nil
	case model.Block:
		return homesOf(v)
	case model.Node, model.Pool, model.FelixConfig:
		return v
	}
	return nil
}

// replace makes v, nil for none, the known version of k.
func (g *Graph) replace(k model.Key, v model.Value) {
	old, had := g.known[k]
	if !had && v == nil {
		return
	}
	was, now := claimsOf(old), claimsOf(v)
	for p, c := range was {
		if now[p] != c {
			g.unclaim(p, c)
		}
	}
	if v == nil {
		delete(g.known, k)
	} else {
		g.known[k] = v
	}
	for p, c := range now {
		if was[p] != c {
			g.claim(p, c)
		}
	}
	g.note(k, old, v)
}

// note takes in what is not a claim.
func (g *Graph) note(k model.Key, old, v model.Value) {
	switch k.Kind {
	case model.KindNode:
		was, _ := old.(model.Node)
		now, _ := v.(model.Node)
		for f := range g.holders {
			g.hold(f, k.Name, keyOf(was, f), keyOf(now, f))
		}
		g.dirty.nodes[k.Name] = struct{}{}
		g.dirty.self = g.dirty.self || k.Name == g.opts.Node
		g.filter.stale = g.filter.stale || was.IPv4 != now.IPv4 || was.IPv6 != now.IPv6
	case model.KindFelixConfiguration:
		delete(g.configs, k)
		if v != nil {
			g.configs[k] = v
		}
		g.dirty.self, g.dirty.all = true, true
	case model.KindIPPool:
		g.countPool(old, -1)
		g.countPool(v, 1)
		g.dirty.all, g.filter.stale = true, true
	}
}

func (g *Graph) countPool(v model.Value, n int) {
	if p, ok := v.(model.Pool); ok && forPods(p) {
		if g.pools[p.CIDR] += n; g.pools[p.CIDR] == 0 {
			delete(g.pools, p.CIDR)
		}
		g.dirty.prefixes[p.CIDR] = struct{}{}
	}
}

// hold moves a node from one key to another.
func (g *Graph) hold(f int, node string, was, now plan.PublicKey) {
	if was == now {
		return
	}
	for _, key := range []plan.PublicKey{was, now} {
		if key == (plan.PublicKey{}) {
			continue
		}
		list := g.holders[f][key]
		for _, n := range list {
			g.dirty.nodes[n] = struct{}{} // its key may be its own again, or no more
		}
		at, found := slices.BinarySearch(list, node)
		switch {
		case key == now && !found:
			list = slices.Insert(list, at, node)
		case key == was && found:
			list = slices.Delete(list, at, at+1)
		}
		g.holders[f][key] = list
		if len(list) == 0 {
			delete(g.holders[f], key)
		}
		delete(g.doubled[f], key)
		if len(list) > 1 {
			g.doubled[f][key] = struct{}{}
		}
	}
}

// self is this node's own record; one with only a name while it is not known.
func (g *Graph) self() model.Node { return g.node(g.opts.Node) }

func (g *Graph) node(name string) model.Node {
	if n, ok := g.known[model.Node{Name: name}.Key()].(model.Node); ok {
		return n
	}
	return model.Node{Name: name}
}

// family is the index of a family in pairs; keyOf and others take it.
func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func keyOf(n model.Node, f int) plan.PublicKey {
	if f == 1 {
		return n.WireGuardKeyV6
	}
	return n.WireGuardKey
}
