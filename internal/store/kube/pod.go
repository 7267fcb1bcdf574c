package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

// pods are the workload endpoints: a pod is one once it has an address. To write one is to
// annotate its pod, to delete one to set these annotations to nothing.
type pods struct{ *Store }

// podResource is where pods are.
func podResource() resource { return resource{path: "/api/v1", plural: "pods", namespaced: true} }

// podOf is the name of the pod that the endpoint of k is, as its name says.
func podOf(k model.Key) (string, error) {
	if err := checkName("namespace", k.Namespace); err != nil {
		return "", err
	}
	if err := checkName("name", k.Name); err != nil {
		return "", err
	}
	id, err := v3.ParseWorkloadEndpointName(k.Name)
	if err != nil {
		return "", err
	}
	if id.Orchestrator != v3.OrchestratorKubernetes || id.Pod == "" || id.Endpoint != podEndpoint {
		return "", fmt.Errorf("name %q: must be NODE-k8s-POD-%s: in Kubernetes only pods are endpoints", k.Name, podEndpoint)
	}
	return id.Pod, nil
}

// get implements backend.
func (p pods) get(ctx context.Context, k model.Key) (store.Object, error) {
	name, err := podOf(k)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	pod, err := p.client.Clientset.CoreV1().Pods(k.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return store.Object{}, about(k, podResource(), err)
	}
	return p.endpoint(k, pod)
}

// endpoint is the endpoint of k, if pod is it.
func (p pods) endpoint(k model.Key, pod *corev1.Pod) (store.Object, error) {
	o, ok := endpointOf(pod, p.prefixes)
	if !ok || o.Meta().Name != k.Name {
		return store.Object{}, &store.Error{Key: k, Err: store.ErrNotFound}
	}
	return o, nil
}

// EndpointsOn implements [store.ByNode]: the API server sends the pods of that node only.
func (s *Store) EndpointsOn(ctx context.Context, node string) ([]store.Object, error) {
	of := fields.OneTermEqualSelector("spec.nodeName", node).String()
	objects, _, err := pods{s}.matching(ctx, metav1.NamespaceAll, of)
	if err != nil {
		return nil, fmt.Errorf("list %s of %s: %w", model.KindWorkloadEndpoint, node, err)
	}
	return objects, nil
}

// list implements backend.
func (p pods) list(ctx context.Context, namespace string) ([]store.Object, []error, error) {
	return p.matching(ctx, namespace, "")
}

// matching lists the endpoints of the pods that a field selector selects; empty: all.
func (p pods) matching(ctx context.Context, namespace, fields string) ([]store.Object, []error, error) {
	found, err := p.client.Clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: fields})
	if err != nil {
		return nil, nil, translated(podResource(), err)
	}
	var out []store.Object
	for i := range found.Items {
		if o, ok := endpointOf(&found.Items[i], p.prefixes); ok {
			out = append(out, o)
		}
	}
	return out, nil, nil
}

// write implements backend. A Create of an endpoint that its pod has already gives the pod
// that endpoint: there is one pod, and whoever gives it an address knows which.
func (p pods) write(ctx context.Context, op store.Op, k model.Key) (store.Object, error) {
	name, err := podOf(k)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: refusedError{store.ErrRefused, err}}
	}
	o, ok := op.Object.Object.(*v3.WorkloadEndpoint)
	if !ok {
		return store.Object{}, &store.Error{Key: k, Err: fmt.Errorf("%T is no endpoint", op.Object.Object)}
	}
	change := map[string]string{podIP: "", podIPs: ""}
	if op.Verb != store.Delete {
		if change, err = podAnnotations(o, p.prefixes); err != nil {
			return store.Object{}, &store.Error{Key: k, Err: refusedError{store.ErrRefused, err}}
		}
	}
	w := podWrite{pods: p, key: k, pod: name, verb: op.Verb, change: change}
	if raw := op.Object.Raw(); raw != nil && op.Verb != store.Create {
		if err := json.Unmarshal(raw, &w.was); err != nil {
			return store.Object{}, &store.Error{Key: k, Err: err}
		}
		w.rev = o.ResourceVersion
	} else if op.Verb == store.Update || op.Verb == store.Delete {
		was, err := p.get(ctx, k)
		if err != nil {
			return store.Object{}, err
		}
		if rev := was.Meta().ResourceVersion; o.ResourceVersion != "" && o.ResourceVersion != rev {
			return store.Object{}, &store.Error{Key: k, Err: store.ErrConflict}
		}
		_ = json.Unmarshal(was.Raw(), &w.was) // it is ours
		w.rev = was.Meta().ResourceVersion
	}
	return w.run(ctx, op.Object)
}

// podWrite is the write of an endpoint.
type podWrite struct {
	pods
	key    model.Key
	pod    string
	verb   store.Verb
	change map[string]string
	was    podFields // what the writer knows of the pod; zero: nothing
	rev    string    // its revision
}

// run writes. The kubelet and others change pods all the time; what they change besides the
// endpoint's own annotations is no conflict.
func (w podWrite) run(ctx context.Context, given store.Object) (store.Object, error) {
	pods := w.client.Clientset.CoreV1().Pods(w.key.Namespace)
	for {
		meta := map[string]any{"annotations": w.annotations()}
		if w.was.UID != "" {
			meta["uid"] = w.was.UID
		}
		if w.rev != "" {
			meta["resourceVersion"] = w.rev
		}
		body, err := json.Marshal(map[string]any{"metadata": meta})
		if err != nil {
			return store.Object{}, &store.Error{Key: w.key, Err: err}
		}
		pod, err := pods.Patch(ctx, w.pod, types.MergePatchType, body, metav1.PatchOptions{}, "status")
		switch {
		case err == nil && w.verb == store.Delete:
			return given, nil
		case err == nil:
			o, err := w.endpoint(w.key, pod)
			if errors.Is(err, store.ErrNotFound) {
				err = &store.Error{Key: w.key, Err: refusedError{store.ErrRefused, fmt.Errorf("pod %s is on node %q, in the host's network: %t, %s: it can't be this endpoint", w.pod, pod.Spec.NodeName, pod.Spec.HostNetwork, pod.Status.Phase)}}
			}
			return o, err
		case !apierrors.IsConflict(err) || w.rev == "":
			return store.Object{}, about(w.key, podResource(), err)
		}
		if err := w.again(ctx); err != nil {
			return store.Object{}, err
		}
	}
}

// annotations are those to write: own ones that are no longer wanted are taken off.
func (w podWrite) annotations() map[string]any {
	out := map[string]any{}
	for k := range w.was.Annotations {
		if _, wanted := w.change[k]; !wanted && isWritten(k) && w.verb != store.Delete {
			out[k] = nil
		}
	}
	for k, v := range w.change {
		out[k] = v
	}
	return out
}

// again takes the pod's new revision, if nothing that belongs to the endpoint has changed.
func (w *podWrite) again(ctx context.Context) error {
	now, err := w.get(ctx, w.key)
	if err != nil {
		return err
	}
	var fields podFields
	if err := json.Unmarshal(now.Raw(), &fields); err != nil {
		return &store.Error{Key: w.key, Err: err}
	}
	if fields.UID != w.was.UID || !equalMaps(fields.Annotations, w.was.Annotations) {
		return &store.Error{Key: w.key, Err: store.ErrConflict}
	}
	w.rev = now.Meta().ResourceVersion
	return nil
}

func equalMaps(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if other, ok := b[k]; !ok || other != v {
			return false
		}
	}
	return true
}

// sources implements backend.
func (p pods) sources() []source {
	api := p.client.Clientset.CoreV1().Pods(metav1.NamespaceAll)
	return []source{{
		name: "pods", resource: podResource(), expected: &corev1.Pod{}, busy: true,
		lister: typedLister[*corev1.PodList]{api},
		convert: func(obj any) found {
			o, ok := endpointOf(obj.(*corev1.Pod), p.prefixes)
			if !ok {
				return found{}
			}
			k, err := model.KeyOf(o.Object)
			if err != nil {
				return found{}
			}
			return parsed(k, o.Object)
		},
	}}
}
