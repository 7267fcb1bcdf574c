package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/model"
)

// Policies have one order, whichever way they come.
func TestComparePolicies(t *testing.T) {
	t.Parallel()
	key := func(kind model.Kind, namespace, name string) model.Key {
		return model.Key{Kind: kind, Namespace: namespace, Name: name}
	}
	want := []model.Policy{
		{Order: -1, Origin: key(model.KindNetworkPolicy, "x", "z")},
		{Order: 5, Origin: key(model.KindStagedGlobalNetworkPolicy, "", "a")}, // before the one that it would replace
		{Order: 5, Origin: key(model.KindGlobalNetworkPolicy, "", "a")},
		{Order: 5, Origin: key(model.KindKubernetesNetworkPolicy, "x", "a")},
		{Order: 5, Origin: key(model.KindStagedNetworkPolicy, "x", "a")},
		{Order: 5, Origin: key(model.KindNetworkPolicy, "x", "a")},
		{Order: 5, Origin: key(model.KindNetworkPolicy, "y", "a")},
		{Order: 5, Origin: key(model.KindGlobalNetworkPolicy, "", "b")},
		{Order: 1000, Origin: key(model.KindGlobalNetworkPolicy, "", "a")},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		got := slices.Clone(want)
		r.Shuffle(len(got), func(i, j int) { got[i], got[j] = got[j], got[i] })
		slices.SortFunc(got, func(a, b model.Policy) int { return ComparePolicies(&a, &b) })
		for i := range got {
			if got[i].Origin != want[i].Origin || got[i].Order != want[i].Order {
				t.Fatalf("at %d: %v, want %v", i, got[i].Origin, want[i].Origin)
			}
		}
	}
}

func TestEffectiveLabels(t *testing.T) {
	t.Parallel()
	first, second := &model.Profile{Labels: map[string]string{"a": "first", "b": "first"}}, &model.Profile{Labels: map[string]string{"b": "second", "c": "second"}}
	own := map[string]string{"a": "own"}
	if d := cmp.Diff(map[string]string{"a": "own", "b": "first", "c": "second"}, EffectiveLabels(own, []*model.Profile{first, second})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if len(own) != 1 || len(first.Labels) != 2 {
		t.Error("the labels given were changed")
	}
	if d := cmp.Diff(map[string]string{"b": "second", "c": "second"}, EffectiveLabels(nil, []*model.Profile{second})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestHostEndpointOf(t *testing.T) {
	t.Parallel()
	v := NewView(parse(t, town,
		`{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: b}, spec: {node: node-1, interfaceName: eth0}}`,
		`{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: c}, spec: {node: node-1, interfaceName: eth0}}`,
		`{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: d}, spec: {node: node-1, expectedIPs: [10.0.0.1]}}`,
		`{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: a}, spec: {node: node-1, interfaceName: "*", expectedIPs: [10.0.0.1]}}`,
		`{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: e}, spec: {node: node-2, interfaceName: eth1, expectedIPs: [10.0.0.2]}}`,
	))
	for name, tt := range map[string]struct {
		node, link, want string
	}{
		"by interface; the first of two": {"node-1", "eth0", "b"},
		"by address":                     {"node-1", "eth9", "d"},
		"one that names another interface is not found by address": {"node-2", "eth0", ""},
	} {
		n, _ := v.World()[model.Node{Name: tt.node}.Key()].(model.Node)
		s, ok := v.HostEndpointOf(tt.node, tt.link, []netip.Addr{n.IPv4.Addr()})
		if s.Key.Name != tt.want || ok != (tt.want != "") {
			t.Errorf("%s: %q, want %q", name, s.Key.Name, tt.want)
		}
	}
	if s, ok := v.HostEndpointOf("node-1", "eth9", nil); !ok || s.Key.Name != "a" {
		t.Errorf("all others: %q", s.Key.Name)
	}
}
