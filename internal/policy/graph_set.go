package policy

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// liveSet is a set that rules in force need, in one family. Its members are counted,
// since several endpoints may share an address; of prefixes that hold one another the
// kernel gets the largest only. These have a set of their own, see Parts.
type liveSet struct {
	ref    SetRef
	v6     bool
	sel    uint32             // in Graph.members; of sets that have a selector of holders
	nodes  *selector.Selector // of SetNodes
	counts map[plan.Member]uint32
	wide   int      // members that are not single addresses
	trie   *netTrie // of those; nil while there are none
	users  map[*body]struct{}

	parts   Parts // as it was emitted
	emitted bool
	dirty   bool // it is in dirtySets
	// was says of what changed since the last flush whether it was in the kernel.
	was map[plan.Member]bool
}

// acquireSet is the set that a need asks for, with b as one of its users.
func (g *Graph) acquireSet(h *half, n Need, b *body) *liveSet {
	s := h.sets[n.SetRef]
	if s == nil {
		s = &liveSet{ref: n.SetRef, v6: h.v6, counts: map[plan.Member]uint32{}, users: map[*body]struct{}{}}
		h.sets[n.SetRef] = s
		s.dirty, h.dirtySets[s] = true, struct{}{}
		g.fill(s, n)
		if s.ref.Kind == SetNodes {
			h.nodeSets = append(h.nodeSets, s)
		}
	}
	s.users[b] = struct{}{}
	return s
}

// fill gives a new set its members.
func (g *Graph) fill(s *liveSet, n Need) {
	switch s.ref.Kind {
	case SetSelected, SetNamedPort:
		s.sel = g.members.Add(n.Of)
		of := at(&g.bySel, s.sel)
		*of = append(*of, s)
		for item := range g.members.Items(s.sel) {
			g.change(s, item, true)
		}
	case SetServiceAddrs, SetServicePorts, SetServiceAnyPort:
		for _, o := range g.services[s.ref.Service] {
			for m := range serviceMembers(o.v.(model.EndpointSlice), s.ref, s.v6) {
				s.add(m)
			}
		}
	case SetNodes:
		s.nodes = n.Of
		for _, o := range g.others {
			if v, ok := o.v.(model.Node); ok {
				s.node(v, true)
			}
		}
	default:
		for _, m := range s.ref.Members() {
			s.counts[m] = 1
		}
	}
}

// releaseSet takes b away from the users of s. Without any, the set goes.
func (g *Graph) releaseSet(h *half, s *liveSet, b *body) {
	if delete(s.users, b); len(s.users) > 0 {
		return
	}
	delete(h.sets, s.ref)
	delete(h.dirtySets, s)
	for _, set := range s.ref.Sets(s.parts) {
		h.delta.DeleteSets = append(h.delta.DeleteSets, set.Name)
	}
	if s.ref.Kind == SetNodes {
		h.nodeSets = slices.DeleteFunc(h.nodeSets, func(o *liveSet) bool { return o == s })
	}
	if s.ref.Kind != SetSelected && s.ref.Kind != SetNamedPort {
		return
	}
	of := &g.bySel[s.sel]
	i := slices.Index(*of, s)
	if *of = slices.Delete(*of, i, i+1); len(*of) == 0 {
		*of = nil
	}
	g.members.Remove(s.sel)
}

// memberEvent is what the index of members says.
func (g *Graph) memberEvent(item, sel uint32, matches bool) {
	if int(sel) >= len(g.bySel) {
		return // it is being added
	}
	for _, s := range g.bySel[sel] {
		g.change(s, item, matches)
	}
}

// change puts what a holder has into a set, or takes it out.
func (g *Graph) change(s *liveSet, item uint32, in bool) {
	h := &g.holders.list[item]
	do := s.add
	if !in {
		do = s.cut
	}
	if s.ref.Kind == SetSelected {
		for _, m := range h.of(s.v6) {
			do(m)
		}
	} else if h.ports != 0 {
		for m := range portMembers(h.of(s.v6), g.holders.ports.lists[h.ports], s.ref, s.v6) {
			do(m)
		}
	} else {
		return
	}
	if !s.dirty {
		s.dirty, g.half(s.v6).dirtySets[s] = true, struct{}{}
	}
}

// portMembers are the addresses with each port of that name and protocol.
func portMembers(nets []plan.Member, ports []model.NamedPort, ref SetRef, v6 bool) iter.Seq[plan.Member] {
	return func(yield func(plan.Member) bool) {
		for _, p := range ports {
			if p.Name != ref.Port || ref.Protocol != 0 && p.Protocol != ref.Protocol {
				continue
			}
			for _, m := range nets {
				if !yield(plan.AddrPortMember(m.Net(v6).Addr(), p.Protocol, p.Port)) {
					return
				}
			}
		}
	}
}

// serviceMembers are what a slice contributes to a set of its service.
func serviceMembers(sl model.EndpointSlice, ref SetRef, v6 bool) iter.Seq[plan.Member] {
	return func(yield func(plan.Member) bool) {
		for _, a := range sl.Addrs {
			if !a.IsValid() || a.Is6() != v6 {
				continue
			}
			if ref.Kind == SetServiceAddrs {
				if !yield(plan.AddrMember(a)) {
					return
				}
				continue
			}
			for _, p := range sl.Ports {
				if m, ok := ref.backend(a, p); ok && !yield(m) {
					return
				}
			}
		}
	}
}

// backend is what a port of a backend contributes to r; false: nothing.
func (r SetRef) backend(a netip.Addr, p model.NamedPort) (plan.Member, bool) {
	if r.Kind == SetServicePorts {
		return plan.AddrPortMember(a, p.Protocol, p.Port), p.Port != 0
	}
	return plan.AddrMember(a), p.Port == 0 && p.Protocol == r.Protocol
}

// serviceChanged takes a slice of a service into the sets of that service, or out.
func (g *Graph) serviceChanged(sl model.EndpointSlice, came bool) {
	refs := []SetRef{{Kind: SetServicePorts}, {Kind: SetServiceAddrs}}
	for _, proto := range serviceProtocols {
		refs = append(refs, SetRef{Kind: SetServiceAnyPort, Protocol: proto})
	}
	for _, h := range g.halves {
		for _, ref := range refs {
			ref.Service = sl.Service
			s := h.sets[ref]
			if s == nil {
				continue
			}
			s.dirty, h.dirtySets[s] = true, struct{}{}
			for m := range serviceMembers(sl, ref, h.v6) {
				if came {
					s.add(m)
				} else {
					s.cut(m)
				}
			}
		}
	}
}

// node takes the addresses of a node into a set of nodes, if it is selected, or out.
func (s *liveSet) node(n model.Node, in bool) {
	if !s.nodes.Matches(n.Labels) {
		return
	}
	for _, a := range n.Addrs {
		if a.Is6() != s.v6 {
			continue
		}
		if in {
			s.add(plan.AddrMember(a))
		} else {
			s.cut(plan.AddrMember(a))
		}
	}
}

// nodeChanged takes a node into the sets that select nodes, or out. There are few of
// these, and nodes seldom change.
func (g *Graph) nodeChanged(n model.Node, came bool) {
	for _, h := range g.halves {
		for _, s := range h.nodeSets {
			s.node(n, came)
			s.dirty, h.dirtySets[s] = true, struct{}{}
		}
	}
}

// single reports whether m is one address of s's family.
func (s *liveSet) single(m plan.Member) bool {
	return s.ref.Kind != SetSelected || m.Net(s.v6).IsSingleIP()
}

// add counts m in.
func (s *liveSet) add(m plan.Member) {
	n := s.counts[m]
	s.counts[m] = n + 1
	if n > 0 {
		return
	}
	if s.single(m) {
		s.note(m, false)
		return
	}
	if s.wide++; s.trie == nil {
		s.trie = newNetTrie(s.v6)
	}
	s.trie.insert(m)
	if !s.trie.covered(m) {
		s.note(m, false)
		s.trie.below(m, func(b plan.Member) { s.note(b, true) })
	}
}

// cut counts m out.
func (s *liveSet) cut(m plan.Member) {
	if n := s.counts[m]; n > 1 {
		s.counts[m] = n - 1
		return
	}
	delete(s.counts, m)
	if s.single(m) {
		s.note(m, true)
		return
	}
	if !s.trie.covered(m) {
		s.note(m, true)
		s.trie.below(m, func(b plan.Member) { s.note(b, false) })
	}
	s.trie.remove(m)
	if s.wide--; s.wide == 0 {
		s.trie = nil
	}
}

// note remembers whether m was in the kernel before it changed for the first time
// since the last flush.
func (s *liveSet) note(m plan.Member, was bool) {
	if !s.emitted {
		return
	}
	if s.was == nil {
		s.was = map[plan.Member]bool{}
	}
	if _, ok := s.was[m]; !ok {
		s.was[m] = was
	}
}

// has reports whether m is to be in the kernel.
func (s *liveSet) has(m plan.Member) bool {
	return s.counts[m] > 0 && (s.single(m) || !s.trie.covered(m))
}

// changes are what to put and delete since the last flush, of single addresses or of
// the others.
func (s *liveSet) changes(c *plan.SetChange, single bool) {
	for m, was := range s.was {
		if s.single(m) != single {
			continue
		}
		if now := s.has(m); now && !was {
			c.Put = append(c.Put, m)
		} else if was && !now {
			c.Delete = append(c.Delete, m)
		}
	}
}

// addrs are the members that are no prefixes.
func (s *liveSet) addrs() []plan.Member {
	out := make([]plan.Member, 0, len(s.counts)-s.wide)
	for m := range s.counts {
		if s.single(m) {
			out = append(out, m)
		}
	}
	return out
}

// nets are the prefixes that no other one holds.
func (s *liveSet) nets() []plan.Member {
	var out []plan.Member
	s.trie.maximal(0, func(m plan.Member) { out = append(out, m) })
	return out
}

// flushSets emits what became of sets. Where a set came or went, what uses it is to be
// emitted again.
func (g *Graph) flushSets(h *half) {
	for s := range h.dirtySets {
		was := s.parts
		s.parts = s.ref.PartsFor(len(s.counts)-s.wide, s.wide)
		if s.emitted && was != s.parts {
			for b := range s.users {
				g.dirty.bodies[b] = struct{}{}
			}
		}
		h.flushSet(s, s.ref.Set(), was.Addrs, s.parts.Addrs, s.addrs)
		if was.Nets || s.parts.Nets {
			h.flushSet(s, s.ref.NetSet(), was.Nets, s.parts.Nets, s.nets)
		}
		s.emitted, s.was, s.dirty = true, nil, false
	}
	clear(h.dirtySets)
}

// flushSet emits what became of a set of s that was there or is there now.
func (h *half) flushSet(s *liveSet, set plan.Set, was, is bool, all func() []plan.Member) {
	c := plan.SetChange{Set: set.Name}
	switch {
	case was && is:
		s.changes(&c, set == s.ref.Set())
	case was:
		h.delta.DeleteSets = append(h.delta.DeleteSets, set.Name)
	case is:
		h.delta.PutSets = append(h.delta.PutSets, set)
		c.Put = all()
	}
	if len(c.Put)+len(c.Delete) > 0 {
		h.delta.Changes = append(h.delta.Changes, c)
	}
}
