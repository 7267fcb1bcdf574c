package agent

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/startup"
	"github.com/weft-net/weft/internal/store"
)

// TestSocketWhileWaiting: an agent that waits for its datastore says so over its socket, and
// what it can tell already; a second one on the same socket is refused.
func TestSocketWhileWaiting(t *testing.T) {
	t.Parallel()
	recent := run.NewRecent(10)
	tried, told := make(chan struct{}), make(chan struct{})
	c := Config{
		Settings: startup.Settings{Node: "node-a"}, Version: "v1", StatusSocket: filepath.Join(t.TempDir(), "s"),
		Log: run.Logger(recent, nil), Recent: recent,
		Open: func(ctx context.Context, waits func(error)) (store.Store, error) {
			<-tried
			waits(errors.New("http://192.0.2.1:2379: no route to host"))
			close(told)
			<-ctx.Done()
			return nil, context.Cause(ctx)
		},
	}
	c.Log.Info("hello")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Run(ctx, c) }()
	close(tried)
	<-told

	var s Status
	if err := run.Fetch(t.Context(), c.StatusSocket, "status", &s); err != nil {
		t.Fatal(err)
	}
	if want := "waiting for the datastore: http://192.0.2.1:2379: no route to host"; s.Why != want || s.Ready || s.Node != "node-a" || s.Version != "v1" || s.PID == 0 {
		t.Errorf("status %+v; want not ready: %s", s, want)
	}
	if why, ok, err := run.Probe(t.Context(), c.StatusSocket, "readiness"); err != nil || ok || !strings.HasPrefix(why, "waiting for the datastore: ") {
		t.Errorf("readiness %q, %t, %v", why, ok, err)
	}
	if why, ok, err := run.Probe(t.Context(), c.StatusSocket, "liveness"); err != nil || !ok {
		t.Errorf("liveness %q, %t, %v", why, ok, err)
	}
	for page, want := range map[string]string{"log": "msg=hello", "goroutines": "TestSocketWhileWaiting", "heap": ""} {
		var text strings.Builder
		if err := run.FetchTo(t.Context(), c.StatusSocket, page, &text); err != nil || text.Len() == 0 || !strings.Contains(text.String(), want) {
			t.Errorf("%s: %q, %v; want %q in it", page, text.String(), err, want)
		}
	}
	for _, page := range []string{"policy", "routes?peer=192.0.2.1", "metrics"} {
		if err := run.Fetch(t.Context(), c.StatusSocket, page, new(any)); err == nil || !strings.Contains(err.Error(), "has not begun: waiting for the datastore") {
			t.Errorf("%s: %v; want that the agent has not begun", page, err)
		}
	}
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "another agent is listening") {
		t.Errorf("a second agent: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if err := run.Fetch(t.Context(), c.StatusSocket, "status", &s); err == nil {
		t.Error("still answers")
	}
}
