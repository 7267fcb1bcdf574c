package fib

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// The wire format is that of rtnetlink(7): a header of 16 bytes, the family's
// own header, attributes; everything padded to four bytes.
const (
	routeBytes    = 12 // struct rtmsg
	neighborBytes = 12 // struct ndmsg
	linkBytes     = 16 // struct ifinfomsg
	addrBytes     = 8  // struct ifaddrmsg
	hopBytes      = 8  // struct rtnexthop

	rtaNexthopID = 30 // RTA_NH_ID
)

// kernelType is the kernel's number of a route type.
func kernelType(t plan.RouteType) uint8 {
	switch t {
	case plan.Blackhole:
		return unix.RTN_BLACKHOLE
	case plan.Throw:
		return unix.RTN_THROW
	}
	return unix.RTN_UNICAST
}

// scopeOf is what `ip route` sets: a route to a neighbour has link scope. IPv6
// has no scopes.
func scopeOf(k key, a *attrs) uint8 {
	if !k.v6() && a.Type == plan.Unicast && a.Via == "" {
		return unix.RT_SCOPE_LINK
	}
	return unix.RT_SCOPE_UNIVERSE
}

// appendRoute adds the body of a route message to b.
func appendRoute(b []byte, k key, scope, proto, typ uint8, flags uint32) []byte {
	table := uint8(unix.RT_TABLE_UNSPEC)
	if k.table < 256 {
		table = uint8(k.table)
	}
	b = append(b, netlink.Family(k.v6()), uint8(k.bits), 0, 0, table, proto, scope, typ)
	b = netlink.Native.AppendUint32(b, flags)
	if table == unix.RT_TABLE_UNSPEC {
		b = netlink.AppendAttr32(b, unix.RTA_TABLE, k.table)
	}
	if k.metric != 0 {
		b = netlink.AppendAttr32(b, unix.RTA_PRIORITY, k.metric)
	}
	return netlink.AppendAttr(b, unix.RTA_DST, k.addrBytes())
}

// appendWanted adds the body of the message that makes route k of a.
func appendWanted(b []byte, k key, a *attrs) []byte {
	var flags uint32
	if len(a.hops) == 1 && a.hops[0].onLink {
		flags = unix.RTNH_F_ONLINK
	}
	b = appendRoute(b, k, scopeOf(k, a), a.Proto, kernelType(a.Type), flags)
	if a.Src.IsValid() {
		b = netlink.AppendAttr(b, unix.RTA_PREFSRC, a.Src.AsSlice())
	}
	switch len(a.hops) {
	case 0: // blackhole, throw
	case 1:
		b = appendGateway(b, k, &a.hops[0])
		b = netlink.AppendAttr32(b, unix.RTA_OIF, uint32(a.hops[0].index))
	default:
		start := len(b)
		b = netlink.AppendAttr(b, unix.RTA_MULTIPATH, nil)
		for i := range a.hops {
			hop := len(b)
			b = append(b, 0, 0, 0, 0)
			if a.hops[i].onLink {
				b[hop+2] = unix.RTNH_F_ONLINK
			}
			b = netlink.Native.AppendUint32(b, uint32(a.hops[i].index))
			b = appendGateway(b, k, &a.hops[i])
			netlink.Native.PutUint16(b[hop:], uint16(len(b)-hop))
		}
		netlink.Native.PutUint16(b[start:], uint16(len(b)-start))
	}
	return b
}

func appendGateway(b []byte, k key, h *hop) []byte {
	switch {
	case h.family == 0:
		return b
	case h.family == netlink.Family(k.v6()):
		return netlink.AppendAttr(b, unix.RTA_GATEWAY, h.gatewayBytes())
	}
	var via [18]byte // IPv4 through an IPv6 gateway (RFC 5549)
	netlink.Native.PutUint16(via[:], uint16(h.family))
	n := copy(via[2:], h.gatewayBytes())
	return netlink.AppendAttr(b, unix.RTA_VIA, via[:2+n])
}

// route is a route as the kernel tells it. One is reused for a whole dump.
type route struct {
	key        key
	typ, proto uint8
	scope      uint8
	onLink     bool // some hop is
	odd        bool // has what we never give a route: nexthop object, encapsulation
	encap      bool
	cloned     bool // not a route: a cached exception, or of a kind we cannot name
	src        [16]byte
	hasSrc     bool
	hops       []hop
	single     hop
}

// parse reads the body of a route message. It reports whether it is one.
func (r *route) parse(b []byte) bool {
	if len(b) < routeBytes || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 {
		return false
	}
	*r = route{hops: r.hops[:0]}
	flags := netlink.Native.Uint32(b[8:])
	r.key = key{bits: uint16(b[1]), table: uint32(b[4])}
	if b[0] == unix.AF_INET6 {
		r.key.family = 1
	}
	r.typ, r.proto, r.scope = b[7], b[5], b[6]
	r.onLink = flags&unix.RTNH_F_ONLINK != 0
	r.single.onLink = r.onLink
	r.cloned = flags&unix.RTM_F_CLONED != 0 || b[2] != 0 || b[3] != 0 // a source prefix or a TOS makes another key
	for typ, v := range netlink.Attributes(b[routeBytes:]) {
		switch typ {
		case unix.RTA_DST:
			copy(r.key.addr[:], v)
		case unix.RTA_TABLE:
			r.key.table = netlink.Uint32(v)
		case unix.RTA_PRIORITY:
			r.key.metric = netlink.Uint32(v)
		case unix.RTA_PREFSRC:
			copy(r.src[:], v)
			r.hasSrc = true
		case unix.RTA_OIF:
			r.single.index = int32(netlink.Uint32(v))
		case unix.RTA_GATEWAY:
			r.single.setGateway(b[0], v)
		case unix.RTA_VIA:
			r.single.setVia(v)
		case unix.RTA_MULTIPATH:
			r.parseHops(b[0], v)
		case rtaNexthopID:
			r.odd = true
		case unix.RTA_ENCAP:
			r.odd, r.encap = true, true
		}
	}
	if len(r.hops) == 0 && r.typ == unix.RTN_UNICAST {
		r.hops = append(r.hops, r.single)
	}
	return true
}

func (r *route) parseHops(family uint8, b []byte) {
	for len(b) >= hopBytes {
		n := int(netlink.Native.Uint16(b))
		if n < hopBytes || n > len(b) {
			return
		}
		h := hop{index: int32(netlink.Native.Uint32(b[4:])), onLink: b[2]&unix.RTNH_F_ONLINK != 0}
		r.onLink = r.onLink || h.onLink
		r.odd = r.odd || b[3] != 0 // a weight
		for typ, v := range netlink.Attributes(b[hopBytes:n]) {
			switch typ {
			case unix.RTA_GATEWAY:
				h.setGateway(family, v)
			case unix.RTA_VIA:
				h.setVia(v)
			case unix.RTA_ENCAP:
				r.odd, r.encap = true, true
			}
		}
		r.hops = append(r.hops, h)
		b = b[min(netlink.Align(n), len(b)):]
	}
}

// matches reports whether r is exactly what a asks for.
func (r *route) matches(a *attrs) bool {
	if a.why != reasonNone || r.odd || r.typ != kernelType(a.Type) || r.proto != a.Proto ||
		!r.key.v6() && r.scope != scopeOf(r.key, a) || r.hasSrc != a.Src.IsValid() {
		return false
	}
	if r.hasSrc {
		if src, _ := netip.AddrFromSlice(r.src[:len(r.key.addrBytes())]); src != a.Src {
			return false
		}
	}
	return sameHops(r.hops, a.hops)
}

// device is the index of the only link of r, which has no gateway; else 0.
func (r *route) device() int32 {
	if r.typ == unix.RTN_UNICAST && len(r.hops) == 1 && r.hops[0].family == 0 {
		return r.hops[0].index
	}
	return 0
}
