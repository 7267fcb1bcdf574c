package model

import (
	"net/netip"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

// featureChecksum is the name in featureDetectOverride of what TunnelConfig has as
// ChecksumBroken; Calico's other names are of kernels that weft does not run on.
const featureChecksum = "ChecksumOffloadBroken"

// DefaultTables are the kernel's routing tables that are ours where nothing else is set.
func DefaultTables() []TableRange { return []TableRange{{First: 1, Last: 250}} }

// parseTunnel reads what s says about encapsulation and encryption.
func parseTunnel(e *first, s *v3.FelixConfigurationSpec) TunnelConfig {
	t := TunnelConfig{
		IPIP: s.IPIPEnabled, VXLAN: s.VXLANEnabled,
		IPIPMTU: s.IPIPMTU, VXLANMTU: s.VXLANMTU, VXLANMTUV6: s.VXLANMTUV6,
		MTUPattern: s.MTUIfacePattern, RequireMTUFile: s.RequireMTUFile,
		ChecksumBroken: feature(s.FeatureDetectOverride, featureChecksum),
		Tables:         tables(s),

		WireGuard: s.WireguardEnabled, WireGuardV6: s.WireguardEnabledV6,
		WireGuardHosts: s.WireguardHostEncryptionEnabled,
		WireGuardPort:  wireGuardPort(e, "spec.wireguardListeningPort", s.WireguardListeningPort), WireGuardPortV6: wireGuardPort(e, "spec.wireguardListeningPortV6", s.WireguardListeningPortV6),
		WireGuardLink: s.WireguardInterfaceName, WireGuardLinkV6: s.WireguardInterfaceNameV6,
		WireGuardMTU: s.WireguardMTU, WireGuardMTUV6: s.WireguardMTUV6,
		WireGuardPriority: s.WireguardRoutingRulePriority,
		WireGuardThreaded: s.WireguardThreadingEnabled,
		WireGuardStrict:   isWord(e, "spec.wireguardCleartext", s.WireguardCleartext, "Drop", "Allow"),
	}
	if n := s.VXLANVNI; n != nil {
		t.VNI = number[uint32](e, "spec.vxlanVNI", *n, 1<<24-1)
	}
	if d := s.WireguardPersistentKeepAlive; d != nil {
		t.WireGuardKeepalive = &d.Duration
	}
	if s.ExternalNodesCIDRList != nil {
		t.ExternalNodes = []netip.Prefix{}
	}
	for i, text := range s.ExternalNodesCIDRList {
		if p := try1(e, nodeAddr, "spec.externalNodesList", i, text); p.IsValid() {
			t.ExternalNodes = append(t.ExternalNodes, p.Masked())
		}
	}
	return t
}

// wireGuardPort reads a UDP port. 0, with which WireGuard listens wherever it likes,
// means the default: the other nodes must know where.
func wireGuardPort(e *first, field string, n *int) *uint16 {
	if n == nil || *n == 0 {
		return nil
	}
	return number[uint16](e, field, *n, 65535)
}

// tables reads the routing tables that are ours; nil where nothing is said.
func tables(s *v3.FelixConfigurationSpec) []TableRange {
	ranges := s.RouteTableRanges
	if s.RouteTableRange != nil {
		ranges = []v3.RouteTableRange{*s.RouteTableRange}
	}
	var out []TableRange
	for _, r := range ranges {
		out = append(out, TableRange{uint32(r.Min), uint32(r.Max)})
	}
	return out
}

// feature is what the text of featureDetectOverride says of one feature; nil: nothing.
func feature(text, name string) *bool {
	var is *bool
	for item := range strings.SplitSeq(text, ",") {
		if key, value, _ := strings.Cut(strings.TrimSpace(item), "="); key == name && value != "" {
			on := value == "true"
			is = &on
		}
	}
	return is
}

// otherFeatures reports whether the text of featureDetectOverride sets a feature that
// weft does not ask for.
func otherFeatures(text string) bool {
	for item := range strings.SplitSeq(text, ",") {
		if key, _, _ := strings.Cut(strings.TrimSpace(item), "="); key != "" && key != featureChecksum {
			return true
		}
	}
	return false
}

// parseNAT reads what s says about packets that leave the cluster.
func parseNAT(e *first, s *v3.FelixConfigurationSpec) NATConfig {
	n := NATConfig{
		Addr:         try(e, addr, "spec.natOutgoingAddress", s.NATOutgoingAddress),
		ExcludeHosts: isWord(e, "spec.natOutgoingExclusions", s.NATOutgoingExclusions, "IPPoolsAndHostIPs", "IPPoolsOnly"),
		Link:         s.IptablesNATOutgoingInterfaceFilter,
		FloatingIPs:  enabled(e, "spec.floatingIPs", s.FloatingIPs),
	}
	if p := s.NATPortRange; p != nil {
		n.FirstPort, n.LastPort = p.Min, p.Max
	}
	if n.Link != "" && !isLinkPattern(n.Link) {
		e.fail(`spec.iptablesNATOutgoingInterfaceFilter: %q: must be an interface's name of 1 to 15 bytes, with "+" at its end for any ending`, n.Link)
	}
	return n
}

// isLinkPattern reports whether s can be the name of an interface, or the beginning of
// one with "+" behind it.
func isLinkPattern(s string) bool {
	name, open := strings.CutSuffix(s, "+")
	return (name != "" || open) && len(s) <= 15 && !strings.ContainsAny(name, "/ \t\n+\"") && name != "." && name != ".."
}

// Over is c with weaker where c says nothing.
func (c TunnelConfig) Over(weaker TunnelConfig) TunnelConfig {
	or(&c.IPIP, weaker.IPIP)
	or(&c.VXLAN, weaker.VXLAN)
	or(&c.IPIPMTU, weaker.IPIPMTU)
	or(&c.VXLANMTU, weaker.VXLANMTU)
	or(&c.VXLANMTUV6, weaker.VXLANMTUV6)
	or(&c.VNI, weaker.VNI)
	or(&c.MTUPattern, weaker.MTUPattern)
	or(&c.RequireMTUFile, weaker.RequireMTUFile)
	or(&c.ChecksumBroken, weaker.ChecksumBroken)
	if c.ExternalNodes == nil {
		c.ExternalNodes = weaker.ExternalNodes
	}
	if c.Tables == nil {
		c.Tables = weaker.Tables
	}
	or(&c.WireGuard, weaker.WireGuard)
	or(&c.WireGuardV6, weaker.WireGuardV6)
	or(&c.WireGuardHosts, weaker.WireGuardHosts)
	or(&c.WireGuardPort, weaker.WireGuardPort)
	or(&c.WireGuardPortV6, weaker.WireGuardPortV6)
	or(&c.WireGuardLink, weaker.WireGuardLink)
	or(&c.WireGuardLinkV6, weaker.WireGuardLinkV6)
	or(&c.WireGuardMTU, weaker.WireGuardMTU)
	or(&c.WireGuardMTUV6, weaker.WireGuardMTUV6)
	or(&c.WireGuardPriority, weaker.WireGuardPriority)
	or(&c.WireGuardKeepalive, weaker.WireGuardKeepalive)
	or(&c.WireGuardThreaded, weaker.WireGuardThreaded)
	or(&c.WireGuardStrict, weaker.WireGuardStrict)
	return c
}

// Over is c with weaker where c says nothing.
func (c NATConfig) Over(weaker NATConfig) NATConfig {
	if c.FirstPort == 0 && c.LastPort == 0 {
		c.FirstPort, c.LastPort = weaker.FirstPort, weaker.LastPort
	}
	or(&c.Addr, weaker.Addr)
	or(&c.ExcludeHosts, weaker.ExcludeHosts)
	or(&c.Link, weaker.Link)
	or(&c.FloatingIPs, weaker.FloatingIPs)
	return c
}

// or sets field to v unless it is set already.
func or[T comparable](field *T, v T) {
	var zero T
	if *field == zero {
		*field = v
	}
}

// enabled reads a word that is Enabled or Disabled, in any case; empty is Disabled.
func enabled(e *first, field, text string) bool {
	b := isWord(e, field, text, "Enabled", "Disabled")
	return b != nil && *b
}
