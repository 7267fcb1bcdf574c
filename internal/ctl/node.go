package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/cni/install"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/kernel/sysctl"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/peering"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/startup"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/datastore"
	"github.com/weft-net/weft/internal/store/etcd"
	kubestore "github.com/weft-net/weft/internal/store/kube"
)

// Where things are unless the environment says otherwise.
const (
	defaultStatusSocket = "/run/weft/status.sock"
	defaultNodeNameFile = "/var/lib/calico/nodename"
	defaultFelixFile    = "/etc/calico/felix.cfg"
)

// recentLines is how much of its log an agent keeps for 'weft node diags'.
const recentLines = 2000

func nodeCommand(p Process) *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "The node agent of this machine"}
	cmd.AddCommand(nodeRunCommand(p), nodeStatusCommand(p), nodeHealthCommand(p), nodeAddressesCommand(p))
	return cmd
}

func nodeRunCommand(p Process) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the node agent",
		Long: `Run the node agent: find this node's address, write its Node record, and keep
its routes, BGP sessions and workload links right until it is told to end.

It is set by the environment, with the variables that calico/node has:
  NODENAME                   name of the node; else the host's name
  IP, IP6                    autodetect, an address, none, or empty: keep the stored one
  IP_AUTODETECTION_METHOD    first-found, can-reach=…, interface=…, skip-interface=…, cidr=…,
                             kubernetes-internal-ip
  AS                         AS number of this node
  DATASTORE_TYPE, ETCD_*     the datastore: etcdv3 or kubernetes
  KUBECONFIG, K8S_*          the API server; else the service account of the pod
  WAIT_FOR_DATASTORE         true: wait until it answers, rather than fail; Kubernetes is waited
                             for unless it is false
  CALICO_IPV4POOL_*          the pool that is created when there is none; without a CIDR that
                             which kubeadm was told
  CALICO_K8S_NODE_REF        name of the node in Kubernetes; else as NODENAME
  CLUSTER_TYPE               merged into ClusterInformation, such as k8s,bgp
  USE_POD_CIDR               true: pods have addresses of their node's range in Kubernetes
  CALICO_ROUTER_ID           BGP identifier: an IPv4 address, or hash
  CALICO_NETWORKING_BACKEND  bird (default), vxlan: no BGP, or none: the same, and no routes
                             to pools without encapsulation
  FELIX_*                    fields of FelixConfiguration
  FELIX_HEALTHENABLED        /liveness and /readiness at FELIX_HEALTHHOST (localhost), port 9099
  FELIX_PROMETHEUSMETRICSENABLED  /metrics at FELIX_PROMETHEUSMETRICSHOST, port 9091
and those of its install-cni container, where the node's /etc/cni/net.d is mounted at
/host/etc/cni/net.d, or CALICO_MANAGE_CNI is true:
  CNI_CONF_NAME              file of the configuration; else 10-calico.conflist where there is
                             one, or 10-weft.conflist
  CNI_NETWORK_CONFIG(_FILE)  the configuration, with placeholders; else weft's own
  CNI_NET_DIR, CNI_MTU, UPDATE_CNI_BINARIES, SKIP_CNI_BINARIES
and of its own:
  POD_NAMESPACE, POD_NAME    this pod: when its DaemonSet is gone, the CNI configuration goes
  WEFT_CNI_SOURCE            directory of the executables to install (/opt/cni/bin)
  WEFT_CNI_CONF_DIR, WEFT_CNI_BIN_DIR  the node's directories, as this process sees them
  WEFT_AGENT_SOCKET          where the CNI executable asks (` + rpc.DefaultSocket + `)
  WEFT_STATUS_SOCKET         where 'weft node status' asks (` + defaultStatusSocket + `)
  WEFT_CNI_QUEUE             DELs that found no agent (` + rpc.DefaultQueue + `)
  WEFT_SECRETS_DIR           BGP passwords, a file NAME/KEY each`,
		Example: "  ETCD_ENDPOINTS=http://127.0.0.1:2379 IP=autodetect weft node run",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return nodeRun(cmd.Context(), p) },
	}
}

func nodeRun(ctx context.Context, p Process) error {
	var level slog.LevelVar
	recent := run.NewRecent(recentLines)
	log := run.Logger(io.MultiWriter(recent, p.Stderr), &level)
	c, err := agentConfig(p, log)
	if err != nil {
		return err
	}
	c.Level, c.Recent = &level, recent
	if err := sysctl.Unlock(); err != nil {
		log.Warn("settings of the network can't be changed; those that are not as they must be will be named", "err", err)
	}
	for _, f := range c.Felix {
		if l, err := run.ParseLevel(f.LogSeverity); err == nil && f.LogSeverity != "" {
			level.Set(l)
			break
		}
	}
	if err := kubernetesConfig(p, &c); err != nil {
		return err
	}
	c.Open = func(ctx context.Context, waits func(error)) (store.Store, error) {
		return openStoreOn(ctx, p, c.Kube, log, waits)
	}
	return agent.Run(ctx, c)
}

// kubernetesConfig reads what has to do with Kubernetes, and with a node of it.
func kubernetesConfig(p Process, c *agent.Config) error {
	c.KubeRequired = p.Getenv("DATASTORE_TYPE") == "kubernetes"
	c.Pod = agent.Pod{Namespace: p.Getenv("POD_NAMESPACE"), Name: p.Getenv("POD_NAME")}
	server, err := kube.ConfigFromEnv(p.Getenv)
	if err != nil {
		return err
	}
	if server.Version = p.Version; server.Found() {
		if c.Kube, err = kube.Connect(server); err != nil {
			return err
		}
	} else if c.KubeRequired {
		return fmt.Errorf("DATASTORE_TYPE: kubernetes: %w", kube.ErrNone)
	}
	plugin, wanted, err := install.ConfigFromEnv(c.Settings.Node, p.Getenv, c.Log.With("part", "cni"))
	if err != nil {
		return err
	}
	if wanted {
		c.Installer = install.New(plugin)
	}
	return nil
}

// wait reads WAIT_FOR_DATASTORE.
func wait(p Process) (string, error) {
	text := p.Getenv("WAIT_FOR_DATASTORE")
	if text != "" && text != "true" && text != "false" {
		return "", fmt.Errorf("WAIT_FOR_DATASTORE=%q: must be true, false or empty", text)
	}
	return text, nil
}

// openStore connects to the datastore, see openStoreOn.
func openStore(ctx context.Context, p Process, log *slog.Logger) (store.Store, error) {
	return openStoreOn(ctx, p, nil, log, func(error) {})
}

// openStoreOn connects to the datastore; one in Kubernetes shares the connection of server, if
// there is one. With WAIT_FOR_DATASTORE=true it waits for one that is not there yet, for
// Kubernetes unless that is false, and tells why; a setting that is wrong is an error all the
// same.
func openStoreOn(ctx context.Context, p Process, server *kube.Client, log *slog.Logger, tell func(why error)) (store.Store, error) {
	waits, err := wait(p)
	if err != nil {
		return nil, err
	}
	inKube := p.Getenv("DATASTORE_TYPE") == "kubernetes"
	last := ""
	for {
		st, err := openOnce(ctx, p, server, log)
		absent := errors.As(err, new(*etcd.EndpointError)) && !errors.Is(err, store.ErrRefused) && waits == "true" ||
			inKube && kube.Transient(err) && waits != "false"
		if err == nil || !absent {
			return st, err
		}
		if err.Error() != last {
			why := kube.Explain(err)
			log.Warn("waiting for the datastore; what runs keeps its network", "err", why)
			tell(errors.New(why))
			last = err.Error()
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// openOnce tries once what openStoreOn does.
func openOnce(ctx context.Context, p Process, server *kube.Client, log *slog.Logger) (store.Store, error) {
	if server == nil || p.Getenv("DATASTORE_TYPE") != "kubernetes" {
		return datastore.Open(ctx, p.Getenv)
	}
	o, err := datastore.KubeOptions(p.Getenv, log.With("part", "datastore"))
	if err != nil {
		return nil, err
	}
	s, err := kubestore.OpenOn(ctx, server, o)
	if err != nil {
		return nil, err // not s: a nil *kubestore.Store is no nil Store
	}
	return s, nil
}

// agentConfig reads the environment. The error names the variable at fault.
func agentConfig(p Process, log *slog.Logger) (agent.Config, error) {
	name, err := startup.NodeName(p.Getenv, os.Hostname)
	if err != nil {
		return agent.Config{}, err
	}
	settings, err := startup.SettingsFrom(name, p.Getenv)
	if err != nil {
		return agent.Config{}, err
	}
	env, _, err := agent.FelixFromEnv(p.Environ)
	if err != nil {
		return agent.Config{}, err
	}
	file, _, err := agent.FelixFromFile(or(p.Getenv("FELIX_FELIXCONFIGFILE"), defaultFelixFile))
	if err != nil {
		return agent.Config{}, err
	}
	peer, err := peeringOptions(p.Getenv("CALICO_ROUTER_ID"))
	if err != nil {
		return agent.Config{}, err
	}
	networking, err := backend(p.Getenv("CALICO_NETWORKING_BACKEND"))
	if err != nil {
		return agent.Config{}, err
	}
	waits, err := wait(p)
	if err != nil {
		return agent.Config{}, err
	}
	return agent.Config{
		Settings: settings, Felix: []model.FelixConfig{env, file}, Peering: peer, Backend: networking,
		Version:      p.Version,
		CNISocket:    or(p.Getenv("WEFT_AGENT_SOCKET"), rpc.DefaultSocket),
		StatusSocket: or(p.Getenv("WEFT_STATUS_SOCKET"), defaultStatusSocket),
		QueueDir:     or(p.Getenv("WEFT_CNI_QUEUE"), rpc.DefaultQueue),
		SecretsDir:   p.Getenv("WEFT_SECRETS_DIR"),
		NodeNameFile: or(p.Getenv("CALICO_NODENAME_FILE"), defaultNodeNameFile),
		MTUFile:      filepath.Join(filepath.Dir(or(p.Getenv("CALICO_NODENAME_FILE"), defaultNodeNameFile)), "mtu"),
		NoWait:       waits == "false",
		Log:          log,
	}, nil
}

func peeringOptions(routerID string) (peering.Options, error) {
	switch routerID {
	case "":
		return peering.Options{}, nil
	case "hash":
		return peering.Options{HashRouterID: true}, nil
	}
	id, err := netip.ParseAddr(routerID)
	if err != nil || !id.Is4() || id.IsUnspecified() {
		return peering.Options{}, fmt.Errorf("CALICO_ROUTER_ID=%q: must be an IPv4 address, hash, or empty", routerID)
	}
	return peering.Options{RouterID: id}, nil
}

// backend reads CALICO_NETWORKING_BACKEND.
func backend(name string) (agent.Backend, error) {
	switch b := agent.Backend(name); b {
	case "":
		return agent.BackendBIRD, nil
	case agent.BackendBIRD, agent.BackendVXLAN, agent.BackendNone:
		return b, nil
	}
	return "", fmt.Errorf("CALICO_NETWORKING_BACKEND=%q: must be bird, vxlan or none", name)
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

func nodeStatusCommand(p Process) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Print how the node agent of this machine is",
		Long:    "Print how the node agent of this machine is: its BGP sessions, its routes, and what it can't do.\nThe exit code is 1 when there is no agent or it is not ready.",
		Example: "  weft node status\n  weft node status -o json",
		Args:    cobra.NoArgs,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		socket := or(p.Getenv("WEFT_STATUS_SOCKET"), defaultStatusSocket)
		ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Second)
		defer cancel()
		var s agent.Status
		if err := run.Fetch(ctx, socket, "status", &s); err != nil {
			return fmt.Errorf("node status: no agent answers at %s: %w: is 'weft node run' running, and is WEFT_STATUS_SOCKET its socket?", socket, cause(err))
		}
		if err := printAs(p.Stdout, *output, s, func(w io.Writer) error { return statusTable(w, s, time.Now()) }); err != nil {
			return err
		}
		if !s.Ready {
			return &ExitError{1}
		}
		return nil
	}
	return cmd
}

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

// cause is what the kernel said, without the layers that carried it.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}

func statusTable(out io.Writer, s agent.Status, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "weft node agent %s of node %s, process %d, up %v\n", s.Version, s.Node, s.PID, now.Sub(s.Since).Round(time.Second))
	if s.Ready {
		_, _ = fmt.Fprintln(w, "ready")
	} else {
		_, _ = fmt.Fprintln(w, "not ready:", s.Why)
	}
	if s.BGP {
		_, _ = fmt.Fprintln(w, "\nPEER ADDRESS\tPEER TYPE\tSTATE\tSINCE\tROUTES IN\tOUT\tINFO")
	}
	for _, p := range s.Peers {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", p.Addr, p.Type, p.State, p.Since.Local().Format("15:04:05"), p.Received, p.Advertised, p.Info)
	}
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
