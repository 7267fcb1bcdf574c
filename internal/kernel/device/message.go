package device

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// The messages are those of rtnetlink(7): a header of the family's own, then attributes.
const (
	linkBytes     = 16 // struct ifinfomsg
	addrBytes     = 8  // struct ifaddrmsg
	neighborBytes = 12 // struct ndmsg

	genModeNone = 1 // IN6_ADDR_GEN_MODE_NONE: no link-local address

	iptunLink, iptunLocal, iptunRemote = 1, 2, 3 // IFLA_IPTUN_…
	iptunProto, iptunMetadata          = 9, 19

	ndaNexthopID = 13 // NDA_NH_ID
)

// mac is an Ethernet address.
type mac [6]byte

// kernelLink is a link as the kernel tells it.
type kernelLink struct {
	name, kind, alias string
	index             int32
	up                bool
	mtu               int
	minMTU, maxMTU    int // 0: unknown
	mac               mac
	data              []byte // of its kind; it belongs to the datagram
}

func (l *kernelLink) ours() bool { return l.alias == alias }

// parseLink reads the body of a link message.
func parseLink(b []byte) (l kernelLink, ok bool) {
	if len(b) < linkBytes || b[0] != unix.AF_UNSPEC {
		return l, false
	}
	l.index = int32(netlink.Native.Uint32(b[4:]))
	l.up = netlink.Native.Uint32(b[8:])&unix.IFF_UP != 0
	for typ, v := range netlink.Attributes(b[linkBytes:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = text(v)
		case unix.IFLA_IFALIAS:
			l.alias = text(v)
		case unix.IFLA_MTU:
			l.mtu = int(netlink.Uint32(v))
		case unix.IFLA_MIN_MTU:
			l.minMTU = int(netlink.Uint32(v))
		case unix.IFLA_MAX_MTU:
			l.maxMTU = int(netlink.Uint32(v))
		case unix.IFLA_ADDRESS:
			copy(l.mac[:], v)
		case unix.IFLA_LINKINFO:
			for typ, v := range netlink.Attributes(v) {
				switch typ {
				case unix.IFLA_INFO_KIND:
					l.kind = text(v)
				case unix.IFLA_INFO_DATA:
					l.data = v
				}
			}
		}
	}
	return l, true
}

func text(v []byte) string { return string(bytes.TrimRight(v, "\x00")) }

// vxlan is what a VXLAN device is made with. It is comparable.
type vxlan struct {
	vni           uint32
	port          uint16
	local, remote netip.Addr
	learning      bool
	metadata      bool // takes all VNIs, for programs that set one for each packet
}

func parseVXLAN(data []byte) (x vxlan) {
	for typ, v := range netlink.Attributes(data) {
		switch typ {
		case unix.IFLA_VXLAN_ID:
			x.vni = netlink.Uint32(v)
		case unix.IFLA_VXLAN_PORT:
			if len(v) >= 2 {
				x.port = binary.BigEndian.Uint16(v)
			}
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			x.local = specified(v)
		case unix.IFLA_VXLAN_GROUP, unix.IFLA_VXLAN_GROUP6:
			x.remote = specified(v)
		case unix.IFLA_VXLAN_LEARNING:
			x.learning = set(v)
		case unix.IFLA_VXLAN_COLLECT_METADATA:
			x.metadata = set(v)
		}
	}
	return x
}

// ipip is what an IPIP device is made with; that of tunl0 is the zero value.
type ipip struct {
	local, remote netip.Addr
	parent        int32
	other         bool // not for IPv4, or for programs that set an address for each packet
}

func parseIPIP(data []byte) (x ipip) {
	for typ, v := range netlink.Attributes(data) {
		switch typ {
		case iptunLocal:
			x.local = specified(v)
		case iptunRemote:
			x.remote = specified(v)
		case iptunLink:
			x.parent = int32(netlink.Uint32(v))
		case iptunProto:
			x.other = len(v) > 0 && v[0] != unix.IPPROTO_IPIP && v[0] != 0 // any, which the kernel's own has
		case iptunMetadata:
			x.other = true
		}
	}
	return x
}

func set(v []byte) bool { return len(v) > 0 && v[0] != 0 }

// specified is the address in v, or the zero Addr when that is 0.0.0.0 or ::.
func specified(v []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(v)
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// appendLink adds the body of a message about a link: by its index, or by name if that
// is 0. The flags among mask are set as in flags.
func appendLink(b []byte, index int32, name string, flags, mask uint32) []byte {
	b = append(b, 0, 0, 0, 0)
	b = netlink.Native.AppendUint32(b, uint32(index))
	b = netlink.Native.AppendUint32(b, flags)
	b = netlink.Native.AppendUint32(b, mask)
	if index == 0 {
		b = netlink.AppendAttrString(b, unix.IFLA_IFNAME, name)
	}
	return b
}

// appendNew adds the body of the message that makes device v.
func appendNew(b []byte, v *plan.Device) []byte {
	b = appendLink(b, 0, v.Name, 0, 0)
	if m, ok := parseMAC(v.MAC); ok {
		b = netlink.AppendAttr(b, unix.IFLA_ADDRESS, m[:])
	}
	start := len(b)
	b = netlink.OpenNest(b, unix.IFLA_LINKINFO)
	b = netlink.AppendAttrString(b, unix.IFLA_INFO_KIND, v.Kind.String())
	if v.Kind == plan.VXLAN {
		data := len(b)
		b = netlink.OpenNest(b, unix.IFLA_INFO_DATA)
		b = netlink.AppendAttr32(b, unix.IFLA_VXLAN_ID, v.VNI)
		b = netlink.AppendAttr(b, unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, v.Port))
		b = netlink.AppendAttr(b, unix.IFLA_VXLAN_LEARNING, []byte{0})
		local := uint16(unix.IFLA_VXLAN_LOCAL)
		if v.Local.Is6() {
			local = unix.IFLA_VXLAN_LOCAL6
		}
		if v.Local.IsValid() {
			b = netlink.AppendAttr(b, local, v.Local.AsSlice())
		}
		netlink.CloseNest(b, data)
	}
	netlink.CloseNest(b, start)
	return b
}

// appendGenMode has the kernel give the link no link-local IPv6 address.
func appendGenMode(b []byte) []byte {
	spec := len(b)
	b = netlink.OpenNest(b, unix.IFLA_AF_SPEC)
	family := len(b)
	b = netlink.OpenNest(b, unix.AF_INET6)
	b = netlink.AppendAttr(b, unix.IFLA_INET6_ADDR_GEN_MODE, []byte{genModeNone})
	netlink.CloseNest(b, family)
	netlink.CloseNest(b, spec)
	return b
}

// appendAddr adds the body of a message about an address of a link.
func appendAddr(b []byte, index int32, p netip.Prefix) []byte {
	v6 := p.Addr().Is6()
	b = append(b, netlink.Family(v6), uint8(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE)
	b = netlink.Native.AppendUint32(b, uint32(index))
	a := p.Addr().AsSlice()
	b = netlink.AppendAttr(b, unix.IFA_LOCAL, a)
	b = netlink.AppendAttr(b, unix.IFA_ADDRESS, a)
	if v6 {
		b = netlink.AppendAttr32(b, unix.IFA_FLAGS, unix.IFA_F_NODAD) // nobody else can have it
	}
	return b
}

// parseAddr reads an address of a link.
func parseAddr(b []byte) (index int32, p netip.Prefix, ok bool) {
	if len(b) < addrBytes {
		return 0, p, false
	}
	index = int32(netlink.Native.Uint32(b[4:]))
	var local, addr netip.Addr
	for typ, v := range netlink.Attributes(b[addrBytes:]) {
		switch typ {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(v)
		}
	}
	if !local.IsValid() {
		local = addr // IPv6 has only the one, but for point-to-point links
	}
	return index, netip.PrefixFrom(local, int(b[1])), local.IsValid()
}

// appendNeighbor adds the body of a message about a neighbour: addr is at m.
func appendNeighbor(b []byte, index int32, addr netip.Addr, m *mac) []byte {
	b = append(b, netlink.Family(addr.Is6()), 0, 0, 0)
	b = netlink.Native.AppendUint32(b, uint32(index))
	b = netlink.Native.AppendUint16(b, unix.NUD_PERMANENT)
	b = append(b, 0, unix.RTN_UNICAST)
	b = appendIP(b, unix.NDA_DST, addr)
	if m != nil {
		b = netlink.AppendAttr(b, unix.NDA_LLADDR, m[:])
	}
	return b
}

// appendForward adds the body of a message about a forwarding entry: frames to m go to
// node.
func appendForward(b []byte, index int32, m mac, node netip.Addr) []byte {
	b = append(b, unix.AF_BRIDGE, 0, 0, 0)
	b = netlink.Native.AppendUint32(b, uint32(index))
	b = netlink.Native.AppendUint16(b, unix.NUD_PERMANENT)
	b = append(b, unix.NTF_SELF, 0)
	b = netlink.AppendAttr(b, unix.NDA_LLADDR, m[:])
	if node.IsValid() {
		b = appendIP(b, unix.NDA_DST, node)
	}
	return b
}

func appendIP(b []byte, typ uint16, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		return netlink.AppendAttr(b, typ, v[:])
	}
	v := a.As16()
	return netlink.AppendAttr(b, typ, v[:])
}

// kernelEntry is a neighbour, or with bridge a forwarding entry, as the kernel tells it.
type kernelEntry struct {
	index     int32
	bridge    bool
	permanent bool
	addr      netip.Addr // of a neighbour; of the other node
	mac       mac
	odd       bool // it has what ours never have: a port or VNI of its own, a router's flag
}

func parseEntry(b []byte) (e kernelEntry, ok bool) {
	if len(b) < neighborBytes || b[10]&unix.NTF_PROXY != 0 {
		return e, false
	}
	e.bridge = b[0] == unix.AF_BRIDGE
	if e.bridge && b[10]&unix.NTF_SELF == 0 || !e.bridge && b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return e, false
	}
	e.index = int32(netlink.Native.Uint32(b[4:]))
	e.permanent = netlink.Native.Uint16(b[8:])&unix.NUD_PERMANENT != 0
	for typ, v := range netlink.Attributes(b[neighborBytes:]) {
		switch typ {
		case unix.NDA_DST:
			e.addr, _ = netip.AddrFromSlice(v)
		case unix.NDA_LLADDR:
			copy(e.mac[:], v)
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX, ndaNexthopID:
			e.odd = true
		}
	}
	return e, e.bridge || e.addr.IsValid()
}
