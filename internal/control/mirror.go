package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/tools/cache"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/control/want"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// batchOps is the number of operations that are committed together.
const batchOps = 64

// changes collects what changed in a feed since the last pass.
type changes struct {
	kick chan struct{} // has an entry when there are keys

	mu   sync.Mutex
	keys map[string]bool
	seen map[string]bool // keys whose deletion the API server told, rather than left out of a list
}

// follow collects the changes of a feed until the returned function is called. same
// tells that a change is of no interest; nil: none is.
func follow(f *feed, same func(old, now any) bool) (*changes, func()) {
	c := &changes{kick: make(chan struct{}, 1), keys: map[string]bool{}, seen: map[string]bool{}}
	reg, err := f.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { c.add(o, false) },
		UpdateFunc: func(old, now any) {
			if same == nil || !same(old, now) {
				c.add(now, false)
			}
		},
		DeleteFunc: func(o any) {
			_, guess := o.(cache.DeletedFinalStateUnknown)
			c.add(o, !guess)
		},
	})
	if err != nil { // the informer has ended
		return c, func() {}
	}
	return c, func() { _ = f.informer.RemoveEventHandler(reg) }
}

func (c *changes) add(o any, deleted bool) {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[key] = true
	delete(c.seen, key)
	if deleted {
		c.seen[key] = true
	}
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// take is the keys that changed, and which of all keys were seen to go.
func (c *changes) take() (keys, seen map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	keys, c.keys = c.keys, map[string]bool{}
	return keys, maps.Clone(c.seen)
}

// settled forgets that keys were seen to go: nothing is left of them.
func (c *changes) settled(keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range keys {
		delete(c.seen, k)
	}
}

// mirror keeps the stored objects of a kind those that a kind of Kubernetes asks for:
// one for one.
type mirror struct {
	guard
	kind model.Kind
	what string // plural, for people
	from *feed
	// want is the stored form of an object of the feed. An error with an object is a
	// note about it; without, the object is passed over and what is stored stays.
	want func(o any) (v3.Object, error)
	// source is the feed's key of a stored object; false: it is not ours.
	source func(o v3.Object) (string, bool)
	// key is the stored object's, by the feed's.
	key func(source string) model.Key
	// exists asks the API server itself.
	exists func(ctx context.Context, source string) (bool, error)
	// total is the number of stored objects at the last full pass and since.
	total int
	notes map[string]string // by the feed's key
}

// run passes until ctx ends.
func (m *mirror) run(ctx context.Context) error {
	changed, stop := follow(m.from, nil)
	defer stop()
	m.notes = map[string]string{}
	return m.loop(ctx, m.name, changed.kick, func(ctx context.Context, all bool) error { return m.pass(ctx, changed, all) },
		func() []string { return slices.Sorted(maps.Values(m.notes)) })
}

// write is what a pass does with one object.
type write struct {
	source string
	op     store.Op
}

// pass compares all, or what changed, and writes the difference.
func (m *mirror) pass(ctx context.Context, changed *changes, all bool) error {
	keys, seen := changed.take()
	have, err := m.stored(ctx, all, keys)
	if err != nil {
		changed.again(keys)
		return err
	}
	if all {
		m.total = len(have)
		clear(m.notes)
		for _, k := range m.from.keys() {
			keys[k] = true
		}
		for k := range have {
			keys[k] = true
		}
	}
	puts, removals := m.plan(keys, have)
	if err := m.remove(ctx, puts, removals, seen); err != nil {
		changed.again(keys)
		return err
	}
	changed.settled(slices.Collect(maps.Keys(keys)))
	return nil
}

// again puts keys back, to be looked at in the next pass.
func (c *changes) again(keys map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.Copy(c.keys, keys)
}

// plan is what to write, and what to remove.
func (m *mirror) plan(keys map[string]bool, have map[string]store.Object) (puts, removals []write) {
	for _, source := range slices.Sorted(maps.Keys(keys)) {
		stored, ok := have[source]
		o := m.from.get(source)
		delete(m.notes, source)
		if o == nil {
			if ok {
				removals = append(removals, write{source, store.Op{Verb: store.Delete, Object: stored}})
			}
			continue
		}
		want, err := m.want(o)
		if err != nil {
			m.notes[source] = string(m.from.what) + " " + source + ": " + oneLine(err).Error()
		}
		switch {
		case want == nil:
		case !ok:
			puts = append(puts, write{source, store.Op{Verb: store.Create, Object: store.New(want)}})
		case !same(stored.Object, want):
			puts = append(puts, write{source, store.Op{Verb: store.Update, Object: stored.With(updated(stored.Object, want))}})
		}
	}
	return puts, removals
}

// remove checks the removals, writes the puts and then removes.
func (m *mirror) remove(ctx context.Context, puts, removals []write, seen map[string]bool) error {
	unseen := 0
	for _, w := range removals {
		if !seen[w.source] {
			unseen++
		}
	}
	r := removal{what: m.what, n: len(removals), total: m.total, listed: len(m.from.keys()), unseen: unseen}
	if err := m.check(ctx, r); err != nil {
		return err
	}
	err := m.commit(ctx, puts)
	certain, checkErr := m.certain(ctx, removals)
	err = errors.Join(err, checkErr, m.commit(ctx, certain))
	for _, w := range puts {
		if w.op.Verb == store.Create {
			m.total++
		}
	}
	m.total -= len(certain)
	m.spent(len(certain))
	m.board.metrics.removed.WithLabelValues(string(m.kind)).Add(float64(len(certain)))
	return err
}

// certain is those of removals whose source the API server itself says is gone.
func (m *mirror) certain(ctx context.Context, removals []write) ([]write, error) {
	var mu sync.Mutex
	var out []write
	var errs []error
	var g errgroup.Group
	g.SetLimit(m.workersOf(m.name))
	for _, w := range removals {
		g.Go(func() error {
			there, err := m.exists(ctx, w.source)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, oneLine(err))
			} else if !there {
				out = append(out, w)
			}
			return nil
		})
	}
	_ = g.Wait()
	return out, errors.Join(errs...)
}

// stored reads what is stored, by the feed's keys: all, or that of keys.
func (m *mirror) stored(ctx context.Context, all bool, keys map[string]bool) (map[string]store.Object, error) {
	have := map[string]store.Object{}
	if !all {
		for source := range keys {
			o, err := m.store.Get(ctx, m.key(source))
			switch {
			case errors.Is(err, store.ErrNotFound):
			case err != nil:
				return nil, err
			default:
				have[source] = o
			}
		}
		return have, nil
	}
	objects, err := m.store.List(ctx, m.kind, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return nil, err
	}
	for _, o := range objects {
		if source, ours := m.source(o.Object); ours {
			have[source] = o
		}
	}
	return have, nil
}

// commit carries out writes, several at a time; those that somebody was faster with are
// looked at again in the next pass.
func (t *term) commit(ctx context.Context, writes []write) error {
	var mu sync.Mutex
	var errs []error
	var g errgroup.Group
	g.SetLimit(4)
	for part := range slices.Chunk(writes, batchOps) {
		g.Go(func() error {
			var ops []store.Op
			for _, w := range part {
				ops = append(ops, w.op)
			}
			_, err := t.store.Commit(ctx, ops...)
			if err == nil {
				return nil
			}
			for _, op := range ops {
				_, err := t.store.Commit(ctx, op)
				if errors.Is(err, store.ErrNotFound) && op.Verb == store.Delete {
					continue
				}
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait()
	return errors.Join(errs...)
}

// content is what of an object a mirror decides: all but what the datastore keeps.
func content(o v3.Object) []byte {
	text, err := json.Marshal(o)
	if err != nil {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return nil
	}
	return fields["spec"]
}

func same(stored, want v3.Object) bool {
	return bytes.Equal(content(stored), content(want)) && covers(stored.Meta().Labels, want.Meta().Labels)
}

func covers(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// updated is want with what the datastore keeps of stored.
func updated(stored, want v3.Object) v3.Object {
	labels := maps.Clone(stored.Meta().Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, want.Meta().Labels)
	*want.Meta() = *stored.Meta().DeepCopy()
	want.Meta().Labels = labels
	return want
}

// loop passes over everything, then over what changed at each kick, and over
// everything again each period and after a failure; until ctx ends.
func (t *term) loop(ctx context.Context, name string, kick <-chan struct{}, pass func(ctx context.Context, all bool) error, notes func() []string) error {
	all, delay := true, time.Duration(0)
	var full time.Time // when everything was passed over last
	for {
		if all {
			full = t.now()
		}
		err := pass(ctx, all)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && errors.Is(err, store.ErrConflict) {
			err = nil // somebody was faster: again, at once
			delay = t.retry.first
		} else if err != nil {
			delay = min(max(2*delay, t.retry.first), t.retry.last)
		} else {
			delay = 0
		}
		t.board.note(ctx, name, err, notes())
		var timer <-chan time.Time
		next := kick
		if delay > 0 {
			timer, next = time.After(delay), nil // what changed is looked at with the rest
		} else if period := t.periodOf(name); period > 0 {
			timer = time.After(max(period-t.now().Sub(full), 0))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-next:
			all = false
		case <-timer:
			all = true
		}
	}
}

// budgetOf is the budget of a controller.
func (t *term) budgetOf(minimum int, window time.Duration) want.Budget {
	return want.Budget{Share: t.MaxShare, Min: minimum, Window: window}
}
