package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/run"
)

func nodeHealthCommand(p Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Say whether the node agent of this machine is well, as a probe",
		Long: "Ask the node agent of this machine, over its socket, whether it is ready (the default) or alive.\n" +
			"What it says is printed; the exit code is 0 for yes and 1 for no.",
		Example: "  weft node health\n  weft node health --live",
		Args:    cobra.NoArgs,
	}
	live := cmd.Flags().Bool("live", false, "whether it makes progress, or should be restarted")
	ready := cmd.Flags().Bool("ready", false, "whether it does its work")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		pages := []string{"readiness"}
		switch {
		case *live && *ready:
			pages = []string{"liveness", "readiness"}
		case *live:
			pages = []string{"liveness"}
		}
		socket := or(p.Getenv("WEFT_STATUS_SOCKET"), defaultStatusSocket)
		ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
		defer cancel()
		for _, page := range pages {
			why, ok, err := run.Probe(ctx, socket, page)
			if err != nil {
				return fmt.Errorf("node health: no agent answers at %s: %w", socket, cause(err))
			}
			if _, err := fmt.Fprintf(p.Stdout, "%s: %s\n", page, why); err != nil {
				return err
			}
			if !ok {
				return &ExitError{1}
			}
		}
		return nil
	}
	return cmd
}
