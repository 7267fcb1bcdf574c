package model

import (
	"errors"

	v3 "github.com/weft-net/weft/api/v3"
)

// nothing is the selector that selects nothing.
const nothing = "!all()"

// FromClusterPolicy is the policy that enforces o, in the tier kube-admin or
// kube-baseline. The error says what of o has no meaning; a rule that asks for it is
// left out if it accepts, and else denies everything. o is not changed.
//
// Peers and protocols that a policy of ours cannot say (nodes, which the parsed form can;
// domain names, fields of later versions) fail closed, as the API asks: a rule that accepts them matches
// nothing, and one that denies or passes them denies every peer, with the protocols
// of the rule. Passing nothing would not do, since a later rule might accept.
func FromClusterPolicy(o *v3.KubernetesClusterNetworkPolicy) (*v3.GlobalNetworkPolicy, error) {
	d, err := documentOf(o)
	for i, place := range d.egress {
		if _, ok := d.nodes[place]; ok && d.spec.Egress[i].Action != v3.ActionAllow {
			d.spec.Egress[i].Action, d.spec.Egress[i].Destination = v3.ActionDeny, v3.EntityRule{Ports: d.spec.Egress[i].Destination.Ports}
		}
	}
	p := newObject[*v3.GlobalNetworkPolicy]("GlobalNetworkPolicy", o.Name)
	p.CreationTimestamp = o.CreationTimestamp
	p.Spec = d.spec
	return p, err
}

// cluster fills d from a ClusterNetworkPolicy; for errors see [FromClusterPolicy].
func (d *document) cluster(s *v3.KubernetesClusterNetworkPolicySpec) error {
	var e first
	order := float64(s.Priority)
	d.scope.maxLen = maxMadeLen
	d.spec.Order = &order
	d.spec.Types = []v3.PolicyType{} // beside the directions that have rules it has no effect
	d.spec.Tier = "kube-admin"
	subject, what := podsOf(&e, "spec.subject", s.Subject.Namespaces, s.Subject.Pods)
	if what != "" {
		e.fail("spec.subject: must have either namespaces or pods")
	}
	d.badSubject = e.err != nil
	switch s.Tier {
	case v3.ClusterPolicyAdmin:
	case v3.ClusterPolicyBaseline:
		d.spec.Tier = "kube-baseline"
	default:
		e.fail("spec.tier: %q: must be Admin or Baseline", s.Tier)
	}
	d.spec.Selector, d.spec.NamespaceSelector = subject.Selector, subject.NamespaceSelector
	var in, out conversion
	for i, r := range s.Ingress {
		peers := make([]v3.ClusterPolicyEgressPeer, len(r.From))
		for j, p := range r.From {
			peers[j] = v3.ClusterPolicyEgressPeer{Namespaces: p.Namespaces, Pods: p.Pods}
		}
		in.clusterRule(at("spec.ingress", i), ".from", r.Action, r.Protocols, peers)
	}
	for i, r := range s.Egress {
		out.clusterRule(at("spec.egress", i), ".to", r.Action, r.Protocols, r.To)
	}
	d.spec.Ingress, d.ingress = in.ingress()
	d.spec.Egress, d.egress = out.out, out.places
	d.unbuilt, d.nodes = in.unbuilt, out.nodes
	for place, what := range out.unbuilt {
		if d.unbuilt == nil {
			d.unbuilt = map[string]string{}
		}
		d.unbuilt[place] = what
	}
	if len(s.Ingress) > 0 {
		d.spec.Types = append(d.spec.Types, v3.PolicyIngress)
	}
	if len(s.Egress) > 0 {
		d.spec.Types = append(d.spec.Types, v3.PolicyEgress)
	}
	return errors.Join(e.err, errors.Join(append(in.errs, out.errs...)...))
}

// clusterRule converts a rule of a ClusterNetworkPolicy.
func (c *conversion) clusterRule(place, side string, act v3.ClusterPolicyAction, protocols []v3.ClusterPolicyProtocol, peers []v3.ClusterPolicyEgressPeer) {
	var e first
	before := len(c.out)
	action := v3.ActionDeny
	switch act {
	case v3.ClusterPolicyAccept:
		action = v3.ActionAllow
	case v3.ClusterPolicyDeny:
	case v3.ClusterPolicyPass:
		action = v3.ActionPass
	default:
		e.fail("%s.action: %q: must be Accept, Deny or Pass", place, act)
	}
	if len(peers) == 0 {
		e.fail("%s%s: must not be empty", place, side)
	}
	ports, what := clusterPorts(&e, place, protocols)
	if what != "" {
		// The protocol is not known: what denies has to deny all of them.
		c.closed(place, action, []protocolPorts{{}}, what)
		peers = nil
	}
	var closed []func() // after what can be said, since they take all peers
	for i, p := range peers {
		place := at(place+side, i)
		if p.Nodes != nil && p.Namespaces == nil && p.Pods == nil && len(p.Networks)+len(p.DomainNames) == 0 {
			c.toNodes(&e, place, action, ports, p.Nodes)
			continue
		}
		rules, what := clusterPeer(&e, place, p)
		if what != "" {
			closed = append(closed, func() { c.closed(place, action, ports, what) })
		}
		for _, r := range rules {
			c.add(place, action, ports, r)
		}
	}
	for _, add := range closed {
		add()
	}
	if e.err != nil {
		c.errs = append(c.errs, e.err)
		c.out, c.places = c.out[:before], c.places[:before]
		if action != v3.ActionAllow {
			c.closed(place, action, []protocolPorts{{}}, "")
		}
	}
}

// toNodes appends what stands for a peer that is nodes: rules that match nothing until the
// policy is parsed.
func (c *conversion) toNodes(e *first, place string, action v3.Action, ports []protocolPorts, s *v3.LabelSelector) {
	if c.nodes == nil {
		c.nodes = map[string]string{}
	}
	c.nodes[place] = namespaceSelector(e, place+".nodes", s)
	c.add(place, action, ports, v3.EntityRule{Selector: nothing})
}

// closed appends what stands for a peer or protocol that cannot be said.
func (c *conversion) closed(place string, action v3.Action, ports []protocolPorts, what string) {
	if action != v3.ActionAllow {
		c.add(place, v3.ActionDeny, ports, v3.EntityRule{})
		return
	}
	if c.unbuilt == nil {
		c.unbuilt = map[string]string{}
	}
	c.unbuilt[place] = what
	c.add(place, action, ports, v3.EntityRule{Selector: nothing})
}

// podsOf is pods by namespace, or by namespace and label; what names what else is
// asked for.
func podsOf(e *first, field string, namespaces *v3.LabelSelector, pods *v3.NamespacedPods) (r v3.EntityRule, what string) {
	switch {
	case namespaces != nil && pods == nil:
		return v3.EntityRule{
			Selector:          onlyPods,
			NamespaceSelector: namespaceSelector(e, field+".namespaces", namespaces),
		}, ""
	case pods != nil && namespaces == nil:
		return v3.EntityRule{
			Selector:          podSelector(e, field+".pods.podSelector", &pods.PodSelector),
			NamespaceSelector: namespaceSelector(e, field+".pods.namespaceSelector", &pods.NamespaceSelector),
		}, ""
	}
	return v3.EntityRule{}, "a peer of unknown kind"
}

// clusterPeer is one or two ends of rules, one for each family of networks; what
// names what cannot be said.
func clusterPeer(e *first, field string, p v3.ClusterPolicyEgressPeer) (ends []v3.EntityRule, what string) {
	pods := p.Namespaces != nil || p.Pods != nil
	switch {
	case p.Nodes != nil:
		return nil, "a peer of two kinds"
	case len(p.DomainNames) > 0:
		return nil, "domainNames"
	case len(p.Networks) > 0 && pods:
		return nil, "a peer of two kinds"
	case len(p.Networks) == 0:
		r, what := podsOf(e, field, p.Namespaces, p.Pods)
		if what != "" {
			return nil, what
		}
		return []v3.EntityRule{r}, ""
	}
	var v4, v6 v3.EntityRule
	for i, text := range p.Networks {
		n := try(e, prefix, at(field+".networks", i), text)
		end := &v6
		if n.Addr().Is4() {
			end = &v4
		}
		end.Nets = append(end.Nets, n.String())
	}
	for _, r := range []v3.EntityRule{v4, v6} {
		if len(r.Nets) > 0 {
			ends = append(ends, r)
		}
	}
	return ends, ""
}

// clusterPorts makes one group of each protocol, and one of the names of ports,
// which bring their protocols with them.
func clusterPorts(e *first, field string, protocols []v3.ClusterPolicyProtocol) (groups []protocolPorts, what string) {
	if len(protocols) == 0 {
		return []protocolPorts{{}}, ""
	}
	by := portsByProtocol{}
	for i, p := range protocols {
		field := at(field+".protocols", i)
		given := 0
		for _, one := range []struct {
			name  string
			ports *v3.ClusterPolicyPorts
		}{{"TCP", p.TCP}, {"UDP", p.UDP}, {"SCTP", p.SCTP}} {
			if one.ports == nil {
				continue
			}
			given++
			port, ok := clusterPort(e, field, one.ports.DestinationPort)
			if !ok {
				return nil, "a port of unknown kind"
			}
			by.add(one.name, port)
		}
		if p.DestinationNamedPort != "" {
			given++
			by.add("", &v3.Port{Name: p.DestinationNamedPort})
		}
		if given != 1 {
			return nil, "a protocol of unknown kind"
		}
	}
	return by.groups(), ""
}

// clusterPort is nil for all ports; false: it is of no kind that is known.
func clusterPort(e *first, field string, p *v3.ClusterPolicyPort) (*v3.Port, bool) {
	if p == nil {
		return nil, true
	}
	from, to := p.Number, p.Number
	if p.Range != nil {
		if p.Number != 0 {
			return nil, false
		}
		from, to = p.Range.Start, p.Range.End
	} else if p.Number == 0 {
		return nil, false
	}
	if from < 1 || to > 65535 || from > to {
		e.fail("%s: %d to %d: must be ports from 1 to 65535", field, from, to)
		return nil, true
	}
	return &v3.Port{Min: uint16(from), Max: uint16(to)}, true
}
