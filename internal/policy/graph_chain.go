package policy

import (
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// body is the rules of a policy or profile in force, in one family and direction: the
// sets that they need, and their chain.
type body struct {
	half    *half
	dir     Direction
	pol     *pol  // or
	prof    *prof // of which it is
	users   int
	sets    []*liveSet
	inlined bool   // it has no chain
	doors   []door // of a policy that has them; see block.go
	narrow  bool
	emitted
}

// liveTier is a tier in lists, with a chain if it is Chained, in one family.
type liveTier struct {
	name    string
	stage   Stage
	dir     Direction
	list    TierList
	chained bool
	pols    []*body
	blocks  []*liveBlock
	users   int
	emitted
}

// liveBlock is the chain of a block, in one family.
type liveBlock struct {
	users int // tiers
	emitted
}

// liveList is a list chain, in one family.
type liveList struct {
	at          Point
	name, class string
	list        List
	tiers       []*liveTier
	profs       []*body
	users       int
	linked      int // interfaces of users; "*" is none
	emitted
}

// link counts interfaces: with the first one the list gets its place in the map of lists,
// with the last one it loses it.
func (l *liveList) link(h *half, n int) {
	e := placed{l.at.Chains(), plan.Element{Link: l.class, Value: l.name}}
	was := l.linked > 0
	l.linked += n
	if now := l.linked > 0; now && !was {
		h.elems.put(e)
	} else if was && !now {
		h.elems.remove(e)
	}
}

// emitted is a chain as it was emitted; without a name it was not.
type emitted struct{ chain plan.Chain }

// acquireList is the list chain of w, with one user more.
func (g *Graph) acquireList(h *half, at Point, w *wanted) *liveList {
	l := h.lists[w.name]
	if l == nil {
		l = &liveList{at: at, name: w.name, class: w.class, list: w.List}
		for i := range w.Tiers {
			l.tiers = append(l.tiers, g.acquireTier(h, w, i))
		}
		for _, p := range w.profs {
			l.profs = append(l.profs, g.acquireBody(h, &p.bodies, &body{half: h, dir: w.Direction, prof: p}))
		}
		h.lists[w.name] = l
		h.touchedLists[l] = struct{}{}
	}
	l.users++
	return l
}

func (g *Graph) acquireTier(h *half, w *wanted, i int) *liveTier {
	name := TierChainName(w.Tiers[i], w.Stage, w.Direction)
	t := h.tiers[name]
	if t == nil {
		t = &liveTier{name: name, stage: w.Stage, dir: w.Direction, list: w.Tiers[i]}
		for _, p := range w.pols[i] {
			t.pols = append(t.pols, g.acquireBody(h, &p.bodies, &body{half: h, dir: w.Direction, pol: p}))
		}
		h.tiers[name] = t
		h.touchedTiers[t] = struct{}{}
	}
	t.users++
	return t
}

// acquireBody is the body in force, with one user more; fresh becomes it if there is
// none.
func (g *Graph) acquireBody(h *half, bodies *[2][2]*body, fresh *body) *body {
	at := &bodies[h.index()][fresh.dir]
	if *at == nil {
		*at = fresh
		g.dirty.bodies[fresh] = struct{}{}
	}
	(*at).users++
	return *at
}

func (g *Graph) releaseBody(b *body) {
	if b.users--; b.users > 0 {
		return
	}
	delete(g.dirty.bodies, b)
	for _, s := range b.sets {
		g.releaseSet(b.half, s, b)
	}
	b.half.forget(&b.emitted)
	if b.pol != nil {
		b.pol.bodies[b.half.index()][b.dir] = nil
	} else {
		b.prof.bodies[b.half.index()][b.dir] = nil
	}
}

func (b *body) rules() []model.Rule {
	if b.pol != nil {
		return Rules(&b.pol.p, b.dir)
	}
	return profileRules(&b.prof.p, b.dir)
}

// need gives dirty bodies the sets that they need. All new ones come before any old
// one goes, so that a set that moves stays.
func (g *Graph) need() {
	old := map[*body][]*liveSet{}
	for b := range g.dirty.bodies {
		old[b] = b.sets
		b.sets = nil
		for _, n := range Needs(b.rules(), b.half.v6) {
			b.sets = append(b.sets, g.acquireSet(b.half, n, b))
		}
	}
	for b, sets := range old {
		keep := make(map[*liveSet]struct{}, len(b.sets))
		for _, s := range b.sets {
			keep[s] = struct{}{}
		}
		for _, s := range sets {
			if _, ok := keep[s]; !ok {
				g.releaseSet(b.half, s, b)
			}
		}
	}
}

// settle lets go what lost its last user: lists, then tiers, then bodies.
func (g *Graph) settle(h *half) {
	for l := range h.touchedLists {
		if l.users > 0 {
			continue
		}
		delete(h.touchedLists, l)
		delete(h.lists, l.name)
		h.forget(&l.emitted)
		for _, t := range l.tiers {
			t.users--
			h.touchedTiers[t] = struct{}{}
		}
		for _, b := range l.profs {
			g.releaseBody(b)
		}
	}
	for t := range h.touchedTiers {
		if t.users > 0 {
			continue
		}
		delete(h.touchedTiers, t)
		delete(h.tiers, t.name)
		h.forget(&t.emitted)
		h.releaseBlocks(t.blocks)
		for _, b := range t.pols {
			g.releaseBody(b)
		}
	}
}

// emitChains emits whatever may look otherwise than before: bodies, then the tiers and
// lists in which they are, or in which something came to be or is no more.
func (g *Graph) emitChains(h *half) {
	if g.dirty.chains {
		for _, l := range h.lists {
			h.touchedLists[l] = struct{}{}
		}
		for _, p := range g.policies {
			g.touchBodies(p.bodies)
		}
		for _, p := range g.profiles {
			g.touchBodies(p.bodies)
		}
	}
	moved := g.emitBodies(h)
	tiers := g.emitTiers(h, moved)
	if len(moved)+len(tiers) > 0 {
		for _, l := range h.lists {
			if slices.ContainsFunc(l.profs, func(b *body) bool { return moved[b] }) ||
				slices.ContainsFunc(l.tiers, func(t *liveTier) bool { return tiers[t] }) {
				h.touchedLists[l] = struct{}{}
			}
		}
	}
	for l := range h.touchedLists {
		for i, t := range l.tiers {
			l.list.Tiers[i].Tier = t.list.Tier
		}
		h.emit(&l.emitted, h.emitter.ListChain(l.list))
	}
	clear(h.touchedLists)
	clear(h.touchedTiers)
	h.sweepBlocks()
}

// emitBodies emits the chains of bodies that are dirty. It returns those with which the
// chains of others change: that stand there, or stood, or are found by other doors.
func (g *Graph) emitBodies(h *half) map[*body]bool {
	var moved map[*body]bool
	for b := range g.dirty.bodies {
		if b.half != h {
			continue
		}
		was, before, narrow := b.inlined, b.doors, b.narrow
		if b.pol != nil {
			b.inlined = Inlined(&b.pol.p, b.dir)
			b.doors, b.narrow = doors(&b.pol.p, b.dir)
		} else {
			b.inlined = InlinedProfile(&b.prof.p, b.dir)
		}
		switch {
		case b.inlined:
			h.forget(&b.emitted)
		case b.pol != nil:
			h.emit(&b.emitted, h.emitter.PolicyChain(&b.pol.p, b.dir))
		default:
			h.emit(&b.emitted, h.emitter.ProfileChain(&b.prof.p, b.dir))
		}
		if was || b.inlined || narrow != b.narrow || !slices.Equal(before, b.doors) {
			if moved == nil {
				moved = map[*body]bool{}
			}
			moved[b] = true
		}
	}
	return moved
}

// emitTiers emits the chains of tiers that may look otherwise, and their blocks. It
// returns those that stand, or stood, in the lists' chains.
func (g *Graph) emitTiers(h *half, moved map[*body]bool) map[*liveTier]bool {
	var inLists map[*liveTier]bool
	for _, t := range h.tiers {
		_, fresh := h.touchedTiers[t] // as its lists then are
		_, renewed := g.dirty.tiers[t.list.Tier.Name]
		changed := len(moved) > 0 && slices.ContainsFunc(t.pols, func(b *body) bool { return moved[b] })
		if !fresh && !renewed && !changed && !g.dirty.chains {
			continue
		}
		t.list.Tier = g.tier(t.list.Tier.Name)
		h.emitBlocks(t)
		was := t.chained
		if t.chained = t.list.Chained(t.dir); t.chained {
			h.emit(&t.emitted, h.emitter.TierChain(t.list, t.stage, t.dir))
		} else {
			h.forget(&t.emitted)
		}
		if (renewed || changed) && !(was && t.chained) {
			if inLists == nil {
				inLists = map[*liveTier]bool{}
			}
			inLists[t] = true
		}
	}
	return inLists
}

// emitBlocks gives a tier its blocks.
func (h *half) emitBlocks(t *liveTier) {
	old := t.blocks
	t.blocks = nil
	for _, c := range h.emitter.Blocks(t.list, t.dir) {
		b := h.blocks[c.Name]
		if b == nil {
			b = &liveBlock{}
			h.blocks[c.Name] = b
		}
		b.users++
		h.emit(&b.emitted, c)
		t.blocks = append(t.blocks, b)
	}
	h.releaseBlocks(old)
}

func (h *half) releaseBlocks(blocks []*liveBlock) {
	for _, b := range blocks {
		if b.users--; b.users == 0 {
			h.idleBlocks = append(h.idleBlocks, b)
		}
	}
}

// sweepBlocks lets go the blocks that lost their last user, and found no other.
func (h *half) sweepBlocks() {
	for _, b := range h.idleBlocks {
		if b.users == 0 && b.chain.Name != "" {
			delete(h.blocks, b.chain.Name)
			h.forget(&b.emitted)
		}
	}
	h.idleBlocks = nil
}
