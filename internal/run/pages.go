package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Health is how a role is.
type Health struct {
	Live  bool // it makes progress; otherwise it should be restarted
	Ready bool // it does its work
	Why   string
}

// Pages serves /liveness and /readiness (200 or 503) and /status (status as
// JSON) on l until ctx ends.
func Pages(ctx context.Context, l net.Listener, health func() Health, status func() any) error {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, ok bool, why string) {
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprintln(w, why)
	}
	mux.HandleFunc("/liveness", func(w http.ResponseWriter, _ *http.Request) {
		h := health()
		answer(w, h.Live, h.Why)
	})
	mux.HandleFunc("/readiness", func(w http.ResponseWriter, _ *http.Request) {
		h := health()
		answer(w, h.Ready, h.Why)
	})
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status())
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("pages: %w", err)
	}
	return context.Cause(ctx)
}

// Fetch reads the page /status from a unix socket into out.
func Fetch(ctx context.Context, socket string, out any) error {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/status", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(out)
}
