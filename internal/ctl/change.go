package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/edit"
	"github.com/weft-net/weft/internal/ctl/settings"
	"github.com/weft-net/weft/internal/manifest"
)

// The words of --dry-run.
const (
	dryClient = "client" // read and check the documents, without the datastore
	dryServer = "server" // and all checks against the datastore, which is not changed
)

// change is a command that changes what documents describe.
type change struct {
	documentFlags
	verb        edit.Verb
	words       words
	dryRun      string
	skipInvalid bool
	skipExists  bool // of create
	skipAbsent  bool // of delete
}

// words are a verb as it is printed.
type words struct {
	verb, past string // apply, applied
}

// createCommand, applyCommand, replaceCommand: documents to objects.
func (c *client) createCommand() *cobra.Command {
	x := &change{verb: edit.Create, words: words{"create", "created"}}
	cmd := x.command(c, "create -f FILE", "Create the objects of a file, which must not exist",
		"Create makes the objects that the documents describe. One that exists is left as it is, and is a failure unless --skip-exists is given.",
		"  # make the pools of a file, unless they are there\n  weft create -f pools.yaml --skip-exists")
	cmd.Flags().BoolVar(&x.skipExists, "skip-exists", false, "pass over what exists")
	return cmd
}

func (c *client) applyCommand() *cobra.Command {
	x := &change{verb: edit.Apply, words: words{"apply", "applied"}}
	return x.command(c, "apply -f FILE", "Create the objects of a file, or make them equal to it",
		`Apply makes the datastore hold what the documents say: what is missing is created, what differs is
changed, what is equal is left alone, and each gets a line that says which. Everything is read and checked before anything
is written; all that is wrong is said at once, with file, line and column, and then nothing is applied unless
--skip-invalid is given. What others depend on, such as tiers, is applied first.

An object that fails stops no other. After an interrupt, or a failure that was put right, apply again: it does the rest.`,
		"  # make the cluster as the directory says\n  weft apply -f policies/ -R\n  # see first what would happen\n  weft apply -f policies/ -R --dry-run=server")
}

func (c *client) replaceCommand() *cobra.Command {
	x := &change{verb: edit.Replace, words: words{"replace", "replaced"}}
	return x.command(c, "replace -f FILE", "Make objects that exist equal to those of a file",
		"Replace is apply for objects that must exist.",
		"  # put a new version in the place of a policy\n  weft replace -f policy.yaml")
}

// command makes the command of x.
func (x *change) command(c *client, use, short, long, example string) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return x.run(cmd, c) },
	}
	x.add(cmd, x.words.verb)
	x.skipFlag(cmd)
	x.dryFlag(cmd)
	return cmd
}

// skipFlag adds --skip-invalid.
func (x *change) skipFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&x.skipInvalid, "skip-invalid", false, "go on with the good documents when others are wrong")
}

// dryFlag adds --dry-run; without a value it is the server's.
func (x *change) dryFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&x.dryRun, "dry-run", "", "change nothing: client checks the documents by themselves, server against the datastore too")
	cmd.Flags().Lookup("dry-run").NoOptDefVal = dryServer
}

// checkDry refuses a word that --dry-run does not have.
func (x *change) checkDry() error {
	switch x.dryRun {
	case "", dryClient, dryServer, "none":
		return nil
	}
	return &UsageError{fmt.Errorf("--dry-run %q: must be client or server", x.dryRun)}
}

// run reads the documents, checks them and carries them out.
func (x *change) run(cmd *cobra.Command, c *client) error {
	if err := errors.Join(x.need(cmd), x.checkDry()); err != nil {
		return &UsageError{err}
	}
	docs, err := x.read(c)
	if c.calico {
		return x.runCalico(cmd.Context(), c, docs, err)
	}
	docs, wrong, err := c.sound(docs, err, x.verb == edit.Delete)
	if err != nil {
		return err
	}
	if wrong > 0 && (!x.skipInvalid || len(docs) == 0) {
		return fmt.Errorf("%s: nothing was %s: %s", x.words.verb, x.words.past, countOf(wrong, "problem"))
	}
	if len(docs) == 0 {
		_, err := fmt.Fprintln(c.Stderr, "no documents")
		return err
	}
	err = x.do(cmd.Context(), c, docs)
	if err == nil && wrong > 0 {
		err = fmt.Errorf("%s: %s: what is wrong was left out", x.words.verb, countOf(wrong, "problem"))
	}
	return err
}

// do carries good documents out, as far as --dry-run lets it, and prints what became of them.
func (x *change) do(ctx context.Context, c *client, docs []manifest.Document) error {
	if x.dryRun == dryClient {
		return x.accepted(c, docs)
	}
	results, err := x.carryOut(ctx, c, docs)
	if err != nil {
		return err
	}
	return c.report(x.report(docs), results)
}

// sound prints what is wrong with documents and returns those that are good. err is that of
// reading them; it is returned when nothing could be read at all. With reading only that they can be read counts.
func (c *client) sound(docs []manifest.Document, err error, reading bool) (good []manifest.Document, wrong int, failure error) {
	problems := manifest.ProblemsOf(err)
	if err != nil && problems == nil {
		return nil, 0, err
	}
	check := !reading && len(manifest.Validate(docs)) > 0 // mostly none, and found out side by side
	for _, d := range docs {
		var found manifest.Problems
		if check {
			found = manifest.Validate([]manifest.Document{d})
		}
		if !reading {
			found = append(found, d.Locate(v3.CheckWritable(d.Object))...)
		}
		if problems = append(problems, found...); len(found) == 0 {
			good = append(good, d)
		}
	}
	for _, p := range manifest.Join(problems) {
		if _, err := fmt.Fprintln(c.Stderr, p); err != nil {
			return nil, 0, err
		}
	}
	return good, len(problems), nil
}

// accepted prints the documents that are good by themselves.
func (x *change) accepted(c *client, docs []manifest.Document) error {
	for _, d := range docs {
		if _, err := fmt.Fprintf(c.Stdout, "%s valid (dry run: client)\n", handle(d.Object)); err != nil {
			return err
		}
	}
	return nil
}

// carryOut does to the datastore what the documents say.
func (x *change) carryOut(ctx context.Context, c *client, docs []manifest.Document) ([]edit.Result, error) {
	e, done, err := c.editor(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	e.DryRun, e.SkipExists, e.SkipNotExists = x.dryRun == dryServer, x.skipExists, x.skipAbsent
	e.InOrder = c.calico
	defer c.showProgress(e, x.words.past)()
	return e.Run(ctx, x.verb, objects(docs)), nil
}

// editor opens the datastore for changes.
func (c *client) editor(ctx context.Context) (e *edit.Editor, done func(), err error) {
	kind, err := c.datastoreType()
	if err != nil {
		return nil, nil, err
	}
	st, err := c.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	e = edit.New(st, time.Now)
	e.Kubernetes = kind == settings.Kubernetes
	return e, func() { _ = st.Close() }, nil
}

// handle is how an object is named in a line of output: kind/name or kind/namespace/name.
func handle(o v3.Object) string {
	kind, name := lowerKind(o), o.Meta().Name
	if ns := o.Meta().Namespace; ns != "" {
		name = ns + "/" + name
	}
	return kind + "/" + name
}

func countOf(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
