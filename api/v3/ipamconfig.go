package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IPAMConfig is the setting that steers address assignment where the datastore is
// etcd: the value of /calico/ipam/v2/config, which holds the spec alone. Users change
// it by command, never by manifest, so it is in neither [Kinds] nor [New]; where the
// datastore is Kubernetes, [IPAMConfiguration] takes its place. Its name is default.
type IPAMConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec IPAMConfigSpec `json:"spec"`
}

// IPAMConfigSpec is the setting, in the JSON form and the order of fields in which
// Calico stores it: what is false or zero is left out.
type IPAMConfigSpec struct {
	// StrictAffinity forbids borrowing: a node takes addresses only from its blocks.
	StrictAffinity bool `json:"strict_affinity,omitempty"`
	// AutoAllocateBlocks lets a node claim a block when it has none.
	AutoAllocateBlocks bool `json:"auto_allocate_blocks,omitempty"`
	// MaxBlocksPerHost limits the blocks of a node. 0 means 20. Calico's
	// tool stores negative numbers too.
	MaxBlocksPerHost int `json:"maxBlocksPerHost,omitempty"`
	// KubeVirtVMAddressPersistence, Enabled or Disabled, keeps a virtual machine's
	// address when its pod changes; nil means Enabled.
	KubeVirtVMAddressPersistence *string `json:"kubeVirtVMAddressPersistence,omitempty"`
	// IPCooldownSeconds keeps a released address unused for so long.
	IPCooldownSeconds int `json:"ipCooldownSeconds,omitempty"`
}

// NewIPAMConfig returns what holds where nothing is stored.
func NewIPAMConfig() *IPAMConfig {
	enabled := "Enabled"
	return &IPAMConfig{
		TypeMeta:   metav1.TypeMeta{Kind: "IPAMConfig", APIVersion: APIVersion},
		ObjectMeta: metav1.ObjectMeta{Name: "default"},
		Spec:       IPAMConfigSpec{AutoAllocateBlocks: true, KubeVirtVMAddressPersistence: &enabled},
	}
}

// Meta implements [Object].
func (o *IPAMConfig) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *IPAMConfig) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*IPAMConfig) ours() {}
