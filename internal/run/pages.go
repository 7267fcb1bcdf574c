package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Listen opens a unix socket that only its owner may use, in place of one that
// a dead process left behind. The error says so when somebody still answers.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen %s: another process serves this socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	// The socket is made under another name and gets its own only once nobody
	// else may open it.
	fresh := path + ".new"
	_ = os.Remove(fresh)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("listen %s: %w", path, err)
	}
	return l, nil
}

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
