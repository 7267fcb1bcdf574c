package kube

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The annotations that tell addresses of a pod before, or besides, its status.
const (
	PodIP         = "cni.projectcalico.org/podIP"
	PodIPs        = "cni.projectcalico.org/podIPs"
	PodContainer  = "cni.projectcalico.org/containerID"
	NetworkStatus = "k8s.v1.cni.cncf.io/network-status" // of Multus: all networks of the pod
)

// Ended reports whether all containers of a pod have ended for good, so that its
// addresses are not in use.
func Ended(p *corev1.Pod) bool {
	return p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
}

// PodAddrs are all addresses that a pod is said to have, by anybody, each once: first those
// of the pod network, then those of further networks. What can't be read tells nothing.
func PodAddrs(p *corev1.Pod) (first, others []netip.Addr) {
	texts := append(strings.Split(p.Annotations[PodIPs], ","), p.Status.PodIP, p.Annotations[PodIP])
	for _, ip := range p.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	first = addrsIn(texts)
	var networks []struct {
		IPs []string `json:"ips"`
	}
	if json.Unmarshal([]byte(p.Annotations[NetworkStatus]), &networks) == nil {
		texts = nil
		for _, n := range networks {
			texts = append(texts, n.IPs...)
		}
		others = slices.DeleteFunc(addrsIn(texts), func(a netip.Addr) bool { return slices.Contains(first, a) })
	}
	return first, others
}

// addrsIn are the addresses in texts, with or without a mask.
func addrsIn(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		text, _, _ = strings.Cut(strings.TrimSpace(text), "/")
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	return out
}
