package cluster_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// both gives a pod's addresses, the one of IPv4 first.
func both(t testing.TB, namespace, name string) []string {
	t.Helper()
	got := strings.Fields(kubectl(t, "-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.podIPs[*].ip}"))
	if len(got) != 2 || strings.Contains(got[0], ":") || !strings.Contains(got[1], ":") {
		t.Fatalf("pod %s has the addresses %q, want one of each family", name, got)
	}
	return got
}

// at is address and port as they are written.
func at(ip string, port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), port).String()
}

// Pods with an address of each family, and VXLAN between all nodes: packets go through the
// tunnel of their family, and policy and services mean both.
func TestDual(t *testing.T) {
	ns := namespace(t)
	start(t, ns, pod{name: "server", node: 1, labels: "app: server"},
		pod{name: "near", node: 1, labels: "app: near"}, pod{name: "far", node: 2, labels: "app: far"}, pod{name: "friend", node: 3, labels: "app: friend"})
	server, far := both(t, ns, "server"), both(t, ns, "far")
	for i, device := range []string{"vxlan.calico", "vxlan-v6.calico"} {
		out, err := node(2, `ip route get "$1"`, server[i])
		if err != nil || !strings.Contains(out, " dev "+device+" ") {
			t.Errorf("node2 sends to %s: %s, %v, want by %s", server[i], strings.TrimSpace(out), err, device)
		}
	}
	all := []string{"near", "far", "friend"}
	for _, to := range server {
		for _, from := range all {
			reaches(t, ns, from, "tcp", at(to, 80))
			reaches(t, ns, from, "udp", at(to, 80))
		}
	}
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: server, namespace: %[1]s}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: server}
  ports: [{port: 8000, targetPort: 80}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends, namespace: %[1]s}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
`, ns))
	services := strings.Fields(kubectl(t, "-n", ns, "get", "service", "server", "-o", "jsonpath={.spec.clusterIPs[*]}"))
	for i, to := range server {
		dropped(t, ns, "near", "tcp", at(to, 80))
		dropped(t, ns, "far", "udp", at(to, 80))
		reaches(t, ns, "friend", "tcp", at(to, 80))
		reaches(t, ns, "friend", "tcp", at(services[i], 8000))
		dropped(t, ns, "far", "tcp", at(services[i], 8000))
	}
	// Blocks of one family say nothing of the other.
	apply(t, fmt.Sprintf(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends, namespace: %[1]s}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from: [{ipBlock: {cidr: "fd00:10:244::/56", except: ["%[2]s/128"]}}]
`, ns, far[1]))
	dropped(t, ns, "far", "tcp", at(server[1], 80))
	dropped(t, ns, "near", "tcp", at(server[0], 80))
	reaches(t, ns, "near", "tcp", at(server[1], 80))
	reaches(t, ns, "friend", "tcp", at(server[1], 80))
}

// Tunnels stay when the agents are replaced: nothing that goes through them is lost.
func TestDualRollingUpdate(t *testing.T) {
	ns := namespace(t)
	tr := depart(t, ns, [2]int{1, 2}, [2]int{3, 1})
	kubectl(t, "-n", "kube-system", "rollout", "restart", "daemonset/weft-node")
	agentsReady(t)
	tr.arrived("rolling update with VXLAN")
}
