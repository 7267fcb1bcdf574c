// Package edit changes objects of the datastore as users ask for it: create, apply,
// replace, delete, patch and label, with the rules that need the other objects.
//
//	v3.Object ─► default, validate ─► read what is stored ─► rules ─► compare-and-swap
//	                                        ▲                              │
//	                                        └────── changed meanwhile ◄────┘
//
// An [Editor] does one thing to one object and answers with a [Result]: what happened, which
// fields changed, or why it failed. [Editor.Run] does it to many, in an order in which what
// others depend on comes first, side by side where that makes no difference.
//
// The rules are those that Calico's client has, as the datastore etcd knows none: the tier of a
// policy and the filters of a peer exist, pools do not overlap, a tier that has policies stays,
// built-in objects stay, a pool that goes gives its blocks up, and so does a node.
//
// Deliberately missing: reading documents (package manifest), and printing (package ctl).
// Nothing is cached from one Editor to the next.
//
// Invariant: what is stored and not known to weft survives every change, and no write succeeds
// on an object that changed since it was looked at.
package edit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Outcome is what happened to an object.
type Outcome uint8

// The outcomes.
const (
	// NotTried: the context ended before its turn. It is the zero Outcome.
	NotTried Outcome = iota
	Created
	Configured // its fields changed
	Unchanged  // it is as wanted already; nothing was written
	Deleted
	Skipped // it exists, or does not, and that was fine
	Failed
)

// String is the word that users read.
func (o Outcome) String() string {
	return [...]string{"not tried", "created", "configured", "unchanged", "deleted", "skipped", "failed"}[o]
}

// Result is what happened to one object.
type Result struct {
	Key     model.Key
	Outcome Outcome
	// Object is the object as it is now: as written, or as it would be in a dry run. Of one
	// that failed, was deleted or not tried it is what the caller gave.
	Object v3.Object
	// Before is the object as it was stored; nil: there was none, or it was not looked at.
	Before v3.Object
	// Changed are the paths of the fields that differ from before, sorted, such as spec.cidr.
	Changed []string
	// Note is something to know beside the outcome; mostly empty.
	Note string
	// Err is set when the outcome is Failed.
	Err error
}

// Errors that callers branch on with errors.Is, beside those of package store.
var (
	// ErrReadOnly: the object is the system's, not the users'.
	ErrReadOnly = errors.New("read-only")
	// ErrBuiltIn: the object is part of every cluster.
	ErrBuiltIn = errors.New("built in")
	// ErrInUse: others depend on the object.
	ErrInUse = errors.New("in use")
	// ErrMissing: the object names another that does not exist.
	ErrMissing = errors.New("does not exist")
	// ErrOverlap: another pool has some of the addresses.
	ErrOverlap = errors.New("overlaps")
	// ErrFixed: a field of the object may never change.
	ErrFixed = errors.New("can't be changed")
	// ErrPatch: the patch can't be read or does not fit.
	ErrPatch = errors.New("patch")
	// ErrLabel: the label has another value already, or is not there.
	ErrLabel = errors.New("label")
)

// RuleError is a rule that an object breaks because of other objects.
type RuleError struct {
	Rule   error      // one of the Err… of this package
	Object v3.Object  // that breaks it
	Other  *model.Key // the object that it is about; nil: none
	Text   string     // what is wrong, and what to do
}

// Error is the object and the text.
func (e *RuleError) Error() string { return v3.Describe(e.Object) + ": " + e.Text }

// Unwrap is the rule.
func (e *RuleError) Unwrap() error { return e.Rule }

// Editor changes objects. Its methods are safe for concurrent use. The zero Editor is not
// valid: see [New].
type Editor struct {
	// DryRun checks everything and writes nothing.
	DryRun bool
	// SkipExists makes creating what exists no failure.
	SkipExists bool
	// SkipNotExists makes deleting what does not exist no failure.
	SkipNotExists bool
	// InOrder makes Run take the objects as they come, as Calico does, and not those first
	// that others depend on.
	InOrder bool
	// Kubernetes says that the datastore is the Kubernetes API, where nodes are its own.
	Kubernetes bool
	// Progress, if set, is called by Run after each object, one at a time.
	Progress func(done, all int)

	store store.Store
	now   func() time.Time

	ready   sync.Once // the essentials were looked for
	notDone error     // why they could not be made

	mu    sync.Mutex
	there map[model.Key]bool // objects that are known to exist, or would in a dry run
	pools []*v3.IPPool       // all, once they were read
}

// New makes an editor of st. now is the clock.
func New(st store.Store, now func() time.Time) *Editor {
	return &Editor{store: st, now: now, there: map[model.Key]bool{}}
}

// maxTries is how often a change is tried that others keep getting ahead of.
const maxTries = 5

// prepare makes what every cluster has, if it is missing.
func (e *Editor) prepare(ctx context.Context) error {
	e.ready.Do(func() { e.notDone = e.initialise(ctx) })
	return e.notDone
}

func (e *Editor) initialise(ctx context.Context) error {
	for _, k := range []model.Key{model.Cluster{}.Key(), tierKey(v3.DefaultTier)} {
		_, err := e.store.Get(ctx, k)
		switch {
		case errors.Is(err, store.ErrNotFound) && !e.DryRun:
			if err = store.Initialise(ctx, e.store); err != nil && !errors.Is(err, store.ErrRefused) {
				return fmt.Errorf("initialise the datastore: %w", err)
			}
			return nil
		case errors.Is(err, store.ErrNotFound), err == nil:
		case store.IsAnswer(err), errors.Is(err, store.ErrUnreadable): // who may not read it can't make it
		default:
			return err
		}
	}
	return nil
}

// failed is the result of o that err came of.
func failed(o v3.Object, err error) Result {
	k, _ := model.KeyOf(o)
	return Result{Key: k, Object: o, Outcome: Failed, Err: err}
}

func tierKey(name string) model.Key { return model.Key{Kind: model.KindTier, Name: name} }

// Check reports what is wrong with o by itself: the rules of its kind, and whether users may
// write it. It sets its defaults and drops what only the datastore may set.
func Check(o v3.Object) error {
	v3.ClearSystemFields(o)
	v3.Default(o)
	if err := v3.CheckWritable(o); err != nil {
		return &readOnly{err}
	}
	return v3.Validate(o)
}

// readOnly is an error of v3.CheckWritable; it is ErrReadOnly.
type readOnly struct{ error }

func (*readOnly) Is(target error) bool { return target == ErrReadOnly }

func (r *readOnly) Unwrap() error { return r.error }
