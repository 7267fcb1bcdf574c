package kube

import (
	"context"
	"hash/maphash"
	"iter"
	"sync"

	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Watch implements store.Source. The first batch has Reset; after that a broken watch goes
// on where it was, or tells what a new list changes: no further Reset comes. While a
// resource can't be followed its error is yielded, once as long as it stays the same, and
// after the first refusal a *kube.AccessError with all rights that are missing; when all can
// be followed again, a batch with Synced says so. Of several kinds the snapshot is
// complete when that of each is. A kind whose CRD is not installed, and that a cluster
// can be without, has no objects until it is.
func (s *Store) Watch(ctx context.Context, kinds ...model.Kind) iter.Seq2[model.Batch, error] {
	return func(yield func(model.Batch, error) bool) {
		sources, err := s.sources(kinds)
		if err != nil {
			yield(model.Batch{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		var feeds sync.WaitGroup
		defer feeds.Wait()
		defer cancel()
		events := make(chan event)
		f := &follower{
			events: events, yield: yield, waiting: map[*feed]bool{}, broken: map[*feed]bool{}, told: map[string]bool{},
			batch: model.Batch{Reset: true}, used: map[model.Key]bool{},
			rights: func() error { return s.checkReading(ctx, kinds) },
		}
		for _, src := range sources {
			one := &feed{source: src, s: s, ctx: ctx, events: events, seed: maphash.MakeSeed(), known: map[string]known{}}
			f.waiting[one] = true
			feeds.Go(one.run)
		}
		f.run(ctx)
	}
}

// follower gathers what the feeds of a Watch tell into batches.
type follower struct {
	events  <-chan event
	yield   func(model.Batch, error) bool
	waiting map[*feed]bool // those whose snapshot is not complete
	broken  map[*feed]bool
	told    map[string]bool    // the errors that were yielded since all was whole
	batch   model.Batch        // in the making
	used    map[model.Key]bool // keys in batch
	rights  func() error       // names what this user may not do
	asked   bool               // rights, since all was whole
	synced  bool
	stopped bool // the consumer wants no more
}

// run yields batches until the context ends or the consumer has enough.
func (f *follower) run(ctx context.Context) {
	for !f.stopped {
		select {
		case <-ctx.Done():
			return
		case e := <-f.events:
			f.take(e)
		}
		if f.synced {
			f.drain()
			f.flush()
		}
	}
}

// drain takes what waits, so that it comes in one batch.
func (f *follower) drain() {
	for !f.stopped && len(f.batch.Puts)+len(f.batch.Deletes)+len(f.batch.Invalids) < batchObjects {
		select {
		case e := <-f.events:
			f.take(e)
		default:
			return
		}
	}
}

// flush yields the batch in the making, if there is anything in it.
func (f *follower) flush() {
	if f.batch.Empty() || f.stopped {
		return
	}
	f.stopped = !f.yield(f.batch, nil)
	f.batch = model.Batch{}
	clear(f.used)
}

// take adds an event to the batch. A key occurs once in a batch.
func (f *follower) take(e event) {
	switch {
	case e.err != nil:
		f.broken[e.feed] = true
		f.tell(e.err)
		if !f.asked && apierrors.IsForbidden(e.err) {
			f.asked = true
			f.tell(f.rights())
		}
		return
	case e.whole:
		delete(f.broken, e.feed)
		if len(f.broken) == 0 && len(f.told) > 0 {
			clear(f.told)
			f.asked = false
			f.batch.Synced = f.synced
		}
		return
	}
	keys := append(e.keys(), e.deletes...)
	if f.full(keys) {
		f.flush()
	}
	for _, k := range keys {
		f.used[k] = true
	}
	f.batch.Puts, f.batch.Deletes = append(f.batch.Puts, e.puts...), append(f.batch.Deletes, e.deletes...)
	f.batch.Invalids = append(f.batch.Invalids, e.invalids...)
	if e.synced {
		delete(f.waiting, e.feed)
	}
	if len(f.waiting) == 0 && !f.synced {
		f.synced, f.batch.Synced = true, true
	}
}

// tell yields an error that was not yielded since all was whole.
func (f *follower) tell(err error) {
	if err == nil || f.stopped || f.told[err.Error()] {
		return
	}
	f.told[err.Error()] = true
	f.stopped = !f.yield(model.Batch{}, err)
}

// checkReading asks whether this user may follow the kinds; none: all.
func (s *Store) checkReading(ctx context.Context, wanted []model.Kind) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if len(wanted) == 0 {
		wanted = kinds()
	}
	return kube.CheckAccess(ctx, s.client.Clientset, s.readAccess(wanted))
}

// full reports whether the batch has no place for these keys.
func (f *follower) full(keys []model.Key) bool {
	if len(f.used)+len(keys) > batchObjects && len(f.used) > 0 {
		return true
	}
	for _, k := range keys {
		if f.used[k] {
			return true
		}
	}
	return false
}
