package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control"
	"github.com/weft-net/weft/internal/model"
)

// twoNodes is a world with the nodes node-a and node-b, and a pod on each that exists.
func twoNodes(t testing.TB) *world {
	w := newWorld(t, node("node-a", "zone", "one"), node("node-b"))
	w.apply(record("node-a", "192.168.0.1"), record("node-b", "192.168.0.2"))
	w.env["ENABLED_CONTROLLERS"] = "node"
	for _, at := range []string{"a", "b"} {
		got := w.assign("node-"+at, "web-"+at)
		if err := w.kube.Tracker().Add(pod("node-"+at, "web-"+at, got)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// TestNodeGone: what a deleted node leaves goes: record, endpoints, addresses of pods
// that are gone, tunnel addresses, blocks and claims. What others have stays.
func TestNodeGone(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	w.apply(
		"kind: WorkloadEndpoint\nmetadata: {name: node--b-k8s-web--b-eth0, namespace: d}\nspec: {orchestrator: k8s, node: node-b, pod: web-b, endpoint: eth0, containerID: c, interfaceName: cali1, ipNetworks: [10.10.0.1/32]}",
		"kind: WorkloadEndpoint\nmetadata: {name: node--a-k8s-web--a-eth0, namespace: d}\nspec: {orchestrator: k8s, node: node-a, pod: web-a, endpoint: eth0, containerID: c, interfaceName: cali1, ipNetworks: [10.10.0.2/32]}",
		// A host of another world, which Kubernetes has never had.
		"kind: Node\nmetadata: {name: docker-1}\nspec: {bgp: {ipv4Address: 192.168.0.9/24}}",
	)
	w.start()
	w.until("two passes", func() bool { return w.passes("node") >= 1 })
	if err := w.kube.CoreV1().Nodes().Delete(t.Context(), "node-b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("record", func() bool { return slices.Equal(w.names(model.KindNode), []string{"docker-1", "node-a"}) })
	if len(w.held("net.web-b")) != 2 {
		t.Error("released the addresses of a pod that exists still")
	}
	if err := w.kube.CoreV1().Pods("d").Delete(t.Context(), "web-b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("addresses", func() bool { return len(w.held("net.web-b")) == 0 })
	w.until("endpoint", func() bool {
		return slices.Equal(w.names(model.KindWorkloadEndpoint), []string{"d/node--a-k8s-web--a-eth0"})
	})
	w.until("blocks and claims", func() bool {
		return len(w.names(model.KindIPAMBlock)) == 2 && !strings.Contains(fmt.Sprint(w.names(model.KindBlockAffinity)), "node-b")
	})
	if got := w.held("net.web-a"); len(got) != 2 {
		t.Errorf("addresses of web-a: %v", got)
	}
	if got, want := w.names(model.KindIPAMHandle), []string{"net.web-a"}; !slices.Equal(got, want) {
		t.Errorf("handles: got %v, want %v", got, want)
	}
}

// TestPodsOfNodeGone: with Kubernetes as the datastore there is nothing but the addresses
// that tells of a node that is gone. They go when the pods do, which is later than the
// node, and nobody waits for the next look at everything; nor does anything go that an old
// list lacks.
func TestPodsOfNodeGone(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	w.env["RECONCILER_PERIOD"] = "24h" // just the events
	w.tune = func(c *control.Config) { c.Etcd = false }
	w.start()
	w.until("first pass", func() bool { return w.passes("node") >= 1 })
	before := w.passes("node")
	if err := w.kube.CoreV1().Nodes().Delete(t.Context(), "node-b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("pass after the node", func() bool { return w.passes("node") > before })
	if got := w.held("net.web-b"); len(got) != 2 {
		t.Fatalf("addresses of a pod that exists still: %v left", got)
	}
	if err := w.kube.CoreV1().Pods("d").Delete(t.Context(), "web-b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("addresses and blocks", func() bool {
		return len(w.held("net.web-b")) == 0 && len(w.names(model.KindIPAMBlock)) == 2
	})
	if got := w.held("net.web-a"); len(got) != 2 {
		t.Errorf("addresses of web-a: %v", got)
	}
}

// TestNodesAllGone: an API server without nodes is not believed.
func TestNodesAllGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(record("node-a", "192.168.0.1"))
	w.assign("node-a", "web-a")
	w.env["ENABLED_CONTROLLERS"] = "node"
	w.start()
	w.until("alarm", func() bool { return w.alarms("node") >= 3 })
	if got := w.names(model.KindNode); len(got) != 1 || len(w.held("")) != 2 {
		t.Errorf("removed: nodes left %v, addresses left %v", got, w.held(""))
	}
}

// TestManyNodesGone: more nodes at once than the budget stop the controller; with a
// confirmation it goes on.
func TestManyNodesGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, node("node-0"))
	for i := range 5 {
		w.apply(record(fmt.Sprintf("node-%d", i), fmt.Sprintf("192.168.0.%d", i+1)))
	}
	w.env["ENABLED_CONTROLLERS"] = "node"
	w.start()
	w.until("alarm", func() bool { return w.alarms("node") >= 2 })
	if got := w.names(model.KindNode); len(got) != 5 {
		t.Fatalf("nodes left: %v", got)
	}
	w.confirm("node=4")
	w.until("removal", func() bool { return len(w.names(model.KindNode)) == 1 })
}

// TestLocked: while the datastore is locked nothing is taken for gone.
func TestLocked(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	w.apply("kind: ClusterInformation\nmetadata: {name: default}\nspec: {datastoreReady: false}")
	w.assign("node-a", "leaked")
	clock := newClock()
	w.now = clock.now
	w.env["RECONCILER_PERIOD"] = "20ms"
	w.start()
	w.until("first look", func() bool { return w.passes("node") >= 2 })
	clock.add(time.Hour)
	before := w.passes("node")
	w.until("looks after the grace period", func() bool { return w.passes("node") >= before+3 })
	if len(w.held("net.leaked")) != 2 || !strings.Contains(strings.Join(w.state("node").Notes, " "), "the datastore is locked") {
		t.Errorf("released while it is locked; notes %q", w.state("node").Notes)
	}
	info := &v3.ClusterInformation{}
	info.Name = "default"
	w.update(info, func(o v3.Object) { o.(*v3.ClusterInformation).Spec.DatastoreReady = nil })
	w.until("a look of the unlocked", func() bool { return len(w.state("node").Notes) == 0 })
	clock.add(time.Hour)
	w.until("release", func() bool { return len(w.held("net.leaked")) == 0 })
}

// TestLeak: an address of a pod that is gone is released after the grace period, not
// before; that of a pod that an old list lacks is not.
func TestLeak(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	w.assign("node-a", "leaked")
	got := w.assign("node-a", "stale")
	if err := w.kube.Tracker().Add(pod("node-a", "stale", got)); err != nil {
		t.Fatal(err)
	}
	w.hide("pods", "stale")
	clock := newClock()
	w.now = clock.now
	w.env["RECONCILER_PERIOD"] = "20ms"
	w.start()
	w.until("first look", func() bool { return w.passes("node") >= 2 })
	clock.add(14 * time.Minute)
	before := w.passes("node")
	w.until("looks within the grace period", func() bool { return w.passes("node") >= before+3 })
	if len(w.held("net.leaked")) != 2 {
		t.Error("released before the grace period was over")
	}
	clock.add(2 * time.Minute)
	w.until("release", func() bool { return len(w.held("net.leaked")) == 0 })
	before = w.passes("node")
	w.until("looks after it", func() bool { return w.passes("node") >= before+3 })
	for _, pod := range []string{"stale", "web-a", "web-b"} {
		if got := w.held("net." + pod); len(got) != 2 {
			t.Errorf("addresses of %s: %v", pod, got)
		}
	}
}

// TestUnknownIsAlive: while the API server does not answer about a pod its addresses
// stay, whatever lists say.
func TestUnknownIsAlive(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	w.assign("node-b", "unknown")
	for _, fault := range []error{
		apierrors.NewInternalError(fmt.Errorf("etcd is away")),
		apierrors.NewTooManyRequests("slow down", 1),
		apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "unknown", fmt.Errorf("no")),
		&apierrors.StatusError{ErrStatus: metav1.Status{Reason: metav1.StatusReasonNotFound, Code: 404, Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{}}},
	} {
		w.kube.PrependReactor("get", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) { return true, nil, fault })
		stop := w.start()
		if err := w.kube.CoreV1().Nodes().Delete(t.Context(), "node-b", metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		w.until("passes that ask", func() bool { return w.passes("node") >= 3 })
		if got := w.held("net.unknown"); len(got) != 2 {
			t.Fatalf("%v: addresses left: %v", fault, got)
		}
		stop()
	}
}

// TestNodeLabels: labels of Kubernetes come and go; others stay.
func TestNodeLabels(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	labels := func() string {
		o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "node-a"})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(o.Object.Meta().Labels)
	}
	w.start()
	w.until("label", func() bool { return labels() == "map[zone:one]" })
	o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	w.update(o.Object, func(v v3.Object) { v.Meta().Labels["mine"] = "yes" })
	if _, err := w.kube.CoreV1().Nodes().Update(t.Context(), node("node-a", "rack", "r1"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("other label", func() bool { return labels() == "map[mine:yes rack:r1]" })
}

// TestHostEndpoints: they are made when the settings say so, follow the node, and go
// with the settings; those of users stay.
func TestHostEndpoints(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	w.apply("kind: HostEndpoint\nmetadata: {name: mine}\nspec: {node: node-a, interfaceName: eth0}",
		"kind: KubeControllersConfiguration\nmetadata: {name: default}\nspec: {prometheusMetricsPort: 0, controllers: {node: {hostEndpoint: {autoCreate: Enabled}}}}")
	w.env = map[string]string{}
	w.start()
	w.until("host endpoints", func() bool {
		return slices.Equal(w.names(model.KindHostEndpoint), []string{"mine", "node-a-auto-hep", "node-b-auto-hep"})
	})
	o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindHostEndpoint, Name: "node-a-auto-hep"})
	if err != nil {
		t.Fatal(err)
	}
	h := o.Object.(*v3.HostEndpoint)
	if got, want := fmt.Sprint(h.Labels, h.Spec.InterfaceName, h.Spec.ExpectedIPs, h.Spec.Profiles, h.Spec.Node),
		"map[projectcalico.org/created-by:calico-kube-controllers zone:one]*[192.168.0.1] [projectcalico-default-allow]node-a"; got != want {
		t.Errorf("host endpoint: got %s, want %s", got, want)
	}
	c, err := w.st.Get(t.Context(), model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"})
	if err != nil {
		t.Fatal(err)
	}
	w.update(c.Object, func(v v3.Object) {
		v.(*v3.KubeControllersConfiguration).Spec.Controllers.Node.HostEndpoint.AutoCreate = "Disabled"
	})
	w.until("removal", func() bool { return slices.Equal(w.names(model.KindHostEndpoint), []string{"mine"}) })
}

// TestWithoutPods: without the right to see pods all else of the node controller works,
// and it says which verbs are missing.
func TestWithoutPods(t *testing.T) {
	t.Parallel()
	w := twoNodes(t)
	w.forbid("pods")
	w.start()
	if err := w.kube.CoreV1().Nodes().Delete(t.Context(), "node-b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("record", func() bool { return slices.Equal(w.names(model.KindNode), []string{"node-a"}) })
	w.until("note", func() bool {
		return strings.Contains(strings.Join(w.state("node").Notes, " "), "get, list, watch pods")
	})
	if got := w.held("net.web"); len(got) != 4 {
		t.Errorf("addresses of pods: %v", got)
	}
}
