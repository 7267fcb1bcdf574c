package bench_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// BenchmarkIPAMAssign is the assignment of an address with its endpoint, in one
// transaction of block, handle and endpoint, by an agent that has its block of
// 64 addresses at hand and its settings from a watch; n callers at once, each
// asking again as soon as it is answered. Releasing is not timed.
func BenchmarkIPAMAssign(b *testing.B) {
	forEachStore(b, func(b *testing.B, s store.Store) {
		a := startAllocator(b, s)
		for _, callers := range []int{1, 16, 48} {
			b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { assignAll(b, a, callers) })
		}
	})
}

// startAllocator runs the allocator of node-a on a store with one pool.
func startAllocator(b *testing.B, s store.Store) *allocator.Allocator {
	pool, _ := v3.New("IPPool")
	node, _ := v3.New("Node")
	pool.Meta().Name, node.Meta().Name = "pool", "node-a"
	pool.(*v3.IPPool).Spec.CIDR = "10.0.0.0/16"
	batch := model.Batch{Reset: true, Synced: true}
	for _, o := range []v3.Object{pool, node} {
		if _, err := s.Commit(b.Context(), store.Op{Verb: store.Create, Object: store.New(o)}); err != nil {
			b.Fatal(err)
		}
		v, err := model.Parse(o)
		if err != nil {
			b.Fatal(err)
		}
		batch.Puts = append(batch.Puts, v)
	}
	a := allocator.New(s, "node-a", time.Now)
	a.Step(batch)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	if _, err := a.Assign(b.Context(), podRequest("warm")); err != nil {
		b.Fatal(err)
	}
	if _, err := a.Release(b.Context(), "net.warm", endpointDeletion("warm")); err != nil {
		b.Fatal(err)
	}
	return a
}

// assignAll assigns b.N addresses, n callers at once, in rounds that fit in the
// block.
func assignAll(b *testing.B, a *allocator.Allocator, n int) {
	const round = 48
	var waits []time.Duration
	for left := b.N; left > 0; left -= round {
		var mu sync.Mutex
		var callers sync.WaitGroup
		next := min(left, round)
		var held []string
		for range n {
			callers.Go(func() {
				for {
					mu.Lock()
					if next == 0 {
						mu.Unlock()
						return
					}
					next--
					name := fmt.Sprintf("p%d", next)
					mu.Unlock()
					began := time.Now()
					_, err := a.Assign(b.Context(), podRequest(name))
					took := time.Since(began)
					mu.Lock()
					held, waits = append(held, name), append(waits, took)
					mu.Unlock()
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		callers.Wait()
		b.StopTimer()
		releaseAll(b, a, held)
		b.StartTimer()
	}
	slices.Sort(waits)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "assigns/s")
	b.ReportMetric(float64(waits[len(waits)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(waits[len(waits)*99/100].Microseconds())/1000, "p99-ms")
}

func releaseAll(b *testing.B, a *allocator.Allocator, names []string) {
	var callers sync.WaitGroup
	for _, name := range names {
		callers.Go(func() {
			if _, err := a.Release(b.Context(), "net."+name, endpointDeletion(name)); err != nil {
				b.Error(err)
			}
		})
	}
	callers.Wait()
}

func podRequest(name string) allocator.Request {
	r := allocator.Request{Request: ipam.Request{
		Use: model.UseWorkload, Holder: ipam.PodHolder("net."+name, "node-a", "default", name, time.Now()),
		V4: ipam.Family{Count: 1},
	}}
	r.Extra = func(addrs []ipam.Assigned) ([]store.Op, error) {
		return []store.Op{{Verb: store.Create, Object: store.New(podEndpoint(name, addrs))}}, nil
	}
	return r
}

func podEndpoint(name string, addrs []ipam.Assigned) *v3.WorkloadEndpoint {
	o, _ := v3.New("WorkloadEndpoint")
	ep := o.(*v3.WorkloadEndpoint)
	ep.Namespace, ep.Name = "default", "node--a-k8s-"+name+"-eth0"
	ep.Labels = map[string]string{"projectcalico.org/namespace": "default", "projectcalico.org/orchestrator": "k8s"}
	ep.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: "k8s", Node: "node-a", Pod: name, ContainerID: name, Endpoint: "eth0",
		Profiles: []string{"kns.default"}, InterfaceName: "cali12345678901",
	}
	for _, a := range addrs {
		ep.Spec.IPNetworks = append(ep.Spec.IPNetworks, netip.PrefixFrom(a.Addr, a.Addr.BitLen()).String())
	}
	return ep
}

func endpointDeletion(name string) store.Op {
	return store.Op{Verb: store.Delete, Object: store.New(podEndpoint(name, nil))}
}
