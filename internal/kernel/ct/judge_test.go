package ct

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/plan"
)

// links are the workloads of the node in these tests.
func links(a netip.Addr) string {
	return map[string]string{
		"10.0.0.1": "cali1", "10.0.0.2": "cali2", "fd00::1": "cali1", "fd00::2": "cali2",
	}[a.String()]
}

// web lets workloads be entered at port 8080 and left to anywhere but port 666, in
// two base chains, as package policy makes them.
func web() plan.Table {
	chain := func(name string, priority int32, rules ...plan.Rule) plan.Chain {
		return plan.Chain{Name: name, Base: &plan.Base{Hook: plan.Forward, Priority: priority}, Rules: rules}
	}
	established := plan.Rule{Match: []plan.Match{{Kind: plan.MatchState, Low: plan.StateEstablished | plan.StateRelated}}, Verdict: plan.Accept}
	in, out := plan.Match{Kind: plan.MatchInLink, Link: "cali*"}, plan.Match{Kind: plan.MatchOutLink, Link: "cali*"}
	port := func(p uint16) []plan.Match {
		return []plan.Match{{Kind: plan.MatchProtocol, Low: 6}, {Kind: plan.MatchDstPort, Low: p, High: p}}
	}
	ping := []plan.Match{out, {Kind: plan.MatchICMPType, Low: 8, High: 8}}
	table := plan.Table{Sets: map[string]*plan.SetContent{}, Chains: map[string]plan.Chain{}}
	for _, c := range []plan.Chain{
		chain("leave", 0, established, plan.Rule{Match: append(port(666), in), Verdict: plan.Reject}),
		chain("enter", 1, established, plan.Rule{Match: append(port(8080), out), Verdict: plan.Accept}, plan.Rule{Match: ping, Verdict: plan.Accept},
			plan.Rule{Match: []plan.Match{out}, Verdict: plan.Drop}),
	} {
		table.Chains[c.Name] = c
	}
	return table
}

func judgeOf(t plan.Table) *Judge { return NewJudge(links, t.Machine(), t.Machine()) }

func TestForbids(t *testing.T) {
	t.Parallel()
	j := judgeOf(web())
	for name, tt := range map[string]struct {
		orig, reply string // reply empty: no translation
		status      Status
		want        bool
	}{
		"allowed":                        {orig: "6 10.0.0.1:40000 > 10.0.0.2:8080"},
		"allowed v6":                     {orig: "6 [fd00::1]:40000 > [fd00::2]:8080"},
		"other port":                     {orig: "6 10.0.0.1:40000 > 10.0.0.2:80", want: true},
		"other port v6":                  {orig: "6 [fd00::1]:40000 > [fd00::2]:80", want: true},
		"other protocol":                 {orig: "17 10.0.0.1:40000 > 10.0.0.2:8080", want: true},
		"through a service":              {orig: "6 10.0.0.1:40000 > 10.96.0.1:80", reply: "6 10.0.0.2:8080 > 10.0.0.1:40000"},
		"a service's other port":         {orig: "6 10.0.0.1:40000 > 10.96.0.1:8080", reply: "6 10.0.0.2:80 > 10.0.0.1:40000", want: true},
		"from afar":                      {orig: "6 192.0.2.1:40000 > 10.0.0.2:8080"},
		"from afar, other port":          {orig: "6 192.0.2.1:40000 > 10.0.0.2:80", want: true},
		"from afar, masked":              {orig: "6 192.0.2.1:40000 > 172.16.0.1:30080", reply: "6 10.0.0.2:80 > 172.16.0.1:40000", want: true},
		"to afar":                        {orig: "6 10.0.0.1:40000 > 192.0.2.1:80"},
		"to afar, masked":                {orig: "6 10.0.0.1:40000 > 192.0.2.1:80", reply: "6 192.0.2.1:80 > 172.16.0.1:1024"},
		"egress forbidden":               {orig: "6 10.0.0.1:40000 > 192.0.2.1:666", reply: "6 192.0.2.1:666 > 172.16.0.1:1024", want: true},
		"forwarded for others":           {orig: "6 192.0.2.1:40000 > 192.0.2.2:80"},
		"forwarded for others, port 1":   {orig: "6 192.0.2.1:40000 > 192.0.2.2:666"},
		"host to host":                   {orig: "6 172.16.0.1:40000 > 172.16.0.2:666"},
		"to the node":                    {orig: "6 10.0.0.1:40000 > 172.16.0.1:80"},
		"to the node, forbidden":         {orig: "6 10.0.0.1:40000 > 172.16.0.1:666", want: true},
		"ping":                           {orig: "1 10.0.0.1 > 10.0.0.2 77/8/0"},
		"timestamp":                      {orig: "1 10.0.0.1 > 10.0.0.2 77/13/0", want: true},
		"related":                        {orig: "6 10.0.0.1:40000 > 10.0.0.2:80", status: Expected},
		"on its way out of the table":    {orig: "6 10.0.0.1:40000 > 10.0.0.2:80", status: Dying},
		"no answer yet":                  {orig: "6 10.0.0.1:40000 > 10.0.0.2:80", status: Confirmed, want: true},
		"the answers would be allowed":   {orig: "6 10.0.0.2:8080 > 10.0.0.1:8081", want: true},
		"the answers would be denied":    {orig: "6 10.0.0.1:80 > 10.0.0.2:8080"},
		"established and then forbidden": {orig: "6 10.0.0.1:40000 > 10.0.0.2:80", status: SeenReply | Assured | Confirmed, want: true},
	} {
		f := Flow{Orig: tuple(t, tt.orig), Status: tt.status}
		if f.Reply = reversed(f.Orig); tt.reply != "" {
			f.Reply = tuple(t, tt.reply)
		}
		if got := j.Forbids(&f); got != tt.want {
			t.Errorf("%s: got %t, want %t", name, got, tt.want)
		}
	}
}

// TestTombstone: it is the answer as it comes in, without the entry that would
// translate its addresses back.
func TestTombstone(t *testing.T) {
	t.Parallel()
	f := Flow{Orig: tuple(t, "6 10.0.0.1:40000 > 10.96.0.1:80"), Reply: tuple(t, "6 10.0.0.2:8080 > 10.0.0.1:40000")}
	if got, ok := f.Tombstone(); !ok || got.String() != "6 10.0.0.2:8080 > 10.0.0.1:40000" {
		t.Errorf("got %v, %t", got, ok)
	}
	f.Orig = tuple(t, "1 10.0.0.1 > 10.0.0.2 77/8/0")
	f.Reply = reversed(f.Orig)
	if got, ok := f.Tombstone(); ok || strings.Contains(got.String(), ":") {
		t.Errorf("ping: got %v, want none", got)
	}
}

func BenchmarkForbids(b *testing.B) {
	j := judgeOf(web())
	for name, text := range map[string]string{
		"workload": "6 10.0.0.1:40000 > 10.0.0.2:8080", "workload v6": "6 [fd00::1]:40000 > [fd00::2]:8080", "foreign": "6 192.0.2.1:40000 > 192.0.2.2:80",
	} {
		b.Run(name, func(b *testing.B) {
			f := Flow{Orig: tuple(b, text)}
			f.Reply = reversed(f.Orig)
			b.ReportAllocs()
			for b.Loop() {
				if j.Forbids(&f) {
					b.Fatal("forbidden")
				}
			}
		})
	}
}
