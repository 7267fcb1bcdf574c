package reconcile

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// run runs a loop in a bubble and gives what its passes saw.
func run(t *testing.T, o Options, results func(n int) error, script func(*Loop)) (causes []Cause, at []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stop")
		l := New(func(context.Context, Cause) error { return nil }, o)
		l.pass = func(_ context.Context, c Cause) error {
			causes, at = append(causes, c), append(at, time.Since(start))
			return results(len(causes))
		}
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait()
		script(l)
		synctest.Wait()
		cancel(stop)
		if err := <-done; !errors.Is(err, stop) {
			t.Errorf("Run returned %v, want the cause of the end", err)
		}
	})
	return causes, at
}

func fine(int) error { return nil }

func TestKicksDuringAPassAreOne(t *testing.T) {
	t.Parallel()
	var loop *Loop
	causes, _ := run(t, Options{}, func(n int) error {
		for range 10 {
			if n == 2 {
				loop.Kick()
			}
		}
		return nil
	}, func(l *Loop) { loop = l; l.Kick() })
	if !slices.Equal(causes, []Cause{Resync, Kick, Kick}) {
		t.Errorf("passes %v, want a full one, the kicked one, and one for ten kicks", causes)
	}
}

func TestResyncComesInTime(t *testing.T) {
	t.Parallel()
	causes, at := run(t, Options{Resync: 90 * time.Second}, fine, func(l *Loop) {
		time.Sleep(30 * time.Second)
		l.Resync() // asked for; the next one counts from here
		time.Sleep(100 * time.Second)
	})
	if !slices.Equal(causes, []Cause{Resync, Resync, Resync}) {
		t.Fatalf("passes %v at %v, want three full ones", causes, at)
	}
	if d := at[2] - at[1]; d < 67*time.Second || d > 90*time.Second {
		t.Errorf("third full pass %v after the second, want 67.5 to 90 s", d)
	}
}

func TestDelayGrowsAndKicksPassBy(t *testing.T) {
	t.Parallel()
	bad := errors.New("bad")
	var seen []error
	o := Options{MinDelay: time.Second, MaxDelay: 4 * time.Second, Health: func(err error) { seen = append(seen, err) }}
	fails := func(n int) error {
		if n <= 6 {
			return bad
		}
		return nil
	}
	causes, at := run(t, o, fails, func(l *Loop) {
		time.Sleep(100 * time.Millisecond)
		l.Kick() // runs at once, although a retry is due later
		time.Sleep(time.Minute)
	})
	want := []Cause{Resync, Kick, Retry, Retry, Retry, Retry, Retry}
	if !slices.Equal(causes, want) {
		t.Fatalf("passes %v at %v, want %v", causes, at, want)
	}
	if at[1] != 100*time.Millisecond {
		t.Errorf("kick served at %v, want at once", at[1])
	}
	if at[2] > time.Second {
		t.Errorf("first retry at %v: the kick must not put it off", at[2])
	}
	for i, bound := range []time.Duration{2 * time.Second, 4 * time.Second, 4 * time.Second, 4 * time.Second} {
		if d := at[i+3] - at[i+2]; d > bound || d < bound*3/4-time.Millisecond {
			t.Errorf("retry %d after %v, want three to four quarters of %v", i+2, d, bound)
		}
	}
	if len(seen) != 7 || seen[5] == nil || seen[6] != nil {
		t.Errorf("health saw %v, want six errors, then none", seen)
	}
}

func TestEveryChangesTheTime(t *testing.T) {
	t.Parallel()
	causes, at := run(t, Options{}, fine, func(l *Loop) {
		time.Sleep(2 * time.Hour)
		l.Every(10 * time.Second)
		l.Resync()
		time.Sleep(12 * time.Second) // one asked for, one in time
		l.Every(0)
		time.Sleep(2 * time.Hour)
	})
	full := 0
	for _, c := range causes {
		if c == Resync {
			full++
		}
	}
	if full != 4 {
		t.Errorf("passes %v at %v, want four full ones: the first, one asked for, two in time", causes, at)
	}
}

// TestRunWith: both end together, whichever of them is the cause.
func TestRunWith(t *testing.T) {
	t.Parallel()
	for _, deaf := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			stop, broken := errors.New("stop"), errors.New("broken")
			l := New(func(context.Context, Cause) error { return nil }, Options{})
			closed, fail, done := make(chan struct{}), make(chan struct{}), make(chan error)
			heard := false
			listen := func() error {
				defer func() { heard = true }()
				select {
				case <-fail:
					return broken
				case <-closed:
					return errors.New("closed")
				}
			}
			go func() { done <- l.RunWith(ctx, listen, func() { close(closed) }) }()
			synctest.Wait()
			want := stop
			if deaf {
				want = broken
				close(fail)
			} else {
				cancel(stop)
			}
			if err := <-done; !errors.Is(err, want) || !heard {
				t.Errorf("returned %v, want %v; listen has ended: %v", err, want, heard)
			}
			cancel(nil)
		})
	}
}

// TestBusy: a loop that waits is not busy, however long.
func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		long := make(chan struct{})
		l := New(func(context.Context, Cause) error { <-long; return nil }, Options{})
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		time.Sleep(2 * time.Minute)
		if got := l.Busy(); got != 2*time.Minute {
			t.Errorf("in a pass of two minutes: busy for %v", got)
		}
		close(long)
		synctest.Wait()
		time.Sleep(30 * time.Minute)
		if got := l.Busy(); got != 0 {
			t.Errorf("waiting: busy for %v", got)
		}
		cancel()
		<-done
	})
}
