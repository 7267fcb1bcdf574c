// Package run is the life of a process: what it logs, which signals end it, and
// the pages on which it says how it is.
//
// Every role of weft (node agent, store, lab) is a function that runs until its
// context ends. This package makes that context from signals, makes the one
// logger that is handed down, and serves the pages over a unix socket or TCP.
// It is the only package that builds a slog handler.
//
//	SIGINT, SIGTERM ──► Context ──► role(ctx, log) ──► exit code (main's)
//
// Invariant: nothing here ends the process; a second signal, which the runtime
// handles, does.
package run

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"strings"
	"syscall"
)

// Context ends with the first SIGINT or SIGTERM. After that the signals have
// their default effect again, so that a second one ends a process that hangs.
func Context(parent context.Context) context.Context {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx
}

// Logger writes records of level and above to w as text lines. The level may be
// changed while it is in use.
func Logger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// ParseLevel reads a log level by Calico's names, in any case: Trace and Debug,
// Info, Warning, Error, Fatal, None. Empty is Info.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "trace", "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "fatal":
		return slog.LevelError, nil
	case "none":
		return slog.LevelError + 4, nil
	}
	return 0, fmt.Errorf("log level: %q: must be Debug, Info, Warning, Error, Fatal or None", s)
}
