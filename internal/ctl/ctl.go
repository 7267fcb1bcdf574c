// Package ctl is weft's command line: it turns arguments and environment into
// calls of the roles and prints what they answer.
//
//	weft node run         the node agent
//	weft node status      how the agent of this machine is
//	weft node health      the same as a probe: yes or no
//	weft node addresses   which address the agent would take, and why
//	weft policy stats     what each rule has met here
//	weft explain A B      may a packet pass, and which policy decides
//	weft store            an embedded datastore
//	weft controllers      the Kubernetes controllers
//	weft lab …            a cluster on this machine
//
// The answer goes to stdout, everything else to stderr. A command fails with
// exit code 1, a wrong call with 2. Wherever a table is printed, -o json and
// -o yaml print the same as data.
//
// Nothing is decided here, and nothing below this package knows of arguments
// or of the process environment: they are passed in as a [Process].
package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Process is what a command may know of the process it runs in.
type Process struct {
	Program        string   // the name it was started by, without directory: weft, calicoctl, kubectl-weft
	Args           []string // without the program's name
	Environ        []string // NAME=value
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Version        string
}

// Getenv gives the value of a variable, empty when it is not set.
func (p Process) Getenv(name string) string {
	for i := len(p.Environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(p.Environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// UsageError is a wrong call: the arguments, not the work, are at fault.
type UsageError struct{ Err error }

// Error implements error.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// ExitError ends the process with a code of its own, without a message.
type ExitError struct{ Code int }

// Error implements error.
func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// ExitCode is what the process should exit with after err.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(*UsageError)):
		return 2
	}
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		return exit.Code
	}
	return 1
}

// Execute runs the command that p.Args name. Started as calicoctl it speaks as Calico's
// tool does, for the scripts that read it: see [client].
func Execute(ctx context.Context, p Process) error {
	c := newClient(p)
	err := c.root().ExecuteContext(ctx)
	if c.calico {
		return c.complain(err)
	}
	return err
}

// Tree is the command line itself, for what describes it; see docs/reference.
func Tree(p Process) *cobra.Command { return newClient(p).root() }

func newClient(p Process) *client { return &client{Process: p, calico: p.Program == calicoctl} }

// root makes the command line.
func (c *client) root() *cobra.Command {
	p := c.Process
	root := &cobra.Command{
		Use:           c.name(),
		Short:         "A pure layer-3 network for containers, and its policy",
		Long:          "weft gives Kubernetes clusters, Docker hosts and bare-metal machines a pure layer-3 network.",
		Example:       "  weft lab up          a cluster of three nodes on this machine\n  weft node status     how the node agent here is",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetArgs(p.Args)
	root.SetIn(p.Stdin)
	root.SetOut(p.Stdout)
	root.SetErr(p.Stderr)
	if c.name() == kubectlPlugin {
		root.Use = "kubectl-weft"
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl weft"}
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return c.wrong(cmd, err)
	})
	c.flags(root)
	root.AddCommand(c.commands()...)
	c.completion(root)
	c.group(root)
	return root
}

// group makes commands that only hold others refuse what they don't know; and
// all commands report wrong arguments as usage errors.
func (c *client) group(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		c.group(sub)
	}
	if args := cmd.Args; args != nil {
		cmd.Args = func(cmd *cobra.Command, given []string) error {
			if err := args(cmd, given); err != nil {
				return c.wrong(cmd, err)
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return cmd.Help()
			}
			if c.calico {
				return fmt.Errorf("unknown command %q for %q", given[0], cmd.CommandPath())
			}
			return c.wrong(cmd, fmt.Errorf("unknown command %q", cmd.CommandPath()+" "+given[0]))
		}
	}
}

// wrong is the error of a wrong call of cmd: err and, but for calicoctl, where help is.
func (c *client) wrong(cmd *cobra.Command, err error) error {
	if c.calico {
		return &UsageError{err}
	}
	return &UsageError{fmt.Errorf("%w: see '%s --help'", err, cmd.CommandPath())}
}

// outputFlag adds -o to a command and returns where its value will be.
func outputFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("output", "o", "table", "how to print: table, json or yaml")
}

// printAs prints v as JSON or YAML or, for "table", with table.
func printAs(w io.Writer, output string, v any, table func(io.Writer) error) error {
	switch output {
	case "table":
		return table(w)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		text, err := yaml.Marshal(v)
		if err == nil {
			_, err = w.Write(text)
		}
		return err
	}
	return &UsageError{fmt.Errorf("-o %s: must be table, json or yaml", output)}
}
