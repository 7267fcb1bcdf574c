package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/kube"
)

// podTimeout bounds what an ADD asks the API server: one that hangs is an error, and
// the kubelet asks again.
const podTimeout = 15 * time.Second

// Orchestrator knows pods. [kube.Client] is one.
type Orchestrator interface {
	// Pod is what the API server has of a pod now; the error wraps kube.ErrGone if it
	// has none of that name.
	Pod(ctx context.Context, namespace, name string) (kube.Pod, error)
	// PodCIDRs are the address ranges of the pods of a node, by its name in Kubernetes;
	// none: it has none yet.
	PodCIDRs(ctx context.Context, node string) ([]netip.Prefix, error)
}

var _ Orchestrator = (*kube.Client)(nil)

// attaching is an ADD with what the orchestrator knows of its pod.
type attaching struct {
	rpc.AddRequest
	account string          // the pod's service account; empty: not known
	qos     *v3.QoSControls // nil: no limits
	ports   []kube.PodPort  // that the pod declares
	pod     bool            // the orchestrator has told of it
	ranges  []netip.Prefix  // of the node's pods, if the request wants them
}

// describe reads what the request leaves to the agent: the pod and its namespace. An
// agent without an orchestrator takes the request as it is.
func (a *attachments) describe(ctx context.Context, r rpc.AddRequest) (attaching, error) {
	out := attaching{AddRequest: r}
	if r.Endpoint != nil {
		e := *r.Endpoint // ours to change
		out.Endpoint = &e
	}
	ctx, cancel := context.WithTimeoutCause(ctx, podTimeout, fmt.Errorf("no answer within %v", podTimeout))
	defer cancel()
	annotations := map[string]string{}
	if r.Endpoint != nil {
		annotations = r.Endpoint.Annotations
	}
	if a.orchestrator != nil && r.Orchestrator == rpc.Kubernetes {
		p, err := a.orchestrator.Pod(ctx, r.Namespace, r.Pod)
		if err != nil {
			return out, unknownPod(r.Workload, err)
		}
		if err := a.accepts(r.Workload, p); err != nil {
			return out, err
		}
		if err := out.annotate(p); err != nil {
			return out, err
		}
		annotations = p.Annotations
	}
	if out.Endpoint != nil {
		var err error
		if out.qos, err = limits(annotations, out.Endpoint.Bandwidth); err != nil {
			return out, &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: podText(r.Workload) + strings.ReplaceAll(err.Error(), "\n", "; ")}
		}
	}
	if r.PodCIDRs {
		var err error
		if out.ranges, err = a.podCIDRs(ctx); err != nil {
			return out, err
		}
	}
	return out, nil
}

// annotate takes in what the orchestrator knows of the pod.
func (x *attaching) annotate(p kube.Pod) error {
	before := x.Address
	var given []netip.Prefix
	if x.Endpoint != nil {
		given = x.Endpoint.Given
	}
	if err := x.Annotate(rpc.Overlay(p.NamespaceAnnotations, p.Annotations), x.Features); err != nil {
		e := *err.(*rpc.Error)
		e.Msg = podText(x.Workload) + e.Msg
		return &e
	}
	brought := x.Endpoint != nil && len(x.Endpoint.Given) > 0
	if x.Delegated || x.Fixed && !brought {
		x.Address = before
	}
	if x.Endpoint == nil {
		return nil
	}
	if x.Delegated {
		x.Endpoint.Given = given
	}
	labels := maps.Clone(x.Endpoint.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, p.Labels)
	x.Endpoint.Labels = labels
	x.account, x.ports, x.pod = p.ServiceAccount, p.Ports, true
	if x.account == "" {
		x.account = "default"
	}
	x.Endpoint.Profiles = []string{"kns." + x.Namespace, "ksa." + x.Namespace + "." + x.account}
	return nil
}

// accepts says why a pod gets no network here.
func (a *attachments) accepts(w rpc.Workload, p kube.Pod) error {
	bad := func(code uint, format string, args ...any) error {
		return &rpc.Error{Code: code, Msg: podText(w) + fmt.Sprintf(format, args...)}
	}
	switch {
	case w.PodUID != "" && w.PodUID != p.UID && w.PodUID != p.MirrorOf:
		return bad(rpc.CodeUnknownContainer, "the container is of the pod with UID %s, and the API server has one with UID %s: it was deleted and made anew meanwhile; the new one gets a container of its own", w.PodUID, p.UID)
	case p.Node != "" && p.Node != a.kubeName():
		return bad(rpc.CodeInvalidConfig, "it is bound to node %s, and this is the agent of node %s", p.Node, a.kubeName())
	case p.NamespaceDeleted:
		return bad(rpc.CodeUnknownContainer, "namespace %s is being deleted, and nothing starts in it any more", w.Namespace)
	case p.Deleted:
		return bad(rpc.CodeUnknownContainer, "it is being deleted, and is not started any more")
	case p.Finished:
		return bad(rpc.CodeUnknownContainer, "it has finished, and is not started any more")
	}
	return nil
}

// kubeName is what Kubernetes calls this node.
func (a *attachments) kubeName() string {
	if a.kubeNode != "" {
		return a.kubeNode
	}
	return a.node
}

// unknownPod explains why nothing is known of a pod.
func unknownPod(w rpc.Workload, err error) error {
	code := rpc.CodeTryLater
	if errors.Is(err, kube.ErrGone) {
		code = rpc.CodeUnknownContainer
	}
	return &rpc.Error{Code: code, Msg: podText(w) + err.Error()}
}

func podText(w rpc.Workload) string { return fmt.Sprintf("agent: pod %s/%s: ", w.Namespace, w.Pod) }

// limits are what annotations, and what the runtime asks for where they say nothing.
func limits(annotations map[string]string, b rpc.Bandwidth) (*v3.QoSControls, error) {
	q, err := v3.QoSControlsFrom(annotations)
	if err != nil || b == (rpc.Bandwidth{}) {
		return q, err
	}
	if q == nil {
		q = &v3.QoSControls{}
	}
	// A rate comes with its burst, or an annotation's would get that of another rate.
	if q.IngressBandwidth == 0 && b.IngressRate > 0 {
		q.IngressBandwidth, q.IngressBurst = clip(b.IngressRate), clip(b.IngressBurst)
	}
	if q.EgressBandwidth == 0 && b.EgressRate > 0 {
		q.EgressBandwidth, q.EgressBurst = clip(b.EgressRate), clip(b.EgressBurst)
	}
	if *q == (v3.QoSControls{}) {
		return nil, nil
	}
	return q, nil
}

func clip(n uint64) int64 { return int64(min(n, 1<<62)) }

// podCIDRs are the ranges of this node's pods. Kubernetes never changes them.
func (a *attachments) podCIDRs(ctx context.Context) ([]netip.Prefix, error) {
	a.mu.Lock()
	known := a.ranges
	a.mu.Unlock()
	if len(known) > 0 {
		return known, nil
	}
	if a.orchestrator == nil {
		return nil, &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: "agent: usePodCidr needs the Kubernetes API, and the agent has none: set KUBECONFIG, or name a CIDR in the CNI configuration"}
	}
	found, err := a.orchestrator.PodCIDRs(ctx, a.kubeName())
	if err != nil {
		return nil, &rpc.Error{Code: rpc.CodeTryLater, Msg: "agent: usePodCidr: " + err.Error()}
	}
	if len(found) == 0 {
		return nil, &rpc.Error{Code: rpc.CodeTryLater, Msg: fmt.Sprintf("agent: usePodCidr: node %s has no spec.podCIDRs: start kube-controller-manager with --allocate-node-cidrs and --cluster-cidr", a.kubeName())}
	}
	a.mu.Lock()
	a.ranges = slices.Clip(found)
	a.mu.Unlock()
	return found, nil
}

// preview is the answer of a request that wants nothing done.
func (x *attaching) preview() rpc.AddResponse {
	out := rpc.AddResponse{Exact: x.Address.Exact, PodCIDRs: x.ranges}
	if x.Endpoint != nil {
		out.Addrs, out.MAC = x.Endpoint.Given, x.Endpoint.MAC
	}
	return out
}
