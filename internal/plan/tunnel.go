package plan

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Names of tunnels' devices, as Calico has them.
const (
	IPIPDevice   = "tunl0"
	VXLANDevice  = "vxlan.calico"
	VXLAN6Device = "vxlan-v6.calico"
)

// DeviceKind says what a tunnel's device does with packets.
type DeviceKind uint8

// The kinds of devices.
const (
	IPIP      DeviceKind = iota // IPv4 in IPv4, protocol 4 (RFC 2003); to any node: a route's gateway is the outer destination
	VXLAN                       // Ethernet in UDP (RFC 7348); to the VTEPs of its Link
	WireGuard                   // to the peers of its Link
)

// String is the kind as `ip -d link` names it.
func (k DeviceKind) String() string { return [...]string{"ipip", "vxlan", "wireguard"}[k] }

// Device is a tunnel's network interface on this node, up. It is comparable. Fields that
// its kind does not have are zero.
type Device struct {
	Name string // 1 to 15 bytes
	Kind DeviceKind
	Addr netip.Addr // its only address, single; zero: none
	MTU  int        // bytes; 0: as the kernel makes it

	// Of VXLAN.
	VNI   uint32     // network identifier, 1 to 2^24-1
	Local netip.Addr // this node's address, source of outer packets; its family is that of the underlay
	MAC   string     // lower case, aa:bb:cc:dd:ee:ff
	// NoChecksumOffload keeps the kernel from leaving checksums of inner packets to the
	// network card (featureDetectOverride ChecksumOffloadBroken=true). False: the door finds
	// out whether it works.
	NoChecksumOffload bool

	Port uint16 // UDP, of VXLAN and WireGuard
	Mark uint32 // of WireGuard: on its outer packets; 0: none
	// Threaded lets a kernel thread of its own do WireGuard's work.
	Threaded bool
	// Hosts says that traffic of the nodes themselves may go through WireGuard, too, so that
	// the mark of what came in clear has to count for its answer; see package wireguard.
	Hosts bool
}

// VTEPKey is the identity of another node's end of a VXLAN.
type VTEPKey struct {
	Link string
	Addr netip.Addr // on the inside: the address of the other node's device, gateway of routes
}

// VTEPAttrs is how it is reached.
type VTEPAttrs struct {
	MAC  string     // of the other node's device, lower case
	Node netip.Addr // the other node's address: destination of outer packets
}

// VTEP is another node's end of a VXLAN: a permanent neighbour entry (Addr to MAC) and
// a permanent forwarding entry (MAC to Node).
type VTEP struct {
	VTEPKey
	VTEPAttrs
}

// PublicKey is a WireGuard public key (Curve25519). The zero one is none.
type PublicKey [32]byte

// WireGuardPeerKey is the kernel's identity of a WireGuard peer.
type WireGuardPeerKey struct {
	Link string
	Key  PublicKey
}

// WireGuardPeerAttrs is what a peer has.
type WireGuardPeerAttrs struct {
	Endpoint  netip.AddrPort // its node's address and port
	Allowed   Prefixes       // what it may send from, and what is sent to it
	Keepalive time.Duration  // whole seconds; 0: none
}

// WireGuardPeer is another node as the WireGuard device sees it.
type WireGuardPeer struct {
	WireGuardPeerKey
	WireGuardPeerAttrs
}

// Prefixes is a sorted list of distinct prefixes. It is comparable and immutable.
type Prefixes string

// MakePrefixes packs list, in any order.
func MakePrefixes(list ...netip.Prefix) Prefixes {
	list = slices.Clone(list)
	slices.SortFunc(list, netip.Prefix.Compare)
	var b strings.Builder
	for _, p := range slices.Compact(list) {
		b.WriteByte(byte(p.Bits()))
		b.WriteString(string(MakeHops(p.Addr())))
	}
	return Prefixes(b.String())
}

// All walks the prefixes.
func (p Prefixes) All() iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for len(p) > 0 {
			end := 2 + int(p[1])
			for a := range Hops(p[1:end]).All() {
				if !yield(netip.PrefixFrom(a, int(p[0]))) {
					return
				}
			}
			p = p[end:]
		}
	}
}

// RoutingRule is a rule of the kernel's routing policy (ip-rule(8)): packets that fit look
// into Table. It is comparable, and its own key.
type RoutingRule struct {
	V6       bool
	Priority uint32 // the lower number is asked first
	Mark     uint32 // packets whose mark has these bits under Mask
	Mask     uint32
	Not      bool // packets that do not fit
	Table    uint32
}

// String prints r much as `ip rule` does.
func (r RoutingRule) String() string {
	not := ""
	if r.Not {
		not = "not "
	}
	family := 4
	if r.V6 {
		family = 6
	}
	return fmt.Sprintf("%d: %sfrom all fwmark %#x/%#x lookup %d family %d", r.Priority, not, r.Mark, r.Mask, r.Table, family)
}

func (n Node) applyTunnels(d Delta) {
	for _, r := range d.PutRules {
		n.Rules[r] = struct{}{}
	}
	for _, r := range d.DeleteRules {
		delete(n.Rules, r)
	}
	for _, v := range d.PutDevices {
		n.Devices[v.Name] = v
	}
	for _, k := range d.DeleteDevices {
		delete(n.Devices, k)
	}
	for _, v := range d.PutVTEPs {
		n.VTEPs[v.VTEPKey] = v.VTEPAttrs
	}
	for _, k := range d.DeleteVTEPs {
		delete(n.VTEPs, k)
	}
	for _, v := range d.PutPeers {
		n.Peers[v.WireGuardPeerKey] = v.WireGuardPeerAttrs
	}
	for _, k := range d.DeletePeers {
		delete(n.Peers, k)
	}
}

func (n Node) tunnelLines(out map[string]bool) {
	for r := range n.Rules {
		out["rule "+r.String()] = true
	}
	for _, d := range n.Devices {
		out["device "+d.String()] = true
	}
	for k, v := range n.VTEPs {
		out[fmt.Sprintf("vtep %v dev %s lladdr %s dst %v", k.Addr, k.Link, v.MAC, v.Node)] = true
	}
	for k, v := range n.Peers {
		out[fmt.Sprintf("peer %x dev %s endpoint %v allowed %v keepalive %v", k.Key[:4], k.Link, v.Endpoint, slices.Collect(v.Allowed.All()), v.Keepalive)] = true
	}
}

// String prints d much as `ip -d link` does.
func (d Device) String() string {
	s := fmt.Sprintf("%s %v mtu %d", d.Name, d.Kind, d.MTU)
	if d.Addr.IsValid() {
		s += fmt.Sprintf(" address %v", d.Addr)
	}
	switch d.Kind {
	case VXLAN:
		s += fmt.Sprintf(" lladdr %s id %d local %v dstport %d", d.MAC, d.VNI, d.Local, d.Port)
		if d.NoChecksumOffload {
			s += " no checksum offload"
		}
	case WireGuard:
		s += fmt.Sprintf(" port %d fwmark %#x", d.Port, d.Mark)
		if d.Threaded {
			s += " threaded"
		}
		if d.Hosts {
			s += " hosts"
		}
	}
	return s
}
