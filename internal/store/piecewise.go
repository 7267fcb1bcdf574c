package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// Piecewise carries out the operations of a Commit where there are no transactions: each
// by itself, in phases one after the other. At any moment an address in use is named by
// its handle and taken in its block before an endpoint has it, and no endpoint has it any
// more before it is free. So wherever it breaks no address is given out twice, and one
// that nobody got is found by its handle. Doing it again finishes it.
//
//	announce   handles that name blocks; endpoints that go
//	claim      blocks
//	give       blocks that go
//	use        all else: affinities, endpoints, nodes
//	leave      handles that no longer name what they did; affinities that go
type Piecewise struct {
	// Write carries out one operation. It is called from several goroutines.
	Write func(ctx context.Context, op Op, k model.Key) (Object, error)
	// Handle is the handle that an object was read as, by its stored form; nil if that
	// is not known.
	Handle func(raw []byte) *v3.IPAMHandle
	// Check refuses an operation that can't be meant, before anything is done; nil: all
	// can.
	Check func(op Op, k model.Key) error
	// Parallel is the number of writes of one phase that are under way at once, at
	// least 1.
	Parallel int
}

// maxOps is the largest number of operations of one Commit: what etcd takes.
const maxOps = 128

// phase is when an operation is carried out.
type phase int

// The phases.
const (
	announce phase = iota
	claim
	give
	use
	leave
	phases
)

// piece is an operation on its way.
type piece struct {
	op    Op
	key   model.Key
	phase phase
}

// Commit carries out ops. When one of a phase fails the others of that phase are finished,
// and no next phase begins. Errors and results are those of [Store.Commit].
func (p Piecewise) Commit(ctx context.Context, ops []Op) ([]Object, error) {
	pieces, err := p.prepare(ops)
	if err != nil || len(pieces) == 0 {
		return nil, err
	}
	written := make([]Object, len(ops))
	if err := p.bridge(ctx, pieces, written); err != nil {
		return written, err
	}
	for now := range phases {
		if err := p.carryOut(ctx, pieces, now, written); err != nil {
			return written, err
		}
	}
	return written, nil
}

// prepare checks ops before anything is done.
func (p Piecewise) prepare(ops []Op) ([]piece, error) {
	if len(ops) > maxOps {
		return nil, fmt.Errorf("commit: %d operations: at most %d fit in one transaction", len(ops), maxOps)
	}
	pieces, used := make([]piece, len(ops)), map[model.Key]bool{}
	for i, op := range ops {
		if op.Object.Object == nil {
			return nil, fmt.Errorf("commit: operation %d has no object", i+1)
		}
		k, err := model.KeyOf(op.Object.Object)
		if err == nil && p.Check != nil {
			err = p.Check(op, k)
		}
		if err == nil && used[k] {
			err = errors.New("occurs twice in one commit")
		}
		if err != nil {
			return nil, &Error{k, err}
		}
		used[k] = true
		pieces[i] = piece{op, k, p.phaseOf(op)}
	}
	return pieces, nil
}

// phaseOf is when an operation is carried out.
func (p Piecewise) phaseOf(op Op) phase {
	gone := op.Verb == Delete
	switch o := op.Object.Object.(type) {
	case *v3.IPAMHandle:
		if gone || p.lost(op, o) != nil {
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

// lost is the blocks that the handle named and does not any more.
func (p Piecewise) lost(op Op, o *v3.IPAMHandle) map[string]int {
	if op.Verb != Update || op.Object.Raw() == nil {
		return nil
	}
	was := p.Handle(op.Object.Raw())
	if was == nil {
		return nil
	}
	var lost map[string]int
	for cidr, n := range was.Spec.Block {
		if _, ok := o.Spec.Block[cidr]; !ok {
			if lost == nil {
				lost = map[string]int{}
			}
			lost[cidr] = n
		}
	}
	return lost
}

// bridge writes the handles that leave one block for another with both, before all else.
// If it comes to no more, that is what is returned of them.
func (p Piecewise) bridge(ctx context.Context, pieces []piece, written []Object) error {
	for i := range pieces {
		o, ok := pieces[i].op.Object.Object.(*v3.IPAMHandle)
		if !ok || pieces[i].phase != leave || pieces[i].op.Verb == Delete {
			continue
		}
		was := p.Handle(pieces[i].op.Object.Raw())
		both := *o
		both.Spec.Block = maps.Clone(was.Spec.Block)
		maps.Copy(both.Spec.Block, o.Spec.Block)
		if len(both.Spec.Block) == len(was.Spec.Block) {
			continue // it gains none
		}
		done, err := p.Write(ctx, Op{Update, pieces[i].op.Object.With(&both)}, pieces[i].key)
		if err != nil {
			return settled(pieces[i].key, err)
		}
		written[i] = done
		next := *o
		next.ResourceVersion = done.Meta().ResourceVersion
		pieces[i].op.Object = done.With(&next)
	}
	return nil
}

// carryOut carries out the pieces of a phase side by side. The error is that of the first of
// which it is not known whether it was carried out, or else of those that were refused.
func (p Piecewise) carryOut(ctx context.Context, pieces []piece, now phase, written []Object) error {
	errs := make([]error, len(pieces))
	slots := make(chan struct{}, p.Parallel)
	var all sync.WaitGroup
	for i, one := range pieces {
		if one.phase != now {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			o, err := p.Write(ctx, one.op, one.key)
			if errs[i] = err; err == nil {
				written[i] = o
			}
		})
	}
	all.Wait()
	var refused []error
	var open error
	for i, err := range errs {
		switch {
		case err == nil:
		case IsAnswer(err):
			refused = append(refused, err)
		case open == nil:
			open = settled(pieces[i].key, err)
		}
	}
	switch {
	case open != nil || len(refused) == 0:
		return open
	case len(refused) == 1:
		return refused[0]
	}
	return refusals(refused)
}

// refusals are the errors of several operations; they print as the first of them.
type refusals []error

// Error implements error.
func (r refusals) Error() string { return fmt.Sprintf("%v, and %d more", r[0], len(r)-1) }

// Unwrap gives them all.
func (r refusals) Unwrap() []error { return r }

// settled is err as a Commit returns it: an *Error that names an object says that nothing was
// done, so it is none where that is not known.
func settled(k model.Key, err error) error {
	if IsAnswer(err) {
		return err
	}
	var one *Error
	if errors.As(err, &one) {
		err = one.Err
	}
	return fmt.Errorf("commit of %v: %w", k, err)
}

// IsAnswer reports whether err says for certain that the operation was not carried out.
func IsAnswer(err error) bool {
	for _, answer := range []error{ErrNotFound, ErrExists, ErrConflict, ErrRefused} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}
