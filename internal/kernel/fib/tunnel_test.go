package fib_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
)

// tunnel is a route to another node's block through a tunnel device.
func tunnel(dst, via, link string) plan.Route {
	r := cluster(dst, via)
	r.Link, r.OnLink = link, true
	return r
}

// vxlan makes a device that stands for any tunnel's.
func (k kernel) vxlan(name string) {
	k.ip("link add " + name + " type vxlan id 4096 dstport 4789 local 10.0.0.2 nolearning")
	k.ip("link set " + name + " up")
}

func (k kernel) applied(f *fib.FIB, limit string) {
	k.Helper()
	k.until(healed, limit, func() bool { s := f.State(); return s.Applied == s.Routes && len(s.Pending) == 0 })
}

func TestTunnelRoutesWaitForTheirDevice(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	f, stop := k.start(fib.Options{})
	d := plan.Delta{PutRoutes: []plan.Route{
		tunnel("192.168.110.64/26", "10.173.32.24", "tunl0"), tunnel("fd98:0:0:2::/122", "fd77::9", "tunl0"),
	}}
	f.Apply(d)
	k.until(eventually, "waiting", func() bool { return f.State().Waiting == 2 })
	want := "192.168.110.64/26 via 10.173.32.24 dev tunl0 proto bird onlink\n" +
		"fd98:0:0:2::/122 via fd77::9 dev tunl0 proto bird metric 1024 onlink pref medium"
	for _, event := range []string{"made", "made again"} {
		if event == "made again" {
			k.ip("link del tunl0")
			k.until(eventually, "waiting again", func() bool { return f.State().Waiting == 2 })
		}
		k.vxlan("tunl0")
		k.applied(f, event)
		if got := k.routes(); got != want {
			t.Errorf("device %s:\n%s\nwant:\n%s", event, got, want)
		}
	}
	stop()
	f, _ = k.start(fib.Options{}, d)
	f.Synced()
	k.applied(f, "restart")
	if n := f.State().Stats.Messages; n != 0 {
		t.Errorf("a restart sent %d messages, want none", n)
	}
}

// A pool's mode changes: the same prefix leads another way, and at no time nowhere.
func TestModeChangeReplacesTheRoute(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	f, _ := k.start(fib.Options{})
	f.Synced()
	plain := []plan.Route{cluster("192.168.98.0/26", "10.0.0.9"), cluster("fd98::/122", "fd00::9")}
	tunnelled := []plan.Route{tunnel("192.168.98.0/26", "10.0.0.9", "tunl0"), tunnel("fd98::/122", "fd77::9", "tunl0")}
	f.Apply(plan.Delta{PutRoutes: plain})
	k.wait(f, "", plain...)
	k.compared(f)
	events := k.monitor()

	f.Apply(plan.Delta{PutRoutes: tunnelled}) // before the device is there
	k.until(eventually, "waiting", func() bool { return f.State().Waiting == 2 })
	if got := k.routes(); !strings.Contains(got, "via 10.0.0.9 dev eth0") || !strings.Contains(got, "via fd00::9 dev eth0") {
		t.Errorf("the old routes are gone before the new ones can be:\n%s", got)
	}
	dumps := f.State().Stats.Dumps
	k.vxlan("tunl0")
	k.applied(f, "tunnelled")
	if got := k.routes(); strings.Contains(got, "eth0") || strings.Count(got, "dev tunl0 proto bird") != 2 {
		t.Errorf("routes:\n%s\nwant both through tunl0", got)
	}
	if n := f.State().Stats.Dumps; n != dumps {
		t.Errorf("%d dumps for it, want none", n-dumps)
	}
	f.Apply(plan.Delta{PutRoutes: plain})
	k.wait(f, "", plain...)
	for _, l := range events() {
		if strings.HasPrefix(l, "Deleted 192.168.98.0/26") || strings.HasPrefix(l, "Deleted fd98::/122") {
			t.Errorf("a route was deleted, not replaced: %s", l)
		}
	}
}

// TestGatewayInsideOfItsBlock: the address of a VXLAN device is one of the block that the
// route is to, and the block led another way before.
func TestGatewayInsideOfItsBlock(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	f, _ := k.start(fib.Options{})
	f.Synced()
	plain := []plan.Route{cluster("192.168.98.0/26", "10.0.0.9"), cluster("fd98::/122", "fd00::9")}
	tunnelled := []plan.Route{tunnel("192.168.98.0/26", "192.168.98.1", "tunl0"), tunnel("fd98::/122", "fd98::1", "tunl0")}
	k.vxlan("tunl0")
	for range 2 {
		f.Apply(plan.Delta{PutRoutes: plain})
		k.wait(f, "", plain...)
		events := k.monitor()
		f.Apply(plan.Delta{PutRoutes: tunnelled})
		k.wait(f, "", tunnelled...)
		k.applied(f, "tunnelled")
		want := "192.168.98.0/26 via 192.168.98.1 dev tunl0 proto bird onlink\n" +
			"fd98::/122 via fd98::1 dev tunl0 proto bird metric 1024 onlink pref medium"
		if got := k.routes(); got != want {
			t.Errorf("routes:\n%s\nwant:\n%s", got, want)
		}
		for _, l := range events() {
			if strings.HasPrefix(l, "Deleted 192.168.98.0/26") || strings.HasPrefix(l, "Deleted fd98::/122") {
				t.Errorf("a route was deleted, not replaced: %s", l)
			}
		}
	}
}

// wireguardRoutes are those of a WireGuard table: to peers, and what goes on in clear.
func wireguardRoutes(table uint32) []plan.Route {
	out := []plan.Route{device("192.168.98.0/26", "wireguard.cali"), device("fd98::/122", "wireguard.cali")}
	for _, throw := range []string{"192.168.97.0/26", "fd97::/122"} {
		r := cluster(throw)
		r.Type = plan.Throw
		out = append(out, r)
	}
	for i := range out {
		out[i].Table, out[i].Proto = table, plan.ProtoBird
	}
	return out
}

func TestTablesOfTheirOwn(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.vxlan("wireguard.cali")
	var all []uint32
	for table := range uint32(250) {
		all = append(all, table+1)
	}
	k.ip("route add 192.168.55.0/24 via 10.0.0.7 table 7 proto bird")
	k.ip("route add 192.168.56.0/24 via 10.0.0.7 table 7")
	f, stop := k.start(fib.Options{Tables: all})
	d := plan.Delta{PutRoutes: append(wireguardRoutes(1), wireguardRoutes(300)...)}
	f.Apply(d)
	k.wait(f, "", d.PutRoutes...)
	look := func(table string) string {
		v4, _ := k.tryIP("route show table " + table) // which may not exist
		v6, _ := k.tryIP("-6 route show table " + table)
		return v4 + "\n" + v6
	}
	want := "throw 192.168.97.0/26 proto bird\n192.168.98.0/26 dev wireguard.cali proto bird scope link\n" +
		"throw fd97::/122 dev lo proto bird metric 1024 pref medium\nfd98::/122 dev wireguard.cali proto bird metric 1024 pref medium"
	for _, table := range []string{"1", "300"} {
		if got := look(table); got != want {
			t.Errorf("table %s:\n%s\nwant:\n%s", table, got, want)
		}
	}
	k.ip("route del throw 192.168.97.0/26 table 1")
	k.ip("-6 route flush table 300")
	k.until(healed, "healed", func() bool { return look("1") == want && look("300") == want })
	if !strings.Contains(look("7"), "192.168.55.0/24") {
		t.Error("a stale route went before Synced")
	}
	stop()

	f, _ = k.start(fib.Options{Tables: all}, d)
	k.applied(f, "restart")
	if n := f.State().Stats.Messages; n != 0 {
		t.Errorf("a restart sent %d messages, want none", n)
	}
	f.Synced()
	k.until(eventually, "the stale route gone", func() bool { return !strings.Contains(look("7"), "192.168.55.0/24") })
	if !strings.Contains(look("7"), "192.168.56.0/24") {
		t.Error("a foreign route went with it")
	}
	var del plan.Delta
	for _, r := range d.PutRoutes {
		del.DeleteRoutes = append(del.DeleteRoutes, r.RouteKey)
	}
	f.Apply(del)
	k.until(eventually, "all gone", func() bool { return !strings.Contains(look("1")+look("300"), "proto bird") })
}

func TestRoutingRules(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.ip("rule add priority 98 fwmark 0x1/0x1 table 9 protocol bird") // of an earlier run
	k.ip("rule add priority 97 fwmark 0x1/0x1 table 9")
	f, stop := k.start(fib.Options{})
	var d plan.Delta
	for _, v6 := range []bool{false, true} {
		d.PutRules = append(d.PutRules,
			plan.RoutingRule{V6: v6, Priority: 99, Mark: 0x100000, Mask: 0x100000, Not: true, Table: 1},
			plan.RoutingRule{V6: v6, Priority: 98, Mark: 0x200000, Mask: 0xf00000, Table: 300})
	}
	f.Apply(d)
	look := func() string {
		var out []string
		for l := range strings.Lines(k.ip("rule") + "\n" + k.ip("-6 rule")) {
			if strings.HasPrefix(l, "9") {
				out = append(out, strings.Trim(l, "\n"))
			}
		}
		return strings.Join(out, "\n")
	}
	foreign := "97:\tfrom all fwmark 0x1/0x1 lookup 9\n"
	stale := "98:\tfrom all fwmark 0x1/0x1 lookup 9 proto bird\n"
	ours := "98:\tfrom all fwmark 0x200000/0xf00000 lookup 300 proto bird\n99:\tnot from all fwmark 0x100000/0x100000 lookup 1 proto bird"
	want := foreign + stale + ours + "\n" + ours
	k.until(eventually, want, func() bool { return look() == want })
	k.applied(f, "rules")
	for _, family := range []string{"", "-6 "} {
		k.ip(family + "rule del priority 99")
		k.until(healed, "healed", func() bool { return look() == want })
	}
	stop()

	f, _ = k.start(fib.Options{}, d)
	k.applied(f, "restart")
	if n := f.State().Stats.Messages; n != 0 {
		t.Errorf("a restart sent %d messages, want none", n)
	}
	if got := look(); got != want {
		t.Errorf("before Synced:\n%s\nwant:\n%s", got, want)
	}
	f.Synced()
	want = strings.Replace(want, stale, "", 1)
	k.until(eventually, want, func() bool { return look() == want })
	f.Apply(plan.Delta{DeleteRules: d.PutRules})
	k.until(eventually, foreign, func() bool { return look()+"\n" == foreign })
}

// BenchmarkTunnelRoutes: 5,000 blocks behind as many gateways, from nothing.
func BenchmarkTunnelRoutes(b *testing.B) {
	var d plan.Delta
	for i := range 5000 {
		r := tunnel("10.100.0.0/26", "10.200.0.1", "eth0")
		r.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(100 + i>>14), byte(i >> 6), byte(i << 2)}), 30)
		r.Via = plan.MakeHops(netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}))
		d.PutRoutes = append(d.PutRoutes, r)
	}
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			k := newKernel(b)
			f, stop := k.start(fib.Options{})
			b.StartTimer()
			f.Apply(d)
			k.wait(f, "", d.PutRoutes...)
			b.StopTimer()
			stop()
			b.StartTimer()
		}
	})
	b.Run("one more", func(b *testing.B) {
		k := newKernel(b)
		f, _ := k.start(fib.Options{})
		f.Apply(d)
		k.wait(f, "", d.PutRoutes...)
		b.ReportAllocs()
		more := tunnel("10.99.0.0/26", "10.200.0.1", "eth0")
		for i := 0; b.Loop(); i++ {
			more.Via = plan.MakeHops(netip.AddrFrom4([4]byte{10, 201, byte(i >> 8), byte(i)}))
			f.Apply(plan.Delta{PutRoutes: []plan.Route{more}})
			k.wait(f, "", more)
		}
	})
}
