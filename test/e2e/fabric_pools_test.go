package e2e_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// mixedPool is one of several pools of a cluster, which has a pod named NAME-NODE on each node.
type mixedPool struct {
	name, cidr string
	mode       mode
}

func (p mixedPool) v6() bool { return strings.Contains(p.cidr, ":") }

func mixedPools() []mixedPool {
	return []mixedPool{
		{"plain", "10.10.0.0/16", mode{}},
		{"ipip", "10.20.0.0/16", mode{"ipip", false}},
		{"ipip-cross", "10.30.0.0/16", mode{"ipip", true}},
		{"vxlan", "10.40.0.0/16", mode{"vxlan", false}},
		{"vxlan-cross", "10.50.0.0/16", mode{"vxlan", true}},
		{"plain6", "fd00:10::/48", mode{}},
		{"vxlan6", "fd00:40::/48", mode{"vxlan", false}},
		{"vxlan6-cross", "fd00:50::/48", mode{"vxlan", true}},
	}
}

// mixed is the topology of those pools, with what captures must see of each.
func mixed(pools []mixedPool) string {
	topology, _, _ := strings.Cut(racks, "pods:")
	var pods, resources, expect strings.Builder
	for _, p := range pools {
		families := `ipv4Pools: [` + p.name + `], cni: {ipam: {assign_ipv6: "false"}}`
		if p.v6() {
			families = `ipv6Pools: [` + p.name + `], cni: {ipam: {assign_ipv4: "false"}}`
		}
		for _, n := range stations() {
			fmt.Fprintf(&pods, "- {name: %s-%s, node: %s, %s}\n", p.name, n.name, n.name, families)
		}
		fmt.Fprintf(&resources, "- %s\n", p.mode.pool(p.name, p.cidr))
		near, far := "none", "none"
		if p.mode.tunnel != "" {
			far = p.mode.tunnel
			if !p.mode.cross {
				near = p.mode.tunnel
			}
			fmt.Fprintf(&expect, "- reachable: {from: pod/default/%s-a, to: pod/default/%s-c, carried: %s, source: own}\n  within: 30s\n", p.name, p.name, far)
		}
		fmt.Fprintf(&expect, "- reachable: {from: pod/default/%s-b, to: pod/default/%s-a, carried: %s, source: own}\n  within: 30s\n", p.name, p.name, near)
	}
	return topology + "\nenv: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none}\npods:\n" + pods.String() +
		"resources:\n" + resources.String() + "expect:\n" + expect.String()
}

// TestMixedPools has pools of all modes and both families at once. Each pool's packets
// have its form, and all that happens to one pool, and to the agents, is nothing to the
// others: agents that are killed and come again lose no packet, but for those that they
// carry in user space; a pool that changes takes none of others.
func TestMixedPools(t *testing.T) {
	t.Parallel()
	pools := mixedPools()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(mixed(pools)))
	if out, code := c.weft("lab", "check"); code != 0 {
		t.Fatalf("lab check: %s", out)
	}
	c.refresh()
	user := c.userIPIP("a")
	watches := map[string]watcher{}
	for _, p := range pools {
		to := "b"
		if p.mode.cross {
			to = "c"
		}
		watches[p.name] = c.watch(p.name+"-a", c.addr(p.name+"-"+to))
	}
	// during lets something happen, and allows some pools an outage.
	during := func(what string, allowed map[string]time.Duration, do func()) {
		t.Helper()
		c.interval(watches)
		do()
		for name, r := range c.interval(watches) {
			if most := allowed[name]; r.Outage > most || most == 0 && r.Lost > 0 || r.Sent == 0 {
				t.Errorf("%s: pool %s: %d of %d lost, %v without an answer, want at most %v", what, name, r.Lost, r.Sent, r.Outage, most)
			}
			if r.Lost > 0 {
				t.Logf("%s: pool %s: %d of %d lost, %v without an answer", what, name, r.Lost, r.Sent, r.Outage)
			}
		}
	}
	for _, kill := range []bool{true, false} {
		for _, node := range []string{"b", "a"} {
			began := time.Now()
			allowed := map[string]time.Duration{}
			during(fmt.Sprintf("agent of %s stops (killed: %v) and starts", node, kill), allowed, func() {
				c.stop(node, kill)
				c.start(node)
				for _, pool := range []string{"ipip", "ipip-cross"} { // which is ready a moment after the agent
					c.sh("pod/default/" + pool + "-a").run(ping(watches[pool].to))
				}
				if user && node == "b" { // where packets between a and c do not go
					allowed["ipip"] = time.Since(began)
				} else if user {
					allowed["ipip"], allowed["ipip-cross"] = time.Since(began), time.Since(began)
				}
			})
			during("the new agent of "+node+" runs", nil, func() { c.established(node, 4) })
		}
	}
	for _, n := range stations() { // whose routes a pool without encapsulation needs
		c.established(n.name, 4)
	}
	st := c.store()
	for _, i := range []int{1, 3} { // the devices have another pool still
		p := pools[i]
		for _, m := range []mode{{}, p.mode} {
			// The other pool with that tunnel may have to give the device an address.
			allowed := map[string]time.Duration{p.name: mostOutage, p.name + "-cross": mostOutage}
			during(fmt.Sprintf("pool %s becomes %v", p.name, m), allowed, func() {
				put(t, st, m.pool(p.name, p.cidr))
				from, to := stations()[0], stations()[1]
				eventually(t, "routes of pool "+p.name, func() error {
					for _, b := range c.blocks("b", false) {
						if !strings.HasPrefix(b, p.cidr[:5]) {
							continue
						}
						if want := m.way(b, from, to, c.tunnelAddr("b", m.device(false))); !slices.Contains(c.routes("a"), want) {
							return fmt.Errorf("no %s in %s", want, strings.Join(c.routes("a"), "\n"))
						}
					}
					return nil
				})
			})
		}
	}
}

// interval ends an interval of all watches, and begins another one.
func (c *cluster) interval(watches map[string]watcher) map[string]interval {
	c.t.Helper()
	out := map[string]interval{}
	for _, w := range watches {
		w.mark()
	}
	for _, name := range slices.Sorted(maps.Keys(watches)) {
		out[name] = watches[name].read()
	}
	return out
}

// inUserSpace is what an agent says of IPIP where the kernel has none.
const inUserSpace = "the kernel has no IPIP (module ipip); the agent does it in user space, which is slower"

// userIPIP reports whether an agent says that it does IPIP in user space.
func (c *cluster) userIPIP(node string) bool {
	c.t.Helper()
	s, err := c.agentStatus(node)
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.Contains(s.Notes, "device tunl0: "+inUserSpace)
}
