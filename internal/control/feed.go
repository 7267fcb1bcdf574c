package control

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// resource names a kind of Kubernetes as its URL does.
type resource string

// The kinds that controllers watch.
const (
	pods            resource = "pods"
	nodes           resource = "nodes"
	namespaces      resource = "namespaces"
	serviceAccounts resource = "serviceaccounts"
	services        resource = "services"
	networkPolicies resource = "networkpolicies"
)

// group is the API group of a kind; empty: the core.
func (r resource) group() string {
	if r == networkPolicies {
		return networkingv1.GroupName
	}
	return ""
}

// feed is the cache of one kind: complete when it is synced, never certain.
type feed struct {
	what     resource
	informer cache.SharedIndexInformer

	mu  sync.Mutex
	err error // of the last list or watch; nil: it was well
}

// feeds makes one feed a kind, when the first controller wants it. They end with ctx.
type feeds struct {
	ctx  context.Context
	set  kubernetes.Interface
	wait sync.WaitGroup

	mu sync.Mutex
	m  map[resource]*feed
}

func newFeeds(ctx context.Context, set kubernetes.Interface) *feeds {
	return &feeds{ctx: ctx, set: set, m: map[resource]*feed{}}
}

// of is the feed of a kind, running.
func (f *feeds) of(what resource) *feed {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.m[what]; ok {
		return old
	}
	example, lw := f.source(what)
	made := &feed{what: what, informer: cache.NewSharedIndexInformer(
		cache.ToListWatcherWithWatchListSemantics(lw, f.set), example, 0, cache.Indexers{})}
	// Neither can fail before the informer runs.
	_ = made.informer.SetTransform(strip)
	_ = made.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) { made.note(err) })
	f.m[what] = made
	f.wait.Go(func() { made.informer.RunWithContext(f.ctx) })
	return made
}

// source lists and watches a kind.
func (f *feeds) source(what resource) (runtime.Object, *cache.ListWatch) {
	core := f.set.CoreV1()
	switch what {
	case pods:
		return &corev1.Pod{}, listWatch(core.Pods(metav1.NamespaceAll).List, core.Pods(metav1.NamespaceAll).Watch)
	case nodes:
		return &corev1.Node{}, listWatch(core.Nodes().List, core.Nodes().Watch)
	case namespaces:
		return &corev1.Namespace{}, listWatch(core.Namespaces().List, core.Namespaces().Watch)
	case serviceAccounts:
		return &corev1.ServiceAccount{}, listWatch(core.ServiceAccounts(metav1.NamespaceAll).List, core.ServiceAccounts(metav1.NamespaceAll).Watch)
	case services:
		return &corev1.Service{}, listWatch(core.Services(metav1.NamespaceAll).List, core.Services(metav1.NamespaceAll).Watch)
	case networkPolicies:
		of := f.set.NetworkingV1().NetworkPolicies(metav1.NamespaceAll)
		return &networkingv1.NetworkPolicy{}, listWatch(of.List, of.Watch)
	}
	panic("control: no such kind: " + string(what))
}

func listWatch[L runtime.Object](
	list func(context.Context, metav1.ListOptions) (L, error),
	watcher func(context.Context, metav1.ListOptions) (watch.Interface, error),
) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return watcher(ctx, o)
		},
	}
}

// note takes in what a list or watch said.
func (f *feed) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// synced waits until the feed is complete. The error says what keeps it from that.
func (f *feed) synced(ctx context.Context, patience <-chan struct{}) error {
	select {
	case <-f.informer.HasSyncedChecker().Done():
		f.note(nil)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-patience:
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return fmt.Errorf("list %s: %w", f.what, oneLine(f.err))
	}
	return fmt.Errorf("list %s: no answer from the API server yet", f.what)
}

// keys lists what is in the feed.
func (f *feed) keys() []string { return f.informer.GetStore().ListKeys() }

// get is an object of the feed by "namespace/name" or "name"; nil: there is none.
func (f *feed) get(key string) any {
	o, ok, err := f.informer.GetStore().GetByKey(key)
	if err != nil || !ok {
		return nil
	}
	return o
}

// strip takes from what the feeds hold all that no controller reads: they hold a whole
// cluster.
func strip(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.Pod:
		return stripPod(o), nil
	case *corev1.Node:
		return &corev1.Node{ObjectMeta: meta(&o.ObjectMeta, o.Labels, nil)}, nil
	case *corev1.Namespace:
		return &corev1.Namespace{ObjectMeta: meta(&o.ObjectMeta, o.Labels, nil)}, nil
	case *corev1.ServiceAccount:
		return &corev1.ServiceAccount{ObjectMeta: meta(&o.ObjectMeta, o.Labels, nil)}, nil
	case *corev1.Service:
		return stripService(o), nil
	case *networkingv1.NetworkPolicy:
		return &networkingv1.NetworkPolicy{ObjectMeta: meta(&o.ObjectMeta, nil, nil), Spec: o.Spec}, nil
	}
	return o, nil
}

func meta(m *metav1.ObjectMeta, labels, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion,
		Labels: labels, Annotations: annotations, DeletionTimestamp: m.DeletionTimestamp,
	}
}

// some is the entries of m with these keys; nil: there are none.
func some(m map[string]string, keys ...string) map[string]string {
	var out map[string]string
	for _, k := range keys {
		if v, ok := m[k]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
}
