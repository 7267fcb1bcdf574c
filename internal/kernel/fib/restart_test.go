package fib_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// monitor collects what `ip monitor` prints of routes and neighbours. The
// returned function stops it, after all that happened before was printed.
func (k kernel) monitor() func() []string {
	k.Helper()
	cmd := exec.Command("ip", "monitor", "route", "neigh")
	out, err := cmd.StdoutPipe()
	if err != nil {
		k.Fatal(err)
	}
	if err := k.ns.Start(cmd); err != nil {
		k.Fatal(err)
	}
	lines := make(chan string, 100_000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- strings.TrimSpace(s.Text())
		}
	}()
	// A route of our own marks the beginning and the end.
	mark := func(dst string) (seen []string) {
		for {
			k.ip("route replace blackhole " + dst + " proto static")
			k.ip("route del blackhole " + dst)
			for wait := time.After(50 * time.Millisecond); ; {
				select {
				case l := <-lines:
					if strings.Contains(l, dst) {
						return seen
					}
					seen = append(seen, l)
					continue
				case <-wait:
				}
				break
			}
		}
	}
	mark("203.0.113.1")
	return func() []string {
		seen := mark("203.0.113.2")
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		var out []string
		for _, l := range seen {
			if !strings.Contains(l, "203.0.113.") {
				out = append(out, l)
			}
		}
		return out
	}
}

func TestRestartTouchesOnlyWhatIsWrong(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	for _, l := range []string{"cali1", "cali2"} {
		k.workload(l)
	}
	good := pod("cali1")
	good.PutRoutes = append(good.PutRoutes, cluster("192.168.97.0/26"), cluster("fd97::/122"),
		cluster("192.168.98.0/26", "10.0.0.9"), cluster("fd98::/122", "fd00::9"),
		cluster("192.168.99.0/26", "10.0.0.3", "10.0.0.4"), cluster("fd99::/64", "fd00::3", "fd00::4"))
	stale := plan.Delta{
		PutRoutes: []plan.Route{
			device("192.168.97.3/32", "cali2"), device("fd97::3/128", "cali2"),
			cluster("192.168.200.0/26"), cluster("fd20::/122", "fd00::9"), cluster("192.168.201.0/26", "10.0.0.3", "10.0.0.4"),
		},
		PutNeighbors: []plan.Neighbor{{NeighborKey: plan.NeighborKey{Link: "cali2", Addr: netip.MustParseAddr("192.168.97.3")}, MAC: "02:00:00:00:00:03"}},
	}
	moved := cluster("192.168.202.0/26", "10.0.0.5")

	f, stop := k.start(fib.Options{})
	f.Apply(good)
	f.Apply(stale)
	f.Apply(plan.Delta{PutRoutes: []plan.Route{moved}})
	f.Synced()
	k.wait(f, "cali1", append(append(good.PutRoutes, moved), stale.PutRoutes...)...)
	k.until(eventually, "the stale neighbour", func() bool { return strings.Contains(k.ip("neigh"), "02:00:00:00:00:03") })
	stop()
	before := k.routes()

	f, stop = k.start(fib.Options{}, good) // all is known before the kernel is read
	k.wait(f, "cali1", good.PutRoutes...)
	if n := f.State().Stats.Messages; n != 0 {
		t.Errorf("a restart with everything at hand sent %d messages, want none", n)
	}
	stop()

	events := k.monitor()
	f, _ = k.start(fib.Options{})
	k.until(eventually, "the first dump", func() bool { return f.State().Stale == 14 })
	half := good
	half.PutRoutes = good.PutRoutes[:4]
	f.Apply(half) // bit by bit, as a store and BGP deliver
	k.wait(f, "cali1", half.PutRoutes...)
	f.Apply(good)
	moved = cluster("192.168.202.0/26", "10.0.0.6")
	f.Apply(plan.Delta{PutRoutes: []plan.Route{moved}})
	k.wait(f, "cali1", append(good.PutRoutes, moved)...)
	if got, want := k.routes(), strings.Replace(before, "via 10.0.0.5", "via 10.0.0.6", 1); got != want {
		t.Errorf("before Synced:\n%s\nwant:\n%s", got, want)
	}

	f.SyncedLocal()
	k.until(eventually, "stale workloads gone", func() bool {
		return !strings.Contains(k.routes(), "cali2") && !strings.Contains(k.ip("neigh"), "02:00:00:00:00:03")
	})
	if !strings.Contains(k.routes(), "192.168.201.0/26") {
		t.Error("SyncedLocal removed a route of the cluster")
	}
	f.Synced()
	k.until(eventually, "stale routes gone", func() bool { return !strings.Contains(k.routes(), "192.168.201.0/26") })

	seen := strings.Join(events(), "\n")
	for _, r := range good.PutRoutes {
		if p := strings.TrimSuffix(strings.TrimSuffix(r.Dst.String(), "/32"), "/128"); strings.Contains(seen, p+" ") {
			t.Errorf("%s was written again, although it was right", p)
		}
	}
	for _, want := range []string{"192.168.202.0/26", "Deleted 192.168.97.3", "Deleted fd97::3", "Deleted blackhole 192.168.200.0/26", "Deleted 192.168.201.0/26"} {
		if !strings.Contains(seen, want) {
			t.Errorf("the monitor did not see %q; it saw:\n%s", want, seen)
		}
	}
	if strings.Contains(seen, "Deleted 192.168.202.0/26") {
		t.Error("a route with a new gateway was deleted first, not replaced")
	}
}

func TestHundredThousandRoutes(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.workload("cali1")
	const n = 100_000
	var d plan.Delta
	for i := range n {
		r := cluster("10.100.0.0/26", "10.0.0.9")
		r.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0}), 24)
		d.PutRoutes = append(d.PutRoutes, r)
	}
	f, stop := k.start(fib.Options{})
	f.Apply(d)
	f.Apply(pod("cali1"))
	k.wait(f, "cali1") // passes by
	k.wait(f, "", d.PutRoutes...)
	k.count("after Apply", n)

	k.ip("link set eth0 down") // the kernel drops them all, and tells of none
	k.until(eventually, "seen", func() bool { return f.State().Waiting == n })
	k.ip("link set eth0 up")
	k.until(eventually, "healed", func() bool { s := f.State(); return s.Applied == s.Routes })
	k.count("after the uplink flapped", n)

	stop()
	f, _ = k.start(fib.Options{})
	k.until(eventually, "taken over", func() bool { return f.State().Stale >= n })
	f.Apply(d)
	f.Synced()
	k.until(eventually, "workload pruned", func() bool { s := f.State(); return s.Stale == 0 && s.Applied == n })
	if m := f.State().Stats.Puts; m != 0 {
		t.Errorf("a restart wrote %d routes, want none", m)
	}
	var del plan.Delta
	for _, r := range d.PutRoutes {
		del.DeleteRoutes = append(del.DeleteRoutes, r.RouteKey)
	}
	f.Apply(del)
	k.until(eventually, "deleted", func() bool { s := f.State(); return s.Routes+s.Stale == 0 })
	k.count("after deletion", 0)
}

func (k kernel) count(when string, want int) {
	k.Helper()
	if got := strings.Count(k.ip("route"), "via"); got != want {
		k.Errorf("%s: %d routes, want %d", when, got, want)
	}
}

func TestECMPFollowsItsLinks(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.ip("link add eth1 type veth peer name eth1peer")
	k.ip("addr add 10.0.1.2/24 dev eth1")
	k.ip("link set eth1peer up")
	r := cluster("192.168.98.0/26", "10.0.0.9", "10.0.1.9")
	f, _ := k.start(fib.Options{})
	f.Apply(plan.Delta{PutRoutes: []plan.Route{r}})
	k.wait(f, "", r)
	one := "192.168.98.0/26 via 10.0.0.9 dev eth0 proto bird"
	both := "192.168.98.0/26 proto bird\n\tnexthop via 10.0.0.9 dev eth0 weight 1\n\tnexthop via 10.0.1.9 dev eth1 weight 1"
	if got := k.routes(); got != one {
		t.Errorf("with one link up:\n%s\nwant:\n%s", got, one)
	}
	for range 3 {
		k.ip("link set eth1 up")
		k.until(healed, both, func() bool { return k.routes() == both })
		k.ip("link set eth1 down")
		k.until(healed, one, func() bool { return k.routes() == one })
	}
}

func TestGatewayBehindAWorkload(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	f, _ := k.start(fib.Options{})
	r := cluster("192.168.150.0/24", "192.168.97.2")
	f.Apply(plan.Delta{PutRoutes: []plan.Route{r}})
	k.until(eventually, "waiting", func() bool { return f.State().Waiting == 1 })
	f.Apply(pod("cali1"))
	k.workload("cali1")
	k.wait(f, "cali1", r)
	if want := "192.168.150.0/24 via 192.168.97.2 dev cali1 proto bird"; !strings.Contains(k.routes(), want) {
		t.Errorf("routes:\n%s\nwant:\n%s", k.routes(), want)
	}
}

func TestEnableForwarding(t *testing.T) {
	t.Parallel()
	ns := testenv.Netns(t)
	k := kernel{t, ns}
	for path, on := range map[string]func() error{
		"ipv4/ip_forward":          func() error { return fib.EnableForwarding(true, false) },
		"ipv6/conf/all/forwarding": func() error { return fib.EnableForwarding(false, true) },
	} {
		ns.MustDo(func() error { return os.WriteFile("/proc/sys/net/"+path, []byte("0"), 0) })
		ns.MustDo(on)
		if got := k.sysctl(path); got != "1" {
			t.Errorf("%s is %s, want 1", path, got)
		}
	}
}

func TestLostEventsAreMadeUpFor(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	f, _ := k.start(fib.Options{})
	f.Synced()
	r := cluster("192.168.98.0/26", "10.0.0.9")
	f.Apply(plan.Delta{PutRoutes: []plan.Route{r}})
	k.wait(f, "", r)
	var flood strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&flood, "route add blackhole 172.%d.%d.%d proto static\n", 16+i>>16, i>>8&255, i&255)
	}
	flood.WriteString("route del 192.168.98.0/26\n")
	file := filepath.Join(t.TempDir(), "flood")
	if err := os.WriteFile(file, []byte(flood.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	release := f.Hold()
	k.ip("-batch " + file)
	release()
	k.until(eventually, "overrun, and healed", func() bool {
		s := f.State()
		return s.Stats.Overruns > 0 && s.Applied == 1 && strings.Contains(k.ip("route show 192.168.98.0/26"), "via")
	})
}

func TestRefusedRoutesComeWhenTheyCan(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	const n = 3000
	var d plan.Delta
	for i := range n {
		r := cluster("10.100.0.0/32", "10.9.9.9") // not on eth0's network
		r.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)}), 32)
		r.Link = "eth0"
		d.PutRoutes = append(d.PutRoutes, r)
	}
	good := cluster("192.168.98.0/26", "10.0.0.9")
	d.PutRoutes = append(d.PutRoutes, good)
	f, _ := k.start(fib.Options{})
	f.Apply(d)
	k.wait(f, "", good)
	k.until(eventually, "refusal", func() bool { return f.State().Refused == n })
	k.until(eventually, "health", func() bool { return strings.Contains(f.State().Err, "network is unreachable") })
	k.ip("addr add 10.9.9.1/24 dev eth0")
	k.until(eventually, "all", func() bool { s := f.State(); return s.Applied == n+1 && s.Err == "" })
}

func TestConfigureInPlace(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.workload("cali1")
	k.workload("tap1")
	k.ip("route add 192.168.1.1 dev tap1 proto static")
	k.ip("route add 192.168.1.0/26 dev tap1 proto 80")
	f, _ := k.start(fib.Options{})
	f.Synced()
	f.Apply(pod("cali1"))
	k.wait(f, "cali1")
	k.compared(f)
	if got := strings.Count(k.ip("route"), "tap1"); got != 2 {
		t.Fatalf("%d foreign routes left, want 2", got)
	}
	o := fib.Options{DeviceProtocol: 4, Prefixes: []string{"cali", "tap"}, RemoveExternalRoutes: true, Resync: -1}
	f.Configure(o)
	moved := pod("cali1")
	for i := range moved.PutRoutes {
		moved.PutRoutes[i].Proto = 4
	}
	f.Apply(moved)
	want := "192.168.97.2 dev cali1 proto static scope link\nfd97::2 dev cali1 proto static metric 1024 pref medium"
	k.until(eventually, want, func() bool { return k.routes() == want })
	k.until(eventually, "the comparison", func() bool { return f.State().Stats.Dumps >= 3 })
	dumps := f.State().Stats.Dumps
	f.Configure(o) // changes nothing
	marker := cluster("192.168.99.0/26")
	f.Apply(plan.Delta{PutRoutes: []plan.Route{marker}})
	k.wait(f, "", marker)
	if f.State().Stats.Dumps != dumps {
		t.Error("Configure with the same options read all routes again")
	}
}
