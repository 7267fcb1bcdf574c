package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/model"
)

// doubtInterval is the time between two looks at whether a doubt still has reasons.
const doubtInterval = 5 * time.Second

// TrustEmptySetting is the variable that ends all doubt.
const TrustEmptySetting = "WEFT_TRUST_EMPTY_DATASTORE"

// doubt stands between the datastore and the engine, and does not believe a snapshot that
// has nothing where the kernel shows that there is something: definitions that were just
// made anew, a wrong prefix of etcd's keys, a datastore that was restored without its
// content. What works is not removed on the word of such a snapshot.
//
//   - No endpoint and no block in the whole cluster, and workloads on this node have their
//     routes: nothing of it reaches the engine, and the agent is not ready. What the kernel
//     has, routes and rules, stays.
//   - No block any more, where there were some and the kernel has routes to them: as above.
//   - No block in the first snapshot of this run, and routes to blocks in the kernel, as the
//     cluster leaves them that was on this machine before: it goes on, but routes of the
//     cluster that nobody wants stay until there is a block.
//
// A doubt ends with the first block, with a snapshot that has what was missing, when the
// kernel has none of it any more, or by a person's word ([TrustEmptySetting]). What is
// deleted while the agent watches is never doubted: somebody did that.
//
// step is for run's goroutine, or the test's; the rest for any.
type doubt struct {
	look  func() (fib.Sighting, error)
	trust bool
	notes *notes
	log   *slog.Logger

	held      []model.Batch // of a snapshot that may have nothing
	open      bool          // batches go through
	complete  bool          // the snapshot in held is
	endpoints bool          // of the snapshot
	known     bool          // the engine was told of blocks in this run

	mu    sync.Mutex
	keep  bool   // what the cluster's routes are is not certain
	doubt string // why nothing new is begun; empty: it may be
}

func newDoubt(look func() (fib.Sighting, error), trust bool, n *notes, log *slog.Logger) *doubt {
	return &doubt{look: look, trust: trust, notes: n, log: log, open: trust}
}

// run passes on batches until ctx ends.
func (d *doubt) run(ctx context.Context, in <-chan model.Batch, out chan<- model.Batch) error {
	for {
		var due <-chan time.Time
		if d.complete && !d.open {
			due = time.After(doubtInterval)
		}
		var pass []model.Batch
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case b := <-in:
			pass = d.step(b)
		case <-due:
			pass = d.decide()
		}
		for _, b := range pass {
			select {
			case out <- b:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// step takes in a batch and returns what the engine is to be told now.
func (d *doubt) step(b model.Batch) []model.Batch {
	if d.trust {
		return []model.Batch{b}
	}
	if b.Reset {
		d.held, d.open, d.complete, d.endpoints = nil, false, false, false
	}
	blocks, endpoints := mentions(b)
	d.endpoints = d.endpoints || endpoints
	if d.open {
		if blocks || slices.ContainsFunc(b.Deletes, func(k model.Key) bool { return k.Kind == model.KindIPAMBlock }) {
			d.believe()
		}
		d.known = d.known || blocks
		return []model.Batch{b}
	}
	d.held = append(d.held, b)
	d.complete = d.complete || b.Synced
	if blocks {
		d.known = true
		return d.believe()
	}
	if d.complete {
		return d.decide()
	}
	return nil
}

// mentions reports whether b has blocks, and endpoints, valid or not.
func mentions(b model.Batch) (blocks, endpoints bool) {
	note := func(k model.Key) {
		blocks = blocks || k.Kind == model.KindIPAMBlock
		endpoints = endpoints || k.Kind == model.KindWorkloadEndpoint
	}
	for _, v := range b.Puts {
		note(v.Key())
	}
	for _, in := range b.Invalids {
		note(in.Key)
	}
	return blocks, endpoints
}

// decide looks whether the snapshot without blocks can be believed.
func (d *doubt) decide() []model.Batch {
	seen, err := d.look()
	lost := seen.Workloads > 0 && !d.endpoints
	switch {
	case err != nil:
		return d.hold(fmt.Sprintf("the datastore has no blocks of addresses, and whether that can be is not known: %v", err))
	case lost:
		return d.hold(fmt.Sprintf("the datastore has no workload endpoint and no block of addresses, but %d workloads have routes on this node: all stays as it is", seen.Workloads))
	case seen.Blocks > 0 && d.known:
		return d.hold(fmt.Sprintf("the datastore has lost all blocks of addresses, but there are %d routes to blocks on this node: all stays as it is", seen.Blocks))
	case seen.Blocks > 0:
		d.say(fmt.Sprintf("the datastore has no block of addresses, but there are %d routes to blocks on this node, which stay", seen.Blocks), true, false)
		return d.release()
	}
	return d.believe()
}

// hold keeps the snapshot back; nothing new is begun either.
func (d *doubt) hold(why string) []model.Batch {
	d.say(why, true, true)
	return nil
}

// believe ends the doubt.
func (d *doubt) believe() []model.Batch {
	d.say("", false, false)
	return d.release()
}

func (d *doubt) release() []model.Batch {
	pass := d.held
	d.held, d.open = nil, true
	return pass
}

// say notes the doubt for people, and for who asks.
func (d *doubt) say(why string, keep, stop bool) {
	d.mu.Lock()
	d.keep, d.doubt = keep, ""
	if stop {
		d.doubt = why
	}
	d.mu.Unlock()
	var found []model.Problem
	if why != "" {
		found = []model.Problem{{Text: why + ": is it the right datastore, with its content? If it is, start the agent once with " + TrustEmptySetting + "=true"}}
	}
	d.notes.errors("datastore", found)
}

// keeps reports whether routes that nobody wants must stay for now.
func (d *doubt) keeps() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keep
}

// unready says why nothing new is begun; empty: it may be.
func (d *doubt) unready() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.doubt
}
