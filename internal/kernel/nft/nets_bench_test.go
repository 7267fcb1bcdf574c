package nft_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// BenchmarkNets is one prefix into a set of 100,000, and out.
func BenchmarkNets(b *testing.B) {
	prefix := func(i int) []plan.Member {
		return []plan.Member{plan.NetMember(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 30))}
	}
	k := newKernel(b)
	n, _ := k.start(nft.Options{})
	c := plan.SetChange{Set: "nets"}
	for i := range 100_000 {
		c.Put = append(c.Put, prefix(i*8)...)
	}
	n.Apply(plan.FilterDelta{V4: plan.TableDelta{PutSets: []plan.Set{{Name: "nets", Type: plan.SetNets}}, Changes: []plan.SetChange{c}}})
	start := time.Now()
	n.Synced()
	k.wait(n)
	b.Logf("programmed in %v", time.Since(start))
	b.ReportAllocs()
	each(b, n, func(i int) plan.TableDelta {
		if i%2 == 0 {
			return plan.TableDelta{Changes: []plan.SetChange{{Set: "nets", Put: prefix(i*4 + 4)}}}
		}
		return plan.TableDelta{Changes: []plan.SetChange{{Set: "nets", Delete: prefix(i * 4)}}}
	})
}
