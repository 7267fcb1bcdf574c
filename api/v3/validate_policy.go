package v3

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of policies, those of Calico's CRDs.
const (
	maxRules    = 1024 // in each direction
	maxNets     = 256  // in each list of a rule
	maxPorts    = 50   // in each list of a rule
	maxHTTP     = 20   // methods, and paths
	maxHTTPPath = 1024 // bytes
)

// policy checks a policy of any of the kinds that have a tier.
func (c *checker) policy(o Object, p policyView) {
	c.policyName(o.Meta().Name, p.cluster)
	if !isDNSLabel(*p.tier) {
		c.fail("spec.tier", *p.tier, "must be the name of a tier: 1 to 63 lower-case letters, digits and inner dashes")
	}
	if p.staged != nil {
		c.stagedAction(*p.staged)
		if *p.staged == StagedDelete {
			c.stagedDelete(p)
			return
		}
	}
	c.policyTypes("spec.types", *p.types)
	c.hostPolicy(p)
	c.policySelector("spec.selector", p.selector)
	c.policySelector("spec.serviceAccountSelector", p.serviceAccountSelector)
	c.policySelector("spec.namespaceSelector", p.namespaceSelector)
	for i, hint := range p.hints {
		if hint != "AssumeNeededOnEveryNode" {
			c.fail(index("spec.performanceHints", i), hint, "must be AssumeNeededOnEveryNode")
		} else if slices.Contains(p.hints[:i], hint) {
			c.fail(index("spec.performanceHints", i), hint, "must stand once")
		}
	}
	if c.atMost("spec.ingress", len(p.ingress), maxRules) {
		for i := range p.ingress {
			c.policyRule(index("spec.ingress", i), &p.ingress[i], PolicyIngress, p.cluster)
		}
	}
	if c.atMost("spec.egress", len(p.egress), maxRules) {
		for i := range p.egress {
			c.policyRule(index("spec.egress", i), &p.egress[i], PolicyEgress, p.cluster)
		}
	}
}

// policyName checks the name beyond what holds for all objects: it may have one dot,
// as when it begins with the tier. Names that Calico makes of those of Kubernetes and
// OpenStack may have more.
func (c *checker) policyName(name string, cluster bool) {
	rest := name
	for _, prefix := range []string{"knp.default.", "ossg.default."} {
		if after, ok := strings.CutPrefix(name, prefix); ok && !cluster {
			rest = "x." + strings.ReplaceAll(after, ".", "-") // any dots
		}
	}
	if isDNSSubdomain(name) && strings.Count(rest, ".") > 1 {
		c.fail("metadata.name", name, `must have one dot at most, as in "tier.name"`)
	}
}

func (c *checker) stagedAction(a StagedAction) {
	if !slices.Contains([]StagedAction{StagedSet, StagedDelete, StagedLearn, StagedIgnore}, a) {
		c.fail("spec.stagedAction", string(a), "must be Set, Delete, Learn or Ignore")
	}
}

// stagedDelete checks that the policy says nothing more than what it removes.
func (c *checker) stagedDelete(p policyView) {
	for _, f := range []struct {
		field string
		given bool
	}{
		{"order", p.order != nil},
		{"ingress", len(p.ingress) > 0},
		{"egress", len(p.egress) > 0},
		{"selector", p.selector != ""},
		{"types", len(*p.types) > 0},
		{"serviceAccountSelector", p.serviceAccountSelector != ""},
		{"namespaceSelector", p.namespaceSelector != ""},
		{"performanceHints", len(p.hints) > 0},
		{"doNotTrack", p.doNotTrack},
		{"preDNAT", p.preDNAT},
		{"applyOnForward", p.applyOnForward},
	} {
		if f.given {
			c.fail("spec."+f.field, nil, "must be left out: stagedAction Delete goes with a tier only")
		}
	}
}

func (c *checker) policyTypes(field string, types []PolicyType) {
	for i, t := range types {
		if t != PolicyIngress && t != PolicyEgress {
			c.fail(index(field, i), string(t), "must be Ingress or Egress")
		} else if slices.Contains(types[:i], t) {
			c.fail(index(field, i), string(t), "must stand once")
		}
	}
}

// hostPolicy checks the switches that are for host endpoints.
func (c *checker) hostPolicy(p policyView) {
	if p.doNotTrack && p.preDNAT {
		c.fail("spec.preDNAT", nil, "must not be true together with doNotTrack")
	}
	if (p.doNotTrack || p.preDNAT) && !p.applyOnForward {
		c.fail("spec.applyOnForward", nil, "must be true with doNotTrack or preDNAT")
	}
	if p.preDNAT && len(p.egress) > 0 {
		c.fail("spec.egress", nil, "must be empty with preDNAT, which is for packets that come in")
	}
	if p.preDNAT && slices.Contains(*p.types, PolicyEgress) {
		c.fail("spec.types", nil, "must be Ingress with preDNAT, which is for packets that come in")
	}
}

// policySelector checks a selector of a policy. Like Calico it refuses the text of
// global() even in a string.
func (c *checker) policySelector(field, text string) {
	c.ruleSelector(field, text)
	if strings.Contains(text, "global(") {
		c.fail(field, text, "must not use global(): it is for the namespaceSelector of a rule")
	}
}

// policyRule checks a rule of a policy; direction is that of its list, and cluster
// says that the policy is of no namespace.
func (c *checker) policyRule(field string, r *Rule, direction PolicyType, cluster bool) {
	if !c.ruleLimits(field, r) {
		return
	}
	c.rule(field, r)
	switch r.Action {
	case ActionAllow, ActionDeny, ActionLog, ActionPass:
	default:
		c.fail(field+".action", string(r.Action), "must be Allow, Deny, Log or Pass")
	}
	c.ruleProtocols(field, r)
	c.policyEntity(field+".source", &r.Source)
	c.policyEntity(field+".destination", &r.Destination)
	c.ruleServices(field, r, direction, cluster)
	switch {
	case r.HTTP == nil:
	case direction == PolicyEgress:
		c.fail(field+".http", nil, "must be left out of egress rules")
	case r.Action != ActionAllow:
		c.fail(field+".http", nil, "must be left out unless the action is Allow")
	case r.Protocol != nil && *r.Protocol != (Protocol{Name: "TCP"}) && r.Protocol.Number != 6:
		c.fail(field+".http", nil, "needs the rule's protocol to be TCP or left out, not "+r.Protocol.String())
	}
}

// ruleLimits reports whether the lists of a rule are short enough to look into.
func (c *checker) ruleLimits(field string, r *Rule) bool {
	ok := c.entityLimits(field, ".source", &r.Source)
	ok = c.entityLimits(field, ".destination", &r.Destination) && ok
	if h := r.HTTP; h != nil {
		ok = c.atMost(field+".http.methods", len(h.Methods), maxHTTP) && ok
		ok = c.atMost(field+".http.paths", len(h.Paths), maxHTTP) && ok
		for i, p := range h.Paths {
			if len(p.Exact) > maxHTTPPath || len(p.Prefix) > maxHTTPPath {
				c.fail(index(field+".http.paths", i), nil, fmt.Sprintf("is too long: must have at most %d bytes", maxHTTPPath))
				ok = false
			}
		}
	}
	return ok
}

func (c *checker) entityLimits(field, end string, e *EntityRule) bool {
	ok := true
	for _, list := range [...]struct {
		field   string
		n, most int
	}{
		{".nets", len(e.Nets), maxNets},
		{".notNets", len(e.NotNets), maxNets},
		{".ports", len(e.Ports), maxPorts},
		{".notPorts", len(e.NotPorts), maxPorts},
	} {
		if list.n > list.most {
			ok = c.atMost(field+end+list.field, list.n, list.most)
		}
	}
	return ok
}

// ruleProtocols checks that protocol, IP version and ICMP fields go together.
func (c *checker) ruleProtocols(field string, r *Rule) {
	if r.IPVersion != nil && *r.IPVersion != 4 && *r.IPVersion != 6 {
		c.fail(field+".ipVersion", *r.IPVersion, "must be 4 or 6")
	}
	if r.ICMP != nil && (r.Protocol == nil || r.Protocol.icmpVersion() == 0) {
		c.fail(field+".icmp", nil, "needs the rule's protocol to be ICMP or ICMPv6")
	}
	for _, m := range []struct {
		field string
		icmp  *ICMPFields
	}{{".icmp", r.ICMP}, {".notICMP", r.NotICMP}} {
		if m.icmp != nil && m.icmp.Code != nil && m.icmp.Type == nil {
			c.fail(field+m.field+".code", *m.icmp.Code, "needs a type")
		}
	}
	for _, p := range []struct {
		field    string
		protocol *Protocol
	}{{".protocol", r.Protocol}, {".notProtocol", r.NotProtocol}} {
		if p.protocol == nil || r.IPVersion == nil {
			continue
		}
		if v := p.protocol.icmpVersion(); v != 0 && v != *r.IPVersion {
			c.fail(field+p.field, p.protocol.String(), fmt.Sprintf("needs ipVersion %d, not %d", v, *r.IPVersion))
		}
	}
}

// icmpVersion is the IP version that the protocol belongs to: 4 for ICMP, 6 for
// ICMPv6, and 0 for any other protocol.
func (p Protocol) icmpVersion() int {
	switch {
	case p.Name == "ICMP", p.Number == 1:
		return 4
	case p.Name == "ICMPv6", p.Number == 58:
		return 6
	}
	return 0
}

// policyEntity checks where global() stands.
func (c *checker) policyEntity(field string, e *EntityRule) {
	for _, s := range []struct{ field, text string }{{".selector", e.Selector}, {".notSelector", e.NotSelector}} {
		if strings.Contains(s.text, "global(") {
			c.fail(field+s.field, s.text, "must not use global(): it is for the namespaceSelector of a rule")
		}
	}
	if sa := e.ServiceAccounts; sa != nil && strings.Contains(sa.Selector, "global(") {
		c.fail(field+".serviceAccounts.selector", sa.Selector, "must not use global(): it is for the namespaceSelector of a rule")
	}
	if text := e.NamespaceSelector; strings.Contains(text, "global(") && strings.Trim(text, " \t") != "global()" {
		c.fail(field+".namespaceSelector", text, "must be global() alone: it can't be combined")
	}
}

// ruleServices checks matches by service: what they exclude, and where they stand.
func (c *checker) ruleServices(field string, r *Rule, direction PolicyType, cluster bool) {
	if r.Source.Services != nil && direction == PolicyEgress {
		c.fail(field+".source.services", nil, "must be left out of egress rules, where a service may be the destination")
	}
	if r.Destination.Services != nil && direction == PolicyIngress {
		c.fail(field+".destination.services", nil, "must be left out of ingress rules, where a service may be the source")
	}
	c.serviceMatch(field+".source", &r.Source, cluster)
	c.serviceMatch(field+".destination", &r.Destination, cluster)
	d := &r.Destination
	if d.Services != nil && len(d.Ports) > 0 {
		c.fail(field+".destination.ports", nil, "must be left out with services, which have ports of their own")
	}
	if d.Services != nil && len(d.NotPorts) > 0 {
		c.fail(field+".destination.notPorts", nil, "must be left out with services, which have ports of their own")
	}
}

func (c *checker) serviceMatch(field string, e *EntityRule, cluster bool) {
	s := e.Services
	if s == nil {
		return
	}
	if !isDNSSubdomain(s.Name) {
		c.fail(field+".services.name", s.Name, "must be the name of a service")
	}
	if s.Namespace == "" && cluster {
		c.fail(field+".services.namespace", nil, "must be set in a policy of no namespace")
	} else if s.Namespace != "" && !isDNSSubdomain(s.Namespace) {
		c.fail(field+".services.namespace", s.Namespace, "must be the name of a namespace")
	}
	for _, other := range []struct {
		field string
		given bool
	}{
		{"selector", e.Selector != ""},
		{"notSelector", e.NotSelector != ""},
		{"namespaceSelector", e.NamespaceSelector != ""},
		{"nets", len(e.Nets) > 0},
		{"notNets", len(e.NotNets) > 0},
		{"serviceAccounts", e.ServiceAccounts != nil},
	} {
		if other.given {
			c.fail(field+"."+other.field, nil, "must be left out with services")
		}
	}
}

// atMost checks the length of a list, and reports whether it holds.
func (c *checker) atMost(field string, n, most int) bool {
	if n > most {
		c.fail(field, nil, fmt.Sprintf("has %d entries: must be at most %d", n, most))
	}
	return n <= most
}
