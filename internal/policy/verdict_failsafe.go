package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
)

// failsafe reports whether the packet is one that host endpoints never deny, except
// where they judge what a node forwards.
func (p *part) failsafe() bool {
	if text := p.essential(); text != "" {
		p.decide(Step{Kind: KindFailsafe, Index: -1, Action: model.Allow, Text: text})
		return true
	}
	s := p.walk.view.Settings(p.subject.Node)
	in, out := s.FailsafeIn, s.FailsafeOut
	inField, outField := "spec.failsafeInboundHostPorts", "spec.failsafeOutboundHostPorts"
	if p.direction == Egress {
		in, out, inField, outField = out, in, outField, inField
	}
	if p.safe(in, inField, p.walk.packet.DstPort) {
		return true
	}
	// Before connection tracking nobody knows what answers are.
	return p.stage == Untracked && p.safe(out, outField, p.walk.packet.SrcPort)
}

// far is the end of the packet that is not the host endpoint's.
func (p *part) far() netip.Addr {
	if p.direction == Egress {
		return p.walk.packet.Dst
	}
	return p.walk.packet.Src
}

func (p *part) safe(list []Failsafe, field string, port uint16) bool {
	w := p.walk
	for i, f := range list {
		if f.Protocol == w.packet.Protocol && f.Port == port && (!f.Net.IsValid() || f.Net.Contains(p.far())) {
			p.decide(Step{
				Kind: KindFailsafe, Index: -1, Action: model.Allow, Field: fmt.Sprintf("%s[%d]", field, i),
				Text: fmt.Sprintf("%s %d is a failsafe port", ProtocolName(f.Protocol), f.Port),
			})
			return true
		}
	}
	return false
}

// essential is what a node can't be without: neighbour discovery and tunnels between
// nodes; empty: the packet is nothing of that.
func (p *part) essential() string {
	w := p.walk
	s := w.view.Settings(p.subject.Node)
	v6, udp, own := w.packet.Src.Is6(), w.packet.Protocol == protoUDP, w.packet.DstPort
	if p.direction == Egress {
		own = w.packet.SrcPort
	}
	encapsulated := udp && w.packet.DstPort == s.VXLANPort || w.packet.Protocol == protoIPIP && !v6
	encrypted := udp && own != 0 && own == s.wireGuard(v6)
	switch {
	case w.packet.Protocol == protoICMPv6 && v6 && w.packet.ICMPType >= 130 && w.packet.ICMPType <= 136:
		return "neighbours of IPv6 are always found"
	case (encapsulated || encrypted) && w.view.isNode(p.far()):
		return "it is a tunnel between nodes"
	case encapsulated && slices.ContainsFunc(s.ExternalNodes, func(n netip.Prefix) bool { return n.Contains(p.far()) }):
		return "it is a tunnel from or to an external node (externalNodesList)"
	}
	return ""
}

// isNode reports whether a is the address of a node.
func (v *View) isNode(a netip.Addr) bool {
	for _, x := range v.world {
		if n, ok := x.(model.Node); ok && n.Addr(a.Is6()).Addr() == a {
			return true
		}
	}
	return false
}
