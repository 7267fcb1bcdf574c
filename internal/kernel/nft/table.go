package nft

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// mark is what is known of a member or element.
type mark uint8

const (
	wanted mark = 1 << iota
	there       // in the kernel
	seen        // has the table's parity: met by this dump
	queued      // in the list of changes
)

// table is one of our two tables: what is wanted and what is there.
type table struct {
	name   string
	v6     bool
	family uint8
	sets   map[string]*set
	chains map[string]*chain
	// dirty sets and chains have something to write.
	dirtySets   map[*set]struct{}
	dirtyChains map[*chain]struct{}

	there   bool  // in the kernel
	replace bool  // stands there in a way that only starting anew corrects
	covered bool  // coverName is in force
	stale   bool  // somebody else changed it: read it
	early   bool  // its rules were read before Synced, and nobody changed them since
	parity  mark  // seen, or 0
	epoch   int   // counts what others did
	ported  int   // chains that ask portedSet
	refused error // the kernel has no such tables
	// machine judges by what is wanted; nil: none was asked for since chains changed.
	machine *plan.Machine
	// troubled is set when something is refused, until nothing is.
	troubled bool
}

// set is a set or map.
type set struct {
	plan.Set
	t      *table
	layout setLayout
	want   bool
	there  bool
	met    bool // by the dump under way
	// Members and elements that are wanted or there.
	members  map[plan.Member]mark
	elements map[elemKey]*element
	wanted   int // how many of them are wanted
	// lengths are the prefix lengths of what was ever wanted.
	lengths plan.Lengths
	// Changes not yet written.
	changedMembers  []plan.Member
	changedElements []elemKey
	strays          []bound // ends of intervals that are no member's, to be deleted

	invalid error             // what is wanted of it cannot be
	bad     map[elemKey]error // elements that cannot be
	refused error             // what the kernel said, or invalid; it is tried again later
}

// element is an element with a name in its key.
type element struct {
	mark
	want, have string // values; empty in sets
}

// bound is an end of an interval in the kernel.
type bound struct {
	key [16]byte
	end bool
}

// rule is one rule of the kernel.
type rule struct {
	body   body
	dumped body   // as this kernel tells it, where that differs
	handle uint64 // 0: not known
}

// chain is a chain with its rules.
type chain struct {
	name   string
	t      *table
	base   *plan.Base
	want   bool
	there  bool
	plan   []plan.Rule // wanted, of which nothing is changed
	rules  []body      // the same, encoded
	sets   []string    // that they ask
	actual []rule      // in the kernel
	known  bool        // all handles of actual are
	epoch  int         // of the table, when actual was written
	scan   []rule      // of the dump under way
	met    bool
	odd    bool // in the kernel it is none of the base chains that we make

	invalid error
	refused error
	ported  bool // rules ask portedSet
	closed  bool // it never had a good version: its rules are one that drops
}

func newTable(v6 bool) *table {
	t := &table{name: tableName, v6: v6, family: netlink.Family(v6), stale: true}
	t.sets, t.chains = map[string]*set{}, map[string]*chain{}
	t.dirtySets, t.dirtyChains = map[*set]struct{}{}, map[*chain]struct{}{}
	return t
}

// String is the table as nft(8) names it.
func (t *table) String() string {
	if t.v6 {
		return "ip6 " + t.name
	}
	return "ip " + t.name
}

// apply folds d in.
func (t *table) apply(d *plan.TableDelta) {
	if len(d.PutSets)+len(d.DeleteSets)+len(d.PutChains)+len(d.DeleteChains) > 0 {
		t.machine = nil
	}
	for _, s := range d.PutSets {
		t.putSet(s)
	}
	for i := range d.Changes {
		t.change(&d.Changes[i])
	}
	for i := range d.PutChains {
		t.putChain(&d.PutChains[i])
	}
	for _, name := range d.DeleteChains {
		if c := t.chains[name]; c != nil && c.want {
			c.want, c.plan, c.invalid, c.refused = false, nil, nil, nil
			t.needPorted(c, false)
			t.touchChain(c)
		}
	}
	for _, name := range d.DeleteSets {
		t.deleteSet(name)
	}
}

func (t *table) deleteSet(name string) {
	if s := t.sets[name]; s != nil && s.want {
		s.want, s.refused, s.bad = false, nil, nil
		t.touchSet(s)
	}
}

func (t *table) touchSet(s *set) { t.dirtySets[s] = struct{}{} }

func (t *table) touchChain(c *chain) { t.dirtyChains[c] = struct{}{} }

// newSet makes a set that nobody wants yet.
func (t *table) newSet(p plan.Set) *set {
	s := &set{Set: p, t: t}
	var ok bool
	if s.layout, ok = layoutOf(p.Type, t.v6); !ok {
		s.invalid = fmt.Errorf("type %d: is not known", p.Type)
	}
	if p.Name == "" || len(p.Name) > maxName {
		s.invalid = fmt.Errorf("name: want 1 to %d bytes, it has %d", maxName, len(p.Name))
	}
	s.fresh()
	return s
}

// fresh has s know of no content.
func (s *set) fresh() {
	s.members, s.elements, s.bad = nil, nil, nil
	if s.Type.HasElements() {
		s.elements = map[elemKey]*element{}
	} else {
		s.members = map[plan.Member]mark{}
	}
	s.wanted, s.changedMembers, s.changedElements, s.strays = 0, nil, nil, nil
}

func (t *table) putSet(p plan.Set) {
	s := t.sets[p.Name]
	switch {
	case s == nil:
		s = t.newSet(p)
		t.sets[p.Name] = s
	case s.Type != p.Type:
		// Its name promised that this cannot be. Only all of the table at once
		// gets from the one to the other.
		delete(t.dirtySets, s)
		s = t.newSet(p)
		s.there, t.replace = true, true
		t.sets[p.Name] = s
	default: // it may be on its way into the kernel, or out of it
		s.empty()
	}
	s.want = true
	t.relieve(s)
	t.touchSet(s)
}

// relieve has s tried again, and the chains that may have been refused for it.
func (t *table) relieve(s *set) {
	if s.refused == nil {
		return
	}
	s.refused = nil
	for _, c := range t.chains {
		if c.refused != nil {
			c.refused = nil
			t.touchChain(c)
		}
	}
}

// empty unwants all that is in s.
func (s *set) empty() {
	for m, f := range s.members {
		s.mark(m, f, false)
	}
	for k, e := range s.elements {
		if e.mark&wanted != 0 {
			e.mark &^= wanted
			s.wanted--
			s.queueElement(k, e)
		}
	}
	s.bad = nil
}

// mark changes whether m is wanted; f is what is known of it.
func (s *set) mark(m plan.Member, f mark, want bool) {
	if want == (f&wanted != 0) {
		return
	}
	f ^= wanted
	if want {
		s.wanted++
		s.lengths.Add(m.Bits())
	} else {
		s.wanted--
	}
	if f&queued == 0 {
		f |= queued
		s.changedMembers = append(s.changedMembers, m)
	}
	s.members[m] = f
}

func (s *set) queueElement(k elemKey, e *element) {
	if e.mark&queued == 0 {
		e.mark |= queued
		s.changedElements = append(s.changedElements, k)
	}
}

func (t *table) change(c *plan.SetChange) {
	s := t.sets[c.Set]
	if s == nil || !s.want {
		return
	}
	t.relieve(s)
	t.touchSet(s)
	if s.Type.HasElements() {
		for _, e := range c.DeleteElement {
			s.deleteElement(e)
		}
		for _, e := range c.PutElement {
			s.putElement(e)
		}
		return
	}
	if s.Type == plan.SetFlows {
		return // its contents are not planned
	}
	for _, m := range c.Delete {
		s.mark(m, s.members[m], false)
	}
	for _, m := range c.Put {
		s.mark(m, s.members[m], true)
	}
}

func (s *set) deleteElement(p plan.Element) {
	k, _ := makeElemKey(p, s.Type, s.t.v6)
	delete(s.bad, k)
	if e := s.elements[k]; e != nil && e.mark&wanted != 0 {
		e.mark &^= wanted
		s.wanted--
		s.queueElement(k, e)
	}
}

func (s *set) putElement(p plan.Element) {
	k, err := makeElemKey(p, s.Type, s.t.v6)
	if err != nil {
		if s.bad == nil {
			s.bad = map[elemKey]error{}
		}
		s.bad[k], s.t.troubled = err, true
		return
	}
	delete(s.bad, k)
	e := s.elements[k]
	if e == nil {
		e = &element{}
		s.elements[k] = e
	}
	if e.mark&wanted == 0 {
		e.mark |= wanted
		s.wanted++
		s.lengths.Add(k.bits)
	}
	e.want = p.Value
	s.queueElement(k, e)
}

// typeOf is the type of a wanted set.
func (t *table) typeOf(name string) (plan.SetType, bool) {
	s := t.sets[name]
	if s == nil || !s.want {
		return 0, false
	}
	return s.Type, true
}

func (t *table) putChain(p *plan.Chain) {
	c := t.chains[p.Name]
	if c == nil {
		c = &chain{name: p.Name, t: t}
		t.chains[p.Name] = c
	}
	if c.there && (c.odd || !sameBase(c.base, p.Base)) {
		t.replace = true
	}
	c.want, c.closed, c.refused, c.base = true, false, nil, nil
	if p.Base != nil {
		base := *p.Base
		c.base = &base
	}
	c.plan = p.Rules
	rules, r, err := t.encode(p.Rules)
	if p.Name == "" || len(p.Name) > maxName {
		err = errors.Join(fmt.Errorf("name: want 1 to %d bytes, it has %d", maxName, len(p.Name)), err)
	}
	if c.invalid = err; err == nil {
		c.rules, c.sets = rules, slices.Sorted(maps.Keys(r.sets))
		t.needPorted(c, r.ported)
	}
	t.touchChain(c)
}

func sameBase(a, b *plan.Base) bool { return a == b || a != nil && b != nil && *a == *b }

// encode gives the rules of a chain, and the encoder, which knows what sets they ask. The error is of the first that cannot be.
func (t *table) encode(rules []plan.Rule) (out []body, r *ruler, err error) {
	r = &ruler{v6: t.v6, types: t.typeOf, sets: map[string]struct{}{}}
	out = make([]body, 0, len(rules))
	for i := range rules {
		if out, err = r.rules(&rules[i], out); err != nil {
			return nil, r, fmt.Errorf("rule %d: %w", i+1, err)
		}
	}
	return out, r, nil
}

// needPorted notes whether c asks the set of protocols with ports, which is wanted as
// long as some chain does.
func (t *table) needPorted(c *chain, need bool) {
	if need == c.ported {
		return
	}
	c.ported = need
	switch {
	case !need:
		t.ported--
		if t.ported == 0 {
			t.deleteSet(portedSet)
		}
		return
	case t.ported == 0:
		t.putSet(plan.Set{Name: portedSet, Type: setPorted})
		s := t.sets[portedSet]
		for _, p := range portProtocols {
			m := portedMember(p)
			s.mark(m, s.members[m], true)
		}
	}
	t.ported++
}

// empty reports whether nothing is wanted.
func (t *table) empty() bool {
	for _, c := range t.chains {
		if c.want {
			return false
		}
	}
	for _, s := range t.sets {
		if s.want && s.Type != setPorted {
			return false
		}
	}
	return true
}
