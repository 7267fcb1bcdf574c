package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// Limits that Calico has and that its users count on.
const (
	// defaultMaxBlocks is the number of blocks of a family that a node may have
	// where the configuration does not say.
	defaultMaxBlocks = 20
	// takeoverAge is how old a claim must be before its block, if empty, may be
	// taken by another node: younger ones may be about to be used.
	takeoverAge = time.Minute
)

// Errors about blocks, which callers branch on with errors.Is.
var (
	// ErrNoPool says that an address that was asked for is in no usable pool.
	ErrNoPool = errors.New("in no enabled pool")
	// ErrForeign says that an address is another node's and affinity is strict.
	ErrForeign = errors.New("strictAffinity forbids addresses of other nodes' blocks")
	// ErrBlockLimit says that the node may have no more blocks.
	ErrBlockLimit = errors.New("the node has as many blocks as maxBlocksPerHost allows")
	// ErrUnusable says that a block can't be read or is being deleted.
	ErrUnusable = errors.New("the block can't be read or is being deleted")
	// ErrNoAutoAllocate says that the node may not claim blocks by itself.
	ErrNoAutoAllocate = errors.New("the node may not claim a block: autoAllocateBlocks is false")
)

// Assign gives the request what it wants, all of it or nothing. Addresses that
// the handle has already count: asking twice gives the same ones. A handle that
// is neither known nor known to be missing is taken as new, for the datastore
// refuses to create one that exists. Errors: *NeedError, *ExhaustedError,
// ErrNoNode, ErrTaken, ErrNoPool, ErrForeign, ErrBlockLimit, ErrNoAutoAllocate,
// ErrUnusable, or that a named pool can't be used.
func (v *View) Assign(r Request) (Change, error) {
	c, err := v.assign(r)
	var need *NeedError
	if err != nil && !errors.As(err, &need) && v.unsure(r.Holder.Handle) {
		// It may have already what it can't have anew.
		return Change{}, &NeedError{model.HandleKey(r.Holder.Handle)}
	}
	return c, err
}

// unsure reports whether it is not known whether the handle exists.
func (v *View) unsure(handle string) bool {
	_, known := v.Handles[handle]
	return !known && !v.Missing[model.HandleKey(handle)] && handle != ""
}

func (v *View) assign(r Request) (Change, error) {
	if r.Holder.Handle == "" {
		return Change{}, errors.New("ipam: assign: no handle: every holder of addresses must have one")
	}
	d := v.draft()
	have, err := d.held(r.Holder.Handle)
	if err != nil {
		return Change{}, err
	}
	addrs := slices.Clone(r.Addrs)
	for _, a := range r.Addrs {
		if !slices.Contains(have, a) {
			if err := d.assignAt(a, r); err != nil {
				return Change{}, err
			}
		}
	}
	for _, v6 := range []bool{false, true} {
		want := r.family(v6).Count
		for _, a := range have {
			if want > 0 && a.Is6() == v6 && !slices.Contains(r.Addrs, a) {
				addrs, want = append(addrs, a), want-1
			}
		}
		got, err := d.assignFamily(r, v6, want)
		if err != nil {
			return Change{}, err
		}
		addrs = append(addrs, got...)
	}
	return d.finish(r.Holder.Handle, addrs), nil
}

// held is the addresses that the handle has, in the order of its blocks.
func (d *draft) held(handle string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, cidr := range slices.SortedFunc(maps.Keys(d.Handles[handle].Blocks), netip.Prefix.Compare) {
		if err := d.need(cidr); err != nil {
			return nil, err
		}
		if b, ok := d.block(cidr); ok {
			addrs = append(addrs, Held(b, handle)...)
		}
	}
	return addrs, nil
}

// finish makes the change, with the handle counted anew from the blocks: a
// count that a crashed writer left wrong is put right on the way.
func (d *draft) finish(handle string, addrs []netip.Addr) Change {
	c := d.change()
	for _, a := range addrs {
		b, _ := d.blockOf(a)
		c.Addrs = append(c.Addrs, d.assigned(a, b))
	}
	old, known := d.Handles[handle]
	counts := map[netip.Prefix]int{}
	for cidr := range old.Blocks {
		b, _ := d.block(cidr)
		count(counts, b, handle)
	}
	for _, b := range d.put {
		count(counts, b, handle)
	}
	if len(counts) > 0 && !maps.Equal(counts, old.Blocks) || len(counts) == 0 && known {
		c.Handles = []model.Handle{{ID: handle, Blocks: counts}}
	}
	return c
}

func count(counts map[netip.Prefix]int, b model.Block, handle string) {
	if n := len(Held(b, handle)); n > 0 {
		counts[b.CIDR] = n
	}
}

// blockOf is the known block that a lies in.
func (d *draft) blockOf(a netip.Addr) (model.Block, bool) {
	for cidr, b := range d.put {
		if cidr.Contains(a) {
			return b, true
		}
	}
	for cidr := range d.Blocks {
		if cidr.Contains(a) {
			return d.block(cidr)
		}
	}
	return model.Block{}, false
}

// assignFamily takes n addresses of a family: from the node's blocks, then new
// ones, then other nodes'.
func (d *draft) assignFamily(r Request, v6 bool, n int) ([]netip.Addr, error) {
	if n <= 0 {
		return nil, nil
	}
	if d.Node == nil {
		return nil, fmt.Errorf("ipam: assign: node %q: %w", d.Name, ErrNoNode)
	}
	pools, refused, err := d.poolsFor(r, v6)
	if err != nil {
		return nil, err
	}
	out := &ExhaustedError{Node: d.Name, V6: v6, Use: r.Use, Refused: refused}
	if len(pools) == 0 {
		return nil, out
	}
	owner := d.owner()
	got := d.takeFrom(r, n, func(b model.Block) bool { return b.Owner == owner && inPools(pools, b.CIDR) })
	for len(got) < n {
		if !d.Complete {
			return nil, &NeedError{}
		}
		cidr, err := d.claimNext(pools, v6)
		if err != nil {
			out.Limit = err
			break
		}
		got = append(got, d.takeFrom(r, n-len(got), func(b model.Block) bool { return b.CIDR == cidr })...)
	}
	if len(got) < n && !d.Config.StrictAffinity {
		got = append(got, d.takeFrom(r, n-len(got), func(b model.Block) bool {
			return b.Owner != owner && b.Owner.Type != model.AffinityVirtual && inPools(pools, b.CIDR)
		})...)
	}
	if len(got) < n {
		d.describe(out, pools)
		return nil, out
	}
	return got, nil
}

// takeFrom takes up to n addresses from the blocks that from selects.
func (d *draft) takeFrom(r Request, n int, from func(model.Block) bool) []netip.Addr {
	var got []netip.Addr
	skip := func(a netip.Addr) bool { return contains(d.Reserved, a) }
	for _, cidr := range d.sorted(func(b model.Block) bool { return !b.Deleted && from(b) }) {
		if len(got) == n {
			break
		}
		b, _ := d.block(cidr)
		b, addrs := Allocate(b, r.Holder, n-len(got), skip)
		if len(addrs) > 0 {
			d.put[cidr] = b
			got = append(got, addrs...)
		}
	}
	return got
}

// claimNext claims a block: a new one of the first pool that has one, else one
// that another node does not use, else one that a node began to claim.
func (d *draft) claimNext(pools []model.Pool, v6 bool) (netip.Prefix, error) {
	if err := d.mayClaim(v6); err != nil {
		return netip.Prefix{}, err
	}
	for _, claims := range []map[netip.Prefix]bool{d.Claims, nil} {
		for _, p := range pools {
			free := func(c netip.Prefix) bool { return claims[c] || d.exists(c) }
			if cidr, ok := NextBlock(p, d.Name, d.Reserved, free); ok {
				d.take(cidr)
				return cidr, nil
			}
			idle := func(c netip.Prefix) bool { return !d.idle(c) }
			if cidr, ok := d.nextIdle(p, idle); ok {
				d.take(cidr)
				return cidr, nil
			}
		}
	}
	return netip.Prefix{}, errNoBlock
}

// errNoBlock says that the pools have no block left to claim.
var errNoBlock = errors.New("no block left to claim")

// nextIdle is the block of another node that may be taken over next.
func (d *draft) nextIdle(p model.Pool, busy func(netip.Prefix) bool) (netip.Prefix, bool) {
	if len(d.sorted(func(b model.Block) bool { return holds(p, b.CIDR) && !busy(b.CIDR) })) == 0 {
		return netip.Prefix{}, false // spares the walk over a large pool
	}
	return NextBlock(p, d.Name, d.Reserved, busy)
}

// mayClaim says why the node may claim no further block of the family, if so.
func (d *draft) mayClaim(v6 bool) error {
	if d.Virtual { // these limits are for nodes
		return nil
	}
	if !d.Config.AutoAllocateBlocks {
		return ErrNoAutoAllocate
	}
	limit := d.Config.MaxBlocksPerHost
	if limit <= 0 {
		limit = defaultMaxBlocks
	}
	own := d.sorted(func(b model.Block) bool { return b.Owner == d.owner() && b.CIDR.Addr().Is6() == v6 })
	if len(own) >= limit {
		return fmt.Errorf("%w (%d)", ErrBlockLimit, limit)
	}
	return nil
}

// exists reports whether a block overlaps cidr. Blocks of one pool are of one
// size unless the pool was made anew with another.
func (d *draft) exists(cidr netip.Prefix) bool {
	if _, ok := d.block(cidr); ok {
		return true
	}
	for have := range d.Blocks {
		if have.Bits() != cidr.Bits() && have.Overlaps(cidr) && !d.gone[have] {
			return true
		}
	}
	return false
}

// idle reports whether the block exists and may be taken over: it is empty and
// its owner, another node or none, has not claimed it in the last minute.
func (d *draft) idle(cidr netip.Prefix) bool {
	b, ok := d.block(cidr)
	return ok && !b.Deleted && b.Owner != d.owner() && b.Owner.Type != model.AffinityVirtual && InUse(b) == 0 &&
		!d.Now.Before(b.ClaimedAt.Add(takeoverAge))
}

// take makes cidr a fresh block of the node, whoever had it.
func (d *draft) take(cidr netip.Prefix) {
	fresh := NewBlock(cidr, d.owner(), d.Now)
	if old, ok := d.block(cidr); ok {
		fresh.Sequence = max(fresh.Sequence, old.Sequence+1)
		if old.Owner != (model.Affinity{}) {
			d.unclaim = append(d.unclaim, model.BlockAffinity{Owner: old.Owner, CIDR: cidr})
		}
	}
	d.put[cidr] = fresh
	d.claim = append(d.claim, model.BlockAffinity{Owner: d.owner(), CIDR: cidr, State: model.AffinityConfirmed})
}

// assignAt takes one address that was asked for: reservations, selectors and
// manual mode do not matter to it.
func (d *draft) assignAt(a netip.Addr, r Request) error {
	pool, ok := d.poolOf(a)
	if !ok || d.shut(pool) != "" {
		return fmt.Errorf("ipam: assign %v: %w; enabled pools: %s", a, ErrNoPool, d.openPools(a.Is6()))
	}
	if why := d.closed(pool, r.Use); why != "" {
		return fmt.Errorf("ipam: assign %v: pool %s: %s", a, pool.Name, why)
	}
	b, ok := d.blockOf(a)
	cidr := b.CIDR
	if !ok {
		cidr = netip.PrefixFrom(a, pool.BlockBits).Masked()
		if err := d.need(cidr); err != nil {
			return err
		}
		if err := d.mayClaim(a.Is6()); err != nil {
			return fmt.Errorf("ipam: assign %v: block %v does not exist: %w", a, cidr, err)
		}
		d.take(cidr)
		b, _ = d.block(cidr)
	}
	if b.Deleted {
		return fmt.Errorf("ipam: assign %v: block %v: %w", a, cidr, ErrUnusable)
	}
	if b.Owner != d.owner() && d.Config.StrictAffinity {
		return fmt.Errorf("ipam: assign %v: block %v belongs to %s: %w", a, cidr, ownerName(b), ErrForeign)
	}
	b, err := AllocateAt(b, r.Holder, a)
	if err != nil {
		return fmt.Errorf("ipam: assign %v: %w %s", a, err, describeHolder(b, a))
	}
	d.put[cidr] = b
	return nil
}
