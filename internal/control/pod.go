package control

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/weft-net/weft/internal/control/leak"
	"github.com/weft-net/weft/internal/kube"
)

// stripPod keeps what [podFor] and labels of endpoints need.
func stripPod(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{ObjectMeta: meta(&p.ObjectMeta, p.Labels, some(p.Annotations, kube.PodIP, kube.PodIPs, kube.PodContainer, kube.NetworkStatus))}
	out.Spec.NodeName, out.Spec.ServiceAccountName = p.Spec.NodeName, p.Spec.ServiceAccountName
	out.Status.Phase, out.Status.PodIP, out.Status.PodIPs = p.Status.Phase, p.Status.PodIP, p.Status.PodIPs
	return out
}

// podFor is what is known of a pod's addresses.
func podFor(p *corev1.Pod) leak.Pod {
	first, others := kube.PodAddrs(p)
	return leak.Pod{Container: p.Annotations[kube.PodContainer], Ended: kube.Ended(p), Addrs: append(first, others...)}
}
