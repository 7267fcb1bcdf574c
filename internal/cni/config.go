package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// config is the part of the network configuration that means something to this
// executable. Other keys of Calico's are accepted: how to reach the datastore,
// Kubernetes or Windows is the agent's concern or nobody's.
type config struct {
	Name             string          `json:"name"`
	CNIVersion       string          `json:"cniVersion"`
	PrevResult       json.RawMessage `json:"prevResult"`
	ValidAttachments []struct {
		ContainerID string `json:"containerID"`
		IfName      string `json:"ifname"`
	} `json:"cni.dev/valid-attachments"`

	MTU                  int             `json:"mtu"`        // bytes; 0: the agent's, else that of the MTU file
	NumQueues            int             `json:"num_queues"` // of each end; 0: the kernel's default
	DeviceType           string          `json:"device_type"`
	NodeName             string          `json:"nodename"`
	NodeNameFile         string          `json:"nodename_file"`
	NodeNameFileOptional bool            `json:"nodename_file_optional"`
	DatastoreType        string          `json:"datastore_type"`
	LogLevel             string          `json:"log_level"`
	LogFilePath          string          `json:"log_file_path"`
	LogFileMaxSize       *int            `json:"log_file_max_size"`  // MiB; absent: 100; 0: no limit
	LogFileMaxAge        *int            `json:"log_file_max_age"`   // days; absent: 30; 0: no limit
	LogFileMaxCount      *int            `json:"log_file_max_count"` // old files; absent: 10; 0: no limit
	IncludeDefaultRoutes bool            `json:"include_default_routes"`
	RequireMTUFile       bool            `json:"require_mtu_file"`
	ReadinessGates       []string        `json:"readiness_gates"`
	PolicyTimeout        int             `json:"policy_setup_timeout_seconds"` // 0: the agent's own
	PolicyFailure        string          `json:"policy_setup_failure"`         // ours: fail (the default), or proceed
	DataplaneOptions     map[string]any  `json:"dataplane_options"`
	AgentSocket          string          `json:"agent_socket"` // ours: path of the agent's socket
	IPAM                 ipamConfig      `json:"ipam"`
	Kubernetes           kubernetes      `json:"kubernetes"`
	Container            containerConfig `json:"container_settings"`
	Features             features        `json:"feature_control"`
	Args                 struct {
		CNI conventions `json:"cni"`
	} `json:"args"`
	Runtime runtimeConfig `json:"runtimeConfig"`
}

type ipamConfig struct {
	Type   string `json:"type"`
	Subnet string `json:"subnet"`
	Ranges [][]struct {
		Subnet string `json:"subnet"`
	} `json:"ranges"`
	AssignIPv4 *string  `json:"assign_ipv4"` // exactly "true" means yes; absent too
	AssignIPv6 *string  `json:"assign_ipv6"` // exactly "true" means yes
	IPv4Pools  []string `json:"ipv4_pools"`
	IPv6Pools  []string `json:"ipv6_pools"`
	Routes     []struct {
		Dst netip.Prefix `json:"dst"`
	} `json:"routes"`
}

type kubernetes struct {
	NodeName string `json:"node_name"`
}

type containerConfig struct {
	AllowIPForwarding bool `json:"allow_ip_forwarding"`
}

type features struct {
	AddrsNoIPAM bool `json:"ip_addrs_no_ipam"`
	FloatingIPs bool `json:"floating_ips"`
}

// conventions are the arguments of the CNI conventions ("args": {"cni": …}).
type conventions struct {
	IPs    []string `json:"ips"`
	Labels []struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	} `json:"labels"`
}

// runtimeConfig is what the runtime adds for the capabilities that the
// configuration declares.
type runtimeConfig struct {
	IPs            []string          `json:"ips"`
	MAC            string            `json:"mac"`
	PortMappings   []portMapping     `json:"portMappings"`
	PodAnnotations map[string]string `json:"io.kubernetes.cri.pod-annotations"`
	Bandwidth      rpc.Bandwidth     `json:"bandwidth"`
}

type portMapping struct {
	HostPort      uint16 `json:"hostPort"`
	ContainerPort uint16 `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP"`
}

// maxMTU and minMTU bound the MTU of a veth, in bytes.
const (
	minMTU = 68
	maxMTU = 65535
	// maxQueues is the kernel's limit for a veth.
	maxQueues = 4096
	mtuFile   = "/var/lib/calico/mtu"
)

// parseConfig reads a network configuration, whose name the caller has found
// valid, and says in one line what is wrong with it.
func parseConfig(stdin []byte) (*config, error) {
	c := &config{}
	if err := json.Unmarshal(stdin, c); err != nil {
		if t := (*json.UnmarshalTypeError)(nil); errors.As(err, &t) {
			return nil, confError("%s: want %s, not %s", t.Field, jsonName(t), t.Value)
		}
		return nil, confError("%v", err)
	}
	switch c.DatastoreType {
	case "", "etcdv3", "kubernetes":
	default:
		return nil, confError("datastore_type: %q: unknown; etcdv3 and kubernetes are allowed", c.DatastoreType)
	}
	switch c.DeviceType {
	case "", "veth":
	case "netkit":
		return nil, &rpc.Error{Code: rpc.CodeUnsupportedField, Msg: "conf: device_type: netkit is not supported yet; use veth"}
	default:
		return nil, confError("device_type: %q: unknown; veth is allowed", c.DeviceType)
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		return nil, confError("mtu: %d: out of range; 0 or %d to %d are allowed", c.MTU, minMTU, maxMTU)
	}
	if c.NumQueues < 0 || c.NumQueues > maxQueues {
		return nil, confError("num_queues: %d: out of range; 0 to %d are allowed", c.NumQueues, maxQueues)
	}
	if seconds := int(rpc.Budget.Seconds()); c.PolicyTimeout < 0 || c.PolicyTimeout > seconds {
		return nil, confError("policy_setup_timeout_seconds: %d: out of range; 0 to %d are allowed", c.PolicyTimeout, seconds)
	}
	switch c.PolicyFailure {
	case "", "fail", "proceed":
	default:
		return nil, confError("policy_setup_failure: %q: unknown; fail and proceed are allowed", c.PolicyFailure)
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		return nil, err
	}
	return c, c.checkIPAM()
}

func (c *config) checkIPAM() error {
	for _, r := range c.IPAM.Routes {
		if !r.Dst.IsValid() {
			return confError("ipam.routes: an entry has no dst")
		}
	}
	if c.usesPodCIDR() && !c.delegates() {
		return confError("ipam.subnet: usePodCidr is for plugins such as host-local; %s takes addresses from IP pools", c.IPAM.Type)
	}
	return nil
}

// unbuilt names the keys that are valid in Calico, set here, and without effect
// in this version.
func (c *config) unbuilt() []string {
	var keys []string
	if len(c.DataplaneOptions) > 0 {
		keys = append(keys, "dataplane_options")
	}
	return keys
}

// delegates reports whether an IPAM plugin of others gives the addresses.
func (c *config) delegates() bool {
	return c.IPAM.Type != "calico-ipam" && c.IPAM.Type != "weft-ipam"
}

// wish is which addresses the agent is to assign before annotations and
// arguments are looked at.
func (c *config) wish() rpc.AddressWish {
	if c.delegates() {
		return rpc.AddressWish{}
	}
	return rpc.AddressWish{
		IPv4:      c.IPAM.AssignIPv4 == nil || *c.IPAM.AssignIPv4 == "true",
		IPv6:      c.IPAM.AssignIPv6 != nil && *c.IPAM.AssignIPv6 == "true",
		IPv4Pools: c.IPAM.IPv4Pools,
		IPv6Pools: c.IPAM.IPv6Pools,
	}
}

// nodeName is the node that the configuration is for; empty if it does not say.
func (c *config) nodeName() (string, error) {
	if c.NodeName != "" {
		return c.NodeName, nil
	}
	if c.NodeNameFile != "" {
		b, err := os.ReadFile(c.NodeNameFile)
		if err == nil {
			return strings.TrimSpace(string(b)), nil
		}
		if !c.NodeNameFileOptional {
			return "", &rpc.Error{Code: rpc.CodeTryLater, Msg: fmt.Sprintf("conf: nodename_file: %v; is the node agent running?", err)}
		}
	}
	return c.Kubernetes.NodeName, nil
}

// mtu is the interface's MTU in bytes as far as it is known before the agent answers; 0:
// not at all.
func (c *config) mtu(file string) (int, error) {
	if c.MTU != 0 {
		return c.MTU, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		if c.RequireMTUFile {
			return 0, &rpc.Error{Code: rpc.CodeTryLater, Msg: fmt.Sprintf("conf: require_mtu_file: %v", err)}
		}
		return 0, nil
	}
	mtu, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || mtu < minMTU || mtu > maxMTU {
		return 0, confError("%s: %q is not an MTU; %d to %d are allowed", file, strings.TrimSpace(string(b)), minMTU, maxMTU)
	}
	return mtu, nil
}

// ports are the runtime's port mappings.
func (r runtimeConfig) ports() ([]rpc.Port, error) {
	var out []rpc.Port
	for i, m := range r.PortMappings {
		p := rpc.Port{Protocol: strings.ToLower(m.Protocol), Port: m.ContainerPort, HostPort: m.HostPort}
		switch p.Protocol {
		case "":
			p.Protocol = "tcp"
		case "tcp", "udp", "sctp":
		default:
			return nil, confError("runtimeConfig.portMappings[%d].protocol: %q: unknown; tcp, udp and sctp are allowed", i, m.Protocol)
		}
		if m.HostIP != "" {
			addr, err := netip.ParseAddr(m.HostIP)
			if err != nil {
				return nil, confError("runtimeConfig.portMappings[%d].hostIP: %q: not an IP address", i, m.HostIP)
			}
			p.HostIP = addr
		}
		if m.HostPort == 0 {
			continue // maps nothing
		}
		if m.ContainerPort == 0 {
			return nil, confError("runtimeConfig.portMappings[%d].containerPort: 0: out of range; 1 to 65535 are allowed", i)
		}
		out = append(out, p)
	}
	return out, nil
}

func confError(format string, args ...any) error {
	return &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: "conf: " + fmt.Sprintf(format, args...)}
}

// jsonName is what JSON calls the type that t wanted.
func jsonName(t *json.UnmarshalTypeError) string {
	switch t.Type.Kind().String() {
	case "bool":
		return "true or false"
	case "string":
		return "a string"
	case "slice":
		return "a list"
	case "struct", "map":
		return "an object"
	}
	return "a whole number in range"
}
