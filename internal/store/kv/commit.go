package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// step is an op on its way into a transaction.
type step struct {
	op    store.Op
	key   model.Key
	write Write
	// seen is set when the revision is the one that Commit found itself: then
	// a change meanwhile is no conflict, but a reason to look again.
	seen bool
}

// Commit implements store.Store: one transaction of at most [MaxOps] operations.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if len(ops) > MaxOps {
		return nil, fmt.Errorf("commit: %d operations: at most %d fit in one transaction", len(ops), MaxOps)
	}
	for {
		steps, err := s.prepare(ctx, ops)
		if err != nil || len(steps) == 0 {
			return nil, err
		}
		writes := make([]Write, len(steps))
		for i := range steps {
			writes[i] = steps[i].write
		}
		out, err := s.db.Txn(ctx, writes)
		if err != nil {
			return nil, about(steps, err)
		}
		if out.Refused == nil {
			return written(steps, out.Rev)
		}
		if err := blame(steps, out.Refused); err != nil {
			return nil, err
		}
	}
}

// prepare turns ops into steps. It reads the objects that are updated without
// having been read.
func (s *Store) prepare(ctx context.Context, ops []store.Op) ([]step, error) {
	steps := make([]step, len(ops))
	used := make(map[string]bool, len(ops))
	for i, op := range ops {
		if op.Object.Object == nil {
			return nil, fmt.Errorf("commit: operation %d has no object", i+1)
		}
		k, err := model.KeyOf(op.Object.Object)
		if err == nil {
			steps[i], err = s.prepareOne(ctx, op, k)
		}
		if err == nil && used[steps[i].write.Key] {
			err = errors.New("occurs twice in one commit")
		}
		if err != nil {
			if isAbout(err) {
				return nil, err
			}
			return nil, &store.Error{Key: k, Err: err}
		}
		used[steps[i].write.Key] = true
	}
	return steps, nil
}

// Check says why op, on the object k, can't be meant, whatever is stored; for stores that
// look at all operations of a commit before the first is carried out.
func (s *Store) Check(op store.Op, k model.Key) error {
	_, err := s.layout.keyFor(k)
	if err == nil && op.Verb != store.Create {
		_, err = revOf(op.Object.Object)
	}
	return err
}

func (s *Store) prepareOne(ctx context.Context, op store.Op, k model.Key) (step, error) {
	st := step{op: op, key: k}
	key, err := s.layout.keyFor(k)
	if err != nil {
		return st, err
	}
	rev, err := revOf(op.Object.Object)
	if err != nil && op.Verb != store.Create {
		return st, err
	}
	st.write.Key = key
	switch op.Verb {
	case store.Create:
		st.write.Expect = Absent
		st.write.Value, err = encode(op.Object.Object, nil, s.now())
	case store.Update:
		stored := op.Object.Raw()
		if stored == nil || rev == 0 {
			stored, rev, err = s.current(ctx, k, rev)
			st.seen = op.Object.Meta().ResourceVersion == ""
		}
		st.write.Expect = rev
		if err == nil {
			st.write.Value, err = encode(op.Object.Object, stored, s.now())
		}
	case store.Delete:
		st.write.Expect = Present
		if rev > 0 {
			st.write.Expect = rev
		}
	default:
		err = fmt.Errorf("verb %d is none", op.Verb)
	}
	return st, err
}

// current reads what is stored of k, at revision want unless that is 0.
func (s *Store) current(ctx context.Context, k model.Key, want int64) ([]byte, int64, error) {
	e, err := s.entry(ctx, k)
	if err == nil && want != 0 && e.Rev != want {
		err = &store.Error{Key: k, Err: store.ErrConflict}
	}
	return e.Value, e.Rev, err
}

// blame names the first step that did not find what it expects. It is nil when
// all of those may look again.
func blame(steps []step, found []Entry) error {
	for i, st := range steps {
		e := found[i]
		var cause error
		switch {
		case st.write.holds(e):
			continue
		case st.write.Expect == Absent:
			cause = store.ErrExists
		case e.Rev == 0:
			cause = store.ErrNotFound
		case !st.seen:
			cause = store.ErrConflict
		default:
			continue
		}
		return &store.Error{Key: st.key, Err: cause}
	}
	return nil
}

// written is the result of a commit: what is stored now. Of a deleted object it
// is what the caller gave.
func written(steps []step, rev int64) ([]store.Object, error) {
	objects := make([]store.Object, len(steps))
	for i, st := range steps {
		if st.op.Verb == store.Delete {
			objects[i] = st.op.Object
			continue
		}
		var err error
		if objects[i], err = decode(st.key, st.write.Value, rev); err != nil {
			return nil, err
		}
	}
	return objects, nil
}

// about says which objects a failure of the DB is about.
func about(steps []step, err error) error {
	if len(steps) == 1 {
		return &store.Error{Key: steps[0].key, Err: err}
	}
	return fmt.Errorf("commit of %v and %d more: %w", steps[0].key, len(steps)-1, err)
}
