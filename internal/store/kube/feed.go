package kube

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"slices"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// batchObjects is the number of objects in one batch: little garbage at a time.
const batchObjects = 500

// source is one resource as a Watch follows it.
type source struct {
	name     string
	resource resource
	lister   lister
	expected any // a pointer to the type of its objects; nil: *item
	// busy says that its objects change often where weft does not look.
	busy    bool
	convert func(obj any) found
}

// found is what an object means.
type found struct {
	puts     []model.Value
	invalids []model.Invalid
}

// keys are those of all that was found.
func (f found) keys() []model.Key {
	var keys []model.Key
	for _, v := range f.puts {
		keys = append(keys, v.Key())
	}
	for _, in := range f.invalids {
		keys = append(keys, in.Key)
	}
	return keys
}

// event is what a feed tells its Watch.
type event struct {
	feed *feed
	found
	deletes []model.Key
	synced  bool  // the feed has told all that there is
	err     error // it can't follow its resource now
	whole   bool  // it can again
}

// feed follows one source for one Watch: client-go's reflector keeps the list and the
// watch alive, and calls the feed as the store of what it finds. What is kept of an object
// is its revision and its keys.
type feed struct {
	source
	s      *Store
	ctx    context.Context
	events chan<- event
	seed   maphash.Seed

	known  map[string]known // by namespace/name
	synced bool
	broken bool
	gone   context.CancelFunc // ends the reflector: the resource is not installed any more
}

// known is what is remembered of an object.
type known struct {
	rev  string
	sum  uint64 // of what it means, for busy sources
	keys []model.Key
}

// done is an object that was converted when it arrived.
type done struct {
	metav1.ObjectMeta
	found
}

// run follows the source until the context ends.
func (f *feed) run() {
	for f.ctx.Err() == nil {
		if f.resource.optional {
			installed, err := f.s.installed(f.ctx, f.resource)
			if err != nil {
				f.fail(err)
				f.pause(f.s.absent / 10)
				continue
			}
			if !installed {
				f.heal()
				f.sync()
				f.pause(f.s.absent)
				continue
			}
		}
		ctx, cancel := context.WithCancel(f.ctx)
		f.gone = cancel
		f.follow(ctx)
		cancel()
	}
}

func (f *feed) pause(d time.Duration) {
	select {
	case <-f.ctx.Done():
	case <-time.After(d):
	}
}

// follow runs a reflector until ctx ends. What fails is told by the feed itself.
func (f *feed) follow(ctx context.Context) {
	expected := f.expected
	if expected == nil {
		expected = &item{}
	}
	r := cache.NewReflectorWithOptions(followed{f}, expected, f, cache.ReflectorOptions{
		Name: f.name, TypeDescription: f.name, Logger: &klog.Logger{},
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Cap: 10 * time.Second, Steps: 50, Factor: 2, Jitter: 1},
	})
	r.RunWithContext(klog.NewContext(ctx, klog.Logger{}))
}

// send hands an event over, unless the Watch has ended.
func (f *feed) send(e event) error {
	e.feed = f
	select {
	case f.events <- e:
		return nil
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

// fail tells that the resource can't be followed now.
func (f *feed) fail(err error) {
	f.broken = true
	_ = f.send(event{err: err}) // else it has ended
}

// heal tells that it can be followed again.
func (f *feed) heal() {
	if f.broken {
		f.broken = false
		_ = f.send(event{whole: true})
	}
}

// sync tells, once, that all has been told.
func (f *feed) sync() {
	if !f.synced {
		f.synced = true
		_ = f.send(event{synced: true})
	}
}

// Transformer implements cache.TransformingStore: what a streamed list brings is converted
// as it arrives.
func (f *feed) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if _, ok := obj.(*done); ok {
			return obj, nil
		}
		m, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		d := &done{}
		d.Namespace, d.Name, d.ResourceVersion = m.GetNamespace(), m.GetName(), m.GetResourceVersion()
		if f.known[name(d)].rev != d.ResourceVersion {
			d.found = f.convert(obj)
		}
		return d, nil
	}
}

func name(d *done) string { return d.Namespace + "/" + d.Name }

// converted is an object as Transformer leaves it.
func (f *feed) converted(obj any) (*done, error) {
	if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = last.Obj
	}
	out, err := f.Transformer()(obj)
	if err != nil {
		return nil, err
	}
	return out.(*done), nil
}

// Add implements cache.ReflectorStore.
func (f *feed) Add(obj any) error { return f.Update(obj) }

// Update implements cache.ReflectorStore.
func (f *feed) Update(obj any) error {
	d, err := f.converted(obj)
	if err != nil {
		return err
	}
	e := event{}
	f.take(&e, d)
	if len(e.puts)+len(e.invalids)+len(e.deletes) == 0 {
		return nil
	}
	return f.send(e)
}

// take adds to e what an object's new version changes.
func (f *feed) take(e *event, d *done) {
	was, had := f.known[name(d)]
	if had && was.rev == d.ResourceVersion {
		return
	}
	now := known{rev: d.ResourceVersion, keys: d.keys()}
	if f.busy {
		now.sum = f.sumOf(d.found)
	}
	for _, k := range was.keys {
		if !slices.Contains(now.keys, k) {
			e.deletes = append(e.deletes, k)
		}
	}
	if len(now.keys) == 0 {
		delete(f.known, name(d))
		return
	}
	f.known[name(d)] = now
	if had && f.busy && was.sum == now.sum && slices.Equal(was.keys, now.keys) {
		return
	}
	e.puts, e.invalids = append(e.puts, d.puts...), append(e.invalids, d.invalids...)
}

// sumOf is a number that differs when what was found differs.
func (f *feed) sumOf(in found) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	for _, v := range in.puts {
		fmt.Fprintf(&h, "%T %+v|", v, v)
	}
	for _, i := range in.invalids {
		fmt.Fprintf(&h, "%v %v %+v|", i.Key, i.Err, i.Strict)
	}
	return h.Sum64()
}

// Delete implements cache.ReflectorStore.
func (f *feed) Delete(obj any) error {
	m, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	at := m.GetNamespace() + "/" + m.GetName()
	was := f.known[at]
	delete(f.known, at)
	gone := f.notElsewhere(was.keys)
	if len(gone) == 0 {
		return nil
	}
	return f.send(event{deletes: gone})
}

// notElsewhere are those of keys that no other object has. A policy may stand under two names
// for a moment, while the tier is taken from before its name: it is not gone when the older
// one is.
func (f *feed) notElsewhere(keys []model.Key) []model.Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k model.Key) bool {
		for _, name := range []string{k.Name, v3.DefaultTier + "." + k.Name} {
			if slices.Contains(f.known[k.Namespace+"/"+name].keys, k) {
				return true
			}
		}
		return false
	})
}

// Replace implements cache.ReflectorStore: the list is the whole truth. What it changes is
// told, and nothing else.
func (f *feed) Replace(list []any, _ string) error {
	there := make(map[string]bool, len(list))
	e := event{}
	flush := func() error {
		if len(e.puts)+len(e.invalids)+len(e.deletes) == 0 {
			return nil
		}
		err := f.send(e)
		e = event{}
		return err
	}
	for i, obj := range list {
		d, err := f.converted(obj)
		if err != nil {
			return err
		}
		list[i] = nil // it may go
		there[name(d)] = true
		f.take(&e, d)
		if len(e.puts)+len(e.invalids) >= batchObjects {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	var gone []model.Key
	for at, was := range f.known {
		if !there[at] {
			gone = append(gone, was.keys...)
			delete(f.known, at)
		}
	}
	e.deletes = append(e.deletes, f.notElsewhere(gone)...)
	if err := flush(); err != nil {
		return err
	}
	f.sync()
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *feed) Resync() error { return nil }

// followed is the lister of a feed, which hears of what fails.
type followed struct{ f *feed }

// List implements cache.ListerWatcher.
func (l followed) List(options metav1.ListOptions) (runtime.Object, error) {
	return l.ListWithContext(l.f.ctx, options)
}

// Watch implements cache.ListerWatcher.
func (l followed) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return l.WatchWithContext(l.f.ctx, options)
}

// ListWithContext implements cache.ListerWatcherWithContext.
func (l followed) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	list, err := l.f.lister.List(ctx, options)
	l.f.hear(ctx, "list", err)
	return list, err
}

// WatchWithContext implements cache.ListerWatcherWithContext.
func (l followed) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	w, err := l.f.lister.Watch(ctx, options)
	if err != nil && options.SendInitialEvents != nil && (apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)) {
		return w, err // the server can't stream lists: an ordinary list follows
	}
	l.f.hear(ctx, "watch", err)
	return w, err
}

// hear tells what a request for the resource has met with.
func (f *feed) hear(ctx context.Context, verb string, err error) {
	switch {
	case err == nil:
		f.heal()
	case ctx.Err() != nil:
	case apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
		// It has forgotten the revision: a new list follows.
	case isUninstalled(err) && f.resource.optional:
		f.s.forget(f.resource)
		f.gone()
	default:
		f.fail(unfollowed(verb, f.resource, err))
	}
}

var _ cache.TransformingStore = (*feed)(nil)

// unfollowed says why a resource can't be followed. A server that does not answer is the
// same for all.
func unfollowed(verb string, r resource, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return fmt.Errorf("%s %s: %w", verb, r.crd(), translated(r, err))
	}
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	return fmt.Errorf("the API server does not answer: %w", oneLine(err))
}

// errKind says that a kind is none of the datastore.
func errKind(kind model.Kind) error {
	return fmt.Errorf("kind %q is not one of the datastore", kind)
}
