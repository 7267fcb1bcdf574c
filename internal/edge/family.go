package edge

import (
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Names of the sets. Those of pools and hosts are Calico's.
const (
	AllPools      = "all-ipam-pools"  // plan.SetNets: addresses of the cluster
	OutgoingPools = "masq-ipam-pools" // plan.SetNets: of pools with natOutgoing
	AllHosts      = "all-hosts"       // plan.SetAddrs: nodes' addresses (model.Node.Addr); only if a rule asks
	ExternalNodes = "external-nodes"  // plan.SetNets: externalNodesList; only if a rule asks
)

// Names of the base chains.
const (
	NATChain         = "nat-postrouting"
	TunnelsIn        = "tunnels-input"
	TunnelsUntracked = "tunnels-prerouting"
	TunnelsOut       = "tunnels-output"
)

// family is what the table of one family follows from, but for nodes' addresses.
type family struct {
	settings
	v6          bool
	all         []netip.Prefix   // of pools, those that are disabled too: they have pods still; maximal
	outgoing    []netip.Prefix   // of pools with natOutgoing; maximal
	external    []netip.Prefix   // may send encapsulated packets, beside nodes; maximal
	endpoints   []model.Endpoint // of this node, with limits or floating addresses; as limited has them
	ipip, vxlan bool             // these are in use: a pool asks for one and not for both, which excludes itself
}

// familyOf makes a family of the pools among values, and of a node's endpoints.
func familyOf(s settings, values iter.Seq[model.Value], endpoints []model.Endpoint, v6 bool) family {
	f := family{settings: s, v6: v6, endpoints: endpoints, external: maximal(s.tunnel.ExternalNodes, v6)}
	for v := range values {
		p, ok := v.(model.Pool)
		if !ok || p.CIDR.Addr().Is4() == v6 {
			continue
		}
		f.all = append(f.all, p.CIDR)
		if p.NATOutgoing {
			f.outgoing = append(f.outgoing, p.CIDR)
		}
		ipip, vxlan := encapsulates(p.IPIP), encapsulates(p.VXLAN)
		f.ipip = f.ipip || ipip && !vxlan && !v6
		f.vxlan = f.vxlan || vxlan && !ipip
	}
	f.all, f.outgoing = maximal(f.all, v6), maximal(f.outgoing, v6)
	// What is set wins over what pools ask for. It is said of IPv4 only.
	if t := s.tunnel; !v6 {
		f.ipip = t.IPIP == nil && f.ipip || t.IPIP != nil && *t.IPIP
		f.vxlan = t.VXLAN == nil && f.vxlan || t.VXLAN != nil && *t.VXLAN
	}
	return f
}

func encapsulates(m model.EncapMode) bool {
	return m == model.EncapAlways || m == model.EncapCrossSubnet
}

// table is that of the family; nobody's address is in AllHosts.
func (f *family) table() plan.Table {
	t := plan.Table{}.Apply(plan.TableDelta{})
	if f.v6 && !f.ipv6 {
		return t
	}
	rules := slices.Concat(f.floating(t), f.leaving(), f.tunnelled())
	// The chain stays while there are pools, even with nothing in it: with the last
	// chain of its type the kernel would stop to translate the connections that are there.
	// It would, too, with the last rule that needs connection tracking: those of policy.
	if len(f.all) > 0 || len(rules) > 0 {
		base(t, NATChain, plan.Base{Hook: plan.Postrouting, Priority: plan.PrioritySourceNAT, Type: plan.ChainNAT}, rules)
	}
	f.underlay(t)
	f.limits(t)
	f.marks(t)
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, m := range r.Match {
				if m.Set != "" && t.Sets[m.Set] == nil {
					f.set(t, m.Set)
				}
			}
		}
	}
	return t
}

func base(t plan.Table, name string, b plan.Base, rules []plan.Rule) {
	t.Chains[name] = plan.Chain{Name: name, Base: &b, Rules: rules}
}

// set makes the set of that name, which a rule asks.
func (f *family) set(t plan.Table, name string) {
	if name == AllHosts {
		t.Sets[name] = plan.NewSetContent(plan.Set{Name: name, Type: plan.SetAddrs})
		return
	}
	s := plan.NewSetContent(plan.Set{Name: name, Type: plan.SetNets})
	for _, n := range map[string][]netip.Prefix{AllPools: f.all, OutgoingPools: f.outgoing, ExternalNodes: f.external}[name] {
		s.Members[plan.NetMember(n)] = struct{}{}
	}
	t.Sets[name] = s
}

// Comments of the rules.
const (
	commentOutgoing = "natOutgoing of IP pools"
	commentTunnel   = "from an address of another interface, to which answers would come without the tunnel"
)

// leaving translates what pods send to where nobody knows their addresses.
func (f *family) leaving() []plan.Rule {
	if len(f.outgoing) == 0 {
		return nil
	}
	match := []plan.Match{
		{Kind: plan.MatchSrcSet, Set: OutgoingPools},
		{Kind: plan.MatchDstSet, Set: AllPools, Not: true},
	}
	if f.excludesHosts() {
		match = append(match, plan.Match{Kind: plan.MatchDstSet, Set: AllHosts, Not: true})
	}
	if link := f.outLink(); link != "" {
		match = append(match, plan.Match{Kind: plan.MatchOutLink, Link: link})
	}
	verdict, nat := f.translation()
	rule := plan.Rule{Match: match, Count: true, Verdict: verdict, NAT: &nat, Comment: commentOutgoing}
	if nat.LastPort == 0 {
		return []plan.Rule{rule}
	}
	var rules []plan.Rule
	for _, p := range rangedProtocols() {
		one := rule
		one.Match = append(match[:len(match):len(match)], plan.Match{Kind: plan.MatchProtocol, Low: uint16(p)})
		rules = append(rules, one)
	}
	plain := nat
	plain.FirstPort, plain.LastPort = 0, 0
	rule.NAT = &plain
	return append(rules, rule)
}

// rangedProtocols are those that natPortRange bears upon, TCP and UDP: of others the
// kernel would take ICMP's identifiers for ports.
func rangedProtocols() []uint8 { return []uint8{6, protoUDP} }

// translation is what natOutgoing makes of a source.
func (f *family) translation() (plan.Verdict, plan.NAT) {
	n := plan.NAT{FirstPort: f.nat.FirstPort, LastPort: f.nat.LastPort, Random: true}
	if a := f.nat.Addr; a.IsValid() && a.Is4() != f.v6 {
		n.Addr = a
		return plan.SNAT, n
	}
	return plan.Masquerade, n
}

func (f *family) excludesHosts() bool { return f.nat.ExcludeHosts != nil && *f.nat.ExcludeHosts }

// outLink is the interface that packets must leave by, as a plan writes it; empty: any.
func (f *family) outLink() string {
	if name, open := strings.CutSuffix(f.nat.Link, "+"); open && name == "" {
		return ""
	} else if open {
		return name + "*"
	}
	return f.nat.Link
}

// tunnelled gives what the node itself sends through a tunnel the address of the tunnel's
// device, where it has another of the node's: from a socket that is bound to it, or to a
// service whose address, before destination NAT, lay elsewhere. The other node would
// answer outside of the tunnel, or not take it.
func (f *family) tunnelled() []plan.Rule {
	var rules []plan.Rule
	for _, link := range f.tunnelLinks() {
		rules = append(rules, plan.Rule{
			Match: []plan.Match{
				{Kind: plan.MatchOutLink, Link: link},
				{Kind: plan.MatchSrcLink, Not: true},
				{Kind: plan.MatchSrcLocal},
			},
			Count: true, Verdict: plan.Masquerade, NAT: &plan.NAT{Random: true}, Comment: commentTunnel,
		})
	}
	return rules
}

// tunnelLinks are the devices of tunnels in use that only packets with addresses of pods
// and of the device itself come back through. WireGuard that carries what nodes send to
// each other takes their own addresses, too.
func (f *family) tunnelLinks() []string {
	var links []string
	if f.ipip {
		links = append(links, plan.IPIPDevice)
	}
	vxlan, on, link, usual := plan.VXLANDevice, f.tunnel.WireGuard, f.tunnel.WireGuardLink, model.DefaultWireGuardLink
	if f.v6 {
		vxlan, on, link, usual = plan.VXLAN6Device, f.tunnel.WireGuardV6, f.tunnel.WireGuardLinkV6, model.DefaultWireGuardLinkV6
	}
	if f.vxlan {
		links = append(links, vxlan)
	}
	if hosts := f.tunnel.WireGuardHosts; on != nil && *on && (hosts == nil || !*hosts) {
		if link == "" {
			link = usual
		}
		links = append(links, link)
	}
	return links
}
