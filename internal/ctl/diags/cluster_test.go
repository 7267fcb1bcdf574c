package diags

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
)

func pod(name, node, app string, restarts int32) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name, Labels: map[string]string{"k8s-app": app}}}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Name: "node", Env: []corev1.EnvVar{{Name: "ETCD_PASSWORD", Value: "hunter2"}}}}
	status := corev1.ContainerStatus{Name: "node", RestartCount: restarts}
	if restarts > 0 {
		status.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{}
	}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	return p
}

// TestKubernetes: what the API server has of the components gets in, logs of so many pods, and
// a kind that may not be read is a fault and no more.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	api := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}},
		pod("weft-node-1", "node-a", "weft-node", 0), pod("weft-node-2", "node-b", "weft-node", 2), pod("weft-node-3", "node-c", "weft-node", 0),
		pod("weft-controllers-1", "node-a", "weft-controllers", 0), pod("web", "node-a", "shop", 0),
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "s"}, Data: map[string][]byte{"k": []byte("secret-object-1")}},
	)
	api.PrependReactor("list", "daemonsets", func(k8stesting.Action) (bool, runtime.Object, error) {
		return true, nil, errors.New("not for you")
	})
	path := filepath.Join(t.TempDir(), "b.tar.gz")
	told := map[string]error{}
	b, err := Create(path, "b", NewScrubber("hunter2"), time.Unix(0, 0), func(name string, err error) { told[name] = err })
	if err != nil {
		t.Fatal(err)
	}
	b.Kubernetes(t.Context(), api, ClusterOptions{MaxLogs: 2, Parallel: 3, Focus: []string{"node-b", "node-c"}, Since: time.Hour})
	faults := b.Faults()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	files := contents(t, path)
	want := []string{
		"errors.txt", "kubernetes/deployments.yaml", "kubernetes/events-kube-system.yaml", "kubernetes/nodes.yaml", "kubernetes/pods.yaml", "kubernetes/version.yaml",
		"logs/node-a/weft-controllers-1/node.log", "logs/node-b/weft-node-2/node.log", "logs/node-b/weft-node-2/node.log.previous", "logs/node-c/weft-node-3/node.log",
	}
	if d := cmp.Diff(want, slices.Sorted(maps.Keys(files))); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if faults != 1 || files["errors.txt"] != "kubernetes/daemonsets.yaml: not for you\n" || told["kubernetes/daemonsets.yaml"] == nil || told["kubernetes/nodes.yaml"] != nil {
		t.Errorf("%d faults, %q", faults, files["errors.txt"])
	}
	for name, text := range files {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "secret-object-1") {
			t.Errorf("%s has a secret:\n%s", name, text)
		}
	}
	if !strings.Contains(files["kubernetes/pods.yaml"], "weft-node-1") || strings.Contains(files["kubernetes/pods.yaml"], "name: web") {
		t.Errorf("pods:\n%s", files["kubernetes/pods.yaml"])
	}
	for _, a := range api.Actions() {
		if r := a.GetResource().Resource; r == "secrets" || r == "configmaps" {
			t.Errorf("%s of %s", a.GetVerb(), r)
		}
	}
	if _, err := Create(path, "b", nil, time.Unix(0, 0), nil); err == nil {
		t.Error("a file that exists was written over")
	}
}

// contents are the files of a bundle.
func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		out[name] = string(text)
	}
}
