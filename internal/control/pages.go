package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weft-net/weft/internal/run"
)

// pages serves probes and status, and what the settings ask for besides: metrics and
// profiles, on ports of their own or, if it is the same, on that of the probes.
type pages struct {
	config *Config
	board  *board
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu   sync.Mutex
	set  settings // in force; the zero settings: none yet
	port uint16   // of the probes
}

func newPages(c *Config, b *board) *pages { return &pages{config: c, board: b, cancel: func() {}} }

// settings are those in force, and false while there are none.
func (p *pages) settings() (settings, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.set, p.set.Name != ""
}

// probes serves on l until ctx ends.
func (p *pages) probes(ctx context.Context, l net.Listener) error {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		p.port = uint16(a.Port)
	}
	mux := http.NewServeMux()
	probe := func(path string, ok func(run.Health) bool) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if s, known := p.settings(); known && !s.HealthChecks {
				http.NotFound(w, r)
				return
			}
			h := p.board.health()
			if !ok(h) {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = fmt.Fprintln(w, h.Why)
		})
	}
	probe("/liveness", func(h run.Health) bool { return h.Live })
	probe("/readiness", func(h run.Health) bool { return h.Ready })
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p.board.status())
	})
	metrics := promhttp.HandlerFor(p.board.metrics.registry, promhttp.HandlerOpts{})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, r *http.Request) {
		if s, known := p.settings(); known && s.MetricsPort != p.port {
			http.NotFound(w, r)
			return
		}
		metrics.ServeHTTP(w, r)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return context.Cause(ctx)
}

// apply serves what s asks for until stop. A port that is taken is logged: the
// controllers work without.
func (p *pages) apply(ctx context.Context, s settings) {
	p.mu.Lock()
	p.set = s
	p.mu.Unlock()
	ctx, p.cancel = context.WithCancel(ctx)
	if s.MetricsPort != 0 && s.MetricsPort != p.port {
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(p.board.metrics.registry, promhttp.HandlerOpts{}))
		p.serve(ctx, "metrics", s.MetricsPort, mux)
	}
	if s.ProfilePort != 0 {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		p.serve(ctx, "profiles", s.ProfilePort, mux)
	}
}

func (p *pages) stop() {
	p.cancel()
	p.wait.Wait()
}

func (p *pages) serve(ctx context.Context, what string, port uint16, h http.Handler) {
	address := fmt.Sprintf(":%d", port)
	l, err := net.Listen("tcp", address)
	if err != nil {
		p.config.Log.Warn("page is not served", "page", what, "err", err)
		return
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	p.wait.Go(func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			p.config.Log.Warn("page is not served any more", "page", what, "err", err)
		}
	})
}

// plain is v as JSON has it.
func plain(v any) any {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	var out any
	_ = json.Unmarshal(text, &out) // it was made a line above
	return out
}
