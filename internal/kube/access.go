package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// maxReviews is how many rights are asked about at once.
const maxReviews = 16

// Access is something that a role does with a resource.
type Access struct {
	Verbs       []string // get, list, watch, create, update, patch, delete
	Group       string   // of the API; empty: the core one
	Resource    string   // plural
	Subresource string   // status; empty: none
	Namespace   string   // empty: in all
}

// String names the resource as messages do: services/status, networkpolicies.networking.k8s.io.
func (a Access) String() string {
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

// AccessError names what this process may not do.
type AccessError struct {
	Missing []Access // with the verbs that are missing
}

// Error implements error: each verb of each resource, and what to do.
func (e *AccessError) Error() string {
	missing := make([]string, len(e.Missing))
	for i, a := range e.Missing {
		missing[i] = strings.Join(a.Verbs, ", ") + " " + a.String()
	}
	return fmt.Sprintf("kubernetes: not allowed are %s: apply the ClusterRole that comes with weft (deploy/)", strings.Join(missing, "; "))
}

// CheckAccess asks the API server whether all of needs is allowed, verb by verb. The error is
// an *AccessError that names all that is not, or says that it could not be asked.
func CheckAccess(ctx context.Context, set kubernetes.Interface, needs []Access) error {
	denied := make([][]string, len(needs))
	var ask errgroup.Group
	ask.SetLimit(maxReviews)
	for i, a := range needs {
		denied[i] = make([]string, len(a.Verbs))
		for j, verb := range a.Verbs {
			ask.Go(func() error {
				ok, err := may(ctx, set, a, verb)
				if err == nil && !ok {
					denied[i][j] = verb
				}
				return err
			})
		}
	}
	if err := ask.Wait(); err != nil {
		return fmt.Errorf("kubernetes: what this user may do: %w", err)
	}
	var missing []Access
	for i, a := range needs {
		if a.Verbs = slices.DeleteFunc(denied[i], func(verb string) bool { return verb == "" }); len(a.Verbs) > 0 {
			missing = append(missing, a)
		}
	}
	if len(missing) > 0 {
		return &AccessError{missing}
	}
	return nil
}

// may asks about one verb.
func may(ctx context.Context, set kubernetes.Interface, a Access, verb string) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: a.Namespace, Verb: verb, Group: a.Group, Resource: a.Resource, Subresource: a.Subresource,
		},
	}}
	answer, err := set.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}
