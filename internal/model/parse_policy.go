package model

import (
	"math"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/selector"
)

// maxMadeLen bounds selectors that are made from label selectors of Kubernetes,
// which has no such limit itself, in bytes.
const maxMadeLen = 1 << 16

// document is a policy of any kind on its way into the model: all kinds have some
// of the fields of a GlobalNetworkPolicy.
type document struct {
	origin Key
	scope  scope
	spec   v3.GlobalNetworkPolicySpec
	// Where the rules stand in the object; nil: in spec.ingress and spec.egress.
	ingress, egress []string
	// unbuilt names what rules ask for that no rule can say, by place; may be nil.
	unbuilt map[string]string
	// nodes are the destinations of rules that are nodes, by place; may be nil.
	nodes  map[string]string
	staged v3.StagedAction // empty: the policy is in force
	// badSubject: whom the policy applies to can't be said.
	badSubject bool
}

// documentOf reads a policy of any kind. The error says what of it has no
// equivalent; the document is then without those rules.
func documentOf(o v3.Object) (document, error) {
	meta := o.Meta()
	d := document{
		origin: Key{Kind: Kind(v3.KindOf(o).Name), Namespace: meta.Namespace, Name: meta.Name},
		scope:  scope{namespace: meta.Namespace, maxLen: selector.MaxLen},
	}
	var err error
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		d.spec = globalSpec(o.Spec)
	case *v3.GlobalNetworkPolicy:
		d.spec = o.Spec
	case *v3.StagedNetworkPolicy:
		s := o.Spec
		d.staged = stagedAction(s.StagedAction)
		d.spec = v3.GlobalNetworkPolicySpec{
			Tier: s.Tier, Order: s.Order, Ingress: s.Ingress, Egress: s.Egress, Selector: s.Selector,
			Types: s.Types, ServiceAccountSelector: s.ServiceAccountSelector,
		}
	case *v3.StagedGlobalNetworkPolicy:
		s := o.Spec
		d.staged = stagedAction(s.StagedAction)
		d.spec = v3.GlobalNetworkPolicySpec{
			Tier: s.Tier, Order: s.Order, Ingress: s.Ingress, Egress: s.Egress, Selector: s.Selector,
			Types: s.Types, ServiceAccountSelector: s.ServiceAccountSelector, NamespaceSelector: s.NamespaceSelector,
			DoNotTrack: s.DoNotTrack, PreDNAT: s.PreDNAT, ApplyOnForward: s.ApplyOnForward,
		}
	case *v3.KubernetesNetworkPolicy:
		err = d.kubernetes(meta, o.Spec)
	case *v3.KubernetesClusterNetworkPolicy:
		err = d.cluster(&o.Spec)
	case *v3.StagedKubernetesNetworkPolicy:
		s := o.Spec
		d.staged = stagedAction(s.StagedAction)
		err = d.kubernetes(meta, v3.KubernetesNetworkPolicySpec{
			PodSelector: s.PodSelector, Ingress: s.Ingress, Egress: s.Egress, PolicyTypes: s.PolicyTypes,
		})
	}
	return d, err
}

// stagedAction is what a staged policy does, Set unless it says otherwise.
func stagedAction(a v3.StagedAction) v3.StagedAction {
	if a == "" {
		return v3.StagedSet
	}
	return a
}

func globalSpec(s v3.NetworkPolicySpec) v3.GlobalNetworkPolicySpec {
	return v3.GlobalNetworkPolicySpec{
		Tier: s.Tier, Order: s.Order, Ingress: s.Ingress, Egress: s.Egress, Selector: s.Selector,
		Types: s.Types, ServiceAccountSelector: s.ServiceAccountSelector, PerformanceHints: s.PerformanceHints,
	}
}

// parsePolicy makes a Policy of any kind of policy. It is nil for a staged policy
// whose action has no meaning yet (Learn, Ignore).
func parsePolicy(o v3.Object) (Value, error) {
	d, err := documentOf(o)
	if err != nil {
		return nil, err
	}
	if d.staged == v3.StagedLearn || d.staged == v3.StagedIgnore {
		return nil, nil
	}
	var e first
	p := d.head(&e)
	p.Ingress = d.scope.rules(&e, "spec.ingress", d.spec.Ingress, d.ingress)
	p.Egress = d.scope.rules(&e, "spec.egress", d.spec.Egress, d.egress)
	for _, rules := range [][]Rule{p.Ingress, p.Egress} {
		for i := range rules {
			if what, ok := d.unbuilt[rules[i].Field]; ok {
				rules[i].Unbuilt = what
			}
			if text, ok := d.nodes[rules[i].Field]; ok {
				rules[i].Destination.Selector = nil
				rules[i].Destination.Nodes = try(&e, d.scope.sel, rules[i].Field, text)
			}
		}
	}
	if e.err != nil {
		return nil, e.err
	}
	return p, nil
}

// head is all of a policy but its rules.
func (d *document) head(e *first) Policy {
	s := &d.spec
	if strings.ContainsAny(d.scope.namespace, `'"`) {
		e.fail("metadata.namespace: %q: must be the name of a namespace", d.scope.namespace)
	}
	p := Policy{
		Origin: d.origin, Tier: s.Tier, Order: math.Inf(1),
		Staged: d.staged != "", Delete: d.staged == v3.StagedDelete,
		DoNotTrack: s.DoNotTrack, PreDNAT: s.PreDNAT, ApplyOnForward: s.ApplyOnForward,
	}
	if p.Tier == "" {
		p.Tier = "default"
	}
	if s.Order != nil {
		p.Order = *s.Order
	}
	p.Selector = d.selector(e)
	p.AppliesIngress = slices.Contains(s.Types, v3.PolicyIngress)
	p.AppliesEgress = slices.Contains(s.Types, v3.PolicyEgress)
	if s.Types == nil {
		p.AppliesEgress = len(s.Egress) > 0
		p.AppliesIngress = len(s.Ingress) > 0 || !p.AppliesEgress
	}
	return p
}

// selector is the policy's effective selector: all that it says about whom it
// applies to.
//
// A policy of a namespace applies to that namespace. In a policy without one, a
// namespaceSelector makes all(), there and in the selector beside it, mean: all that
// have a namespace; a serviceAccountSelector makes it mean: all that have a service
// account. Without either all() is every workload and host endpoint.
func (d *document) selector(e *first) *selector.Selector {
	s, c := &d.spec, d.scope
	var parts []*selector.Selector
	if own := try(e, c.sel, "spec.selector", s.Selector); own != nil {
		parts = append(parts, own)
	}
	namespaces := try(e, c.about(prefixNamespace), "spec.namespaceSelector", s.NamespaceSelector)
	accounts := try(e, c.about(prefixServiceAccount), "spec.serviceAccountSelector", s.ServiceAccountSelector)
	if c.namespace != "" {
		parts = append(parts, equals(LabelNamespace, c.namespace))
		if accounts != nil {
			parts = append(parts, accounts)
		}
		return selector.AllOf(parts...)
	}
	for _, by := range []struct {
		selector *selector.Selector
		label    string
	}{{namespaces, LabelNamespace}, {accounts, LabelServiceAccount}} {
		if by.selector == nil {
			continue
		}
		parts = append(parts, by.selector)
		for i, part := range parts {
			parts[i] = anyWith(part, by.label)
		}
	}
	return selector.AllOf(parts...)
}

func parseTier(o *v3.Tier) Tier {
	t := Tier{Name: o.Name, Order: math.Inf(1)}
	if o.Spec.Order != nil {
		t.Order = *o.Spec.Order
	}
	if a := o.Spec.DefaultAction; a != nil && *a == v3.ActionPass {
		t.Default = Pass
	}
	return t
}

func parseProfile(o *v3.Profile) (Value, error) {
	var e first
	s := scope{maxLen: selector.MaxLen}
	p := Profile{
		Name: o.Name, Labels: o.Spec.LabelsToApply,
		Ingress: s.rules(&e, "spec.ingress", o.Spec.Ingress, nil),
		Egress:  s.rules(&e, "spec.egress", o.Spec.Egress, nil),
	}
	return p, e.err
}

// DefaultAllow is the profile projectcalico-default-allow, which exists without
// being stored: it allows everything.
func DefaultAllow() Profile {
	rule := func(field string) []Rule { return []Rule{{Action: Allow, Field: field}} }
	return Profile{Name: v3.DefaultAllowProfile, Ingress: rule("spec.ingress[0]"), Egress: rule("spec.egress[0]")}
}
