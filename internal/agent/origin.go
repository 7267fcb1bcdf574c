package agent

import (
	"cmp"
	"slices"

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
}

// attrs are o as attributes of a log line.
func (o RuleOrigin) attrs() []any {
	out := []any{"policy", o.Object, "direction", o.Direction, "rule", o.Rule}
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

func sortStats(stats []RuleStat) {
	slices.SortFunc(stats, func(a, b RuleStat) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Rule, b.Rule))
	})
}

// owner is an object that rules come from.
type owner struct {
	key    model.Key
	tier   string
	staged bool
}

// origins finds the objects that rules come from by what stands for them in the
// kernel, see [policy.Owner].
type origins struct {
	byID  map[string]owner
	fresh map[string]owner // of the snapshot in progress; nil: there is none
}

func newOrigins() origins { return origins{byID: map[string]owner{}} }

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
}

func (o *origins) put(v model.Value) {
	of := owner{key: v.Key()}
	switch v := v.(type) {
	case model.Policy:
		of.tier, of.staged = v.Tier, v.Staged
	case model.Tier:
		of.tier = v.Name
	case model.Profile:
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
	out := RuleOrigin{Direction: d.String(), Rule: index}
	if name == policy.Owner(model.Key{}) {
		return out, true
	}
	of, ok := o.byID[name]
	if !ok {
		return RuleOrigin{}, false
	}
	out.Tier, out.Object, out.Staged = of.tier, of.key.String(), of.staged
	return out, true
}
