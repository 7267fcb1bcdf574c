// Package mem is a datastore in memory: for tests, and for whatever runs without
// a cluster.
//
// It is the honest fake of package etcd: the same code (package kv) over a [DB]
// that does what etcd does, seen through kv.DB: revisions that count
// transactions, transactions with conditions, reads of old revisions,
// compaction, and watches that fall behind, break and resume. The conformance
// test storetest.Run runs against both. It is not a cache of another store, and
// nothing outlives the process.
//
// [DB.Compact] and [DB.Break] do on purpose what a real etcd does at a bad time.
//
// Invariant: what a reader got is never changed afterwards; values are copied on
// their way in.
package mem

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"sort"
	"sync"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/kv"
)

// historyRevs is the number of revisions that a DB remembers at least.
const historyRevs = 10_000

// Store is a store in memory. DB is what lies below it.
type Store struct {
	*kv.Store
	DB *DB
}

// New makes an empty store.
func New() Store {
	db := NewDB()
	return Store{kv.New(db, time.Now, kv.Backoff{Min: time.Millisecond, Max: 100 * time.Millisecond}), db}
}

// Piecewise is a store in memory without transactions, as an API server has none: it
// carries commits out operation by operation, in the order of store.Piecewise.
type Piecewise struct {
	Store
	// Fail is asked before each write (before is true) and after it; an error is what
	// the commit meets there: a lost request, or a lost answer. nil: nothing fails.
	Fail func(op store.Op, before bool) error
}

// Commit implements store.Store.
func (p Piecewise) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	return store.Piecewise{Write: p.write, Handle: handleIn, Check: p.Check, Parallel: 4}.Commit(ctx, ops)
}

func (p Piecewise) write(ctx context.Context, op store.Op, _ model.Key) (store.Object, error) {
	if p.Fail != nil {
		if err := p.Fail(op, true); err != nil {
			return store.Object{}, err
		}
	}
	done, err := p.Store.Commit(ctx, op)
	if err == nil && p.Fail != nil {
		err = p.Fail(op, false)
	}
	if err != nil {
		return store.Object{}, err
	}
	return done[0], nil
}

// handleIn is the handle that a value is.
func handleIn(value []byte) *v3.IPAMHandle {
	o := &v3.IPAMHandle{}
	if json.Unmarshal(value, &o.Spec) != nil {
		return nil
	}
	return o
}

// DB implements kv.DB.
type DB struct {
	mu       sync.Mutex
	rev      int64                  // of the last transaction; 1 when new, as in etcd
	oldest   int64                  // revisions before it are forgotten
	keys     []string               // all in versions, in order
	versions map[string][]kv.Change // of each key, by revision
	log      []kv.Change            // all changes after oldest, by revision
	changed  chan struct{}          // closed by the next change, compaction or break
	breaks   int                    // number of times that Break was called
	closed   bool
}

// NewDB makes an empty DB.
func NewDB() *DB {
	return &DB{rev: 1, oldest: 1, versions: map[string][]kv.Change{}, changed: make(chan struct{})}
}

var (
	errClosed = errors.New("mem: the store is closed")
	errBroken = errors.New("mem: the watch was broken on purpose")
)

// Range implements kv.DB.
func (d *DB) Range(ctx context.Context, from, to string, limit int, rev int64) (kv.Page, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return kv.Page{}, err
	}
	if rev == 0 {
		rev = d.rev
	}
	if rev < d.oldest {
		return kv.Page{}, kv.ErrCompacted
	}
	page := kv.Page{Rev: rev}
	first := sort.SearchStrings(d.keys, from)
	for _, key := range d.keys[first:] {
		if key >= to {
			break
		}
		e := d.entry(key, rev)
		if e.Rev == 0 {
			continue
		}
		if limit > 0 && len(page.Entries) == limit {
			page.More = true
			break
		}
		page.Entries = append(page.Entries, e)
	}
	return page, nil
}

// entry is key as it was at rev.
func (d *DB) entry(key string, rev int64) kv.Entry {
	versions := d.versions[key]
	after := sort.Search(len(versions), func(i int) bool { return versions[i].Rev > rev })
	if after == 0 || versions[after-1].Value == nil {
		return kv.Entry{Key: key}
	}
	v := versions[after-1]
	return kv.Entry{Key: key, Value: v.Value, Rev: v.Rev}
}

// Txn implements kv.DB.
func (d *DB) Txn(ctx context.Context, writes []kv.Write) (kv.Outcome, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return kv.Outcome{}, err
	}
	found := make([]kv.Entry, len(writes))
	for i, w := range writes {
		found[i] = d.entry(w.Key, d.rev)
	}
	if !kv.Holds(writes, found) {
		return kv.Outcome{Rev: d.rev, Refused: found}, nil
	}
	d.rev++
	for _, w := range writes {
		c := kv.Change{Key: w.Key, Value: slices.Clone(w.Value), Rev: d.rev}
		if i, known := slices.BinarySearch(d.keys, w.Key); !known {
			d.keys = slices.Insert(d.keys, i, w.Key)
		}
		d.versions[w.Key] = append(d.versions[w.Key], c)
		d.log = append(d.log, c)
	}
	if d.rev-d.oldest > 2*historyRevs {
		d.compact(d.rev - historyRevs)
	}
	d.wake()
	return kv.Outcome{Rev: d.rev}, nil
}

// Watch implements kv.DB.
func (d *DB) Watch(ctx context.Context, from, to string, after int64) iter.Seq2[[]kv.Change, error] {
	d.mu.Lock()
	breaks := d.breaks
	d.mu.Unlock()
	return func(yield func([]kv.Change, error) bool) {
		for {
			changes, changed, err := d.since(ctx, after, breaks)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(changes) > 0 {
				after = changes[len(changes)-1].Rev
			}
			changes = slices.DeleteFunc(changes, func(c kv.Change) bool { return c.Key < from || c.Key >= to })
			if len(changes) > 0 && !yield(changes, nil) {
				return
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}

// since gives the changes after the revision after, and a channel that is closed
// when there may be more.
func (d *DB) since(ctx context.Context, after int64, breaks int) ([]kv.Change, <-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.usable(ctx); err != nil {
		return nil, nil, err
	}
	if d.breaks != breaks {
		return nil, nil, errBroken
	}
	// As in etcd, a watch may start at the compacted revision itself, not before.
	if after+1 < d.oldest {
		return nil, nil, kv.ErrCompacted
	}
	i := sort.Search(len(d.log), func(i int) bool { return d.log[i].Rev > after })
	return slices.Clone(d.log[i:]), d.changed, nil
}

// Compact forgets all revisions before the present one. Watches that are behind
// it break, and so do listings that are not done.
func (d *DB) Compact() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.compact(d.rev)
	d.wake()
}

func (d *DB) compact(rev int64) {
	d.oldest = rev
	d.log = slices.DeleteFunc(d.log, func(c kv.Change) bool { return c.Rev < rev })
	for key, versions := range d.versions {
		// The last version at or before rev is what a reader at rev sees.
		keep := sort.Search(len(versions), func(i int) bool { return versions[i].Rev > rev })
		versions = versions[max(keep-1, 0):]
		if len(versions) == 1 && versions[0].Value == nil {
			delete(d.versions, key)
			continue
		}
		d.versions[key] = slices.Clone(versions)
	}
	d.keys = slices.DeleteFunc(d.keys, func(k string) bool { return d.versions[k] == nil })
}

// Break ends every running watch with an error, as a restart of etcd does.
func (d *DB) Break() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.breaks++
	d.wake()
}

// Close implements kv.DB: every use from now on fails.
func (d *DB) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.wake()
	return nil
}

func (d *DB) usable(ctx context.Context) error {
	if d.closed {
		return errClosed
	}
	return ctx.Err()
}

// wake makes all watches look again.
func (d *DB) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}
