package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/datastore"
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
	f.StringVarP(&c.configFile, "config", "c", defaultConfigFile, "file with the settings of the datastore, as calicoctl has it")
	f.StringVar(&c.kubeContext, "context", "", "context of the kubeconfig to use")
	f.BoolVar(&c.allowVersionMismatch, "allow-version-mismatch", false, "work on a cluster of another version")
	f.StringVarP(&c.logLevel, "log-level", "l", "panic", "least level of what is logged: panic, fatal, error, warn, info or debug")
}

// commands are all that there are.
func (c *client) commands() []*cobra.Command {
	p := c.Process
	return []*cobra.Command{
		nodeCommand(p), policyCommand(p), explainCommand(p), storeCommand(p), controllersCommand(p), labCommand(p), versionCommand(p),
	}
}

// defaultConfigFile is where calicoctl's settings are; it need not exist.
const defaultConfigFile = "/etc/calico/calicoctl.cfg"

// setting is the value of a setting of the datastore, by the name of its variable; empty when
// it is not set.
func (c *client) setting(name string) string { return c.Getenv(name) }

// open connects to the datastore that the settings name.
func (c *client) open(ctx context.Context) (store.Store, error) {
	return datastore.Open(ctx, c.setting)
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
