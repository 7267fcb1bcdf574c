package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The types in this file are those objects of the Kubernetes API that policy is
// made of, with all their fields. Their JSON is that of Kubernetes, kind and version
// included: networking.k8s.io/v1 NetworkPolicy and discovery.k8s.io/v1 EndpointSlice
// here, policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy in clusterpolicy.go.
// In Go and in keys their kinds are called Kubernetes…, since two APIs have a
// NetworkPolicy.

// The parts of Kubernetes' own types that fields here have, so that whoever reads
// such a field need not know Kubernetes.
type (
	// ObjectMeta is the metadata of an object.
	ObjectMeta = metav1.ObjectMeta
	// Duration is a length of time; its text is that of Go, such as "90s".
	Duration = metav1.Duration
	// LabelSelector is a selector of Kubernetes; all of its parts must hold.
	LabelSelector = metav1.LabelSelector
	// LabelSelectorRequirement is one expression of a LabelSelector.
	LabelSelectorRequirement = metav1.LabelSelectorRequirement
)

// The operators of a [LabelSelectorRequirement].
const (
	LabelIn           = metav1.LabelSelectorOpIn
	LabelNotIn        = metav1.LabelSelectorOpNotIn
	LabelExists       = metav1.LabelSelectorOpExists
	LabelDoesNotExist = metav1.LabelSelectorOpDoesNotExist
)

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
	PodSelector  metav1.LabelSelector             `json:"podSelector"`
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

// KubernetesEndpoint is one backend. Only its addresses count for policy: as in
// Calico, one that is not ready is still of its service.
type KubernetesEndpoint struct {
	Addresses          []string                      `json:"addresses"`
	Conditions         *KubernetesEndpointConditions `json:"conditions,omitempty"`
	Hostname           *string                       `json:"hostname,omitempty"`
	TargetRef          *KubernetesObjectReference    `json:"targetRef,omitempty"`
	DeprecatedTopology map[string]string             `json:"deprecatedTopology,omitempty"`
	NodeName           *string                       `json:"nodeName,omitempty"`
	Zone               *string                       `json:"zone,omitempty"`
	Hints              *KubernetesEndpointHints      `json:"hints,omitempty"`
}

// KubernetesEndpointConditions is the state of a backend; nil is unknown.
type KubernetesEndpointConditions struct {
	Ready       *bool `json:"ready,omitempty"`
	Serving     *bool `json:"serving,omitempty"`
	Terminating *bool `json:"terminating,omitempty"`
}

// KubernetesObjectReference names the object behind a backend, usually a pod.
type KubernetesObjectReference struct {
	Kind            string `json:"kind,omitempty"`
	Namespace       string `json:"namespace,omitempty"`
	Name            string `json:"name,omitempty"`
	UID             string `json:"uid,omitempty"`
	APIVersion      string `json:"apiVersion,omitempty"`
	ResourceVersion string `json:"resourceVersion,omitempty"`
	FieldPath       string `json:"fieldPath,omitempty"`
}

// KubernetesEndpointHints says which zones and nodes should use a backend.
type KubernetesEndpointHints struct {
	ForZones []KubernetesHint `json:"forZones,omitempty"`
	ForNodes []KubernetesHint `json:"forNodes,omitempty"`
}

// KubernetesHint is the name of a zone or of a node.
type KubernetesHint struct {
	Name string `json:"name"`
}

// KubernetesEndpointPort is a port of the backends; a nil Port means all ports.
type KubernetesEndpointPort struct {
	Name        *string `json:"name,omitempty"`
	Protocol    *string `json:"protocol,omitempty"` // default TCP
	Port        *int32  `json:"port,omitempty"`
	AppProtocol *string `json:"appProtocol,omitempty"`
}
