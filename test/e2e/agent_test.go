package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// TestRestartDropsNothing kills the agents at both ends of a conversation,
// and starts them again, while a datagram a millisecond goes to and fro.
func TestRestartDropsNothing(t *testing.T) {
	// Not parallel: it counts packets, and a machine that is short of time loses some
	// of its own.
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
nodes: [{name: a}, {name: b}]
pods: [{name: p, node: a}, {name: q, node: b}]
`))
	routes := func(node string) string { return c.must("lab", "exec", node, "--", "ip", "route") }
	c.await("BGP carries the routes", 15*time.Second, func() bool {
		return strings.Contains(routes("a"), "via 10.99.1.12 dev eth0 proto bird") && strings.Contains(routes("b"), "via 10.99.1.11 dev eth0 proto bird")
	})
	before := routes("a")
	train := c.startTraffic("pod/default/p", "pod/default/q")
	time.Sleep(200 * time.Millisecond) // of traffic before
	for _, node := range []string{"a", "b"} {
		c.must("lab", "stop", "--kill", node)
		time.Sleep(300 * time.Millisecond) // of traffic without an agent
		c.must("lab", "start", node)
	}
	established := func(node, peer string) bool {
		out, _ := c.weft("lab", "exec", node, "--", bin+"/weft", "node", "status")
		return strings.Contains(out, peer) && strings.Contains(out, "Established")
	}
	c.await("the session is back", 30*time.Second, func() bool {
		return established("a", "10.99.1.12") && established("b", "10.99.1.11")
	})
	time.Sleep(500 * time.Millisecond) // of traffic after
	sent, lost := train.end()
	t.Logf("%d datagrams, %d lost", sent, lost)
	if sent < 1000 || lost != 0 {
		t.Errorf("of %d datagrams %d were lost, want none of at least 1000", sent, lost)
	}
	if after := routes("a"); after != before {
		t.Errorf("the restart changed the routes:\nbefore:\n%s\nafter:\n%s", before, after)
	}
}

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

// TestRouteHealed deletes and changes routes behind the agent's back.
func TestRouteHealed(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
nodes: [{name: a}, {name: b}]
pods: [{name: p, node: a}, {name: q, node: b}]
`))
	lines := func() string { return c.must("lab", "exec", "a", "--", "ip", "route") }
	c.await("BGP carries the routes", 15*time.Second, func() bool { return strings.Contains(lines(), "via 10.99.1.12 dev eth0 proto bird") })
	want := lines()
	for _, flush := range []string{"ip route flush proto bird", "ip route flush scope link proto boot", "ip route flush type blackhole"} {
		c.must("lab", "exec", "a", "--", "sh", "-c", flush)
		c.await("healed after: "+flush, time.Second, func() bool { return lines() == want })
	}
	c.must("lab", "exec", "a", "--", "ip", "route", "add", "198.51.100.0/24", "via", "10.99.1.1", "proto", "static")
	c.must("lab", "stop", "a")
	c.must("lab", "start", "a")
	c.await("the foreign route stays", 5*time.Second, func() bool {
		return strings.Contains(lines(), "198.51.100.0/24 via 10.99.1.1 dev eth0 proto static")
	})
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
