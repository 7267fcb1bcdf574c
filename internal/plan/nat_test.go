package plan_test

import (
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/plan"
)

// translating is a table that translates what leaves 10.0.0.0/8 by a, in ways that
// the packet's interface chooses.
func translating() plan.Table {
	base := func(t plan.ChainType, rules ...plan.Rule) *plan.Chain {
		return &plan.Chain{Base: &plan.Base{Hook: plan.Postrouting, Priority: plan.PrioritySourceNAT, Type: t}, Rules: rules}
	}
	out := func(link string, v plan.Verdict, nat *plan.NAT) plan.Rule {
		return plan.Rule{Match: []plan.Match{{Kind: plan.MatchOutLink, Link: link}}, Verdict: v, NAT: nat, Comment: link}
	}
	nat := base(plan.ChainNAT,
		plan.Rule{Match: []plan.Match{{Kind: plan.MatchSrcNet, Net: netip.MustParsePrefix("10.0.0.0/8"), Not: true}}, Verdict: plan.Return},
		out("none", plan.Accept, nil),
		out("masq", plan.Masquerade, &plan.NAT{Random: true}),
		plan.Rule{Match: []plan.Match{{Kind: plan.MatchOutLink, Link: "tunl0"}, {Kind: plan.MatchSrcLink, Not: true}, {Kind: plan.MatchSrcLocal}}, Verdict: plan.Masquerade, Comment: "tunnel"},
		plan.Rule{Match: []plan.Match{{Kind: plan.MatchOutLink, Link: "sub"}}, Verdict: plan.Jump, Target: "sub"})
	nat.Name = "nat"
	filter := base(plan.ChainFilter, out("masq", plan.Drop, nil))
	filter.Name = "filter"
	sub := plan.Chain{Name: "sub", Rules: []plan.Rule{{Verdict: plan.SNAT, NAT: &plan.NAT{Addr: netip.MustParseAddr("192.0.2.1"), FirstPort: 1024, LastPort: 65535}, Comment: "sub"}}}
	return plan.Table{}.Apply(plan.TableDelta{PutChains: []plan.Chain{*nat, *filter, sub}})
}

// TestNATDecides: chains of NAT say how a source is translated, and nothing about
// whether a packet goes on; those of the filter the other way round.
func TestNATDecides(t *testing.T) {
	t.Parallel()
	table := translating()
	m := table.Machine()
	for name, tt := range map[string]struct {
		p       plan.Packet
		rule    string
		verdict plan.Verdict
	}{
		"masquerade":             {plan.Packet{OutLink: "masq"}, "masq", plan.Drop},
		"not from there":         {plan.Packet{OutLink: "masq", Src: netip.MustParseAddr("11.0.0.1")}, "", plan.Drop},
		"accept ends":            {plan.Packet{OutLink: "none"}, "", plan.Accept},
		"by a jump":              {plan.Packet{OutLink: "sub"}, "sub", plan.Accept},
		"of another interface":   {plan.Packet{OutLink: "tunl0", SrcLocal: true}, "tunnel", plan.Accept},
		"of the interface's own": {plan.Packet{OutLink: "tunl0", SrcLocal: true, SrcLink: true}, "", plan.Accept},
		"not of the node":        {plan.Packet{OutLink: "tunl0"}, "", plan.Accept},
	} {
		if !tt.p.Src.IsValid() {
			tt.p.Src = netip.MustParseAddr("10.1.2.3")
		}
		got := ""
		if r := m.NAT(plan.Postrouting, tt.p); r != nil {
			got = r.Comment
		}
		if v := m.Judge(plan.Postrouting, tt.p).Verdict; got != tt.rule || v != tt.verdict {
			t.Errorf("%s: by %q, %v; want by %q, %v", name, got, v, tt.rule, tt.verdict)
		}
	}
}

// TestNATText: as nft(8) lists it.
func TestNATText(t *testing.T) {
	t.Parallel()
	const want = `chain filter {
	type filter hook postrouting priority srcnat; policy accept;
	oifname "masq" drop comment "masq"
}
chain nat {
	type nat hook postrouting priority srcnat; policy accept;
	saddr != 10.0.0.0/8 return
	oifname "none" accept comment "none"
	oifname "masq" masquerade fully-random comment "masq"
	oifname "tunl0" fib saddr . oif type != local fib saddr type local masquerade comment "tunnel"
	oifname "sub" jump sub
}
chain sub {
	snat to 192.0.2.1:1024-65535 comment "sub"
}
`
	if got := translating().Text(false); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	n := plan.NAT{Addr: netip.MustParseAddr("fd00::1"), FirstPort: 7, LastPort: 7, Random: true}
	if got := n.String(); got != " to [fd00::1]:7 fully-random" {
		t.Errorf("got %q", got)
	}
	a, b := translating(), translating()
	b.Chains["nat"].Rules[2].NAT.Random = false
	if a.Chains["nat"].Equal(b.Chains["nat"]) {
		t.Error("chains with other translations are equal")
	}
}
