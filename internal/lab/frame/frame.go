// Package frame reads what a packet on the underlay is: a plain one, or one that is
// carried in another, and how.
//
//	IPv4 │ IPv4 │ …                    IPIP, protocol 4 (RFC 2003)
//	IP │ UDP 4789 │ VXLAN │ Ethernet   VXLAN (RFC 7348)
//	IP │ UDP 51820 │ type 4 │ …        WireGuard: what is in it cannot be read
//	IP │ …                             plain
//
// The lab captures at the ports of nodes and asks here what it has seen. Parse is for
// whole packets as the kernel hands them out, and for whatever else is on a wire: what
// makes no sense is reported as that, and nothing is ever guessed.
//
// It looks into one level of encapsulation, which is all that a cluster may use. It
// puts no fragments together: one that is not the first has no ports.
//
// Invariant: the Outer header of a Packet is what the underlay routes by; the Inner
// one is what the two ends mean, and equal to Outer for a plain packet.
package frame

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Form is how a packet crosses the underlay.
type Form uint8

// The forms of packets.
const (
	Plain     Form = iota // as its sender made it
	IPIP                  // in IPv4
	VXLAN                 // in an Ethernet frame in UDP
	WireGuard             // encrypted, in UDP
)

// String names f in a sentence: carried plain.
func (f Form) String() string { return [...]string{"plain", "in ipip", "in vxlan", "in wireguard"}[f] }

// Ports are the UDP ports by which encapsulations are known.
type Ports struct {
	VXLAN     uint16
	WireGuard [2]uint16 // of IPv4 and of IPv6
}

// Header is a packet's addresses, and what of its transport was there to be read.
type Header struct {
	Src, Dst         netip.Addr
	Protocol         uint8  // of the transport, behind extension headers
	SrcPort, DstPort uint16 // of TCP and UDP; 0: none, or a later fragment
	Flags            uint8  // of TCP; see SYN and ACK
	Type             uint8  // of ICMP and ICMPv6
	Payload          []byte // of UDP, ICMP (behind 8 bytes of header) and IP of other protocols; part of the packet
}

// Flags of TCP (RFC 9293).
const (
	SYN = 0x02
	ACK = 0x10
)

// Protocol numbers (IANA).
const (
	ICMP   = 1
	IPv4   = 4
	TCP    = 6
	UDP    = 17
	ICMPv6 = 58
)

// Echo reports whether h is of an ICMP or ICMPv6 echo, and whether of the request rather
// than the reply (RFC 792, RFC 4443).
func (h Header) Echo() (request, ok bool) {
	switch [2]uint8{h.Protocol, h.Type} {
	case [2]uint8{ICMP, 8}, [2]uint8{ICMPv6, 128}:
		return true, true
	case [2]uint8{ICMP, 0}, [2]uint8{ICMPv6, 129}:
		return false, true
	}
	return false, false
}

// String prints h as tcpdump does: 10.0.0.1.1024 > 10.0.0.2.80 TCP.
func (h Header) String() string {
	switch h.Protocol {
	case TCP, UDP:
		name := map[uint8]string{TCP: "TCP", UDP: "UDP"}[h.Protocol]
		return fmt.Sprintf("%v > %v %s", netip.AddrPortFrom(h.Src, h.SrcPort), netip.AddrPortFrom(h.Dst, h.DstPort), name)
	case ICMP:
		return fmt.Sprintf("%v > %v ICMP", h.Src, h.Dst)
	case ICMPv6:
		return fmt.Sprintf("%v > %v ICMPv6", h.Src, h.Dst)
	}
	return fmt.Sprintf("%v > %v protocol %d", h.Src, h.Dst, h.Protocol)
}

// Packet is a packet of the underlay. The Inner header of a WireGuard one is zero.
type Packet struct {
	Form         Form
	Outer, Inner Header
	// Data says that a WireGuard packet carries one of somebody else, and is no
	// handshake and no keepalive.
	Data bool
}

// String prints p: what is meant, and for an encapsulated one by what it is carried.
func (p Packet) String() string {
	switch p.Form {
	case Plain:
		return p.Outer.String()
	case WireGuard:
		return fmt.Sprintf("wireguard (%v)", p.Outer)
	}
	return fmt.Sprintf("%v %v (%v > %v)", p.Inner, p.Form, p.Outer.Src, p.Outer.Dst)
}

const (
	vxlanBytes    = 8
	ethernetBytes = 14
	icmpBytes     = 8

	// A transport message of WireGuard (type 4): the header, what is in it padded to 16
	// bytes, and 16 bytes of authentication. A keepalive has nothing in it.
	wireGuardData      = 4
	wireGuardKeepalive = 32
)

// Parse reads an IP packet; false if it is none, or torn.
func Parse(b []byte, ports Ports) (Packet, bool) {
	outer, ok := parseIP(b)
	if !ok {
		return Packet{}, false
	}
	plain := Packet{Form: Plain, Outer: outer, Inner: outer}
	switch {
	case outer.Protocol == IPv4:
		if inner, ok := parseIP(outer.Payload); ok {
			return Packet{Form: IPIP, Outer: outer, Inner: inner}, true
		}
	case outer.Protocol != UDP:
	case outer.DstPort == ports.VXLAN && len(outer.Payload) > vxlanBytes+ethernetBytes:
		// Flags, of which I says that there is a network identifier.
		if outer.Payload[0] != 1<<3 {
			break
		}
		inner, ok := parseIP(outer.Payload[vxlanBytes+ethernetBytes:])
		return Packet{Form: VXLAN, Outer: outer, Inner: inner}, ok
	case outer.isWireGuard(ports):
		data := outer.Payload[0] == wireGuardData && len(outer.Payload) > wireGuardKeepalive
		return Packet{Form: WireGuard, Outer: outer, Data: data}, true
	}
	return plain, true
}

// isWireGuard looks at the ports and at the first word, which is the type of message
// and three zeros.
func (h Header) isWireGuard(ports Ports) bool {
	for _, p := range ports.WireGuard {
		if (h.SrcPort == p || h.DstPort == p) && p != 0 && len(h.Payload) >= 4 {
			kind := binary.LittleEndian.Uint32(h.Payload)
			return 1 <= kind && kind <= wireGuardData
		}
	}
	return false
}

func parseIP(b []byte) (Header, bool) {
	if len(b) == 0 {
		return Header{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parse4(b)
	case 6:
		return parse6(b)
	}
	return Header{}, false
}

// parse4 reads a header of RFC 791.
func parse4(b []byte) (Header, bool) {
	length := int(b[0]&15) * 4
	if length < 20 || len(b) < length {
		return Header{}, false
	}
	if total := int(binary.BigEndian.Uint16(b[2:])); total >= length && total < len(b) {
		b = b[:total] // without the padding of Ethernet
	}
	h := Header{Protocol: b[9]}
	h.Src, _ = netip.AddrFromSlice(b[12:16])
	h.Dst, _ = netip.AddrFromSlice(b[16:20])
	if later := binary.BigEndian.Uint16(b[6:])&0x1fff != 0; later {
		return h, true
	}
	h.transport(b[length:])
	return h, true
}

// parse6 reads a header of RFC 8200, and walks over those that may follow it.
func parse6(b []byte) (Header, bool) {
	const headerBytes, hopByHop, routing, fragment, destination = 40, 0, 43, 44, 60
	if len(b) < headerBytes {
		return Header{}, false
	}
	if total := headerBytes + int(binary.BigEndian.Uint16(b[4:])); total > headerBytes && total < len(b) {
		b = b[:total]
	}
	h := Header{Protocol: b[6]}
	h.Src, _ = netip.AddrFromSlice(b[8:24])
	h.Dst, _ = netip.AddrFromSlice(b[24:40])
	for rest := b[headerBytes:]; ; {
		length := 8
		switch {
		case h.Protocol != hopByHop && h.Protocol != routing && h.Protocol != fragment && h.Protocol != destination:
			h.transport(rest)
			return h, true
		case len(rest) < length:
			return Header{}, false
		case h.Protocol != fragment:
			length += int(rest[1]) * 8
		case binary.BigEndian.Uint16(rest[2:])&^7 != 0: // not the first
			h.Protocol = rest[0]
			return h, true
		}
		if len(rest) < length {
			return Header{}, false
		}
		h.Protocol, rest = rest[0], rest[length:]
	}
}

// transport reads what stands behind the IP header.
func (h *Header) transport(b []byte) {
	switch h.Protocol {
	case TCP:
		if len(b) < 20 {
			return
		}
		h.SrcPort, h.DstPort, h.Flags = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[13]
	case UDP:
		if len(b) < 8 {
			return
		}
		h.SrcPort, h.DstPort, h.Payload = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[8:]
	case ICMP, ICMPv6:
		if len(b) < icmpBytes {
			return
		}
		h.Type, h.Payload = b[0], b[icmpBytes:]
	default:
		h.Payload = b
	}
}
