package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// small is a table with each thing that the machine must get right.
func small() Table {
	t := Table{}.Apply(TableDelta{
		PutSets: []Set{{"a", SetAddrs}, {"n", SetNets}, {"p", SetPorts}, {"ap", SetAddrPorts}, {"links", MapClasses}, {"lists", MapChains}, {"src", SetLinkAddrs}, {"srcn", SetLinkNets}},
		Changes: []SetChange{
			{Set: "a", Put: []Member{AddrMember(netip.MustParseAddr("10.0.0.1"))}},
			{Set: "n", Put: []Member{NetMember(prefix("10.1.0.0/16")), NetMember(prefix("10.2.3.4/32"))}},
			{Set: "p", Put: []Member{PortMember(80, 80), PortMember(8000, 8100)}},
			{Set: "ap", Put: []Member{AddrPortMember(netip.MustParseAddr("10.0.0.1"), 6, 443)}},
			{Set: "links", PutElement: []Element{{Link: "cali1", Value: "c1"}, {Link: "cali2", Value: "c2"}}},
			{Set: "lists", PutElement: []Element{{Link: "c1", Value: "list1"}}},
			{Set: "src", PutElement: []Element{{Link: "cali1", Net: prefix("10.0.0.1/32")}}},
			{Set: "srcn", PutElement: []Element{{Link: "cali1", Net: prefix("10.5.0.0/16")}}},
		},
		PutChains: []Chain{
			{Name: "raw", Base: &Base{Hook: Prerouting, Priority: -300}, Rules: []Rule{
				{Match: []Match{{Kind: MatchInLink, Link: "cali*"}, {Kind: MatchInSource, Not: true, Set: "src"}}, Verdict: Goto, Target: "spoof"},
				{Match: []Match{{Kind: MatchSrcNet, Net: prefix("10.9.0.0/16")}}, Track: true, SetMark: 1},
			}},
			{Name: "spoof", Rules: []Rule{
				{Match: []Match{{Kind: MatchInSource, Set: "srcn"}}, Verdict: Accept},
				{Count: true, Verdict: Drop, Comment: "spoof"},
			}},
			{Name: "from", Base: &Base{Hook: Forward, Priority: -2}, Rules: []Rule{
				{Match: []Match{{Kind: MatchState, Low: StateEstablished | StateRelated}}, Verdict: Accept},
				{Dispatch: &Dispatch{Classes: "links", Chains: "lists"}},
				{Match: []Match{{Kind: MatchInLink, Link: "cali*"}}, Verdict: Drop, Comment: "unknown"},
			}},
			{Name: "to", Base: &Base{Hook: Forward, Priority: -1}, Rules: []Rule{
				{Match: []Match{{Kind: MatchDstNet, Net: prefix("10.77.0.0/16")}}, Verdict: Reject, Comment: "to"},
			}},
			{Name: "list1", Rules: []Rule{
				{Verdict: Jump, Target: "tier"},
				{Verdict: Drop, Comment: "end"},
			}},
			{Name: "tier", Rules: []Rule{
				{Match: []Match{{Kind: MatchDstSet, Set: "a"}, {Kind: MatchProtocol, Low: 6}, {Kind: MatchDstPortSet, Set: "p"}}, Count: true, Verdict: Accept, Comment: "ports"},
				{Match: []Match{{Kind: MatchDstAddrPort, Set: "ap"}}, Verdict: Accept, Comment: "addr-port"},
				{Match: []Match{{Kind: MatchDstSet, Set: "n"}}, Count: true, Log: &NFLog{Prefix: "x"}},
				{Match: []Match{{Kind: MatchDstSet, Set: "n"}, {Kind: MatchProtocol, Low: 1}, {Kind: MatchICMPTypeCode, Not: true, Low: 3, High: 4}}, Verdict: Accept, Comment: "icmp"},
				{Match: []Match{{Kind: MatchDstSet, Set: "n"}}, Verdict: Return},
				{Match: []Match{{Kind: MatchDstPort, Not: true, Low: 1, High: 1000}}, Verdict: Accept, Comment: "high"},
			}},
		},
	})
	return t
}

func TestJudge(t *testing.T) {
	t.Parallel()
	table := small()
	for _, tt := range []struct {
		name string
		hook Hook
		p    Packet
		want string
	}{
		{"own address", Prerouting, tcp("cali1", "10.0.0.1", "10.8.0.1", 80), "accept  []"},
		{"allowed prefix", Prerouting, tcp("cali1", "10.5.6.7", "10.8.0.1", 80), "accept  []"},
		{"another's address", Prerouting, tcp("cali2", "10.0.0.1", "10.8.0.1", 80), "drop spoof [spoof]"},
		{"no workload", Prerouting, tcp("eth0", "10.0.0.9", "10.8.0.1", 80), "accept  []"},
		{"notrack and mark", Prerouting, tcp("eth0", "10.9.0.9", "10.8.0.1", 80), "accept  [] mark 1 notrack"},
		{"set of ports", Forward, tcp("cali1", "10.0.0.1", "10.0.0.1", 8050), "accept ports [ports]"},
		{"behind a range", Forward, tcp("cali1", "10.0.0.1", "10.0.0.1", 8101), "accept high []"},
		{"between ranges", Forward, tcp("cali1", "10.0.0.1", "10.0.0.1", 81), "drop end []"},
		{"address and port", Forward, tcp("cali1", "10.0.0.1", "10.0.0.1", 443), "accept addr-port []"},
		{"long prefix", Forward, tcp("cali1", "10.0.0.1", "10.2.3.4", 443), "drop end []"},
		{"icmp", Forward, Packet{InLink: "cali1", Src: addr("10.0.0.1"), Dst: addr("10.1.3.4"), Protocol: 1, ICMPType: 3, ICMPCode: 5, State: StateNew}, "accept icmp []"},
		{"icmp, not both", Forward, Packet{InLink: "cali1", Src: addr("10.0.0.1"), Dst: addr("10.1.3.4"), Protocol: 1, ICMPType: 3, ICMPCode: 4, State: StateNew}, "drop end []"},
		{"a negated port of a protocol without ports fits nothing", Forward, Packet{InLink: "cali1", Src: addr("10.0.0.1"), Dst: addr("10.7.3.4"), Protocol: 1, State: StateNew}, "drop end []"},
		{"class without chain", Forward, tcp("cali2", "10.0.0.1", "10.0.0.1", 80), "drop unknown []"},
		{"not in the map", Forward, tcp("cali9", "10.0.0.1", "10.0.0.1", 80), "drop unknown []"},
		{"other base chain", Forward, tcp("cali1", "10.0.0.1", "10.77.0.1", 8080), "reject to []"},
		{"of a connection", Forward, established(tcp("cali9", "10.0.0.1", "10.0.0.1", 80)), "accept  []"},
		{"no chains", Postrouting, tcp("cali9", "10.0.0.1", "10.0.0.1", 80), "accept  []"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			j := table.Judge(tt.hook, tt.p)
			var hits []string
			for _, r := range j.Hits {
				if r.Log == nil {
					hits = append(hits, r.Comment)
				}
			}
			got := fmt.Sprintf("%v %s %v", j.Verdict, j.Rule, hits)
			if j.Mark != 0 {
				got += fmt.Sprintf(" mark %d", j.Mark)
			}
			if j.Untrack {
				got += " notrack"
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func tcp(in, src, dst string, port uint16) Packet {
	return Packet{InLink: in, Src: addr(src), Dst: addr(dst), Protocol: 6, SrcPort: 40000, DstPort: port, State: StateNew}
}

func established(p Packet) Packet {
	p.State = StateEstablished
	return p
}

func TestLogDoesNotDecide(t *testing.T) {
	t.Parallel()
	table := small()
	j := table.Judge(Forward, tcp("cali1", "10.0.0.1", "10.1.3.4", 443))
	if len(j.Hits) != 1 || j.Hits[0].Log == nil || j.Rule != "end" {
		t.Errorf("%+v", j)
	}
}

func TestDiffTables(t *testing.T) {
	t.Parallel()
	want, got := small(), small()
	if d := DiffTables(want, got, false); d != "" {
		t.Fatalf("two equal tables differ:\n%s", d)
	}
	got = got.Apply(TableDelta{
		Changes:      []SetChange{{Set: "n", Delete: []Member{NetMember(prefix("10.1.0.0/16"))}}, {Set: "links", PutElement: []Element{{Link: "cali1", Value: "c2"}}}},
		PutSets:      []Set{{"new", SetPorts}},
		DeleteChains: []string{"list1"},
		PutChains:    []Chain{{Name: "to", Base: &Base{Hook: Forward, Priority: -1}}},
	})
	wantDiff := strings.TrimSpace(`
-chain list1
-element links { "cali1" : c1 }
+element links { "cali1" : c2 }
-element n { 10.1.0.0/16 }
-rule list1 0: jump tier
-rule list1 1: drop comment "end"
-rule to 0: daddr 10.77.0.0/16 reject comment "to"
+set new { type inet_service; flags interval }`)
	if d := DiffTables(want, got, false); d != wantDiff {
		t.Errorf("got:\n%s\nwant:\n%s", d, wantDiff)
	}
}

func TestRuleEqual(t *testing.T) {
	t.Parallel()
	base := Rule{Match: []Match{{Kind: MatchProtocol, Low: 6}}, Log: &NFLog{Group: 1}, Dispatch: &Dispatch{Classes: "a"}, Comment: "c"}
	same := base
	same.Log, same.Dispatch = &NFLog{Group: 1}, &Dispatch{Classes: "a"}
	if !base.Equal(same) {
		t.Error("rules with equal logs differ")
	}
	for name, change := range map[string]func(*Rule){
		"match": func(r *Rule) { r.Match = []Match{{Kind: MatchProtocol, Low: 17}} }, "log": func(r *Rule) { r.Log = nil },
		"rate": func(r *Rule) { r.Log = &NFLog{Group: 1, Rate: 5} }, "dispatch": func(r *Rule) { r.Dispatch = &Dispatch{Classes: "b"} },
		"mark": func(r *Rule) { r.SetMark = 1 }, "clear": func(r *Rule) { r.ClearMark = 1 }, "track": func(r *Rule) { r.Track = true },
		"verdict": func(r *Rule) { r.Verdict = Drop }, "target": func(r *Rule) { r.Target = "x" }, "comment": func(r *Rule) { r.Comment = "d" },
		"count": func(r *Rule) { r.Count = true }, "update": func(r *Rule) { r.Update = "u" },
	} {
		other := same
		change(&other)
		if base.Equal(other) {
			t.Errorf("%s makes no difference", name)
		}
	}
}

// BenchmarkVerdict is one packet through a list of a hundred rules, and through the
// first rule.
func BenchmarkVerdict(b *testing.B) {
	table := small()
	rules := table.Chains["tier"].Rules
	var long []Rule
	for range 100 {
		long = append(long, rules[0])
	}
	table.Chains["tier"] = Chain{Name: "tier", Rules: append(long, rules...)}
	m := table.Machine()
	for name, p := range map[string]Packet{
		"established": established(tcp("cali1", "10.0.0.1", "10.0.0.1", 80)),
		"first":       tcp("cali1", "10.0.0.1", "10.0.0.1", 80),
		"100rules":    tcp("cali1", "10.0.0.1", "10.2.3.4", 443),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Verdict(Forward, p)
			}
		})
	}
}

// Who judges a connection may not know where it comes from: host endpoints' lists are
// then left out, and policy of the other end still counts.
func TestUnknownLink(t *testing.T) {
	t.Parallel()
	table := small()
	p := tcp("", "192.0.2.1", "10.77.0.1", 80)
	if j := table.Judge(Forward, p); j.Verdict != Reject || j.Rule != "to" {
		t.Errorf("%+v", j)
	}
	p.Dst = addr("10.8.0.1")
	if j := table.Judge(Forward, p); j.Verdict != Accept {
		t.Errorf("%+v", j)
	}
}
