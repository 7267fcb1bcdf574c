package crd

import (
	"math"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// Limits of policies.
const (
	maxRules = 1024 // in each direction
	maxNets  = 256  // in each list of a rule
	maxPorts = 50   // in each list of a rule
	maxHTTP  = 20   // methods, and paths
)

// oneDot is a pattern: a policy's name has one dot at most, as when it begins with
// the tier. Names that Calico makes of those of others may have more; those of
// NetworkPolicies of Kubernetes stay with them, and only a staged policy may have one.
const oneDot = `[^.]*(\.[^.]*)?`

func globalPolicyName(s *Schema) { s.at("metadata", "name").Pattern = whole(oneDot) }

func networkPolicyName(s *Schema) {
	s.at("metadata", "name").Pattern = whole(`(` + oneDot + `|ossg\.default\..*)`)
}

func stagedPolicyName(s *Schema) {
	s.at("metadata", "name").Pattern = whole(`(` + oneDot + `|(knp|ossg)\.default\..*)`)
}

func networkPolicy(s *Schema) { policy(s, false) }

func globalPolicy(s *Schema) {
	policy(s, true)
	hostPolicy(s)
}

func stagedPolicy(s *Schema) {
	policy(s, false)
	staged(s, "order", "ingress", "egress", "selector", "types", "serviceAccountSelector", "performanceHints")
}

func stagedGlobalPolicy(s *Schema) {
	policy(s, true)
	hostPolicy(s)
	staged(s, "order", "ingress", "egress", "selector", "types", "serviceAccountSelector", "performanceHints",
		"namespaceSelector", "doNotTrack", "preDNAT", "applyOnForward")
}

func policy(s *Schema, cluster bool) {
	tier := s.at("tier")
	tier.Default = v3.DefaultTier
	tier.Pattern = whole("(" + label + ")?")
	tier.most(63)
	sel(s.at("selector"))
	sel(s.at("serviceAccountSelector"))
	if cluster {
		sel(s.at("namespaceSelector"))
	}
	policyTypes(s.at("types"))
	s.at("performanceHints").ListType = "set"
	only(s.at("performanceHints", "[]"), "AssumeNeededOnEveryNode")
	for _, direction := range []string{"ingress", "egress"} {
		s.at(direction).MaxItems = maxRules
		rule := s.at(direction, "[]")
		wrong, right, of := "destination", "source", "ingress"
		if direction == "egress" {
			wrong, right, of = "source", "destination", "egress"
			rule.ruleAt(".http", "!has(self.http)", "must be left out of egress rules")
		}
		rule.ruleAt("."+wrong, "!has(self."+wrong+") || !has(self."+wrong+".services)",
			"of "+of+" rules must have no services: a service may be the "+right)
		if cluster {
			rule.ruleAt("."+right, "!has(self."+right+") || !has(self."+right+".services) || has(self."+right+".services.namespace) && self."+right+".services.namespace != ''",
				"must name the namespace of its service: the policy is of none")
		}
	}
}

func policyTypes(s *Schema) {
	s.ListType = "set"
	only(s.at("[]"), string(v3.PolicyIngress), string(v3.PolicyEgress))
}

// hostPolicy is what goes for the switches for host endpoints.
func hostPolicy(s *Schema) {
	const track, dnat = "(has(self.doNotTrack) && self.doNotTrack)", "(has(self.preDNAT) && self.preDNAT)"
	s.ruleAt(".preDNAT", "!"+track+" || !"+dnat, "must not be true together with doNotTrack")
	s.ruleAt(".applyOnForward", "!"+track+" && !"+dnat+" || has(self.applyOnForward) && self.applyOnForward", "must be true with doNotTrack or preDNAT")
	s.ruleAt(".egress", "!"+dnat+" || !has(self.egress) || self.egress.size() == 0", "must be empty with preDNAT, which is for packets that come in")
	s.ruleAt(".types", "!"+dnat+" || !has(self.types) || !self.types.exists(t, t == 'Egress')", "must be Ingress with preDNAT, which is for packets that come in")
}

// staged: a policy that deletes says nothing else than the tier.
func staged(s *Schema, others ...string) {
	action := s.at("stagedAction")
	action.Default = string(v3.StagedSet)
	words(action, string(v3.StagedSet), string(v3.StagedDelete), string(v3.StagedLearn), string(v3.StagedIgnore))
	for _, field := range others {
		empty := "!has(self." + field + ")"
		switch s.at(field).Type {
		case "array":
			empty += " || self." + field + ".size() == 0"
		case "string":
			empty += " || self." + field + " == ''"
		case "boolean":
			empty += " || !self." + field
		}
		s.ruleAt("."+field, "!has(self.stagedAction) || self.stagedAction != 'Delete' || "+empty,
			"must be left out: stagedAction Delete goes with a tier only")
	}
}

// rule is what holds of the rules of all policies.
func rule(s *Schema) {
	s.require("action")
	only(s.at("action"), "Allow", "Deny", "Log", "Pass")
	only(s.at("ipVersion"))
	s.at("ipVersion").Enum = []any{4, 6}
	const proto = "(self.protocol == 'TCP' || self.protocol == 'UDP' || self.protocol == 'SCTP' || self.protocol == 6 || self.protocol == 17 || self.protocol == 132" +
		" || self.protocol == '6' || self.protocol == '17' || self.protocol == '132')"
	for _, end := range []string{"source", "destination"} {
		for _, list := range []string{"ports", "notPorts"} {
			given := "has(self." + end + ") && has(self." + end + "." + list + ") && self." + end + "." + list + ".size() > 0"
			s.ruleAt("."+end, "!("+given+") || !has(self.protocol) || "+proto, list+" need the rule's protocol to be TCP, UDP or SCTP")
			s.ruleAt("."+end, "!("+given+") || has(self.protocol) || !self."+end+"."+list+".exists(p, type(p) == int)",
				list+" that are numbers need the rule's protocol TCP, UDP or SCTP")
		}
	}
	portsNeedProtocol(s)
	const v4, v6 = "(self.%s == 'ICMP' || self.%s == 1 || self.%s == '1')", "(self.%s == 'ICMPv6' || self.%s == 58 || self.%s == '58')"
	icmp4, icmp6 := strings.ReplaceAll(v4, "%s", "protocol"), strings.ReplaceAll(v6, "%s", "protocol")
	s.ruleAt(".icmp", "!has(self.icmp) || has(self.protocol) && ("+icmp4+" || "+icmp6+")", "needs the rule's protocol to be ICMP or ICMPv6")
	for _, field := range []string{"protocol", "notProtocol"} {
		is4, is6 := strings.ReplaceAll(v4, "%s", field), strings.ReplaceAll(v6, "%s", field)
		s.ruleAt("."+field, "!has(self."+field+") || !has(self.ipVersion) || (!"+is4+" || self.ipVersion == 4) && (!"+is6+" || self.ipVersion == 6)",
			"ICMP needs ipVersion 4, ICMPv6 needs 6")
	}
	families(s)
	s.ruleAt(".http", "!has(self.http) || self.action == 'Allow'", "must be left out unless the action is Allow")
	s.ruleAt(".http", "!has(self.http) || !has(self.protocol) || self.protocol == 'TCP' || self.protocol == 6 || self.protocol == '6'",
		"needs the rule's protocol to be TCP or left out")
	s.at("destination").rule("!has(self.services) || (!has(self.ports) || self.ports.size() == 0) && (!has(self.notPorts) || self.notPorts.size() == 0)",
		"must have no ports with services, which have ports of their own")
}

// portsNeedProtocol refuses ranges of ports in rules without a protocol. It is schema,
// since CEL takes such a port for a text of any length.
func portsNeedProtocol(s *Schema) {
	named := func() *Schema { return &Schema{Items: &Schema{Not: &Schema{Pattern: `^[0-9]+(:[0-9]+)?$`}}} }
	end := func() *Schema {
		return &Schema{Properties: map[string]*Schema{"ports": named(), "notPorts": named()}}
	}
	s.AnyOf = append(s.AnyOf,
		&Schema{Required: []string{"protocol"}},
		&Schema{Properties: map[string]*Schema{"source": end(), "destination": end()}})
}

// families: all prefixes of a rule are of one family, that of ipVersion if it is set.
// Each list is of one family by itself, so that their first entries tell of all.
func families(s *Schema) {
	var given, first []string
	for _, end := range []string{"source", "destination"} {
		for _, list := range []string{"nets", "notNets"} {
			field := "self." + end + "." + list
			given = append(given, "has(self."+end+") && has("+field+") && "+field+".size() > 0")
			first = append(first, field+"[0].contains(':')")
			s.ruleAt(".ipVersion", "!has(self.ipVersion) || !("+given[len(given)-1]+") || (self.ipVersion == 6) == "+first[len(first)-1],
				"must be that of the prefixes in "+end+"."+list)
		}
	}
	for i := range given {
		for j := range i {
			s.rule("!("+given[j]+") || !("+given[i]+") || "+first[j]+" == "+first[i], "must have prefixes of one family only")
		}
	}
}

func icmp(s *Schema) {
	s.at("type").between(0, 254)
	s.at("code").between(0, 255)
	s.ruleAt(".code", "!has(self.code) || has(self.type)", "needs a type")
}

func httpMatch(s *Schema) {
	s.at("methods").MaxItems = maxHTTP
	s.at("methods").ListType = "set"
	s.at("paths").MaxItems = maxHTTP
	path := s.at("paths", "[]")
	for _, field := range []string{"exact", "prefix"} {
		path.at(field).most(1024)
		path.at(field).Pattern = `^(/[^?#]*)?$`
	}
	path.rule("(has(self.exact) && self.exact != '') != (has(self.prefix) && self.prefix != '')", "must have exact or prefix, and not both")
}

func entityRule(s *Schema) {
	for _, field := range []string{"nets", "notNets"} {
		s.at(field).MaxItems = maxNets
		masked(s.at(field, "[]"))
		s.at(field).AnyOf = []*Schema{{Items: &Schema{Pattern: ":"}}, {Items: &Schema{Pattern: "^[^:]*$"}}}
	}
	s.at("notNets", "[]").Pattern = `/[1-9][0-9]*$` // to exclude all addresses would match nothing
	for _, field := range []string{"ports", "notPorts"} {
		s.at(field).MaxItems = maxPorts
		port(s.at(field, "[]"))
	}
	ruleSelector(s.at("selector"))
	ruleSelector(s.at("notSelector"))
	ruleSelector(s.at("serviceAccounts", "selector"))
	anySelector(s.at("namespaceSelector"))
	s.at("namespaceSelector").rule("!self.contains('global(') || self.trim() == 'global()'", "must be global() alone: it can't be combined")
	services := s.at("services")
	services.require("name")
	name(services.at("name"))
	optionalName(services.at("namespace"))
	for _, field := range []string{"selector", "notSelector", "namespaceSelector"} {
		s.ruleAt("."+field, "!has(self.services) || !has(self."+field+") || self."+field+" == ''", "must be left out with services")
	}
	for _, field := range []string{"nets", "notNets"} {
		s.ruleAt("."+field, "!has(self.services) || !has(self."+field+") || self."+field+".size() == 0", "must be left out with services")
	}
	s.ruleAt(".serviceAccounts", "!has(self.services) || !has(self.serviceAccounts)", "must be left out with services")
}

// port is a number, a range of ports, or the name of a port.
func port(s *Schema) {
	s.between(1, math.MaxUint16)
	s.Pattern = `^(` + number16 + `(:` + number16 + `)?|` + portText + `)$`
	s.most(15)
	notText(s, `^0+(:|$)`)
}

func stagedKubernetesPolicy(s *Schema) {
	staged(s, "ingress", "egress", "policyTypes")
	s.ruleAt(".podSelector", "!has(self.stagedAction) || self.stagedAction != 'Delete' || !has(self.podSelector) || !has(self.podSelector.matchLabels) && !has(self.podSelector.matchExpressions)",
		"must be left out: stagedAction Delete goes with nothing else")
	policyTypes(s.at("policyTypes"))
	for direction, peers := range map[string]string{"ingress": "from", "egress": "to"} {
		s.at(direction).MaxItems = maxRules
		s.at(direction, "[]", "ports").MaxItems = v3.MaxStagedEntries
		s.at(direction, "[]", peers).MaxItems = v3.MaxStagedEntries
	}
}

func kubernetesPort(s *Schema) {
	only(s.at("protocol"), "TCP", "UDP", "SCTP")
	p := s.at("port")
	p.between(1, math.MaxUint16)
	p.Pattern = whole(`(` + number16 + `|` + portText + `)`)
	p.most(15)
	notText(p, `^0+$`)
	s.at("endPort").between(1, math.MaxUint16)
	s.ruleAt(".endPort", "!has(self.endPort) || has(self.port) && type(self.port) == int && self.endPort >= self.port", "needs port to be a number, and not to be less")
}

func kubernetesPeer(s *Schema) {
	s.at("ipBlock").require("cidr")
	prefix(s.at("ipBlock", "cidr"))
	prefix(s.at("ipBlock", "except", "[]"))
	s.rule("has(self.ipBlock) || has(self.podSelector) || has(self.namespaceSelector)", "must have podSelector, namespaceSelector or ipBlock")
	s.ruleAt(".ipBlock", "!has(self.ipBlock) || !has(self.podSelector) && !has(self.namespaceSelector)", "must be left out with podSelector or namespaceSelector")
}

func labelSelector(s *Schema) {
	s.MapType = "atomic"
	s.at("matchLabels").AdditionalProperties.Pattern = whole(labelValue)
}

func labelRequirement(s *Schema) {
	s.require("key", "operator")
	s.at("key").Pattern = whole(labelKey)
	only(s.at("operator"), "In", "NotIn", "Exists", "DoesNotExist")
	s.at("values", "[]").Pattern = whole(labelValue)
	s.ruleAt(".values", "(self.operator == 'In' || self.operator == 'NotIn') == (has(self.values) && self.values.size() > 0)",
		"must be there for In and NotIn, and left out for Exists and DoesNotExist")
}
