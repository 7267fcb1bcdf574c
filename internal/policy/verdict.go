package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Query is the first packet of a flow: who sends it to whom, and what it is.
type Query struct {
	Src, Dst Party
	Protocol uint8 // 0: one that no rule names
	// Ports are of protocols that have them, type and code of ICMP and ICMPv6.
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
	// Uplink is the interface by which nodes send to and receive from others; it
	// finds their host endpoints. Empty: the one that has the node's address.
	Uplink string
	// At leaves out what other nodes judge. Empty: what all do.
	At string
	// Verbose lists also the rules that do not match, and why.
	Verbose bool
}

// Party is one end of a packet.
type Party struct {
	// Key is an endpoint, a node or a network set. The zero Key: whoever has Addr, be
	// it nobody known.
	Key model.Key
	// Addr is the address in the packet. The zero Addr: the first of Key, of a family
	// that the other end has too.
	Addr netip.Addr
}

// place is where a packet comes from or goes to.
type place struct {
	Party
	node     string // empty: outside of the cluster
	workload *Subject
}

// walk follows one packet. Its answer is in out.
type walk struct {
	view     *View
	query    Query
	packet   plan.Packet
	src, dst place
	enact    *model.Policy // a staged policy that is taken as enforced; nil: none
	out      *Explanation
	// through does not stop at denials: to find out what would be asked.
	through bool
	touched bool   // enact makes a difference to some list on the way
	own     []Step // what enact itself decided
}

// Verdict follows a packet through everything that judges it, on every node on its way:
// egress of its source, then ingress of its destination. The error says what of q is
// not known, and that two ends have no family in common.
func (v *View) Verdict(q Query) (Explanation, error) {
	w := walk{view: v, query: q, out: &Explanation{Parts: []Part{}}}
	if err := w.resolve(); err != nil {
		return Explanation{}, err
	}
	w.packet = plan.Packet{
		Src: w.src.Addr, Dst: w.dst.Addr, Protocol: q.Protocol, SrcPort: q.SrcPort, DstPort: q.DstPort,
		ICMPType: q.ICMPType, ICMPCode: q.ICMPCode, State: plan.StateNew,
	}
	w.out.Source, w.out.Destination, w.out.Packet = v.end(w.src), v.end(w.dst), packetText(w.packet)
	w.out.Allowed = w.run()
	w.staged()
	for _, end := range []place{w.src, w.dst} {
		if end.workload != nil {
			w.unusual(*end.workload)
		}
	}
	return *w.out, nil
}

// run passes every point on the way until one denies.
func (w *walk) run() bool {
	src, dst := w.src, w.dst
	local := src.node != "" && src.node == dst.node
	switch {
	case src.workload != nil:
		if !w.source() || !w.encapsulated() || !w.policed(*src.workload, Egress, Normal) {
			return false
		}
		if local && dst.workload == nil {
			return w.toHost()
		}
		if !local && !w.atHost(src.node, Egress, Forwarded) {
			return false
		}
	case src.node != "" && local:
		w.note("what a node sends to itself and to its own workloads is not policed")
		return true
	case src.node != "":
		if !w.atHost(src.node, Egress, Untracked, Normal) {
			return false
		}
	}
	if !local && src.node != "" {
		defer w.translate(src.node)()
	}
	return w.arrive(local)
}

// translate gives the packet the source address under which it leaves a node, until the
// function that it returns is called.
func (w *walk) translate(node string) (undo func()) {
	was := w.packet.Src
	if w.view.seen != nil {
		if src, why, changed := w.view.seen(node, w.packet); changed {
			w.packet.Src = src
			w.note(why)
		}
	}
	return func() { w.packet.Src = was }
}

// arrive passes the points of the destination's node.
func (w *walk) arrive(local bool) bool {
	dst := w.dst
	if dst.workload == nil {
		return dst.node == "" || w.atHost(dst.node, Ingress, Untracked, PreDNAT, Normal)
	}
	if !local && !w.atHost(dst.node, Ingress, Untracked, PreDNAT, Forwarded) {
		return false
	}
	return w.policed(*dst.workload, Ingress, Normal)
}

// elsewhere reports whether the question is not about that node.
func (w *walk) elsewhere(node string) bool { return w.query.At != "" && w.query.At != node }

// source is the check that a workload sends from its own addresses.
func (w *walk) source() bool {
	ep, _ := w.view.world[w.src.workload.Key].(model.Endpoint)
	if w.elsewhere(ep.Node) || slices.Contains(ep.Addrs, w.packet.Src) {
		return true
	}
	spoof := w.settings(ep.Node).SpoofAny
	step := Step{Kind: KindSource, Key: ep.Key(), Index: -1}
	for i, n := range ep.SourcePrefixes {
		if spoof && n.Contains(w.packet.Src) {
			step.Field, step.Action = fmt.Sprintf("spec.allowSpoofedSourcePrefixes[%d]", i), model.Allow
			step.Text = fmt.Sprintf("it may send from %v", n)
			w.part(*w.src.workload, Egress, Normal).add(step)
			return true
		}
	}
	step.Text = fmt.Sprintf("%v is not an address of the workload", w.packet.Src)
	if !spoof && len(ep.SourcePrefixes) > 0 {
		step.Text += "; its source prefixes do not count while workloadSourceSpoofing is Disabled"
	}
	return w.part(*w.src.workload, Egress, Normal).decide(step)
}

// encapsulated is the check that a workload does not encapsulate packets by itself.
func (w *walk) encapsulated() bool {
	s := w.settings(w.src.node)
	step := Step{Kind: KindEncapsulation, Index: -1}
	switch {
	case w.packet.Protocol == protoIPIP && !s.AllowIPIP:
		step.Text = "workloads may not encapsulate in IP in IP by themselves (allowIPIPPacketsFromWorkloads)"
	case w.packet.Protocol == protoUDP && w.packet.DstPort == s.VXLANPort && !s.AllowVXLAN:
		step.Text = fmt.Sprintf("workloads may not encapsulate in VXLAN, UDP port %d, by themselves (allowVXLANPacketsFromWorkloads)", s.VXLANPort)
	default:
		return true
	}
	if w.elsewhere(w.src.node) {
		return true
	}
	return w.part(*w.src.workload, Egress, Normal).decide(step)
}

// toHost is what a workload sends to its own node, after its egress policy.
func (w *walk) toHost() bool {
	if w.elsewhere(w.src.node) {
		return true
	}
	action := w.settings(w.src.node).ToHost
	step := Step{Kind: KindToHost, Index: -1, Action: action, Field: "spec.defaultEndpointToHostAction"}
	step.Text = "workloads to their own node: " + [...]string{model.Deny: "Drop", model.Allow: "Accept", model.Pass: "Return, weft lets it pass"}[action]
	if action == model.Pass {
		step.Action = model.Allow
	}
	p := w.part(Subject{Node: w.src.node, Host: true}, Ingress, Normal)
	return p.decide(step)
}

// atHost passes the host endpoint of a node's uplink, in these stages. Where there is
// none nothing is policed. What is allowed before connection tracking or destination
// NAT is not judged again by the host endpoint.
func (w *walk) atHost(node string, d Direction, stages ...Stage) bool {
	s, ok := w.hostEndpoint(node)
	if !ok || w.elsewhere(node) {
		return true
	}
	for _, st := range stages {
		lists := w.tiers(s, d, st)
		if st != Normal && len(lists) == 0 {
			continue // the stage Normal ends in a denial, the others let pass
		}
		p := w.part(s, d, st)
		if st != Forwarded && p.failsafe() {
			continue
		}
		switch p.judge(lists, st == Normal) {
		case model.Deny:
			if !w.through {
				return false
			}
		case model.Allow:
			if !w.through {
				return true
			}
		}
	}
	return true
}

// policed asks a workload's policies and profiles.
func (w *walk) policed(s Subject, d Direction, st Stage) bool {
	if w.elsewhere(s.Node) {
		return true
	}
	return w.part(s, d, st).judge(w.tiers(s, d, st), true) != model.Deny || w.through
}

// tiers are those of the view, with the staged policy in force that is tried out.
func (w *walk) tiers(s Subject, d Direction, st Stage) []TierList {
	lists, touched := w.view.tiersWith(s, d, st, w.enact)
	w.touched = w.touched || touched
	return lists
}

func (w *walk) settings(node string) Settings { return w.view.Settings(node) }

// judge asks policies in order, then profiles if there are to be any. Pass means that
// nothing has decided.
func (p *part) judge(lists []TierList, profiles bool) model.Action {
	for _, l := range lists {
		if a := p.tier(l); a != model.Pass {
			return a
		}
	}
	if !profiles || p.stage != Normal {
		return model.Pass
	}
	for _, prof := range p.subject.Profiles {
		switch a := p.rules(Step{Kind: KindProfile, Key: prof.Key()}, profileRules(prof, p.direction)); a {
		case model.Allow, model.Deny:
			return a
		}
	}
	p.decide(Step{Kind: KindEnd, Key: p.subject.Key, Index: -1, Text: "no policy and no profile allows it"})
	return model.Deny
}

// tier asks the policies of one tier; Pass: go on behind it.
func (p *part) tier(l TierList) model.Action {
	for _, pol := range l.Policies {
		step := Step{Kind: KindRule, Tier: l.Tier.Name, Key: pol.Origin, Staged: pol.Staged}
		a := p.rules(step, Rules(pol, p.direction))
		if pol.Staged {
			continue
		}
		if e := p.walk.enact; e != nil && e.Origin == pol.Origin {
			p.walk.own = append(p.walk.own, p.ownStep(l, pol, a))
		}
		if a != model.Log {
			return a
		}
	}
	if !l.Enforced() || !p.stage.HasDefault() {
		return model.Pass
	}
	p.decide(Step{
		Kind: KindDefault, Tier: l.Tier.Name, Key: l.Tier.Key(), Index: -1, Action: l.Tier.Default,
		Text: "no rule of " + named(l.Policies) + " matches",
	})
	return l.Tier.Default
}

// named are the policies that make a tier count, the first three of them.
func named(policies []*model.Policy) string {
	var names []string
	for _, p := range policies {
		if !p.Staged {
			names = append(names, p.Origin.String())
		}
	}
	if more := len(names) - 3; more > 0 {
		names = append(names[:3], fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}

// rules finds the first that matches and decides; Log: none does.
func (p *part) rules(step Step, rules []model.Rule) model.Action {
	for i := range rules {
		r := &rules[i]
		reasons, why, ok := p.walk.view.match(r, p.walk.packet)
		s := step
		s.Index, s.Field, s.Action = i, r.Field, r.Action
		if !ok {
			if p.walk.query.Verbose {
				s.Kind, s.Text = KindNoMatch, "does not match: "+why
				p.add(s)
			}
			continue
		}
		s.Reasons = reasons
		if r.Action == model.Log || s.Staged {
			p.add(s)
		} else {
			p.decide(s)
		}
		if r.Action != model.Log {
			return r.Action
		}
	}
	return model.Log
}

func profileRules(p *model.Profile, d Direction) []model.Rule {
	if d == Egress {
		return p.Egress
	}
	return p.Ingress
}
