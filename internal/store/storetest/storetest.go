// Package storetest is what every datastore must do, as a test: the contract of
// store.Store in the form that can fail.
//
// [Run] is called by the tests of each implementation, with a function that makes
// an empty store and the faults that can be done to it. Package mem and package
// etcd (a real server) run the same cases, which is what makes mem an honest fake.
//
// The cases look through the interface only. The one exception is [Target.Put],
// which writes a value as another program would: that is how unknown fields and
// broken values get into a datastore.
//
// Cases are independent, each has a store of its own, and they run in parallel.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/testenv"
)

// Target is an empty store under test.
type Target struct {
	Store store.Store
	// Put writes a value past the store, as another program does. nil: the datastore
	// has no keys and values; then the cases about them are not run.
	Put func(key, value string)
	// Value is what is stored under a key; empty if nothing is. nil with Put.
	Value func(key string) string
	// Compact makes the datastore forget all revisions but the present one.
	Compact func()
	// Restart breaks every connection; content stays.
	Restart func()

	// Piecewise says that the datastore has no transactions, so that a commit is not
	// one change.
	Piecewise bool
	// Resumes says that a watch which broke goes on by telling what changed, without a
	// Reset.
	Resumes bool
	// Kinds are those to watch for all that a case makes; nil: all that the store knows.
	Kinds []model.Kind
	// Pod makes what an endpoint of that name needs to exist first, on node n1; nil:
	// nothing.
	Pod func(namespace, name string)
}

// pod prepares an endpoint.
func (at Target) pod(namespace, name string) {
	if at.Pod != nil {
		at.Pod(namespace, name)
	}
}

// needs are what a case is about beside the interface.
type needs uint8

const (
	values       needs = 1 << iota // keys and values
	transactions                   // commits that are one change
	faults                         // compaction and broken connections
)

// lacks says what of n the target does not have; empty: nothing.
func (at Target) lacks(n needs) string {
	switch {
	case n&values != 0 && at.Put == nil:
		return "keys and values"
	case n&transactions != 0 && at.Piecewise:
		return "transactions"
	case n&faults != 0 && (at.Compact == nil || at.Restart == nil):
		return "faults that can be made"
	}
	return ""
}

// testCase is one case of the contract.
type testCase struct {
	run   func(t *testing.T, at Target)
	needs needs
}

// Run runs every case against stores that open makes, but for those that need what the
// datastore by its nature does not have.
func Run(t *testing.T, open func(t *testing.T) Target) {
	for name, c := range map[string]testCase{
		"create, read, update, delete":           {testCRUD, 0},
		"birth belongs to the store":             {testBirth, 0},
		"stored form":                            {testStoredForm, values},
		"unknown fields survive":                 {testUnknownFields, values},
		"an update that changes nothing":         {testNoChange, values},
		"a broken value can be replaced":         {testReplaceBroken, values},
		"one commit, all or nothing":             {testAtomic, transactions},
		"a commit that breaks":                   {testPieces, 0},
		"refused commits":                        {testRefused, 0},
		"list in order, by namespace, past page": {testList, 0},
		"list without what can't be read":        {testListBroken, values},
		"compare and swap by many":               {testConcurrent, 0},
		"watch: snapshot, then changes":          {testWatch, 0},
		"watch: only the kinds asked for":        {testWatchKinds, 0},
		"watch: a commit is one batch":           {testWatchAtomic, transactions},
		"watch: invalid is not deleted":          {testWatchInvalid, values},
		"watch: compacted":                       {testWatchCompacted, faults},
		"watch: restart":                         {testWatchRestart, faults},
		"watch: ends when told":                  {testWatchEnds, 0},
		"watch: every fault, again and again":    {testWatchFaults, faults},
		"ready":                                  {testReady, 0},
		"initialise":                             {testInitialise, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			at := open(t)
			if what := at.lacks(c.needs); what != "" {
				t.Logf("nothing to test: this datastore has no %s", what)
				return
			}
			c.run(t, at)
		})
	}
}

// Pool is an IPPool that is valid.
func Pool(name, cidr string) *v3.IPPool {
	o, _ := v3.New("IPPool")
	p := o.(*v3.IPPool)
	p.Name, p.Spec.CIDR = name, cidr
	return p
}

// Endpoint is a WorkloadEndpoint that is valid.
func Endpoint(namespace, pod, addr string) *v3.WorkloadEndpoint {
	o, _ := v3.New("WorkloadEndpoint")
	w := o.(*v3.WorkloadEndpoint)
	w.Namespace, w.Name = namespace, "n1-k8s-"+strings.ReplaceAll(pod, "-", "--")+"-eth0"
	w.Labels = map[string]string{"projectcalico.org/namespace": namespace, "projectcalico.org/orchestrator": "k8s"}
	w.Spec.Orchestrator, w.Spec.Node, w.Spec.Pod, w.Spec.Endpoint = "k8s", "n1", pod, "eth0"
	w.Spec.InterfaceName, w.Spec.IPNetworks = "cali12345678901", []string{addr + "/32"}
	w.Spec.Profiles = []string{"kns." + namespace}
	return w
}

// Block is a block of four addresses with the first taken by handle.
func Block(cidr, handle string) *v3.IPAMBlock {
	owner, zero := "host:n1", 0
	return &v3.IPAMBlock{Spec: v3.IPAMBlockSpec{
		CIDR: cidr, Affinity: &owner, Allocations: []*int{&zero, nil, nil, nil}, Unallocated: []int{1, 2, 3},
		Attributes:     []v3.AllocationAttribute{{HandleID: &handle, ActiveOwnerAttrs: map[string]string{"node": "n1"}}},
		SequenceNumber: 7, SequenceNumberForAllocation: map[string]uint64{"0": 6},
	}}
}

// Handle is a handle with one address in the block.
func Handle(id, cidr string) *v3.IPAMHandle {
	return &v3.IPAMHandle{Spec: v3.IPAMHandleSpec{HandleID: id, Block: map[string]int{cidr: 1}}}
}

// Create makes the op that creates o; Update and Delete likewise.
func Create(o v3.Object) store.Op     { return store.Op{Verb: store.Create, Object: store.New(o)} }
func update(o store.Object) store.Op  { return store.Op{Verb: store.Update, Object: o} }
func remove(o store.Object) store.Op  { return store.Op{Verb: store.Delete, Object: o} }
func poolKey(name string) model.Key   { return model.Key{Kind: model.KindIPPool, Name: name} }
func handleKey(name string) model.Key { return model.HandleKey(name) }

// must is Commit that has to succeed.
func must(t *testing.T, s store.Store, ops ...store.Op) []store.Object {
	t.Helper()
	done, err := s.Commit(t.Context(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func get(t *testing.T, s store.Store, k model.Key) store.Object {
	t.Helper()
	o, err := s.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// wantErr checks that err is want and begins by naming the object.
func wantErr(t *testing.T, what string, err, want error, k model.Key) {
	t.Helper()
	if !errors.Is(err, want) || !strings.HasPrefix(err.Error(), k.String()+": ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: error %v; want %v: %v", what, err, k, want)
	}
}

// watched is a Watch that runs beside the test.
type watched struct {
	t     *testing.T
	mu    sync.Mutex
	world model.World
	log   []string // one entry a batch or error
	kick  chan struct{}
	done  chan struct{}
	stop  context.CancelFunc
}

// watch starts a Watch. each is called with every batch before it is counted, in
// the watch's own goroutine; nil does nothing.
func watch(t *testing.T, s store.Store, each func(model.Batch), kinds ...model.Kind) *watched {
	ctx, stop := context.WithCancel(t.Context())
	w := &watched{t: t, kick: make(chan struct{}, 1), done: make(chan struct{}), stop: stop}
	go func() {
		defer close(w.done)
		for b, err := range s.Watch(ctx, kinds...) {
			if err == nil && each != nil {
				each(b)
			}
			w.take(b, err)
		}
	}()
	t.Cleanup(func() { stop(); <-w.done })
	return w
}

func (w *watched) take(b model.Batch, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.log = append(w.log, "error")
	} else {
		w.world = w.world.Apply(b)
		w.log = append(w.log, describe(b))
	}
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// describe prints a batch in short: reset +put -delete !invalid synced. In a batch there
// is no order.
func describe(b model.Batch) string {
	var words []string
	if b.Reset {
		words = append(words, "reset")
	}
	var puts, deletes, invalids []string
	for _, v := range b.Puts {
		puts = append(puts, "+"+v.Key().Name)
	}
	for _, k := range b.Deletes {
		deletes = append(deletes, "-"+k.Name)
	}
	for _, in := range b.Invalids {
		invalids = append(invalids, "!"+in.Key.Name)
	}
	for _, list := range [][]string{puts, deletes, invalids} {
		slices.Sort(list)
		words = append(words, list...)
	}
	if b.Synced {
		words = append(words, "synced")
	}
	return strings.Join(words, " ")
}

// until waits until what was delivered satisfies ok.
func (w *watched) until(what string, ok func(world model.World, log []string) bool) {
	w.t.Helper()
	limit := time.After(testenv.Patience)
	for {
		w.mu.Lock()
		good, log := ok(w.world, w.log), slices.Clone(w.log)
		w.mu.Unlock()
		if good {
			return
		}
		select {
		case <-w.kick:
		case <-w.done:
			w.t.Fatalf("the watch ended before: %s; delivered %q", what, log)
		case <-limit:
			w.t.Fatalf("never came: %s; delivered %q", what, log)
		}
	}
}

// untilLog waits until exactly these batches have come.
func (w *watched) untilLog(want ...string) {
	w.t.Helper()
	w.until(fmt.Sprintf("%q", want), func(_ model.World, log []string) bool { return len(log) >= len(want) })
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.log, want) {
		w.t.Fatalf("delivered %q\n     want %q", w.log, want)
	}
}

// untilWorld waits until the world holds exactly the keys.
func (w *watched) untilWorld(keys ...model.Key) {
	w.t.Helper()
	w.until(fmt.Sprint(keys), func(world model.World, log []string) bool {
		if len(world) != len(keys) || len(log) == 0 {
			return false
		}
		for _, k := range keys {
			if _, ok := world[k]; !ok {
				return false
			}
		}
		return true
	})
}
