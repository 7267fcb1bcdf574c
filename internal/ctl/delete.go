package ctl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl/edit"
)

// deleteCommand removes objects that documents or arguments name.
func (c *client) deleteCommand() *cobra.Command {
	x := &change{verb: edit.Delete, words: words{"delete", "deleted"}}
	cmd := &cobra.Command{
		Use:   "delete (-f FILE | KIND NAME... | KIND/NAME...)",
		Short: "Delete objects, by a file or by name",
		Long: `Delete removes objects. Of a file only kinds, names and namespaces count. A pool is disabled first and its blocks are
given up; a tier that has policies stays; with a node go its addresses, endpoints, peers and settings.`,
		Example: "  # by name\n  weft delete networkpolicy allow-web -n prod\n  # what a file describes, as far as it is there\n  weft delete -f policies.yaml --skip-not-exists",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return x.deleteNamed(cmd.Context(), c, args)
			}
			return x.run(cmd, c)
		},
	}
	x.add(cmd, "delete")
	x.skipFlag(cmd)
	x.dryFlag(cmd)
	cmd.Flags().BoolVarP(&x.skipAbsent, "skip-not-exists", "s", false, "pass over what does not exist")
	return cmd
}

// deleteNamed deletes what arguments name.
func (x *change) deleteNamed(ctx context.Context, c *client, args []string) error {
	if err := x.checkDry(); err != nil {
		return err
	}
	if len(x.paths) > 0 {
		return &UsageError{fmt.Errorf("give -f or names, not both")}
	}
	going, err := c.named(args, x.namespace)
	if err != nil {
		return err
	}
	if x.dryRun == dryClient {
		for _, o := range going {
			if _, err := fmt.Fprintf(c.Stdout, "%s valid (dry run: client)\n", handle(o)); err != nil {
				return err
			}
		}
		return nil
	}
	e, done, err := c.editor(ctx)
	if err != nil {
		return err
	}
	defer done()
	e.DryRun, e.SkipNotExists, e.InOrder = x.dryRun == dryServer, x.skipAbsent, c.calico
	results := e.Run(ctx, edit.Delete, going)
	if c.calico {
		return c.calicoDeleted(results)
	}
	return c.report(x.report(nil), results)
}

// named makes empty objects of KIND NAME… or KIND/NAME….
func (c *client) named(args []string, namespace string) ([]v3.Object, error) {
	if strings.Contains(args[0], "/") {
		var out []v3.Object
		for _, arg := range args {
			kind, name, ok := strings.Cut(arg, "/")
			if !ok {
				return nil, &UsageError{fmt.Errorf("%q: must be KIND/NAME as the first one is", arg)}
			}
			o, err := c.empty(kind, name, namespace)
			if err != nil {
				return nil, err
			}
			out = append(out, o)
		}
		return out, nil
	}
	names := args[1:]
	if len(names) == 0 && c.calico {
		names = []string{""} // it looks for an object without a name
	}
	if len(names) == 0 {
		return nil, &UsageError{fmt.Errorf("%s: give the names of what to delete", args[0])}
	}
	var out []v3.Object
	for _, name := range names {
		o, err := c.empty(args[0], name, namespace)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// empty makes an object of a kind with nothing but its name.
func (c *client) empty(kind, name, namespace string) (v3.Object, error) {
	k, err := c.kindOf(kind)
	if err != nil {
		return nil, err
	}
	o, _ := v3.New(k.Name)
	o.Meta().Name = name
	switch {
	case k.Namespaced && namespace == "":
		o.Meta().Namespace = v3.DefaultNamespace
	case k.Namespaced:
		o.Meta().Namespace = namespace
	case namespace != "" && c.calico:
		return nil, fmt.Errorf("%s is not namespaced", k.Name)
	case namespace != "":
		return nil, &UsageError{fmt.Errorf("--namespace %s: %s is not namespaced", namespace, strings.ToLower(k.Name))}
	}
	if name == "" && !c.calico {
		return nil, &UsageError{errors.New(strings.ToLower(k.Name) + ": the name is empty")}
	}
	return o, nil
}
