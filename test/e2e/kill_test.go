package e2e_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// emptied takes containers away and fails the test if anything of them stays.
func (h *host) emptied(containers []string) {
	t := h.c.t
	t.Helper()
	h.must("DEL", containers...)
	eventually(t, "nothing to be left", func() error {
		for key, value := range h.c.held() {
			if value != "0 addresses, 0 attributes" {
				return fmt.Errorf("in etcd: %s: %s", key, value)
			}
		}
		if l := h.c.links(h.node); len(l) > 0 {
			return fmt.Errorf("links %v", l)
		}
		return nil
	})
}

// TestAgentKilledDuringAdds kills the agent in the middle of many ADDs, again and
// again. Each ADD succeeds or says that it did not, and the DELs take away all.
func TestAgentKilledDuringAdds(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	names := containerNames("pod", 40)
	for round := range 3 {
		answers := make(chan []cniAnswer, 1)
		go func() { answers <- h.cni("ADD", h.conf, names...) }()
		// Earlier or later, whatever the machine's speed.
		eventually(t, "some addresses", func() error {
			n := 0
			for key := range c.held() {
				if strings.HasPrefix(key, "/calico/ipam/v2/handle/") {
					n++
				}
			}
			if n <= 15*round {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		c.stop("node-a", true)
		seen := map[string]string{}
		failed := 0
		for _, a := range <-answers {
			if a.Code != 0 {
				failed++
				continue
			}
			addr := addressOf(t, a).String()
			if other, ok := seen[addr]; ok {
				t.Errorf("%s and %s both have %s", a.Container, other, addr)
			}
			seen[addr] = a.Container
		}
		t.Logf("round %d: %d of %d failed", round, failed, len(names))
		c.start("node-a")
		h.must("ADD", names...) // what a runtime does next
		h.emptied(names)
	}
}

// TestPluginKilled kills executables at every moment of an ADD and of a DEL. The
// DEL after it takes all away.
func TestPluginKilled(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	h.must("ADD", "first")
	h.must("DEL", "first")
	before := c.held()
	names := containerNames("pod", 40)
	for _, command := range []string{"ADD", "DEL"} {
		if command == "DEL" {
			h.must("ADD", names...)
		}
		killed := 0
		for _, a := range h.cniKilled(command, h.conf, 10*time.Millisecond, names...) {
			if a.Code != 0 {
				killed++
			}
		}
		t.Logf("%s: %d of %d killed", command, killed, len(names))
		h.emptied(names)
	}
	if after := c.held(); !maps.Equal(before, after) {
		t.Errorf("left in etcd:\n%s", diff(lines(after), lines(before)))
	}
}
