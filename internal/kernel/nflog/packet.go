package nflog

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

const (
	v4Bytes = 20 // without options
	v6Bytes = 40
	// mostExtensions is how many extension headers are stepped over: more than any
	// honest packet has.
	mostExtensions = 8
)

// packet reads the beginning of an IP packet, as far as it goes, and the length that
// its header tells.
func packet(b []byte) (p plan.Packet, bytes int) {
	if len(b) == 0 {
		return p, 0
	}
	switch b[0] >> 4 {
	case 4:
		return packet4(b)
	case 6:
		return packet6(b)
	}
	return p, 0
}

// packet4 reads IPv4 (RFC 791).
func packet4(b []byte) (p plan.Packet, bytes int) {
	if len(b) < v4Bytes {
		return p, 0
	}
	bytes = int(binary.BigEndian.Uint16(b[2:]))
	p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	p.Protocol = b[9]
	header := int(b[0]&0xf) * 4
	first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0 // of its fragments
	if first && header >= v4Bytes && header <= len(b) {
		transport(&p, b[header:])
	}
	return p, bytes
}

// packet6 reads IPv6 (RFC 8200), and steps over extension headers.
func packet6(b []byte) (p plan.Packet, bytes int) {
	if len(b) < v6Bytes {
		return p, 0
	}
	bytes = v6Bytes + int(binary.BigEndian.Uint16(b[4:]))
	p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	p.Protocol = b[6]
	b = b[v6Bytes:]
	for range mostExtensions {
		if !extension(p.Protocol) {
			transport(&p, b)
			return p, bytes
		}
		if len(b) < 8 {
			return p, bytes
		}
		n := 8 + int(b[1])*8
		switch p.Protocol {
		case unix.IPPROTO_FRAGMENT:
			n = 8
			if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
				p.Protocol = b[0] // a later fragment has no more headers
				return p, bytes
			}
		case unix.IPPROTO_AH:
			n = 8 + int(b[1])*4 // RFC 4302: in words of four bytes, less two
		}
		p.Protocol = b[0]
		b = b[min(n, len(b)):]
	}
	return p, bytes
}

// extension reports whether that is an extension header that another follows.
func extension(protocol uint8) bool {
	switch protocol {
	case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_AH, unix.IPPROTO_DSTOPTS, unix.IPPROTO_MH:
		return true
	}
	return false
}

// transport reads the beginning of what p carries.
func transport(p *plan.Packet, b []byte) {
	if len(b) < 4 {
		return
	}
	switch p.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	case unix.IPPROTO_ICMP:
		if p.Src.Is4() {
			p.ICMPType, p.ICMPCode = b[0], b[1]
		}
	case unix.IPPROTO_ICMPV6:
		if !p.Src.Is4() {
			p.ICMPType, p.ICMPCode = b[0], b[1]
		}
	}
}
