package policy

import (
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// List is everything that judges an endpoint in a stage and direction.
// Endpoints with equal lists share a list chain.
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
	rules := p.Ingress
	if d == Egress {
		rules = p.Egress
	}
	return plan.Chain{Name: ProfileChainName(p.Name, d), Rules: e.rules(rules, Owner(p.Key()), d, e.enforced())}
}

// TierChain jumps to, or holds, the policies of a tier.
func (e Emitter) TierChain(t TierList, s Stage, d Direction) plan.Chain {
	c := plan.Chain{Name: TierChainName(t, s, d)}
	for _, p := range t.Policies {
		if Inlined(p, d) {
			c.Rules = append(c.Rules, e.policyRules(p, d)...)
			continue
		}
		c.Rules = append(c.Rules, jump(PolicyChainName(p.Origin, d), p.Origin.String()))
	}
	if s.HasDefault() && t.Enforced() && t.Tier.Default == model.Deny {
		c.Rules = append(c.Rules, e.denied(t.Tier.Key(), d)...)
	}
	return c
}

// maxComment is how long comments are, in bytes.
const maxComment = 120

func jump(to, comment string) plan.Rule {
	if len(comment) > maxComment {
		comment = comment[:maxComment]
	}
	return plan.Rule{Verdict: plan.Jump, Target: to, Comment: comment}
}

// ListChain jumps to the tiers and profiles of a list.
//
// In the stage Normal what nothing allows is denied. The other stages only deny what
// their policies do: forwarded packets that no policy with applyOnForward is about pass
// through a host endpoint, and profiles are not asked.
func (e Emitter) ListChain(l List) plan.Chain {
	c := plan.Chain{Name: l.Name()}
	if l.Stage != Untracked && !e.Settings.KeepInvalid {
		// Dropped, never rejected: an answer to a packet that only looks invalid, such
		// as one out of the window, would end a good connection.
		c.Rules = append(c.Rules, drop("of no connection", state(plan.StateInvalid)))
	}
	if l.Host && l.Stage != Forwarded {
		c.Rules = append(c.Rules, jump(failsafeChain(l.Direction, l.Stage), ""))
	}
	for _, t := range l.Tiers {
		c.Rules = append(c.Rules, jump(TierChainName(t, l.Stage, l.Direction), t.Tier.Key().String()))
	}
	if l.Stage != Normal {
		return c
	}
	for _, p := range l.Profiles {
		c.Rules = append(c.Rules, jump(ProfileChainName(p.Name, l.Direction), p.Key().String()))
	}
	c.Rules = append(c.Rules, e.denied(model.Key{}, l.Direction)...)
	return c
}
