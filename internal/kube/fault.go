package kube

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Transient reports whether the same request may succeed later with nobody doing anything:
// the API server can't be reached, does not answer in time, has too much to do (429), or
// fails by itself (5xx).
func Transient(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code == 429 || code >= 500 || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err)
	}
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) || ClockDiffers(err)
}

// ClockDiffers reports whether err may come from a clock that is wrong, here or there: a
// certificate is not valid now.
func ClockDiffers(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// Explain is err in one line, with what to do about it where that is known.
func Explain(err error) string {
	text := oneLine(err)
	switch {
	case ClockDiffers(err):
		return text + ": compare this machine's clock with the API server's, or renew its certificate"
	case apierrors.IsUnauthorized(err):
		return text + ": the token is not accepted: is it of this cluster, and is this machine's clock right?"
	case apierrors.IsForbidden(err):
		return text + ": give the service account this right (deploy/ has the roles)"
	case apierrors.IsTooManyRequests(err):
		return text + ": the API server has too much to do; it is asked again"
	}
	return text
}

// Verbs names the right that a refused request lacked, such as "patch nodes/status"; empty
// when err is no refusal.
func Verbs(err error) string {
	var status apierrors.APIStatus
	if !apierrors.IsForbidden(err) || !errors.As(err, &status) {
		return ""
	}
	// The server's text: nodes "a" is forbidden: User "u" cannot patch resource "nodes/status" in API group "" at the cluster scope
	_, rest, ok := strings.Cut(status.Status().Message, " cannot ")
	var verb, resource, group string
	if _, err := fmt.Sscanf(rest, "%s resource %q in API group %q", &verb, &resource, &group); !ok || err != nil {
		return ""
	}
	if group != "" {
		resource += "." + group
	}
	return verb + " " + resource
}
