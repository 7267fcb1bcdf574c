package edit

import (
	"context"
	"errors"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Create writes o, which must not exist. o is changed: see [Check].
func (e *Editor) Create(ctx context.Context, o v3.Object) Result {
	return e.checked(ctx, o, func() Result {
		if !e.DryRun {
			return e.create(ctx, o)
		}
		before, err := e.read(ctx, o)
		switch {
		case err == nil:
			return e.exists(o, before.Object)
		case errors.Is(err, store.ErrNotFound):
			return e.create(ctx, o)
		}
		return failed(o, err)
	})
}

// Apply creates o or makes the stored object equal to it. A resourceVersion in o must be that
// of the stored object. o is changed: see [Check].
func (e *Editor) Apply(ctx context.Context, o v3.Object) Result {
	return e.checked(ctx, o, func() Result {
		return e.put(ctx, o, true)
	})
}

// Replace makes the stored object equal to o; it must exist. o is changed: see [Check].
func (e *Editor) Replace(ctx context.Context, o v3.Object) Result {
	return e.checked(ctx, o, func() Result {
		return e.put(ctx, o, false)
	})
}

// checked runs write after the checks of o by itself.
func (e *Editor) checked(ctx context.Context, o v3.Object, write func() Result) Result {
	if err := Check(o); err != nil {
		return failed(o, err)
	}
	if err := e.prepare(ctx); err != nil {
		return failed(o, err)
	}
	return write()
}

// create writes what is not there.
func (e *Editor) create(ctx context.Context, o v3.Object) Result {
	if err := e.checkRules(ctx, nil, o); err != nil {
		return failed(o, err)
	}
	k, err := model.KeyOf(o)
	if err != nil {
		return failed(o, err)
	}
	given := o.Meta().ResourceVersion
	o.Meta().ResourceVersion = ""
	r := Result{Key: k, Object: o, Outcome: Created}
	if !e.DryRun {
		done, err := e.store.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(o)})
		o.Meta().ResourceVersion = given
		if errors.Is(err, store.ErrExists) {
			return e.exists(o, nil)
		}
		if err != nil {
			return failed(o, err)
		}
		r.Object = done[0].Object
	}
	e.remember(k, r.Object)
	return r
}

// exists is the result of creating what is there already.
func (e *Editor) exists(o, before v3.Object) Result {
	k, _ := model.KeyOf(o)
	if e.SkipExists {
		return Result{Key: k, Object: o, Before: before, Outcome: Skipped, Note: "it exists"}
	}
	return failed(o, &store.Error{Key: k, Err: store.ErrExists})
}

// put makes the stored object equal to o, and creates it where that is meant.
func (e *Editor) put(ctx context.Context, o v3.Object, orCreate bool) Result {
	var r Result
	for range maxTries {
		before, err := e.read(ctx, o)
		switch {
		case errors.Is(err, store.ErrNotFound) && orCreate && o.Meta().ResourceVersion == "":
			r = e.create(ctx, o)
			if errors.Is(r.Err, store.ErrExists) || r.Outcome == Skipped {
				continue // somebody else made it
			}
			return r
		case err != nil:
			return failed(o, err)
		}
		r = e.update(ctx, before, o)
		if o.Meta().ResourceVersion != "" || !errors.Is(r.Err, store.ErrConflict) {
			return r
		}
	}
	return r
}

// read reads what is stored of o.
func (e *Editor) read(ctx context.Context, o v3.Object) (store.Object, error) {
	k, err := model.KeyOf(o)
	if err != nil {
		return store.Object{}, err
	}
	return e.store.Get(ctx, k)
}

// update writes o over before, which it is a version of.
func (e *Editor) update(ctx context.Context, before store.Object, o v3.Object) Result {
	k, err := model.KeyOf(o)
	if err != nil {
		return failed(o, err)
	}
	if rev := o.Meta().ResourceVersion; rev != "" && rev != before.Meta().ResourceVersion {
		return failed(o, &store.Error{Key: k, Err: store.ErrConflict})
	}
	after := clone(o)
	inherit(after, before.Object)
	r := Result{Key: k, Object: after, Before: before.Object, Changed: Changes(before.Object, after)}
	if len(r.Changed) == 0 {
		r.Object, r.Outcome = before.Object, Unchanged
		return r
	}
	if err := e.checkRules(ctx, before.Object, after); err != nil {
		return failed(o, err)
	}
	r.Outcome = Configured
	if e.DryRun {
		return r
	}
	done, err := e.store.Commit(ctx, store.Op{Verb: store.Update, Object: before.With(after)})
	if err != nil {
		r := failed(o, err)
		r.Before = before.Object
		return r
	}
	r.Object = done[0].Object
	return r
}

// inherit gives o what is not the user's to set: the metadata of the stored object, and its
// status if o has none.
func inherit(o, stored v3.Object) {
	m, was := o.Meta(), stored.Meta()
	m.UID, m.CreationTimestamp, m.Generation = was.UID, was.CreationTimestamp, was.Generation
	m.ResourceVersion, m.ManagedFields = was.ResourceVersion, was.ManagedFields
	m.Finalizers, m.OwnerReferences = was.Finalizers, was.OwnerReferences
	m.DeletionTimestamp, m.DeletionGracePeriodSeconds = was.DeletionTimestamp, was.DeletionGracePeriodSeconds
	keepStatus(o, stored)
}
