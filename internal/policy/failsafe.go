package policy

import (
	"github.com/weft-net/weft/internal/plan"
)

// failsafeChain is the chain of what a host endpoint never denies.
func failsafeChain(d Direction, s Stage) string {
	name := [...]string{"failsafe-in", "failsafe-out"}[d]
	if s == Untracked {
		name += "-untracked"
	}
	return name
}

// failsafes write those chains. Before connection tracking the answers to failsafe
// traffic of the other direction are let pass as well: else a policy could take half of
// a connection away from connection tracking.
func (b *base) failsafes() {
	for _, d := range [...]Direction{Ingress, Egress} {
		b.chain(plan.Chain{Name: failsafeChain(d, Normal), Rules: append(b.essential(d), b.failsafe(d)...)})
		b.chain(plan.Chain{
			Name:  failsafeChain(d, Untracked),
			Rules: append(append(b.essential(d), b.failsafe(d)...), b.answers(d)...),
		})
	}
}

// failsafe are the ports of the settings.
func (b *base) failsafe(d Direction) []plan.Rule {
	list := b.Settings.FailsafeIn
	if d == Egress {
		list = b.Settings.FailsafeOut
	}
	return b.ports(list, d, plan.MatchDstPort)
}

// answers are what comes back on the other direction's ports.
func (b *base) answers(d Direction) []plan.Rule {
	list := b.Settings.FailsafeOut
	if d == Egress {
		list = b.Settings.FailsafeIn
	}
	return b.ports(list, d, plan.MatchSrcPort)
}

func (b *base) ports(list []Failsafe, d Direction, port plan.MatchKind) []plan.Rule {
	var rules []plan.Rule
	for _, f := range list {
		if f.Net.IsValid() && f.Net.Addr().Is4() == b.V6 {
			continue
		}
		match := []plan.Match{protocol(f.Protocol), {Kind: port, Low: f.Port, High: f.Port}}
		if f.Net.IsValid() && f.Net.Bits() > 0 {
			match = append(match, plan.Match{Kind: sideOf(d == Egress).net, Net: f.Net})
		}
		rules = append(rules, rule(plan.Accept, match...))
	}
	return rules
}

// essential is what a node can't be without: neighbour discovery, which for IPv4 (ARP)
// no policy can reach either, and the tunnels between nodes.
func (b *base) essential(d Direction) []plan.Rule {
	var rules []plan.Rule
	if b.V6 {
		rules = append(rules, rule(plan.Accept, protocol(protoICMPv6), plan.Match{Kind: plan.MatchICMPType, Low: 130, High: 136}))
	}
	far := sideOf(d == Egress)
	node := plan.Match{Kind: far.set, Set: NodeAddrs}
	rules = append(rules, b.tunnels(node)...)
	for _, n := range b.Settings.ExternalNodes {
		if n.Addr().Is4() != b.V6 {
			rules = append(rules, b.tunnels(plan.Match{Kind: far.net, Net: n})...)
		}
	}
	if port := b.Settings.wireGuard(b.V6); port != 0 {
		own := plan.Match{Kind: plan.MatchDstPort, Low: port, High: port}
		if d == Egress {
			own.Kind = plan.MatchSrcPort
		}
		rules = append(rules, rule(plan.Accept, protocol(protoUDP), own, node))
	}
	return rules
}

// tunnels let pass what is encapsulated, from or to a node. Who is none does not get here
// where encapsulation is in use: see package edge.
func (b *base) tunnels(node plan.Match) []plan.Rule {
	vxlan := plan.Match{Kind: plan.MatchDstPort, Low: b.Settings.VXLANPort, High: b.Settings.VXLANPort}
	rules := []plan.Rule{rule(plan.Accept, protocol(protoUDP), vxlan, node)}
	if !b.V6 {
		rules = append(rules, rule(plan.Accept, protocol(protoIPIP), node))
	}
	return rules
}

// wireGuard is the node's own port of WireGuard over IPv4 or IPv6, from and to which all
// its packets go; 0: it is not in use.
func (s Settings) wireGuard(v6 bool) uint16 {
	if v6 {
		return s.WireGuardPortV6
	}
	return s.WireGuardPort
}
