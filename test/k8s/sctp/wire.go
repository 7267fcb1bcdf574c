package sctp

import (
	"encoding/binary"
	"hash/crc32"
)

// Kinds of chunks, RFC 9260 section 3.2.
const (
	kindData             = 0
	kindInit             = 1
	kindInitAck          = 2
	kindSack             = 3
	kindAbort            = 6
	kindShutdown         = 7
	kindShutdownAck      = 8
	kindCookieEcho       = 10
	kindCookieAck        = 11
	kindShutdownComplete = 14
)

const (
	paramCookie = 7
	cookieBytes = 16
	window      = 65536
)

var (
	be         = binary.BigEndian
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// keys are what an end chooses: its verification tag and its first data number.
type keys struct{ tag, tsn uint32 }

type header struct {
	src, dst uint16
	tag      uint32
}

type chunk struct {
	kind, flags byte
	value       []byte
}

// packet is the packet with one chunk.
func packet(h header, c chunk) []byte {
	b := be.AppendUint16(nil, h.src)
	b = be.AppendUint16(b, h.dst)
	b = be.AppendUint32(b, h.tag)
	b = append(b, 0, 0, 0, 0) // the checksum
	b = append(b, c.kind, c.flags)
	b = be.AppendUint16(b, uint16(4+len(c.value)))
	b = append(b, c.value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

// parse takes a packet apart, if it is whole.
func parse(b []byte) (header, []chunk, bool) {
	if len(b) < 12 {
		return header{}, nil, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	zeroed := append([]byte(nil), b...)
	copy(zeroed[8:12], []byte{0, 0, 0, 0})
	if crc32.Checksum(zeroed, castagnoli) != sum {
		return header{}, nil, false
	}
	h := header{be.Uint16(b), be.Uint16(b[2:]), be.Uint32(b[4:])}
	var chunks []chunk
	for rest := zeroed[12:]; len(rest) >= 4; {
		n := int(be.Uint16(rest[2:]))
		if n < 4 || n > len(rest) {
			break
		}
		chunks = append(chunks, chunk{rest[0], rest[1], rest[4:n]})
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return h, chunks, true
}

func initValue(k keys) []byte {
	b := be.AppendUint32(nil, k.tag)
	b = be.AppendUint32(b, window)
	b = be.AppendUint16(b, 1) // streams, out and in
	b = be.AppendUint16(b, 1)
	return be.AppendUint32(b, k.tsn)
}

func initKeys(value []byte) keys { return keys{be.Uint32(value), be.Uint32(value[12:])} }

func initAck(mine, theirs keys) []byte {
	b := initValue(mine)
	b = be.AppendUint16(b, paramCookie)
	b = be.AppendUint16(b, 4+cookieBytes)
	for _, n := range []uint32{mine.tag, mine.tsn, theirs.tag, theirs.tsn} {
		b = be.AppendUint32(b, n)
	}
	return b
}

func fromCookie(b []byte) (mine, theirs keys) {
	return keys{be.Uint32(b), be.Uint32(b[4:])}, keys{be.Uint32(b[8:]), be.Uint32(b[12:])}
}

// cookieOf finds the cookie among the parameters of an INIT ACK.
func cookieOf(value []byte) ([]byte, bool) {
	if len(value) < 16 {
		return nil, false
	}
	for rest := value[16:]; len(rest) >= 4; {
		n := int(be.Uint16(rest[2:]))
		if n < 4 || n > len(rest) {
			break
		}
		if be.Uint16(rest) == paramCookie {
			return rest[4:n], true
		}
		rest = rest[min((n+3)&^3, len(rest)):]
	}
	return nil, false
}

func dataValue(tsn uint32, message []byte) []byte {
	b := be.AppendUint32(nil, tsn)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // stream, number in it, payload protocol
	return append(b, message...)
}

func sack(tsn uint32) []byte {
	b := be.AppendUint32(nil, tsn)
	b = be.AppendUint32(b, window)
	return append(b, 0, 0, 0, 0) // no gaps, no duplicates
}
