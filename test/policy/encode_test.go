package policy_test

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/weft-net/weft/test/policy/world"
)

// magic stands before the mark at the end of every packet.
const magic = "weft"

// encode makes the bytes of p, with right checksums, since connection tracking takes a
// packet with a wrong one for invalid.
func encode(p world.Packet, mark uint32) []byte {
	payload := binary.BigEndian.AppendUint32([]byte(magic), mark)
	body := layer4(p, mark, payload)
	if p.Src.Is4() {
		src, dst := p.Src.As4(), p.Dst.As4()
		h := []byte{0x45, 0, 0, 0, byte(mark >> 8), byte(mark), 0, 0, 64, p.Protocol, 0, 0}
		h = append(append(h, src[:]...), dst[:]...)
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(body)))
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, body...)
	}
	src, dst := p.Src.As16(), p.Dst.As16()
	h := []byte{0x60, 0, 0, 0, byte(len(body) >> 8), byte(len(body)), p.Protocol, 64}
	return append(append(append(h, src[:]...), dst[:]...), body...)
}

func layer4(p world.Packet, mark uint32, payload []byte) []byte {
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.SrcPort), p.DstPort)
	sum := -1 // where the checksum stands
	var b []byte
	switch p.Protocol {
	case 6: // a SYN
		b, sum = append(ports, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0), 16
	case 17:
		n := 8 + len(payload)
		b, sum = append(ports, byte(n>>8), byte(n), 0, 0), 6
	case 132:
		return sctp(ports, payload)
	case 1, 58: // an identifier of its own makes each message a flow of its own
		b, sum = []byte{p.ICMPType, p.ICMPCode, 0, 0, byte(mark >> 8), byte(mark), 0, 1}, 2
	}
	b = append(b, payload...)
	if sum >= 0 {
		binary.BigEndian.PutUint16(b[sum:], checksum(append(pseudo(p, len(b)), b...)))
	}
	return b
}

// pseudo is the header that checksums cover beside the packet; ICMP of IPv4 has none.
func pseudo(p world.Packet, n int) []byte {
	if p.Protocol == 1 {
		return nil
	}
	h := append(p.Src.AsSlice(), p.Dst.AsSlice()...)
	h = binary.BigEndian.AppendUint32(h, uint32(n))
	return append(h, 0, 0, 0, p.Protocol)
}

// checksum is that of IP (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sctp is an INIT, with the payload in a parameter that nobody knows (RFC 9260, 3.3.2).
func sctp(ports, payload []byte) []byte {
	param := append([]byte{0xc0, 0x77, 0, byte(4 + len(payload))}, payload...)
	chunk := append([]byte{1, 0, 0, byte(20 + len(param)), 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1}, param...)
	b := append(append(ports, 0, 0, 0, 0, 0, 0, 0, 0), chunk...) // tag 0, checksum
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
