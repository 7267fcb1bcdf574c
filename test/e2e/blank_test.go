package e2e_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestStoreBlank puts another etcd, with nothing in it, in the place of the lab's: under
// agents that run, and under one that starts then. Pods talk on, no route is touched, and
// the agents say what they doubt. When the right one is back all is well by itself.
func TestStoreBlank(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/pair.yaml")
	c.expected = "WEFT_TRUST_EMPTY_DATASTORE"
	for _, n := range []string{"node-a", "node-b"} {
		c.established(n, 2)
	}
	ends := map[string]func() trainResult{
		"IPv4": c.startTrain("a1", c.pod("b1").Addresses[0].String()),
		"IPv6": c.startTrain("b1", c.pod("a1").Addresses[1].String()),
	}
	data := filepath.Join(c.now.Dir, "store", "data")
	exchange := func(from, to string) {
		t.Helper()
		c.sh("fabric").run("kill -9 " + c.storePID())
		c.sh("fabric").run(fmt.Sprintf("mv %s %s.%s", data, data, from))
		if to != "" {
			c.sh("fabric").run(fmt.Sprintf("mv %s.%s %s", data, to, data))
		}
		c.startStore()
	}
	doubts := func(node string) {
		t.Helper()
		eventually(t, "doubt on "+node, func() error {
			s, err := c.agentStatus(node)
			if err != nil {
				return err
			}
			if s.Ready || !strings.Contains(s.Why, "all stays as it is") {
				return fmt.Errorf("ready %v: %s", s.Ready, s.Why)
			}
			if !slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, "WEFT_TRUST_EMPTY_DATASTORE") }) {
				return fmt.Errorf("notes: %v", s.Notes)
			}
			return nil
		})
	}
	before := map[string]string{}
	for _, n := range []string{"node-a", "node-b"} {
		before[n] = strings.Join(c.routes(n), "\n")
	}
	rules := c.sh("node-a").run("nft list ruleset | grep -c cali")

	exchange("right", "")
	doubts("node-b")
	c.stop("node-a", true)
	started := make(chan error, 1)
	starting := exec.Command(filepath.Join(bin, "weft"), "lab", "start", "node-a") // which returns when the agent serves
	starting.Env = c.env
	go func() {
		out, err := starting.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		started <- err
	}()
	doubts("node-a")
	for n, text := range before {
		if now := strings.Join(c.routes(n), "\n"); now != text {
			t.Errorf("routes of %s before:\n%s\nafter:\n%s", n, text, now)
		}
	}
	if now := c.sh("node-a").run("nft list ruleset | grep -c cali"); now != rules {
		t.Errorf("lines of rules about workloads: %s before, %s after", rules, now)
	}

	exchange("blank", "right")
	if err := <-started; err != nil {
		t.Errorf("start of node-a: %v", err)
	}
	for _, n := range []string{"node-a", "node-b"} {
		c.established(n, 2)
		eventually(t, n+" is ready", func() error {
			s, err := c.agentStatus(n)
			if err == nil && !s.Ready {
				err = fmt.Errorf("not ready: %s", s.Why)
			}
			return err
		})
	}
	for what, end := range ends {
		noLoss(t, what, end)
	}
}
