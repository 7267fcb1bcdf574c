package cni

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// The limits of a log file where the configuration gives none, as Calico's.
const (
	defaultLogMiB   = 100
	defaultLogDays  = 30
	defaultLogCount = 10
)

// parseLevel reads log_level; the empty string means info.
func parseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "", "info":
		return slog.LevelInfo, nil
	case "debug", "trace":
		return slog.LevelDebug, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "fatal", "panic":
		return slog.LevelError, nil
	}
	return 0, confError("log_level: %q: unknown; debug, info, warning and error are allowed", s)
}

// openLog makes the logger that c asks for: to stderr and, if it names one, to a
// file, which is rotated first when it has grown too large. A file that cannot
// be written is reported on stderr and does not stop the call.
func (c *config) openLog(stderr io.Writer) (log *slog.Logger, closeLog func()) {
	level, _ := parseLevel(c.LogLevel) // checked when it was parsed
	o := &slog.HandlerOptions{Level: level}
	log, closeLog = slog.New(slog.NewTextHandler(stderr, o)), func() {}
	if c.LogFilePath == "" {
		return log, closeLog
	}
	rotate(c.LogFilePath, limit(c.LogFileMaxSize, defaultLogMiB), limit(c.LogFileMaxAge, defaultLogDays), limit(c.LogFileMaxCount, defaultLogCount))
	f, err := os.OpenFile(c.LogFilePath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Warn("cni: log file", "err", err)
		return log, closeLog
	}
	return slog.New(slog.NewTextHandler(io.MultiWriter(stderr, f), o)), func() { f.Close() }
}

func limit(v *int, otherwise int) int {
	if v == nil {
		return otherwise
	}
	return *v
}

// rotate renames a file of at least mib MiB to path.1, path.1 to path.2 and so
// on up to count, and removes old files of more than days days. A limit of 0
// does not apply. Errors do not matter: the file grows a little longer.
func rotate(path string, mib, days, count int) {
	const unlimited = 1000
	if count <= 0 {
		count = unlimited
	}
	info, err := os.Stat(path)
	if err != nil || mib <= 0 || info.Size() < int64(mib)<<20 {
		return
	}
	old := 1
	for ; old < count; old++ {
		if _, err := os.Stat(fmt.Sprintf("%s.%d", path, old)); err != nil {
			break
		}
	}
	for ; old > 1; old-- {
		_ = os.Rename(fmt.Sprintf("%s.%d", path, old-1), fmt.Sprintf("%s.%d", path, old))
	}
	_ = os.Rename(path, path+".1")
	for i := 1; i <= count && days > 0; i++ {
		name := fmt.Sprintf("%s.%d", path, i)
		info, err := os.Stat(name)
		if err != nil {
			break
		}
		if time.Since(info.ModTime()) > time.Duration(days)*24*time.Hour {
			_ = os.Remove(name)
		}
	}
}
