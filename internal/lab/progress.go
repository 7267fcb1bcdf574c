package lab

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// Progress shows long work: one line that changes on a terminal, elsewhere a line
// a second at most. It is for one goroutine.
type Progress struct {
	w     io.Writer
	tty   bool
	start time.Time
	last  time.Time // of the last line elsewhere
	shown bool      // there is something on the terminal's line
}

// NewProgress writes to w.
func NewProgress(w io.Writer) *Progress {
	f, isFile := w.(*os.File)
	return &Progress{w: w, tty: isFile && term.IsTerminal(int(f.Fd())), start: time.Now()}
}

// Step shows what is being done now.
func (p *Progress) Step(what string) {
	if p.tty {
		fmt.Fprintf(p.w, "\r\x1b[K%4.1fs %s …", time.Since(p.start).Seconds(), what)
		p.shown = true
		return
	}
	if time.Since(p.last) >= time.Second {
		p.last = time.Now()
		fmt.Fprintf(p.w, "%4.1fs %s\n", time.Since(p.start).Seconds(), what)
	}
}

// Done leaves a last line and goes on to the next; empty: it only clears the line.
func (p *Progress) Done(what string) {
	if p.tty && p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
	if what != "" {
		fmt.Fprintf(p.w, "%4.1fs %s\n", time.Since(p.start).Seconds(), what)
	}
}
