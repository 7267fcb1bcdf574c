package control_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

func networkPolicy(name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: meta(name), Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
	}}
}

// TestCopies: namespaces, service accounts and policies are followed, from the first
// list through changes to deletion; what is not ours stays.
func TestCopies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, namespace("shop", "team", "web"), account("shop/default", "tier", "x"), networkPolicy("shop/deny"))
	w.apply("kind: Profile\nmetadata: {name: mine}\nspec: {}",
		"kind: NetworkPolicy\nmetadata: {name: mine, namespace: shop}\nspec: {selector: all()}",
		// Left by a namespace that went while nobody looked.
		"kind: Profile\nmetadata: {name: kns.gone}\nspec: {}")
	w.env["ENABLED_CONTROLLERS"] = "policy,namespace,serviceaccount"
	w.start()
	want := []string{"kns.shop", "ksa.shop.default", "mine"}
	w.until("profiles", func() bool { return slices.Equal(w.names(model.KindProfile), want) })
	w.until("policies", func() bool {
		return slices.Equal(w.names(model.KindNetworkPolicy), []string{"shop/knp.default.deny", "shop/mine"})
	})
	profile := func(name string) map[string]string {
		o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindProfile, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return o.Object.(*v3.Profile).Spec.LabelsToApply
	}
	if got, want := fmt.Sprint(profile("kns.shop")), "map[pcns.projectcalico.org/name:shop pcns.team:web]"; got != want {
		t.Errorf("labels of kns.shop: got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(profile("ksa.shop.default")), "map[pcsa.projectcalico.org/name:default pcsa.tier:x]"; got != want {
		t.Errorf("labels of ksa.shop.default: got %s, want %s", got, want)
	}
	o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindNetworkPolicy, Namespace: "shop", Name: "knp.default.deny"})
	if err != nil {
		t.Fatal(err)
	}
	p := o.Object.(*v3.NetworkPolicy).Spec
	if p.Selector != "projectcalico.org/orchestrator == 'k8s' && app == 'web'" || p.Tier != "default" || p.Order == nil || *p.Order != 1000 {
		t.Errorf("stored policy: %+v", p)
	}

	api := w.kube
	if _, err := api.CoreV1().Namespaces().Update(t.Context(), namespace("shop", "team", "db"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("changed label", func() bool { return profile("kns.shop")["pcns.team"] == "db" })
	if err := api.NetworkingV1().NetworkPolicies("shop").Delete(t.Context(), "deny", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("deletion of the last policy", func() bool { return slices.Equal(w.names(model.KindNetworkPolicy), []string{"shop/mine"}) })
	if strings.Contains(w.logged(), "ERROR") {
		t.Errorf("log:\n%s", w.logged())
	}
}

// TestCopyIsQuiet: what is right is not written again.
func TestCopyIsQuiet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, namespace("shop", "team", "web"), account("shop/default"), networkPolicy("shop/deny"))
	w.env["ENABLED_CONTROLLERS"] = "policy,namespace,serviceaccount"
	w.env["RECONCILER_PERIOD"] = "10ms"
	w.start()
	w.until("profiles", func() bool { return len(w.names(model.KindProfile)) == 2 && len(w.names(model.KindNetworkPolicy)) == 1 })
	revs := func() string {
		var out []string
		for _, kind := range []model.Kind{model.KindProfile, model.KindNetworkPolicy} {
			objects, err := w.st.List(t.Context(), kind, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				out = append(out, o.Object.Meta().Name+"@"+o.Object.Meta().ResourceVersion)
			}
		}
		return strings.Join(out, " ")
	}
	before := revs()
	passes := w.passes("policy")
	w.until("ten passes more", func() bool { return w.passes("policy") >= passes+10 })
	if after := revs(); after != before {
		t.Errorf("written again: %s, before %s", after, before)
	}
}

// TestEmptyListStops: a list with nothing in it removes nothing, says so, and a person
// can say that it is right.
func TestEmptyListStops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3 {
		w.apply(fmt.Sprintf("kind: Profile\nmetadata: {name: kns.n%d}\nspec: {}", i))
	}
	w.env["ENABLED_CONTROLLERS"] = "namespace"
	w.start()
	w.until("alarm", func() bool { return strings.Contains(w.logged(), "list of namespaces is empty, and 3 are stored") })
	w.until("event", func() bool {
		list, err := w.kube.CoreV1().Events("kube-system").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) > 0 && list.Items[0].Reason == "MassRemovalStopped"
	})
	if got := w.names(model.KindProfile); len(got) != 3 {
		t.Fatalf("profiles left: %v", got)
	}
	w.confirm("namespace=2")
	alarms := w.alarms("namespace")
	w.until("more passes", func() bool { return w.alarms("namespace") >= alarms+3 })
	if got := w.names(model.KindProfile); len(got) != 3 {
		t.Fatalf("2 confirmed, 3 would go; left: %v", got)
	}
	w.confirm("namespace=3")
	w.until("removal after confirmation", func() bool { return len(w.names(model.KindProfile)) == 0 })
	o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if got := o.Object.Meta().Annotations; len(got) != 0 {
		t.Errorf("the confirmation was not used up: %v", got)
	}
}

// TestMassDeletionStops: many at once are stopped, also when they come one by one, and
// what is plausible goes on.
func TestMassDeletionStops(t *testing.T) {
	t.Parallel()
	var objects []runtime.Object
	for i := range 60 {
		objects = append(objects, namespace(fmt.Sprintf("n%02d", i)))
	}
	w := newWorld(t, objects...)
	w.env["ENABLED_CONTROLLERS"] = "namespace"
	w.start()
	w.until("profiles", func() bool { return len(w.names(model.KindProfile)) == 60 })
	for i := range 40 {
		if err := w.kube.CoreV1().Namespaces().Delete(t.Context(), fmt.Sprintf("n%02d", i), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.until("alarm", func() bool { return w.alarms("namespace") > 0 })
	// 20 % of 60 is 12; the minimum is 16.
	if got := len(w.names(model.KindProfile)); got < 60-16 {
		t.Errorf("%d profiles are left of 60", got)
	}
	for i := range 40 {
		if _, err := w.kube.CoreV1().Namespaces().Create(t.Context(), namespace(fmt.Sprintf("n%02d", i)), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	w.until("plausible again", func() bool { return len(w.names(model.KindProfile)) == 60 && w.state("namespace").Working })
}

// TestStaleListRemovesNothing: what a list lacks and a live read has stays.
func TestStaleListRemovesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, namespace("there"), namespace("stale"))
	w.hide("namespaces", "stale")
	w.apply("kind: Profile\nmetadata: {name: kns.stale}\nspec: {}", "kind: Profile\nmetadata: {name: kns.gone}\nspec: {}")
	w.env["ENABLED_CONTROLLERS"] = "namespace"
	w.start()
	w.until("removal of what is gone", func() bool { return !w.has(model.KindProfile, "", "kns.gone") })
	if !w.has(model.KindProfile, "", "kns.stale") {
		t.Error("removed the profile of a namespace that exists")
	}
}

// TestEndpointLabels: a changed label of a pod reaches its endpoint, with those of the
// system; the rest of the endpoint stays.
func TestEndpointLabels(t *testing.T) {
	t.Parallel()
	p := pod("node-a", "web", nil, "app", "one", "projectcalico.org/namespace", "forged")
	w := newWorld(t, p)
	w.apply("kind: WorkloadEndpoint\nmetadata: {name: node--a-k8s-web-eth0, namespace: d, labels: {old: x}}\n" +
		"spec: {orchestrator: k8s, node: node-a, pod: web, endpoint: eth0, containerID: c, interfaceName: cali1, ipNetworks: [10.10.0.1/32]}")
	w.env["ENABLED_CONTROLLERS"] = "workloadendpoint"
	w.start()
	endpoint := func() *v3.WorkloadEndpoint {
		o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "d", Name: "node--a-k8s-web-eth0"})
		if err != nil {
			t.Fatal(err)
		}
		return o.Object.(*v3.WorkloadEndpoint)
	}
	labels := func(app string) map[string]string {
		return map[string]string{"app": app, "projectcalico.org/namespace": "d", "projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "default"}
	}
	w.until("labels", func() bool { return maps.Equal(endpoint().Labels, labels("one")) })
	p = p.DeepCopy()
	p.Labels["app"] = "two"
	p.Status.PodIPs = pod("", "", addrs("10.10.0.1")).Status.PodIPs
	if _, err := w.kube.CoreV1().Pods("d").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("changed label", func() bool { return maps.Equal(endpoint().Labels, labels("two")) })
	if got := endpoint().Spec; got.InterfaceName != "cali1" || len(got.IPNetworks) != 1 {
		t.Errorf("spec: %+v", got)
	}
}
