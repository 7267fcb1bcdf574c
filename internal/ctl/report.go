package ctl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/edit"
	"github.com/weft-net/weft/internal/manifest"
	"github.com/weft-net/weft/internal/store"
)

// report is what the lines of results say beside the results.
type report struct {
	words words
	dry   bool
	docs  []manifest.Document // beside the results; nil: they are of no documents
}

func (x *change) report(docs []manifest.Document) report {
	return report{x.words, x.dryRun == dryServer, docs}
}

// report prints a line for each object: what happened on stdout, why it failed on stderr. The
// error sums up, when something failed or was not tried.
func (c *client) report(r report, results []edit.Result) error {
	out := bufio.NewWriter(c.Stdout)
	counts := map[edit.Outcome]int{}
	for i, res := range results {
		counts[res.Outcome]++
		switch res.Outcome {
		case edit.NotTried:
		case edit.Failed:
			if err := out.Flush(); err != nil {
				return err
			}
			for n, line := range causes(res) {
				_, _ = fmt.Fprintf(c.Stderr, "%s%s: %s\n", r.at(i, n, res.Err), handle(res.Object), line)
			}
		default:
			_, _ = fmt.Fprintln(out, line(res, r.dry)) // Flush tells
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return c.summary(r, results, counts)
}

// at is where the cause n of the result i stands in its document, for the beginning of a line.
func (r report) at(i, n int, err error) string {
	if i >= len(r.docs) || r.docs[i].File == "" {
		return ""
	}
	d := r.docs[i]
	if places := d.Locate(err); n < len(places) {
		return places[n].Where() + ": "
	}
	return fmt.Sprintf("%s:%d:%d: ", d.File, d.Line, d.Column)
}

// line is a result on one line.
func line(r edit.Result, dry bool) string {
	text := handle(r.Object) + " " + r.Outcome.String()
	if r.Outcome == edit.Configured {
		text += ": " + strings.Join(few(r.Changed), ", ")
	}
	if r.Note != "" {
		text += ": " + r.Note
	}
	if dry {
		text += " (dry run)"
	}
	return text
}

// few are the first of many words.
func few(words []string) []string {
	const most = 5
	if len(words) <= most {
		return words
	}
	return append(append([]string(nil), words[:most]...), fmt.Sprintf("%d more", len(words)-most))
}

// summary is the error for results of which not all are good; nil when all are.
func (c *client) summary(r report, results []edit.Result, counts map[edit.Outcome]int) error {
	if counts[edit.Failed] == 0 && counts[edit.NotTried] == 0 {
		return nil
	}
	if len(results) == 1 && counts[edit.Failed] == 1 {
		return &ExitError{1} // its line has said all
	}
	var parts []string
	for _, o := range []edit.Outcome{edit.Created, edit.Configured, edit.Unchanged, edit.Deleted, edit.Skipped, edit.Failed, edit.NotTried} {
		if counts[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %v", counts[o], o))
		}
	}
	text := fmt.Sprintf("%s: of %s %s", r.words.verb, countOf(len(results), "object"), strings.Join(parts, ", "))
	if counts[edit.NotTried] > 0 {
		var names []string
		for _, res := range results {
			if res.Outcome == edit.NotTried {
				names = append(names, handle(res.Object))
			}
		}
		text += ": interrupted before " + strings.Join(few(names), ", ") + ": do it again to finish the rest"
	}
	return errors.New(text)
}

// causes are the reasons why an object failed, without its name, which stands before each.
func causes(r edit.Result) []string {
	if fields := v3.FieldErrors(r.Err); len(fields) > 0 {
		lines := make([]string, len(fields))
		for i, f := range fields {
			bare := *f
			bare.Object = ""
			lines[i] = bare.Error()
		}
		return lines
	}
	var rule *edit.RuleError
	if errors.As(r.Err, &rule) {
		return []string{rule.Text}
	}
	var many interface{ Unwrap() []error }
	if errors.As(r.Err, &many) && errors.Is(r.Err, edit.ErrLabel) {
		var lines []string
		for _, err := range many.Unwrap() {
			lines = append(lines, causes(edit.Result{Object: r.Object, Err: err})...)
		}
		return lines
	}
	err := r.Err
	var stored *store.Error
	if errors.As(err, &stored) {
		err = stored.Err
	}
	switch {
	case errors.Is(err, store.ErrConflict):
		return []string{"changed meanwhile: its resourceVersion is not the one given: read it again"}
	case errors.Is(err, store.ErrNotFound):
		return []string{"not found"}
	}
	return []string{strings.TrimPrefix(err.Error(), v3.Describe(r.Object)+": ")}
}

// lowerKind is the kind of o as users type it.
func lowerKind(o v3.Object) string { return strings.ToLower(v3.KindOf(o).Name) }

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// showProgress shows on a terminal how far e is, from a second on. The function it returns
// wipes that away.
func (c *client) showProgress(e *edit.Editor, past string) func() {
	if c.calico || !isTerminal(c.Stderr) {
		return func() {}
	}
	const patience, pause = time.Second, 100 * time.Millisecond
	begun, shown := time.Now(), time.Time{}
	e.Progress = func(done, all int) {
		if now := time.Now(); now.Sub(begun) >= patience && now.Sub(shown) >= pause {
			shown = now
			_, _ = fmt.Fprintf(c.Stderr, "\r%d of %d %s", done, all, past)
		}
	}
	return func() {
		if !shown.IsZero() {
			_, _ = fmt.Fprint(c.Stderr, "\r\x1b[K")
		}
	}
}
