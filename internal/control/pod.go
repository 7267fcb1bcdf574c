package control

import (
	"encoding/json"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/weft-net/weft/internal/control/leak"
)

// The annotations that tell addresses of a pod before, or besides, its status.
const (
	podIP         = "cni.projectcalico.org/podIP"
	podIPs        = "cni.projectcalico.org/podIPs"
	podContainer  = "cni.projectcalico.org/containerID"
	networkStatus = "k8s.v1.cni.cncf.io/network-status" // of Multus: all networks of the pod
)

// stripPod keeps what [podFor] and labels of endpoints need.
func stripPod(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: meta(&p.ObjectMeta, p.Labels, some(p.Annotations, podIP, podIPs, podContainer, networkStatus))}
	out.Spec.NodeName, out.Spec.ServiceAccountName = p.Spec.NodeName, p.Spec.ServiceAccountName
	out.Status.Phase, out.Status.PodIP, out.Status.PodIPs = p.Status.Phase, p.Status.PodIP, p.Status.PodIPs
	return out
}

// podFor is what is known of a pod's addresses.
func podFor(p *corev1.Pod) leak.Pod {
	out := leak.Pod{
		Container: p.Annotations[podContainer],
		Ended:     p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
	}
	texts := append(strings.Split(p.Annotations[podIPs], ","), p.Status.PodIP, p.Annotations[podIP])
	for _, ip := range p.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	var networks []struct {
		IPs []string `json:"ips"`
	}
	// What can't be read there tells nothing.
	if json.Unmarshal([]byte(p.Annotations[networkStatus]), &networks) == nil {
		for _, n := range networks {
			texts = append(texts, n.IPs...)
		}
	}
	for _, text := range texts {
		text, _, _ = strings.Cut(strings.TrimSpace(text), "/")
		if a, err := netip.ParseAddr(text); err == nil {
			out.Addrs = append(out.Addrs, a.Unmap())
		}
	}
	return out
}
