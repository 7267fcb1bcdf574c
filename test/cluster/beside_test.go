package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// While upstream's suites make and remove policies, namespaces and pods by the hundred, a
// packet that another policy forbids gets through at no time: one is sent each ten
// milliseconds, and the first answer would be told. WEFT_LOGS/suites-over ends it.
func TestBeside(t *testing.T) {
	server, client := namespace(t), namespace(t)
	policies := func(name string) string {
		return fmt.Sprintf(`
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: %[1]s}
spec:
  tier: Admin
  priority: 900
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[1]s}}, podSelector: {matchLabels: {app: a}}}}
  ingress:
  - {name: deny, action: Deny, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: b, namespace: %[1]s}
spec:
  podSelector: {matchLabels: {app: b}}
  policyTypes: [Ingress]
  ingress: [{from: [{namespaceSelector: {matchLabels: {team: %[3]s}}}]}]
`, server, client, name)
	}
	apply(t, policies("nobody"))
	t.Cleanup(func() { kubectl(t, "delete", "clusternetworkpolicy", server, "--ignore-not-found") })
	echo := fmt.Sprintf("[/train, echo, %q]", platform)
	start(t, server, pod{name: "a", node: 1, labels: "app: a", command: echo}, pod{name: "b", node: 2, labels: "app: b", command: echo})
	// It is the policies that hold them off: both are in force before a client is there.
	start(t, client, pod{name: "outsider", node: 1, labels: "app: outsider"})
	dropped(t, client, "outsider", "tcp", address(t, server, "a")+":"+platform)
	dropped(t, client, "outsider", "tcp", address(t, server, "b")+":"+platform)
	var clients []pod
	for _, to := range []string{"a", "b"} {
		for _, n := range []int{1, 3} {
			clients = append(clients, pod{
				name: fmt.Sprintf("%s-from-%d", to, n), node: n, labels: "app: client",
				command: fmt.Sprintf("[/train, first, -every, 10ms, %q]", address(t, server, to)+":"+platform),
			})
		}
	}
	start(t, client, clients...)
	// A file, and not a length: the suites take as long as they take.
	for over := filepath.Join(os.Getenv("WEFT_LOGS"), "suites-over"); !exists(over); {
		time.Sleep(pause)
	}
	answer := func(p pod) string {
		t.Helper()
		return strings.TrimSpace(kubectl(t, "-n", client, "logs", p.name))
	}
	for _, p := range clients {
		if got := answer(p); got != "" {
			t.Errorf("%s got an answer %s ms after its start, want none at all", p.name, got)
		}
	}
	// That they would have: now they may.
	kubectl(t, "delete", "clusternetworkpolicy", server)
	kubectl(t, "label", "namespace", client, "team=nobody")
	for _, p := range clients {
		eventually(t, p.name, func() error {
			if answer(p) == "" {
				return fmt.Errorf("no answer")
			}
			return nil
		})
	}
}
