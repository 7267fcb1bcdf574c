package nft

import (
	"iter"

	"github.com/weft-net/weft/internal/plan"
)

// Judge calls f with machines that judge by what is wanted now, whether the kernel has
// it yet or not. They are f's for the time of the call, in which everybody else waits:
// f must be short, and must not call n.
func (n *NFT) Judge(f func(v4, v6 *plan.Machine)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tables {
		if t.machine == nil {
			t.machine = plan.NewMachine(t)
		}
	}
	f(n.tables[0].machine, n.tables[1].machine)
}

// EachRule calls f with all rules that are wanted, and the table ("ip weft", "ip6
// weft") and chain of each. f must not call n.
func (n *NFT) EachRule(f func(table, chain string, r *plan.Rule)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tables {
		for name, c := range t.chains {
			for i := range c.plan {
				f(t.String(), name, &c.plan[i])
			}
		}
	}
}

// Base, Chain and Set make t, and its sets, what a [plan.Machine] judges by.
func (t *table) Base() iter.Seq[plan.Chain] {
	return func(yield func(plan.Chain) bool) {
		for _, c := range t.chains {
			if c.want && c.base != nil && !yield(c.wantedChain()) {
				return
			}
		}
	}
}

func (t *table) Chain(name string) (plan.Chain, bool) {
	c := t.chains[name]
	if c == nil || !c.want {
		return plan.Chain{}, false
	}
	return c.wantedChain(), true
}

func (c *chain) wantedChain() plan.Chain {
	return plan.Chain{Name: c.name, Base: c.base, Rules: c.plan}
}

func (t *table) Set(name string) plan.Content {
	s := t.sets[name]
	if s == nil || !s.want {
		return nil
	}
	return s
}

func (s *set) Has(m plan.Member) bool { return s.members[m]&wanted != 0 }

func (s *set) HasPort(port uint16) bool {
	for m, f := range s.members { // some ten, of constant sets
		if f&wanted != 0 && m.Port() <= port && port <= m.Last() {
			return true
		}
	}
	return false
}

func (s *set) HasElement(e plan.Element) bool {
	k, err := makeElemKey(e, s.Type, s.t.v6)
	if err != nil {
		return false
	}
	x := s.elements[k]
	return x != nil && x.mark&wanted != 0
}

func (s *set) Value(key string) (string, bool) {
	if len(key) >= linkBytes {
		return "", false
	}
	x := s.elements[elemKey{link: linkKey(key)}]
	if x == nil || x.mark&wanted == 0 {
		return "", false
	}
	return x.want, true
}

func (s *set) Lengths() *plan.Lengths { return &s.lengths }
