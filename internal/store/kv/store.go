package kv

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strconv"
	"sync"
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
		var objects []store.Object
		var unread []error
		var failure error
		for page, err := range s.decoded(ctx, spans) {
			objects, unread, failure = append(objects, page.Objects...), append(unread, page.Unread...), err
		}
		switch {
		case errors.Is(failure, ErrCompacted):
			continue // compacted between two pages: read again
		case failure != nil:
			return nil, fmt.Errorf("list %s: %w", kind, failure)
		}
		return objects, errors.Join(unread...)
	}
}

// Pages implements store.Pager.
func (s *Store) Pages(ctx context.Context, kind model.Kind, namespace string) iter.Seq2[store.Page, error] {
	return func(yield func(store.Page, error) bool) {
		spans, err := s.layout.spans(kind, namespace)
		if err != nil {
			yield(store.Page{}, fmt.Errorf("list %s: %w", kind, err))
			return
		}
		for page, err := range s.decoded(ctx, spans) {
			switch {
			case errors.Is(err, ErrCompacted):
				err = fmt.Errorf("list %s: %w: %w", kind, store.ErrConflict, err)
			case err != nil:
				err = fmt.Errorf("list %s: %w", kind, err)
			}
			if !yield(page, err) {
				return
			}
		}
	}
}

// decoded yields what is in spans at one revision, piece by piece. While one piece is
// decoded and worked on the next is on its way.
func (s *Store) decoded(ctx context.Context, spans []span) iter.Seq2[store.Page, error] {
	return func(yield func(store.Page, error) bool) {
		var rev int64
		read := func(ctx context.Context) iter.Seq2[[]Entry, error] { return s.pages(ctx, spans, &rev) }
		for entries, err := range ahead(ctx, read) {
			if err != nil {
				yield(store.Page{}, err)
				return
			}
			page := s.decodeAll(entries)
			page.Revision = strconv.FormatInt(rev, 10)
			if !yield(page, nil) {
				return
			}
		}
	}
}

// decodeAll decodes entries, on all processors, and keeps their order.
func (s *Store) decodeAll(entries []Entry) store.Page {
	const least = 64 // entries that are worth a goroutine
	parts := make([]store.Page, min(runtime.GOMAXPROCS(0), len(entries)/least)+1)
	size := (len(entries) + len(parts) - 1) / len(parts)
	var all sync.WaitGroup
	for i := range parts {
		part := entries[min(i*size, len(entries)):min((i+1)*size, len(entries))]
		all.Go(func() { parts[i] = s.decodePart(part) })
	}
	all.Wait()
	page := parts[0]
	for _, p := range parts[1:] {
		page.Objects, page.Unread = append(page.Objects, p.Objects...), append(page.Unread, p.Unread...)
	}
	return page
}

func (s *Store) decodePart(entries []Entry) (page store.Page) {
	page.Objects = make([]store.Object, 0, len(entries))
	for _, e := range entries {
		k, ok := s.layout.parse(e.Key)
		if !ok {
			continue
		}
		o, err := decode(k, e.Value, e.Rev)
		if err != nil {
			page.Unread = append(page.Unread, err)
			continue
		}
		page.Objects = append(page.Objects, o)
	}
	return page
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
