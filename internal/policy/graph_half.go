package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/plan"
)

// half is the table of one family.
type half struct {
	v6      bool
	active  bool // the node has such a table
	emitter Emitter

	sets  map[SetRef]*liveSet
	lists map[string]*liveList // by name
	tiers map[string]*liveTier // by name

	blocks     map[string]*liveBlock // by name
	idleBlocks []*liveBlock          // lost their last user

	dirtySets    map[*liveSet]struct{}
	nodeSets     []*liveSet             // of SetNodes
	touchedLists map[*liveList]struct{} // new, or with a user less
	touchedTiers map[*liveTier]struct{}

	base  plan.Table // as it was emitted
	nodes *liveSet   // what is in the set NodeAddrs where there is one
	elems elements
	delta plan.TableDelta
}

func newHalf(v6 bool) *half {
	h := &half{
		v6: v6, sets: map[SetRef]*liveSet{}, lists: map[string]*liveList{}, tiers: map[string]*liveTier{}, blocks: map[string]*liveBlock{},
		dirtySets: map[*liveSet]struct{}{}, touchedLists: map[*liveList]struct{}{}, touchedTiers: map[*liveTier]struct{}{},
		nodes: &liveSet{v6: v6, counts: map[plan.Member]uint32{}, emitted: true},
		elems: elements{now: map[elementKey]string{}, was: map[elementKey]maybeValue{}},
	}
	h.emitter = Emitter{V6: v6, Parts: func(r SetRef) Parts { return h.sets[r].parts }}
	return h
}

func (g *Graph) half(v6 bool) *half { return g.halves[b2i(v6)] }

func (h *half) index() int { return b2i(h.v6) }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// emit emits a chain if it is not as it was.
func (h *half) emit(e *emitted, c plan.Chain) {
	if e.chain.Name == "" || !e.chain.Equal(c) {
		e.chain = c
		h.delta.PutChains = append(h.delta.PutChains, c)
	}
}

// forget deletes a chain if it was emitted.
func (h *half) forget(e *emitted) {
	if e.chain.Name != "" {
		h.delta.DeleteChains = append(h.delta.DeleteChains, e.chain.Name)
		e.chain = plan.Chain{}
	}
}

// elements are those of sets and maps that know interfaces: what is wanted, and what
// there was before changes since the last flush.
type elements struct {
	now map[elementKey]string
	was map[elementKey]maybeValue
}

type elementKey struct {
	set, link string
	net       netip.Prefix
}

type maybeValue struct {
	value string
	ok    bool
}

func (e *elements) touch(p placed) elementKey {
	k := elementKey{p.set, p.Link, p.Net}
	if _, ok := e.was[k]; !ok {
		v, ok := e.now[k]
		e.was[k] = maybeValue{v, ok}
	}
	return k
}

func (e *elements) put(p placed)    { e.now[e.touch(p)] = p.Value }
func (e *elements) remove(p placed) { delete(e.now, e.touch(p)) }

// fill emits what is in the sets of the base: had and have are those before and now.
func (h *half) fill(had, have map[string]*plan.SetContent) {
	h.elems.flush(&h.delta, had, have)
	c := plan.SetChange{Set: NodeAddrs}
	switch {
	case have[NodeAddrs] == nil:
	case had[NodeAddrs] == nil:
		c.Put = h.nodes.addrs()
	default:
		h.nodes.changes(&c, true)
	}
	h.nodes.was = nil
	if len(c.Put)+len(c.Delete) > 0 {
		h.delta.Changes = append(h.delta.Changes, c)
	}
}

// flush emits the changes of elements: all of sets that are new, none of those that
// are gone.
func (e *elements) flush(d *plan.TableDelta, had, have map[string]*plan.SetContent) {
	changes := map[string]*plan.SetChange{}
	change := func(set string) *plan.SetChange {
		if changes[set] == nil {
			changes[set] = &plan.SetChange{Set: set}
		}
		return changes[set]
	}
	element := func(k elementKey, v string) plan.Element { return plan.Element{Link: k.link, Net: k.net, Value: v} }
	for k, was := range e.was {
		if had[k.set] == nil || have[k.set] == nil {
			continue
		}
		now, ok := e.now[k]
		if ok && was != (maybeValue{now, true}) {
			c := change(k.set)
			c.PutElement = append(c.PutElement, element(k, now))
		} else if !ok && was.ok {
			c := change(k.set)
			c.DeleteElement = append(c.DeleteElement, element(k, was.value))
		}
	}
	clear(e.was)
	fresh := false
	for name := range have {
		fresh = fresh || had[name] == nil
	}
	if fresh {
		for k, v := range e.now {
			if had[k.set] == nil && have[k.set] != nil {
				c := change(k.set)
				c.PutElement = append(c.PutElement, element(k, v))
			}
		}
	}
	for _, c := range changes {
		d.Changes = append(d.Changes, *c)
	}
}

// rebase emits the part of the table that follows from settings, and elements.
func (g *Graph) rebase(h *half) {
	var now plan.Table
	if h.active {
		now = h.emitter.Base(g.points)
		for _, s := range g.subjects.hosts() {
			for at, l := range s.lists[h.index()] {
				if l != nil && slices.Contains(s.links, "*") {
					c := Point(at).AnyChain(l.name)
					now.Chains[c.Name] = c
				}
			}
		}
	}
	diffBase(&h.delta, h.base, now)
	h.fill(h.base.Sets, now.Sets)
	h.base = now
}

// diffBase appends to d what makes old into now.
func diffBase(d *plan.TableDelta, old, now plan.Table) {
	for name, s := range now.Sets {
		had := old.Sets[name]
		if had == nil {
			d.PutSets = append(d.PutSets, s.Set)
			had = &plan.SetContent{}
		}
		c := plan.SetChange{Set: name}
		c.Put, c.Delete = missing(s.Members, had.Members), missing(had.Members, s.Members)
		c.PutElement, c.DeleteElement = missing(s.Elements, had.Elements), missing(had.Elements, s.Elements)
		if len(c.Put)+len(c.Delete)+len(c.PutElement)+len(c.DeleteElement) > 0 {
			d.Changes = append(d.Changes, c)
		}
	}
	for name := range old.Sets {
		if now.Sets[name] == nil {
			d.DeleteSets = append(d.DeleteSets, name)
		}
	}
	for name, c := range now.Chains {
		if had, ok := old.Chains[name]; !ok || !had.Equal(c) {
			d.PutChains = append(d.PutChains, c)
		}
	}
	for name := range old.Chains {
		if _, ok := now.Chains[name]; !ok {
			d.DeleteChains = append(d.DeleteChains, name)
		}
	}
}

// missing are the keys of a that b has not.
func missing[K comparable](a, b map[K]struct{}) []K {
	var out []K
	for k := range a {
		if _, ok := b[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}

// flush says what became of everything that is dirty, and cleans it.
func (g *Graph) flush() plan.FilterDelta {
	if g.loading {
		return plan.FilterDelta{}
	}
	if g.dirty.settings {
		g.resettle()
	}
	if len(g.dirty.tiers) > 0 {
		g.touchAll()
		for _, p := range g.policies {
			if _, ok := g.dirty.tiers[p.p.Tier]; ok {
				g.look(p)
			}
		}
	}
	if g.dirty.hosts {
		g.assign()
	}
	g.relist()
	g.need() // before anything goes, so that what is still needed stays
	for _, h := range g.halves {
		g.settle(h)
	}
	for _, h := range g.halves {
		g.flushSets(h)
	}
	for _, h := range g.halves {
		g.emitChains(h)
		if g.dirty.base || g.dirty.chains {
			g.rebase(h)
		} else {
			h.fill(h.base.Sets, h.base.Sets)
		}
	}
	g.dirty.settings, g.dirty.hosts, g.dirty.chains, g.dirty.base = false, false, false, false
	clear(g.dirty.bodies)
	clear(g.dirty.tiers)
	clear(g.gone.policies)
	clear(g.gone.profiles)
	return plan.FilterDelta{V4: g.halves[0].take(), V6: g.halves[1].take()}
}

// take is the delta, sorted by name; the next one starts empty.
func (h *half) take() plan.TableDelta {
	d := h.delta
	h.delta = plan.TableDelta{}
	slices.SortFunc(d.PutSets, func(a, b plan.Set) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(d.Changes, func(a, b plan.SetChange) int { return strings.Compare(a.Set, b.Set) })
	slices.SortFunc(d.PutChains, func(a, b plan.Chain) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(d.DeleteChains)
	slices.Sort(d.DeleteSets)
	return d
}
