package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Node is a machine of the cluster as the network sees it.
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   NodeSpec   `json:"spec"`
	Status NodeStatus `json:"status"`
}

// NodeSpec is the node's addresses and its part in BGP.
type NodeSpec struct {
	// BGP is nil when the node takes no part in BGP. An empty object is an error.
	BGP *NodeBGPSpec `json:"bgp,omitempty"`
	// IPv4VXLANTunnelAddr and IPv6VXLANTunnelAddr are the addresses of the VXLAN
	// devices, VXLANTunnelMACAddr and VXLANTunnelMACAddrV6 their hardware addresses.
	IPv4VXLANTunnelAddr  string `json:"ipv4VXLANTunnelAddr,omitempty"`
	VXLANTunnelMACAddr   string `json:"vxlanTunnelMACAddr,omitempty"`
	IPv6VXLANTunnelAddr  string `json:"ipv6VXLANTunnelAddr,omitempty"`
	VXLANTunnelMACAddrV6 string `json:"vxlanTunnelMACAddrV6,omitempty"`
	// OrchRefs are the names of this node in orchestrators.
	OrchRefs []OrchRef `json:"orchRefs,omitempty"`
	// Wireguard is nil when the node has no WireGuard addresses.
	Wireguard *NodeWireguardSpec `json:"wireguard,omitempty"`
	// Addresses are all known addresses, with or without a mask.
	Addresses []NodeAddress `json:"addresses,omitempty"`
	// Interfaces are the node's interfaces with their addresses.
	Interfaces []NodeInterface `json:"interfaces,omitempty"`
}

// NodeBGPSpec is the node as a BGP speaker.
type NodeBGPSpec struct {
	// ASNumber overrides the cluster's AS number; nil means the cluster's.
	ASNumber *ASNumber `json:"asNumber,omitempty"`
	// IPv4Address and IPv6Address are the addresses of sessions and next hops, with
	// the length of the subnet they are in.
	IPv4Address string `json:"ipv4Address,omitempty"`
	IPv6Address string `json:"ipv6Address,omitempty"`
	// IPv4IPIPTunnelAddr is the address of tunl0.
	IPv4IPIPTunnelAddr string `json:"ipv4IPIPTunnelAddr,omitempty"`
	// RouteReflectorClusterID makes the node a route reflector; it is an IPv4 address.
	RouteReflectorClusterID string `json:"routeReflectorClusterID,omitempty"`
}

// NodeWireguardSpec is the addresses of the node's WireGuard devices.
type NodeWireguardSpec struct {
	InterfaceIPv4Address string `json:"interfaceIPv4Address,omitempty"`
	InterfaceIPv6Address string `json:"interfaceIPv6Address,omitempty"`
}

// OrchRef is the node's name in one orchestrator.
type OrchRef struct {
	NodeName     string `json:"nodeName,omitempty"`
	Orchestrator string `json:"orchestrator"`
}

// NodeAddress is an address of the node.
type NodeAddress struct {
	Address string `json:"address"`
	// Type is CalicoNodeIP, InternalIP or ExternalIP; other text is kept.
	Type string `json:"type,omitempty"`
}

// The types of node addresses.
const (
	AddressCalicoNodeIP = "CalicoNodeIP"
	AddressInternalIP   = "InternalIP"
	AddressExternalIP   = "ExternalIP"
)

// NodeInterface is an interface of the node.
type NodeInterface struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// NodeStatus is what the node agent reports. It is stored even when empty.
type NodeStatus struct {
	// WireguardPublicKey and WireguardPublicKeyV6 are base64 of 32 bytes.
	WireguardPublicKey   string `json:"wireguardPublicKey,omitempty"`
	WireguardPublicKeyV6 string `json:"wireguardPublicKeyV6,omitempty"`
	// PodCIDRs are the ranges that Kubernetes gave the node.
	PodCIDRs []string `json:"podCIDRs,omitempty"`
}
