package policy

import (
	"math"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// policyOf is a policy with these rules for ingress, as readRule reads them. Its name
// may begin with a kind of policy: staged, raw (doNotTrack) or nat (preDNAT).
func policyOf(t *testing.T, name string, rules ...string) *model.Policy {
	t.Helper()
	p := &model.Policy{Origin: model.Key{Kind: model.KindGlobalNetworkPolicy, Name: name}, AppliesIngress: true}
	p.Staged, p.DoNotTrack, p.PreDNAT = strings.HasPrefix(name, "staged"), strings.HasPrefix(name, "raw"), strings.HasPrefix(name, "nat")
	for _, r := range rules {
		p.Ingress = append(p.Ingress, readRule(t, r))
	}
	return p
}

// What an action is in each kind of policy.
func TestPolicyChain(t *testing.T) {
	t.Parallel()
	logged := Settings{LogRate: 5, LogPerSeconds: 60, LogBurst: 3, Reject: true}
	for name, tt := range map[string]struct {
		settings Settings
		rule     string
		want     string // ID stands for the rule's ID
	}{
		"web allow":    {rule: "Allow", want: `counter accept comment "ID"`},
		"web deny":     {rule: "Deny", want: `counter drop comment "ID"`},
		"web reject":   {settings: logged, rule: "Deny", want: `counter reject comment "ID"`},
		"web log":      {settings: logged, rule: "Log", want: `counter limit rate 5/60s burst 3 packets log prefix "ID" group 1 comment "ID"`},
		"web log all":  {rule: "Log", want: `counter log prefix "ID" group 1 comment "ID"`},
		"staged allow": {rule: "Allow", want: `counter return comment "ID"`},
		"staged deny":  {settings: logged, rule: "Deny", want: `counter return comment "ID"`},
		"staged pass":  {rule: "Pass", want: `counter return comment "ID"`},
		"staged log":   {rule: "Log", want: `counter comment "ID"`},
		"raw allow":    {rule: "Allow", want: `counter meta mark set mark or 0x10000 notrack accept comment "ID"`},
		"raw deny":     {settings: logged, rule: "Deny", want: `counter drop comment "ID"`},
		"nat allow":    {rule: "Allow", want: `counter meta mark set mark or 0x10000 accept comment "ID"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := policyOf(t, name, tt.rule)
			c := Emitter{Settings: tt.settings}.PolicyChain(p, Ingress)
			if len(c.Rules) != 1 {
				t.Fatalf("%v", c)
			}
			if got := strings.ReplaceAll(c.Rules[0].String(), RuleID(p.Origin, Ingress, 0), "ID"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// How a tier and a list end, and what stands in a tier itself.
func TestEnds(t *testing.T) {
	t.Parallel()
	deny, pass := model.Tier{Name: "t", Order: 1}, model.Tier{Name: "t", Order: math.Inf(1), Default: model.Pass}
	web, staged := policyOf(t, "web", "Allow tcp"), policyOf(t, "staged web", "Allow tcp")
	inline := policyOf(t, "inline", "Deny udp", "Pass")
	last := func(c plan.Chain) string {
		var lines []string
		for _, r := range c.Rules {
			r.Comment = ""
			if r.Log != nil {
				r.Log.Prefix = ""
			}
			lines = append(lines, r.String())
		}
		return strings.Join(lines, "; ")
	}
	to := func(p *model.Policy) string { return "jump " + PolicyChainName(p.Origin, Ingress) }
	for name, tt := range map[string]struct {
		tier  TierList
		stage Stage
		log   bool
		want  string
	}{
		"denies":               {TierList{deny, []*model.Policy{web}}, Normal, false, to(web) + "; counter drop"},
		"denies forwarded":     {TierList{deny, []*model.Policy{web}}, Forwarded, false, to(web) + "; counter drop"},
		"logs what it denies":  {TierList{deny, []*model.Policy{web}}, Normal, true, to(web) + "; log prefix \"\" group 1; counter drop"},
		"passes":               {TierList{pass, []*model.Policy{web}}, Normal, true, to(web)},
		"staged only":          {TierList{deny, []*model.Policy{staged}}, Normal, true, to(staged)},
		"staged among others":  {TierList{deny, []*model.Policy{staged, web}}, Normal, false, to(staged) + "; " + to(web) + "; counter drop"},
		"before NAT":           {TierList{deny, []*model.Policy{web}}, PreDNAT, true, to(web)},
		"untracked":            {TierList{deny, []*model.Policy{web}}, Untracked, true, to(web)},
		"a Pass rule inlines":  {TierList{deny, []*model.Policy{inline, web}}, Normal, false, "meta l4proto udp counter drop; counter return; " + to(web) + "; counter drop"},
		"the order is theirs":  {TierList{deny, []*model.Policy{web, inline}}, Normal, false, to(web) + "; meta l4proto udp counter drop; counter return; counter drop"},
		"staged never inlines": {TierList{deny, []*model.Policy{policyOf(t, "staged pass", "Pass")}}, Normal, false, to(policyOf(t, "staged pass"))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Emitter{Settings: Settings{LogDenied: tt.log}}
			if got := last(e.TierChain(tt.tier, tt.stage, Ingress)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
	says := func(name string, rules ...string) *model.Profile {
		return &model.Profile{Name: name, Ingress: policyOf(t, name, rules...).Ingress}
	}
	none, open, shut, asks, passes := says("none"), says("open", "Allow"), says("shut", "Deny"), says("asks", "Allow tcp"), says("passes", "Pass")
	profiles := func(ps ...*model.Profile) List { return List{Profiles: ps} }
	under := func(tiers ...TierList) List { return List{Tiers: tiers, Profiles: []*model.Profile{open}} }
	of := func(t model.Tier, ps ...*model.Policy) TierList { return TierList{t, ps} }
	toTier := func(l TierList) string { return "jump " + TierChainName(l, Normal, Ingress) }
	const end, accept = "; counter drop", "; counter accept"
	for name, tt := range map[string]struct {
		list List
		want string
	}{
		"no profile":                {profiles(), "counter drop"},
		"a profile":                 {profiles(asks), "jump " + ProfileChainName("asks", Ingress) + end},
		"a profile that passes":     {profiles(passes), "jump " + ProfileChainName("passes", Ingress) + end},
		"a profile that allows":     {profiles(none, open, asks), "counter accept"},
		"a profile that denies":     {profiles(asks, shut, open), "jump " + ProfileChainName("asks", Ingress) + end},
		"nothing behind a denial":   {under(of(deny, web), of(deny, inline)), to(web) + end},
		"behind a tier that passes": {under(of(pass, web), of(deny, staged), of(deny, web)), to(web) + "; " + to(staged) + "; " + to(web) + end},
		"behind staged ones":        {under(of(deny, staged)), to(staged) + accept},
		"behind a Pass rule":        {under(of(deny, inline)), toTier(of(deny, inline)) + accept},
		"host":                      {List{Host: true, Direction: Egress}, "ct state invalid counter drop; jump failsafe-out; counter drop"},
		"forwarded":                 {List{Host: true, Stage: Forwarded, Profiles: []*model.Profile{open}}, "ct state invalid counter drop"},
		"before":                    {List{Host: true, Stage: PreDNAT}, "ct state invalid counter drop; jump failsafe-in"},
		"untracked":                 {List{Host: true, Stage: Untracked}, "jump failsafe-in-untracked"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := last(Emitter{}.ListChain(tt.list)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
