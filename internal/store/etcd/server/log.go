package server

import (
	"context"
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap/zapcore"
)

// zapCore hands what etcd logs with zap to slog.
type zapCore struct {
	log     *slog.Logger
	silence *atomic.Bool
	with    []zapcore.Field
}

// isChatter reports what etcd warns of at each start and is as it should be here:
// one port for everything, and tokens that no other member needs to trust.
func isChatter(message string) bool {
	return message == "Running http and grpc server on single port. This is not recommended for production." ||
		message == "simple token is not cryptographically signed"
}

// newZapCore makes a core for log; a nil log takes nothing, and neither does
// any other once silence is set.
func newZapCore(log *slog.Logger, silence *atomic.Bool) zapcore.Core {
	if log == nil {
		return zapcore.NewNopCore()
	}
	return zapCore{log: log, silence: silence}
}

// Enabled implements zapcore.Core: warnings and worse.
func (zapCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c zapCore) With(fields []zapcore.Field) zapcore.Core {
	return zapCore{c.log, c.silence, append(c.with[:len(c.with):len(c.with)], fields...)}
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
	if c.silence.Load() || isChatter(e.Message) {
		return nil
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.with[:len(c.with):len(c.with)], fields...) {
		f.AddTo(enc)
	}
	c.log.LogAttrs(context.Background(), slog.LevelWarn, "etcd: "+e.Message, slog.Any("detail", enc.Fields))
	return nil
}

// Sync implements zapcore.Core.
func (zapCore) Sync() error { return nil }
