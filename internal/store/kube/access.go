package kube

import (
	"slices"

	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
)

// readAccess is what following the kinds needs. A kind whose CRD is not installed needs
// nothing.
func (s *Store) readAccess(kinds []model.Kind) []kube.Access {
	var out []kube.Access
	add := func(group, resource string) {
		same := func(o kube.Access) bool { return o.Group == group && o.Resource == resource }
		if !slices.ContainsFunc(out, same) {
			out = append(out, kube.Access{Verbs: []string{"get", "list", "watch"}, Group: group, Resource: resource})
		}
	}
	for _, k := range kinds {
		switch b := s.backends[k].(type) {
		case pods:
			add("", "pods")
		case nodes:
			add("", "nodes")
		case custom:
			if !b.optional || slices.Contains(s.served, b.plural) || b.api == "" {
				add(b.apiGroup(), b.plural)
			}
		case profiles:
			add("", "namespaces")
			add("", "serviceaccounts")
		}
	}
	return out
}
