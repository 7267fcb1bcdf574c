package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// tunnel is a way to carry a packet to another node.
type tunnel uint8

// The tunnels. There is one device of each but plain.
const (
	plain tunnel = iota // as it is
	ipip
	vxlan
	vxlan6
	tunnels int = iota
)

// device is the name of t's device.
func (t tunnel) device() string {
	return [tunnels]string{"", plan.IPIPDevice, plan.VXLANDevice, plan.VXLAN6Device}[t]
}

// v6 reports of which family the packets outside and inside are.
func (t tunnel) v6() bool { return t == vxlan6 }

// overhead is what t adds to a packet, bytes.
func (t tunnel) overhead() int { return [tunnels]int{0, 20, 50, 70}[t] }

// Overheads of WireGuard, bytes.
const (
	wireGuardOverhead  = 60
	wireGuardOverhead6 = 80
)

// encap says how packets to addresses of a pool travel between nodes.
type encap struct {
	tunnel tunnel
	cross  bool // but plain to nodes in the own subnet
}

// encapOf reads what p asks for. Where that can't be done, p is as if it asked for no
// encapsulation, and why says the reason; empty: there is none.
func encapOf(p model.Pool, s Tunnel) (e encap, why string) {
	asks := func(m model.EncapMode) bool { return m == model.EncapAlways || m == model.EncapCrossSubnet }
	v6 := p.CIDR.Addr().Is6()
	switch {
	case asks(p.IPIP) && asks(p.VXLAN):
		return encap{}, fmt.Sprintf("ipipMode %s and vxlanMode %s exclude each other: its packets are not encapsulated; one of them must be Never", p.IPIP, p.VXLAN)
	case asks(p.IPIP) && v6:
		return encap{}, fmt.Sprintf("ipipMode %s: %v is IPv6, which IPIP can't carry: its packets are not encapsulated; use vxlanMode", p.IPIP, p.CIDR)
	case asks(p.IPIP) && s.IPIP == Off:
		return encap{}, fmt.Sprintf("ipipMode %s: ipipEnabled is false on this node: its packets are not encapsulated; unset ipipEnabled, or set the mode to Never", p.IPIP)
	case asks(p.VXLAN) && !v6 && s.VXLAN == Off:
		return encap{}, fmt.Sprintf("vxlanMode %s: vxlanEnabled is false on this node: its packets are not encapsulated; unset vxlanEnabled, or set the mode to Never", p.VXLAN)
	case asks(p.IPIP):
		return encap{ipip, p.IPIP == model.EncapCrossSubnet}, ""
	case asks(p.VXLAN) && v6:
		return encap{vxlan6, p.VXLAN == model.EncapCrossSubnet}, ""
	case asks(p.VXLAN):
		return encap{vxlan, p.VXLAN == model.EncapCrossSubnet}, ""
	}
	return encap{}, ""
}

// pool is a pool as routes need it. It is comparable.
type pool struct {
	name string
	cidr netip.Prefix
	encap
}

// pools is all pools, in the order in which they are asked: the longest prefix first.
type pools []pool

// poolsOf orders list. Of several with one prefix the oldest counts, then the first by
// name, as for the allocation of addresses.
func poolsOf(list []model.Pool, s Tunnel) pools {
	slices.SortFunc(list, func(a, b model.Pool) int {
		return cmp.Or(cmp.Compare(b.CIDR.Bits(), a.CIDR.Bits()), comparePrefixes(a.CIDR, b.CIDR),
			a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	out := make(pools, 0, len(list))
	for _, p := range list {
		e, _ := encapOf(p, s)
		out = append(out, pool{p.Name, p.CIDR, e})
	}
	return out
}

// of is the pool that p is in; the zero pool if there is none.
func (ps pools) of(p netip.Prefix) pool {
	for i := range ps {
		if within(ps[i].cidr, p) {
			return ps[i]
		}
	}
	return pool{}
}

// encapsulate reports whether any pool is encapsulated.
func (ps pools) encapsulate() bool {
	return slices.ContainsFunc(ps, func(p pool) bool { return p.tunnel != plain })
}

// within reports whether p is a part of, or all of, outer.
func within(outer, p netip.Prefix) bool {
	return outer.Bits() <= p.Bits() && outer.Contains(p.Addr())
}
