package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// natPool is a pool with or without natOutgoing.
func natPool(name, cidr string, on bool) string {
	return fmt.Sprintf("{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: %s}, spec: {cidr: %q, natOutgoing: %v}}", name, cidr, on)
}

// sees sends a datagram to where an ear listens, and gives the source that it has there;
// answered reports whether the answer came.
func (e *ear) sees(from prober, addr, port string) (source netip.AddrPort, answered bool) {
	from.t.Helper()
	e.n++
	word := fmt.Sprintf("word-%d", e.n)
	said := from.ask("udp " + addr + " " + port + " 1 " + word)
	for {
		line, ok := e.readWithin(5 * time.Second)
		if !ok {
			return netip.AddrPort{}, false // it was lost, as where a route was not there yet
		}
		text, got, _ := strings.Cut(line, " ")
		if got == word {
			ap, err := netip.ParseAddrPort(text)
			if err != nil {
				from.t.Fatal(err)
			}
			return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), said == "1 answered, 0 refused"
		}
	}
}

// TestNATOutgoing looks from the outside at pods: who has which address, with each
// setting of NAT, while they change on a running cluster. What has begun goes on.
func TestNATOutgoing(t *testing.T) {
	t.Parallel()
	topology, _, _ := strings.Cut(racks, "pods:")
	c := newCluster(t)
	c.must("lab", "up", "-f", c.file(topology+`
env: {CALICO_IPV4POOL_CIDR: none, CALICO_IPV6POOL_CIDR: none}
pods:
- {name: p, node: a, ipv4Pools: [four], ipv6Pools: [six]}
- {name: q, node: b, ipv4Pools: [other4], ipv6Pools: [other6]}
outside: [{name: web, addresses: [198.51.100.80, "2001:db8:51::80"]}]
resources:
- `+natPool("four", "10.10.0.0/16", true)+`
- `+natPool("six", "fd00:10::/48", true)+`
- `+natPool("other4", "10.20.0.0/16", false)+`
- `+natPool("other6", "fd00:20::/48", false)))
	c.refresh()
	web, host, pod := c.listen("web", "198.51.100.80", "udp:53", "tcp:80"), c.listen("b", "10.1.0.12", "udp:53"), c.listen("pod/default/q", c.addr("q"), "udp:53")
	p := c.prober("pod/default/p")
	webs, hosts := []string{"198.51.100.80", "2001:db8:51::80"}, stations()[1].addr
	nodeA := stations()[0].addr
	for _, a := range c.pod("q").Addresses {
		c.reach("pod/default/p", a.String())
	}
	// from waits until an ear sees datagrams of pod p come from those addresses.
	from := func(what string, e *ear, to []string, want []string, port func(uint16) bool) {
		t.Helper()
		for i, addr := range to {
			eventually(t, what+": at "+addr, func() error {
				got, answered := e.sees(p, addr, "53")
				if got.Addr() != netip.MustParseAddr(want[i]) || !port(got.Port()) {
					return fmt.Errorf("packets come from %v, want %s", got, want[i])
				}
				if !answered {
					return errors.New("no answer")
				}
				return nil
			})
		}
	}
	any := func(uint16) bool { return true }
	own, others := []string{}, []string{}
	for i := range 2 {
		own, others = append(own, c.pod("p").Addresses[i].String()), append(others, c.pod("q").Addresses[i].String())
	}
	from("natOutgoing", web, webs, nodeA[:], any)
	from("another pool", pod, others, own, any)
	from("a node, which is in no pool", host, hosts[:], nodeA[:], any)

	// Errors find their way back: a closed port, and a packet that is too large.
	for _, addr := range webs {
		p.must("tcp "+addr+" 80", "answer")
		p.must("udp "+addr+" 54 1 x", "0 answered, 1 refused")
	}
	c.sh("fabric").run("ip link set dev $(ip -o route get 198.51.100.80 | sed 's/.* dev \\([^ ]*\\).*/\\1/') mtu 1400")
	for _, addr := range webs {
		out, _ := c.sh("pod/default/p").try("ping -n -c 1 -W 2 -M do -s 1400 " + addr)
		if !strings.Contains(out, "mtu") || !strings.Contains(out, "1400") || strings.Contains(out, "bytes from") {
			t.Errorf("a packet larger than the way to %s allows: want an error with its MTU of 1400: %s", addr, out)
		}
	}

	object := func(text string) { t.Helper(); put(t, c.st(), text) }
	object(felix(`"natPortRange": "40000:40009"`))
	from("natPortRange", web, webs, nodeA[:], func(port uint16) bool { return port >= 40000 && port <= 40009 })
	object(felix(`"natOutgoingExclusions": "IPPoolsAndHostIPs"`))
	from("natOutgoingExclusions", host, hosts[:], own, any)
	from("natOutgoingExclusions, outside", web, webs, nodeA[:], any)
	c.sh("a").run("ip addr add 10.1.0.200/24 dev eth0")
	object(felix(`"natOutgoingAddress": "10.1.0.200"`))
	from("natOutgoingAddress", web, webs, []string{"10.1.0.200", nodeA[1]}, any) // IPv6 has no such setting of its own
	from("without exclusions", host, hosts[:], []string{"10.1.0.200", nodeA[1]}, any)
	object(felix(``))
	from("without natOutgoingAddress", web, webs, nodeA[:], any)

	// Turned off, what begins has the pods' own addresses, and what has begun goes on.
	serve := c.help("web", "serve", "7005")
	if got := serve.read(); got != "ready" {
		t.Fatal(got)
	}
	talks := c.talker("p")
	for i, addr := range webs {
		talks.begin(fmt.Sprint("talk-", i), talkTCP, netip.AddrPortFrom(netip.MustParseAddr(addr), 7005).String())
	}
	set := func(on bool) { object(natPool("four", "10.10.0.0/16", on)); object(natPool("six", "fd00:10::/48", on)) }
	set(false)
	for i, addr := range webs {
		eventually(t, "natOutgoing off", func() error {
			if got, answered := web.sees(p, addr, "53"); got.Addr() != netip.MustParseAddr(own[i]) || answered {
				return fmt.Errorf("packets come from %v, answered: %v; want %s, to whom nobody knows a way", got, answered, own[i])
			}
			return nil
		})
	}
	talks.goOn(t)
	set(true)
	from("natOutgoing again", web, webs, nodeA[:], any)
	talks.goOn(t)
}
