package fib

import (
	"context"
	"errors"
	"fmt"

	"github.com/weft-net/weft/internal/reconcile"
)

// pass is one turn of the loop.
func (f *FIB) pass(_ context.Context, cause reconcile.Cause) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = nil
	if cause != reconcile.Kick {
		f.tryAgain()
	}
	f.needDump = f.needDump || cause == reconcile.Resync
	// A write can find that a dump is due, and the dump more to write.
	for range 3 {
		if f.needDump {
			f.needDump = false
			if err := f.resync(); err != nil {
				f.needDump = true
				f.fault = err
				break
			}
		}
		f.flush()
		if !f.needDump || f.fault != nil {
			break
		}
	}
	return f.problems()
}

// flush writes what is dirty: links and what is on them first, additions
// before removals.
func (f *FIB) flush() {
	f.refresh()
	f.urgent()
	work := f.queue
	f.queue = queue{}
	each := func(stage func(key, entry)) {
		f.walk(work, func(k key, e entry) {
			stage(k, e)
			if f.batch.full() {
				f.exchange()
				f.urgent()
			}
		})
		f.exchange()
		f.urgent()
	}
	each(f.stageRoute)
	f.flushPinned()
	f.flushRules() // after the routes that they lead to, before what goes from there
	f.spared = f.refusedDestinations()
	each(f.stageDelete)

	gone, external := f.gone, f.external
	f.gone, f.external = nil, nil
	for _, g := range gone {
		f.stageGone(g)
	}
	for _, x := range external {
		f.stageExternal(x)
	}
	f.exchange()
}

// tryAgain marks what the kernel refused earlier.
func (f *FIB) tryAgain() {
	if f.count.why[conflict]+f.count.why[refused] > 0 || f.stats.DeletesRefused > 0 {
		f.stats.DeletesRefused = 0
		for k, e := range f.entries {
			if e.why == conflict || e.why == refused {
				f.touch(k, e)
			}
		}
	}
	for _, r := range f.rules {
		f.dirtyRules = f.dirtyRules || !r.ok
	}
	for name := range f.troubled {
		if f.linkProblems(name) != nil {
			f.dirtyLinks[name] = true
		}
	}
}

// problems is what a retry, or a person, must cure. What only waits for a link
// or a gateway is none.
func (f *FIB) problems() error {
	var errs []error
	if f.fault != nil {
		errs = append(errs, fmt.Errorf("fib: netlink: %w", f.fault))
	}
	if n := f.count.why[conflict]; n > 0 {
		errs = append(errs, fmt.Errorf("fib: %d routes: %w", n, f.conflictError()))
	}
	if n := f.count.why[refused]; n > 0 {
		errs = append(errs, fmt.Errorf("fib: %d routes: refused, the last is %v table %d: %w", n, f.last.k.prefix(), f.last.k.table, f.last.errno))
	}
	if n := f.stats.DeletesRefused; n > 0 {
		errs = append(errs, fmt.Errorf("fib: delete %v table %d: %w", f.last.k.prefix(), f.last.k.table, f.last.errno))
	}
	errs = append(errs, f.ruleProblems()...)
	for name := range f.troubled {
		found := f.linkProblems(name)
		if found == nil {
			delete(f.troubled, name) // it is well again
		}
		errs = append(errs, found...)
	}
	return errors.Join(errs...)
}

// linkProblems is what failed on a link.
func (f *FIB) linkProblems(name string) (errs []error) {
	l := f.links[name]
	if l == nil {
		return nil
	}
	if l.err != nil {
		errs = append(errs, l.err)
	}
	for _, n := range l.neighbors {
		if n.errno != 0 {
			errs = append(errs, fmt.Errorf("fib: neighbor %v dev %s: %w", n.addr, l.name, n.errno))
		}
	}
	return errs
}

// ErrConflict says that a route of somebody else stands where ours should.
var ErrConflict = errors.New("a foreign route has the same prefix, table and metric; remove one of the two")

func (f *FIB) conflictError() error {
	for k, e := range f.entries {
		if e.is(wanted) && e.why == conflict {
			return fmt.Errorf("%v table %d: %w", k.prefix(), k.table, ErrConflict)
		}
	}
	return ErrConflict
}
