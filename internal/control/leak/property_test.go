package leak_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weft-net/weft/internal/control/leak"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

const grace = 15 * time.Minute

// sandbox is what has addresses in truth: a container on a node.
type sandbox struct {
	node, pod, id string
	addrs         []netip.Addr
}

// truth is a cluster as it is, and as its API server has seen it.
type truth struct {
	now     time.Time
	nodes   map[string]bool
	pods    map[string]leak.Pod // what the API server says now
	on      map[string]string   // the node of each pod
	live    map[string]sandbox  // by pod: whose addresses are in use
	pending map[string]bool     // pods whose sandbox has addresses that the API server is not told yet
	blocks  map[netip.Prefix]model.Block
	count   int
	past    []view // what lists have said; the last is the newest
	shown   int    // of past, what the cache of the collector holds
	memory  leak.Memory
	freed   int
}

// view is what lists say at one time.
type view struct {
	nodes map[string]bool
	pods  map[string]leak.Pod
}

func newTruth() *truth {
	w := &truth{
		now: noon(), nodes: map[string]bool{}, pods: map[string]leak.Pod{}, on: map[string]string{}, live: map[string]sandbox{},
		pending: map[string]bool{}, blocks: map[netip.Prefix]model.Block{},
	}
	for i := range 3 {
		w.nodes[fmt.Sprintf("n%d", i)] = true
	}
	w.record()
	return w
}

// record keeps what lists say now.
func (w *truth) record() {
	w.past = append(w.past, view{maps.Clone(w.nodes), maps.Clone(w.pods)})
}

// allocate gives a new sandbox of the pod n addresses on a node.
func (w *truth) allocate(pod string, n int) {
	w.count++
	s := sandbox{node: w.on[pod], pod: pod, id: fmt.Sprintf("c%d", w.count)}
	for i := range n {
		cidr := netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/28", int(s.node[1]-'0')+10*i))
		b, ok := w.blocks[cidr]
		if !ok {
			b = ipam.NewBlock(cidr, model.HostAffinity(s.node), w.now)
		}
		b, got := ipam.Allocate(b, ipam.PodHolder("net."+s.id, s.node, "d", pod, w.now), 1, nil)
		w.blocks[cidr] = b
		s.addrs = append(s.addrs, got...)
	}
	w.live[pod] = s
	w.pending[pod] = true
}

// release is what a DEL of the sandbox does.
func (w *truth) release(s sandbox) {
	for cidr, b := range w.blocks {
		w.blocks[cidr], _ = ipam.ReleaseHandle(b, "net."+s.id, 0, w.now)
	}
}

// report tells the API server the addresses of all sandboxes.
func (w *truth) report() {
	for pod := range w.pending {
		s, ok := w.live[pod]
		if p, exists := w.pods[pod]; ok && exists {
			p.Addrs, p.Container = s.addrs, s.id
			w.pods[pod] = p
		}
	}
	clear(w.pending)
	w.record()
}

// collect is one pass of the collector: lists as its cache has them, live reads as the
// API server has them.
func (w *truth) collect(t *rapid.T) {
	seen := w.past[w.shown]
	v := leak.View{Now: w.now, Grace: grace, Settle: time.Minute, Nodes: seen.nodes, Pods: map[leak.PodName]leak.Pod{}}
	for _, cidr := range slices.SortedFunc(maps.Keys(w.blocks), netip.Prefix.Compare) {
		v.Blocks = append(v.Blocks, w.blocks[cidr])
	}
	for name, p := range seen.pods {
		v.Pods[leak.PodName{Namespace: "d", Name: name}] = p
	}
	plan, memory := leak.Step(v, w.memory)
	w.memory = memory
	for _, s := range plan.Suspects {
		e := leak.Evidence{NodeExists: w.nodes[s.Node]}
		if p, ok := w.pods[s.Pod.Name]; ok {
			e.Pod = &p
		}
		if !s.Dead(e) {
			continue
		}
		for _, h := range s.Held {
			if owner, ok := w.live[s.Pod.Name]; ok && slices.Contains(owner.addrs, h.Addr) {
				t.Fatalf("releases %v, which pod %s has in use", h.Addr, s.Pod.Name)
			}
		}
		w.release(sandbox{id: s.Handle[len("net."):]})
		w.freed += len(s.Held)
	}
	for _, i := range plan.Idle {
		b := w.blocks[i.CIDR]
		if ipam.InUse(b) > 0 || b.Sequence != i.Sequence {
			t.Fatalf("gives up %v, which is not empty", i.CIDR)
		}
		delete(w.blocks, i.CIDR)
	}
}

// step does one thing that happens in clusters.
func (w *truth) step(t *rapid.T) {
	existing := slices.Sorted(maps.Keys(w.pods))
	living := slices.Sorted(maps.Keys(w.nodes))
	pick := func(names []string) string { return rapid.SampledFrom(names).Draw(t, "name") }
	switch what := rapid.IntRange(0, 11).Draw(t, "what"); {
	case what <= 2 && len(living) > 0: // a pod is made, and gets its network
		name := fmt.Sprintf("p%d", rapid.IntRange(0, 7).Draw(t, "pod"))
		if _, there := w.pods[name]; there {
			return
		}
		w.pods[name], w.on[name] = leak.Pod{}, pick(living)
		w.record()
		w.allocate(name, rapid.IntRange(1, 2).Draw(t, "families"))
	case what == 3 && len(existing) > 0: // a pod is deleted in order
		name := pick(existing)
		w.release(w.live[name])
		delete(w.live, name)
		delete(w.pods, name)
		w.record()
	case what == 4 && len(existing) > 0: // a pod is deleted, and its DEL gets lost
		name := pick(existing)
		delete(w.live, name)
		delete(w.pods, name)
		w.record()
	case what == 5 && len(existing) > 0: // a sandbox is made anew, and the DEL of the old one gets lost
		name := pick(existing)
		if !w.pods[name].Ended {
			w.allocate(name, 1)
		}
	case what == 6 && len(existing) > 0: // a pod ends for good, and the DEL gets lost
		name := pick(existing)
		delete(w.live, name)
		p := w.pods[name]
		p.Ended = true
		w.pods[name] = p
		w.record()
	case what == 7 && len(living) > 1: // a node goes, and a while later its pods
		delete(w.nodes, pick(living))
		w.record()
	case what == 8: // pods of nodes that are gone go
		for name, node := range w.on {
			if !w.nodes[node] {
				delete(w.live, name)
				delete(w.pods, name)
				delete(w.on, name)
			}
		}
		w.record()
	case what == 9: // a node comes, or comes back
		w.nodes[fmt.Sprintf("n%d", rapid.IntRange(0, 2).Draw(t, "node"))] = true
		w.record()
	default: // time passes; the API server is told addresses soon after they are given
		d := time.Duration(rapid.IntRange(1, 40).Draw(t, "minutes")) * time.Minute
		w.now = w.now.Add(min(d, grace/2))
		w.report()
		w.now = w.now.Add(max(d-grace/2, 0))
	}
	// The cache moves on, or stays behind however long.
	w.shown = rapid.IntRange(w.shown, len(w.past)-1).Draw(t, "cache")
}

// TestCollector: whatever happens and however old what it is shown, the collector never
// releases an address in use, and releases every other in the end.
func TestCollector(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := newTruth()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			w.step(t)
			if rapid.Bool().Draw(t, "collect") {
				w.collect(t)
			}
		}
		w.report()
		w.shown = len(w.past) - 1
		for range 4 {
			w.now = w.now.Add(grace)
			w.collect(t)
		}
		for _, b := range w.blocks {
			for ord, at := range b.Allocations {
				if at < 0 {
					continue
				}
				addr, holder := ipam.AddrAt(b.CIDR, ord), b.Attributes[at]
				s, ok := w.live[holder.Secondary["pod"]]
				if !ok || "net."+s.id != holder.Handle {
					t.Fatalf("%v of %s is leaked for ever", addr, holder.Handle)
				}
			}
		}
		for pod, s := range w.live {
			for _, a := range s.addrs {
				if !slices.ContainsFunc(slices.Collect(maps.Values(w.blocks)), func(b model.Block) bool {
					return b.CIDR.Contains(a) && slices.Contains(ipam.Held(b, "net."+s.id), a)
				}) {
					t.Fatalf("%v of pod %s is not assigned any more", a, pod)
				}
			}
		}
	})
}
