package agent

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
)

// RuleOrigin is where a rule of the kernel comes from.
type RuleOrigin struct {
	Tier      string `json:"tier,omitempty"` // empty: a profile's rule, or the end of everything
	Object    string `json:"object"`         // KIND/NAMESPACE/NAME; empty: no object, the end of everything
	Staged    bool   `json:"staged,omitempty"`
	Direction string `json:"direction"` // Ingress or Egress
	// Rule is the index in its direction; -1 is what is done where no rule matched.
	Rule int `json:"rule"`
	// Action is what the rule does, or would do if it is staged.
	Action string `json:"action"`
}

// place is the rule as people read it: its index, or that it is the end.
func (o RuleOrigin) place() string {
	if o.Rule < 0 {
		return "end"
	}
	return strconv.Itoa(o.Rule)
}

// attrs are o as attributes of a log line.
func (o RuleOrigin) attrs() []any {
	out := []any{"direction", o.Direction, "rule", o.place(), "action", o.Action}
	if o.Object != "" {
		out = append(out, "policy", o.Object)
	}
	if o.Tier != "" {
		out = append(out, "tier", o.Tier)
	}
	return out
}

// RuleStat is what a rule has met on this node since it is in the kernel.
type RuleStat struct {
	RuleOrigin
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// stat is a RuleStat with what its place in the order of evaluation depends on.
type stat struct {
	RuleStat
	owner owner
	tier  model.Tier // of the owner, if it has one
}

// rank orders what is asked: tiers, then profiles, then the end of everything.
func (s stat) rank() int {
	switch {
	case s.Tier != "":
		return 0
	case s.Object != "":
		return 1
	}
	return 2
}

// inOrder sorts by evaluation: tiers, their policies, rules, the end of the tier, then
// profiles, and the end of everything.
func inOrder(stats []stat) []RuleStat {
	slices.SortFunc(stats, func(a, b stat) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), policy.CompareTiers(a.tier, b.tier), cmp.Compare(a.owner.order(), b.owner.order()),
			cmp.Compare(a.owner.key.Name, b.owner.key.Name), cmp.Compare(a.Object, b.Object),
			cmp.Compare(b.Direction, a.Direction), cmp.Compare(uint(a.Rule), uint(b.Rule)))
	})
	out := make([]RuleStat, len(stats))
	for i, s := range stats {
		out[i] = s.RuleStat
	}
	return out
}

// owner is an object that rules come from.
type owner struct {
	key     model.Key
	tier    string
	staged  bool
	policy  float64           // order of a policy in its tier
	ends    *model.Tier       // the tier, if it is one
	actions [2][]model.Action // of its rules, by direction
}

// order is the place of a policy in its tier; a tier itself comes behind them.
func (o owner) order() float64 {
	if o.ends != nil {
		return math.Inf(1)
	}
	return o.policy
}

// action is what a rule of o does, in words.
func (o owner) action(d policy.Direction, index int) string {
	a := model.Deny
	switch {
	case o.ends != nil:
		a = o.ends.Default
	case index >= 0 && index < len(o.actions[d]):
		a = o.actions[d][index]
	}
	return a.String()
}

func actions(rules []model.Rule) []model.Action {
	out := make([]model.Action, len(rules))
	for i := range rules {
		out[i] = rules[i].Action
	}
	return out
}

// origins finds the objects that rules come from by what stands for them in the
// kernel, see [policy.Owner].
type origins struct {
	byID  map[string]owner
	fresh map[string]owner // of the snapshot in progress; nil: there is none
}

func newOrigins() origins {
	o := origins{byID: map[string]owner{}}
	o.put(model.DefaultAllow())
	return o
}

func (o *origins) step(b model.Batch) {
	if b.Reset {
		o.fresh = map[string]owner{}
	}
	for _, in := range b.Invalids {
		if in.Strict != nil {
			o.put(in.Strict)
		}
		if id := policy.Owner(in.Key); o.fresh != nil && in.Strict == nil {
			if of, ok := o.byID[id]; ok {
				o.fresh[id] = of // its last good version stays
			}
		}
	}
	for _, v := range b.Puts {
		o.put(v)
	}
	for _, k := range b.Deletes {
		switch k.Kind {
		case model.KindWorkloadEndpoint: // the most of all, and never an owner
		default:
			delete(o.byID, policy.Owner(k))
		}
	}
	if b.Synced && o.fresh != nil {
		o.byID, o.fresh = o.fresh, nil
	}
	if builtin := model.DefaultAllow(); b.Synced || len(b.Deletes) > 0 {
		if _, stored := o.byID[policy.Owner(builtin.Key())]; !stored {
			o.put(builtin) // it exists without an object
		}
	}
}

func (o *origins) put(v model.Value) {
	of := owner{key: v.Key()}
	switch v := v.(type) {
	case model.Policy:
		of.tier, of.staged, of.policy = v.Tier, v.Staged, v.Order
		of.actions = [2][]model.Action{policy.Ingress: actions(v.Ingress), policy.Egress: actions(v.Egress)}
	case model.Tier:
		of.tier, of.ends = v.Name, &v
	case model.Profile:
		of.actions = [2][]model.Action{policy.Ingress: actions(v.Ingress), policy.Egress: actions(v.Egress)}
	default:
		return
	}
	id := policy.Owner(of.key)
	o.byID[id] = of
	if o.fresh != nil {
		o.fresh[id] = of
	}
}

// key is the object that a rule with that ID comes from; false: none that is known.
func (o *origins) key(id string) (model.Key, bool) {
	name, _, _, _ := policy.ParseRuleID(id)
	of, ok := o.byID[name]
	return of.key, ok
}

// of takes a rule's ID apart; false: its object is not known any more.
func (o *origins) of(id string) (RuleOrigin, bool) {
	name, d, index, ok := policy.ParseRuleID(id)
	if !ok {
		return RuleOrigin{}, false
	}
	out := RuleOrigin{Direction: d.String(), Rule: index, Action: model.Deny.String()}
	if name == policy.Owner(model.Key{}) {
		return out, true
	}
	of, ok := o.byID[name]
	if !ok {
		return RuleOrigin{}, false
	}
	out.Tier, out.Object, out.Staged, out.Action = of.tier, of.key.String(), of.staged, of.action(d, index)
	return out, true
}

// stat is what is known of a rule by its ID; false: nothing.
func (o *origins) stat(id string) (stat, bool) {
	origin, ok := o.of(id)
	if !ok {
		return stat{}, false
	}
	name, _, _, _ := policy.ParseRuleID(id)
	s := stat{RuleStat: RuleStat{RuleOrigin: origin}, owner: o.byID[name]}
	if s.Tier != "" {
		s.tier = policy.ImpliedTier(s.Tier)
		if of := o.byID[policy.Owner(s.tier.Key())]; of.ends != nil {
			s.tier = *of.ends
		}
	}
	return s, true
}
