package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// Protocols by the numbers of IANA, as rules may name them.
const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// Reason is one thing about a packet that made a rule match.
type Reason struct {
	Field string `json:"field"` // of the rule: protocol, source.selector, destination.ports …
	Value string `json:"value"` // what the rule asks for
	// Object is whose address it was, where a selector or a service found it;
	// ObjectField is where it stands in that object, ObjectValue what stands there.
	Object      string `json:"object,omitempty"`
	ObjectField string `json:"objectField,omitempty"`
	ObjectValue string `json:"objectValue,omitempty"`
	// Labels are those of the object that the selector mentions; inherited ones name
	// the profile they come from.
	Labels []string `json:"labels,omitempty"`
}

// matching is one comparison of a rule with a packet.
type matching struct {
	view    *View
	packet  plan.Packet
	reasons []Reason
	why     string // the first thing that does not fit
}

// match compares r with p. If it fits, reasons say by what; else why says what does not.
//
// A rule whose nets are all of one family is a rule for that family only, also where
// they are negated. A rule that speaks of ports fits only protocols that have them.
func (v *View) match(r *model.Rule, p plan.Packet) (reasons []Reason, why string, ok bool) {
	m := &matching{view: v, packet: p}
	ok = m.header(r) && m.icmp(r) && m.entity("source", &r.Source, r.Protocol, p.Src, p.SrcPort, false) &&
		m.entity("destination", &r.Destination, r.Protocol, p.Dst, p.DstPort, true)
	if ok && r.Unbuilt != "" && (r.Action == model.Allow || r.Action == model.Pass) {
		return nil, r.Unbuilt + " is not built in this version: the rule allows nothing", false
	}
	return m.reasons, m.why, ok
}

// yes notes a reason, or why not.
func (m *matching) yes(ok bool, field, value string) bool {
	if ok {
		m.reasons = append(m.reasons, Reason{Field: field, Value: value})
	} else {
		m.why = field + " " + value
	}
	return ok
}

func (m *matching) header(r *model.Rule) bool {
	if r.Family != 0 && !m.yes(r.Family == family(m.packet.Src), "ipVersion", strconv.Itoa(int(r.Family))) {
		return false
	}
	if r.Protocol != 0 && !m.yes(r.Protocol == m.packet.Protocol, "protocol", ProtocolName(r.Protocol)) {
		return false
	}
	return r.NotProtocol == 0 || m.yes(r.NotProtocol != m.packet.Protocol, "notProtocol", ProtocolName(r.NotProtocol))
}

func (m *matching) icmp(r *model.Rule) bool {
	for _, c := range []struct {
		field string
		model.ICMP
		want bool
	}{{"icmp", r.ICMP, true}, {"notICMP", r.NotICMP, false}} {
		if c.ICMP == (model.ICMP{}) {
			continue
		}
		message := m.packet.Protocol == protoICMP && m.packet.Src.Is4() || m.packet.Protocol == protoICMPv6 && m.packet.Src.Is6()
		fits := (c.TypePlus1 == 0 || c.TypePlus1 == uint16(m.packet.ICMPType)+1) &&
			(c.CodePlus1 == 0 || c.CodePlus1 == uint16(m.packet.ICMPCode)+1)
		if !m.yes(message && fits == c.want, c.field, icmpText(c.ICMP)) {
			return false
		}
	}
	return true
}

func icmpText(i model.ICMP) string {
	switch {
	case i.CodePlus1 == 0:
		return fmt.Sprintf("type %d", i.TypePlus1-1)
	case i.TypePlus1 == 0:
		return fmt.Sprintf("code %d", i.CodePlus1-1)
	}
	return fmt.Sprintf("type %d code %d", i.TypePlus1-1, i.CodePlus1-1)
}

// entity compares one end of the packet.
func (m *matching) entity(side string, e *model.Entity, proto uint8, addr netip.Addr, port uint16, dst bool) bool {
	return m.nets(side, e, addr) && m.selectors(side, e, addr) && m.service(side, e, addr, port, dst) &&
		m.ports(side, e, proto, addr, port)
}

func (m *matching) nets(side string, e *model.Entity, addr netip.Addr) bool {
	if len(e.Nets) > 0 {
		i := slices.IndexFunc(e.Nets, func(n netip.Prefix) bool { return n.Contains(addr) })
		if i < 0 {
			return m.yes(false, side+".nets", prefixList(e.Nets))
		}
		m.yes(true, fmt.Sprintf("%s.nets[%d]", side, i), e.Nets[i].String())
	}
	if len(e.NotNets) == 0 {
		return true
	}
	sameFamily := slices.ContainsFunc(e.NotNets, func(n netip.Prefix) bool { return n.Addr().Is4() == addr.Is4() })
	return m.yes(sameFamily && !slices.ContainsFunc(e.NotNets, func(n netip.Prefix) bool { return n.Contains(addr) }),
		side+".notNets", prefixList(e.NotNets))
}

func (m *matching) selectors(side string, e *model.Entity, addr netip.Addr) bool {
	if e.Selector != nil {
		r, ok := m.view.find(e.Selector, addr)
		if !ok {
			return m.yes(false, side+".selector", e.Selector.String())
		}
		r.Field = side + ".selector"
		m.reasons = append(m.reasons, r)
	}
	if e.Nodes != nil && !m.nodes(side, e.Nodes, addr) {
		return false
	}
	if e.NotSelector == nil {
		return true
	}
	_, found := m.view.find(e.NotSelector, addr)
	return m.yes(!found, side+".notSelector", e.NotSelector.String())
}

// nodes looks for a node that s selects and that has addr.
func (m *matching) nodes(side string, s *selector.Selector, addr netip.Addr) bool {
	for _, v := range m.view.world {
		n, ok := v.(model.Node)
		if !ok || !s.Matches(n.Labels) {
			continue
		}
		if slices.Contains(n.Addrs, addr) {
			m.reasons = append(m.reasons, Reason{
				Field: side + ".nodes", Value: s.String(), Object: n.Key().String(), ObjectField: "spec.addresses", ObjectValue: addr.String(),
			})
			return true
		}
	}
	return m.yes(false, side+".nodes", s.String())
}

// find looks for an endpoint or set that s selects and that has addr.
func (v *View) find(s *selector.Selector, addr netip.Addr) (Reason, bool) {
	for _, h := range v.holders {
		for i, n := range h.Nets {
			if n.Contains(addr) && s.Matches(h.Labels) {
				return Reason{
					Value: s.String(), Object: h.Key.String(), ObjectField: fmt.Sprintf("%s[%d]", netsField(h.Key.Kind), i),
					ObjectValue: n.String(), Labels: v.mentioned(s, h),
				}, true
			}
		}
	}
	return Reason{}, false
}

func netsField(k model.Kind) string {
	switch k {
	case model.KindWorkloadEndpoint:
		return "spec.ipNetworks"
	case model.KindHostEndpoint:
		return "spec.expectedIPs"
	}
	return "spec.nets"
}

// mentioned are the labels of h that s asks for, and where they come from.
func (v *View) mentioned(s *selector.Selector, h Holder) []string {
	var own map[string]string
	var profiles []string
	switch o := v.world[h.Key].(type) {
	case model.Endpoint:
		own, profiles = o.Labels, o.Profiles
	case model.HostEndpoint:
		own, profiles = o.Labels, o.Profiles
	case model.NetworkSet:
		own, profiles = o.Labels, o.Profiles
	}
	var out []string
	for _, name := range s.Names() {
		value, ok := h.Labels[name]
		if !ok {
			continue
		}
		text := name + "=" + value
		if _, ok := own[name]; !ok {
			for _, p := range v.profiles(profiles) {
				if _, ok := p.Labels[name]; ok {
					text += " (from Profile/" + p.Name + ")"
					break
				}
			}
		}
		out = append(out, text)
	}
	return out
}

// service looks for a backend; as a source only the address counts. Port 0 of a slice
// stands for all ports.
func (m *matching) service(side string, e *model.Entity, addr netip.Addr, port uint16, dst bool) bool {
	if e.Service == (model.Service{}) {
		return true
	}
	name := e.Service.Namespace + "/" + e.Service.Name
	for _, h := range m.view.slices {
		if h.Service != e.Service || !slices.Contains(h.Addrs, addr) {
			continue
		}
		for _, p := range h.Ports {
			if !dst || p.Protocol == m.packet.Protocol && (p.Port == port || p.Port == 0) && HasPorts(p.Protocol) {
				m.reasons = append(m.reasons, Reason{
					Field: side + ".services", Value: name, Object: h.Key().String(), ObjectField: "endpoints",
					ObjectValue: strings.TrimSuffix(addr.String()+" "+portText(p), " "),
				})
				return true
			}
		}
		if !dst {
			m.reasons = append(m.reasons, Reason{Field: side + ".services", Value: name, Object: h.Key().String(), ObjectField: "endpoints", ObjectValue: addr.String()})
			return true
		}
	}
	return m.yes(false, side+".services", name)
}

func portText(p model.NamedPort) string {
	if p.Port == 0 {
		return ProtocolName(p.Protocol) + ", all ports"
	}
	return fmt.Sprintf("%s %d", ProtocolName(p.Protocol), p.Port)
}

// ports compares a port with numbers and names. The names are those of endpoints that
// the rule's selector finds, of all endpoints where it has none.
func (m *matching) ports(side string, e *model.Entity, proto uint8, addr netip.Addr, port uint16) bool {
	if len(e.Ports)+len(e.NamedPorts)+len(e.NotPorts)+len(e.NotNamedPorts) == 0 {
		return true
	}
	if !HasPorts(m.packet.Protocol) {
		return m.yes(false, side+".ports", "of a protocol that has none")
	}
	if len(e.Ports)+len(e.NamedPorts) > 0 {
		r, ok := m.port(e.Selector, e.Ports, e.NamedPorts, proto, addr, port)
		if !ok {
			return m.yes(false, side+".ports", portList(e.Ports, e.NamedPorts))
		}
		r.Field = side + ".ports"
		m.reasons = append(m.reasons, r)
	}
	if len(e.NotPorts)+len(e.NotNamedPorts) == 0 {
		return true
	}
	_, found := m.port(e.Selector, e.NotPorts, e.NotNamedPorts, proto, addr, port)
	return m.yes(!found, side+".notPorts", portList(e.NotPorts, e.NotNamedPorts))
}

// port looks for a port among ranges and names.
func (m *matching) port(s *selector.Selector, ranges []model.PortRange, names []string, proto uint8, addr netip.Addr, port uint16) (Reason, bool) {
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return Reason{Value: portList([]model.PortRange{r}, nil)}, true
		}
	}
	if len(names) == 0 {
		return Reason{}, false
	}
	for _, h := range m.view.holders {
		if !slices.ContainsFunc(h.Nets, func(n netip.Prefix) bool { return n.Contains(addr) }) || !s.Matches(h.Labels) {
			continue
		}
		for i, p := range h.Ports {
			if slices.Contains(names, p.Name) && p.Protocol == m.packet.Protocol && p.Port == port && (proto == 0 || proto == p.Protocol) {
				return Reason{Value: p.Name, Object: h.Key.String(), ObjectField: fmt.Sprintf("spec.ports[%d]", i), ObjectValue: portText(p)}, true
			}
		}
	}
	return Reason{}, false
}

// HasPorts reports whether packets of a protocol have ports.
func HasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP || proto == protoUDPLite
}

// ProtocolName is a protocol as rules write it: a name, or a number where it has none.
func ProtocolName(proto uint8) string {
	switch proto {
	case protoICMP:
		return "ICMP"
	case protoTCP:
		return "TCP"
	case protoUDP:
		return "UDP"
	case protoICMPv6:
		return "ICMPv6"
	case protoSCTP:
		return "SCTP"
	case protoUDPLite:
		return "UDPLite"
	}
	return strconv.Itoa(int(proto))
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return 4
	}
	return 6
}

func prefixList(nets []netip.Prefix) string {
	var b strings.Builder
	for i, n := range nets {
		if i == 4 {
			fmt.Fprintf(&b, " and %d more", len(nets)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(n.String())
	}
	return b.String()
}

func portList(ranges []model.PortRange, names []string) string {
	var out []string
	for _, r := range ranges {
		if r.First == r.Last {
			out = append(out, strconv.Itoa(int(r.First)))
		} else {
			out = append(out, fmt.Sprintf("%d:%d", r.First, r.Last))
		}
	}
	return strings.Join(append(out, names...), ", ")
}
