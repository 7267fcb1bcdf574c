package audit

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// handles compares handles with the blocks that name them. Kubernetes has their names in
// small letters, so case does not count.
func (s *look) handles() {
	counted := map[string]map[netip.Prefix]int{}
	first := map[string]*Allocation{}
	for i := range s.result.Allocations {
		a := &s.result.Allocations[i]
		if a.By.Handle == "" {
			continue
		}
		id := strings.ToLower(a.By.Handle)
		if counted[id] == nil {
			counted[id], first[id] = map[netip.Prefix]int{}, a
		}
		counted[id][a.Block]++
	}
	s.result.Held = len(counted)
	there := map[string]bool{}
	certain := !s.broken(model.KindIPAMBlock)
	for _, h := range s.Handles {
		id := strings.ToLower(h.ID)
		there[id] = true
		switch have := counted[id]; {
		case len(have) == 0 && certain:
			s.find(Finding{Kind: OrphanHandle, Handle: h.ID, Why: "no block has an address of it", Mends: true})
		case len(have) > 0 && certain && !maps.Equal(have, held(h)):
			s.find(Finding{
				Kind: HandleCount, Handle: h.ID, Owner: first[id].Owner.String(), Node: first[id].Owner.Node,
				Why: fmt.Sprintf("it counts %s, and the blocks have %s", tally(held(h)), tally(have)),
			})
		}
	}
	if s.broken(model.KindIPAMHandle) {
		return
	}
	for id, a := range first {
		if !there[id] {
			s.find(Finding{
				Kind: MissingHandle, Addr: a.Addr, Block: a.Block, Handle: a.By.Handle, Owner: a.Owner.String(), Node: a.Owner.Node,
				Why: "block names a handle that does not exist",
			})
		}
	}
}

// held is what h counts, without blocks of which it counts nothing.
func held(h model.Handle) map[netip.Prefix]int {
	for _, n := range h.Blocks {
		if n == 0 {
			out := maps.Clone(h.Blocks)
			maps.DeleteFunc(out, func(_ netip.Prefix, n int) bool { return n == 0 })
			return out
		}
	}
	return h.Blocks
}

// tally prints counts, such as "2 of 10.0.0.0/26".
func tally(counts map[netip.Prefix]int) string {
	var all []string
	for _, cidr := range slices.SortedFunc(maps.Keys(counts), netip.Prefix.Compare) {
		all = append(all, fmt.Sprintf("%d of %v", counts[cidr], cidr))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// blocks looks at each block by itself and beside the others.
func (s *look) blocks() {
	for _, b := range s.Broken {
		f := Finding{Kind: Unreadable, Owner: b.Key.String(), Why: b.Err.Error()}
		if b.Key.Kind == model.KindIPAMBlock {
			f.Kind, f.Block = InvalidBlock, b.block()
		}
		s.find(f)
	}
	sorted := slices.Clone(s.Blocks)
	slices.SortFunc(sorted, func(a, b model.Block) int { return a.CIDR.Compare(b.CIDR) })
	var wide netip.Prefix // that reaches furthest of those before
	for _, b := range sorted {
		if b.Deleted {
			continue
		}
		invalid := func(why string) {
			s.find(Finding{Kind: InvalidBlock, Block: b.CIDR, Owner: b.Owner.String(), Node: b.Owner.Node, Why: why})
		}
		if why := crooked(b); why != "" {
			invalid(why)
		}
		if wide.IsValid() && wide.Overlaps(b.CIDR) {
			invalid(fmt.Sprintf("overlaps block %v", wide))
		} else {
			wide = b.CIDR // blocks that overlap lie within each other, and the wider comes first
		}
		if !s.BadPools && !slices.ContainsFunc(s.Pools, func(p model.Pool) bool {
			return p.CIDR.Bits() <= b.CIDR.Bits() && p.CIDR.Contains(b.CIDR.Addr())
		}) {
			invalid("in no IP pool")
		}
	}
}

// crooked says what does not fit in a block; empty: it is right in itself.
func crooked(b model.Block) string {
	if want := 1 << (b.CIDR.Addr().BitLen() - b.CIDR.Bits()); len(b.Allocations) != want {
		return fmt.Sprintf("%d allocations: must be %d", len(b.Allocations), want)
	}
	queued := make([]bool, len(b.Allocations))
	for _, ord := range b.Unallocated {
		switch {
		case ord < 0 || ord >= len(queued):
			return fmt.Sprintf("ordinal %d is free: must be below %d", ord, len(queued))
		case b.Allocations[ord] >= 0:
			return fmt.Sprintf("ordinal %d is allocated and free", ord)
		case queued[ord]:
			return fmt.Sprintf("ordinal %d is free twice", ord)
		}
		queued[ord] = true
	}
	lost := 0
	for ord, at := range b.Allocations {
		switch {
		case at >= len(b.Attributes):
			return fmt.Sprintf("ordinal %d has attribute %d of %d", ord, at, len(b.Attributes))
		case at < 0 && !queued[ord]:
			lost++
		}
	}
	if lost > 0 {
		return fmt.Sprintf("%d addresses are neither allocated nor free", lost)
	}
	return ""
}

// claims compares the claims on blocks with the blocks and the nodes. A claim that is
// pending or given up is work in progress, as long as its node exists.
func (s *look) claims() {
	owners := make(map[netip.Prefix]model.Affinity, len(s.Blocks))
	for _, b := range s.Blocks {
		if !b.Deleted {
			owners[b.CIDR] = b.Owner
		}
	}
	certain := !s.broken(model.KindIPAMBlock)
	claimed := map[model.Key]bool{}
	for _, a := range s.Affinities {
		claimed[a.Key()] = true
		f := Finding{Block: a.CIDR, Owner: a.Owner.String(), Node: a.Owner.Node}
		owner, exists := owners[a.CIDR]
		switch {
		case a.Owner.Type == model.AffinityHost && s.Nodes != nil && !s.Nodes[a.Owner.Node]:
			f.Kind, f.Why = ForgottenClaim, "the node does not exist"
		case !certain || a.State != model.AffinityConfirmed && a.State != "":
			continue
		case !exists:
			f.Kind, f.Why = OrphanClaim, "there is no such block"
		case owner != a.Owner:
			f.Kind, f.Why = OrphanClaim, "the block is not its own: it is of "+orNobody(owner)
		default:
			continue
		}
		s.find(f)
	}
	if s.broken(model.KindBlockAffinity) {
		return
	}
	for _, b := range s.Blocks {
		if b.Deleted || b.Owner == (model.Affinity{}) || claimed[model.AffinityKey(b.Owner, b.CIDR)] {
			continue
		}
		f := Finding{Kind: MissingClaim, Block: b.CIDR, Owner: b.Owner.String(), Node: b.Owner.Node, Why: "its owner has no affinity to it"}
		if b.Owner.Type == model.AffinityHost && s.Nodes != nil && !s.Nodes[b.Owner.Node] {
			f.Kind, f.Why = ForgottenClaim, "the node does not exist"
		}
		s.find(f)
	}
}

func orNobody(a model.Affinity) string {
	if a == (model.Affinity{}) {
		return "nobody"
	}
	return a.String()
}
