package nft_test

import (
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// During a large transaction nobody listens. What others do meanwhile is undone, as is
// what they do after it; and if nobody does anything, nothing is read again.
func TestLargeTransaction(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	n, _ := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: sample(false)})
	n.Synced()
	k.wait(n)
	large := func(name string) plan.FilterDelta {
		c := plan.SetChange{Set: name}
		for i := range 40_000 {
			c.Put = append(c.Put, worldAddr(i))
		}
		return plan.FilterDelta{V4: plan.TableDelta{PutSets: []plan.Set{{Name: name, Type: plan.SetAddrs}}, Changes: []plan.SetChange{c}}}
	}
	reads := n.State().Stats.Reads
	n.Apply(large("alone"))
	k.wait(n)
	if s := n.State().Stats; s.Reads != reads {
		t.Errorf("%d reads, want none", s.Reads-reads)
	}
	clean := func() bool { return !strings.Contains(k.nft("list", "chain", "ip", "weft", "forward"), "intruder") }
	for _, name := range []string{"among", "others", "again"} {
		n.Apply(large(name))
		for range 5 {
			k.nft("insert rule ip weft forward counter accept comment intruder")
		}
		k.wait(n)
		k.until(healed, "the chain is as wanted again", clean)
	}
	k.nft("insert rule ip weft forward counter accept comment intruder")
	k.until(healed, "the chain is as wanted again after it", clean)
	if got := strings.Count(k.nft("list", "set", "ip", "weft", "again"), "10.0."); got == 0 {
		t.Error("the large set is empty")
	}
}
