package policy_test

import (
	"slices"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/test/policy/world"
)

// What is deleted and put again while a snapshot comes is as new, also where its lists
// have the name that they had.
func TestBackInSnapshot(t *testing.T) {
	t.Parallel()
	r := newReplay()
	all := append(smallWorld(t), endpoint(world.Node, "web1", "web", "10.0.0.1"))
	again := slices.Clone(all)
	deny := []model.Rule{{Action: model.Deny, Protocol: 17}}
	again[0] = model.Profile{Name: "kns.ns", Ingress: deny, Egress: deny}
	again[1] = webPolicy(t, `role == "client"`, 81)
	later := webPolicy(t, `role == "client"`, 82)
	for i, b := range []model.Batch{
		{Reset: true, Puts: all, Synced: true},
		{Reset: true, Puts: all},
		{Deletes: []model.Key{again[0].Key(), again[1].Key()}},
		{Puts: again, Synced: true},
		{Puts: []model.Value{later, all[0]}},
		{Deletes: []model.Key{later.Key()}},
	} {
		if err := r.step(b); err != nil {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
}
