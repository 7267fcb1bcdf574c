package ipip

import "encoding/binary"

// ICMP messages (RFC 792) that the tunnel sends and receives.
const (
	icmpUnreachable = 3
	codeHost        = 1 // of icmpUnreachable
	codeTooBig      = 4 // of icmpUnreachable
	minMTU          = 68
)

// mayAnswer reports whether the sender of p may be told of an error (RFC 1122 section
// 3.2.2): not of an ICMP error, not of a later fragment, and only a single host.
func mayAnswer(p ipv4) bool {
	if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 || !single(p.src()) || !single(p.dst()) {
		return false
	}
	if p.protocol() != protoICMP {
		return true
	}
	const echoReply, echo, timestamp, timestampReply = 0, 8, 13, 14
	body := p.payload()
	if len(body) == 0 {
		return false
	}
	switch body[0] {
	case echoReply, echo, timestamp, timestampReply:
		return true
	}
	return false
}

// single reports whether a can be the address of one host on a network.
func single(a address) bool {
	first := a >> 24
	return first != 0 && first != 127 && first < 224
}

// putError writes into b, which has room for any, the ICMP error that tells the sender
// of p why it did not arrive, and gives its length; 0: it may not be told. It comes
// from whom p was for: a source of which the kernel believes that it is behind the
// tunnel, and in which connection tracking finds the connection. mtu is in bytes, of
// codeTooBig. p may be cut after its header and eight bytes more.
func putError(b []byte, p ipv4, code byte, mtu int) int {
	if !mayAnswer(p) {
		return 0
	}
	quote := min(len(p), quoteLen)
	total := outerLen + 8 + quote
	b = b[:total]
	clear(b[:outerLen+8])
	b[0], b[1] = 0x45, 0xc0 // internetwork control, as Linux says it
	binary.BigEndian.PutUint16(b[2:], uint16(total))
	b[8], b[9] = outerTTL, protoICMP
	copy(b[12:16], p[16:20])
	copy(b[16:20], p[12:16])
	ipv4(b).setChecksum()
	icmp := b[outerLen:]
	icmp[0], icmp[1] = icmpUnreachable, code
	if code == codeTooBig {
		binary.BigEndian.PutUint16(icmp[6:], uint16(min(max(mtu, minMTU), maxPacket)))
	}
	copy(icmp[8:], p[:quote])
	binary.BigEndian.PutUint16(icmp[2:], ^fold(sum(icmp)))
	return total
}

// quoted gives the packet of which b, quoted by an ICMP error, is the beginning; false
// when it is too short to tell whose it was.
func quoted(b []byte) (ipv4, bool) {
	if len(b) < outerLen || b[0]>>4 != 4 {
		return nil, false
	}
	header := int(b[0]&15) * 4
	if header < outerLen || len(b) < header+8 {
		return nil, false
	}
	return ipv4(b), true
}
