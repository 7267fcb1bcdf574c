// Package plan says what one node must look like: routes, workload links,
// neighbours, tunnels, and the packet filter. It is the third of weft's three shapes, after
// v3 (what users write) and model (what they meant), and the only one that doors to
// the kernel read.
//
//	model.Batch ── route.Graph ───► Delta ───────► kernel/fib
//	            ── policy.Graph ──► FilterDelta ──► kernel/nft
//
// A decider emits [Delta]s and [FilterDelta]s; a door folds them into what it wants
// and makes the kernel equal to that. [Node] and [Filter] are the folds: the whole
// desired state, which tests and references compare with [Diff] and [DiffFilters].
// A [Machine] says what a filter does with a packet.
//
// Invariant: every object is a comparable value whose identity is a part of it, so
// that "changed" is a comparison with ==; a rule, which is a list of such values, is
// compared with [Rule.Equal].
package plan

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
)

// Tables of the kernel.
const (
	// TableMain is the routing table that `ip route` shows.
	TableMain uint32 = 254
)

// Protocols of routes (rtnetlink(7)), as `ip route` names them.
const (
	ProtoBoot uint8 = 3  // prints nothing: routes to local workloads
	ProtoBird uint8 = 12 // prints "proto bird": routes of the cluster
	// ProtoFelix is of routes of the cluster that Calico's Felix wrote.
	ProtoFelix uint8 = 80
)

// RouteType is what the kernel does with a packet.
type RouteType uint8

// The types of routes.
const (
	Unicast   RouteType = iota // forward to Via, or on Link
	Blackhole                  // drop in silence
	Throw                      // look no further in this table, but in the next
)

// Hops is a sorted list of gateway addresses of one family. It is comparable
// and immutable, so that many routes share one. Empty means no gateway.
type Hops string

// MakeHops packs addrs, which must be sorted, distinct and of one family.
func MakeHops(addrs ...netip.Addr) Hops {
	var few [2 * 17]byte // mostly there are one or two
	b := few[:0]
	for _, a := range addrs {
		if a.Is4() {
			a4 := a.As4()
			b = append(append(b, 4), a4[:]...)
		} else {
			a16 := a.As16()
			b = append(append(b, 16), a16[:]...)
		}
	}
	return Hops(b)
}

// All walks the addresses of h without allocating.
func (h Hops) All() iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		for len(h) > 0 {
			n := int(h[0])
			var a netip.Addr
			if n == 4 {
				a = netip.AddrFrom4([4]byte([]byte(h[1:5])))
			} else {
				a = netip.AddrFrom16([16]byte([]byte(h[1:17])))
			}
			if !yield(a) {
				return
			}
			h = h[1+n:]
		}
	}
}

// Addrs unpacks h.
func (h Hops) Addrs() []netip.Addr { return slices.Collect(h.All()) }

// String prints the addresses with commas.
func (h Hops) String() string {
	var s []string
	for _, a := range h.Addrs() {
		s = append(s, a.String())
	}
	return strings.Join(s, ",")
}

// RouteKey is the kernel's identity of a route.
type RouteKey struct {
	Dst      netip.Prefix // masked; never 4-in-6
	Table    uint32       // kernel table; 0 is not allowed, main is 254
	Priority uint32       // kernel metric; the lower number wins
}

// RouteAttrs is all of a route but its identity.
type RouteAttrs struct {
	Type   RouteType
	Proto  uint8      // who owns it: ProtoBird, ProtoBoot or as configured
	OnLink bool       // the gateway is reachable although no connected subnet has it
	Via    Hops       // gateways; more than one is ECMP
	Link   string     // interface; empty: the kernel finds it from Via
	Src    netip.Addr // preferred source; zero: the kernel's choice
}

// Route is one kernel route this node must have. It is comparable: two equal
// Routes are the same kernel entry. The zero Route is not valid.
type Route struct {
	RouteKey
	RouteAttrs
}

// String prints r much as `ip route` does.
func (r Route) String() string {
	var b strings.Builder
	switch r.Type {
	case Blackhole:
		b.WriteString("blackhole ")
	case Throw:
		b.WriteString("throw ")
	}
	b.WriteString(r.Dst.String())
	for _, a := range r.Via.Addrs() {
		fmt.Fprintf(&b, " via %v", a)
	}
	if r.Link != "" {
		fmt.Fprintf(&b, " dev %s", r.Link)
	}
	fmt.Fprintf(&b, " proto %d", r.Proto)
	if r.Src.IsValid() {
		fmt.Fprintf(&b, " src %v", r.Src)
	}
	if r.OnLink {
		b.WriteString(" onlink")
	}
	if r.Table != TableMain {
		fmt.Fprintf(&b, " table %d", r.Table)
	}
	if r.Priority != 0 {
		fmt.Fprintf(&b, " metric %d", r.Priority)
	}
	return b.String()
}

// IPRoute prints r to the letter as `ip route` (iproute2 6.1) prints an IPv4 route, but for
// the interface where the kernel is to find it.
func (r Route) IPRoute() string {
	s := r.Dst.String()
	switch {
	case r.Dst.IsSingleIP():
		s = r.Dst.Addr().String()
	case r.Dst.Bits() == 0:
		s = "default"
	}
	switch r.Type {
	case Blackhole:
		s = "blackhole " + s
	case Throw:
		s = "throw " + s
	}
	hops := r.Via.Addrs()
	if len(hops) == 1 {
		s += " via " + hops[0].String()
	}
	if r.Link != "" {
		s += " dev " + r.Link
	}
	switch r.Proto {
	case ProtoBoot:
	case ProtoBird:
		s += " proto bird"
	default:
		s += fmt.Sprintf(" proto %d", r.Proto)
	}
	if r.Link != "" && len(hops) == 0 && r.Dst.Addr().Is4() {
		s += " scope link"
	}
	if r.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	if r.Priority != 0 {
		s += fmt.Sprintf(" metric %d", r.Priority)
	}
	if r.OnLink {
		s += " onlink"
	}
	if len(hops) > 1 {
		for _, h := range hops {
			s += " nexthop via " + h.String()
		}
	}
	return s
}

// Link is the host side of a workload's interface: the sysctls that it needs
// (forwarding, proxy ARP and NDP and so on; facts of Calico in docs/routes.md)
// are the door's trade. The link itself is made by the CNI executable.
type Link struct {
	Name   string // interface name, 1 to 15 bytes
	V4, V6 bool   // families that the workload has addresses of
}

// NeighborKey is the kernel's identity of a neighbour entry.
type NeighborKey struct {
	Link string
	Addr netip.Addr
}

// Neighbor is a permanent neighbour entry: the workload's address on its link.
type Neighbor struct {
	NeighborKey
	MAC string // lower case, aa:bb:cc:dd:ee:ff
}

// Delta is a change of the plan. Puts come before deletes, and a key stands in
// one of the two only. Of tunnels see tunnel.go.
type Delta struct {
	PutRoutes       []Route
	DeleteRoutes    []RouteKey
	PutLinks        []Link
	DeleteLinks     []string
	PutNeighbors    []Neighbor
	DeleteNeighbors []NeighborKey
	PutRules        []RoutingRule
	DeleteRules     []RoutingRule
	PutDevices      []Device
	DeleteDevices   []string
	PutVTEPs        []VTEP
	DeleteVTEPs     []VTEPKey
	PutPeers        []WireGuardPeer
	DeletePeers     []WireGuardPeerKey
}

// Empty reports whether d changes nothing.
func (d Delta) Empty() bool {
	return len(d.PutRoutes)+len(d.DeleteRoutes)+len(d.PutLinks)+len(d.DeleteLinks)+
		len(d.PutNeighbors)+len(d.DeleteNeighbors)+len(d.PutRules)+len(d.DeleteRules)+
		len(d.PutDevices)+len(d.DeleteDevices)+len(d.PutVTEPs)+len(d.DeleteVTEPs)+
		len(d.PutPeers)+len(d.DeletePeers) == 0
}

// Node is the whole desired state of a node. The zero Node is an empty one.
type Node struct {
	Routes    map[RouteKey]RouteAttrs
	Links     map[string]Link
	Neighbors map[NeighborKey]string
	Rules     map[RoutingRule]struct{}
	Devices   map[string]Device
	VTEPs     map[VTEPKey]VTEPAttrs
	Peers     map[WireGuardPeerKey]WireGuardPeerAttrs
}

// Apply returns n changed by d. It changes the maps of n.
func (n Node) Apply(d Delta) Node {
	if n.Routes == nil {
		n = Node{
			map[RouteKey]RouteAttrs{},
			map[string]Link{},
			map[NeighborKey]string{},
			map[RoutingRule]struct{}{},
			map[string]Device{},
			map[VTEPKey]VTEPAttrs{},
			map[WireGuardPeerKey]WireGuardPeerAttrs{},
		}
	}
	for _, r := range d.PutRoutes {
		n.Routes[r.RouteKey] = r.RouteAttrs
	}
	for _, k := range d.DeleteRoutes {
		delete(n.Routes, k)
	}
	for _, l := range d.PutLinks {
		n.Links[l.Name] = l
	}
	for _, k := range d.DeleteLinks {
		delete(n.Links, k)
	}
	for _, v := range d.PutNeighbors {
		n.Neighbors[v.NeighborKey] = v.MAC
	}
	for _, k := range d.DeleteNeighbors {
		delete(n.Neighbors, k)
	}
	n.applyTunnels(d)
	return n
}
