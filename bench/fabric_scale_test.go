package bench

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/testenv"
)

// fleetNodes is how many other nodes the fabric has.
const fleetNodes = 5000

// fleet is a snapshot of node-0 and that many others, each with a block and an end of the
// VXLAN that joins them.
func fleet(n int) model.Batch {
	out := model.Batch{Reset: true, Synced: true, Puts: []model.Value{
		model.Pool{
			Name: "pool", CIDR: netip.MustParsePrefix("10.64.0.0/12"), BlockBits: 26, NATOutgoing: true, VXLAN: model.EncapAlways,
			Uses: model.UseWorkload | model.UseTunnel,
		},
		model.Tier{Name: "default", Order: 1e6},
	}}
	for i := range n + 1 {
		out.Puts = append(out.Puts, fleetNode(i)...)
	}
	return out
}

// fleetNode is the i-th node and its block.
func fleetNode(i int) []model.Value {
	block := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>10), byte(i >> 2), byte(i << 6)}), 26)
	return []model.Value{
		model.Node{
			Name: fmt.Sprint("node-", i), IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, 1 + byte(i/250), 1 + byte(i%250)}), 16),
			VXLANTunnel: block.Addr(),
		},
		emptyBlock(block, fmt.Sprint("node-", i)),
	}
}

// fleetGround is the namespace of node-0.
func fleetGround(b *testing.B) *testenv.Namespace {
	b.Helper()
	ns, underlay := testenv.Netns(b), testenv.Netns(b)
	testenv.Veth(b, ns, "eth0", []string{"172.16.1.1/16"}, underlay, "eth0", nil)
	return ns
}

// BenchmarkFleet has one node take in a synchronised snapshot of 5,000 others: until its
// kernel has acknowledged their routes, the ends of the VXLAN, and the packet filter.
func BenchmarkFleet(b *testing.B) {
	snapshot := fleet(fleetNodes)
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		c := carry(b, fleetGround(b), "node-0", true)
		before := usage()
		b.StartTimer()
		start := time.Now()
		routes := c.step(snapshot)
		c.wait(routes...)
		took = append(took, time.Since(start))
		b.StopTimer()
		u := usage()
		b.ReportMetric(float64((u.user-before.user).Microseconds())/1000, "user-ms")
		b.ReportMetric(float64((u.system-before.system).Microseconds())/1000, "system-ms")
		if len(routes) < fleetNodes {
			b.Fatalf("%d routes of %d nodes", len(routes), fleetNodes)
		}
		c.stop()
		b.StartTimer()
	}
	quantiles(b, took)
}

// BenchmarkFleetNode adds one node, with its block, to 5,000.
func BenchmarkFleetNode(b *testing.B) {
	c := carry(b, fleetGround(b), "node-0", true)
	c.wait(c.step(fleet(fleetNodes))...)
	var took []time.Duration
	for i := fleetNodes + 1; b.Loop(); i++ {
		one := fleetNode(i)
		start := time.Now()
		routes := c.step(model.Batch{Puts: one})
		c.wait(routes...)
		took = append(took, time.Since(start))
		if len(routes) != 1 {
			b.Fatalf("%d routes", len(routes))
		}
		b.StopTimer()
		c.step(model.Batch{Deletes: []model.Key{one[0].Key(), one[1].Key()}})
		c.wait()
		b.StartTimer()
	}
	quantiles(b, took)
}

// quantiles reports a distribution.
func quantiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(took[len(took)/2]), "ms-median")
	b.ReportMetric(ms(took[len(took)*99/100]), "ms-p99")
	b.ReportMetric(0, "ns/op")
}
