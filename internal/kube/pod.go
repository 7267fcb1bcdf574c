package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ErrGone is wrapped by the errors about a pod, namespace or node that the API server
// does not have.
var ErrGone = errors.New("the API server does not have it")

// Pod is what an attachment to the network must know of a pod and its namespace.
type Pod struct {
	// UID is the pod's; of one that the kubelet has from a file (a mirror pod) that is
	// the API server's, and MirrorOf what the kubelet calls it.
	UID, MirrorOf  string
	Node           string // it is bound to; empty: to none yet
	ServiceAccount string
	Labels         map[string]string
	Annotations    map[string]string
	Ports          []PodPort // of containers, and of init containers that go on running
	Finished       bool      // it has succeeded or failed
	Deleted        bool      // it is being deleted

	NamespaceAnnotations map[string]string
	NamespaceDeleted     bool // it is being deleted
}

// PodPort is a port that a container declares.
type PodPort struct {
	Name     string // empty: none
	Protocol string // TCP, UDP or SCTP
	Port     uint16
	HostPort uint16     // 0: none
	HostIP   netip.Addr // zero: every address of the node
}

// Pod reads a pod and its namespace, both at once. The errors wrap ErrGone where one of
// them does not exist; with missing rights they name verb and kind.
func (c *Client) Pod(ctx context.Context, namespace, name string) (Pod, error) {
	type answer struct {
		namespace *corev1.Namespace
		err       error
	}
	asked := make(chan answer, 1)
	go func() {
		// What the API server has in memory will do: namespaces hardly change, and the
		// pod, which does, is read for certain.
		n, err := c.Clientset.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{ResourceVersion: "0"})
		asked <- answer{n, err}
	}()
	p, err := c.Clientset.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	n := <-asked
	if err != nil {
		return Pod{}, fault("pod "+namespace+"/"+name, err)
	}
	if n.err != nil {
		return Pod{}, fault("namespace "+namespace, n.err)
	}
	return podOf(p, n.namespace), nil
}

func podOf(p *corev1.Pod, n *corev1.Namespace) Pod {
	out := Pod{
		UID: string(p.UID), MirrorOf: p.Annotations[corev1.MirrorPodAnnotationKey],
		Node: p.Spec.NodeName, ServiceAccount: p.Spec.ServiceAccountName,
		Labels: p.Labels, Annotations: p.Annotations,
		Finished:             p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Deleted:              p.DeletionTimestamp != nil,
		NamespaceAnnotations: n.Annotations,
		NamespaceDeleted:     n.DeletionTimestamp != nil || n.Status.Phase == corev1.NamespaceTerminating,
	}
	for _, c := range p.Spec.InitContainers {
		// Those that restart always are sidecars: they run beside the containers.
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out.Ports = appendPorts(out.Ports, c.Ports)
		}
	}
	for _, c := range p.Spec.Containers {
		out.Ports = appendPorts(out.Ports, c.Ports)
	}
	return out
}

// appendPorts adds the ports that have a name or a port of the host: nobody can refer to
// others.
func appendPorts(out []PodPort, ports []corev1.ContainerPort) []PodPort {
	for _, p := range ports {
		if p.Name == "" && p.HostPort == 0 || p.ContainerPort < 1 || p.ContainerPort > 65535 || p.HostPort < 0 || p.HostPort > 65535 {
			continue
		}
		port := PodPort{Name: p.Name, Protocol: string(p.Protocol), Port: uint16(p.ContainerPort), HostPort: uint16(p.HostPort)}
		if port.Protocol == "" {
			port.Protocol = string(corev1.ProtocolTCP)
		}
		if a, err := netip.ParseAddr(p.HostIP); err == nil && !a.IsUnspecified() {
			port.HostIP = a
		}
		out = append(out, port)
	}
	return out
}

// PodCIDRs are the address ranges of a node's pods (spec.podCIDRs); none: the cluster
// has not given it any.
func (c *Client) PodCIDRs(ctx context.Context, node string) ([]netip.Prefix, error) {
	n, err := c.Clientset.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fault("node "+node, err)
	}
	texts := n.Spec.PodCIDRs
	if len(texts) == 0 && n.Spec.PodCIDR != "" {
		texts = []string{n.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("kube: node %s: spec.podCIDRs: %q: must be a CIDR", node, text)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// fault says what an answer of the API server means for somebody who reads object.
func fault(object string, err error) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("kube: get %s: %w", object, ErrGone)
	}
	return fmt.Errorf("kube: get %s: %s", object, Explain(err))
}
