package fib

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// Stats count what was done since New.
type Stats struct {
	Messages       uint64 // to the kernel, without reads
	Puts, Deletes  uint64 // of routes, among Messages
	Neighbors      uint64 // put or deleted, among Messages
	Sysctls        uint64 // written
	Dumps          uint64 // full comparisons made
	Overruns       uint64 // times that events were lost
	DeletesRefused int    // since the last try
}

// State is what a node's status says about its kernel.
type State struct {
	Routes, Applied int // wanted; and of those, in the kernel
	Waiting         int // for a link or a gateway
	Conflicts       int // with foreign routes
	Refused         int // by the kernel
	Stale           int // not wanted, and not yet removed: left by an earlier run
	Links           int // workload links wanted
	Neighbors       int // wanted
	Rules           int // routing rules wanted
	// Pending names up to 20 objects that are not in the kernel, and why.
	Pending []Pending
	Err     string // of the last pass; empty: all is well
	Stats   Stats
}

// Pending is an object that is wanted and not in the kernel.
type Pending struct{ Object, Why string }

const pendingNamed = 20

// State tells how things stand. It looks for routes that are not in the kernel
// only when there are some.
func (f *FIB) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := &f.count.why
	s := State{
		Routes: f.count.wanted, Applied: f.count.applied, Waiting: w[linkMissing] + w[linkDown] + w[noGateway],
		Conflicts: w[conflict], Refused: w[refused], Rules: len(f.rules), Err: f.health.Err(), Stats: f.stats,
	}
	for _, l := range f.links {
		if l.want {
			s.Links++
		}
		s.Neighbors += len(l.neighbors)
		if why := l.pending(); why != "" {
			s.pend("link "+l.name, why)
		}
	}
	for want, r := range f.rules {
		if !r.ok {
			s.pend("rule "+want.String(), r.whyNot())
		}
	}
	s.Stale = len(f.entries) - s.Routes
	for k, e := range f.entries {
		if s.Applied == s.Routes || len(s.Pending) == pendingNamed {
			break
		}
		if e.is(wanted) && !e.is(exact) {
			s.pend("route "+f.routeText(k, e), f.whyNot(k))
		}
	}
	return s
}

func (s *State) pend(object, why string) {
	if len(s.Pending) < pendingNamed {
		s.Pending = append(s.Pending, Pending{object, why})
	}
}

func (f *FIB) routeText(k key, e entry) string {
	return plan.Route{RouteKey: k.plan(), RouteAttrs: f.attrs.all[e.attr].RouteAttrs}.String()
}

// pending says what the link itself lacks; empty when it lacks nothing.
func (l *link) pending() string {
	switch {
	case !l.want && len(l.neighbors) == 0:
		return ""
	case l.index == 0:
		return "does not exist"
	case l.err != nil:
		return l.err.Error()
	case l.want && !l.tuned:
		return "sysctls are being written"
	}
	for _, n := range l.neighbors {
		switch {
		case n.ok:
		case n.errno != 0:
			return fmt.Sprintf("neighbor %v: %v", n.addr, n.errno)
		case !l.up:
			return "is down"
		default:
			return fmt.Sprintf("neighbor %v is being written", n.addr)
		}
	}
	return ""
}

// whyNot says why a route is not in the kernel; empty when it is.
func (f *FIB) whyNot(k key) string {
	e, ok := f.entries[k]
	if !ok || !e.is(wanted) {
		return "is not in the plan"
	}
	if e.is(exact) {
		return ""
	}
	a := f.attrs.all[e.attr]
	switch e.why {
	case linkMissing:
		return fmt.Sprintf("link %s does not exist", a.Link)
	case linkDown:
		return fmt.Sprintf("link %s is down", a.Link)
	case noGateway:
		return fmt.Sprintf("no route leads to gateway %v", a.Via)
	case conflict:
		return ErrConflict.Error()
	case refused:
		return "refused: " + unix.Errno(e.errno).Error()
	}
	return "is being written"
}

// WaitApplied waits until the kernel has the given routes and, unless link is
// empty, all that is wanted of that workload link: its sysctls, neighbours and
// routes. What nobody has put yet is waited for too. When ctx ends first, the
// error wraps its cause and says what is missing and why.
func (f *FIB) WaitApplied(ctx context.Context, link string, routes ...plan.RouteKey) error {
	return f.await(ctx, func() error { return f.missing(link, routes) })
}

// WaitLink waits until the kernel has told that the link of that name is the one
// with that index. What WaitApplied says of the link after that is not about
// another one that had the name before.
func (f *FIB) WaitLink(ctx context.Context, link string, index int32) error {
	return f.await(ctx, func() error {
		if l := f.links[link]; l == nil || l.index != index {
			return fmt.Errorf("link %s: index %d: is not there yet", link, index)
		}
		return nil
	})
}

// await waits until missing, which is called with the lock, finds nothing missing.
func (f *FIB) await(ctx context.Context, missing func() error) error {
	for {
		f.mu.Lock()
		err, changed := missing(), f.changed
		f.awaited = f.awaited || err != nil
		f.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("fib: wait: %w: %w", err, context.Cause(ctx))
		}
	}
}

func (f *FIB) missing(name string, routes []plan.RouteKey) error {
	if name != "" {
		l := f.links[name]
		if l == nil || !l.want {
			return fmt.Errorf("link %s: is not in the plan", name)
		}
		if why := l.pending(); why != "" {
			return fmt.Errorf("link %s: %s", name, why)
		}
		if f.dirtyLinks[name] {
			return fmt.Errorf("link %s: it changed, and is not looked at yet", name)
		}
		for k := range l.routes {
			if why := f.whyNot(k); why != "" {
				return fmt.Errorf("route %v: %s", k.prefix(), why)
			}
		}
	}
	for _, r := range routes {
		if why := f.whyNot(makeKey(r)); why != "" {
			return fmt.Errorf("route %v: %s", r.Dst, why)
		}
	}
	return nil
}

// wake has those who wait look again.
func (f *FIB) wake() {
	if f.awaited {
		close(f.changed)
		f.changed, f.awaited = make(chan struct{}), false
	}
}
