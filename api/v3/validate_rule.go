package v3

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/selector"
)

func (c *checker) tier(o *Tier) {
	order, action, builtin := builtinTier(o.Name)
	if s := &o.Spec; s.DefaultAction != nil {
		c.oneOf("spec.defaultAction", string(*s.DefaultAction), "Deny", "Pass")
		if builtin && *s.DefaultAction != action {
			c.fail("spec.defaultAction", string(*s.DefaultAction), fmt.Sprintf("must be %s: the tier is built in", action))
		}
	}
	if builtin && o.Spec.Order != nil && *o.Spec.Order != order {
		c.fail("spec.order", *o.Spec.Order, fmt.Sprintf("must be %g: the tier is built in", order))
	}
}

func (c *checker) profile(s *ProfileSpec) {
	c.labels("spec.labelsToApply", s.LabelsToApply)
	for i := range s.Ingress {
		c.rule(index("spec.ingress", i), &s.Ingress[i])
	}
	for i := range s.Egress {
		c.rule(index("spec.egress", i), &s.Egress[i])
	}
}

// rule checks what holds in every kind of object that has rules. What only policies
// must keep (known actions, protocols that fit the IP version, the place of global())
// is not checked: in profiles Calico takes it, and the datastore may hold it. See
// policyRule.
func (c *checker) rule(field string, r *Rule) {
	if r.Protocol != nil {
		c.protocol(field+".protocol", r.Protocol)
	}
	if r.NotProtocol != nil {
		c.protocol(field+".notProtocol", r.NotProtocol)
	}
	if r.ICMP != nil {
		c.icmp(field+".icmp", r.ICMP)
	}
	if r.NotICMP != nil {
		c.icmp(field+".notICMP", r.NotICMP)
	}
	c.ruleEntity(field+".source", r, &r.Source)
	c.ruleEntity(field+".destination", r, &r.Destination)
	c.ruleFamilies(field, r)
	if r.HTTP != nil {
		c.http(field+".http", r.HTTP)
	}
	if r.Metadata != nil {
		c.annotations(field+".metadata.annotations", r.Metadata.Annotations)
	}
}

func (c *checker) protocol(field string, p *Protocol) {
	switch {
	case p.Name != "":
		c.oneOf(field, p.Name, "TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
	case p.Number == 0:
		c.fail(field, p.Number, "must be 1 to 255 or a name")
	}
}

func (c *checker) icmp(field string, m *ICMPFields) {
	c.number(field+".type", m.Type, 0, 254)
	c.number(field+".code", m.Code, 0, 255)
}

// ruleEntity checks one end. Most of it is empty in most rules, and then no paths are
// made: there are clusters with a million rules.
func (c *checker) ruleEntity(field string, r *Rule, e *EntityRule) {
	if len(e.Ports) > 0 {
		c.ports(field+".ports", r.Protocol, e.Ports)
	}
	if len(e.NotPorts) > 0 {
		c.ports(field+".notPorts", r.Protocol, e.NotPorts)
	}
	for i, n := range e.Nets {
		c.masked(index(field+".nets", i), n)
	}
	for i, n := range e.NotNets {
		if p, ok := c.masked(index(field+".notNets", i), n); ok && p.Bits() == 0 {
			c.fail(index(field+".notNets", i), n, "must not exclude all addresses: the rule would match nothing")
		}
	}
	for _, s := range [...]struct{ field, text string }{
		{".selector", e.Selector}, {".notSelector", e.NotSelector}, {".namespaceSelector", e.NamespaceSelector},
	} {
		if s.text != "" {
			c.ruleSelector(field+s.field, s.text)
		}
	}
	if sa := e.ServiceAccounts; sa != nil {
		c.ruleSelector(field+".serviceAccounts.selector", sa.Selector)
	}
}

// ruleSelector checks the syntax only: Calico takes global() anywhere in a profile.
func (c *checker) ruleSelector(field, text string) {
	if _, err := selector.Parse(text); err != nil {
		c.fail(field, nil, err.Error())
	}
}

// ports checks that ports stand with a protocol that has them. A name brings its
// protocol with it.
func (c *checker) ports(field string, protocol *Protocol, ports []Port) {
	numeric := slices.ContainsFunc(ports, func(p Port) bool { return p.Name == "" })
	switch {
	case len(ports) == 0:
	case protocol == nil && numeric:
		c.fail(field, nil, "numbers and ranges need the rule's protocol TCP, UDP or SCTP")
	case protocol != nil && !protocol.hasPorts():
		c.fail(field, nil, "the rule's protocol must be TCP, UDP or SCTP, not "+protocol.String())
	}
	for i, p := range ports {
		if p.Name != "" {
			c.portName(index(field, i), p.Name)
		} else if p.Min == 0 {
			c.fail(index(field, i), p.String(), "must be 1 to 65535")
		}
	}
}

// ruleFamilies checks that all prefixes of a rule are of one family, that of
// ipVersion where it is set.
func (c *checker) ruleFamilies(field string, r *Rule) {
	if len(r.Source.Nets)+len(r.Source.NotNets)+len(r.Destination.Nets)+len(r.Destination.NotNets) == 0 {
		return
	}
	want, because := anyFamily, ""
	if r.IPVersion != nil && *r.IPVersion == 4 {
		want, because = ipv4, "ipVersion is 4"
	} else if r.IPVersion != nil && *r.IPVersion == 6 {
		want, because = ipv6, "ipVersion is 6"
	}
	for _, list := range []struct {
		field string
		nets  []string
	}{
		{".source.nets", r.Source.Nets},
		{".source.notNets", r.Source.NotNets},
		{".destination.nets", r.Destination.Nets},
		{".destination.notNets", r.Destination.NotNets},
	} {
		for i, n := range list.nets {
			p, err := netip.ParsePrefix(n)
			if err != nil {
				continue
			}
			if familyOf(p.Addr())&want == 0 {
				c.fail(index(field+list.field, i), n, fmt.Sprintf("must be %v: %s", want, because))
				continue
			}
			if want == anyFamily {
				want, because = familyOf(p.Addr()), n+" of the same rule is"
			}
		}
	}
}

func (c *checker) http(field string, h *HTTPMatch) {
	for i, p := range h.Paths {
		path := p.Exact + p.Prefix
		switch {
		case p.Exact != "" && p.Prefix != "":
			c.fail(index(field+".paths", i), nil, "must have exact or prefix, not both")
		case !strings.HasPrefix(path, "/") || strings.ContainsAny(path, "?#"):
			c.fail(index(field+".paths", i), path, "must begin with / and have no ? or #")
		}
	}
	for i, m := range h.Methods {
		if slices.Contains(h.Methods[:i], m) {
			c.fail(index(field+".methods", i), m, "must stand once")
		}
	}
}
