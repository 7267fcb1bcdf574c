package e2e_test

import (
	"strings"
	"testing"
)

// live is a node with a host endpoint, and pods that ask.
const live = `
racks: [{name: rack-1, subnets: [10.1.0.0/24, "fd00:1::/64"]}]
nodes: [{name: node-a}, {name: node-b}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16, CALICO_IPV4POOL_IPIP: Never, CALICO_IPV6POOL_CIDR: "fd00:168::/48", FELIX_DEFAULTENDPOINTTOHOSTACTION: ""}
pods:
- {name: client, node: node-a, addresses: [192.168.1.1, "fd00:168::1:1"]}
- {name: web, node: node-a, labels: {app: web}, addresses: [192.168.1.2, "fd00:168::1:2"]}
resources:
- {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: node-b}, spec: {node: node-b, interfaceName: eth0}}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: web}
  spec: {selector: app == "web", ingress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}, {action: Allow, protocol: UDP, destination: {ports: [53]}}]}
`

// TestSettingsLive changes fields of the FelixConfiguration while packets are sent: each
// takes effect without a restart, and back.
func TestSettingsLive(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", c.file(live)); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	st := c.store()
	set := func(spec string) { t.Helper(); put(t, st, felix(spec)) }
	client := c.prober("pod/default/client")
	c.listen("pod/default/web", "192.168.1.2", "tcp:80", "tcp:81", "udp:53")
	c.listen("node-a", "10.1.0.11", "tcp:80")
	c.listen("node-b", "10.1.0.12", "tcp:5000", "tcp:22")

	// What a pod may ask its own node.
	for _, addr := range []string{"10.1.0.11", "fd00:1::b"} {
		client.becomes("tcp "+addr+" 80", "silence")
	}
	set(`"defaultEndpointToHostAction": "Accept"`)
	for _, addr := range []string{"10.1.0.11", "fd00:1::b"} {
		client.becomes("tcp "+addr+" 80", "answer")
	}
	set(`"defaultEndpointToHostAction": "Drop"`)
	client.becomes("tcp 10.1.0.11 80", "silence")
	set(`"defaultEndpointToHostAction": "Return"`)
	client.becomes("tcp fd00:1::b 80", "answer")

	// What is never closed on a host endpoint.
	client.becomes("tcp 10.1.0.12 22", "answer")
	client.must("tcp 10.1.0.12 5000", "silence")
	set(`"failsafeInboundHostPorts": [{"protocol": "tcp", "port": 5000}, {"protocol": "tcp", "port": 179}]`)
	client.becomes("tcp 10.1.0.12 5000", "answer")
	client.becomes("tcp 10.1.0.12 22", "silence")
	set(`"failsafeInboundHostPorts": [{"protocol": "tcp", "port": 5000, "net": "192.0.2.0/24"}, {"protocol": "tcp", "port": 179}]`)
	client.becomes("tcp 10.1.0.12 5000", "silence")

	// A client sees that it is refused, rather than nothing.
	client.must("tcp 192.168.1.2 80", "answer")
	client.must("tcp 192.168.1.2 81", "silence")
	set(`"nftablesFilterDenyAction": "Reject"`)
	client.becomes("tcp 192.168.1.2 81", "refused")
	client.must("tcp fd00:168::1:2 81", "refused")
	client.must("tcp 192.168.1.2 80", "answer")
	set(`"nftablesFilterDenyAction": "Drop"`)
	client.becomes("tcp 192.168.1.2 81", "silence")

	// Whether others' chains may drop what is allowed.
	c.sh("node-a").run("nft add table ip theirs; nft add chain ip theirs forward '{ type filter hook forward priority 0; policy drop; }'")
	client.becomes("tcp 192.168.1.2 80", "answer")
	set(`"nftablesFilterAllowAction": "Return"`)
	client.becomes("tcp 192.168.1.2 80", "silence")
	set(``)
	client.becomes("tcp 192.168.1.2 80", "answer")

	invalid(t, c, client, set)
	without(t, c, set)
}

// invalid sends segments of no connection to an open port: they are dropped, unless the
// setting says that they are not looked at.
func invalid(t *testing.T, c *cluster, client prober, set func(string)) {
	t.Helper()
	rules := func() string { return c.sh("node-a").run("nft list table ip weft; nft list table ip6 weft") }
	c.await("invalid packets are dropped", func() bool { return strings.Contains(rules(), "ct state invalid") })
	set(`"disableConntrackInvalidCheck": true`)
	c.await("invalid packets are not looked for", func() bool { return !strings.Contains(rules(), "ct state invalid") })
	client.must("tcp 192.168.1.2 80", "answer")
}

// without: what is set and honoured is not listed as without effect; what is not, is.
func without(t *testing.T, c *cluster, set func(string)) {
	t.Helper()
	set(`"bpfEnabled": true, "defaultEndpointToHostAction": "Return", "failsafeInboundHostPorts": [], "failsafeOutboundHostPorts": [],
		"disableConntrackInvalidCheck": true, "allowVXLANPacketsFromWorkloads": true, "allowIPIPPacketsFromWorkloads": true, "vxlanPort": 4790,
		"chainInsertMode": "Append", "nftablesFilterDenyAction": "Reject", "workloadSourceSpoofing": "Any", "logPrefix": "x",
		"logActionRateLimit": "1/hour", "logActionRateLimitBurst": 1, "nftablesRefreshInterval": "10s", "ipv6Support": false, "maxIpsetSize": 100,
		"deniedConnections": "Keep", "logDefaultDeny": "Enabled", "nftablesFilterAllowAction": "Return", "iptablesFilterDenyAction": "Reject"`)
	const want = "[bpfEnabled iptablesFilterDenyAction]"
	c.await("only two settings are without effect", func() bool {
		return strings.Contains(notesAbout(c, "node-a", "FelixConfiguration"), want)
	})
	c.await("there is no table for IPv6", func() bool {
		return !strings.Contains(c.sh("node-a").run("nft list tables"), "ip6 weft")
	})
}
