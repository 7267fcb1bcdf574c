package edge

import "github.com/weft-net/weft/internal/plan"

// Protocols by number.
const (
	protoIPIP = 4 // IPv4 in IPv4
	protoUDP  = 17
)

// Priorities of base chains: before connection tracking, and before those of policy.
const (
	priorityRaw     = -300
	priorityTunnels = -20
)

// underlay takes encapsulated packets from the nodes of the cluster only: what is in
// them has addresses of pods, which nobody else may give himself. Protocols that are
// not in use belong to others, and are left alone.
//
// What is in a VXLAN packet is tracked, and the packet around it is not: it would be an
// entry for each connection and direction, since its source port is made of what is in
// it. So rules here never ask for the state of a connection.
func (f *family) underlay(t plan.Table) {
	var rules []plan.Rule
	if f.ipip {
		rules = append(rules, f.strangers("IP in IP", plan.Match{Kind: plan.MatchProtocol, Low: protoIPIP})...)
	}
	if f.vxlan {
		vxlan := []plan.Match{{Kind: plan.MatchProtocol, Low: protoUDP}, {Kind: plan.MatchDstPort, Low: f.vxlanPort, High: f.vxlanPort}}
		rules = append(rules, f.strangers("VXLAN", vxlan...)...)
		untracked := func(more ...plan.Match) []plan.Rule {
			return []plan.Rule{{Match: append(vxlan[:2:2], more...), Track: true}}
		}
		base(t, TunnelsUntracked, plan.Base{Hook: plan.Prerouting, Priority: priorityRaw}, untracked(plan.Match{Kind: plan.MatchDstLocal}))
		base(t, TunnelsOut, plan.Base{Hook: plan.Output, Priority: priorityRaw}, untracked())
	}
	if len(rules) > 0 {
		base(t, TunnelsIn, plan.Base{Hook: plan.Input, Priority: priorityTunnels}, rules)
	}
}

// strangers drops packets that are none of the nodes', or not for this one.
func (f *family) strangers(what string, match ...plan.Match) []plan.Rule {
	match = match[:len(match):len(match)]
	from := append(match, plan.Match{Kind: plan.MatchSrcSet, Set: AllHosts, Not: true})
	why := what + " from an address that no node has"
	if len(f.external) > 0 {
		from = append(from, plan.Match{Kind: plan.MatchSrcSet, Set: ExternalNodes, Not: true})
		why += ", and that is not in externalNodesList"
	}
	to := append(match, plan.Match{Kind: plan.MatchDstLocal, Not: true})
	return []plan.Rule{
		{Match: from, Count: true, Verdict: plan.Drop, Comment: why},
		{Match: to, Count: true, Verdict: plan.Drop, Comment: what + " that is not to an address of this node"},
	}
}
