package model

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
)

func parseFelixConfig(o *v3.FelixConfiguration) (Value, error) {
	s := o.Spec
	c := FelixConfig{
		Name:                o.Name,
		InterfacePrefixes:   prefixList(s.InterfacePrefix),
		DeviceRouteProtocol: s.DeviceRouteProtocol,
		RemoveExternal:      s.RemoveExternalRoutes,
		IPv4Priority:        s.IPv4NormalRoutePriority,
		IPv6Priority:        s.IPv6NormalRoutePriority,
		GCThreshold:         s.GoGCThreshold,
		MaxProcs:            s.GoMaxProcs,
		MemoryLimitMB:       s.GoMemoryLimitMB,
		LogSeverity:         s.LogSeverityScreen,
		Unbuilt:             unbuilt(s),
	}
	if s.RouteRefreshInterval != nil {
		c.RouteRefresh = &s.RouteRefreshInterval.Duration
	}
	c.Pages = parsePages(&s)
	var e first
	c.NodeSelector = try(&e, sel, "spec.nodeSelector", s.NodeSelector)
	c.DeviceRouteSource = try(&e, addr, "spec.deviceRouteSourceAddress", s.DeviceRouteSourceAddress)
	c.DeviceRouteSourceV6 = try(&e, addr, "spec.deviceRouteSourceAddressIPv6", s.DeviceRouteSourceAddressIPv6)
	c.Filter = parseFilter(&e, &s)
	c.Tunnel = parseTunnel(&e, &s)
	c.NAT = parseNAT(&e, &s)
	return c, e.err
}

// parsePages reads what s says about the pages that tell how an agent is.
func parsePages(s *v3.FelixConfigurationSpec) PageConfig {
	p := PageConfig{
		Health: s.HealthEnabled, HealthHost: s.HealthHost, HealthPort: s.HealthPort,
		Metrics: s.PrometheusMetricsEnabled, MetricsHost: s.PrometheusMetricsHost, MetricsPort: s.PrometheusMetricsPort,
		GoMetrics: s.PrometheusGoMetricsEnabled, ProcessMetrics: s.PrometheusProcessMetricsEnabled,
		WireGuardMetrics: s.PrometheusWireGuardMetricsEnabled,
	}
	if s.DataplaneWatchdogTimeout != nil {
		p.Watchdog = &s.DataplaneWatchdogTimeout.Duration
	}
	return p
}

// prefixList splits a list of names by its commas.
func prefixList(text string) []string {
	var out []string
	for name := range strings.SplitSeq(text, ",") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// strictFelixConfig keeps which interfaces are workloads', since others are not
// policed, which ports stay open, and what is to be encrypted; the defaults of all else
// allow least. It is nil where it can't be said whose configuration it is.
func strictFelixConfig(o *v3.FelixConfiguration) Value {
	var whose, in, out first
	c := FelixConfig{
		Name: o.Name, InterfacePrefixes: prefixList(o.Spec.InterfacePrefix),
		NodeSelector: try(&whose, sel, "spec.nodeSelector", o.Spec.NodeSelector),
	}
	c.InterfacePrefixes = slices.DeleteFunc(c.InterfacePrefixes, func(p string) bool {
		return len(p) > 15 || strings.ContainsAny(p, "/*\" \t") // no interface has such a name
	})
	if list := failsafes(&in, "", o.Spec.FailsafeInboundHostPorts); in.err == nil {
		c.Filter.FailsafeIn = list
	}
	if list := failsafes(&out, "", o.Spec.FailsafeOutboundHostPorts); out.err == nil {
		c.Filter.FailsafeOut = list
	}
	if whose.err != nil {
		return nil
	}
	var encrypted first
	if t := parseTunnel(&encrypted, &o.Spec); encrypted.err == nil {
		c.Tunnel = t
	} else {
		c.Tunnel = TunnelConfig{WireGuard: t.WireGuard, WireGuardV6: t.WireGuardV6, WireGuardHosts: t.WireGuardHosts, WireGuardStrict: t.WireGuardStrict}
	}
	return c
}

// parseFilter reads what s says about the packet filter.
func parseFilter(e *first, s *v3.FelixConfigurationSpec) FilterConfig {
	f := FilterConfig{
		ToHost:      try(e, toHost, "spec.defaultEndpointToHostAction", s.DefaultEndpointToHostAction),
		FailsafeIn:  failsafes(e, "spec.failsafeInboundHostPorts", s.FailsafeInboundHostPorts),
		FailsafeOut: failsafes(e, "spec.failsafeOutboundHostPorts", s.FailsafeOutboundHostPorts),
		KeepInvalid: s.DisableConntrackInvalidCheck,
		AllowVXLAN:  s.AllowVXLANPacketsFromWorkloads, AllowIPIP: s.AllowIPIPPacketsFromWorkloads,
		Append:       isWord(e, "spec.chainInsertMode", s.ChainInsertMode, "Append", "Insert"),
		FilterReturn: isWord(e, "spec.nftablesFilterAllowAction", s.NftablesFilterAllowAction, "Return", "Accept"),
		MangleReturn: isWord(e, "spec.nftablesMangleAllowAction", s.NftablesMangleAllowAction, "Return", "Accept"),
		Reject:       isWord(e, "spec.nftablesFilterDenyAction", s.NftablesFilterDenyAction, "Reject", "Drop"),
		SpoofAny:     isWord(e, "spec.workloadSourceSpoofing", s.WorkloadSourceSpoofing, "Any", "Disabled"),
		KeepDenied:   isWord(e, "spec.deniedConnections", s.DeniedConnections, "Keep", "End"),
		LogDenied:    isWord(e, "spec.logDefaultDeny", s.LogDefaultDeny, "Enabled", "Disabled"),
		LogRate:      try(e, logRate, "spec.logActionRateLimit", s.LogActionRateLimit),
		IPv6:         s.IPv6Support, MaxSetSize: s.MaxIpsetSize,
	}
	if s.LogPrefix != "" {
		f.LogPrefix = &s.LogPrefix
	}
	if n := s.LogActionRateLimitBurst; n != nil {
		f.LogBurst = number[uint32](e, "spec.logActionRateLimitBurst", *n, 9999)
	}
	if n := s.VXLANPort; n != nil {
		f.VXLANPort = number[uint16](e, "spec.vxlanPort", *n, 65535)
	}
	if s.NftablesRefreshInterval != nil {
		f.Refresh = &s.NftablesRefreshInterval.Duration
	}
	return f
}

func toHost(field, text string) (*Action, error) {
	var a Action
	switch strings.ToLower(text) {
	case "":
		return nil, nil
	case "drop":
		a = Deny
	case "accept":
		a = Allow
	case "return":
		a = Pass
	default:
		return nil, fmt.Errorf("%s: %q: must be Drop, Accept or Return", field, text)
	}
	return &a, nil
}

// isWord reports whether text is yes rather than no, in any case; nil: it is empty.
func isWord(e *first, field, text, yes, no string) *bool {
	is := strings.EqualFold(text, yes)
	switch {
	case text == "":
		return nil
	case !is && !strings.EqualFold(text, no):
		e.fail("%s: %q: must be %s or %s", field, text, yes, no)
	}
	return &is
}

func number[T uint16 | uint32](e *first, field string, n, most int) *T {
	if n < 0 || n > most {
		e.fail("%s: %d: must be 0 to %d", field, n, most)
	}
	out := T(n)
	return &out
}

// logRate reads "10/minute"; empty is nil.
func logRate(field, text string) (*LogRate, error) {
	if text == "" {
		return nil, nil
	}
	count, unit, _ := strings.Cut(text, "/")
	per := map[string]time.Duration{
		"second": time.Second, "minute": time.Minute, "hour": time.Hour, "day": 24 * time.Hour,
	}[unit]
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil || n == 0 || per == 0 {
		return nil, fmt.Errorf("%s: %q: must be N/second, N/minute, N/hour or N/day", field, text)
	}
	return &LogRate{Packets: uint32(n), Per: per}, nil
}

// failsafes reads the ports that stay open; nil stays nil, and empty empty.
func failsafes(e *first, field string, ports []v3.ProtoPort) []Failsafe {
	if ports == nil {
		return nil
	}
	out := make([]Failsafe, len(ports))
	for i, p := range ports {
		f := Failsafe{Protocol: protocolTCP, Port: p.Port}
		if p.Protocol != "" {
			if f.Protocol = protocolNumber(v3.Protocol{Name: p.Protocol}); f.Protocol == 0 {
				e.fail("%s.protocol: %q: must be tcp, udp or sctp", at(field, i), p.Protocol)
			}
		}
		f.Net = try(e, nodeAddr, at(field, i)+".net", p.Net)
		if f.Net.IsValid() {
			f.Net = f.Net.Masked()
		}
		out[i] = f
	}
	return out
}

// unbuilt names the fields of s that somebody set and that weft keeps but does
// not act upon. A field is taken as set when it is not what [v3.Default] gives.
func unbuilt(s v3.FelixConfigurationSpec) []string {
	var d v3.FelixConfiguration
	v3.Default(&d)
	given, usual := reflect.ValueOf(s), reflect.ValueOf(d.Spec)
	var out []string
	for i := range given.NumField() {
		name, _, _ := strings.Cut(given.Type().Field(i).Tag.Get("json"), ",")
		if name == "featureDetectOverride" && !otherFeatures(s.FeatureDetectOverride) {
			continue
		}
		if !honoured(name) && !reflect.DeepEqual(given.Field(i).Interface(), usual.Field(i).Interface()) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// honoured reports whether weft acts upon a field of FelixConfiguration.
func honoured(field string) bool {
	switch field {
	case "nodeSelector", "interfacePrefix", "deviceRouteProtocol", "deviceRouteSourceAddress",
		"deviceRouteSourceAddressIPv6", "removeExternalRoutes", "goGCThreshold", "goMaxProcs", "goMemoryLimitMB",
		"ipv4NormalRoutePriority", "ipv6NormalRoutePriority", "routeRefreshInterval", "logSeverityScreen":
		return true
	case "healthEnabled", "healthHost", "healthPort", "dataplaneWatchdogTimeout",
		"prometheusMetricsEnabled", "prometheusMetricsHost", "prometheusMetricsPort",
		"prometheusGoMetricsEnabled", "prometheusProcessMetricsEnabled", "prometheusWireGuardMetricsEnabled":
		return true
	case "defaultEndpointToHostAction", "failsafeInboundHostPorts", "failsafeOutboundHostPorts",
		"disableConntrackInvalidCheck", "allowVXLANPacketsFromWorkloads", "allowIPIPPacketsFromWorkloads", "vxlanPort",
		"chainInsertMode", "nftablesFilterAllowAction", "nftablesFilterDenyAction", "nftablesMangleAllowAction",
		"workloadSourceSpoofing", "logPrefix", "logActionRateLimit", "logActionRateLimitBurst",
		"nftablesRefreshInterval", "ipv6Support", "maxIpsetSize", "deniedConnections", "logDefaultDeny":
		// nftablesMangleAllowAction: what a chain of nftables accepts, those of others see
		// all the same, so both of its values are what weft does.
		return true
	case "ipipEnabled", "vxlanEnabled", "ipipMTU", "vxlanMTU", "vxlanMTUV6", "vxlanVNI", "mtuIfacePattern", "requireMTUFile",
		"externalNodesList", "routeTableRange", "routeTableRanges",
		"wireguardEnabled", "wireguardEnabledV6", "wireguardHostEncryptionEnabled", "wireguardListeningPort",
		"wireguardListeningPortV6", "wireguardInterfaceName", "wireguardInterfaceNameV6", "wireguardMTU", "wireguardMTUV6",
		"wireguardRoutingRulePriority", "wireguardKeepAlive", "wireguardThreadingEnabled", "wireguardCleartext",
		"natPortRange", "natOutgoingAddress", "natOutgoingExclusions", "iptablesNATOutgoingInterfaceFilter", "floatingIPs":
		// programClusterRoutes is not among them: weft has one writer of routes, so there is
		// nothing to choose, and who sets it is told so.
		return true
	case "usageReportingEnabled", "usageReportingInitialDelay", "usageReportingInterval":
		// Absent by design: weft never reports usage, whatever is set.
		return true
	}
	return false
}
