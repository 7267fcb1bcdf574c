package ipam

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// number is an address as an unsigned number of 128 bits.
type number struct{ hi, lo uint64 }

func numberOf(a netip.Addr) number {
	b := a.As16()
	if a.Is4() {
		return number{lo: uint64(binary.BigEndian.Uint32(b[12:]))}
	}
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// addr is n as an address; v6 says of which family.
func (n number) addr(v6 bool) netip.Addr {
	if !v6 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], n.hi)
	binary.BigEndian.PutUint64(b[8:], n.lo)
	return netip.AddrFrom16(b)
}

func (n number) plus(m number) number {
	lo, carry := bits.Add64(n.lo, m.lo, 0)
	hi, _ := bits.Add64(n.hi, m.hi, carry)
	return number{hi, lo}
}

// AddrAt is the n-th address of cidr, the first being 0. There must be that many.
func AddrAt(cidr netip.Prefix, n int) netip.Addr {
	return numberOf(cidr.Addr()).plus(number{lo: uint64(n)}).addr(cidr.Addr().Is6())
}

// ordinal is the distance of a from the first address of cidr, in which it must
// lie. Blocks have at most 4096 addresses.
func ordinal(cidr netip.Prefix, a netip.Addr) int {
	return int(numberOf(a).lo - numberOf(cidr.Addr()).lo)
}

// size is the number of addresses in a block.
func size(cidr netip.Prefix) int { return 1 << (cidr.Addr().BitLen() - cidr.Bits()) }
