package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/ctl/diags"
	"github.com/weft-net/weft/internal/startup"
)

// defaultLogDir is where calicoctl looks for logs.
const defaultLogDir = "/var/log/calico"

func (c *client) nodeDiagsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diags",
		Short: "Pack what is needed to find out what is wrong with this node",
		Long: `Pack what is needed to find out what is wrong with this node into one file, and print its name:
the agent's status, BGP routes, log and metrics; links, routes, rules, neighbours and the packet
filter as the kernel has them; settings, the CNI configuration, logs, and this node's objects in
the datastore. Passwords, keys and tokens are taken out. It works without an agent and without a
datastore: what could not be had is said on stderr, and in errors.txt of the bundle.`,
		Example: "  sudo weft node diags\n  sudo weft node diags --log-dir /var/log/weft --file /tmp/diags.tar.gz",
		Args:    cobra.NoArgs,
	}
	logs := cmd.Flags().String("log-dir", defaultLogDir, "directory of log files")
	file := cmd.Flags().String("file", "", "file to write, which must not exist; else one in the current directory")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		node, err := startup.NodeName(c.Getenv, os.Hostname)
		if err != nil {
			node = "node"
		}
		return c.pack(cmd.Context(), *file, node, func(ctx context.Context, b *diags.Bundle) error {
			return c.packNode(ctx, b, node, *logs, cmd.Flags().Changed("log-dir"))
		})
	}
	return cmd
}

// pack makes a bundle of a subject that fill fills, and prints the name of its file.
func (c *client) pack(ctx context.Context, path, subject string, fill func(context.Context, *diags.Bundle) error) error {
	now := time.Now().UTC()
	name := "weft-diags-" + subject + "-" + now.Format("20060102T150405Z")
	if path == "" {
		path = name + ".tar.gz"
	}
	b, err := diags.Create(path, name, diags.NewScrubber(c.secrets()...), now, func(part string, err error) {
		if err != nil {
			_, _ = fmt.Fprintf(c.Stderr, "not in the bundle: %s: %v\n", part, err)
		}
	})
	if err != nil {
		return err
	}
	b.Text("about.json", func(w io.Writer) error {
		return json.NewEncoder(w).Encode(map[string]string{
			"subject": subject, "time": now.Format(time.RFC3339), "version": c.Version, "program": c.name(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
		})
	})
	err = fill(ctx, b)
	if cerr := b.Close(); cerr != nil {
		return cerr
	}
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("diags: interrupted; what there is so far is in %s: %w", path, context.Cause(ctx))
	}
	_, err = fmt.Fprintln(c.Stdout, path)
	return err
}

// packNode fills a bundle with what there is of this machine. A directory of logs that was
// asked for must exist; the usual one need not.
func (c *client) packNode(ctx context.Context, b *diags.Bundle, node, logDir string, asked bool) error {
	b.Text("environment.txt", c.environment)
	if s := b.Agent(ctx, c.statusSocket()); s.Node != "" {
		node = s.Node
	}
	b.Network()
	b.Files("cni", c.cniDir(), func(file string) bool {
		return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(file))
	})
	if _, err := os.Stat(logDir); err == nil || asked {
		b.Files("logs", logDir, func(string) bool { return true })
	}
	st, err := c.open(ctx)
	if err != nil {
		b.Fault("datastore", err)
		return nil // what there is is in the bundle
	}
	defer func() { _ = st.Close() }()
	b.Objects(ctx, st, node)
	return nil
}

// cniDir is where the node's CNI configuration is, also from within the agent's container.
func (c *client) cniDir() string {
	if dir := c.Getenv("WEFT_CNI_CONF_DIR"); dir != "" {
		return dir
	}
	dir := or(c.Getenv("CNI_NET_DIR"), "/etc/cni/net.d")
	if _, err := os.Stat("/host" + dir); err == nil {
		return "/host" + dir
	}
	return dir
}

// environment writes the variables that weft and Calico know.
func (c *client) environment(w io.Writer) error {
	ours := []string{"CALICO_", "WEFT_", "FELIX_", "ETCD_", "K8S_", "KUBECONFIG", "KUBERNETES_", "DATASTORE_TYPE", "IP", "AS", "NODENAME", "CLUSTER_TYPE", "CNI_", "USE_POD_CIDR", "WAIT_FOR_DATASTORE", "POD_", "NO_DEFAULT_POOLS"}
	for _, v := range slices.Sorted(slices.Values(c.Environ)) {
		name, _, _ := strings.Cut(v, "=")
		if slices.ContainsFunc(ours, func(p string) bool {
			return name == p || strings.HasPrefix(name, p) && (strings.HasSuffix(p, "_") || strings.HasPrefix(name, p+"_"))
		}) || name == "IP6" || strings.HasPrefix(name, "IP6_") {
			if _, err := fmt.Fprintln(w, shown(v)); err != nil {
				return err
			}
		}
	}
	return nil
}

// secrets are the values of settings that nobody else may see, and what is in files of such.
func (c *client) secrets() []string {
	var out, files []string
	for _, name := range []string{"ETCD_PASSWORD", "ETCD_KEY", "K8S_API_TOKEN"} {
		out = append(out, c.setting(name), c.Getenv(name), c.Getenv("CALICO_"+name))
	}
	for _, v := range c.Environ {
		name, value, _ := strings.Cut(v, "=")
		if shown(v) != v || strings.Contains(name, "SECRET") && !strings.HasSuffix(name, "_DIR") {
			out = append(out, value)
		}
	}
	for _, name := range []string{"ETCD_KEY_FILE", "K8S_KEY_FILE"} {
		files = append(files, c.setting(name), c.Getenv(name))
	}
	files = append(files, "/var/run/secrets/kubernetes.io/serviceaccount/token")
	return append(out, diags.Secrets(files, []string{c.Getenv("WEFT_SECRETS_DIR")})...)
}
