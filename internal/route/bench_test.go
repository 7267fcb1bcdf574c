package route

import (
	"fmt"
	"net/netip"
	"strings"
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
	for name, pools := range map[string]string{
		"no encapsulation":  "pool p 10.0.0.0/8",
		"other pools":       "pool p 172.16.0.0/16 ipip=Always, pool q 172.17.0.0/16 ipip=Always, pool r 172.18.0.0/16 vxlan=Always",
		"encapsulated pool": "pool p 10.0.0.0/8 ipip=Always",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				g := NewGraph(Options{Node: "a"})
				for _, e := range events(b, "node a 192.168.0.1/24, node b 192.168.0.2/24, "+pools) {
					g.Step(e.batch)
				}
				n := 0
				for _, batch := range batches {
					n += len(g.Learn(batch).PutRoutes)
				}
				if n != routes {
					b.Fatalf("%d routes, want %d", n, routes)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/routes, "ns/route")
		})
	}
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

// fleet is a snapshot of n nodes and this one, each with two blocks of a pool of that text;
// a third of the nodes is in this node's subnet.
func fleet(b *testing.B, n int, pool string) model.Batch {
	out := model.Batch{Reset: true, Synced: true}
	out.Puts = append(out.Puts, value(b, "pool", strings.Fields(pool)), nodeOf(0, "a"))
	for i := range n {
		out.Puts = append(out.Puts, newcomer(i+1)...)
	}
	return out
}

// newcomer is node number i with its blocks.
func newcomer(i int) []model.Value {
	name := fmt.Sprintf("node-%d", i)
	out := []model.Value{nodeOf(i, name)}
	for j := range 2 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), byte(j << 6)})
		out = append(out, model.Block{
			CIDR: netip.PrefixFrom(a, 26), Owner: model.HostAffinity(name), Allocations: make([]int, 64),
			Attributes: []model.Attribute{{Handle: "vxlan-tunnel-addr-" + name, Secondary: map[string]string{"node": name}}},
		})
	}
	return out
}

func nodeOf(i int, name string) model.Node {
	a := netip.AddrFrom4([4]byte{172, 16 + byte(i%3), byte(i >> 8), byte(i)})
	return model.Node{
		Name: name, IPv4: netip.PrefixFrom(a, 16), IPIPTunnel: netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 1}),
		VXLANTunnel: netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 2}),
	}
}

const nodes = 5000

func BenchmarkSnapshot(b *testing.B) {
	for mode, routes := range map[string]int{"ipip=Never": 0, "ipip=Always": nodes * 2, "vxlan=Always": nodes * 2} {
		b.Run(mode, func(b *testing.B) {
			batch := fleet(b, nodes, "p 10.0.0.0/8 "+mode)
			b.ReportAllocs()
			for b.Loop() {
				if d := NewGraph(Options{Node: "a"}).Step(batch); len(d.PutRoutes) != routes {
					b.Fatalf("%d routes, want %d", len(d.PutRoutes), routes)
				}
			}
		})
	}
}

func BenchmarkNodeComesAndGoes(b *testing.B) {
	g := NewGraph(Options{Node: "a"})
	g.Step(fleet(b, nodes, "p 10.0.0.0/8 vxlan=Always"))
	come := model.Batch{Puts: newcomer(nodes + 1)}
	var gone model.Batch
	for _, v := range come.Puts {
		gone.Deletes = append(gone.Deletes, v.Key())
	}
	b.ReportAllocs()
	for b.Loop() {
		if d := g.Step(come); len(d.PutRoutes) != 2 || len(d.PutVTEPs) != 1 {
			b.Fatalf("a node comes: %+v", d)
		}
		if d := g.Step(gone); len(d.DeleteRoutes) != 2 || len(d.DeleteVTEPs) != 1 {
			b.Fatalf("a node goes: %+v", d)
		}
	}
}

func BenchmarkPoolMode(b *testing.B) {
	g := NewGraph(Options{Node: "a"})
	g.Step(fleet(b, nodes, "p 10.0.0.0/8 vxlan=Always"))
	batches := [2]model.Batch{
		{Puts: []model.Value{value(b, "pool", strings.Fields("p 10.0.0.0/8 vxlan=CrossSubnet"))}},
		{Puts: []model.Value{value(b, "pool", strings.Fields("p 10.0.0.0/8 vxlan=Always"))}},
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, batch := range batches {
			if d := g.Step(batch); len(d.PutRoutes) < nodes/2 || len(d.PutRoutes) > nodes {
				b.Fatalf("%d routes change, want a third of %d", len(d.PutRoutes), nodes*2)
			}
		}
	}
}

// Another node's block changes with each address that is taken from it.
func BenchmarkBlockOfAnother(b *testing.B) {
	g := NewGraph(Options{Node: "a"})
	g.Step(fleet(b, nodes, "p 10.0.0.0/8 vxlan=Always"))
	batch := model.Batch{Puts: newcomer(7)[1:2]}
	b.ReportAllocs()
	for b.Loop() {
		if d := g.Step(batch); !d.Empty() {
			b.Fatalf("%+v", d)
		}
	}
}
