package policy_test

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
)

// TestAllPorts: a backend whose slice names no port takes all of its protocol, so that
// what denies a service leaves none open, from the moment the slice says so.
func TestAllPorts(t *testing.T) {
	t.Parallel()
	service := model.Service{Namespace: "ns", Name: "db"}
	slice := func(name, addr string, ports ...model.NamedPort) model.EndpointSlice {
		return model.EndpointSlice{Namespace: "ns", Name: name, Service: service, Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Ports: ports}
	}
	base := []model.Value{
		endpoint(benchNode, "web1", "web", "10.0.0.1", "fd00::1"),
		model.Profile{Name: "kns.ns", Egress: []model.Rule{{Action: model.Allow}}},
		model.Policy{
			Origin: model.Key{Kind: model.KindGlobalNetworkPolicy, Name: "p"}, Tier: "default", Selector: parsed(t, "all()"), AppliesEgress: true,
			Egress: []model.Rule{{Action: model.Log, Destination: model.Entity{Service: service}}, {Action: model.Deny, Destination: model.Entity{Service: service}}, {Action: model.Allow}},
		},
	}
	graph, got, world := policy.NewGraph(benchNode), plan.Filter{}, model.World{}
	for _, step := range []struct {
		name                  string
		b                     model.Batch
		named, other, udp, v6 bool // allowed: TCP to port 80 and 81, UDP to 80, TCP to 80 of the IPv6 backend
	}{
		{"no backends", model.Batch{Reset: true, Synced: true, Puts: base}, true, true, true, true},
		{"a port", model.Batch{Puts: []model.Value{slice("a", "10.0.9.9", model.NamedPort{Protocol: 6, Port: 80})}}, false, true, true, true},
		{"all ports", model.Batch{Puts: []model.Value{slice("a", "10.0.9.9", model.NamedPort{Protocol: 6})}}, false, false, true, true},
		{"a port too", model.Batch{Puts: []model.Value{slice("b", "10.0.9.9", model.NamedPort{Protocol: 6, Port: 80}, model.NamedPort{Protocol: 17, Port: 53})}}, false, false, true, true},
		{"of IPv6", model.Batch{Puts: []model.Value{slice("c", "fd00::99", model.NamedPort{Protocol: 6})}}, false, false, true, false},
		{"of UDP", model.Batch{Puts: []model.Value{slice("a", "10.0.9.9", model.NamedPort{Protocol: 17})}}, false, true, false, false},
		{"gone", model.Batch{Deletes: []model.Key{slice("a", "10.0.9.9").Key(), slice("c", "fd00::99").Key()}}, false, true, true, true},
	} {
		world = world.Apply(step.b)
		got = got.Apply(graph.Step(step.b))
		want := policy.Compile(benchNode, world, nil, graph.Settings())
		if d := plan.DiffFilters(want, got); d != "" {
			t.Fatalf("%s: (-want +got):\n%s", step.name, d)
		}
		view := policy.NewView(world)
		for _, p := range []struct {
			src, dst string
			proto    uint8
			port     uint16
			allowed  bool
		}{
			{"10.0.0.1", "10.0.9.9", 6, 80, step.named},
			{"10.0.0.1", "10.0.9.9", 6, 81, step.other},
			{"10.0.0.1", "10.0.9.9", 17, 80, step.udp},
			{"fd00::1", "fd00::99", 6, 80, step.v6},
		} {
			table, packet := &got.V4, plan.Packet{InLink: "caliweb1", OutLink: "eth0", Src: netip.MustParseAddr(p.src), Dst: netip.MustParseAddr(p.dst), Protocol: p.proto, DstPort: p.port, SrcPort: 4000, State: plan.StateNew}
			if packet.Src.Is6() {
				table = &got.V6
			}
			j := table.Judge(plan.Forward, packet)
			if j.Denied() == p.allowed {
				t.Errorf("%s: %s port %d of protocol %d: %+v, want allowed %t", step.name, p.dst, p.port, p.proto, j, p.allowed)
			}
			e, err := view.Verdict(policy.Query{Src: policy.Party{Addr: packet.Src}, Dst: policy.Party{Addr: packet.Dst}, Protocol: p.proto, SrcPort: 4000, DstPort: p.port})
			if err != nil || e.Allowed != p.allowed {
				t.Errorf("%s: %s port %d of protocol %d: explained %t, %v, want %t", step.name, p.dst, p.port, p.proto, e.Allowed, err, p.allowed)
			}
		}
	}
}
