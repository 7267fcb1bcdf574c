package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// WorkloadEndpoint is one interface of one workload. Its name is computed from
// its fields by [WorkloadEndpointName].
type WorkloadEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec is the interface: where it is, its addresses and what
// applies to it.
type WorkloadEndpointSpec struct {
	// Orchestrator is k8s, cni, libnetwork, openstack or another name.
	Orchestrator string `json:"orchestrator,omitempty"`
	// Workload is the workload's name for orchestrators other than k8s and cni.
	Workload string `json:"workload,omitempty"`
	// Node is the name of the node the workload is on.
	Node string `json:"node,omitempty"`
	// ContainerID is the sandbox of the pod.
	ContainerID string `json:"containerID,omitempty"`
	// Pod is the pod's name.
	Pod string `json:"pod,omitempty"`
	// Endpoint is the interface's name as the workload sees it.
	Endpoint string `json:"endpoint,omitempty"`
	// ServiceAccountName is the pod's service account.
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// IPNetworks are the addresses, each as /32 or /128.
	IPNetworks []string `json:"ipNetworks,omitempty"`
	// IPNATs are floating addresses.
	IPNATs []IPNAT `json:"ipNATs,omitempty"`
	// IPv4Gateway and IPv6Gateway are the workload's gateways; empty means the usual.
	IPv4Gateway string `json:"ipv4Gateway,omitempty"`
	IPv6Gateway string `json:"ipv6Gateway,omitempty"`
	// Profiles are applied in order after all tiers.
	Profiles []string `json:"profiles,omitempty"`
	// InterfaceName is the host side of the interface, 1 to 15 bytes.
	InterfaceName string `json:"interfaceName,omitempty"`
	// MAC is the hardware address of the workload's side.
	MAC string `json:"mac,omitempty"`
	// Ports are the named and host ports.
	Ports []WorkloadEndpointPort `json:"ports,omitempty"`
	// AllowSpoofedSourcePrefixes are source prefixes that the workload may send
	// from beside its own addresses.
	AllowSpoofedSourcePrefixes []string `json:"allowSpoofedSourcePrefixes,omitempty"`
	// QoSControls limits the workload's traffic; nil means no limit.
	QoSControls *QoSControls `json:"qosControls,omitempty"`
}

// IPNAT maps an external address to an address of the endpoint.
type IPNAT struct {
	InternalIP string `json:"internalIP"`
	ExternalIP string `json:"externalIP"`
}

// WorkloadEndpointPort is a named port, a host port, or both.
type WorkloadEndpointPort struct {
	// Name may be empty when HostPort is set.
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	// Port is the workload's port, 1 to 65535.
	Port uint16 `json:"port"`
	// HostPort is the node's port that leads to Port; 0 means none.
	HostPort uint16 `json:"hostPort"`
	// HostIP limits HostPort to one address of the node; empty means all.
	HostIP string `json:"hostIP"`
}

// QoSControls limits rates and connections of an endpoint, per direction; zero
// means no limit. Bandwidths are bits per second, bursts bits, packet rates
// packets per second.
type QoSControls struct {
	IngressBandwidth      int64 `json:"ingressBandwidth,omitempty"`
	EgressBandwidth       int64 `json:"egressBandwidth,omitempty"`
	IngressBurst          int64 `json:"ingressBurst,omitempty"`
	EgressBurst           int64 `json:"egressBurst,omitempty"`
	IngressPeakrate       int64 `json:"ingressPeakrate,omitempty"`
	EgressPeakrate        int64 `json:"egressPeakrate,omitempty"`
	IngressMinburst       int64 `json:"ingressMinburst,omitempty"`
	EgressMinburst        int64 `json:"egressMinburst,omitempty"`
	IngressPacketRate     int64 `json:"ingressPacketRate,omitempty"`
	EgressPacketRate      int64 `json:"egressPacketRate,omitempty"`
	IngressPacketBurst    int64 `json:"ingressPacketBurst,omitempty"`
	EgressPacketBurst     int64 `json:"egressPacketBurst,omitempty"`
	IngressMaxConnections int64 `json:"ingressMaxConnections,omitempty"`
	EgressMaxConnections  int64 `json:"egressMaxConnections,omitempty"`
	// DSCP marks what the endpoint sends: 0 to 63 or a name such as AF11; nil leaves
	// packets as they are.
	DSCP *DSCP `json:"dscp,omitempty"`
}
