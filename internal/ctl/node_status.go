package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/run"
)

// askTimeout bounds how long a command waits for the agent of this machine.
const askTimeout = 10 * time.Second

// established is the state of a BGP session that carries routes.
const established = "Established"

// statusSocket is where the agent of this machine answers.
func (c *client) statusSocket() string {
	return or(c.Getenv("WEFT_STATUS_SOCKET"), defaultStatusSocket)
}

// ask reads a page of the agent of this machine; who is what asks.
func (c *client) ask(ctx context.Context, who, page string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := run.Fetch(ctx, c.statusSocket(), page, out)
	if absent(err) {
		return fmt.Errorf("%s: no agent answers at %s: %w: is 'weft node run' running, and is WEFT_STATUS_SOCKET its socket?", who, c.statusSocket(), cause(err))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", who, err)
	}
	return nil
}

// absent reports whether err says that nobody listens on the socket, or may not be asked.
func absent(err error) bool {
	return errors.As(err, new(syscall.Errno)) || errors.As(err, new(*os.SyscallError))
}

func (c *client) nodeStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print how the node agent of this machine is",
		Long: `Print how the node agent of this machine is: its BGP sessions, its routes, and what it can't do.
The exit code is 1 when there is no agent or it is not ready.`,
		Example: "  weft node status\n  weft node status -o json\n  weft node status --peer 192.0.2.7   the routes of one peer",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	peer := cmd.Flags().String("peer", "", "address of a BGP peer: print the routes that it told and was told")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *peer != "" {
			return c.nodeRoutes(cmd.Context(), "node status", []string{*peer}, *output)
		}
		var s agent.Status
		err := c.ask(cmd.Context(), "node status", "status", &s)
		if c.calico && *output == "table" {
			return c.calicoStatus(s, err)
		}
		if err != nil {
			return err
		}
		if err := printAs(c.Stdout, *output, s, func(w io.Writer) error { return statusTable(w, s, time.Now()) }); err != nil {
			return err
		}
		if !s.Ready {
			return &ExitError{1}
		}
		return nil
	}
	return cmd
}

func (c *client) nodeRoutesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "routes",
		Short: "Print the routes that BGP peers told this machine's agent, and were told",
		Long: `Print the routes that BGP peers told the agent of this machine, and those that it told them:
of all peers, or of the one with --peer. A received route with a star is the one in use; what
import filters refuse is not kept, and not shown.`,
		Example: "  weft node routes\n  weft node routes --peer 192.0.2.7 -o json",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	peers := cmd.Flags().StringSlice("peer", nil, "address of a peer; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.nodeRoutes(cmd.Context(), "node routes", *peers, *output)
	}
	return cmd
}

// nodeRoutes prints the routes of peers, of all without any.
func (c *client) nodeRoutes(ctx context.Context, who string, peers []string, output string) error {
	for _, p := range peers {
		if _, err := netip.ParseAddr(p); err != nil {
			return &UsageError{fmt.Errorf("--peer %s: must be the IP address of a peer", p)}
		}
	}
	if len(peers) == 0 {
		var s agent.Status
		if err := c.ask(ctx, who, "status", &s); err != nil {
			return err
		}
		for _, p := range s.Peers {
			peers = append(peers, p.Addr)
		}
	}
	all := make([]agent.PeerRoutes, len(peers))
	for i, p := range peers {
		if err := c.ask(ctx, who, "routes?peer="+url.QueryEscape(p), &all[i]); err != nil {
			return err
		}
	}
	return printAs(c.Stdout, output, all, func(w io.Writer) error { return routesTable(w, all) })
}

func routesTable(out io.Writer, all []agent.PeerRoutes) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "PEER\tDIRECTION\tPREFIX\tNEXT HOP\tAS PATH\tCOMMUNITIES")
	for _, p := range all {
		for i, list := range [][]agent.PeerRoute{p.Received, p.Advertised} {
			for _, r := range list {
				direction := "in"
				switch {
				case i == 1:
					direction = "out"
				case r.Stale:
					direction = "in, stale"
				case r.Best:
					direction = "in *"
				}
				_, _ = fmt.Fprintf(w, "%s\t%s\t%v\t%v\t%s\t%s\n", p.Peer, direction, r.Prefix, r.NextHop,
					or(r.ASPath, "-"), or(strings.Join(r.Communities, " "), "-"))
			}
		}
	}
	return w.Flush()
}

func statusTable(out io.Writer, s agent.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "weft node agent %s of node %s, process %d, up %v\n", s.Version, s.Node, s.PID, now.Sub(s.Since).Round(time.Second))
	if s.Ready {
		_, _ = fmt.Fprintln(w, "ready")
	} else {
		_, _ = fmt.Fprintln(w, "not ready:", s.Why)
	}
	peerTable(w, s, now)
	k := s.Kernel
	_, _ = fmt.Fprintf(w, "\nroutes %d, in the kernel %d; workload links %d; neighbours %d\n", k.Routes, k.Applied, k.Links, k.Neighbors)
	f := s.Filter
	_, _ = fmt.Fprintf(w, "policy: sets %d with %d members; chains %d with %d rules\n", f.Sets, f.Members, f.Chains, f.Rules)
	if f.Err != "" {
		_, _ = fmt.Fprintln(w, "  not as wanted in the kernel:", f.Err)
	}
	tunnelTable(w, s)
	for _, n := range k.Pending {
		_, _ = fmt.Fprintf(w, "  not in the kernel: %s: %s\n", n.Object, n.Why)
	}
	for _, note := range s.Notes {
		_, _ = fmt.Fprintln(w, "note:", note)
	}
	return w.Flush()
}

// peerTable prints the BGP sessions: those over IPv4 first, each with what it carries.
func peerTable(w io.Writer, s agent.Status, now time.Time) {
	if !s.BGP {
		return
	}
	_, _ = fmt.Fprintln(w, "\nPEER ADDRESS\tPEER TYPE\tSTATE\tSINCE\tIPV4 IN\tOUT\tIPV6 IN\tOUT\tINFO")
	for _, v6 := range []bool{false, true} {
		for _, p := range s.Peers {
			if overIPv6(p) == v6 {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Addr, p.Type, p.State, since(p.Since, now), carries(p.IPv4), carries(p.IPv6), p.Info)
			}
		}
	}
}

// carries is how many routes of a family go in and out, as two cells.
func carries(e agent.Exchange) string {
	if !e.Negotiated && e.Received == 0 {
		return "-\t-"
	}
	return fmt.Sprintf("%d\t%d", e.Received, e.Advertised)
}

// overIPv6 reports whether the session runs over IPv6.
func overIPv6(p agent.Peer) bool { return strings.Contains(p.Addr, ":") }

// since is a time of the last day as the time of day, another one as its date.
func since(t, now time.Time) string {
	if now.Sub(t) < 20*time.Hour {
		return t.Local().Format(time.TimeOnly)
	}
	return t.Local().Format(time.DateOnly)
}

// tunnelTable prints the tunnels, where there are some, and the MTUs.
func tunnelTable(w io.Writer, s agent.Status) {
	if s.MTU.Underlay != 0 {
		_, _ = fmt.Fprintf(w, "MTU: of the underlay %d, of pods %d\n", s.MTU.Underlay, s.MTU.Pods)
	}
	if len(s.Tunnels) > 0 {
		_, _ = fmt.Fprintln(w, "\nTUNNEL\tKIND\tADDRESS\tMTU\tSTATE\tNODES\tPUBLIC KEY")
	}
	for _, t := range s.Tunnels {
		kind, addr, state, ends := t.Kind, "none", "not as wanted", strconv.Itoa(t.Ends)
		if t.UserSpace {
			kind += ", user space"
		}
		if t.Addr.IsValid() {
			addr = t.Addr.String()
		}
		if t.Up {
			state = "up"
		}
		if t.Kind == plan.IPIP.String() {
			ends = "any"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", t.Device, kind, addr, t.MTU, state, ends, t.Key)
	}
	if len(s.Tunnels) > 0 {
		_, _ = fmt.Fprintln(w)
	}
}
