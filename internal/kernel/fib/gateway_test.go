package fib_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
)

// clusterLines are the lines of routes() that are ours, and their hops, sorted.
func (k kernel) clusterLines() string {
	k.Helper()
	var out []string
	ours := false
	for l := range strings.Lines(k.routes()) {
		if !strings.HasPrefix(l, "\t") {
			ours = strings.Contains(l, "proto bird")
		}
		if ours {
			out = append(out, strings.TrimRight(l, "\n"))
		}
	}
	for i := range out {
		j := i
		for j < len(out) && strings.HasPrefix(out[j], "\t") {
			j++
		}
		slices.Sort(out[i:j])
	}
	return strings.Join(out, "\n")
}

// ips runs several ip commands, one a line; sysctl PATH=VALUE is one too.
func (k kernel) ips(script string) {
	k.Helper()
	for l := range strings.Lines(script) {
		l = strings.TrimSpace(l)
		if path, ok := strings.CutPrefix(l, "sysctl "); ok {
			path, value, _ := strings.Cut(path, "=")
			k.ns.MustDo(func() error {
				err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
				if errors.Is(err, fs.ErrNotExist) {
					return nil // some are hidden in a user namespace; the kernel then says more, not less
				}
				return err
			})
		} else if l != "" {
			k.ip(l)
		}
	}
}

// TestGatewayBehindAnotherNetwork follows routes whose gateway is on no
// connected network through the changes of the routes that lead there. After each
// step, the routes of the cluster must read so within a second.
func TestGatewayBehindAnotherNetwork(t *testing.T) {
	t.Parallel()
	type step struct{ do, want string }
	eth1 := "link add eth1 type veth peer name eth1peer\nlink set eth1peer up\nlink set eth1 up\naddr add 10.0.1.2/24 dev eth1\n-6 addr add fd01::2/64 dev eth1 nodad"
	r4, r6 := cluster("192.168.98.0/26", "10.9.9.9"), cluster("fd98::/122", "fd09::9")
	pinned := r4
	pinned.Link, pinned.OnLink = "eth0", true
	via := func(gw string) string { return "192.168.98.0/26 via " + gw + " proto bird" }
	via6 := func(gw string) string { return "fd98::/122 via " + gw + " proto bird metric 1024 pref medium" }
	for name, tt := range map[string]struct {
		routes []plan.Route
		steps  []step
	}{
		"default route comes, moves and goes": {[]plan.Route{r4}, []step{
			{"", ""},
			{"route add default via 10.0.0.1", via("10.0.0.1 dev eth0")},
			{"route replace default via 10.0.0.254", via("10.0.0.254 dev eth0")},
			{"route del default", ""},
			{"route add default via 10.0.0.1 proto dhcp metric 100", via("10.0.0.1 dev eth0")},
			{"route add default via 10.0.0.3 proto static metric 50", via("10.0.0.3 dev eth0")},
			{"route del default metric 50", via("10.0.0.1 dev eth0")},
		}},
		"default route comes, moves and goes, v6": {[]plan.Route{r6}, []step{
			{"", ""},
			{"-6 route add default via fe80::1 dev eth0 proto ra", via6("fe80::1 dev eth0")},
			{"-6 route replace default via fd00::1 proto ra", via6("fd00::1 dev eth0")},
			{"-6 route del default", ""},
			{"-6 route add default via fd00::1 metric 100", via6("fd00::1 dev eth0")},
			{"-6 route add default via fd00::3 metric 50", via6("fd00::3 dev eth0")},
			{"-6 route del default metric 50", via6("fd00::1 dev eth0")},
		}},
		"the longest prefix": {[]plan.Route{r4, r6}, []step{
			{"route add default via 10.0.0.1\n-6 route add default via fd00::1", via("10.0.0.1 dev eth0") + "\n" + via6("fd00::1 dev eth0")},
			{"route add 10.9.0.0/16 via 10.0.0.5 metric 5000\n-6 route add fd09::/64 via fd00::5 metric 5000", via("10.0.0.5 dev eth0") + "\n" + via6("fd00::5 dev eth0")},
			{"route add 10.9.9.9 dev eth0\n-6 route add fd09::9 dev eth0", via("10.9.9.9 dev eth0") + "\n" + via6("fd09::9 dev eth0")},
			{"route replace unreachable 10.9.9.9\n-6 route del fd09::9\n-6 route add unreachable fd09::9", ""},
			{"route del unreachable 10.9.9.9\n-6 route del unreachable fd09::9", via("10.0.0.5 dev eth0") + "\n" + via6("fd00::5 dev eth0")},
			{"route del 10.9.0.0/16\n-6 route del fd09::/64", via("10.0.0.1 dev eth0") + "\n" + via6("fd00::1 dev eth0")},
		}},
		"never through ours": {[]plan.Route{r4, cluster("10.9.9.0/24", "10.0.0.7")}, []step{
			{"", "10.9.9.0/24 via 10.0.0.7 dev eth0 proto bird"},
			{"route add default via 10.0.0.1", "10.9.9.0/24 via 10.0.0.7 dev eth0 proto bird\n" + via("10.0.0.1 dev eth0")},
			{"route replace 10.9.9.0/24 via 10.0.0.5", "10.9.9.0/24 via 10.0.0.7 dev eth0 proto bird\n" + via("10.0.0.1 dev eth0")},
			{"route replace default via 10.0.0.1 proto bird", "10.9.9.0/24 via 10.0.0.7 dev eth0 proto bird"},
		}},
		"on link": {[]plan.Route{r4}, []step{
			{"route add default via 172.31.1.1 dev eth0 onlink", via("172.31.1.1 dev eth0") + " onlink"},
			{"route replace default via 10.0.0.1 dev eth0", via("10.0.0.1 dev eth0")},
		}},
		"several hops": {[]plan.Route{r4}, []step{
			{eth1 + "\nroute add default nexthop via 10.0.0.1 nexthop via 10.0.1.1", "192.168.98.0/26 proto bird\n\tnexthop via 10.0.0.1 dev eth0 weight 1\n\tnexthop via 10.0.1.1 dev eth1 weight 1"},
			{"link set eth1 down", via("10.0.0.1 dev eth0")},
			{"link set eth1 up", "192.168.98.0/26 proto bird\n\tnexthop via 10.0.0.1 dev eth0 weight 1\n\tnexthop via 10.0.1.1 dev eth1 weight 1"},
			{"link del eth1", ""},
		}},
		"several hops, v6": {[]plan.Route{r6}, []step{
			{eth1 + "\n-6 route add default via fd00::1", via6("fd00::1 dev eth0")},
			{"-6 route append default via fd01::1", "fd98::/122 proto bird metric 1024 pref medium\n\tnexthop via fd00::1 dev eth0 weight 1\n\tnexthop via fd01::1 dev eth1 weight 1"},
			{"-6 route del default via fd00::1", via6("fd01::1 dev eth1")},
			{"-6 route append default via fd00::1", "fd98::/122 proto bird metric 1024 pref medium\n\tnexthop via fd00::1 dev eth0 weight 1\n\tnexthop via fd01::1 dev eth1 weight 1"},
			{"sysctl ipv6/route/skip_notify_on_dev_down=1\nlink del eth1", via6("fd00::1 dev eth0")},
			{"-6 route del default", ""},
		}},
		"several gateways, one way": {[]plan.Route{cluster("192.168.98.0/26", "10.9.9.8", "10.9.9.9")}, []step{
			{"route add default via 10.0.0.1", via("10.0.0.1 dev eth0")},
			{"route add 10.9.9.8 via 10.0.0.8", "192.168.98.0/26 proto bird\n\tnexthop via 10.0.0.1 dev eth0 weight 1\n\tnexthop via 10.0.0.8 dev eth0 weight 1"},
			{"route del default", via("10.0.0.8 dev eth0")},
		}},
		"IPv4 by an IPv6 default route": {[]plan.Route{cluster("192.168.98.0/26", "fd09::9"), r6}, []step{
			{"-6 route add default via fe80::1 dev eth0", "192.168.98.0/26 via inet6 fe80::1 dev eth0 proto bird\n" + via6("fe80::1 dev eth0")},
		}},
		"what the kernel drops in silence": {[]plan.Route{r4}, []step{
			{"route add default via 10.0.0.1", via("10.0.0.1 dev eth0")},
			{"addr del 10.0.0.2/24 dev eth0", ""},
			{"addr add 10.0.0.2/24 dev eth0", ""},
			{"route add default via 10.0.0.1", via("10.0.0.1 dev eth0")},
			{"link set eth0 down", ""},
			{"link set eth0 up", ""},
			{"route add default via 10.0.0.1", via("10.0.0.1 dev eth0")},
			{"addr add 10.0.0.77/32 dev lo\nroute replace default via 10.0.0.1 src 10.0.0.77", via("10.0.0.1 dev eth0")},
			{"addr del 10.0.0.77/32 dev lo", ""},
		}},
		"a link that the plan names": {[]plan.Route{pinned}, []step{
			{"", via("10.9.9.9 dev eth0") + " onlink"},
			{"route add default via 10.0.0.1", via("10.9.9.9 dev eth0") + " onlink"},
			{"route del default", via("10.9.9.9 dev eth0") + " onlink"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			f, stop := k.start(fib.Options{})
			f.Synced()
			f.Apply(plan.Delta{PutRoutes: tt.routes})
			marker := cluster("203.0.113.1/32")
			for _, s := range tt.steps {
				k.ips(s.do)
				k.until(healed, fmt.Sprintf("after %q:\n%s", s.do, s.want), func() bool { return k.clusterLines() == s.want })
				f.Apply(plan.Delta{PutRoutes: []plan.Route{marker}}) // a pass more, and it must stay so
				k.wait(f, "", marker)
				f.Apply(plan.Delta{DeleteRoutes: []plan.RouteKey{marker.RouteKey}})
				k.until(eventually, fmt.Sprintf("for good after %q:\n%s", s.do, s.want), func() bool { return !strings.Contains(k.routes(), "203.0.113.1") })
				if got := k.clusterLines(); got != s.want {
					t.Errorf("after %q and another pass:\n%s\nwant:\n%s", s.do, got, s.want)
				}
				if st := f.State(); st.Err != "" || st.Refused > 0 {
					t.Errorf("after %q: state: %+v", s.do, st)
				}
			}
			want := k.routes()
			stop()
			f, _ = k.start(fib.Options{}, plan.Delta{PutRoutes: tt.routes})
			f.Synced()
			k.until(eventually, "a clean state after a restart", func() bool { s := f.State(); return s.Stats.Dumps >= 2 && s.Applied+s.Waiting == s.Routes })
			if got := k.routes(); got != want || f.State().Stats.Messages != 0 {
				t.Errorf("a restart sent %d messages, and made\n%s\nof\n%s", f.State().Stats.Messages, got, want)
			}
		})
	}
}

// TestGatewayInOwnBlock: a default route leads to everything, but not to an
// address of this node's own block, which the fabric would send back.
func TestGatewayInOwnBlock(t *testing.T) {
	t.Parallel()
	for _, metric := range []uint32{0, 1024} {
		t.Run(fmt.Sprint(metric), func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			k.ip("route add default via 10.0.0.1")
			f, _ := k.start(fib.Options{})
			f.Synced()
			r, block, host := cluster("192.168.150.0/24", "192.168.97.2"), cluster("192.168.97.0/26"), device("192.168.97.2/32", "cali1")
			block.Priority, host.Priority = metric, metric
			f.Apply(plan.Delta{PutRoutes: []plan.Route{r}})
			k.wait(f, "", r) // somebody else's, as far as we know
			k.has("192.168.150.0/24 via 10.0.0.1 dev eth0 proto bird", true)
			f.Apply(plan.Delta{PutRoutes: []plan.Route{block}})
			k.until(healed, "waiting", func() bool { return f.State().Waiting == 1 })
			k.has("192.168.150.0/24", false)
			k.workload("cali1")
			f.Apply(plan.Delta{PutRoutes: []plan.Route{host}})
			k.wait(f, "", r)
			k.has("192.168.150.0/24 via 192.168.97.2 dev cali1 proto bird", true)
			f.Apply(plan.Delta{DeleteRoutes: []plan.RouteKey{host.RouteKey, block.RouteKey}})
			k.ip("link del cali1")
			k.until(healed, "by the default route again", func() bool {
				return k.clusterLines() == "192.168.150.0/24 via 10.0.0.1 dev eth0 proto bird"
			})
		})
	}
}

func (k kernel) has(line string, want bool) {
	k.Helper()
	k.until(healed, fmt.Sprintf("%q: %t", line, want), func() bool { return strings.Contains(k.routes(), line) == want })
}

// TestDefaultRouteInOneSegment: where gateways are on the connected network, what
// others route elsewhere changes nothing, and not a message is sent for it.
func TestDefaultRouteInOneSegment(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	f, _ := k.start(fib.Options{})
	f.Synced()
	rs := []plan.Route{cluster("192.168.98.0/26", "10.0.0.9"), cluster("fd98::/122", "fd00::9")}
	f.Apply(plan.Delta{PutRoutes: rs})
	k.wait(f, "", rs...)
	k.compared(f)
	want, sent := k.clusterLines(), f.State().Stats.Messages
	k.ips(`route add default via 10.0.0.1
		-6 route add default via fd00::1
		route add 10.0.0.0/8 via 10.0.0.3
		-6 route add fd00::/16 via fd00::3
		route replace default via 10.0.0.2
		route del default
		-6 route del default`)
	dumps := f.State().Stats.Dumps
	f.Resync()
	k.until(eventually, "a full comparison", func() bool { return f.State().Stats.Dumps > dumps })
	if got := k.clusterLines(); got != want || f.State().Stats.Messages != sent {
		t.Errorf("%d messages more, and\n%s\nwant none, and\n%s", f.State().Stats.Messages-sent, got, want)
	}
	k.ip("route add 10.0.0.8/29 via 10.0.0.3") // but a more specific one is one
	k.has("192.168.98.0/26 via 10.0.0.3 dev eth0 proto bird", true)
}

// TestDefaultRouteOfManyRoutes has 100,000 routes follow a default route.
func TestDefaultRouteOfManyRoutes(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	const n = 100_000
	var d plan.Delta
	for i := range n {
		r := cluster("10.100.0.0/26", "10.9.9.9")
		r.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 24)
		d.PutRoutes = append(d.PutRoutes, r)
	}
	f, _ := k.start(fib.Options{})
	f.Synced()
	f.Apply(d)
	k.until(eventually, "waiting", func() bool { return f.State().Waiting == n })
	k.ip("route add default via 10.0.0.1")
	k.until(eventually, "applied", func() bool { return f.State().Applied == n })
	sent := f.State().Stats.Messages
	k.ip("route add 10.55.0.0/16 via 10.0.0.5") // leads to no gateway
	k.ip("route replace default via 10.0.0.254")
	k.until(eventually, "moved", func() bool { return f.State().Stats.Messages >= sent+n && f.State().Applied == n })
	if got := strings.Count(k.ip("route"), "via 10.0.0.254 dev eth0 proto bird"); got != n {
		t.Errorf("%d routes by the new gateway, want %d", got, n)
	}
	k.ip("route del default")
	k.until(eventually, "waiting again", func() bool { return f.State().Waiting == n })
	k.until(eventually, "removed", func() bool { return k.clusterLines() == "" })
	if got := f.State().Stats.Messages - sent; got != 2*n {
		t.Errorf("%d messages for one change and one removal, want %d", got, 2*n)
	}
}

// TestOrderOfHopsDoesNotMatter: the kernel and others name the same hops in
// any order, which must not make 100,000 routes be written again.
func TestOrderOfHopsDoesNotMatter(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.ip("route add default nexthop via 10.0.0.3 nexthop via 10.0.0.1")
	f, _ := k.start(fib.Options{})
	r := cluster("192.168.98.0/26", "10.9.9.9")
	f.Apply(plan.Delta{PutRoutes: []plan.Route{r}})
	k.wait(f, "", r)
	sent := f.State().Stats.Messages
	k.ip("route replace default nexthop via 10.0.0.1 nexthop via 10.0.0.3")
	k.ip("-6 route add default via fd00::1")
	f.Resync()
	k.until(eventually, "a full comparison", func() bool { return f.State().Stats.Dumps >= 2 })
	k.wait(f, "", r)
	if got := f.State().Stats.Messages; got != sent {
		t.Errorf("%d messages for another order of the same hops, want none", got-sent)
	}
}

func (k kernel) set(path, value string) {
	k.Helper()
	k.ns.MustDo(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte(value), 0) })
}

func TestSysctlsAreHealed(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.workload("cali1")
	f, _ := k.start(fib.Options{})
	f.Apply(pod("cali1"))
	k.wait(f, "cali1")
	for _, path := range []string{
		"ipv4/conf/cali1/forwarding", "ipv4/conf/cali1/proxy_arp", "ipv6/conf/cali1/forwarding", "ipv6/conf/cali1/proxy_ndp",
	} {
		k.set(path, "0")
		k.until(healed, path, func() bool { return k.sysctl(path) == "1" })
	}
	k.set("ipv4/ip_forward", "0") // of all links
	k.until(healed, "forwarding of the link", func() bool { return k.sysctl("ipv4/conf/cali1/forwarding") == "1" })
	if got := k.sysctl("ipv4/conf/eth0/forwarding"); got != "0" {
		t.Errorf("forwarding of eth0 is %s, want 0: the link is not ours", got)
	}
}
