package nft_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// TestHealed: what others do to our tables is undone within a second, and what they do
// elsewhere stays.
func TestHealed(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"flush ruleset":    "flush ruleset",
		"delete table":     "delete table ip weft",
		"flush table":      "flush table ip weft",
		"flush chain":      "flush chain ip6 weft forward",
		"add rule":         "insert rule ip weft forward accept",
		"add chain":        "add chain ip weft foreign; add rule ip weft foreign drop; add rule ip weft lists jump foreign",
		"add base chain":   "add chain ip weft foreign { type filter hook input priority 0; policy drop; }",
		"add set":          "add set ip weft foreign { type ipv4_addr; elements = { 10.0.0.1 }; }; insert rule ip weft lists ip saddr @foreign accept",
		"add map":          "add map ip weft foreign { type ifname : verdict; elements = { eth0 : jump other }; }",
		"anonymous set":    "add rule ip weft lists ip saddr { 10.0.0.1, 10.0.0.2 } accept",
		"add element":      "add element ip weft addrs { 192.0.2.1 }",
		"delete element":   "delete element ip weft addrs { 10.0.0.1 }",
		"add net":          "add element ip weft nets { 192.168.0.0/16 }",
		"add odd interval": "add element ip weft nets { 192.168.0.5-192.168.0.9 }",
		"delete net":       "delete element ip6 weft nets { fd01::/64 }",
		"flush set":        "flush set ip weft ports",
		"add port":         "add element ip weft ports { 443 }",
		"change class":     `delete element ip weft classes { "cali1" }; add element ip weft classes { "cali1" : 0 . "b" }`,
		"change verdict":   `delete element ip weft chains { "b" }; add element ip weft chains { "b" : accept }`,
		"link net":         `delete element ip weft linknets { "cali1" . 10.3.0.0/25 }; add element ip weft linknets { "cali9" . 10.9.0.0/16 }`,
		"odd link net":     `add element ip weft linknets { "cali9" . 10.9.0.1-10.9.0.7 }`,
		"policy":           "add chain ip weft forward { policy drop; }",
		"dormant":          "add table ip weft { flags dormant; }",
		"counter object":   "add counter ip weft foreign; add rule ip weft lists counter name foreign",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			n, _ := k.start(nft.Options{})
			n.Apply(plan.FilterDelta{V4: sample(false), V6: sample(true)})
			n.Synced()
			k.wait(n)
			want := k.listed()
			k.nft("add table ip other { chain c { accept; }; }")
			k.nft(script)
			foreign := "table ip other {\n\tchain c {\n\t\taccept\n\t}\n}\n"
			if name == "flush ruleset" {
				foreign = ""
			}
			start, got := time.Now(), ""
			for got = k.listed(); got != want && time.Since(start) < healed; got = k.listed() {
				time.Sleep(2 * time.Millisecond)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("not healed within %v (-want +got):\n%s\n%+v", healed, d, n.State())
			}
			if got := k.nft("list", "ruleset"); foreign != "" && !strings.Contains(got, foreign) {
				t.Errorf("the other's table is not as it was:\n%s", got)
			}
			var before uint64
			for range 2 { // the first waits for the end of the pass that healed
				before = n.State().Stats.Transactions
				reads := n.State().Stats.Reads
				n.Resync()
				k.until(eventually, "another read", func() bool { return n.State().Stats.Reads >= reads+2 })
			}
			if now := n.State().Stats.Transactions; now != before {
				t.Errorf("%d transactions after it was healed", now-before)
			}
		})
	}
}

// listed is our tables without the order of sets and elements, of which there is none.
func (k kernel) listed() string {
	k.Helper()
	out, chain := map[string]string{}, ""
	var table string
	for l := range strings.Lines(k.nft("-s", "list", "ruleset")) {
		switch {
		case strings.Trim(l, "\t}\n") == "":
			continue
		case strings.HasPrefix(l, "table "):
			table, chain = l, ""
		case strings.HasPrefix(l, "\t") && !strings.HasPrefix(l, "\t\t") && l != "\t}\n":
			chain = l
		}
		if strings.Contains(table, "weft") {
			out[table+chain] += l
		}
	}
	var all []string
	for k, v := range out {
		if !strings.Contains(k, "chain ") {
			words := strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == '\n' || r == '\t' || r == '=' || r == '{' || r == '}' })
			for i := range words {
				words[i] = strings.TrimSpace(words[i])
			}
			v = k + strings.Join(sortedStrings(words), "\n")
		}
		all = append(all, v)
	}
	return strings.Join(sortedStrings(all), "\n")
}

// TestRandomDeltas: after any deltas the kernel is what they fold to: another NFT that
// is given the fold has nothing to write.
func TestRandomDeltas(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			k := newKernel(t)
			n, stop := k.start(nft.Options{})
			n.Synced()
			w := &randomWorld{Rand: rand.New(rand.NewPCG(seed, 1)), v6: seed%2 == 1}
			for range 60 {
				n.Apply(w.delta(w.step()))
				if w.IntN(3) > 0 {
					k.wait(n)
				}
			}
			k.wait(n)
			stop()
			next, _ := k.start(nft.Options{})
			next.Apply(w.delta(whole(w.fold)))
			next.Synced()
			k.wait(next)
			if s := next.State().Stats; s.Transactions != 0 {
				t.Errorf("the kernel was not as the deltas fold to: %d transactions of %d messages\n%s", s.Transactions, s.Messages, k.nft("list", "ruleset"))
			}
			if s := n.State().Stats; s.Refused != 0 {
				t.Errorf("the kernel refused %d transactions", s.Refused)
			}
		})
	}
}

// randomWorld makes deltas that a decider could make.
type randomWorld struct {
	*rand.Rand
	v6   bool
	fold plan.Table
}

func (w *randomWorld) delta(d plan.TableDelta) plan.FilterDelta {
	if w.v6 {
		return plan.FilterDelta{V6: d}
	}
	return plan.FilterDelta{V4: d}
}

func (w *randomWorld) member(t plan.SetType) plan.Member {
	a := netip.AddrFrom4([4]byte{10, 0, 0, byte(w.IntN(12))})
	if w.v6 {
		a = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(w.IntN(12))})
	}
	switch t {
	case plan.SetNets: // disjoint by their last bits
		p, _ := a.Prefix(a.BitLen() - 1)
		return plan.NetMember(p)
	case plan.SetPorts:
		first := uint16(w.IntN(7)) * 100
		return plan.PortMember(first, first+99)
	case plan.SetAddrPorts:
		return plan.AddrPortMember(a, 6, uint16(w.IntN(3)))
	}
	return plan.AddrMember(a)
}

// step makes one delta: sets and chains come, change and go, with their users.
func (w *randomWorld) step() plan.TableDelta {
	var d plan.TableDelta
	// Sets s0 to s3 of four types. Policies p0 to p5 use them; base jumps to policies.
	types := []plan.SetType{plan.SetAddrs, plan.SetNets, plan.SetPorts, plan.SetAddrPorts}
	for i, typ := range types {
		name := fmt.Sprintf("s%d", i)
		s := w.fold.Sets[name]
		if s == nil {
			d.PutSets = append(d.PutSets, plan.Set{Name: name, Type: typ})
		}
		c := plan.SetChange{Set: name}
		seen := map[plan.Member]bool{}
		for range w.IntN(5) {
			if m := w.member(typ); !seen[m] {
				seen[m] = true
				if w.IntN(2) == 0 {
					c.Put = append(c.Put, m)
				} else {
					c.Delete = append(c.Delete, m)
				}
			}
		}
		d.Changes = append(d.Changes, c)
	}
	classes := plan.SetChange{Set: "classes"}
	if w.fold.Sets["classes"] == nil {
		d.PutSets = append(d.PutSets, plan.Set{Name: "classes", Type: plan.MapClasses}, plan.Set{Name: "chains", Type: plan.MapChains})
	}
	e := plan.Element{Link: fmt.Sprintf("cali%d", w.IntN(4)), Value: fmt.Sprintf("c%d", w.IntN(4))}
	if w.IntN(3) > 0 {
		classes.PutElement = append(classes.PutElement, e)
	} else {
		classes.DeleteElement = append(classes.DeleteElement, e)
	}
	d.Changes = append(d.Changes, classes)
	w.stepChains(&d)
	w.fold = w.fold.Apply(d)
	return d
}

func (w *randomWorld) stepChains(d *plan.TableDelta) {
	chains := plan.SetChange{Set: "chains"}
	used := map[string]bool{}
	for i := range 6 {
		name := fmt.Sprintf("p%d", i)
		_, there := w.fold.Chains[name]
		switch {
		case w.IntN(4) > 0 && (w.IntN(2) == 0 || !there):
			d.PutChains = append(d.PutChains, plan.Chain{Name: name, Rules: w.rules()})
			used[name] = true
			chains.PutElement = append(chains.PutElement, plan.Element{Link: "c" + name[1:], Value: name})
		case there && w.IntN(3) == 0:
			d.DeleteChains = append(d.DeleteChains, name)
			chains.DeleteElement = append(chains.DeleteElement, plan.Element{Link: "c" + name[1:], Value: name})
		case there:
			used[name] = true
		}
	}
	base := plan.Chain{Name: "forward", Base: &plan.Base{Hook: plan.Forward}}
	for i := range 6 {
		if name := fmt.Sprintf("p%d", i); used[name] {
			base.Rules = append(base.Rules, plan.Rule{Verdict: plan.Jump, Target: name})
		}
	}
	base.Rules = append(base.Rules, plan.Rule{Dispatch: &plan.Dispatch{Classes: "classes", Chains: "chains"}})
	d.PutChains = append(d.PutChains, base)
	d.Changes = append(d.Changes, chains)
}

func (w *randomWorld) rules() []plan.Rule {
	var out []plan.Rule
	for range w.IntN(9) {
		r := plan.Rule{Count: w.IntN(2) == 0, Verdict: plan.Verdict(1 + w.IntN(4)), Comment: fmt.Sprint("r", w.IntN(5))}
		switch w.IntN(4) {
		case 0:
			r.Match = []plan.Match{{Kind: plan.MatchSrcSet, Set: fmt.Sprintf("s%d", w.IntN(2))}}
		case 1:
			r.Match = []plan.Match{{Kind: plan.MatchDstPortSet, Set: "s2", Not: w.IntN(2) == 0}}
		case 2:
			r.Match = []plan.Match{{Kind: plan.MatchSrcAddrPort, Set: "s3"}}
		}
		out = append(out, r)
	}
	return out
}

// whole is a table as a delta.
func whole(t plan.Table) plan.TableDelta {
	var d plan.TableDelta
	for _, s := range t.Sets {
		d.PutSets = append(d.PutSets, s.Set)
		c := plan.SetChange{Set: s.Name}
		for m := range s.Members {
			c.Put = append(c.Put, m)
		}
		for e := range s.Elements {
			c.PutElement = append(c.PutElement, e)
		}
		d.Changes = append(d.Changes, c)
	}
	for _, c := range t.Chains {
		d.PutChains = append(d.PutChains, c)
	}
	return d
}
