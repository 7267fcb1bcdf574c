package crd

import (
	"math"

	v3 "github.com/weft-net/weft/api/v3"
)

func felixConfiguration(s *Schema) {
	s.ruleAt(".spec.nodeSelector", "!has(self.spec.nodeSelector) || self.spec.nodeSelector == '' || self.metadata.name != 'default' && !self.metadata.name.startsWith('node.')",
		"must be empty on the configurations default and node.NAME")
}

func felix(s *Schema) {
	for _, w := range v3.FelixWords() {
		if w.AnyCase {
			wordsAnyCase(s.at(w.Field), w.Allowed...)
		} else {
			words(s.at(w.Field), w.Allowed...)
		}
	}
	for _, r := range v3.FelixRanges() {
		s.at(r.Field).between(int64(r.Low), int64(r.High))
	}
	maskOfMark(s.at("iptablesMarkMask"))
	maskOfMark(s.at("nftablesMarkMask"))
	sel(s.at("nodeSelector"))
	felixDefaults(s)
	felixAddresses(s)
	felixTexts(s)
	felixPorts(s)
}

// felixDefaults: those that [v3.Default] fills in whatever else is given.
func felixDefaults(s *Schema) {
	s.at("bpfLogLevel").Default = ""
	s.at("nftablesMode").Default = "Auto"
	s.at("nftablesFlowTableOffload").Default = "Disabled"
	s.at("floatingIPs").Default = "Disabled"
}

func felixAddresses(s *Schema) {
	address(s.at("natOutgoingAddress"), "ipv4", "none")
	address(s.at("deviceRouteSourceAddress"), "ipv4", "none")
	address(s.at("deviceRouteSourceAddressIPv6"), "ipv6", "none")
	external := s.at("externalNodesList", "[]")
	external.AnyOf = []*Schema{{Pattern: whole(ipv4Text)}, {Pattern: whole(ipv4Prefix)}}
	prefix(s.at("bpfDSROptoutCIDRs", "[]"))
	prefix(s.at("bpfExcludeCIDRsFromNAT", "[]"))
	s.at("routeTableRange").rule("self.min >= 1 && self.max >= self.min && self.max <= 250", "must be a range within 1 to 250")
	s.at("routeTableRange").require("min", "max")
	ranges := s.at("routeTableRanges", "[]")
	ranges.require("min", "max")
	ranges.rule("self.min >= 1 && self.max >= self.min && self.max <= 4294967295", "must be a range within 1 to 4294967295")
	s.ruleAt(".routeTableRange", "!has(self.routeTableRange) || !has(self.routeTableRanges)", "must be left out with routeTableRanges, which replaces it")
	override := s.at("healthTimeoutOverrides", "[]")
	override.require("timeout")
}

func felixTexts(s *Schema) {
	for field, pattern := range map[string]string{
		"featureDetectOverride":    `([a-zA-Z0-9_-]+=(true|false)?(,|$))*`,
		"featureGates":             `([a-zA-Z0-9_-]+=[^=,]+(,|$))*`,
		"logPrefix":                `[a-zA-Z0-9%: /_-]*`,
		"openstackRegion":          `(` + label + `)?`,
		"wireguardInterfaceName":   `(` + interfaceText + `)?`,
		"wireguardInterfaceNameV6": `(` + interfaceText + `)?`,
		"logActionRateLimit":       `([1-9][0-9]{0,3}/(second|minute|hour|day))?`,
	} {
		s.at(field).Pattern = whole(pattern)
	}
	s.at("openstackRegion").most(46)
	host := s.at("prometheusMetricsHost")
	address(host, "ipv4", "ipv6", "none")
	host.AnyOf = append(host.AnyOf, &Schema{Pattern: "^(?i:" + subdomain + ")$"})
	host.most(253)
	for _, field := range []string{"bpfDataIfacePattern", "bpfDisableGROForIfaces", "bpfL3IfacePattern", "logDebugFilenameRegex", "mtuIfacePattern"} {
		regex(s.at(field))
	}
}

func conntrackTimeouts(s *Schema) {
	for _, p := range s.Properties {
		p.Pattern = `^(|Auto|([0-9]*(\.[0-9]*)?(us|ms|s|m|h))+)$`
	}
}

func felixPorts(s *Schema) {
	s.at("kubeNodePortRanges").MaxItems = 7
	portRange(s.at("kubeNodePortRanges", "[]"))
	portRange(s.at("natPortRange"))
	portRange(s.at("bpfPSNATPorts"))
}

// portRange is a port or a range of ports.
func portRange(s *Schema) {
	s.between(1, math.MaxUint16)
	s.Pattern = whole(number16 + `(:` + number16 + `)?`)
	notText(s, `^0+(:|$)`)
	s.rule("type(self) == int || [self.split(':')].all(p, p.size() < 2 || int(p[0]) <= int(p[1]))", `must be a port or a range such as "30000:32767", 1 to 65535`)
}

func protoPort(s *Schema) {
	s.require("port")
	wordsAnyCase(s.at("protocol"), "tcp", "udp", "sctp")
	prefix(s.at("net"))
	s.at("net").AnyOf = append(s.at("net").AnyOf, &Schema{MaxLength: new(int)})
}
