package policy

import (
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
	hostCount int // of them that are host endpoints
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
		g.subjects.hostCount += b2i(s.host)
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
	g.subjects.hostCount -= b2i(s.host)
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
			if g.profiles[name] != nil {
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

// NeedsLinks reports whether anything depends on which interfaces the node has: whether
// it has host endpoints.
func (g *Graph) NeedsLinks() bool { return g.subjects.hostCount > 0 }

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
