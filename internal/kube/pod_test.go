package kube

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestPod(t *testing.T) {
	t.Parallel()
	always, now := corev1.ContainerRestartPolicyAlways, metav1.Now()
	web := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"a": "b"}},
		Spec: corev1.PodSpec{
			NodeName: "node-a", ServiceAccountName: "robot",
			InitContainers: []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "once", ContainerPort: 1}}},
				{RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "mesh", ContainerPort: 15001}}},
			},
			Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
				{Name: "http", ContainerPort: 80, HostPort: 8080, HostIP: "10.0.0.1", Protocol: corev1.ProtocolUDP},
				{ContainerPort: 81},
				{ContainerPort: 82, HostPort: 8082, HostIP: "0.0.0.0"},
			}}},
		},
	}
	done := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "going", Name: "done", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "hash"}, DeletionTimestamp: &now, Finalizers: []string{"x/y"}},
		Status:     corev1.PodStatus{Phase: corev1.PodFailed},
	}
	c := &Client{Clientset: fake.NewClientset(web, done,
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Annotations: map[string]string{"n": "s"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going"}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceTerminating}},
	)}
	got, err := c.Pod(t.Context(), "shop", "web")
	want := Pod{
		UID: "u1", Node: "node-a", ServiceAccount: "robot", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"a": "b"},
		NamespaceAnnotations: map[string]string{"n": "s"},
		Ports: []PodPort{
			{Name: "mesh", Protocol: "TCP", Port: 15001},
			{Name: "http", Protocol: "UDP", Port: 80, HostPort: 8080, HostIP: netip.MustParseAddr("10.0.0.1")},
			{Protocol: "TCP", Port: 82, HostPort: 8082},
		},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if got, err := c.Pod(t.Context(), "going", "done"); err != nil || !got.Finished || !got.Deleted || !got.NamespaceDeleted || got.MirrorOf != "hash" {
		t.Errorf("of a pod that has ended: %+v, %v", got, err)
	}
	if _, err := c.Pod(t.Context(), "shop", "other"); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "pod shop/other") {
		t.Errorf("of no pod: %v", err)
	}
}

func TestPodWithoutRights(t *testing.T) {
	t.Parallel()
	set := fake.NewClientset(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	set.PrependReactor("get", "pods", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "web", errors.New(`User "x" cannot get`))
	})
	if _, err := (&Client{Clientset: set}).Pod(context.Background(), "shop", "web"); err == nil || errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "give the service account this right") {
		t.Errorf("got %v, want the missing verb", err)
	}
}

func TestPodCIDRs(t *testing.T) {
	t.Parallel()
	node := func(name string, cidrs ...string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
	}
	c := &Client{Clientset: fake.NewClientset(node("two", "10.1.2.0/24", "fd00:1::/64"), node("none"), node("bad", "x"))}
	two := []netip.Prefix{netip.MustParsePrefix("10.1.2.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	if got, err := c.PodCIDRs(t.Context(), "two"); err != nil || !reflect.DeepEqual(got, two) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := c.PodCIDRs(t.Context(), "none"); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := c.PodCIDRs(t.Context(), "bad"); err == nil || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("got %v", err)
	}
	if _, err := c.PodCIDRs(t.Context(), "nobody"); !errors.Is(err, ErrGone) {
		t.Errorf("got %v", err)
	}
}
