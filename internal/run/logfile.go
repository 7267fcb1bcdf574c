package run

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// LogFile is a file that a log goes to. When it has grown to its limit it becomes FILE.1,
// in place of an older one, and a new one begins: so there is never more than twice the
// limit. It is safe for concurrent use.
type LogFile struct {
	path  string
	limit int64 // bytes

	mu   sync.Mutex
	file *os.File
	size int64
}

// OpenLogFile opens the file, after what is in it, and makes it and its directory if they are
// not there. Only its owner may read it.
func OpenLogFile(path string, limitBytes int64) (*LogFile, error) {
	l := &LogFile{path: path, limit: limitBytes}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("log file: %w", errors.Join(err, f.Close()))
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer. A file that can't be begun anew goes on growing.
func (l *LogFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(p)) > l.limit {
		old := l.file
		if err := os.Rename(l.path, l.path+".1"); err == nil || errors.Is(err, fs.ErrNotExist) {
			if l.open() == nil {
				_ = old.Close()
			}
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

// Close ends it; nothing may be written after that.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
