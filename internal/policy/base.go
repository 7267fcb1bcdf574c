package policy

import (
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Names of the sets of a table that hold interfaces' addresses, nodes and ended flows.
const (
	SourceAddrs = "source-addrs" // plan.SetLinkAddrs: interface . an address of its workload, single
	SourceNets  = "source-nets"  // plan.SetLinkNets: interface . what else its workload may send from; only if Settings.SpoofAny
	EndedFlows  = "ended-flows"  // plan.SetFlows: flows that policy has ended
	NodeAddrs   = "node-addrs"   // plan.SetAddrs: all nodes' addresses (model.Node.Addr); only if Base's points have a host's
)

// Priorities of base chains (nft(8)): early is before connection tracking, mangle after
// it and before destination NAT. Those of the filter are near to zero, in the order in
// which a packet meets them.
const (
	priorityRaw      = -300
	priorityMangle   = -150
	priorityHostIn   = -12
	priorityWorkload = -11
	priorityNext     = -10
	priorityHostOut  = -9
)

// Base is the part of the table that follows from settings and used alone: sets
// (all of which stand there, empty but for constants) and chains. used are the
// points at which host endpoints have lists; those of workloads are always there.
//
//	prerouting -300  raw: source of workloads; host endpoint, untracked
//	prerouting -150  host endpoint, before destination NAT
//	forward     -12  host endpoint, forwarded, ingress
//	forward     -11  workload, egress
//	forward     -10  workload, ingress
//	forward      -9  host endpoint, forwarded, egress
//	input       -11  workload, egress
//	input       -10  workload to host; host endpoint, ingress
//	output     -300  host endpoint, untracked
//	output      -10  marks what is of the node itself
//	postrouting -10  host endpoint, egress
//
// Accept ends one base chain, so each point has its own. What belongs to an established
// connection leaves each of them by its first rule. What a node sends to its own
// workloads is not policed, as in Calico.
func (e Emitter) Base(used Points) plan.Table {
	b := base{Emitter: e, used: used, table: plan.Table{}.Apply(plan.TableDelta{})}
	b.set(SourceAddrs, plan.SetLinkAddrs)
	b.set(SourceNets, plan.SetLinkNets)
	if e.Settings.EndFlows {
		b.set(EndedFlows, plan.SetFlows)
	}
	b.maps(FromWorkload)
	b.maps(ToWorkload)
	for _, p := range HostPoints() {
		if used.Has(p) {
			b.maps(p)
			b.chain(p.AnyChain(""))
		}
	}
	if used.hosts() {
		b.set(NodeAddrs, plan.SetAddrs)
		b.failsafes()
	}
	b.prerouting()
	b.forward()
	b.input()
	b.output()
	return b.table
}

// base is a table that is being written.
type base struct {
	Emitter
	used  Points
	table plan.Table
}

func (b *base) set(name string, t plan.SetType) {
	b.table.Sets[name] = plan.NewSetContent(plan.Set{Name: name, Type: t})
}

func (b *base) maps(p Point) {
	b.set(p.Classes(), plan.MapClasses)
	b.set(p.Chains(), plan.MapChains)
}

func (b *base) chain(c plan.Chain) { b.table.Chains[c.Name] = c }

func (b *base) hook(name string, h plan.Hook, priority int32, rules ...[]plan.Rule) {
	c := plan.Chain{Name: name, Base: &plan.Base{Hook: h, Priority: priority}}
	for _, r := range rules {
		c.Rules = append(c.Rules, r...)
	}
	b.chain(c)
}

// rule is a rule of the base: its matches, then what becomes of the packet.
func rule(v plan.Verdict, match ...plan.Match) plan.Rule { return plan.Rule{Match: match, Verdict: v} }

func drop(why string, match ...plan.Match) plan.Rule {
	return plan.Rule{Match: match, Count: true, Verdict: plan.Drop, Comment: why}
}

func state(bits uint16) plan.Match { return plan.Match{Kind: plan.MatchState, Low: bits} }

func protocol(p uint8) plan.Match { return plan.Match{Kind: plan.MatchProtocol, Low: uint16(p)} }

// established lets pass what belongs to a connection.
func established() []plan.Rule {
	return []plan.Rule{rule(plan.Accept, state(plan.StateEstablished|plan.StateRelated))}
}

// ended drops packets that would revive a connection that policy has ended, such as
// those of its other end, of which connection tracking would make a new one. TCP renews
// its time, since its other end may be stubborn and can't open the same connection anew;
// for UDP what comes later may well be another conversation.
func (b *base) ended() []plan.Rule {
	if !b.Settings.EndFlows {
		return nil
	}
	const why = "of a connection that policy has ended"
	flow, tcp := plan.Match{Kind: plan.MatchFlow, Set: EndedFlows}, protocol(protoTCP)
	renewed := drop(why, state(plan.StateNew), tcp, flow)
	renewed.Update = EndedFlows
	tcp.Not = true
	return []plan.Rule{renewed, drop(why, state(plan.StateNew), tcp, flow)}
}

// workloads sends packets of workloads' interfaces to a chain.
func (b *base) workloads(out bool, to string) []plan.Rule {
	var rules []plan.Rule
	for _, m := range b.links(out) {
		rules = append(rules, plan.Rule{Match: []plan.Match{m}, Verdict: plan.Goto, Target: to})
	}
	return rules
}

// links are matches of workloads' interfaces, one for each prefix.
func (b *base) links(out bool) []plan.Match {
	kind := plan.MatchInLink
	if out {
		kind = plan.MatchOutLink
	}
	var ms []plan.Match
	for _, p := range b.Settings.Prefixes {
		ms = append(ms, plan.Match{Kind: kind, Link: p + "*"})
	}
	return ms
}

// leave lets packets of workloads' interfaces pass.
func (b *base) leave(out bool) []plan.Rule {
	var rules []plan.Rule
	for _, m := range b.links(out) {
		rules = append(rules, rule(plan.Accept, m))
	}
	return rules
}

func dispatch(p Point, out bool) plan.Rule {
	return plan.Rule{Dispatch: &plan.Dispatch{Out: out, Classes: p.Classes(), Chains: p.Chains()}}
}

// host asks the host endpoints at p; none if they have nothing to say there. Host
// endpoints are never interfaces of workloads, those for all interfaces ("*") neither.
func (b *base) host(p Point, out bool, first ...plan.Rule) []plan.Rule {
	if !b.used.Has(p) {
		return nil
	}
	rules := append(b.leave(out), first...)
	return append(rules, dispatch(p, out), plan.Rule{Verdict: plan.Jump, Target: p.Any()})
}

// accepted is what the host endpoint's policy has let in at an earlier point.
func (b *base) accepted() plan.Rule {
	return rule(plan.Accept, plan.Match{Kind: plan.MatchMark, Mark: b.mark()})
}

// prerouting drops what workloads send from addresses that are not theirs. That is
// before connection tracking, since a forged packet may well fit into a connection.
func (b *base) prerouting() {
	var raw []plan.Rule
	if b.used.hosts() {
		raw = append(raw, plan.Rule{ClearMark: b.mark() | b.pending()})
	}
	for _, m := range b.links(false) {
		not := plan.Match{Kind: plan.MatchInSource, Not: true, Set: SourceAddrs}
		raw = append(raw, plan.Rule{Match: []plan.Match{m, not}, Verdict: plan.Goto, Target: "source"})
	}
	b.hook("prerouting-raw", plan.Prerouting, priorityRaw, raw, b.host(HostUntrackedIn, false))

	source := plan.Chain{Name: "source"}
	if b.V6 {
		// Neighbours and duplicate addresses are looked for from these. They are not
		// forwarded.
		source.Rules = append(source.Rules,
			rule(plan.Accept, plan.Match{Kind: plan.MatchSrcNet, Net: linkLocal()}),
			rule(plan.Accept, protocol(protoICMPv6), plan.Match{Kind: plan.MatchSrcNet, Net: netip.PrefixFrom(netip.IPv6Unspecified(), 128)}))
	}
	source.Rules = append(source.Rules,
		rule(plan.Accept, plan.Match{Kind: plan.MatchInSource, Set: SourceNets}),
		drop("source is not of the workload"))
	b.chain(source)

	if b.used.Has(HostPreDNAT) {
		b.hook("prerouting-pre-dnat", plan.Prerouting, priorityMangle, established(), b.host(HostPreDNAT, false, b.accepted()))
	}
}

func linkLocal() netip.Prefix { return netip.MustParsePrefix("fe80::/10") }

// forward judges a packet as leaving its source, then as entering its destination.
func (b *base) forward() {
	if b.used.Has(HostForwardIn) {
		b.hook("forward-host-in", plan.Forward, priorityHostIn, established(), b.host(HostForwardIn, false, b.accepted()))
	}
	b.hook("forward-from", plan.Forward, priorityWorkload, established(), b.ended(), b.workloads(false, "from-workload"))
	b.hook("forward-to", plan.Forward, priorityNext, established(), b.workloads(true, "to-workload"))
	if b.used.Has(HostForwardOut) {
		b.hook("forward-host-out", plan.Forward, priorityHostOut, established(), b.host(HostForwardOut, true))
	}
	from := plan.Chain{Name: "from-workload"}
	if b.V6 {
		from.Rules = append(from.Rules, drop("link-local is not forwarded", plan.Match{Kind: plan.MatchSrcNet, Net: linkLocal()}))
	}
	from.Rules = append(from.Rules, b.fromWorkload()...)
	b.chain(from)
	b.chain(plan.Chain{Name: "to-workload", Rules: append(b.invalid(), dispatch(ToWorkload, true), drop("interface is not known"))})
}

// fromWorkload is the egress policy of a workload, and what no policy can allow.
func (b *base) fromWorkload() []plan.Rule {
	rules := b.invalid()
	encapsulated := func(why string, match ...plan.Match) {
		r := drop(why, match...)
		r.Verdict = b.denial()
		rules = append(rules, r)
	}
	if !b.Settings.AllowVXLAN {
		encapsulated("VXLAN made by a workload", protocol(protoUDP),
			plan.Match{Kind: plan.MatchDstPort, Low: b.Settings.VXLANPort, High: b.Settings.VXLANPort})
	}
	if !b.Settings.AllowIPIP {
		encapsulated("IP in IP made by a workload", protocol(protoIPIP))
	}
	return append(rules, dispatch(FromWorkload, false), drop("interface is not known"))
}

// input is what comes to the node itself: from a workload after its egress policy as
// the setting says, from elsewhere as the host endpoint's policy says.
func (b *base) input() {
	b.hook("input-from", plan.Input, priorityWorkload, established(), b.ended(), b.workloads(false, "from-workload-to-host"))
	b.chain(plan.Chain{Name: "from-workload-to-host", Rules: append(b.neighbours(), b.fromWorkload()...)})
	if b.Settings.ToHost != model.Deny && !b.used.Has(HostIn) {
		return
	}
	var workloads []plan.Rule
	hosts := b.host(HostIn, false, b.accepted())
	if b.Settings.ToHost == model.Deny {
		workloads = b.workloads(false, "workload-to-host")
		hosts = hosts[min(len(hosts), len(b.Settings.Prefixes)):] // they have left
		b.chain(plan.Chain{Name: "workload-to-host", Rules: append(b.neighbours(), drop("workload to its host"))})
	}
	b.hook("input-to", plan.Input, priorityNext, established(), workloads, hosts)
}

// neighbours lets pass what a workload needs for its gateway to be a gateway (IPv6):
// multicast listeners, router solicitations, neighbours. Not router advertisements:
// workloads do not advertise.
func (b *base) neighbours() []plan.Rule {
	if !b.V6 {
		return nil
	}
	types := func(low, high uint16) plan.Rule {
		return rule(plan.Accept, protocol(protoICMPv6), plan.Match{Kind: plan.MatchICMPType, Low: low, High: high})
	}
	return []plan.Rule{types(130, 133), types(135, 136)}
}

// output is what the node itself sends, but not to its own workloads.
//
// What goes to a service may be sent elsewhere by destination NAT, and only behind the
// output hook does the kernel know by which interface. So there a packet is marked, and
// judged where it leaves. Where it can't be rejected there, which the kernel allows
// before routing and at the output hook only, it is judged at once.
func (b *base) output() {
	own := b.used.Has(HostOut) && !b.Settings.Reject
	if b.used.Has(HostUntrackedOut) || b.used.Has(HostOut) {
		// A socket may give its packets the mark of those it answers.
		forget := []plan.Rule{{ClearMark: b.mark() | b.pending()}}
		b.hook("output-raw", plan.Output, priorityRaw, forget, b.host(HostUntrackedOut, true))
	}
	judged := b.host(HostOut, true, append(b.ended(), b.accepted())...)
	switch {
	case own:
		b.hook("output-own", plan.Output, priorityNext, established(), []plan.Rule{{SetMark: b.pending()}})
		others := rule(plan.Accept, plan.Match{Kind: plan.MatchMark, Not: true, Mark: b.pending()})
		b.hook("postrouting-own", plan.Postrouting, priorityNext, []plan.Rule{others, {ClearMark: b.pending()}}, judged)
	case b.used.Has(HostOut):
		b.hook("output-own", plan.Output, priorityNext, established(), judged)
	}
}

// pending is the bit of packets' marks that says "of the node itself, not yet judged".
func (b *base) pending() uint32 { return b.mark() << 1 }
