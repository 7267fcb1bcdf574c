package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// TestTunnelSettingsChange: what a FelixConfiguration says of VXLAN takes effect in place,
// on the device and on what guards it, and pods reach each other after each change but
// where there is no way left.
func TestTunnelSettingsChange(t *testing.T) {
	t.Parallel()
	c := up(t, "../../examples/vxlan.yaml")
	sh, to := c.sh("node-a"), c.addr("c")
	c.reach("pod/default/a", to)
	const link, guard = "ip -d link show dev vxlan.calico 2>&1 || true", "nft list chain ip weft tunnels-input 2>&1 || true"
	for _, tt := range []struct {
		spec         string
		link, guard  string // what they say; empty: there is no device
		no           string // what neither says any more
		reach, wired bool
	}{
		{`"vxlanPort": 4790`, "vxlan id 4096 local 10.173.32.11 srcport 0 0 dstport 4790", "udp dport 4790 ip saddr != @all-hosts", "4789", true, true},
		{`"vxlanPort": 4790, "vxlanVNI": 5000, "vxlanMTU": 1400`, "vxlan id 5000", "udp dport 4790", "vxlan id 4096", true, true},
		{`"vxlanEnabled": false`, "", "", "dport", false, false},
		{`"vxlanEnabled": true`, "vxlan id 4096 local 10.173.32.11 srcport 0 0 dstport 4789", "udp dport 4789", "4790", true, true},
	} {
		put(t, c.st(), felix(tt.spec))
		eventually(t, 20*time.Second, tt.spec, func() error {
			device, chain := sh.run(link), sh.run(guard)
			if tt.link == "" && !strings.Contains(device, "does not exist") || !strings.Contains(device, tt.link) ||
				!strings.Contains(chain, tt.guard) || strings.Contains(device+chain, tt.no) {
				return fmt.Errorf("the device is %s\nthe guard is %s", device, chain)
			}
			if routes := sh.run("ip route"); strings.Contains(routes, "dev vxlan.calico") != tt.wired {
				return fmt.Errorf("routes: %s", routes)
			}
			s, err := c.agentStatus("node-a")
			if err == nil && len(s.Tunnels) != map[bool]int{true: 1}[tt.wired] {
				err = fmt.Errorf("the status has tunnels %+v", s.Tunnels)
			}
			return err
		})
		if tt.reach {
			c.reach("pod/default/a", to)
		}
	}
}

// TestVMWireGuardOnAndOff: encryption comes and goes while the agents run, and leaves
// nothing: no device, rule, route, or key in the records.
func TestVMWireGuardOnAndOff(t *testing.T) {
	testenv.VM(t)
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", c.file("nodes: [{name: node-a}, {name: node-b}]\nenv: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16}\npods: [{name: a, node: node-a}, {name: b, node: node-b}]\n")); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	sh, to := c.sh("node-a"), c.addr("b")
	for _, on := range []bool{true, false, true} {
		put(t, c.st(), felix(fmt.Sprintf(`"wireguardEnabled": %v`, on)))
		eventually(t, 60*time.Second, fmt.Sprintf("wireguardEnabled: %v", on), func() error {
			traces := sh.run("ip -o link show type wireguard | grep -c .; ip rule | grep -c 'lookup 1 *$'; ip route show table 1 2>/dev/null | grep -c wireguard.cali; true")
			if want := map[bool]string{true: "1 1 1", false: "0 0 0"}[on]; oneLine(traces) != want {
				return fmt.Errorf("devices, rules and routes: %s, want %s", oneLine(traces), want)
			}
			for _, node := range []string{"node-a", "node-b"} {
				if n := c.record(node); (n.Status.WireguardPublicKey != "") != on {
					return fmt.Errorf("the record of %s has the key %q", node, n.Status.WireguardPublicKey)
				}
			}
			if s, err := c.agentStatus("node-a"); err != nil || on != (len(s.Tunnels) == 1 && s.Tunnels[0].Key != "" && s.Tunnels[0].Ends == 1) {
				return fmt.Errorf("the status has tunnels %+v, %w", s.Tunnels, err)
			}
			return nil
		})
		c.reach("pod/default/a", to)
	}
}
