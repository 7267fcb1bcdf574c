package ct

import (
	"net/netip"

	"github.com/weft-net/weft/internal/plan"
)

// Judge says which flows the rules of a packet filter forbid. It is for one
// goroutine, and for as long as its machines are.
type Judge struct {
	link   func(netip.Addr) string
	v4, v6 *plan.Machine
}

// NewJudge makes the judge of rules on flows between links: link gives the host side
// interface of the workload on this node that has an address, or "" for any other
// address, those of the node itself among them; v4 and v6 judge by the tables of their
// family.
func NewJudge(link func(netip.Addr) string, v4, v6 *plan.Machine) *Judge {
	return &Judge{link, v4, v6}
}

// Forbids reports whether the rules would now drop the first packet of f where it
// is forwarded; the egress rules that it meets there are the same when it is for the node
// itself. A flow with no workload of this node at either end is not forbidden, nor is
// one that is related to another: that is allowed for the other's sake. Flows that the
// node began must not be asked about: nobody polices those.
func (j *Judge) Forbids(f *Flow) bool {
	p, ok := f.Packet(j.link)
	if !ok || f.Status&(Expected|Dying) != 0 {
		return false
	}
	m := j.v4
	if !p.Src.Is4() {
		m = j.v6
	}
	switch m.Verdict(plan.Forward, p).Verdict {
	case plan.Drop, plan.Reject:
		return true
	}
	return false
}

// Packet is the first packet of f as the forward hook sees it: after destination
// NAT, before source NAT. It is false for a flow with no workload of this node at
// either end; link is as for [NewJudge].
func (f *Flow) Packet(link func(netip.Addr) string) (plan.Packet, bool) {
	in, out := link(f.Orig.Src), link(f.Reply.Src)
	if in == "" && out == "" {
		return plan.Packet{}, false
	}
	return plan.Packet{
		InLink: in, OutLink: out,
		Src: f.Orig.Src, Dst: f.Reply.Src,
		Protocol: f.Orig.Protocol,
		SrcPort:  f.Orig.SrcPort, DstPort: f.Reply.SrcPort,
		ICMPType: f.Orig.ICMPType, ICMPCode: f.Orig.ICMPCode,
		State: plan.StateNew,
	}, true
}

// Tombstone is the tuple of a packet of f that comes the other way, as the forward
// hook sees it when f has no entry any more. It is false when rules cannot name it:
// flows without ports have none, and their answers alone found no flow.
func (f *Flow) Tombstone() (Tuple, bool) { return f.Reply, f.Reply.HasPorts() }
