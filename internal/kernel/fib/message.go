package fib

import (
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// The wire format is that of rtnetlink(7): a header of 16 bytes, the family's
// own header, attributes; everything padded to four bytes.
const (
	headerBytes   = 16
	routeBytes    = 12 // struct rtmsg
	neighborBytes = 12 // struct ndmsg
	linkBytes     = 16 // struct ifinfomsg
	addrBytes     = 8  // struct ifaddrmsg
	hopBytes      = 8  // struct rtnexthop

	typeMask     = 0x3fff // NLA_TYPE_MASK: without the flags
	rtaNexthopID = 30     // RTA_NH_ID
)

// message is one netlink message.
type message struct {
	typ, flags uint16
	seq, port  uint32
	body       []byte
}

// errno is the result in an NLMSG_ERROR or NLMSG_DONE message.
func (m message) errno() unix.Errno {
	if len(m.body) < 4 {
		return 0
	}
	return unix.Errno(-int32(native.Uint32(m.body)))
}

// messages cuts a datagram. It stops at the first malformed one.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= headerBytes {
			n := int(native.Uint32(b))
			if n < headerBytes || n > len(b) {
				return
			}
			m := message{native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:]), native.Uint32(b[12:]), b[headerBytes:n]}
			if !yield(m) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// attributes cuts the attributes of a message.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(native.Uint16(b))
			if n < 4 || n > len(b) || !yield(native.Uint16(b[2:])&typeMask, b[4:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

// appendHeader begins a message, whose length is written when it is complete.
func appendHeader(b []byte, typ, flags uint16, seq uint32) []byte {
	b = append(b, 0, 0, 0, 0)
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	return append(b, 0, 0, 0, 0)
}

func appendAttr(b []byte, typ uint16, value []byte) []byte {
	b = native.AppendUint16(b, uint16(4+len(value)))
	b = native.AppendUint16(b, typ)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendAttr32(b []byte, typ uint16, v uint32) []byte {
	b = native.AppendUint16(b, 8)
	b = native.AppendUint16(b, typ)
	return native.AppendUint32(b, v)
}

func family(v6 bool) uint8 {
	if v6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// kernelType is the kernel's number of a route type.
func kernelType(t plan.RouteType) uint8 {
	if t == plan.Blackhole {
		return unix.RTN_BLACKHOLE
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
	b = append(b, family(k.v6()), uint8(k.bits), 0, 0, table, proto, scope, typ)
	b = native.AppendUint32(b, flags)
	if table == unix.RT_TABLE_UNSPEC {
		b = appendAttr32(b, unix.RTA_TABLE, k.table)
	}
	if k.metric != 0 {
		b = appendAttr32(b, unix.RTA_PRIORITY, k.metric)
	}
	return appendAttr(b, unix.RTA_DST, k.addrBytes())
}

// appendWanted adds the body of the message that makes route k of a.
func appendWanted(b []byte, k key, a *attrs) []byte {
	var flags uint32
	if len(a.hops) == 1 && a.hops[0].onLink {
		flags = unix.RTNH_F_ONLINK
	}
	b = appendRoute(b, k, scopeOf(k, a), a.Proto, kernelType(a.Type), flags)
	if a.Src.IsValid() {
		b = appendAttr(b, unix.RTA_PREFSRC, a.Src.AsSlice())
	}
	switch len(a.hops) {
	case 0: // blackhole
	case 1:
		b = appendGateway(b, k, &a.hops[0])
		b = appendAttr32(b, unix.RTA_OIF, uint32(a.hops[0].index))
	default:
		start := len(b)
		b = appendAttr(b, unix.RTA_MULTIPATH, nil)
		for i := range a.hops {
			hop := len(b)
			b = append(b, 0, 0, 0, 0)
			if a.hops[i].onLink {
				b[hop+2] = unix.RTNH_F_ONLINK
			}
			b = native.AppendUint32(b, uint32(a.hops[i].index))
			b = appendGateway(b, k, &a.hops[i])
			native.PutUint16(b[hop:], uint16(len(b)-hop))
		}
		native.PutUint16(b[start:], uint16(len(b)-start))
	}
	return b
}

func appendGateway(b []byte, k key, h *hop) []byte {
	switch {
	case h.family == 0:
		return b
	case h.family == family(k.v6()):
		return appendAttr(b, unix.RTA_GATEWAY, h.gatewayBytes())
	}
	var via [18]byte // IPv4 through an IPv6 gateway (RFC 5549)
	native.PutUint16(via[:], uint16(h.family))
	n := copy(via[2:], h.gatewayBytes())
	return appendAttr(b, unix.RTA_VIA, via[:2+n])
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
	flags := native.Uint32(b[8:])
	r.key = key{bits: uint16(b[1]), table: uint32(b[4])}
	if b[0] == unix.AF_INET6 {
		r.key.family = 1
	}
	r.typ, r.proto, r.scope = b[7], b[5], b[6]
	r.onLink = flags&unix.RTNH_F_ONLINK != 0
	r.single.onLink = r.onLink
	r.cloned = flags&unix.RTM_F_CLONED != 0 || b[2] != 0 || b[3] != 0 // a source prefix or a TOS makes another key
	for typ, v := range attributes(b[routeBytes:]) {
		switch typ {
		case unix.RTA_DST:
			copy(r.key.addr[:], v)
		case unix.RTA_TABLE:
			r.key.table = uint32Of(v)
		case unix.RTA_PRIORITY:
			r.key.metric = uint32Of(v)
		case unix.RTA_PREFSRC:
			copy(r.src[:], v)
			r.hasSrc = true
		case unix.RTA_OIF:
			r.single.index = int32(uint32Of(v))
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
		n := int(native.Uint16(b))
		if n < hopBytes || n > len(b) {
			return
		}
		h := hop{index: int32(native.Uint32(b[4:])), onLink: b[2]&unix.RTNH_F_ONLINK != 0}
		r.onLink = r.onLink || h.onLink
		r.odd = r.odd || b[3] != 0 // a weight
		for typ, v := range attributes(b[hopBytes:n]) {
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
		b = b[min(align(n), len(b)):]
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

func uint32Of(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return native.Uint32(v)
}
