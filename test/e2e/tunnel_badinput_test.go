package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
)

// noted waits until the status of a node has exactly one note with each of some texts,
// in one line.
func (c *cluster) noted(node string, want ...string) {
	c.t.Helper()
	eventually(c.t, "notes of "+node, func() error {
		s, err := c.agentStatus(node)
		if err != nil {
			return err
		}
		for _, w := range want {
			has := slices.DeleteFunc(slices.Clone(s.Notes), func(n string) bool { return !strings.Contains(n, w) })
			if len(has) != 1 || strings.Contains(has[0], "\n") {
				return fmt.Errorf("%d lines with %q, want one, of:\n%s", len(has), w, strings.Join(s.Notes, "\n"))
			}
		}
		return nil
	})
}

// unnoted waits until the status of a node has no note with a text.
func (c *cluster) unnoted(node, text string) {
	c.t.Helper()
	eventually(c.t, "notes of "+node, func() error {
		s, err := c.agentStatus(node)
		if err == nil && strings.Contains(strings.Join(s.Notes, "\n"), text) {
			err = fmt.Errorf("%q still in:\n%s", text, strings.Join(s.Notes, "\n"))
		}
		return err
	})
}

// podsOf are pods named NAME-NODE with addresses of one pool each, on nodes a and b.
func podsOf(pools ...mixedPool) string {
	var out strings.Builder
	for _, p := range pools {
		families := `ipv4Pools: [` + p.name + `], cni: {ipam: {assign_ipv6: "false"}}`
		if p.v6() {
			families = `ipv6Pools: [` + p.name + `], cni: {ipam: {assign_ipv4: "false"}}`
		}
		fmt.Fprintf(&out, "- {name: %s-a, node: a, %s}\n- {name: %s-b, node: b, %s}\n", p.name, families, p.name, families)
	}
	return out.String()
}

// poolsOf are their pools, without encapsulation at first.
func poolsOf(pools ...mixedPool) string {
	out := "resources:\n"
	for _, p := range pools {
		out += "- " + mode{}.pool(p.name, p.cidr) + "\n"
	}
	return out
}

// TestForeignTunnelDevices: devices that somebody else made, with other settings, stay as
// they are, and so does what has a port. The status says what to do, and when it is done the tunnels
// work; pools that need them not have worked all the time.
func TestForeignTunnelDevices(t *testing.T) {
	t.Parallel()
	all := mixedPools()
	plain, ipip, vxlan, plain6, vxlan6 := all[0], all[1], all[3], all[5], all[6]
	c := newCluster(t)
	topology, _, _ := strings.Cut(racks, "pods:")
	c.must("lab", "up", "-f", c.file(topology+"\nenv: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none}\npods:\n"+
		podsOf(plain, ipip, vxlan, plain6, vxlan6)+poolsOf(plain, ipip, vxlan, plain6, vxlan6)))
	c.refresh()
	reach := func(pools ...mixedPool) {
		t.Helper()
		for _, p := range pools {
			c.reach("pod/default/"+p.name+"-a", c.addr(p.name+"-b"))
		}
	}
	reach(plain, plain6)
	c.stop("a", false)
	c.sh("a").run("ip link add vxlan.calico type vxlan id 99 dstport 8472 local 10.1.0.11 nolearning")
	_, code := c.sh("a").try("ip link add tunl0 type bridge")
	tunl0 := code == 0 // else it is the kernel's
	foreign := func() string {
		return c.sh("a").run("ip -d -o link show dev vxlan.calico; ip -o addr show dev vxlan.calico")
	}
	before := foreign()
	taken := c.listen("b", "10.1.0.12", "udp:4789")
	c.start("a")
	for _, p := range []mixedPool{ipip, vxlan, vxlan6} {
		put(t, c.st(), p.mode.pool(p.name, p.cidr))
	}
	want := []string{"device vxlan.calico: somebody else made it with other settings: id 99, want 4096, dstport 8472, want 4789; if nobody needs it, remove it: ip link delete vxlan.calico"}
	if tunl0 {
		want = append(want, "device tunl0: somebody else made it with other settings: it is a bridge device, want ipip; if nobody needs it, remove it: ip link delete tunl0")
	}
	c.noted("a", want...)
	c.noted("b", "device vxlan.calico: set up: UDP port 4789 is taken by e2e.test (process ", "device vxlan-v6.calico: set up: UDP port 4789 is taken by ")
	reach(plain, plain6)
	if !tunl0 {
		reach(ipip)
	}
	if after := foreign(); after != before {
		t.Errorf("somebody else's device is now\n%s\nit was\n%s", after, before)
	}

	c.sh("a").run("ip link delete vxlan.calico")
	if tunl0 {
		c.sh("a").run("ip link delete tunl0")
		c.unnoted("a", "device tunl0: somebody")
	}
	c.unnoted("a", "device vxlan.calico")
	taken.stdin.Close() // which ends it
	c.unnoted("b", "UDP port 4789 is taken")
	reach(plain, ipip, vxlan, plain6, vxlan6)
}

// TestBadPools: pools that ask for what cannot be, as somebody may write into etcd past
// all validation, have one line in the status of each node; pods of other pools talk.
func TestBadPools(t *testing.T) {
	t.Parallel()
	all := mixedPools()
	plain, ipip, vxlan, vxlan6 := all[0], all[1], all[3], all[6]
	c := newCluster(t)
	topology := strings.Replace(racks, "name: one,", "name: one, mtu: 1300,", 1)
	topology, _, _ = strings.Cut(topology, "pods:")
	c.must("lab", "up", "-f", c.file(topology+"\nenv: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none}\npods:\n"+
		podsOf(plain, ipip, vxlan)+poolsOf(plain, ipip, vxlan, vxlan6)))
	c.refresh()
	for _, p := range []mixedPool{ipip, vxlan} {
		put(t, c.st(), p.mode.pool(p.name, p.cidr))
	}
	raw := func(name, cidr, ipipMode, vxlanMode string) {
		t.Helper()
		if _, err := c.etcdOnce().Put(t.Context(), "/calico/resources/v3/projectcalico.org/ippools/"+name, fmt.Sprintf(
			`{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":%q,"uid":"5e3d2f3c-5f9e-4a2e-9f0a-%012d","creationTimestamp":"2024-05-01T10:00:00Z"},"spec":{"cidr":%q,"blockSize":%d,"ipipMode":%q,"vxlanMode":%q,"nodeSelector":"all()"}}`,
			name, len(name), cidr, map[bool]int{true: 122, false: 26}[strings.Contains(cidr, ":")], ipipMode, vxlanMode)); err != nil {
			t.Fatal(err)
		}
	}
	raw("both", "10.60.0.0/16", "Always", "CrossSubnet")
	raw("ipip6", "fd00:60::/48", "Always", "Never")
	raw("sometimes", "10.61.0.0/16", "Sometimes", "Never")
	put(t, c.st(), vxlan6.mode.pool(vxlan6.name, vxlan6.cidr))
	for _, node := range []string{"a", "b"} {
		c.noted(node, "IPPool/both: ", "IPPool/ipip6: ", "IPPool/sometimes: ",
			"IPPool/vxlan6: vxlanMode Always: no device vxlan-v6.calico: the underlay's MTU of 1300 less 70, or vxlanMTUV6, is below the 1280 that IPv6 needs (RFC 8200)",
			"MTU of pods: the underlay's MTU of 1300 less what vxlan.calico adds, or what is set for it, leaves 1250, IPv6 needs at least 1280 (RFC 8200)")
		if out, code := c.sh(node).try("ip link show dev vxlan-v6.calico"); code == 0 {
			t.Errorf("node %s has %s", node, out)
		}
	}
	for _, p := range []mixedPool{plain, ipip, vxlan} {
		c.reach("pod/default/"+p.name+"-a", c.addr(p.name+"-b"))
	}
	c.largest("vxlan-a", c.addr("vxlan-b"), 1250)

	// What was wrong is put right.
	take(t, c.st(), poolKey("both"))
	take(t, c.st(), poolKey("sometimes"))
	for _, node := range []string{"a", "b"} {
		c.unnoted(node, "IPPool/both")
		c.unnoted(node, "IPPool/sometimes")
	}
}

func poolKey(name string) model.Key { return model.Key{Kind: model.KindIPPool, Name: name} }
