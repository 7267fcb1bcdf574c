package nft_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// TestReadEarly: what is read before Synced is written to after it only, and whatever
// others do before, meanwhile and after is undone.
func TestReadEarly(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"nothing":       "",
		"flush ruleset": "flush ruleset",
		"flush chain":   "flush chain ip6 weft forward",
		"add rule":      "insert rule ip weft forward accept",
		"foreign chain": "add chain ip weft foreign; add rule ip weft foreign drop; add rule ip weft lists jump foreign",
		"foreign set":   "add set ip weft foreign { type ipv4_addr; }; insert rule ip weft lists ip saddr @foreign accept",
		"add element":   "add element ip weft addrs { 192.0.2.1 }",
		"other type":    "delete table ip weft; add table ip weft; add set ip weft addrs { type inet_service; }",
		"policy":        "add chain ip weft forward { policy drop; }",
		"dormant":       "add table ip weft { flags dormant; }",
	} {
		for _, when := range []string{"before", "meanwhile"} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				k := newKernel(t)
				first, stop := k.start(nft.Options{})
				first.Apply(plan.FilterDelta{V4: sample(false), V6: sample(true)})
				first.Synced()
				k.wait(first)
				want := k.listed()
				stop()
				if script != "" && when == "before" {
					k.nft(script)
				}
				n, _ := k.start(nft.Options{})
				k.until(eventually, "rules read early", func() bool { return n.State().Stats.Reads >= 2 })
				if script != "" && when == "meanwhile" {
					events := n.State().Stats.Events
					k.nft(script)
					k.until(eventually, "the change heard", func() bool { return n.State().Stats.Events > events })
				}
				if s := n.State().Stats; s.Transactions != 0 {
					t.Errorf("%d transactions before Synced", s.Transactions)
				}
				n.Apply(plan.FilterDelta{V4: sample(false), V6: sample(true)})
				n.Synced()
				k.wait(n)
				if s := n.State().Stats; script == "" && s.Transactions != 0 {
					t.Errorf("%d transactions though nothing was to do", s.Transactions)
				}
				if d := cmp.Diff(want, k.listed()); d != "" {
					t.Errorf("not as wanted (-want +got):\n%s", d)
				}
			})
		}
	}
}
