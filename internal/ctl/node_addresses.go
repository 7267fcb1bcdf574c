package ctl

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/startup"
)

func nodeAddressesCommand(p Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "addresses",
		Short:   "Print which address the agent would take for this node, and why",
		Long:    "Print this machine's addresses as detection ranks them: the first is the node's, and for each\nother one the reason why not. The methods are those of the environment unless flags say otherwise.",
		Example: "  weft node addresses\n  weft node addresses --method can-reach=192.0.2.1\n  weft node addresses --ipv6 --method cidr=fd00::/8",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	method := cmd.Flags().String("method", "", "detection method; default: IP_AUTODETECTION_METHOD or IP6_AUTODETECTION_METHOD")
	v6 := cmd.Flags().Bool("ipv6", false, "rank IPv6 addresses")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := startup.SettingsFrom("this-node", p.Getenv)
		if err != nil {
			return err
		}
		want := s.IPv4
		if *v6 {
			want = s.IPv6
		}
		if *method != "" {
			if want.Method, err = startup.ParseMethod(*method); err != nil {
				return &UsageError{fmt.Errorf("--method %s: %w", *method, err)}
			}
		}
		links, err := startup.Links()
		if err != nil {
			return fmt.Errorf("node addresses: %w", err)
		}
		ranked, err := startup.Candidates(cmd.Context(), want, s.InternalAddrs, startup.ThisHost(), links)
		if err != nil {
			return err
		}
		return printAs(p.Stdout, *output, ranked, func(w io.Writer) error { return addressTable(w, want.Method.String(), ranked) })
	}
	return cmd
}

func addressTable(out io.Writer, method string, ranked []startup.Candidate) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "RANK\tADDRESS\tINTERFACE\tBY %s\n", method)
	for i, c := range ranked {
		verdict := c.Reason
		switch {
		case i == 0 && c.Usable():
			verdict = "taken"
		case c.Usable():
			verdict = "would do"
		}
		_, _ = fmt.Fprintf(w, "%d\t%v\t%s\t%s\n", i+1, c.Addr, c.Link, verdict)
	}
	return w.Flush()
}
