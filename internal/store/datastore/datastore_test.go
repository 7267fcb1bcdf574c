package datastore_test

import (
	"testing"

	"github.com/weft-net/weft/internal/store/datastore"
)

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env  map[string]string
		want string
	}{
		"kubernetes":   {map[string]string{"DATASTORE_TYPE": "kubernetes"}, `kube: no Kubernetes API server is configured: set KUBECONFIG or K8S_API_ENDPOINT, or run in a pod with a service account`},
		"bad group":    {map[string]string{"DATASTORE_TYPE": "kubernetes", "CALICO_API_GROUP": "calico"}, `CALICO_API_GROUP: "calico": must be projectcalico.org/v3 or crd.projectcalico.org/v1`},
		"unknown":      {map[string]string{"DATASTORE_TYPE": "etcd"}, `DATASTORE_TYPE: "etcd": must be etcdv3 or kubernetes`},
		"bad endpoint": {map[string]string{"ETCD_ENDPOINTS": "10.0.0.1:2379"}, `ETCD_ENDPOINTS: endpoint 1: is no URL: must be such as https://10.0.0.1:2379 or unix:///run/etcd.sock`},
		"no server":    {map[string]string{"ETCD_ENDPOINTS": "unix:///does/not/exist"}, `etcd: unix:///does/not/exist: no such file or directory`},
	} {
		s, err := datastore.Open(t.Context(), func(name string) string { return tt.env[name] })
		if s != nil || err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v, %v\nwant %s", name, s, err, tt.want)
		}
	}
}
