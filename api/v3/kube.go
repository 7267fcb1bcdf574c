package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The types in this file are those objects of the Kubernetes API that policy is
// made of, with the fields that weft reads. Their JSON is that of Kubernetes:
// networking.k8s.io/v1 NetworkPolicy, policy.networking.k8s.io/v1alpha2
// ClusterNetworkPolicy and discovery.k8s.io/v1 EndpointSlice.

// KubernetesNetworkPolicy is a NetworkPolicy of networking.k8s.io/v1.
type KubernetesNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec KubernetesNetworkPolicySpec `json:"spec"`
}

// KubernetesNetworkPolicySpec is the spec of a NetworkPolicy of networking.k8s.io/v1.
type KubernetesNetworkPolicySpec struct {
	// PodSelector chooses pods of the namespace; empty means all of them.
	PodSelector metav1.LabelSelector             `json:"podSelector"`
	Ingress     []KubernetesNetworkPolicyIngress `json:"ingress,omitempty"`
	Egress      []KubernetesNetworkPolicyEgress  `json:"egress,omitempty"`
	PolicyTypes []PolicyType                     `json:"policyTypes,omitempty"`
}

// KubernetesNetworkPolicyIngress allows traffic from the peers to the ports.
type KubernetesNetworkPolicyIngress struct {
	Ports []KubernetesNetworkPolicyPort `json:"ports,omitempty"`
	From  []KubernetesNetworkPolicyPeer `json:"from,omitempty"`
}

// KubernetesNetworkPolicyEgress allows traffic to the ports of the peers.
type KubernetesNetworkPolicyEgress struct {
	Ports []KubernetesNetworkPolicyPort `json:"ports,omitempty"`
	To    []KubernetesNetworkPolicyPeer `json:"to,omitempty"`
}

// KubernetesNetworkPolicyPort is a port, a range of ports, or all of a protocol.
type KubernetesNetworkPolicyPort struct {
	Protocol *string `json:"protocol,omitempty"` // TCP (default), UDP or SCTP
	Port     *Port   `json:"port,omitempty"`     // number or name; nil: all
	EndPort  *int32  `json:"endPort,omitempty"`  // with a number: the last of a range
}

// KubernetesNetworkPolicyPeer is pods, pods of namespaces, or addresses.
type KubernetesNetworkPolicyPeer struct {
	PodSelector       *metav1.LabelSelector `json:"podSelector,omitempty"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	IPBlock           *KubernetesIPBlock    `json:"ipBlock,omitempty"`
}

// KubernetesIPBlock is a prefix without parts of it.
type KubernetesIPBlock struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

// StagedKubernetesNetworkPolicy is a NetworkPolicy of Kubernetes that is counted
// but not enforced.
type StagedKubernetesNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec StagedKubernetesNetworkPolicySpec `json:"spec"`
}

// StagedKubernetesNetworkPolicySpec is a spec of Kubernetes with a staged action.
type StagedKubernetesNetworkPolicySpec struct {
	StagedAction StagedAction                     `json:"stagedAction,omitempty"`
	PodSelector  metav1.LabelSelector             `json:"podSelector,omitzero"`
	Ingress      []KubernetesNetworkPolicyIngress `json:"ingress,omitempty"`
	Egress       []KubernetesNetworkPolicyEgress  `json:"egress,omitempty"`
	PolicyTypes  []PolicyType                     `json:"policyTypes,omitempty"`
}

// KubernetesEndpointSlice is an EndpointSlice of discovery.k8s.io/v1: addresses
// behind a service.
type KubernetesEndpointSlice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	// AddressType is IPv4, IPv6 or FQDN.
	AddressType string               `json:"addressType"`
	Endpoints   []KubernetesEndpoint `json:"endpoints"`
	// Ports are those of every endpoint of the slice.
	Ports []KubernetesEndpointPort `json:"ports"`
}

// KubernetesEndpoint is one backend.
type KubernetesEndpoint struct {
	Addresses []string `json:"addresses"`
}

// KubernetesEndpointPort is a port of the backends; a nil Port means all ports.
type KubernetesEndpointPort struct {
	Name     *string `json:"name,omitempty"`
	Protocol *string `json:"protocol,omitempty"` // default TCP
	Port     *int32  `json:"port,omitempty"`
}
