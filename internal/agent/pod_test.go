package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/kube"
)

// cluster is an orchestrator with the pods of the namespace shop.
type cluster struct {
	mu     sync.Mutex // of pods
	pods   map[string]kube.Pod
	ranges []netip.Prefix
	err    error
	asked  atomic.Int32 // for ranges
}

func (c *cluster) Pod(_ context.Context, namespace, name string) (kube.Pod, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.pods[name]
	switch {
	case c.err != nil:
		return kube.Pod{}, c.err
	case !ok || namespace != "shop":
		return kube.Pod{}, fmt.Errorf("kube: get pod %s/%s: %w", namespace, name, kube.ErrGone)
	}
	return p, nil
}

// change changes the pods while the agent runs.
func (c *cluster) change(f func(pods map[string]kube.Pod)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.pods)
}

func (c *cluster) PodCIDRs(context.Context, string) ([]netip.Prefix, error) {
	c.asked.Add(1)
	return c.ranges, c.err
}

const annotated = "cni.projectcalico.org/"

func TestEndpointIsAsThePodSays(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	b.orchestrator = &cluster{pods: map[string]kube.Pod{"web-1": {
		UID: "u1", Node: "node-a", ServiceAccount: "robot", Labels: map[string]string{"app": "pod", "tier": "front"},
		Annotations: map[string]string{
			annotated + "ipAddrs": `["10.0.0.9"]`, annotated + "hwAddr": "02:00:00:00:00:09", annotated + "floatingIPs": `["192.0.2.7"]`,
			"kubernetes.io/ingress-bandwidth": "10M", "qos.projectcalico.org/egressPacketRate": "1k", "other": "kept out",
		},
		NamespaceAnnotations: map[string]string{annotated + "hwAddr": "02:00:00:00:00:08", annotated + "allowedSourcePrefixes": `["203.0.113.0/24"]`},
		Ports:                []kube.PodPort{{Name: "http", Protocol: "TCP", Port: 80, HostPort: 8080, HostIP: netip.MustParseAddr("10.9.9.9")}},
	}}}
	r := addRequest("c1", "web-1")
	r.PodUID, r.Features = "u1", rpc.Features{FloatingIPs: true}
	r.Endpoint.Labels = map[string]string{"app": "conf", "zone": "b"}
	r.Endpoint.Ports = []rpc.Port{{Protocol: "tcp", Port: 80, HostPort: 8080}}
	got, err := b.Add(t.Context(), r)
	if err != nil || len(got.Addrs) != 1 || got.Addrs[0].String() != "10.0.0.9/32" || got.MAC != "02:00:00:00:00:09" {
		t.Fatalf("got %+v, %v", got, err)
	}
	o := b.endpoint()
	s := o.Spec
	if o.Labels["app"] != "pod" || o.Labels["tier"] != "front" || o.Labels["zone"] != "b" || o.Labels[v3.LabelServiceAccount] != "robot" ||
		o.Labels[v3.LabelNamespace] != "shop" || o.Labels[v3.LabelOrchestrator] != "k8s" {
		t.Errorf("labels: %v", o.Labels)
	}
	if !slices.Equal(s.Profiles, []string{"kns.shop", "ksa.shop.robot"}) || s.ServiceAccountName != "robot" || s.MAC != "02:00:00:00:00:09" {
		t.Errorf("spec: %+v", s)
	}
	if len(s.IPNATs) != 1 || s.IPNATs[0] != (v3.IPNAT{InternalIP: "10.0.0.9", ExternalIP: "192.0.2.7"}) || !slices.Equal(s.AllowSpoofedSourcePrefixes, []string{"203.0.113.0/24"}) {
		t.Errorf("floating addresses %v, source prefixes %v", s.IPNATs, s.AllowSpoofedSourcePrefixes)
	}
	if len(s.Ports) != 1 || s.Ports[0].Name != "http" || s.Ports[0].HostPort != 8080 || s.Ports[0].HostIP != "10.9.9.9" {
		t.Errorf("ports: %+v", s.Ports)
	}
	if s.QoSControls == nil || s.QoSControls.IngressBandwidth != 1e7 || s.QoSControls.EgressPacketRate != 1000 {
		t.Errorf("limits: %+v", s.QoSControls)
	}
	if len(o.Annotations) != 0 {
		t.Errorf("annotations of the pod were copied: %v", o.Annotations)
	}
	if again, err := b.Add(t.Context(), r); err != nil || again.Addrs[0] != got.Addrs[0] {
		t.Errorf("asked twice: %+v, %v", again, err)
	}
}

func TestPodsThatGetNoNetwork(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	c := &cluster{pods: map[string]kube.Pod{
		"other":     {UID: "u2", Node: "node-a"},
		"elsewhere": {UID: "u1", Node: "node-z"},
		"ends":      {UID: "u1", Node: "node-a", NamespaceDeleted: true},
		"goes":      {UID: "u1", Node: "node-a", Deleted: true},
		"done":      {UID: "u1", Node: "node-a", Finished: true},
		"typo":      {UID: "u1", Node: "node-a", Annotations: map[string]string{annotated + "ipAddrs": "10.0.0.1"}},
		"limit":     {UID: "u1", Node: "node-a", Annotations: map[string]string{"qos.projectcalico.org/ingressBandwidth": "fast"}},
		"floating":  {UID: "u1", Node: "node-a", Annotations: map[string]string{annotated + "floatingIPs": `["192.0.2.1"]`}},
		"bound":     {UID: "u1"}, // the binding may not have come to this API server yet
		"file":      {UID: "mirror", MirrorOf: "u1", Node: "node-a"},
	}}
	b.orchestrator = c
	for name, tt := range map[string]struct {
		code uint
		text string
	}{
		"other":     {rpc.CodeUnknownContainer, "UID u2: it was deleted and made anew"},
		"elsewhere": {rpc.CodeInvalidConfig, "bound to node node-z"},
		"ends":      {rpc.CodeUnknownContainer, "namespace shop is being deleted"},
		"goes":      {rpc.CodeUnknownContainer, "it is being deleted"},
		"done":      {rpc.CodeUnknownContainer, "it has finished"},
		"typo":      {rpc.CodeInvalidConfig, "pod shop/typo: annotation cni.projectcalico.org/ipAddrs"},
		"limit":     {rpc.CodeInvalidConfig, `pod shop/limit: annotation qos.projectcalico.org/ingressBandwidth: "fast"`},
		"floating":  {rpc.CodeInvalidConfig, "feature_control.floating_ips"},
		"nobody":    {rpc.CodeUnknownContainer, "pod shop/nobody: kube: get pod shop/nobody: the API server does not have it"},
		"bound":     {0, ""},
		"file":      {0, ""},
	} {
		r := addRequest("c-"+name, name)
		r.PodUID = "u1"
		_, err := b.Add(t.Context(), r)
		if tt.text == "" && err != nil || tt.text != "" && (codeOf(err) != tt.code || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%s: got %v, want code %d and %q", name, err, tt.code, tt.text)
		}
	}
	c.err = errors.New("kube: get pod shop/bound: connection refused")
	if _, err := b.Add(t.Context(), addRequest("c1", "bound")); codeOf(err) != rpc.CodeTryLater {
		t.Errorf("without an API server: %v", err)
	}
	if err := b.Del(t.Context(), rpc.DelRequest{Attachment: at("c-bound"), Workload: pod("bound")}); err != nil {
		t.Errorf("DEL without an API server: %v", err)
	}
	if s := b.state(); strings.Contains(s, "typo") || strings.Contains(s, "c-bound") {
		t.Errorf("state: %s", s)
	}
}

// What the runtime asks for by value, and what another IPAM plugin gave, no annotation
// changes.
func TestAnnotationsAndAddressesOfOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	asking := kube.Pod{Node: "node-a", Annotations: map[string]string{annotated + "ipAddrs": `["10.0.0.9"]`}}
	bringing := kube.Pod{Node: "node-a", Annotations: map[string]string{annotated + "ipAddrsNoIpam": `["10.8.0.9"]`}, NamespaceAnnotations: asking.Annotations}
	b.orchestrator = &cluster{pods: map[string]kube.Pod{"asks": asking, "brings": bringing}, ranges: []netip.Prefix{netip.MustParsePrefix("10.7.0.0/24")}}
	exact := addRequest("c1", "asks")
	exact.Address.Exact, exact.Fixed = []netip.Addr{netip.MustParseAddr("10.0.0.5")}, true
	given := addRequest("c2", "asks")
	given.Address, given.Endpoint.Given, given.Delegated = rpc.AddressWish{}, []netip.Prefix{netip.MustParsePrefix("10.7.0.5/24")}, true
	own := addRequest("c3", "brings")
	own.Features.AddrsNoIPAM = true
	for name, tt := range map[string]struct {
		r    rpc.AddRequest
		want string
	}{"of the runtime": {exact, "10.0.0.5/32"}, "of a plugin": {given, "10.7.0.5/24"}, "of its own": {own, "10.8.0.9/32"}} {
		if got, err := b.Add(t.Context(), tt.r); err != nil || len(got.Addrs) != 1 || got.Addrs[0].String() != tt.want {
			t.Errorf("%s: got %v, %v; want %s", name, got.Addrs, err, tt.want)
		}
	}
	before := b.state()
	preview := addRequest("c4", "asks")
	preview.Preview, preview.PodCIDRs = true, true
	for range 2 {
		got, err := b.Add(t.Context(), preview)
		if err != nil || len(got.Addrs) != 0 || len(got.Exact) != 1 || len(got.PodCIDRs) != 1 || got.MAC == "" {
			t.Errorf("preview: got %+v, %v", got, err)
		}
	}
	if n := b.orchestrator.(*cluster).asked.Load(); n != 1 {
		t.Errorf("the API server was asked %d times for what never changes", n)
	}
	if after := b.state(); after != before {
		t.Errorf("a preview changed %s to %s", before, after)
	}
}

func TestPodCIDRsThatAreMissing(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	r := addRequest("c1", "web")
	r.Preview, r.PodCIDRs = true, true
	if _, err := b.Add(t.Context(), r); codeOf(err) != rpc.CodeInvalidConfig || !strings.Contains(err.Error(), "KUBECONFIG") {
		t.Errorf("without an orchestrator: %v", err)
	}
	b.orchestrator = &cluster{pods: map[string]kube.Pod{"web": {}}}
	if _, err := b.Add(t.Context(), r); codeOf(err) != rpc.CodeTryLater || !strings.Contains(err.Error(), "allocate-node-cidrs") {
		t.Errorf("of a node without ranges: %v", err)
	}
}

// The pod's next container takes the link, and so the addresses of the one before lead
// nowhere: nobody need wait for its DEL.
func TestAddressesOfThePodsEarlierContainer(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	b.add(addRequest("c1", "db-0"))
	fresh := b.add(addRequest("c2", "db-0"))
	want := "net.c2 node--a-k8s-db--0-eth0=" + single(fresh.Addr()).String() + "@c2"
	if s := b.state(); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
}

func TestReadinessGates(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	r := addRequest("c1", "web-1")
	r.ReadinessGates = []string{server.URL + "/ready"}
	b.add(r)
	if n := asked.Load(); n < 2 {
		t.Errorf("ADD went on after %d answers, of which the first was 503", n)
	}
	r = addRequest("c2", "web-2")
	r.ReadinessGates = []string{"tcp://10.0.0.1"}
	if _, err := b.Add(t.Context(), r); codeOf(err) != rpc.CodeInvalidConfig || !strings.Contains(err.Error(), "tcp://10.0.0.1") {
		t.Errorf("a gate that is no URL: %v", err)
	}
	server.Close()
	r.ReadinessGates = []string{server.URL}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Add(ctx, r); codeOf(err) != rpc.CodeTryLater || !strings.Contains(err.Error(), server.URL) {
		t.Errorf("a gate that does not answer: %v", err)
	}
	if s := b.state(); strings.Contains(s, "web--2") {
		t.Errorf("an ADD before its gate left %s", s)
	}
}

// A pod that has finished keeps what it has until its DEL.
func TestFinishedPodKeepsItsEndpoint(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	c := &cluster{pods: map[string]kube.Pod{"web-1": {UID: "u1", Node: "node-a"}}}
	b.orchestrator = c
	b.add(addRequest("c1", "web-1"))
	before := b.state()
	c.pods["web-1"] = kube.Pod{UID: "u1", Node: "node-a", Finished: true}
	if _, err := b.GC(t.Context(), rpc.GCRequest{Network: "net", Valid: []rpc.Attachment{at("c1")}}); err != nil {
		t.Fatal(err)
	}
	if s := b.state(); s != before {
		t.Errorf("got %s, want %s", s, before)
	}
}

func TestLimitsOfTheRuntime(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	r := addRequest("c1", "web-1")
	r.Endpoint.Bandwidth = rpc.Bandwidth{IngressRate: 5e6, IngressBurst: 1e6, EgressRate: 7e6}
	r.Endpoint.Annotations = map[string]string{"qos.projectcalico.org/egressBandwidth": "2M"}
	b.add(r)
	if q := b.endpoint().Spec.QoSControls; q == nil || *q != (v3.QoSControls{IngressBandwidth: 5e6, IngressBurst: 1e6, EgressBandwidth: 2e6}) {
		t.Errorf("got %+v", q)
	}
	b.add(addRequest("c1", "web-1"))
	if q := b.endpoint().Spec.QoSControls; q != nil {
		t.Errorf("after an ADD without limits: %+v", q)
	}
}
