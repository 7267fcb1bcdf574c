package ctl

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
	"github.com/weft-net/weft/internal/testenv"
)

// podOf is a pod of Kubernetes with addresses.
func podOf(name, node string, addrs ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "c"}}},
	}
	for _, a := range addrs {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

// TestIPAMCheckAsksKubernetes: pods and services count beside the endpoints in etcd.
func TestIPAMCheckAsksKubernetes(t *testing.T) {
	t.Parallel()
	w := newIPAMWorld(t, mem.New(), "a")
	for _, pod := range []string{"kept", "new", "ended", "host", "gone"} {
		w.add("a", pod)
	}
	addrs := map[string][]string{}
	for _, pod := range w.pods {
		addrs[pod] = w.addrsOf(pod)
		w.drop(w.endpointKey(pod)) // only Kubernetes knows of it now
	}
	for name, handle := range map[string]string{"web": "lb-1", "off": "lb-2"} {
		r := ipam.Request{Holder: model.Attribute{Handle: handle, Secondary: map[string]string{"type": "loadBalancer", "namespace": "default", "service": name}}, Use: model.UseWorkload, V4: ipam.Family{Count: 1}}
		got, err := w.nodes["a"].Assign(t.Context(), allocator.Request{Request: r})
		if err != nil {
			t.Fatal(err)
		}
		addrs[name] = []string{got.Addrs[0].Addr.String()}
	}
	ended := podOf("ended", "a", addrs["ended"]...)
	ended.Status.Phase = corev1.PodSucceeded
	host := podOf("host", "a", addrs["host"]...)
	host.Spec.HostNetwork = true
	web := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	web.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: addrs["web"][0]}}
	off := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "off"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP}}
	objects := []runtime.Object{podOf("kept", "a", addrs["kept"]...), podOf("new", "a"), podOf("squatter", "a", "10.0.3.250"), ended, host, web, off}
	r := &ipamReader{store: w.st, kube: &kube.Client{Clientset: fake.NewClientset(objects...)}, progress: func(string) {}}
	_, result, err := r.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range result.Findings {
		got = append(got, string(f.Kind)+" "+findingText(f))
	}
	want := []string{"unallocated-in-use 10.0.3.250", "leaked " + addrs["off"][0]}
	for _, pod := range []string{"ended", "host", "gone"} {
		for _, a := range addrs[pod] {
			want = append(want, "leaked "+a)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +found):\n%s", d)
	}
}

// TestK8sIPAM: leaks on a real API server that is the datastore, from the check to the
// release, and a split there.
func TestK8sIPAM(t *testing.T) {
	t.Parallel()
	api := testenv.APIServer(t)
	environ := []string{"DATASTORE_TYPE=kubernetes", "KUBECONFIG=" + api.Kubeconfig("admin")}
	cluster, err := kube.Connect(kube.Config{Kubeconfig: api.Kubeconfig("admin")})
	if err != nil {
		t.Fatal(err)
	}
	applyCRDs(t, cluster)
	core := cluster.Clientset.CoreV1()
	w := newIPAMWorld(t, openWhenServed(t, environ))
	for _, name := range []string{"a", "b"} {
		if _, err := core.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		w.start(name)
	}
	if _, err := core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	pod := func(name, node string, assigned bool) {
		p := podOf(name, node)
		no := false
		p.Spec.AutomountServiceAccountToken = &no
		if _, err := core.Pods("default").Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if assigned {
			w.add(node, name)
		}
	}
	for i := range 4 {
		pod(fmt.Sprintf("p%d", i), []string{"a", "b"}[i%2], true)
	}
	w.setLock(true)
	if out, stderr, code := weftOn(t, "weft", environ, "ipam", "check"); code != 0 || !strings.HasSuffix(out, "no problems\n") {
		t.Fatalf("healthy: exit %d\n%s%s", code, out, stderr)
	}
	addrs := map[string][]string{"p0": w.addrsOf("p0"), "p1": w.addrsOf("p1")}
	now := int64(0)
	for name := range addrs {
		if err := core.Pods("default").Delete(t.Context(), name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
			t.Fatal(err)
		}
	}
	report := filepath.Join(t.TempDir(), "report.json")
	if out, stderr, code := weftOn(t, "weft", environ, "ipam", "check", "-o", "report="+report); code != 0 || !strings.Contains(out, "4 problems: 4 leaked\n") {
		t.Fatalf("leaked: exit %d\n%s%s", code, out, stderr)
	}
	// A pod of the same name comes back, and has not got its address yet: it is left alone.
	pod("p1", "b", false)
	out, stderr, code := weftOn(t, "weft", environ, "ipam", "release", "--from-report", report)
	if code != 0 || !strings.HasSuffix(out, "2 addresses and 0 handles released, 2 left alone\n") {
		t.Fatalf("release: exit %d\n%s%s", code, out, stderr)
	}
	for name, want := range map[string]string{"p0": "is not assigned", "p1": "is in use"} {
		if out, _, _ := weftOn(t, "weft", environ, "ipam", "show", "--ip", addrs[name][0]); !strings.Contains(out, want) {
			t.Errorf("%s: %q, want %q", name, out, want)
		}
	}
	if out, stderr, code := weftOn(t, "weft", environ, "ipam", "split", "4", "--name=pool-a"); code != 0 {
		t.Errorf("split: exit %d\n%s%s", code, out, stderr)
	}
	if out, stderr, code := weftOn(t, "weft", environ, "ipam", "check"); code != 0 || !strings.HasSuffix(out, "no problems\n") {
		t.Errorf("after the split: exit %d\n%s%s", code, out, stderr)
	}
	if out, stderr, code := weftOn(t, "weft", environ, "ipam", "configure", "--strictaffinity=true", "--max-blocks-per-host=3"); code != 0 {
		t.Errorf("configure: exit %d\n%s%s", code, out, stderr)
	}
	if out, _, _ := weftOn(t, "calicoctl", environ, "ipam", "show", "--show-configuration"); !strings.Contains(out, "| MaxBlocksPerHost             | 3") {
		t.Errorf("configured:\n%s", out)
	}
}

// applyCRDs gives an API server the kinds that weft comes with.
func applyCRDs(t *testing.T, c *kube.Client) {
	t.Helper()
	files, err := filepath.Glob("../../deploy/crds/projectcalico.org_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d CRDs, %v", len(files), err)
	}
	for _, file := range files {
		doc, err := os.ReadFile(file)
		if err == nil {
			doc, err = yaml.YAMLToJSON(doc)
		}
		if err != nil {
			t.Fatal(err)
		}
		r := c.Clientset.CoreV1().RESTClient().Post().AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
		if err := r.SetHeader("Content-Type", "application/json").Body(doc).Do(t.Context()).Error(); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
}

// openWhenServed opens the datastore as soon as the API server serves its kinds.
func openWhenServed(t *testing.T, environ []string) store.Store {
	t.Helper()
	c := &client{Process: Process{Environ: environ, Stderr: &bytes.Buffer{}}}
	for limit := time.Now().Add(testenv.Patience); ; time.Sleep(50 * time.Millisecond) {
		st, err := c.open(t.Context())
		if err == nil {
			_, err = st.List(t.Context(), model.KindIPAMBlock, "")
		}
		if err == nil {
			_, err = st.List(t.Context(), model.KindIPPool, "")
		}
		if err == nil {
			t.Cleanup(func() { _ = st.Close() })
			return st
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}
