package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/topology"
)

// pod is a workload: a namespace that the CNI executable attaches.
type pod struct {
	topology.Pod
	node *machine
	at   *topology.Node
	ns   *namespace

	mu       sync.Mutex
	addrs    []netip.Addr // none: not attached
	hostLink string
}

func (h *holder) newPod(p *topology.Pod) *pod {
	i := slices.IndexFunc(h.topo.Nodes, func(n topology.Node) bool { return n.Name == p.Node })
	return &pod{
		Pod: *p, node: h.nodes[i], at: &h.topo.Nodes[i],
		ns: &namespace{filepath.Join(h.Dir.netns(), "pod", p.Namespace, p.Name)},
	}
}

// containerID is what a runtime would have made up: 64 hexadecimal digits.
func (p *pod) containerID() string {
	sum := sha256.Sum256([]byte(p.Namespace + "/" + p.Name))
	return hex.EncodeToString(sum[:])
}

// linkCNI puts the executable where a runtime would have it, under the names by
// which it is called.
func (h *holder) linkCNI() error {
	if err := os.MkdirAll(h.Dir.cni(), 0o700); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	for _, name := range []string{"calico", "calico-ipam"} {
		if err := os.Symlink(h.CNI, filepath.Join(h.Dir.cni(), name)); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// attach makes p's namespace and runs the CNI executable on its node.
func (h *holder) attach(ctx context.Context, p *pod) error {
	fail := func(err error) error { return fmt.Errorf("lab: %v: %w", p.Target(), err) }
	if _, err := newNamespace(p.ns.path); err != nil {
		return fail(err)
	}
	out, err := h.runCNI(ctx, p, "ADD")
	if err != nil {
		return fail(err)
	}
	var result struct {
		Interfaces []struct{ Name, Sandbox string }
		IPs        []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return fail(fmt.Errorf("CNI ADD: result: %w", err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, ip := range result.IPs {
		p.addrs = append(p.addrs, ip.Address.Addr())
	}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" {
			p.hostLink = i.Name
		}
	}
	if len(p.addrs) == 0 {
		return fail(errors.New("CNI ADD: it gave no address"))
	}
	return nil
}

// runCNI runs one CNI command for p, as a runtime on its node would.
func (h *holder) runCNI(ctx context.Context, p *pod, command string) ([]byte, error) {
	conf, err := json.Marshal(p.conf())
	if err != nil {
		return nil, err
	}
	stdin, err := inMemory("cni-conf", conf)
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd := exec.Command(filepath.Join(h.Dir.cni(), "calico"))
	cmd.Stdin = stdin
	cmd.Env = append(slices.Clone(p.node.environ),
		"CNI_COMMAND="+command, "CNI_CONTAINERID="+p.containerID(), "CNI_NETNS="+p.ns.path,
		"CNI_IFNAME=eth0", "CNI_PATH="+h.Dir.cni(),
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE="+p.Namespace+";K8S_POD_NAME="+p.Name+";K8S_POD_INFRA_CONTAINER_ID="+p.containerID())
	out, err := h.ps.output(p.node.ns, ctx.Done(), cmd)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var said struct{ Msg, Details string }
	if err != nil && json.Unmarshal(out, &said) == nil && said.Msg != "" {
		err = errors.New(strings.TrimSuffix(said.Msg+": "+said.Details, ": "))
	}
	if err != nil {
		return nil, fmt.Errorf("CNI %s: %w", command, err)
	}
	return out, nil
}

// conf is the network configuration of p: the usual one, then what the topology
// says about the node and about the pod.
func (p *pod) conf() map[string]any {
	ipam := map[string]any{"type": "calico-ipam"}
	if len(p.IPv4Pools) > 0 {
		ipam["ipv4_pools"] = p.IPv4Pools
	}
	if len(p.IPv6Pools) > 0 {
		ipam["ipv6_pools"] = p.IPv6Pools
	}
	if slices.ContainsFunc(p.at.Addresses, netip.Addr.Is6) {
		v4 := slices.ContainsFunc(p.at.Addresses, netip.Addr.Is4)
		ipam["assign_ipv4"], ipam["assign_ipv6"] = strconv.FormatBool(v4), "true"
	}
	var labels []map[string]string
	for k, v := range p.Labels {
		labels = append(labels, map[string]string{"key": k, "value": v})
	}
	args := map[string]any{"labels": labels}
	if len(p.Addresses) > 0 {
		args["ips"] = p.Addresses
	}
	conf := map[string]any{
		"cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "calico",
		"nodename": p.at.Name, "datastore_type": "etcdv3", "ipam": ipam,
		"log_file_path": filepath.Join(p.node.dir, "cni.log"),
		"args":          map[string]any{"cni": args},
	}
	merge(conf, p.at.CNI)
	merge(conf, p.CNI)
	return conf
}

// merge puts src over dst: mappings are merged, anything else is replaced.
func merge(dst, src map[string]any) {
	for k, v := range src {
		inner, isMap := v.(map[string]any)
		have, hasMap := dst[k].(map[string]any)
		if isMap && hasMap {
			merge(have, inner)
		} else {
			dst[k] = v
		}
	}
}

// inMemory is a file with that content, to be read from its start.
func inMemory(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.WriteAt(content, 0); err != nil {
		f.Close()
		return nil, fmt.Errorf("memory file: %w", err)
	}
	return f, nil
}

// written is what was written to such a file, whatever its offset is now.
func written(f *os.File) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
}
