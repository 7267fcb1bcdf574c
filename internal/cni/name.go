package cni

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"strings"

	"github.com/weft-net/weft/internal/cni/rpc"
)

const (
	// defaultLinkPrefix starts the names of host side interfaces.
	defaultLinkPrefix = "cali"
	// hostMAC is the hardware address of every host side interface. All alike is
	// fine: each is alone on its link.
	hostMAC = "ee:ee:ee:ee:ee:ee"
	// nameHashLen is how much of a hash or container ID fits after the prefix.
	nameHashLen = 11
)

// linkPrefix is the first item of the comma-separated list FELIX_INTERFACEPREFIX;
// an empty list means cali.
func linkPrefix(list string) string {
	if first, _, _ := strings.Cut(list, ","); first != "" {
		return first
	}
	return defaultLinkPrefix
}

// hostLink is the name of a workload's host side interface, stable for a pod:
// prefix and the start of the SHA-1 of namespace.pod, or of the container ID
// where there is no pod. Calico's names are the same.
func hostLink(prefix string, w rpc.Workload, containerID string) string {
	if w.Orchestrator != rpc.Kubernetes {
		return prefix + containerID[:min(nameHashLen, len(containerID))]
	}
	sum := sha1.Sum([]byte(w.Namespace + "." + w.Pod))
	return prefix + hex.EncodeToString(sum[:])[:nameHashLen]
}

// macFor is the hardware address of an attachment's container side where nobody
// asks for another: locally administered, and the same for a repeated ADD.
func macFor(a rpc.Attachment) string {
	sum := sha256.Sum256([]byte(a.String()))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac.String()
}
