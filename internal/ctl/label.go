package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/edit"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// label is the command of that name.
type label struct {
	change
	overwrite, remove bool
}

func (c *client) labelCommand() *cobra.Command {
	x := &label{change: change{words: words{"label", "labelled"}}}
	cmd := &cobra.Command{
		Use:   "label (KIND NAME | KIND/NAME) (KEY=VALUE | KEY-)...",
		Short: "Set or remove labels of an object",
		Long: `Label sets labels, and removes those that end in a dash, or all that are given with --remove. It changes all or,
when one of them is not as it must be before, none: a label that has another value is only changed with --overwrite.`,
		Example: "  # two labels at once\n  weft label node node-a rack=b zone=z1\n  # one away\n  weft label node node-a zone-",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return x.run(cmd.Context(), c, args)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&x.overwrite, "overwrite", false, "change labels that have another value")
	f.BoolVar(&x.remove, "remove", false, "remove the labels that are given")
	f.StringVarP(&x.namespace, "namespace", "n", "", "namespace of the object")
	x.dryFlag(cmd)
	return cmd
}

func (x *label) run(ctx context.Context, c *client, args []string) error {
	object := args[:1]
	if !strings.Contains(args[0], "/") {
		object = args[:2]
	}
	given := args[len(object):]
	if len(given) == 0 {
		return &UsageError{errors.New("give labels as KEY=VALUE")}
	}
	o, err := c.one(object, x.namespace)
	if err != nil {
		return err
	}
	if err := x.checkDry(); err != nil {
		return err
	}
	change, err := x.labels(c, given)
	if err != nil {
		return err
	}
	e, done, err := c.editor(ctx)
	if err != nil {
		return err
	}
	defer done()
	e.DryRun = x.dryRun != ""
	k, err := model.KeyOf(o)
	if err != nil {
		return &UsageError{err}
	}
	r := e.Label(ctx, k, change)
	if c.calico {
		return x.calicoLabelled(c, r, change, args[0]+" "+o.Meta().Name)
	}
	out := x.report(nil)
	out.dry = e.DryRun
	return c.report(out, []edit.Result{withName(r, o)})
}

// labels reads KEY=VALUE and KEY-, or with --remove KEY.
func (x *label) labels(c *client, given []string) (edit.Labels, error) {
	l := edit.Labels{Set: map[string]string{}, Overwrite: x.overwrite}
	for _, text := range given {
		key, value, set := strings.Cut(text, "=")
		bare, away := strings.CutSuffix(text, "-")
		switch {
		case x.remove && !set:
			l.Remove = append(l.Remove, text)
		case x.remove:
			return l, &UsageError{fmt.Errorf("%q: with --remove give the key alone", text)}
		case set && key != "":
			l.Set[key] = value
		case away && bare != "" && !c.calico:
			l.Remove = append(l.Remove, bare)
		case c.calico:
			return l, fmt.Errorf("invalid label %s", text)
		default:
			return l, &UsageError{fmt.Errorf("%q: must be KEY=VALUE, or KEY- to remove it", text)}
		}
	}
	return l, nil
}

// calicoLabelled says what became of labels in calicoctl's words. object is as the user named
// it.
func (x *label) calicoLabelled(c *client, r edit.Result, l edit.Labels, object string) error {
	var wrong *edit.LabelError
	switch {
	case errors.As(r.Err, &wrong) && wrong.Exists:
		return fmt.Errorf("failed to update label of %s, key %s is already present. please use '--overwrite' to set a new value", object, wrong.Label)
	case errors.As(r.Err, &wrong):
		return fmt.Errorf("cannot remove label of %s, key %s does not exist", object, wrong.Label)
	case errors.Is(r.Err, store.ErrNotFound):
		return fmt.Errorf("%s not found", object)
	case r.Err != nil && len(v3.FieldErrors(r.Err)) > 0:
		return fmt.Errorf("failed to update %s, label not changed", object)
	case r.Err != nil:
		return errors.New(calicoError(r.Err, "label"))
	}
	for key := range l.Set {
		how := "set"
		if _, was := r.Before.Meta().Labels[key]; was {
			how = "updated"
		}
		if _, err := fmt.Fprintf(c.Stdout, "Successfully %s label %s on %s\n", how, key, object); err != nil {
			return err
		}
	}
	for _, key := range l.Remove {
		if _, err := fmt.Fprintf(c.Stdout, "Successfully removed label %s from %s\n", key, object); err != nil {
			return err
		}
	}
	return nil
}
