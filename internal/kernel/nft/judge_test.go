package nft_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// TestJudge: the door judges as the fold of what was applied, with machines that
// outlive changes of members.
func TestJudge(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		k := newKernel(t)
		n, _ := k.start(nft.Options{})
		n.Synced()
		w := &randomWorld{Rand: rand.New(rand.NewPCG(seed, 2)), v6: seed%2 == 1}
		verdicts := map[plan.Verdict]int{}
		for range 80 {
			n.Apply(w.delta(w.step()))
			for range 3 { // members alone
				var d plan.TableDelta
				for _, s := range w.fold.Sets {
					if !s.Type.HasElements() {
						d.Changes = append(d.Changes, plan.SetChange{Set: s.Name, Put: []plan.Member{w.member(s.Type)}})
					}
				}
				w.fold = w.fold.Apply(d)
				n.Apply(w.delta(d))
				n.Judge(func(v4, v6 *plan.Machine) {
					m := v4
					if w.v6 {
						m = v6
					}
					for range 30 {
						p := w.packet()
						got, want := m.Verdict(plan.Forward, p), w.fold.Judge(plan.Forward, p)
						verdicts[want.Verdict]++
						if got.Verdict != want.Verdict || got.Rule != want.Rule || got.Chain != want.Chain {
							t.Fatalf("seed %d: %+v: got %+v, want %+v", seed, p, got, want)
						}
					}
				})
			}
		}
		if len(verdicts) < 2 {
			t.Errorf("seed %d: all verdicts are the same: %v", seed, verdicts)
		}
	}
}

func (w *randomWorld) packet() plan.Packet {
	return plan.Packet{
		InLink: "cali" + string(rune('0'+w.IntN(5))), Src: w.member(plan.SetAddrs).Net(w.v6).Addr(), Dst: w.member(plan.SetAddrs).Net(w.v6).Addr(),
		Protocol: []uint8{6, 17, 1}[w.IntN(3)], SrcPort: uint16(w.IntN(3)), DstPort: uint16(w.IntN(800)), State: plan.StateNew,
	}
}

// TestJudgeNets: nets of several lengths are found, and those that went are not.
func TestJudgeNets(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	n, _ := k.start(nft.Options{})
	in := func(set string, typ plan.MatchKind) plan.Rule {
		return plan.Rule{Match: []plan.Match{{Kind: typ, Set: set}}, Verdict: plan.Drop}
	}
	n.Apply(plan.FilterDelta{V4: plan.TableDelta{
		PutSets: []plan.Set{{Name: "nets", Type: plan.SetNets}, {Name: "links", Type: plan.SetLinkNets}},
		Changes: []plan.SetChange{
			{Set: "nets", Put: []plan.Member{netOf("10.0.0.0/8"), netOf("192.0.2.1/32"), netOf("172.16.0.0/12")}},
			{Set: "nets", Delete: []plan.Member{netOf("172.16.0.0/12")}},
			{Set: "links", PutElement: []plan.Element{{Link: "cali1", Net: netip.MustParsePrefix("198.51.100.0/24")}}},
		},
		PutChains: []plan.Chain{{Name: "f", Base: &plan.Base{Hook: plan.Forward}, Rules: []plan.Rule{in("nets", plan.MatchSrcSet), in("links", plan.MatchInSource)}}},
	}})
	for src, want := range map[string]plan.Verdict{
		"10.255.0.1": plan.Drop, "11.0.0.0": plan.Accept, "192.0.2.1": plan.Drop, "192.0.2.2": plan.Accept, "172.16.0.1": plan.Accept,
		"198.51.100.255": plan.Drop, "198.51.101.0": plan.Accept,
	} {
		n.Judge(func(v4, _ *plan.Machine) {
			if got := v4.Verdict(plan.Forward, plan.Packet{InLink: "cali1", Src: netip.MustParseAddr(src)}).Verdict; got != want {
				t.Errorf("%s: got %v, want %v", src, got, want)
			}
		})
	}
}
