package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
)

// Which policies in a row become a block, and by what doors packets come to it. A
// letter of a run is a policy: w is about TCP 443, x about TCP 444, d about UDP 53, i
// about ICMP, p has a Pass rule, s is staged and as w, o is open to all, n has no rule.
func TestRuns(t *testing.T) {
	t.Parallel()
	rules := map[rune][]string{
		'w': {"Allow tcp to ports 443"}, 'x': {"Allow tcp to ports 444"}, 'd': {"Log udp to ports 53", "Deny udp to ports 53"}, 'i': {"Allow icmp"},
		'p': {"Allow tcp to ports 443", "Pass tcp to ports 443"}, 's': {"Deny tcp to ports 443"}, 'o': {"Allow tcp to ports 443", "Allow"}, 't': {"Allow tcp"}, 'n': nil,
		'1': {"Allow tcp to ports 1"}, '3': {"Allow tcp to ports 3"}, '5': {"Allow tcp to ports 5"}, '7': {"Allow tcp to ports 7"}, '9': {"Allow tcp to ports 9"},
	}
	for policies, want := range map[string]string{
		"":                        "",
		"www":                     "www",
		"wwww":                    "wwww[6:443-443]",
		"wxsx":                    "wxsx[6:443-444]",
		"wwwwo":                   "wwww[6:443-443] o",
		"owwww":                   "o wwww[6:443-443]",
		"wwwwt":                   "wwww[6:443-443] t",
		"wwwpwww":                 "wwwpwww",
		"wwwwpxxxx":               "wwww[6:443-443] p xxxx[6:444-444]",
		"wwwd":                    "wwwd",
		"wwwdwwwd":                "wwwdwwwd[6:443-443 17:53-53]",
		"iiiiiiiw":                "iiiiiiiw[1:0-65535 6:443-443]",
		"nnnn":                    "nnnn",
		"nwww":                    "nwww[6:443-443]",
		"1357135713571357":        "1357135713571357[6:1-1 6:3-3 6:5-5 6:7-7]",
		"135713571357135799":      "1357135713571357[6:1-1 6:3-3 6:5-5 6:7-7] 99",
		"13571357135713579999999": "1357135713571357[6:1-1 6:3-3 6:5-5 6:7-7] 9999999[6:9-9]",
	} {
		t.Run(policies, func(t *testing.T) {
			t.Parallel()
			var all []*model.Policy
			names := map[string]rune{}
			for i, r := range policies {
				name := fmt.Sprintf("p%02d", i)
				names[name] = r
				if r == 's' {
					name = "staged " + name
				}
				p := policyOf(t, name, rules[r]...)
				names[name] = r
				all = append(all, p)
			}
			var got []string
			for _, r := range runs(all, Ingress) {
				var text strings.Builder
				for _, p := range r.policies {
					text.WriteRune(names[p.Origin.Name])
				}
				var doors []string
				for _, o := range r.doors {
					doors = append(doors, fmt.Sprintf("%d:%d-%d", o.proto, o.first, o.last))
				}
				if len(doors) > 0 {
					fmt.Fprint(&text, doors)
				}
				if text.Len() > 0 {
					got = append(got, text.String())
				}
			}
			if got := strings.Join(got, " "); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// A block is found by its doors, and the order of the policies is theirs.
func TestBlockChains(t *testing.T) {
	t.Parallel()
	var list []*model.Policy
	for i := range 8 {
		rule := "Allow tcp to ports 443"
		if i == 2 {
			rule = "Allow icmp"
		}
		list = append(list, policyOf(t, fmt.Sprint("p", i), rule))
	}
	tier := TierList{model.Tier{Name: "t", Default: model.Pass}, append(list, policyOf(t, "last", "Allow"))}
	blocks := Emitter{}.Blocks(tier, Ingress)
	if len(blocks) != 1 || len(blocks[0].Rules) != len(list) {
		t.Fatalf("blocks %v", blocks)
	}
	for i, p := range list {
		if r := blocks[0].Rules[i]; r.Target != PolicyChainName(p.Origin, Ingress) || len(r.Match) > 0 {
			t.Errorf("rule %d of the block is %v", i, r)
		}
	}
	var got []string
	for _, r := range (Emitter{}).TierChain(tier, Normal, Ingress).Rules {
		r.Comment = ""
		got = append(got, strings.ReplaceAll(r.String(), blocks[0].Name, "BLOCK"))
	}
	want := []string{"meta l4proto icmp jump BLOCK", "meta l4proto tcp th dport 443 jump BLOCK", "jump " + PolicyChainName(tier.Policies[8].Origin, Ingress)}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
