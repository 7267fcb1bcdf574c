package ctl

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/control"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/run"
)

// Where the controllers say how they are unless the environment says otherwise.
const defaultHealthAddress = ":9094"

// namespaceFile is where a pod finds the namespace that it is in.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func controllersCommand(p Process) *cobra.Command {
	return &cobra.Command{
		Use:   "controllers",
		Short: "Run the Kubernetes controllers",
		Long: `Run the controllers that keep the datastore right by what Kubernetes holds. Of
several processes one leads, by a Lease, and the others wait.

They are set by the environment, with the variables that Calico's kube-controllers has:
  DATASTORE_TYPE, ETCD_*     the datastore
  KUBECONFIG                 of the API server; else that of the pod
  ENABLED_CONTROLLERS        policy,namespace,serviceaccount,workloadendpoint (with etcd only),
                             node,loadbalancer
  RECONCILER_PERIOD          time between comparisons of everything (5m)
  COMPACTION_PERIOD          how often etcd's history is cut (10m; 0: never)
  SYNC_NODE_LABELS           labels of nodes follow those of Kubernetes (enabled)
  AUTO_HOST_ENDPOINTS        make a host endpoint of each node (disabled)
  LOG_LEVEL, HEALTH_ENABLED, POLICY_WORKERS, PROFILE_WORKERS, WORKLOAD_ENDPOINT_WORKERS
They win over the KubeControllersConfiguration "default". And of its own:
  POD_NAME, POD_NAMESPACE    this process's name in the Lease, and where the Lease is
  WEFT_MAX_RELEASE_SHARE     how much of anything may be removed at once, 0 to 1 (0.2)
  WEFT_HEALTH_ADDRESS        of probes, status and metrics (` + defaultHealthAddress + `)`,
		Example: "  DATASTORE_TYPE=kubernetes KUBECONFIG=/etc/kubernetes/admin.conf weft controllers",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return controllers(cmd.Context(), p) },
	}
}

func controllers(ctx context.Context, p Process) error {
	var level slog.LevelVar
	log := run.Logger(p.Stderr, &level)
	c, err := controllersConfig(p)
	if err != nil {
		return err
	}
	api, err := kube.ConfigFromEnv(p.Getenv)
	if err != nil {
		return err
	}
	api.Version = p.Version
	client, err := kube.Connect(api)
	if err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	c.Clientset, c.Raw, c.Log, c.Level = client.Clientset, client.Clientset.CoreV1().RESTClient(), log, &level
	st, err := openStore(ctx, p, log)
	if ctx.Err() != nil {
		return nil // told to end while waiting
	}
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }()
	c.Store = st
	if c.Health, err = net.Listen("tcp", or(p.Getenv("WEFT_HEALTH_ADDRESS"), defaultHealthAddress)); err != nil {
		return fmt.Errorf("WEFT_HEALTH_ADDRESS: %w", err)
	}
	if etcd, ok := st.(interface {
		Compact(ctx context.Context, before int64) (int64, error)
	}); ok {
		c.Compact = etcd.Compact
	}
	if err := control.Run(ctx, c); ctx.Err() == nil {
		return err
	}
	return nil
}

// controllersConfig reads the environment. The error names the variable at fault.
func controllersConfig(p Process) (control.Config, error) {
	env, err := control.EnvFrom(p.Getenv)
	if err != nil {
		return control.Config{}, err
	}
	if _, err := run.ParseLevel(p.Getenv("LOG_LEVEL")); err != nil {
		return control.Config{}, fmt.Errorf("LOG_LEVEL: %w", err)
	}
	share, err := control.ShareFrom(p.Getenv("WEFT_MAX_RELEASE_SHARE"))
	if err != nil {
		return control.Config{}, err
	}
	identity := p.Getenv("POD_NAME")
	if identity == "" {
		if identity, err = os.Hostname(); err != nil {
			return control.Config{}, fmt.Errorf("POD_NAME is not set: %w", err)
		}
	}
	c := control.Config{
		Etcd: p.Getenv("DATASTORE_TYPE") != "kubernetes", Env: env, MaxShare: share, Now: time.Now,
		Namespace: or(p.Getenv("POD_NAMESPACE"), ownNamespace()), Identity: identity,
	}
	return c, nil
}

// ownNamespace is that of the pod that this process is in; kube-system if it is in none.
func ownNamespace() string {
	text, err := os.ReadFile(namespaceFile)
	if err != nil || strings.TrimSpace(string(text)) == "" {
		return "kube-system"
	}
	return strings.TrimSpace(string(text))
}
