package e2e_test

import (
	"fmt"
	"net/netip"
	"regexp"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// TestIPv6Only runs a cluster without any IPv4, first with BGP, which needs a router ID
// that looks like an IPv4 address all the same, then with VXLAN as well: each node has
// one of its own, and keeps it. Nothing of IPv4 is made.
func TestIPv6Only(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird", "birdc")
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
racks: [{name: one, subnets: ["fd00:1::/64"]}, {name: two, subnets: ["fd00:2::/64"]}]
nodes: [{name: a, rack: one}, {name: b, rack: one}, {name: c, rack: two}]
pods: [{name: p, node: a}, {name: q, node: b}, {name: r, node: c}]
env: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none}
routers: [{name: tor, rack: one, asn: 65001, peers: [a, b]}]
resources:
- `+mode{}.pool("six", "fd00:168::/48")+`
- {apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: "fd00:1::2", asNumber: 65001}}
`))
	c.refresh()
	ways := func(m mode) {
		t.Helper()
		eventually(t, fmt.Sprint(m), func() error { return c.waysOf(m, true) })
	}
	ways(mode{})
	c.reach("pod/default/p", c.addr("q"))
	ids := func() map[string]bool {
		t.Helper()
		found := map[string]bool{}
		eventually(t, "sessions of the router", func() error {
			clear(found)
			out := c.sh("tor").run("birdc -s $BIRD_SOCKET 'show protocols all'")
			for _, m := range regexp.MustCompile(`Neighbor ID: +(\S+)`).FindAllStringSubmatch(out, -1) {
				found[m[1]] = true
			}
			if len(found) != 2 {
				return fmt.Errorf("router IDs %v, want one of each node:\n%s", found, out)
			}
			return nil
		})
		return found
	}
	first := ids()
	for text := range first {
		if id, err := netip.ParseAddr(text); err != nil || !id.Is4() || id.IsUnspecified() || id.IsMulticast() {
			t.Errorf("router ID %s: %v; want an IPv4 address that a host can have", text, err)
		}
	}
	c.stop("a", true)
	c.start("a")
	if again := ids(); fmt.Sprint(again) != fmt.Sprint(first) {
		t.Errorf("router IDs after a restart: %v, were %v", again, first)
	}
	put(t, c.st(), mode{"vxlan", true}.pool("six", "fd00:168::/48"))
	ways(mode{"vxlan", true})
	c.reach("pod/default/p", c.addr("q"))
	c.reach("pod/default/p", c.addr("r"))
	for _, n := range []string{"a", "b", "c"} {
		if out, code := c.sh(n).try("ip -o link show dev vxlan.calico || ip -o link show dev tunl0"); code == 0 {
			t.Errorf("node %s has %s", n, out)
		}
		s, err := c.agentStatus(n)
		if err != nil || len(s.Notes) > 0 || !s.Ready {
			t.Errorf("node %s: %v, ready %v %s, notes %v", n, err, s.Ready, s.Why, s.Notes)
		}
	}
}
