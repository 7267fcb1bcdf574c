package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta2 "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/control"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
	"github.com/weft-net/weft/internal/testenv"
)

// world is a datastore in memory and an API server that is client-go's fake, with
// controllers between them.
type world struct {
	t    testing.TB
	st   store.Store
	kube *fake.Clientset
	set  kubernetes.Interface // that controllers use; kube unless a test says otherwise
	env  map[string]string
	mu   sync.Mutex
	log  strings.Builder
	now  func() time.Time
	page string // URL of the probes
	bare bool   // no configuration is there before the start
	// tune changes the configuration before it runs; nil: nothing.
	tune func(*control.Config)
}

// newWorld has these objects in Kubernetes, beside nothing in the datastore but the
// pools pool-a (10.10.0.0/24 in /28), pool-six, and lb-four for services.
func newWorld(t testing.TB, objects ...runtime.Object) *world {
	return newWorldOn(t, mem.New(), objects...)
}

// newWorldOn is newWorld with another datastore.
func newWorldOn(t testing.TB, st store.Store, objects ...runtime.Object) *world {
	w := &world{t: t, st: st, kube: fake.NewClientset(objects...), env: map[string]string{}, now: time.Now}
	w.set = w.kube
	w.kube.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, nil
	})
	w.apply(
		"kind: IPPool\nmetadata: {name: pool-a}\nspec: {cidr: 10.10.0.0/24, blockSize: 28}",
		"kind: IPPool\nmetadata: {name: pool-six}\nspec: {cidr: 'fd00:10::/112', blockSize: 122}",
		"kind: IPPool\nmetadata: {name: lb-four}\nspec: {cidr: 192.0.2.0/24, blockSize: 28, allowedUses: [LoadBalancer], nodeSelector: all()}",
	)
	return w
}

// apply creates objects in the datastore.
func (w *world) apply(docs ...string) {
	w.t.Helper()
	for _, doc := range docs {
		o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\n" + doc))
		if err != nil {
			w.t.Fatal(err)
		}
		v3.Default(o)
		if _, err := w.st.Commit(w.t.Context(), store.Op{Verb: store.Create, Object: store.New(o)}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// assign gives a pod "d/NAME" on a node one address of each family, and returns them.
func (w *world) assign(node, pod string) []netip.Addr {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	a := allocator.New(w.st, node, w.now)
	go func() { _ = a.Run(ctx) }()
	r := ipam.Request{Use: model.UseWorkload, Holder: ipam.PodHolder("net."+pod, node, "d", pod, w.now())}
	r.V4.Count, r.V6.Count = 1, 1
	got, err := a.Assign(ctx, allocator.Request{Request: r})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []netip.Addr
	for _, x := range got.Addrs {
		out = append(out, x.Addr)
	}
	return out
}

// start runs controllers until the test ends, or stop is called.
func (w *world) start() (stop func()) {
	w.t.Helper()
	env, err := control.EnvFrom(func(name string) string { return w.env[name] })
	if err != nil {
		w.t.Fatal(err)
	}
	c := control.Config{
		Store: w.st, Clientset: w.set, Etcd: true, Env: env, MaxShare: control.Share, Now: w.now,
		Namespace: "kube-system", Identity: "test", Log: slog.New(slog.NewTextHandler(w, nil)),
		// Nobody loses it because the machine is slow, and whoever takes over has not waited for its end.
		Lease:      control.Lease{Duration: 3 * testenv.Patience, Renew: 2 * testenv.Patience, Retry: 10 * time.Millisecond},
		RetryFirst: 20 * time.Millisecond, RetryLast: 100 * time.Millisecond,
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	c.Health, w.page = l, "http://"+l.Addr().String()
	if !w.bare && !w.has(model.KindKubeControllersConfiguration, "", "default") {
		// Tests side by side can't all have the port of the metrics.
		w.apply("kind: KubeControllersConfiguration\nmetadata: {name: default}\nspec: {prometheusMetricsPort: 0, controllers: {node: {leakGracePeriod: 15m}, loadBalancer: {}}}")
	}
	if w.tune != nil {
		w.tune(&c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = control.Run(ctx, c)
	}()
	stop = func() { cancel(); <-done }
	w.t.Cleanup(stop)
	return stop
}

// state is how a controller says it is.
func (w *world) state(name string) control.State {
	var s control.Status
	if err := json.Unmarshal([]byte(w.get("/status")), &s); err != nil {
		w.t.Fatal(err)
	}
	return s.Controllers[name]
}

// get is a page.
func (w *world) get(path string) string {
	w.t.Helper()
	resp, err := http.Get(w.page + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(body)
}

func (w *world) passes(name string) int { return w.state(name).Passes }

// alarms is how many passes a controller has made that has stopped; 0: it has not.
func (w *world) alarms(name string) int {
	if s := w.state(name); s.Alarm != "" {
		return s.Passes
	}
	return 0
}

// hide leaves an object out of lists, as an API server does that serves old ones.
func (w *world) hide(kind, name string) {
	w.kube.PrependReactor("list", kind, func(a clienttesting.Action) (bool, runtime.Object, error) {
		of := a.(clienttesting.ListActionImpl)
		list, err := w.kube.Tracker().List(of.GetResource(), of.Kind, of.GetNamespace())
		if err != nil {
			return true, nil, err
		}
		items, err := meta2.ExtractList(list)
		if err != nil {
			return true, nil, err
		}
		items = slices.DeleteFunc(items, func(o runtime.Object) bool {
			m, err := meta2.Accessor(o)
			return err == nil && m.GetName() == name
		})
		return true, list, meta2.SetList(list, items)
	})
}

// addrs are the addresses in a text.
func addrs(text string) []netip.Addr {
	var out []netip.Addr
	for f := range strings.FieldsSeq(text) {
		out = append(out, netip.MustParseAddr(f))
	}
	return out
}

// Write takes the log.
func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// until waits for what must come.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(testenv.Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: did not come; log:\n%s", what, w.logged())
		}
	}
}

// has reports whether the datastore has the object.
func (w *world) has(kind model.Kind, namespace, name string) bool {
	_, err := w.st.Get(w.t.Context(), model.Key{Kind: kind, Namespace: namespace, Name: name})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.t.Error(err)
	}
	return err == nil
}

// names lists what the datastore has of a kind.
func (w *world) names(kind model.Kind) []string {
	w.t.Helper()
	objects, err := w.st.List(w.t.Context(), kind, "")
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		key, err := model.KeyOf(o.Object)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, strings.TrimPrefix(key.Namespace+"/"+key.Name, "/"))
	}
	slices.Sort(out)
	return out
}

// held is the addresses that are in use, of holders whose handle begins with prefix.
func (w *world) held(prefix string) []string {
	w.t.Helper()
	objects, err := w.st.List(w.t.Context(), model.KindIPAMBlock, "")
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		if err != nil {
			w.t.Fatal(err)
		}
		b := v.(model.Block)
		for ord, at := range b.Allocations {
			if at >= 0 && strings.HasPrefix(b.Attributes[at].Handle, prefix) && b.Attributes[at].ReleasedAt.IsZero() {
				out = append(out, ipam.AddrAt(b.CIDR, ord).String())
			}
		}
	}
	slices.Sort(out)
	return out
}

func meta(name string, labels ...string) metav1.ObjectMeta {
	namespace, name, ok := strings.Cut(name, "/")
	if !ok {
		namespace, name = "", namespace
	}
	m := metav1.ObjectMeta{Namespace: namespace, Name: name}
	for i := 0; i+1 < len(labels); i += 2 {
		metav1.SetMetaDataLabel(&m, labels[i], labels[i+1])
	}
	return m
}

func node(name string, labels ...string) *corev1.Node {
	return &corev1.Node{ObjectMeta: meta(name, labels...)}
}

func namespace(name string, labels ...string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: meta(name, labels...)}
}

func account(name string, labels ...string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: meta(name, labels...)}
}

// pod is one of namespace d on a node.
func pod(node, name string, addrs []netip.Addr, labels ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: meta("d/"+name, labels...)}
	p.Spec.NodeName, p.Spec.ServiceAccountName, p.Status.Phase = node, "default", corev1.PodRunning
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
	return p
}

// record is the record of a node of Kubernetes.
func record(name, addr string) string {
	return fmt.Sprintf("kind: Node\nmetadata: {name: %s}\nspec: {bgp: {ipv4Address: %s/24}, orchRefs: [{nodeName: %s, orchestrator: k8s}]}", name, addr, name)
}

// confirm annotates the configuration.
func (w *world) confirm(value string) {
	w.t.Helper()
	key := model.Key{Kind: model.KindKubeControllersConfiguration, Name: "default"}
	w.until("confirmation", func() bool {
		o, err := w.st.Get(w.t.Context(), key)
		if err != nil {
			w.t.Fatal(err)
		}
		metav1.SetMetaDataAnnotation(o.Object.Meta(), control.ConfirmAnnotation, value)
		_, err = w.st.Commit(w.t.Context(), store.Op{Verb: store.Update, Object: o})
		return err == nil
	})
}

// update changes an object of the datastore.
func (w *world) update(o v3.Object, change func(v3.Object)) {
	w.t.Helper()
	key, err := model.KeyOf(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.until("update of "+key.String(), func() bool {
		stored, err := w.st.Get(w.t.Context(), key)
		if err != nil {
			w.t.Fatal(err)
		}
		if stored.Object.Meta().Labels == nil {
			stored.Object.Meta().Labels = map[string]string{}
		}
		change(stored.Object)
		_, err = w.st.Commit(w.t.Context(), store.Op{Verb: store.Update, Object: stored})
		return err == nil
	})
}

// forbid takes the rights on a kind away.
func (w *world) forbid(kind string) {
	w.kube.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		review := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview)
		if review.Spec.ResourceAttributes.Resource != kind {
			return false, nil, nil
		}
		return true, review, nil
	})
	w.kube.PrependReactor("*", kind, func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: kind}, "", errors.New("no role"))
	})
}

// clock is one that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}
