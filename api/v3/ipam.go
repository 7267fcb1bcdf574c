package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPReservation names addresses that automatic assignment passes over. Addresses
// already in use and addresses asked for by name are not affected.
type IPReservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec IPReservationSpec `json:"spec"`
}

// IPReservationSpec lists the reserved ranges.
type IPReservationSpec struct {
	// ReservedCIDRs are prefixes of either family; a single address is a /32 or /128.
	ReservedCIDRs []string `json:"reservedCIDRs,omitempty"`
}

// IPAMConfiguration holds the cluster's address management settings; its name is
// default. With etcd Calico keeps it but is steered by /calico/ipam/v2/config.
type IPAMConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec IPAMConfigurationSpec `json:"spec"`
}

// IPAMConfigurationSpec is the settings themselves.
type IPAMConfigurationSpec struct {
	// StrictAffinity forbids borrowing: a node takes addresses only from its blocks.
	StrictAffinity bool `json:"strictAffinity"`
	// AutoAllocateBlocks lets a node claim a block when it has none. Where a document
	// does not say, the API server fills in true; with etcd, as in Calico, it is false.
	// False needs StrictAffinity.
	AutoAllocateBlocks bool `json:"autoAllocateBlocks"`
	// MaxBlocksPerHost limits the blocks of a node; 0 means 20.
	MaxBlocksPerHost int32 `json:"maxBlocksPerHost,omitempty"`
	// IPCooldownSeconds keeps a released address unused for so long, 0 to 1200.
	IPCooldownSeconds int32 `json:"ipCooldownSeconds,omitempty"`
	// KubeVirtVMAddressPersistence, Enabled or Disabled, keeps a virtual machine's
	// address when its pod changes; nil means Enabled.
	KubeVirtVMAddressPersistence *string `json:"kubeVirtVMAddressPersistence,omitempty"`
}

// IPAMBlock is one block of addresses with what each is used for. It is written
// by address management only.
type IPAMBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec IPAMBlockSpec `json:"spec"`
}

// IPAMBlockSpec is a block. Ordinal n stands for the n-th address of CIDR, the
// first being 0.
type IPAMBlockSpec struct {
	// CIDR is the block's range, masked.
	CIDR string `json:"cidr"`
	// Affinity is the owner, "host:" or "virtual:" and a name; nil when there is none.
	Affinity *string `json:"affinity,omitempty"`
	// AffinityClaimTime is when the owner claimed the block.
	AffinityClaimTime *metav1.Time `json:"affinityClaimTime,omitempty"`
	// Allocations gives for each ordinal an index into Attributes; nil is free.
	Allocations []*int `json:"allocations"`
	// Unallocated is the queue of free ordinals; the next is taken from its head.
	Unallocated []int `json:"unallocated"`
	// Attributes describes the holders of addresses.
	Attributes []AllocationAttribute `json:"attributes"`
	// SequenceNumber rises with each change of the block.
	SequenceNumber uint64 `json:"sequenceNumber"`
	// SequenceNumberForAllocation keeps, by decimal ordinal, the sequence number at
	// which the address was given out, so that a late release finds it changed.
	SequenceNumberForAllocation map[string]uint64 `json:"sequenceNumberForAllocation"`
	// Deleted marks a block that is being removed.
	Deleted bool `json:"deleted"`
	// StrictAffinity has no meaning any more; Calico's resource definition requires
	// it, and its etcd form has no such field.
	StrictAffinity bool `json:"strictAffinity"`
}

// AllocationAttribute says who holds an address.
type AllocationAttribute struct {
	// HandleID is the handle; nil when none was given.
	HandleID *string `json:"handle_id,omitempty"`
	// ActiveOwnerAttrs describes the holder: node, namespace, pod, type, timestamp.
	ActiveOwnerAttrs map[string]string `json:"secondary,omitempty"`
	// AlternateOwnerAttrs describes a second holder while a virtual machine moves.
	AlternateOwnerAttrs map[string]string `json:"alternateOwnerAttrs,omitempty"`
	// ReleasedAt is when the address was released and began to cool down; nil while
	// it is in use.
	ReleasedAt *metav1.Time `json:"releasedAt,omitempty"`
}

// BlockAffinity is a node's claim on a block, written before the block itself.
type BlockAffinity struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec BlockAffinitySpec `json:"spec"`
}

// BlockAffinitySpec is the claim.
type BlockAffinitySpec struct {
	// State is pending, confirmed or pendingDeletion.
	State AffinityState `json:"state"`
	// Node is the claimant's name.
	Node string `json:"node"`
	// Type is host or virtual; empty means host.
	Type string `json:"type,omitempty"`
	// CIDR is the block's range.
	CIDR string `json:"cidr"`
	// Deleted marks a claim that is being given up.
	Deleted bool `json:"deleted"`
}

// AffinityState is the progress of a claim.
type AffinityState string

// The states of a claim.
const (
	AffinityPending         AffinityState = "pending"
	AffinityConfirmed       AffinityState = "confirmed"
	AffinityPendingDeletion AffinityState = "pendingDeletion"
)

// IPAMHandle counts the addresses that one holder has in each block, so that they
// can be released together.
type IPAMHandle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec IPAMHandleSpec `json:"spec"`
}

// IPAMHandleSpec is the count.
type IPAMHandleSpec struct {
	// HandleID is the handle.
	HandleID string `json:"handleID"`
	// Block is the number of addresses by block CIDR.
	Block map[string]int `json:"block"`
	// Deleted marks a handle that is being removed.
	Deleted bool `json:"deleted"`
}
