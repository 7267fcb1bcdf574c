package wireguard

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Compile is the whole plan in a world, and our part of the packet filter, from nothing:
// what a [Graph] arrives at step by step, the slow and obvious way. The keys are those of
// this node's devices, by link.
func Compile(o Options, w model.World, underlay int, keys map[string]plan.PublicKey) (plan.Node, plan.Filter) {
	c := compiled{o: o, w: w, claims: map[netip.Prefix]claim{}, nodes: map[string]model.Node{}}
	holders := map[plan.PublicKey]int{}
	for _, v := range w {
		if e, ok := v.(model.Endpoint); ok && e.Node != o.Node {
			continue
		}
		if b, ok := v.(model.Block); ok {
			v = homesOf(b)
		}
		for p, next := range claimsOf(v) {
			if has, taken := c.claims[p]; !taken || compareClaims(next, has) < 0 {
				c.claims[p] = next
			}
		}
		if n, ok := v.(model.Node); ok {
			c.nodes[n.Name] = n
		}
		if p, ok := v.(model.Pool); ok && forPods(p) {
			c.pools = append(c.pools, p.CIDR)
		}
	}
	self := c.nodes[o.Node]
	self.Name = o.Node
	sides := sidesOf(self, settingsFor(self, maps.Values(w), o.Env), underlay, keys)
	var d plan.Delta
	var filter plan.FilterDelta
	for f, s := range sides {
		clear(holders)
		for _, n := range c.nodes {
			holders[keyOf(n, f)]++
		}
		c.side(&d, f, s, holders)
		others := maps.Clone(c.nodes)
		delete(others, o.Node)
		change([]*plan.TableDelta{&filter.V4, &filter.V6}[f], table{}, s.part(f, maps.Values(others), c.pools))
	}
	return plan.Node{}.Apply(d), plan.Filter{}.Apply(filter)
}

// RecordKeys are the public keys that a node's record says of its devices, by link: what
// [Compile] wants to be told of a node whose devices nobody can look at.
func RecordKeys(o Options, w model.World) map[string]plan.PublicKey {
	self, _ := w[model.Node{Name: o.Node}.Key()].(model.Node)
	out := map[string]plan.PublicKey{}
	for f, s := range settingsFor(self, maps.Values(w), o.Env) {
		out[s.link] = keyOf(self, f)
	}
	return out
}

type compiled struct {
	o      Options
	w      model.World
	claims map[netip.Prefix]claim
	nodes  map[string]model.Node
	pools  []netip.Prefix
}

func (c compiled) side(d *plan.Delta, f int, s side, holders map[plan.PublicKey]int) {
	if dev, ok := s.device(); ok {
		d.PutDevices = append(d.PutDevices, dev)
	}
	if r, ok := s.rule(f); ok {
		d.PutRules = append(d.PutRules, r)
	}
	ends := map[string]end{}
	for name, n := range c.nodes {
		var allowed []netip.Prefix
		for p, has := range c.claims {
			if has.node == name && p.Addr().Is6() == (f == 1) {
				allowed = append(allowed, p)
			}
		}
		theirs := settingsFor(n, maps.Values(c.w), c.o.Env)[f]
		e, ok := s.peer(n, f, theirs, holders[keyOf(n, f)] == 1, plan.MakePrefixes(allowed...))
		if ok && name != c.o.Node {
			ends[name] = e
			d.PutPeers = append(d.PutPeers, e.peer)
		}
	}
	for _, p := range append(slices.Collect(maps.Keys(c.claims)), c.pools...) {
		if p.Addr().Is6() != (f == 1) {
			continue
		}
		has := c.claims[p]
		e, isPeer := ends[has.node]
		pooled := slices.ContainsFunc(c.pools, p.Overlaps)
		if r, ok := s.route(p, c.o.Node, has, e, isPeer, slices.Contains(c.pools, p), pooled); ok {
			d.PutRoutes = append(d.PutRoutes, r)
		}
	}
}
