package route

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
)

func BenchmarkLearn(b *testing.B) {
	const routes = 100_000
	batches := make([]bgp.LearnedBatch, routes/1000)
	for i := range routes {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)})
		l := bgp.Learned{Prefix: netip.PrefixFrom(a, 26), NextHops: addrs("192.168.0.2")}
		batches[i/1000].Puts = append(batches[i/1000].Puts, l)
	}
	b.ReportAllocs()
	for b.Loop() {
		g := NewGraph(Options{Node: "a"})
		n := 0
		for _, batch := range batches {
			n += len(g.Learn(batch).PutRoutes)
		}
		if n != routes {
			b.Fatalf("%d routes, want %d", n, routes)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/routes, "ns/route")
}

func BenchmarkStepOne(b *testing.B) {
	g := NewGraph(Options{Node: "a"})
	for i := range 100_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		g.Learn(bgp.LearnedBatch{Puts: []bgp.Learned{{Prefix: netip.PrefixFrom(a, 32), NextHops: addrs("192.168.0.2")}}})
	}
	e := model.Endpoint{Name: "web", Node: "a", Link: "cali1", Addrs: addrs("10.0.0.1"), MAC: "02:00:00:00:00:01"}
	b.ReportAllocs()
	for b.Loop() {
		g.Step(model.Batch{Puts: []model.Value{e}})
		g.Step(model.Batch{Deletes: []model.Key{e.Key()}})
	}
}
