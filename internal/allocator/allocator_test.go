package allocator_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/kv"
	"github.com/weft-net/weft/internal/store/mem"
)

// noon is the clock of tests in which time stands still.
func noon() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

// newStore is a store with node-a, node-b and pools of /28 blocks of both families.
func newStore(t testing.TB) mem.Store {
	s := mem.New()
	for _, doc := range []string{
		"kind: Node\nmetadata:\n  name: node-a\nspec: {}\n",
		"kind: Node\nmetadata:\n  name: node-b\nspec: {}\n",
		"kind: IPPool\nmetadata:\n  name: pool-a\nspec:\n  cidr: 10.10.0.0/24\n  blockSize: 28\n",
		"kind: IPPool\nmetadata:\n  name: pool-six\nspec:\n  cidr: fd00:10::/112\n  blockSize: 122\n",
	} {
		o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\n" + doc))
		if err != nil {
			t.Fatal(err)
		}
		create(t, s, o)
	}
	return s
}

func create(t testing.TB, s store.Store, objects ...v3.Object) {
	t.Helper()
	for _, o := range objects {
		if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(o)}); err != nil {
			t.Fatal(err)
		}
	}
}

// want is a request for one address of each of the families "4", "6" or "46".
func want(handle, families string) allocator.Request {
	r := allocator.Request{Request: ipam.Request{Holder: model.Attribute{Handle: handle}, Use: model.UseWorkload}}
	r.V4.Count, r.V6.Count = strings.Count(families, "4"), strings.Count(families, "6")
	return r
}

// counting counts the calls of a store, and holds back commits while gate is
// not nil.
type counting struct {
	store.Store
	mu             sync.Mutex
	reads, commits int
	gate           chan struct{}
}

func (c *counting) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

func (c *counting) Get(ctx context.Context, key model.Key) (store.Object, error) {
	c.count(&c.reads)
	return c.Store.Get(ctx, key)
}

func (c *counting) List(ctx context.Context, kind model.Kind, ns string) ([]store.Object, error) {
	c.count(&c.reads)
	return c.Store.List(ctx, kind, ns)
}

func (c *counting) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if c.gate != nil {
		<-c.gate
	}
	c.count(&c.commits)
	return c.Store.Commit(ctx, ops...)
}

// settings is a batch with the settings that are in the store.
func settings(t testing.TB, s store.Store) model.Batch {
	b := model.Batch{Reset: true, Synced: true}
	for _, kind := range []model.Kind{model.KindIPPool, model.KindNode} {
		objects, err := s.List(t.Context(), kind, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			v, err := model.Parse(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			b.Puts = append(b.Puts, v)
		}
	}
	return b
}

// TestWaitingRequestsShareOneWrite: with the block at hand nothing is read, and
// all requests that wait while one is written go into one transaction.
func TestWaitingRequestsShareOneWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &counting{Store: newStore(t)}
		a := start(t, s, "node-a", time.Now)
		a.Step(settings(t, s))
		if _, err := a.Assign(t.Context(), want("first", "46")); err != nil {
			t.Fatal(err)
		}
		s.reads, s.commits, s.gate = 0, 0, make(chan struct{})
		const n = 40
		var done sync.WaitGroup
		addrs := make([]netip.Addr, n)
		for i := range n {
			done.Go(func() {
				r := want(fmt.Sprintf("h%d", i), "6")
				r.Extra = func(got []ipam.Assigned) ([]store.Op, error) {
					return []store.Op{{Verb: store.Create, Object: store.New(profile(fmt.Sprintf("p%d", i)))}}, nil
				}
				res, err := a.Assign(t.Context(), r)
				if err != nil || len(res.Addrs) != 1 || len(res.Extra) != 1 {
					t.Errorf("h%d: %v, %v", i, res, err)
					return
				}
				addrs[i] = res.Addrs[0].Addr
			})
		}
		synctest.Wait() // the loop waits at the gate with one request, the others queue
		close(s.gate)
		done.Wait()
		if s.reads != 0 || s.commits > 2 {
			t.Errorf("%d reads and %d commits for %d requests, want 0 and at most 2", s.reads, s.commits, n)
		}
		slices.SortFunc(addrs, netip.Addr.Compare)
		if len(slices.Compact(addrs)) != n {
			t.Errorf("addresses are not different: %v", addrs)
		}
	})
}

func profile(name string) *v3.Profile {
	o, _ := v3.New("Profile")
	o.Meta().Name = name
	return o.(*v3.Profile)
}

// TestRoomInTransaction: more requests than fit in one transaction are all served.
func TestRoomInTransaction(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &counting{Store: newStore(t), gate: make(chan struct{})}
		a := start(t, s, "node-a", time.Now)
		var done sync.WaitGroup
		for i := range 150 {
			done.Go(func() {
				if _, err := a.Assign(t.Context(), want(fmt.Sprintf("h%d", i), "4")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(s.gate)
		done.Wait()
		if s.commits > 4 {
			t.Errorf("%d commits, want 1 for the first, 2 for 149 others", s.commits)
		}
	})
}

// TestExtraFailsAlone: a request whose own operation is refused gets no address,
// and those that share its transaction are not affected.
func TestExtraFailsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &counting{Store: newStore(t), gate: make(chan struct{})}
		create(t, s.Store, profile("taken"))
		a := start(t, s, "node-a", time.Now)
		errs := make([]error, 8)
		var done sync.WaitGroup
		for i := range errs {
			done.Go(func() {
				r := want(fmt.Sprintf("h%d", i), "4")
				r.Extra = func([]ipam.Assigned) ([]store.Op, error) {
					name := []string{"free", "taken"}[i%2]
					if name == "free" {
						name += fmt.Sprint(i)
					}
					return []store.Op{{Verb: store.Create, Object: store.New(profile(name))}}, nil
				}
				_, errs[i] = a.Assign(t.Context(), r)
			})
		}
		synctest.Wait()
		close(s.gate)
		done.Wait()
		for i, err := range errs {
			if i%2 == 0 && err != nil || i%2 == 1 && !errors.Is(err, store.ErrExists) {
				t.Errorf("h%d: %v", i, err)
			}
			_, err := s.Get(t.Context(), model.HandleKey(fmt.Sprintf("h%d", i)))
			if held := err == nil; held != (i%2 == 0) {
				t.Errorf("h%d: has addresses is %v", i, held)
			}
		}
	})
}

// TestBadHandle: a handle that can't be stored is the fault of its request alone.
func TestBadHandle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &counting{Store: newStore(t), gate: make(chan struct{})}
		a := start(t, s, "node-a", time.Now)
		handles := []string{"h1", "h2", "no/key", "", "h3"}
		errs := make([]error, len(handles))
		var done sync.WaitGroup
		for i, h := range handles {
			done.Go(func() { _, errs[i] = a.Assign(t.Context(), want(h, "4")) })
		}
		synctest.Wait()
		close(s.gate)
		done.Wait()
		for i, h := range handles {
			if ok := strings.HasPrefix(h, "h"); ok != (errs[i] == nil) {
				t.Errorf("handle %q: %v", h, errs[i])
			}
		}
	})
}

// TestCallerGone: a request that was not begun when its caller left is never
// carried out; one that was is answered.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &counting{Store: newStore(t), gate: make(chan struct{})}
		a := start(t, s, "node-a", time.Now)
		ctx, leave := context.WithCancel(t.Context())
		var errs [2]error
		var done sync.WaitGroup
		done.Go(func() { _, errs[0] = a.Assign(ctx, want("begun", "4")) })
		synctest.Wait()
		done.Go(func() { _, errs[1] = a.Assign(ctx, want("queued", "4")) })
		synctest.Wait()
		leave()
		synctest.Wait()
		close(s.gate)
		done.Wait()
		if errs[0] != nil || !errors.Is(errs[1], context.Canceled) {
			t.Errorf("errors are %v, want none for what was begun, canceled for the other", errs)
		}
		if _, err := s.Get(t.Context(), model.HandleKey("queued")); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("handle of the request that was not begun: %v", err)
		}
	})
}

// TestStopped: what was taken when Run ended is answered, the rest is refused.
func TestStopped(t *testing.T) {
	t.Parallel()
	a := allocator.New(newStore(t), "node-a", noon)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	if _, err := a.Assign(t.Context(), want("h", "4")); !errors.Is(err, allocator.ErrStopped) {
		t.Errorf("assign: %v", err)
	}
}

// TestAgain: asking again for a handle gives the same addresses, also with an
// allocator that has just started, and adds what is newly wanted.
func TestAgain(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	first, err := start(t, s, "node-a", noon).Assign(t.Context(), want("h", "4"))
	if err != nil {
		t.Fatal(err)
	}
	a := start(t, s, "node-a", noon)
	for _, families := range []string{"4", "46", "46"} {
		got, err := a.Assign(t.Context(), want("h", families))
		if err != nil || got.Addrs[0] != first.Addrs[0] || len(got.Addrs) != len(families) {
			t.Errorf("families %s: %v, %v, want %v first", families, got, err, first)
		}
	}
	byName := want("h", "")
	byName.Addrs = []netip.Addr{first.Addrs[0].Addr}
	if got, err := start(t, s, "node-a", noon).Assign(t.Context(), byName); err != nil || got.Addrs[0] != first.Addrs[0] {
		t.Errorf("by name: %v, %v", got, err)
	}
}

// TestReleasedElsewhere: an allocator does not answer from memory when somebody
// else has released the handle meanwhile.
func TestReleasedElsewhere(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a, b := start(t, s, "node-a", noon), start(t, s, "node-b", noon)
	first, err := a.Assign(t.Context(), want("h", "4"))
	if err != nil {
		t.Fatal(err)
	}
	if freed, err := b.Release(t.Context(), "h"); err != nil || !slices.Equal(freed, []netip.Addr{first.Addrs[0].Addr}) {
		t.Fatalf("released %v, %v", freed, err)
	}
	if _, err := a.Assign(t.Context(), want("h", "4")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), model.HandleKey("h")); err != nil {
		t.Errorf("the handle that was answered: %v", err)
	}
}

// TestRelease: the deletion of what does not exist is no error, and goes with
// the release of the address.
func TestRelease(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a := start(t, s, "node-a", noon)
	if _, err := a.Assign(t.Context(), want("h", "4")); err != nil {
		t.Fatal(err)
	}
	gone := store.Op{Verb: store.Delete, Object: store.New(profile("nobody"))}
	for range 2 {
		if _, err := a.Release(t.Context(), "h", gone); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Get(t.Context(), model.HandleKey("h")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the handle: %v", err)
	}
}

// TestReleaseAddr holds the checks of a release by address.
func TestReleaseAddr(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a := start(t, s, "node-a", noon)
	got, err := a.Assign(t.Context(), want("h", "46"))
	if err != nil {
		t.Fatal(err)
	}
	addr := got.Addrs[0].Addr
	for _, tt := range []struct {
		name  string
		check ipam.Check
		want  error
	}{
		{"wrong handle", ipam.Check{Handle: "other"}, ipam.ErrChanged},
		{"wrong sequence", ipam.Check{Sequence: 1}, ipam.ErrChanged},
		{"right", ipam.Check{Handle: "h", Sequence: uint64(noon().UnixNano())}, nil},
		{"again", ipam.Check{}, ipam.ErrNotAssigned},
	} {
		if err := a.ReleaseAddr(t.Context(), addr, tt.check); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	o, err := s.Get(t.Context(), model.HandleKey("h"))
	if err != nil || len(o.Object.(*v3.IPAMHandle).Spec.Block) != 1 {
		t.Errorf("the handle, which has an IPv6 address still: %v, %v", o, err)
	}
}

// TestHalfDoneClaims: what Calico's tools left half done is completed or taken
// back when it is this node's, and avoided when it is another's.
func TestHalfDoneClaims(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	claim := func(node, cidr string, state model.AffinityState) v3.Object {
		return model.BlockAffinity{Owner: model.HostAffinity(node), CIDR: netip.MustParsePrefix(cidr), State: state}.API()
	}
	mine := ipam.NewBlock(netip.MustParsePrefix("10.10.0.0/28"), model.HostAffinity("node-a"), noon())
	unclaimed := ipam.NewBlock(netip.MustParsePrefix("10.10.0.16/28"), model.HostAffinity("node-a"), noon())
	theirs := ipam.NewBlock(netip.MustParsePrefix("10.10.0.32/28"), model.HostAffinity("node-b"), noon())
	create(
		t, s,
		claim("node-a", "10.10.0.0/28", model.AffinityPending), mine.API(), unclaimed.API(),
		claim("node-a", "10.10.0.32/28", model.AffinityPending), claim("node-b", "10.10.0.32/28", model.AffinityConfirmed), theirs.API(),
		claim("node-a", "10.10.0.48/28", model.AffinityPending),
		claim("node-b", "fd00:10::ae80/122", model.AffinityPending), // where node-a would start
	)
	res, err := start(t, s, "node-a", noon).Assign(t.Context(), want("h", "46"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(res.Addrs[0].Addr, res.Addrs[1].Addr); got != "10.10.0.0 fd00:10::aec0" {
		t.Errorf("got %s, want an address of the half claimed block, and one past the block that node-b claims", got)
	}
	var got []string
	objects, err := s.List(t.Context(), model.KindBlockAffinity, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		spec := o.Object.(*v3.BlockAffinity).Spec
		got = append(got, fmt.Sprintf("%s %s %s", spec.Node, spec.CIDR, spec.State))
	}
	if want := []string{
		"node-a 10.10.0.0/28 confirmed", "node-a 10.10.0.16/28 confirmed", "node-a fd00:10::aec0/122 confirmed",
		"node-b 10.10.0.32/28 confirmed", "node-b fd00:10::ae80/122 pending",
	}; !slices.Equal(got, want) {
		t.Errorf("claims are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestHalfWrittenHandle: Calico counts in the handle before it writes the block.
// A count without an address is put right by the next request.
func TestHalfWrittenHandle(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	block := netip.MustParsePrefix("10.10.0.64/28")
	create(t, s, model.Handle{ID: "h", Blocks: map[netip.Prefix]int{block: 1}}.API())
	res, err := start(t, s, "node-a", noon).Assign(t.Context(), want("h", "4"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.Get(t.Context(), model.HandleKey("h"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(o.Object.(*v3.IPAMHandle).Spec.Block); got != fmt.Sprintf("map[%v:1]", res.Addrs[0].Block) {
		t.Errorf("the handle counts %s", got)
	}
}

// TestSteppedSettings: settings told by Step steer assignment, a snapshot only
// when it is complete, and no request is refused because they came late.
func TestSteppedSettings(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a := start(t, s, "node-a", noon)
	snapshot := settings(t, s)
	a.Step(snapshot)
	if _, err := a.Assign(t.Context(), want("h1", "4")); err != nil {
		t.Fatal(err)
	}
	disabled := snapshot.Puts[0].(model.Pool)
	disabled.Disabled = true
	a.Step(model.Batch{Reset: true, Puts: []model.Value{disabled}})
	if _, err := a.Assign(t.Context(), want("h2", "4")); err != nil {
		t.Errorf("in the middle of a snapshot: %v", err)
	}
	a.Step(model.Batch{Synced: true})
	// The told settings have no node and a disabled pool; the store has better.
	if _, err := a.Assign(t.Context(), want("h3", "4")); err != nil {
		t.Errorf("with settings that are behind the datastore: %v", err)
	}
}

// TestUnreadableBlock: a block that makes no sense is in the way, no more.
func TestUnreadableBlock(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	b := ipam.NewBlock(netip.MustParsePrefix("10.10.0.160/28"), model.HostAffinity("node-b"), noon())
	b.Allocations = b.Allocations[:3]
	create(t, s, b.API())
	res, err := start(t, s, "node-a", noon).Assign(t.Context(), want("h", "4"))
	if err != nil || res.Addrs[0].Addr.String() != "10.10.0.176" {
		t.Errorf("got %v, %v, want the first address of the next block", res, err)
	}
	inside := netip.MustParseAddr("10.10.0.161")
	byName := want("h2", "")
	byName.Addrs = []netip.Addr{inside}
	_, assign := start(t, s, "node-a", noon).Assign(t.Context(), byName)
	release := start(t, s, "node-a", noon).ReleaseAddr(t.Context(), inside, ipam.Check{})
	for _, err := range []error{assign, release} {
		if !errors.Is(err, ipam.ErrUnusable) {
			t.Errorf("an address of it: %v", err)
		}
	}
}

// TestBadPool: while a pool can't be read, no block is given up for lack of a
// pool; when it is gone, an empty block is.
func TestBadPool(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pool []byte // as stored; nil: deleted
		want int    // blocks that are left
	}{
		"unreadable": {pool: []byte(`{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool-a"},"spec":{"cidr":"nonsense"}}`), want: 1},
		"deleted":    {want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			a := start(t, s, "node-a", noon)
			if _, err := a.Assign(t.Context(), want("h", "4")); err != nil {
				t.Fatal(err)
			}
			key := "/calico/resources/v3/projectcalico.org/ippools/pool-a"
			if out, err := s.DB.Txn(t.Context(), []kv.Write{{Key: key, Value: tt.pool, Expect: kv.Present}}); err != nil || out.Refused != nil {
				t.Fatal(out, err)
			}
			if _, err := a.Release(t.Context(), "h"); err != nil {
				t.Fatal(err)
			}
			objects, err := s.List(t.Context(), model.KindIPAMBlock, "")
			if err != nil || len(objects) != tt.want {
				t.Errorf("%d blocks are left, %v, want %d", len(objects), err, tt.want)
			}
		})
	}
}
