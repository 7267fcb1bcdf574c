package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	kubestore "github.com/weft-net/weft/internal/store/kube"
	"github.com/weft-net/weft/internal/store/kube/kubetest"
	"github.com/weft-net/weft/internal/store/storetest"
	"github.com/weft-net/weft/internal/testenv"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
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
				return storetest.Target{Store: c.open(t, kubestore.Options{}), Piecewise: true, Resumes: true, Pod: c.pod, Compact: api.Compact, Restart: api.Break, Kinds: kinds()}
			})
		})
	}
}

// TestK8sStore runs the conformance test on a real API server, in both groups.
func TestK8sStore(t *testing.T) {
	api := testenv.APIServer(t)
	c := newCluster(t, kube.Config{Kubeconfig: api.Kubeconfig("admin")})
	var one sync.Mutex // the cases have one server, one after the other
	for _, group := range []kubestore.Group{kubestore.Native, kubestore.Legacy} {
		name, _, _ := strings.Cut(string(group), "/")
		resources := kubetest.CalicoResources(name)
		c.install(resources...)
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
