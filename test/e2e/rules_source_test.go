package e2e_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// sources is a pod that lies, one that may send from other addresses, and one that
// hears them.
const sources = `
racks: [{name: rack-1, subnets: [10.1.0.0/24, "fd00:1::/64"]}]
nodes: [{name: node-a}, {name: node-b}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16, CALICO_IPV4POOL_IPIP: Never, CALICO_IPV6POOL_CIDR: "fd00:168::/48"}
pods:
- {name: liar, node: node-a, addresses: [192.168.1.1, "fd00:168::1:1"]}
- name: cloud
  node: node-a
  addresses: [192.168.1.2, "fd00:168::1:2"]
  cni: {runtimeConfig: {io.kubernetes.cri.pod-annotations: {cni.projectcalico.org/allowedSourcePrefixes: '["203.0.113.0/24", "2001:db8::/64"]'}}}
- {name: sink, node: node-b, addresses: [192.168.2.1, "fd00:168::2:1"]}
`

// felix lays fields of the FelixConfiguration default over no others.
func felix(spec string) string {
	return `{"apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration", "metadata": {"name": "default"}, "spec": {` + spec + `}}`
}

// explained runs `weft explain` against the lab's datastore.
func (c *cluster) explained(args string) result {
	c.t.Helper()
	env := []string{}
	for k, v := range c.settings() {
		env = append(env, k+"="+v)
	}
	return c.runWith(env, append([]string{"explain"}, strings.Fields(args)...)...)
}

// TestSources: a pod sends from its own addresses, and from prefixes that it was given
// where the setting says so.
func TestSources(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", c.file(sources)); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	c.reach("pod/default/liar", "192.168.2.1")
	c.reach("pod/default/liar", "fd00:168::2:1")
	st := c.store()
	liar, cloud := c.prober("pod/default/liar"), c.prober("pod/default/cloud")
	sink := c.listen("pod/default/sink", "192.168.2.1", "udp:53", "udp:4789", "udp:4790", "ip:4")
	hears := func(p prober, source, to, protocol, port string, want bool) {
		t.Helper()
		if got := sink.hears(t, p, source, to, protocol, port); got != want {
			t.Errorf("protocol %s port %s from %s to %s is heard: %t, want %t", protocol, port, source, to, got, want)
		}
	}
	becomes := func(p prober, source, to, protocol, port string, want bool) {
		t.Helper()
		c.await("protocol "+protocol+" port "+port+" from "+source+" changes", func() bool {
			return sink.hears(t, p, source, to, protocol, port) == want
		})
	}
	const four, six = "192.168.2.1", "fd00:168::2:1"
	hears(liar, "192.168.1.1", four, "17", "53", true)
	hears(liar, "192.168.1.2", four, "17", "53", false) // its neighbour's
	hears(liar, "203.0.113.1", four, "17", "53", false)
	hears(liar, "10.1.0.11", four, "17", "53", false) // its node's
	hears(liar, "fd00:168::1:1", six, "17", "53", true)
	hears(liar, "fd00:168::1:2", six, "17", "53", false)
	hears(cloud, "203.0.113.1", four, "17", "53", false) // the setting is off
	hears(cloud, "2001:db8::1", six, "17", "53", false)
	if r := c.explained("pod/default/cloud@203.0.113.1 pod/default/sink --protocol udp --port 53 --expect deny"); r.code != 0 || !strings.Contains(r.stdout, "workloadSourceSpoofing") {
		t.Errorf("explain: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}

	put(t, st, felix(`"workloadSourceSpoofing": "Any"`))
	becomes(cloud, "203.0.113.1", four, "17", "53", true)
	becomes(cloud, "2001:db8::1", six, "17", "53", true) // each family has a table of its own
	hears(cloud, "198.51.100.1", four, "17", "53", false)
	hears(liar, "203.0.113.1", four, "17", "53", false)
	if r := c.explained("pod/default/cloud@203.0.113.1 pod/default/sink --protocol udp --port 53 --expect allow"); r.code != 0 {
		t.Errorf("explain: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	put(t, st, felix(``))
	becomes(cloud, "203.0.113.1", four, "17", "53", false)

	// Nobody packs packets into packets by himself, unless that is allowed.
	encapsulation(t, c, liar, becomes, hears)
}

// encapsulation tries VXLAN and IP in IP, with each setting of them.
func encapsulation(t *testing.T, c *cluster, liar prober, becomes, hears func(p prober, source, to, protocol, port string, want bool)) {
	t.Helper()
	const own, own6, four, six = "192.168.1.1", "fd00:168::1:1", "192.168.2.1", "fd00:168::2:1"
	st := c.store()
	hears(liar, own, four, "17", "4789", false)
	hears(liar, own6, six, "17", "4789", false)
	hears(liar, own, four, "4", "0", false)
	hears(liar, own, four, "17", "4790", true)
	for _, args := range []string{"--protocol udp --port 4789", "--protocol 4"} {
		if r := c.explained("pod/liar pod/sink " + args + " --expect deny"); r.code != 0 || !strings.Contains(r.stdout, "PacketsFromWorkloads") {
			t.Errorf("explain %s: exit code %d: %s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	put(t, st, felix(`"allowVXLANPacketsFromWorkloads": true`))
	becomes(liar, own, four, "17", "4789", true)
	becomes(liar, own6, six, "17", "4789", true)
	hears(liar, own, four, "4", "0", false)
	put(t, st, felix(`"allowIPIPPacketsFromWorkloads": true, "vxlanPort": 4790`))
	becomes(liar, own, four, "4", "0", true)
	becomes(liar, own, four, "17", "4790", false) // it is a connection by now, which ends
	hears(liar, own, four, "17", "4789", true)
}

// runWith is run with more in the environment.
func (c *cluster) runWith(env []string, args ...string) result {
	c.t.Helper()
	was := c.env
	defer func() { c.env = was }()
	c.env = append(append([]string{}, was...), env...)
	return c.run(args...)
}

// agentLog is the log of a node's agent so far.
func (c *cluster) agentLog(node string) string {
	c.t.Helper()
	for i, n := range c.now.Nodes {
		if n.Name == node {
			return c.read(filepath.Join(c.now.Dir, "nodes", string(rune('0'+i)), "log"))
		}
	}
	c.t.Fatalf("no node %s", node)
	return ""
}
