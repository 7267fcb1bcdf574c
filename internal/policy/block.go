package policy

import (
	"cmp"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Many policies in a row are mostly about few ports: then a packet to another port
// has to meet none of them. So such a run stands in a chain of its own, a block, with a
// jump to it for each protocol and range of ports that any of its rules can match.
//
//	list chain ── tcp dport 443 ─► block: the jumps to the policies of the run
//
// A block says nothing but which policies follow each other; so lists share it, and
// it never changes. A packet fits one door of a block at most, since they don't overlap.
const (
	// maxDoors is how many doors a block may have: each costs packets as much as half a
	// policy that does not match.
	maxDoors = 4
	// minPerDoor is how many policies a door must spare those that don't fit it.
	minPerDoor = 4
	// maxPorts is how many ports are few: behind a wide door stands what every packet meets.
	maxPorts = 4096
)

// door is what packets must be to match a rule: of a protocol, to one of these ports.
// The ports 0 to 65535 are all packets of a protocol that has none.
type door struct {
	proto       uint8
	first, last uint16
}

// anyPort reports whether ports don't count.
func (o door) anyPort() bool { return o.first == 0 && o.last == 0xffff }

// run is policies in a row: a block if it has doors.
type run struct {
	policies []*model.Policy
	doors    []door
}

// doors are what a packet must be to match any rule of p; false: much may.
func doors(p *model.Policy, d Direction) ([]door, bool) {
	if Inlined(p, d) {
		return nil, false
	}
	var out []door
	rules := Rules(p, d)
	for i := range rules {
		r := &rules[i]
		ports := mergedPorts(r.Destination.Ports)
		if r.Protocol == 0 {
			return nil, false
		}
		if len(ports) == 0 || len(r.Destination.NamedPorts) > 0 {
			ports = []model.PortRange{{First: 0, Last: 0xffff}}
		}
		for _, p := range ports {
			if HasPorts(r.Protocol) && int(p.Last)-int(p.First) >= maxPorts {
				return nil, false
			}
			out = append(out, door{r.Protocol, p.First, p.Last})
		}
	}
	out = mergedDoors(out)
	return out, len(out) <= maxDoors
}

// mergedDoors are the doors sorted, with those made one that overlap or touch.
func mergedDoors(all []door) []door {
	slices.SortFunc(all, func(a, b door) int {
		return cmp.Or(cmp.Compare(a.proto, b.proto), cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last))
	})
	out := all[:0]
	for _, o := range all {
		if n := len(out); n > 0 && out[n-1].proto == o.proto && int(o.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, o.last)
		} else {
			out = append(out, o)
		}
	}
	return out
}

// runs divides policies, in order, into blocks and what is between them.
func runs(policies []*model.Policy, d Direction) []run {
	if len(policies) < minPerDoor {
		return []run{{policies: policies}}
	}
	var out []run
	var now run
	end := func() {
		if len(now.policies) < minPerDoor*max(len(now.doors), 1) {
			now.doors = nil
		}
		if last := len(out) - 1; last >= 0 && len(out[last].doors)+len(now.doors) == 0 {
			out[last].policies = append(out[last].policies, now.policies...)
		} else if len(now.policies) > 0 {
			out = append(out, now)
		}
		now = run{}
	}
	for _, p := range policies {
		mine, ok := doors(p, d)
		if !ok {
			end()
			now.policies = append(now.policies, p)
			end()
			continue
		}
		both := mergedDoors(slices.Concat(now.doors, mine))
		if len(both) > maxDoors {
			end()
			both = mine
		}
		now.policies, now.doors = append(now.policies, p), both
	}
	end()
	return out
}

// name is the name of the chain of a block, which its policies make up.
func (r run) name(d Direction) string {
	parts := make([]string, 0, 3*len(r.policies))
	for _, p := range r.policies {
		parts = append(parts, string(p.Origin.Kind), p.Origin.Namespace, p.Origin.Name)
	}
	return "block-" + letterOf(d) + "-" + hash(20, parts...)
}

// runRules jump to a block, or to the policies of a run that is none, or are these.
func (e Emitter) runRules(r run, d Direction) []plan.Rule {
	var out []plan.Rule
	for _, o := range r.doors {
		jump := plan.Rule{Match: []plan.Match{protocol(o.proto)}, Verdict: plan.Jump, Target: r.name(d)}
		if !o.anyPort() {
			jump.Match = append(jump.Match, plan.Match{Kind: plan.MatchDstPort, Low: o.first, High: o.last})
		}
		out = append(out, jump)
	}
	if len(out) > 0 {
		return out
	}
	for _, p := range r.policies {
		if Inlined(p, d) {
			out = append(out, e.policyRules(p, d)...)
			continue
		}
		out = append(out, jump(PolicyChainName(p.Origin, d), p.Origin.String()))
	}
	return out
}

// Blocks are the chains of the blocks of a tier.
func (e Emitter) Blocks(t TierList, d Direction) []plan.Chain {
	var out []plan.Chain
	for _, r := range runs(t.Policies, d) {
		if len(r.doors) > 0 {
			out = append(out, plan.Chain{Name: r.name(d), Rules: e.runRules(run{policies: r.policies}, d)})
		}
	}
	return out
}
