package migrate_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/weft-net/weft/internal/kube"
	kubestore "github.com/weft-net/weft/internal/store/kube"
	"github.com/weft-net/weft/internal/store/kube/kubetest"
	"github.com/weft-net/weft/internal/testenv"
)

// nodesOf makes nodes of Kubernetes.
func nodesOf(t *testing.T, config kube.Config) func(name string) {
	t.Helper()
	client, err := kube.Connect(config)
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) {
		t.Helper()
		body := `{"apiVersion":"v1","kind":"Node","metadata":{"name":"` + name + `"}}`
		err := client.Clientset.CoreV1().RESTClient().Post().AbsPath("/api/v1/nodes").
			SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body([]byte(body)).Do(t.Context()).Error()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestK8sRoundTrip carries Calico's dump to a real API server, whose CRDs set defaults and
// refuse what is not valid, and back.
func TestK8sRoundTrip(t *testing.T) {
	api := testenv.APIServer(t)
	config := kube.Config{Kubeconfig: api.Kubeconfig("admin")}
	client, err := kube.Connect(config)
	if err != nil {
		t.Fatal(err)
	}
	install(t, client.Clientset.CoreV1().RESTClient())
	s, err := kubestore.Open(t.Context(), config, kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, s, nodesOf(t, config))
}

// install makes the namespace of the fixture, and the CRDs that come with weft.
func install(t *testing.T, api rest.Interface) {
	t.Helper()
	post := func(path string, body []byte) {
		t.Helper()
		err := api.Post().AbsPath(path).SetHeader("Content-Type", "application/json").SetHeader("Accept", "application/json").Body(body).Do(t.Context()).Error()
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	post("/api/v1/namespaces", []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop"}}`))
	files, err := filepath.Glob("../../deploy/crds/projectcalico.org_*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d CRDs, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			text, err = yaml.YAMLToJSON(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", text)
	}
	// They are served a moment after they are made.
	for _, r := range kubetest.CalicoResources("projectcalico.org") {
		for limit := time.Now().Add(testenv.Patience); ; time.Sleep(50 * time.Millisecond) {
			err := api.Get().AbsPath(r.Path()+"/"+r.Plural).SetHeader("Accept", "application/json").Do(t.Context()).Error()
			if err == nil {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("%s is never served: %v", r.Plural, err)
			}
		}
	}
}
