package nft_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
)

// TestEndFlows: flows are put into their set, and reading back leaves them alone.
func TestEndFlows(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	n, _ := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: sample(false), V6: sample(true)})
	n.Synced()
	k.wait(n)
	flows := []nft.Flow{
		{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: 6, SrcPort: 80, DstPort: 40000},
		{Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Protocol: 17, SrcPort: 53, DstPort: 40000},
	}
	for range 2 {
		if err := n.EndFlows("flows", flows, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	reads := n.State().Stats.Reads
	n.Resync()
	k.until(eventually, "another read", func() bool { return n.State().Stats.Reads >= reads+2 })
	list := k.nft("list", "ruleset")
	for _, want := range []string{"10.0.0.1 . 10.0.0.2 . tcp . 80 . 40000 timeout 1m", "fd00::1 . fd00::2 . udp . 53 . 40000 timeout 1m"} {
		if !strings.Contains(list, want) {
			t.Errorf("%s is not in:\n%s", want, list)
		}
	}
	if s := n.State().Stats; s.Transactions != 1 || s.Events != 0 {
		t.Errorf("it counts as a change: %+v", s)
	}
	if err := n.EndFlows("none", flows, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("set that is not there: %v, want %v", err, unix.ENOENT)
	}
}

// TestCounters: rules that stay keep their counters when others of their chain change.
func TestCounters(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	n, _ := k.start(nft.Options{})
	rule := func(comment string) plan.Rule { return plan.Rule{Count: true, Comment: comment} }
	put := func(rules ...plan.Rule) {
		n.Apply(plan.FilterDelta{V4: plan.TableDelta{PutChains: []plan.Chain{
			{Name: "output", Base: &plan.Base{Hook: plan.Output}, Rules: rules},
		}}})
		k.wait(n)
	}
	n.Synced()
	reject := plan.Rule{Match: []plan.Match{{Kind: plan.MatchProtocol, Low: 17, Not: true}}, Count: true, Verdict: plan.Reject, Comment: "both"}
	put(rule("a"), rule("b"), rule("c"), reject)
	counts := func() map[string]nft.Counter {
		c, err := n.Counters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := counts(); len(c) != 4 || c["a"].Packets != 0 {
		t.Errorf("before any packet: %v", c)
	}
	k.sendUDP("127.0.0.1:9") // which answers with an ICMP message that is rejected
	if c := counts(); c["a"].Packets == 0 || c["b"] != c["a"] || c["both"].Packets != c["a"].Packets-1 || c["b"].Bytes == 0 {
		t.Errorf("after a packet: %v", c)
	}
	put(rule("new"), rule("a"), rule("d"), rule("b"), reject)
	if c := counts(); c["a"].Packets == 0 || c["b"].Packets == 0 || c["new"].Packets != 0 {
		t.Errorf("after a change: %v", c)
	}
}
