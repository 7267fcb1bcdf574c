package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

// server is an API server in memory that holds objects, in YAML.
func server(t *testing.T, objects ...runtime.Object) (*Client, *fake.Clientset) {
	t.Helper()
	set := fake.NewClientset(objects...)
	return &Client{Clientset: set}, set
}

func node(name string, labels ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	for _, l := range labels {
		key, value, _ := strings.Cut(l, "=")
		n.Labels[key] = value
	}
	return n
}

func TestKubeadm(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ config, want string }{
		"none":         {"", "{false [] []}"},
		"IPv4":         {"networking:\n  podSubnet: 10.244.0.0/16\n  serviceSubnet: 10.96.0.0/12", "{true [10.244.0.0/16] [10.96.0.0/12]}"},
		"both":         {"networking:\n  podSubnet: 10.244.0.0/16, fd00:10:244::/56\n  serviceSubnet: 10.96.0.0/16,fd00:10:96::/112", "{true [10.244.0.0/16 fd00:10:244::/56] [10.96.0.0/16 fd00:10:96::/112]}"},
		"not masked":   {"networking: {podSubnet: 10.244.7.1/16}", "{true [10.244.0.0/16] []}"},
		"no networks":  {"kubernetesVersion: v1.36.3", "{true [] []}"},
		"no CIDR":      {"networking: {podSubnet: everything}", `kube: configmap kube-system/kubeadm-config: networking.podSubnet: "everything": must be CIDRs with commas between them`},
		"half written": {"networking: [", "kube: configmap kube-system/kubeadm-config: ClusterConfiguration: "},
	} {
		c, _ := server(t)
		if tt.config != "" {
			c, _ = server(t, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "kubeadm-config", Namespace: "kube-system"},
				Data:       map[string]string{"ClusterConfiguration": tt.config},
			})
		}
		k, err := c.Kubeadm(t.Context())
		got := fmt.Sprint(k)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func serviceCIDR(name string, cidrs ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: cidrs}}
}

// TestWatchServiceCIDRs: ranges are told at once, and again when an administrator adds one.
func TestWatchServiceCIDRs(t *testing.T) {
	t.Parallel()
	c, set := server(t, serviceCIDR("kubernetes", "10.96.0.0/12", "fd00:96::/112"))
	watches := make(chan *watch.RaceFreeFakeWatcher, 1)
	set.PrependWatchReactor("servicecidrs", func(k8stesting.Action) (bool, watch.Interface, error) {
		w := watch.NewRaceFreeFake()
		watches <- w
		return true, w, nil
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	told, done := make(chan []netip.Prefix, 10), make(chan error)
	go func() { done <- c.WatchServiceCIDRs(ctx, func(p []netip.Prefix) { told <- p }) }()
	if got := fmt.Sprint(<-told); got != "[10.96.0.0/12 fd00:96::/112]" {
		t.Errorf("first %s", got)
	}
	more := serviceCIDR("more", "10.200.0.0/16")
	if _, err := set.NetworkingV1().ServiceCIDRs().Create(t.Context(), more, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w := <-watches
	w.Action(watch.Bookmark, more) // says nothing
	w.Add(more)
	if got := fmt.Sprint(<-told); got != "[10.96.0.0/12 fd00:96::/112 10.200.0.0/16]" {
		t.Errorf("then %s", got)
	}
	(<-watches).Stop() // as a server does with a long one
	if got := fmt.Sprint(<-told); got != "[10.96.0.0/12 fd00:96::/112 10.200.0.0/16]" {
		t.Errorf("after a break %s", got)
	}
	stop := errors.New("stop")
	cancel(stop)
	if err := <-done; !errors.Is(err, stop) {
		t.Errorf("ended with %v", err)
	}
}

// TestServiceCIDRsRefused: a server without the kind, or one that refuses, is an error at once,
// rather than a request every few seconds.
func TestServiceCIDRsRefused(t *testing.T) {
	t.Parallel()
	resource := schema.GroupResource{Group: "networking.k8s.io", Resource: "servicecidrs"}
	for _, refusal := range []error{
		apierrors.NewForbidden(resource, "", errors.New("no")), apierrors.NewNotFound(resource, ""),
	} {
		c, set := server(t)
		set.PrependReactor("list", "servicecidrs", func(k8stesting.Action) (bool, runtime.Object, error) { return true, nil, refusal })
		if err := c.WatchServiceCIDRs(t.Context(), func([]netip.Prefix) { t.Error("ranges were told") }); !errors.Is(err, refusal) {
			t.Errorf("got %v, want %v", err, refusal)
		}
	}
}

// TestLeaves: for good is what no rolling update, restart or drain is.
func TestLeaves(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ spec, want string }{
		"is there":               {"{}", ""},
		"deleted":                {"", "DaemonSet kube-system/weft-node is deleted"},
		"being deleted":          {"deleting", "DaemonSet kube-system/weft-node is being deleted"},
		"chosen by label":        {"{nodeSelector: {net: weft}}", ""},
		"not chosen by label":    {"{nodeSelector: {net: other}}", "DaemonSet kube-system/weft-node does not choose node node-a any more"},
		"chosen by affinity":     {affinity("{matchExpressions: [{key: net, operator: In, values: [weft, x]}]}"), ""},
		"chosen by second term":  {affinity("{matchExpressions: [{key: net, operator: DoesNotExist}]}, {matchFields: [{key: metadata.name, operator: In, values: [node-a]}]}"), ""},
		"not chosen by affinity": {affinity("{matchExpressions: [{key: net, operator: Exists}, {key: rank, operator: Gt, values: ['7']}]}"), "DaemonSet kube-system/weft-node does not choose node node-a any more"},
		"not by name":            {affinity("{matchFields: [{key: metadata.name, operator: NotIn, values: [node-a]}]}"), "DaemonSet kube-system/weft-node does not choose node node-a any more"},
		"an operator of later":   {affinity("{matchExpressions: [{key: net, operator: Resembles, values: [x]}]}"), ""},
	} {
		objects := []runtime.Object{node("node-a", "net=weft", "rank=5")}
		if tt.spec != "" {
			d := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "weft-node", Namespace: "kube-system"}}
			if tt.spec == "deleting" {
				now := metav1.Now()
				d.DeletionTimestamp, d.Finalizers = &now, []string{"foregroundDeletion"}
			} else if err := yaml.Unmarshal([]byte(tt.spec), &d.Spec.Template.Spec); err != nil {
				t.Fatal(err)
			}
			objects = append(objects, d)
		}
		c, _ := server(t, objects...)
		got, err := c.Leaves(t.Context(), "kube-system", "weft-node", "node-a")
		if err != nil || got != tt.want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, tt.want)
		}
	}
}

func affinity(terms string) string {
	return "{affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + terms + "]}}}}"
}

func TestDaemonSetOf(t *testing.T) {
	t.Parallel()
	yes := true
	pod := func(kind string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: "weft-node-x", Namespace: "kube-system",
			OwnerReferences: []metav1.OwnerReference{{Kind: kind, Name: "weft-node", Controller: &yes}},
		}}
	}
	for kind, want := range map[string]string{"DaemonSet": "weft-node", "Node": ""} {
		c, _ := server(t, pod(kind))
		if got, err := c.DaemonSetOf(t.Context(), "kube-system", "weft-node-x"); err != nil || got != want {
			t.Errorf("%s: got %q, %v", kind, got, err)
		}
	}
	c, _ := server(t)
	if _, err := c.DaemonSetOf(t.Context(), "kube-system", "weft-node-x"); !apierrors.IsNotFound(err) {
		t.Errorf("no pod: %v", err)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	resource := schema.GroupResource{Resource: "nodes"}
	refused := apierrors.NewForbidden(resource, "node-a", errors.New(`User "u" cannot patch resource "nodes/status" in API group "" at the cluster scope`))
	for name, tt := range map[string]struct {
		err       error
		transient bool
		explained string
	}{
		"refused":     {refused, false, "give the service account this right"},
		"no token":    {apierrors.NewUnauthorized("no"), false, "is this machine's clock right?"},
		"too much":    {apierrors.NewTooManyRequests("later", 1), true, "is asked again"},
		"broken":      {apierrors.NewInternalError(errors.New("etcd")), true, "etcd"},
		"not found":   {apierrors.NewNotFound(resource, "node-a"), false, "not found"},
		"silent":      {context.DeadlineExceeded, true, "deadline"},
		"an old cert": {fmt.Errorf("get: %w", expired()), true, "compare this machine's clock"},
		"ours":        {errors.New("two\nlines"), false, "two lines"},
	} {
		err := fmt.Errorf("kube: read: %w", tt.err)
		if got := Transient(err); got != tt.transient {
			t.Errorf("%s: transient %t", name, got)
		}
		if got := Explain(err); !strings.Contains(got, tt.explained) || strings.Contains(got, "\n") {
			t.Errorf("%s: %s, want %s", name, got, tt.explained)
		}
	}
	if got := Verbs(fmt.Errorf("kube: %w", refused)); got != "patch nodes/status" {
		t.Errorf("verbs %q", got)
	}
	in := apierrors.NewForbidden(resource, "", errors.New(`User "u" cannot list resource "servicecidrs" in API group "networking.k8s.io" at the cluster scope`))
	if got := Verbs(in); got != "list servicecidrs.networking.k8s.io" {
		t.Errorf("verbs %q", got)
	}
	if got := Verbs(errors.New("cannot")); got != "" {
		t.Errorf("verbs %q of what is no refusal", got)
	}
}
