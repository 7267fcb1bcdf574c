package ct

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/reconcile"
)

const (
	// settle lets packets that were past the old rules get their entries, which the
	// kernel makes on their way out.
	settle = 10 * time.Millisecond
	// judgeFlows is how many flows are judged in one go, under the owner's lock: less
	// than a millisecond's work, and enough for what is prepared for it.
	judgeFlows = 512
	// mostEnded bounds the memory of a scan; the rest is for the next one.
	mostEnded = 8192
	// duty is the greatest part of the time for which a scan works: one in so many.
	duty = 2
	// rest is the least time without a scan, as a multiple of the time that the last
	// one took.
	rest = 4
)

// Conns is the connection table as an Ender sees it: Table, or a test's.
type Conns interface {
	// Empty reports whether there is no flow for sure. It is cheap; Flows is not, since
	// the kernel walks the whole of its hash table however few flows are in it.
	Empty() bool
	Flows(ctx context.Context, filter Filter, each func(*Flow) bool) error
	Delete(flows []Flow) (deleted int, err error)
	// Local is the addresses of the node: what it sends to its workloads is not policed.
	Local() (map[netip.Addr]bool, error)
}

// EnderOptions say how flows are judged and ended. Conns, Judge and Entomb must be
// set. They are called by Run's goroutine.
type EnderOptions struct {
	Conns Conns
	// Judge sets forbidden[i] for each of flows[i] that must end; see [Judge.Forbids].
	// It is called with at most 512 flows, so that it may hold a lock over the filter,
	// and once more with those to be ended, right before that: rules may have changed.
	Judge func(flows []Flow, forbidden []bool)
	// Entomb makes the rules drop new flows of these tuples for a while. After an
	// error their flows stay, and the scan is made again.
	Entomb func(ctx context.Context, tuples []Tuple) error
	// Interval is the least time between the beginnings of two scans, unless the first
	// left flows to be ended. Default: 1 s.
	Interval time.Duration
	// Log gets a line for each scan that ended flows. Default: nothing is logged.
	Log *slog.Logger
}

// Ender ends the flows that policy came to forbid. Make one with NewEnder.
type Ender struct {
	opts EnderOptions
	loop *reconcile.Loop

	health reconcile.Health

	mu    sync.Mutex
	state EnderState // but for Err
}

// EnderState is what an Ender has done.
type EnderState struct {
	Scans, Flows, Ended uint64        // since New: scans, flows seen, flows ended
	Last                time.Duration // that the last scan took
	Err                 string        // of the last scan; empty: it was well
}

// NewEnder makes an Ender, which does nothing before Run.
func NewEnder(o EnderOptions) *Ender {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Ender{opts: o}
	e.health = reconcile.Health{Log: o.Log, Good: "ending connections that policy forbids works again", Bad: "cannot end connections that policy forbids; trying again"}
	e.loop = reconcile.New(e.pass, reconcile.Options{MinDelay: o.Interval, Health: e.health.Note})
	return e
}

// Kick tells that rules which may deny more than before are in the kernel. A scan
// begins after it, at once if there was none of late; kicks before it begins are one.
// It never blocks, and anybody may call it at any time.
func (e *Ender) Kick() { e.loop.Kick() }

// State is what e has done so far.
func (e *Ender) State() EnderState {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.state
	s.Err = e.health.Err()
	return s
}

// Run scans when it is kicked, one scan at a time, until ctx ends, and returns the
// cause of that. It begins with a scan, since nobody knows what the rules of an
// earlier run let through: it must not begin before Judge knows all of today's.
func (e *Ender) Run(ctx context.Context) error { return e.loop.Run(ctx) }

// pass makes one scan, and rests after it, so that kicks meanwhile are one.
func (e *Ender) pass(ctx context.Context, _ reconcile.Cause) error {
	if !pause(ctx, settle) {
		return context.Cause(ctx)
	}
	s := scan{Ender: e, ctx: ctx, began: time.Now()}
	s.worked = s.began
	err := s.run()
	took := time.Since(s.began)

	e.mu.Lock()
	e.state.Scans++
	e.state.Flows += s.seen
	e.state.Ended += s.ended
	e.state.Last = took
	e.mu.Unlock()
	if s.ended > 0 {
		e.opts.Log.Info("connections that policy forbids ended", "count", s.ended, "of", s.seen, "took", took)
	}
	idle := rest * took
	switch {
	case err != nil: // the loop waits before it tries again
	case s.full:
		e.Kick()
	default:
		idle = max(e.opts.Interval-took-settle, idle)
	}
	pause(ctx, idle)
	return err
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// scan is one look at the table.
type scan struct {
	*Ender
	ctx           context.Context
	began, worked time.Time // worked: since when it has not slept
	seen, ended   uint64
	local         map[netip.Addr]bool
	batch         []Flow // to judge
	verdicts      [judgeFlows]bool
	doomed        []Flow
	related       []Flow // to be judged by their masters
	full          bool   // doomed is; there may be more
}

func (s *scan) run() (err error) {
	if s.opts.Conns.Empty() {
		return nil
	}
	if s.local, err = s.opts.Conns.Local(); err != nil {
		return err
	}
	err = s.opts.Conns.Flows(s.ctx, Filter{}, s.take)
	if err == nil && !s.full {
		s.judge()
	}
	s.judgeAgain()
	s.addRelated()
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	// What was found before an error ends all the same.
	return errors.Join(err, s.end())
}

// take takes in a flow from the dump.
func (s *scan) take(f *Flow) bool {
	s.seen++
	if s.local[f.Orig.Src] {
		return true
	}
	if f.Status&Expected != 0 {
		s.related = append(s.related, *f)
		return true
	}
	s.batch = append(s.batch, *f)
	if len(s.batch) < judgeFlows {
		return true
	}
	s.judge()
	if busy := time.Since(s.worked); busy > time.Millisecond {
		if !pause(s.ctx, (duty-1)*busy) {
			return false
		}
		s.worked = time.Now()
	}
	s.full = s.full || len(s.doomed) >= mostEnded
	return !s.full
}

// judge dooms the forbidden of the batch.
func (s *scan) judge() {
	s.doomed = s.forbidden(s.doomed, s.batch)
	s.batch = s.batch[:0]
}

// forbidden adds to out those of at most judgeFlows flows that are forbidden. Out may
// be the beginning of flows.
func (s *scan) forbidden(out, flows []Flow) []Flow {
	verdicts := s.verdicts[:len(flows)]
	clear(verdicts)
	s.opts.Judge(flows, verdicts)
	for i, forbidden := range verdicts {
		if forbidden {
			out = append(out, flows[i])
		}
	}
	return out
}

// judgeAgain spares the doomed that the rules allow by now.
func (s *scan) judgeAgain() {
	doomed := s.doomed
	s.doomed = s.doomed[:0]
	for len(doomed) > 0 {
		n := min(len(doomed), judgeFlows)
		s.doomed = s.forbidden(s.doomed, doomed[:n])
		doomed = doomed[n:]
	}
}

// addRelated dooms the flows that are there for the sake of doomed ones.
func (s *scan) addRelated() {
	if len(s.related) == 0 || len(s.doomed) == 0 {
		return
	}
	masters := make(map[Tuple]bool, len(s.doomed))
	for i := range s.doomed {
		masters[s.doomed[i].Orig] = true
	}
	for i := range s.related {
		if masters[s.related[i].Master] {
			s.doomed = append(s.doomed, s.related[i])
		}
	}
}

// end puts up the tombstones of the doomed flows, and then deletes them.
func (s *scan) end() error {
	if len(s.doomed) == 0 {
		return nil
	}
	tuples := make([]Tuple, 0, len(s.doomed))
	for i := range s.doomed {
		if t, ok := s.doomed[i].Tombstone(); ok {
			tuples = append(tuples, t)
		}
	}
	if len(tuples) > 0 {
		if err := s.opts.Entomb(s.ctx, tuples); err != nil {
			return fmt.Errorf("ct: entomb %d flows: %w", len(tuples), err)
		}
	}
	n, err := s.opts.Conns.Delete(s.doomed)
	s.ended = uint64(n)
	return err
}
