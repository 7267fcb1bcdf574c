package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// ErrNoNode says that Kubernetes has no node of that name.
var ErrNoNode = errors.New("no such node in Kubernetes")

// Node is a node as Kubernetes has it.
type Node = corev1.Node

// Node reads a node. The error wraps ErrNoNode where there is none.
func (c *Client) Node(ctx context.Context, name string) (*corev1.Node, error) {
	n, err := c.Clientset.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("kube: node %s: %w", name, ErrNoNode)
	case err != nil:
		return nil, fmt.Errorf("kube: read node %s: %w", name, err)
	}
	return n, nil
}

// AwaitNode returns the node as soon as there is one of that name that will do: a kubelet
// registers it itself, maybe after the agent has started, and a cloud controller gives it its
// addresses later still. It waits by a watch; waiting is called when the wait begins, with what
// there is, nil for nothing. The error is that of a server that did not answer, or of ctx.
func (c *Client) AwaitNode(ctx context.Context, name string, do func(*Node) bool, waiting func(*Node)) (*Node, error) {
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	for told := false; ; told = true {
		list, err := c.Clientset.CoreV1().Nodes().List(ctx, only)
		if err != nil {
			return nil, fmt.Errorf("kube: read node %s: %w", name, err)
		}
		var there *Node
		for i := range list.Items {
			if list.Items[i].Name == name {
				there = &list.Items[i]
			}
		}
		if there != nil && do(there) {
			return there, nil
		}
		if !told {
			waiting(there)
		}
		from := only
		from.ResourceVersion = list.ResourceVersion
		w, err := c.Clientset.CoreV1().Nodes().Watch(ctx, from)
		if err != nil {
			return nil, fmt.Errorf("kube: watch node %s: %w", name, err)
		}
		if n := firstNode(ctx, w, name, do); n != nil {
			return n, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("kube: node %s: %w: %w", name, ErrNoNode, context.Cause(ctx))
		}
		if err := sleep(ctx, time.Second); err != nil { // a server may end watches at once
			return nil, err
		}
	}
}

// firstNode is the first node of that name that w tells of and that will do; nil: w ended.
func firstNode(ctx context.Context, w watch.Interface, name string, do func(*Node) bool) *Node {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.ResultChan():
			if !ok || e.Type == watch.Error {
				return nil
			}
			if n, ok := e.Object.(*corev1.Node); ok && n.Name == name && e.Type != watch.Deleted && do(n) {
				return n
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// InternalIPs are the addresses by which Kubernetes knows a node inside the cluster, in its
// order. What is no address is passed over.
func InternalIPs(n *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out = append(out, addr)
		}
	}
	return out
}

// Network is what the condition NetworkUnavailable of a node says.
type Network struct {
	Unavailable bool
	Reason      string // one word
	Message     string // for people
}

// NetworkOf is what the condition of n says; false: it has none.
func NetworkOf(n *corev1.Node) (Network, bool) {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeNetworkUnavailable {
			return Network{c.Status != corev1.ConditionFalse, c.Reason, c.Message}, true
		}
	}
	return Network{}, false
}

// SetNetwork makes the condition NetworkUnavailable of the node say w; the times in it are now.
// The caller has seen that it says otherwise: each call is a write (nodes/status, patch).
func (c *Client) SetNetwork(ctx context.Context, node string, w Network, now time.Time) error {
	condition := corev1.NodeCondition{
		Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: w.Reason, Message: w.Message,
		LastTransitionTime: metav1.NewTime(now), LastHeartbeatTime: metav1.NewTime(now),
	}
	if w.Unavailable {
		condition.Status = corev1.ConditionTrue
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{condition}}})
	if err != nil {
		return fmt.Errorf("kube: condition of node %s: %w", node, err)
	}
	_, err = c.Clientset.CoreV1().Nodes().Patch(ctx, node, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("kube: condition NetworkUnavailable of node %s: %w", node, err)
	}
	return nil
}

// AnnotateNode sets an annotation of the node; an empty value removes it.
func (c *Client) AnnotateNode(ctx context.Context, node, key, value string) error {
	var v any // null removes (RFC 7386)
	if value != "" {
		v = value
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: v}}})
	if err != nil {
		return fmt.Errorf("kube: annotation of node %s: %w", node, err)
	}
	if _, err = c.Clientset.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("kube: annotation %s of node %s: %w", key, node, err)
	}
	return nil
}

// NodeEvent is something that befell a node, for `kubectl describe node` and
// `kubectl get events`.
type NodeEvent struct {
	Node    string
	Reason  string // one word, such as AddressConflict
	Message string // one line, at most 1024 bytes
	Warning bool   // a person must act
}

// maxEventMessage is the API's limit of an event's message, bytes.
const maxEventMessage = 1024

// Tell writes an event about a node. The same one again counts up the first.
func (c *Client) Tell(ctx context.Context, e NodeEvent, now time.Time) error {
	if len(e.Message) > maxEventMessage {
		e.Message = strings.ToValidUTF8(e.Message[:maxEventMessage], "")
	}
	kind := corev1.EventTypeNormal
	if e.Warning {
		kind = corev1.EventTypeWarning
	}
	at := metav1.NewTime(now)
	events := c.Clientset.CoreV1().Events(metav1.NamespaceDefault)
	name := fmt.Sprintf("%s.weft-%s-%08x", e.Node, strings.ToLower(e.Reason), hash(e.Message))
	_, err := events.Create(ctx, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault},
		// The kubelet's events have the name for the UID too, and kubectl looks for that.
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: e.Node, UID: types.UID(e.Node)},
		Reason:         e.Reason, Message: e.Message, Type: kind,
		Source:         corev1.EventSource{Component: "weft-node", Host: e.Node},
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
		ReportingController: "weft.net/node", ReportingInstance: e.Node,
	}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return eventError(e, err)
	}
	old, err := events.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return eventError(e, err)
	}
	patch, err := json.Marshal(map[string]any{"count": old.Count + 1, "lastTimestamp": at})
	if err == nil {
		_, err = events.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	return eventError(e, err)
}

func eventError(e NodeEvent, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("kube: event %s of node %s: %w", e.Reason, e.Node, err)
}

// hash is FNV-1a of 32 bits.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}
