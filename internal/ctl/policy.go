package ctl

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/run"
)

func policyCommand(p Process) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Policy on this machine"}
	cmd.AddCommand(policyStatsCommand(p))
	return cmd
}

func policyStatsCommand(p Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Print what each rule of policy has met on this machine",
		Long: `Print how many packets and bytes each rule that is in force here has met: the first
packets of connections, since those that follow are not judged again. Rules stand in the
order in which packets meet them. The rule "end" is what is done when no rule of a tier
matched; without a policy, when no profile allowed it either. Counters begin when a rule comes into the
kernel, and end with it; other rules of its policy may change meanwhile.`,
		Example: "  weft policy stats\n  weft policy stats --unused       rules that nothing has met here\n  weft policy stats -o json",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	unused := cmd.Flags().Bool("unused", false, "only rules that nothing has met")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		socket := or(p.Getenv("WEFT_STATUS_SOCKET"), defaultStatusSocket)
		ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
		defer cancel()
		stats := []agent.RuleStat{}
		if err := run.Fetch(ctx, socket, "policy", &stats); err != nil {
			return fmt.Errorf("policy stats: no answer at %s: %w: is 'weft node run' running, and is WEFT_STATUS_SOCKET its socket?", socket, cause(err))
		}
		if *unused {
			stats = slices.DeleteFunc(stats, func(s agent.RuleStat) bool { return s.Packets > 0 })
		}
		return printAs(p.Stdout, *output, stats, func(w io.Writer) error { return statsTable(w, stats) })
	}
	return cmd
}

func statsTable(out io.Writer, stats []agent.RuleStat) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "TIER\tPOLICY\tDIRECTION\tRULE\tACTION\tPACKETS\tBYTES")
	for _, s := range stats {
		tier, object, rule := or(s.Tier, "-"), or(s.Object, "-"), fmt.Sprint(s.Rule)
		if s.Rule < 0 {
			rule = "end"
		}
		action := s.Action
		if s.Staged {
			action = "would " + action
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\n", tier, object, s.Direction, rule, action, s.Packets, s.Bytes)
	}
	return w.Flush()
}
