package kube

import (
	"fmt"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// Group is where Calico's kinds are in the API.
type Group string

// The groups.
const (
	// Native is Calico's newer form: the resources of package v3 as they are.
	Native Group = "projectcalico.org/v3"
	// Legacy is the form of most clusters that run Calico: the same specs with their
	// metadata in an annotation, and names of their own for what addresses need.
	Legacy Group = "crd.projectcalico.org/v1"
)

// ParseGroup reads the setting CALICO_API_GROUP. Empty is empty: to be found out.
func ParseGroup(text string) (Group, error) {
	switch text {
	case "":
		return "", nil
	case "projectcalico.org", string(Native):
		return Native, nil
	case "crd.projectcalico.org", string(Legacy):
		return Legacy, nil
	}
	return "", fmt.Errorf("CALICO_API_GROUP: %q: must be %s or %s", text, Native, Legacy)
}

// name is the group without its version.
func (g Group) name() string {
	if g == Legacy {
		return "crd.projectcalico.org"
	}
	return v3.Group
}

// resource is one collection of the API.
type resource struct {
	path       string // "/apis/GROUP/VERSION"
	plural     string
	namespaced bool
	// optional says that a cluster without it has no objects of it, and that this is
	// no fault.
	optional bool
}

// crd is the name of the resource's definition: ippools.projectcalico.org.
func (r resource) crd() string {
	if group := r.apiGroup(); group != "" {
		return r.plural + "." + group
	}
	return r.plural
}

// apiGroup is the API group of the resource; empty for the core one.
func (r resource) apiGroup() string {
	rest, _ := strings.CutPrefix(r.path, "/apis/")
	group, _, ok := strings.Cut(rest, "/")
	if !ok || rest == r.path {
		return ""
	}
	return group
}

// in is the path of the collection; of one namespace only, if that is not empty.
func (r resource) in(namespace string) string {
	if r.namespaced && namespace != "" {
		return r.path + "/namespaces/" + namespace + "/" + r.plural
	}
	return r.path + "/" + r.plural
}

// customKinds are the kinds that are custom resources. A kind that package v3 gets is one
// unless it is listed here as something else.
func customKinds() []model.Kind {
	var kinds []model.Kind
	for _, k := range v3.Kinds() {
		switch kind := model.Kind(k.Name); kind {
		case model.KindNode, model.KindWorkloadEndpoint, model.KindProfile:
		default:
			if _, ok := upstreamResource(kind); !ok {
				kinds = append(kinds, kind)
			}
		}
	}
	return kinds
}

// lateKinds came to Calico late, or are for special uses: a cluster that was made before
// them has no definitions of them, and works.
func lateKinds() []model.Kind {
	return []model.Kind{
		"BGPFilter", "CalicoNodeStatus", "IPReservation", "KubeControllersConfiguration",
		"StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy", "StagedNetworkPolicy", "Tier",
	}
}

// customResource is where the objects of a kind are in the group.
func (g Group) customResource(kind model.Kind) resource {
	if kind == model.KindIPAMConfig {
		kind = model.KindIPAMConfiguration // two names of the one setting, here
	}
	k, _ := v3.KindByName(string(kind))
	r := resource{path: "/apis/" + string(g), plural: k.Plural, namespaced: k.Namespaced, optional: slices.Contains(lateKinds(), kind)}
	if g == Legacy && kind == model.KindIPAMConfiguration {
		r.plural = "ipamconfigs"
	}
	return r
}

// customKind is the kind field of documents of a kind.
func (g Group) customKind(kind model.Kind) string {
	if kind == model.KindIPAMConfig || kind == model.KindIPAMConfiguration {
		if g == Legacy {
			return string(model.KindIPAMConfig)
		}
		return string(model.KindIPAMConfiguration)
	}
	return string(kind)
}

// upstreamResource is where objects of Kubernetes itself are that weft takes as they are.
func upstreamResource(kind model.Kind) (resource, bool) {
	switch kind {
	case "KubernetesNetworkPolicy":
		return resource{path: "/apis/networking.k8s.io/v1", plural: "networkpolicies", namespaced: true}, true
	case "KubernetesEndpointSlice":
		return resource{path: "/apis/discovery.k8s.io/v1", plural: "endpointslices", namespaced: true}, true
	case "KubernetesClusterNetworkPolicy":
		return resource{path: "/apis/policy.networking.k8s.io/v1alpha2", plural: "clusternetworkpolicies", optional: true}, true
	}
	return resource{}, false
}

// kinds lists all kinds of the store. IPAMConfiguration is not among them: here it is
// another name of IPAMConfig, and answers to Get, List, Commit and a Watch that names it.
func kinds() []model.Kind {
	all := []model.Kind{
		model.KindIPAMConfig, model.KindNode, model.KindWorkloadEndpoint, model.KindProfile,
		"KubernetesNetworkPolicy", "KubernetesEndpointSlice", "KubernetesClusterNetworkPolicy",
	}
	for _, k := range customKinds() {
		if k != model.KindIPAMConfiguration {
			all = append(all, k)
		}
	}
	slices.Sort(all)
	return all
}
