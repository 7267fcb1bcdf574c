package kv

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// Backoff is the wait between attempts: Min after the first failure, doubled
// with each further one up to Max, of which a random half to whole is waited,
// so that the nodes of a cluster do not all come back at once.
type Backoff struct{ Min, Max time.Duration }

// DefaultBackoff is right for agents.
func DefaultBackoff() Backoff { return Backoff{50 * time.Millisecond, 10 * time.Second} }

// after is the wait after the given number of failures in a row, from 1.
func (b Backoff) after(failures int) time.Duration {
	wait := b.Min << min(failures-1, 20)
	if wait > b.Max || wait <= 0 {
		wait = b.Max
	}
	return wait/2 + rand.N(wait/2+1)
}

// Watch implements store.Source. It reads a snapshot at one revision and follows
// the DB from there on; whatever breaks is yielded once, and after a wait that
// grows with each failure the next snapshot begins.
func (s *Store) Watch(ctx context.Context, kinds ...model.Kind) iter.Seq2[model.Batch, error] {
	if len(kinds) == 0 {
		kinds = s.layout.all()
	}
	return func(yield func(model.Batch, error) bool) {
		f, err := s.newFollower(kinds, yield)
		if err != nil {
			yield(model.Batch{}, err)
			return
		}
		for failures := 0; ctx.Err() == nil; {
			f.synced = false
			err := f.run(ctx)
			if f.stopped || ctx.Err() != nil || !yield(model.Batch{}, err) {
				return
			}
			if f.synced {
				failures = 0
			}
			failures++
			select {
			case <-ctx.Done():
			case <-time.After(s.backs.after(failures)):
			}
		}
	}
}

// follower is one running Watch.
type follower struct {
	s     *Store
	kinds map[model.Kind]bool
	spans []span // where the kinds are, in key order
	yield func(model.Batch, error) bool

	forms   *forms // while a snapshot is read
	stopped bool   // the consumer wants no more
	synced  bool   // the running attempt has completed its snapshot
}

func (s *Store) newFollower(kinds []model.Kind, yield func(model.Batch, error) bool) (*follower, error) {
	f := &follower{s: s, kinds: map[model.Kind]bool{}, yield: yield}
	for _, k := range kinds {
		spans, err := s.layout.spans(k, "")
		if err != nil {
			return nil, err
		}
		if !f.kinds[k] {
			f.spans = append(f.spans, spans...)
		}
		f.kinds[k] = true
	}
	slices.SortFunc(f.spans, func(a, b span) int { return strings.Compare(a.from, b.from) })
	return f, nil
}

// errStreamEnd stands for a stream of changes that ended without a reason.
var errStreamEnd = errors.New("watch: the stream of changes ended")

// run delivers one snapshot and what follows, until something breaks.
func (f *follower) run(ctx context.Context) error {
	rev, err := f.snapshot(ctx)
	if err != nil || f.stopped {
		return err
	}
	f.synced = true
	// One stream for all kinds, so that changes arrive in the order of
	// revisions and a transaction is never seen in halves.
	from, to := f.spans[0].from, f.spans[len(f.spans)-1].to
	for changes, err := range f.s.db.Watch(ctx, from, to, rev) {
		if err != nil {
			return err
		}
		for _, b := range f.batches(changes) {
			if !f.send(b) {
				return nil
			}
		}
	}
	return errStreamEnd
}

func (f *follower) send(b model.Batch) bool {
	f.stopped = !f.yield(b, nil)
	return !f.stopped
}

// snapshot delivers everything as it was at one revision, which it returns. What
// is small arrives in one batch; of more, a batch is held back until the next is
// there, because the last one says so.
func (f *follower) snapshot(ctx context.Context) (int64, error) {
	var rev int64
	held := model.Batch{Reset: true}
	f.forms = &forms{}
	for page, err := range ahead(ctx, func(ctx context.Context) iter.Seq2[[]Entry, error] { return f.s.pages(ctx, f.spans, &rev) }) {
		if err != nil {
			return 0, err
		}
		for chunk := range slices.Chunk(page, batchEntries) {
			if n := len(held.Puts) + len(held.Invalids); n > 0 && n+len(chunk) > batchEntries {
				if !f.send(held) {
					return 0, nil
				}
				held = model.Batch{Puts: make([]model.Value, 0, batchEntries)}
			}
			for _, e := range chunk {
				if k, ok := f.wants(e.Key); ok {
					f.put(&held, k, e.Value, e.Rev)
				}
			}
		}
	}
	held.Synced, f.forms = true, nil // not needed, and large: who is synced may collect garbage
	f.send(held)
	return rev, nil
}

// wants is the key of what is stored at key, if that is to be delivered.
func (f *follower) wants(key string) (model.Key, bool) {
	k, ok := f.s.layout.parse(key)
	return k, ok && f.kinds[k.Kind]
}

// put adds what is stored of k to b: parsed, or as invalid.
func (f *follower) put(b *model.Batch, k model.Key, value []byte, rev int64) {
	quick := f.forms != nil && k.Kind == model.KindWorkloadEndpoint
	if quick {
		if ep, ok := f.forms.endpoint(k, value); ok {
			b.Puts = append(b.Puts, ep)
			return
		}
	}
	o, err := decode(k, value, rev)
	if err != nil {
		b.Invalids = append(b.Invalids, model.Invalid{Key: k, Err: errors.Unwrap(err)})
		return
	}
	v, err := model.Parse(o.Object)
	switch {
	case err != nil:
		b.Invalids = append(b.Invalids, model.Invalid{Key: k, Err: oneLine(err), Strict: model.Strict(o.Object)})
	case v != nil:
		b.Puts = append(b.Puts, v)
		if ep, ok := v.(model.Endpoint); ok && quick {
			f.forms.learn(o.Object.(*v3.WorkloadEndpoint), value, ep)
		}
	}
}

// batches turns changes that arrived together into as few batches as can be: a
// new one begins where a key would occur twice. What changed at one revision
// stays together.
func (f *follower) batches(changes []Change) []model.Batch {
	var done []model.Batch
	var b model.Batch
	used := map[string]bool{} // keys in b
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].Rev == changes[0].Rev {
			n++
		}
		if slices.ContainsFunc(changes[:n], func(c Change) bool { return used[c.Key] }) {
			done, b = append(done, b), model.Batch{}
			clear(used)
		}
		for _, c := range changes[:n] {
			used[c.Key] = true
			f.add(&b, c)
		}
		changes = changes[n:]
	}
	return slices.DeleteFunc(append(done, b), model.Batch.Empty)
}

// add puts c into b, if its kind is to be delivered.
func (f *follower) add(b *model.Batch, c Change) {
	k, ok := f.wants(c.Key)
	switch {
	case !ok:
	case c.Value == nil:
		b.Deletes = append(b.Deletes, k)
	default:
		f.put(b, k, c.Value, c.Rev)
	}
}

// pages yields the entries of spans, which are in key order, page by page, all
// as they were at one revision. *rev is that revision once the first page came.
func (s *Store) pages(ctx context.Context, spans []span, rev *int64) iter.Seq2[[]Entry, error] {
	return func(yield func([]Entry, error) bool) {
		for _, sp := range spans {
			limit := pageEntries
			for from, more := sp.from, true; more; {
				page, err := s.db.Range(ctx, from, sp.to, limit, *rev)
				if err != nil {
					yield(nil, err)
					return
				}
				if *rev == 0 {
					*rev = page.Rev
				}
				if !yield(page.Entries, nil) {
					return
				}
				if more = page.More; more {
					from = page.Entries[len(page.Entries)-1].Key + "\x00"
					limit = nextLimit(page.Entries)
				}
			}
		}
	}
}

// nextLimit is the number of entries to read at once after page, by their size.
// etcd walks over all keys from the first one asked for to the last one of the
// span to answer any request, so few and large ones cost it less.
func nextLimit(page []Entry) int {
	size := 1
	for _, e := range page {
		size += len(e.Key) + len(e.Value)
	}
	return min(max(pageBytes*len(page)/size, 1), maxPageEntries)
}

// ahead runs pages in a goroutine that is one page ahead of the consumer, so that
// the DB and its reader work at the same time.
func ahead(ctx context.Context, pages func(context.Context) iter.Seq2[[]Entry, error]) iter.Seq2[[]Entry, error] {
	type item struct {
		page []Entry
		err  error
	}
	return func(yield func([]Entry, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		items := make(chan item)
		go func() {
			defer close(items)
			for page, err := range pages(ctx) {
				select {
				case items <- item{page, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
		defer func() {
			cancel()
			for range items { // until it has ended
			}
		}()
		for i := range items {
			if !yield(i.page, i.err) {
				return
			}
		}
	}
}
