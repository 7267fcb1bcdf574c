package edge

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// TestTranslate: each answer says which object and field decides.
func TestTranslate(t *testing.T) {
	t.Parallel()
	const world = "pool p 10.65.0.0/16 nat ipip, pool q 10.66.0.0/16, node a 192.0.2.1/24, node b 192.0.2.2/24"
	pod := netip.MustParseAddr("10.65.0.9")
	for name, tt := range map[string]struct {
		more     string // objects
		src, dst string // empty: the pod; 203.0.113.1
		out      string
		want     string
		field    string
	}{
		"outside":      {"", "", "", "eth0", "10.65.0.9 becomes an address of eth0: pool p has natOutgoing, and 203.0.113.1 is in no pool", "IPPool/p spec.natOutgoing"},
		"no interface": {"", "", "", "", "10.65.0.9 becomes an address of the interface that it leaves by: pool p has natOutgoing, and 203.0.113.1 is in no pool", "IPPool/p spec.natOutgoing"},
		"smallest":     {"pool r 10.65.0.0/24 nat", "", "", "eth0", "10.65.0.9 becomes an address of eth0: pool r has natOutgoing, and 203.0.113.1 is in no pool", "IPPool/r spec.natOutgoing"},
		"address and ports": {
			"felix default addr=192.0.2.9 ports=1024-65535", "", "", "eth0",
			"10.65.0.9 becomes 192.0.2.9 (natOutgoingAddress), port 1024 to 65535 (natPortRange): pool p has natOutgoing, and 203.0.113.1 is in no pool", "IPPool/p spec.natOutgoing",
		},
		"within the cluster": {"", "", "10.66.0.1", "eth0", "10.66.0.1 is in pool q, within the cluster: the source stays", "IPPool/q spec.cidr"},
		"a node":             {"", "", "192.0.2.2", "eth0", "10.65.0.9 becomes an address of eth0: pool p has natOutgoing, and 192.0.2.2 is in no pool", "IPPool/p spec.natOutgoing"},
		"a node, excluded":   {"felix default hosts", "", "192.0.2.2", "eth0", "192.0.2.2 is an address of a node (natOutgoingExclusions: IPPoolsAndHostIPs): the source stays", "Node/b "},
		"no natOutgoing":     {"", "10.66.0.1", "", "eth0", "pool q has no natOutgoing: the source stays", "IPPool/q spec.natOutgoing"},
		"no pool":            {"", "192.0.2.1", "", "eth0", "192.0.2.1 is in no pool: the source stays", "/ "},
		"interface":          {"felix default link=eth+", "", "", "wlan0", "wlan0 is not eth+ (iptablesNATOutgoingInterfaceFilter): the source stays", "/ "},
		"interface, not known": {
			"felix default link=eth+", "", "", "",
			"10.65.0.9 becomes an address of the interface that it leaves by: pool p has natOutgoing, and 203.0.113.1 is in no pool; only if it leaves by eth+ (iptablesNATOutgoingInterfaceFilter)", "IPPool/p spec.natOutgoing",
		},
		"the node through a tunnel": {"", "192.0.2.1", "10.66.0.1", "tunl0", "192.0.2.1 becomes the address of tunl0, by which it leaves: answers come back through the tunnel", "/ "},
		"no packet filter":          {"felix default ipv6=false", "fd65::1", "2001:db8::1", "eth0", "the node has no packet filter for IPv6 (ipv6Support): the source stays", "/ "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := plan.Packet{Src: pod, Dst: netip.MustParseAddr("203.0.113.1"), Protocol: 6, OutLink: tt.out}
			if tt.src != "" {
				p.Src, p.SrcLocal = netip.MustParseAddr(tt.src), tt.src == "192.0.2.1"
			}
			if tt.dst != "" {
				p.Dst = netip.MustParseAddr(tt.dst)
			}
			got := Translate(options(), model.World{}.Apply(batch(t, world+", "+tt.more)), p)
			if got.Text != tt.want {
				t.Errorf("got  %s\nwant %s", got.Text, tt.want)
			}
			if field := got.Origin.String() + " " + got.Field; field != tt.field {
				t.Errorf("by %q, want %q", field, tt.field)
			}
		})
	}
}
