package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/lab/frame"
	"github.com/weft-net/weft/internal/lab/topology"
)

// Probe is a request and its answer, as they are looked for.
type Probe struct {
	From, To     topology.Target
	Source, Addr netip.Addr // of From, as it knows itself, and of To
	Protocol     string     // icmp, tcp or udp
	Port         uint16     // of To; 0 for icmp
	Mark         uint64     // the first 8 bytes of the payload, of icmp and udp
}

// Direction is which way a packet of a probe goes.
type Direction uint8

// The directions.
const (
	Forth Direction = iota // the request
	Back                   // the answer
)

// String names what goes that way.
func (d Direction) String() string { return [...]string{"request", "answer"}[d] }

// Recognises reports whether h is of the probe, and which way it goes. TCP is known by
// the target's port: its probes have no payload.
func (p Probe) Recognises(h frame.Header) (Direction, bool) {
	switch p.Protocol {
	case "tcp":
		if h.Protocol != frame.TCP {
			return 0, false
		}
		switch {
		case h.Dst == p.Addr && h.DstPort == p.Port:
			return Forth, true
		case h.Src == p.Addr && h.SrcPort == p.Port:
			return Back, true
		}
		return 0, false
	case "udp":
		return p.byMark(h, h.Protocol == frame.UDP, h.DstPort == p.Port && h.Dst == p.Addr)
	default:
		request, ok := h.Echo()
		return p.byMark(h, ok, request)
	}
}

func (p Probe) byMark(h frame.Header, protocol, to bool) (Direction, bool) {
	if !protocol || len(h.Payload) < 8 || binary.BigEndian.Uint64(h.Payload) != p.Mark {
		return 0, false
	}
	if to {
		return Forth, true
	}
	return Back, true
}

// FormOf is the form that an expectation names; see [topology.Pair].
func FormOf(carried string) frame.Form {
	return map[string]frame.Form{
		topology.CarriedPlain: frame.Plain, topology.CarriedIPIP: frame.IPIP,
		topology.CarriedVXLAN: frame.VXLAN, topology.CarriedWireGuard: frame.WireGuard,
	}[carried]
}

// Watch judges how a probe is carried, by the packets at the ports of the nodes that its
// ends are on. Ends that are on none have a zero node.
type Watch struct {
	Probe
	Want        frame.Form
	Here, There topology.Node
	Ports       frame.Ports

	seen    [frame.WireGuard + 1][Back + 1]string // an example of each
	strange error                                 // encapsulated, but not between the nodes
	leak    error
}

// See takes in a packet that passed a port of that rack.
func (w *Watch) See(b []byte, rack string) {
	p, ok := frame.Parse(b, w.Ports)
	if !ok {
		return
	}
	if d, ok := w.carries(p); ok {
		if w.seen[p.Form][d] == "" {
			w.seen[p.Form][d] = fmt.Sprintf("%v seen on %s", p, rack)
		}
		if w.strange == nil && !w.between(p, d) {
			w.strange = fmt.Errorf("carried %v: %v seen on %s, not between addresses of the nodes", p.Form, p, rack)
		}
	}
	if w.Want == frame.WireGuard && w.leak == nil {
		w.leak = w.leaks(b, p, rack)
	}
}

// carries reports whether p is of the probe, as far as it can be known: what is
// encrypted between its two nodes is taken for it.
func (w *Watch) carries(p frame.Packet) (Direction, bool) {
	if p.Form != frame.WireGuard {
		return w.Recognises(p.Inner)
	}
	switch {
	case !p.Data:
	case owns(w.Here, p.Outer.Src) && owns(w.There, p.Outer.Dst):
		return Forth, true
	case owns(w.There, p.Outer.Src) && owns(w.Here, p.Outer.Dst):
		return Back, true
	}
	return 0, false
}

// between checks that the outside of an encapsulated packet has addresses of the two
// nodes, as far as the ends of the way have one.
func (w *Watch) between(p frame.Packet, d Direction) bool {
	if p.Form == frame.Plain {
		return true
	}
	from, to := w.Here, w.There
	if d == Back {
		from, to = to, from
	}
	return (from.Name == "" || owns(from, p.Outer.Src)) && (to.Name == "" || owns(to, p.Outer.Dst))
}

// leaks looks for what nobody on the underlay may read: the probe's mark and the
// addresses of pods. BGP tells other nodes about blocks, and is passed over.
func (w *Watch) leaks(b []byte, p frame.Packet, rack string) error {
	if w.Protocol != "tcp" && bytes.Contains(b, binary.BigEndian.AppendUint64(nil, w.Mark)) {
		return fmt.Errorf("in clear: the payload of %v seen on %s", p, rack)
	}
	const bgp = 179
	if p.Outer.Protocol == frame.TCP && (p.Outer.SrcPort == bgp || p.Outer.DstPort == bgp) {
		return nil
	}
	for target, a := range map[topology.Target]netip.Addr{w.From: w.Source, w.To: w.Addr} {
		if target.Kind == topology.ToPod && a.IsValid() && bytes.Contains(b, a.AsSlice()) {
			return fmt.Errorf("in clear: %v in %v seen on %s", a, p, rack)
		}
	}
	return nil
}

// Verdict is an error unless all that was seen of the probe has the form that is
// wanted, in both directions; within a node, unless nothing was.
func (w *Watch) Verdict() error {
	within := w.Here.Name == w.There.Name
	for f, ways := range w.seen {
		f := frame.Form(f)
		for _, text := range ways {
			switch {
			case text == "" || f == frame.WireGuard: // which may be anybody's
			case within:
				return fmt.Errorf("carried %v: %s, but both ends are on %s", f, text, w.Here.Name)
			case f != w.Want:
				return fmt.Errorf("carried %v: %s", f, text)
			}
		}
	}
	if within {
		return nil
	}
	for d, text := range w.seen[w.Want] {
		if text != "" {
			continue
		}
		if text := w.seen[frame.WireGuard][d]; text != "" {
			return fmt.Errorf("carried %v: %s", frame.WireGuard, text)
		}
		return fmt.Errorf("not carried %v: no packet of the %v was seen on the underlay", w.Want, Direction(d))
	}
	return cmp.Or(w.leak, w.strange)
}

// owns reports whether a is an address of n.
func owns(n topology.Node, a netip.Addr) bool {
	return slices.ContainsFunc(n.Interfaces(), func(i topology.Interface) bool { return slices.Contains(i.Addresses, a) })
}
