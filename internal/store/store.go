// Package store is the boundary to the datastore: where cluster state is kept
// and from where its changes arrive.
//
// Two views of the same thing:
//
//   - [Store] reads and writes single objects with compare-and-swap, in the
//     shape in which users write them (package v3). The CLI, address
//     assignment and node start-up use it.
//   - [Source] delivers everything of some kinds as a level, parsed (package
//     model). Agents use it.
//
// Implementations: store/mem (tests, and the honest fake), store/etcd (Calico's
// keys and values, etcd v3, embedded or remote). One conformance test,
// store/storetest, runs against each.
//
// What the datastore holds and weft does not know is kept: an [Object] carries
// the bytes it was read from, and an update writes its unknown fields back.
//
// Invariant: no write ever succeeds against a revision that its writer has not
// seen, unless the writer said so by leaving the revision empty.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// Errors that callers branch on with errors.Is.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	// ErrConflict says that the object changed since it was read: read again.
	ErrConflict = errors.New("changed meanwhile")
	// ErrUnreadable says that the stored value of an object makes no sense.
	ErrUnreadable = errors.New("stored value can't be read")
	// ErrRefused says that the datastore answered and did nothing, for another
	// reason: no permission, no space. Trying again does not help by itself.
	ErrRefused = errors.New("refused")
	// ErrNoKind says that the datastore has no place for objects of a kind: in
	// Kubernetes its CRD is not installed. It comes with ErrRefused.
	ErrNoKind = errors.New("the datastore has no such kind")
)

// Source delivers cluster state as a level, not as a log: after any break it
// starts again from a full snapshot, so consumers never replay history.
type Source interface {
	// Watch yields batches until ctx is done. The first batch after each
	// (re)connect has Reset set; the one that completes the snapshot has
	// Synced set. An error means the stream broke; a Reset follows, or, where the
	// store could go on without missing anything, the changes since; either way a
	// batch with Synced tells that it is whole again. No kinds means all that
	// weft knows.
	Watch(ctx context.Context, kinds ...model.Kind) iter.Seq2[model.Batch, error]
}

// Store reads and writes objects. It is safe for concurrent use.
type Store interface {
	Source
	// Get reads one object. The error wraps ErrNotFound when there is none.
	Get(ctx context.Context, key model.Key) (Object, error)
	// List reads all objects of a kind, in the byte order of their datastore
	// keys; of one namespace only, if that is not empty. Objects that can't be
	// read are left out and reported in the error beside the rest, an *Error that
	// wraps ErrUnreadable for each.
	List(ctx context.Context, kind model.Kind, namespace string) ([]Object, error)
	// Commit carries out all of ops or, on an error, none of them (where the
	// datastore has transactions: etcd and memory), and returns the objects as
	// written, in the order of ops, with their new revisions; what was deleted
	// is returned as it was given. At most 128 ops, each on another object.
	//
	// A datastore without transactions (Kubernetes) may fail in the middle. Then it
	// returns, beside the error, what was carried out: a zero Object stands for
	// an op that was not, or of which that is not known. It goes about it in an
	// order in which a break at any place leaves nothing that is given out twice, and
	// of addresses only what their handles still name.
	//
	// Errors wrap ErrNotFound, ErrExists, ErrConflict or ErrRefused. Those of the
	// first three are an *Error that names the object. Any other error may leave open whether ops were carried out, if the
	// connection broke meanwhile: read again.
	//
	// The datastore gives objects their uid and creationTimestamp; those of the
	// caller, and its finalizers and ownerReferences, are passed over. Defaults
	// and rules are the caller's business (v3.Default, v3.Validate).
	Commit(ctx context.Context, ops ...Op) ([]Object, error)
	// Close releases the connection. It does not stop running watches; end
	// those by their context.
	Close() error
}

// Pager is a Store that can hand a list out in pieces, so that nobody need hold all of
// a long one.
type Pager interface {
	// Pages yields what List returns, in its order, all as it was at one revision. An
	// error ends it; it wraps ErrConflict if the datastore forgot that revision
	// meanwhile: begin again.
	Pages(ctx context.Context, kind model.Kind, namespace string) iter.Seq2[Page, error]
}

// Page is a piece of a list. A list has one at least, that may be empty.
type Page struct {
	Objects  []Object
	Unread   []error // of objects that can't be read: see List
	Revision string  // of the list; empty if the datastore does not tell
}

// Pages yields the objects of a kind in pieces, or in one if s is no Pager.
func Pages(ctx context.Context, s Store, kind model.Kind, namespace string) iter.Seq2[Page, error] {
	if p, ok := s.(Pager); ok {
		return p.Pages(ctx, kind, namespace)
	}
	return func(yield func(Page, error) bool) {
		objects, err := s.List(ctx, kind, namespace)
		if err != nil && !errors.Is(err, ErrUnreadable) {
			yield(Page{}, err)
			return
		}
		page := Page{Objects: objects}
		if err != nil {
			page.Unread = []error{err}
		}
		yield(page, nil)
	}
}

// Object is one object as the datastore holds it. Its revision is
// metadata.resourceVersion. The zero Object is none.
type Object struct {
	v3.Object
	stored []byte
}

// New makes an Object that was not read from a store, to be created.
func New(o v3.Object) Object { return Object{Object: o} }

// Stored makes an Object from what a store read; for implementations of Store.
func Stored(o v3.Object, raw []byte) Object { return Object{o, raw} }

// Raw is the stored form that o was read from, nil if it was not; for
// implementations of Store, which keep its unknown fields on update.
func (o Object) Raw() []byte { return o.stored }

// With returns o with another value and the same origin: the way to update
// what was read and keep fields that weft does not know.
func (o Object) With(v v3.Object) Object { return Object{v, o.stored} }

// Verb is what an Op does.
type Verb uint8

// The verbs.
const (
	// Create writes an object that must not exist.
	Create Verb = iota
	// Update replaces an object that must exist; with a resourceVersion only
	// if the stored one has that revision still.
	Update
	// Delete removes an object that must exist; with a resourceVersion only if
	// the stored one has that revision still.
	Delete
)

// Op is one write of a Commit.
type Op struct {
	Verb   Verb
	Object Object
}

// Error tells which object a failure is about.
type Error struct {
	Key model.Key
	Err error
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("%v: %v", e.Key, e.Err) }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }
