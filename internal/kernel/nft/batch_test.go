package nft_test

import (
	"testing"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// guarded is a table with two interfaces, a class and a list each.
func guarded(shut bool) plan.TableDelta {
	list := func(name string) plan.Chain { return plan.Chain{Name: name, Rules: []plan.Rule{{Verdict: plan.Drop}}} }
	return plan.TableDelta{
		PutSets: []plan.Set{{Name: "classes", Type: plan.MapClasses}, {Name: "chains", Type: plan.MapChains}, {Name: "addrs", Type: plan.SetAddrs}},
		Changes: []plan.SetChange{
			{Set: "classes", PutElement: []plan.Element{{Link: "cali1", Value: "c1"}, {Link: "cali2", Value: "c2"}}},
			{Set: "chains", PutElement: []plan.Element{{Link: "c1", Value: "list-1"}, {Link: "c2", Value: "list-2"}}},
		},
		PutChains: []plan.Chain{
			list("list-1"), list("list-2"),
			{Name: "forward", Base: &plan.Base{Hook: plan.Forward}, Rules: []plan.Rule{
				{Verdict: plan.Jump, Target: "dispatch"}, {Verdict: plan.Drop},
			}},
			{Name: "dispatch", Rules: []plan.Rule{{Dispatch: &plan.Dispatch{Classes: "classes", Chains: "chains", Shut: shut}}}},
		},
	}
}

// A change that is for interfaces without a chain is one batch, so that the kernel
// checks the table once; what a packet of another one could meet half of is made in steps.
func TestBatches(t *testing.T) {
	t.Parallel()
	list3 := plan.Chain{Name: "list-3", Rules: []plan.Rule{{Match: []plan.Match{{Kind: plan.MatchSrcSet, Set: "more"}}, Verdict: plan.Accept}, {Verdict: plan.Drop}}}
	more := func(typ plan.SetType) []plan.Set { return []plan.Set{{Name: "more", Type: typ}} }
	class := func(link, class string) plan.SetChange {
		return plan.SetChange{Set: "classes", PutElement: []plan.Element{{Link: link, Value: class}}}
	}
	way := plan.SetChange{Set: "chains", PutElement: []plan.Element{{Link: "c3", Value: "list-3"}}}
	for name, tt := range map[string]struct {
		open  bool
		delta plan.TableDelta
		want  uint64
	}{
		"a link more":                    {delta: plan.TableDelta{Changes: []plan.SetChange{class("cali3", "c2")}}, want: 1},
		"a link with a new list":         {delta: plan.TableDelta{PutSets: more(plan.SetAddrs), PutChains: []plan.Chain{list3}, Changes: []plan.SetChange{way, class("cali3", "c3")}}, want: 1},
		"and with a new set of prefixes": {delta: plan.TableDelta{PutSets: more(plan.SetNets), PutChains: []plan.Chain{list3}, Changes: []plan.SetChange{way, class("cali3", "c3")}}, want: 2},
		"and another link changes":       {delta: plan.TableDelta{PutSets: more(plan.SetAddrs), PutChains: []plan.Chain{list3}, Changes: []plan.SetChange{way, class("cali2", "c3")}}, want: 2},
		"and another chain changes": {delta: plan.TableDelta{
			PutSets: more(plan.SetAddrs), PutChains: []plan.Chain{list3, {Name: "list-1", Rules: list3.Rules}}, Changes: []plan.SetChange{way, class("cali3", "c3")},
		}, want: 2},
		"where others pass": {open: true, delta: plan.TableDelta{PutSets: more(plan.SetAddrs), PutChains: []plan.Chain{list3}, Changes: []plan.SetChange{way, class("cali3", "c3")}}, want: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			n, _ := k.start(nft.Options{Resync: -1})
			n.Apply(plan.FilterDelta{V4: guarded(!tt.open)})
			n.Synced()
			k.wait(n)
			before := n.State().Stats.Batches
			n.Apply(plan.FilterDelta{V4: tt.delta})
			k.wait(n)
			if got := n.State().Stats.Batches - before; got != tt.want {
				t.Errorf("%d batches, want %d", got, tt.want)
			}
		})
	}
}
