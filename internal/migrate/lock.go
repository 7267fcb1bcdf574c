package migrate

import (
	"context"
	"errors"
	"fmt"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// SetReady unlocks the datastore, or locks it: then node agents start no more pods and take no
// addresses until it is unlocked, while what runs goes on. It reports whether that changed
// anything. A datastore that was never initialised is, first.
func SetReady(ctx context.Context, s store.Store, ready bool) (changed bool, err error) {
	for {
		o, err := s.Get(ctx, model.Cluster{}.Key())
		if errors.Is(err, store.ErrNotFound) {
			if err := store.Initialise(ctx, s); err != nil {
				return false, fmt.Errorf("migrate: lock: %w", err)
			}
			continue
		}
		if err != nil {
			return false, fmt.Errorf("migrate: lock: %w", err)
		}
		c := copyOf(o.Object).(*v3.ClusterInformation)
		c.ObjectMeta = *o.Object.Meta()
		if isReady(c) == ready {
			return false, nil
		}
		c.Spec.DatastoreReady = &ready
		_, err = s.Commit(ctx, store.Op{Verb: store.Update, Object: o.With(c)})
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			continue // somebody else wrote: look again
		}
		if err != nil {
			return false, fmt.Errorf("migrate: lock: %w", err)
		}
		return true, nil
	}
}

// IsLocked reports whether the datastore is locked. One without a ClusterInformation is not.
func IsLocked(ctx context.Context, s store.Store) (bool, error) {
	o, err := s.Get(ctx, model.Cluster{}.Key())
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("migrate: lock: %w", err)
	}
	return !isReady(o.Object.(*v3.ClusterInformation)), nil
}

// isReady reports whether the cluster is not locked; nothing said means that it is not.
func isReady(c *v3.ClusterInformation) bool {
	return c.Spec.DatastoreReady == nil || *c.Spec.DatastoreReady
}
