package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPPool is a range of addresses that workloads, tunnels and load balancers are
// given addresses from.
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   IPPoolSpec    `json:"spec"`
	Status *IPPoolStatus `json:"status,omitempty"`
}

// IPPoolSpec is what the user asks of a pool.
type IPPoolSpec struct {
	// CIDR is the range, masked, IPv4 or IPv6. It cannot change.
	CIDR string `json:"cidr"`
	// VXLANMode says when traffic to addresses of the pool is wrapped in VXLAN.
	// Default Never.
	VXLANMode EncapMode `json:"vxlanMode,omitempty"`
	// IPIPMode says the same for IP in IP, IPv4 only. Default Never. At most one of
	// the two modes is other than Never.
	IPIPMode EncapMode `json:"ipipMode,omitempty"`
	// NATOutgoing rewrites the source of traffic that leaves all pools to the
	// node's address.
	NATOutgoing bool `json:"natOutgoing,omitempty"`
	// Disabled stops new addresses from being taken; routes stay.
	Disabled bool `json:"disabled,omitempty"`
	// DisableBGPExport keeps the pool's routes inside the mesh.
	DisableBGPExport bool `json:"disableBGPExport,omitempty"`
	// BlockSize is the prefix length of the blocks the pool is cut into: 20 to 32
	// (default 26) or, for IPv6, 116 to 128 (default 122). It cannot change.
	BlockSize int `json:"blockSize,omitempty"`
	// NodeSelector chooses the nodes that take addresses from the pool. Default all().
	NodeSelector string `json:"nodeSelector,omitempty"`
	// NamespaceSelector chooses the namespaces whose pods do; empty means all.
	NamespaceSelector string `json:"namespaceSelector,omitempty"`
	// AllowedUses says what the addresses are for. Default Workload and Tunnel.
	AllowedUses []IPPoolUse `json:"allowedUses,omitempty"`
	// AssignmentMode Manual gives addresses only to who names the pool or the
	// address. Default Automatic.
	AssignmentMode AssignmentMode `json:"assignmentMode,omitempty"`
}

// IPPoolStatus is what the system reports about a pool.
type IPPoolStatus struct {
	// Conditions holds the condition Allocatable, with the reason OK,
	// PoolDisabled, CIDROverlap or Terminating.
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// EncapMode says when packets between nodes are wrapped.
type EncapMode string

// The encapsulation modes: never, always, or only between nodes that are not in
// one subnet.
const (
	EncapNever       EncapMode = "Never"
	EncapAlways      EncapMode = "Always"
	EncapCrossSubnet EncapMode = "CrossSubnet"
)

// IPPoolUse is a purpose of a pool's addresses.
type IPPoolUse string

// The uses of a pool. LoadBalancer excludes the other two.
const (
	UseWorkload     IPPoolUse = "Workload"
	UseTunnel       IPPoolUse = "Tunnel"
	UseLoadBalancer IPPoolUse = "LoadBalancer"
)

// AssignmentMode says whether a pool takes part in automatic assignment.
type AssignmentMode string

// The assignment modes.
const (
	AssignAutomatic AssignmentMode = "Automatic"
	AssignManual    AssignmentMode = "Manual"
)
