package v3

import (
	"maps"
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Labels that every stored workload endpoint has.
const (
	LabelNamespace      = Group + "/namespace"
	LabelOrchestrator   = Group + "/orchestrator"
	LabelServiceAccount = Group + "/serviceaccount" // only with a service account
)

// DefaultNamespace is that of namespaced objects that do not name theirs.
const DefaultNamespace = "default"

// Default fills in what is stored with o though nobody wrote it, and brings text
// into the form in which it is stored (a pool's CIDR, an endpoint's name and labels, a
// policy's label).
// Default twice is the same as once. What it cannot read it leaves to [Validate].
func Default(o Object) {
	t, m := o.Type(), o.Meta()
	*t = KindOf(o).TypeMeta()
	if KindOf(o).Namespaced && m.Namespace == "" {
		m.Namespace = DefaultNamespace
	}
	switch o := o.(type) {
	case *IPPool:
		defaultIPPool(&o.Spec)
	case *BGPConfiguration:
		orDefault(&o.Spec.LogSeverityScreen, "Info")
		orDefault(&o.Spec.ServiceLoadBalancerAggregation, "Enabled")
	case *FelixConfiguration:
		defaultFelix(&o.Spec)
	case *KubeControllersConfiguration:
		defaultKubeControllers(&o.Spec)
	case *Tier:
		defaultTier(o)
	case *WorkloadEndpoint:
		defaultEndpoint(o)
	case *StagedKubernetesNetworkPolicy:
		orDefault(&o.Spec.StagedAction, StagedSet)
	}
	if p, ok := policyOf(o); ok {
		defaultPolicy(m, p)
	}
}

// ClearSystemFields drops metadata that only the datastore may set, from an object
// that a user wrote: uid, creationTimestamp, generation, finalizers, ownerReferences,
// deletion and managed fields. The resourceVersion stays; it is a precondition.
func ClearSystemFields(o Object) {
	m := o.Meta()
	*m = metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, ResourceVersion: m.ResourceVersion,
		Labels: m.Labels, Annotations: m.Annotations,
	}
}

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func defaultIPPool(s *IPPoolSpec) {
	orDefault(&s.VXLANMode, EncapNever)
	orDefault(&s.IPIPMode, EncapNever)
	orDefault(&s.NodeSelector, "all()")
	orDefault(&s.AssignmentMode, AssignAutomatic)
	if len(s.AllowedUses) == 0 {
		s.AllowedUses = []IPPoolUse{UseWorkload, UseTunnel}
	}
	cidr, err := netip.ParsePrefix(s.CIDR)
	if err != nil {
		return
	}
	s.CIDR = cidr.String()
	if cidr.Addr().Is4() {
		orDefault(&s.BlockSize, 26)
	} else {
		orDefault(&s.BlockSize, 122)
	}
}

func defaultFelix(s *FelixConfigurationSpec) {
	orDefault(&s.NftablesMode, "Auto")
	orDefault(&s.NftablesFlowTableOffload, "Disabled")
	orDefault(&s.FloatingIPs, "Disabled")
	// The older switch, where it is set, decides for both of its successors.
	balancing, nat := "TCP", "Enabled"
	if old := s.BPFConnectTimeLoadBalancingEnabled; old != nil && *old {
		balancing, nat = "Enabled", "Disabled"
	} else if old != nil {
		balancing = "Disabled"
	}
	orDefault(&s.BPFConnectTimeLoadBalancing, balancing)
	orDefault(&s.BPFHostNetworkedNATWithoutCTLB, nat)
}

func defaultKubeControllers(s *KubeControllersConfigurationSpec) {
	orDefault(&s.HealthChecks, "Enabled")
	if s.PrometheusMetricsPort == nil {
		s.PrometheusMetricsPort = new(9094)
	}
	if n := s.Controllers.Node; n != nil && n.LeakGracePeriod == nil {
		n.LeakGracePeriod = &metav1.Duration{Duration: 15 * time.Minute}
	}
	if l := s.Controllers.LoadBalancer; l != nil {
		orDefault(&l.AssignIPs, "AllServices")
	}
}

// builtinTier returns the fixed order and action of a built-in tier, and for any
// other name the values that a tier gets that names none.
func builtinTier(name string) (order float64, action Action, ok bool) {
	switch name {
	case "kube-admin":
		return 1000, ActionPass, true
	case "default":
		return 1000000, ActionDeny, true
	case "kube-baseline":
		return 10000000, ActionPass, true
	}
	return 1000000, ActionDeny, false
}

func defaultTier(o *Tier) {
	order, action, _ := builtinTier(o.Name)
	if o.Spec.Order == nil {
		o.Spec.Order = &order
	}
	if o.Spec.DefaultAction == nil {
		o.Spec.DefaultAction = &action
	}
}

func defaultEndpoint(o *WorkloadEndpoint) {
	if o.Name == "" {
		o.Name, _ = WorkloadEndpointName(EndpointIDOf(o)) // Validate reports the missing part
	}
	setLabel(&o.ObjectMeta, LabelNamespace, o.Namespace)
	setLabel(&o.ObjectMeta, LabelOrchestrator, o.Spec.Orchestrator)
	setLabel(&o.ObjectMeta, LabelServiceAccount, o.Spec.ServiceAccountName)
}

// setLabel sets a label in a copy of the map, which others may hold.
func setLabel(m *metav1.ObjectMeta, name, value string) {
	if value == "" || m.Labels[name] == value {
		return
	}
	labels := maps.Clone(m.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[name] = value
	m.Labels = labels
}

// BuiltinTiers returns the tiers that a new datastore gets.
func BuiltinTiers() []*Tier {
	var tiers []*Tier
	for _, name := range []string{"default", "kube-admin", "kube-baseline"} {
		t := &Tier{ObjectMeta: metav1.ObjectMeta{Name: name}}
		Default(t)
		tiers = append(tiers, t)
	}
	return tiers
}
