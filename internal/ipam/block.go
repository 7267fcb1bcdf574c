package ipam

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// Errors about single addresses, which callers branch on with errors.Is.
var (
	// ErrTaken says that an address is in use or cooling down.
	ErrTaken = errors.New("in use")
	// ErrNotAssigned says that an address has no holder.
	ErrNotAssigned = errors.New("not assigned")
	// ErrChanged says that an address has changed hands since the caller saw it.
	ErrChanged = errors.New("changed hands meanwhile")
)

// NewBlock is the block cidr (masked), claimed by owner at now, with every
// address free. Its sequence starts at the clock, so that a block which is
// deleted and made again does not repeat numbers.
func NewBlock(cidr netip.Prefix, owner model.Affinity, now time.Time) model.Block {
	n := size(cidr)
	b := model.Block{
		CIDR: cidr, Owner: owner, ClaimedAt: now.UTC().Truncate(time.Second),
		Allocations: make([]int, n), Unallocated: make([]int, n),
		Sequence: uint64(now.UnixNano()), SequenceOf: map[int]uint64{},
	}
	for i := range n {
		b.Allocations[i], b.Unallocated[i] = -1, i
	}
	return b
}

// Allocate gives up to n free addresses of b to the holder and returns the
// changed block with them, fewer or none when the block runs out. Addresses for
// which skip reports true are passed over and keep their place; nil skips none.
func Allocate(b model.Block, to model.Attribute, n int, skip func(netip.Addr) bool) (model.Block, []netip.Addr) {
	var taken []int
	var addrs []netip.Addr
	for _, ord := range b.Unallocated {
		if len(taken) == n {
			break
		}
		addr := AddrAt(b.CIDR, ord)
		if skip == nil || !skip(addr) {
			taken, addrs = append(taken, ord), append(addrs, addr)
		}
	}
	if len(taken) == 0 {
		return b, nil
	}
	return take(b, to, taken), addrs
}

// AllocateAt gives the address addr, which must lie in b, to the holder. The
// error is ErrTaken when it is not free.
func AllocateAt(b model.Block, to model.Attribute, addr netip.Addr) (model.Block, error) {
	ord := ordinal(b.CIDR, addr)
	if !slices.Contains(b.Unallocated, ord) {
		return b, ErrTaken
	}
	return take(b, to, []int{ord}), nil
}

// take moves free ordinals to the holder.
func take(b model.Block, to model.Attribute, ords []int) model.Block {
	b = b.Clone()
	at := attribute(&b, to)
	for _, ord := range ords {
		b.Allocations[ord] = at
		b.SequenceOf[ord] = b.Sequence
	}
	b.Unallocated = slices.DeleteFunc(b.Unallocated, func(ord int) bool { return slices.Contains(ords, ord) })
	b.Sequence++
	return b
}

// attribute is the index of an attribute in b, added if it is new there.
func attribute(b *model.Block, a model.Attribute) int {
	i := slices.IndexFunc(b.Attributes, func(have model.Attribute) bool {
		return have.Handle == a.Handle && have.ReleasedAt.Equal(a.ReleasedAt) &&
			maps.Equal(have.Secondary, a.Secondary) && maps.Equal(have.AlternateOwner, a.AlternateOwner)
	})
	if i < 0 {
		i = len(b.Attributes)
		b.Attributes = append(b.Attributes, a)
	}
	return i
}

// Check is what must still hold for an address to be released. The zero Check
// is always satisfied.
type Check struct {
	Handle   string // the holder; empty: any
	Sequence uint64 // of the assignment ([model.Block.SequenceOf]); 0: any
}

// ReleaseAt takes the address addr, which must lie in b, from its holder, whose
// attribute is returned. The address may be used again after cooldown. Errors:
// ErrNotAssigned, and ErrChanged when the check fails.
func ReleaseAt(b model.Block, addr netip.Addr, check Check, cooldown time.Duration, now time.Time) (model.Block, model.Attribute, error) {
	ord := ordinal(b.CIDR, addr)
	at := b.Allocations[ord]
	if at < 0 || !b.Attributes[at].ReleasedAt.IsZero() {
		return b, model.Attribute{}, ErrNotAssigned
	}
	holder := b.Attributes[at]
	if check.Handle != "" && holder.Handle != check.Handle ||
		check.Sequence != 0 && b.SequenceOf[ord] != check.Sequence {
		return b, model.Attribute{}, ErrChanged
	}
	return free(b, []int{ord}, cooldown, now), holder, nil
}

// ReleaseHandle takes all addresses that the handle has in b, and returns them
// in order. They may be used again after cooldown.
func ReleaseHandle(b model.Block, handle string, cooldown time.Duration, now time.Time) (model.Block, []netip.Addr) {
	var ords []int
	addrs := Held(b, handle)
	for _, a := range addrs {
		ords = append(ords, ordinal(b.CIDR, a))
	}
	if len(ords) == 0 {
		return b, nil
	}
	return free(b, ords, cooldown, now), addrs
}

// free takes ordinals from their holders: back to the end of the queue, or
// marked as cooling down. A cooling address keeps its sequence number.
func free(b model.Block, ords []int, cooldown time.Duration, now time.Time) model.Block {
	b = b.Clone()
	cooling := -1
	if cooldown > 0 {
		cooling = attribute(&b, model.Attribute{ReleasedAt: now.UTC().Truncate(time.Second)})
	}
	for _, ord := range ords {
		b.Allocations[ord] = cooling
		if cooling < 0 {
			delete(b.SequenceOf, ord)
			b.Unallocated = append(b.Unallocated, ord)
		}
	}
	dropUnused(&b)
	b.Sequence++
	return b
}

// Thaw returns b with those addresses free again that were released cooldown
// or longer ago, in the order of release.
func Thaw(b model.Block, cooldown time.Duration, now time.Time) model.Block {
	var ords []int
	for ord, at := range b.Allocations {
		if at < 0 {
			continue
		}
		if since := b.Attributes[at].ReleasedAt; !since.IsZero() && !now.Before(since.Add(cooldown)) {
			ords = append(ords, ord)
		}
	}
	if len(ords) == 0 {
		return b
	}
	slices.SortStableFunc(ords, func(x, y int) int {
		return cmp.Compare(b.Attributes[b.Allocations[x]].ReleasedAt.Unix(), b.Attributes[b.Allocations[y]].ReleasedAt.Unix())
	})
	return free(b, ords, 0, now)
}

// dropUnused removes attributes that no address refers to.
func dropUnused(b *model.Block) {
	used := make([]bool, len(b.Attributes))
	for _, at := range b.Allocations {
		if at >= 0 {
			used[at] = true
		}
	}
	moved := make([]int, len(used))
	kept := b.Attributes[:0]
	for i, a := range b.Attributes {
		if used[i] {
			moved[i] = len(kept)
			kept = append(kept, a)
		}
	}
	b.Attributes = kept
	for ord, at := range b.Allocations {
		if at >= 0 {
			b.Allocations[ord] = moved[at]
		}
	}
}

// Held is the addresses that the handle has in b, in order.
func Held(b model.Block, handle string) []netip.Addr {
	var addrs []netip.Addr
	for ord, at := range b.Allocations {
		if at >= 0 && b.Attributes[at].Handle == handle && b.Attributes[at].ReleasedAt.IsZero() {
			addrs = append(addrs, AddrAt(b.CIDR, ord))
		}
	}
	return addrs
}

// HolderOf is who has the address addr, which must lie in b; false when it is
// free or cooling down.
func HolderOf(b model.Block, addr netip.Addr) (model.Attribute, bool) {
	at := b.Allocations[ordinal(b.CIDR, addr)]
	if at < 0 || !b.Attributes[at].ReleasedAt.IsZero() {
		return model.Attribute{}, false
	}
	return b.Attributes[at], true
}

// InUse counts the addresses of b that are in use or cooling down.
func InUse(b model.Block) int {
	n := 0
	for _, at := range b.Allocations {
		if at >= 0 {
			n++
		}
	}
	return n
}
