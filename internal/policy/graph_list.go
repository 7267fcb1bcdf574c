package policy

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// wanted is what a list is made of, before it has chains.
type wanted struct {
	List
	name, class string
	pols        [][]*pol // as List.Tiers
	profs       []*prof
}

// lists are what judges a subject at each point of its kind; nil at others.
func (g *Graph) lists(s *subject) *[numPoints]*wanted {
	id := s.signature(g.selected.Matches(s.n))
	if out := g.memo[id]; out != nil {
		return out
	}
	mine := g.ordered(g.selected.Matches(s.n))
	var profs []*prof
	for _, name := range s.parents {
		if p := g.profiles[name]; p != nil {
			profs = append(profs, p)
		}
	}
	out := new([numPoints]*wanted)
	for at := range Point(numPoints) {
		if host := at >= HostIn; host == s.host {
			st, d := at.When()
			out[at] = g.want(host, st, d, mine, profs)
		}
	}
	g.memo[id] = out
	return out
}

// ordered are the policies of selectors, in the order in which packets meet them.
func (g *Graph) ordered(sels []uint32) []*pol {
	byTier := map[string][]*pol{}
	for _, sel := range sels {
		for _, p := range g.chosen[sel] {
			byTier[p.p.Tier] = append(byTier[p.p.Tier], p)
		}
	}
	var tiers []model.Tier
	for name := range byTier {
		tiers = append(tiers, g.tier(name))
	}
	slices.SortFunc(tiers, CompareTiers)
	var out []*pol
	for _, t := range tiers {
		slices.SortFunc(byTier[t.Name], func(a, b *pol) int { return ComparePolicies(&a.p, &b.p) })
		out = append(out, byTier[t.Name]...)
	}
	return out
}

// signature is equal for subjects that have equal lists.
func (s *subject) signature(sels []uint32) string {
	b := make([]byte, 0, 5+4*len(sels)+16*len(s.parents))
	b = append(b, byte(b2i(s.host)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(sels)))
	for _, sel := range sels {
		b = binary.BigEndian.AppendUint32(b, sel)
	}
	for _, p := range s.parents {
		b = append(append(b, 0), p...)
	}
	return string(b)
}

// want is the list of a stage and direction, from policies in order.
func (g *Graph) want(host bool, st Stage, d Direction, mine []*pol, profs []*prof) *wanted {
	w := &wanted{List: List{Host: host, Stage: st, Direction: d}}
	for _, p := range mine {
		if !Applies(&p.p, d, st) {
			continue
		}
		if last := len(w.Tiers) - 1; last < 0 || w.Tiers[last].Tier.Name != p.p.Tier {
			w.Tiers = append(w.Tiers, TierList{Tier: g.tier(p.p.Tier)})
			w.pols = append(w.pols, nil)
		}
		last := len(w.Tiers) - 1
		w.Tiers[last].Policies = append(w.Tiers[last].Policies, &p.p)
		w.pols[last] = append(w.pols[last], p)
	}
	n, through := reach(w.Tiers, st, d)
	if w.Tiers, w.pols = w.Tiers[:n], w.pols[:n]; st == Normal && through {
		w.profs = profs
		for _, p := range profs {
			w.Profiles = append(w.Profiles, &p.p)
		}
	}
	w.class = w.Class()
	w.name = listPrefix + w.class
	return w
}

// relist gives dirty subjects their lists and elements.
func (g *Graph) relist() {
	g.memo = map[string]*[numPoints]*wanted{}
	g.findPoints()
	for s := range g.dirty.subjects {
		for i, h := range g.halves {
			for _, e := range s.elems[i] {
				h.elems.remove(e)
			}
		}
	}
	for s := range g.dirty.subjects {
		for i, h := range g.halves {
			g.relistIn(s, i, h)
		}
	}
	clear(g.dirty.subjects)
	g.memo = nil
}

// findPoints works out the points at which host endpoints have lists. Each of them has
// one at all of these, so if they change all of them are dirty.
func (g *Graph) findPoints() {
	host := g.dirty.hosts
	for s := range g.dirty.subjects {
		host = host || s.host
	}
	if !host {
		return
	}
	heps := g.subjects.hosts()
	used := PointsFor(len(heps) > 0, func(st Stage, d Direction) bool {
		return slices.ContainsFunc(heps, func(s *subject) bool {
			w := g.lists(s)[List{Host: true, Stage: st, Direction: d}.Point()]
			return len(w.Tiers) > 0
		})
	})
	g.dirty.base = true
	if used != g.points {
		g.points = used
		for _, s := range heps {
			g.dirty.subjects[s] = struct{}{}
		}
	}
}

func (g *Graph) relistIn(s *subject, i int, h *half) {
	old, linked := s.lists[i], s.linked[i]
	s.lists[i], s.elems[i], s.linked[i] = [numPoints]*liveList{}, nil, 0
	if g.inForce(s, h) {
		s.linked[i] = s.interfaces()
		for at, w := range g.lists(s) {
			if w != nil && (!s.host || g.points.Has(Point(at))) {
				s.lists[i][at] = g.acquireList(h, Point(at), w)
				s.lists[i][at].link(h, s.linked[i])
			}
		}
		s.elems[i] = g.elementsOf(s, i, h)
		for _, e := range s.elems[i] {
			h.elems.put(e)
		}
	}
	for _, l := range old {
		if l != nil {
			l.users--
			l.link(h, -linked)
			h.touchedLists[l] = struct{}{}
		}
	}
}

// elementsOf are what a subject has in the maps of classes and the sets of sources.
func (g *Graph) elementsOf(s *subject, i int, h *half) []placed {
	var out []placed
	links := s.links
	if !s.host {
		links = []string{s.link}
	}
	for at, l := range s.lists[i] {
		for _, link := range links {
			if l != nil && link != "*" {
				out = append(out, placed{Point(at).Classes(), plan.Element{Link: link, Value: l.class}})
			}
		}
	}
	if s.host {
		return out
	}
	for _, a := range s.addrs {
		if a.Is6() == h.v6 {
			out = append(out, placed{SourceAddrs, plan.Element{Link: s.link, Net: netip.PrefixFrom(a, a.BitLen())}})
		}
	}
	if g.settings.SpoofAny {
		for _, p := range MaximalNets(s.sources, h.v6) {
			out = append(out, placed{SourceNets, plan.Element{Link: s.link, Net: p}})
		}
	}
	return out
}
