package policy

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// TestDefaultAllow: the profile that host endpoints name exists without an object, and
// again when an object of its name is gone.
func TestDefaultAllow(t *testing.T) {
	t.Parallel()
	host := model.HostEndpoint{Name: "h", Node: "node-a", Link: "eth0", Profiles: []string{model.DefaultAllow().Name}}
	closed := model.Profile{Name: model.DefaultAllow().Name}
	packet := plan.Packet{
		InLink: "eth0", Src: netip.MustParseAddr("10.0.0.2"), Dst: netip.MustParseAddr("10.0.0.1"), DstLocal: true,
		Protocol: protoTCP, SrcPort: 32768, DstPort: 8080, State: plan.StateNew,
	}
	g, world, got := NewGraph("node-a"), model.World{}, plan.Filter{}
	for i, step := range []struct {
		b      model.Batch
		denied bool
	}{
		{model.Batch{Reset: true, Synced: true, Puts: []model.Value{host}}, false},
		{model.Batch{Puts: []model.Value{closed}}, true},
		{model.Batch{Deletes: []model.Key{closed.Key()}}, false},
		{model.Batch{Reset: true, Synced: true, Puts: []model.Value{host}}, false},
	} {
		world, got = world.Apply(step.b), got.Apply(g.Step(step.b))
		if d := plan.DiffFilters(Compile("node-a", world, nil, g.Settings()), got); d != "" {
			t.Fatalf("step %d (-want +got):\n%s", i, d)
		}
		if got.V4.Judge(plan.Input, packet).Denied() != step.denied {
			t.Errorf("step %d: denied: %t, want %t", i, !step.denied, step.denied)
		}
	}
	if p := g.Problems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
}
