package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

const (
	// maxOps is the largest number of operations of one Commit, as in the other stores.
	maxOps = 128
	// maxParallel is the number of requests of one phase that are under way at once.
	maxParallel = 16
)

// The phases of a Commit, one after the other; the operations of one run side by side. At
// any moment an address in use is named by its handle and taken in its block before an
// endpoint has it, and no endpoint has it any more before it is free.
const (
	announce = iota // handles that name blocks, endpoints that go
	claim           // blocks
	give            // blocks that go
	use             // whatever else: affinities, endpoints, nodes
	leave           // handles that name no longer what they did, affinities that go
	phases
)

// step is an op on its way.
type step struct {
	op    store.Op
	key   model.Key
	phase int
}

// Commit implements store.Store, without transactions. When an operation of a phase fails
// the others of that phase are finished, and the next phases are not begun.
func (s *Store) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	steps, err := s.prepare(ops)
	if err != nil || len(steps) == 0 {
		return nil, err
	}
	written := make([]store.Object, len(steps))
	if err := s.bridge(ctx, steps); err != nil {
		return written, err
	}
	for phase := range phases {
		if err := s.carryOut(ctx, steps, phase, written); err != nil {
			return written, err
		}
	}
	return written, nil
}

// prepare checks ops before anything is sent.
func (s *Store) prepare(ops []store.Op) ([]step, error) {
	if len(ops) > maxOps {
		return nil, fmt.Errorf("commit: %d operations: at most %d fit in one transaction", len(ops), maxOps)
	}
	steps := make([]step, len(ops))
	used := map[model.Key]bool{}
	for i, op := range ops {
		if op.Object.Object == nil {
			return nil, fmt.Errorf("commit: operation %d has no object", i+1)
		}
		k, err := model.KeyOf(op.Object.Object)
		if err == nil {
			err = s.check(op, k)
		}
		if err == nil && used[k] {
			err = errors.New("occurs twice in one commit")
		}
		if err != nil {
			return nil, &store.Error{Key: k, Err: err}
		}
		used[k] = true
		steps[i] = step{op: op, key: k, phase: phaseOf(op)}
	}
	return steps, nil
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

// phaseOf is when an op is carried out.
func phaseOf(op store.Op) int {
	gone := op.Verb == store.Delete
	switch o := op.Object.Object.(type) {
	case *v3.IPAMHandle:
		if gone || loses(op, o) {
			return leave
		}
		return announce
	case *v3.WorkloadEndpoint:
		if gone {
			return announce
		}
	case *v3.IPAMBlock:
		if gone {
			return give
		}
		return claim
	case *v3.BlockAffinity:
		if gone {
			return leave
		}
	}
	return use
}

// before is the handle that op was decided on; nil if it says none.
func before(op store.Op) *v3.IPAMHandle {
	if raw := op.Object.Raw(); raw != nil {
		var o v3.IPAMHandle
		if json.Unmarshal(raw, &o) == nil {
			return &o
		}
	}
	return nil
}

// loses reports whether the handle names a block no longer.
func loses(op store.Op, o *v3.IPAMHandle) bool {
	was := before(op)
	if was == nil {
		return false
	}
	for cidr := range was.Spec.Block {
		if _, ok := o.Spec.Block[cidr]; !ok {
			return true
		}
	}
	return false
}

// bridge writes handles that lose one block and gain another with both, before all else.
func (s *Store) bridge(ctx context.Context, steps []step) error {
	for i := range steps {
		o, ok := steps[i].op.Object.Object.(*v3.IPAMHandle)
		if !ok || steps[i].phase != leave || steps[i].op.Verb == store.Delete {
			continue
		}
		was := before(steps[i].op)
		both, gains := *o, false
		both.Spec.Block = map[string]int{}
		for cidr, n := range was.Spec.Block {
			both.Spec.Block[cidr] = n
		}
		for cidr, n := range o.Spec.Block {
			if _, ok := was.Spec.Block[cidr]; !ok {
				gains = true
			}
			both.Spec.Block[cidr] = n
		}
		if !gains {
			continue
		}
		first := store.Op{Verb: store.Update, Object: steps[i].op.Object.With(&both)}
		done, err := s.backends[steps[i].key.Kind].write(ctx, first, steps[i].key)
		if err != nil {
			return settled(steps[i:i+1], err)
		}
		next := *o
		next.ResourceVersion = done.Meta().ResourceVersion
		steps[i].op.Object = done.With(&next)
	}
	return nil
}

// carryOut carries out the steps of a phase side by side. The error is that of the first
// that was refused, or else of the first that failed.
func (s *Store) carryOut(ctx context.Context, steps []step, phase int, written []store.Object) error {
	errs := make([]error, len(steps))
	slots := make(chan struct{}, maxParallel)
	var all sync.WaitGroup
	for i, st := range steps {
		if st.phase != phase {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			o, err := s.backends[st.key.Kind].write(ctx, st.op, st.key)
			if errs[i] = err; err == nil {
				written[i] = o
			}
		})
	}
	all.Wait()
	var open error
	for i, err := range errs {
		if err != nil && isAnswer(err) {
			return err
		}
		if err != nil && open == nil {
			open = settled(steps[i:i+1], err)
		}
	}
	return open
}

// settled is err as a Commit returns it: of what is not known whether it was carried out no
// object is named, since that would say that nothing was.
func settled(at []step, err error) error {
	if isAnswer(err) {
		return err
	}
	var one *store.Error
	if errors.As(err, &one) {
		err = one.Err
	}
	return fmt.Errorf("commit of %v: %w", at[0].key, err)
}
