package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// TestNodeDeathWithdraws: a router outside of the cluster keeps the routes of a
// node whose agent died for the time of graceful restart, and no longer.
func TestNodeDeathWithdraws(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
nodes: [{name: a}, {name: b}]
pods: [{name: p, node: a}, {name: q, node: b}]
routers: [{name: tor, asn: 65001}]
resources:
- apiVersion: projectcalico.org/v3
  kind: BGPPeer
  metadata: {name: tor}
  spec: {peerIP: 10.99.1.2, asNumber: 65001, maxRestartTime: 3s}
`))
	has := func(node string) func() bool {
		return func() bool {
			return strings.Contains(c.must("lab", "exec", "tor", "--", "ip", "route"), "via "+node+" dev eth0 proto bird")
		}
	}
	c.await("the router has the routes of a", 20*time.Second, has("10.99.1.11"))
	c.await("the router has the routes of b", 20*time.Second, has("10.99.1.12"))
	c.must("lab", "stop", "--kill", "a")
	gone := time.Now()
	c.await("the router drops the routes of a", 20*time.Second, func() bool { return !has("10.99.1.11")() })
	t.Logf("withdrawn after %v", time.Since(gone))
	if time.Since(gone) < 2*time.Second {
		t.Errorf("the routes of a went after %v, before the 3 s of graceful restart", time.Since(gone))
	}
	if !has("10.99.1.12")() {
		t.Error("the routes of b went, too")
	}
	c.must("lab", "start", "a")
	c.await("the routes of a are back", 20*time.Second, has("10.99.1.11"))
}

// TestAgentStartsNoProgram runs an agent under strace while it starts, serves a
// pod and speaks BGP, and counts the programs that it starts: none.
func TestAgentStartsNoProgram(t *testing.T) {
	t.Parallel()
	strace := testenv.Need(t, "strace", "unshare")
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file("nodes: [{name: a}, {name: b}]\npods: [{name: q, node: b}]"))
	c.must("lab", "stop", "a")
	calls := filepath.Join(t.TempDir(), "execve")
	agent := c.command("lab", "exec", "a", "--", strace, "-f", "-qq", "-o", calls, "-e", "trace=execve,execveat",
		filepath.Join(bin, "weft"), "node", "run")
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	c.await("the traced agent is ready and has a session", 60*time.Second, func() bool {
		out, code := c.weft("lab", "exec", "a", "--", filepath.Join(bin, "weft"), "node", "status")
		return code == 0 && strings.Contains(out, "Established")
	})
	const attach = `unshare --net sleep 30 & pid=$!
while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do :; done
echo '{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"calico","nodename":"a","ipam":{"type":"calico-ipam"}}' |
CNI_COMMAND=ADD CNI_CONTAINERID=traced CNI_NETNS=/proc/$pid/ns/net CNI_IFNAME=eth0 CNI_PATH=/nowhere \
CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=traced' "$1"; code=$?
kill $pid; exit $code`
	if out, code := c.weft("lab", "exec", "a", "--", "sh", "-c", attach, "sh", filepath.Join(bin, "weft-cni")); code != 0 {
		t.Fatalf("ADD: exit code %d: %s", code, out)
	}
	traced, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(traced), "execve"); n != 1 { // the agent itself
		t.Errorf("the agent started %d programs, want none:\n%s", n-1, traced)
	}
}
