package nft_test

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

const (
	eventually = testenv.Patience
	healed     = testenv.ByEvent // nothing is compared but by events, see start
)

// kernel is a namespace with an nft program.
type kernel struct {
	testing.TB
	ns *testenv.Namespace
}

func newKernel(t testing.TB) kernel {
	testenv.Need(t, "nft")
	return kernel{t, testenv.Netns(t)}
}

// nft runs the nft program inside, and gives its output.
func (k kernel) nft(args ...string) string {
	k.Helper()
	return k.run("nft", args...)
}

// run runs a program inside, and gives its output.
func (k kernel) run(program string, args ...string) string {
	k.Helper()
	return k.ns.MustRun(program, args...)
}

// start runs an NFT inside until the test, or the returned stop, ends it.
func (k kernel) start(o nft.Options) (*nft.NFT, func()) {
	k.Helper()
	if o.Resync == 0 {
		o.Resync = -1 // what is healed is healed by events
	}
	var n *nft.NFT
	stop := k.ns.Keep(func() (_ func(context.Context) error, err error) {
		if n, err = nft.New(o); err != nil {
			return nil, err
		}
		return n.Run, nil
	})
	return n, stop
}

func (k kernel) wait(n *nft.NFT) {
	k.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), eventually)
	defer cancel()
	if err := n.WaitApplied(ctx); err != nil {
		k.Fatal(err)
	}
}

// until waits for a fact that only the kernel knows.
func (k kernel) until(limit time.Duration, what string, fact func() bool) {
	k.Helper()
	for start := time.Now(); !fact(); time.Sleep(2 * time.Millisecond) {
		if time.Since(start) > limit {
			k.Fatalf("not within %v: %s\n%.3000s", limit, what, k.nft("list", "ruleset"))
		}
	}
}

func addr(s string) plan.Member  { return plan.AddrMember(netip.MustParseAddr(s)) }
func netOf(s string) plan.Member { return plan.NetMember(netip.MustParsePrefix(s)) }
func addrPort(s string, proto uint8, port uint16) plan.Member {
	return plan.AddrPortMember(netip.MustParseAddr(s), proto, port)
}

// sample is a table with a set of each type and a rule with each match.
func sample(v6 bool) plan.TableDelta {
	ip := func(v4, v6Addr string) string {
		if v6 {
			return v6Addr
		}
		return v4
	}
	one, single := ip("10.0.0.1", "fd00::1"), netip.MustParsePrefix(ip("10.0.0.1/32", "fd00::1/128"))
	low, high := ip("0.0.0.0/1", "::/1"), ip("240.0.0.0/4", "ff00::/8")
	d := plan.TableDelta{
		PutSets: []plan.Set{
			{Name: "addrs", Type: plan.SetAddrs},
			{Name: "nets", Type: plan.SetNets},
			{Name: "all", Type: plan.SetNets},
			{Name: "ports", Type: plan.SetPorts},
			{Name: "addrports", Type: plan.SetAddrPorts},
			{Name: "linkaddrs", Type: plan.SetLinkAddrs},
			{Name: "linknets", Type: plan.SetLinkNets},
			{Name: "links", Type: plan.SetLinks},
			{Name: "classes", Type: plan.MapClasses},
			{Name: "chains", Type: plan.MapChains},
			{Name: "flows", Type: plan.SetFlows},
		},
		Changes: []plan.SetChange{
			{Set: "addrs", Put: []plan.Member{addr(one), addr(ip("10.0.0.2", "fd00::2"))}},
			{Set: "nets", Put: []plan.Member{
				netOf(ip("10.1.0.0/24", "fd01::/64")), netOf(ip("10.1.1.0/24", "fd01:0:0:1::/64")), netOf(ip("10.2.0.1/32", "fd02::1/128")), netOf(high), netOf(ip("192.0.2.0/23", "2001:db8::/47")),
			}},
			{Set: "all", Put: []plan.Member{netOf(low), netOf(ip("128.0.0.0/1", "8000::/1"))}},
			{Set: "ports", Put: []plan.Member{plan.PortMember(80, 80), plan.PortMember(8000, 8100), plan.PortMember(60000, 65535)}},
			{Set: "addrports", Put: []plan.Member{addrPort(one, 6, 80), addrPort(one, 17, 53)}},
			{Set: "linkaddrs", PutElement: []plan.Element{{Link: "cali1", Net: single}, {Link: "cali2", Net: single}}},
			{Set: "linknets", PutElement: []plan.Element{
				{Link: "cali1", Net: netip.MustParsePrefix(ip("10.3.0.0/25", "fd03::/65"))},
				{Link: "cali2", Net: single},
				{Link: "cali3", Net: netip.MustParsePrefix(ip("0.0.0.0/0", "::/0"))},
			}},
			{Set: "links", PutElement: []plan.Element{{Link: "eth0"}, {Link: "a-name-of-15-by"}}},
			{Set: "classes", PutElement: []plan.Element{{Link: "cali1", Value: "0123456789abcde"}, {Link: "cali2", Value: "b"}}},
			{Set: "chains", PutElement: []plan.Element{{Link: "0123456789abcde", Value: "lists"}, {Link: "b", Value: "other"}}},
		},
	}
	m := func(x ...plan.Match) []plan.Match { return x }
	prefix := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	icmp := uint16(1)
	if v6 {
		icmp = 58
	}
	rules := []plan.Rule{
		{Match: m(plan.Match{Kind: plan.MatchState, Low: plan.StateEstablished | plan.StateRelated}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchState, Low: plan.StateInvalid, Not: true}), Count: true},
		{Match: m(plan.Match{Kind: plan.MatchInLink, Link: "cali*", Not: true}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchOutLink, Link: "eth0"}), Verdict: plan.Return},
		{Match: m(plan.Match{Kind: plan.MatchInLinkSet, Set: "links"}, plan.Match{Kind: plan.MatchOutLinkSet, Set: "links", Not: true}), Verdict: plan.Drop},
		{Match: m(plan.Match{Kind: plan.MatchInSource, Set: "linkaddrs", Not: true}, plan.Match{Kind: plan.MatchInSource, Set: "linknets", Not: true}), Verdict: plan.Drop, Count: true},
		{Match: m(plan.Match{Kind: plan.MatchSrcNet, Net: prefix(ip("10.0.0.0/8", "fd00::/8"))}, plan.Match{Kind: plan.MatchDstNet, Net: prefix(ip("10.8.0.0/13", "fd00::/13")), Not: true}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchSrcNet, Net: prefix(ip("0.0.0.0/0", "::/0"))}, plan.Match{Kind: plan.MatchDstNet, Net: single}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchSrcSet, Set: "addrs"}, plan.Match{Kind: plan.MatchDstSet, Set: "nets", Not: true}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchDstSet, Set: "all"}), Count: true},
		{Match: m(plan.Match{Kind: plan.MatchProtocol, Low: 17, Not: true}), Count: true},
		{Match: m(plan.Match{Kind: plan.MatchDstPort, Low: 80, High: 80}, plan.Match{Kind: plan.MatchProtocol, Low: 6}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchSrcPort, Low: 1, High: 1023, Not: true}, plan.Match{Kind: plan.MatchDstPort, Low: 100, High: 200}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchProtocol, Low: 17}, plan.Match{Kind: plan.MatchSrcPortSet, Set: "ports"}, plan.Match{Kind: plan.MatchDstPortSet, Set: "ports", Not: true}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchSrcAddrPort, Set: "addrports"}, plan.Match{Kind: plan.MatchDstAddrPort, Set: "addrports", Not: true}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchProtocol, Low: icmp}, plan.Match{Kind: plan.MatchICMPType, Low: 8, High: 8}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchICMPType, Low: 8, High: 10}, plan.Match{Kind: plan.MatchICMPCode, Low: 3, Not: true}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchICMPTypeCode, Low: 3, High: 4, Not: true}), Count: true},
		{Match: m(plan.Match{Kind: plan.MatchFlow, Set: "flows"}), Update: "flows", Count: true, Verdict: plan.Drop},
		{Match: m(plan.Match{Kind: plan.MatchDstLocal}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchDstLocal, Not: true}, plan.Match{Kind: plan.MatchMark, Mark: 0x10, Not: true}), SetMark: 0x20, ClearMark: 0x10},
		{Count: true, Log: &plan.NFLog{Group: 2, Prefix: "D|rule", Rate: 10, Burst: 5, PerSeconds: 1}, Verdict: plan.Jump, Target: "other", Comment: "policy 1"},
		{Log: &plan.NFLog{Group: 2, Prefix: "all"}},
		{Match: m(plan.Match{Kind: plan.MatchProtocol, Low: 17}), Count: true, Verdict: plan.Reject, Comment: "udp"},
		{Count: true, Verdict: plan.Reject, Comment: "reject"},
		{Dispatch: &plan.Dispatch{Classes: "classes", Chains: "chains"}},
		{Dispatch: &plan.Dispatch{Out: true, Classes: "classes", Chains: "chains"}},
		{Match: m(plan.Match{Kind: plan.MatchOverRate, Rate: 100, Burst: 7}), Count: true, Verdict: plan.Drop},
		{Match: m(plan.Match{Kind: plan.MatchOverRate, Rate: 3e9, Burst: 4e9, Not: true}), Verdict: plan.Accept},
		{Match: m(plan.Match{Kind: plan.MatchState, Low: plan.StateNew}, plan.Match{Kind: plan.MatchOverConns, Rate: 9}), Verdict: plan.Reject},
		{Match: m(plan.Match{Kind: plan.MatchOverConns, Rate: 9, Not: true}), Verdict: plan.Accept},
		{SetDSCP: true, DSCP: 46, Count: true},
		{SetDSCP: true},
		{Verdict: plan.Goto, Target: "lists"},
	}
	d.PutChains = []plan.Chain{
		{Name: "forward", Base: &plan.Base{Hook: plan.Forward, Priority: -5}, Rules: rules},
		{Name: "raw", Base: &plan.Base{Hook: plan.Prerouting, Priority: -300}, Rules: []plan.Rule{{Track: true, Match: m(plan.Match{Kind: plan.MatchProtocol, Low: 6})}}},
		{Name: "nat", Base: &plan.Base{Hook: plan.Postrouting, Priority: plan.PrioritySourceNAT, Type: plan.ChainNAT}, Rules: translations(one)},
		{Name: "dnat", Base: &plan.Base{Hook: plan.Prerouting, Priority: plan.PriorityDestinationNAT, Type: plan.ChainNAT}, Rules: []plan.Rule{
			{Match: m(plan.Match{Kind: plan.MatchDstNet, Net: netip.PrefixFrom(netip.MustParseAddr(one), netip.MustParseAddr(one).BitLen())}), Count: true, Verdict: plan.DNAT, NAT: &plan.NAT{Addr: netip.MustParseAddr(one)}},
		}},
		{Name: "lists", Rules: []plan.Rule{{Verdict: plan.Drop, Count: true}}},
		{Name: "other"},
	}
	return d
}

// translations are rules of each way to translate a source.
func translations(to string) []plan.Rule {
	addr := netip.MustParseAddr(to)
	udp := []plan.Match{{Kind: plan.MatchProtocol, Low: 17}}
	return []plan.Rule{
		{Match: []plan.Match{{Kind: plan.MatchSrcSet, Set: "nets"}, {Kind: plan.MatchDstSet, Set: "nets", Not: true}, {Kind: plan.MatchOutLink, Link: "eth*"}}, Count: true, Verdict: plan.Masquerade, NAT: &plan.NAT{Random: true}, Comment: "natOutgoing"},
		{Match: udp, Verdict: plan.Masquerade, NAT: &plan.NAT{FirstPort: 1024, LastPort: 65535, Random: true}},
		{Match: udp, Verdict: plan.Masquerade, NAT: &plan.NAT{FirstPort: 7, LastPort: 7}},
		{Match: udp, Verdict: plan.SNAT, NAT: &plan.NAT{Addr: addr, FirstPort: 1024, LastPort: 65535, Random: true}},
		{Match: []plan.Match{{Kind: plan.MatchOutLink, Link: "tunl0"}, {Kind: plan.MatchSrcLink, Not: true}, {Kind: plan.MatchSrcLocal}}, Verdict: plan.Masquerade},
		{Verdict: plan.SNAT, NAT: &plan.NAT{Addr: addr}},
	}
}

// TestApplyThenReadBack: what was applied is what the kernel has, as another NFT finds,
// which writes nothing.
func TestApplyThenReadBack(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	d := plan.FilterDelta{V4: sample(false), V6: sample(true)}
	n, stop := k.start(nft.Options{})
	n.Apply(d)
	n.Synced()
	k.wait(n)
	list := k.nft("list", "ruleset")
	if s := n.State().Stats; s.Transactions != 1 {
		t.Errorf("%d transactions, want 1", s.Transactions)
	}
	reads := n.State().Stats.Reads // 2, or 4 if it began to read before Synced
	n.Resync()
	k.until(eventually, "another read", func() bool { return n.State().Stats.Reads >= reads+2 })
	if s := n.State().Stats; s.Transactions != 1 {
		t.Errorf("%d transactions after reading back, want 1", s.Transactions)
	}
	stop()

	again, _ := k.start(nft.Options{})
	again.Apply(d)
	again.Synced()
	k.wait(again)
	if s := again.State().Stats; s.Transactions != 0 {
		t.Errorf("the next agent made %d transactions, want 0", s.Transactions)
	}
	if now := k.nft("list", "ruleset"); now != list {
		t.Errorf("changed to:\n%s\nfrom:\n%s", now, list)
	}
}

var update = flag.Bool("update", false, "rewrite what nft is expected to list")

// TestListed: the real nft program decodes every match and action as it was meant.
func TestListed(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	n, _ := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: sample(false), V6: sample(true)})
	n.Synced()
	k.wait(n)
	for _, family := range []string{"ip", "ip6"} {
		file := filepath.Join("testdata", family+".nft")
		got := k.nft("-s", "list", "chain", family, "weft", "forward") + k.nft("-s", "list", "chain", family, "weft", "nat")
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-want +got):\n%s", file, d)
		}
	}
}

func sortedStrings(s []string) []string {
	slices.Sort(s)
	return s
}
