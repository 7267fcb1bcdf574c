package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	k8stesting "k8s.io/client-go/testing"
)

func expired() error {
	return x509.CertificateInvalidError{Reason: x509.Expired, Detail: "current time 2026-01-01 is before 2026-01-02"}
}

// TestAwaitNode: an agent may be there before its kubelet has registered the node.
func TestAwaitNode(t *testing.T) {
	t.Parallel()
	c, set := server(t, node("node-b"))
	set.PrependWatchReactor("nodes", func(k8stesting.Action) (bool, watch.Interface, error) {
		w := watch.NewRaceFreeFake()
		w.Add(node("node-b")) // servers filter by name; the answer is looked at all the same
		w.Add(node("node-a")) // not what is waited for
		w.Modify(node("node-a", "has=address"))
		return true, w, nil
	})
	told := 0
	addressed := func(n *Node) bool { return n.Labels["has"] != "" }
	n, err := c.AwaitNode(t.Context(), "node-a", addressed, func(n *Node) {
		if told++; n != nil {
			t.Errorf("there is %v", n)
		}
	})
	if err != nil || !addressed(n) || told != 1 {
		t.Errorf("got %v, %v; told %d times", n, err, told)
	}
	if n, err := c.AwaitNode(t.Context(), "node-b", func(*Node) bool { return true }, func(*Node) { t.Error("waits for a node that is there") }); err != nil || n.Name != "node-b" {
		t.Errorf("got %v, %v", n, err)
	}
	if _, err := c.Node(t.Context(), "node-c"); !errors.Is(err, ErrNoNode) {
		t.Errorf("node-c: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.AwaitNode(ctx, "node-c", addressed, func(*Node) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Errorf("an end while waiting: %v", err)
	}
}

func TestInternalIPs(t *testing.T) {
	t.Parallel()
	n := node("node-a")
	for _, a := range []string{"Hostname=node-a", "InternalIP=10.0.0.5", "ExternalIP=192.0.2.1", "InternalIP=fd00::5", "InternalIP=none"} {
		kind, addr, _ := strings.Cut(a, "=")
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeAddressType(kind), Address: addr})
	}
	if got := fmt.Sprint(InternalIPs(n)); got != "[10.0.0.5 fd00::5]" {
		t.Errorf("got %s", got)
	}
}

// TestSetNetwork: the condition changes, and those of others stay.
func TestSetNetwork(t *testing.T) {
	t.Parallel()
	n := node("node-a")
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	c, set := server(t, n)
	if _, has := NetworkOf(n); has {
		t.Error("a fresh node has the condition")
	}
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for _, want := range []Network{{false, "WeftIsUp", "up"}, {true, "WeftIsDown", "down"}, {false, "WeftIsUp", "up"}} {
		if err := c.SetNetwork(t.Context(), "node-a", want, now); err != nil {
			t.Fatal(err)
		}
		got, err := c.Node(t.Context(), "node-a")
		if err != nil {
			t.Fatal(err)
		}
		if w, has := NetworkOf(got); !has || w != want || len(got.Status.Conditions) != 2 {
			t.Errorf("got %+v, want %+v; all: %+v", w, want, got.Status.Conditions)
		}
	}
	for _, a := range set.Actions() {
		if p, ok := a.(k8stesting.PatchAction); ok && p.GetSubresource() != "status" {
			t.Errorf("patched %q, want status alone: a right less", p.GetSubresource())
		}
	}
	if err := c.SetNetwork(t.Context(), "node-x", Network{}, now); err == nil || !strings.Contains(err.Error(), "NetworkUnavailable of node node-x") {
		t.Errorf("no such node: %v", err)
	}
}

func TestAnnotateNode(t *testing.T) {
	t.Parallel()
	n := node("node-a")
	n.Annotations = map[string]string{"theirs": "stays"}
	c, _ := server(t, n)
	for _, value := range []string{"10.0.0.5 is that of node-b", ""} {
		if err := c.AnnotateNode(t.Context(), "node-a", "weft.net/address-conflict", value); err != nil {
			t.Fatal(err)
		}
		got, _ := c.Node(t.Context(), "node-a")
		if text, has := got.Annotations["weft.net/address-conflict"]; text != value || has != (value != "") || got.Annotations["theirs"] != "stays" {
			t.Errorf("%q: got %v", value, got.Annotations)
		}
	}
}

// TestTell: the same thing told again counts; it does not fill the API server.
func TestTell(t *testing.T) {
	t.Parallel()
	c, set := server(t)
	e := NodeEvent{Node: "node-a", Reason: "AddressConflict", Message: "10.0.0.5 is that of node-b", Warning: true}
	start := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for i := range 3 {
		if err := c.Tell(t.Context(), e, start.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Tell(t.Context(), NodeEvent{Node: "node-a", Reason: "AddressConflict", Message: strings.Repeat("ä", 1000)}, start); err != nil {
		t.Fatal(err)
	}
	list, err := set.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 {
		t.Fatalf("%d events, %v; want one for each thing", len(list.Items), err)
	}
	for _, got := range list.Items {
		switch {
		case got.InvolvedObject.Kind != "Node" || got.InvolvedObject.Name != "node-a" || got.Reason != "AddressConflict" || len(got.Message) > 1024:
			t.Errorf("got %+v", got)
		case got.Message == e.Message && (got.Count != 3 || got.Type != "Warning" || !got.LastTimestamp.Time.Equal(start.Add(2*time.Minute))):
			t.Errorf("told three times: %+v", got)
		}
	}
}
