package model

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// Clone is a copy of b that shares nothing with it that a change of the block
// changes: the maps of its attributes, which nobody changes, are shared.
func (b Block) Clone() Block {
	b.Allocations = slices.Clone(b.Allocations)
	b.Unallocated = slices.Clone(b.Unallocated)
	b.Attributes = slices.Clone(b.Attributes)
	b.SequenceOf = maps.Clone(b.SequenceOf)
	if b.SequenceOf == nil {
		b.SequenceOf = map[int]uint64{}
	}
	return b
}

// API is the resource that Parse makes b of. With Clone'd values Parse(b.API())
// is b; times are kept to the second.
func (b Block) API() *v3.IPAMBlock {
	o := newObject[*v3.IPAMBlock]("IPAMBlock", resourceName(b.CIDR))
	o.Spec = v3.IPAMBlockSpec{
		CIDR: b.CIDR.String(), AffinityClaimTime: v3.Timestamp(b.ClaimedAt),
		Allocations: make([]*int, len(b.Allocations)), Unallocated: append([]int{}, b.Unallocated...),
		Attributes:     make([]v3.AllocationAttribute, 0, len(b.Attributes)),
		SequenceNumber: b.Sequence, SequenceNumberForAllocation: make(map[string]uint64, len(b.SequenceOf)),
		Deleted: b.Deleted,
	}
	if b.Owner != (Affinity{}) {
		owner := b.Owner.String()
		o.Spec.Affinity = &owner
	}
	for i, at := range b.Allocations {
		if at >= 0 {
			o.Spec.Allocations[i] = &at
		}
	}
	for _, a := range b.Attributes {
		at := v3.AllocationAttribute{
			ActiveOwnerAttrs: a.Secondary, AlternateOwnerAttrs: a.AlternateOwner, ReleasedAt: v3.Timestamp(a.ReleasedAt),
		}
		if a.Handle != "" {
			at.HandleID = &a.Handle
		}
		o.Spec.Attributes = append(o.Spec.Attributes, at)
	}
	for ord, seq := range b.SequenceOf {
		o.Spec.SequenceNumberForAllocation[strconv.Itoa(ord)] = seq
	}
	return o
}

// API is the resource that Parse makes h of.
func (h Handle) API() *v3.IPAMHandle {
	o := newObject[*v3.IPAMHandle]("IPAMHandle", strings.ToLower(h.ID))
	o.Spec = v3.IPAMHandleSpec{HandleID: h.ID, Block: make(map[string]int, len(h.Blocks)), Deleted: h.Deleted}
	for cidr, n := range h.Blocks {
		o.Spec.Block[cidr.String()] = n
	}
	return o
}

// API is the resource that Parse makes a of.
func (a BlockAffinity) API() *v3.BlockAffinity {
	o := newObject[*v3.BlockAffinity]("BlockAffinity", a.Owner.Node+"-"+resourceName(a.CIDR))
	o.Spec.State = v3.AffinityState(a.State)
	o.Spec.Node, o.Spec.Type, o.Spec.CIDR = a.Owner.Node, string(a.Owner.Type), a.CIDR.String()
	return o
}

// newObject makes an object of a kind that package v3 has.
func newObject[T v3.Object](kind, name string) T {
	o, _ := v3.New(kind)
	o.Meta().Name = name
	return o.(T)
}

// resourceName is a CIDR as names of Kubernetes resources can hold it.
func resourceName(cidr netip.Prefix) string {
	return strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr.String())
}

// String lists the uses as pools name them, such as "Workload, Tunnel".
func (u Use) String() string {
	var names []string
	for i, name := range []v3.IPPoolUse{v3.UseWorkload, v3.UseTunnel, v3.UseLoadBalancer} {
		if u.Has(1 << i) {
			names = append(names, string(name))
		}
	}
	return strings.Join(names, ", ")
}
