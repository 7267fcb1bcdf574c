package ctl

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/ctl/diags"
	"github.com/weft-net/weft/internal/ctl/settings"
	"github.com/weft-net/weft/internal/kube"
)

func (c *client) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cluster", Short: "The cluster"}
	cmd.AddCommand(c.clusterDiagsCommand())
	return cmd
}

func (c *client) clusterDiagsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diags",
		Short: "Pack what is needed to find out what is wrong with the cluster",
		Long: `Pack what is needed to find out what is wrong with the cluster into one file, and print its
name: all objects of the datastore and, where that is in Kubernetes, the nodes, and of weft's and
Calico's pods their state, events and logs. Passwords, keys and tokens are taken out; Secrets and
ConfigMaps are not read. What could not be had is said on stderr, and in errors.txt of the bundle.
What only a node knows, 'weft node diags' packs there.`,
		Example: "  weft cluster diags\n  weft cluster diags --since 2h --max-logs 10 --focus-nodes node-a,node-b",
		Args:    cobra.NoArgs,
	}
	var o diags.ClusterOptions
	f := cmd.Flags()
	f.DurationVar(&o.Since, "since", 0, "logs of this time only, such as 90m; 0s: all there are")
	f.IntVar(&o.MaxLogs, "max-logs", 5, "logs of at most so many pods of each component")
	f.IntVar(&o.Parallel, "max-parallelism", 10, "logs to read at the same time")
	f.StringSliceVar(&o.Focus, "focus-nodes", nil, "nodes whose logs are taken first")
	f.Bool("skip-temp-dir-cleanup", false, "without meaning: there is no temporary directory")
	file := f.String("file", "", "file to write, which must not exist; else one in the current directory")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case o.Since < 0:
			return &UsageError{fmt.Errorf("--since %v: must not be negative", o.Since)}
		case o.MaxLogs < 0:
			return &UsageError{fmt.Errorf("--max-logs %d: must not be negative", o.MaxLogs)}
		case o.Parallel < 1:
			return &UsageError{fmt.Errorf("--max-parallelism %d: must be at least 1", o.Parallel)}
		}
		kind, err := c.datastoreType()
		if err != nil {
			return err
		}
		return c.pack(cmd.Context(), *file, "cluster", func(ctx context.Context, b *diags.Bundle) error {
			return c.packCluster(ctx, b, kind, o)
		})
	}
	return cmd
}

// packCluster fills a bundle with what there is of the cluster.
func (c *client) packCluster(ctx context.Context, b *diags.Bundle, kind string, o diags.ClusterOptions) error {
	begun := time.Now()
	say := func(what string) {
		_, _ = fmt.Fprintf(c.Stderr, "%4.1fs %s\n", time.Since(begun).Seconds(), what)
	}
	say("reading the datastore")
	st, err := c.open(ctx)
	if err != nil {
		b.Fault("datastore", err)
	} else {
		b.Objects(ctx, st, "")
		_ = st.Close() // it was read only
	}
	if kind != settings.Kubernetes {
		return nil
	}
	say("reading Kubernetes, and logs")
	config, err := kube.ConfigFromEnv(c.setting)
	if err != nil {
		b.Fault("kubernetes", err)
		return nil
	}
	config.Version = c.Version
	server, err := kube.Connect(config)
	if err != nil {
		b.Fault("kubernetes", err)
		return nil
	}
	b.Kubernetes(ctx, server.Clientset, o)
	return nil
}
