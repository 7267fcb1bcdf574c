package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/ctl/settings"
)

// Names that this program may be started by, beside its own.
const (
	calicoctl     = "calicoctl"
	kubectlPlugin = "kubectl-weft"
)

// client is what the commands share that read and write the datastore.
//
// They have two voices. As weft, a wrong call exits with 2, everything that is wrong is said at
// once, and what happened to each object. As calicoctl the texts and exit codes are those of
// Calico's tool, for scripts; test/fixtures/ctl holds them. What is done is the same.
type client struct {
	Process
	calico bool // the second voice

	configFile           string // calicoctl.cfg, or what the flag says
	kubeContext          string // of the kubeconfig; empty: its current one
	allowVersionMismatch bool   // taken for compatibility: versions may differ anyway
	logLevel             string

	read *settings.Settings // nil until they are needed
}

// name is what the program calls itself.
func (c *client) name() string {
	switch c.Program {
	case calicoctl, kubectlPlugin:
		return c.Program
	}
	return "weft"
}

// flags adds those that all commands take.
func (c *client) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVarP(&c.configFile, "config", "c", settings.DefaultFile, "file with the settings of the datastore")
	f.StringVar(&c.kubeContext, "context", "", "context of the kubeconfig to use")
	f.BoolVar(&c.allowVersionMismatch, "allow-version-mismatch", false, "work on a cluster of another version")
	f.StringVarP(&c.logLevel, "log-level", "l", "panic", "least level of what is logged: panic, fatal, error, warn, info or debug")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		_, err := c.level()
		return err
	}
}

// commands are all that there are.
func (c *client) commands() []*cobra.Command {
	p := c.Process
	return []*cobra.Command{
		c.nodeCommand(), c.clusterCommand(), policyCommand(p), explainCommand(c), storeCommand(p), controllersCommand(p), labCommand(p), c.versionCommand(),
		c.getCommand(), c.ipamCommand(), c.datastoreCommand(),
		c.createCommand(), c.applyCommand(), c.replaceCommand(), c.deleteCommand(), c.patchCommand(), c.labelCommand(), c.validateCommand(), c.diffCommand(),
	}
}

// complain prints err as calicoctl would, and returns the exit code that goes with it.
func (c *client) complain(err error) error {
	if err == nil || errors.As(err, new(*ExitError)) {
		return err
	}
	if usage := (*UsageError)(nil); errors.As(err, &usage) {
		err = usage.Err
	}
	_, _ = fmt.Fprintln(c.Stderr, err)
	return &ExitError{1}
}
