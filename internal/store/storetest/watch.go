package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

func testWatch(t *testing.T, at Target) {
	const n = 1100 // more than two pages
	for i := 0; i < n; i += 110 {
		var ops []store.Op
		for j := i; j < i+110; j++ {
			ops = append(ops, Create(Handle(fmt.Sprintf("h%04d", j), "10.0.0.0/30")))
		}
		must(t, at.Store, ops...)
	}
	pool := must(t, at.Store, Create(Pool("p", "10.0.0.0/16")))[0]
	var batches []model.Batch
	w := watch(t, at.Store, func(b model.Batch) { batches = append(batches, b) }, at.Kinds...)
	w.until("a whole snapshot", func(world model.World, log []string) bool {
		return len(log) > 0 && strings.HasSuffix(log[len(log)-1], "synced")
	})
	w.mu.Lock()
	if len(w.world) != n+1 || len(batches) < 3 {
		t.Errorf("the snapshot has %d objects in %d batches, want %d in 3 or more", len(w.world), len(batches), n+1)
	}
	for i, b := range batches {
		if b.Reset != (i == 0) || b.Synced != (i == len(batches)-1) || len(b.Puts) > 500 {
			t.Errorf("batch %d of %d: reset %t, synced %t, %d puts", i+1, len(batches), b.Reset, b.Synced, len(b.Puts))
		}
	}
	w.log = nil
	w.mu.Unlock()

	next := *pool.Object.(*v3.IPPool)
	next.Spec.NATOutgoing = true
	must(t, at.Store, update(pool.With(&next)))
	w.untilLog("+p")
	must(t, at.Store, remove(store.New(Pool("p", ""))))
	w.untilLog("+p", "-p")
	must(t, at.Store, Create(Pool("p", "10.7.0.0/16")))
	w.untilLog("+p", "-p", "+p")
	w.mu.Lock()
	defer w.mu.Unlock()
	if p, ok := w.world[poolKey("p")].(model.Pool); !ok || p.CIDR.String() != "10.7.0.0/16" {
		t.Errorf("the pool is %v", w.world[poolKey("p")])
	}
}

func testWatchKinds(t *testing.T, at Target) {
	at.pod("shop", "web")
	must(t, at.Store, Create(Pool("p", "10.0.0.0/16")), Create(Handle("h", "10.0.0.0/30")), Create(Endpoint("shop", "web", "10.0.0.1")))
	if at.Put != nil {
		at.Put("/calico/resources/v3/projectcalico.org/globalnetworkpolicies/unknown", `{}`)
	}
	w := watch(t, at.Store, nil, model.KindIPPool, model.KindIPAMHandle, model.KindIPPool)
	w.untilLog("reset +h +p synced")
	must(t, at.Store, remove(store.New(Endpoint("shop", "web", ""))), remove(store.New(Handle("h", ""))))
	w.untilLog("reset +h +p synced", "-h")

	for b, err := range at.Store.Watch(t.Context(), "Chair") {
		if err == nil {
			t.Errorf("a watch of an unknown kind delivers %v", b)
		}
	}
}

func testWatchAtomic(t *testing.T, at Target) {
	w := watch(t, at.Store, nil, model.KindIPAMBlock, model.KindIPAMHandle, model.KindWorkloadEndpoint)
	w.untilLog("reset synced")
	must(t, at.Store, Create(Endpoint("shop", "web", "10.0.0.1")), Create(Handle("h", "10.0.0.0/30")), Create(Block("10.0.0.0/30", "h")))
	w.until("three objects", func(world model.World, _ []string) bool { return len(world) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.log) != 2 || len(w.world) != 3 {
		t.Errorf("one commit came as %q", w.log[1:])
	}
}

func testWatchInvalid(t *testing.T, at Target) {
	const place = "/calico/resources/v3/projectcalico.org/ippools/"
	at.Put(place+"bad", `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"bad"},"spec":{"cidr":"here"}}`)
	must(t, at.Store, Create(Pool("good", "10.0.0.0/16")))
	var invalids []model.Invalid
	w := watch(t, at.Store, func(b model.Batch) { invalids = append(invalids, b.Invalids...) }, model.KindIPPool)
	w.untilLog("reset +good !bad synced")
	at.Put(place+"good", `{"kind":`)
	w.untilLog("reset +good !bad synced", "!good")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.world[poolKey("good")] == nil {
		t.Error("an invalid object deleted the good one")
	}
	for _, in := range invalids {
		if in.Err == nil || in.Err.Error() == "" || strings.Contains(in.Err.Error(), "\n") {
			t.Errorf("%v: error %q: want one line", in.Key, in.Err)
		}
	}
}

// without fails the test if any batch so far has this word.
func (w *watched) without(word string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.log {
		if slices.Contains(strings.Fields(line), word) {
			w.t.Errorf("delivered %q", w.log)
		}
	}
}

// testWatchCompacted forgets history between the snapshot and what follows it:
// the consumer holds the watch there.
func testWatchCompacted(t *testing.T, at Target) {
	must(t, at.Store, Create(Pool("a", "10.0.0.0/16")), Create(Pool("b", "10.1.0.0/16")))
	first := true
	w := watch(t, at.Store, func(b model.Batch) {
		if b.Synced && first {
			first = false
			must(t, at.Store, remove(store.New(Pool("a", ""))))
			must(t, at.Store, Create(Pool("c", "10.2.0.0/16")))
			at.Compact()
		}
	}, model.KindIPPool)
	if at.Resumes {
		w.untilWorld(poolKey("b"), poolKey("c"))
		w.without("-b")
		must(t, at.Store, remove(store.New(Pool("b", ""))))
		w.untilWorld(poolKey("c"))
		return
	}
	w.untilLog("reset +a +b synced", "error", "reset +b +c synced")
	must(t, at.Store, remove(store.New(Pool("b", ""))))
	w.untilLog("reset +a +b synced", "error", "reset +b +c synced", "-b")
}

func testWatchRestart(t *testing.T, at Target) {
	must(t, at.Store, Create(Pool("a", "10.0.0.0/16")), Create(Pool("b", "10.1.0.0/16")))
	w := watch(t, at.Store, nil, model.KindIPPool)
	w.untilWorld(poolKey("a"), poolKey("b"))
	at.Restart()
	must(t, at.Store, remove(store.New(Pool("a", ""))))
	must(t, at.Store, Create(Pool("c", "10.2.0.0/16")))
	if at.Resumes {
		w.untilWorld(poolKey("b"), poolKey("c"))
		w.without("-b")
		return
	}
	w.until("an error, and a new snapshot", func(_ model.World, log []string) bool {
		text := strings.Join(log, "|")
		return strings.Contains(text, "error|reset") && strings.Count(text, "synced") == 2
	})
	w.untilWorld(poolKey("b"), poolKey("c"))
}

func testWatchEnds(t *testing.T, at Target) {
	w := watch(t, at.Store, nil, at.Kinds...)
	w.untilLog("reset synced")
	w.stop()
	<-w.done
	if len(w.log) != 1 {
		t.Errorf("the end of the context was delivered: %q", w.log)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range at.Store.Watch(ctx, at.Kinds...) {
		break // must not deliver again, nor hang
	}
}

// testWatchFaults changes a few objects at random, many times, while revisions are
// forgotten and connections break. What the watch delivered must be what is
// there in the end; and between two snapshots nothing may be delivered twice: a
// block's sequence only rises.
func testWatchFaults(t *testing.T, at Target) {
	random := rand.New(rand.NewPCG(1, 2))
	var last uint64
	w := watch(t, at.Store, func(b model.Batch) {
		for _, v := range b.Puts {
			block, ok := v.(model.Block)
			if !ok {
				continue
			}
			if block.Sequence < last || block.Sequence == last && !b.Reset {
				t.Errorf("delivered sequence %d after %d", block.Sequence, last)
			}
			last = block.Sequence
		}
	}, model.KindIPPool, model.KindIPAMBlock)
	block := must(t, at.Store, Create(Block("10.0.0.0/30", "h")))[0]
	exists := map[string]bool{}
	for i := range 200 {
		next := *block.Object.(*v3.IPAMBlock)
		next.Spec.SequenceNumber++
		name := string(rune('a' + random.IntN(5)))
		op := Create(Pool(name, "10.0.0.0/16"))
		if exists[name] {
			op = remove(store.New(Pool(name, "")))
		}
		exists[name] = !exists[name]
		block = must(t, at.Store, update(block.With(&next)), op)[0]
		switch {
		case i%50 == 25:
			at.Restart()
		case i%10 == 5:
			at.Compact()
		}
	}
	keys := []model.Key{{Kind: model.KindIPAMBlock, Name: "10.0.0.0-30"}}
	for name, is := range exists {
		if is {
			keys = append(keys, poolKey(name))
		}
	}
	w.until("the last state", func(world model.World, _ []string) bool {
		b, ok := world[keys[0]].(model.Block)
		return ok && b.Sequence == 207
	})
	w.untilWorld(keys...)
}

// readier is what tells whether the datastore may be changed.
type readier interface {
	Ready(ctx context.Context) (bool, error)
}

func testReady(t *testing.T, at Target) {
	check := func(what string, want bool) {
		t.Helper()
		if got, err := at.Store.(readier).Ready(t.Context()); got != want || err != nil {
			t.Errorf("%s: ready %t, %v; want %t", what, got, err, want)
		}
	}
	check("empty", true)
	if err := store.Initialise(t.Context(), at.Store); err != nil {
		t.Fatal(err)
	}
	check("initialised", true)
	if at.Put != nil {
		at.Put("/calico/v1/Ready", "false")
		check("old flag", false)
		at.Put("/calico/v1/Ready", "true")
	}
	info := get(t, at.Store, model.Cluster{}.Key())
	locked := *info.Object.(*v3.ClusterInformation)
	locked.Spec.DatastoreReady = new(bool)
	must(t, at.Store, update(info.With(&locked)))
	check("locked", false)
}

func testInitialise(t *testing.T, at Target) {
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() { errs <- store.Initialise(t.Context(), at.Store) }()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	info := get(t, at.Store, model.Cluster{}.Key())
	guid := info.Object.(*v3.ClusterInformation).Spec.ClusterGUID
	if len(guid) != 32 || strings.Trim(guid, "0123456789abcdef") != "" {
		t.Errorf("cluster GUID %q: want 32 hexadecimal digits", guid)
	}
	if at.Value == nil {
		for _, name := range []string{"default", "kube-admin", "kube-baseline"} {
			get(t, at.Store, model.Key{Kind: model.KindTier, Name: name})
		}
		return
	}
	for key, want := range map[string]string{
		"clusterinformations/default": `"spec":{"clusterGUID":"` + guid + `","datastoreReady":true}}`,
		"tiers/default":               `"spec":{"order":1000000,"defaultAction":"Deny"},"status":{}}`,
		"tiers/kube-admin":            `"spec":{"order":1000,"defaultAction":"Pass"},"status":{}}`,
		"tiers/kube-baseline":         `"spec":{"order":10000000,"defaultAction":"Pass"},"status":{}}`,
	} {
		if got := at.Value("/calico/resources/v3/projectcalico.org/" + key); !strings.HasSuffix(got, want) {
			t.Errorf("%s is %s, want …%s", key, got, want)
		}
	}
}
