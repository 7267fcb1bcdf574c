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
	k := newKernel(t)
	packets, passed, found := 0, 0, map[string]bool{}
	for n := range *worlds {
		s := *seed + uint64(n)
		w, err := world.Random(rand.New(rand.NewPCG(s, 0)))
		if err != nil {
			t.Fatal(err)
		}
		f := compile(w)
		if err := k.program(f.Filter); err != nil {
			t.Fatalf("-seed %d -worlds 1: %v\n%v", s, err, w)
		}
		ps := w.Packets(rand.New(rand.NewPCG(s, 1)), perWorld)
		got, want, err := k.compare(w, ps)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range ps {
			packets++
			if got[i] {
				passed++
			}
			if got[i] == want[i] && differ(w, f, p) == "" {
				continue
			}
			small := shrink(w, func(w world.World) string { return k.differ(w, p) })
			why := k.differ(small, p)
			if why == "" {
				why = fmt.Sprintf("only among others: explained %v, kernel %v", want[i], got[i])
			}
			if !found[kind(why)] {
				found[kind(why)] = true
				t.Errorf("-seed %d -worlds 1: %v\n%s\n%v", s, p, why, small)
			}
			if len(found) > 3 {
				t.FailNow()
			}
			break
		}
		if len(found) > 0 {
			continue // the kernel has forgotten the connections since
		}
		answers := answersTo(w, ps, got)
		all := make([]bool, len(answers))
		for i := range all {
			all[i] = true
		}
		got, err = k.send(answers, all)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range answers {
			passed++
			if !got[i] {
				t.Fatalf("-seed %d -worlds 1: the answer is dropped: %v\n%v", s, p, w)
			}
		}
	}
	time.Sleep(late) // for what the kernel was not to let through
	k.collect()
	now := 0
	for _, p := range k.passed {
		if p {
			now++
		}
	}
	if len(found) == 0 && now != passed {
		t.Errorf("%d packets came out later that were not to", now-passed)
	}
	t.Logf("%d packets over %d worlds, %d passed", packets, *worlds, passed)
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
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := k.nft.WaitApplied(ctx); err != nil {
		return err
	}
	return k.forget()
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
