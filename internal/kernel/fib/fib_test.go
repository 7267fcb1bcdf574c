package fib_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

const (
	eventually = testenv.Patience
	healed     = testenv.ByEvent // nothing is compared but by events, see start
)

// kernel is a namespace with an uplink eth0, 10.0.0.2/24 and fd00::2/64.
type kernel struct {
	testing.TB
	ns *testenv.Namespace
}

func newKernel(t testing.TB) kernel {
	testenv.Need(t, "ip")
	k := kernel{t, testenv.Netns(t)}
	k.ip("link add eth0 type veth peer name eth0peer")
	k.ip("addr add 10.0.0.2/24 dev eth0")
	k.ip("-6 addr add fd00::2/64 dev eth0 nodad")
	k.ip("link set eth0peer up")
	k.ip("link set eth0 up")
	return k
}

// ip runs iproute2 inside, and gives its output.
func (k kernel) ip(args string) string {
	k.Helper()
	out, err := k.tryIP(args)
	if err != nil {
		k.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return out
}

func (k kernel) tryIP(args string) (string, error) {
	k.Helper()
	out, err := k.ns.Run("ip", strings.Fields(args)...)
	return strings.TrimSuffix(out, "\n"), err
}

// routes prints both families without what the kernel made itself.
func (k kernel) routes() string {
	k.Helper()
	var out []string
	for l := range strings.Lines(k.ip("route") + "\n" + k.ip("-6 route")) {
		if l = strings.TrimRight(l, "\n"); l != "" && !strings.Contains(l, "proto kernel") {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// start runs a FIB inside until the test, or the returned stop, ends it. The
// deltas are applied before it has read the kernel.
func (k kernel) start(o fib.Options, first ...plan.Delta) (*fib.FIB, func()) {
	k.Helper()
	if o.Resync == 0 {
		o.Resync = -1 // what is healed is healed by events
	}
	var f *fib.FIB
	stop := k.ns.Keep(func() (_ func(context.Context) error, err error) {
		if f, err = fib.New(o); err != nil {
			return nil, err
		}
		for _, d := range first {
			f.Apply(d)
		}
		return f.Run, nil
	})
	return f, stop
}

// compared waits until the full comparison that Synced asks for is over, beside the first.
func (k kernel) compared(f *fib.FIB) {
	k.Helper()
	k.until(eventually, "the comparison after Synced", func() bool { return f.State().Stats.Dumps >= 2 })
}

// workload makes the link of a pod, up, and gives its plan.
func (k kernel) workload(name string) { k.veth(name); k.ip("link set " + name + " up") }

func (k kernel) veth(name string) {
	k.ip("link add " + name + " type veth peer name p" + name[4:])
	k.ip("link set p" + name[4:] + " up")
}

func (k kernel) wait(f *fib.FIB, link string, routes ...plan.Route) {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	var keys []plan.RouteKey
	for _, r := range routes {
		keys = append(keys, r.RouteKey)
	}
	if err := f.WaitApplied(ctx, link, keys...); err != nil {
		k.Fatal(err)
	}
}

// until waits for a fact that only the kernel knows.
func (k kernel) until(limit time.Duration, what string, fact func() bool) {
	k.Helper()
	for start := time.Now(); !fact(); time.Sleep(2 * time.Millisecond) {
		if time.Since(start) > limit {
			k.Fatalf("not within %v: %s\nroutes:\n%.3000s", limit, what, k.routes())
		}
	}
}

func cluster(dst string, via ...string) plan.Route {
	r := plan.Route{RouteKey: plan.RouteKey{Dst: netip.MustParsePrefix(dst), Table: plan.TableMain}}
	r.Proto = plan.ProtoBird
	if len(via) == 0 {
		r.Type = plan.Blackhole
	}
	var gws []netip.Addr
	for _, v := range via {
		gws = append(gws, netip.MustParseAddr(v))
	}
	r.Via = plan.MakeHops(gws...)
	return r
}

func device(dst, link string) plan.Route {
	r := plan.Route{RouteKey: plan.RouteKey{Dst: netip.MustParsePrefix(dst), Table: plan.TableMain}}
	r.Proto, r.Link = plan.ProtoBoot, link
	return r
}

// pod is what a workload with addresses .2 and ::2 puts.
func pod(link string) plan.Delta {
	return plan.Delta{
		PutRoutes: []plan.Route{device("192.168.97.2/32", link), device("fd97::2/128", link)},
		PutLinks:  []plan.Link{{Name: link, V4: true, V6: true}},
		PutNeighbors: []plan.Neighbor{
			{NeighborKey: plan.NeighborKey{Link: link, Addr: netip.MustParseAddr("192.168.97.2")}, MAC: "02:00:00:00:00:01"},
			{NeighborKey: plan.NeighborKey{Link: link, Addr: netip.MustParseAddr("fd97::2")}, MAC: "02:00:00:00:00:01"},
		},
	}
}

func TestRoutesReadAsAnOperatorExpects(t *testing.T) {
	t.Parallel()
	onlink := cluster("192.168.110.64/26", "10.9.9.9")
	onlink.OnLink, onlink.Link = true, "eth0"
	onlink6 := cluster("fd98:0:0:2::/122", "fd77::9")
	onlink6.OnLink, onlink6.Link = true, "eth0"
	src := cluster("192.168.111.0/26", "10.0.0.9")
	src.Src = netip.MustParseAddr("10.0.0.2")
	metric := device("192.168.97.9/32", "calic285cddbb40")
	metric.Priority = 1024
	for name, tt := range map[string]struct {
		r    plan.Route
		want string
	}{
		"workload":           {device("192.168.97.2/32", "calic285cddbb40"), "192.168.97.2 dev calic285cddbb40 scope link"},
		"workload, metric":   {metric, "192.168.97.9 dev calic285cddbb40 scope link metric 1024"},
		"local block":        {cluster("192.168.97.0/26"), "blackhole 192.168.97.0/26 proto bird"},
		"remote block":       {cluster("192.168.210.192/26", "10.0.0.26"), "192.168.210.192/26 via 10.0.0.26 dev eth0 proto bird"},
		"borrowed address":   {cluster("192.168.210.200/32", "10.0.0.27"), "192.168.210.200 via 10.0.0.27 dev eth0 proto bird"},
		"onlink":             {onlink, "192.168.110.64/26 via 10.9.9.9 dev eth0 proto bird onlink"},
		"source":             {src, "192.168.111.0/26 via 10.0.0.9 dev eth0 proto bird src 10.0.0.2"},
		"ECMP":               {cluster("10.200.0.0/16", "10.0.0.3", "10.0.0.4"), "10.200.0.0/16 proto bird\n\tnexthop via 10.0.0.3 dev eth0 weight 1\n\tnexthop via 10.0.0.4 dev eth0 weight 1"},
		"workload, v6":       {device("fd97::2/128", "calic285cddbb40"), "fd97::2 dev calic285cddbb40 metric 1024 pref medium"},
		"local block, v6":    {cluster("fd97::/122"), "blackhole fd97::/122 dev lo proto bird metric 1024 pref medium"},
		"remote block, v6":   {cluster("fd98::/122", "fd00::9"), "fd98::/122 via fd00::9 dev eth0 proto bird metric 1024 pref medium"},
		"onlink, v6":         {onlink6, "fd98:0:0:2::/122 via fd77::9 dev eth0 proto bird metric 1024 onlink pref medium"},
		"ECMP, v6":           {cluster("fd99::/64", "fd00::3", "fd00::4"), "fd99::/64 proto bird metric 1024 pref medium\n\tnexthop via fd00::3 dev eth0 weight 1\n\tnexthop via fd00::4 dev eth0 weight 1"},
		"v4 over v6 gateway": {cluster("10.201.0.0/16", "fd00::3"), "10.201.0.0/16 via inet6 fd00::3 dev eth0 proto bird"},
		"default":            {cluster("0.0.0.0/0", "10.0.0.1"), "default via 10.0.0.1 dev eth0 proto bird"},
		"default, v6":        {cluster("::/0", "fd00::1"), "default via fd00::1 dev eth0 proto bird metric 1024 pref medium"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			k.workload("calic285cddbb40")
			f, _ := k.start(fib.Options{})
			f.Apply(plan.Delta{PutRoutes: []plan.Route{tt.r}})
			k.wait(f, "", tt.r)
			if got := k.routes(); got != tt.want {
				t.Errorf("ip route:\n%s\nwant:\n%s", got, tt.want)
			}
			before := f.State().Stats
			f.Synced()
			f.Apply(plan.Delta{PutRoutes: []plan.Route{tt.r}})
			k.until(eventually, "the dump", func() bool { return f.State().Stats.Dumps > before.Dumps })
			k.wait(f, "", tt.r)
			if after := f.State().Stats; after.Messages != before.Messages {
				t.Errorf("applied twice: %d messages more, want none", after.Messages-before.Messages)
			}
			f.Apply(plan.Delta{DeleteRoutes: []plan.RouteKey{tt.r.RouteKey}})
			k.until(eventually, "deletion", func() bool { return k.routes() == "" })
		})
	}
}

func TestWorkloadLink(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	f, _ := k.start(fib.Options{})
	f.Synced()
	f.Apply(pod("cali1")) // before the link exists
	if s := f.State(); s.Applied != 0 || len(s.Pending) == 0 {
		t.Fatalf("state before the link exists: %+v", s)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := f.WaitApplied(ctx, "cali1"); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("wait for a link that does not exist: %v", err)
	}
	k.workload("cali1")
	k.wait(f, "cali1", pod("cali1").PutRoutes...)
	want := "192.168.97.2 dev cali1 scope link\nfd97::2 dev cali1 metric 1024 pref medium"
	if got := k.routes(); got != want {
		t.Errorf("routes:\n%s\nwant:\n%s", got, want)
	}
	neighbors := "192.168.97.2 lladdr 02:00:00:00:00:01 PERMANENT\nfd97::2 lladdr 02:00:00:00:00:01 PERMANENT"
	if got := k.ip("neigh show dev cali1 nud permanent"); got != neighbors {
		t.Errorf("neighbours:\n%s\nwant:\n%s", got, neighbors)
	}
	for path, value := range map[string]string{
		"ipv4/conf/cali1/proxy_arp": "1", "ipv4/neigh/cali1/proxy_delay": "0", "ipv4/conf/cali1/forwarding": "1",
		"ipv4/conf/cali1/route_localnet": "1", "ipv6/conf/cali1/proxy_ndp": "1", "ipv6/conf/cali1/forwarding": "1",
		"ipv6/conf/cali1/accept_ra": "0", "ipv6/conf/cali1/accept_dad": "0",
	} {
		if got := k.sysctl(path); got != value {
			t.Errorf("%s is %s, want %s", path, got, value)
		}
	}
	if n := f.State().Stats.Sysctls; n == 0 || n > 8 {
		t.Errorf("%d sysctls written, want at most 8, each once", n)
	}

	for _, flap := range []string{"link set cali1 down", "link del cali1", "link set cali1 name eth7"} {
		k.ip(flap)
		k.until(healed, "no routes after "+flap, func() bool { return f.State().Applied == 0 })
		switch {
		case strings.Contains(flap, "down"):
			k.ip("link set cali1 up")
		case strings.Contains(flap, "del"):
			k.workload("cali1")
		default:
			k.ip("link set eth7 name cali1")
		}
		k.wait(f, "cali1")
		if got := k.routes(); got != want {
			t.Errorf("after %s:\n%s\nwant:\n%s", flap, got, want)
		}
		if got := k.ip("neigh show dev cali1 nud permanent"); got != neighbors {
			t.Errorf("neighbours after %s:\n%s\nwant:\n%s", flap, got, neighbors)
		}
	}

	p := pod("cali1")
	f.Apply(plan.Delta{
		DeleteLinks:     []string{"cali1"},
		DeleteRoutes:    []plan.RouteKey{p.PutRoutes[0].RouteKey, p.PutRoutes[1].RouteKey},
		DeleteNeighbors: []plan.NeighborKey{p.PutNeighbors[0].NeighborKey, p.PutNeighbors[1].NeighborKey},
	})
	k.until(eventually, "all gone", func() bool {
		return k.routes() == "" && k.ip("neigh show dev cali1 nud permanent") == ""
	})
	if s := f.State(); s.Routes+s.Links+s.Neighbors+s.Stale != 0 {
		t.Errorf("state after the end of the pod: %+v", s)
	}
}

func (k kernel) sysctl(path string) string {
	k.Helper()
	var out []byte
	k.ns.MustDo(func() (err error) {
		out, err = os.ReadFile("/proc/sys/net/" + path)
		return err
	})
	return strings.TrimSpace(string(out))
}

func TestHealing(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"workload route deleted":     "route del 192.168.97.2/32",
		"workload route deleted, v6": "-6 route del fd97::2/128",
		"workload route replaced":    "route replace 192.168.97.2/32 dev eth0",
		"block deleted":              "route del 192.168.97.0/26",
		"remote deleted":             "route del 192.168.98.0/26",
		"remote deleted, v6":         "-6 route del fd98::/122",
		"remote replaced":            "route replace 192.168.98.0/26 via 10.0.0.77",
		"remote changed":             "route change 192.168.98.0/26 dev eth0",
		"remote replaced, v6":        "-6 route replace fd98::/122 via fd00::77",
		"one hop deleted, v6":        "-6 route del fd99::/64 via fd00::3",
		"ECMP made one":              "route replace 192.168.99.0/26 via 10.0.0.3 proto bird",
		"all flushed":                "route flush proto bird",
		"neighbour deleted":          "neigh del 192.168.97.2 dev cali1",
		"neighbour deleted, v6":      "neigh del fd97::2 dev cali1",
		"neighbour changed":          "neigh replace 192.168.97.2 lladdr 02:00:00:00:00:66 dev cali1",
		"neighbour made dynamic":     "neigh change 192.168.97.2 lladdr 02:00:00:00:00:01 nud reachable dev cali1",
		"uplink flaps":               "link set eth0 down",
		"uplink address replaced":    "addr del 10.0.0.2/24 dev eth0",
		"another route stays":        "route add 10.77.0.0/16 via 10.0.0.9",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			k.workload("cali1")
			f, _ := k.start(fib.Options{})
			f.Synced()
			d := pod("cali1")
			src := cluster("192.168.100.0/26", "10.0.0.9")
			src.Src = netip.MustParseAddr("10.0.0.2")
			d.PutRoutes = append(d.PutRoutes, cluster("192.168.97.0/26"), cluster("fd97::/122"), src,
				cluster("192.168.98.0/26", "10.0.0.9"), cluster("fd98::/122", "fd00::9"),
				cluster("192.168.99.0/26", "10.0.0.3", "10.0.0.4"), cluster("fd99::/64", "fd00::3", "fd00::4"))
			f.Apply(d)
			k.wait(f, "cali1", d.PutRoutes...)
			look := func() string { return k.routes() + "\n" + k.ip("neigh show nud permanent") }
			want := look()
			k.ip(damage)
			switch damage {
			case "link set eth0 down":
				k.until(healed, "uplink seen down", func() bool { return f.State().Waiting > 0 })
				k.ip("link set eth0 up")
				k.ip("-6 addr add fd00::2/64 dev eth0 nodad") // the kernel took it with the link
			case "addr del 10.0.0.2/24 dev eth0":
				k.until(healed, "address seen gone", func() bool { return f.State().Waiting > 0 })
				k.ip("addr add 10.0.0.2/24 dev eth0")
			case "route add 10.77.0.0/16 via 10.0.0.9":
				want = strings.Replace(want, "192.168.97.0/26", "192.168.97.0/26", 1)
				if !strings.Contains(look(), "10.77.0.0/16 via 10.0.0.9 dev eth0") {
					t.Fatal("the foreign route went")
				}
				k.ip("route del 10.77.0.0/16")
			}
			k.until(healed, "as before:\n"+want, func() bool { return look() == want })
			k.until(eventually, "a clean state", func() bool { s := f.State(); return s.Err == "" && s.Applied == s.Routes })
		})
	}
}

func TestForeignRouteIsNotOverwritten(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		foreign string
		ours    plan.Route
	}{
		"v4": {"192.168.98.0/26 via 10.0.0.77 dev eth0", cluster("192.168.98.0/26", "10.0.0.9")},
		"v6": {"fd98::/122 via fd00::77 dev eth0 metric 1024 pref medium", cluster("fd98::/122", "fd00::9")},
	} {
		for _, first := range []string{"known at start", "added since"} {
			t.Run(name+" "+first, func(t *testing.T) {
				t.Parallel()
				k := newKernel(t)
				if first == "known at start" {
					k.ip("route add " + tt.foreign)
				}
				f, _ := k.start(fib.Options{RemoveExternalRoutes: true})
				f.Synced()
				k.compared(f)
				if first != "known at start" {
					k.ip("route add " + tt.foreign)
				}
				f.Apply(plan.Delta{PutRoutes: []plan.Route{tt.ours}})
				k.until(eventually, "conflict", func() bool { return strings.Contains(f.State().Err, fib.ErrConflict.Error()) })
				tried := f.State().Stats.Messages
				k.until(eventually, "another try", func() bool { return f.State().Stats.Messages > tried })
				if got := k.routes(); got != tt.foreign {
					t.Errorf("routes:\n%s\nwant the foreign one:\n%s", got, tt.foreign)
				}
				k.ip("route del " + tt.foreign)
				k.until(healed, "ours takes the place", func() bool { s := f.State(); return s.Applied == 1 && s.Err == "" })
				if !strings.Contains(k.routes(), "proto bird") {
					t.Errorf("routes:\n%s", k.routes())
				}
				f.Apply(plan.Delta{DeleteRoutes: []plan.RouteKey{tt.ours.RouteKey}})
				k.until(eventually, "gone", func() bool { return k.routes() == "" })
			})
		}
	}
}

func TestDeleteLeavesForeignRoute(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	k.workload("cali1")
	f, _ := k.start(fib.Options{})
	f.Synced()
	r, marker := cluster("192.168.98.0/26", "10.0.0.9"), cluster("192.168.99.0/26")
	f.Apply(plan.Delta{PutRoutes: []plan.Route{r}})
	k.wait(f, "", r)
	k.ip("route prepend 192.168.98.0/26 via 10.0.0.77 proto static") // so that it comes first
	f.Apply(plan.Delta{DeleteRoutes: []plan.RouteKey{r.RouteKey}})
	k.until(eventually, "ours gone", func() bool {
		return k.routes() == "192.168.98.0/26 via 10.0.0.77 dev eth0 proto static"
	})
	f.Apply(plan.Delta{PutRoutes: []plan.Route{marker}})
	k.wait(f, "", marker)
	if !strings.Contains(k.routes(), "proto static") {
		t.Errorf("the foreign route went:\n%s", k.routes())
	}
}

func TestExternalRoutesOnWorkloadLinks(t *testing.T) {
	t.Parallel()
	for _, remove := range []bool{false, true} {
		t.Run(fmt.Sprintf("remove=%t", remove), func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			k.workload("cali1")
			k.ip("addr add 10.55.0.1/24 dev cali1")
			k.ip("route add 10.66.0.0/16 dev cali1 proto static")
			k.ip("route add 10.67.0.0/16 dev eth0 proto static")
			f, _ := k.start(fib.Options{RemoveExternalRoutes: remove})
			f.Apply(pod("cali1"))
			k.wait(f, "cali1")
			if !strings.Contains(k.routes(), "10.66.0.0/16") {
				t.Error("removed before Synced")
			}
			f.Synced()
			k.compared(f)
			f.Apply(plan.Delta{PutRoutes: []plan.Route{cluster("192.168.99.0/26")}})
			k.wait(f, "", cluster("192.168.99.0/26"))
			all := k.ip("route")
			if got := !strings.Contains(all, "10.66.0.0/16"); got != remove {
				t.Errorf("external route removed: %t, want %t\n%s", got, remove, all)
			}
			if !strings.Contains(all, "10.67.0.0/16") || !strings.Contains(all, "10.55.0.0/24") {
				t.Errorf("removed what is not on a workload link, or the kernel's:\n%s", all)
			}
		})
	}
}
