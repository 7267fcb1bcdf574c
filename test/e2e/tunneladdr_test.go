package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// TestTunnelAddresses: nodes have an address in IPAM and in their record for each tunnel
// that pools ask for, the same one over restarts, and none for those that no pool asks for
// any more. Where a pool has no address left the status says so, and what else the node
// has works.
func TestTunnelAddresses(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
nodes: [{name: a}, {name: b}]
pods: [{name: p, node: a}, {name: q, node: b}]
resources:
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 192.168.0.0/16, vxlanMode: Always}}
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: tiny}, spec: {cidr: 10.77.0.0/32, blockSize: 32, ipipMode: Always, allowedUses: [Tunnel]}}
`))
	c.refresh()
	st := c.store()
	// record is what node's record says, which must be what IPAM has.
	record := func(node string) (vxlan, ipip string, err error) {
		o, err := st.Get(t.Context(), model.Node{Name: node}.Key())
		if err != nil {
			return "", "", err
		}
		n := o.Object.(*v3.Node)
		held := map[string]string{}
		blocks, err := st.List(t.Context(), model.KindIPAMBlock, "")
		for _, o := range blocks {
			v, err := model.Parse(o.Object)
			if err != nil {
				return "", "", err
			}
			for _, tunnel := range []allocator.Tunnel{allocator.VXLAN, allocator.IPIP} {
				for _, a := range ipam.Held(v.(model.Block), tunnel.Holder(node).Handle) {
					held[tunnel.String()] += a.String()
				}
			}
		}
		vxlan, ipip = n.Spec.IPv4VXLANTunnelAddr, n.Spec.BGP.IPv4IPIPTunnelAddr
		if err == nil && (held["VXLAN"] != vxlan || held["IPIP"] != ipip) {
			err = fmt.Errorf("record says VXLAN %q, IPIP %q; IPAM has %v", vxlan, ipip, held)
		}
		return vxlan, ipip, err
	}
	var first string
	eventually(t, "addresses of both nodes", func() error {
		var ipips []string
		for _, node := range []string{"a", "b"} {
			vxlan, ipip, err := record(node)
			if err != nil || vxlan == "" {
				return fmt.Errorf("node %s: %q, %w", node, vxlan, err)
			}
			if first = vxlan; ipip != "" {
				ipips = append(ipips, ipip)
			}
		}
		if !slices.Equal(ipips, []string{"10.77.0.0"}) {
			return fmt.Errorf("IPIP has %v, want the one address of its pool", ipips)
		}
		return nil
	})
	hungry := ""
	for _, node := range []string{"a", "b"} {
		if _, ipip, _ := record(node); ipip == "" {
			hungry = node
		}
	}
	eventually(t, "the status of "+hungry, func() error {
		s, err := c.agentStatus(hungry)
		if err == nil && !slices.ContainsFunc(s.Notes, func(n string) bool {
			return strings.HasPrefix(n, "IPPool/tiny: IPIP: this node has no address for it") && strings.Contains(n, "1 of 1 in use")
		}) {
			err = fmt.Errorf("notes %q", s.Notes)
		}
		return err
	})
	c.reach("pod/default/p", c.addr("q"))
	c.stop("b", true)
	c.start("b")
	if vxlan, _, err := record("b"); err != nil || vxlan != first {
		t.Errorf("after a restart: %q, %v; want %q", vxlan, err, first)
	}
	// The one who has it gives it back, then nobody needs one.
	put(t, st, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 192.168.0.0/16, vxlanMode: Never}\n")
	put(t, st, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: tiny}\nspec: {cidr: 10.77.0.0/32, blockSize: 32, ipipMode: Never, allowedUses: [Tunnel]}\n")
	eventually(t, "records without tunnels", func() error {
		for _, node := range []string{"a", "b"} {
			if vxlan, ipip, err := record(node); err != nil || vxlan+ipip != "" {
				return fmt.Errorf("node %s: %q, %q, %w", node, vxlan, ipip, err)
			}
			if s, err := c.agentStatus(node); err != nil || slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, "no address") }) {
				return fmt.Errorf("node %s: notes %q, %w", node, s.Notes, err)
			}
		}
		return nil
	})
	c.reach("pod/default/p", c.addr("q"))
}
