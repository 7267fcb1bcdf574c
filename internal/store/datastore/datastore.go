// Package datastore chooses the datastore that the environment asks for. It is
// the one place that knows all of them; who uses a store depends on package store
// alone.
package datastore

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	kubestore "github.com/weft-net/weft/internal/store/kube"
)

// Open connects to the datastore that DATASTORE_TYPE names: etcdv3, which is also
// what holds when it is not set, with the ETCD_* settings of etcd.ConfigFromEnv; or
// kubernetes, with those of kube.ConfigFromEnv, CALICO_API_GROUP and
// FELIX_INTERFACEPREFIX. lookup returns a variable's value, "" if it is not set. The
// error is one line that names the variable or the endpoint.
func Open(ctx context.Context, lookup func(string) string) (store.Store, error) {
	return OpenLogged(ctx, lookup, nil)
}

// OpenLogged is Open with a log for the store; nil: there is none.
func OpenLogged(ctx context.Context, lookup func(string) string, log *slog.Logger) (store.Store, error) {
	switch kind := lookup("DATASTORE_TYPE"); kind {
	case "", "etcdv3":
		return openEtcd(ctx, lookup)
	case "kubernetes":
		return openKube(ctx, lookup, log)
	default:
		return nil, fmt.Errorf("DATASTORE_TYPE: %q: must be etcdv3 or kubernetes", kind)
	}
}

func openEtcd(ctx context.Context, lookup func(string) string) (store.Store, error) {
	c, err := etcd.ConfigFromEnv(lookup)
	if err != nil {
		return nil, err
	}
	s, err := etcd.Open(ctx, c)
	if err != nil {
		return nil, err // not s: a nil *etcd.Store is no nil Store
	}
	return s, nil
}

func openKube(ctx context.Context, lookup func(string) string, log *slog.Logger) (store.Store, error) {
	o, err := KubeOptions(lookup, log)
	if err != nil {
		return nil, err
	}
	c, err := kube.ConfigFromEnv(lookup)
	if err != nil {
		return nil, err
	}
	s, err := kubestore.Open(ctx, c, o)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// KubeOptions reads the settings of a store on an API server: CALICO_API_GROUP and
// FELIX_INTERFACEPREFIX. For who has a client already, and opens the store on it.
func KubeOptions(lookup func(string) string, log *slog.Logger) (kubestore.Options, error) {
	group, err := kubestore.ParseGroup(lookup("CALICO_API_GROUP"))
	return kubestore.Options{Group: group, InterfacePrefixes: lookup("FELIX_INTERFACEPREFIX"), Log: log}, err
}
