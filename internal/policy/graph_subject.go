package policy

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// numPoints is the number of points.
const numPoints = int(HostUntrackedOut) + 1

// subject is an endpoint of this node: what policies apply to.
type subject struct {
	n       uint32 // in Graph.selected
	key     model.Key
	host    bool
	link    string
	labels  map[string]string
	parents []string // names of profiles
	addrs   []netip.Addr
	sources []netip.Prefix

	gone  bool
	links []string // of a host endpoint: its interfaces; "*" stands for those that have none
	// What it has in each family: lists, how many interfaces those count it for, elements.
	lists  [2][numPoints]*liveList
	linked [2]int
	elems  [2][]placed
}

// placed is an element with the set that it is in.
type placed struct {
	set string
	plan.Element
}

// subjects are the endpoints of this node.
type subjects struct {
	byKey     map[model.Key]*subject
	list      []*subject // by number
	free      []uint32
	byLink    map[string][]*subject // workloads, sorted by key
	byProfile map[string]map[*subject]struct{}
}

func newSubjects() subjects {
	return subjects{
		byKey: map[model.Key]*subject{}, byLink: map[string][]*subject{}, byProfile: map[string]map[*subject]struct{}{},
	}
}

// putSubject takes in an endpoint of this node.
func (g *Graph) putSubject(k model.Key, now *subject) {
	s := g.subjects.byKey[k]
	if s != nil && s.link == now.link && slices.Equal(s.parents, now.parents) && slices.Equal(s.addrs, now.addrs) &&
		slices.Equal(s.sources, now.sources) {
		s.labels = now.labels
		g.selected.Put(s.n, s.labels, s.parents)
		return
	}
	if s == nil {
		s = now
		if last := len(g.subjects.free) - 1; last >= 0 {
			s.n, g.subjects.free = g.subjects.free[last], g.subjects.free[:last]
		} else {
			s.n = uint32(len(g.subjects.list))
			g.subjects.list = append(g.subjects.list, nil)
		}
		g.subjects.byKey[k], g.subjects.list[s.n] = s, s
	} else {
		g.leave(s)
		s.link, s.labels, s.parents, s.addrs, s.sources = now.link, now.labels, now.parents, now.addrs, now.sources
	}
	g.enter(s)
	g.selected.Put(s.n, s.labels, s.parents)
}

func (g *Graph) dropSubject(k model.Key) {
	s := g.subjects.byKey[k]
	if s == nil {
		return
	}
	g.selected.Delete(s.n)
	g.leave(s)
	s.gone = true
	delete(g.subjects.byKey, k)
	g.subjects.list[s.n] = nil
	g.subjects.free = append(g.subjects.free, s.n)
}

// enter puts a subject where it is found by its interface and profiles.
func (g *Graph) enter(s *subject) {
	g.touch(s)
	for _, name := range s.parents {
		of := g.subjects.byProfile[name]
		if of == nil {
			of = map[*subject]struct{}{}
			g.subjects.byProfile[name] = of
			if p := g.profiles[name]; p != nil && p.known {
				g.selected.PutParent(name, g.members.ParentLabels(name))
			}
		}
		of[s] = struct{}{}
	}
	if s.host {
		return
	}
	of := g.subjects.byLink[s.link]
	at, _ := slices.BinarySearchFunc(of, s, compareSubjects)
	of = slices.Insert(of, at, s)
	g.subjects.byLink[s.link] = of
	for _, o := range of {
		g.dirty.subjects[o] = struct{}{}
	}
}

// leave is the reverse of enter.
func (g *Graph) leave(s *subject) {
	g.touch(s)
	for _, name := range s.parents {
		of := g.subjects.byProfile[name]
		if delete(of, s); len(of) == 0 && of != nil {
			delete(g.subjects.byProfile, name)
			g.selected.DeleteParent(name)
		}
	}
	if s.host {
		return
	}
	of := g.subjects.byLink[s.link]
	if at := slices.Index(of, s); at >= 0 {
		of = slices.Delete(of, at, at+1)
	}
	for _, o := range of {
		g.dirty.subjects[o] = struct{}{}
	}
	if g.subjects.byLink[s.link] = of; len(of) == 0 {
		delete(g.subjects.byLink, s.link)
	}
}

func compareSubjects(a, b *subject) int { return CompareKeys(a.key, b.key) }

// touch marks a subject.
func (g *Graph) touch(s *subject) {
	g.dirty.subjects[s] = struct{}{}
	g.dirty.hosts = g.dirty.hosts || s.host
	g.dirty.problems = true
}

// touchAll marks all subjects.
func (g *Graph) touchAll() {
	for _, s := range g.subjects.byKey {
		g.touch(s)
	}
}

// inForce reports whether a subject has lists in a family. A workload has where it
// has an address, if no other one that has is before it on the interface; a host
// endpoint where an interface is its own.
func (g *Graph) inForce(s *subject, h *half) bool {
	switch {
	case s.gone || !h.active:
		return false
	case s.host:
		return len(s.links) > 0
	}
	for _, first := range g.subjects.byLink[s.link] {
		if first.hasFamily(h.v6) {
			return first == s
		}
	}
	return false
}

// interfaces is how many a subject in force has.
func (s *subject) interfaces() int {
	switch {
	case !s.host:
		return 1
	case slices.Contains(s.links, "*"):
		return len(s.links) - 1
	}
	return len(s.links)
}

func (s *subject) hasFamily(v6 bool) bool {
	return slices.ContainsFunc(s.addrs, func(a netip.Addr) bool { return a.Is6() == v6 })
}

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
	var mine []*pol
	for _, sel := range g.selected.Matches(s.n) {
		mine = append(mine, g.chosen[sel]...)
	}
	slices.SortFunc(mine, func(a, b *pol) int {
		if a.p.Tier != b.p.Tier {
			return CompareTiers(g.tier(a.p.Tier), g.tier(b.p.Tier))
		}
		return ComparePolicies(&a.p, &b.p)
	})
	var profs []*prof
	for _, name := range s.parents {
		if p := g.profiles[name]; p != nil && p.known {
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
	if st == Normal {
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

// hosts are the host endpoints of this node, sorted by key.
func (ss *subjects) hosts() []*subject {
	var out []*subject
	for _, s := range ss.byKey {
		if s.host {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, compareSubjects)
	return out
}

// assign says which host endpoint each interface that is no workload's belongs to: the
// first by key that names it or has one of its addresses. The first for all interfaces
// ("*") has those that are left.
func (g *Graph) assign() {
	heps := g.subjects.hosts()
	names := map[string][]netip.Addr{}
	for _, s := range heps {
		if s.link != "" {
			names[s.link] = nil
		}
	}
	for _, l := range g.links {
		names[l.Name] = append(names[l.Name], l.Addrs...)
	}
	mine := map[*subject][]string{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if WorkloadLink(g.settings.Prefixes, name) {
			continue
		}
		at := slices.IndexFunc(heps, func(s *subject) bool { return s.owns(name, names[name]) })
		if at >= 0 {
			mine[heps[at]] = append(mine[heps[at]], name)
		}
	}
	for _, s := range heps {
		if !slices.Equal(s.links, mine[s]) {
			s.links = mine[s]
			g.dirty.subjects[s] = struct{}{}
		}
	}
}

// owns reports whether a host endpoint fits an interface by its name or addresses.
func (s *subject) owns(link string, addrs []netip.Addr) bool {
	return s.link == link ||
		s.link == "" && slices.ContainsFunc(s.addrs, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
}
