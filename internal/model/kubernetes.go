package model

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/selector"
)

// Where policies of Kubernetes stand among ours, as in Calico.
const (
	kubernetesPrefix = "knp.default."
	kubernetesTier   = "default"
	kubernetesOrder  = 1000.0
	// onlyPods keeps policies of Kubernetes from other endpoints, such as those of
	// containers that another orchestrator started.
	onlyPods = "projectcalico.org/orchestrator == 'k8s'"
)

// FromKubernetes is the policy that enforces o. The error says what of o has no
// meaning; the policy is then without the rules that ask for it, so it allows less
// than was meant, not more. o is not changed.
func FromKubernetes(o *v3.KubernetesNetworkPolicy) (*v3.NetworkPolicy, error) {
	d, err := documentOf(o)
	s := d.spec
	p := newObject[*v3.NetworkPolicy]("NetworkPolicy", kubernetesPrefix+o.Name)
	p.Namespace, p.CreationTimestamp = o.Namespace, o.CreationTimestamp
	p.Spec = v3.NetworkPolicySpec{
		Tier: s.Tier, Order: s.Order, Selector: s.Selector, Types: s.Types, Ingress: s.Ingress, Egress: s.Egress,
	}
	return p, err
}

// FromStagedKubernetes is FromKubernetes for a staged policy.
func FromStagedKubernetes(o *v3.StagedKubernetesNetworkPolicy) (*v3.StagedNetworkPolicy, error) {
	d, err := documentOf(o)
	s := d.spec
	p := newObject[*v3.StagedNetworkPolicy]("StagedNetworkPolicy", kubernetesPrefix+o.Name)
	p.Namespace, p.CreationTimestamp = o.Namespace, o.CreationTimestamp
	p.Spec = v3.StagedNetworkPolicySpec{
		StagedAction: d.staged,
		Tier:         s.Tier, Order: s.Order, Selector: s.Selector, Types: s.Types, Ingress: s.Ingress, Egress: s.Egress,
	}
	return p, err
}

// kubernetes fills d from a policy of Kubernetes. Rules that have no meaning are
// left out and named by the error.
func (d *document) kubernetes(meta *v3.ObjectMeta, s v3.KubernetesNetworkPolicySpec) error {
	var e first
	order := kubernetesOrder
	d.scope.maxLen = maxMadeLen
	d.spec.Tier, d.spec.Order = kubernetesTier, &order
	d.spec.Selector = podSelector(&e, "spec.podSelector", &s.PodSelector)
	d.badSubject = e.err != nil
	var in, out conversion
	for i, r := range s.Ingress {
		in.rule(at("spec.ingress", i), ".from", r.Ports, r.From)
	}
	for i, r := range s.Egress {
		out.rule(at("spec.egress", i), ".to", r.Ports, r.To)
	}
	d.spec.Ingress, d.ingress = in.ingress()
	d.spec.Egress, d.egress = out.out, out.places
	d.spec.Types = kubernetesTypes(s)
	return errors.Join(e.err, errors.Join(append(in.errs, out.errs...)...))
}

// kubernetesTypes is the directions of a policy of Kubernetes: without a word about
// them Ingress, and Egress if there are rules for it.
func kubernetesTypes(s v3.KubernetesNetworkPolicySpec) []v3.PolicyType {
	if len(s.PolicyTypes) > 0 {
		return s.PolicyTypes
	}
	types := []v3.PolicyType{v3.PolicyIngress}
	if len(s.Egress) > 0 {
		types = append(types, v3.PolicyEgress)
	}
	return types
}

// conversion collects the rules of one direction. The peer of a rule is written as
// its destination; [conversion.ingress] turns them round.
type conversion struct {
	out    []v3.Rule
	places []string // of out, in the object
	errs   []error
	// unbuilt names, by place, what a rule asks for that cannot be said; may be nil.
	unbuilt map[string]string
	// nodes are the peers that are nodes, by place, as selectors; may be nil.
	nodes map[string]string
}

// ingress returns what was collected with the peers as sources.
func (c *conversion) ingress() ([]v3.Rule, []string) {
	for i := range c.out {
		peer := c.out[i].Destination
		c.out[i].Destination = v3.EntityRule{Ports: peer.Ports}
		peer.Ports = nil
		c.out[i].Source = peer
	}
	return c.out, c.places
}

// add appends a rule for each of the protocols.
func (c *conversion) add(place string, action v3.Action, protocols []protocolPorts, peer v3.EntityRule) {
	for _, p := range protocols {
		r := v3.Rule{Action: action, Destination: peer}
		if p.protocol != "" {
			r.Protocol = &v3.Protocol{Name: p.protocol}
		}
		r.Destination.Ports = p.ports
		c.out, c.places = append(c.out, r), append(c.places, place)
	}
}

// rule converts a rule of a NetworkPolicy: without peers or ports it means all.
func (c *conversion) rule(place, side string, ports []v3.KubernetesNetworkPolicyPort, peers []v3.KubernetesNetworkPolicyPeer) {
	var e first
	before := len(c.out)
	protocols := groupPorts(&e, place, ports)
	if e.err == nil && len(peers) == 0 {
		c.add(place, v3.ActionAllow, protocols, v3.EntityRule{})
	}
	for i := range peers {
		peer := kubernetesPeer(&e, at(place+side, i), &peers[i])
		c.add(at(place+side, i), v3.ActionAllow, protocols, peer)
	}
	if e.err != nil {
		c.errs = append(c.errs, e.err)
		c.out, c.places = c.out[:before], c.places[:before]
	}
}

// kubernetesPeer is addresses, or else pods: those of the policy's own namespace
// unless there is a selector of namespaces.
func kubernetesPeer(e *first, field string, p *v3.KubernetesNetworkPolicyPeer) v3.EntityRule {
	if b := p.IPBlock; b != nil {
		return v3.EntityRule{
			Nets:    maskedNets(e, field+".ipBlock.cidr", b.CIDR),
			NotNets: maskedNets(e, field+".ipBlock.except", b.Except...),
		}
	}
	out := v3.EntityRule{Selector: podSelector(e, field+".podSelector", p.PodSelector)}
	if p.NamespaceSelector != nil {
		out.NamespaceSelector = namespaceSelector(e, field+".namespaceSelector", p.NamespaceSelector)
	}
	return out
}

// maskedNets is the texts of prefixes without host bits.
func maskedNets(e *first, field string, texts ...string) []string {
	var out []string
	for _, text := range texts {
		out = append(out, try(e, prefix, field, text).String())
	}
	return out
}

// podSelector is the text that selects pods; nil selects all of them.
func podSelector(e *first, field string, s *v3.LabelSelector) string {
	terms := labelTerms(e, field, s)
	return strings.Join(append([]string{onlyPods}, terms...), " && ")
}

// namespaceSelector is the text that selects namespaces: all of them if s is empty.
func namespaceSelector(e *first, field string, s *v3.LabelSelector) string {
	terms := labelTerms(e, field, s)
	if len(terms) == 0 {
		return "all()"
	}
	return strings.Join(terms, " && ")
}

// labelTerms is the parts of a label selector in the language of package selector.
func labelTerms(e *first, field string, s *v3.LabelSelector) []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		checkLabel(e, field+".matchLabels", key)
		out = append(out, key+" == "+quoteValue(e, field+".matchLabels", s.MatchLabels[key]))
	}
	for i, x := range s.MatchExpressions {
		out = append(out, labelTerm(e, at(field+".matchExpressions", i), &x))
	}
	return out
}

func labelTerm(e *first, field string, x *v3.LabelSelectorRequirement) string {
	checkLabel(e, field+".key", x.Key)
	var values []string
	for _, v := range x.Values {
		values = append(values, quoteValue(e, field+".values", v))
	}
	set := "{" + strings.Join(values, ", ") + "}"
	switch x.Operator {
	case v3.LabelExists:
		return "has(" + x.Key + ")"
	case v3.LabelDoesNotExist:
		return "!has(" + x.Key + ")"
	case v3.LabelIn, v3.LabelNotIn:
		if len(values) == 0 {
			e.fail("%s.values: must not be empty", field)
		}
		if x.Operator == v3.LabelIn {
			return x.Key + " in " + set
		}
		return x.Key + " not in " + set
	}
	e.fail("%s.operator: %q: must be In, NotIn, Exists or DoesNotExist", field, x.Operator)
	return ""
}

// checkLabel keeps from a selector's text what is no label name but would be read
// as something else.
func checkLabel(e *first, field, name string) {
	if !selector.IsLabel(name) {
		e.fail("%s: %q: must be the name of a label", field, name)
	}
}

func quoteValue(e *first, field, value string) string {
	quote := "'"
	if strings.Contains(value, quote) {
		quote = `"`
	}
	if strings.Contains(value, quote) {
		e.fail("%s: %q: must be the value of a label", field, value)
	}
	return quote + value + quote
}

// protocolPorts is a protocol with some of its ports; all of them if ports is nil.
// An empty protocol is all protocols.
type protocolPorts struct {
	protocol string
	ports    []v3.Port
}

// groupPorts makes one group of each protocol; without ports there is one for all
// protocols.
func groupPorts(e *first, field string, ports []v3.KubernetesNetworkPolicyPort) []protocolPorts {
	if len(ports) == 0 {
		return []protocolPorts{{}}
	}
	by := portsByProtocol{}
	for i, p := range ports {
		field := at(field+".ports", i)
		protocol := "TCP"
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if !slices.Contains([]string{"TCP", "UDP", "SCTP"}, protocol) {
			e.fail("%s.protocol: %q: must be TCP, UDP or SCTP", field, protocol)
		}
		port, err := kubernetesPort(p)
		if err != nil {
			e.fail("%s.%w", field, err)
		}
		by.add(protocol, port)
	}
	return by.groups()
}

// portsByProtocol is ports by the name of their protocol; a nil list is all ports.
type portsByProtocol map[string][]v3.Port

// add adds a port, or all of them if p is nil.
func (by portsByProtocol) add(protocol string, p *v3.Port) {
	ports, ok := by[protocol]
	switch {
	case p == nil:
		by[protocol] = nil
	case !ok || ports != nil:
		by[protocol] = append(ports, *p)
	}
}

func (by portsByProtocol) groups() []protocolPorts {
	var out []protocolPorts
	for _, protocol := range slices.Sorted(maps.Keys(by)) {
		out = append(out, protocolPorts{protocol, joinPorts(by[protocol])})
	}
	return out
}

// kubernetesPort is nil for all ports.
func kubernetesPort(p v3.KubernetesNetworkPolicyPort) (*v3.Port, error) {
	if p.Port == nil {
		if p.EndPort != nil {
			return nil, errors.New("endPort: must stand with a port")
		}
		return nil, nil
	}
	port := *p.Port
	if port.Name == "" && port.Min == 0 {
		return nil, fmt.Errorf("port: %v: must be 1 to 65535 or a name", port)
	}
	if p.EndPort == nil {
		return &port, nil
	}
	end := *p.EndPort
	if port.Name != "" || end < int32(port.Min) || end > 65535 {
		return nil, fmt.Errorf("endPort: %d: must be at least the port, at most 65535, and the port a number", end)
	}
	port.Max = uint16(end)
	return &port, nil
}

// joinPorts is the same ports with the fewest ranges: by number, the names first.
func joinPorts(ports []v3.Port) []v3.Port {
	sorted := slices.Clone(ports)
	slices.SortStableFunc(sorted, func(a, b v3.Port) int {
		// A name has Min 0, a number never.
		return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Max, b.Max))
	})
	var out []v3.Port
	for _, p := range slices.Compact(sorted) {
		if last := len(out) - 1; last >= 0 && p.Name == "" && out[last].Name == "" && int(p.Min) <= int(out[last].Max)+1 {
			out[last].Max = max(out[last].Max, p.Max)
			continue
		}
		out = append(out, p)
	}
	return out
}
