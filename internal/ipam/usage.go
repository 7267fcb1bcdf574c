package ipam

import (
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
)

// Usage counts the addresses of a range. The numbers are exact, as an IPv6 pool has more
// addresses than an integer of the machine can count.
type Usage struct {
	Total    *big.Int
	Used     *big.Int // in use or cooling down
	Reserved *big.Int // kept from assignment by an IPReservation, and not in use
	Free     *big.Int // the rest
}

// UsageOf counts the addresses of cidr: a pool, a block or any other range. Blocks may be
// all of the cluster.
func UsageOf(cidr netip.Prefix, blocks []model.Block, reserved []netip.Prefix) Usage {
	ranges := within(cidr, reserved)
	used, both := 0, 0
	for _, b := range blocks {
		if !b.CIDR.Overlaps(cidr) {
			continue
		}
		for ord, at := range b.Allocations {
			if at < 0 {
				continue
			}
			addr := AddrAt(b.CIDR, ord)
			if !cidr.Contains(addr) {
				continue
			}
			used++
			if contains(ranges, addr) {
				both++
			}
		}
	}
	u := Usage{Total: addresses(cidr), Used: big.NewInt(int64(used)), Reserved: new(big.Int)}
	for _, r := range ranges {
		u.Reserved.Add(u.Reserved, addresses(r))
	}
	u.Reserved.Sub(u.Reserved, big.NewInt(int64(both)))
	u.Free = new(big.Int).Sub(u.Total, u.Used)
	u.Free.Sub(u.Free, u.Reserved)
	return u
}

// Percent is part of all in whole percent, half to even; of nothing it is 0.
func Percent(part, all *big.Int) string {
	if all.Sign() == 0 {
		return "0%"
	}
	share, _ := new(big.Rat).SetFrac(new(big.Int).Mul(part, big.NewInt(100)), all).Float64()
	return fmt.Sprintf("%.f%%", share)
}

// addresses is the number of addresses of cidr.
func addresses(cidr netip.Prefix) *big.Int {
	return new(big.Int).Lsh(big.NewInt(1), uint(cidr.Addr().BitLen()-cidr.Bits()))
}

// within is what the prefixes cover of cidr, as prefixes that do not overlap.
func within(cidr netip.Prefix, prefixes []netip.Prefix) []netip.Prefix {
	var cut []netip.Prefix
	for _, p := range prefixes {
		switch {
		case !p.Overlaps(cidr):
		case p.Bits() <= cidr.Bits():
			return []netip.Prefix{cidr}
		default:
			cut = append(cut, p.Masked())
		}
	}
	slices.SortFunc(cut, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() }) // the wide ones first
	var out []netip.Prefix
	for _, p := range cut {
		if !contains(out, p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}

// Loan is an address that a node has of a block that is another's.
type Loan struct {
	Addr     netip.Addr
	Block    netip.Prefix
	Owner    model.Affinity // of the block
	Borrower string         // the node
	Holder   Owner
}

// Loans are the addresses of the blocks that are on other nodes than their block, in
// the order of the blocks.
func Loans(blocks []model.Block) []Loan {
	var out []Loan
	for _, b := range blocks {
		for ord, at := range b.Allocations {
			if at < 0 || at >= len(b.Attributes) || !b.Attributes[at].ReleasedAt.IsZero() {
				continue
			}
			h := OwnerFor(b.Attributes[at])
			if Borrowed(b, h) {
				out = append(out, Loan{AddrAt(b.CIDR, ord), b.CIDR, b.Owner, h.Node, h})
			}
		}
	}
	return out
}

// Borrowed reports whether a holder of an address of b is on another node than b's owner.
func Borrowed(b model.Block, h Owner) bool {
	return h.Node != "" && b.Owner.Type == model.AffinityHost && b.Owner.Node != h.Node
}

// Errors of Split, which callers branch on with errors.Is.
var (
	// ErrPowerOfTwo says that a range can't be cut into so many equal parts.
	ErrPowerOfTwo = errors.New("must be a power of two, 2 or more")
	// ErrTooSmall says that the parts would be smaller than a block.
	ErrTooSmall = errors.New("the parts would be smaller than a block")
)

// Split cuts the range of a pool into n equal parts, in order, each large enough for one
// of its blocks. At most 4096, since each becomes a pool. Errors: ErrPowerOfTwo,
// ErrTooSmall; with the latter the parts are returned where there are such prefixes.
func Split(pool model.Pool, n int) ([]netip.Prefix, error) {
	const most = 4096
	if n < 2 || n&(n-1) != 0 {
		return nil, fmt.Errorf("ipam: split %v into %d: %w", pool.CIDR, n, ErrPowerOfTwo)
	}
	at := pool.CIDR.Addr()
	length := pool.CIDR.Bits() + bits.TrailingZeros(uint(n))
	if length > at.BitLen() || n > most {
		return nil, fmt.Errorf("ipam: split %v into %d: %w", pool.CIDR, n, ErrTooSmall)
	}
	next, size := numberOf(at), stepOf(at.BitLen()-length)
	parts := make([]netip.Prefix, n)
	for i := range parts {
		parts[i] = netip.PrefixFrom(next.addr(at.Is6()), length)
		next = next.plus(size)
	}
	if length > pool.BlockBits {
		return parts, fmt.Errorf("ipam: split %v into %d: /%d of blocks of /%d: %w", pool.CIDR, n, length, pool.BlockBits, ErrTooSmall)
	}
	return parts, nil
}

// stepOf is 2^n; 2^128 is 0, as sums of addresses wrap around.
func stepOf(n int) number {
	if n < 64 {
		return number{lo: 1 << n}
	}
	return number{hi: 1 << (n - 64)}
}
