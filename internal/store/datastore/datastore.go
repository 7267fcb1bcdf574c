// Package datastore chooses the datastore that the environment asks for. It is
// the one place that knows all of them; who uses a store depends on package store
// alone.
package datastore

import (
	"context"
	"errors"
	"fmt"

	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
)

// Open connects to the datastore that DATASTORE_TYPE names: etcdv3, which is also
// what holds when it is not set, with the ETCD_* settings of etcd.ConfigFromEnv.
// lookup returns a variable's value, "" if it is not set. The error is one line
// that names the variable or the endpoint.
func Open(ctx context.Context, lookup func(string) string) (store.Store, error) {
	switch kind := lookup("DATASTORE_TYPE"); kind {
	case "", "etcdv3":
	case "kubernetes":
		return nil, errors.New(`DATASTORE_TYPE: "kubernetes": this version has no Kubernetes datastore yet: must be etcdv3`)
	default:
		return nil, fmt.Errorf("DATASTORE_TYPE: %q: must be etcdv3", kind)
	}
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
