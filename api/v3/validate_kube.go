package v3

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Limits of the objects of Kubernetes, those of its own API.
const (
	maxClusterRules   = 25 // rules, peers, protocols, networks and domain names
	maxClusterName    = 100
	maxSliceEndpoints = 1000
	maxSliceAddresses = 100 // of one endpoint
	maxSlicePorts     = 20000
)

// domainName is what a ClusterNetworkPolicy may name: "a.b", "*.a.b", with or without
// a dot at the end.
var domainName = regexp.MustCompile(`^(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`)

func (c *checker) stagedKubernetesPolicy(s *StagedKubernetesNetworkPolicySpec) {
	c.stagedAction(s.StagedAction)
	if s.StagedAction != StagedDelete {
		c.stagedLimits(s)
		c.kubernetesPolicy(&KubernetesNetworkPolicySpec{
			PodSelector: s.PodSelector, Ingress: s.Ingress, Egress: s.Egress, PolicyTypes: s.PolicyTypes,
		})
		return
	}
	for _, f := range []struct {
		field string
		given bool
	}{
		{"podSelector", s.PodSelector.MatchLabels != nil || s.PodSelector.MatchExpressions != nil},
		{"ingress", len(s.Ingress) > 0},
		{"egress", len(s.Egress) > 0},
		{"policyTypes", len(s.PolicyTypes) > 0},
	} {
		if f.given {
			c.fail("spec."+f.field, nil, "must be left out: stagedAction Delete goes with nothing else")
		}
	}
}

func (c *checker) stagedLimits(s *StagedKubernetesNetworkPolicySpec) {
	for i, r := range s.Ingress {
		c.atMost(index("spec.ingress", i)+".ports", len(r.Ports), MaxStagedEntries)
		c.atMost(index("spec.ingress", i)+".from", len(r.From), MaxStagedEntries)
	}
	for i, r := range s.Egress {
		c.atMost(index("spec.egress", i)+".ports", len(r.Ports), MaxStagedEntries)
		c.atMost(index("spec.egress", i)+".to", len(r.To), MaxStagedEntries)
	}
}

func (c *checker) kubernetesPolicy(s *KubernetesNetworkPolicySpec) {
	c.labelSelector("spec.podSelector", &s.PodSelector)
	c.policyTypes("spec.policyTypes", s.PolicyTypes)
	if c.atMost("spec.ingress", len(s.Ingress), maxRules) {
		for i, r := range s.Ingress {
			field := index("spec.ingress", i)
			c.kubernetesPorts(field+".ports", r.Ports)
			c.kubernetesPeers(field+".from", r.From)
		}
	}
	if c.atMost("spec.egress", len(s.Egress), maxRules) {
		for i, r := range s.Egress {
			field := index("spec.egress", i)
			c.kubernetesPorts(field+".ports", r.Ports)
			c.kubernetesPeers(field+".to", r.To)
		}
	}
}

func (c *checker) kubernetesPorts(field string, ports []KubernetesNetworkPolicyPort) {
	for i, p := range ports {
		f := index(field, i)
		c.kubernetesProtocol(f+".protocol", p.Protocol)
		switch {
		case p.Port == nil:
		case p.Port.Name != "":
			c.portName(f+".port", p.Port.Name)
		case p.Port.Min == 0 || p.Port.Min != p.Port.Max:
			c.fail(f+".port", p.Port.String(), "must be 1 to 65535 or the name of a port")
		}
		switch {
		case p.EndPort == nil:
		case p.Port == nil || p.Port.Name != "":
			c.fail(f+".endPort", *p.EndPort, "needs port to be a number")
		case *p.EndPort < int32(p.Port.Min) || *p.EndPort > 65535:
			c.fail(f+".endPort", *p.EndPort, fmt.Sprintf("must be %d to 65535: port is where the range begins", p.Port.Min))
		}
	}
}

// kubernetesProtocol checks a protocol by name; nil is TCP.
func (c *checker) kubernetesProtocol(field string, p *string) {
	if p != nil && !slices.Contains([]string{"TCP", "UDP", "SCTP"}, *p) {
		c.fail(field, *p, "must be TCP, UDP or SCTP")
	}
}

func (c *checker) kubernetesPeers(field string, peers []KubernetesNetworkPolicyPeer) {
	for i, p := range peers {
		f := index(field, i)
		c.labelSelector(f+".podSelector", p.PodSelector)
		c.labelSelector(f+".namespaceSelector", p.NamespaceSelector)
		switch {
		case p.IPBlock == nil && p.PodSelector == nil && p.NamespaceSelector == nil:
			c.fail(f, nil, "must have podSelector, namespaceSelector or ipBlock")
		case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
			c.fail(f+".ipBlock", nil, "must be left out with podSelector or namespaceSelector")
		}
		if p.IPBlock != nil {
			c.ipBlock(f+".ipBlock", p.IPBlock)
		}
	}
}

func (c *checker) ipBlock(field string, b *KubernetesIPBlock) {
	all, ok := c.prefix(field+".cidr", b.CIDR)
	for i, text := range b.Except {
		f := index(field+".except", i)
		p, isPrefix := c.prefix(f, text)
		if ok && isPrefix && (p.Bits() <= all.Bits() || !all.Masked().Contains(p.Addr())) {
			c.fail(f, text, fmt.Sprintf("must be a part of %v", all))
		}
	}
}

// labelSelector checks a selector in the form of Kubernetes; nil is allowed.
func (c *checker) labelSelector(field string, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	c.labels(field+".matchLabels", s.MatchLabels)
	for i, r := range s.MatchExpressions {
		f := index(field+".matchExpressions", i)
		c.qualifiedName(f+".key", r.Key)
		switch r.Operator {
		case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
			if len(r.Values) == 0 {
				c.fail(f+".values", nil, fmt.Sprintf("must have a value for operator %s", r.Operator))
			}
		case metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist:
			if len(r.Values) > 0 {
				c.fail(f+".values", nil, fmt.Sprintf("must be left out for operator %s", r.Operator))
			}
		default:
			c.fail(f+".operator", string(r.Operator), "must be In, NotIn, Exists or DoesNotExist")
		}
		for k, v := range r.Values {
			c.labelValue(index(f+".values", k), v)
		}
	}
}

func (c *checker) clusterPolicy(s *KubernetesClusterNetworkPolicySpec) {
	if s.Tier != ClusterPolicyAdmin && s.Tier != ClusterPolicyBaseline {
		c.fail("spec.tier", string(s.Tier), "must be Admin or Baseline")
	}
	if s.Priority < 0 || s.Priority > 1000 {
		c.fail("spec.priority", s.Priority, "must be 0 to 1000")
	}
	c.exactlyOne("spec.subject", map[string]bool{"namespaces": s.Subject.Namespaces != nil, "pods": s.Subject.Pods != nil})
	c.labelSelector("spec.subject.namespaces", s.Subject.Namespaces)
	c.namespacedPods("spec.subject.pods", s.Subject.Pods)
	if c.atMost("spec.ingress", len(s.Ingress), maxClusterRules) {
		for i, r := range s.Ingress {
			field := index("spec.ingress", i)
			c.clusterRule(field, r.Name, r.Action, r.Protocols)
			if c.between(field+".from", len(r.From), maxClusterRules) {
				for k, p := range r.From {
					c.clusterPeer(index(field+".from", k), ClusterPolicyEgressPeer{Namespaces: p.Namespaces, Pods: p.Pods}, r.Action)
				}
			}
		}
	}
	if c.atMost("spec.egress", len(s.Egress), maxClusterRules) {
		for i, r := range s.Egress {
			c.clusterEgress(index("spec.egress", i), r)
		}
	}
}

func (c *checker) clusterEgress(field string, r ClusterPolicyEgressRule) {
	c.clusterRule(field, r.Name, r.Action, r.Protocols)
	if !c.between(field+".to", len(r.To), maxClusterRules) {
		return
	}
	portless := false // a peer whose ports have no names
	for k, p := range r.To {
		c.clusterPeer(index(field+".to", k), p, r.Action)
		portless = portless || p.Nodes != nil || p.Networks != nil || p.DomainNames != nil
	}
	for k, p := range r.Protocols {
		if portless && p.DestinationNamedPort != "" {
			c.fail(index(field+".protocols", k)+".destinationNamedPort", p.DestinationNamedPort, "must be left out with nodes, networks or domainNames, whose ports have no names")
		}
	}
}

func (c *checker) clusterRule(field, name string, action ClusterPolicyAction, protocols []ClusterPolicyProtocol) {
	if len(name) > maxClusterName {
		c.fail(field+".name", name, fmt.Sprintf("must have at most %d bytes", maxClusterName))
	}
	if action != ClusterPolicyAccept && action != ClusterPolicyDeny && action != ClusterPolicyPass {
		c.fail(field+".action", string(action), "must be Accept, Deny or Pass")
	}
	if protocols == nil || !c.between(field+".protocols", len(protocols), maxClusterRules) {
		return
	}
	for i, p := range protocols {
		f := index(field+".protocols", i)
		c.exactlyOne(f, map[string]bool{
			"tcp": p.TCP != nil, "udp": p.UDP != nil, "sctp": p.SCTP != nil, "destinationNamedPort": p.DestinationNamedPort != "",
		})
		if p.DestinationNamedPort != "" {
			c.portName(f+".destinationNamedPort", p.DestinationNamedPort)
		}
		c.clusterPorts(f+".tcp", p.TCP)
		c.clusterPorts(f+".udp", p.UDP)
		c.clusterPorts(f+".sctp", p.SCTP)
	}
}

func (c *checker) clusterPorts(field string, p *ClusterPolicyPorts) {
	if p == nil {
		return
	}
	field += ".destinationPort"
	d := p.DestinationPort
	if d == nil {
		c.fail(field, nil, "must be set")
		return
	}
	c.exactlyOne(field, map[string]bool{"number": d.Number != 0, "range": d.Range != nil})
	if d.Number < 0 || d.Number > 65535 {
		c.fail(field+".number", d.Number, "must be 1 to 65535")
	}
	if r := d.Range; r != nil && (r.Start < 1 || r.End > 65535 || r.Start >= r.End) {
		c.fail(field+".range", fmt.Sprintf("%d to %d", r.Start, r.End), "must begin before it ends, within 1 to 65535")
	}
}

func (c *checker) clusterPeer(field string, p ClusterPolicyEgressPeer, action ClusterPolicyAction) {
	c.exactlyOne(field, map[string]bool{
		"namespaces": p.Namespaces != nil, "pods": p.Pods != nil, "nodes": p.Nodes != nil,
		"networks": p.Networks != nil, "domainNames": p.DomainNames != nil,
	})
	c.labelSelector(field+".namespaces", p.Namespaces)
	c.namespacedPods(field+".pods", p.Pods)
	c.labelSelector(field+".nodes", p.Nodes)
	if p.Networks != nil && c.between(field+".networks", len(p.Networks), maxClusterRules) {
		c.prefixes(field+".networks", p.Networks)
	}
	if p.DomainNames == nil || !c.between(field+".domainNames", len(p.DomainNames), maxClusterRules) {
		return
	}
	if action != ClusterPolicyAccept {
		c.fail(field+".domainNames", nil, "must be left out unless the action is Accept")
	}
	for i, name := range p.DomainNames {
		if !domainName.MatchString(name) {
			c.fail(index(field+".domainNames", i), name, `must be a domain name such as "example.org" or "*.example.org"`)
		}
	}
}

func (c *checker) namespacedPods(field string, p *NamespacedPods) {
	if p != nil {
		c.labelSelector(field+".namespaceSelector", &p.NamespaceSelector)
		c.labelSelector(field+".podSelector", &p.PodSelector)
	}
}

func (c *checker) endpointSlice(o *KubernetesEndpointSlice) {
	if o.AddressType != "IPv4" && o.AddressType != "IPv6" && o.AddressType != "FQDN" {
		c.fail("addressType", o.AddressType, "must be IPv4, IPv6 or FQDN")
	}
	if c.atMost("endpoints", len(o.Endpoints), maxSliceEndpoints) {
		for i, e := range o.Endpoints {
			c.sliceAddresses(index("endpoints", i)+".addresses", o.AddressType, e.Addresses)
		}
	}
	if c.atMost("ports", len(o.Ports), maxSlicePorts) {
		for i, p := range o.Ports {
			field := index("ports", i)
			c.kubernetesProtocol(field+".protocol", p.Protocol)
			if p.Name != nil && *p.Name != "" && !isDNSLabel(*p.Name) {
				c.fail(field+".name", *p.Name, "must be 1 to 63 lower-case letters, digits and inner dashes")
			}
			if p.Port != nil && (*p.Port < 0 || *p.Port > 65535) {
				c.fail(field+".port", *p.Port, "must be 0 to 65535")
			}
		}
	}
}

func (c *checker) sliceAddresses(field, addressType string, addresses []string) {
	if !c.between(field, len(addresses), maxSliceAddresses) {
		return
	}
	for i, text := range addresses {
		a, err := netip.ParseAddr(text)
		ok := err == nil && a.Zone() == ""
		switch addressType {
		case "IPv4":
			ok = ok && a.Is4()
		case "IPv6":
			ok = ok && a.Is6()
		default:
			ok = true // names are not used
		}
		if !ok {
			c.fail(index(field, i), text, "must be an "+addressType+" address")
		}
	}
}

// between checks that a list is not empty, and not too long.
func (c *checker) between(field string, n, most int) bool {
	if n == 0 {
		c.fail(field, nil, "must have an entry")
	}
	return n > 0 && c.atMost(field, n, most)
}

// exactlyOne checks a choice; given says which of the fields are set.
func (c *checker) exactlyOne(field string, given map[string]bool) {
	names := slices.Sorted(maps.Keys(given))
	set := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !given[name] })
	if len(set) != 1 {
		c.fail(field, nil, fmt.Sprintf("has %d of %s: must have exactly one", len(set), orList(names)))
	}
}
