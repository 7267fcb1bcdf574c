// Package policy_test holds what is decided about packets against what is enforced:
// three ways to judge the same packets must agree.
//
//	policy.Verdict ── what people are told
//	plan.Judge ────── the rules, interpreted
//	the kernel ────── the rules, in nf_tables of a network namespace
package policy_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/test/policy/world"
)

var (
	seed   = flag.Uint64("seed", 1, "of the first world")
	worlds = flag.Int("worlds", 320, "how many worlds")
)

const (
	perWorld = 36 // packets of a world
	enough   = 3  // worlds with differences that are shown
)

// judge is what the rules of f do with p on its way through the node, as far as
// package plan knows; rule is the comment of the one that denied, met are the IDs of
// those rules of policies, profiles and defaults that p has fitted.
func judge(f *filter, p world.Packet) (allowed bool, rule string, met []string) {
	m := f.v4
	if p.Src.Is6() {
		m = f.v6
	}
	pkt := plan.Packet{
		InLink: p.In, Src: p.Src, Dst: p.Dst, Protocol: p.Protocol, SrcPort: p.SrcPort, DstPort: p.DstPort,
		ICMPType: p.ICMPType, ICMPCode: p.ICMPCode, State: plan.StateNew, DstLocal: p.Out == "",
	}
	hooks := []plan.Hook{plan.Prerouting, plan.Forward, plan.Postrouting}
	switch {
	case p.In == "":
		hooks = []plan.Hook{plan.Output, plan.Postrouting}
		pkt.OutLink = p.Out
	case p.Out == "":
		hooks = []plan.Hook{plan.Prerouting, plan.Input}
	}
	for _, h := range hooks {
		if h != plan.Prerouting {
			pkt.OutLink = p.Out
		}
		if h == plan.Postrouting {
			pkt.InLink = ""
		}
		j := m.Judge(h, pkt)
		for _, r := range j.Hits {
			if _, _, _, ok := policy.ParseRuleID(r.Comment); ok {
				met = append(met, r.Comment)
			}
		}
		if j.Denied() {
			return false, j.Rule, met
		}
		pkt.Mark = j.Mark
		if j.Untrack {
			pkt.State = plan.StateUntracked
		}
	}
	return true, "", met
}

// filter is a compiled world, ready to judge.
type filter struct {
	plan.Filter
	v4, v6 *plan.Machine
}

func compile(w world.World) *filter {
	f := &filter{Filter: policy.Compile(world.Node, w.Values, w.Links, w.Settings)}
	f.v4, f.v6 = f.V4.Machine(), f.V6.Machine()
	return f
}

// differ says how the explanation and the rules differ about p; empty: they agree.
func differ(w world.World, f *filter, p world.Packet) string {
	e, err := w.View().Verdict(p.Query)
	if err != nil {
		return "" // shrinking took an end of the packet away
	}
	allowed, rule, met := judge(f, p)
	if allowed != e.Allowed {
		return fmt.Sprintf("explained: allowed %v; rules: allowed %v by %q\n%v", e.Allowed, allowed, rule, e)
	}
	if want := steps(e); !slices.Equal(want, met) {
		return fmt.Sprintf("explained: another way\nrules met, by the explanation %v\nand by the rules            %v\n%v", want, met, e)
	}
	return ""
}

// steps are the IDs of the rules that an explanation has the packet meet.
func steps(e policy.Explanation) []string {
	var ids []string
	for _, part := range e.Parts {
		d := policy.Ingress
		if part.Direction == policy.Egress.String() {
			d = policy.Egress
		}
		for _, s := range part.Steps {
			switch {
			case s.Kind == policy.KindRule, s.Kind == policy.KindProfile:
				ids = append(ids, policy.RuleID(s.Key, d, s.Index))
			case s.Kind == policy.KindDefault && s.Action == model.Deny:
				ids = append(ids, policy.RuleID(s.Key, d, policy.Default))
			case s.Kind == policy.KindEnd:
				ids = append(ids, policy.RuleID(model.Key{}, d, policy.Default))
			}
		}
	}
	return ids
}

// shrink takes away all documents without which the packet is judged differently still.
func shrink(w world.World, differs func(world.World) string) world.World {
	for again := true; again; {
		again = false
		for i := len(w.Docs) - 1; i >= 0; i-- {
			if less, ok := w.Without(i); ok && differs(less) != "" {
				w, again = less, true
			}
		}
	}
	return w
}

// The explanation is what the rules do, also in worlds that the kernel does not see.
func TestVerdictIsTheRules(t *testing.T) {
	t.Parallel()
	allowed, differing := 0, 0
	for n := range *worlds / 2 {
		s := *seed + uint64(n) + 1<<32
		w, err := world.Random(rand.New(rand.NewPCG(s, 0)))
		if err != nil {
			t.Fatal(err)
		}
		f, v := compile(w), w.View()
		for _, p := range w.Packets(rand.New(rand.NewPCG(s, 1)), perWorld) {
			e, err := v.Verdict(p.Query)
			if err != nil {
				t.Fatal(err)
			}
			if e.Allowed {
				allowed++
			}
			if differ(w, f, p) == "" {
				continue
			}
			again := func(w world.World) string { return differ(w, compile(w), p) }
			small := shrink(w, again)
			t.Errorf("-seed %d -worlds 2: %v\n%s\n%v", s-1<<32, p, again(small), small)
			if differing++; differing == enough {
				t.FailNow()
			}
			break
		}
	}
	// Worlds in which all is allowed, or nothing, would show nothing.
	if n := *worlds / 2 * perWorld; *worlds > 50 && (allowed < n/5 || allowed > n*4/5) {
		t.Errorf("%d of %d packets are allowed, want between a fifth and four fifths", allowed, n)
	}
}
