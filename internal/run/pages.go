package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Health is how a role is.
type Health struct {
	Live  bool // it makes progress; otherwise it should be restarted
	Ready bool // it does its work
	Why   string
}

// Page makes what a page says, to be written as JSON. It is an [http.Handler].
type Page func(context.Context) (any, error)

// ServeHTTP implements [http.Handler].
func (p Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := p(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

// Pages serves /liveness and /readiness (200 or 503), and the given pages by name,
// on l until ctx ends.
func Pages(ctx context.Context, l net.Listener, health func() Health, pages map[string]http.Handler) error {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, ok bool, why string) {
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprintln(w, why)
	}
	mux.HandleFunc("/liveness", func(w http.ResponseWriter, _ *http.Request) {
		h := health()
		if h.Live { // why it is not ready is another question
			h.Why = "live"
		}
		answer(w, h.Live, h.Why)
	})
	mux.HandleFunc("/readiness", func(w http.ResponseWriter, _ *http.Request) {
		h := health()
		answer(w, h.Ready, h.Why)
	})
	for name, page := range pages {
		mux.Handle("/"+name, page)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("pages: %w", err)
	}
	return context.Cause(ctx)
}

// Fetch reads a page from a unix socket into out. A page may have a query: "routes?peer=…".
func Fetch(ctx context.Context, socket, page string, out any) error {
	body, err := open(ctx, socket, page)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	return json.NewDecoder(body).Decode(out)
}

// FetchTo copies a page from a unix socket as it is.
func FetchTo(ctx context.Context, socket, page string, out io.Writer) error {
	body, err := open(ctx, socket, page)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	_, err = io.Copy(out, body)
	return err
}

// open begins to read a page; an answer that is not 200 is an error with what it says.
func open(ctx context.Context, socket, page string) (io.ReadCloser, error) {
	resp, err := get(ctx, socket, page)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	why, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	_ = resp.Body.Close()
	return nil, errors.New(strings.TrimSpace(string(why)))
}

// Probe asks for the page liveness or readiness on a unix socket: what it says, and whether
// that is well.
func Probe(ctx context.Context, socket, page string) (why string, ok bool, err error) {
	resp, err := get(ctx, socket, page)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return strings.TrimSpace(string(text)), resp.StatusCode == http.StatusOK, err
}

func get(ctx context.Context, socket, page string) (*http.Response, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/"+page, http.NoBody)
	if err != nil {
		return nil, err
	}
	return client.Do(req)
}
