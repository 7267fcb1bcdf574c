package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/edit"
	"github.com/weft-net/weft/internal/model"
	"sigs.k8s.io/yaml"
)

// patch is the command of that name.
type patch struct {
	change
	text, file, kind string
}

func (c *client) patchCommand() *cobra.Command {
	x := &patch{change: change{words: words{"patch", "patched"}}}
	cmd := &cobra.Command{
		Use:   "patch (KIND NAME | KIND/NAME) -p PATCH",
		Short: "Change some fields of an object",
		Long: `Patch changes those fields of an object that the patch names, and leaves the others. The patch is JSON or YAML:
strategic and merge patches look like the object (null removes a field, a list replaces the list; strategic ones may
hold directives such as $patch: replace), a json patch is a list of operations. The result must be valid.`,
		Example: "  # disable a pool\n  weft patch ippool pool-a -p '{\"spec\":{\"disabled\":true}}'\n  # the same by an operation\n  weft patch ippool pool-a -t json -p '[{\"op\":\"add\",\"path\":\"/spec/disabled\",\"value\":true}]'",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return x.run(cmd.Context(), c, args)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&x.text, "patch", "p", "", "the patch")
	f.StringVar(&x.file, "patch-file", "", "file with the patch")
	f.StringVarP(&x.kind, "type", "t", "strategic", "type of the patch: strategic, merge or json")
	f.StringVarP(&x.namespace, "namespace", "n", "", "namespace of the object")
	x.dryFlag(cmd)
	return cmd
}

func (x *patch) run(ctx context.Context, c *client, args []string) error {
	o, err := c.one(args, x.namespace)
	if err != nil {
		return err
	}
	kind, err := edit.ParsePatchType(x.kind)
	if err != nil {
		return &UsageError{fmt.Errorf("--type %w", err)}
	}
	if err := x.checkDry(); err != nil {
		return err
	}
	text, err := x.read(c)
	if err != nil {
		return err
	}
	if x.dryRun == dryClient {
		_, err := fmt.Fprintf(c.Stdout, "%s valid (dry run: client)\n", handle(o))
		return err
	}
	e, done, err := c.editor(ctx)
	if err != nil {
		return err
	}
	defer done()
	e.DryRun = x.dryRun == dryServer
	k, err := model.KeyOf(o)
	if err != nil {
		return &UsageError{err}
	}
	r := e.Patch(ctx, k, kind, text)
	if !c.calico {
		return c.report(x.report(nil), []edit.Result{withName(r, o)})
	}
	if r.Err == nil {
		_, err := fmt.Fprintf(c.Stdout, "Successfully patched 1 '%s' resource\n", v3.KindOf(o).Name)
		return err
	}
	return calicoPatchError(r.Err, kind)
}

// read is the patch, as JSON.
func (x *patch) read(c *client) ([]byte, error) {
	text := []byte(x.text)
	switch {
	case x.file != "" && x.text != "":
		return nil, &UsageError{errors.New("give --patch or --patch-file, not both")}
	case x.file != "":
		var err error
		if text, err = os.ReadFile(x.file); err != nil {
			return nil, err
		}
	case c.calico:
		return text, nil
	case x.text == "":
		return nil, &UsageError{errors.New("--patch is missing")}
	}
	out, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("patch: not valid JSON or YAML: %w", err)
	}
	return out, nil
}

// calicoPatchError is why a patch failed, in calicoctl's words.
func calicoPatchError(err error, kind edit.PatchType) error {
	fields := v3.FieldErrors(err)
	switch {
	case errors.Is(err, edit.ErrPatch):
		text := err.Error()
		if _, cause, ok := strings.Cut(text, edit.ErrPatch.Error()+": "); ok {
			text = cause
		}
		how := string(kind) + " merge patch"
		if kind != edit.StrategicPatch {
			how = string(kind) + " patch"
		}
		return fmt.Errorf("hit error: performing %s: %s", how, text)
	case len(fields) > 0 && strings.HasPrefix(fields[0].Reason, "unknown field"):
		return calicoReadError(err)
	case len(fields) > 0:
		return fmt.Errorf("hit error: updating existing resource: %s", calicoError(err, "patch"))
	}
	return fmt.Errorf("hit error: %s", calicoError(err, "patch"))
}

// one is the object that KIND NAME or KIND/NAME names, without anything else.
func (c *client) one(args []string, namespace string) (v3.Object, error) {
	kind, name, ok := strings.Cut(args[0], "/")
	switch {
	case ok && len(args) > 1:
		return nil, &UsageError{fmt.Errorf("%q and %q: give KIND NAME or KIND/NAME", args[0], args[1])}
	case len(args) > 1:
		kind, name = args[0], args[1]
	case !ok:
		return nil, &UsageError{fmt.Errorf("%s: give the name of the object", args[0])}
	}
	return c.empty(kind, name, namespace)
}

// withName gives a result without an object one with the name alone.
func withName(r edit.Result, o v3.Object) edit.Result {
	if r.Object == nil || r.Object.Meta().Name == "" {
		r.Object = o
	}
	return r
}
