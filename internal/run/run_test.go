package run

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

func TestPages(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- Pages(ctx, l, func() Health { return Health{} }, map[string]http.Handler{
			"count":  Page(func(context.Context) (any, error) { return map[string]int{"a": 1}, nil }),
			"broken": Page(func(context.Context) (any, error) { return nil, errors.New("no counters") }),
			"echo":   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.FormValue("q")) }),
		})
	}()
	var got map[string]int
	if err := Fetch(t.Context(), path, "count", &got); err != nil || got["a"] != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	if err := Fetch(t.Context(), path, "broken", &got); err == nil || err.Error() != "no counters" {
		t.Errorf("a page that fails: %v", err)
	}
	var text strings.Builder
	if err := FetchTo(t.Context(), path, "echo?q=fd00::1%25eth0", &text); err != nil || text.String() != "fd00::1%eth0" {
		t.Errorf("a page with a query: %q, %v", text.String(), err)
	}
	if err := Fetch(t.Context(), path, "other", &got); err == nil {
		t.Error("a page that is not there was read")
	}
	cancel()
	if err := <-done; err == nil {
		t.Fatal("want the context's error")
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Fatal("still answers")
	}
}

func TestParseLevel(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"": "INFO", "DEBUG": "DEBUG", "Warning": "WARN", "fatal": "ERROR", "loud": ""} {
		got, err := ParseLevel(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: got %v, %v; want %q", in, got, err, want)
		}
	}
}
