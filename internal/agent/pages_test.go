package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/run"
)

// addresses is a log handler that passes on at which addresses pages are served.
type addresses struct {
	slog.Handler
	told chan string
}

func (addresses) Enabled(context.Context, slog.Level) bool { return true }

func (a addresses) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(attr slog.Attr) bool {
		if attr.Key == "address" {
			a.told <- attr.Value.String()
		}
		return true
	})
	return nil
}

// fetch gets a page: its status and first line.
func fetch(t *testing.T, address, page string) string {
	t.Helper()
	r, err := http.Get("http://" + address + page) //nolint:noctx // a test
	if err != nil {
		return "no answer"
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	line, _, _ := strings.Cut(string(text), "\n")
	return fmt.Sprintf("%d %s", r.StatusCode, line)
}

// TestPages: health is served while the agent waits, and moves when settings change.
func TestPages(t *testing.T) {
	t.Parallel()
	told := make(chan string, 4)
	p := newPages(slog.New(addresses{slog.DiscardHandler, told}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx) }()
	p.configure(route.Pages{Metrics: route.Page{Host: "localhost"}}) // not enabled
	p.configure(route.Pages{Health: route.Page{Enabled: true, Host: "localhost"}})
	first := <-told
	if !strings.HasPrefix(first, "127.0.0.1:") {
		t.Errorf("localhost is %s", first)
	}
	p.waiting("waiting for the datastore")
	for page, want := range map[string]string{"/liveness": "200 live", "/readiness": "503 waiting for the datastore", "/metrics": "404 404 page not found"} {
		if got := fetch(t, first, page); got != want {
			t.Errorf("%s while waiting: %s, want %s", page, got, want)
		}
	}
	p.begin(func() run.Health { return run.Health{Live: true, Ready: true, Why: "ready"} }, func(s route.Pages) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "go metrics", s.GoMetrics) })
	})
	if got := fetch(t, first, "/readiness"); got != "200 ready" {
		t.Errorf("readiness %s", got)
	}
	p.configure(route.Pages{Metrics: route.Page{Enabled: true, Host: "127.0.0.1"}, GoMetrics: true})
	metrics := <-told
	if got := fetch(t, metrics, "/metrics"); got != "200 go metrics true" {
		t.Errorf("metrics %s", got)
	}
	p.configure(route.Pages{Metrics: route.Page{Enabled: true, Host: "localhost"}})
	if moved := <-told; moved == metrics {
		t.Errorf("still at %s", moved)
	}
	if got := fetch(t, metrics, "/metrics"); got != "no answer" {
		t.Errorf("the old address of metrics: %s", got)
	}
	cancel()
	<-done
	if got := fetch(t, first, "/readiness"); got != "no answer" {
		t.Errorf("after the end: %s", got)
	}
}

// TestPulse: an engine that is idle is well, one that takes nothing in is not.
func TestPulse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPulse()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		go func() { done <- p.run(ctx) }()
		stop := make(chan struct{})
		go func() { // an engine with nothing else to do
			for {
				select {
				case <-p.asked:
				case <-stop:
					done <- nil
					return
				}
			}
		}()
		time.Sleep(time.Hour)
		if got := p.silent(); got != 0 {
			t.Errorf("idle: silent for %v", got)
		}
		close(stop)
		<-done
		time.Sleep(2 * time.Minute)
		if got := p.silent(); got < 110*time.Second || got > 2*time.Minute {
			t.Errorf("stuck for two minutes: silent for %v", got)
		}
		cancel()
		<-done
	})
}
