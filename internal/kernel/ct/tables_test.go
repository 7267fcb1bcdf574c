package ct

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// tables let new flows pass to workloads at the given ports, and know of flows that
// were ended. They are a delta from nothing.
func tables(ports ...uint16) plan.FilterDelta {
	chain := plan.Chain{Name: "judge", Base: &plan.Base{Hook: plan.Forward}, Rules: []plan.Rule{
		{Match: []plan.Match{{Kind: plan.MatchState, Low: plan.StateEstablished | plan.StateRelated}}, Verdict: plan.Accept},
		{Match: []plan.Match{{Kind: plan.MatchFlow, Set: "ended"}}, Update: "ended", Count: true, Verdict: plan.Drop, Comment: "tomb"},
		// The server's answers would found a flow that is allowed.
		{Match: []plan.Match{{Kind: plan.MatchInLink, Link: "cali2"}}, Verdict: plan.Accept},
	}}
	for _, port := range ports {
		chain.Rules = append(chain.Rules, plan.Rule{Match: []plan.Match{{Kind: plan.MatchProtocol, Low: 6}, {Kind: plan.MatchDstPort, Low: port, High: port}}, Verdict: plan.Accept})
	}
	neighbours := plan.Rule{Match: []plan.Match{{Kind: plan.MatchProtocol, Low: 58}}, Verdict: plan.Accept}
	d := plan.TableDelta{PutSets: []plan.Set{{Name: "ended", Type: plan.SetFlows}}}
	d.PutChains = []plan.Chain{chain}
	d.PutChains[0].Rules = append(chain.Rules, neighbours, plan.Rule{Verdict: plan.Drop})
	return plan.FilterDelta{V4: d, V6: d}
}

// TestThroughTheTables is TestNewDenyEndsFlows with all the real parts: kernel/nft has
// the rules and the tombstones, and the judge reads the plan that it has them from.
func TestThroughTheTables(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"10.0.2.2", "fd00:2::2"} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			n := newNet3(t)
			n.nft("delete table inet t")
			var door *nft.NFT
			n.router.MustDo(func() (err error) { door, err = nft.New(nft.Options{}); return err })
			ctx, cancel := context.WithTimeout(t.Context(), eventually)
			done := make(chan struct{})
			go func() { _ = door.Run(ctx); close(done) }()
			t.Cleanup(func() { cancel(); <-done })
			apply := func(d plan.FilterDelta) {
				door.Apply(d)
				door.Synced()
				if err := door.WaitApplied(ctx); err != nil {
					t.Fatal(err)
				}
			}
			apply(tables(7001, 7002))
			doomed, spared := n.connect("tcp", host, 7001), n.connect("tcp", host, 7002)
			was, _ := spared.entry()
			apply(plan.FilterDelta{V4: plan.TableDelta{PutChains: tables(7002).V4.PutChains}, V6: plan.TableDelta{PutChains: tables(7002).V6.PutChains}})
			link := func(a netip.Addr) string {
				return map[string]string{"10.0.1.2": "cali1", "fd00:1::2": "cali1", "10.0.2.2": "cali2", "fd00:2::2": "cali2"}[a.String()]
			}
			doomed.mustEnd(spared, was, func() {
				n.runEnder(1, func(flows []Flow, forbidden []bool) {
					door.Judge(func(v4, v6 *plan.Machine) {
						judge := NewJudge(link, v4, v6)
						for i := range flows {
							forbidden[i] = judge.Forbids(&flows[i])
						}
					})
				}, func(_ context.Context, tuples []Tuple) error {
					var flows []nft.Flow
					for _, t := range tuples {
						flows = append(flows, nft.Flow{Src: t.Src, Dst: t.Dst, Protocol: t.Protocol, SrcPort: t.SrcPort, DstPort: t.DstPort})
					}
					return door.EndFlows("ended", flows, time.Minute)
				})
			})
		})
	}
}
