package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func testCRUD(t *testing.T, at Target) {
	s, ctx, k := at.Store, t.Context(), poolKey("p")
	_, err := s.Get(ctx, k)
	wantErr(t, "get before", err, store.ErrNotFound, k)

	made := must(t, s, Create(Pool("p", "10.0.0.0/16")))[0]
	if got := get(t, s, k); got.Meta().ResourceVersion != made.Meta().ResourceVersion || got.Object.(*v3.IPPool).Spec.CIDR != "10.0.0.0/16" {
		t.Errorf("get: %v, want what was created: %v", got.Meta(), made.Meta())
	}
	_, err = s.Commit(ctx, Create(Pool("p", "10.1.0.0/16")))
	wantErr(t, "create again", err, store.ErrExists, k)

	next := *made.Object.(*v3.IPPool)
	next.Spec.NATOutgoing = true
	updated := must(t, s, update(made.With(&next)))[0]
	if updated.Meta().ResourceVersion == made.Meta().ResourceVersion || !get(t, s, k).Object.(*v3.IPPool).Spec.NATOutgoing {
		t.Errorf("update: nothing changed: %v", updated.Meta())
	}
	_, err = s.Commit(ctx, update(made.With(&next)))
	wantErr(t, "update of an old revision", err, store.ErrConflict, k)
	_, err = s.Commit(ctx, remove(made))
	wantErr(t, "delete of an old revision", err, store.ErrConflict, k)

	unread := Pool("p", "10.0.0.0/16")
	unread.ResourceVersion = made.Meta().ResourceVersion
	_, err = s.Commit(ctx, update(store.New(unread)))
	wantErr(t, "update of an old revision, unread", err, store.ErrConflict, k)
	must(t, s, update(store.New(Pool("p", "10.0.0.0/16"))))

	must(t, s, remove(store.New(Pool("p", ""))))
	_, err = s.Commit(ctx, remove(store.New(Pool("p", ""))))
	wantErr(t, "delete again", err, store.ErrNotFound, k)
	_, err = s.Commit(ctx, update(store.New(Pool("p", "10.0.0.0/16"))))
	wantErr(t, "update of nothing, unread", err, store.ErrNotFound, k)
	_, err = s.Commit(ctx, update(updated))
	wantErr(t, "update of what was deleted", err, store.ErrNotFound, k)
	_, err = s.Get(ctx, k)
	wantErr(t, "get after", err, store.ErrNotFound, k)
}

func testBirth(t *testing.T, at Target) {
	p := Pool("p", "10.0.0.0/16")
	p.UID, p.CreationTimestamp = "mine", metav1.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	p.Generation, p.Finalizers = 7, []string{"x.example.com/f"}
	p.OwnerReferences = []metav1.OwnerReference{{Name: "o"}}
	p.ResourceVersion = "12345678"
	made := must(t, at.Store, Create(p))[0].Meta()
	if p.UID != "mine" {
		t.Error("create changed the caller's object")
	}
	age := time.Since(made.CreationTimestamp.Time)
	if len(made.UID) != 36 || made.UID == p.UID || age.Abs() > time.Hour ||
		made.Generation == p.Generation || made.Finalizers != nil || made.OwnerReferences != nil {
		t.Errorf("created as %+v: want a uid and a time of the store's, and nothing else", made)
	}
	p.ResourceVersion = ""
	updated := must(t, at.Store, update(store.New(p)))[0].Meta()
	if updated.UID != made.UID || !updated.CreationTimestamp.Equal(&made.CreationTimestamp) || updated.Finalizers != nil {
		t.Errorf("updated to %+v: want the uid and the time of %+v", updated, made)
	}
}

// testStoredForm checks keys and bytes against what Calico writes.
func testStoredForm(t *testing.T, at Target) {
	done := must(
		t, at.Store,
		Create(Pool("p", "10.0.0.0/16")), Create(Endpoint("shop", "web-1", "10.0.0.1")),
		Create(Block("10.0.0.0/30", "h1")), Create(Handle("h1", "10.0.0.0/30")),
		Create(&v3.BlockAffinity{Spec: v3.BlockAffinitySpec{State: "confirmed", Node: "n1", Type: "host", CIDR: "10.0.0.0/30"}}),
		Create(&v3.BlockAffinity{Spec: v3.BlockAffinitySpec{State: "pending", Node: "lb", Type: "virtual", CIDR: "fd00::/122"}}),
		Create(v3.NewIPAMConfig()),
	)
	birth := func(o store.Object) string {
		return fmt.Sprintf(`"uid":"%s","creationTimestamp":"%s"`, o.Meta().UID, o.Meta().CreationTimestamp.UTC().Format(time.RFC3339))
	}
	for key, want := range map[string]string{
		"/calico/resources/v3/projectcalico.org/ippools/p":                                 `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p",` + birth(done[0]) + `},"spec":{"cidr":"10.0.0.0/16"}}`,
		"/calico/resources/v3/projectcalico.org/workloadendpoints/shop/n1-k8s-web--1-eth0": `{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1-k8s-web--1-eth0","namespace":"shop",` + birth(done[1]) + `,"labels":{"projectcalico.org/namespace":"shop","projectcalico.org/orchestrator":"k8s"}},"spec":{"orchestrator":"k8s","node":"n1","pod":"web-1","endpoint":"eth0","ipNetworks":["10.0.0.1/32"],"profiles":["kns.shop"],"interfaceName":"cali12345678901"}}`,
		"/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30":                                `{"cidr":"10.0.0.0/30","affinity":"host:n1","allocations":[0,null,null,null],"unallocated":[1,2,3],"attributes":[{"handle_id":"h1","secondary":{"node":"n1"}}],"sequenceNumber":7,"sequenceNumberForAllocation":{"0":6},"deleted":false}`,
		"/calico/ipam/v2/handle/h1":                                                        `{"block":{"10.0.0.0/30":1},"deleted":false}`,
		"/calico/ipam/v2/host/n1/ipv4/block/10.0.0.0-30":                                   `{"state":"confirmed","deleted":false}`,
		"/calico/ipam/v2/virtual/lb/ipv6/block/fd00::-122":                                 `{"state":"pending","deleted":false}`,
		"/calico/ipam/v2/config":                                                           `{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Enabled"}`,
	} {
		if got := at.Value(key); got != want {
			t.Errorf("%s\n got %s\nwant %s", key, got, want)
		}
	}
}

func testUnknownFields(t *testing.T, at Target) {
	const nodeAt = "/calico/resources/v3/projectcalico.org/nodes/n1"
	at.Put(nodeAt, `{"kind":"Node","apiVersion":"projectcalico.org/v3","new":{"a":[1,2]},"metadata":{"name":"n1","uid":"u","creationTimestamp":"2026-01-31T12:00:00Z","newer":1},"spec":{"bgp":{"ipv4Address":"10.0.0.1/24","speed":9},"zone":"z"},"status":{}}`)
	const blockAt = "/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30"
	at.Put(blockAt, `{"cidr":"10.0.0.0/30","affinity":"host:n1","strictAffinity":false,"allocations":[0,1,null,null],"unallocated":[2,3],"attributes":[{"handle_id":"a","secondary":{},"x":1},{"handle_id":"b","y":2}],"sequenceNumber":7,"sequenceNumberForAllocation":{},"deleted":false}`)

	change := func(read bool) {
		node := get(t, at.Store, model.Key{Kind: model.KindNode, Name: "n1"})
		n := *node.Object.(*v3.Node)
		n.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: "10.0.0.2/24"}
		block := get(t, at.Store, model.Key{Kind: model.KindIPAMBlock, Name: "10.0.0.0-30"})
		b := *block.Object.(*v3.IPAMBlock)
		zero := 0
		b.Spec.Allocations, b.Spec.Attributes = []*int{nil, &zero, nil, nil}, b.Spec.Attributes[1:]
		b.Spec.Unallocated = []int{2, 3, 0}
		if !read {
			must(t, at.Store, update(store.New(&n)), update(store.New(&b)))
			return
		}
		must(t, at.Store, update(node.With(&n)), update(block.With(&b)))
	}
	for _, read := range []bool{true, false} {
		change(read)
		value := at.Value(nodeAt)
		for _, want := range []string{`"new":{"a":[1,2]}`, `"newer":1`, `"zone":"z"`, `"speed":9`, `"ipv4Address":"10.0.0.2/24"`, `"uid":"u"`} {
			if !strings.Contains(value, want) {
				t.Errorf("read before: %t: %s is lost: %s", read, want, value)
			}
		}
		const want = `{"cidr":"10.0.0.0/30","affinity":"host:n1","allocations":[null,0,null,null],"unallocated":[2,3,0],"attributes":[{"handle_id":"b","y":2}],"sequenceNumber":7,"sequenceNumberForAllocation":{},"deleted":false,"strictAffinity":false}`
		if got := at.Value(blockAt); got != want {
			t.Errorf("read before: %t: block\n got %s\nwant %s", read, got, want)
		}
		if read { // back to the two attributes, for the second way
			at.Put(blockAt, `{"cidr":"10.0.0.0/30","affinity":"host:n1","strictAffinity":false,"allocations":[0,1,null,null],"unallocated":[2,3],"attributes":[{"handle_id":"a","secondary":{},"x":1},{"handle_id":"b","y":2}],"sequenceNumber":7,"sequenceNumberForAllocation":{},"deleted":false}`)
		}
	}
}

func testNoChange(t *testing.T, at Target) {
	for k, put := range map[model.Key][2]string{
		poolKey("p"):             {"/calico/resources/v3/projectcalico.org/ippools/p", `{"spec": {"odd":1, "cidr":"10.0.0.0/16"}, "kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"uid":"u","name":"p"} }`},
		handleKey("h"):           {"/calico/ipam/v2/handle/h", `{"deleted":false, "block":{}, "odd":null}`},
		model.IPAMConfig{}.Key(): {"/calico/ipam/v2/config", `{ "odd":1, "strict_affinity":false}`},
	} {
		at.Put(put[0], put[1])
		must(t, at.Store, update(get(t, at.Store, k)))
		if got := at.Value(put[0]); got != put[1] {
			t.Errorf("%v: written back\n got %s\nwant %s", k, got, put[1])
		}
	}
}

func testReplaceBroken(t *testing.T, at Target) {
	const place = "/calico/resources/v3/projectcalico.org/ippools/p"
	for _, broken := range []string{"", "[]", `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","spec":{"cidr":7}}`} {
		at.Put(place, broken)
		if _, err := at.Store.Get(t.Context(), poolKey("p")); err == nil || !strings.HasPrefix(err.Error(), "IPPool/p: ") {
			t.Errorf("get %q: %v, want an error that names IPPool/p", broken, err)
		}
		must(t, at.Store, update(store.New(Pool("p", "10.0.0.0/16"))))
		if got := get(t, at.Store, poolKey("p")).Object.(*v3.IPPool).Spec.CIDR; got != "10.0.0.0/16" {
			t.Errorf("%q was replaced by %s", broken, got)
		}
	}
}

func testAtomic(t *testing.T, at Target) {
	s := at.Store
	ops := []store.Op{
		Create(Block("10.0.0.0/30", "h1")), Create(Handle("h1", "10.0.0.0/30")), Create(Endpoint("shop", "web", "10.0.0.1")),
	}
	must(t, s, Create(Handle("h1", "10.0.0.0/30")))
	_, err := s.Commit(t.Context(), ops...)
	wantErr(t, "the second exists", err, store.ErrExists, handleKey("h1"))
	if at.Value("/calico/ipam/v2/assignment/ipv4/block/10.0.0.0-30") != "" {
		t.Error("the block of a refused commit was written")
	}
	must(t, s, remove(store.New(Handle("h1", ""))))
	done := must(t, s, ops...)
	if a, b := done[0].Meta().ResourceVersion, done[2].Meta().ResourceVersion; a != b {
		t.Errorf("one commit made revisions %s and %s", a, b)
	}
	must(t, s, update(done[1]))
	_, err = s.Commit(t.Context(), update(done[0]), remove(done[1]), remove(done[2]))
	wantErr(t, "the second has changed", err, store.ErrConflict, handleKey("h1"))
	must(t, s, update(done[0]), remove(store.New(Handle("h1", ""))), remove(done[2]))
}

// testPieces breaks a commit whose last operation can't be carried out: with transactions
// nothing is done; without, what is done is told, a handle is there before its block
// names it, and doing the rest later is all it takes.
func testPieces(t *testing.T, at Target) {
	s := at.Store
	must(t, s, Create(Pool("taken", "10.0.0.0/16")))
	ops := []store.Op{Create(Pool("taken", "10.0.0.0/16")), Create(Block("10.0.0.0/30", "h1")), Create(Handle("h1", "10.0.0.0/30"))}
	done, err := s.Commit(t.Context(), ops...)
	wantErr(t, "the first exists", err, store.ErrExists, poolKey("taken"))
	if !at.Piecewise {
		if done != nil {
			t.Errorf("a refused commit returns %v", done)
		}
		return
	}
	if len(done) != 3 || done[0].Object != nil || done[1].Object == nil || done[2].Object == nil {
		t.Fatalf("a commit that broke at its first operation returns %v", done)
	}
	if got := get(t, s, handleKey("h1")).Meta().ResourceVersion; got != done[2].Meta().ResourceVersion {
		t.Errorf("the handle has revision %s, and is said to have %s", got, done[2].Meta().ResourceVersion)
	}
	// A block that can't be written leaves no endpoint, and a handle at most.
	again := []store.Op{Create(Block("10.0.0.0/30", "h2")), Create(Handle("h2", "10.0.0.0/30")), Create(Pool("free", "10.0.0.0/16"))}
	done, err = s.Commit(t.Context(), again...)
	wantErr(t, "the block exists", err, store.ErrExists, model.Key{Kind: model.KindIPAMBlock, Name: "10.0.0.0-30"})
	if _, err := s.Get(t.Context(), poolKey("free")); !errors.Is(err, store.ErrNotFound) || done[2].Object != nil {
		t.Errorf("what comes after the block was written: %v", err)
	}
	// On the way back the block is free before the handle is gone.
	block, handle := get(t, s, model.Key{Kind: model.KindIPAMBlock, Name: "10.0.0.0-30"}), get(t, s, handleKey("h1"))
	next := *block.Object.(*v3.IPAMBlock)
	next.Spec.SequenceNumber++
	must(t, s, update(block.With(&next)))
	_, err = s.Commit(t.Context(), remove(block), remove(handle))
	wantErr(t, "the block has changed", err, store.ErrConflict, model.Key{Kind: model.KindIPAMBlock, Name: "10.0.0.0-30"})
	get(t, s, handleKey("h1"))
}

func testRefused(t *testing.T, at Target) {
	bad := Pool("p", "10.0.0.0/16")
	bad.ResourceVersion = "new"
	var many []store.Op
	for i := range 129 {
		many = append(many, Create(Handle(fmt.Sprint("h", i), "10.0.0.0/30")))
	}
	for name, tt := range map[string]struct {
		ops  []store.Op
		want string
	}{
		"twice":    {[]store.Op{Create(Pool("p", "10.0.0.0/16")), remove(store.New(Pool("p", "")))}, `IPPool/p: occurs twice in one commit`},
		"too many": {many, `commit: 129 operations: at most 128 fit in one transaction`},
		"revision": {[]store.Op{update(store.New(bad))}, `IPPool/p: metadata.resourceVersion "new": must be a number as the datastore gave it, or empty`},
		"no name":  {[]store.Op{Create(Pool("", "10.0.0.0/16"))}, `IPPool/: name: missing`},
		"slash":    {[]store.Op{Create(Pool("a/b", "10.0.0.0/16"))}, `IPPool/a/b: name "a/b": must not contain '/'`},
		"no space": {[]store.Op{Create(Endpoint("", "web", "10.0.0.1"))}, `WorkloadEndpoint/n1-k8s-web-eth0: namespace: missing`},
		"nothing":  {[]store.Op{{}}, `commit: operation 1 has no object`},
	} {
		if _, err := at.Store.Commit(t.Context(), tt.ops...); err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", name, err, tt.want)
		}
	}
	if done, err := at.Store.Commit(t.Context()); len(done) != 0 || err != nil {
		t.Errorf("no operation: %v, %v", done, err)
	}
	must(t, at.Store, many[:128]...)
}

func testList(t *testing.T, at Target) {
	at.pod("shop", "a")
	at.pod("shop", "b")
	at.pod("shop2", "a")
	must(t, at.Store, Create(Endpoint("shop", "b", "10.0.0.2")), Create(Endpoint("shop", "a", "10.0.0.1")), Create(Endpoint("shop2", "a", "10.0.0.3")))
	for namespace, want := range map[string]string{"": "shop/a shop/b shop2/a", "shop": "shop/a shop/b", "none": ""} {
		objects, err := at.Store.List(t.Context(), model.KindWorkloadEndpoint, namespace)
		var got []string
		for _, o := range objects {
			got = append(got, o.Meta().Namespace+"/"+o.Object.(*v3.WorkloadEndpoint).Spec.Pod)
		}
		if strings.Join(got, " ") != want || err != nil {
			t.Errorf("list %q: %v, %v; want %s", namespace, got, err, want)
		}
	}
	const n = 1100 // more than two pages
	for i := 0; i < n; i += 110 {
		var ops []store.Op
		for j := i; j < i+110; j++ {
			ops = append(ops, Create(Handle(fmt.Sprintf("h%04d", j), "10.0.0.0/30")))
		}
		must(t, at.Store, ops...)
	}
	handles, err := at.Store.List(t.Context(), model.KindIPAMHandle, "")
	if len(handles) != n || err != nil {
		t.Fatalf("list: %d handles, %v; want %d", len(handles), err, n)
	}
	for i, o := range handles {
		if id := o.Object.(*v3.IPAMHandle).Spec.HandleID; id != fmt.Sprintf("h%04d", i) {
			t.Fatalf("list: %s at place %d", id, i)
		}
	}
}

func testListBroken(t *testing.T, at Target) {
	must(t, at.Store, Create(Pool("a", "10.0.0.0/16")), Create(Pool("c", "10.1.0.0/16")))
	at.Put("/calico/resources/v3/projectcalico.org/ippools/b", `{"kind":"IPPool"`)
	at.Put("/calico/resources/v3/projectcalico.org/ippools/d", `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"e"}}`)
	objects, err := at.Store.List(t.Context(), model.KindIPPool, "")
	if len(objects) != 2 || err == nil || !strings.Contains(err.Error(), "IPPool/b: ") ||
		!strings.Contains(err.Error(), "IPPool/d: the stored value is that of IPPool/e") {
		t.Errorf("list: %d objects, error %v; want 2, and an error about b and d", len(objects), err)
	}
	if _, err := at.Store.List(t.Context(), "Chair", ""); err == nil {
		t.Error("list of an unknown kind: no error")
	}
}

// testConcurrent lets several writers count up one number by compare-and-swap.
func testConcurrent(t *testing.T, at Target) {
	const writers, rounds = 8, 12
	must(t, at.Store, Create(Block("10.0.0.0/30", "h")))
	k := model.Key{Kind: model.KindIPAMBlock, Name: "10.0.0.0-30"}
	count := func() error {
		for {
			o, err := at.Store.Get(t.Context(), k)
			if err != nil {
				return err
			}
			b := *o.Object.(*v3.IPAMBlock)
			b.Spec.SequenceNumber++
			_, err = at.Store.Commit(t.Context(), update(o.With(&b)))
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
		}
	}
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range rounds {
				if err := count(); err != nil {
					t.Error(err)
				}
				// Without a revision a write never conflicts.
				if _, err := at.Store.Commit(t.Context(), update(store.New(v3.NewIPAMConfig()))); err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
				}
			}
		})
	}
	must(t, at.Store, Create(v3.NewIPAMConfig()))
	wg.Wait()
	if got := get(t, at.Store, k).Object.(*v3.IPAMBlock).Spec.SequenceNumber; got != 7+writers*rounds {
		t.Errorf("counted to %d, want %d", got, 7+writers*rounds)
	}
}
