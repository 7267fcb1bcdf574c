package ipam

import (
	"hash/fnv"
	"math/big"
	"math/rand"
	"net/netip"

	"github.com/weft-net/weft/internal/model"
)

// NextBlock is the block of a pool that the node takes next: the first that is
// not taken and not wholly reserved, from the node's own start upwards, round
// the end; false when there is none. The start is Calico's for the same name
// (seen with its own tools): nodes begin in different places and so rarely race
// for a block, and a node that lost its blocks gets the same ones again.
func NextBlock(pool model.Pool, node string, reserved []netip.Prefix, taken func(netip.Prefix) bool) (netip.Prefix, bool) {
	first := firstBlock(pool, node)
	wrapped := false
	for at := first; ; {
		wide := at
		if r, ok := covering(reserved, at); ok {
			wide = r // skip all of it at once: it may hold 2^70 blocks
			if r.Bits() <= pool.CIDR.Bits() {
				return netip.Prefix{}, false
			}
		} else if !taken(at) && !allReserved(reserved, at) {
			return at, true
		}
		next, over := after(pool, wide)
		if over && wrapped { // a leap passed over the first
			return netip.Prefix{}, false
		}
		wrapped = wrapped || over
		if at = next; wrapped && at.Addr().Compare(first.Addr()) >= 0 {
			return netip.Prefix{}, false
		}
	}
}

// firstBlock is the block that the node tries first.
func firstBlock(pool model.Pool, node string) netip.Prefix {
	h := fnv.New32()
	_, _ = h.Write([]byte(node)) // a hash never fails
	addr := pool.CIDR.Addr()
	blocks := new(big.Int).Lsh(big.NewInt(1), uint(pool.BlockBits-pool.CIDR.Bits()))
	index := new(big.Int).Rand(rand.New(rand.NewSource(int64(h.Sum32()))), blocks)
	offset := index.Lsh(index, uint(addr.BitLen()-pool.BlockBits))
	low := new(big.Int).And(offset, new(big.Int).SetUint64(1<<64-1))
	n := number{new(big.Int).Rsh(offset, 64).Uint64(), low.Uint64()}
	return netip.PrefixFrom(numberOf(addr).plus(n).addr(addr.Is6()), pool.BlockBits)
}

// after is the block that follows p in the pool, and whether that was round its
// end. p may be larger than a block.
func after(pool model.Pool, p netip.Prefix) (netip.Prefix, bool) {
	addr := p.Addr()
	next := numberOf(addr).plus(stepOf(addr.BitLen() - p.Bits())).addr(addr.Is6())
	// Beyond the end of all addresses the sum starts again at zero.
	if !pool.CIDR.Contains(next) || next.Compare(addr) < 0 {
		return netip.PrefixFrom(pool.CIDR.Addr(), pool.BlockBits), true
	}
	return netip.PrefixFrom(next, pool.BlockBits), false
}

// covering is the first of reserved that holds all of p.
func covering(reserved []netip.Prefix, p netip.Prefix) (netip.Prefix, bool) {
	for _, r := range reserved {
		if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			return r, true
		}
	}
	return netip.Prefix{}, false
}

// allReserved reports whether several reservations together hold all of p.
func allReserved(reserved []netip.Prefix, p netip.Prefix) bool {
	var inside []netip.Prefix
	for _, r := range reserved {
		if p.Overlaps(r) {
			inside = append(inside, r)
		}
	}
	if len(inside) == 0 {
		return false
	}
	for n := range size(p) {
		if !contains(inside, AddrAt(p, n)) {
			return false
		}
	}
	return true
}

// contains reports whether one of the prefixes holds a.
func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
