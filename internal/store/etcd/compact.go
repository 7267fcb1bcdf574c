package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Compact makes etcd forget what was before the revision before, unless that is 0 or
// somebody was faster, and returns the present revision: what was of use up to now, and
// may go at the next call. It is about the whole of etcd, not only our keys.
func (s *Store) Compact(ctx context.Context, before int64) (int64, error) {
	ctx, cancel := s.db.bounded(ctx)
	defer cancel()
	if before > 0 {
		if _, err := s.db.client.Compact(ctx, before); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return 0, s.db.explain(ctx, err)
		}
	}
	now, err := s.db.client.Get(ctx, "/calico/v1/Ready")
	if err != nil {
		return 0, s.db.explain(ctx, err)
	}
	return now.Header.Revision, nil
}
