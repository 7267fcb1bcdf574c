package policy

import (
	"cmp"
	"maps"
	"math"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// CompareKeys orders keys: by kind, namespace, name.
func CompareKeys(a, b model.Key) int {
	return cmp.Or(
		strings.Compare(string(a.Kind), string(b.Kind)),
		strings.Compare(a.Namespace, b.Namespace),
		strings.Compare(a.Name, b.Name),
	)
}

// CompareTiers orders tiers as packets meet them: by order, then by name.
func CompareTiers(a, b model.Tier) int {
	return cmp.Or(cmp.Compare(a.Order, b.Order), strings.Compare(a.Name, b.Name))
}

// ComparePolicies orders the policies of a tier as packets meet them: by order, then
// by name. Where names are equal a staged policy stands before the one that it is to
// replace, else its rules would not see what that one decides; for the rest namespace
// and kind make the order total.
func ComparePolicies(a, b *model.Policy) int {
	return cmp.Or(
		cmp.Compare(a.Order, b.Order),
		strings.Compare(a.Origin.Name, b.Origin.Name),
		strings.Compare(a.Origin.Namespace, b.Origin.Namespace),
		strings.Compare(string(Enforced(a.Origin).Kind), string(Enforced(b.Origin).Kind)),
		-strings.Compare(string(a.Origin.Kind), string(b.Origin.Kind)), // "Staged…" first
	)
}

// Enforced is the key of the policy that a staged one of this key is to replace or to
// delete; other keys are returned as they are.
func Enforced(k model.Key) model.Key {
	switch k.Kind {
	case model.KindStagedGlobalNetworkPolicy:
		k.Kind = model.KindGlobalNetworkPolicy
	case model.KindStagedKubernetesNetworkPolicy:
		k.Kind = model.KindKubernetesNetworkPolicy
	case model.KindStagedNetworkPolicy:
		k.Kind = model.KindNetworkPolicy
	}
	return k
}

// ImpliedTier is what a policy gets that names a tier which is not there: the built-in
// one of that name, else one behind all others that denies what its policies do not
// allow. Calico leaves such policies out, and so lets through what they forbid.
func ImpliedTier(name string) model.Tier {
	switch name {
	case "kube-admin":
		return model.Tier{Name: name, Order: 1_000, Default: model.Pass}
	case "default":
		return model.Tier{Name: name, Order: 1_000_000, Default: model.Deny}
	case "kube-baseline":
		return model.Tier{Name: name, Order: 10_000_000, Default: model.Pass}
	}
	return model.Tier{Name: name, Order: math.Inf(1), Default: model.Deny}
}

// EffectiveLabels are an object's own labels and those of its profiles. Its own win,
// then those of the first profile. The result may be own itself.
func EffectiveLabels(own map[string]string, profiles []*model.Profile) map[string]string {
	out, copied := own, false
	for _, p := range profiles {
		for name, value := range p.Labels {
			if _, ok := out[name]; ok {
				continue
			}
			if !copied {
				out, copied = maps.Clone(own), true
				if out == nil {
					out = map[string]string{}
				}
			}
			out[name] = value
		}
	}
	return out
}

// Applies reports whether p has to do with that direction and stage. A workload
// endpoint knows the stage Normal only. A staged deletion has no rules of its own, and
// applies to nothing.
func Applies(p *model.Policy, d Direction, st Stage) bool {
	if p.Delete || d == Ingress && !p.AppliesIngress || d == Egress && !p.AppliesEgress {
		return false
	}
	switch st {
	case Untracked:
		return p.DoNotTrack
	case PreDNAT:
		return p.PreDNAT && d == Ingress
	case Forwarded:
		return p.ApplyOnForward && !p.DoNotTrack && !p.PreDNAT
	}
	return !p.DoNotTrack && !p.PreDNAT
}

// HasDefault reports whether the default action of tiers counts in that stage. Policies
// before connection tracking or NAT decide only what their rules match.
func (st Stage) HasDefault() bool { return st == Normal || st == Forwarded }

// Rules are those of p for that direction.
func Rules(p *model.Policy, d Direction) []model.Rule {
	if d == Egress {
		return p.Egress
	}
	return p.Ingress
}
