package lab_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/lab"
	"github.com/weft-net/weft/internal/testenv"
)

// Two racks, a pod on the node of each, a host outside; whatever is to be between the
// pods, a test makes by hand.
const racks = `
nodes:
- {name: a, rack: r1}
- {name: a2, rack: r1}
- {name: b, rack: r2}
pods:
- {name: p, node: a, addresses: [192.168.1.1]}
- {name: p2, node: a, addresses: [192.168.1.2]}
- {name: q, node: a2, addresses: [192.168.2.1]}
- {name: r, node: b, addresses: [192.168.3.1]}
outside: [{name: web}, {name: far, addresses: [203.0.113.9]}]
`

const (
	racksPlain  = "racks: [{name: r1, subnets: [10.1.0.0/24]}, {name: r2, subnets: [10.2.0.0/24]}]\n" + racks
	racksNarrow = "racks: [{name: r1, subnets: [10.1.0.0/24]}, {name: r2, subnets: [10.2.0.0/24], mtu: 1400}]\n" + racks
	racksStrict = "strict: true\nracks: [{name: r1, subnets: [10.1.0.0/24]}, {name: r2, subnets: [10.2.0.0/24]}]\n" + racks
	racksClosed = "racks: [{name: r1, subnets: [10.1.0.0/24], strict: true}, {name: r2, subnets: [10.2.0.0/24]}]\n" + racks
)

// Ways for pods, made by hand.
var (
	// The fabric and the nodes know where pods are.
	routed = map[string]string{
		"fabric": "ip route add 192.168.1.0/24 via 10.1.0.11; ip route add 192.168.2.0/24 via 10.1.0.12; ip route add 192.168.3.0/24 via 10.2.0.11",
		"a":      "ip route add 192.168.2.0/24 via 10.1.0.12",
		"a2":     "ip route add 192.168.1.0/24 via 10.1.0.11",
	}
	// VXLAN between a and b, with fixed addresses.
	vxlan = map[string]string{
		"a": vxlanEnd("10.1.0.11", "10.2.0.11", 1, 3),
		"b": vxlanEnd("10.2.0.11", "10.1.0.11", 3, 1),
	}
	// What leaves the node for the outside has its address.
	masqueraded = map[string]string{
		"a": "nft 'table ip nat { chain post { type nat hook postrouting priority 100; ip saddr 192.168.0.0/16 ip daddr != 192.168.0.0/16 masquerade; }; }'",
	}
)

// vxlanEnd is the command for one end of a tunnel to the pods 192.168.remote.0/24.
func vxlanEnd(local, node string, own, remote int) string {
	return fmt.Sprintf("ip link add vx type vxlan id 1 dstport 4789 local %s dev eth0 && ip link set vx address 66:00:00:00:00:0%d up && ", local, own) +
		fmt.Sprintf("ip addr add 192.168.%d.250/32 dev vx && ip neigh add 192.168.%d.250 lladdr 66:00:00:00:00:0%d dev vx && ", own, remote, remote) +
		fmt.Sprintf("bridge fdb add 66:00:00:00:00:0%d dev vx dst %s && ip route add 192.168.%d.0/24 via 192.168.%d.250 dev vx onlink", remote, node, remote, remote)
}

// prepared brings a lab of fakes up, and prepares it.
func prepared(t *testing.T, topology string, prepare map[string]string, expect ...string) lab.Dir {
	t.Helper()
	testenv.Need(t, "ip", "bridge", "nft")
	d := up(t, spec(t, topology+"expect:\n- "+strings.Join(expect, "\n- ")+"\n"), true).Dir
	for target, script := range prepare {
		if out, code := run(t, d, target, "sh", "-ec", script); code != 0 {
			t.Fatalf("%s: %s: exit code %d: %s", target, script, code, out)
		}
	}
	return d
}

// reasons is what comes of a lab's expectations, one line each: empty, or why not.
func reasons(t *testing.T, d lab.Dir) []string {
	t.Helper()
	report, err := d.Check(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range report.Results {
		out = append(out, r.Reason)
	}
	return out
}

// TestExpectations: each holds where it is so, and says what is seen where it is not.
func TestExpectations(t *testing.T) {
	t.Parallel()
	const (
		pr   = "{from: pod/default/p, to: pod/default/r, "
		soon = ", within: 4s}"
	)
	for name, tt := range map[string]struct {
		topology string
		prepare  map[string]string
		expect   map[string]string // each with a regular expression of why it fails; empty: it holds
	}{
		"plain": {racksPlain, routed, map[string]string{
			"reachable: " + pr + "carried: none, source: own}":                                             "",
			"reachable: " + pr + "port: 80, carried: none, source: own}":                                   "",
			"reachable: " + pr + "protocol: udp, port: 53, carried: none, source: pod/default/p}":          "",
			"reachable: {from: pods, to: pods, carried: none}":                                             "",
			"reachable: {from: nodes, to: nodes, carried: none, source: node}":                             "",
			"{reachable: " + pr + "carried: ipip}" + soon:                                                  `not within \d+s: carried plain: 192.168.1.1 > 192.168.3.1 ICMP seen on r[12]$`,
			"{reachable: " + pr + "port: 80, carried: vxlan}" + soon:                                       `carried plain: 192.168.1.1:\d+ > 192.168.3.1:80 TCP seen on r1$`,
			"{reachable: " + pr + "protocol: udp, port: 53, carried: vxlan}" + soon:                        `carried plain: 192.168.1.1:\d+ > 192.168.3.1:53 UDP seen on r1$`,
			"{reachable: " + pr + "source: node}" + soon:                                                   `pod/default/r saw it come from 192.168.1.1, want 10.1.0.11 \(node\)$`,
			"reachable: {from: pod/default/p, to: pod/default/p2, carried: vxlan}":                         "",
			"{reachable: {from: pod/default/p, to: [10.2.0.11, 192.168.3.1], carried: none, source: own}}": "",
			"reachable: {from: pod/default/p, to: web}":                                                    "",
			"mtu: {from: pods, to: pods, bytes: 1500}":                                                     "",
			"{mtu: " + pr + "bytes: 1499}" + soon:                                                          `pod/default/p to pod/default/r \(192.168.3.1\): not within \d+s: 1500 bytes: they arrive too$`,
			"{mtu: " + pr + "bytes: 1501}" + soon:                                                          `1501 bytes: too much for the sender itself, whose path takes 1500$`,
		}},
		"narrow": {racksNarrow, routed, map[string]string{
			"mtu: " + pr + "bytes: 1400}":                                    "",
			"mtu: {from: pod/default/p, to: pod/default/q, bytes: 1500}":     "",
			"mtu: {from: [a, a2], to: b, bytes: 1400}":                       "",
			"mtu: {from: b, to: [a, a2], bytes: 1400}":                       "",
			"{mtu: " + pr + "bytes: 1420}" + soon:                            `1420 bytes: 10.1.0.1 says that no more than 1400 fit$`,
			"{mtu: " + pr + "bytes: 1399}" + soon:                            `1400 bytes: they arrive too$`,
			"{mtu: {from: pod/default/p, to: 192.0.2.1, bytes: 1400}" + soon: `1400 bytes: (unreachable, says 10.1.0.1|no answer)$`,
		}},
		"strict": {racksStrict, routed, map[string]string{
			"unreachable: " + pr[:len(pr)-2] + "}":                               "",
			"reachable: {from: nodes, to: nodes, carried: none}":                 "",
			"reachable: {from: pod/default/p, to: pod/default/q, carried: none}": "",
			"reachable: {from: nodes, to: outside, source: node}":                "",
			"unreachable: {from: pod/default/p, to: outside}":                    "",
			"{reachable: {from: pod/default/p, to: web, source: node}" + soon:    "no answer$",
			"{reachable: " + pr + "carried: ipip}" + soon:                        `no answer; carried plain: 192.168.1.1 > 192.168.3.1 ICMP seen on r1$`,
		}},
		"closed": {racksClosed, routed, map[string]string{
			"unreachable: {from: pod/default/p, to: [pod/default/q, pod/default/r]}": "",
			"reachable: {from: nodes, to: nodes}":                                    "",
			"reachable: {from: pod/default/p, to: pod/default/p2}":                   "",
		}},
		"vxlan": {racksStrict, vxlan, map[string]string{
			"reachable: " + pr + "carried: vxlan, source: own}":             "",
			"reachable: " + pr + "port: 80, carried: vxlan}":                "",
			"reachable: " + pr + "protocol: udp, port: 53, carried: vxlan}": "",
			"reachable: {from: a, to: b, carried: none}":                    "",
			"mtu: " + pr + "bytes: 1450}":                                   "",
			"{reachable: " + pr + "carried: none}" + soon:                   `carried in vxlan: 192.168.1.1 > 192.168.3.1 ICMP in vxlan \(10.1.0.11 > 10.2.0.11\) seen on r1$`,
			"{reachable: " + pr + "port: 80, carried: ipip}" + soon:         `carried in vxlan: 192.168.1.1:\d+ > 192.168.3.1:80 TCP in vxlan`,
			"{mtu: " + pr + "bytes: 1480}" + soon:                           `1480 bytes: 10.1.0.11 says that no more than 1450 fit$`,
		}},
		"outside": {racksStrict, masqueraded, map[string]string{
			"reachable: {from: pod/default/p, to: outside, source: node}":                                     "",
			"reachable: {from: pod/default/p, to: web, port: 80, source: a}":                                  "",
			"reachable: {from: pod/default/p, to: 198.51.100.11, protocol: udp, port: 53, source: 10.1.0.11}": "",
			"{reachable: {from: pod/default/p, to: far, port: 80, source: own}" + soon:                        `far saw it come from 10.1.0.11, want 192.168.1.1 \(own\)$`,
			"reachable: {from: pod/default/p, to: far, carried: none}":                                        "",
			"unreachable: {from: outside, to: pods}":                                                          "",
			"reachable: {from: outside, to: [nodes, outside]}":                                                "",
		}},
		"one address for all": {racksPlain, map[string]string{"fabric": "ip route add 192.168.1.0/24 via 10.1.0.11"}, map[string]string{
			"{reachable: {from: pod/default/p, to: web, source: node}" + soon: `web saw it come from 192.168.1.1, want 10.1.0.11 \(node\)$`,
			"reachable: {from: pod/default/p, to: web, source: own}":          "",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compare(t, tt.topology, tt.prepare, tt.expect)
		})
	}
}

// compare checks expectations, each with a regular expression of why it fails. They are
// given their time again where one was too short for the machine to find that out.
func compare(t *testing.T, topology string, prepare, expect map[string]string) {
	t.Helper()
	var all []string
	for e := range expect {
		all = append(all, e)
	}
	d := prepared(t, topology, prepare, all...)
	for end := time.Now().Add(testenv.Patience); ; {
		wrong := ""
		for i, got := range reasons(t, d) {
			want := expect[all[i]]
			if (want == "") != (got == "") || !regexp.MustCompile(want).MatchString(got) {
				wrong += fmt.Sprintf("%s:\ngot  %s\nwant %s\n", all[i], got, want)
			}
		}
		if wrong == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(wrong)
		}
		t.Logf("once more, after:\n%s", wrong)
	}
}

// TestNeedsWireGuard: a lab that expects encryption says at once that the kernel has
// none.
func TestNeedsWireGuard(t *testing.T) {
	t.Parallel()
	err := testenv.Netns(t).Do(func() error {
		return netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: netlink.LinkAttrs{Name: "wg"}})
	})
	if err == nil {
		t.Skip("this kernel has wireguard")
	}
	s := spec(t, racksPlain+"expect:\n- reachable: {from: pods, to: pods}\n- reachable: {from: pod/default/p, to: pod/default/r, carried: wireguard}\n")
	_, err = lab.Up(t.Context(), s, true, nil)
	const want = "lab: lab.yaml: expect[1].reachable.carried: wireguard: needs kernel wireguard, which this kernel does not have: as root: modprobe wireguard"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// TestLinks: a node with interfaces in two racks is a neighbour in both, and its other
// ways are by the first.
func TestLinks(t *testing.T) {
	t.Parallel()
	const topology = `
racks: [{name: r1, subnets: [10.1.0.0/24, 'fd00:1::/64']}, {name: r2, subnets: [10.2.0.0/24, 'fd00:2::/64']}, {name: r3, subnets: [10.3.0.0/24], loss: 20}]
nodes:
- {name: a, rack: r1, links: [{rack: r2}, {rack: r3, addresses: [10.3.0.99]}]}
- {name: b, rack: r2}
- {name: c, rack: r3}
outside: [{name: web}]
`
	compare(t, topology, nil, map[string]string{
		"{reachable: {from: nodes, to: nodes, carried: none}, within: 20s}":                "",
		"reachable: {from: [a, b], to: web, source: node}":                                 "",
		"route: {at: a, line: 10.2.0.0/24 dev eth1 proto kernel scope link src 10.2.0.12}": "",
		"route: {at: a, line: 10.3.0.0/24 dev eth2 proto kernel scope link src 10.3.0.99}": "",
		"route: {at: a, line: 'fd00:2::/64 dev eth1 proto kernel metric 256 pref medium'}": "",
		"noRoute: {at: a, line: default ** dev eth1 **}":                                   "",
		"reachable: {from: a, to: 10.2.0.11, source: 10.2.0.12}":                           "",
		"{reachable: {from: a, to: b, source: 10.1.0.11}, within: 5s}":                     `a to b \(10.2.0.11\): not within \d+s: b saw it come from 10.2.0.12, want 10.1.0.11; 1 of 2 ways are left untried$`,
	})
}

// TestLossyRack: what is lost is asked for again until the time is over; in a rack that
// loses everything nothing answers, also between neighbours and from elsewhere.
func TestLossyRack(t *testing.T) {
	t.Parallel()
	const topology = `
racks: [{name: r1, subnets: [10.1.0.0/24], loss: 50}, {name: r2, subnets: [10.2.0.0/24], loss: 100}, {name: r3, subnets: [10.3.0.0/24]}]
nodes: [{name: a, rack: r1}, {name: b, rack: r1}, {name: c, rack: r2}, {name: d, rack: r2}, {name: e, rack: r3}]
`
	compare(t, topology, nil, map[string]string{
		"{reachable: {from: [a, b, e], to: [a, b, e]}, within: 30s}": "",
		"unreachable: {from: c, to: [d, e]}":                         "",
		"unreachable: {from: [a, e], to: [c, d]}":                    "",
	})
}

// TestVersion6: the same expectations where there is no IPv4.
func TestVersion6(t *testing.T) {
	t.Parallel()
	const topology = `
strict: true
racks: [{name: r1, subnets: ['fd00:1::/64']}, {name: r2, subnets: ['fd00:2::/64'], mtu: 1300, strict: true}]
nodes: [{name: a, rack: r1}, {name: b, rack: r2}, {name: c, rack: r2}]
outside: [{name: web}]
`
	prepare := map[string]string{
		"b":      "ip addr add fd65::1/128 dev lo nodad",
		"a":      "ip -6 route add fd65::/64 via fd00:1::1",
		"c":      "ip -6 route add fd65::/64 via fd00:2::b",
		"fabric": "ip -6 route add fd65::/64 via fd00:2::b",
	}
	compare(t, topology, prepare, map[string]string{
		"reachable: {from: nodes, to: nodes, carried: none, source: own}":           "",
		"reachable: {from: nodes, to: web, port: 80, carried: none, source: node}":  "",
		"unreachable: {from: [a, c], to: 'fd65::1'}":                                "",
		"mtu: {from: a, to: b, bytes: 1300}":                                        "",
		"mtu: {from: b, to: [a, web], bytes: 1300}":                                 "",
		"{mtu: {from: a, to: b, bytes: 1301}, within: 6s}":                          `1301 bytes: fd00:1::1 says that no more than 1300 fit$`,
		"{mtu: {from: a, to: b, bytes: 1299}, within: 6s}":                          `1300 bytes: they arrive too$`,
		"{reachable: {from: a, to: b, carried: vxlan}, within: 5s}":                 `carried plain: fd00:1::b > fd00:2::b ICMPv6 seen on r1$`,
		"{reachable: {from: a, to: b, port: 80, source: 'fd00:1::99'}, within: 5s}": `b saw it come from fd00:1::b, want fd00:1::99$`,
	})
}
