package ctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/ctl/check"
)

func (c *client) nodeCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "checksystem",
		Short: "Find out whether this machine's kernel can do what a node needs",
		Long: `Find out whether this machine's kernel can do what a node needs, by trying it in a network
namespace that is thrown away: links, routes, the packet filter, tunnels, encryption. What fails
is printed with the reason, what it is for, and what to do. That takes root; without, the lists of
modules and the kernel's configuration are all there is to go by.
The exit code is 1 when something fails that every node needs.`,
		Example: "  sudo weft node checksystem\n  weft node checksystem -o json\n  weft node checksystem -f /boot/config-6.12.1",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	config := cmd.Flags().StringP("kernel-config", "f", "", "file with the kernel's configuration; else that of the running kernel, if there is one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		r, err := check.Run(cmd.Context(), check.Options{KernelConfig: *config})
		if errors.Is(err, fs.ErrNotExist) {
			return &UsageError{fmt.Errorf("node checksystem: --kernel-config: %w", err)}
		} else if err != nil {
			return fmt.Errorf("node checksystem: %w", err)
		}
		table := checkTable
		if c.calico {
			table = calicoCheck
		}
		if err := printAs(c.Stdout, *output, r, func(w io.Writer) error { return table(w, r) }); err != nil {
			return err
		}
		if !r.Fit() {
			return &ExitError{1}
		}
		return nil
	}
	return cmd
}

// checkTable prints what was found, and at the end what to do.
func checkTable(out io.Writer, r check.Report) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "ABILITY\tNEED\tSTATE\tFOR\tWHY")
	for _, i := range r.Items {
		need := "optional"
		if i.Required {
			need = "required"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", i.Name, need, i.State, i.For, or(i.Why, "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	todo := map[string]bool{"": true}
	for _, i := range r.Items {
		if i.State != check.OK && !todo[i.Do] {
			todo[i.Do] = true
			_, _ = fmt.Fprintf(out, "%s: %s\n", i.Name, i.Do)
		}
	}
	verdict := "this machine can be a node"
	if !r.Fit() {
		verdict = "this machine can't be a node: see what is required and fails"
	}
	_, err := fmt.Fprintln(out, verdict)
	return err
}

// calicoCheck prints it as calicoctl does: the kernel's version, and its modules.
func calicoCheck(out io.Writer, r check.Report) error {
	_, _ = fmt.Fprintln(out, "Kernel version")
	done := map[string]bool{}
	for n, i := range r.Items {
		name := i.Module
		if n == 0 {
			name = r.Kernel
		}
		if name == "" || done[name] {
			continue
		}
		done[name] = true
		_, _ = fmt.Fprintf(out, "\t%-24s%s\n", name, moduleState(r, n))
		if n == 0 {
			_, _ = fmt.Fprintln(out, "Kernel modules")
		}
	}
	for _, i := range r.Items {
		if i.State == check.FAIL {
			_, _ = fmt.Fprintf(out, "%s: %s: %s\n", i.Name, i.Why, i.Do)
		}
	}
	return nil
}

// moduleState is the state of the item n, and of all that need the same module: the worst.
func moduleState(r check.Report, n int) check.State {
	state := r.Items[n].State
	for _, i := range r.Items {
		if i.Module == "" || i.Module != r.Items[n].Module {
			continue
		}
		if i.State == check.FAIL || state == check.OK {
			state = i.State
		}
	}
	return state
}
