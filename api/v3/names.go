package v3

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
)

// The orchestrators whose endpoint names have their own form.
const (
	OrchestratorKubernetes = "k8s"
	OrchestratorCNI        = "cni"
	OrchestratorLibnetwork = "libnetwork"
)

// EndpointID is what the name of a workload endpoint is made of. Which of Pod,
// ContainerID and Workload counts depends on Orchestrator: Pod for k8s, ContainerID
// for cni, none for libnetwork, Workload for all others.
type EndpointID struct {
	Node, Orchestrator         string
	Pod, ContainerID, Workload string
	Endpoint                   string
}

// EndpointIDOf returns the parts of the name that o must have.
func EndpointIDOf(o *WorkloadEndpoint) EndpointID {
	s := &o.Spec
	return EndpointID{s.Node, s.Orchestrator, s.Pod, s.ContainerID, s.Workload, s.Endpoint}
}

// part is a field of an EndpointID by its name in WorkloadEndpointSpec.
type part struct{ field, value string }

// parts lists what the name consists of, in order.
func (id EndpointID) parts() []part {
	third := part{"workload", id.Workload}
	switch id.Orchestrator {
	case OrchestratorKubernetes:
		third = part{"pod", id.Pod}
	case OrchestratorCNI:
		third = part{"containerID", id.ContainerID}
	case OrchestratorLibnetwork:
		third = part{"workload", OrchestratorLibnetwork}
	}
	return []part{{"node", id.Node}, {"orchestrator", id.Orchestrator}, third, {"endpoint", id.Endpoint}}
}

// WorkloadEndpointName returns the endpoint's name, such as
// "node--a-k8s-web--0-eth0": the parts joined by dashes, with dashes within a part
// doubled. The error names the part that is missing or begins or ends with a dash.
func WorkloadEndpointName(id EndpointID) (string, error) {
	name, complete, err := joinName(id)
	if err != nil {
		return "", err
	}
	if !complete.ok {
		return "", fmt.Errorf("workload endpoint name: %s: must be set", complete.missing)
	}
	return name, nil
}

// WorkloadEndpointPrefix returns what the names of all endpoints begin with that
// have the parts of id up to its first empty one. Node must be set.
func WorkloadEndpointPrefix(id EndpointID) (string, error) {
	if id.Node == "" {
		return "", fmt.Errorf("workload endpoint name: node: must be set")
	}
	name, _, err := joinName(id)
	return name, err
}

// completeness says which part of a name is the first that is missing.
type completeness struct {
	ok      bool
	missing string
}

// joinName joins the parts up to the first empty one.
func joinName(id EndpointID) (string, completeness, error) {
	var b strings.Builder
	for i, p := range id.parts() {
		if i > 0 {
			b.WriteByte('-')
		}
		switch {
		case p.value == "":
			return b.String(), completeness{missing: p.field}, nil
		case strings.HasPrefix(p.value, "-") || strings.HasSuffix(p.value, "-"):
			return "", completeness{}, fmt.Errorf("workload endpoint name: %s: %q: must not begin or end with a dash", p.field, p.value)
		}
		b.WriteString(strings.ReplaceAll(p.value, "-", "--"))
	}
	return b.String(), completeness{ok: true}, nil
}

// ParseWorkloadEndpointName takes a name, or the beginning of one, apart.
func ParseWorkloadEndpointName(name string) (EndpointID, error) {
	parts := splitName(name)
	if name == "" || len(parts) > 4 {
		return EndpointID{}, fmt.Errorf("workload endpoint name: %q: must be node, orchestrator, workload and endpoint joined by dashes, dashes within them doubled", name)
	}
	parts = append(parts, "", "", "")
	id := EndpointID{Node: parts[0], Orchestrator: parts[1], Endpoint: parts[3]}
	switch id.Orchestrator {
	case OrchestratorKubernetes:
		id.Pod = parts[2]
	case OrchestratorCNI:
		id.ContainerID = parts[2]
	case OrchestratorLibnetwork:
	default:
		id.Workload = parts[2]
	}
	return id, nil
}

// splitName cuts a name at its single dashes and undoubles the others. Of three
// dashes the first two are one dash of the part before; a dash that begins the name
// belongs to the first part.
func splitName(name string) []string {
	var parts []string
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		switch {
		case name[i] != '-' || i == 0 && !strings.HasPrefix(name, "--"):
			b.WriteByte(name[i])
		case i+1 < len(name) && name[i+1] == '-':
			b.WriteByte('-')
			i++
		default:
			parts = append(parts, b.String())
			b.Reset()
		}
	}
	return append(parts, b.String())
}

// DefaultInterfacePrefix begins the names of workload interfaces.
const DefaultInterfacePrefix = "cali"

// HostInterfaceName returns the name of the host side of a pod's interface: a prefix
// and 11 hexadecimal digits of the SHA-1 of "namespace.pod", so that it survives
// restarts. prefixes is a comma-separated list whose first item counts (at most 4
// bytes, since interface names have 15); empty means cali.
func HostInterfaceName(prefixes, namespace, pod string) string {
	prefix, _, _ := strings.Cut(prefixes, ",")
	if prefix == "" {
		prefix = DefaultInterfacePrefix
	}
	sum := sha1.Sum([]byte(namespace + "." + pod))
	return prefix + hex.EncodeToString(sum[:])[:11]
}

// HandleID returns the handle that holds the addresses of a container in a CNI
// network: "network.containerID".
func HandleID(network, containerID string) string {
	return network + "." + containerID
}

// Tunnel is a kind of tunnel device that has an address of a pool.
type Tunnel string

// The tunnels, by what their handles begin with.
const (
	TunnelIPIP        Tunnel = "ipip"
	TunnelVXLAN       Tunnel = "vxlan"
	TunnelVXLANV6     Tunnel = "vxlan-v6"
	TunnelWireguard   Tunnel = "wireguard"
	TunnelWireguardV6 Tunnel = "wireguard-v6"
)

// TunnelHandleID returns the handle of a node's tunnel address:
// "ipip-tunnel-addr-node".
func TunnelHandleID(t Tunnel, node string) string {
	return string(t) + "-tunnel-addr-" + node
}
