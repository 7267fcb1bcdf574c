package control_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// TestOneLeads: of two processes one works; when it ends in order the other takes over
// without waiting for the lease to run out.
func TestOneLeads(t *testing.T) {
	t.Parallel()
	w := newWorld(t, namespace("shop"))
	w.env["ENABLED_CONTROLLERS"] = "namespace"
	stop := w.start()
	first := w.page
	w.until("first leads", func() bool { return w.has(model.KindProfile, "", "kns.shop") })
	w.tune = func(c *control.Config) { c.Identity = "second" }
	w.start()
	second := w.page
	w.until("second waits, and is ready", func() bool { return strings.Contains(w.get("/readiness"), "another process leads") })
	w.page = first
	if !strings.Contains(w.get("/status"), `"leader":true`) {
		t.Error("the first leads no more")
	}
	stop()
	w.page = second
	w.until("second leads", func() bool { return strings.Contains(w.get("/status"), `"leader":true`) })
}

// lateStore reports writes that are made after the lease was lost.
type lateStore struct {
	store.Store
	lost, late atomic.Int64
}

func (s *lateStore) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if s.lost.Load() > 0 && ctx.Err() == nil {
		s.late.Add(1)
	}
	return s.Store.Commit(ctx, ops...)
}

// TestLostLeaseEnds: who can't renew the lease has ended its work before another may
// take over.
func TestLostLeaseEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, namespace("shop"))
	late := &lateStore{Store: w.st}
	w.st = late
	w.env["ENABLED_CONTROLLERS"] = "namespace"
	w.tune = func(c *control.Config) {
		c.Lease = control.Lease{Duration: 3 * time.Second, Renew: 2 * time.Second, Retry: 100 * time.Millisecond}
	}
	w.start()
	w.until("leads", func() bool { return w.has(model.KindProfile, "", "kns.shop") })
	var broken atomic.Bool
	broken.Store(true)
	w.kube.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		return broken.Load(), nil, errors.New("no answer")
	})
	w.until("lost", func() bool {
		return strings.Contains(w.logged(), "lease lost") && !strings.Contains(w.get("/status"), `"leader":true`)
	})
	late.lost.Store(1)
	if _, err := w.kube.CoreV1().Namespaces().Create(t.Context(), namespace("new"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	late.lost.Store(0) // first: it may lead again at once
	broken.Store(false)
	w.until("leads again", func() bool { return w.has(model.KindProfile, "", "kns.new") })
	if n := late.late.Load(); n > 0 {
		t.Errorf("%d writes without the lease", n)
	}
}

// TestConfiguration: it is created, says what is in force, and changes apply.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, namespace("shop"))
	w.env["RECONCILER_PERIOD"] = "7m"
	w.start()
	get := func() *v3.KubeControllersConfiguration {
		o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"})
		if err != nil {
			t.Fatal(err)
		}
		return o.Object.(*v3.KubeControllersConfiguration)
	}
	w.until("status", func() bool { return get().Status.RunningConfig != nil })
	s := get().Status
	if got := fmt.Sprint(s.EnvironmentVars, s.RunningConfig.Controllers.Node.ReconcilerPeriod.Duration); got != "map[RECONCILER_PERIOD:7m] 7m0s" {
		t.Errorf("status: %s", got)
	}
	if w.has(model.KindProfile, "", "kns.shop") {
		t.Error("a controller that is not enabled works")
	}
	w.update(get(), func(o v3.Object) {
		o.(*v3.KubeControllersConfiguration).Spec.Controllers.Namespace = &v3.ControllerConfig{}
	})
	w.until("a controller that is enabled later", func() bool { return w.has(model.KindProfile, "", "kns.shop") })
	w.update(get(), func(o v3.Object) {
		o.(*v3.KubeControllersConfiguration).Spec.LogSeverityScreen = "Loud"
	})
	w.until("word about invalid settings", func() bool { return strings.Contains(w.logged(), "settings are invalid") })
	if _, err := w.kube.CoreV1().Namespaces().Create(t.Context(), namespace("later"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until("work with the last good settings", func() bool { return w.has(model.KindProfile, "", "kns.later") })
}

// TestDefaultConfiguration: without one the default is created for the datastore.
func TestDefaultConfiguration(t *testing.T) {
	t.Parallel()
	for _, etcd := range []bool{true, false} {
		w := newWorld(t, namespace("shop"), node("node-a"))
		o, err := w.st.Get(t.Context(), model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"})
		if !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("%v %v", o, err)
		}
		w.bare = true
		w.tune = func(c *control.Config) { c.Etcd = etcd }
		w.start()
		w.until("configuration", func() bool { return w.has(model.KindKubeControllersConfiguration, "", "default") })
		o, err = w.st.Get(t.Context(), model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"})
		if err != nil {
			t.Fatal(err)
		}
		c := o.Object.(*v3.KubeControllersConfiguration).Spec.Controllers
		if c.Node == nil || c.LoadBalancer == nil || (c.Policy != nil) != etcd || (c.Namespace != nil) != etcd ||
			(c.ServiceAccount != nil) != etcd || (c.WorkloadEndpoint != nil) != etcd {
			t.Errorf("etcd %v: %+v", etcd, c)
		}
	}
}

// TestMissingRights: each missing verb is named, and other controllers work on.
func TestMissingRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t, namespace("shop"))
	w.env["ENABLED_CONTROLLERS"] = "namespace,policy"
	w.forbid("networkpolicies")
	w.start()
	w.until("work of the other", func() bool { return w.has(model.KindProfile, "", "kns.shop") })
	w.until("word", func() bool {
		return strings.Contains(w.logged(), "not allowed are get, list, watch networkpolicies.networking.k8s.io")
	})
	w.until("not ready", func() bool { return strings.HasPrefix(w.get("/readiness"), "policy: kubernetes: not allowed are") })
}
