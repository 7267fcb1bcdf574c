package bench

import (
	"context"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

const fibRoutes = 100_000

// fibNode is a namespace with an uplink and a pod's link, and a FIB that runs.
type fibNode struct {
	*testing.B
	*fib.FIB
	stop func()
}

func startFIB(b *testing.B) fibNode {
	b.Helper()
	ns, peer := testenv.Netns(b), testenv.Netns(b)
	testenv.Veth(b, ns, "eth0", []string{"10.0.0.2/24"}, peer, "eth0", []string{"10.0.0.1/24"})
	testenv.Veth(b, ns, "cali1", nil, peer, "pod", nil)
	n := fibNode{B: b}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan error), make(chan struct{})
	go func() {
		defer close(done)
		_ = ns.Do(func() (err error) {
			n.FIB, err = fib.New(fib.Options{Resync: -1})
			ready <- err
			if err == nil {
				_ = n.FIB.Run(ctx)
			}
			return err
		})
	}()
	if err := <-ready; err != nil {
		b.Fatal(err)
	}
	n.stop = func() { cancel(); <-done }
	n.Synced()
	n.wait(func(s fib.State) bool { return s.Stats.Dumps > 0 })
	return n
}

func (n fibNode) wait(done func(fib.State) bool) {
	for deadline := time.Now().Add(time.Minute); !done(n.State()); time.Sleep(200 * time.Microsecond) {
		if time.Now().After(deadline) {
			n.Fatalf("not done within a minute: %+v", n.State())
		}
	}
}

// clusterRoutes are routes through one gateway, whose attributes are shared.
func clusterRoutes() []plan.Route {
	routes := make([]plan.Route, fibRoutes)
	via := plan.MakeHops(netip.MustParseAddr("10.0.0.1"))
	for i := range routes {
		a := netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 0})
		routes[i] = plan.Route{
			RouteKey:   plan.RouteKey{Dst: netip.PrefixFrom(a, 24), Table: plan.TableMain},
			RouteAttrs: plan.RouteAttrs{Proto: plan.ProtoBird, Via: via},
		}
	}
	return routes
}

// BenchmarkFIB100k puts 100,000 routes into an empty kernel table: time from
// Apply to the last route, the process's CPU (system time is the kernel's
// work on the routes), and the memory that stays.
func BenchmarkFIB100k(b *testing.B) {
	routes := clusterRoutes()
	for b.Loop() {
		b.StopTimer()
		n := startFIB(b)
		heap, user, system := heapBytes(), usage().user, usage().system
		b.StartTimer()
		start := time.Now()
		n.Apply(plan.Delta{PutRoutes: routes})
		applied := time.Since(start)
		n.wait(func(s fib.State) bool { return s.Applied == fibRoutes })
		wall := time.Since(start)
		b.StopTimer()
		u := usage()
		b.ReportMetric(float64(applied.Microseconds())/1000, "apply-ms")
		b.ReportMetric(float64(wall.Microseconds())/1000, "wall-ms")
		b.ReportMetric(float64((u.user-user).Microseconds())/1000, "user-ms")
		b.ReportMetric(float64((u.system-system).Microseconds())/1000, "system-ms")
		b.ReportMetric(float64(heapBytes()-heap)/fibRoutes, "B/route")
		n.stop()
		b.StartTimer()
	}
}

// BenchmarkFIBOneRoute is the time from Apply until a pod's route, neighbour and
// sysctls are in the kernel, beside 100,000 routes.
func BenchmarkFIBOneRoute(b *testing.B) {
	n := startFIB(b)
	defer n.stop()
	n.Apply(plan.Delta{PutRoutes: clusterRoutes()})
	n.wait(func(s fib.State) bool { return s.Applied == fibRoutes })
	dst := netip.MustParsePrefix("192.168.97.2/32")
	key := plan.RouteKey{Dst: dst, Table: plan.TableMain}
	neighbor := plan.NeighborKey{Link: "cali1", Addr: dst.Addr()}
	put := plan.Delta{
		PutRoutes:    []plan.Route{{RouteKey: key, RouteAttrs: plan.RouteAttrs{Proto: plan.ProtoBoot, Link: "cali1"}}},
		PutLinks:     []plan.Link{{Name: "cali1", V4: true, V6: true}},
		PutNeighbors: []plan.Neighbor{{NeighborKey: neighbor, MAC: "02:00:00:00:00:01"}},
	}
	del := plan.Delta{DeleteRoutes: []plan.RouteKey{key}, DeleteLinks: []string{"cali1"}, DeleteNeighbors: []plan.NeighborKey{neighbor}}
	for b.Loop() {
		n.Apply(put)
		if err := n.WaitApplied(context.Background(), "cali1", key); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		n.Apply(del)
		n.wait(func(s fib.State) bool { return s.Routes == fibRoutes && s.Stale == 0 })
		b.StartTimer()
	}
}

// BenchmarkFIBResync is a full comparison of 100,000 routes that are right.
func BenchmarkFIBResync(b *testing.B) {
	n := startFIB(b)
	defer n.stop()
	n.Apply(plan.Delta{PutRoutes: clusterRoutes()})
	n.wait(func(s fib.State) bool { return s.Applied == fibRoutes })
	for b.Loop() {
		dumps := n.State().Stats.Dumps
		n.Resync()
		n.wait(func(s fib.State) bool { return s.Stats.Dumps > dumps })
	}
}

type cpu struct{ user, system time.Duration }

// usage is the process's CPU time so far.
func usage() cpu {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return cpu{time.Duration(r.Utime.Nano()), time.Duration(r.Stime.Nano())}
}

// heapBytes is what stays allocated.
func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
