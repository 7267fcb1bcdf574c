package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/ctl/settings"
	"github.com/weft-net/weft/internal/kernel/sysctl"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/startup"
	"github.com/weft-net/weft/internal/store"
)

const (
	// recentLines is how much of its log an agent keeps for 'weft node diags'.
	recentLines = 2000
	// logFileName is the agent's log below --log-dir, and logFileBytes how large it may grow.
	logFileName  = "weft-node.log"
	logFileBytes = 16 << 20
)

// runFlag is a flag of `node run` that stands for a variable.
type runFlag struct{ flag, variable, usage string }

// runFlags are those that have a value.
func runFlags() []runFlag {
	return []runFlag{
		{"name", "NODENAME", "name of the node; else the host's name"},
		{"ip", "IP", "IPv4 address: autodetect, an address, or none; else the stored one"},
		{"ip6", "IP6", "IPv6 address, likewise"},
		{"as", "AS", "AS number of the node"},
		{"ip-autodetection-method", "IP_AUTODETECTION_METHOD", "how the IPv4 address is found: first-found, can-reach=…, interface=…, skip-interface=…, cidr=…, kubernetes-internal-ip"},
		{"ip6-autodetection-method", "IP6_AUTODETECTION_METHOD", "how the IPv6 address is found, likewise"},
		{"backend", "CALICO_NETWORKING_BACKEND", "how routes come about: bird (BGP), vxlan or none"},
		{"felix-config", "FELIX_FELIXCONFIGFILE", "file with settings of the node, as Felix has it"},
	}
}

// runOptions are the flags of `node run` that are no setting of the agent.
type runOptions struct {
	logDir            string
	image             string
	dryRun, init      bool
	noPools           bool
	datastoreFromFile bool // calicoctl.cfg says where the datastore is
}

func (c *client) nodeRunCommand() *cobra.Command {
	cmd := &cobra.Command{
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
  WEFT_SECRETS_DIR           BGP passwords, a file NAME/KEY each
  WEFT_TRUST_EMPTY_DATASTORE  true: believe a datastore without a block or endpoint, though
                             the kernel has routes of the cluster
  WEFT_KEEP_CALICO_RULES     true: rules that Calico's agent left stay beside ours

The flags say the same as the variables and win over them. Started as calicoctl, or with
--config, it takes the datastore from that file, as calicoctl's other commands do.`,
		Example: "  ETCD_ENDPOINTS=http://127.0.0.1:2379 IP=autodetect weft node run\n" +
			"  weft node run --ip autodetect --as 64512 --backend bird\n" +
			"  weft node run --dryrun --init-system    print a unit for systemd",
		Args: cobra.NoArgs,
	}
	var o runOptions
	f := cmd.Flags()
	for _, r := range runFlags() {
		f.String(r.flag, "", r.usage+" ("+r.variable+")")
	}
	f.BoolVar(&o.noPools, "no-default-ippools", false, "make no pools where there are none (NO_DEFAULT_POOLS)")
	f.StringVar(&o.logDir, "log-dir", "", "directory of a log file "+logFileName+", beside stderr")
	f.BoolVar(&o.dryRun, "dryrun", false, "print what would be run, and with which settings; run nothing")
	f.BoolVar(&o.init, "init-system", false, "run under an init system; with --dryrun: print a unit for systemd")
	f.StringVar(&o.image, "node-image", "", "without meaning: the agent is this program, not a container")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.datastoreFromFile = c.calico || cmd.Flags().Changed("config")
		p, set, err := c.runProcess(cmd, o)
		if err != nil {
			return err
		}
		if cmd.Flags().Changed("node-image") {
			_, _ = fmt.Fprintln(c.Stderr, "--node-image has no meaning here: the agent is this program, and runs in this process")
		}
		if o.dryRun {
			return c.printRun(set, o)
		}
		return nodeRun(cmd.Context(), p, o.logDir)
	}
	return cmd
}

// runProcess is the process that flags make of this one, and the variables that they set, in
// the order in which they win.
func (c *client) runProcess(cmd *cobra.Command, o runOptions) (Process, []string, error) {
	var set []string
	if o.datastoreFromFile {
		s, err := c.settings()
		if err != nil && !errors.Is(err, settings.ErrNone) {
			return Process{}, nil, c.unset(err)
		}
		set = s.Environ()
	}
	for _, r := range runFlags() {
		if !cmd.Flags().Changed(r.flag) {
			continue
		}
		value, err := cmd.Flags().GetString(r.flag)
		if err != nil {
			return Process{}, nil, err
		}
		if err := checkRunFlag(r, value); err != nil {
			return Process{}, nil, &UsageError{err}
		}
		set = append(set, r.variable+"="+value)
	}
	if o.noPools {
		set = append(set, "NO_DEFAULT_POOLS=true")
	}
	p := c.Process
	p.Environ = slices.Concat(p.Environ, set)
	return p, set, nil
}

// checkRunFlag says what is wrong with a flag in the flag's words.
func checkRunFlag(r runFlag, value string) error {
	only := func(name string) string {
		if name == r.variable {
			return value
		}
		return ""
	}
	_, err := startup.SettingsFrom("this-node", only)
	switch r.variable {
	case "NODENAME":
		_, err = startup.NodeName(only, func() (string, error) { return "this-node", nil })
	case "CALICO_NETWORKING_BACKEND":
		_, err = backend(value)
	}
	if err == nil {
		return nil
	}
	text := err.Error()
	if _, allowed, ok := strings.Cut(text, fmt.Sprintf("%s=%q: ", r.variable, value)); ok {
		text = allowed
	}
	return fmt.Errorf("--%s %q: %s", r.flag, value, text)
}

// printRun prints the call of this program that would run the agent, as a line for a shell or
// as a unit for systemd. What is secret is not printed.
func (c *client) printRun(set []string, o runOptions) error {
	call := []string{c.name(), "node", "run"}
	if o.logDir != "" {
		call = append(call, "--log-dir", o.logDir)
	}
	if !o.init {
		words := []string{"env"}
		for _, s := range set {
			words = append(words, shellWord(shown(s)))
		}
		for _, w := range call {
			words = append(words, shellWord(w))
		}
		if len(set) == 0 {
			words = words[1:]
		}
		_, err := fmt.Fprintln(c.Stdout, strings.Join(words, " "))
		return err
	}
	if path, err := os.Executable(); err == nil { // a unit needs all of it
		call[0] = path
	}
	var b strings.Builder
	b.WriteString("[Unit]\nDescription=weft node agent\nAfter=network-online.target\nWants=network-online.target\n\n[Service]\n")
	for _, s := range set {
		fmt.Fprintf(&b, "Environment=%q\n", shown(s))
	}
	fmt.Fprintf(&b, "ExecStart=%s\nRestart=always\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n", strings.Join(call, " "))
	_, err := io.WriteString(c.Stdout, b.String())
	return err
}

// shown is NAME=value without a value that is secret.
func shown(setting string) string {
	name, _, _ := strings.Cut(setting, "=")
	for _, part := range []string{"PASSWORD", "TOKEN", "INLINE"} {
		if strings.Contains(name, part) {
			return name + "=(secret)"
		}
	}
	if name == "ETCD_KEY" {
		return name + "=(secret)"
	}
	return setting
}

// shellWord quotes text for a POSIX shell where that is needed.
func shellWord(text string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@%+", r)
	}
	if text != "" && strings.IndexFunc(text, func(r rune) bool { return !plain(r) }) < 0 {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// nodeRun runs the agent; its log goes to a file in logDir too, unless that is empty.
func nodeRun(ctx context.Context, p Process, logDir string) error {
	var level slog.LevelVar
	recent := run.NewRecent(recentLines)
	to := []io.Writer{recent}
	if logDir != "" {
		file, err := run.OpenLogFile(filepath.Join(logDir, logFileName), logFileBytes)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		to = append(to, file)
	}
	log := run.Logger(io.MultiWriter(append(to, p.Stderr)...), &level)
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
