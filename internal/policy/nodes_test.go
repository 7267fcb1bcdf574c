package policy_test

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
)

// TestNodes: a rule about nodes follows their labels and addresses, and takes nothing that
// is no node, whatever labels that has.
func TestNodes(t *testing.T) {
	t.Parallel()
	host := func(name, zone string, addrs ...string) model.Node {
		n := model.Node{Name: name, Labels: map[string]string{"zone": zone}}
		for _, a := range addrs {
			n.Addrs = append(n.Addrs, netip.MustParseAddr(a))
		}
		return n
	}
	rule := func(zone string, a model.Action) model.Rule {
		return model.Rule{Action: a, Destination: model.Entity{Nodes: parsed(t, "zone == '%s'", zone)}}
	}
	base := []model.Value{
		endpoint(benchNode, "web1", "web", "10.0.0.1", "fd00::1"),
		model.NetworkSet{Name: "set", Nets: []netip.Prefix{netip.MustParsePrefix("10.9.0.7/32")}, Labels: map[string]string{"zone": "a"}},
		model.Profile{Name: "kns.ns", Egress: []model.Rule{{Action: model.Allow}}},
		model.Policy{
			Origin: model.Key{Kind: model.KindKubernetesClusterPolicy, Name: "p"}, Tier: "kube-admin", Selector: parsed(t, "all()"), AppliesEgress: true,
			Egress: []model.Rule{rule("a", model.Deny), {Action: model.Pass}},
		},
	}
	graph, got, world := policy.NewGraph(benchNode), plan.Filter{}, model.World{}
	for _, step := range []struct {
		name   string
		b      model.Batch
		denied string // of the addresses that are asked about
	}{
		{"none", model.Batch{Reset: true, Synced: true, Puts: base}, ""},
		{"one", model.Batch{Puts: []model.Value{host("n1", "a", "10.9.0.1", "fd09::1"), host("n2", "b", "10.9.0.2")}}, "10.9.0.1 fd09::1 "},
		{"relabelled", model.Batch{Puts: []model.Value{host("n2", "a", "10.9.0.2")}}, "10.9.0.1 10.9.0.2 fd09::1 "},
		{"moved", model.Batch{Puts: []model.Value{host("n1", "a", "10.9.0.3")}}, "10.9.0.2 10.9.0.3 "},
		{"two with one address", model.Batch{Puts: []model.Value{host("n1", "a", "10.9.0.2")}}, "10.9.0.2 "},
		{"one of them gone", model.Batch{Deletes: []model.Key{host("n2", "").Key()}}, "10.9.0.2 "},
		{"this node", model.Batch{Puts: []model.Value{host(benchNode, "a", "10.9.0.1")}}, "10.9.0.1 10.9.0.2 "},
		{"a snapshot without them", model.Batch{Reset: true, Synced: true, Puts: base}, ""},
		{"another policy", model.Batch{Puts: []model.Value{host("n1", "b", "10.9.0.1"), model.Policy{
			Origin: model.Key{Kind: model.KindKubernetesClusterPolicy, Name: "p"}, Tier: "kube-admin", Selector: parsed(t, "all()"), AppliesEgress: true,
			Egress: []model.Rule{rule("b", model.Deny), {Action: model.Pass}},
		}}}, "10.9.0.1 "},
		{"no policy", model.Batch{Deletes: []model.Key{{Kind: model.KindKubernetesClusterPolicy, Name: "p"}}}, ""},
	} {
		world = world.Apply(step.b)
		got = got.Apply(graph.Step(step.b))
		if d := plan.DiffFilters(policy.Compile(benchNode, world, nil, graph.Settings()), got); d != "" {
			t.Fatalf("%s: (-want +got):\n%s", step.name, d)
		}
		view := policy.NewView(world)
		denied, explained := "", ""
		for _, dst := range []string{"10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.7", "fd09::1"} {
			src, table, to := netip.MustParseAddr("10.0.0.1"), &got.V4, netip.MustParseAddr(dst)
			if to.Is6() {
				src, table = netip.MustParseAddr("fd00::1"), &got.V6
			}
			packet := plan.Packet{InLink: "caliweb1", OutLink: "eth0", Src: src, Dst: to, Protocol: 6, SrcPort: 4000, DstPort: 80, State: plan.StateNew}
			if table.Judge(plan.Forward, packet).Denied() {
				denied += dst + " "
			}
			e, err := view.Verdict(policy.Query{Src: policy.Party{Addr: src}, Dst: policy.Party{Addr: to}, Protocol: 6, SrcPort: 4000, DstPort: 80})
			if err != nil {
				t.Fatal(err)
			}
			if !e.Allowed {
				explained += dst + " "
			}
		}
		if denied != step.denied || explained != step.denied {
			t.Errorf("%s: denied %q, explained %q, want %q", step.name, denied, explained, step.denied)
		}
	}
}
