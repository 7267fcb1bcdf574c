package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestQuickstart brings up what the README shows and reads it as an operator of
// Calico would: routes to the letter, objects under Calico's keys. Then nothing is
// left of it.
func TestQuickstart(t *testing.T) {
	t.Parallel()
	start := time.Now()
	c := up(t, "../../examples/quickstart.yaml")
	t.Logf("up after %v", time.Since(start))
	nodes := []string{"node-a", "node-b", "node-c"}
	blocks := map[string]netip.Prefix{}
	for _, p := range c.now.Pods {
		blocks[p.Node] = netip.PrefixFrom(p.Addresses[0], 26).Masked()
	}
	for _, n := range nodes {
		c.established(n, 2)
		want := []string{
			"default via 10.173.32.1 dev eth0",
			fmt.Sprintf("10.173.32.0/24 dev eth0 proto kernel scope link src %v", c.node(n).Addresses[0]),
			fmt.Sprintf("blackhole %v proto bird", blocks[n]),
		}
		for _, other := range c.now.Nodes {
			if other.Name != n {
				want = append(want, fmt.Sprintf("%v via %v dev eth0 proto bird", blocks[other.Name], other.Addresses[0]))
			}
		}
		for _, p := range c.now.Pods {
			if p.Node == n {
				want = append(want, fmt.Sprintf("%v dev %s scope link", p.Addresses[0], p.HostLink))
			}
			if !regexp.MustCompile("^cali[0-9a-f]{11}$").MatchString(p.HostLink) {
				t.Errorf("pod %s is at %s", p.Name, p.HostLink)
			}
		}
		slices.Sort(want)
		eventually(t, "routes of "+n, func() error {
			var got []string
			for line := range strings.Lines(c.must("lab", "exec", n, "--", "ip", "route")) {
				got = append(got, strings.TrimSpace(line))
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				return fmt.Errorf("-want +got:\n%s", diff(strings.Join(got, "\n"), strings.Join(want, "\n")))
			}
			return nil
		})
	}
	for _, p := range c.now.Pods {
		got := c.must("lab", "exec", "pod/default/"+p.Name, "--", "ip", "route")
		if want := "default via 169.254.1.1 dev eth0 \n169.254.1.1 dev eth0 scope link \n"; got != want {
			t.Errorf("routes of %s:\n%swant:\n%s", p.Name, got, want)
		}
	}
	c.calicoKeys(blocks)
	c.leavesNothing(append(nodes, "pod/default/web-1", "fabric"))
}

// calicoKeys looks at what etcd holds, with an etcd client from outside of the lab.
func (c *cluster) calicoKeys(blocks map[string]netip.Prefix) {
	c.t.Helper()
	all, _ := keys(c.t, c.etcd(), "/calico/")
	const resources = "/calico/resources/v3/projectcalico.org/"
	for _, key := range []string{
		resources + "ippools/default-ipv4-ippool", resources + "nodes/node-a", resources + "clusterinformations/default",
		resources + "workloadendpoints/default/node--a-k8s-web--1-eth0",
	} {
		if all[key] == "" {
			c.t.Errorf("etcd has no key %s", key)
		}
	}
	for node, block := range blocks {
		name := strings.ReplaceAll(block.String(), "/", "-")
		var affinity struct{ State string }
		if err := json.Unmarshal([]byte(all["/calico/ipam/v2/host/"+node+"/ipv4/block/"+name]), &affinity); err != nil || affinity.State != "confirmed" {
			c.t.Errorf("affinity of %s to %v: %v, %q", node, block, err, affinity.State)
		}
		var b struct{ CIDR, Affinity string }
		if err := json.Unmarshal([]byte(all["/calico/ipam/v2/assignment/ipv4/block/"+name]), &b); err != nil || b.Affinity != "host:"+node || b.CIDR != block.String() {
			c.t.Errorf("block %v: %v, %+v", block, err, b)
		}
	}
}

// leavesNothing takes the lab down and looks for what may be left.
func (c *cluster) leavesNothing(targets []string) {
	c.t.Helper()
	spaces := map[string]string{}
	for _, target := range targets {
		spaces[strings.TrimSpace(c.must("lab", "exec", target, "--", "readlink", "/proc/self/ns/net"))] = target
	}
	if len(spaces) != len(targets) {
		c.t.Errorf("%d namespaces, want one for each of %v", len(spaces), targets)
	}
	c.must("lab", "down")
	if left, _ := filepath.Glob(c.dir + "/*"); len(left) > 0 {
		c.t.Errorf("left behind: %v", left)
	}
	if left := processes(c.dir); len(left) > 0 {
		c.t.Errorf("left behind: processes %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), c.dir) {
		c.t.Errorf("left behind: a mount (%v)", err)
	}
	// A namespace lives as long as a process, a descriptor or a mount of it.
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range links {
		if ns, err := os.Readlink(path); err == nil && spaces[ns] != "" {
			c.t.Errorf("left behind: the namespace of %s, in %s", spaces[ns], path)
		}
	}
	if out, code := c.weft("lab", "status"); code != 1 {
		c.t.Errorf("status after down: exit code %d: %s", code, out)
	}
}
