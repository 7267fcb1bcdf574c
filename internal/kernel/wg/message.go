package wg

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// genlBytes is the length of struct genlmsghdr.
const genlBytes = 4

// config is what to write of the device itself.
type config struct {
	port             uint16
	mark             uint32
	setPort, setMark bool
	private          *[32]byte // nil: it stays
	public           plan.PublicKey
}

func appendConfig(b []byte, c config) []byte {
	if c.private != nil {
		b = netlink.AppendAttr(b, unix.WGDEVICE_A_PRIVATE_KEY, c.private[:])
	}
	if c.setPort {
		b = netlink.AppendAttr(b, unix.WGDEVICE_A_LISTEN_PORT, netlink.Native.AppendUint16(nil, c.port))
	}
	if c.setMark {
		b = netlink.AppendAttr32(b, unix.WGDEVICE_A_FWMARK, c.mark)
	}
	return b
}

func appendPeers(b []byte, list []change) []byte {
	all := len(b)
	b = netlink.OpenNest(b, unix.WGDEVICE_A_PEERS)
	for _, c := range list {
		one := len(b)
		b = netlink.OpenNest(b, 0)
		b = appendPeer(b, c)
		netlink.CloseNest(b, one)
	}
	netlink.CloseNest(b, all)
	return b
}

func appendPeer(b []byte, c change) []byte {
	b = netlink.AppendAttr(b, unix.WGPEER_A_PUBLIC_KEY, c.key[:])
	if c.remove {
		return netlink.AppendAttr32(b, unix.WGPEER_A_FLAGS, unix.WGPEER_F_REMOVE_ME)
	}
	if c.whole {
		b = netlink.AppendAttr32(b, unix.WGPEER_A_FLAGS, unix.WGPEER_F_REPLACE_ALLOWEDIPS)
	}
	b = netlink.AppendAttr(b, unix.WGPEER_A_ENDPOINT, sockaddr(c.endpoint))
	b = netlink.AppendAttr(b, unix.WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, netlink.Native.AppendUint16(nil, uint16(c.keepalive/time.Second)))
	if len(c.allowed) == 0 {
		return b
	}
	all := len(b)
	b = netlink.OpenNest(b, unix.WGPEER_A_ALLOWEDIPS)
	for _, p := range c.allowed {
		one := len(b)
		b = netlink.OpenNest(b, 0)
		b = netlink.AppendAttr(b, unix.WGALLOWEDIP_A_FAMILY, netlink.Native.AppendUint16(nil, uint16(netlink.Family(p.Addr().Is6()))))
		b = netlink.AppendAttr(b, unix.WGALLOWEDIP_A_IPADDR, p.Addr().AsSlice())
		b = netlink.AppendAttr(b, unix.WGALLOWEDIP_A_CIDR_MASK, []byte{byte(p.Bits())})
		netlink.CloseNest(b, one)
	}
	netlink.CloseNest(b, all)
	return b
}

// sockaddr is a as struct sockaddr_in or sockaddr_in6.
func sockaddr(a netip.AddrPort) []byte {
	b := netlink.Native.AppendUint16(nil, uint16(netlink.Family(a.Addr().Is6())))
	b = binary.BigEndian.AppendUint16(b, a.Port())
	if a.Addr().Is4() {
		return append(append(b, a.Addr().AsSlice()...), make([]byte, 8)...)
	}
	b = append(b, 0, 0, 0, 0) // flow label
	return append(append(b, a.Addr().AsSlice()...), 0, 0, 0, 0)
}

func parseSockaddr(b []byte) netip.AddrPort {
	if len(b) < 8 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := netlink.Native.Uint16(b); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port)
	}
	return netip.AddrPort{}
}
