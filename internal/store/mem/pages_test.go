package mem_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store/kv"
	"github.com/weft-net/weft/internal/store/mem"
	"github.com/weft-net/weft/internal/store/storetest"
)

// fill writes n endpoints, 100 at a time.
func fill(t *testing.T, s mem.Store, n int) {
	t.Helper()
	for from := 0; from < n; from += 100 {
		var writes []kv.Write
		for i := from; i < min(from+100, n); i++ {
			pod := fmt.Sprintf("pod%05d", i)
			writes = append(writes, kv.Write{
				Key: "/calico/resources/v3/projectcalico.org/workloadendpoints/shop/node-k8s-" + pod + "-eth0",
				Value: fmt.Appendf(nil, `{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"node-k8s-%s-eth0","namespace":"shop",`+
					`"labels":{"n":"%d"}},"spec":{"orchestrator":"k8s","node":"node","pod":%q,"endpoint":"eth0","ipNetworks":["10.0.%d.%d/32"],"interfaceName":"cali%d"}}`,
					pod, i%7, pod, i/256, i%256, i),
			})
		}
		if _, err := s.DB.Txn(t.Context(), writes); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSnapshotPages reads a snapshot of several pages while objects change: each
// object arrives once, in order, as it was at one revision; then the changes.
func TestSnapshotPages(t *testing.T) {
	t.Parallel()
	s := mem.New()
	defer s.Close()
	const count = 2345
	fill(t, s, count)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	late := storetest.Endpoint("shop", "late", "10.1.0.1")
	next, batches := 0, 0
	for b, err := range s.Watch(ctx, model.KindWorkloadEndpoint) {
		if err != nil || len(b.Invalids) > 0 {
			t.Fatal(err, b.Invalids)
		}
		if next == count {
			if len(b.Puts) != 1 || b.Puts[0].Key().Name != late.Name {
				t.Errorf("after the snapshot came %v", b)
			}
			break
		}
		if b.Reset != (batches == 0) || len(b.Puts) > 500 || b.Synced != (next+len(b.Puts) == count) {
			t.Fatalf("batch %d: reset %t, synced %t, %d objects", batches, b.Reset, b.Synced, len(b.Puts))
		}
		for _, v := range b.Puts {
			ep := v.(model.Endpoint)
			if want := fmt.Sprintf("pod%05d", next); ep.Pod != want || ep.Link != fmt.Sprintf("cali%d", next) || ep.Labels["n"] != fmt.Sprint(next%7) {
				t.Fatalf("object %d: %+v, want %s", next, ep, want)
			}
			next++
		}
		if batches++; batches == 1 {
			if _, err := s.Commit(t.Context(), storetest.Create(late)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSnapshotCompacted forgets the revision of a snapshot between two of its pages:
// the snapshot begins again, and ends.
func TestSnapshotCompacted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		defer s.Close()
		fill(t, s, 30_000) // of which three pages are read before the first batch arrives
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		resets, broke, count := 0, false, 0
		for b, err := range s.Watch(ctx, model.KindWorkloadEndpoint) {
			if err != nil {
				broke = broke || errors.Is(err, kv.ErrCompacted)
				continue
			}
			if b.Reset {
				resets++
				count = 0
				if resets == 1 {
					if _, err := s.Commit(t.Context(), storetest.Create(storetest.Endpoint("shop", "late", "10.1.0.1"))); err != nil {
						t.Fatal(err)
					}
					s.DB.Compact()
				}
			}
			if count += len(b.Puts); b.Synced {
				break
			}
		}
		if !broke || resets != 2 || count != 30_001 {
			t.Errorf("broke for the compaction: %t; %d snapshots, the last one of %d objects, want 2 and 30001", broke, resets, count)
		}
	})
}
