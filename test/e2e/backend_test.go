package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestWithoutBGP runs nodes whose routes come from the datastore alone
// (CALICO_NETWORKING_BACKEND=vxlan): those of pools with VXLAN and of pools without, in both
// families; nobody speaks BGP.
func TestWithoutBGP(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(`
racks: [{name: rack-1, subnets: [10.1.0.0/24, 'fd01::/64']}]
nodes: [{name: a, rack: rack-1}, {name: b, rack: rack-1}]
env: {CALICO_NETWORKING_BACKEND: vxlan, NO_DEFAULT_POOLS: true}
pods: [{name: p, node: a}, {name: q, node: b}, {name: plain, node: b, cni: {ipam: {ipv4_pools: [plain]}}}]
resources:
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: a-vxlan}, spec: {cidr: 192.168.0.0/16, vxlanMode: Always}}
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: b-six}, spec: {cidr: 'fd77::/48', vxlanMode: Always}}
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: plain}, spec: {cidr: 10.77.0.0/16}}
`))
	c.refresh()
	for _, to := range []string{"q", "plain"} {
		for _, a := range c.pod(to).Addresses {
			c.reach("pod/default/p", a.String())
		}
	}
	c.awaitRoute("a", `192\.168\..*/26 via 192\.168\..* dev vxlan\.calico proto bird onlink`)
	c.awaitRoute("a", `10\.77\..*/26 via 10\.1\.0\..* dev eth0 proto bird`)
	for _, node := range []string{"a", "b"} {
		eventually(t, "the status of "+node, func() error {
			s, err := c.agentStatus(node)
			if err == nil && (s.BGP || len(s.Peers) != 0 || !s.Ready) {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
	}
	if out, _ := c.sh("a").try("cat /proc/net/tcp /proc/net/tcp6"); strings.Contains(out, ":00B3 ") {
		t.Errorf("somebody listens for BGP:\n%s", out)
	}
}
