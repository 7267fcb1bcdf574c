package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// nodes are the nodes of Kubernetes. To write one is to patch the labels and annotations
// that differ; they are made and deleted by Kubernetes alone.
type nodes struct{ *Store }

// nodeResource is where nodes are.
func nodeResource() resource { return resource{path: "/api/v1", plural: "nodes"} }

// get implements backend.
func (n nodes) get(ctx context.Context, k model.Key) (store.Object, error) {
	if err := checkName("name", k.Name); err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	node, err := n.client.Clientset.CoreV1().Nodes().Get(ctx, k.Name, metav1.GetOptions{})
	if err != nil {
		return store.Object{}, about(k, nodeResource(), err)
	}
	return readNode(k, node)
}

func readNode(k model.Key, node *corev1.Node) (store.Object, error) {
	o, err := nodeOf(node)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: unreadable{err}}
	}
	return o, nil
}

// list implements backend.
func (n nodes) list(ctx context.Context, _ string) ([]store.Object, []error, error) {
	found, err := n.client.Clientset.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, translated(nodeResource(), err)
	}
	var out []store.Object
	var unread []error
	for i := range found.Items {
		o, err := readNode(model.Node{Name: found.Items[i].Name}.Key(), &found.Items[i])
		if err != nil {
			unread = append(unread, err)
			continue
		}
		out = append(out, o)
	}
	return out, unread, nil
}

// write implements backend.
func (n nodes) write(ctx context.Context, op store.Op, k model.Key) (store.Object, error) {
	o, ok := op.Object.Object.(*v3.Node)
	if !ok {
		return store.Object{}, &store.Error{Key: k, Err: fmt.Errorf("%T is no node", op.Object.Object)}
	}
	switch op.Verb {
	case store.Create:
		_, err := n.get(ctx, k)
		switch {
		case err == nil || errors.Is(err, store.ErrUnreadable):
			err = &store.Error{Key: k, Err: store.ErrExists}
		case errors.Is(err, store.ErrNotFound):
			err = &store.Error{Key: k, Err: refusedError{store.ErrRefused, errors.New("there is no such node in Kubernetes, whose kubelet registers it: set NODENAME to its name there")}}
		}
		return store.Object{}, err
	case store.Delete:
		return store.Object{}, &store.Error{Key: k, Err: refusedError{store.ErrRefused, errors.New("nodes are deleted in Kubernetes: kubectl delete node")}}
	}
	return n.update(ctx, op.Object, o, k)
}

// update patches what differs from what the writer has read. What others change besides,
// such as the kubelet's word that it is alive, is no conflict.
func (n nodes) update(ctx context.Context, given store.Object, o *v3.Node, k model.Key) (store.Object, error) {
	var was nodeMeta
	unread, rev := false, o.ResourceVersion
	if raw := given.Raw(); raw == nil || rev == "" || json.Unmarshal(raw, &was) != nil {
		node, err := n.client.Clientset.CoreV1().Nodes().Get(ctx, k.Name, metav1.GetOptions{})
		if err != nil {
			return store.Object{}, about(k, nodeResource(), err)
		}
		if rev != "" && rev != node.ResourceVersion {
			return store.Object{}, &store.Error{Key: k, Err: store.ErrConflict}
		}
		was, rev, unread = nodeMeta{node.Labels, node.Annotations}, node.ResourceVersion, true
	}
	want, err := metaFor(o)
	if err != nil {
		return store.Object{}, &store.Error{Key: k, Err: err}
	}
	labels, annotations := patchOf(was.Labels, want.Labels), patchOf(was.Annotations, want.Annotations)
	maps.DeleteFunc(labels, func(label string, v any) bool {
		return isOwnLabel(label) || unread && v == nil
	})
	// Who has not read the node does not know what others have written on it.
	maps.DeleteFunc(annotations, func(a string, v any) bool {
		return unread && v == nil && !strings.HasPrefix(a, nodePrefix) && !strings.HasPrefix(a, ownPrefix)
	})
	for {
		meta := map[string]any{"resourceVersion": rev}
		if len(labels) > 0 {
			meta["labels"] = labels
		}
		if len(annotations) > 0 {
			meta["annotations"] = annotations
		}
		body, err := json.Marshal(map[string]any{"metadata": meta})
		if err != nil {
			return store.Object{}, &store.Error{Key: k, Err: err}
		}
		node, err := n.client.Clientset.CoreV1().Nodes().Patch(ctx, k.Name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
		if err == nil {
			return readNode(k, node)
		}
		if !apierrors.IsConflict(err) {
			return store.Object{}, about(k, nodeResource(), err)
		}
		now, err := n.client.Clientset.CoreV1().Nodes().Get(ctx, k.Name, metav1.GetOptions{})
		if err != nil {
			return store.Object{}, about(k, nodeResource(), err)
		}
		if !stays(labels, was.Labels, now.Labels) || !stays(annotations, was.Annotations, now.Annotations) {
			return store.Object{}, &store.Error{Key: k, Err: store.ErrConflict}
		}
		rev = now.ResourceVersion
	}
}

// sources implements backend.
func (n nodes) sources() []source {
	api := n.client.Clientset.CoreV1().Nodes()
	return []source{{
		name: "nodes", resource: nodeResource(), expected: &corev1.Node{}, busy: true,
		lister: typedLister[*corev1.NodeList]{api},
		convert: func(obj any) found {
			node := obj.(*corev1.Node)
			k := model.Node{Name: node.Name}.Key()
			o, err := nodeOf(node)
			if err != nil {
				return found{invalids: []model.Invalid{{Key: k, Err: err}}}
			}
			return parsed(k, o.Object)
		},
	}}
}
