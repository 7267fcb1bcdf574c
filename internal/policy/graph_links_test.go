package policy_test

import (
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
)

// TestNeedsLinks: interfaces count as long as this node has host endpoints.
func TestNeedsLinks(t *testing.T) {
	t.Parallel()
	host := func(node, name string) model.HostEndpoint {
		return model.HostEndpoint{Node: node, Name: name, Link: "eth0"}
	}
	g := policy.NewGraph("node-a")
	for _, step := range []struct {
		name string
		b    model.Batch
		want bool
	}{
		{"a workload", model.Batch{Reset: true, Synced: true, Puts: []model.Value{endpoint("node-a", "web", "web", "10.0.0.1")}}, false},
		{"a host of another node", model.Batch{Puts: []model.Value{host("node-b", "b")}}, false},
		{"a host", model.Batch{Puts: []model.Value{host("node-a", "a")}}, true},
		{"the same again", model.Batch{Puts: []model.Value{host("node-a", "a")}}, true},
		{"a second", model.Batch{Puts: []model.Value{host("node-a", "a2")}}, true},
		{"the first goes", model.Batch{Deletes: []model.Key{host("node-a", "a").Key()}}, true},
		{"the second moves", model.Batch{Puts: []model.Value{host("node-b", "a2")}}, false},
		{"back again", model.Batch{Puts: []model.Value{host("node-a", "a2")}}, true},
		{"a snapshot without", model.Batch{Reset: true, Synced: true}, false},
	} {
		g.Step(step.b)
		if got := g.NeedsLinks(); got != step.want {
			t.Fatalf("%s: got %t, want %t", step.name, got, step.want)
		}
	}
}
