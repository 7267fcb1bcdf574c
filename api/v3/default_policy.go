package v3

import (
	"encoding/json"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DefaultTier is that of policies that name none.
const DefaultTier = "default"

// LabelTier holds the tier of every stored policy.
const LabelTier = Group + "/tier"

// metadataAnnotation is what stored policies carry their name in once more. Calico
// writes it since a policy's key may have the tier before the name; it is no part of
// the object that users see.
const metadataAnnotation = Group + "/metadata"

// policyView is a policy of any of the four kinds that have a tier. Fields that
// defaults fill are pointers into the object.
type policyView struct {
	tier                   *string
	types                  *[]PolicyType
	staged                 *StagedAction // nil for enforced policies
	order                  *float64
	ingress, egress        []Rule
	selector               string
	serviceAccountSelector string
	hints                  []string

	cluster                             bool // not of a namespace
	namespaceSelector                   string
	doNotTrack, preDNAT, applyOnForward bool
}

// policyOf returns false for objects that are no policy with a tier.
func policyOf(o Object) (policyView, bool) {
	switch o := o.(type) {
	case *NetworkPolicy:
		s := &o.Spec
		return policyView{
			tier: &s.Tier, types: &s.Types, order: s.Order, ingress: s.Ingress, egress: s.Egress,
			selector: s.Selector, serviceAccountSelector: s.ServiceAccountSelector, hints: s.PerformanceHints,
		}, true
	case *StagedNetworkPolicy:
		s := &o.Spec
		return policyView{
			tier: &s.Tier, types: &s.Types, staged: &s.StagedAction, order: s.Order, ingress: s.Ingress, egress: s.Egress,
			selector: s.Selector, serviceAccountSelector: s.ServiceAccountSelector, hints: s.PerformanceHints,
		}, true
	case *GlobalNetworkPolicy:
		s := &o.Spec
		return policyView{
			tier: &s.Tier, types: &s.Types, order: s.Order, ingress: s.Ingress, egress: s.Egress,
			selector: s.Selector, serviceAccountSelector: s.ServiceAccountSelector, hints: s.PerformanceHints,
			cluster: true, namespaceSelector: s.NamespaceSelector,
			doNotTrack: s.DoNotTrack, preDNAT: s.PreDNAT, applyOnForward: s.ApplyOnForward,
		}, true
	case *StagedGlobalNetworkPolicy:
		s := &o.Spec
		return policyView{
			tier: &s.Tier, types: &s.Types, staged: &s.StagedAction, order: s.Order, ingress: s.Ingress, egress: s.Egress,
			selector: s.Selector, serviceAccountSelector: s.ServiceAccountSelector, hints: s.PerformanceHints,
			cluster: true, namespaceSelector: s.NamespaceSelector,
			doNotTrack: s.DoNotTrack, preDNAT: s.PreDNAT, applyOnForward: s.ApplyOnForward,
		}, true
	}
	return policyView{}, false
}

// TierOf returns the tier of a policy: [DefaultTier] where it names none, empty for
// objects that are no policy with a tier. A policy needs its tier to exist when it is
// created; see [CheckTier].
func TierOf(o Object) string {
	p, ok := policyOf(o)
	switch {
	case !ok:
		return ""
	case *p.tier == "":
		return DefaultTier
	}
	return *p.tier
}

// CheckTier reports a policy whose tier does not exist, which is a rule for creating
// one. exists is asked for one name at most.
func CheckTier(o Object, exists func(tier string) bool) error {
	tier := TierOf(o)
	if tier == "" || exists(tier) {
		return nil
	}
	return &FieldError{
		Object: Describe(o), Field: "spec.tier", Value: valueText(tier),
		Reason: "must be a tier that exists: make the tier first",
	}
}

func defaultPolicy(m *metav1.ObjectMeta, p policyView) {
	orDefault(p.tier, DefaultTier)
	setLabel(m, LabelTier, *p.tier)
	if p.staged != nil {
		orDefault(p.staged, StagedSet)
		if *p.staged == StagedDelete {
			return // has nothing but a tier
		}
	}
	if len(*p.types) > 0 {
		return
	}
	switch {
	case len(p.egress) == 0:
		*p.types = []PolicyType{PolicyIngress}
	case len(p.ingress) == 0:
		*p.types = []PolicyType{PolicyEgress}
	default:
		*p.types = []PolicyType{PolicyIngress, PolicyEgress}
	}
}

// annotateStored adds what only the stored form of o has, in a copy of its map.
func annotateStored(o Object) {
	if _, ok := policyOf(o); !ok {
		return
	}
	m := o.Meta()
	text, _ := json.Marshal(struct { // a string always has a JSON form
		Name string `json:"name"`
	}{m.Name})
	annotations := maps.Clone(m.Annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[metadataAnnotation] = string(text)
	m.Annotations = annotations
}

// stripStored takes it off again; the map must be o's alone.
func stripStored(o Object) {
	if _, ok := policyOf(o); !ok {
		return
	}
	m := o.Meta()
	delete(m.Annotations, metadataAnnotation)
	if len(m.Annotations) == 0 {
		m.Annotations = nil
	}
}
