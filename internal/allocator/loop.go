package allocator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// loop is what the one goroutine of an Allocator works with.
type loop struct {
	store   store.Store
	node    string
	virtual bool // node is the name of a virtual owner
	now     func() time.Time
	known   known
}

// round is one go of the loop: the calls that are not answered yet.
type round struct {
	*loop
	calls []*call
	late  []*call // no room for them
	undo  []*call // releases of what calls that failed have got in part
	fresh bool    // settings, blocks and affinities were read in this round
	told  model.World
}

// round carries out calls and answers them, but for those that it returns: they
// did not fit. s is nil where the settings must be read.
func (l *loop) round(ctx context.Context, s *settings, calls []*call) []*call {
	r := &round{loop: l, calls: calls}
	if s != nil {
		r.told = s.told
	}
	if l.known.objects == nil {
		l.known.forget()
	}
	if err := r.run(ctx, s); err != nil {
		for _, c := range r.calls {
			c.answer(err)
		}
		l.known.forget()                 // what was written is not known
		return append(r.undo, r.late...) // the same handle may be asked for again
	}
	l.known.shrink(l.owner())
	return append(r.undo, r.late...) // the same handle may be asked for again
}

// run decides and writes until all calls are answered or late. On an error those
// in r.calls are not answered.
func (r *round) run(ctx context.Context, s *settings) error {
	if err := r.begin(ctx, s); err != nil {
		return err
	}
	var last error
	for range maxAttempts {
		r.calls, r.late = append(r.calls, r.late...), nil
		p, err := r.plan(ctx)
		if err != nil {
			return err
		}
		ops, keys := p.ops()
		var written []store.Object
		if len(ops) > 0 {
			written, err = r.store.Commit(ctx, ops...)
		}
		if err == nil {
			p.settle(ops, keys, written)
			r.calls = nil
			return nil
		}
		last = err
		if err := r.note(p, ops, keys, written); err != nil {
			return err
		}
		if err := r.repair(ctx, p, len(ops), err); err != nil {
			return err
		}
	}
	return fmt.Errorf("allocator: given up after %d attempts: %w", maxAttempts, last)
}

// begin brings what is known up to the needs of the round.
func (r *round) begin(ctx context.Context, s *settings) error {
	r.known.view.Name, r.known.view.Virtual, r.known.view.Now = r.node, r.virtual, r.now()
	switch {
	case !r.known.loaded && r.node != "":
		if err := r.refresh(ctx); err != nil {
			return err
		}
	case s == nil:
		if err := r.readSettings(ctx); err != nil {
			return err
		}
	default:
		r.apply(s)
	}
	for _, c := range r.calls {
		// A handle that is known is probably asked for again; then nothing is
		// written, so nothing would show that what is known is out of date.
		if _, ok := r.known.view.Handles[c.handle]; ok {
			if err := r.known.readHandle(ctx, r.store, model.HandleKey(c.handle)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *round) readSettings(ctx context.Context) error {
	node := r.node
	if r.virtual {
		node = "" // there is no record of it
	}
	s, err := readSettings(ctx, r.store, node, r.told)
	if err == nil {
		r.apply(s)
	}
	return err
}

func (r *round) apply(s *settings) {
	v := &r.known.view
	v.Node, v.Config, v.Pools, v.BadPools, v.Reserved = s.node, s.config, s.pools, s.badPools, s.reserved
	if r.virtual {
		v.Node = &model.Node{Name: r.node} // selected by all(), as pools for services must say
	}
}

// owner is whose blocks the loop may use.
func (l *loop) owner() model.Affinity {
	if l.virtual {
		return model.Affinity{Type: model.AffinityVirtual, Node: l.node}
	}
	return model.HostAffinity(l.node)
}

// refresh reads everything that decisions depend on.
func (r *round) refresh(ctx context.Context) error {
	if err := r.known.readAll(ctx, r.store, r.owner()); err != nil {
		return err
	}
	if err := r.readSettings(ctx); err != nil {
		return err
	}
	r.fresh = true
	return nil
}

// plan decides about all calls. It reads what decisions need, and decides anew
// then. Calls that fail are answered and leave r.calls; those for which there is
// no room go to r.late.
func (r *round) plan(ctx context.Context) (*plan, error) {
	for {
		p := r.newPlan()
		var late []*call
		again := false
		for _, c := range slices.Clone(r.calls) {
			err := p.decide(c)
			var need *ipam.NeedError
			switch {
			case err == nil:
			case errors.Is(err, errNoRoom) && len(p.calls) > 0:
				late = append(late, c)
			case errors.As(err, &need) && need.Key != (model.Key{}):
				again = true
				if err := r.read(ctx, need.Key); err != nil {
					r.fail(c, err)
				}
			case errors.As(err, &need) || !r.fresh:
				// Nothing is refused on what was known from before.
				if err := r.refresh(ctx); err != nil {
					return nil, err
				}
				again = true
			default:
				r.fail(c, err)
			}
			if again {
				break
			}
		}
		if !again {
			r.calls = slices.DeleteFunc(r.calls, func(c *call) bool { return slices.Contains(late, c) })
			r.late = late
			return p, nil
		}
	}
}

// newPlan starts a plan. With all blocks at hand it puts the node's own in order.
func (r *round) newPlan() *plan {
	p := newPlan(&r.known)
	if !p.view.Complete || r.node == "" {
		return p
	}
	tidy := p.view.Tidy(r.known.affinities())
	if n := maxOps / 2; len(tidy.Put)+len(tidy.Delete)+len(tidy.Claim)+len(tidy.Unclaim) > n {
		tidy = ipam.Change{Claim: tidy.Claim[:min(len(tidy.Claim), n)]} // the rest another time
	}
	p.add(tidy)
	return p
}

// read learns about one object.
func (r *round) read(ctx context.Context, key model.Key) error {
	if key.Kind == model.KindIPAMHandle {
		return r.known.readHandle(ctx, r.store, key)
	}
	return r.known.read(ctx, r.store, key)
}

// fail answers c with an error. What it has got in this round already, where the datastore
// has no transactions, is released first.
func (r *round) fail(c *call, err error) {
	r.calls = slices.DeleteFunc(r.calls, func(other *call) bool { return other == c })
	switch {
	case len(c.done) > 0:
		// What it asked for besides has its addresses: both stay, or both go.
		c.answer(fmt.Errorf("%w: %w", ErrUnknownOutcome, err))
	case c.wrote && !c.had:
		r.undo = append(r.undo, &call{
			decide: func(v *ipam.View) (ipam.Change, error) { return v.Release(c.handle) },
			failed: c, why: err,
		})
	default:
		c.answer(err)
	}
}

// note takes in what was carried out of a commit that failed, where the datastore has no
// transactions. What is decided anew then finds it, and goes on from there.
func (r *round) note(p *plan, ops []store.Op, keys []model.Key, written []store.Object) error {
	for i, o := range written {
		switch {
		case o.Object == nil:
		case i >= len(keys):
			key, err := model.KeyOf(ops[i].Object.Object)
			if err != nil {
				return err
			}
			if c, _ := p.extraOf(key); c != nil {
				c.finished(key, o)
			}
		case ops[i].Verb == store.Delete:
			r.known.lose(keys[i])
		default:
			if c := p.callOf(keys[i]); c != nil {
				c.wrote = true
			}
			if err := r.known.learn(keys[i], o); err != nil {
				return err
			}
		}
	}
	return nil
}

// repair deals with a commit of n operations that did not succeed: a call at
// fault fails alone, an object that others changed is read. The error is one
// that ends the round.
func (r *round) repair(ctx context.Context, p *plan, n int, err error) error {
	about := store.Errors(err)
	// An error that names one operation of several was found before anything
	// was sent; otherwise, unless the datastore refused, its answer was lost.
	if len(about) == 0 || !store.IsAnswer(err) && n == 1 {
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	for _, at := range about {
		if err := r.repairOne(ctx, p, at); err != nil {
			return err
		}
	}
	return nil
}

// repairOne deals with one operation that was not carried out.
func (r *round) repairOne(ctx context.Context, p *plan, at *store.Error) error {
	changed := errors.Is(at, store.ErrExists) || errors.Is(at, store.ErrNotFound) || errors.Is(at, store.ErrConflict)
	if c, op := p.extraOf(at.Key); c != nil {
		if c.lenient && op.Verb == store.Delete && errors.Is(at, store.ErrNotFound) {
			if c.gone == nil {
				c.gone = map[model.Key]bool{}
			}
			c.gone[at.Key] = true
			return nil
		}
		r.fail(c, at)
		return nil
	}
	if changed {
		return r.read(ctx, at.Key)
	}
	if c := p.callOf(at.Key); c != nil {
		r.fail(c, at) // its handle can't be a key
		return nil
	}
	return at
}
