package rpc

import (
	"context"
	"net/netip"
	"time"
)

const (
	// DefaultSocket is where the agent listens unless told otherwise.
	DefaultSocket = "/run/weft/agent.sock"
	// DefaultQueue is the directory of the [Queue] unless told otherwise.
	DefaultQueue = "/var/lib/weft/cni/del"
	// Budget is the longest that one request may take.
	Budget = 90 * time.Second
	// DefaultPolicyTimeout is how long Add waits for routes and policy.
	DefaultPolicyTimeout = 30 * time.Second
	// maxMessage bounds a request and a response, in bytes.
	maxMessage = 1 << 20
	// protocol is the version of the messages.
	protocol = 1
)

// Agent is the node agent as the CNI executable sees it. Errors are [*Error]
// where the runtime should see a code; any other error is reported as
// [CodeInternal].
type Agent interface {
	// Add gives the attachment its addresses and, unless Endpoint is nil, stores
	// its workload endpoint and returns when the endpoint's routes and policy are in
	// the kernel. The host's link may appear only while Add runs. Repeated for the
	// same attachment it gives the same answer. When it fails, or when ctx ends
	// first, the caller calls Del; what Add did until then must be found by it.
	Add(ctx context.Context, r AddRequest) (AddResponse, error)
	// Del takes back what Add gave. An unknown attachment is no error.
	Del(ctx context.Context, r DelRequest) error
	// Check returns nil if the attachment is as Add left it.
	Check(ctx context.Context, r CheckRequest) error
	// Status returns nil if Add would be served now.
	Status(ctx context.Context, r StatusRequest) error
	// GC takes back every attachment of the network on this node that is not in
	// r.Valid, and reports them. It may run beside calls for attachments: it must
	// not touch one that was added after GC began.
	GC(ctx context.Context, r GCRequest) (GCResponse, error)
}

// Attachment is the identity of one interface of one container in one network.
// It is comparable.
type Attachment struct {
	Network     string `json:"network"`     // the name in the CNI configuration
	ContainerID string `json:"containerID"` // as the runtime gave it; for Kubernetes the pod's sandbox
	IfName      string `json:"ifName"`      // inside the container: eth0
}

// String prints a for messages: network/container/interface.
func (a Attachment) String() string { return a.Network + "/" + a.ContainerID + "/" + a.IfName }

// Orchestrators of workloads, as WorkloadEndpoint's field has them.
const (
	Kubernetes = "k8s"
	PlainCNI   = "cni"
)

// Workload says whose interface it is.
type Workload struct {
	Orchestrator string `json:"orchestrator"`        // [Kubernetes] or [PlainCNI]
	Namespace    string `json:"namespace,omitempty"` // of the pod; default for PlainCNI
	Pod          string `json:"pod,omitempty"`       // empty for PlainCNI
	PodUID       string `json:"podUID,omitempty"`    // empty if the runtime did not say
	// Node is the node name that the configuration states; empty if it does not.
	// An agent with another name refuses.
	Node string `json:"node,omitempty"`
}

// AddressWish says which addresses the agent is to assign. The zero value asks
// for none.
type AddressWish struct {
	IPv4 bool `json:"ipv4,omitempty"` // one automatic IPv4 address
	IPv6 bool `json:"ipv6,omitempty"` // one automatic IPv6 address; with IPv4 both or none
	// IPv4Pools and IPv6Pools name the pools (by name or CIDR) to take them from;
	// empty means the agent's choice.
	IPv4Pools []string `json:"ipv4Pools,omitempty"`
	IPv6Pools []string `json:"ipv6Pools,omitempty"`
	// Exact are addresses asked for by value. Where there are any, nothing is
	// assigned automatically. They need not be free of reservations, but must lie
	// in an enabled pool.
	Exact []netip.Addr `json:"exact,omitempty"`
}

// Port is a port that the runtime maps from the node to the workload.
type Port struct {
	Name     string     `json:"name,omitempty"`
	Protocol string     `json:"protocol"`           // tcp, udp or sctp, lower case
	Port     uint16     `json:"port"`               // the workload's
	HostPort uint16     `json:"hostPort,omitempty"` // 0: none
	HostIP   netip.Addr `json:"hostIP"`             // zero: every address of the node
}

// Endpoint is the workload endpoint to store.
type Endpoint struct {
	HostLink string `json:"hostLink"` // the host's end, 1 to 15 bytes
	MAC      string `json:"mac"`      // of the workload's end, lower case aa:bb:cc:dd:ee:ff
	// Given are addresses that are not the agent's to assign: another IPAM plugin
	// gave them, or the pod asked for them without IPAM. The prefix length is that
	// of the giver; the endpoint's is always 32 or 128.
	Given          []netip.Prefix    `json:"given,omitempty"`
	Profiles       []string          `json:"profiles,omitempty"` // empty for Kubernetes: the agent knows
	Labels         map[string]string `json:"labels,omitempty"`   // from the configuration; the agent adds its own
	Annotations    map[string]string `json:"annotations,omitempty"`
	Ports          []Port            `json:"ports,omitempty"`
	SourcePrefixes []netip.Prefix    `json:"sourcePrefixes,omitempty"` // it may send from these too
	FloatingIPs    []netip.Addr      `json:"floatingIPs,omitempty"`    // external addresses that lead here
	Bandwidth      Bandwidth         `json:"bandwidth,omitzero"`       // from the runtime; annotations are stronger
}

// Bandwidth is what the runtime's capability of that name asks for, as of the workload:
// bits per second, and bits beyond that at once. 0: no limit.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// AddRequest asks for addresses and an endpoint.
type AddRequest struct {
	Attachment
	Workload
	Netns   string      `json:"netns,omitempty"` // path, for messages only
	Address AddressWish `json:"address"`
	// HostIndex is the interface index of the host's end where it exists already:
	// then the routes must be those of that link, not of one that had its name
	// before. 0: the link appears while Add runs, and none had its name.
	HostIndex int `json:"hostIndex,omitempty"`
	// Endpoint is nil in the role of an IPAM plugin: addresses only.
	Endpoint *Endpoint `json:"endpoint,omitempty"`
	// PolicyTimeout is how long to wait for routes and policy; 0: [DefaultPolicyTimeout].
	PolicyTimeout time.Duration `json:"policyTimeout,omitempty"`
	// PolicyProceed makes Add succeed when that time is over. What then is not yet
	// in the kernel comes later; until then the kernel drops what it does not know.
	PolicyProceed bool `json:"policyProceed,omitempty"`
	// Features are the annotations that the configuration allows. An agent that knows
	// pods reads those of the pod and of its namespace, which override what is asked
	// for here.
	Features Features `json:"features,omitzero"`
	// Fixed says that the runtime itself asks for Address.Exact: then annotations do not
	// change it, but for addresses that need no assignment.
	Fixed bool `json:"fixed,omitempty"`
	// Delegated says that Endpoint.Given is of another IPAM plugin: annotations, which
	// Preview told of, do not change addresses any more.
	Delegated bool `json:"delegated,omitempty"`
	// Preview asks what the pod's annotations make of the request, and for nothing to be
	// done. The answer has MAC and Exact; Addrs are those that need no assignment.
	Preview bool `json:"preview,omitempty"`
	// PodCIDRs asks a Preview for the ranges of the node's pods, and to fail without them.
	PodCIDRs bool `json:"podCIDRs,omitempty"`
	// ReadinessGates are URLs (http or https) that must answer well before anything is
	// done.
	ReadinessGates []string `json:"readinessGates,omitempty"`
}

// AddResponse is what the container gets.
type AddResponse struct {
	// Addrs are the assigned addresses, IPv4 first, then Endpoint.Given. An
	// automatic address carries its block's prefix length, a requested one 32 or
	// 128; the given ones are as they came.
	Addrs []netip.Prefix `json:"addrs"`
	MTU   int            `json:"mtu,omitempty"` // for the interface, bytes; 0: the agent does not say
	// MAC is what the workload's end must have: that of the request, unless an
	// annotation names another. Empty: an agent of before, and that of the request.
	MAC      string         `json:"mac,omitempty"`
	Exact    []netip.Addr   `json:"exact,omitempty"`    // of a Preview: as in AddressWish
	PodCIDRs []netip.Prefix `json:"podCIDRs,omitempty"` // of a Preview: of the node, if asked for; at least one
}

// DelRequest takes an attachment back: its addresses, found by the handle
// <network>.<containerID>, and its endpoint. An endpoint that meanwhile belongs
// to another container of the same pod stays.
type DelRequest struct {
	Attachment
	Workload
	HostLink string `json:"hostLink,omitempty"` // as in Endpoint; empty when not known
	// HostIndex is the interface index of the host's end, which the agent deletes
	// after it has answered: the kernel takes some 20 ms for that, and nobody needs
	// to wait. 0 means that there is nothing to delete.
	HostIndex int `json:"hostIndex,omitempty"`
	// AddressesOnly is the role of an IPAM plugin: no endpoint is touched.
	AddressesOnly bool `json:"addressesOnly,omitempty"`
}

// CheckRequest asks whether an attachment is still whole on the agent's side:
// addresses assigned, endpoint stored, routes in the kernel.
type CheckRequest struct {
	Attachment
	Workload
	HostLink      string       `json:"hostLink,omitempty"`
	Addrs         []netip.Addr `json:"addrs,omitempty"` // that the attachment must have
	Given         bool         `json:"given,omitempty"` // Addrs are not of the agent's assignment: see Endpoint
	AddressesOnly bool         `json:"addressesOnly,omitempty"`
}

// StatusRequest asks whether the agent can serve.
type StatusRequest struct {
	Node string `json:"node,omitempty"` // as in Workload
}

// GCRequest names the attachments of a network that still exist.
type GCRequest struct {
	Network string `json:"network"`
	Node    string `json:"node,omitempty"` // as in Workload
	// Valid are the container and interface of each; Network is empty or the same.
	Valid []Attachment `json:"valid"`
	// AddressesOnly is the role of an IPAM plugin: no endpoint is touched.
	AddressesOnly bool `json:"addressesOnly,omitempty"`
}

// GCResponse reports what GC took back.
type GCResponse struct {
	// HostLinks are the host's ends of the endpoints that were removed. The caller
	// deletes the links.
	HostLinks []string `json:"hostLinks,omitempty"`
	// Removed are the attachments whose endpoints were removed: what another IPAM
	// plugin gave them is for the caller to give back.
	Removed []Attachment `json:"removed,omitempty"`
}
