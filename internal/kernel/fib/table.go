package fib

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// flag is a set of facts about a route.
type flag uint8

const (
	wanted flag = 1 << iota // the plan has it; else it is to be deleted, or left by an earlier run
	owned                   // the kernel has a route of ours on this key: it may be replaced
	exact                   // and it is the one that attr says
	dirty                   // to be written (wanted) or deleted (not wanted)
	hit                     // an event said so: what a dump read may be older
	flying                  // a request is on its way
	seen                    // equal to FIB.parity: the dump under way has met it
)

// reason is why a route is not in the kernel.
type reason uint8

const (
	reasonNone  reason = iota
	linkMissing        // until the link appears
	linkDown           // until it is set up
	noGateway          // until a route of others leads to the gateway
	conflict           // until somebody removes the foreign route
	refused            // by the kernel, with errno: until a retry succeeds
	reasons            // how many there are
)

// entry is what is known of a route: 8 bytes.
type entry struct {
	attr  uint32 // of the wanted route; of the kernel's, if not wanted
	errno uint16
	flags flag
	why   reason
}

func (e entry) is(f flag) bool { return e.flags&f == f }

// counts are of entries.
type counts struct {
	wanted, applied int
	why             [reasons]int
}

func (c *counts) add(e entry, n int) {
	if !e.is(wanted) {
		return
	}
	c.wanted += n
	if e.is(exact) {
		c.applied += n
	}
	c.why[e.why] += n
}

// set stores the new value of an entry; one with nothing to remember is removed.
func (f *FIB) set(k key, old, e entry) {
	f.count.add(old, -1)
	f.count.add(e, 1)
	if e.flags&(wanted|owned|dirty|flying) == 0 {
		f.drop(k, old)
		return
	}
	f.entries[k] = e
}

// drop forgets an entry that is counted no more.
func (f *FIB) drop(k key, old entry) {
	if _, ok := f.entries[k]; ok {
		delete(f.entries, k)
		f.unlink(k, f.attrs.all[old.attr])
		f.attrs.release(old.attr)
	}
}

// attrs is a plan.RouteAttrs that many entries share, and what it means now.
type attrs struct {
	plan.RouteAttrs
	refs int
	hops []hop // empty for what is not unicast, and while why is set
	why  reason
}

// device reports whether a leads onto a link rather than through a gateway.
func (a *attrs) device() bool { return a.Type == plan.Unicast && a.Via == "" }

// same reports whether the kernel would not tell a from b.
func (a *attrs) same(b *attrs) bool {
	return a == b || a.why == reasonNone && b.why == reasonNone && a.Type == b.Type && a.Proto == b.Proto &&
		a.Src == b.Src && sameHops(a.hops, b.hops)
}

// interned gives every distinct plan.RouteAttrs a number.
type interned struct {
	ids  map[plan.RouteAttrs]uint32
	all  []*attrs // by number; nil is free
	free []uint32
	last uint32
}

func newInterned() interned {
	return interned{ids: map[plan.RouteAttrs]uint32{}, all: []*attrs{{refs: 1}}}
}

// id gives the number of a, counted once more, and whether it is new.
func (t *interned) id(a *plan.RouteAttrs) (id uint32, fresh bool) {
	if l := t.all[t.last]; t.last != 0 && l != nil && l.RouteAttrs == *a {
		l.refs++
		return t.last, false
	}
	id, ok := t.ids[*a]
	if !ok {
		if n := len(t.free); n > 0 {
			id, t.free = t.free[n-1], t.free[:n-1]
		} else {
			id, t.all = uint32(len(t.all)), append(t.all, nil)
		}
		t.all[id] = &attrs{RouteAttrs: *a}
		t.ids[*a] = id
	}
	t.all[id].refs++
	t.last = id
	return id, !ok
}

func (t *interned) release(id uint32) {
	a := t.all[id]
	if a.refs--; a.refs == 0 {
		delete(t.ids, a.RouteAttrs)
		t.all[id] = nil
		t.free = append(t.free, id)
	}
}

// intern numbers a and finds out what it means.
func (f *FIB) intern(a *plan.RouteAttrs) uint32 {
	id, fresh := f.attrs.id(a)
	if fresh {
		x := f.attrs.all[id]
		hops, why := f.resolve(x)
		x.hops, x.why = slices.Clone(hops), why
	}
	return id
}

func (f *FIB) putRoute(r *plan.Route) {
	if !r.Dst.IsValid() || r.Table == 0 {
		return
	}
	f.tables[r.Table] = true
	k := makeKey(r.RouteKey)
	id := f.intern(&r.RouteAttrs)
	old, had := f.entries[k]
	if had && old.is(wanted) && old.attr == id {
		f.attrs.release(id)
		return
	}
	a := f.attrs.all[id]
	e := entry{attr: id, flags: wanted | f.parity}
	if had {
		e.flags |= old.flags & (owned | hit | flying)
		if old.is(exact) && f.attrs.all[old.attr].same(a) && !old.is(hit) {
			e.flags |= exact | owned
		}
		f.unlink(k, f.attrs.all[old.attr])
	}
	switch {
	case a.device():
		f.link(a.Link).routes[k] = struct{}{}
		f.workloadFound(k)
	case a.Type == plan.Blackhole:
		f.blockChanged(k, true)
	}
	f.set(k, old, e)
	if had {
		f.attrs.release(old.attr)
	}
	if !e.is(exact) {
		f.touch(k, e)
	}
}

func (f *FIB) deleteRoute(k key) {
	old, had := f.entries[k]
	if !had || !old.is(wanted) {
		return
	}
	e := old
	e.flags &^= wanted | dirty
	e.why = reasonNone
	f.unlink(k, f.attrs.all[old.attr])
	if e.is(owned) {
		f.touch(k, e)
		return
	}
	f.set(k, old, e)
}

// touch marks a route to be written or deleted.
func (f *FIB) touch(k key, e entry) {
	e.flags = e.flags&^exact | dirty
	old := f.entries[k]
	if !e.is(wanted) {
		e.flags |= old.flags & exact // it still says what the kernel has
	}
	f.set(k, old, e)
	if a := f.attrs.all[e.attr]; e.is(wanted) && a.device() {
		f.dirtyLinks[a.Link] = true
		return
	}
	f.queue.push(k)
}

// unlink removes k from the routes of its link, or from the blocks.
func (f *FIB) unlink(k key, a *attrs) {
	if a.Type == plan.Blackhole {
		f.blockChanged(k, false)
	}
	if a.device() {
		if l := f.links[a.Link]; l != nil {
			delete(l.routes, k)
			f.forget(l)
		}
	}
}

// replaceable reports whether k may push a foreign route aside: the address of a
// workload is its own.
func (f *FIB) replaceable(k key, a *attrs) bool {
	return a.device() && k.host() && f.ours(a.Link)
}

// queue holds keys of dirty entries. Beyond queueKeys it only knows that there
// are many, and the walk is over all entries.
type queue struct {
	keys []key
	all  bool
}

const queueKeys = 8192

func (q *queue) push(k key) {
	switch {
	case q.all:
	case len(q.keys) == queueKeys:
		*q = queue{all: true}
	default:
		q.keys = append(q.keys, k)
	}
}

func (q *queue) empty() bool { return !q.all && len(q.keys) == 0 }

// walk calls each with every key that q may hold. Each may change entries.
func (f *FIB) walk(q queue, each func(key, entry)) {
	if q.all {
		for k, e := range f.entries {
			each(k, e)
		}
		return
	}
	for _, k := range q.keys {
		if e, ok := f.entries[k]; ok {
			each(k, e)
		}
	}
}

// failure is a request that the kernel refused, for messages.
type failure struct {
	k     key
	errno unix.Errno
}
