package e2e_test

import (
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
	defer func() {
		if t.Failed() {
			t.Log(c.must("lab", "exec", "tor", "--", "ip", "route"), c.must("lab", "exec", "a", "--", "ip", "route"))
		}
	}()
	c.await("the router has the routes of a", has("10.99.1.11"))
	c.await("the router has the routes of b", has("10.99.1.12"))
	gone := time.Now()
	c.must("lab", "stop", "--kill", "a")
	c.await("the router drops the routes of a", func() bool { return !has("10.99.1.11")() })
	t.Logf("withdrawn after %v", time.Since(gone))
	if time.Since(gone) < 2*time.Second {
		t.Errorf("the routes of a went after %v, before the 3 s of graceful restart", time.Since(gone))
	}
	if !has("10.99.1.12")() {
		t.Error("the routes of b went, too")
	}
	c.must("lab", "start", "a")
	c.await("the routes of a are back", has("10.99.1.11"))
}
