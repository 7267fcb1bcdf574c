package policy

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// Emitter writes the rules of one family. It is a value; Graph and Compile make
// one for each family and setting.
type Emitter struct {
	Settings Settings
	V6       bool
	// Parts are the present sets of a selector, or of backends that take all ports; nil:
	// all matched is single addresses, and there are no such backends. When they change,
	// whatever uses the selector or service is to be emitted again.
	Parts func(SetRef) Parts
}

// Needs are the sets that these rules need in a family, each once, in order of
// appearance. They don't depend on settings.
func Needs(rules []model.Rule, v6 bool) []Need {
	var out []Need
	seen := map[SetRef]bool{}
	for i := range rules {
		for _, s := range shapesOf(&rules[i], v6) {
			for _, list := range [...][]cond{s.all, s.src, s.dst} {
				for _, c := range list {
					if c.set && !seen[c.need.SetRef] {
						seen[c.need.SetRef] = true
						out = append(out, c.need)
					}
				}
			}
		}
	}
	return out
}

// cond is a condition whose set has no name yet.
type cond struct {
	plan.Match
	need Need
	set  bool // need counts
}

// shape is a rule in one family: the packet is of one of the protocols, fits all of
// all, and one of src and one of dst where these are not empty.
type shape struct {
	protos   []uint8 // {0}: any
	all      []cond
	src, dst []cond // alternatives of ports
	anyPort  bool   // the destination is a backend that takes all ports, if there is one
}

// serviceProtocols are those that backends of services may have.
var serviceProtocols = [...]uint8{protoTCP, protoUDP, protoSCTP}

// shapesOf is r in a family: once as it is, and where the destination is a service once
// for each protocol in which backends may take all ports.
func shapesOf(r *model.Rule, v6 bool) []shape {
	var out []shape
	if s, ok := shapeOf(r, v6, false); ok {
		out = append(out, s)
	}
	if r.Destination.Service == (model.Service{}) {
		return out
	}
	for _, proto := range serviceProtocols {
		one := *r
		one.Protocol = proto
		if r.Protocol != 0 && r.Protocol != proto {
			continue
		}
		if s, ok := shapeOf(&one, v6, true); ok {
			out = append(out, s)
		}
	}
	return out
}

// shapeOf is r in a family; ok is false if it can match nothing there.
//
// A rule whose nets are all of the other family is a rule for that family only, also
// where they are negated, as in Calico.
func shapeOf(r *model.Rule, v6, anyPort bool) (s shape, ok bool) {
	s.anyPort = anyPort
	other := uint8(6)
	if v6 {
		other = 4
	}
	if r.Family == other || r.Unbuilt != "" && (r.Action == model.Allow || r.Action == model.Pass) ||
		r.Protocol != 0 && r.Protocol == r.NotProtocol {
		return s, false
	}
	proto := r.Protocol
	if r.ICMP != (model.ICMP{}) || r.NotICMP != (model.ICMP{}) {
		icmp := uint8(protoICMP)
		if v6 {
			icmp = protoICMPv6
		}
		if proto != 0 && proto != icmp || r.NotProtocol == icmp {
			return s, false
		}
		proto = icmp
		s.icmp(r.ICMP, false)
		s.icmp(r.NotICMP, true)
	}
	if s.protos, ok = protocols(r, proto); !ok {
		return s, false
	}
	if r.NotProtocol != 0 {
		s.add(plan.Match{Kind: plan.MatchProtocol, Not: true, Low: uint16(r.NotProtocol)})
	}
	ok = s.entity(&r.Source, false, proto, v6) && s.entity(&r.Destination, true, proto, v6)
	return s, ok
}

// protocols are those that r can be about. A rule that speaks of ports is about
// protocols that have them.
func protocols(r *model.Rule, proto uint8) ([]uint8, bool) {
	a, b := &r.Source, &r.Destination
	numbers := len(a.Ports)+len(a.NotPorts)+len(a.NotNamedPorts)+len(b.Ports)+len(b.NotPorts)+len(b.NotNamedPorts) > 0
	names := len(a.NamedPorts)+len(b.NamedPorts) > 0
	switch {
	case proto != 0:
		return []uint8{proto}, !numbers && !names || HasPorts(proto)
	case !numbers:
		// The sets of named ports know the protocol.
		return []uint8{0}, true
	}
	all := []uint8{protoTCP, protoUDP, protoSCTP, protoUDPLite}
	return slices.DeleteFunc(all, func(p uint8) bool { return p == r.NotProtocol }), true
}

func (s *shape) add(m plan.Match) { s.all = append(s.all, cond{Match: m}) }

func (s *shape) addSet(kind plan.MatchKind, not bool, n Need) {
	s.all = append(s.all, cond{Match: plan.Match{Kind: kind, Not: not}, need: n, set: true})
}

// icmp adds the match of a message, or of all but that: not type and code both.
func (s *shape) icmp(i model.ICMP, not bool) {
	m := plan.Match{Not: not}
	switch {
	case i == (model.ICMP{}):
		return
	case i.CodePlus1 == 0:
		m.Kind, m.Low, m.High = plan.MatchICMPType, i.TypePlus1-1, i.TypePlus1-1
	case i.TypePlus1 == 0:
		m.Kind, m.Low = plan.MatchICMPCode, i.CodePlus1-1
	default:
		m.Kind, m.Low, m.High = plan.MatchICMPTypeCode, i.TypePlus1-1, i.CodePlus1-1
	}
	s.add(m)
}

// side is the kinds of matches of one end of a packet.
type side struct{ net, set, port, portSet, addrPort plan.MatchKind }

func sideOf(dst bool) side {
	if dst {
		return side{plan.MatchDstNet, plan.MatchDstSet, plan.MatchDstPort, plan.MatchDstPortSet, plan.MatchDstAddrPort}
	}
	return side{plan.MatchSrcNet, plan.MatchSrcSet, plan.MatchSrcPort, plan.MatchSrcPortSet, plan.MatchSrcAddrPort}
}

// entity adds what e asks of one end; false: nothing can be that.
func (s *shape) entity(e *model.Entity, dst bool, proto uint8, v6 bool) bool {
	at := sideOf(dst)
	if !s.nets(e.Nets, at, false, v6) || !s.nets(e.NotNets, at, true, v6) {
		return false
	}
	if e.Service != (model.Service{}) {
		if dst {
			// Who takes all ports counts where no port does: a packet fits one of the two.
			s.addSet(at.addrPort, s.anyPort, Need{SetRef: SetRef{Kind: SetServicePorts, Service: e.Service}})
			if s.anyPort {
				s.addSet(at.set, false, Need{SetRef: SetRef{Kind: SetServiceAnyPort, Service: e.Service, Protocol: proto}})
			}
		} else {
			s.addSet(at.set, false, Need{SetRef: SetRef{Kind: SetServiceAddrs, Service: e.Service}})
		}
	}
	// The set of a named port holds endpoints of the selector only: where it is the
	// one alternative, it says all that the selector says.
	if e.Selector != nil && (len(e.Ports) > 0 || len(e.NamedPorts) != 1) {
		s.addSet(at.set, false, selected(e.Selector))
	}
	if e.Nodes != nil {
		s.addSet(at.set, false, Need{SetRef: SetRef{Kind: SetNodes, Selector: e.Nodes.String()}, Of: e.Nodes})
	}
	if e.NotSelector != nil {
		s.addSet(at.set, true, selected(e.NotSelector))
	}
	alternatives := s.ports(e, e.Ports, e.NamedPorts, at, false, proto)
	if dst {
		s.dst = alternatives
	} else {
		s.src = alternatives
	}
	s.all = append(s.all, s.ports(e, e.NotPorts, e.NotNamedPorts, at, true, proto)...)
	return true
}

func selected(sel *selector.Selector) Need {
	return Need{SetRef: SetRef{Kind: SetSelected, Selector: sel.String()}, Of: sel}
}

// nets adds the match of any of the nets, or of none of them; false if nothing of this
// family can fit.
func (s *shape) nets(nets []netip.Prefix, at side, not, v6 bool) bool {
	if len(nets) == 0 {
		return true
	}
	mine := MaximalNets(nets, v6)
	switch {
	case len(mine) == 0:
		return false
	case mine[0].Bits() == 0:
		return !not
	case len(mine) == 1:
		s.add(plan.Match{Kind: at.net, Not: not, Net: mine[0]})
	default:
		s.addSet(at.set, not, Need{SetRef: netsRef(mine)})
	}
	return true
}

// fewPorts is how many ranges of ports are rules of their own, or matches if negated. A
// constant set of intervals costs a transaction before the one with the rule, 1 ms, and
// a packet as much as two rules.
const fewPorts = 2

// ports are a condition for each range of numbers, or one for many, and one for each name.
func (s *shape) ports(e *model.Entity, ranges []model.PortRange, names []string, at side, not bool, proto uint8) []cond {
	var out []cond
	if merged := mergedPorts(ranges); len(merged) > fewPorts {
		out = append(out, cond{Match: plan.Match{Kind: at.portSet, Not: not}, need: Need{SetRef: portsRef(merged)}, set: true})
	} else {
		for _, r := range merged {
			out = append(out, cond{Match: plan.Match{Kind: at.port, Not: not, Low: r.First, High: r.Last}})
		}
	}
	for _, name := range names {
		ref := SetRef{Kind: SetNamedPort, Selector: e.Selector.String(), Port: name, Protocol: proto}
		out = append(out, cond{Match: plan.Match{Kind: at.addrPort, Not: not}, need: Need{SetRef: ref, Of: e.Selector}, set: true})
	}
	return out
}

// sets are c with the name of its set; one for each if there are several.
func (e Emitter) sets(c cond) []plan.Match {
	if !c.set {
		return []plan.Match{c.Match}
	}
	parts := Parts{Addrs: true}
	if c.need.Kind == SetSelected && e.Parts != nil {
		parts = e.Parts(c.need.SetRef)
	}
	var out []plan.Match
	for _, s := range c.need.Sets(parts) {
		c.Set = s.Name
		out = append(out, c.Match)
	}
	return out
}

// rule writes r: once for each way in which a packet can fit it, all ending as like
// does, which gives all but the matches. Who goes on after a fit, as Log does, must not
// fit twice; so each way then excludes those before it.
func (e Emitter) rule(r *model.Rule, like plan.Rule) []plan.Rule {
	var out []plan.Rule
	for _, s := range shapesOf(r, e.V6) {
		if s.anyPort && !e.present(s) {
			continue
		}
		for _, proto := range s.protos {
			for _, way := range e.ways(s, like.Verdict == plan.Continue) {
				rule := like
				if proto != 0 {
					rule.Match = append(rule.Match, plan.Match{Kind: plan.MatchProtocol, Low: uint16(proto)})
				}
				rule.Match = append(rule.Match, way...)
				slices.SortStableFunc(rule.Match, func(a, b plan.Match) int { return cost(a.Kind) - cost(b.Kind) })
				out = append(out, rule)
			}
		}
	}
	return out
}

// present reports whether any backend takes all ports as s asks.
func (e Emitter) present(s shape) bool {
	return e.Parts != nil && slices.ContainsFunc(s.all, func(c cond) bool {
		return c.set && c.need.Kind == SetServiceAnyPort && e.Parts(c.need.SetRef).Addrs
	})
}

// ways are the ways to fit s, whatever the protocol: what has to be fitted in each, and
// one of the sets of each selector, one of the source ports, one of the destination's.
func (e Emitter) ways(s shape, once bool) [][]plan.Match {
	var all []plan.Match
	var either [][]plan.Match
	for _, c := range s.all {
		// In none of several sets is not in the first, and not in the second.
		if ms := e.sets(c); c.Not || len(ms) == 1 {
			all = append(all, ms...)
		} else {
			either = append(either, ms)
		}
	}
	for _, ports := range [...][]cond{s.src, s.dst} {
		var ms []plan.Match
		for _, c := range ports {
			ms = append(ms, e.sets(c)...)
		}
		either = append(either, ms)
	}
	out := [][]plan.Match{all}
	for _, alternatives := range either {
		if len(alternatives) > 0 {
			out = choices(out, alternatives, once)
		}
	}
	return out
}

// choices are the ways, each with each of the alternatives. Of those to be fitted once
// only, each excludes the ones before it.
func choices(ways [][]plan.Match, alternatives []plan.Match, once bool) [][]plan.Match {
	var out [][]plan.Match
	for _, way := range ways {
		for i, m := range alternatives {
			one := append(slices.Clone(way), m)
			for _, before := range alternatives[:i] {
				if once {
					before.Not = true
					one = append(one, before)
				}
			}
			out = append(out, one)
		}
	}
	return out
}

// cost orders matches, the cheap ones first. A protocol stands before what only packets
// of that protocol have.
func cost(k plan.MatchKind) int {
	switch k {
	case plan.MatchProtocol:
		return 0
	case plan.MatchICMPType, plan.MatchICMPCode, plan.MatchICMPTypeCode, plan.MatchSrcPort, plan.MatchDstPort:
		return 1
	case plan.MatchSrcNet, plan.MatchDstNet:
		return 2
	case plan.MatchSrcPortSet, plan.MatchDstPortSet:
		return 3
	case plan.MatchSrcSet, plan.MatchDstSet:
		return 4
	}
	return 5
}
