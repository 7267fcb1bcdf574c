package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/model"
)

// Release frees all addresses of a handle. An unknown handle is no error: there
// is nothing to free. Blocks that become empty and that their node would not
// take again are given up. The error is a *NeedError.
func (v *View) Release(handle string) (Change, error) {
	if v.unsure(handle) {
		return Change{}, &NeedError{model.HandleKey(handle)}
	}
	d := v.draft()
	var released []netip.Addr
	for _, cidr := range slices.SortedFunc(maps.Keys(v.Handles[handle].Blocks), netip.Prefix.Compare) {
		if err := d.need(cidr); err != nil {
			return Change{}, err
		}
		b, ok := d.block(cidr)
		if !ok {
			continue
		}
		if after, addrs := ReleaseHandle(b, handle, v.Config.Cooldown, v.Now); len(addrs) > 0 {
			d.keepOrDrop(after)
			released = append(released, addrs...)
		}
	}
	c := d.finish(handle, nil)
	c.Released = released
	return c, nil
}

// ReleaseAddr frees one address, if check holds. Errors: *NeedError,
// ErrNotAssigned, ErrChanged, ErrUnusable.
func (v *View) ReleaseAddr(a netip.Addr, check Check) (Change, error) {
	d := v.draft()
	b, ok := d.blockOf(a)
	if !ok && !v.Complete {
		return Change{}, &NeedError{} // the pool may be gone, so the block's size is unknown
	}
	if !ok {
		return Change{}, fmt.Errorf("ipam: release %v: %w", a, ErrNotAssigned)
	}
	if len(b.Allocations) == 0 {
		return Change{}, fmt.Errorf("ipam: release %v: block %v: %w", a, b.CIDR, ErrUnusable)
	}
	after, holder, err := ReleaseAt(b, a, check, v.Config.Cooldown, v.Now)
	if err != nil {
		return Change{}, fmt.Errorf("ipam: release %v: block %v: %w", a, b.CIDR, err)
	}
	if holder.Handle == "" {
		d.keepOrDrop(after)
		c := d.change()
		c.Released = []netip.Addr{a}
		return c, nil
	}
	if v.unsure(holder.Handle) {
		return Change{}, &NeedError{model.HandleKey(holder.Handle)}
	}
	for cidr := range v.Handles[holder.Handle].Blocks {
		if err := d.need(cidr); err != nil {
			return Change{}, err
		}
	}
	d.keepOrDrop(after)
	c := d.finish(holder.Handle, nil)
	c.Released = []netip.Addr{a}
	return c, nil
}

// Assignment is one address as somebody saw it assigned.
type Assignment struct {
	Addr     netip.Addr
	Block    netip.Prefix // that it lies in
	Sequence uint64       // of the assignment ([model.Block.SequenceOf])
}

// ReleaseSeen is Release if the handle holds nothing but what seen has, and that since
// then; what it has given back meanwhile is no matter. Errors: *NeedError, ErrChanged.
func (v *View) ReleaseSeen(handle string, seen []Assignment) (Change, error) {
	if v.unsure(handle) {
		return Change{}, &NeedError{model.HandleKey(handle)}
	}
	d := v.draft()
	blocks := maps.Clone(v.Handles[handle].Blocks)
	if blocks == nil {
		blocks = map[netip.Prefix]int{}
	}
	sequence := map[netip.Addr]uint64{}
	for _, a := range seen {
		blocks[a.Block], sequence[a.Addr] = 0, a.Sequence
	}
	var released []netip.Addr
	for _, cidr := range slices.SortedFunc(maps.Keys(blocks), netip.Prefix.Compare) {
		if err := d.need(cidr); err != nil {
			return Change{}, err
		}
		b, ok := d.block(cidr)
		if !ok {
			continue
		}
		if len(b.Allocations) == 0 {
			return Change{}, fmt.Errorf("ipam: release %s: block %v: %w", handle, cidr, ErrUnusable)
		}
		for _, a := range Held(b, handle) {
			if was, ok := sequence[a]; !ok || was != b.SequenceOf[ordinal(cidr, a)] {
				return Change{}, fmt.Errorf("ipam: release %s: %v: %w", handle, a, ErrChanged)
			}
		}
		if after, addrs := ReleaseHandle(b, handle, v.Config.Cooldown, v.Now); len(addrs) > 0 {
			d.keepOrDrop(after)
			released = append(released, addrs...)
		}
	}
	c := d.finish(handle, nil)
	c.Released = released
	return c, nil
}

// keepOrDrop puts a block from which addresses were released, or gives it up
// when it is empty and nobody would use it again: it has no owner, its pool is
// gone, or the pool does not select the owner any more.
func (d *draft) keepOrDrop(b model.Block) {
	if InUse(b) > 0 || !d.useless(b) {
		d.put[b.CIDR] = b
		return
	}
	delete(d.put, b.CIDR)
	d.gone[b.CIDR] = true
	if b.Owner != (model.Affinity{}) {
		d.unclaim = append(d.unclaim, model.BlockAffinity{Owner: b.Owner, CIDR: b.CIDR})
	}
}

// useless reports whether the block's owner would take no address from it.
// What another node's labels are is not known, so its blocks are left to it. A
// virtual owner keeps no empty blocks: it has them to itself, and claims anew.
func (d *draft) useless(b model.Block) bool {
	if b.Owner.Type == model.AffinityVirtual {
		return b.Owner == d.owner()
	}
	var in []model.Pool
	for _, p := range d.Pools {
		if holds(p, b.CIDR) {
			in = append(in, p)
		}
	}
	if b.Owner == (model.Affinity{}) {
		return true
	}
	if len(in) == 0 {
		return !d.BadPools
	}
	mine := b.Owner == d.owner() && d.Node != nil
	return mine && !slices.ContainsFunc(in, d.selects)
}

// Tidy puts the node's affinities and blocks in order, as far as it takes no
// decision of a user: it confirms claims whose block was made, makes up for an
// affinity that is missing, deletes affinities without a block, and gives up
// empty blocks that the node would not use again. affinities are all of the
// node's own; the view must be Complete.
func (v *View) Tidy(affinities []model.BlockAffinity) Change {
	d := v.draft()
	state := map[netip.Prefix]model.AffinityState{}
	for _, a := range affinities {
		if a.Owner != v.owner() {
			continue
		}
		state[a.CIDR] = a.State
		if b, ok := d.block(a.CIDR); !ok || b.Owner != v.owner() {
			d.unclaim = append(d.unclaim, a)
		}
	}
	for _, cidr := range d.sorted(func(b model.Block) bool { return b.Owner == v.owner() }) {
		b, _ := d.block(cidr)
		if InUse(b) == 0 && v.Node != nil && d.useless(b) {
			d.keepOrDrop(b)
			continue
		}
		if state[cidr] != model.AffinityConfirmed {
			d.claim = append(d.claim, model.BlockAffinity{Owner: v.owner(), CIDR: cidr, State: model.AffinityConfirmed})
		}
	}
	return d.change()
}

// GiveUpEmpty deletes the block cidr with its owner's claim, if it is as it was when
// its Sequence was that, and empty. No such block is no error. Errors: *NeedError,
// ErrUnusable, and ErrChanged when it has changed or has addresses in use.
func (v *View) GiveUpEmpty(cidr netip.Prefix, sequence uint64) (Change, error) {
	if b, ok := v.Blocks[cidr]; ok && len(b.Allocations) > 0 {
		thawed := Thaw(b, v.Config.Cooldown, v.Now)
		if b.Sequence != sequence || InUse(thawed) > 0 {
			return Change{}, fmt.Errorf("ipam: give up block %v: %w", cidr, ErrChanged)
		}
	}
	return v.GiveUp(cidr)
}

// GiveUp takes the block cidr from its owner: an empty one is deleted, another
// stays without an owner until its last address is released. It is what
// deleting a pool or a node asks for. No such block is no error. Errors:
// *NeedError, ErrUnusable.
func (v *View) GiveUp(cidr netip.Prefix) (Change, error) {
	d := v.draft()
	if err := d.need(cidr); err != nil {
		return Change{}, err
	}
	b, ok := d.block(cidr)
	if !ok {
		return Change{}, nil
	}
	if len(b.Allocations) == 0 {
		return Change{}, fmt.Errorf("ipam: give up block %v: %w", cidr, ErrUnusable)
	}
	if b.Owner != (model.Affinity{}) {
		d.unclaim = append(d.unclaim, model.BlockAffinity{Owner: b.Owner, CIDR: cidr})
	}
	switch {
	case InUse(b) == 0:
		d.gone[cidr] = true
	case b.Owner != (model.Affinity{}):
		b = b.Clone()
		b.Owner, b.ClaimedAt = model.Affinity{}, time.Time{}
		b.Sequence++
		d.put[cidr] = b
	}
	return d.change(), nil
}
