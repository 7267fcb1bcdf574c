package model

import (
	"fmt"
	"maps"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// labelService is the label of an EndpointSlice that names its service.
const labelService = "kubernetes.io/service-name"

// namespaceProfile is the profile that hands on the labels of a namespace.
func namespaceProfile(namespace string) string { return "kns." + namespace }

// ownLabels is the labels of an endpoint or a set without those that only profiles
// may give, by which it would pretend to be of another namespace or account, and
// with the label that the system adds, if it is named. The map is copied if it
// changes.
func ownLabels(labels map[string]string, add, value string) map[string]string {
	inherited := func(name string) bool {
		return strings.HasPrefix(name, prefixNamespace) || strings.HasPrefix(name, prefixServiceAccount)
	}
	change := add != "" && labels[add] != value
	for name := range labels {
		change = change || inherited(name)
	}
	if !change {
		return labels
	}
	out := make(map[string]string, len(labels)+1)
	maps.Copy(out, labels)
	maps.DeleteFunc(out, func(name, _ string) bool { return inherited(name) })
	if add != "" {
		out[add] = value
	}
	return out
}

// parseNetworkSet reads addresses and prefixes as Calico does: bare addresses,
// prefixes with host bits and empty entries are taken. With an error the set has what
// could be read.
func parseNetworkSet(namespace string, meta *v3.ObjectMeta, nets []string) (NetworkSet, error) {
	s := NetworkSet{Namespace: namespace, Name: meta.Name, Labels: meta.Labels}
	if namespace != "" {
		s.Labels = ownLabels(meta.Labels, LabelNamespace, namespace)
		s.Profiles = []string{namespaceProfile(namespace)}
	}
	var e first
	for i, text := range nets {
		if p := try1(&e, nodeAddr, "spec.nets", i, text); p.IsValid() {
			s.Nets = append(s.Nets, p.Masked())
		}
	}
	return s, e.err
}

// parseHostEndpoint gives what could be read with an error, too.
func parseHostEndpoint(o *v3.HostEndpoint) (HostEndpoint, error) {
	s := o.Spec
	h := HostEndpoint{Name: o.Name, Node: s.Node, Link: s.InterfaceName, Labels: o.Labels, Profiles: s.Profiles}
	var e first
	for i, text := range s.ExpectedIPs {
		if a := try1(&e, addr, "spec.expectedIPs", i, text); a.IsValid() {
			h.Addrs = append(h.Addrs, a)
		}
	}
	for i, p := range s.Ports {
		h.Ports = appendPort(&e, h.Ports, at("spec.ports", i), p.Name, p.Protocol, p.Port)
	}
	return h, e.err
}

// appendPort appends a port with a name; what is none is an error and left out.
func appendPort(e *first, to []NamedPort, field, name string, protocol v3.Protocol, port uint16) []NamedPort {
	n := protocolNumber(protocol)
	if n == 0 {
		e.fail("%s.protocol: %q: must be TCP, UDP or SCTP", field, protocol)
		return to
	}
	return append(to, NamedPort{Name: name, Protocol: n, Port: port})
}

// parseEndpointSlice gives what could be read with an error, too.
func parseEndpointSlice(o *v3.KubernetesEndpointSlice) (EndpointSlice, error) {
	s := EndpointSlice{Namespace: o.Namespace, Name: o.Name}
	if name := o.Labels[labelService]; name != "" {
		s.Service = Service{Namespace: o.Namespace, Name: name}
	}
	var e first
	for i, ep := range o.Endpoints {
		if o.AddressType == "FQDN" {
			break // names, no addresses
		}
		var in first
		for j, text := range ep.Addresses {
			if a := try1(&in, addr, "addresses", j, text); a.IsValid() {
				s.Addrs = append(s.Addrs, a)
			}
		}
		if in.err != nil {
			e.within(at("endpoints", i), in)
		}
	}
	for i, p := range o.Ports {
		port, err := slicePort(p)
		if err != nil {
			e.fail("%s.%w", at("ports", i), err)
			continue
		}
		s.Ports = append(s.Ports, port)
	}
	return s, e.err
}

func slicePort(p v3.KubernetesEndpointPort) (NamedPort, error) {
	out := NamedPort{Protocol: protocolTCP}
	if p.Name != nil {
		out.Name = *p.Name
	}
	if p.Protocol != nil && *p.Protocol != "" {
		if out.Protocol = protocolNumber(v3.Protocol{Name: *p.Protocol}); out.Protocol == 0 {
			return out, fmt.Errorf("protocol: %q: must be TCP, UDP or SCTP", *p.Protocol)
		}
	}
	if p.Port != nil {
		if *p.Port < 1 || *p.Port > 65535 {
			return out, fmt.Errorf("port: %d: must be 1 to 65535", *p.Port)
		}
		out.Port = uint16(*p.Port)
	}
	return out, nil
}
