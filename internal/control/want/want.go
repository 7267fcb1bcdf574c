// Package want decides what the datastore must hold because of what Kubernetes holds:
// profiles of namespaces and service accounts, labels of endpoints and nodes, host
// endpoints of nodes, addresses of services; and how much of it may vanish at once.
//
//	namespace, service account ─► Profile
//	network policy             ─► Policy
//	pod                        ─► EndpointLabels
//	node                       ─► NodeLabels, HostEndpoints
//	service                    ─► Claim
//	what would be removed      ─► Budget ─► may be, or *MassError
//
// Everything here is a function of its arguments, in Calico's names and forms
// (facts S-10 to S-14), so that its tools and ours see the same. The shells that read
// Kubernetes and write the datastore are package control.
//
// Invariant: what is made for one object depends on that object and the settings only,
// so that comparing everything and following single changes come to the same.
package want

import (
	"encoding/json"
	"fmt"
	"maps"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// What names of our objects begin with; see facts S-10 to S-12.
const (
	PolicyPrefix    = "knp.default."
	NamespacePrefix = "kns."
	AccountPrefix   = "ksa."
)

// Labels that the system gives endpoints, and profiles give those that have them.
const (
	namespaceLabel    = "projectcalico.org/namespace"
	orchestratorLabel = "projectcalico.org/orchestrator"
	accountLabel      = "projectcalico.org/serviceaccount"
	namespaceName     = "pcns.projectcalico.org/name"
	accountName       = "pcsa.projectcalico.org/name"
)

// NamespaceProfile is the profile of a namespace with these labels: its endpoints
// inherit them, and without a policy all traffic of theirs is allowed.
func NamespaceProfile(name string, labels map[string]string) *v3.Profile {
	return profile(NamespacePrefix+name, inherited("pcns.", labels, namespaceName, name),
		[]v3.Rule{{Action: v3.ActionAllow}})
}

// AccountProfile is the profile of a service account: labels only.
func AccountProfile(namespace, name string, labels map[string]string) *v3.Profile {
	return profile(AccountPrefix+namespace+"."+name, inherited("pcsa.", labels, accountName, name), nil)
}

func profile(name string, labels map[string]string, rules []v3.Rule) *v3.Profile {
	o, _ := v3.New(string(model.KindProfile))
	p := o.(*v3.Profile)
	p.Name = name
	p.Spec = v3.ProfileSpec{Ingress: rules, Egress: rules, LabelsToApply: labels}
	return p
}

// inherited is labels with a prefix, and one more. What Calico calls name wins over a
// label that comes to the same.
func inherited(prefix string, labels map[string]string, key, value string) map[string]string {
	out := map[string]string{}
	for k, v := range labels {
		out[prefix+k] = v
	}
	out[key] = value
	return out
}

// Policy is the stored form of a NetworkPolicy of Kubernetes, whose spec is given as
// JSON. The error says what of it has no meaning; the policy is then stricter than was
// meant ([model.FromKubernetes]), and nil only if the spec can't be read at all.
func Policy(namespace, name string, spec []byte) (*v3.NetworkPolicy, error) {
	o, _ := v3.New(string(model.KindKubernetesNetworkPolicy))
	k := o.(*v3.KubernetesNetworkPolicy)
	k.Namespace, k.Name = namespace, name
	if err := json.Unmarshal(spec, &k.Spec); err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	p, err := model.FromKubernetes(k)
	v3.Default(p)
	return p, err
}

// EndpointLabels is the labels of the endpoint of a pod: the pod's, and those of the
// system, which a pod can't set.
func EndpointLabels(namespace, account string, labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	out[namespaceLabel] = namespace
	out[orchestratorLabel] = v3.OrchestratorKubernetes
	delete(out, accountLabel)
	if account != "" {
		out[accountLabel] = account
	}
	return out
}

// SyncedLabels is the annotation of a node record that holds, as JSON, the labels that
// came from Kubernetes: those go when they go there, others stay.
const SyncedLabels = "projectcalico.org/kube-labels"

// NodeLabels puts the labels of a node of Kubernetes on its record n, in which those
// that came from there before and are gone are taken off, and reports whether that
// changed anything. n is not changed; it shares what did not change with the result.
func NodeLabels(n *v3.Node, labels map[string]string) (*v3.Node, bool) {
	before := map[string]string{}
	// What can't be read was written by somebody else; then nothing is taken off.
	_ = json.Unmarshal([]byte(n.Annotations[SyncedLabels]), &before)
	after := maps.Clone(n.Labels)
	if after == nil {
		after = map[string]string{}
	}
	for k := range before {
		if _, still := labels[k]; !still {
			delete(after, k)
		}
	}
	maps.Copy(after, labels)
	if labels == nil {
		labels = map[string]string{}
	}
	text, err := json.Marshal(labels)
	if err != nil || maps.Equal(after, n.Labels) && maps.Equal(before, labels) && n.Annotations[SyncedLabels] != "" {
		return n, false
	}
	out := *n
	out.Labels, out.Annotations = after, maps.Clone(n.Annotations)
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[SyncedLabels] = string(text)
	return &out, true
}

// KubernetesName is the name in Kubernetes of the node of record n; false: it is no
// node of Kubernetes.
func KubernetesName(n *v3.Node) (string, bool) {
	for _, r := range n.Spec.OrchRefs {
		if r.Orchestrator == v3.OrchestratorKubernetes && r.NodeName != "" {
			return r.NodeName, true
		}
	}
	return "", false
}
