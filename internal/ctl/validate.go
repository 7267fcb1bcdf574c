package ctl

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/weft-net/weft/internal/ctl/edit"
	"github.com/weft-net/weft/internal/manifest"
)

func (c *client) validateCommand() *cobra.Command {
	x := &documentFlags{}
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Check documents without a datastore",
		Long: `Validate says all that is wrong with documents, with file, line and column, and asks no datastore: what depends
on other objects, such as whether a policy's tier exists, is found by apply --dry-run=server. It exits with 1 when something is wrong.`,
		Example: "  weft validate -f policies/ -R",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := x.need(cmd); err != nil {
				return err
			}
			docs, err := x.read(c)
			if c.calico {
				return c.calicoValidate(docs, err)
			}
			good, wrong, err := c.sound(docs, err, false)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(c.Stdout)
			for _, d := range good {
				_, _ = fmt.Fprintf(out, "%s valid\n", handle(d.Object)) // Flush tells
			}
			if err := out.Flush(); err != nil {
				return err
			}
			if wrong > 0 {
				return fmt.Errorf("validate: %s", countOf(wrong, "problem"))
			}
			return nil
		},
	}
	x.add(cmd, "check")
	return cmd
}

// calicoValidate is validate in calicoctl's voice.
func (c *client) calicoValidate(docs []manifest.Document, err error) error {
	if err != nil {
		return calicoReadError(err)
	}
	if len(docs) == 0 {
		_, err := fmt.Fprintln(c.Stdout, "No resources specified")
		return err
	}
	results := make([]edit.Result, len(docs))
	for i, d := range docs {
		results[i] = edit.Result{Object: d.Object}
		if err := edit.Check(d.Object); err != nil && !errors.Is(err, edit.ErrReadOnly) {
			results[i].Err = err
		}
	}
	return c.calicoReport(words{"validate", "validated"}, results)
}

func (c *client) diffCommand() *cobra.Command {
	x := &change{verb: edit.Apply, words: words{"diff", "compared"}, dryRun: dryServer}
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: `Diff prints, object by object, how the stored object differs from what apply would make of it, as a unified diff of
their YAML. It exits with 0 when nothing would change, with 1 when something would, and with 2 when it can't tell.`,
		Example: "  weft diff -f policies/ -R",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			differs, err := x.diff(cmd.Context(), c, cmd)
			switch {
			case err != nil:
				if !errors.As(err, new(*ExitError)) {
					_, _ = fmt.Fprintf(c.Stderr, "%s: %v\n", c.name(), err)
				}
				return &ExitError{2}
			case differs:
				return &ExitError{1}
			}
			return nil
		},
	}
	x.add(cmd, "compare")
	return cmd
}

// diff prints the differences.
func (x *change) diff(ctx context.Context, c *client, cmd *cobra.Command) (differs bool, err error) {
	if err := x.need(cmd); err != nil {
		return false, err
	}
	docs, err := x.read(c)
	docs, wrong, err := c.sound(docs, err, false)
	if err != nil {
		return false, err
	}
	if wrong > 0 {
		return false, fmt.Errorf("diff: %s", countOf(wrong, "problem"))
	}
	results, err := x.carryOut(ctx, c, docs)
	if err != nil {
		return false, err
	}
	out := bufio.NewWriter(c.Stdout)
	var bad []edit.Result
	for _, r := range results {
		text := r.Diff()
		differs = differs || len(text) > 0
		_, _ = out.Write(text) // Flush tells
		if r.Outcome == edit.Failed || r.Outcome == edit.NotTried {
			bad = append(bad, r)
		}
	}
	if err := out.Flush(); err != nil {
		return false, err
	}
	return differs, c.report(report{words: x.words}, bad)
}
