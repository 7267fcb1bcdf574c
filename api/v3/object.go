package v3

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Group is the API group of every resource in this package, but for those of
// Kubernetes.
const Group = "projectcalico.org"

// APIVersion is the apiVersion of every resource in this package, but for those of
// Kubernetes.
const APIVersion = Group + "/v3"

// Object is a resource of this package: a pointer to one of its kinds. No type of
// another package implements it, so a switch over the kinds can be complete.
type Object interface {
	// Meta returns the metadata; changing it changes the object.
	Meta() *metav1.ObjectMeta
	// Type returns the kind and API version that are printed with the object.
	Type() *metav1.TypeMeta

	// ours keeps the interface closed.
	ours()
}

// Kind describes one kind of resource.
type Kind struct {
	Name       string   // "IPPool": the kind field, but for the kinds of Kubernetes; see TypeMeta
	Plural     string   // as in keys and URLs: "ippools"
	Namespaced bool     // false: one for the whole cluster
	ShortNames []string // other names that the command line takes
}

// kinds is sorted by name and never written.
var kinds = [...]Kind{
	{"BGPConfiguration", "bgpconfigurations", false, []string{"bgpconfig", "bgpconfigs"}},
	{"BGPFilter", "bgpfilters", false, []string{"bgpf", "bf", "bfs"}},
	{"BGPPeer", "bgppeers", false, []string{"bgpp", "bps", "bp"}},
	{"BlockAffinity", "blockaffinities", false, []string{"affinity", "affinities"}},
	{"CalicoNodeStatus", "caliconodestatuses", false, []string{"nodestatus", "nodestatuses"}},
	{"ClusterInformation", "clusterinformations", false, []string{"clusterinfo", "clusterinfos"}},
	{"FelixConfiguration", "felixconfigurations", false, []string{"felixconfig", "felixconfigs", "fc", "fcs"}},
	{"GlobalNetworkPolicy", "globalnetworkpolicies", false, []string{"gnp", "gnps"}},
	{"GlobalNetworkSet", "globalnetworksets", false, []string{"gnetsets"}},
	{"HostEndpoint", "hostendpoints", false, []string{"hep", "heps"}},
	{"IPAMBlock", "ipamblocks", false, nil},
	{"IPAMConfiguration", "ipamconfigurations", false, []string{"ipamconfig", "ipamconfigs"}},
	{"IPAMHandle", "ipamhandles", false, nil},
	{"IPPool", "ippools", false, []string{"ipp", "ipps", "pool", "pools"}},
	{"IPReservation", "ipreservations", false, []string{"reservation", "reservations"}},
	{"KubeControllersConfiguration", "kubecontrollersconfigurations", false, []string{"kubecontrollersconfig", "kubecontrollersconfigs"}},
	{"KubernetesClusterNetworkPolicy", "kubernetesclusternetworkpolicies", false, []string{"kcnp", "clusternetworkpolicy", "clusternetworkpolicies"}},
	{"KubernetesEndpointSlice", "kubernetesendpointslices", true, []string{"endpointslice", "endpointslices"}},
	{"KubernetesNetworkPolicy", "kubernetesnetworkpolicies", true, []string{"knp", "knps"}},
	{"NetworkPolicy", "networkpolicies", true, []string{"np", "policy", "policies", "pol", "pols"}},
	{"NetworkSet", "networksets", true, []string{"netsets"}},
	{"Node", "nodes", false, []string{"no", "nos"}},
	{"Profile", "profiles", false, []string{"pro", "pros"}},
	{"StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", false, []string{"sgnp"}},
	{"StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", true, []string{"sknp", "skpol"}},
	{"StagedNetworkPolicy", "stagednetworkpolicies", true, []string{"snp", "spol"}},
	{"Tier", "tiers", false, nil},
	{"WorkloadEndpoint", "workloadendpoints", true, []string{"wep", "weps"}},
}

// TypeMeta returns the kind and the apiVersion that documents of the kind have.
// For the kinds of Kubernetes they are those of Kubernetes.
func (k Kind) TypeMeta() metav1.TypeMeta {
	switch k.Name {
	case "KubernetesClusterNetworkPolicy":
		return metav1.TypeMeta{Kind: "ClusterNetworkPolicy", APIVersion: "policy.networking.k8s.io/v1alpha2"}
	case "KubernetesEndpointSlice":
		return metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"}
	case "KubernetesNetworkPolicy":
		return metav1.TypeMeta{Kind: "NetworkPolicy", APIVersion: "networking.k8s.io/v1"}
	}
	return metav1.TypeMeta{Kind: k.Name, APIVersion: APIVersion}
}

// kindOfDocument finds the kind that documents with these two fields are of.
func kindOfDocument(kind, version string) (Kind, bool) {
	for _, k := range kinds {
		if t := k.TypeMeta(); t.Kind == kind && t.APIVersion == version {
			return k, true
		}
	}
	return Kind{}, false
}

// Kinds returns all kinds of this package, by name. The short names are shared and
// must not be changed.
func Kinds() []Kind { return slices.Clone(kinds[:]) }

// New returns an empty object of the kind, its kind and API version set as in a
// document. The kind is the name of a [Kind], in its case; false means that there is
// no such kind.
func New(kind string) (Object, bool) {
	var o Object
	switch kind {
	case "BGPConfiguration":
		o = new(BGPConfiguration)
	case "BGPFilter":
		o = new(BGPFilter)
	case "BGPPeer":
		o = new(BGPPeer)
	case "BlockAffinity":
		o = new(BlockAffinity)
	case "CalicoNodeStatus":
		o = new(CalicoNodeStatus)
	case "ClusterInformation":
		o = new(ClusterInformation)
	case "FelixConfiguration":
		o = new(FelixConfiguration)
	case "GlobalNetworkPolicy":
		o = new(GlobalNetworkPolicy)
	case "GlobalNetworkSet":
		o = new(GlobalNetworkSet)
	case "HostEndpoint":
		o = new(HostEndpoint)
	case "IPAMBlock":
		o = new(IPAMBlock)
	case "IPAMConfiguration":
		o = new(IPAMConfiguration)
	case "IPAMHandle":
		o = new(IPAMHandle)
	case "IPPool":
		o = new(IPPool)
	case "IPReservation":
		o = new(IPReservation)
	case "KubeControllersConfiguration":
		o = new(KubeControllersConfiguration)
	case "KubernetesClusterNetworkPolicy":
		o = new(KubernetesClusterNetworkPolicy)
	case "KubernetesEndpointSlice":
		o = new(KubernetesEndpointSlice)
	case "KubernetesNetworkPolicy":
		o = new(KubernetesNetworkPolicy)
	case "NetworkPolicy":
		o = new(NetworkPolicy)
	case "NetworkSet":
		o = new(NetworkSet)
	case "Node":
		o = new(Node)
	case "Profile":
		o = new(Profile)
	case "StagedGlobalNetworkPolicy":
		o = new(StagedGlobalNetworkPolicy)
	case "StagedKubernetesNetworkPolicy":
		o = new(StagedKubernetesNetworkPolicy)
	case "StagedNetworkPolicy":
		o = new(StagedNetworkPolicy)
	case "Tier":
		o = new(Tier)
	case "WorkloadEndpoint":
		o = new(WorkloadEndpoint)
	default:
		return nil, false
	}
	*o.Type() = KindOf(o).TypeMeta()
	return o, true
}

// KindByName finds a kind by its name, its plural or a short name, in any case.
func KindByName(name string) (Kind, bool) {
	i := slices.IndexFunc(kinds[:], func(k Kind) bool {
		return strings.EqualFold(name, k.Name) || strings.EqualFold(name, k.Plural) ||
			slices.ContainsFunc(k.ShortNames, func(s string) bool { return strings.EqualFold(name, s) })
	})
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

// KindOf returns the kind of o, whatever its type metadata says.
func KindOf(o Object) Kind {
	name := ""
	switch o.(type) {
	case *BGPConfiguration:
		name = "BGPConfiguration"
	case *BGPFilter:
		name = "BGPFilter"
	case *BGPPeer:
		name = "BGPPeer"
	case *BlockAffinity:
		name = "BlockAffinity"
	case *CalicoNodeStatus:
		name = "CalicoNodeStatus"
	case *ClusterInformation:
		name = "ClusterInformation"
	case *FelixConfiguration:
		name = "FelixConfiguration"
	case *GlobalNetworkPolicy:
		name = "GlobalNetworkPolicy"
	case *GlobalNetworkSet:
		name = "GlobalNetworkSet"
	case *HostEndpoint:
		name = "HostEndpoint"
	case *IPAMBlock:
		name = "IPAMBlock"
	case *IPAMConfig:
		return Kind{Name: "IPAMConfig"} // its name in lower case means IPAMConfiguration to users
	case *IPAMConfiguration:
		name = "IPAMConfiguration"
	case *IPAMHandle:
		name = "IPAMHandle"
	case *IPPool:
		name = "IPPool"
	case *IPReservation:
		name = "IPReservation"
	case *KubeControllersConfiguration:
		name = "KubeControllersConfiguration"
	case *KubernetesClusterNetworkPolicy:
		name = "KubernetesClusterNetworkPolicy"
	case *KubernetesEndpointSlice:
		name = "KubernetesEndpointSlice"
	case *KubernetesNetworkPolicy:
		name = "KubernetesNetworkPolicy"
	case *NetworkPolicy:
		name = "NetworkPolicy"
	case *NetworkSet:
		name = "NetworkSet"
	case *Node:
		name = "Node"
	case *Profile:
		name = "Profile"
	case *StagedGlobalNetworkPolicy:
		name = "StagedGlobalNetworkPolicy"
	case *StagedKubernetesNetworkPolicy:
		name = "StagedKubernetesNetworkPolicy"
	case *StagedNetworkPolicy:
		name = "StagedNetworkPolicy"
	case *Tier:
		name = "Tier"
	case *WorkloadEndpoint:
		name = "WorkloadEndpoint"
	}
	i, _ := slices.BinarySearchFunc(kinds[:], name, func(k Kind, name string) int { return strings.Compare(k.Name, name) })
	return kinds[i]
}
