package nft

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// build makes what gets the kernel from what is there to what is wanted, as far as that
// is not refused: what is new and nobody asks yet, then the change, then what goes.
//
// These are transactions of their own. A packet on its way keeps to the rules that it
// began with, but looks into sets as they are when it asks, and a new set of intervals
// is empty until the kernel is through with the transaction that made it (Linux 6.18;
// measured: some 100 µs). In one transaction with rules that ask it, an allowed packet
// would be lost in between, or a denied one pass. Where the kernel refuses that way,
// one transaction makes all of the change, as it does with n.whole.
func (n *NFT) build(tables ...*table) {
	tx := &n.tx
	tx.reset()
	tx.version = n.version
	tables = slices.DeleteFunc(slices.Clone(tables), func(t *table) bool { return t.refused != nil })
	for _, t := range tables {
		n.buildTable(t)
	}
	for _, t := range tables {
		if t.there || !t.empty() {
			n.buildPuts(t)
		}
	}
	fresh := tx.buildRules(tables, func(c *chain) bool { return c.base == nil && !c.there })
	if !n.whole {
		tx.mark()
	}
	for _, w := range tx.sets {
		tx.elements(w, w.now)
	}
	fresh += tx.buildRules(tables, func(c *chain) bool { return c.base == nil })
	fresh += tx.buildRules(tables, func(c *chain) bool { return c.base != nil })
	if !n.whole {
		tx.mark()
	}
	for _, w := range tx.sets {
		tx.elements(w, w.last)
	}
	for _, t := range tables {
		tx.buildGone(t)
	}
	if fresh <= echoRules {
		tx.askHandles()
	}
}

// buildTable makes a table, removes it, or both at once.
func (n *NFT) buildTable(t *table) {
	tx := &n.tx
	empty := t.empty()
	if t.there && (empty || t.replace) {
		tx.message(op{stage: atTable, t: t}, unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME)
		tx.end()
		tx.tables = append(tx.tables, tableWork{t, true})
		t.forget() // a refusal has it read again
	}
	t.replace = false
	if !t.there && !empty {
		tx.message(op{stage: atTable, t: t}, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, unix.NFTA_TABLE_NAME)
		tx.u32(unix.NFTA_TABLE_FLAGS, 0)
		tx.end()
		tx.tables = append(tx.tables, tableWork{t, false})
	}
	if empty && !t.there {
		t.forget()
	}
}

// buildPuts makes sets, chains, and the elements that nobody asks for yet.
func (n *NFT) buildPuts(t *table) {
	var works []*setWork
	for _, s := range sorted(t.dirtySets, func(s *set) string { return s.Name }) {
		if !s.want {
			continue
		}
		delete(t.dirtySets, s)
		if s.invalid != nil {
			s.refused = s.invalid
		}
		if s.refused == nil && s.wanted > n.opts.MaxSetSize {
			s.refused = fmt.Errorf("%d members: more than the %d that a set may have", s.wanted, n.opts.MaxSetSize)
		}
		if s.refused != nil {
			t.troubled = true
			continue
		}
		w := &setWork{s: s}
		works = append(works, w)
		if !s.there {
			n.buildSet(w)
		}
	}
	for _, c := range sorted(t.dirtyChains, func(c *chain) string { return c.name }) {
		if c.want && !c.there {
			n.tx.buildChain(c)
		}
	}
	for _, w := range works {
		w.buildElements()
		n.tx.elements(w, w.first)
	}
	n.tx.sets = append(n.tx.sets, works...)
}

// sorted gives a set in the order in which nft(8) is to list it.
func sorted[T comparable](of map[T]struct{}, name func(T) string) []T {
	out := make([]T, 0, len(of))
	for x := range of {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	return out
}

func (n *NFT) buildSet(w *setWork) {
	tx, s := &n.tx, w.s
	n.nextSetID++
	tx.message(op{stage: atSet, t: s.t, s: s}, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.NFTA_SET_TABLE)
	tx.appendSet(s.Name, n.nextSetID, s.Type, &s.layout)
	tx.end()
	w.made = true
}

// buildChain makes a chain without rules.
func (tx *transaction) buildChain(c *chain) {
	if c.hopeless() {
		return
	}
	tx.message(op{stage: atChain, t: c.t, c: c}, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_EXCL, unix.NFTA_CHAIN_TABLE)
	tx.str(unix.NFTA_CHAIN_NAME, c.name)
	if c.base != nil {
		hook := tx.open(unix.NFTA_CHAIN_HOOK)
		tx.u32(nftaHookNum, uint32(c.base.Hook))
		tx.u32(nftaHookPriority, uint32(c.base.Priority))
		tx.close(hook)
		tx.u32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		tx.str(unix.NFTA_CHAIN_TYPE, c.base.Type.String())
	}
	tx.end()
}

// bad is why the rules of c cannot be as wanted.
func (c *chain) bad() error {
	if c.refused != nil {
		return c.refused
	}
	return c.invalid
}

// hopeless reports whether c is not even to be made: if it has no possible name, or
// is a base chain that cannot be as it should. There is none to keep, and to close it
// would cut off the node.
func (c *chain) hopeless() bool {
	return c.bad() != nil && !c.there && (c.base != nil || c.name == "" || len(c.name) > maxName)
}

// buildElements finds what is to change in a set, and when.
func (w *setWork) buildElements() {
	s := w.s
	w.changedMembers, s.changedMembers = s.changedMembers, nil
	w.changedStrays, s.strays = s.strays, nil
	for _, m := range w.changedMembers {
		f := s.members[m] &^ queued
		s.members[m] = f
		switch f & (wanted | there) {
		case wanted:
			w.put = append(w.put, m)
		case there:
			w.delete = append(w.delete, m)
		case 0:
			delete(s.members, m)
		}
	}
	changed := s.changedElements
	s.changedElements = nil
	for _, k := range changed {
		e := s.elements[k]
		e.mark &^= queued
		switch {
		case e.mark&(wanted|there) == 0:
			delete(s.elements, k)
		case e.mark&wanted == 0:
			w.deleteElement = append(w.deleteElement, k)
		case e.mark&there == 0:
			w.putElement = append(w.putElement, elementWork{k, e.want})
		case e.want != e.have:
			w.deleteElement = append(w.deleteElement, k)
			w.putElement = append(w.putElement, elementWork{k, e.want})
		}
	}
	w.schedule()
}

// schedule tells what of the changes is first, now and last. All elements of a new set
// are first; and ways from a class to a chain are there before a link has the class,
// and until none has.
func (w *setWork) schedule() {
	all := elements{w.changedStrays, w.delete, w.deleteElement, w.put, w.putElement}
	switch {
	case w.made:
		w.first = all
	case w.s.Type != plan.MapChains:
		w.now = all
	default:
		w.now.strays = w.changedStrays
		for _, p := range w.putElement {
			if slices.Contains(w.deleteElement, p.k) {
				w.now.deleteElement, w.now.putElement = append(w.now.deleteElement, p.k), append(w.now.putElement, p)
			} else {
				w.first.putElement = append(w.first.putElement, p)
			}
		}
		for _, k := range w.deleteElement {
			if !slices.Contains(w.now.deleteElement, k) {
				w.last.deleteElement = append(w.last.deleteElement, k)
			}
		}
	}
}

// elements encodes changes of a set: what goes makes room first.
func (tx *transaction) elements(w *setWork, e elements) {
	s, v6 := w.s, w.s.t.v6
	var x scratch
	if len(e.delete)+len(e.deleteElement)+len(e.strays) > 0 {
		const typ = unix.NFT_MSG_DELSETELEM
		tx.openElements(s, typ, 0)
		for _, b := range e.strays {
			tx.nextElement(s, typ, 0)
			one := elem{key: b.key[:s.layout.keyLen]}
			if b.end {
				one.flags = unix.NFT_SET_ELEM_INTERVAL_END
			}
			tx.elem(&one)
		}
		for _, m := range e.delete {
			tx.nextElement(s, typ, 0)
			tx.appendMember(&x, m, s.Type, v6)
		}
		for i := range e.deleteElement {
			tx.nextElement(s, typ, 0)
			tx.appendElement(&x, &e.deleteElement[i], "", s.Type, v6)
		}
		tx.closeElements()
	}
	if len(e.put)+len(e.putElement) > 0 {
		const typ = unix.NFT_MSG_NEWSETELEM
		tx.openElements(s, typ, unix.NLM_F_CREATE)
		for _, m := range e.put {
			tx.nextElement(s, typ, unix.NLM_F_CREATE)
			tx.appendMember(&x, m, s.Type, v6)
		}
		for i := range e.putElement {
			tx.nextElement(s, typ, unix.NLM_F_CREATE)
			tx.appendElement(&x, &e.putElement[i].k, e.putElement[i].value, s.Type, v6)
		}
		tx.closeElements()
	}
}

// buildRules writes the rules of some chains, and returns how many are new.
func (tx *transaction) buildRules(tables []*table, which func(*chain) bool) (fresh int) {
	for _, t := range tables {
		for c := range t.dirtyChains {
			if c.want && which(c) {
				delete(t.dirtyChains, c)
				fresh += tx.buildChainRules(c)
			}
		}
	}
	return fresh
}

// closedRules are those of a chain that was never right.
func (t *table) closedRules() []body {
	rules, _, _ := t.encode([]plan.Rule{{Count: true, Verdict: plan.Drop, Comment: "this chain could not be made"}})
	return rules
}

// askable refuses c if it asks a set that is refused and was never made.
func (c *chain) askable() {
	if c.refused != nil {
		return
	}
	for _, name := range c.sets {
		if s := c.t.sets[name]; s != nil && s.refused != nil && !s.there {
			c.refused = fmt.Errorf("set %s: %w", name, s.refused)
			return
		}
	}
}

// buildChainRules gets from the actual rules of c to those it should have, and
// returns how many are new.
func (tx *transaction) buildChainRules(c *chain) (fresh int) {
	rules, closed := c.rules, false
	c.askable()
	if err := c.bad(); err != nil {
		c.refused, c.t.troubled = err, true
		if c.there && !c.closed || c.hopeless() {
			return 0 // the last good version stays
		}
		rules, closed = c.t.closedRules(), true
	}
	w := chainWork{c: c, closed: closed, next: make([]rule, 0, len(rules))}
	keep := common(c.actual, rules)
	for _, k := range keep {
		if k < 0 {
			fresh++
		}
	}
	if fresh == 0 && len(rules) == len(c.actual) && c.there {
		for i := range rules {
			c.actual[i].body = rules[i] // one copy of both
		}
		return 0
	}
	// What is kept is where new rules are put before; handles of it are known.
	before := make([]uint64, len(rules))
	var next uint64
	for i := len(rules) - 1; i >= 0; i-- {
		before[i] = next
		if keep[i] >= 0 {
			next = c.actual[keep[i]].handle
		}
	}
	kept := make([]bool, len(c.actual))
	for i, b := range rules {
		if k := keep[i]; k >= 0 {
			kept[k] = true
			w.next = append(w.next, c.actual[k])
			w.next[i].body = b // one copy of both
			continue
		}
		w.next = append(w.next, rule{body: b})
		tx.newRule(c, &w.next[i], before[i])
	}
	for i := range c.actual {
		if !kept[i] {
			tx.message(op{stage: atRules, t: c.t, c: c}, unix.NFT_MSG_DELRULE, 0, unix.NFTA_RULE_TABLE)
			tx.str(unix.NFTA_RULE_CHAIN, c.name)
			tx.u64(unix.NFTA_RULE_HANDLE, c.actual[i].handle)
			tx.end()
		}
	}
	tx.chains = append(tx.chains, w)
	return fresh
}

// newRule puts a rule before the one of that handle; 0: at the end.
func (tx *transaction) newRule(c *chain, r *rule, before uint64) {
	flags := uint16(unix.NLM_F_CREATE)
	if before == 0 {
		flags |= unix.NLM_F_APPEND
	}
	tx.message(op{stage: atRules, t: c.t, c: c, rule: r}, unix.NFT_MSG_NEWRULE, flags, unix.NFTA_RULE_TABLE)
	tx.str(unix.NFTA_RULE_CHAIN, c.name)
	if before != 0 {
		tx.u64(unix.NFTA_RULE_POSITION, before)
	}
	tx.b = append(tx.b, r.body...)
	tx.end()
}

// askHandles has the kernel echo new rules.
func (tx *transaction) askHandles() {
	for _, o := range tx.ops {
		if o.rule != nil {
			addFlags(tx.b[o.start:], unix.NLM_F_ECHO)
		}
	}
}

// buildGone removes what is not wanted: rules, then sets, whose elements may lead to
// chains, then chains.
func (tx *transaction) buildGone(t *table) {
	for c := range t.dirtyChains {
		if !c.want && c.there && c.refused == nil {
			tx.message(op{stage: atRulesGone, t: t, c: c}, unix.NFT_MSG_DELRULE, 0, unix.NFTA_RULE_TABLE)
			tx.str(unix.NFTA_RULE_CHAIN, c.name)
			tx.end()
		}
	}
	for s := range t.dirtySets {
		if s.want || s.refused != nil {
			continue
		}
		delete(t.dirtySets, s)
		if s.there {
			tx.message(op{stage: atSetGone, t: t, s: s}, unix.NFT_MSG_DELSET, 0, unix.NFTA_SET_TABLE)
			tx.str(unix.NFTA_SET_NAME, s.Name)
			tx.end()
			tx.sets = append(tx.sets, &setWork{s: s, gone: true})
		} else {
			delete(t.sets, s.Name)
		}
	}
	for c := range t.dirtyChains {
		if c.want || c.refused != nil {
			continue
		}
		delete(t.dirtyChains, c)
		if c.there {
			tx.message(op{stage: atChainGone, t: t, c: c}, unix.NFT_MSG_DELCHAIN, 0, unix.NFTA_CHAIN_TABLE)
			tx.str(unix.NFTA_CHAIN_NAME, c.name)
			tx.end()
			tx.chains = append(tx.chains, chainWork{c: c, gone: true})
		} else {
			delete(t.chains, c.name)
		}
	}
}
