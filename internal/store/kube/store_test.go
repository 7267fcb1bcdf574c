package kube_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	kubestore "github.com/weft-net/weft/internal/store/kube"
	"github.com/weft-net/weft/internal/store/kube/kubetest"
	"github.com/weft-net/weft/internal/store/storetest"
	"github.com/weft-net/weft/internal/testenv"
)

// TestStore runs the conformance test on the API server in memory: in both groups, with
// streamed lists and without.
func TestStore(t *testing.T) {
	t.Parallel()
	for name, streamed := range map[string]bool{"projectcalico.org": true, "crd.projectcalico.org": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(t *testing.T) storetest.Target {
				api := kubetest.New(t, kubetest.CalicoResources(name)...)
				api.NoStreamedLists = !streamed
				c := newCluster(t, api.Config())
				return storetest.Target{
					Store: c.open(t, kubestore.Options{}), Piecewise: true, Resumes: true, Kinds: kinds(), Pod: c.pod,
					Compact: api.Compact, Restart: api.Break,
				}
			})
		})
	}
}

// TestOpen: what is found decides, and what is missing is named.
func TestOpen(t *testing.T) {
	t.Parallel()
	native, legacy := kubetest.CalicoResources("projectcalico.org"), kubetest.CalicoResources("crd.projectcalico.org")
	without := func(all []kubetest.Resource, plurals ...string) []kubetest.Resource {
		var out []kubetest.Resource
		for _, r := range all {
			if !strings.Contains(" "+strings.Join(plurals, " ")+" ", " "+r.Plural+" ") {
				out = append(out, r)
			}
		}
		return out
	}
	for name, tt := range map[string]struct {
		resources []kubetest.Resource
		ids       string // of the clusters: "native legacy", - for none
		asked     kubestore.Group
		want      string
	}{
		"nothing":               {nil, "- -", "", "kubernetes: no CRD of projectcalico.org is installed: apply the CRDs that come with weft (deploy/crds), or set CALICO_API_GROUP if Calico's kinds are in another group"},
		"new":                   {native, "- -", "", "projectcalico.org/v3"},
		"Calico's":              {legacy, "- a", "", "crd.projectcalico.org/v1"},
		"Calico's, empty":       {legacy, "- -", "", "crd.projectcalico.org/v1"},
		"both, empty":           {append(native, legacy...), "- -", "", "projectcalico.org/v3"},
		"both, Calico's in use": {append(native, legacy...), "- a", "", "crd.projectcalico.org/v1"},
		"both, ours in use":     {append(native, legacy...), "a -", "", "projectcalico.org/v3"},
		"one seen twice":        {append(native, legacy...), "a a", "", "crd.projectcalico.org/v1"},
		"two clusters":          {append(native, legacy...), "a b", "", "kubernetes: crd.projectcalico.org/v1 and projectcalico.org/v3 hold different clusters (clusterGUID b and a): set CALICO_API_GROUP to the one to use, or delete the ClusterInformation of the other"},
		"two clusters, asked":   {append(native, legacy...), "a b", kubestore.Native, "projectcalico.org/v3"},
		"half":                  {without(native, "ippools", "ipamblocks"), "- -", "", "kubernetes: the CRDs of projectcalico.org are installed in part: missing are ipamblocks.projectcalico.org, ippools.projectcalico.org: apply all CRDs that come with weft (deploy/crds)"},
		"without late ones":     {without(legacy, "tiers", "bgpfilters", "caliconodestatuses"), "- a", "", "crd.projectcalico.org/v1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := kubetest.New(t, tt.resources...)
			c := newCluster(t, api.Config())
			for i, id := range strings.Fields(tt.ids) {
				group := []string{"projectcalico.org/v3", "crd.projectcalico.org/v1"}[i]
				if id != "-" {
					c.make("/apis/"+group+"/clusterinformations", fmt.Sprintf(`{"apiVersion":%q,"kind":"ClusterInformation","metadata":{"name":"default"},"spec":{"clusterGUID":%q}}`, group, id))
				}
			}
			s, err := kubestore.Open(t.Context(), c.config, kubestore.Options{Group: tt.asked})
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = string(s.Group())
			}
			if got != tt.want {
				t.Errorf("got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// follow runs a Watch beside the test.
type follow struct {
	mu     sync.Mutex
	world  model.World
	errs   []error
	gone   []model.Key
	synced int
	kick   chan struct{}
}

func newFollow(t *testing.T, s store.Source, kinds ...model.Kind) *follow {
	f := &follow{kick: make(chan struct{}, 1)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b, err := range s.Watch(ctx, kinds...) {
			f.mu.Lock()
			if err != nil {
				f.errs = append(f.errs, err)
			} else {
				f.world = f.world.Apply(b)
				f.gone = append(f.gone, b.Deletes...)
				if b.Synced {
					f.synced++
				}
			}
			f.mu.Unlock()
			select {
			case f.kick <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return f
}

// until waits until ok holds.
func (f *follow) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(testenv.Patience)
	for {
		f.mu.Lock()
		good := ok()
		state := fmt.Sprint(f.world, f.errs, f.synced)
		f.mu.Unlock()
		if good {
			return
		}
		select {
		case <-f.kick:
		case <-limit:
			t.Fatalf("never came: %s: %s", what, state)
		}
	}
}

func create(t *testing.T, s store.Store, objects ...v3.Object) []store.Object {
	t.Helper()
	var out []store.Object
	for _, o := range objects {
		done, err := s.Commit(t.Context(), storetest.Create(o))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, done...)
	}
	return out
}

// TestOutage: an API server that answers nothing but errors, while watches break and history
// is forgotten, ends no watch and deletes nothing; what changed meanwhile comes after it.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusForbidden} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
			c := newCluster(t, api.Config())
			s := c.open(t, kubestore.Options{})
			create(t, s, storetest.Pool("a", "10.0.0.0/16"), storetest.Pool("b", "10.1.0.0/16"))
			f := newFollow(t, s, model.KindIPPool, model.KindNode, model.KindProfile)
			f.until(t, "a snapshot", func() bool { return f.synced == 1 })
			api.Fail(func(r *http.Request) int {
				if r.Method == http.MethodGet {
					return code
				}
				return 0
			})
			api.Break()
			f.until(t, "an error", func() bool { return len(f.errs) > 0 })
			c.must("DELETE", "/apis/projectcalico.org/v3/ippools/a", "")
			api.Compact()
			if f.mu.Lock(); len(f.gone) > 0 || f.synced != 1 {
				t.Errorf("deleted %v in the outage, synced %d times", f.gone, f.synced)
			}
			f.mu.Unlock()
			api.Fail(nil)
			f.until(t, "the end of the outage", func() bool { return f.synced > 1 && len(f.world) == 1 })
		})
	}
}

// TestLateKind: a kind whose CRD is missing has no objects, and gets them when it is there.
func TestLateKind(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	c := newCluster(t, api.Config())
	s := c.open(t, kubestore.Options{})
	s.SetAbsent(time.Millisecond)
	f := newFollow(t, s)
	f.until(t, "a snapshot without it", func() bool { return f.synced == 1 })
	late := kubetest.Resource{Group: "policy.networking.k8s.io", Version: "v1alpha2", Plural: "clusternetworkpolicies", Kind: "ClusterNetworkPolicy"}
	api.Install(late)
	c.make(late.Path()+"/"+late.Plural, `{"apiVersion":"policy.networking.k8s.io/v1alpha2","kind":"ClusterNetworkPolicy","metadata":{"name":"p"},"spec":{"tier":"Admin","priority":1,"subject":{"namespaces":{}}}}`)
	f.until(t, "its object", func() bool {
		_, ok := f.world[model.Key{Kind: "KubernetesClusterNetworkPolicy", Name: "p"}]
		return ok
	})
	if objects, err := s.List(t.Context(), "KubernetesClusterNetworkPolicy", ""); err != nil || len(objects) != 1 {
		t.Errorf("list: %v, %v", objects, err)
	}
}

// TestInvalid: an object that makes no sense is told as such and removes nothing.
func TestInvalid(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	c := newCluster(t, api.Config())
	s := c.open(t, kubestore.Options{})
	create(t, s, storetest.Pool("a", "10.0.0.0/16"))
	var invalid []model.Invalid
	var mu sync.Mutex
	f := newFollow(t, tap{s, func(b model.Batch) {
		mu.Lock()
		defer mu.Unlock()
		invalid = append(invalid, b.Invalids...)
	}}, model.KindIPPool)
	f.until(t, "a snapshot", func() bool { return f.synced == 1 })
	c.must("PATCH", "/apis/projectcalico.org/v3/ippools/a", `{"spec":{"cidr":"here"}}`)
	f.until(t, "the invalid pool", func() bool { mu.Lock(); defer mu.Unlock(); return len(invalid) == 1 })
	f.mu.Lock()
	if f.world[model.Key{Kind: model.KindIPPool, Name: "a"}] == nil || !strings.Contains(invalid[0].Err.Error(), "here") {
		t.Errorf("%v, %v", f.world, invalid)
	}
	f.mu.Unlock()
	c.must("PATCH", "/apis/projectcalico.org/v3/ippools/a", `{"spec":{"cidr":7}}`)
	if objects, err := s.List(t.Context(), model.KindIPPool, ""); len(objects) != 0 || !errors.Is(err, store.ErrUnreadable) || !strings.HasPrefix(err.Error(), "IPPool/a: ") {
		t.Errorf("list: %v, %v", objects, err)
	}
	// A broken one can be replaced.
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: store.New(storetest.Pool("a", "10.0.0.0/16"))}); err != nil {
		t.Error(err)
	}
}

// tap looks at batches on their way.
type tap struct {
	store.Store
	see func(model.Batch)
}

func (s tap) Watch(ctx context.Context, kinds ...model.Kind) iter.Seq2[model.Batch, error] {
	return func(yield func(model.Batch, error) bool) {
		for b, err := range s.Store.Watch(ctx, kinds...) {
			s.see(b)
			if !yield(b, err) {
				return
			}
		}
	}
}

// TestPods: an endpoint is written as annotations of its pod, and what others change on the
// pod meanwhile is no conflict.
func TestPods(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	c := newCluster(t, api.Config())
	s := c.open(t, kubestore.Options{})
	key := model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "shop", Name: "n1-k8s-web-eth0"}
	if _, err := s.Commit(t.Context(), storetest.Create(storetest.Endpoint("shop", "web", "10.0.0.1"))); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an endpoint without a pod: %v", err)
	}
	c.pod("shop", "web")
	if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a pod without an address: %v", err)
	}
	made := create(t, s, storetest.Endpoint("shop", "web", "10.0.0.1"))[0]
	c.must("PATCH", "/api/v1/namespaces/shop/pods/web/status", `{"status":{"phase":"Running"}}`)
	next := *made.Object.(*v3.WorkloadEndpoint)
	next.Spec.ContainerID = "c2"
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: made.With(&next)}); err != nil {
		t.Errorf("after the kubelet's change: %v", err)
	}
	// made is old now: its container has changed.
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Delete, Object: made}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("delete of what has changed: %v", err)
	}
	now, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Delete, Object: now}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
	text := string(c.must("GET", "/api/v1/namespaces/shop/pods/web", ""))
	if !strings.Contains(text, `"cni.projectcalico.org/podIP":""`) {
		t.Errorf("the pod does not say that its address is released: %s", text)
	}
	other := storetest.Endpoint("shop", "web", "10.0.0.1")
	other.Spec.Orchestrator, other.Spec.Workload, other.Name = "cni", "x", "n1-cni-x-eth0"
	other.Spec.ContainerID = "x"
	if _, err := s.Commit(t.Context(), storetest.Create(other)); !errors.Is(err, store.ErrRefused) {
		t.Errorf("an endpoint that is no pod: %v", err)
	}
}

// TestNodes: nodes are there or not; what is written is what differs.
func TestNodes(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	c := newCluster(t, api.Config())
	s := c.open(t, kubestore.Options{})
	key := model.Node{Name: "n1"}.Key()
	node := &v3.Node{ObjectMeta: v3.ObjectMeta{Name: "n1"}, Spec: v3.NodeSpec{BGP: &v3.NodeBGPSpec{IPv4Address: "10.0.0.1/24"}}}
	if _, err := s.Commit(t.Context(), storetest.Create(node)); !errors.Is(err, store.ErrRefused) {
		t.Errorf("a node that Kubernetes does not know: %v", err)
	}
	c.make("/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1","labels":{"kubernetes.io/os":"linux"},"annotations":{"other":"x"}},"status":{"phase":"p"}}`)
	if _, err := s.Commit(t.Context(), storetest.Create(node)); !errors.Is(err, store.ErrExists) {
		t.Errorf("create: %v", err)
	}
	// Unread: what others have written stays.
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: store.New(node)}); err != nil {
		t.Fatal(err)
	}
	read, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	c.must("PATCH", "/api/v1/nodes/n1/status", `{"status":{"alive":"yes"}}`)
	next := *read.Object.(*v3.Node)
	next.Spec.IPv4VXLANTunnelAddr = "10.1.0.1"
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: read.With(&next)}); err != nil {
		t.Errorf("after the kubelet's change: %v", err)
	}
	other := *read.Object.(*v3.Node)
	other.Spec.IPv4VXLANTunnelAddr = "10.1.0.2"
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: read.With(&other)}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a field that another has changed: %v", err)
	}
	text := string(c.must("GET", "/api/v1/nodes/n1", ""))
	for _, want := range []string{`"other":"x"`, `"kubernetes.io/os":"linux"`, `"projectcalico.org/IPv4Address":"10.0.0.1/24"`, `"projectcalico.org/IPv4VXLANTunnelAddr":"10.1.0.1"`, `"alive":"yes"`, `"phase":"p"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the node lacks %s: %s", want, text)
		}
	}
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Delete, Object: store.New(node)}); !errors.Is(err, store.ErrRefused) {
		t.Errorf("delete: %v", err)
	}
}

// TestOldPolicyName: policies that an old version stored with their tier before the name.
func TestOldPolicyName(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("crd.projectcalico.org")...)
	c := newCluster(t, api.Config())
	s := c.open(t, kubestore.Options{})
	const path = "/apis/crd.projectcalico.org/v1/globalnetworkpolicies"
	c.make(path, `{"apiVersion":"crd.projectcalico.org/v1","kind":"GlobalNetworkPolicy","metadata":{"name":"default.web","annotations":{"projectcalico.org/metadata":"{\"name\":\"web\"}"}},"spec":{"selector":"all()","tier":"default"}}`)
	o, err := s.Get(t.Context(), model.Key{Kind: "GlobalNetworkPolicy", Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	next := *o.Object.(*v3.GlobalNetworkPolicy)
	next.Spec.Selector = "has(a)"
	if _, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: o.With(&next)}); err != nil {
		t.Fatal(err)
	}
	if text := string(c.must("GET", path+"/default.web", "")); !strings.Contains(text, "has(a)") {
		t.Errorf("written: %s", text)
	}
}

// TestAccess: the first refusal is followed by all rights that are missing, once.
func TestAccess(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	s := newCluster(t, api.Config()).open(t, kubestore.Options{})
	api.Deny(func(verb, _, resource string) bool {
		return verb != "get" && resource == "pods" || resource == "namespaces" && verb == "watch" || resource == "ippools"
	})
	const want = "kubernetes: not allowed are get, list, watch ippools.projectcalico.org; list, watch pods; watch namespaces: apply the ClusterRole that comes with weft (deploy/)"
	f := newFollow(t, s, model.KindIPPool, model.KindWorkloadEndpoint, model.KindProfile, model.KindTier)
	said := func() (n int) {
		for _, err := range f.errs {
			if errors.As(err, new(*kube.AccessError)) {
				n++
				if err.Error() != want {
					t.Errorf("got %v\nwant %s", err, want)
				}
			}
		}
		return n
	}
	f.until(t, "all that is missing", func() bool { return said() == 1 })
	api.Deny(nil)
	f.until(t, "all kinds", func() bool { return f.synced > 0 && said() == 1 })
}

// TestRefusals: the server's words are told, and by what they mean to the caller.
func TestRefusals(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	s := newCluster(t, api.Config()).open(t, kubestore.Options{})
	for code, want := range map[int]error{http.StatusForbidden: store.ErrRefused, http.StatusUnprocessableEntity: store.ErrRefused, http.StatusBadGateway: nil} {
		api.Fail(func(*http.Request) int { return code })
		_, err := s.Commit(t.Context(), storetest.Create(storetest.Pool("p", "10.0.0.0/16")))
		if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), "IPPool/p: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d: %v", code, err)
		}
		var one *store.Error
		if errors.As(err, &one) != (want != nil) {
			t.Errorf("%d: %v: names an object only if it is certain that nothing was done", code, err)
		}
	}
}

// TestManyPods: the addresses of thirty pods that start at once cost one write of the block
// for each group that waits, and nothing is read.
func TestManyPods(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	c := newCluster(t, api.Config())
	s := c.open(t, kubestore.Options{})
	create(t, s, storetest.Pool("p", "10.0.0.0/16"))
	c.pod("shop", "first")
	const n = 30
	for i := range n {
		c.pod("shop", fmt.Sprint("web", i))
	}
	a := allocator.New(s, "n1", time.Now)
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = a.Run(ctx) })
	defer run.Wait()
	defer stop()
	settings, _, err := store.Snapshot(t.Context(), s, model.KindIPPool, model.KindNode, model.KindIPAMConfig)
	if err != nil {
		t.Fatal(err)
	}
	b := model.Batch{Reset: true, Synced: true}
	for _, v := range settings {
		b.Puts = append(b.Puts, v)
	}
	a.Step(b)
	assign := func(pod string) {
		r := allocator.Request{Request: ipam.Request{Holder: model.Attribute{Handle: "net." + pod}, Use: model.UseWorkload, V4: ipam.Family{Count: 1}}}
		r.Extra = func(got []ipam.Assigned) ([]store.Op, error) {
			return []store.Op{storetest.Create(storetest.Endpoint("shop", pod, got[0].Addr.String()))}, nil
		}
		if _, err := a.Assign(t.Context(), r); err != nil {
			t.Errorf("%s: %v", pod, err)
		}
	}
	assign("first")
	before := api.Requests()
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { assign(fmt.Sprint("web", i)) })
	}
	all.Wait()
	after := api.Requests()
	if d := after["get"] - before["get"] + after["list"] - before["list"]; d != 0 {
		t.Errorf("%d reads", d)
	}
	creates, patches, updates := after["create"]-before["create"], after["patch"]-before["patch"], after["update"]-before["update"]
	if creates != n || patches != n || updates > n {
		t.Errorf("%d handles, %d pods, %d blocks written", creates, patches, updates)
	}
	t.Logf("%d pods: %d updates of the block", n, updates)
}

// TestEndpointsOn: of a node's pods those are asked for and no others.
func TestEndpointsOn(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t, kubetest.CalicoResources("projectcalico.org")...)
	s := newCluster(t, api.Config()).open(t, kubestore.Options{})
	var mu sync.Mutex
	var asked []string
	api.Fail(func(r *http.Request) int {
		if strings.HasSuffix(r.URL.Path, "/pods") {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, r.URL.Query().Get("fieldSelector"))
		}
		return 0
	})
	if _, err := store.EndpointsOn(t.Context(), s, "node-a"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(asked, " "); got != "spec.nodeName=node-a" {
		t.Errorf("asked for pods with %q", got)
	}
}
