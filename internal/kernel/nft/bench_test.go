package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

const (
	worldPolicies = 2000
	worldRules    = 10 // of each
	worldSets     = 400
	worldMembers  = 500 // of each
	worldLists    = 1000
	worldTier     = 5
	worldLinks    = 5000
)

func worldAddr(i int) plan.Member {
	return plan.AddrMember(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
}

// policyChain is policy i, whose first rule allows a port.
func policyChain(i int, port uint16) plan.Chain { return policyChainOf(worldRules, i, port) }

func policyChainOf(rules, i int, port uint16) plan.Chain {
	c := plan.Chain{Name: fmt.Sprintf("policy-%d", i)}
	for r := range rules {
		p := port
		if r > 0 {
			p = uint16(1000 + r)
		}
		c.Rules = append(c.Rules, plan.Rule{
			Match: []plan.Match{
				{Kind: plan.MatchProtocol, Low: 6},
				{Kind: plan.MatchSrcSet, Set: fmt.Sprintf("set-%d", (i+r)%worldSets)},
				{Kind: plan.MatchDstPort, Low: p, High: p},
			},
			Count: true, Verdict: plan.Accept, Comment: fmt.Sprintf("policy-%d.%d", i, r),
		})
	}
	return c
}

// world is a node with many policies, shared in lists, and interfaces.
func world() plan.TableDelta { return worldOf(worldRules) }

// worldOf is world with so many rules in each policy.
func worldOf(rules int) plan.TableDelta {
	d := plan.TableDelta{PutSets: []plan.Set{{Name: "classes", Type: plan.MapClasses}, {Name: "chains", Type: plan.MapChains}}}
	for i := range worldSets {
		name := fmt.Sprintf("set-%d", i)
		d.PutSets = append(d.PutSets, plan.Set{Name: name, Type: plan.SetAddrs})
		c := plan.SetChange{Set: name}
		for m := range worldMembers {
			c.Put = append(c.Put, worldAddr(i*worldMembers+m))
		}
		d.Changes = append(d.Changes, c)
	}
	for i := range worldPolicies {
		d.PutChains = append(d.PutChains, policyChainOf(rules, i, 80))
	}
	classes, chains := plan.SetChange{Set: "classes"}, plan.SetChange{Set: "chains"}
	for i := range worldLists {
		list := plan.Chain{Name: fmt.Sprintf("list-%d", i)}
		for p := range worldTier {
			list.Rules = append(list.Rules, plan.Rule{Verdict: plan.Jump, Target: fmt.Sprintf("policy-%d", (i*worldTier+p)%worldPolicies)})
		}
		list.Rules = append(list.Rules, plan.Rule{Count: true, Verdict: plan.Drop})
		d.PutChains = append(d.PutChains, list)
		chains.PutElement = append(chains.PutElement, plan.Element{Link: fmt.Sprintf("l%d", i), Value: list.Name})
	}
	for i := range worldLinks {
		classes.PutElement = append(classes.PutElement, plan.Element{Link: fmt.Sprintf("cali%d", i), Value: fmt.Sprintf("l%d", i%worldLists)})
	}
	d.Changes = append(d.Changes, classes, chains)
	d.PutChains = append(d.PutChains, plan.Chain{
		Name: "forward", Base: &plan.Base{Hook: plan.Forward},
		Rules: []plan.Rule{
			{Match: []plan.Match{{Kind: plan.MatchState, Low: plan.StateEstablished | plan.StateRelated}}, Verdict: plan.Accept},
			{Dispatch: &plan.Dispatch{Classes: "classes", Chains: "chains"}},
		},
	})
	return d
}

// startWorld programs the world.
func startWorld(b *testing.B) *nft.NFT { return startWorldOf(b, worldRules) }

func startWorldOf(b *testing.B, rules int) *nft.NFT {
	b.Helper()
	k := newKernel(b)
	n, _ := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: worldOf(rules)})
	start := time.Now()
	n.Synced()
	k.wait(n)
	b.Logf("programmed in %v", time.Since(start))
	return n
}

// each applies one delta per turn, waits for the kernel, and reports percentiles.
func each(b *testing.B, n *nft.NFT, delta func(i int) plan.TableDelta) {
	b.Helper()
	var times []time.Duration
	i := 0
	for b.Loop() {
		d := plan.FilterDelta{V4: delta(i)}
		i++
		start := time.Now()
		n.Apply(d)
		if err := n.WaitApplied(context.Background()); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkElement is one address into a set and out.
func BenchmarkElement(b *testing.B) {
	n := startWorld(b)
	b.ReportAllocs()
	each(b, n, func(i int) plan.TableDelta {
		m := []plan.Member{worldAddr(worldSets*worldMembers + 7)}
		if i%2 == 0 {
			return plan.TableDelta{Changes: []plan.SetChange{{Set: "set-0", Put: m}}}
		}
		return plan.TableDelta{Changes: []plan.SetChange{{Set: "set-0", Delete: m}}}
	})
}

// BenchmarkElementDuringResync is BenchmarkElement while all is being read, always.
func BenchmarkElementDuringResync(b *testing.B) {
	n := startWorld(b)
	m := []plan.Member{worldAddr(worldSets*worldMembers + 7)}
	each(b, n, func(i int) plan.TableDelta {
		n.Resync()
		if i%2 == 0 {
			return plan.TableDelta{Changes: []plan.SetChange{{Set: "set-0", Put: m}}}
		}
		return plan.TableDelta{Changes: []plan.SetChange{{Set: "set-0", Delete: m}}}
	})
}

// BenchmarkRule is one rule changed in one policy among 2,000, of one rule and of ten.
func BenchmarkRule(b *testing.B) {
	for _, rules := range []int{1, worldRules} {
		b.Run(fmt.Sprint(rules*worldPolicies), func(b *testing.B) {
			n := startWorldOf(b, rules)
			b.ReportAllocs()
			each(b, n, func(i int) plan.TableDelta {
				return plan.TableDelta{PutChains: []plan.Chain{policyChainOf(rules, i%7, uint16(100+i%1000))}}
			})
		})
	}
}

// BenchmarkEndpoint is one more interface with a list that is known.
func BenchmarkEndpoint(b *testing.B) {
	n := startWorld(b)
	b.ReportAllocs()
	each(b, n, func(i int) plan.TableDelta {
		e := []plan.Element{{Link: "calinew", Value: "l7"}}
		if i%2 == 0 {
			return plan.TableDelta{Changes: []plan.SetChange{{Set: "classes", PutElement: e}}}
		}
		return plan.TableDelta{Changes: []plan.SetChange{{Set: "classes", DeleteElement: e}}}
	})
}

// BenchmarkClass is one more class with its chain, which the kernel validates.
func BenchmarkClass(b *testing.B) {
	n := startWorld(b)
	b.ReportAllocs()
	each(b, n, func(i int) plan.TableDelta {
		e := []plan.Element{{Link: "new", Value: "list-7"}}
		if i%2 == 0 {
			return plan.TableDelta{Changes: []plan.SetChange{{Set: "chains", PutElement: e}}}
		}
		return plan.TableDelta{Changes: []plan.SetChange{{Set: "chains", DeleteElement: e}}}
	})
}

// BenchmarkResync reads 24,000 rules and 200,000 members back and finds nothing to do.
func BenchmarkResync(b *testing.B) {
	n := startWorld(b)
	b.ReportAllocs()
	for b.Loop() {
		reads := n.State().Stats.Reads
		n.Resync()
		for n.State().Stats.Reads < reads+2 {
			time.Sleep(time.Millisecond)
		}
	}
	if s := n.State().Stats; s.Transactions != 1 {
		b.Errorf("%d transactions, want 1", s.Transactions)
	}
}

// BenchmarkRestart is the time from Synced until the next agent knows that all is as
// wanted.
func BenchmarkRestart(b *testing.B) {
	k := newKernel(b)
	n, stop := k.start(nft.Options{})
	d := plan.FilterDelta{V4: world()}
	n.Apply(d)
	n.Synced()
	k.wait(n)
	stop()
	for _, early := range []bool{false, true} {
		b.Run(fmt.Sprintf("early=%t", early), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				n, stop := k.start(nft.Options{})
				for early && n.State().Stats.Reads < 2 {
					time.Sleep(time.Millisecond)
				}
				n.Apply(d)
				b.StartTimer()
				n.Synced()
				k.wait(n)
				b.StopTimer()
				if s := n.State().Stats; s.Transactions != 0 {
					b.Errorf("%d transactions, want none", s.Transactions)
				}
				stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkJudge is 512 flows under the door's lock, after a change of a member or of
// a chain.
func BenchmarkJudge(b *testing.B) {
	for name, d := range map[string]plan.TableDelta{
		"member": {Changes: []plan.SetChange{{Set: "set-0", Put: []plan.Member{worldAddr(7)}}}},
		"chain":  {PutChains: []plan.Chain{policyChain(7, 81)}},
	} {
		b.Run(name, func(b *testing.B) {
			k := newKernel(b)
			n, _ := k.start(nft.Options{})
			n.Apply(plan.FilterDelta{V4: world()})
			b.ReportAllocs()
			for b.Loop() {
				n.Apply(plan.FilterDelta{V4: d})
				n.Judge(func(v4, _ *plan.Machine) {
					for i := range 512 {
						v4.Verdict(plan.Forward, plan.Packet{
							InLink: fmt.Sprintf("cali%d", i), Src: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}),
							Protocol: 6, DstPort: 80, State: plan.StateNew,
						})
					}
				})
			}
		})
	}
}
