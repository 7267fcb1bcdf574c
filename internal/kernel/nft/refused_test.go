package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// good is a base chain that jumps to chain a, which counts by a set.
func good() plan.TableDelta {
	return plan.TableDelta{
		PutSets: []plan.Set{{Name: "s", Type: plan.SetAddrs}},
		Changes: []plan.SetChange{{Set: "s", Put: []plan.Member{addr("10.0.0.1")}}},
		PutChains: []plan.Chain{
			{Name: "forward", Base: &plan.Base{Hook: plan.Forward}, Rules: []plan.Rule{jump("a")}},
			{Name: "a", Rules: []plan.Rule{{Match: []plan.Match{{Kind: plan.MatchSrcSet, Set: "s"}}, Verdict: plan.Accept, Comment: "good"}}},
		},
	}
}

func jump(to string) plan.Rule { return plan.Rule{Verdict: plan.Jump, Target: to} }

func many(n int) (out []plan.Member) {
	for i := range n {
		out = append(out, plan.AddrMember(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})))
	}
	return out
}

// TestRefused: what the kernel, or we, refuse is named; it keeps its last good version,
// or drops if it had none; and everything else goes in.
func TestRefused(t *testing.T) {
	t.Parallel()
	beside := plan.Chain{Name: "beside", Rules: []plan.Rule{{Verdict: plan.Return, Comment: "beside"}}}
	for name, tt := range map[string]struct {
		bad     plan.TableDelta
		problem []string // parts of the problems
		list    []string // of the ruleset
		not     []string
	}{
		"loop keeps the last good version": {
			plan.TableDelta{PutChains: []plan.Chain{{Name: "a", Rules: []plan.Rule{jump("a")}}}},
			[]string{"chain a: change rules"},
			[]string{`ip saddr @s accept comment "good"`},
			nil,
		},
		"missing target": {
			plan.TableDelta{PutChains: []plan.Chain{{Name: "a", Rules: []plan.Rule{jump("nowhere")}}}},
			[]string{"chain a: change rules: no such file"},
			[]string{`comment "good"`},
			nil,
		},
		"a new chain drops": {
			plan.TableDelta{PutChains: []plan.Chain{{Name: "new", Rules: []plan.Rule{jump("nowhere")}}, {Name: "a", Rules: []plan.Rule{jump("new")}}}},
			[]string{"chain new: change rules"},
			[]string{"jump new", "chain new {\n\t\tcounter packets 0 bytes 0 drop"},
			[]string{"nowhere"},
		},
		"unknown set": {
			plan.TableDelta{PutChains: []plan.Chain{{Name: "a", Rules: []plan.Rule{{Match: []plan.Match{{Kind: plan.MatchSrcSet, Set: "none"}}, Verdict: plan.Drop}}}}},
			[]string{`chain a: rule 1: set "none": is not in the plan`},
			[]string{`comment "good"`},
			nil,
		},
		"set over its limit": {
			plan.TableDelta{
				PutSets:   []plan.Set{{Name: "big", Type: plan.SetAddrs}},
				Changes:   []plan.SetChange{{Set: "big", Put: many(101)}, {Set: "s", Put: []plan.Member{addr("10.0.0.2")}}},
				PutChains: []plan.Chain{{Name: "a", Rules: []plan.Rule{{Match: []plan.Match{{Kind: plan.MatchSrcSet, Set: "big"}}, Verdict: plan.Drop}}}},
			},
			[]string{"set big: 101 members: more than the 100 that a set may have", "chain a: set big: 101 members"},
			[]string{`comment "good"`, "10.0.0.1, 10.0.0.2"},
			[]string{"set big"},
		},
		"grown over its limit": {
			plan.TableDelta{Changes: []plan.SetChange{{Set: "s", Put: many(100)}}},
			[]string{"set s: 101 members"},
			[]string{"elements = { 10.0.0.1 }"},
			nil,
		},
		"reject where the kernel cannot": {
			plan.TableDelta{PutChains: []plan.Chain{
				{Name: "raw", Base: &plan.Base{Hook: plan.Postrouting}, Rules: []plan.Rule{{Verdict: plan.Reject}}},
				{Name: "a", Rules: []plan.Rule{{Verdict: plan.Drop, Comment: "a is newer"}}},
			}},
			[]string{"chain raw: change rules"},
			[]string{`drop comment "a is newer"`},
			[]string{"reject"},
		},
		"overlapping nets": {
			plan.TableDelta{
				PutSets: []plan.Set{{Name: "n", Type: plan.SetNets}},
				Changes: []plan.SetChange{{Set: "n", Put: []plan.Member{netOf("10.0.0.0/8"), netOf("10.1.0.0/16")}}},
			},
			[]string{"set n: change elements"},
			nil,
			[]string{"set n "},
		},
		"element without a name": {
			plan.TableDelta{
				PutSets: []plan.Set{{Name: "l", Type: plan.SetLinks}},
				Changes: []plan.SetChange{{Set: "l", PutElement: []plan.Element{{Link: "a-name-too-long-by-far"}, {Link: "eth0"}}}},
			},
			[]string{`set l: element "a-name-too-long-by-far": want a name of 1 to 15 bytes`},
			[]string{`elements = { "eth0" }`},
			nil,
		},
		"name too long": {
			plan.TableDelta{PutChains: []plan.Chain{{Name: strings.Repeat("x", 64)}}},
			[]string{"name: want 1 to 63 bytes, it has 64"},
			nil,
			[]string{"xxxx"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			n, _ := k.start(nft.Options{MaxSetSize: 100})
			n.Apply(plan.FilterDelta{V4: good()})
			n.Synced()
			k.wait(n)
			tt.bad.PutChains = append(tt.bad.PutChains, beside)
			n.Apply(plan.FilterDelta{V4: tt.bad})
			ctx, cancel := context.WithTimeout(t.Context(), eventually)
			defer cancel()
			err := n.WaitApplied(ctx)
			if err == nil || ctx.Err() != nil {
				t.Fatalf("applied with error %v", err)
			}
			problems := fmt.Sprint(n.Problems())
			for _, want := range tt.problem {
				if !strings.Contains(problems, want) {
					t.Errorf("problems are %s\nwant: %s", problems, want)
				}
			}
			if len(n.Problems()) != len(tt.problem) {
				t.Errorf("problems are %s\nwant %d", problems, len(tt.problem))
			}
			list := k.nft("list", "ruleset")
			for _, want := range append(tt.list, `return comment "beside"`) {
				if !strings.Contains(list, want) {
					t.Errorf("%q is not in:\n%s", want, list)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(list, not) {
					t.Errorf("%q is in:\n%s", not, list)
				}
			}
			// What was wrong is put right, which nobody has to wait for.
			n.Apply(plan.FilterDelta{V4: plan.TableDelta{
				PutSets:   []plan.Set{{Name: "s", Type: plan.SetAddrs}},
				PutChains: good().PutChains[1:], DeleteChains: []string{"new", "raw", strings.Repeat("x", 64)}, DeleteSets: []string{"big", "n", "l"},
			}})
			if err := n.WaitApplied(ctx); err != nil {
				t.Errorf("after it was corrected: %v", err)
			}
		})
	}
}

// TestCorrectedMeanwhile: what is put right while the kernel is asked again about the faulty
// version is not taken for that.
func TestCorrectedMeanwhile(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	k := newKernel(t)
	n, _ := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: good()})
	n.Synced()
	k.wait(n)
	ctx, cancel := context.WithTimeout(t.Context(), eventually)
	defer cancel()
	bad := plan.TableDelta{PutChains: []plan.Chain{{Name: "a", Rules: []plan.Rule{jump("a")}}}}
	for round := range 50 {
		n.Apply(plan.FilterDelta{V4: bad})
		if err := n.WaitApplied(ctx); err == nil || ctx.Err() != nil {
			t.Fatalf("round %d: applied with error %v", round, err)
		}
		n.Resync()                                                // asks again about what was refused
		time.Sleep(time.Duration(round) * 200 * time.Microsecond) // somewhere in that
		n.Apply(plan.FilterDelta{V4: plan.TableDelta{PutChains: good().PutChains[1:]}})
		if err := n.WaitApplied(ctx); err != nil {
			t.Fatalf("round %d: after it was corrected: %v", round, err)
		}
	}
}

// TestManyRefused: one fault that thousands of rules feel is found, although the kernel's
// errors are more than a receive buffer holds; and at once.
func TestManyRefused(t *testing.T) {
	if !unprivileged(t) {
		return
	}
	k := newKernel(t)
	n, _ := k.start(nft.Options{})
	d := good()
	for i := range 3000 {
		d.PutChains = append(d.PutChains, plan.Chain{Name: fmt.Sprintf("c%d", i), Rules: []plan.Rule{jump("nowhere"), jump("a")}})
	}
	n.Apply(plan.FilterDelta{V4: d})
	n.Synced()
	ctx, cancel := context.WithTimeout(t.Context(), eventually)
	defer cancel()
	if err := n.WaitApplied(ctx); err == nil || ctx.Err() != nil {
		t.Fatalf("applied with error %v: %+v", err, n.State().Stats)
	}
	if list := k.nft("list", "ruleset"); !strings.Contains(list, `comment "good"`) || strings.Count(list, "could not be made") != 3000 {
		t.Errorf("%d chains are closed, want 3000", strings.Count(list, "could not be made"))
	}
}
