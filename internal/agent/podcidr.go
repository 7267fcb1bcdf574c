package agent

import (
	"context"
	"iter"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// podRanges is a datastore in which the range that Kubernetes gave each node for its pods
// (spec.podCIDRs) is a block of that node, and there are no others: USE_POD_CIDR. Addresses
// in it are host-local's business.
type podRanges struct{ store.Store }

// Watch implements [store.Source].
func (s podRanges) Watch(ctx context.Context, kinds ...model.Kind) iter.Seq2[model.Batch, error] {
	kinds = slices.DeleteFunc(slices.Clone(kinds), func(k model.Kind) bool { return k == model.KindIPAMBlock })
	return func(yield func(model.Batch, error) bool) {
		known := map[model.Key][]netip.Prefix{} // by node
		for b, err := range s.Store.Watch(ctx, kinds...) {
			if err == nil {
				b = withRanges(known, b)
			}
			if !yield(b, err) {
				return
			}
		}
	}
}

// EndpointsOn implements [store.ByNode].
func (s podRanges) EndpointsOn(ctx context.Context, node string) ([]store.Object, error) {
	return store.EndpointsOn(ctx, s.Store, node)
}

// withRanges adds the blocks that the nodes of b make.
func withRanges(known map[model.Key][]netip.Prefix, b model.Batch) model.Batch {
	if b.Reset {
		clear(known) // what the snapshot does not mention goes by that
	}
	b.Puts, b.Deletes = slices.Clip(b.Puts), slices.Clip(b.Deletes)
	for _, v := range b.Puts {
		n, ok := v.(model.Node)
		if !ok || slices.Equal(known[n.Key()], n.PodCIDRs) {
			continue
		}
		for _, p := range known[n.Key()] {
			if !slices.Contains(n.PodCIDRs, p) {
				b.Deletes = append(b.Deletes, model.BlockKey(p))
			}
		}
		for _, p := range n.PodCIDRs {
			b.Puts = append(b.Puts, model.Block{CIDR: p, Owner: model.HostAffinity(n.Name)})
		}
		known[n.Key()] = n.PodCIDRs
	}
	for _, k := range b.Deletes {
		for _, p := range known[k] {
			b.Deletes = append(b.Deletes, model.BlockKey(p))
		}
		delete(known, k)
	}
	// A range that went from one node to another is not gone.
	b.Deletes = slices.DeleteFunc(b.Deletes, func(k model.Key) bool {
		return k.Kind == model.KindIPAMBlock && slices.ContainsFunc(b.Puts, func(v model.Value) bool { return v.Key() == k })
	})
	return b
}
