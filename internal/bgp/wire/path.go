package wire

import (
	"encoding/binary"
	"slices"
	"strconv"
)

// ASPath is a list of segments, the nearest AS first.
type ASPath []Segment

// Segment is a run of AS numbers. The confederation kinds (3, 4) are carried
// but not spoken.
type Segment struct {
	Kind SegmentKind
	ASNs []uint32 // 1 to 255
}

// SegmentKind says whether the order of a segment's AS numbers means anything.
type SegmentKind uint8

// The kinds of segments that count.
const (
	Set      SegmentKind = 1
	Sequence SegmentKind = 2
)

// Len is the length that route selection compares: a set counts as one, a
// confederation segment as none (RFC 4271 §9.1.2.2, RFC 5065).
func (p ASPath) Len() int {
	n := 0
	for _, s := range p {
		switch s.Kind {
		case Sequence:
			n += len(s.ASNs)
		case Set:
			n++
		}
	}
	return n
}

// First is the neighbouring AS, or 0 if the path is empty or begins with a set.
func (p ASPath) First() uint32 {
	if len(p) == 0 || p[0].Kind != Sequence {
		return 0
	}
	return p[0].ASNs[0]
}

// Count is how often asn is in the path.
func (p ASPath) Count(asn uint32) int {
	n := 0
	for _, s := range p {
		for _, a := range s.ASNs {
			if a == asn {
				n++
			}
		}
	}
	return n
}

// Prepend returns the path with asns in front; p is not changed.
func (p ASPath) Prepend(asns ...uint32) ASPath {
	if len(asns) == 0 {
		return p
	}
	if len(p) > 0 && p[0].Kind == Sequence && len(p[0].ASNs)+len(asns) <= 255 {
		first := Segment{Sequence, slices.Concat(asns, p[0].ASNs)}
		return append(ASPath{first}, p[1:]...)
	}
	return append(ASPath{{Sequence, slices.Clone(asns)}}, p...)
}

// String gives the numbers separated by blanks, sets in braces.
func (p ASPath) String() string {
	return join(p, func(s Segment) string {
		list := join(s.ASNs, func(a uint32) string { return strconv.FormatUint(uint64(a), 10) })
		if s.Kind == Sequence {
			return list
		}
		return "{" + list + "}"
	})
}

func asnBytes(o Options) int {
	if o.ASN4 {
		return 4
	}
	return 2
}

func appendASN(dst []byte, asn uint32, size int) []byte {
	if size == 4 {
		return binary.BigEndian.AppendUint32(dst, asn)
	}
	if asn > 0xffff {
		asn = ASTrans
	}
	return binary.BigEndian.AppendUint16(dst, uint16(asn))
}

func readASN(b []byte, size int) uint32 {
	if size == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return uint32(binary.BigEndian.Uint16(b))
}

func parsePath(v []byte, size int) (ASPath, bool) {
	var p ASPath
	for len(v) > 0 {
		if len(v) < 2 || v[0] < 1 || v[0] > 4 || v[1] == 0 || len(v) < 2+int(v[1])*size {
			return nil, false
		}
		s := Segment{Kind: SegmentKind(v[0]), ASNs: make([]uint32, v[1])}
		for i := range s.ASNs {
			s.ASNs[i] = readASN(v[2+i*size:], size)
		}
		p, v = append(p, s), v[2+len(s.ASNs)*size:]
	}
	return p, true
}

func (p ASPath) append(dst []byte, size int) []byte {
	for _, s := range p {
		dst = append(dst, byte(s.Kind), byte(len(s.ASNs)))
		for _, a := range s.ASNs {
			dst = appendASN(dst, a, size)
		}
	}
	return dst
}

func parseAggregator(g *Aggregator, v []byte, size int) bool {
	if len(v) != size+4 || readASN(v, size) == 0 { // AS 0: RFC 7607
		return false
	}
	*g = Aggregator{ASN: readASN(v, size), Addr: addr4(v[size:])}
	return true
}

// appendAS4Path gives a 2-byte peer the path that AS_PATH cannot hold.
func appendAS4Path(dst []byte, a *Attrs, o Options) ([]byte, bool) {
	wide := false
	for _, s := range a.ASPath {
		wide = wide || slices.Max(s.ASNs) > 0xffff
	}
	if o.ASN4 || !wide {
		return dst, false
	}
	for _, s := range a.ASPath {
		if s.Kind == Set || s.Kind == Sequence { // RFC 6793 §4.2.2
			dst = ASPath{s}.append(dst, 4)
		}
	}
	return dst, true
}

func appendAS4Aggregator(dst []byte, a *Attrs, o Options) ([]byte, bool) {
	return appendAddr(appendASN(dst, a.Aggregator.ASN, 4), a.Aggregator.Addr), !o.ASN4 && a.Aggregator.ASN > 0xffff
}

// mergeAS4 completes what a 2-byte peer sent by its AS4 attributes (RFC 6793 §4.2.3).
func (a *Attrs) mergeAS4(path ASPath, g Aggregator) {
	if a.Aggregator.ASN != 0 && g.ASN != 0 {
		if a.Aggregator.ASN != ASTrans {
			return // a 2-byte speaker aggregated since: both AS4 attributes are stale
		}
		a.Aggregator = g
	}
	extra := a.ASPath.Len() - path.Len()
	if len(path) == 0 || extra < 0 {
		return
	}
	var head ASPath
	for _, s := range a.ASPath {
		if extra <= 0 {
			break
		}
		n := len(s.ASNs)
		if s.Kind == Sequence {
			n = min(n, extra)
			extra -= n
		} else if s.Kind == Set {
			extra--
		}
		head = append(head, Segment{s.Kind, s.ASNs[:n:n]})
	}
	if k := len(head) - 1; k >= 0 && head[k].Kind == Sequence && path[0].Kind == Sequence && len(head[k].ASNs)+len(path[0].ASNs) <= 255 {
		head[k].ASNs = slices.Concat(head[k].ASNs, path[0].ASNs)
		path = path[1:]
	}
	a.ASPath = append(head, path...)
}
