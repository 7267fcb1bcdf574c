package allocator

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// errNoRoom says that a call does not fit in the transaction beside others.
var errNoRoom = errors.New("no room in the transaction")

// plan is one transaction in the making: the calls that it carries out, and what
// the datastore is like afterwards.
type plan struct {
	known   *known
	view    ipam.View
	touched map[model.Key]v3.Object // to be written; nil: to be deleted if known; see op
	unclaim map[model.Key]v3.Object // affinities to be deleted
	calls   []planned
}

// planned is a call with what was decided about it.
type planned struct {
	*call
	change ipam.Change
	extra  []store.Op
	keys   []model.Key // of extra
	all    []model.Key // of extra and, in their places, of what is done of it
}

func newPlan(k *known) *plan {
	p := &plan{known: k, view: k.view, touched: map[model.Key]v3.Object{}, unclaim: map[model.Key]v3.Object{}}
	p.view.Blocks, p.view.Handles = maps.Clone(k.view.Blocks), maps.Clone(k.view.Handles)
	p.view.Missing = maps.Clone(k.view.Missing)
	return p
}

// decide asks ipam about c and takes the outcome into the plan. The error is
// the call's, a *ipam.NeedError, or errNoRoom.
func (p *plan) decide(c *call) error {
	change, err := c.decide(&p.view)
	if err != nil {
		return err
	}
	in := planned{call: c, change: change}
	if !c.wrote {
		c.had = len(p.view.Handles[c.handle].Blocks) > 0
	}
	var extra []store.Op
	if c.extra != nil {
		if extra, err = c.extra(change.Addrs); err != nil {
			return err
		}
	}
	for _, op := range extra {
		key, err := model.KeyOf(op.Object.Object)
		if err != nil {
			return fmt.Errorf("allocator: extra operation: %w", err)
		}
		if c.gone[key] {
			continue
		}
		in.all = append(in.all, key)
		if _, ok := c.done[key]; !ok {
			in.extra, in.keys = append(in.extra, op), append(in.keys, key)
		}
	}
	if !p.fits(in) {
		return errNoRoom
	}
	p.add(change)
	p.calls = append(p.calls, in)
	return nil
}

// fits reports whether in can be carried out in this transaction: it is not too
// large then, and no object is written twice.
func (p *plan) fits(in planned) bool {
	size := len(p.touched) + len(p.unclaim) + len(in.extra) + len(in.change.Put) + len(in.change.Delete) +
		len(in.change.Handles) + len(in.change.Claim) + len(in.change.Unclaim)
	for _, other := range p.calls {
		size += len(other.extra)
		for _, key := range in.keys {
			if slices.Contains(other.keys, key) {
				return false
			}
		}
	}
	return size <= maxOps
}

// add takes a change into the plan.
func (p *plan) add(c ipam.Change) {
	p.view.Apply(c)
	for _, b := range c.Put {
		p.touched[b.Key()] = b.API()
	}
	for _, cidr := range c.Delete {
		p.touched[model.BlockKey(cidr)] = nil
	}
	for _, h := range c.Handles {
		p.touched[h.Key()] = nil
		if len(h.Blocks) > 0 {
			p.touched[h.Key()] = h.API()
		}
	}
	for _, a := range c.Claim {
		delete(p.unclaim, a.Key())
		p.touched[a.Key()] = a.API()
	}
	for _, a := range c.Unclaim {
		delete(p.touched, a.Key())
		p.unclaim[a.Key()] = a.API()
	}
}

// ops is the operations of the plan and, for those that are not extra ones,
// their keys.
func (p *plan) ops() ([]store.Op, []model.Key) {
	var ops []store.Op
	var keys []model.Key
	add := func(key model.Key, op store.Op) { ops, keys = append(ops, op), append(keys, key) }
	for _, key := range sortedKeys(p.touched) {
		if o := p.touched[key]; o != nil {
			add(key, p.known.put(key, o))
		} else if op, ok := p.known.remove(key, nil); ok {
			add(key, op)
		}
	}
	for _, key := range sortedKeys(p.unclaim) {
		if op, ok := p.known.remove(key, p.unclaim[key]); ok {
			add(key, op)
		}
	}
	for _, c := range p.calls {
		ops = append(ops, c.extra...)
	}
	return ops, keys
}

func sortedKeys(m map[model.Key]v3.Object) []model.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b model.Key) int {
		if a.Kind != b.Kind {
			return -compare(a.Kind, b.Kind) // handles, blocks, affinities
		}
		return compare(a.Name, b.Name)
	})
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// settle records that ops were written as written, and answers the calls.
func (p *plan) settle(ops []store.Op, keys []model.Key, written []store.Object) {
	p.known.view = p.view
	for i, key := range keys {
		if ops[i].Verb == store.Delete {
			delete(p.known.objects, key)
		} else {
			p.known.objects[key] = written[i]
		}
	}
	written = written[len(keys):]
	for _, c := range p.calls {
		c.addrs, c.released = c.change.Addrs, c.change.Released
		c.written = make([]store.Object, 0, len(c.all))
		for _, key := range c.all {
			if o, ok := c.done[key]; ok {
				c.written = append(c.written, o)
				continue
			}
			c.written, written = append(c.written, written[0]), written[1:]
		}
		c.answer(nil)
	}
}

// callOf is the call that writes the handle with that key, nil if there is none.
func (p *plan) callOf(key model.Key) *call {
	for _, c := range p.calls {
		if slices.ContainsFunc(c.change.Handles, func(h model.Handle) bool { return h.Key() == key }) {
			return c.call
		}
	}
	return nil
}

// extraOf is the call that has an extra operation on key, and the operation.
func (p *plan) extraOf(key model.Key) (*call, store.Op) {
	for _, c := range p.calls {
		if i := slices.Index(c.keys, key); i >= 0 {
			return c.call, c.extra[i]
		}
	}
	return nil, store.Op{}
}
