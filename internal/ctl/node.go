package ctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/cni/install"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/peering"
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

func (c *client) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "The node agent of this machine"}
	cmd.AddCommand(c.nodeRunCommand(), c.nodeStatusCommand(), c.nodeRoutesCommand(), c.nodeCheckCommand(), c.nodeDiagsCommand(), nodeHealthCommand(c.Process), nodeAddressesCommand(c.Process))
	return cmd
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
	env, ignored, err := agent.FelixFromEnv(p.Environ)
	if err != nil {
		return agent.Config{}, err
	}
	file, more, err := agent.FelixFromFile(or(p.Getenv("FELIX_FELIXCONFIGFILE"), defaultFelixFile))
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
		Settings: settings, Felix: []model.FelixConfig{env, file}, Ignored: slices.Concat(ignored, more), Peering: peer, Backend: networking,
		Version:      p.Version,
		CNISocket:    or(p.Getenv("WEFT_AGENT_SOCKET"), rpc.DefaultSocket),
		StatusSocket: or(p.Getenv("WEFT_STATUS_SOCKET"), defaultStatusSocket),
		QueueDir:     or(p.Getenv("WEFT_CNI_QUEUE"), rpc.DefaultQueue),
		SecretsDir:   p.Getenv("WEFT_SECRETS_DIR"),
		NodeNameFile: or(p.Getenv("CALICO_NODENAME_FILE"), defaultNodeNameFile),
		MTUFile:      filepath.Join(filepath.Dir(or(p.Getenv("CALICO_NODENAME_FILE"), defaultNodeNameFile)), "mtu"),
		NoWait:       waits == "false",
		TrustEmpty:   p.Getenv(agent.TrustEmptySetting) == "true",
		KeepCalico:   p.Getenv(agent.KeepCalicoSetting) == "true",
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

// cause is what the kernel said, without the layers that carried it.
func cause(err error) error {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return err
}
