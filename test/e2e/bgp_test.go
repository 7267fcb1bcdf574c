package e2e_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// TestTopologies runs clusters whose file says all that must come true.
func TestTopologies(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("topologies/run/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no topologies: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			if text, err := os.ReadFile(file); err != nil || strings.Contains(string(text), "\nrouters:") {
				testenv.Need(t, "bird")
			}
			if r := newCluster(t).run("lab", "run", "-f", file); r.code != 0 {
				t.Errorf("exit code %d: %s%s", r.code, r.stderr, r.stdout)
			}
		})
	}
}

// peerTypes are the sessions of a node: their types by address.
func (c *cluster) peerTypes(node string, sessions int) map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for _, p := range c.established(node, sessions).Peers {
		out[p.Addr] = p.Type
	}
	return out
}

// TestTopOfRack has two routers beside the mesh, one for all nodes and one for a
// single node.
func TestTopOfRack(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	c := up(t, "topologies/routers.yaml")
	for node, want := range map[string]map[string]string{
		"node-a": {"10.1.0.12": "node-to-node mesh", "10.1.0.2": "global", "10.1.0.3": "node specific"},
		"node-b": {"10.1.0.11": "node-to-node mesh", "10.1.0.2": "global"},
	} {
		if got := c.peerTypes(node, len(want)); !maps.Equal(got, want) {
			t.Errorf("sessions of %s: got %v, want %v", node, got, want)
		}
	}
	// What both routers hand back is one route with two next hops.
	eventually(t, "both ways to what the routers announce", func() error {
		if got := c.sh("node-a").run("ip route show 203.0.113.0/24"); strings.Count(got, "nexthop via") != 2 || !strings.Contains(got, "203.0.113.0/24 proto bird") {
			return errors.New(got)
		}
		return nil
	})
	c.awaitRoute("node-b", `203\.0\.113\.0/24 via 10\.1\.0\.2 dev eth0 proto bird`)
	for _, pod := range []string{"a1", "b1"} {
		c.sh("pod/default/" + pod).run(ping("203.0.113.1"))
	}
	for _, pod := range []string{"a1", "b1"} {
		c.sh("tor-1").run(ping(c.addr(pod)))
	}
	// A block each, no route of a single address, and nothing of the pool that is
	// not to be exported.
	for router, ways := range map[string]int{"tor-1": 4, "tor-2": 2} {
		eventually(t, "blocks at "+router, func() error {
			got := c.sh(router).run("ip route show proto bird type unicast")
			if n := strings.Count(got, "/26 "); n != 2 {
				return fmt.Errorf("%d blocks, want 2 (%d ways):\n%s", n, ways, got)
			}
			return nil
		})
		for _, line := range c.routes(router) {
			if strings.HasPrefix(line, "172.20.") || strings.HasPrefix(line, "192.168.") && !strings.Contains(line, "/26 ") {
				t.Errorf("%s has the route %s", router, line)
			}
		}
	}
	// Changed settings are followed in place: without the mesh, node-a's pods are
	// reached from node-b through the router.
	st := c.store()
	put(t, st, `{"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration", "metadata": {"name": "default"}, "spec": {"nodeToNodeMeshEnabled": false}}`)
	if got, want := c.peerTypes("node-b", 1), map[string]string{"10.1.0.2": "global"}; !maps.Equal(got, want) {
		t.Errorf("sessions of node-b without the mesh: got %v, want %v", got, want)
	}
}

// TestPassword gives the session of one node the wrong password, and that of the
// other the right one.
func TestPassword(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	c := up(t, "topologies/password.yaml")
	c.established("node-b", 1)
	// It had as much time as the other; give it one more attempt.
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		s, err := c.agentStatus("node-a")
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Peers) != 1 || s.Peers[0].State == "Established" {
			t.Fatalf("with the wrong password: %+v", s.Peers)
		}
	}
	if err := c.lacksRoute("tor", `192\.168\..* via 10\.1\.0\.11 .*`); err != nil {
		t.Error(err)
	}
	// The file is what a mounted Kubernetes secret is. A change of it is noticed.
	if err := os.WriteFile(filepath.Join(c.now.Dir, "secrets", "wrong", "password"), []byte("right\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.established("node-a", 1)
	c.awaitRoute("tor", `192\.168\..*/26 via 10\.1\.0\.11 dev eth0 proto bird metric 32`)
}

// TestDeath takes a node off the network: its routes go from the router when the
// session's hold time is over.
func TestDeath(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	c := up(t, "topologies/password.yaml")
	c.established("node-b", 1)
	const way = `192\.168\..*/26 via 10\.1\.0\.12 dev eth0 proto bird metric 32`
	c.awaitRoute("tor", way)
	c.sh("node-b").run("ip link set eth0 down")
	took := within(t, testenv.ByEvent, "withdrawal", func() error { return c.lacksRoute("tor", way) })
	t.Logf("withdrawn %v after the link went down; the hold time is 3 s, and 90 s by default", took)
	c.sh("node-b").run("ip link set eth0 up")
	c.awaitRoute("tor", way)
}
