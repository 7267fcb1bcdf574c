package control

import (
	"context"
	"errors"
	"strings"

	"github.com/weft-net/weft/internal/kube"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
)

// reading are the rights that a feed and live reads take.
func reading(what resource) kube.Access {
	return kube.Access{Verbs: []string{"get", "list", "watch"}, Group: what.group(), Resource: string(what)}
}

// allowed asks the API server for each right. The error is a *kube.AccessError that names
// all that are missing. Where it can't be asked the rights count as given: the work
// itself shows whether they are.
func allowed(ctx context.Context, set kubernetes.Interface, needs []kube.Access) error {
	err := kube.CheckAccess(ctx, set, needs)
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return oneLine(err)
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
