package crd

import (
	"math"
	"strconv"

	v3 "github.com/weft-net/weft/api/v3"
)

// decimal is a number as CEL writes one with a fraction.
func decimal(f float64) string {
	return strconv.FormatFloat(f, 'f', 1, 64)
}

// bgpConfiguration: settings of the whole cluster stand in default alone.
func bgpConfiguration(s *Schema) {
	for _, field := range []string{"nodeToNodeMeshEnabled", "asNumber"} {
		s.ruleAt(".spec."+field, "self.metadata.name == 'default' || !has(self.spec."+field+")", "must be set on the configuration named default only")
	}
	for _, field := range []string{"serviceLoadBalancerIPs", "serviceExternalIPs", "serviceClusterIPs"} {
		s.ruleAt(".spec."+field, "self.metadata.name == 'default' || !has(self.spec."+field+") || self.spec."+field+".size() == 0",
			"must be set on the configuration named default only")
	}
}

func bgpConfigurationSpec(s *Schema) {
	logLevel(s.at("logSeverityScreen"))
	s.at("logSeverityScreen").Default = "Info"
	switched(s.at("serviceLoadBalancerAggregation"))
	s.at("serviceLoadBalancerAggregation").Default = "Enabled"
	asNumber(s.at("asNumber"), math.MaxInt32)
	for _, field := range []string{"serviceLoadBalancerIPs", "serviceExternalIPs", "serviceClusterIPs"} {
		s.at(field).MaxItems = v3.MaxServiceBlocks
		block := s.at(field, "[]")
		block.require("cidr")
		masked(block.at("cidr"))
	}
	s.at("communities").MaxItems = 500
	named := s.at("communities", "[]")
	named.require("name", "value")
	named.at("name").MinLength = 1
	named.at("name").most(v3.MaxCommunityName)
	named.at("value").Pattern = whole(community)
	s.at("prefixAdvertisements").MaxItems = 500
	advertised := s.at("prefixAdvertisements", "[]")
	advertised.require("cidr")
	masked(advertised.at("cidr"))
	advertised.at("communities").MaxItems = 50
	attached := advertised.at("communities", "[]")
	attached.most(v3.MaxCommunityName)
	attached.AnyOf = []*Schema{{Pattern: whole(community)}, {Not: &Schema{Pattern: `^[0-9]+(:[0-9]+){1,2}$`}}}
	s.ruleAt(".prefixAdvertisements", "has(self.communities) || !has(self.prefixAdvertisements) || self.prefixAdvertisements.all(a, !has(a.communities) || a.communities.all(c, c.contains(':')))",
		"must have communities that are values, or names from spec.communities")
	words(s.at("bindMode"), "None", "NodeIP")
	interfaces := s.at("ignoredInterfaces", "[]")
	interfaces.Pattern = `^\**[a-zA-Z0-9._-][a-zA-Z0-9._*-]*$`
	interfaces.most(15)
	address(s.at("localWorkloadPeeringIPV4"), "ipv4", "none")
	address(s.at("localWorkloadPeeringIPV6"), "ipv6", "none")
	words(s.at("programClusterRoutes"), "Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")
	s.at("ipv4NormalRoutePriority").between(1, greatestPriority)
	s.at("ipv6NormalRoutePriority").between(1, greatestPriority)
	restartTime(s.at("nodeMeshMaxRestartTime"))
	const mesh = "!has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled || "
	for _, field := range []string{"nodeMeshPassword", "nodeMeshMaxRestartTime"} {
		s.ruleAt("."+field, mesh+"!has(self."+field+")", "must not be set while nodeToNodeMeshEnabled is false")
	}
}

// restartTime is carried by BGP in 12 bits of seconds (RFC 4724).
func restartTime(s *Schema) { s.rule("duration(self) <= duration('4095s')", "must be at most 4095s") }

func bgpPeer(s *Schema) {
	for _, field := range []string{"nodeSelector", "peerSelector", "localWorkloadSelector"} {
		sel(s.at(field))
	}
	peerIP := s.at("peerIP")
	peerIP.most(100)
	peerIP.rule("self == '' || self.matches('"+whole(celText(ipv4Text+`(:`+number16+`)?`))+"') && !self.matches(':0+$')"+
		" || isIP(self.split('%')[0]) && ip(self.split('%')[0]).family() == 6"+
		" || self.matches('"+whole(celText(`\[[^\]]*:[^\]]*\]:`+number16))+"') && !self.matches(':0+$') && isIP(self.substring(1).split(']')[0].split('%')[0])",
		`must be an address, with a port as "192.0.2.1:1790" or "[2001:db8::1]:1790"`)
	asNumber(s.at("asNumber"), math.MaxInt32)
	asNumber(s.at("localASNumber"), math.MaxInt32)
	words(s.at("sourceAddress"), "UseNodeIP", "None")
	words(s.at("nextHopMode"), "Auto", "Self", "Keep")
	words(s.at("reversePeering"), "Auto", "Manual")
	restartTime(s.at("maxRestartTime"))
	s.at("numAllowedLocalASNumbers").between(0, math.MaxInt32)
	name(s.at("filters", "[]"))

	given := func(field string) string { return "(has(self." + field + ") && self." + field + " != '')" }
	const numbered = "(has(self.asNumber) && self.asNumber != 0 && self.asNumber != '0')"
	s.ruleAt(".node", "!"+given("node")+" || !"+given("nodeSelector"), "must be empty with nodeSelector")
	s.ruleAt(".peerIP", "!"+given("peerIP")+" || !"+given("peerSelector"), "must be empty with peerSelector")
	s.ruleAt(".peerIP", "!"+given("peerIP")+" || !"+given("localWorkloadSelector"), "must be empty with localWorkloadSelector")
	s.ruleAt(".peerSelector", "!"+given("peerSelector")+" || !"+given("localWorkloadSelector"), "must be empty with localWorkloadSelector")
	s.ruleAt(".asNumber", "!"+given("peerSelector")+" || !"+numbered, "must be left out with peerSelector: the nodes have theirs")
	s.ruleAt(".asNumber", "!"+given("localWorkloadSelector")+" || "+numbered, "must be set with localWorkloadSelector")
	s.ruleAt(".keepOriginalNextHop", "!has(self.keepOriginalNextHop) || !self.keepOriginalNextHop || !has(self.nextHopMode)", "must be left out with nextHopMode, which replaces it")
	address(s.at("reachableBy"), "ipv4", "ipv6", "none")
	s.ruleAt(".reachableBy", "!"+given("reachableBy")+" || "+given("peerIP"), "must be empty without peerIP")
	s.ruleAt(".reachableBy", "!"+given("reachableBy")+" || !"+given("peerIP")+" || self.reachableBy.contains(':') == self.peerIP.matches('^\\\\[|:.*:')", "must be of the family of peerIP")
}

// celText is a pattern as it stands between the quotes of a string in CEL.
func celText(pattern string) string {
	var b []byte
	for i := range len(pattern) {
		if pattern[i] == '\\' || pattern[i] == '\'' {
			b = append(b, '\\')
		}
		b = append(b, pattern[i])
	}
	return string(b)
}

func bgpFilter(s *Schema) {
	for _, list := range []struct {
		field string
		v6    bool
		most  int64
		not   string
	}{
		{"exportV4", false, 32, "must be IPv4 in this list"},
		{"importV4", false, 32, "must be IPv4 in this list"},
		{"exportV6", true, 128, "must be IPv6 in this list"},
		{"importV6", true, 128, "must be IPv6 in this list"},
	} {
		s.at(list.field).MaxItems = v3.MaxFilterRules
		rule := s.at(list.field, "[]")
		rule.at("prefixLength", "min").between(0, list.most)
		rule.at("prefixLength", "max").between(0, list.most)
		holds := "self == '' || !self.contains(':')"
		if list.v6 {
			holds = "self == '' || self.contains(':')"
		}
		rule.at("cidr").rule(holds, list.not)
	}
}

func bgpFilterRule(s *Schema) {
	s.require("action")
	optionalMasked(s.at("cidr"))
	only(s.at("action"), "Accept", "Reject")
	words(s.at("matchOperator"), "Equal", "NotEqual", "In", "NotIn")
	words(s.at("source"), "RemotePeers")
	words(s.at("peerType"), "eBGP", "iBGP")
	s.at("interface").Pattern = `^[a-zA-Z0-9._*-]{0,15}$`
	communities := s.at("communities")
	communities.require("values")
	communities.at("values").MinItems, communities.at("values").MaxItems = 1, 1
	communities.at("values", "[]").Pattern = whole(community)
	s.at("priority").between(1, greatestPriority)
	s.at("operations").MaxItems = 10
	const prefixed, compared = "(has(self.cidr) && self.cidr != '')", "(has(self.matchOperator) && self.matchOperator != '')"
	s.ruleAt(".cidr", "!"+compared+" || "+prefixed, "must be set with matchOperator")
	s.ruleAt(".cidr", "!has(self.prefixLength) || "+prefixed, "must be set with prefixLength")
	s.ruleAt(".matchOperator", "!"+prefixed+" || "+compared, "must be set with cidr")
	s.ruleAt(".operations", "self.action != 'Reject' || !has(self.operations) || self.operations.size() == 0", "must be left out unless the action is Accept")
}

func bgpFilterOperation(s *Schema) {
	s.MinProperties, s.MaxProperties = 1, 1
	s.at("addCommunity").require("value")
	s.at("addCommunity", "value").Pattern = whole(community)
	s.at("prependASPath").require("prefix")
	s.at("prependASPath", "prefix").MinItems, s.at("prependASPath", "prefix").MaxItems = 1, 10
	s.at("setPriority").require("value")
	s.at("setPriority", "value").between(1, greatestPriority)
}
