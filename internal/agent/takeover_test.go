package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-net/weft/internal/kernel/remnant"
)

// fakeRemnants has so many chains of Calico, which come back as often as told.
type fakeRemnants struct {
	chains, back, removals int
	legacy                 []string
	err                    error
}

func (f *fakeRemnants) Find() (remnant.Found, error) {
	return remnant.Found{Chains: make([]string, f.chains), Legacy: f.legacy}, f.err
}

func (f *fakeRemnants) Remove() error {
	f.removals++
	f.chains = 0
	if f.removals <= f.back {
		f.chains = 2
	}
	return f.err
}

// TestTakeover: what Calico left goes once our rules are in force, and no sooner; who puts
// it back is not fought for ever; and what stays is named.
func TestTakeover(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fake     fakeRemnants
		keep     bool
		removals int
		note     string // that stays; empty: none
	}{
		"nothing":      {},
		"left":         {fake: fakeRemnants{chains: 3}, removals: 1},
		"comes once":   {fake: fakeRemnants{chains: 3, back: 1}, removals: 2},
		"alive":        {fake: fakeRemnants{chains: 3, back: 99}, removals: takeoverTries, note: "its agent still runs on this node"},
		"to be kept":   {fake: fakeRemnants{chains: 3}, keep: true, note: KeepCalicoSetting},
		"legacy":       {fake: fakeRemnants{chains: 3, legacy: []string{"ip filter", "ip6 nat"}}, removals: 1, note: "iptables-legacy (ip filter, ip6 nat)"},
		"not readable": {fake: fakeRemnants{chains: 3, err: errors.New("no answer")}, note: "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := slog.New(slog.DiscardHandler)
				ready, force, fake := make(chan struct{}), atomic.Bool{}, tt.fake
				to := &takeover{remnants: &fake, inForce: force.Load, ready: ready, keep: tt.keep, notes: newNotes(log), log: log}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- to.run(ctx) }()
				time.Sleep(time.Hour)
				close(ready)
				time.Sleep(time.Hour)
				if fake.removals != 0 {
					t.Error("removed while our rules are not in force")
				}
				synctest.Wait()
				force.Store(true)
				time.Sleep(time.Hour)
				synctest.Wait()
				if fake.removals != tt.removals {
					t.Errorf("%d removals, want %d", fake.removals, tt.removals)
				}
				if got := strings.Join(to.notes.all(), "; "); (got == "") != (tt.note == "") || !strings.Contains(got, tt.note) {
					t.Errorf("note %q, want %q", got, tt.note)
				}
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Error(fmt.Errorf("ended: %w", err))
				}
			})
		})
	}
}
