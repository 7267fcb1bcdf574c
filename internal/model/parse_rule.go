package model

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/selector"
)

// Prefixes of labels that endpoints inherit from their namespace and their service
// account, by way of the profiles kns.NAMESPACE and ksa.NAMESPACE.NAME.
const (
	prefixNamespace      = "pcns."
	prefixServiceAccount = "pcsa."
)

// scope is where the rules and selectors of an object are to be understood.
type scope struct {
	namespace string // empty: of no namespace
	maxLen    int    // of selectors, in bytes
}

// sel parses a selector that somebody wrote; nil if there is none.
func (s scope) sel(field, text string) (*selector.Selector, error) {
	if text == "" {
		return nil, nil
	}
	out, err := selector.ParseLimit(text, s.maxLen)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return out, nil
}

// about parses a selector of namespaces or service accounts as one about the labels
// that endpoints inherit from them.
func (s scope) about(prefix string) func(field, text string) (*selector.Selector, error) {
	return func(field, text string) (*selector.Selector, error) {
		out, err := s.sel(field, text)
		if out != nil {
			out = out.Rename(func(name string) string { return prefix + name })
		}
		return out, err
	}
}

// equals selects what has that value in that label.
func equals(label, value string) *selector.Selector {
	return selector.Of(selector.Compare{Label: label, Op: selector.Equal, Value: value})
}

// anyWith is s with all() understood as: whatever has the label; and global() as:
// whatever has not.
func anyWith(s *selector.Selector, label string) *selector.Selector {
	return s.Replace(func(leaf selector.Expr) selector.Expr {
		switch leaf.(type) {
		case selector.All:
			return selector.Has{Label: label}
		case selector.Global:
			return selector.Not{X: selector.Has{Label: label}}
		}
		return leaf
	})
}

// at is the name of the i-th element of a list.
func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

// rules parses the rules of one direction. places names where each came from; nil:
// from the list itself.
func (s scope) rules(e *first, list string, rules []v3.Rule, places []string) []Rule {
	if len(rules) == 0 {
		return nil
	}
	out := make([]Rule, len(rules))
	for i := range rules {
		place := ""
		if places != nil {
			place = places[i]
		} else {
			place = at(list, i)
		}
		out[i] = s.rule(e, place, &rules[i])
	}
	return out
}

func (s scope) rule(e *first, field string, r *v3.Rule) Rule {
	var in first
	out := Rule{
		Field:       field,
		Action:      try(&in, action, "action", string(r.Action)),
		Protocol:    protocol(&in, "protocol", r.Protocol),
		NotProtocol: protocol(&in, "notProtocol", r.NotProtocol),
		ICMP:        icmp(&in, "icmp", r.ICMP),
		NotICMP:     icmp(&in, "notICMP", r.NotICMP),
		Source:      s.entity(&in, "source", &r.Source),
		Destination: s.entity(&in, "destination", &r.Destination),
	}
	if r.HTTP != nil {
		out.Unbuilt = "http"
		if out.Action != Allow {
			in.fail("http: must stand with the action Allow only")
		}
	}
	out.Family = ruleFamily(&in, r, &out)
	e.within(field, in)
	return out
}

// ruleFamily is the family that r is about: that of ipVersion, or that of its nets,
// also of those that it excludes, which is what Calico makes of them. A match of
// ICMP messages needs to know whose types they are.
func ruleFamily(e *first, r *v3.Rule, out *Rule) uint8 {
	var family uint8
	if v := r.IPVersion; v != nil {
		if *v != 4 && *v != 6 {
			e.fail("ipVersion: %d: must be 4 or 6", *v)
		}
		family = uint8(*v)
	}
	src, dst := &out.Source, &out.Destination
	for _, nets := range [...][]netip.Prefix{src.Nets, src.NotNets, dst.Nets, dst.NotNets} {
		for _, p := range nets {
			f := familyOf(p)
			if family != 0 && f != family {
				e.fail("nets: %v: must be IPv%d as the rest of the rule is", p, family)
			}
			family = f
		}
	}
	if icmp := out.ICMP != (ICMP{}) || out.NotICMP != (ICMP{}); family == 0 && icmp {
		switch out.Protocol {
		case protocolICMP:
			return 4
		case protocolICMPv6:
			return 6
		}
	}
	return family
}

// familyOf is 4 or 6.
func familyOf(p netip.Prefix) uint8 {
	if p.Addr().Is4() {
		return 4
	}
	return 6
}

func action(field, text string) (Action, error) {
	for _, a := range []Action{Deny, Allow, Log, Pass} {
		if text == a.String() {
			return a, nil
		}
	}
	return Deny, fmt.Errorf("%s: %q: must be Allow, Deny, Log or Pass", field, text)
}

// Numbers of IP protocols that have names here (IANA).
const (
	protocolICMP    = 1
	protocolTCP     = 6
	protocolUDP     = 17
	protocolICMPv6  = 58
	protocolSCTP    = 132
	protocolUDPLite = 136
)

// protocol is the number of a protocol; 0 for nil.
func protocol(e *first, field string, p *v3.Protocol) uint8 {
	if p == nil {
		return 0
	}
	n := protocolNumber(*p)
	if n == 0 {
		e.fail("%s: %q: must be 1 to 255, TCP, UDP, ICMP, ICMPv6, SCTP or UDPLite", field, p)
	}
	return n
}

// protocolNumber is 0 for a protocol that there is not.
func protocolNumber(p v3.Protocol) uint8 {
	switch strings.ToLower(p.Name) {
	case "":
		return p.Number
	case "icmp":
		return protocolICMP
	case "tcp":
		return protocolTCP
	case "udp":
		return protocolUDP
	case "icmpv6":
		return protocolICMPv6
	case "sctp":
		return protocolSCTP
	case "udplite":
		return protocolUDPLite
	}
	return 0
}

func icmp(e *first, field string, m *v3.ICMPFields) ICMP {
	if m == nil {
		return ICMP{}
	}
	number := func(name string, n *int) uint16 {
		if n == nil {
			return 0
		}
		if *n < 0 || *n > 255 {
			e.fail("%s.%s: %d: must be 0 to 255", field, name, *n)
			return 0
		}
		return uint16(*n) + 1
	}
	out := ICMP{TypePlus1: number("type", m.Type), CodePlus1: number("code", m.Code)}
	if out.TypePlus1 == 0 && out.CodePlus1 != 0 {
		e.fail("%s.code: must stand with a type", field)
	}
	return out
}

func (s scope) entity(e *first, field string, r *v3.EntityRule) Entity {
	var in first
	out := Entity{
		Nets:        nets(&in, "nets", r.Nets),
		NotNets:     nets(&in, "notNets", r.NotNets),
		Selector:    s.peers(&in, r),
		NotSelector: try(&in, s.sel, "notSelector", r.NotSelector),
	}
	out.Ports, out.NamedPorts = splitPorts(r.Ports)
	out.NotPorts, out.NotNamedPorts = splitPorts(r.NotPorts)
	if r.Services != nil {
		out.Service = Service{Namespace: r.Services.Namespace, Name: r.Services.Name}
		if out.Service.Namespace == "" {
			out.Service.Namespace = s.namespace
		}
		if out.Service.Name == "" {
			in.fail("services.name: must not be empty")
		}
	}
	e.within(field, in)
	return out
}

// peers is the selector of one end of a rule, of all that its fields say about
// endpoints; nil if they say nothing.
//
// A rule of a namespaced policy that says anything about endpoints is confined to
// the policy's namespace, or to those that its namespaceSelector names. That holds
// for notSelector too: alone it matches what it does not select among the endpoints
// and network sets of the namespace. In a policy without a namespace it alone
// matches every address that it does not select, known or not.
func (s scope) peers(e *first, r *v3.EntityRule) *selector.Selector {
	namespaces := try(e, s.about(prefixNamespace), "namespaceSelector", r.NamespaceSelector)
	accounts := s.accounts(e, r.ServiceAccounts)
	own := try(e, s.sel, "selector", r.Selector)
	var parts []*selector.Selector
	switch {
	case namespaces != nil:
		parts = append(parts, anyWith(namespaces, LabelNamespace))
	case s.namespace != "" && (own != nil || len(accounts) > 0 || r.NotSelector != ""):
		parts = append(parts, equals(LabelNamespace, s.namespace))
	}
	parts = append(parts, accounts...)
	if own != nil {
		parts = append(parts, own)
	}
	if len(parts) == 0 {
		return nil
	}
	return selector.AllOf(parts...)
}

// accounts is the selectors of service accounts by label and by name; none of them
// matches every endpoint, whatever account it has.
func (s scope) accounts(e *first, m *v3.ServiceAccountMatch) []*selector.Selector {
	if m == nil {
		return nil
	}
	var out []*selector.Selector
	if by := try(e, s.about(prefixServiceAccount), "serviceAccounts.selector", m.Selector); by != nil {
		out = append(out, by)
	}
	if len(m.Names) == 0 {
		return out
	}
	for i, name := range m.Names {
		if name == "" || strings.ContainsAny(name, `'"`) {
			e.fail("%s: %q: must be the name of a service account", at("serviceAccounts.names", i), name)
			return out
		}
	}
	return append(out, selector.Of(selector.OneOf(LabelServiceAccount, m.Names...)))
}

// nets parses CIDRs; host bits are cut off.
func nets(e *first, field string, texts []string) []netip.Prefix {
	if len(texts) == 0 {
		return nil
	}
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = try1(e, prefix, field, i, text)
	}
	return out
}

// splitPorts divides ports into those with numbers and those with names.
func splitPorts(ports []v3.Port) (ranges []PortRange, names []string) {
	for _, p := range ports {
		if p.Name != "" {
			names = append(names, p.Name)
		} else {
			ranges = append(ranges, PortRange{p.Min, p.Max})
		}
	}
	return ranges, names
}
