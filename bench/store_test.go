package bench_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/etcd/server"
	"github.com/weft-net/weft/internal/store/mem"
	"github.com/weft-net/weft/internal/store/storetest"
)

// forEachStore runs f on an empty store in memory and on an embedded etcd that
// writes to the disk below TMPDIR.
func forEachStore(b *testing.B, f func(b *testing.B, s store.Store)) {
	b.Run("mem", func(b *testing.B) { f(b, mem.New()) })
	b.Run("etcd", func(b *testing.B) {
		dir := b.TempDir()
		url := "unix://" + filepath.Join(dir, "s")
		srv, err := server.Start(b.Context(), server.Config{Dir: filepath.Join(dir, "data"), ClientURLs: []string{url}})
		if err != nil {
			b.Fatal(err)
		}
		defer srv.Stop()
		s, err := etcd.Open(b.Context(), etcd.Config{Endpoints: []string{url}})
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		f(b, s)
	})
}

// block64 is a block of 64 addresses, half of them in use.
func block64(n int) *v3.IPAMBlock {
	o := storetest.Block(fmt.Sprintf("10.%d.%d.0/26", n/256%256, n%256), "k8s-pod-network.0")
	attribute := o.Spec.Attributes[0]
	o.Spec.Allocations, o.Spec.Attributes, o.Spec.Unallocated = make([]*int, 64), nil, nil
	for i := range 64 {
		if i%2 == 1 {
			o.Spec.Unallocated = append(o.Spec.Unallocated, i)
			continue
		}
		at := len(o.Spec.Attributes)
		o.Spec.Allocations[i] = &at
		o.Spec.Attributes = append(o.Spec.Attributes, attribute)
	}
	return o
}

// assign is what one assignment of an address writes: the block changed, a new
// handle and a new endpoint. It returns the block for the next one.
func assign(b *testing.B, s store.Store, block store.Object, id string) store.Object {
	next := *block.Object.(*v3.IPAMBlock)
	next.Spec.SequenceNumber++
	done, err := s.Commit(
		b.Context(),
		store.Op{Verb: store.Update, Object: block.With(&next)},
		storetest.Create(storetest.Handle(id, next.Spec.CIDR)),
		storetest.Create(storetest.Endpoint("shop", id, "10.0.0.1")),
	)
	if err != nil {
		b.Fatal(err)
	}
	return done[0]
}

func BenchmarkStoreCommit(b *testing.B) {
	forEachStore(b, func(b *testing.B, s store.Store) {
		done, err := s.Commit(b.Context(), storetest.Create(block64(0)))
		if err != nil {
			b.Fatal(err)
		}
		block, n := done[0], 0
		b.ReportAllocs()
		for b.Loop() {
			n++
			block = assign(b, s, block, "c"+strconv.Itoa(n))
		}
	})
}

// BenchmarkStoreCommit16 has 16 nodes at work, each on its own block.
func BenchmarkStoreCommit16(b *testing.B) {
	forEachStore(b, func(b *testing.B, s store.Store) {
		var worker atomic.Int64
		b.SetParallelism(8) // times 2 processors
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			w := int(worker.Add(1))
			done, err := s.Commit(b.Context(), storetest.Create(block64(w)))
			if err != nil {
				b.Error(err)
				return
			}
			block, n := done[0], 0
			for pb.Next() {
				n++
				block = assign(b, s, block, fmt.Sprintf("c%d-%d", w, n))
			}
		})
	})
}

// fill creates a small cluster: 10 nodes, 10 blocks, 100 pods with their handles.
func fill(b *testing.B, s store.Store) {
	for i := range 10 {
		o, _ := v3.New("Node")
		node := o.(*v3.Node)
		node.Name = fmt.Sprintf("n%d", i)
		node.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: fmt.Sprintf("192.0.2.%d/24", i+1)}
		ops := []store.Op{storetest.Create(node), storetest.Create(block64(i))}
		for j := range 10 {
			id := fmt.Sprintf("c%d-%d", i, j)
			ops = append(ops, storetest.Create(storetest.Handle(id, fmt.Sprintf("10.0.%d.0/26", i))),
				storetest.Create(storetest.Endpoint("shop", id, fmt.Sprintf("10.0.%d.%d", i, j))))
		}
		if _, err := s.Commit(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStoreList100Endpoints(b *testing.B) {
	forEachStore(b, func(b *testing.B, s store.Store) {
		fill(b, s)
		b.ReportAllocs()
		for b.Loop() {
			got, err := s.List(b.Context(), model.KindWorkloadEndpoint, "")
			if len(got) != 100 || err != nil {
				b.Fatal(len(got), err)
			}
		}
	})
}

// BenchmarkStoreSnapshot reads all of a small cluster through a watch, parsed.
func BenchmarkStoreSnapshot(b *testing.B) {
	forEachStore(b, func(b *testing.B, s store.Store) {
		fill(b, s)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			for batch, err := range s.Watch(b.Context()) {
				if err != nil || len(batch.Invalids) > 0 {
					b.Fatal(err, batch.Invalids)
				}
				if n += len(batch.Puts); batch.Synced {
					break
				}
			}
			if n != 220 {
				b.Fatal(n)
			}
		}
	})
}

// BenchmarkStoreServe starts and stops an embedded etcd in an empty directory. The
// first one's resident memory is reported, this process's own included.
func BenchmarkStoreServe(b *testing.B) {
	n := 0
	for b.Loop() {
		n++
		dir := filepath.Join(b.TempDir(), strconv.Itoa(n))
		srv, err := server.Start(b.Context(), server.Config{Dir: dir, ClientURLs: []string{"unix://" + dir + "/s"}})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if n == 1 {
			b.ReportMetric(residentMiB(b), "MiB-resident")
		}
		srv.Stop()
		b.StartTimer()
	}
}

// residentMiB is the resident memory of this process.
func residentMiB(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return float64(pages*os.Getpagesize()) / (1 << 20)
}
