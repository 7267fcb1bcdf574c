package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"golang.org/x/sync/errgroup"
	authv1 "k8s.io/api/authorization/v1"
)

// Access is something that a role does with a resource.
type Access struct {
	Verbs       []string // get, list, watch, create, update, patch, delete
	Group       string   // of the API; empty: the core one
	Resource    string   // plural
	Subresource string   // status; empty: none
	Namespace   string   // empty: in all
}

// ReadAccess is what a Watch and a List of the kinds need. A kind whose CRD is not
// installed needs nothing.
func (s *Store) ReadAccess(kinds ...model.Kind) []Access {
	return s.access([]string{"get", "list", "watch"}, kinds)
}

// WriteAccess is what writing objects of the kinds needs, by these verbs. Endpoints and
// nodes are patched in their status, whatever the verb.
func (s *Store) WriteAccess(verbs []string, kinds ...model.Kind) []Access {
	return s.access(verbs, kinds)
}

func (s *Store) access(verbs []string, kinds []model.Kind) []Access {
	var out []Access
	add := func(a Access) {
		same := func(o Access) bool {
			return o.Group == a.Group && o.Resource == a.Resource && o.Subresource == a.Subresource
		}
		if !slices.ContainsFunc(out, same) {
			out = append(out, a)
		}
	}
	reading := slices.Contains(verbs, "list") || slices.Contains(verbs, "get")
	for _, k := range kinds {
		switch b := s.backends[k].(type) {
		case pods, nodes:
			a := Access{Verbs: verbs, Resource: "pods"}
			if _, isNode := b.(nodes); isNode {
				a.Resource = "nodes"
			}
			if !reading {
				a.Verbs, a.Subresource = []string{"patch"}, "status"
			}
			add(a)
		case custom:
			if b.optional && !slices.Contains(s.served, b.plural) && b.api != "" {
				continue
			}
			add(Access{Verbs: verbs, Group: b.apiGroup(), Resource: b.plural})
		case profiles:
			add(Access{Verbs: verbs, Resource: "namespaces"})
			add(Access{Verbs: verbs, Resource: "serviceaccounts"})
		}
	}
	return out
}

// CheckAccess asks the API server whether all of needs is allowed, verb by verb. The error
// names each verb that is not, and says what to do; or that it could not be asked.
func (s *Store) CheckAccess(ctx context.Context, needs []Access) error {
	denied := make([][]string, len(needs))
	for i, a := range needs {
		denied[i] = make([]string, len(a.Verbs))
	}
	ask := errgroup.Group{}
	ask.SetLimit(maxParallel)
	for i, a := range needs {
		for j, verb := range a.Verbs {
			ask.Go(func() error {
				ok, err := s.may(ctx, a, verb)
				if !ok {
					denied[i][j] = verb
				}
				return err
			})
		}
	}
	if err := ask.Wait(); err != nil {
		return err
	}
	var missing []string
	for i, a := range needs {
		if verbs := slices.DeleteFunc(denied[i], func(v string) bool { return v == "" }); len(verbs) > 0 {
			missing = append(missing, strings.Join(verbs, ", ")+" "+a.name())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("kubernetes: not allowed are %s: apply the ClusterRole that comes with weft (deploy/)", strings.Join(missing, "; "))
	}
	return nil
}

// name is how RBAC rules and messages write the resource.
func (a Access) name() string {
	name := a.Resource
	if a.Subresource != "" {
		name += "/" + a.Subresource
	}
	if a.Group != "" {
		name += "." + a.Group
	}
	if a.Namespace != "" {
		name += " in namespace " + a.Namespace
	}
	return name
}

// may asks about one verb.
func (s *Store) may(ctx context.Context, a Access, verb string) (bool, error) {
	review := authv1.SelfSubjectAccessReview{Spec: authv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authv1.ResourceAttributes{
		Namespace: a.Namespace, Verb: verb, Group: a.Group, Resource: a.Resource, Subresource: a.Subresource,
	}}}
	review.Kind, review.APIVersion = "SelfSubjectAccessReview", "authorization.k8s.io/v1"
	body, err := json.Marshal(review)
	if err != nil {
		return false, err
	}
	const plural, path = "selfsubjectaccessreviews", "/apis/authorization.k8s.io/v1"
	answer, err := text(s.rest.Post().AbsPath(path, plural).Body(body).Do(ctx))
	if err != nil {
		return false, fmt.Errorf("kubernetes: what this user may do: %w", unfollowed("create", resource{path: path, plural: plural}, err))
	}
	if err := json.Unmarshal(answer, &review); err != nil {
		return false, fmt.Errorf("kubernetes: what this user may do: %w", oneLine(err))
	}
	return review.Status.Allowed, nil
}
