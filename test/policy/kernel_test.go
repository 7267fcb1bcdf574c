package policy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
	"github.com/weft-net/weft/test/policy/world"
)

// The kernel does what the explanation says: packets are sent through a namespace with
// an interface for each workload and one for the rest of the world, world after world.
func TestKernelIsTheVerdict(t *testing.T) {
	t.Parallel()
	c := comparison{T: t, kernel: newKernel(t)}
	for n := range *worlds {
		s := *seed + uint64(n)
		w, err := world.Random(rand.New(rand.NewPCG(s, 0)))
		if err != nil {
			t.Fatal(err)
		}
		c.world(s, w)
		if c.differing == enough {
			t.FailNow()
		}
	}
	time.Sleep(late) // for what the kernel was not to let through
	c.collect()
	now := 0
	for _, p := range c.passed {
		if p {
			now++
		}
	}
	if c.differing == 0 && now != c.through {
		t.Errorf("%d packets came out later that were not to", now-c.through)
	}
	t.Logf("%d packets over %d worlds, %d passed, %d of them answers", len(c.sent), *worlds, c.through, c.answers)
}

// comparison is the worlds so far.
type comparison struct {
	*testing.T
	*kernel
	through, answers int // packets that passed, answers among them
	differing        int // worlds with a difference
}

// world compares one world's packets, and then their answers.
func (c *comparison) world(s uint64, w world.World) {
	f := compile(w)
	if err := c.program(f.Filter); err != nil {
		c.Fatalf("-seed %d -worlds 1: %v\n%v", s, err, w)
	}
	ps := w.Packets(rand.New(rand.NewPCG(s, 1)), perWorld)
	got, want, err := c.compare(w, ps)
	if err != nil {
		c.Fatal(err)
	}
	for i, p := range ps {
		if got[i] {
			c.through++
		}
		if got[i] == want[i] && differ(w, f, p) == "" {
			continue
		}
		c.patience = late // each step may wait for what does not come
		small := shrink(w, func(w world.World) string { return c.differ(w, p) })
		why := c.differ(small, p)
		if why == "" {
			why = fmt.Sprintf("only among others: explained %v, kernel %v", want[i], got[i])
		}
		c.Errorf("-seed %d -worlds 1: %v\n%s\n%v", s, p, why, small)
		c.differing++
		return // the kernel has forgotten the connections
	}
	answers := answersTo(w, ps, got)
	c.answers, c.through = c.answers+len(answers), c.through+len(answers)
	got, err = c.send(answers, slices.Repeat([]bool{true}, len(answers)))
	if err != nil {
		c.Fatal(err)
	}
	if i := slices.Index(got, false); i >= 0 {
		c.Fatalf("-seed %d -worlds 1: the answer is dropped: %v\n%v", s, answers[i], w)
	}
}

// answersTo are packets the other way, of connections that were let through. They pass
// whatever policy says of their direction, unless the connection is not tracked.
func answersTo(w world.World, ps []world.Packet, passed []bool) []world.Packet {
	for _, v := range w.Values {
		if p, ok := v.(model.Policy); ok && p.DoNotTrack {
			return nil
		}
	}
	var out []world.Packet
	for i, p := range ps {
		own := true // its answer finds the way back to the sender
		if e, ok := w.Values[p.Query.Src.Key].(model.Endpoint); ok {
			own = slices.Contains(e.Addrs, p.Src)
		}
		if passed[i] && own && p.In != "" && p.Out != "" && p.Protocol == 17 {
			p.Src, p.Dst, p.In, p.Out, p.SrcPort, p.DstPort = p.Dst, p.Src, p.Out, p.In, p.DstPort, p.SrcPort
			out = append(out, p)
		}
	}
	return out
}

// compare sends packets, and says which came out and which should have.
func (k *kernel) compare(w world.World, ps []world.Packet) (got, want []bool, err error) {
	v := w.View()
	for _, p := range ps {
		e, err := v.Verdict(p.Query)
		if err != nil {
			return nil, nil, err
		}
		want = append(want, e.Allowed)
	}
	got, err = k.send(ps, want)
	return got, want, err
}

// differ sends p through the kernel alone, programmed for w; empty: it does what is
// explained.
func (k *kernel) differ(w world.World, p world.Packet) string {
	e, err := w.View().Verdict(p.Query)
	if err != nil {
		return "" // shrinking took an end of the packet away
	}
	f := compile(w)
	if err := k.program(f.Filter); err != nil {
		return "the kernel refuses the rules\n" + err.Error()
	}
	passed, _, err := k.compare(w, []world.Packet{p})
	if err != nil || passed[0] == e.Allowed {
		return differ(w, f, p)
	}
	allowed, rule, _ := judge(f, p)
	return fmt.Sprintf("explained: allowed %v; kernel: %v; rules: %v by %q\n%v", e.Allowed, passed[0], allowed, rule, e)
}

// kernel is a namespace that forwards between TUN devices, with its packet filter.
type kernel struct {
	*ground
	nft *nft.NFT
	has plan.Filter // programmed
}

func newKernel(t *testing.T) *kernel {
	k := &kernel{ground: newGround(t), has: plan.Filter{}}
	err := k.ns.Do(func() (err error) { k.nft, err = nft.New(nft.Options{}); return err })
	if err != nil {
		testenv.Skip(t, "no nf_tables: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.nft.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("nft: %v", err)
		}
	})
	k.nft.Synced()
	return k
}

// program replaces one world's rules by another's, and forgets all connections.
func (k *kernel) program(f plan.Filter) error {
	k.nft.Apply(plan.FilterDelta{V4: change(k.has.V4, f.V4), V6: change(k.has.V6, f.V6)})
	k.has = f
	return k.settle()
}

// change is what makes new of old.
func change(old, now plan.Table) plan.TableDelta {
	var d plan.TableDelta
	for name, s := range now.Sets {
		c := plan.SetChange{Set: name}
		was := old.Sets[name]
		if was == nil {
			d.PutSets = append(d.PutSets, s.Set)
			was = plan.NewSetContent(s.Set)
		}
		c.Put, c.Delete = keys(s.Members, was.Members)
		c.PutElement, c.DeleteElement = keys(s.Elements, was.Elements)
		d.Changes = append(d.Changes, c)
	}
	for name := range old.Sets {
		if now.Sets[name] == nil {
			d.DeleteSets = append(d.DeleteSets, name)
		}
	}
	for name, c := range now.Chains {
		if was, ok := old.Chains[name]; !ok || !was.Equal(c) {
			d.PutChains = append(d.PutChains, c)
		}
	}
	for name := range old.Chains {
		if _, ok := now.Chains[name]; !ok {
			d.DeleteChains = append(d.DeleteChains, name)
		}
	}
	return d
}

// keys are those that a has and b has not, and the other way round.
func keys[K comparable](a, b map[K]struct{}) (more, less []K) {
	for k := range a {
		if _, ok := b[k]; !ok {
			more = append(more, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			less = append(less, k)
		}
	}
	return more, less
}
