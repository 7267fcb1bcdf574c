package e2e_test

import (
	"fmt"
	"strings"
	"testing"
)

// hosts has host endpoints of every kind, by interface, by address and for all
// interfaces, one that no policy selects, and a node without any.
const hosts = `
racks: [{name: rack-1, subnets: [10.1.0.0/24, "fd00:1::/64"]}]
nodes: [{name: named}, {name: all}, {name: expected, addresses: [10.1.0.30, "fd00:1::30"]}, {name: bare}, {name: none}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16, CALICO_IPV4POOL_IPIP: Never, CALICO_IPV6POOL_CIDR: "fd00:168::/48"}
pods: [{name: named, node: named}, {name: all, node: all}, {name: expected, node: expected}, {name: bare, node: bare}, {name: none, node: none}]
resources:
- apiVersion: projectcalico.org/v3
  kind: FelixConfiguration
  metadata: {name: default}
  spec:
    failsafeInboundHostPorts: [{protocol: tcp, port: 2222, net: 10.1.0.0/24}, {protocol: tcp, port: 2222, net: "fd00:1::/64"}, {protocol: tcp, port: 179}]
    failsafeOutboundHostPorts: [{protocol: udp, port: 5555}, {protocol: tcp, port: 179}]
- {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: named, labels: {kind: host}}, spec: {node: named, interfaceName: eth0}}
- {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: all, labels: {kind: host}}, spec: {node: all, interfaceName: "*", expectedIPs: [10.1.0.12, "fd00:1::c"], ports: [{name: web, protocol: TCP, port: 8088}]}}
- {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: expected, labels: {kind: host}}, spec: {node: expected, expectedIPs: [10.1.0.30, "fd00:1::30"]}}
- {apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: bare}, spec: {node: bare, interfaceName: eth0}}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: hosts}
  spec:
    order: 10
    selector: kind == "host"
    ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080, web]}}, {action: Allow, protocol: ICMP}]
    egress: [{action: Deny, protocol: UDP, destination: {ports: [9999]}}, {action: Allow}]
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: forward}
  spec:
    order: 20
    selector: kind == "host"
    applyOnForward: true
    ingress: [{action: Deny, protocol: TCP, destination: {ports: [9000]}}, {action: Allow, destination: {nets: [192.168.0.0/16]}}, {action: Allow, destination: {nets: ["fd00:168::/48"]}}]
    egress: [{action: Deny, protocol: TCP, destination: {ports: [9001]}}, {action: Allow}]
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: early}
  spec:
    selector: kind == "host"
    applyOnForward: true
    preDNAT: true
    ingress: [{action: Deny, protocol: TCP, destination: {ports: [7000]}}, {action: Allow, protocol: TCP, destination: {ports: [7001]}}]
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: untracked}
  spec:
    selector: kind == "host"
    applyOnForward: true
    doNotTrack: true
    ingress: [{action: Allow, protocol: UDP, destination: {ports: [5353]}}, {action: Deny, protocol: UDP, destination: {ports: [5354]}}]
    egress: [{action: Allow, protocol: UDP, source: {ports: [5353]}}]
expect:
# What comes to the node.
- {reachable: {from: [none, pod/default/none], to: [named, all, expected], port: 8080}, by: GlobalNetworkPolicy/hosts}
- {unreachable: {from: [none, pod/default/none], to: [named, all, expected], port: 8081}, by: Tier/default}
- {reachable: {from: none, to: all, port: 8088}, by: GlobalNetworkPolicy/hosts}
- {unreachable: {from: none, to: named, port: 8088}, by: Tier/default}
- {reachable: {from: none, to: [10.1.0.11, 10.1.0.12, 10.1.0.30]}, by: GlobalNetworkPolicy/hosts}
- {unreachable: {from: none, to: ["fd00:1::b", "fd00:1::c", "fd00:1::30"]}, by: Tier/default}
- {unreachable: {from: none, to: bare, port: 8080}, by: HostEndpoint/bare}
- {unreachable: {from: bare, to: none, port: 8080}, by: HostEndpoint/bare}
- {reachable: {from: pod/default/none, to: pod/default/bare, port: 8080}, by: Profile/kns.default}
# Failsafe ports, of the settings of this lab and not the usual ones, but for BGP.
- {reachable: {from: none, to: [named, all, expected, bare], port: 2222}}
- {unreachable: {from: none, to: [named, all, expected], port: 22}, by: Tier/default}
- {reachable: {from: bare, to: none, protocol: udp, port: 5555}}
- {unreachable: {from: bare, to: none, protocol: udp, port: 53}, by: HostEndpoint/bare}
- {unreachable: {from: pod/default/none, to: "fd00:1::d", port: 2222}, by: HostEndpoint/bare}
# By IPv4 it has the address of its node there (natOutgoing).
- {reachable: {from: pod/default/none, to: 10.1.0.13, port: 2222}}
- {reachable: {from: pod/default/none, to: none, port: 2222}}
# What goes out from the node, and to its own pods.
- {unreachable: {from: [named, all, expected], to: none, protocol: udp, port: 9999}, by: GlobalNetworkPolicy/hosts}
- {reachable: {from: [named, all, expected], to: none, port: 9999}, by: GlobalNetworkPolicy/hosts}
- {reachable: {from: named, to: pod/default/named, protocol: udp, port: 9999}}
# What is forwarded.
- {unreachable: {from: pod/default/none, to: [pod/default/named, pod/default/all, pod/default/expected], port: 9000}, by: GlobalNetworkPolicy/forward}
- {unreachable: {from: [pod/default/named, pod/default/all, pod/default/expected], to: pod/default/none, port: 9001}, by: GlobalNetworkPolicy/forward}
- {reachable: {from: pod/default/none, to: [pod/default/named, pod/default/all, pod/default/expected], port: 9002}, by: Profile/kns.default}
# Before destination NAT and before connection tracking.
- {unreachable: {from: none, to: [named, all, expected], port: 7000}, by: GlobalNetworkPolicy/early}
- {reachable: {from: none, to: [named, all, expected], port: 7001}, by: GlobalNetworkPolicy/early}
- {unreachable: {from: pod/default/none, to: pod/default/named, port: 7000}, by: GlobalNetworkPolicy/early}
- {reachable: {from: none, to: [named, all, expected], protocol: udp, port: 5353}, by: GlobalNetworkPolicy/untracked}
- {unreachable: {from: none, to: [named, all, expected], protocol: udp, port: 5354}, by: GlobalNetworkPolicy/untracked}
`

// TestHosts has packets sent past host endpoints: found by interface, by address, and
// for all interfaces; policy of every stage; failsafe ports.
func TestHosts(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", c.file(hosts)); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	out, code := c.weft("lab", "check")
	n := strings.Count(hosts, "able: {from")
	if want := fmt.Sprintf("%d of %d expectations hold", n, n); code != 0 || !strings.Contains(out, want) {
		t.Errorf("lab check: exit code %d, want %q:\n%s", code, want, crosses(out))
	}

	// A service of the node, by the address of the node: what its address is translated
	// to may be reached, but not that way.
	c.sh("named").run(`nft -f - <<E
table ip services {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		tcp dport { 7000, 7002 } dnat to ` + c.addr("named") + `:9002
	}
}
E`)
	none := c.prober("none")
	none.becomes("tcp 10.1.0.11 7002", "answer")
	none.must("tcp 10.1.0.11 7000", "silence")
	untracked(t, c, none)
}

// untracked: what doNotTrack allows makes no entry in the connection tracking, and
// anything else does.
func untracked(t *testing.T, c *cluster, none prober) {
	t.Helper()
	c.sh("named").run(`nft -f - <<E
table ip seen {
	chain input {
		type filter hook input priority 50;
		udp dport 5353 ct state untracked counter comment "untracked"
		udp dport 5353 ct state new,established counter comment "tracked"
	}
}
E`)
	none.must("udp 10.1.0.11 5353 4 x", "4 answered, 0 refused")
	if list := c.sh("named").run("nft list table ip seen"); !strings.Contains(list, `counter packets 4 bytes 116 comment "untracked"`) || !strings.Contains(list, `counter packets 0 bytes 0 comment "tracked"`) {
		t.Errorf("untracked packets:\n%s", list)
	}
}
