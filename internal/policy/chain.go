package policy

import (
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// List is everything that judges an endpoint in a stage and direction, as far as any
// packet comes: to the first tier that all end in. Endpoints with equal lists share a
// list chain.
type List struct {
	Host      bool
	Stage     Stage
	Direction Direction
	Tiers     []TierList       // of that stage and direction
	Profiles  []*model.Profile // of stage Normal only; those of other stages don't count
}

// listPrefix stands before a class in the name of its list chain.
const listPrefix = "list-"

// Name is the name of the list's chain: a hash of what the list is made of, by
// keys, not by content.
func (l List) Name() string { return listPrefix + l.Class() }

// Class is the list as a value of the maps of classes: 15 bytes.
func (l List) Class() string {
	kind := "workload"
	if l.Host {
		kind = "host"
	}
	parts := []string{kind, string(rune('0' + l.Stage)), letterOf(l.Direction)}
	for _, t := range l.Tiers {
		parts = append(parts, TierChainName(t, l.Stage, l.Direction))
	}
	if l.Stage == Normal {
		for _, p := range l.Profiles {
			parts = append(parts, p.Name)
		}
	}
	return hash(15, parts...)
}

// TierChainName is the name of a tier's chain in lists of that stage and direction. The
// stages Normal and Forwarded share chains, where the policies are the same.
func TierChainName(t TierList, s Stage, d Direction) string {
	end := "falls off"
	if s.HasDefault() {
		end = "decides"
	}
	parts := make([]string, 0, 2+3*len(t.Policies))
	parts = append(parts, t.Tier.Name, end)
	for _, p := range t.Policies {
		parts = append(parts, string(p.Origin.Kind), p.Origin.Namespace, p.Origin.Name)
	}
	return "tier-" + letterOf(d) + "-" + hash(20, parts...)
}

// PolicyChainName is the name of a policy's chain in a direction.
func PolicyChainName(key model.Key, d Direction) string {
	return "policy-" + letterOf(d) + "-" + Owner(key)
}

// ProfileChainName is the name of a profile's chain in a direction.
func ProfileChainName(name string, d Direction) string {
	return "profile-" + letterOf(d) + "-" + hash(20, name)
}

// Inlined reports whether p stands in the tier chains themselves, since it has a
// Pass rule: then it has no chain of its own, and its change changes those.
func Inlined(p *model.Policy, d Direction) bool {
	return !p.Staged && slices.ContainsFunc(Rules(p, d), func(r model.Rule) bool { return r.Action == model.Pass })
}

// Chained reports whether l has a chain of its own in lists of that direction: one
// that a Pass rule of one of its policies can return from. What would be in the
// chains of other tiers stands in the list chains.
func (l TierList) Chained(d Direction) bool {
	return slices.ContainsFunc(l.Policies, func(p *model.Policy) bool { return Inlined(p, d) })
}

// denies reports whether nothing gets past l at that stage, unless by a Pass rule.
func (l TierList) denies(s Stage) bool {
	return s.HasDefault() && l.Enforced() && l.Tier.Default == model.Deny
}

// reach is how many of the tiers packets come to, and whether they come to what is
// behind them.
func reach(tiers []TierList, s Stage, d Direction) (n int, through bool) {
	for i, t := range tiers {
		if t.denies(s) && !t.Chained(d) {
			return i + 1, false
		}
	}
	return len(tiers), true
}

// InlinedProfile reports whether p stands in the list chains themselves, since it says
// nothing, or one thing of every packet, as nearly all profiles do: there is one for each
// namespace, and one for each service account.
func InlinedProfile(p *model.Profile, d Direction) bool {
	rules := profileRules(p, d)
	return len(rules) == 0 || len(rules) == 1 && decides(&rules[0])
}

// decides reports whether r ends every packet's way.
func decides(r *model.Rule) bool {
	return plain(r) && (r.Action == model.Allow || r.Action == model.Deny)
}

// PolicyChain is the chain of a policy that is not inlined.
func (e Emitter) PolicyChain(p *model.Policy, d Direction) plan.Chain {
	return plan.Chain{Name: PolicyChainName(p.Origin, d), Rules: e.policyRules(p, d)}
}

// policyRules are the rules of a policy. Each counts, and has its ID as a comment.
// Staged ones count and decide nothing.
func (e Emitter) policyRules(p *model.Policy, d Direction) []plan.Rule {
	how := e.enforced()
	switch {
	case p.Staged:
		how = staged
	case p.DoNotTrack:
		how = e.early(true)
	case p.PreDNAT:
		how = e.early(false)
	}
	return e.rules(Rules(p, d), Owner(p.Origin), d, how)
}

func (e Emitter) rules(rules []model.Rule, owner string, d Direction, how func(model.Action) plan.Rule) []plan.Rule {
	var out []plan.Rule
	for i := range rules {
		like := how(rules[i].Action)
		like.Count, like.Comment = true, ruleID(owner, d, i)
		if like.Log != nil {
			like.Log = e.log(like.Comment, d)
		}
		out = append(out, e.rule(&rules[i], like)...)
	}
	return out
}

// enforced is how an action ends a rule.
func (e Emitter) enforced() func(model.Action) plan.Rule {
	return func(a model.Action) plan.Rule {
		switch a {
		case model.Allow:
			return plan.Rule{Verdict: plan.Accept}
		case model.Log:
			return plan.Rule{Log: &plan.NFLog{}}
		case model.Pass:
			return plan.Rule{Verdict: plan.Return}
		}
		return plan.Rule{Verdict: e.denial()}
	}
}

// early is enforced before connection tracking or destination NAT: what is allowed
// there is marked, so that host endpoints don't judge it again. Denials are silent:
// an answer would have to be routed before the packet is.
func (e Emitter) early(untracked bool) func(model.Action) plan.Rule {
	return func(a model.Action) plan.Rule {
		r := e.enforced()(a)
		switch a {
		case model.Allow:
			r.SetMark, r.Track = e.mark(), untracked
		case model.Deny:
			r.Verdict = plan.Drop
		}
		return r
	}
}

func staged(a model.Action) plan.Rule {
	if a == model.Log {
		return plan.Rule{}
	}
	return plan.Rule{Verdict: plan.Return}
}

// mark is the bit of packets' marks that says "let in by the host endpoint".
func (e Emitter) mark() uint32 {
	if e.Settings.Mark == 0 {
		return DefaultMark
	}
	return e.Settings.Mark
}

func (e Emitter) denial() plan.Verdict {
	if e.Settings.Reject {
		return plan.Reject
	}
	return plan.Drop
}

func (e Emitter) log(prefix string, d Direction) *plan.NFLog {
	s := &e.Settings
	return &plan.NFLog{Group: LogGroup(d), Prefix: prefix, Rate: s.LogRate, Burst: s.LogBurst, PerSeconds: s.LogPerSeconds}
}

// denied ends a chain: what no rule matched is logged, if asked for, counted and denied.
func (e Emitter) denied(key model.Key, d Direction) []plan.Rule {
	id := RuleID(key, d, Default)
	out := []plan.Rule{{Count: true, Verdict: e.denial(), Comment: id}}
	if e.Settings.LogDenied {
		// Of its own, since a rate that is exceeded must not keep the packet alive.
		out = append([]plan.Rule{{Log: e.log(id, d), Comment: id}}, out...)
	}
	return out
}

// ProfileChain is the chain of a profile. Pass in a profile goes on with the next one.
func (e Emitter) ProfileChain(p *model.Profile, d Direction) plan.Chain {
	return plan.Chain{Name: ProfileChainName(p.Name, d), Rules: e.profileRules(p, d)}
}

func (e Emitter) profileRules(p *model.Profile, d Direction) []plan.Rule {
	return e.rules(profileRules(p, d), Owner(p.Key()), d, e.enforced())
}

// TierChain is the chain of a tier that is Chained.
func (e Emitter) TierChain(t TierList, s Stage, d Direction) plan.Chain {
	return plan.Chain{Name: TierChainName(t, s, d), Rules: e.tierRules(t, s, d)}
}

// tierRules jump to, or are, the policies of a tier or their blocks, and its end.
func (e Emitter) tierRules(t TierList, s Stage, d Direction) []plan.Rule {
	var out []plan.Rule
	for _, r := range runs(t.Policies, d) {
		out = append(out, e.runRules(r, d)...)
	}
	if t.denies(s) {
		out = append(out, e.denied(t.Tier.Key(), d)...)
	}
	return out
}

// maxComment is how long comments are, in bytes.
const maxComment = 120

func jump(to, comment string) plan.Rule {
	if len(comment) > maxComment {
		comment = comment[:maxComment]
	}
	return plan.Rule{Verdict: plan.Jump, Target: to, Comment: comment}
}

// ListChain is the tiers and profiles of a list, up to the first that no packet gets
// past.
//
// In the stage Normal what nothing allows is denied. The other stages only deny what
// their policies do: forwarded packets that no policy with applyOnForward is about pass
// through a host endpoint, and profiles are not asked.
func (e Emitter) ListChain(l List) plan.Chain {
	c := plan.Chain{Name: l.Name()}
	if l.Host && l.Stage != Untracked {
		c.Rules = append(c.Rules, e.invalid()...) // of workloads the base asks this
	}
	if l.Host && l.Stage != Forwarded {
		c.Rules = append(c.Rules, jump(failsafeChain(l.Direction, l.Stage), ""))
	}
	n, through := reach(l.Tiers, l.Stage, l.Direction)
	for _, t := range l.Tiers[:n] {
		if t.Chained(l.Direction) {
			c.Rules = append(c.Rules, jump(TierChainName(t, l.Stage, l.Direction), t.Tier.Key().String()))
			continue
		}
		c.Rules = append(c.Rules, e.tierRules(t, l.Stage, l.Direction)...)
	}
	if l.Stage != Normal || !through {
		return c
	}
	for _, p := range l.Profiles {
		if !InlinedProfile(p, l.Direction) {
			c.Rules = append(c.Rules, jump(ProfileChainName(p.Name, l.Direction), p.Key().String()))
			continue
		}
		rules := e.profileRules(p, l.Direction)
		if c.Rules = append(c.Rules, rules...); len(rules) > 0 {
			return c
		}
	}
	c.Rules = append(c.Rules, e.denied(model.Key{}, l.Direction)...)
	return c
}

// invalid drops what belongs to no connection: never rejected, since an answer to a
// packet that only looks invalid, such as one out of the window, would end a good one.
func (e Emitter) invalid() []plan.Rule {
	if e.Settings.KeepInvalid {
		return nil
	}
	return []plan.Rule{drop("of no connection", state(plan.StateInvalid))}
}
