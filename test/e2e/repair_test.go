package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// state is what the agent keeps right on a node, as iproute2 prints it.
func (c *cluster) state(node string) string {
	c.t.Helper()
	return c.sh(node).run("ip route; ip -6 route | grep -v '^fe80'; ip neigh show nud permanent; ip -6 neigh show proxy")
}

// TestRepair is one lab, in which each of these things is done to node-a by hand.
// Whatever is not ours must be as it is afterwards.
func TestRepair(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/pair.yaml")
	c.established("node-a", 2)
	a, pod, link := c.sh("node-a"), c.addr("a1"), c.pod("a1").HostLink
	pod6 := c.pod("a1").Addresses[1].String()
	block := netip.PrefixFrom(netip.MustParseAddr(pod), 26).Masked().String()
	block6 := netip.PrefixFrom(netip.MustParseAddr(pod6), 122).Masked().String()
	other := netip.PrefixFrom(netip.MustParseAddr(c.addr("b1")), 26).Masked().String()
	other6 := netip.PrefixFrom(c.pod("b1").Addresses[1], 122).Masked().String()
	for what, pattern := range map[string]string{"IPv4": other + " via .*", "IPv6": other6 + " via .*"} {
		t.Logf("%s by BGP after %v", what, c.awaitRoute("node-a", pattern))
	}
	const foreign = "203.0.113.0/24 via 10.1.0.1 dev eth0"
	for _, command := range []string{
		"ip route add " + foreign, // one of an administrator
		"ip route add 192.168.250.0/26 via 10.1.0.12 dev eth0 proto static", // in the pool
		"ip -6 route add 2001:db8::/64 via fd00:1::c dev eth0 proto static",
		"ip route add " + pod + " dev lo table 77", // ours, elsewhere
		"ip route add 192.168.251.0/26 via 10.1.0.12 dev eth0 metric 77",
	} {
		a.run(command)
	}
	elsewhere := a.run("ip route show table 77")
	want := c.state("node-a")
	for what, command := range map[string]string{
		"pod route deleted":          "ip route del " + pod,
		"IPv6 pod route deleted":     "ip route del " + pod6,
		"pod route led elsewhere":    "ip route change " + pod + " dev eth0 scope link",
		"remote block deleted":       "ip route del " + other + " via 10.1.0.12",
		"IPv6 remote block deleted":  "ip -6 route del " + other6 + " via fd00:1::c",
		"remote block led elsewhere": "ip route change " + other + " via 10.1.0.1 proto bird",
		"blackhole deleted":          "ip route del blackhole " + block,
		"IPv6 blackhole deleted":     "ip -6 route del blackhole " + block6 + " metric 1024",
		"all of ours deleted":        "ip route flush proto bird; ip -6 route flush proto bird",
		"a stale route of ours":      "ip route add 192.168.77.0/26 via 10.1.0.12 proto bird",
		"a stale blackhole of ours":  "ip route add blackhole 192.168.78.0/26 proto bird",
		"neighbour deleted":          "ip neigh del " + pod + " dev " + link + "; ip -6 neigh del " + pod6 + " dev " + link,
		"workload link down and up":  "ip link set " + link + " down; ip link set " + link + " up",
	} {
		out, code := a.try(command)
		if code != 0 && !strings.Contains(what, "neighbour") {
			t.Errorf("%s: %s: %s", what, command, out)
			continue
		}
		start := time.Now()
		for got := c.state("node-a"); got != want; got = c.state("node-a") {
			if time.Since(start) > testenv.Patience {
				t.Errorf("%s: after %v still:\n%s\nwant:\n%s", what, testenv.Patience, diff(got, want), want)
				break
			}
		}
		t.Logf("%s: repaired after %v", what, time.Since(start))
	}
	if got := a.run("ip route show table 77"); got != elsewhere {
		t.Errorf("the other table is now %q, was %q", got, elsewhere)
	}
	c.repairLink(a, link)
	// The uplink takes the routes of others along: those are put back by hand.
	before := a.run("ip route")
	a.run("ip link set eth0 down; ip link set eth0 up; ip route add default via 10.1.0.1; ip route add " + foreign +
		"; ip route add 192.168.250.0/26 via 10.1.0.12 dev eth0 proto static; ip route add 192.168.251.0/26 via 10.1.0.12 dev eth0 metric 77")
	took := eventually(t, "routes after the uplink was down", func() error {
		if d := diff(a.run("ip route"), before); d != "" {
			return errors.New(d)
		}
		return nil
	})
	t.Logf("uplink down and up: repaired after %v", took)
	for _, to := range []string{c.addr("b1"), c.addr("a2")} {
		c.sh("pod/default/a1").run(ping(to))
	}
}

// repairLink changes what sysctls make of the pod's link.
func (c *cluster) repairLink(a *shell, link string) {
	c.t.Helper()
	settings := map[string]string{
		"ipv4/conf/" + link + "/proxy_arp": "1", "ipv4/conf/" + link + "/forwarding": "1", "ipv4/conf/" + link + "/route_localnet": "1",
		"ipv4/neigh/" + link + "/proxy_delay": "0", "ipv6/conf/" + link + "/proxy_ndp": "1", "ipv6/conf/" + link + "/accept_ra": "0",
		"ipv6/conf/" + link + "/forwarding": "1", "ipv4/ip_forward": "1",
	}
	for name, want := range settings {
		if got := a.run("cat /proc/sys/net/" + name); got != want {
			c.t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	a.run("echo 0 >/proc/sys/net/ipv4/conf/" + link + "/proxy_arp; echo 80 >/proc/sys/net/ipv4/neigh/" + link + "/proxy_delay; echo 0 >/proc/sys/net/ipv6/conf/" + link + "/proxy_ndp")
	// No event tells of these: they are put right by the resync, here of 2 s.
	took := eventually(c.t, "sysctls of "+link, func() error {
		for name, want := range settings {
			if got := a.run("cat /proc/sys/net/" + name); got != want {
				return fmt.Errorf("%s is %s, want %s", name, got, want)
			}
		}
		return nil
	})
	c.t.Logf("sysctls repaired after %v", took)
}

// diff lists the lines that are only in one of two texts.
func diff(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	var out []string
	for _, line := range a {
		if !slices.Contains(b, line) {
			out = append(out, "+ "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			out = append(out, "- "+line)
		}
	}
	return strings.Join(out, "\n")
}

// TestEarlierRun leaves routes in the kernel as an agent leaves them that is gone:
// those that are still right are never taken out, those of a node that is gone go
// as soon as the new agent knows everything, and not before.
func TestEarlierRun(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/pair.yaml")
	c.established("node-a", 2)
	a := c.sh("node-a")
	other := netip.PrefixFrom(netip.MustParseAddr(c.addr("b1")), 26).Masked().String() + ` via 10\.1\.0\.12 dev eth0 proto bird`
	c.awaitRoute("node-a", other)
	c.stop("node-a", true)
	c.stop("node-b", true)
	const stale = "192.168.77.0/26 via 10.1.0.12 dev eth0 proto bird"
	a.run("ip route add " + stale)
	a.run("ip route add blackhole 192.168.78.0/26 proto bird")
	want := a.run("ip route")
	watch := c.watchRoutes("node-a")

	// node-b is silent: nothing that it may have told the earlier agent goes.
	c.start("node-a")
	end := c.startTrain("a1", c.addr("b1"))
	c.start("node-b")
	c.established("node-a", 2)
	eventually(t, "stale routes to go", func() error {
		for _, gone := range []string{stale, "blackhole 192.168.78.0/26 proto bird"} {
			if err := c.lacksRoute("node-a", strings.ReplaceAll(gone, ".", `\.`)); err != nil {
				return err
			}
		}
		return nil
	})
	noLoss(t, "a to b", end)
	for _, change := range watch.changes() {
		if !strings.HasPrefix(change, "Deleted 192.168.77.0/26") && !strings.HasPrefix(change, "Deleted blackhole 192.168.78.0/26") {
			t.Errorf("a route that was right was changed: %s", change)
		}
	}
	after := a.run("ip route")
	if d := diff(after, want); strings.Contains(d, "+") || strings.Count(d, "\n") != 1 {
		t.Errorf("routes after and before the restart differ by more than the stale ones:\n%s", d)
	}
}
