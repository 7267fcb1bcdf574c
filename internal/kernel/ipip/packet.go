package ipip

import (
	"encoding/binary"
	"math/bits"
)

// Sizes, in bytes.
const (
	outerLen   = 20 // an IPv4 header without options
	minTCP     = 20
	maxPacket  = 1<<16 - 1
	vnetLen    = 10 // struct virtio_net_hdr
	quoteLen   = 548
	maxHeaders = 60 + 60 // IPv4 and TCP with all options
)

// Protocols in IPv4 headers.
const (
	protoICMP = 1
	protoIPIP = 4
	protoTCP  = 6
	protoUDP  = 17
)

// Bits of the third word of an IPv4 header.
const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
	fragmentBits  = 0x3fff // more fragments, and the offset
)

// Explicit congestion notification (RFC 3168), the low bits of the TOS byte.
const (
	ecnMask = 3
	notECT  = 0
	ect1    = 1
	ect0    = 2
	ecnCE   = 3
)

// ipv4 is a whole IPv4 packet. Its methods need [checked].
type ipv4 []byte

// checked gives the packet at the start of b without what follows it (padding); false
// when b does not begin with a whole IPv4 packet.
func checked(b []byte) (ipv4, bool) {
	if len(b) < outerLen || b[0]>>4 != 4 {
		return nil, false
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < outerLen || total < header || total > len(b) {
		return nil, false
	}
	return ipv4(b[:total]), true
}

func (p ipv4) headerLen() int   { return int(p[0]&15) * 4 }
func (p ipv4) payload() []byte  { return p[p.headerLen():] }
func (p ipv4) tos() byte        { return p[1] }
func (p ipv4) protocol() byte   { return p[9] }
func (p ipv4) src() address     { return address(binary.BigEndian.Uint32(p[12:])) }
func (p ipv4) dst() address     { return address(binary.BigEndian.Uint32(p[16:])) }
func (p ipv4) noFragment() bool { return binary.BigEndian.Uint16(p[6:])&dontFragment != 0 }
func (p ipv4) fragment() bool   { return binary.BigEndian.Uint16(p[6:])&fragmentBits != 0 }

// tcpLen is the length of the TCP header of p; 0 when p is no TCP packet, a fragment, or
// one whose header is not whole.
func (p ipv4) tcpLen() int {
	if p.protocol() != protoTCP || p.fragment() {
		return 0
	}
	tcp := p.payload()
	if len(tcp) < minTCP {
		return 0
	}
	if n := int(tcp[12]>>4) * 4; n >= minTCP && n <= len(tcp) {
		return n
	}
	return 0
}

// setTOS changes the TOS byte, and the checksum with it (RFC 1624).
func (p ipv4) setTOS(tos byte) {
	old := binary.BigEndian.Uint16(p)
	p[1] = tos
	sum := uint64(^binary.BigEndian.Uint16(p[10:])) + uint64(^old) + uint64(binary.BigEndian.Uint16(p))
	binary.BigEndian.PutUint16(p[10:], ^fold(sum))
}

// setChecksum writes the checksum of the header.
func (p ipv4) setChecksum() {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^fold(sum(p[:p.headerLen()])))
}

// putOuter writes the header of a packet that carries length bytes of inner to a node.
// The zero source is the kernel's choice; so are ID and checksum. The TOS byte is
// the inner one, congestion bits and all (RFC 2983, RFC 6040 section 4.1), and whoever
// forbids that the inner packet is fragmented forbids it of the outer one.
func putOuter(b []byte, inner ipv4, length int, src, dst address) {
	b[0], b[1] = 0x45, inner.tos()
	binary.BigEndian.PutUint16(b[2:], uint16(outerLen+length))
	b[4], b[5], b[6], b[7] = 0, 0, 0, 0
	if inner.noFragment() {
		b[6] = dontFragment >> 8
	}
	b[8], b[9], b[10], b[11] = outerTTL, protoIPIP, 0, 0
	binary.BigEndian.PutUint32(b[12:], uint32(src))
	binary.BigEndian.PutUint32(b[16:], uint32(dst))
}

// decapsulate gives the packet within the one in b, with the congestion mark that it
// got on the way (RFC 6040, figure 4). False: it is none, or its sender cannot know
// of congestion and the tunnel had some, which is what loss is for.
func decapsulate(b []byte) (ipv4, bool) {
	outer, ok := checked(b)
	if !ok || outer.protocol() != protoIPIP || outer.fragment() {
		return nil, false
	}
	inner, ok := checked(outer.payload())
	if !ok {
		return nil, false
	}
	out, in := outer.tos()&ecnMask, inner.tos()&ecnMask
	switch {
	case out == ecnCE && in == notECT:
		return nil, false
	case out == ecnCE && in != ecnCE, out == ect1 && in == ect0:
		inner.setTOS(inner.tos()&^ecnMask | out)
	}
	return inner, true
}

// sum adds up b as 16-bit words in network order (RFC 1071), not folded. Of an odd b
// the last byte counts as if a zero followed.
func sum(b []byte) uint64 {
	// In the machine's order: sums differ from those in network order by a swap of bytes.
	var acc, carry uint64
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[24:]), carry)
		acc += carry // cannot carry again: a sum that did is less than its summand
		b = b[32:]
	}
	for len(b) >= 4 {
		acc, carry = bits.Add64(acc, uint64(binary.NativeEndian.Uint32(b)), 0)
		acc += carry
		b = b[4:]
	}
	for len(b) > 0 {
		var word [2]byte
		n := copy(word[:], b)
		acc, carry = bits.Add64(acc, uint64(binary.NativeEndian.Uint16(word[:])), 0)
		acc += carry
		b = b[n:]
	}
	var word [2]byte
	binary.NativeEndian.PutUint16(word[:], fold(acc))
	return uint64(binary.BigEndian.Uint16(word[:]))
}

// fold makes 16 bits of a sum.
func fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// pseudo is the sum of the pseudo header (RFC 9293 section 3.1) of length bytes of TCP
// or UDP in a packet like p.
func (p ipv4) pseudo(length int) uint64 {
	return sum(p[12:20]) + uint64(p.protocol()) + uint64(length)
}

// checksumAt is where in the payload of p the checksum is that a network card would
// fill in; 0 when there is none.
func (p ipv4) checksumAt() int {
	switch {
	case p.fragment():
		return 0
	case p.protocol() == protoTCP && p.tcpLen() > 0:
		return 16
	case p.protocol() == protoUDP && len(p.payload()) >= 8:
		return 6
	}
	return 0
}

// unfinished reports whether the sender left the checksum of p to a network card that it
// never came to, since it is on this machine: the field has the sum of the pseudo header.
func (p ipv4) unfinished() bool {
	at := p.checksumAt()
	return at > 0 && binary.BigEndian.Uint16(p.payload()[at:]) == fold(p.pseudo(len(p.payload())))
}

// intact reports whether the checksum of the TCP packet p is right.
func (p ipv4) intact() bool {
	return fold(p.pseudo(len(p.payload()))+sum(p.payload())) == 0xffff
}
