package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Sizes of requests to the DB.
const (
	// MaxOps is the largest number of operations of one Commit: what etcd takes
	// in one transaction unless it is told otherwise.
	MaxOps = 128
	// pageEntries is the number of entries that are read at once before anything
	// is known of their size; then it is pageBytes of them, but at most maxPageEntries.
	pageEntries    = 500
	maxPageEntries = 10_000
	pageBytes      = 1 << 20
	// batchEntries is the number of objects in one batch of a snapshot: little
	// garbage at a time.
	batchEntries = 500
)

// Store implements store.Store over a DB. It is safe for concurrent use.
type Store struct {
	db     DB
	layout layout
	now    func() time.Time
	backs  Backoff
}

// New makes a store over db, which it owns from now on. now is the clock for
// creation times; back is the wait between attempts of a broken watch.
func New(db DB, now func() time.Time, back Backoff) *Store {
	return &Store{db, newLayout(), now, back}
}

// Close implements store.Store.
func (s *Store) Close() error { return s.db.Close() }

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, k model.Key) (store.Object, error) {
	e, err := s.entry(ctx, k)
	if err != nil {
		return store.Object{}, err
	}
	return decode(k, e.Value, e.Rev)
}

// entry reads the entry of k, which must exist.
func (s *Store) entry(ctx context.Context, k model.Key) (Entry, error) {
	key, err := s.layout.keyFor(k)
	if err != nil {
		return Entry{}, &store.Error{Key: k, Err: err}
	}
	one := just(key)
	page, err := s.db.Range(ctx, one.from, one.to, 1, 0)
	if err != nil {
		return Entry{}, &store.Error{Key: k, Err: err}
	}
	if len(page.Entries) == 0 {
		return Entry{}, &store.Error{Key: k, Err: store.ErrNotFound}
	}
	return page.Entries[0], nil
}

// List implements store.Store. The objects are as they were at one revision.
func (s *Store) List(ctx context.Context, kind model.Kind, namespace string) ([]store.Object, error) {
	spans, err := s.layout.spans(kind, namespace)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	for {
		objects, unread, err := s.list(ctx, spans)
		switch {
		case errors.Is(err, ErrCompacted):
			continue // compacted between two pages: read again
		case err != nil:
			return nil, fmt.Errorf("list %s: %w", kind, err)
		}
		return objects, errors.Join(unread...)
	}
}

func (s *Store) list(ctx context.Context, spans []span) (objects []store.Object, unread []error, err error) {
	var rev int64
	for page, err := range s.pages(ctx, spans, &rev) {
		if err != nil {
			return nil, nil, err
		}
		for _, e := range page {
			k, ok := s.layout.parse(e.Key)
			if !ok {
				continue
			}
			o, err := decode(k, e.Value, e.Rev)
			if err != nil {
				unread = append(unread, err)
				continue
			}
			objects = append(objects, o)
		}
	}
	return objects, unread, nil
}

// Ready reports whether the cluster may be changed: false while somebody
// migrates the datastore (ClusterInformation's datastoreReady, or the key
// /calico/v1/Ready of old versions). A cluster without either is ready.
func (s *Store) Ready(ctx context.Context) (bool, error) {
	one := just(readyKey)
	page, err := s.db.Range(ctx, one.from, one.to, 1, 0)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", readyKey, err)
	}
	if len(page.Entries) > 0 && string(page.Entries[0].Value) == "false" {
		return false, nil
	}
	o, err := s.Get(ctx, model.Cluster{}.Key())
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	ready := o.Object.(*v3.ClusterInformation).Spec.DatastoreReady
	return ready == nil || *ready, nil
}
