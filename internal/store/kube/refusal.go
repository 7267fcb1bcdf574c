package kube

import (
	"errors"
	"fmt"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// refusedError is what the API server said no with, in its words; it is one of the errors
// of package store.
type refusedError struct {
	as    error
	cause error
}

func (e refusedError) Error() string { return fmt.Sprintf("%v: %v", e.as, oneLine(e.cause)) }

func (e refusedError) Unwrap() []error { return []error{e.as, e.cause} }

// about turns a failure of a request for the object of k into what callers branch on. A
// failure without an answer stays what it is.
func about(k model.Key, r resource, err error) error {
	if err == nil {
		return nil
	}
	return &store.Error{Key: k, Err: translated(r, err)}
}

// translated is err in the terms of package store.
func translated(r resource, err error) error {
	var status apierrors.APIStatus
	switch {
	case isUninstalled(err):
		return uninstalledError{notInstalled(r)}
	case apierrors.IsNotFound(err) && errors.As(err, &status) && status.Status().Details.Kind == "namespaces":
		return refusedError{store.ErrRefused, err} // of an object that was to be made in it
	case apierrors.IsNotFound(err):
		return store.ErrNotFound
	case apierrors.IsAlreadyExists(err):
		return store.ErrExists
	case apierrors.IsConflict(err):
		return store.ErrConflict
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err),
		apierrors.IsRequestEntityTooLargeError(err), apierrors.IsMethodNotSupported(err), apierrors.IsUnsupportedMediaType(err), apierrors.IsNotAcceptable(err):
		return refusedError{store.ErrRefused, err}
	case errors.As(err, &status):
		return fmt.Errorf("the API server answers %w", oneLine(err))
	}
	return oneLine(err)
}

// uninstalledError says that the API has no such resource; it is store.ErrNoKind and
// store.ErrRefused.
type uninstalledError struct{ error }

func (uninstalledError) Is(target error) bool {
	return target == store.ErrNoKind || target == store.ErrRefused
}

func (e uninstalledError) Unwrap() error { return e.error }

// notInstalled says which definition is missing, and what to do.
func notInstalled(r resource) error {
	return fmt.Errorf("the resource %s is not installed: apply the CRDs that come with weft (deploy/crds) to the cluster", r.crd())
}

// isUninstalled reports whether the API has no such collection, in contrast to no such
// object in it.
func isUninstalled(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	// Of an object the answer names the object; of a path that there is not it can't.
	d := status.Status().Details
	return d == nil || d.Name == ""
}
