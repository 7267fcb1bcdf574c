package e2e_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/testenv"
)

// storePID is the PID of the lab's etcd, as seen in the lab.
func (c *cluster) storePID() string {
	c.t.Helper()
	for _, path := range strings.Fields(c.sh("fabric").run(`grep -l -- --data-dir /proc/[0-9]*/cmdline`)) {
		return filepath.Base(filepath.Dir(path))
	}
	c.t.Fatal("no etcd in the lab")
	return ""
}

// startStore starts etcd again, on the data that the killed one left.
func (c *cluster) startStore() {
	c.t.Helper()
	c.begin("fabric", filepath.Join(bin, "weft"), "store",
		"--data-dir", filepath.Join(c.now.Dir, "store", "data"), "--listen", c.now.Endpoint)
}

// TestStoreGone kills etcd under running agents, and starts it again: pods talk on,
// no route is touched, requests are refused with the reason, and afterwards the
// agents follow changes and serve again, all by themselves.
func TestStoreGone(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/pair.yaml")
	c.established("node-a", 2)
	h := c.runtime("node-a")
	h.must("ADD", "before")
	ends := map[string]func() trainResult{
		"IPv4": c.startTrain("a1", c.pod("b1").Addresses[0].String()),
		"IPv6": c.startTrain("b1", c.pod("a1").Addresses[1].String()),
	}
	watch := c.watchRoutes("node-a")
	if out := watch.changes(); len(out) > 0 {
		t.Logf("before: %v", out)
	}

	c.sh("fabric").run("kill -9 " + c.storePID())
	start := time.Now()
	text := h.refused("ADD", h.conf, "etcd")
	t.Logf("an ADD without etcd: %q after %v", text, time.Since(start))
	if took := time.Since(start); took > testenv.Patience {
		t.Errorf("an ADD without etcd took %v", took)
	}
	s, err := c.agentStatus("node-a")
	if err != nil || len(s.Peers) != 2 || s.Peers[0].State != "Established" {
		t.Errorf("without etcd: %v, sessions %v", err, s.Peers)
	}
	if !slices.ContainsFunc(s.Notes, func(n string) bool { return strings.HasPrefix(n, "datastore: etcd: ") }) {
		t.Errorf("the status does not say that etcd is gone: %v", s.Notes)
	}
	c.startStore()
	eventually(t, "an ADD after etcd is back", func() error {
		if a := h.cni("ADD", h.conf, "after")[0]; a.Code != 0 {
			return errors.New(a.Stdout)
		}
		return nil
	})
	for _, change := range watch.changes() {
		// The link of the container that was refused came and went.
		if !strings.Contains(change, " dev cali") || strings.Contains(change, "proto bird") {
			t.Errorf("a route was changed: %s", change)
		}
	}
	for what, end := range ends {
		noLoss(t, what, end)
	}
	h.must("DEL", "before", "after", "refused")
	for key := range c.held() {
		if strings.Contains(key, "net.id-") || strings.Contains(key, "k8s-refused") {
			t.Errorf("left in etcd: %s", key)
		}
	}

	// The watch is whole: a change arrives.
	st := c.store()
	put(t, st, `{"apiVersion": "projectcalico.org/v3", "kind": "BGPConfiguration", "metadata": {"name": "default"}, "spec": {"nodeToNodeMeshEnabled": false}}`)
	for _, n := range []string{"node-a", "node-b"} {
		c.established(n, 0)
	}
	o, err := st.Get(t.Context(), model.Key{Kind: model.KindBGPConfiguration, Name: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := o.Object.(*v3.BGPConfiguration); !ok {
		t.Fatalf("got a %T", o.Object)
	}
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Delete, Object: o}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"node-a", "node-b"} {
		c.established(n, 2)
	}
}

// TestStartWithoutStore starts an agent while there is no etcd: it says so and
// ends, or waits, and in any case takes no route out of the kernel.
func TestStartWithoutStore(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/pair.yaml")
	c.established("node-a", 2)
	c.awaitRoute("node-a", `192\.168\..*/26 via 10\.1\.0\.12 dev eth0 proto bird`)
	pid := c.storePID()
	env, argv := c.agentCommand("node-a")
	c.stop("node-a", true)
	want := c.sh("node-a").run("ip route; ip -6 route")
	c.sh("fabric").run("kill -STOP " + pid) // it takes connections and says nothing
	out, code := c.sh("node-a").try(fmt.Sprintf("env -i %s timeout 300 %s", env, argv))
	if code == 0 || code == 124 || !strings.Contains(lastLine(out), "etcd") {
		t.Errorf("without an answer from etcd: exit code %d: %s", code, out)
	}
	if got := c.sh("node-a").run("ip route; ip -6 route"); got != want {
		t.Errorf("an agent that can't start changed routes:\n%s", diff(got, want))
	}
	c.sh("fabric").run("kill -CONT " + pid)
	c.start("node-a")
	c.established("node-a", 2)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}

// agentCommand is how the lab starts the agent of a node: its environment as words
// for a shell, and the command.
func (c *cluster) agentCommand(node string, over ...string) (env, argv string) {
	c.t.Helper()
	for _, kv := range strings.Split(strings.TrimRight(c.agentEnv(node), "\x00"), "\x00") {
		env += "'" + kv + "' "
	}
	for _, kv := range over {
		env += "'" + kv + "' "
	}
	return env, filepath.Join(bin, "weft") + " node run"
}
