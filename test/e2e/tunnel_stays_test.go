package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/testenv"
)

// pool4 is what IPv4 pods of stations have addresses of.
const pool4 = "192.168.0.0/16"

// TestIPIPStays looks at the device of IPIP: what it has, that it stays as it is when its
// agent ends, that damage is repaired, and what stays when no pool asks for it any more.
// Where the agent does the kernel's work it says so, once.
func TestIPIPStays(t *testing.T) {
	t.Parallel()
	c := ipipStays(t)
	if !c.userIPIP("b") {
		t.Skip("the kernel here has IPIP, and TestVMIPIPStays is the same test")
	}
	for _, node := range []string{"a", "b"} {
		want := map[string]int{"a": 2, "b": 1}[node] // that of a was started twice
		if n := strings.Count(c.agentLog(node), inUserSpace); n != want {
			t.Errorf("the agent of %s has said %d times that it is in user space, want %d", node, n, want)
		}
	}
	if out := c.sh("b").run("WEFT_STATUS_SOCKET=" + c.statusSocket("b") + " " + bin + "/weft node status"); !strings.Contains(out, inUserSpace) {
		t.Errorf("weft node status says nothing of IPIP in user space:\n%s", out)
	}
	c.sh("b").run("ip link del tunl0")
	ipip := [2]mode{{"ipip", false}, {}}
	eventually(t, "tunl0 again", func() error {
		if c.tunnelAddr("b", "tunl0") == "" {
			return errors.New("no address")
		}
		return c.waysOf(ipip[0], false)
	})
	c.reach("pod/default/p", c.addr("q"))
	c.leaveIPIP()
	if c.userIPIP("b") {
		t.Error("without IPIP the agent still says that it does it in user space")
	}
}

// TestVMIPIPStays does the same with the kernel's IPIP.
func TestVMIPIPStays(t *testing.T) {
	testenv.VM(t)
	c := ipipStays(t)
	if c.userIPIP("a") {
		t.Error("the agent does IPIP in user space, where the kernel has it")
	}
	c.leaveIPIP()
}

func ipipStays(t *testing.T) *cluster {
	c := newCluster(t)
	ipip := mode{"ipip", false}
	c.must("lab", "up", "-f", c.file(racks+`
env: {CALICO_IPV4POOL_CIDR: none}
resources:
- `+ipip.pool("four", pool4)))
	c.refresh()
	eventually(t, "routes", func() error { return c.waysOf(ipip, false) })
	addr := netip.MustParseAddr(c.tunnelAddr("a", "tunl0"))
	if !netip.MustParsePrefix(pool4).Contains(addr) || c.mtu("a", "tunl0") != "1480" || c.record("a").Spec.BGP.IPv4IPIPTunnelAddr != addr.String() {
		t.Errorf("tunl0 has %v and MTU %s; the record says %+v; want an address of the pool in both, and 1480",
			addr, c.mtu("a", "tunl0"), c.record("a").Spec.BGP)
	}
	c.reach("pod/default/p", c.addr("q"))
	c.reach("pod/default/p", c.addr("r"))

	w := c.watch("p", c.addr("q"))
	w.mark()
	w.read()
	// Without its agent the node is as it was, but that nothing is carried in user space.
	look := func() string {
		return c.sh("a").run("ip route; ip -o -4 addr show dev tunl0; cat /sys/class/net/tunl0/mtu")
	}
	before := look()
	c.stop("a", false)
	if after := strings.ReplaceAll(look(), " linkdown", ""); after != before {
		t.Errorf("without the agent:\n%s\nbefore:\n%s", after, before)
	}
	c.start("a")
	w.mark()
	if r := w.read(); r.Sent == 0 || r.Lost > 0 && !c.userIPIP("a") {
		t.Errorf("while the agent was stopped and started %d packets of %d were lost", r.Lost, r.Sent)
	}
	if after := look(); after != before {
		t.Errorf("with the next agent:\n%s\nbefore:\n%s", after, before)
	}
	c.sh("a").run("ip addr del " + addr.String() + "/32 dev tunl0")
	eventually(t, "what somebody removed", func() error {
		if after := look(); after != before {
			return fmt.Errorf("got\n%s\nwant\n%s", after, before)
		}
		return nil
	})
	c.reach("pod/default/p", c.addr("q"))
	return c
}

// leaveIPIP has the pool ask for IPIP no more: of the tunnel stays the bare device.
func (c *cluster) leaveIPIP() {
	c.t.Helper()
	w := c.watch("p", c.addr("q"))
	w.mark()
	w.read()
	put(c.t, c.st(), mode{}.pool("four", pool4))
	eventually(c.t, "the end of IPIP", func() error {
		for _, n := range stations() {
			if out, code := c.sh(n.name).try("ip -o -4 addr show dev tunl0"); code != 0 || out != "" {
				return fmt.Errorf("node %s: exit code %d: %q, want tunl0 without an address", n.name, code, out)
			}
			if addr := c.record(n.name).Spec.BGP.IPv4IPIPTunnelAddr; addr != "" {
				return fmt.Errorf("node %s: the record has %s", n.name, addr)
			}
		}
		return errors.Join(c.waysOf(mode{}, false), c.tunnelHandles([2]mode{}))
	})
	w.mark()
	if r := w.read(); r.Outage > mostOutage || r.Sent == 0 {
		c.t.Errorf("the end of IPIP: %d of %d lost, %v without an answer", r.Lost, r.Sent, r.Outage)
	}
}

// TestVXLANEntries looks at the devices of VXLAN of both families, without BGP: hardware
// addresses that stay, permanent entries for each other node, which come and go with it,
// and come again when somebody removes them.
func TestVXLANEntries(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	modes := [2]mode{{"vxlan", false}, {"vxlan", false}}
	c.must("lab", "up", "-f", c.file(racks+`
env: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none, CALICO_NETWORKING_BACKEND: vxlan}
resources:
- `+modes[0].pool("four", pool4)+`
- `+modes[1].pool("six", "fd00:168::/48")))
	c.refresh()
	as := func(what string) {
		t.Helper()
		eventually(t, what, func() error { return errors.Join(c.ways(modes), c.traces(modes)) })
	}
	as("routes and entries")
	macs := func(node string) [2]string {
		return [2]string{c.mac(node, "vxlan.calico"), c.mac(node, "vxlan-v6.calico")}
	}
	for _, n := range stations() {
		if want := [2]string{model.VTEPMAC(n.name, false), model.VTEPMAC(n.name, true)}; macs(n.name) != want {
			t.Errorf("node %s has %v, want %v", n.name, macs(n.name), want)
		}
		if s := c.record(n.name).Spec; macs(n.name) != [2]string{s.VXLANTunnelMACAddr, s.VXLANTunnelMACAddrV6} {
			t.Errorf("the record of node %s says %s and %s, want %v", n.name, s.VXLANTunnelMACAddr, s.VXLANTunnelMACAddrV6, macs(n.name))
		}
	}
	if s, err := c.agentStatus("a"); err != nil || s.BGP || !s.Ready {
		t.Errorf("status: %v; BGP %v, ready %v: %s; want none, and to be ready", err, s.BGP, s.Ready, s.Why)
	}

	// The record has the last word about hardware addresses.
	own := [2]string{"66:00:00:00:00:01", "66:00:00:00:00:02"}
	c.editNode("b", func(n *v3.Node) { n.Spec.VXLANTunnelMACAddr, n.Spec.VXLANTunnelMACAddrV6 = own[0], own[1] })
	eventually(t, "the record's hardware addresses", func() error {
		if macs("b") != own {
			return fmt.Errorf("%v", macs("b"))
		}
		return nil
	})
	as("the record's hardware addresses, on other nodes")
	c.stop("b", true)
	c.start("b")
	as("a restart")
	if macs("b") != own {
		t.Errorf("after a restart %v, want %v", macs("b"), own)
	}

	c.sh("a").run("bridge fdb del " + own[0] + " dev vxlan.calico && bridge fdb del " + own[1] + " dev vxlan-v6.calico && " +
		"ip neigh del " + c.tunnelAddr("c", "vxlan.calico") + " dev vxlan.calico")
	as("what somebody removed")

	// A node leaves and comes back.
	c.stop("c", false)
	st := c.store()
	take(t, st, model.Node{Name: "c"}.Key())
	eventually(t, "the node to be forgotten", func() error {
		for _, link := range []string{"vxlan.calico", "vxlan-v6.calico"} {
			if got := entries(c.sh("a").run("bridge fdb show dev " + link + "; ip neigh show dev " + link)); len(got) != 2 {
				return fmt.Errorf("%s has %v, want two entries, of b", link, got)
			}
		}
		for _, line := range c.routes("a") {
			for _, block := range slices.Concat(c.blocks("c", false), c.blocks("c", true)) {
				if strings.HasPrefix(line, block) {
					return fmt.Errorf("there is %s", line)
				}
			}
		}
		return nil
	})
	c.start("c")
	as("the node again")
	c.reach("pod/default/p", c.addr("r"))
}

// record is the Node resource.
func (c *cluster) record(node string) *v3.Node {
	c.t.Helper()
	o, err := c.st().Get(c.t.Context(), model.Node{Name: node}.Key())
	if err != nil {
		c.t.Fatal(err)
	}
	return o.Object.(*v3.Node)
}

// editNode changes a Node resource, which its agent may change as well.
func (c *cluster) editNode(node string, edit func(*v3.Node)) {
	c.t.Helper()
	eventually(c.t, "edit node "+node, func() error {
		o, err := c.st().Get(c.t.Context(), model.Node{Name: node}.Key())
		if err != nil {
			return err
		}
		n := *o.Object.(*v3.Node)
		edit(&n)
		_, err = c.st().Commit(c.t.Context(), store.Op{Verb: store.Update, Object: o.With(&n)})
		return err
	})
}
