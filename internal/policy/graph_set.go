package policy

import (
	"iter"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// liveSet is a set that rules in force need, in one family. Its members are counted,
// since several endpoints may share an address; of nets that hold one another the
// kernel gets the largest only.
type liveSet struct {
	ref    SetRef
	v6     bool
	sel    uint32 // in Graph.members; of sets that have a selector
	counts map[plan.Member]uint32
	wide   int      // members that are not single addresses
	trie   *netTrie // nil while wide is 0
	users  map[*body]struct{}

	typ     plan.SetType // as it was emitted
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
	case SetServiceAddrs, SetServicePorts:
		for _, o := range g.services[s.ref.Service] {
			for m := range serviceMembers(o.v.(model.EndpointSlice), s.ref.Kind, s.v6) {
				s.add(m)
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
	if s.emitted {
		h.delta.DeleteSets = append(h.delta.DeleteSets, s.ref.Name(s.typ))
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
func serviceMembers(sl model.EndpointSlice, kind SetKind, v6 bool) iter.Seq[plan.Member] {
	return func(yield func(plan.Member) bool) {
		for _, a := range sl.Addrs {
			if !a.IsValid() || a.Is6() != v6 {
				continue
			}
			if kind == SetServiceAddrs {
				if !yield(plan.AddrMember(a)) {
					return
				}
				continue
			}
			for _, p := range sl.Ports {
				if p.Port != 0 && !yield(plan.AddrPortMember(a, p.Protocol, p.Port)) {
					return
				}
			}
		}
	}
}

// serviceChanged takes a slice of a service into the sets of that service, or out.
func (g *Graph) serviceChanged(sl model.EndpointSlice, came bool) {
	for _, h := range g.halves {
		for _, kind := range [2]SetKind{SetServicePorts, SetServiceAddrs} {
			s := h.sets[SetRef{Kind: kind, Service: sl.Service}]
			if s == nil {
				continue
			}
			s.dirty, h.dirtySets[s] = true, struct{}{}
			for m := range serviceMembers(sl, kind, h.v6) {
				if came {
					s.add(m)
				} else {
					s.cut(m)
				}
			}
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
	if !s.single(m) {
		s.wide++
		if s.trie == nil {
			s.trie = newNetTrie(s.v6)
			for other := range s.counts {
				if other != m {
					s.trie.insert(other)
				}
			}
		}
	}
	if s.trie == nil {
		s.note(m, false)
		return
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
	if s.trie == nil {
		s.note(m, true)
		return
	}
	if !s.trie.covered(m) {
		s.note(m, true)
		s.trie.below(m, func(b plan.Member) { s.note(b, false) })
	}
	s.trie.remove(m)
	if !s.single(m) {
		if s.wide--; s.wide == 0 {
			s.trie = nil
		}
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
	return s.counts[m] > 0 && (s.trie == nil || !s.trie.covered(m))
}

// changes are what to put and delete since the last flush.
func (s *liveSet) changes(c *plan.SetChange) {
	for m, was := range s.was {
		if now := s.has(m); now && !was {
			c.Put = append(c.Put, m)
		} else if was && !now {
			c.Delete = append(c.Delete, m)
		}
	}
}

// all are the members that are to be in the kernel.
func (s *liveSet) all() []plan.Member {
	out := make([]plan.Member, 0, len(s.counts))
	if s.trie != nil {
		s.trie.maximal(0, func(m plan.Member) { out = append(out, m) })
		return out
	}
	for m := range s.counts {
		out = append(out, m)
	}
	return out
}

// flushSets emits what became of sets. A set whose type changed is another one to the
// kernel, so what uses it is to be emitted again.
func (g *Graph) flushSets(h *half) {
	for s := range h.dirtySets {
		typ := s.ref.Type(s.wide > 0)
		var c plan.SetChange
		if s.emitted && typ == s.typ {
			s.changes(&c)
		} else {
			if s.emitted {
				h.delta.DeleteSets = append(h.delta.DeleteSets, s.ref.Name(s.typ))
				for b := range s.users {
					g.dirty.bodies[b] = struct{}{}
				}
			}
			s.emitted, s.typ = true, typ
			h.delta.PutSets = append(h.delta.PutSets, plan.Set{Name: s.ref.Name(typ), Type: typ})
			c.Put = s.all()
		}
		if s.was, s.dirty = nil, false; len(c.Put)+len(c.Delete) > 0 {
			c.Set = s.ref.Name(typ)
			h.delta.Changes = append(h.delta.Changes, c)
		}
	}
	clear(h.dirtySets)
}
