package model_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// TestAPIRoundTrip holds the way back against the only way in: what Parse makes
// of an API object is the value it was made from, and its key is the value's.
func TestAPIRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 20, 6, 8, 51, 0, time.UTC)
	v4, v6 := netip.MustParsePrefix("10.0.0.8/30"), netip.MustParsePrefix("fd00:10::ae80/126")
	for name, value := range map[string]model.Value{
		"block": model.Block{
			CIDR: v4, Owner: model.HostAffinity("node-a"), ClaimedAt: at,
			Allocations: []int{0, -1, 1, 0}, Unallocated: []int{1},
			Attributes: []model.Attribute{
				{Handle: "net.c1", Secondary: map[string]string{"pod": "p1"}, AlternateOwner: map[string]string{"pod": "p2"}},
				{ReleasedAt: at},
			},
			Sequence: 12, SequenceOf: map[int]uint64{0: 9, 2: 10, 3: 9},
		},
		"block without owner": model.Block{
			CIDR: v6, Allocations: []int{-1, -1, -1, -1}, Unallocated: []int{2, 3, 0, 1}, SequenceOf: map[int]uint64{},
		},
		"block of a virtual owner": model.Block{
			CIDR: v4, Owner: model.Affinity{Type: model.AffinityVirtual, Node: "load-balancer"}, Deleted: true,
			Allocations: []int{-1, -1, -1, -1}, Unallocated: []int{0, 1, 2, 3}, SequenceOf: map[int]uint64{},
		},
		"handle":       model.Handle{ID: "k8s-pod-network.C1", Blocks: map[netip.Prefix]int{v4: 2, v6: 1}},
		"empty handle": model.Handle{ID: "h", Blocks: map[netip.Prefix]int{}, Deleted: true},
		"affinity": model.BlockAffinity{
			Owner: model.HostAffinity("node-a"), CIDR: v6, State: model.AffinityPending,
		},
		"virtual affinity": model.BlockAffinity{
			Owner: model.Affinity{Type: model.AffinityVirtual, Node: "lb"}, CIDR: v4, State: model.AffinityConfirmed,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := api(value)
			got, err := model.Parse(o)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(value, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Errorf("after a round trip (-want +got):\n%s", d)
			}
			if key, err := model.KeyOf(o); err != nil || key != value.Key() {
				t.Errorf("key is %v, %v, want %v", key, err, value.Key())
			}
		})
	}
}

func api(v model.Value) v3.Object {
	switch v := v.(type) {
	case model.Block:
		return v.API()
	case model.Handle:
		return v.API()
	default:
		return v.(model.BlockAffinity).API()
	}
}
