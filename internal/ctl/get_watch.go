package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/show"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// pollEvery is how often kinds are read that no source tells the changes of.
const pollEvery = 2 * time.Second

// follower prints what happens to objects of one kind.
type follower struct {
	*get
	want  wanted
	feed  *show.Feed
	known map[model.Key]v3.Object // as printed last; of unchosen objects: not
}

// follow prints what there is, and then each change, until ctx ends: that is no failure. A
// connection that breaks is made again; what changed meanwhile is printed then.
func (g *get) follow(ctx context.Context, w wanted) error {
	head := g.head(w)
	if w.kind.Name == "Node" {
		head.ASNumber = g.asNumber(ctx)
	}
	feed, err := g.format.Feed(head)
	if err != nil {
		return &UsageError{err}
	}
	f := &follower{get: g, want: w, feed: feed, known: map[model.Key]v3.Object{}}
	if w.name != "" {
		if _, err := g.object(ctx, w); err != nil {
			return g.about(w, err)
		}
	}
	if err = f.sync(ctx); err == nil {
		err = f.changes(ctx)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// changes prints what changes from now on.
func (f *follower) changes(ctx context.Context) error {
	if !isTold(f.want.kind) {
		return f.poll(ctx)
	}
	for batch, err := range f.store.Watch(ctx, modelKind(f.want.kind)) {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			_, _ = fmt.Fprintf(f.Stderr, "watch: %v: trying again\n", err)
			continue
		case batch.Synced: // of a snapshot: what is in it may be known
			err = f.sync(ctx)
		case !batch.Reset:
			err = f.read(ctx, keysOf(batch))
		}
		if err = f.again(ctx, err); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// again reads all after a failure, as often as it takes: what is missed once would not be
// told a second time.
func (f *follower) again(ctx context.Context, err error) error {
	for err != nil && ctx.Err() == nil && !errors.As(err, new(printError)) {
		_, _ = fmt.Fprintf(f.Stderr, "watch: %v: trying again\n", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
			err = f.sync(ctx)
		}
	}
	return err
}

// printError is that the output takes no more.
type printError struct{ error }

// poll reads all again and again.
func (f *follower) poll(ctx context.Context) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if err := f.again(ctx, f.sync(ctx)); err != nil {
				return err
			}
		}
	}
}

// isTold reports whether a source tells changes of the kind: it does of what agents have a
// use for.
func isTold(kind v3.Kind) bool {
	o, ok := v3.New(kind.Name)
	if !ok {
		return false
	}
	v, err := model.Parse(o)
	return v != nil || err != nil
}

func keysOf(b model.Batch) []model.Key {
	keys := slices.Clone(b.Deletes)
	for _, v := range b.Puts {
		keys = append(keys, v.Key())
	}
	for _, in := range b.Invalids {
		keys = append(keys, in.Key)
	}
	return keys
}

// sync reads all that is wanted, and prints what is new, other or gone.
func (f *follower) sync(ctx context.Context) error {
	there := map[model.Key]bool{}
	for page, err := range store.Pages(ctx, f.store, modelKind(f.want.kind), f.want.namespace) {
		if err != nil {
			return err
		}
		for _, o := range page.Objects {
			k, err := model.KeyOf(o.Object)
			if err != nil {
				continue
			}
			there[k] = true
			if err := f.put(k, o); err != nil {
				return err
			}
		}
	}
	for k := range f.known {
		if !there[k] {
			if err := f.drop(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// read reads objects that changed and prints them.
func (f *follower) read(ctx context.Context, keys []model.Key) error {
	for _, k := range keys {
		if k.Kind != modelKind(f.want.kind) || f.want.namespace != "" && k.Namespace != f.want.namespace {
			continue
		}
		o, err := f.store.Get(ctx, k)
		switch {
		case err == nil:
			err = f.put(k, o)
		case errors.Is(err, store.ErrNotFound):
			err = f.drop(k)
		case errors.Is(err, store.ErrUnreadable):
			_, _ = fmt.Fprintln(f.Stderr, err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// put prints o if it is chosen and is not what was printed of it last.
func (f *follower) put(k model.Key, o store.Object) error {
	if f.want.name != "" && o.Meta().Name != f.want.name {
		return nil
	}
	chosen := f.chosen([]store.Object{o})
	if len(chosen) == 0 {
		return f.drop(k) // its labels are others now
	}
	was, isKnown := f.known[k]
	f.known[k] = o.Object
	switch {
	case !isKnown:
		return f.print(show.Added, chosen[0])
	case was.Meta().ResourceVersion != o.Meta().ResourceVersion:
		return f.print(show.Modified, chosen[0])
	}
	return nil
}

func (f *follower) print(event show.Event, o v3.Object) error {
	if err := f.feed.Print(f.Stdout, event, o); err != nil {
		return printError{err}
	}
	return nil
}

// drop prints that an object is gone, if it was there.
func (f *follower) drop(k model.Key) error {
	was, ok := f.known[k]
	if !ok {
		return nil
	}
	delete(f.known, k)
	if f.format.IsDocument() {
		_, _ = fmt.Fprintf(f.Stderr, "%s deleted\n", show.Name(was))
		return nil
	}
	return f.print(show.Deleted, was)
}
