package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// TestAddressChange gives a node another address while its agent runs: the others
// follow.
func TestAddressChange(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
nodes: [{name: a}, {name: b}]
env: {AUTODETECT_POLL_INTERVAL: 1, CALICO_IPV4POOL_CIDR: 192.168.0.0/16}
pods: [{name: p, node: a}, {name: q, node: b}]
`))
	c.refresh()
	c.awaitRoute("a", `192\.168\..*/26 via 10\.99\.1\.12 dev eth0 proto bird`)
	c.sh("b").run("ip addr del 10.99.1.12/24 dev eth0; ip addr add 10.99.1.77/24 dev eth0; ip route add default via 10.99.1.1")
	c.awaitRoute("a", `192\.168\..*/26 via 10\.99\.1\.77 dev eth0 proto bird`)
	c.awaitRoute("b", `192\.168\..*/26 via 10\.99\.1\.11 dev eth0 proto bird`)
	if err := c.lacksRoute("a", `192\.168\..* via 10\.99\.1\.12 .*`); err != nil {
		t.Error(err)
	}
	c.sh("pod/default/p").run(ping(c.addr("q")))
}

// TestMeshDeath ends an agent for good. Its peers keep its routes for the time that
// the cluster gives to restarts, and no longer; a node that is deleted is forgotten
// at once.
func TestMeshDeath(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
nodes: [{name: a}, {name: b}, {name: c}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16}
pods: [{name: p, node: a}, {name: q, node: b}, {name: r, node: c}]
resources:
- {apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeMeshMaxRestartTime: 3s}}
`))
	c.refresh()
	const toB, toC = `192\.168\..*/26 via 10\.99\.1\.12 dev eth0 proto bird`, `192\.168\..*/26 via 10\.99\.1\.13 dev eth0 proto bird`
	c.awaitRoute("a", toB)
	c.awaitRoute("a", toC)
	start := time.Now()
	c.stop("b", true)
	c.sh("pod/default/p").run(ping(c.addr("q")))
	eventually(t, "routes of b to go", func() error { return c.lacksRoute("a", toB) })
	if took := time.Since(start); took < 2*time.Second || took > 100*time.Second {
		t.Errorf("the routes of a dead node went after %v, want the restart time of 3 s, and not the default of 120 s", took)
	}
	st := c.store()
	o, err := st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "c"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Delete, Object: o}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "routes of c to go", func() error { return c.lacksRoute("a", toC) })
}

// TestLocked locks the datastore, as an upgrade does: agents go on, and change
// nothing.
func TestLocked(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	h.must("ADD", "before")
	st := c.store()
	ready := func(ready bool) {
		t.Helper()
		o, err := st.Get(t.Context(), model.Key{Kind: model.KindClusterInformation, Name: "default"})
		if err != nil {
			t.Fatal(err)
		}
		put(t, st, fmt.Sprintf(`{"apiVersion": "projectcalico.org/v3", "kind": "ClusterInformation", "metadata": {"name": "default", "resourceVersion": %q}, "spec": {"datastoreReady": %v}}`, o.Meta().ResourceVersion, ready))
	}
	ready(false)
	eventually(t, "an ADD to be refused", func() error {
		if a := h.cni("ADD", h.conf, "during")[0]; a.Code == 0 || !strings.Contains(a.Stdout, "the datastore is locked") {
			return errors.New(a.Stdout)
		}
		return nil
	})
	if s, err := c.agentStatus("node-a"); err != nil || s.Ready || !strings.Contains(s.Why, "locked") {
		t.Errorf("status of a locked node: %v, %+v", err, s)
	}
	ready(true)
	eventually(t, "an ADD to succeed", func() error {
		if a := h.cni("ADD", h.conf, "after")[0]; a.Code != 0 {
			return errors.New(a.Stdout)
		}
		return nil
	})
}

// TestHolderKilled kills the process that owns a lab: the kernel ends all that is in
// it, and `lab down` or another `lab up` clear away the rest.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	const topology = "nodes: [{name: a}]\npods: [{name: p, node: a}]\n"
	c.must("lab", "up", "-f", c.file(topology))
	kill := func() {
		t.Helper()
		for _, dir := range processes(c.dir) {
			line, _ := os.ReadFile(dir + "/cmdline")
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && strings.HasPrefix(string(line), "weft-lab:") {
				if p, err := os.FindProcess(pid); err == nil {
					_ = p.Kill()
				}
			}
		}
		eventually(t, "all processes to end", func() error {
			if left := processes(c.dir); len(left) > 0 {
				return fmt.Errorf("%v", left)
			}
			return nil
		})
	}
	kill()
	c.must("lab", "up", "-f", c.file(topology)) // over what the other left
	kill()
	c.must("lab", "down")
	if left, _ := filepath.Glob(c.dir + "/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSecondAgent: a node has one agent.
func TestSecondAgent(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	weft := filepath.Join(bin, "weft")
	if r := c.run("lab", "exec", "node-a", "--", weft, "node", "run"); r.code != 1 || !strings.Contains(r.line(t), "another agent is listening there") {
		t.Errorf("a second agent: exit code %d: %s", r.code, r.stderr)
	}
	c.must("lab", "exec", "node-a", "--", weft, "node", "status")
	c.stop("node-a", false)
	if r := c.run("lab", "exec", "node-a", "--", weft, "node", "status"); r.code != 1 || !strings.Contains(r.line(t), "no agent answers at ") {
		t.Errorf("status without an agent: exit code %d: %s", r.code, r.stderr)
	}
}
