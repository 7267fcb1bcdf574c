package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// maxParallel is the number of requests of one phase of a Commit that are under way at once.
const maxParallel = 16

// Commit implements store.Store, without transactions: see [store.Piecewise].
func (s *Store) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	return store.Piecewise{Write: s.write, Handle: handleIn, Check: s.check, Parallel: maxParallel}.Commit(ctx, ops)
}

func (s *Store) write(ctx context.Context, op store.Op, k model.Key) (store.Object, error) {
	return s.backends[k.Kind].write(ctx, op, k)
}

// handleIn is the handle that an object of the API is.
func handleIn(raw []byte) *v3.IPAMHandle {
	var o v3.IPAMHandle
	if json.Unmarshal(raw, &o) != nil {
		return nil
	}
	return &o
}

// check refuses an op that can't be meant.
func (s *Store) check(op store.Op, k model.Key) error {
	b, ok := s.backends[k.Kind]
	if !ok {
		return errKind(k.Kind)
	}
	if c, ok := b.(custom); ok {
		if _, err := c.nameOf(k); err != nil {
			return err
		}
	} else if err := checkName("name", k.Name); err != nil {
		return err
	}
	if k.Kind == model.KindWorkloadEndpoint {
		if err := checkName("namespace", k.Namespace); err != nil {
			return err
		}
	}
	rev := op.Object.Meta().ResourceVersion
	if n, err := strconv.ParseUint(rev, 10, 64); op.Verb != store.Create && rev != "" && (err != nil || n == 0) {
		return fmt.Errorf("metadata.resourceVersion %q: must be a number as the datastore gave it, or empty", rev)
	}
	return nil
}
