package allocator_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/etcd/server"
	"github.com/weft-net/weft/internal/store/mem"
	"github.com/weft-net/weft/internal/testenv"
)

// Sizes of the property test.
const (
	crowdNodes   = 8
	crowdWorkers = 10 // on each node
)

// crowdOps is the number of assignments and releases of each worker: fewer under the race
// detector, which makes them ten times as slow.
func crowdOps() int {
	if testing.Short() {
		return 10
	}
	return 50
}

// TestCrowd lets the nodes of a cluster assign and release all at once, from
// pools that are too small for all, while requests and answers get lost, callers
// give up, and node agents die and start again. No address is ever given to two
// holders; in the end the counts are right, and when every handle that anybody
// ever named is released, nothing is left.
func TestCrowd(t *testing.T) {
	t.Parallel()
	calm := new(atomic.Bool)
	for name, open := range map[string]func(*testing.T) func() store.Store{
		"mem": func(*testing.T) func() store.Store {
			s := patient{mem.New()}
			return func() store.Store { return s }
		},
		// No transactions, and any write may be the last one of its commit.
		"mem, piecewise": func(*testing.T) func() store.Store {
			s := mem.Piecewise{Store: mem.New(), Fail: func(op store.Op, before bool) error {
				switch op.Object.Object.(type) {
				case *v3.IPAMBlock, *v3.IPAMHandle, *v3.BlockAffinity, *v3.WorkloadEndpoint:
					if rand.IntN(150) == 0 && !calm.Load() {
						return errLost
					}
				}
				return nil
			}}
			return func() store.Store { return patient{s} }
		},
		"etcd": etcdServer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCrowd(t, open(t))
			c.piecewise, c.calm = name == "mem, piecewise", calm
			c.run()
		})
	}
}

// etcdServer runs an etcd of the test's own and gives connections to it.
func etcdServer(t *testing.T) func() store.Store {
	url := startEtcd(t, t.TempDir())
	return func() store.Store {
		c, err := etcd.Open(context.Background(), etcd.Config{Endpoints: []string{url}, Timeout: testenv.Patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return patient{c}
	}
}

// startEtcd runs a server until the test ends.
func startEtcd(t *testing.T, dir string) (url string) {
	url = "unix://" + filepath.Join(dir, "s")
	s, err := server.Start(t.Context(), server.Config{Dir: filepath.Join(dir, "data"), ClientURLs: []string{url}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return url
}

// patient is a store that takes its time, as on a slow machine: that a round of the
// allocator has an end is not what is looked at here.
type patient struct{ store.Store }

func (p patient) Get(ctx context.Context, key model.Key) (store.Object, error) {
	return p.Store.Get(context.WithoutCancel(ctx), key)
}

func (p patient) List(ctx context.Context, kind model.Kind, ns string) ([]store.Object, error) {
	return p.Store.List(context.WithoutCancel(ctx), kind, ns)
}

func (p patient) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	return p.Store.Commit(context.WithoutCancel(ctx), ops...)
}

// errLost is what becomes of a request or an answer on its way.
var errLost = errors.New("connection lost")

// flaky is a connection that loses requests and answers, and that dies.
type flaky struct {
	store.Store
	dead *atomic.Bool
}

func (f flaky) lost(percent int) bool { return f.dead.Load() || rand.IntN(100) < percent }

func (f flaky) Get(ctx context.Context, key model.Key) (store.Object, error) {
	if f.lost(1) {
		return store.Object{}, errLost
	}
	return f.Store.Get(ctx, key)
}

func (f flaky) List(ctx context.Context, kind model.Kind, ns string) ([]store.Object, error) {
	if f.lost(1) {
		return nil, errLost
	}
	return f.Store.List(ctx, kind, ns)
}

func (f flaky) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if f.lost(2) {
		return nil, errLost
	}
	objects, err := f.Store.Commit(ctx, ops...)
	if f.lost(2) {
		return nil, errLost
	}
	return objects, err
}

// crowd is the test under way.
type crowd struct {
	*testing.T
	open      func() store.Store
	store     store.Store  // the test's own
	piecewise bool         // there are no transactions
	calm      *atomic.Bool // nothing fails any more in the middle of a commit
	nodes     []*crowdNode

	mu      sync.Mutex
	holders map[netip.Addr]string // of addresses that a worker was told it has
	unsure  map[string]bool       // handles whose last answer was lost
	never   map[string]bool       // handles for which nothing was begun
	counts  map[string]int        // of outcomes
}

// crowdNode is a node, whose agent changes as agents die.
type crowdNode struct {
	*crowd
	name string

	mu    sync.Mutex
	agent *allocator.Allocator
	kill  func()
}

func newCrowd(t *testing.T, open func() store.Store) *crowd {
	c := &crowd{
		T: t, open: open, store: open(),
		holders: map[netip.Addr]string{}, unsure: map[string]bool{}, never: map[string]bool{}, counts: map[string]int{},
	}
	docs := []string{
		"kind: IPPool\nmetadata:\n  name: pool-a\nspec:\n  cidr: 10.10.0.0/25\n  blockSize: 28\n",
		"kind: IPPool\nmetadata:\n  name: pool-b\nspec:\n  cidr: 10.20.0.0/28\n  blockSize: 30\n",
		"kind: IPPool\nmetadata:\n  name: pool-c\nspec:\n  cidr: fd00::/120\n  blockSize: 124\n",
	}
	for i := range crowdNodes {
		n := &crowdNode{crowd: c, name: fmt.Sprintf("node-%d", i)}
		docs = append(docs, "kind: Node\nmetadata:\n  name: "+n.name+"\nspec: {}\n")
		c.nodes = append(c.nodes, n)
	}
	for _, doc := range docs {
		o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\n" + doc))
		if err == nil {
			_, err = c.store.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(o)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// restart kills the node's agent; callers find the next one.
func (n *crowdNode) restart() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kill()
	n.start()
}

// start gives the node a new agent that knows nothing.
func (n *crowdNode) start() {
	dead := new(atomic.Bool)
	a := allocator.New(flaky{n.open(), dead}, n.name, time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Run(ctx)
	}()
	n.agent = a
	n.kill = func() {
		dead.Store(true) // what is under way is carried out, but nobody hears of it
		cancel()
		<-done
	}
}

func (n *crowdNode) allocator() *allocator.Allocator {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent
}

func (c *crowd) run() {
	var workers sync.WaitGroup
	for _, n := range c.nodes {
		n.start()
		for w := range crowdWorkers {
			workers.Go(func() { n.work(fmt.Sprintf("%s-%d", n.name, w)) })
		}
		// One more that kills the agent now and then: after a number of
		// outcomes, not after a time.
		workers.Go(func() {
			for kills := range 3 {
				n.waitFor((kills + 1) * crowdNodes * crowdWorkers * crowdOps() / 5)
				n.restart()
			}
		})
	}
	workers.Wait()
	// Whether the workers had the pools empty is a matter of luck: now all nodes take the
	// rest, until there is none.
	for _, n := range c.nodes {
		workers.Go(func() {
			for i := 0; c.count("exhausted") == 0; i++ {
				n.assign(fmt.Sprintf("net.%s-rest-%d", n.name, i))
			}
		})
	}
	workers.Wait()
	for _, n := range c.nodes {
		n.kill()
	}
	c.Logf("outcomes: %v; held at the end: %d; unsure: %d", c.counts, len(c.holders), len(c.unsure))
	for _, outcome := range []string{"assigned", "released", "exhausted", "lost"} {
		if c.counts[outcome] == 0 {
			c.Errorf("the outcome %q did not occur: the test shows nothing", outcome)
		}
	}
	if c.piecewise {
		c.calm.Store(true)
		c.tidy()
	}
	c.checkHeld()
	c.releaseAll()
}

// tidy lets every node look at its blocks once more: claims that were left half done are
// put in order by that.
func (c *crowd) tidy() {
	for _, n := range c.nodes {
		if _, err := start(c.T, c.store, n.name, time.Now).Release(c.Context(), "net.none"); err != nil {
			c.Error(err)
		}
	}
}

// count is how often an outcome occurred.
func (c *crowd) count(outcome string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[outcome]
}

// waitFor returns when the workers have had that many outcomes.
func (c *crowd) waitFor(outcomes int) {
	for {
		c.mu.Lock()
		sum := 0
		for _, n := range c.counts {
			sum += n
		}
		c.mu.Unlock()
		if sum >= outcomes {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// work assigns and releases, holding a few addresses at a time.
func (n *crowdNode) work(name string) {
	var held []string
	for i := range crowdOps() {
		if len(held) > 0 && (rand.IntN(2) == 0 || len(held) > 3) {
			n.release(held[0])
			held = held[1:]
			continue
		}
		handle := fmt.Sprintf("net.%s-%d", name, i)
		if n.assign(handle) {
			held = append(held, handle)
		}
	}
}

// assign asks until it has a definite answer, or leaves the handle unsure.
func (n *crowdNode) assign(handle string) bool {
	req := allocator.Request{Request: ipam.Request{
		Use:    model.UseWorkload,
		Holder: model.Attribute{Handle: handle, Secondary: map[string]string{"node": n.name, "pod": handle}},
	}}
	req.V4.Count, req.V6.Count = 1, rand.IntN(2)
	verb, begun := store.Create, false
	req.Extra = func(addrs []ipam.Assigned) ([]store.Op, error) {
		return []store.Op{{Verb: verb, Object: store.New(endpoint(handle, addrs))}}, nil
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
		if rand.IntN(20) == 0 {
			cancel() // a caller that has gone already
		}
		res, err := n.allocator().Assign(ctx, req)
		cancel()
		var exhausted *ipam.ExhaustedError
		switch {
		case err == nil:
			n.note(handle, "assigned", res.Addrs)
			return true
		case errors.As(err, &exhausted) && (errors.Is(err, allocator.ErrUnknownOutcome) || begun && n.piecewise):
			n.note(handle, "lost", nil) // an earlier try may have left something, which releasing finds
			return false
		case errors.As(err, &exhausted):
			n.note(handle, "exhausted", nil)
			return false
		case errors.Is(err, store.ErrExists) && begun:
			verb = store.Update // carried out after all; its answer was lost
		case errors.Is(err, context.Canceled) && !begun:
			n.note(handle, "not begun", nil)
			return false
		case errors.Is(err, allocator.ErrStopped), errors.Is(err, context.Canceled), crowdedOut(err) && !n.piecewise:
		case errors.Is(err, errLost), errors.Is(err, allocator.ErrUnknownOutcome), crowdedOut(err):
			begun = true
			if n.note(handle, "lost", nil); rand.IntN(2) == 0 {
				return false
			}
		default:
			n.Errorf("assign %s: %v", handle, err)
			return false
		}
	}
}

// crowdedOut reports whether others were faster each time: nothing was changed.
func crowdedOut(err error) bool { return strings.Contains(err.Error(), "given up after") }

// release frees a handle. The addresses count as free from the moment of asking.
func (n *crowdNode) release(handle string) {
	n.crowd.mu.Lock()
	maps.DeleteFunc(n.holders, func(_ netip.Addr, h string) bool { return h == handle })
	n.crowd.mu.Unlock()
	for {
		_, err := n.allocator().Release(context.Background(), handle, store.Op{Verb: store.Delete, Object: store.New(endpoint(handle, nil))})
		switch {
		case err == nil:
			n.note(handle, "released", nil)
			return
		case errors.Is(err, allocator.ErrStopped), crowdedOut(err):
		case errors.Is(err, errLost), errors.Is(err, allocator.ErrUnknownOutcome):
			n.note(handle, "lost", nil)
		default:
			n.Errorf("release %s: %v", handle, err)
			return
		}
	}
}

// note records an outcome, and that no two handles have one address.
func (c *crowd) note(handle, outcome string, addrs []ipam.Assigned) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[outcome]++
	delete(c.unsure, handle)
	switch outcome {
	case "lost":
		c.unsure[handle] = true
	case "not begun", "exhausted":
		c.never[handle] = true
	}
	for _, a := range addrs {
		if other, ok := c.holders[a.Addr]; ok && other != handle {
			c.Errorf("%v was given to %s and to %s", a.Addr, other, handle)
		}
		c.holders[a.Addr] = handle
	}
}

// endpointName is the name of the endpoint that goes with a handle.
func endpointName(handle string) string {
	return "node-cni-" + strings.NewReplacer(".", "", "-", "").Replace(handle) + "-eth0"
}

func endpoint(handle string, addrs []ipam.Assigned) *v3.WorkloadEndpoint {
	o, _ := v3.New("WorkloadEndpoint")
	ep := o.(*v3.WorkloadEndpoint)
	id := strings.NewReplacer(".", "", "-", "").Replace(handle)
	ep.Name, ep.Namespace = endpointName(handle), "default"
	ep.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: "cni", Node: "node", ContainerID: id, Endpoint: "eth0", InterfaceName: "cali12345678901",
	}
	for _, a := range addrs {
		ep.Spec.IPNetworks = append(ep.Spec.IPNetworks, netip.PrefixFrom(a.Addr, a.Addr.BitLen()).String())
	}
	return ep
}

// list reads and parses all objects of a kind.
func list[T model.Value](c *crowd, kind model.Kind) []T {
	objects, err := c.store.List(c.Context(), kind, "")
	if err != nil {
		c.Fatal(err)
	}
	var all []T
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		if err != nil {
			c.Fatal(err)
		}
		all = append(all, v.(T))
	}
	return all
}

// checkHeld compares what is stored with what the workers were told.
func (c *crowd) checkHeld() {
	stored := map[netip.Addr]string{}
	counts := map[string]map[netip.Prefix]int{}
	for _, b := range list[model.Block](c, model.KindIPAMBlock) {
		for ord := range b.Allocations {
			a := ipam.AddrAt(b.CIDR, ord)
			if h, ok := ipam.HolderOf(b, a); ok {
				stored[a] = h.Handle
				if counts[h.Handle] == nil {
					counts[h.Handle] = map[netip.Prefix]int{}
				}
				counts[h.Handle][b.CIDR]++
			}
		}
	}
	for a, h := range c.holders {
		if stored[a] != h && !c.unsure[h] {
			c.Errorf("%v was given to %s, but is stored as held by %q", a, h, stored[a])
		}
	}
	for a, h := range stored {
		if c.holders[a] != h && !c.unsure[h] {
			c.Errorf("%v is stored as held by %s, which was never told or has released it", a, h)
		}
		if c.never[h] && !c.unsure[h] {
			c.Errorf("%v is held by %s, whose request was refused", a, h)
		}
	}
	for _, h := range list[model.Handle](c, model.KindIPAMHandle) {
		if c.piecewise && c.unsure[h.ID] {
			// It was written before its blocks, or not yet after them: but it names them all.
			for cidr := range counts[h.ID] {
				if h.Blocks[cidr] == 0 {
					c.Errorf("handle %s does not name %v, where it has addresses: %v", h.ID, cidr, h.Blocks)
				}
			}
		} else if !maps.Equal(h.Blocks, counts[h.ID]) {
			c.Errorf("handle %s counts %v, blocks say %v", h.ID, h.Blocks, counts[h.ID])
		}
		delete(counts, h.ID)
	}
	if len(counts) > 0 {
		c.Errorf("addresses without a handle: %v", counts)
	}
	for _, ep := range list[model.Endpoint](c, model.KindWorkloadEndpoint) {
		for _, a := range ep.Addrs {
			if endpointName(stored[a]) != ep.Name {
				c.Errorf("endpoint %s has %v, which is held by %q", ep.Name, a, stored[a])
			}
		}
	}
	c.checkAffinities()
}

// checkAffinities compares blocks and the claims on them.
func (c *crowd) checkAffinities() {
	owners := map[netip.Prefix]model.Affinity{}
	for _, b := range list[model.Block](c, model.KindIPAMBlock) {
		owners[b.CIDR] = b.Owner
	}
	for _, a := range list[model.BlockAffinity](c, model.KindBlockAffinity) {
		if owners[a.CIDR] != a.Owner || a.State != model.AffinityConfirmed {
			c.Errorf("affinity %v is %s, but the block's owner is %q", a.Key(), a.State, owners[a.CIDR])
		}
		delete(owners, a.CIDR)
	}
	if len(owners) > 0 {
		c.Errorf("blocks without an affinity: %v", owners)
	}
}

// releaseAll frees everything and expects that nothing is left.
func (c *crowd) releaseAll() {
	a := start(c.T, c.store, "node-0", time.Now)
	handles := maps.Clone(c.unsure)
	for _, h := range c.holders {
		handles[h] = true
	}
	var done sync.WaitGroup
	for h := range handles {
		done.Go(func() {
			gone := store.Op{Verb: store.Delete, Object: store.New(endpoint(h, nil))}
			_, err := a.Release(c.Context(), h, gone)
			for errors.Is(err, allocator.ErrUnknownOutcome) { // the machine is busy
				_, err = a.Release(c.Context(), h, gone)
			}
			if err != nil {
				c.Error(err)
			}
		})
	}
	done.Wait()
	for _, b := range list[model.Block](c, model.KindIPAMBlock) {
		if n := ipam.InUse(b); n > 0 {
			c.Errorf("block %v: %d addresses leaked", b.CIDR, n)
		}
	}
	if left := list[model.Handle](c, model.KindIPAMHandle); len(left) > 0 {
		c.Errorf("%d handles are left", len(left))
	}
	if left := list[model.Endpoint](c, model.KindWorkloadEndpoint); len(left) > 0 {
		c.Errorf("%d endpoints are left", len(left))
	}
}
