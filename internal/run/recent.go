package run

import (
	"bytes"
	"io"
	"sync"
)

// Recent keeps the last lines that were written to it, for who asks later what happened. It
// is safe for concurrent use. The nil *Recent keeps nothing and has nothing.
type Recent struct {
	mu    sync.Mutex
	lines [][]byte // a ring; each ends in a line feed
	next  int      // where the next one goes
}

// NewRecent keeps that many lines, at least one.
func NewRecent(lines int) *Recent { return &Recent{lines: make([][]byte, max(lines, 1))} }

// Write implements io.Writer: p is one line or several, the last of which may lack its end.
func (r *Recent) Write(p []byte) (int, error) {
	if r == nil {
		return len(p), nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range bytes.Lines(p) {
		at := r.lines[r.next][:0] // reuses the memory of the oldest
		if at = append(at, line...); line[len(line)-1] != '\n' {
			at = append(at, '\n')
		}
		r.lines[r.next] = at
		r.next = (r.next + 1) % len(r.lines)
	}
	return len(p), nil
}

// WriteTo implements io.WriterTo: the lines, oldest first.
func (r *Recent) WriteTo(w io.Writer) (int64, error) {
	if r == nil {
		return 0, nil
	}
	r.mu.Lock()
	var all []byte
	for i := range r.lines {
		all = append(all, r.lines[(r.next+i)%len(r.lines)]...)
	}
	r.mu.Unlock()
	n, err := w.Write(all)
	return int64(n), err
}
