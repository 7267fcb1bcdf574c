package world

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
)

// Packet is a packet that Node meets, and where it comes from and goes to.
type Packet struct {
	policy.Query
	Src, Dst netip.Addr
	In, Out  string // interfaces of Node; empty: it is from, or to, Node itself
}

// String is p for people.
func (p Packet) String() string {
	from, to := p.In, p.Out
	if from == "" {
		from = "self"
	}
	if to == "" {
		to = "self"
	}
	return fmt.Sprintf("%s > %s: %v > %v protocol %d ports %d > %d type %d code %d", from, to, p.Src, p.Dst, p.Protocol, p.SrcPort, p.DstPort, p.ICMPType, p.ICMPCode)
}

// end is somebody who sends or receives.
type end struct {
	policy.Party
	link string
	own  bool // a workload of Node
}

// ends are all who may have a packet of that family.
func (w World) ends(d dice, v6 bool) []end {
	out := []end{
		{policy.Party{Key: model.Node{Name: Node}.Key(), Addr: NodeAddr(false, v6)}, "", false},
		{policy.Party{Key: model.Node{Name: Other}.Key(), Addr: NodeAddr(true, v6)}, Uplink, false},
	}
	outside := []string{"198.51.100.9", "198.51.100.200", "203.0.113.7", "192.0.2.1"}
	if v6 {
		outside = []string{"2001:db8:1::9", "2001:db8:1::77", "2001:db8:2::7", "2001:db9::1"}
	}
	out = append(out, end{policy.Party{Addr: netip.MustParseAddr(one(d, outside...))}, Uplink, false})
	for _, k := range slices.SortedFunc(keys(w.Values), policy.CompareKeys) {
		ep, ok := w.Values[k].(model.Endpoint)
		if !ok {
			continue
		}
		for _, a := range ep.Addrs {
			if a.Is6() != v6 || ep.Node != Node && routed(a) {
				continue
			}
			e := end{policy.Party{Key: k, Addr: a}, Uplink, false}
			if ep.Node == Node {
				e.link, e.own = ep.Link, true
			}
			out = append(out, e)
		}
	}
	return out
}

// routed reports whether an address is behind an interface of a workload of Node.
func routed(a netip.Addr) bool {
	for i := range Locals {
		if a == Addr(i, a.Is6()) {
			return true
		}
	}
	return false
}

func keys(w model.World) func(func(model.Key) bool) {
	return func(yield func(model.Key) bool) {
		for k := range w {
			if !yield(k) {
				return
			}
		}
	}
}

// Packets draws n packets. Each is the first of a flow, because no two of them in a
// world have equal ports, identifiers or addresses with a protocol.
func (w World) Packets(r *rand.Rand, n int) []Packet {
	d := dice{r}
	families := [2][]end{w.ends(d, false), w.ends(d, true)}
	var out []Packet
	flows := map[Packet]bool{}
	for len(out) < n {
		v6 := d.IntN(2)
		src, dst := one(d, families[v6]...), one(d, families[v6]...)
		if src.link == Uplink && dst.link == Uplink || src.Addr == dst.Addr {
			continue // Node has nothing to say about it
		}
		if src.own && d.in(5) {
			src.Addr = d.foreign(v6 == 1)
		}
		p := Packet{Query: policy.Query{Src: src.Party, Dst: dst.Party, At: Node, Uplink: Uplink}, Src: src.Addr, Dst: dst.Addr, In: src.link, Out: dst.link}
		d.header(&p, v6 == 1, len(out))
		if !p.icmp() { // the identifier makes messages differ
			flow := Packet{Src: p.Src, Dst: p.Dst, Query: policy.Query{Protocol: p.Protocol, SrcPort: p.SrcPort, DstPort: p.DstPort}}
			back := Packet{Src: p.Dst, Dst: p.Src, Query: policy.Query{Protocol: p.Protocol, SrcPort: p.DstPort, DstPort: p.SrcPort}}
			if flows[flow] || flows[back] {
				continue
			}
			flows[flow] = true
		}
		out = append(out, p)
	}
	return out
}

func (p Packet) icmp() bool { return p.Protocol == 1 || p.Protocol == 58 }

// foreign is an address that no workload of Node has.
func (d dice) foreign(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(one(d, "2001:db8:1::9", "fd65:0::99", "2001:db8:7::1"))
	}
	return netip.MustParseAddr(one(d, "198.51.100.9", "10.65.0.99", "10.65.1.1", "192.0.2.9"))
}

// header draws what is behind the addresses. n is the packet's number.
func (d dice) header(p *Packet, v6 bool, n int) {
	switch d.IntN(12) {
	case 0, 1, 2, 3:
		p.Protocol = 6
	case 4, 5, 6:
		p.Protocol = 17
	case 7: // no UDPLite: kernels differ about it
		p.Protocol = 132
	case 8, 9:
		p.Protocol, p.ICMPType = 1, uint8(one(d, 8, 8, 13))
		if v6 {
			p.Protocol, p.ICMPType = 58, uint8(one(d, 128, 128, 139))
		}
		p.ICMPCode = uint8(one(d, 0, 0, 1))
		return
	case 10:
		p.Protocol = uint8(one(d, 253, 254, 252, 4))
		return
	default:
		p.Protocol = 17
		p.DstPort = 4789
	}
	// The source port makes the flow: one for each packet, spread over the ranges
	// that rules have.
	p.SrcPort = uint16(20000 + (n*7919)%45000)
	if d.in(8) {
		p.SrcPort = uint16(one(d, ports...)) // as an answer would have
	}
	if p.DstPort == 0 {
		p.DstPort = uint16(one(d, append(slices.Clone(ports), 81, 1999, 9001)...))
	}
}

// ParsePacket reads what String prints, of a packet in w.
func (w World) ParsePacket(text string) (Packet, error) {
	var p Packet
	var in, out, src, dst string
	spaced := strings.NewReplacer(": ", " ").Replace(text)
	if _, err := fmt.Sscanf(spaced, "%s > %s %s > %s protocol %d ports %d > %d type %d code %d",
		&in, &out, &src, &dst, &p.Protocol, &p.SrcPort, &p.DstPort, &p.ICMPType, &p.ICMPCode); err != nil {
		return p, fmt.Errorf("world: packet %q: %w", text, err)
	}
	p.At, p.Uplink = Node, Uplink
	for _, end := range []struct {
		link, addr string
		to         *string
		at         *netip.Addr
		party      *policy.Party
	}{{in, src, &p.In, &p.Src, &p.Query.Src}, {out, dst, &p.Out, &p.Dst, &p.Query.Dst}} {
		a, err := netip.ParseAddr(end.addr)
		if err != nil {
			return p, fmt.Errorf("world: packet %q: %w", text, err)
		}
		*end.at, end.party.Addr = a, a
		switch end.link {
		case "self":
			end.party.Key = model.Node{Name: Node}.Key()
			continue
		case Uplink:
		default:
			// A workload, whatever address it sends from.
			for k, v := range w.Values {
				if ep, ok := v.(model.Endpoint); ok && ep.Node == Node && ep.Link == end.link {
					end.party.Key = k
				}
			}
		}
		*end.to = end.link
	}
	return p, nil
}
