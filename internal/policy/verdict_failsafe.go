package policy

import (
	"fmt"
	"net/netip"

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
	port := w.view.Settings(p.subject.Node).VXLANPort
	switch {
	case w.packet.Protocol == protoICMPv6 && w.packet.Src.Is6() && w.packet.ICMPType >= 130 && w.packet.ICMPType <= 136:
		return "neighbours of IPv6 are always found"
	case w.packet.Protocol == protoUDP && w.packet.DstPort == port, w.packet.Protocol == protoIPIP && w.packet.Src.Is4():
		for _, v := range w.view.world {
			if n, ok := v.(model.Node); ok && (n.IPv4.Addr() == p.far() || n.IPv6.Addr() == p.far()) {
				return "it is a tunnel between nodes"
			}
		}
	}
	return ""
}
