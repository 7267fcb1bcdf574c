package ctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/weft-net/weft/internal/ctl/settings"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/datastore"
)

// openTimeout is how long a command waits for etcd before it says that nobody is there. An API
// server has a limit of its own.
const openTimeout = 5 * time.Second

// settings finds out which datastore is meant, once.
func (c *client) settings() (settings.Settings, error) {
	if c.read != nil {
		return *c.read, nil
	}
	s, err := settings.Read(settings.Request{
		File: c.configFile, Default: settings.DefaultFile, Context: c.kubeContext,
		Plugin: c.Program == kubectlPlugin, Getenv: c.Getenv,
	})
	if err != nil {
		return s, err
	}
	c.read = &s
	return s, nil
}

// setting is the value of a setting of the datastore, by the name of its variable; empty when
// it is not set, or when the settings can't be read: then open says why.
func (c *client) setting(name string) string {
	s, err := c.settings()
	if err != nil {
		return ""
	}
	return s.Get(name)
}

// datastoreType is etcdv3 or kubernetes; the error is that of open.
func (c *client) datastoreType() (string, error) {
	s, err := c.settings()
	if err != nil {
		return "", c.unset(err)
	}
	return s.Type(), nil
}

// open connects to the datastore that the settings name. The caller closes it.
func (c *client) open(ctx context.Context) (store.Store, error) {
	s, err := c.settings()
	if err == nil && c.calico && s.Endpointless() {
		err = &settings.Error{Err: errors.New("ETCD_ENDPOINTS is not set"), Calico: "no etcd endpoints specified"}
	}
	if err != nil {
		return nil, c.unset(err)
	}
	log, err := c.logger()
	if err != nil {
		return nil, err
	}
	opening := ctx
	if s.Type() == settings.Etcd {
		limited, cancel := context.WithTimeoutCause(ctx, openTimeout, fmt.Errorf("no answer within %v", openTimeout))
		defer cancel()
		opening = limited
	}
	st, err := datastore.OpenLogged(opening, s.Get, log)
	switch {
	case err == nil:
		return c.checkVersion(ctx, st), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("interrupted before the datastore answered: %w", context.Cause(ctx))
	}
	return nil, s.Explain(err)
}

// unset says that the settings name no datastore. calicoctl says so where others have their
// answer.
func (c *client) unset(err error) error {
	wrong := (*settings.Error)(nil)
	if !c.calico || !errors.As(err, &wrong) {
		return err
	}
	text := "Failed to create Calico API client: " + wrong.Calico
	switch {
	case wrong.Missing != "":
		text = "Error reading config file: " + wrong.Missing
	case wrong.Calico == "":
		text += wrong.Error()
	}
	_, _ = fmt.Fprintln(c.Stdout, text)
	return &ExitError{1}
}

// level is that of -l; what is below it is not logged. Nothing is at its default.
func (c *client) level() (slog.Level, error) {
	switch strings.ToLower(c.logLevel) {
	case "", "panic", "fatal":
		return slog.LevelError + 4, nil
	case "error":
		return slog.LevelError, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "info":
		return slog.LevelInfo, nil
	case "debug", "trace":
		return slog.LevelDebug, nil
	}
	if c.calico {
		return 0, fmt.Errorf("unknown log level: %s, expected one of: panic, fatal, error, warn, info, debug", c.logLevel)
	}
	return 0, &UsageError{fmt.Errorf("--log-level %s: must be panic, fatal, error, warn, info or debug", c.logLevel)}
}

// logger writes what -l asks for to stderr.
func (c *client) logger() (*slog.Logger, error) {
	level, err := c.level()
	if err != nil {
		return nil, err
	}
	return run.Logger(c.Stderr, level), nil
}
