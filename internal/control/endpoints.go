package control

import (
	"context"
	"errors"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// endpoints keeps the labels of stored endpoints those of their pods. It neither makes
// nor removes endpoints.
func (t *term) endpoints() controller {
	return controller{name: WorkloadEndpoint, needs: []kube.Access{reading(pods)}, run: func(ctx context.Context) error {
		f, err := t.feed(ctx, WorkloadEndpoint, pods)
		if err != nil {
			return err
		}
		changed, stop := follow(f, sameLabels)
		defer stop()
		return t.loop(ctx, WorkloadEndpoint, changed.kick, func(ctx context.Context, all bool) error {
			keys, _ := changed.take()
			err := t.labelEndpoints(ctx, f, keys, all)
			if err != nil {
				changed.again(keys)
			}
			return err
		}, func() []string { return nil })
	}}
}

// sameLabels tells that two versions of a pod come to the same labels of its endpoint:
// pods change often, their labels hardly ever.
func sameLabels(old, now any) bool {
	a, ok1 := old.(*corev1.Pod)
	b, ok2 := now.(*corev1.Pod)
	return ok1 && ok2 && maps.Equal(a.Labels, b.Labels) && a.Spec.NodeName == b.Spec.NodeName && a.UID == b.UID &&
		a.Spec.ServiceAccountName == b.Spec.ServiceAccountName && len(a.Status.PodIPs) == len(b.Status.PodIPs)
}

// labelEndpoints puts the labels of the pods in keys, or of all, on their endpoints.
func (t *term) labelEndpoints(ctx context.Context, f *feed, keys map[string]bool, all bool) error {
	var writes []write
	var errs []error
	look := func(o store.Object) {
		e, ok := o.Object.(*v3.WorkloadEndpoint)
		if !ok || e.Spec.Orchestrator != v3.OrchestratorKubernetes {
			return
		}
		source := e.Namespace + "/" + e.Spec.Pod
		p, ok := f.get(source).(*corev1.Pod)
		if !ok || !all && !keys[source] {
			return
		}
		labels := want.EndpointLabels(p.Namespace, p.Spec.ServiceAccountName, p.Labels)
		if !maps.Equal(labels, e.Labels) {
			next := *e
			next.Labels = labels
			writes = append(writes, write{source, store.Op{Verb: store.Update, Object: o.With(&next)}})
		}
	}
	if all {
		errs = append(errs, t.eachEndpoint(ctx, "", look))
	} else {
		errs = append(errs, t.lookUp(ctx, f, keys, look))
	}
	return errors.Join(append(errs, t.commit(ctx, writes))...)
}

// lookUp reads the endpoints of the pods in keys: by the name that nearly all have, or
// else by looking at all of the namespace.
func (t *term) lookUp(ctx context.Context, f *feed, keys map[string]bool, look func(store.Object)) error {
	rest := map[string]bool{}
	for _, source := range slices.Sorted(maps.Keys(keys)) {
		p, ok := f.get(source).(*corev1.Pod)
		if !ok || p.Spec.NodeName == "" || len(p.Status.PodIPs) == 0 {
			continue // it has no endpoint, or one that is being made with its labels
		}
		name, err := v3.WorkloadEndpointName(v3.EndpointID{
			Node: p.Spec.NodeName, Orchestrator: v3.OrchestratorKubernetes, Pod: p.Name, Endpoint: "eth0",
		})
		if err != nil {
			rest[p.Namespace] = true
			continue
		}
		o, err := t.store.Get(ctx, model.Key{Kind: model.KindWorkloadEndpoint, Namespace: p.Namespace, Name: name})
		switch {
		case errors.Is(err, store.ErrNotFound):
			rest[p.Namespace] = true
		case err != nil:
			return err
		default:
			look(o)
		}
	}
	var errs []error
	for namespace := range rest {
		errs = append(errs, t.eachEndpoint(ctx, namespace, look))
	}
	return errors.Join(errs...)
}

// eachEndpoint reads all endpoints of a namespace; empty: of all. What can't be read is
// passed over: whoever watches the datastore reports it.
func (t *term) eachEndpoint(ctx context.Context, namespace string, look func(store.Object)) error {
	objects, err := t.store.List(ctx, model.KindWorkloadEndpoint, namespace)
	for _, o := range objects {
		look(o)
	}
	if errors.Is(err, store.ErrUnreadable) {
		return nil
	}
	return err
}
