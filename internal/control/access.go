package control

import (
	"context"
	"errors"
	"fmt"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// need is a right that a controller must have on all objects of a kind.
type need struct {
	what  resource
	sub   string // subresource; empty: the object
	verbs []string
}

// reading are the rights that a feed and live reads take.
func reading(what resource) need { return need{what: what, verbs: []string{"get", "list", "watch"}} }

// AccessError names what this process may not do.
type AccessError struct {
	Missing []string // "list nodes", "update services/status"
}

// Error implements error.
func (e *AccessError) Error() string {
	return fmt.Sprintf("the API server does not allow: %s: add these verbs to the ClusterRole of this service account", strings.Join(e.Missing, ", "))
}

// allowed asks the API server for each right. The error is an *AccessError that names
// all that are missing. Where it can't be asked the rights count as given: the work
// itself shows whether they are.
func allowed(ctx context.Context, set kubernetes.Interface, needs []need) error {
	var missing []string
	for _, n := range needs {
		for _, verb := range n.verbs {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Verb: verb, Group: n.what.group(), Resource: string(n.what), Subresource: n.sub,
				},
			}}
			answer, err := set.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
			if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("ask for rights: %w", oneLine(err))
			}
			if !answer.Status.Allowed {
				missing = append(missing, verb+" "+n.String())
			}
		}
	}
	if len(missing) > 0 {
		return &AccessError{missing}
	}
	return nil
}

// String names the kind as roles do: services/status, networkpolicies.networking.k8s.io.
func (n need) String() string {
	name := string(n.what)
	if g := n.what.group(); g != "" {
		name += "." + g
	}
	if n.sub != "" {
		name += "/" + n.sub
	}
	return name
}

// oneLine is err with its text on one line.
func oneLine(err error) error {
	if err == nil || !strings.ContainsAny(err.Error(), "\n\t") {
		return err
	}
	return &flat{err}
}

type flat struct{ err error }

func (f *flat) Error() string { return strings.Join(strings.Fields(f.err.Error()), " ") }
func (f *flat) Unwrap() error { return f.err }

// gone reports whether the API server itself says that there is no such object. Any
// other error leaves that open.
func gone(err error) (bool, error) {
	switch {
	case err == nil:
		return false, nil
	case apierrors.IsNotFound(err):
		// Where a kind or a path is unknown the server says "not found", too, but not of
		// an object by its name.
		var status apierrors.APIStatus
		if errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name == "" {
			return false, err
		}
		return true, nil
	}
	return false, err
}
