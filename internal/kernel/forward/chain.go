package forward

import "slices"

// action is what a rule does with each packet that comes to it, as far as that does
// not depend on the packet.
type action uint8

const (
	goesOn  action = iota // or it depends on the packet
	accepts               // each packet
	drops
	jumps   // to the chain target, and back
	goesTo  // to the chain target
	returns // to the rule after the jump
)

// rule is a rule of a chain, as far as it matters here.
type rule struct {
	// at is the place of the rule: the handle in nf_tables, the offset in a legacy
	// table.
	at     uint64
	action action
	target string // chain, of jumps and goesTo
	ours   bool
	gate   gate // of ours
}

// gate is what one rule of ours lets through: packets from, or to, links whose names
// begin with the prefix.
type gate struct {
	prefix string
	out    bool
}

// gatesFor are the rules that a chain which drops by default must have.
func gatesFor(prefixes []string) []gate {
	var gates []gate
	for _, p := range prefixes {
		gates = append(gates, gate{p, false}, gate{p, true})
	}
	return gates
}

// mostJumps is how deep chains are followed, as in the kernel.
const mostJumps = 16

// fate says what rules do with a packet that no rule with a condition decides:
// accepts, drops, or goesOn when it comes to their end or returns, and the index of
// the rule that decides. Rules of ours do not count. The function gives the rules of
// other chains.
func fate(rules []rule, chain func(name string) []rule, depth int) (action, int) {
	for i, r := range rules {
		switch r.action {
		case accepts, drops:
			if !r.ours {
				return r.action, i
			}
		case returns:
			return goesOn, i
		case jumps, goesTo:
			if depth >= mostJumps {
				return goesOn, i
			}
			if a, _ := fate(chain(r.target), chain, depth+1); a != goesOn || r.action == goesTo {
				return a, i
			}
		}
	}
	return goesOn, len(rules)
}

// edit is a change of one chain: rules of ours to remove, and new ones to insert
// before a rule, or at the end.
type edit struct {
	remove []uint64 // places
	insert []gate
	before uint64 // place; 0: at the end
	first  bool   // before all others, whatever they are
	move   bool   // nothing is missing: the rules are not where they should be
}

func (e edit) empty() bool { return len(e.remove)+len(e.insert) == 0 }

// editFor is what makes the rules of ours right in a base chain: the gates if it drops
// by default, none if not. With rewrite they are put anew even if they are right.
func editFor(rules []rule, policyDrops bool, chain func(string) []rule, gates []gate, atEnd, rewrite bool) edit {
	var e edit
	var have []gate
	for _, r := range rules {
		if r.ours {
			e.remove, have = append(e.remove, r.at), append(have, r.gate)
		}
	}
	decision, end := fate(rules, chain, 0)
	if decision == accepts || decision == goesOn && !policyDrops || len(gates) == 0 {
		return e
	}
	whole := len(have) == len(gates)
	for _, g := range gates {
		whole = whole && slices.Contains(have, g)
	}
	placed := inPlace(rules, end, atEnd)
	if whole && placed && !rewrite {
		return edit{}
	}
	e.insert, e.move = gates, whole && !rewrite
	switch {
	case !atEnd:
		e.first = true
	case end < len(rules):
		e.before = rules[end].at
	}
	return e
}

// inPlace reports whether the rules of ours stand where they should: first, or, at
// the end, before the rule that decides.
func inPlace(rules []rule, end int, atEnd bool) bool {
	foreign := false
	for i, r := range rules {
		if r.ours && (foreign && !atEnd || i > end) {
			return false
		}
		foreign = foreign || !r.ours
	}
	return true
}
