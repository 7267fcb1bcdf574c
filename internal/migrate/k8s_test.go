package migrate_test

import (
	"testing"

	"github.com/weft-net/weft/internal/kube"
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
