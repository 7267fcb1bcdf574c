package e2e_test

import (
	"fmt"
	"strings"
	"testing"
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
		eventually(t, tt.spec, func() error {
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
