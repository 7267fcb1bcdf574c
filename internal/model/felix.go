package model

import (
	"reflect"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

func parseFelixConfig(o *v3.FelixConfiguration) (Value, error) {
	s := o.Spec
	c := FelixConfig{
		Name:                o.Name,
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
	for name := range strings.SplitSeq(s.InterfacePrefix, ",") {
		if name = strings.TrimSpace(name); name != "" {
			c.InterfacePrefixes = append(c.InterfacePrefixes, name)
		}
	}
	if s.RouteRefreshInterval != nil {
		c.RouteRefresh = &s.RouteRefreshInterval.Duration
	}
	var e first
	c.NodeSelector = try(&e, sel, "spec.nodeSelector", s.NodeSelector)
	c.DeviceRouteSource = try(&e, addr, "spec.deviceRouteSourceAddress", s.DeviceRouteSourceAddress)
	c.DeviceRouteSourceV6 = try(&e, addr, "spec.deviceRouteSourceAddressIPv6", s.DeviceRouteSourceAddressIPv6)
	return c, e.err
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
	case "usageReportingEnabled", "usageReportingInitialDelay", "usageReportingInterval":
		// Absent by design: weft never reports usage, whatever is set.
		return true
	}
	return false
}
