package v3

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Meta implements [Object].
func (o *BGPConfiguration) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *BGPConfiguration) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*BGPConfiguration) ours() {}

// Meta implements [Object].
func (o *BGPPeer) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *BGPPeer) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*BGPPeer) ours() {}

// Meta implements [Object].
func (o *BlockAffinity) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *BlockAffinity) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*BlockAffinity) ours() {}

// Meta implements [Object].
func (o *ClusterInformation) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *ClusterInformation) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*ClusterInformation) ours() {}

// Meta implements [Object].
func (o *FelixConfiguration) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *FelixConfiguration) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*FelixConfiguration) ours() {}

// Meta implements [Object].
func (o *IPAMBlock) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *IPAMBlock) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*IPAMBlock) ours() {}

// Meta implements [Object].
func (o *IPAMConfiguration) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *IPAMConfiguration) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*IPAMConfiguration) ours() {}

// Meta implements [Object].
func (o *IPAMHandle) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *IPAMHandle) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*IPAMHandle) ours() {}

// Meta implements [Object].
func (o *IPPool) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *IPPool) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*IPPool) ours() {}

// Meta implements [Object].
func (o *IPReservation) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *IPReservation) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*IPReservation) ours() {}

// Meta implements [Object].
func (o *Node) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *Node) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*Node) ours() {}

// Meta implements [Object].
func (o *Profile) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *Profile) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*Profile) ours() {}

// Meta implements [Object].
func (o *Tier) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *Tier) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*Tier) ours() {}

// Meta implements [Object].
func (o *WorkloadEndpoint) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *WorkloadEndpoint) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*WorkloadEndpoint) ours() {}

// Meta implements [Object].
func (o *GlobalNetworkPolicy) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *GlobalNetworkPolicy) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*GlobalNetworkPolicy) ours() {}

// Meta implements [Object].
func (o *GlobalNetworkSet) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *GlobalNetworkSet) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*GlobalNetworkSet) ours() {}

// Meta implements [Object].
func (o *HostEndpoint) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *HostEndpoint) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*HostEndpoint) ours() {}

// Meta implements [Object].
func (o *KubernetesClusterNetworkPolicy) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *KubernetesClusterNetworkPolicy) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*KubernetesClusterNetworkPolicy) ours() {}

// Meta implements [Object].
func (o *KubernetesEndpointSlice) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *KubernetesEndpointSlice) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*KubernetesEndpointSlice) ours() {}

// Meta implements [Object].
func (o *KubernetesNetworkPolicy) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *KubernetesNetworkPolicy) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*KubernetesNetworkPolicy) ours() {}

// Meta implements [Object].
func (o *NetworkPolicy) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *NetworkPolicy) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*NetworkPolicy) ours() {}

// Meta implements [Object].
func (o *NetworkSet) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *NetworkSet) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*NetworkSet) ours() {}

// Meta implements [Object].
func (o *StagedGlobalNetworkPolicy) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *StagedGlobalNetworkPolicy) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*StagedGlobalNetworkPolicy) ours() {}

// Meta implements [Object].
func (o *StagedKubernetesNetworkPolicy) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *StagedKubernetesNetworkPolicy) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*StagedKubernetesNetworkPolicy) ours() {}

// Meta implements [Object].
func (o *StagedNetworkPolicy) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *StagedNetworkPolicy) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*StagedNetworkPolicy) ours() {}

// Meta implements [Object].
func (o *BGPFilter) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *BGPFilter) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*BGPFilter) ours() {}

// Meta implements [Object].
func (o *CalicoNodeStatus) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *CalicoNodeStatus) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*CalicoNodeStatus) ours() {}

// Meta implements [Object].
func (o *KubeControllersConfiguration) Meta() *metav1.ObjectMeta { return &o.ObjectMeta }

// Type implements [Object].
func (o *KubeControllersConfiguration) Type() *metav1.TypeMeta { return &o.TypeMeta }

func (*KubeControllersConfiguration) ours() {}
