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
		"kubernetes":   {map[string]string{"DATASTORE_TYPE": "kubernetes"}, `DATASTORE_TYPE: "kubernetes": this version has no Kubernetes datastore yet: must be etcdv3`},
		"unknown":      {map[string]string{"DATASTORE_TYPE": "etcd"}, `DATASTORE_TYPE: "etcd": must be etcdv3`},
		"bad endpoint": {map[string]string{"ETCD_ENDPOINTS": "10.0.0.1:2379"}, `ETCD_ENDPOINTS: endpoint 1: is no URL: must be such as https://10.0.0.1:2379 or unix:///run/etcd.sock`},
		"no server":    {map[string]string{"ETCD_ENDPOINTS": "unix:///does/not/exist"}, `etcd: unix:///does/not/exist: no such file or directory`},
	} {
		s, err := datastore.Open(t.Context(), func(name string) string { return tt.env[name] })
		if s != nil || err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v, %v\nwant %s", name, s, err, tt.want)
		}
	}
}
