// Package kubetest gives tests of what works on the Kubernetes API what they need: CRDs
// without schemas, and an API server in memory.
//
// [Server] is the honest fake of a kube-apiserver as far as package store/kube and its
// users use one: objects as JSON with uids and revisions, conflicts, merge patches,
// preconditions, deletion, lists and watches with bookmarks, streamed lists, compaction,
// discovery and access reviews; and it fails when told to. The conformance test
// storetest.Run runs against it in `make test`, and against a real kube-apiserver in
// `make test-k8s`, which is what makes it honest. It validates nothing.
package kubetest

import (
	"encoding/json"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// Resource is a collection of the API.
type Resource struct {
	Group, Version, Plural, Kind string
	Namespaced                   bool
}

// Path is the path of the resource's group version.
func (r Resource) Path() string {
	if r.Group == "" {
		return "/api/" + r.Version
	}
	return "/apis/" + r.Group + "/" + r.Version
}

// CalicoResources are those of Calico's kinds in a group, projectcalico.org or
// crd.projectcalico.org.
func CalicoResources(group string) []Resource {
	var out []Resource
	for _, k := range v3.Kinds() {
		r := Resource{group, "v3", k.Plural, k.Name, k.Namespaced}
		if strings.HasPrefix(group, "crd.") {
			r.Version = "v1"
			if k.Name == "IPAMConfiguration" {
				r.Plural, r.Kind = "ipamconfigs", "IPAMConfig"
			}
		}
		switch k.Name {
		case "Node", "WorkloadEndpoint", "Profile", "KubernetesNetworkPolicy", "KubernetesEndpointSlice", "KubernetesClusterNetworkPolicy":
		default:
			out = append(out, r)
		}
	}
	return out
}

// CRD is a definition of the resource that takes anything, as JSON.
func (r Resource) CRD() []byte {
	scope := "Cluster"
	if r.Namespaced {
		scope = "Namespaced"
	}
	text, err := json.Marshal(map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{
			"name":        r.Plural + "." + r.Group,
			"annotations": map[string]any{"api-approved.kubernetes.io": "unapproved, for a test"},
		},
		"spec": map[string]any{
			"group": r.Group, "scope": scope,
			"names": map[string]any{"plural": r.Plural, "singular": strings.ToLower(r.Kind), "kind": r.Kind, "listKind": r.Kind + "List"},
			"versions": []any{map[string]any{
				"name": r.Version, "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
			}},
		},
	})
	if err != nil {
		panic(err) // it is made of texts
	}
	return text
}
