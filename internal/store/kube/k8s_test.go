package kube_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	kubestore "github.com/weft-net/weft/internal/store/kube"
	"github.com/weft-net/weft/internal/store/kube/kubetest"
	"github.com/weft-net/weft/internal/store/storetest"
	"github.com/weft-net/weft/internal/testenv"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// cluster is an API server, real or not, as tests change it past the store.
type cluster struct {
	t      testing.TB
	config kube.Config
	client *kube.Client
	raw    rest.Interface
}

func newCluster(t testing.TB, config kube.Config) *cluster {
	t.Helper()
	client, err := kube.Connect(config)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{t, config, client, client.Clientset.CoreV1().RESTClient()}
}

// do sends a request and returns the answer.
func (c *cluster) do(verb, path string, body []byte) ([]byte, error) {
	kind := "application/json"
	if verb == "PATCH" {
		kind = "application/merge-patch+json"
	}
	r := c.raw.Verb(verb).AbsPath(path).SetHeader("Accept", "application/json").SetHeader("Content-Type", kind)
	if body != nil {
		r = r.Body(body)
	}
	answer := r.Do(context.Background())
	if err := answer.Error(); err != nil {
		return nil, err
	}
	return answer.Raw()
}

func (c *cluster) must(verb, path, body string) []byte {
	c.t.Helper()
	var text []byte
	if body != "" {
		text = []byte(body)
	}
	out, err := c.do(verb, path, text)
	if err != nil {
		c.t.Fatalf("%s %s: %v", verb, path, err)
	}
	return out
}

// apply creates the CRDs that come with weft, and waits until they are served.
func (c *cluster) apply(resources ...kubetest.Resource) {
	c.t.Helper()
	files, err := filepath.Glob("../../../deploy/crds/projectcalico.org_*.yaml")
	if err != nil || len(files) < len(resources) {
		c.t.Fatalf("%d CRDs, %v; want %d", len(files), err, len(resources))
	}
	for _, file := range files {
		doc, err := os.ReadFile(file)
		if err == nil {
			doc, err = yaml.YAMLToJSON(doc)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		c.must("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", string(doc))
	}
	c.install(resources...)
}

// install makes CRDs that take anything, and waits until they are served.
func (c *cluster) install(resources ...kubetest.Resource) {
	c.t.Helper()
	const definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	for _, r := range resources {
		if _, err := c.do("POST", definitions, r.CRD()); err != nil && !apierrors.IsAlreadyExists(err) {
			c.t.Fatalf("%s: %v", r.Plural, err)
		}
	}
	for _, r := range resources {
		for limit := time.Now().Add(testenv.Patience); ; time.Sleep(20 * time.Millisecond) {
			if _, err := c.do("GET", r.Path()+"/"+r.Plural, nil); err == nil {
				break
			} else if time.Now().After(limit) {
				c.t.Fatalf("%s is never served: %v", r.Plural, err)
			}
		}
	}
}

// empty deletes all objects of the resources, and all pods.
func (c *cluster) empty(resources ...kubetest.Resource) {
	c.t.Helper()
	for _, r := range resources {
		var list struct {
			Items []struct{ Metadata metav1.ObjectMeta }
		}
		if err := json.Unmarshal(c.must("GET", r.Path()+"/"+r.Plural, ""), &list); err != nil {
			c.t.Fatal(err)
		}
		var all sync.WaitGroup
		slots := make(chan struct{}, 16)
		for _, item := range list.Items {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				path := r.Path()
				if r.Namespaced {
					path += "/namespaces/" + item.Metadata.Namespace
				}
				if _, err := c.do("DELETE", path+"/"+r.Plural+"/"+item.Metadata.Name, []byte(`{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}`)); err != nil && !apierrors.IsNotFound(err) {
					c.t.Error(err)
				}
			})
		}
		all.Wait()
	}
}

// pod makes a pod that runs on a node, and what it needs.
func (c *cluster) pod(namespace, name string) {
	c.t.Helper()
	c.make("/api/v1/nodes", `{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}`)
	c.make("/api/v1/namespaces", fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q}}`, namespace))
	c.make("/api/v1/namespaces/"+namespace+"/pods", fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q},
		"spec":{"nodeName":"n1","containers":[{"name":"c","image":"i"}],"automountServiceAccountToken":false}}`, name))
}

// make creates an object, if it is not there.
func (c *cluster) make(path, body string) {
	c.t.Helper()
	if _, err := c.do("POST", path, []byte(body)); err != nil && !apierrors.IsAlreadyExists(err) {
		c.t.Fatalf("%s: %v", path, err)
	}
}

// open opens a store on the cluster.
func (c *cluster) open(t testing.TB, o kubestore.Options) *kubestore.Store {
	t.Helper()
	s, err := kubestore.Open(t.Context(), c.config, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// kinds are those that the conformance cases make and that an API server has none of by
// itself.
func kinds() []model.Kind {
	return []model.Kind{model.KindIPPool, model.KindIPAMHandle, model.KindIPAMBlock, model.KindWorkloadEndpoint, model.KindTier}
}

// TestK8sStore runs the conformance test on a real API server, in both groups.
func TestK8sStore(t *testing.T) {
	api := testenv.APIServer(t)
	c := newCluster(t, kube.Config{Kubeconfig: api.Kubeconfig("admin")})
	var one sync.Mutex // the cases have one server, one after the other
	for _, group := range []kubestore.Group{kubestore.Native, kubestore.Legacy} {
		name, _, _ := strings.Cut(string(group), "/")
		resources := kubetest.CalicoResources(name)
		if group == kubestore.Native {
			c.apply(resources...)
		} else {
			c.install(resources...)
		}
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) storetest.Target {
				one.Lock()
				t.Cleanup(func() {
					c.empty(append(resources, kubetest.Resource{Version: "v1", Plural: "pods", Kind: "Pod", Namespaced: true})...)
					one.Unlock()
				})
				return storetest.Target{Store: c.open(t, kubestore.Options{Group: group}), Piecewise: true, Resumes: true, Kinds: kinds(), Pod: c.pod}
			})
		})
	}
}

// TestK8sOutage stops a real API server, and freezes it: nothing is deleted, and what changes
// afterwards arrives.
func TestK8sOutage(t *testing.T) {
	api := testenv.APIServer(t)
	c := newCluster(t, kube.Config{Kubeconfig: api.Kubeconfig("admin")})
	c.apply(kubetest.CalicoResources("projectcalico.org")...)
	s := c.open(t, kubestore.Options{})
	create(t, s, storetest.Pool("a", "10.0.0.0/16"), storetest.Pool("b", "10.1.0.0/16"))
	f := newFollow(t, s, model.KindIPPool, model.KindNode, model.KindProfile, model.KindWorkloadEndpoint)
	f.until(t, "a snapshot", func() bool { return f.synced == 1 })
	api.Stop()
	f.until(t, "an error", func() bool { return len(f.errs) > 0 })
	if f.mu.Lock(); len(f.gone) > 0 {
		t.Errorf("deleted %v in the outage", f.gone)
	}
	f.mu.Unlock()
	api.Start()
	f.until(t, "the end of the outage", func() bool { return f.synced > 1 })
	thaw := api.Freeze()
	time.AfterFunc(time.Second, thaw)
	c.must("DELETE", "/apis/projectcalico.org/v3/ippools/a", "")
	f.until(t, "what changed", func() bool {
		_, a := f.world[model.Key{Kind: model.KindIPPool, Name: "a"}]
		_, b := f.world[model.Key{Kind: model.KindIPPool, Name: "b"}]
		return !a && b
	})
}

// TestK8sRights: a user without rights is told which, and an object that the CRDs refuse is
// refused in their words.
func TestK8sRights(t *testing.T) {
	api := testenv.APIServer(t)
	c := newCluster(t, kube.Config{Kubeconfig: api.Kubeconfig("admin")})
	c.apply(kubetest.CalicoResources("projectcalico.org")...)
	admin := c.open(t, kubestore.Options{})
	_, err := admin.Commit(t.Context(), storetest.Create(storetest.Pool("bad", "here")))
	if !errors.Is(err, store.ErrRefused) || !strings.HasPrefix(err.Error(), "IPPool/bad: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a pool that is none: %v", err)
	}
	c.must("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"r"},"rules":[{"apiGroups":["projectcalico.org"],"resources":["ippools","clusterinformations"],"verbs":["get","list"]}]}`)
	c.must("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"r"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"r"},"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":"reader"}]}`)
	reader, err := kubestore.Open(t.Context(), kube.Config{Kubeconfig: api.Kubeconfig("reader")}, kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const want = "kubernetes: not allowed are watch ippools.projectcalico.org; get, list, watch pods: apply the ClusterRole that comes with weft (deploy/)"
	// Rights come into force a moment after they are given: until then more are missing.
	for limit := time.Now().Add(testenv.Patience); ; time.Sleep(50 * time.Millisecond) {
		f := newFollow(t, reader, model.KindIPPool, model.KindWorkloadEndpoint)
		var missing *kube.AccessError
		f.until(t, "the missing rights", func() bool {
			return slices.ContainsFunc(f.errs, func(err error) bool { return errors.As(err, &missing) })
		})
		if missing.Error() == want {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("got %v\nwant %s", missing, want)
		}
	}
}
