package v3

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Patterns of settings with a syntax of their own.
var (
	featureOverrides = regexp.MustCompile(`^([a-zA-Z0-9_-]+=(true|false)?(,|$))*$`)
	featureGates     = regexp.MustCompile(`^([a-zA-Z0-9_-]+=[^=,]+(,|$))*$`)
	timeoutOrAuto    = regexp.MustCompile(`^(Auto|([0-9]*(\.[0-9]*)?(us|ms|s|m|h))+)$`)
)

func (c *checker) felix(o *FelixConfiguration) {
	s := &o.Spec
	if s.NodeSelector != "" && (o.Name == "default" || strings.HasPrefix(o.Name, "node.")) {
		c.fail("spec.nodeSelector", s.NodeSelector, "must be empty on the configurations default and node.NAME")
	}
	c.selector("spec.nodeSelector", s.NodeSelector)
	c.felixWords(s)
	c.felixNumbers(s)
	c.felixDurations(s)
	c.felixAddresses(s)
	c.felixRanges(s)
	c.felixTexts(s)
}

// felixWords checks the settings that are one of a few words.
func (c *checker) felixWords(s *FelixConfigurationSpec) {
	v := reflect.ValueOf(s).Elem()
	for _, w := range FelixWords() {
		check := c.oneOf
		if w.AnyCase {
			check = c.oneOfFold
		}
		check("spec."+w.Field, fieldByName(v, w.Field).String(), w.Allowed...)
	}
}

// felixNumbers checks the settings that are numbers within a range.
func (c *checker) felixNumbers(s *FelixConfigurationSpec) {
	v := reflect.ValueOf(s).Elem()
	for _, r := range FelixRanges() {
		c.number("spec."+r.Field, fieldByName(v, r.Field).Interface().(*int), r.Low, r.High)
	}
	c.markMask("spec.iptablesMarkMask", s.IptablesMarkMask)
	c.markMask("spec.nftablesMarkMask", s.NftablesMarkMask)
}

// fieldByName finds the field of a struct that has this name in JSON.
func fieldByName(v reflect.Value, name string) reflect.Value {
	i := slices.IndexFunc(jsonFields(v.Type()), func(f jsonField) bool { return f.name == name })
	return v.Field(i)
}

func (c *checker) markMask(field string, mask *int64) {
	if mask != nil && (*mask < 0 || *mask > math.MaxUint32) {
		c.fail(field, *mask, "must be 0 to 0xffffffff")
	}
}

// felixDurations refuses negative durations, of which there are many fields.
func (c *checker) felixDurations(s *FelixConfigurationSpec) {
	v := reflect.ValueOf(s).Elem()
	for i, f := range jsonFields(v.Type()) {
		if d, ok := v.Field(i).Interface().(*metav1.Duration); ok && d != nil && d.Duration < 0 {
			c.fail("spec."+f.name, d.Duration, "must not be negative")
		}
	}
	for i, h := range s.HealthTimeoutOverrides {
		if h.Timeout.Duration < 0 {
			c.fail(index("spec.healthTimeoutOverrides", i)+".timeout", h.Timeout.Duration, "must not be negative")
		}
	}
	if t := s.BPFConntrackTimeouts; t != nil {
		v := reflect.ValueOf(t).Elem()
		for i, f := range jsonFields(v.Type()) {
			if text := v.Field(i).String(); text != "" && !timeoutOrAuto.MatchString(text) {
				c.fail("spec.bpfConntrackTimeouts."+f.name, text, `must be Auto or a duration such as "90s"`)
			}
		}
	}
}

func (c *checker) felixAddresses(s *FelixConfigurationSpec) {
	c.addr("spec.natOutgoingAddress", s.NATOutgoingAddress, ipv4)
	c.addr("spec.deviceRouteSourceAddress", s.DeviceRouteSourceAddress, ipv4)
	c.addr("spec.deviceRouteSourceAddressIPv6", s.DeviceRouteSourceAddressIPv6, ipv6)
	for i, text := range s.ExternalNodesCIDRList {
		if p, ok := addrOrPrefix(text); !ok || !p.Addr().Is4() {
			c.fail(index("spec.externalNodesList", i), text, "must be an IPv4 prefix or address")
		}
	}
	c.prefixes("spec.bpfDSROptoutCIDRs", s.BPFDSROptoutCIDRs)
	c.prefixes("spec.bpfExcludeCIDRsFromNAT", s.BPFExcludeCIDRsFromNAT)
	c.failsafePorts("spec.failsafeInboundHostPorts", s.FailsafeInboundHostPorts)
	c.failsafePorts("spec.failsafeOutboundHostPorts", s.FailsafeOutboundHostPorts)
}

func (c *checker) prefixes(field string, texts []string) {
	for i, text := range texts {
		c.prefix(index(field, i), text)
	}
}

func (c *checker) failsafePorts(field string, ports []ProtoPort) {
	for i, p := range ports {
		c.oneOfFold(index(field, i)+".protocol", p.Protocol, "tcp", "udp", "sctp")
		if p.Net != "" {
			c.prefix(index(field, i)+".net", p.Net)
		}
	}
}

func (c *checker) felixRanges(s *FelixConfigurationSpec) {
	if s.RouteTableRange != nil && s.RouteTableRanges != nil {
		c.fail("spec.routeTableRange", nil, "must be left out with routeTableRanges, which replaces it")
	}
	if r := s.RouteTableRange; r != nil && (r.Min < 1 || r.Max < r.Min || r.Max > 250) {
		c.fail("spec.routeTableRange", fmt.Sprintf("%d to %d", r.Min, r.Max), "must be a range within 1 to 250")
	}
	for i, r := range s.RouteTableRanges {
		if r.Min < 1 || r.Max < r.Min || r.Max > math.MaxUint32 {
			c.fail(index("spec.routeTableRanges", i), fmt.Sprintf("%d to %d", r.Min, r.Max), "must be a range within 1 to 4294967295")
		}
	}
	if len(s.KubeNodePortRanges) > 7 {
		c.fail("spec.kubeNodePortRanges", nil, fmt.Sprintf("has %d entries: must be at most 7", len(s.KubeNodePortRanges)))
	}
	for i, p := range s.KubeNodePortRanges {
		c.portRange(index("spec.kubeNodePortRanges", i), &p)
	}
	c.portRange("spec.natPortRange", s.NATPortRange)
	c.portRange("spec.bpfPSNATPorts", s.BPFPSNATPorts)
}

func (c *checker) portRange(field string, p *Port) {
	if p != nil && (p.Name != "" || p.Min == 0) {
		c.fail(field, p.String(), `must be a port or a range such as "30000:32767", 1 to 65535`)
	}
}

func (c *checker) felixTexts(s *FelixConfigurationSpec) {
	for _, f := range []struct {
		field, value string
		ok           bool
		reason       string
	}{
		{"featureDetectOverride", s.FeatureDetectOverride, featureOverrides.MatchString(s.FeatureDetectOverride), `must be "name=true", "name=false" or "name=", separated by commas`},
		{"featureGates", s.FeatureGates, featureGates.MatchString(s.FeatureGates), `must be "name=value", separated by commas`},
		{"logPrefix", s.LogPrefix, consistsOf(s.LogPrefix, "%: /_-"), "must be letters, digits, '%', ':', ' ', '/', '_' and '-'"},
		{"openstackRegion", s.OpenstackRegion, len(s.OpenstackRegion) <= 46 && isDNSLabel(s.OpenstackRegion), "must be at most 46 lower-case letters, digits and inner dashes"},
		{"prometheusMetricsHost", s.PrometheusMetricsHost, isHost(s.PrometheusMetricsHost), "must be an address or a host name"},
		{"wireguardInterfaceName", s.WireguardInterfaceName, isInterfaceName(s.WireguardInterfaceName), "must be 1 to 15 letters, digits, '.', '_' and '-'"},
		{"wireguardInterfaceNameV6", s.WireguardInterfaceNameV6, isInterfaceName(s.WireguardInterfaceNameV6), "must be 1 to 15 letters, digits, '.', '_' and '-'"},
	} {
		if f.value != "" && !f.ok {
			c.fail("spec."+f.field, f.value, f.reason)
		}
	}
	if _, _, err := ParseRate(s.LogActionRateLimit); s.LogActionRateLimit != "" && err != nil {
		c.fail("spec.logActionRateLimit", s.LogActionRateLimit, rateForm)
	}
	for _, f := range []struct{ field, value string }{
		{"bpfDataIfacePattern", s.BPFDataIfacePattern},
		{"bpfDisableGROForIfaces", s.BPFDisableGROForIfaces},
		{"bpfL3IfacePattern", s.BPFL3IfacePattern},
		{"logDebugFilenameRegex", s.LogDebugFilenameRegex},
		{"mtuIfacePattern", s.MTUIfacePattern},
	} {
		if _, err := regexp.Compile(f.value); err != nil {
			c.fail("spec."+f.field, f.value, "must be a regular expression of Go: "+err.Error())
		}
	}
}

func isHost(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && isPlain(a) || isDNSSubdomain(strings.ToLower(s))
}
