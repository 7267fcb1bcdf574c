package wire

import (
	"encoding/binary"
	"net/netip"
)

// AppendReach appends as few UPDATE messages as it takes to announce prefixes
// of family f with a. IPv4 goes into the classic field, everything else into
// MP_REACH_NLRI. If a is too large for any message (RFC 4271 allows 4096
// bytes) nothing is appended, and ok is false: the caller withdraws.
func AppendReach(dst []byte, f Families, a *Attrs, prefixes []netip.Prefix, o Options) (_ []byte, ok bool) {
	classic := *a
	if f != IPv4 {
		classic.NextHop = netip.Addr{}
	}
	attrs := AppendAttrs(nil, &classic, o)
	for len(prefixes) > 0 {
		start := len(dst)
		dst = append(begin(dst, TypeUpdate), 0, 0, 0, 0)
		at := len(dst) // attributes begin here
		if f != IPv4 {
			dst = append(dst, flagOptional|flagExtended, byte(MPReach), 0, 0, 0, byte(f.afi()), 1)
			dst = appendHops(dst, a)
		} else {
			dst = append(dst, attrs...)
			binary.BigEndian.PutUint16(dst[at-2:], uint16(len(attrs)))
		}
		room := MaxLen - (len(dst) - start)
		if f != IPv4 {
			room -= len(attrs)
		}
		n := 0
		if dst, n = appendPrefixes(dst, prefixes, room); n == 0 {
			return dst[:start], false
		}
		if f != IPv4 {
			binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)-at-4))
			dst = append(dst, attrs...)
			binary.BigEndian.PutUint16(dst[at-2:], uint16(len(dst)-at))
		}
		dst, prefixes = end(dst, start), prefixes[n:]
	}
	return dst, true
}

func appendHops(dst []byte, a *Attrs) []byte {
	hop := a.NextHop.As16()
	if a.LinkLocal.IsValid() {
		local := a.LinkLocal.As16()
		return append(append(append(append(dst, 32), hop[:]...), local[:]...), 0)
	}
	return append(append(append(dst, 16), hop[:]...), 0)
}

// AppendUnreach appends as few UPDATE messages as it takes to withdraw
// prefixes of family f.
func AppendUnreach(dst []byte, f Families, prefixes []netip.Prefix) []byte {
	for len(prefixes) > 0 {
		start, n := len(dst), 0
		dst = begin(dst, TypeUpdate)
		if f == IPv4 {
			dst, n = appendPrefixes(append(dst, 0, 0), prefixes, MaxLen-HeaderLen-4)
			binary.BigEndian.PutUint16(dst[start+HeaderLen:], uint16(len(dst)-start-HeaderLen-2))
			dst = append(dst, 0, 0)
		} else {
			dst = append(dst, 0, 0, 0, 0, flagOptional|flagExtended, byte(MPUnreach), 0, 0, 0, byte(f.afi()), 1)
			at := start + HeaderLen + 4
			dst, n = appendPrefixes(dst, prefixes, MaxLen-(len(dst)-start))
			binary.BigEndian.PutUint16(dst[at-2:], uint16(len(dst)-at))
			binary.BigEndian.PutUint16(dst[at+2:], uint16(len(dst)-at-4))
		}
		dst, prefixes = end(dst, start), prefixes[n:]
	}
	return dst
}

// AppendEndOfRIB appends the End-of-RIB marker of family f (RFC 4724 §2).
func AppendEndOfRIB(dst []byte, f Families) []byte {
	start := len(dst)
	dst = append(begin(dst, TypeUpdate), 0, 0, 0, 0)
	if f != IPv4 {
		dst[len(dst)-1] = 6
		dst = append(dst, flagOptional, byte(MPUnreach), 3, 0, byte(f.afi()), 1)
	}
	return end(dst, start)
}

// appendPrefixes appends as many prefixes as room bytes hold, and says how many.
func appendPrefixes(dst []byte, prefixes []netip.Prefix, room int) ([]byte, int) {
	for i, p := range prefixes {
		n := (p.Bits() + 7) / 8
		if room -= 1 + n; room < 0 {
			return dst, i
		}
		dst = append(dst, byte(p.Bits()))
		if p.Addr().Is4() {
			b := p.Addr().As4()
			dst = append(dst, b[:n]...)
		} else {
			b := p.Addr().As16()
			dst = append(dst, b[:n]...)
		}
	}
	return dst, len(prefixes)
}
