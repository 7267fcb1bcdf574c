package policy_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/test/policy/world"
)

// through sends a packet through all hooks of its way, and says who denied it.
func through(f *plan.Filter, w world.Packet) (allowed bool, by string) {
	table := &f.V4
	if w.Src.Is6() {
		table = &f.V6
	}
	m := table.Machine()
	p := plan.Packet{
		InLink: w.In, OutLink: w.Out, Src: w.Src, Dst: w.Dst, Protocol: w.Protocol, SrcPort: w.SrcPort, DstPort: w.DstPort,
		ICMPType: w.ICMPType, ICMPCode: w.ICMPCode, State: plan.StateNew, DstLocal: w.Out == "",
	}
	for _, hook := range way(w) {
		j := m.Judge(hook, p)
		if j.Denied() {
			return false, fmt.Sprintf("%v: %s: %s", hook, j.Chain, j.Rule)
		}
		p.Mark = j.Mark
		if j.Untrack {
			p.State = plan.StateUntracked
		}
	}
	return true, ""
}

func way(w world.Packet) []plan.Hook {
	switch {
	case w.In == "":
		return []plan.Hook{plan.Output}
	case w.Out == "":
		return []plan.Hook{plan.Prerouting, plan.Input}
	}
	return []plan.Hook{plan.Prerouting, plan.Forward}
}

// The tables decide as the explanation says, over worlds drawn at random. The same
// worlds go through a real kernel in package nft's tests; this one is quick.
func TestCompileAgreesWithVerdict(t *testing.T) {
	t.Parallel()
	const worlds, packets = 150, 60
	denied := 0
	for seed := range uint64(worlds) {
		r := rand.New(rand.NewPCG(seed, 3))
		w, err := world.Random(r)
		if err != nil {
			t.Fatal(err)
		}
		view := w.View()
		filter := policy.Compile(world.Node, w.Values, w.Links, w.Settings)
		for _, p := range w.Packets(r, packets) {
			why, err := view.Verdict(p.Query)
			if err != nil {
				t.Fatalf("seed %d: %v: %v", seed, p, err)
			}
			got, by := through(&filter, p)
			if !got {
				denied++
			}
			if got != why.Allowed {
				t.Fatalf("seed %d: %v\nkernel's rules: %t %s\nexplanation:\n%v\nworld:\n%s", seed, p, got, by, why, w)
			}
		}
	}
	// Both verdicts must be frequent, else this compares nothing.
	if all := worlds * packets; denied < all/10 || denied > all*9/10 {
		t.Errorf("%d of %d packets denied", denied, all)
	}
}
