// Package reconcile is the one loop that keeps something outside of the process
// equal to what is wanted: a kernel table, a peer, a status object.
//
//	kick ──┐
//	retry ─┼─► Pass(cause) ──► Health(err)
//	resync ┘
//
// The owner of the state writes one function, the pass: read what is there (or
// know it from events), compare, change the difference. The loop decides when:
// at once when somebody kicks, after a growing delay when a pass failed, and on
// a full comparison every so often, because nobody hears every event.
//
// It is not a queue. A kick carries no data, any number of kicks before a pass
// are one, and what has changed is known to the owner only. A failing object
// does not hold up others: a kick during the delay runs its pass at once and
// leaves the delay as it was.
//
// Invariant: passes never overlap, and Run's caller is the goroutine they run
// on, so a pass may depend on the OS thread it has.
package reconcile

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Cause is why a pass runs.
type Cause uint8

// The causes. A pass must do at least what its cause asks for.
const (
	Kick   Cause = iota // wants or events came in: apply what changed
	Retry               // an earlier pass failed: try again what failed
	Resync              // read everything and compare
)

// Options are the times of a loop. The zero value is useful.
type Options struct {
	// Resync is the greatest time between two full passes; 0 means that
	// only the first pass, and those asked for, are full.
	Resync time.Duration
	// MinDelay and MaxDelay bound the delay before a failed pass is tried
	// again, which doubles each time. 0 means 100 ms and 30 s. The delay
	// used is up to a quarter shorter, so that nodes do not march in step.
	MinDelay, MaxDelay time.Duration
	// Health is told the result of every pass, from the loop's goroutine.
	// It may be nil.
	Health func(error)
}

// Loop runs passes. Make one with New.
type Loop struct {
	pass         func(context.Context, Cause) error
	opts         Options
	every        atomic.Int64 // Options.Resync, which may change
	born         time.Time    // before began, on the clock that nobody sets
	began        atomic.Int64 // when the pass under way began, nanoseconds; 0: none is
	kick, resync chan struct{}
}

// New makes a loop around pass.
func New(pass func(context.Context, Cause) error, opts Options) *Loop {
	if opts.MinDelay <= 0 {
		opts.MinDelay = 100 * time.Millisecond
	}
	if opts.MaxDelay <= 0 {
		opts.MaxDelay = 30 * time.Second
	}
	if opts.Health == nil {
		opts.Health = func(error) {}
	}
	l := &Loop{pass: pass, opts: opts, born: time.Now().Add(-1), kick: make(chan struct{}, 1), resync: make(chan struct{}, 1)}
	l.every.Store(int64(opts.Resync))
	return l
}

// Kick asks for a pass as soon as possible. It never blocks.
func (l *Loop) Kick() { poke(l.kick) }

// Every changes Options.Resync; it counts from the next full pass on.
func (l *Loop) Every(d time.Duration) { l.every.Store(int64(d)) }

// Busy is how long the pass under way has taken; 0: none is. A loop that waits is not stuck,
// one that is busy for minutes is.
func (l *Loop) Busy() time.Duration {
	if began := l.began.Load(); began != 0 {
		return time.Since(l.born) - time.Duration(began)
	}
	return 0
}

// Resync asks for a full pass as soon as possible. It never blocks.
func (l *Loop) Resync() { poke(l.resync) }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run makes a full pass, and then passes as they are due, until ctx ends. It
// returns the cause of that.
func (l *Loop) Run(ctx context.Context) error {
	var due deadlines
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	cause := Resync
	for {
		l.began.Store(int64(time.Since(l.born)))
		err := l.pass(ctx, cause)
		l.began.Store(0)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.opts.Health(err)
		opts := l.opts
		opts.Resync = time.Duration(l.every.Load())
		due.update(opts, cause, err, time.Now())

		timer.Reset(due.next(time.Now()))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.resync:
			cause = Resync
		case <-l.kick:
			cause = Kick
		case now := <-timer.C:
			cause = due.cause(now)
		}
	}
}

// RunWith is Run with listen beside it on a goroutine of its own, which hears what the
// passes must know. If listen fails, so does RunWith; what it returns after the end does
// not count. In the end close is called, which must make listen return, and waited for.
func (l *Loop) RunWith(ctx context.Context, listen func() error, close func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := listen(); err != nil && ctx.Err() == nil {
			cancel(err)
		}
	})
	err := l.Run(ctx)
	close()
	wait.Wait()
	return err
}

// deadlines are the times of the next passes that nobody asks for; zero: never.
type deadlines struct {
	retry, resync time.Time
	delay         time.Duration
}

func (d *deadlines) update(o Options, cause Cause, err error, now time.Time) {
	if cause == Resync {
		d.resync = time.Time{}
		if o.Resync > 0 {
			d.resync = now.Add(jitter(o.Resync))
		}
	}
	switch {
	case err == nil:
		d.retry, d.delay = time.Time{}, 0
	case cause != Kick || d.retry.IsZero():
		d.delay = min(max(2*d.delay, o.MinDelay), o.MaxDelay)
		d.retry = now.Add(jitter(d.delay))
	}
}

// next is the time until the earlier of the two; an hour when there is none.
func (d *deadlines) next(now time.Time) time.Duration {
	wait := time.Hour
	for _, t := range []time.Time{d.retry, d.resync} {
		if !t.IsZero() {
			wait = min(wait, t.Sub(now))
		}
	}
	return max(wait, 0)
}

func (d *deadlines) cause(now time.Time) Cause {
	switch {
	case !d.resync.IsZero() && !now.Before(d.resync):
		return Resync
	case !d.retry.IsZero() && !now.Before(d.retry):
		return Retry
	}
	return Kick
}

// jitter gives three to four quarters of d.
func jitter(d time.Duration) time.Duration { return d - rand.N(d/4+1) }
