package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ClusterPolicyTier says when a ClusterNetworkPolicy is evaluated.
type ClusterPolicyTier string

// The tiers of ClusterNetworkPolicy: before all network policies, and after them.
const (
	ClusterPolicyAdmin    ClusterPolicyTier = "Admin"
	ClusterPolicyBaseline ClusterPolicyTier = "Baseline"
)

// ClusterPolicyAction is what a rule of a ClusterNetworkPolicy does.
type ClusterPolicyAction string

// The actions. Pass goes on with the next tier.
const (
	ClusterPolicyAccept ClusterPolicyAction = "Accept"
	ClusterPolicyDeny   ClusterPolicyAction = "Deny"
	ClusterPolicyPass   ClusterPolicyAction = "Pass"
)

// KubernetesClusterNetworkPolicy is a ClusterNetworkPolicy of
// policy.networking.k8s.io/v1alpha2: rules for the pods of all namespaces. Traffic
// of a direction without rules, or that no rule matches, goes to the next policy.
type KubernetesClusterNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   KubernetesClusterNetworkPolicySpec   `json:"spec"`
	Status KubernetesClusterNetworkPolicyStatus `json:"status,omitzero"`
}

// KubernetesClusterNetworkPolicySpec is the pods, and the rules in order.
type KubernetesClusterNetworkPolicySpec struct {
	Tier ClusterPolicyTier `json:"tier"`
	// Priority is 0 to 1000; lower comes first in the tier.
	Priority int32 `json:"priority"`
	// Subject is the pods that the policy applies to; none that use the host's network.
	Subject ClusterPolicySubject       `json:"subject"`
	Ingress []ClusterPolicyIngressRule `json:"ingress,omitempty"` // at most 25
	Egress  []ClusterPolicyEgressRule  `json:"egress,omitempty"`  // at most 25
}

// KubernetesClusterNetworkPolicyStatus is what an implementation reports.
type KubernetesClusterNetworkPolicyStatus struct {
	Conditions []metav1.Condition `json:"conditions"`
}

// ClusterPolicySubject is all pods of some namespaces, or some pods of them;
// exactly one is set.
type ClusterPolicySubject struct {
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods       *NamespacedPods       `json:"pods,omitempty"`
}

// NamespacedPods is pods by their own labels and those of their namespaces. An
// empty selector selects all.
type NamespacedPods struct {
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	PodSelector       metav1.LabelSelector `json:"podSelector"`
}

// ClusterPolicyIngressRule acts on traffic from any of the peers.
type ClusterPolicyIngressRule struct {
	Name   string              `json:"name,omitempty"` // at most 100 characters
	Action ClusterPolicyAction `json:"action"`
	From   []ClusterPolicyPeer `json:"from"` // 1 to 25
	// Protocols are alternatives, 1 to 25; nil matches all traffic.
	Protocols []ClusterPolicyProtocol `json:"protocols,omitempty"`
}

// ClusterPolicyEgressRule acts on traffic to any of the peers.
type ClusterPolicyEgressRule struct {
	Name      string                    `json:"name,omitempty"` // at most 100 characters
	Action    ClusterPolicyAction       `json:"action"`
	To        []ClusterPolicyEgressPeer `json:"to"` // 1 to 25
	Protocols []ClusterPolicyProtocol   `json:"protocols,omitempty"`
}

// ClusterPolicyPeer is all pods of some namespaces, or some pods of them; exactly one
// is set. One in which nothing is set has a field of a later version: then a rule
// that accepts must match nothing, and any other must deny all.
type ClusterPolicyPeer struct {
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods       *NamespacedPods       `json:"pods,omitempty"`
}

// ClusterPolicyEgressPeer is one sort of destination; exactly one field is set. For
// one in which none is set see [ClusterPolicyPeer].
type ClusterPolicyEgressPeer struct {
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods       *NamespacedPods       `json:"pods,omitempty"`
	// Nodes is all addresses of the nodes with these labels.
	Nodes *metav1.LabelSelector `json:"nodes,omitempty"`
	// Networks is 1 to 25 prefixes, inside and outside the cluster.
	Networks []string `json:"networks,omitempty"`
	// DomainNames is 1 to 25 names, exact or "*.name" for all below it; only rules
	// that accept may have them.
	DomainNames []string `json:"domainNames,omitempty"`
}

// ClusterPolicyProtocol is a protocol with its ports, or the name of a port of the
// destination pod with whatever protocol that has; exactly one is set.
type ClusterPolicyProtocol struct {
	TCP                  *ClusterPolicyPorts `json:"tcp,omitempty"`
	UDP                  *ClusterPolicyPorts `json:"udp,omitempty"`
	SCTP                 *ClusterPolicyPorts `json:"sctp,omitempty"`
	DestinationNamedPort string              `json:"destinationNamedPort,omitempty"`
}

// ClusterPolicyPorts is what a protocol matches beyond its number.
type ClusterPolicyPorts struct {
	DestinationPort *ClusterPolicyPort `json:"destinationPort,omitempty"`
}

// ClusterPolicyPort is a port or a range of them; exactly one is set.
type ClusterPolicyPort struct {
	Number int32                   `json:"number,omitempty"` // 1 to 65535
	Range  *ClusterPolicyPortRange `json:"range,omitempty"`
}

// ClusterPolicyPortRange is the ports from Start to End, both included.
type ClusterPolicyPortRange struct {
	Start int32 `json:"start"` // 1 to 65535, less than End
	End   int32 `json:"end"`
}
