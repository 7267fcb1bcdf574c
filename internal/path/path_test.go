package path_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/path"
	"github.com/weft-net/weft/internal/plan"
)

// world is two racks: a and b in the first, c in the second; a pool of each sort with a
// block on each node, and a workload at its second address.
func world(felix model.FelixConfig) model.World {
	w := model.World{}
	add := func(v model.Value) { w[v.Key()] = v }
	pools := map[string]model.Pool{
		"plain": {CIDR: prefix("10.10.0.0/16"), NATOutgoing: true},
		"ipip":  {CIDR: prefix("10.20.0.0/16"), IPIP: model.EncapCrossSubnet},
		"vxlan": {CIDR: prefix("10.30.0.0/16"), VXLAN: model.EncapAlways},
		"six":   {CIDR: prefix("fd10::/48"), VXLAN: model.EncapAlways},
	}
	for name, p := range pools {
		p.Name = name
		add(p)
	}
	for i, at := range []string{"10.1.0.1/24 fd01::1/64", "10.1.0.2/24 fd01::2/64", "10.2.0.3/24 fd02::3/64"} {
		v4, v6, _ := strings.Cut(at, " ")
		node := string(rune('a' + i))
		n := model.Node{
			Name: node, IPv4: prefix(v4), IPv6: prefix(v6), MTU: 1500, Links: []model.NodeLink{{Name: "eth0", Addrs: []netip.Addr{prefix(v4).Addr(), prefix(v6).Addr()}}}, WireGuardKey: [32]byte{byte(i + 1)},
			IPIPTunnel: addr("10.20.9." + string(rune('1'+i))), VXLANTunnel: addr("10.30.9." + string(rune('1'+i))), VXLANTunnelV6: addr("fd10::9:" + string(rune('1'+i))),
		}
		add(n)
		for _, block := range []string{"10.10.N.0/24", "10.20.N.0/24", "10.30.N.0/24", "fd10::N:0/112"} {
			cidr := prefix(strings.ReplaceAll(block, "N", string(rune('1'+i))))
			add(model.Block{CIDR: cidr, Owner: model.HostAffinity(node)})
			add(model.Endpoint{Namespace: "ns", Name: node + cidr.String(), Node: node, Link: "cali" + node, Addrs: []netip.Addr{cidr.Addr().Next()}})
		}
	}
	felix.Name = "default"
	add(felix)
	return w
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

func TestTrace(t *testing.T) {
	t.Parallel()
	on := true
	secret := model.FelixConfig{Tunnel: model.TunnelConfig{WireGuard: &on}}
	for name, tt := range map[string]struct {
		src, dst, from, to string
		felix              model.FelixConfig
		want               string
	}{
		"plain": {"10.10.1.1", "10.10.2.1", "a", "b", model.FelixConfig{}, `
			a  10.10.2.0/24 via 10.1.0.2 dev eth0 proto bird
			   MTU 1500
			b  10.10.2.1 dev calib scope link
			   MTU 1430`},
		"the same node": {"10.10.1.1", "10.20.1.1", "a", "a", model.FelixConfig{}, `
			a  10.20.1.1 dev calia scope link
			   MTU 1430`},
		"ipip across subnets": {"10.20.1.1", "10.20.3.1", "a", "c", model.FelixConfig{}, `
			a  10.20.3.0/24 via 10.2.0.3 dev tunl0 proto bird onlink
			   ipip, 10.1.0.1 to 10.2.0.3; MTU 1480
			c  10.20.3.1 dev calic scope link
			   MTU 1430`},
		"ipip in a subnet": {"10.20.1.1", "10.20.2.1", "a", "b", model.FelixConfig{}, `
			a  10.20.2.0/24 via 10.1.0.2 dev eth0 proto bird
			   MTU 1500
			b  10.20.2.1 dev calib scope link
			   MTU 1430`},
		"vxlan": {"10.30.1.1", "10.30.2.1", "a", "b", model.FelixConfig{}, `
			a  10.30.2.0/24 via 10.30.9.2 dev vxlan.calico proto bird onlink
			   vxlan, 10.1.0.1 to 10.1.0.2; MTU 1450
			b  10.30.2.1 dev calib scope link
			   MTU 1430`},
		"vxlan over IPv6": {"fd10::1:1", "fd10::3:1", "a", "c", model.FelixConfig{}, `
			a  fd10::3:0/112 via fd10::9:3 dev vxlan-v6.calico proto bird onlink
			   vxlan, fd01::1 to fd02::3; MTU 1430
			c  fd10::3:1 dev calic
			   MTU 1430`},
		"wireguard": {"10.20.1.1", "10.20.3.1", "a", "c", secret, `
			a  10.20.3.0/24 dev wireguard.cali proto bird scope link
			   wireguard, 10.1.0.1 to 10.2.0.3:51820; MTU 1440
			c  10.20.3.1 dev calic scope link
			   MTU 1430`},
		"out of the cluster": {"10.10.1.1", "203.0.113.9", "a", "", model.FelixConfig{}, `
			a  the node's own routes lead there
			   dev eth0; MTU 1500
			   NAT: 10.10.1.1 becomes an address of eth0: pool plain has natOutgoing, and 203.0.113.9 is in no pool`},
		"out of it, without NAT": {"10.20.1.1", "203.0.113.9", "a", "", model.FelixConfig{}, `
			a  the node's own routes lead there
			   dev eth0; MTU 1500`},
		"from outside": {"203.0.113.9", "10.20.1.1", "", "a", model.FelixConfig{}, `
			a  10.20.1.1 dev calia scope link
			   MTU 1430`},
		"to nobody of the own block": {"10.10.1.1", "10.10.1.77", "a", "", model.FelixConfig{}, `
			a  blackhole 10.10.1.0/24 proto bird
			   the node drops it: the address is of its own block, and nobody has it`},
		"far, by BGP": {"10.10.1.1", "10.10.3.1", "a", "c", model.FelixConfig{}, `
			a  10.10.3.0/24 via 10.2.0.3 proto bird
			   MTU 1500
			   if BGP tells it, as a full mesh does; the gateway is reached by the node's own routes
			c  10.10.3.1 dev calic scope link
			   MTU 1430`},
		"to the own node": {"10.10.1.1", "10.1.0.1", "a", "a", model.FelixConfig{}, `
			a  an address of the node itself`},
		"to nobody of another's block": {"10.20.1.1", "10.20.3.77", "a", "", secret, `
			a  10.20.3.0/24 dev wireguard.cali proto bird scope link
			   wireguard, 10.1.0.1 to 10.2.0.3:51820; MTU 1440
			c  blackhole 10.20.3.0/24 proto bird
			   the node drops it: the address is of its own block, and nobody has it`},
		"to nobody of a neighbour's": {"10.30.1.1", "10.30.2.77", "a", "", model.FelixConfig{}, `
			a  10.30.2.0/24 via 10.30.9.2 dev vxlan.calico proto bird onlink
			   vxlan, 10.1.0.1 to 10.1.0.2; MTU 1450
			b  blackhole 10.30.2.0/24 proto bird
			   the node drops it: the address is of its own block, and nobody has it`},
		"to a node": {"10.20.1.1", "10.2.0.3", "a", "c", model.FelixConfig{}, `
			a  the node's own routes lead there
			   dev eth0; MTU 1500
			c  an address of the node itself`},
	} {
		hops := path.Trace(world(tt.felix), path.Query{Packet: plan.Packet{Src: addr(tt.src), Dst: addr(tt.dst), Protocol: 6, DstPort: 80}, From: tt.from, To: tt.to})
		got := squeeze(strings.TrimPrefix(path.Text(hops), "path\n"))
		if want := squeeze(strings.TrimPrefix(tt.want, "\n")); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
}

// squeeze takes the blanks out that align columns.
func squeeze(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.TrimSpace(strings.Join(out, "\n"))
}

// TestStrict: what would leave in clear, and must not, goes nowhere.
func TestStrict(t *testing.T) {
	t.Parallel()
	on := true
	w := world(model.FelixConfig{Tunnel: model.TunnelConfig{WireGuard: &on, WireGuardStrict: &on}})
	c := w[model.Node{Name: "c"}.Key()].(model.Node)
	c.WireGuardKey = [32]byte{}
	w[c.Key()] = c
	hops := path.Trace(w, path.Query{Packet: plan.Packet{Src: addr("10.10.1.1"), Dst: addr("10.10.3.1")}, From: "a", To: "c"})
	if len(hops) != 2 || !strings.Contains(hops[0].Note, "wireguardCleartext") || hops[0].Encapsulation != "none" {
		t.Errorf("got %+v", hops)
	}
}

// TestNoMesh: where nodes have other peers, it is said that these decide, but for pools
// whose routes do not come by BGP.
func TestNoMesh(t *testing.T) {
	t.Parallel()
	w := world(model.FelixConfig{})
	off := false
	c := model.BGPConfig{Name: "default", Mesh: &off}
	w[c.Key()] = c
	for dst, want := range map[string]bool{"10.10.2.1": true, "10.20.2.1": false, "10.30.2.1": false} {
		hops := path.Trace(w, path.Query{Packet: plan.Packet{Src: addr("10.10.1.1"), Dst: addr(dst)}, From: "a", To: "b"})
		if got := strings.Contains(hops[0].Note, "nodeToNodeMeshEnabled is false"); got != want {
			t.Errorf("to %s: %q", dst, hops[0].Note)
		}
	}
}
