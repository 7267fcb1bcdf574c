package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"

	v3 "github.com/weft-net/weft/api/v3"
)

// Initialise creates what every cluster has, as far as it is missing: the
// ClusterInformation with a random GUID, and the tiers default, kube-admin and
// kube-baseline. What exists is left as it is. Several may do it at the same time.
func Initialise(ctx context.Context, s Store) error {
	for _, o := range essentials() {
		_, err := s.Commit(ctx, Op{Verb: Create, Object: New(o)})
		_, isTier := o.(*v3.Tier)
		if isTier && errors.Is(err, ErrNoKind) {
			continue // a cluster made before there were tiers
		}
		if err != nil && !errors.Is(err, ErrExists) {
			return err
		}
	}
	return nil
}

// essentials are the objects that every cluster has.
func essentials() []v3.Object {
	guid, ready := make([]byte, 16), true
	rand.Read(guid) //nolint:errcheck // never fails: crypto/rand's contract
	info := &v3.ClusterInformation{Spec: v3.ClusterInformationSpec{
		ClusterGUID: hex.EncodeToString(guid), DatastoreReady: &ready,
	}}
	info.Name = "default"
	objects := []v3.Object{info}
	for _, tier := range v3.BuiltinTiers() {
		objects = append(objects, tier)
	}
	return objects
}
