package server

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// zapCore hands what etcd logs with zap to slog.
type zapCore struct {
	log  *slog.Logger
	with []zapcore.Field
}

// newZapCore makes a core for log; a nil log takes nothing.
func newZapCore(log *slog.Logger) zapcore.Core {
	if log == nil {
		return zapcore.NewNopCore()
	}
	return zapCore{log: log}
}

// Enabled implements zapcore.Core: warnings and worse.
func (zapCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{c.log, append(c.with[:len(c.with):len(c.with)], fields...)}
}

// Check implements zapcore.Core.
func (c zapCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core. What etcd calls an error heals itself or ends
// the server, which Server.Err reports; so here it is a warning.
func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.with[:len(c.with):len(c.with)], fields...) {
		f.AddTo(enc)
	}
	c.log.LogAttrs(context.Background(), slog.LevelWarn, "etcd: "+e.Message, slog.Any("detail", enc.Fields))
	return nil
}

// Sync implements zapcore.Core.
func (zapCore) Sync() error { return nil }
