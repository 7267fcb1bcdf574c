package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// PolicyType is a direction of traffic, seen from the endpoint.
type PolicyType string

// The directions that a policy may apply to.
const (
	PolicyIngress PolicyType = "Ingress"
	PolicyEgress  PolicyType = "Egress"
)

// StagedAction says what a staged policy would do if it were enforced.
type StagedAction string

// The actions of staged policies.
const (
	StagedSet    StagedAction = "Set"
	StagedDelete StagedAction = "Delete"
	StagedLearn  StagedAction = "Learn"
	StagedIgnore StagedAction = "Ignore"
)

// NetworkPolicy is rules for the endpoints of one namespace.
type NetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec NetworkPolicySpec `json:"spec"`
}

// NetworkPolicySpec is whom the policy applies to, when, and its rules.
type NetworkPolicySpec struct {
	// Tier is the stage of evaluation; default "default".
	Tier string `json:"tier,omitempty"`
	// Order sorts the policies of a tier, lower first; nil is last, ties go by name.
	Order *float64 `json:"order,omitempty"`
	// Ingress and Egress are the rules, in order; at most 1024 each.
	Ingress []Rule `json:"ingress,omitempty"`
	Egress  []Rule `json:"egress,omitempty"`
	// Selector chooses endpoints of the namespace; empty means all of them.
	Selector string `json:"selector,omitempty"`
	// Types are the directions the policy applies to. Default: those that have
	// rules, Ingress if there are none.
	Types []PolicyType `json:"types,omitempty"`
	// ServiceAccountSelector narrows Selector by the labels of service accounts.
	ServiceAccountSelector string `json:"serviceAccountSelector,omitempty"`
	// PerformanceHints may hold AssumeNeededOnEveryNode.
	PerformanceHints []string `json:"performanceHints,omitempty"`
}

// GlobalNetworkPolicy is rules for endpoints of all namespaces and of hosts.
type GlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec GlobalNetworkPolicySpec `json:"spec"`
}

// GlobalNetworkPolicySpec is whom the policy applies to, when, and its rules.
type GlobalNetworkPolicySpec struct {
	Tier    string   `json:"tier,omitempty"`
	Order   *float64 `json:"order,omitempty"`
	Ingress []Rule   `json:"ingress,omitempty"`
	Egress  []Rule   `json:"egress,omitempty"`
	// Selector chooses workload and host endpoints; empty means all.
	Selector string       `json:"selector,omitempty"`
	Types    []PolicyType `json:"types,omitempty"`
	// DoNotTrack applies the rules before connection tracking, to host endpoints.
	DoNotTrack bool `json:"doNotTrack,omitempty"`
	// PreDNAT applies the rules before destination NAT, to host endpoints.
	PreDNAT bool `json:"preDNAT,omitempty"`
	// ApplyOnForward applies the rules also to what host endpoints forward.
	ApplyOnForward         bool     `json:"applyOnForward,omitempty"`
	ServiceAccountSelector string   `json:"serviceAccountSelector,omitempty"`
	PerformanceHints       []string `json:"performanceHints,omitempty"`
	// NamespaceSelector narrows Selector to namespaces with these labels.
	NamespaceSelector string `json:"namespaceSelector,omitempty"`
}

// StagedNetworkPolicy is a NetworkPolicy that is counted but not enforced.
type StagedNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec StagedNetworkPolicySpec `json:"spec"`
}

// StagedNetworkPolicySpec is a NetworkPolicySpec with a staged action.
type StagedNetworkPolicySpec struct {
	// StagedAction is Set or Delete; default Set.
	StagedAction           StagedAction `json:"stagedAction,omitempty"`
	Tier                   string       `json:"tier,omitempty"`
	Order                  *float64     `json:"order,omitempty"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	Selector               string       `json:"selector,omitempty"`
	Types                  []PolicyType `json:"types,omitempty"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"`
}

// StagedGlobalNetworkPolicy is a GlobalNetworkPolicy that is counted but not enforced.
type StagedGlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec StagedGlobalNetworkPolicySpec `json:"spec"`
}

// StagedGlobalNetworkPolicySpec is a GlobalNetworkPolicySpec with a staged action.
type StagedGlobalNetworkPolicySpec struct {
	StagedAction           StagedAction `json:"stagedAction,omitempty"`
	Tier                   string       `json:"tier,omitempty"`
	Order                  *float64     `json:"order,omitempty"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	Selector               string       `json:"selector,omitempty"`
	Types                  []PolicyType `json:"types,omitempty"`
	DoNotTrack             bool         `json:"doNotTrack,omitempty"`
	PreDNAT                bool         `json:"preDNAT,omitempty"`
	ApplyOnForward         bool         `json:"applyOnForward,omitempty"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	NamespaceSelector      string       `json:"namespaceSelector,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"`
}

// NetworkSet names addresses outside the cluster, for the policies of a namespace.
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec NetworkSetSpec `json:"spec"`
}

// GlobalNetworkSet names addresses outside the cluster.
type GlobalNetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec NetworkSetSpec `json:"spec"`
}

// NetworkSetSpec is the addresses; the set's labels make selectors find them.
type NetworkSetSpec struct {
	// Nets are addresses and prefixes; they may overlap.
	Nets []string `json:"nets,omitempty"`
}

// HostEndpoint is one or all interfaces of a node, so that policy applies to
// what the node itself sends, receives and forwards.
type HostEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec HostEndpointSpec `json:"spec"`
}

// HostEndpointSpec is where the endpoint is and what applies to it.
type HostEndpointSpec struct {
	// Node is the name of the node; it is required.
	Node string `json:"node,omitempty"`
	// InterfaceName is one interface, or * for all of the node's that lead to no
	// workload; empty: the interfaces that have one of ExpectedIPs.
	InterfaceName string `json:"interfaceName,omitempty"`
	// ExpectedIPs are the addresses that selectors find.
	ExpectedIPs []string `json:"expectedIPs,omitempty"`
	// Profiles are applied in order after all tiers.
	Profiles []string `json:"profiles,omitempty"`
	// Ports are names for ports of the host.
	Ports []EndpointPort `json:"ports,omitempty"`
}

// EndpointPort is a port with a name that rules may use.
type EndpointPort struct {
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
}
