package v3

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (c *checker) bgpConfiguration(o *BGPConfiguration) {
	s := &o.Spec
	if o.Name != "default" {
		c.defaultOnly(s)
	}
	c.logLevel("spec.logSeverityScreen", s.LogSeverityScreen)
	c.asNumber("spec.asNumber", s.ASNumber)
	c.serviceBlocks("spec.serviceLoadBalancerIPs", s.ServiceLoadBalancerIPs)
	c.serviceBlocks("spec.serviceExternalIPs", s.ServiceExternalIPs)
	c.serviceBlocks("spec.serviceClusterIPs", s.ServiceClusterIPs)
	c.oneOf("spec.serviceLoadBalancerAggregation", s.ServiceLoadBalancerAggregation, "Enabled", "Disabled")
	c.communities(s)
	if s.NodeToNodeMeshEnabled != nil && !*s.NodeToNodeMeshEnabled {
		if s.NodeMeshPassword != nil {
			c.fail("spec.nodeMeshPassword", nil, "must not be set while nodeToNodeMeshEnabled is false")
		}
		if s.NodeMeshMaxRestartTime != nil {
			c.fail("spec.nodeMeshMaxRestartTime", nil, "must not be set while nodeToNodeMeshEnabled is false")
		}
	}
	c.restartTime("spec.nodeMeshMaxRestartTime", s.NodeMeshMaxRestartTime)
	c.oneOf("spec.bindMode", optional(s.BindMode), "None", "NodeIP")
	for i, name := range s.IgnoredInterfaces {
		c.interfacePattern(index("spec.ignoredInterfaces", i), name)
	}
	c.addr("spec.localWorkloadPeeringIPV4", s.LocalWorkloadPeeringIPV4, ipv4)
	c.addr("spec.localWorkloadPeeringIPV6", s.LocalWorkloadPeeringIPV6, ipv6)
	c.programClusterRoutes(optional(s.ProgramClusterRoutes))
	c.number("spec.ipv4NormalRoutePriority", s.IPv4NormalRoutePriority, 1, math.MaxInt32-1)
	c.number("spec.ipv6NormalRoutePriority", s.IPv6NormalRoutePriority, 1, math.MaxInt32-1)
}

// defaultOnly refuses what is a setting of the whole cluster.
func (c *checker) defaultOnly(s *BGPConfigurationSpec) {
	for _, f := range []struct {
		field string
		set   bool
	}{
		{"spec.nodeToNodeMeshEnabled", s.NodeToNodeMeshEnabled != nil},
		{"spec.asNumber", s.ASNumber != nil},
		{"spec.serviceLoadBalancerIPs", len(s.ServiceLoadBalancerIPs) > 0},
		{"spec.serviceExternalIPs", len(s.ServiceExternalIPs) > 0},
		{"spec.serviceClusterIPs", len(s.ServiceClusterIPs) > 0},
	} {
		if f.set {
			c.fail(f.field, nil, "must be set on the configuration named default only")
		}
	}
}

func (c *checker) logLevel(field, level string) {
	c.oneOfFold(field, level, "Trace", "Debug", "Info", "Warning", "Error", "Fatal")
}

func (c *checker) programClusterRoutes(value string) {
	c.oneOf("spec.programClusterRoutes", value, "Enabled", "Disabled", "EnabledIPIPOnly", "EnabledNoEncapOnly")
}

// asNumber keeps to 31 bits, which is all that Calico's resource definition holds.
func (c *checker) asNumber(field string, n *ASNumber) {
	if n != nil && *n > math.MaxInt32 {
		c.fail(field, uint32(*n), "must be at most 2147483647 here; a Node may have a greater one")
	}
}

// restartTime checks a time that BGP carries in 12 bits of seconds (RFC 4724).
func (c *checker) restartTime(field string, d *metav1.Duration) {
	if d != nil && (d.Duration < 0 || d.Seconds() > 4095) {
		c.fail(field, d.Duration, "must be 0s to 4095s")
	}
}

func (c *checker) serviceBlocks(field string, blocks []ServiceBlock) {
	c.atMost(field, len(blocks), MaxServiceBlocks)
	for i, b := range blocks {
		c.masked(index(field, i)+".cidr", b.CIDR)
	}
}

func (c *checker) communities(s *BGPConfigurationSpec) {
	for _, list := range []struct {
		field string
		n     int
	}{{"spec.communities", len(s.Communities)}, {"spec.prefixAdvertisements", len(s.PrefixAdvertisements)}} {
		if list.n > 500 {
			c.fail(list.field, nil, fmt.Sprintf("has %d entries: must be at most 500", list.n))
		}
	}
	for i, named := range s.Communities {
		if named.Name == "" {
			c.fail(index("spec.communities", i)+".name", nil, "must be set")
		} else if utf8.RuneCountInString(named.Name) > MaxCommunityName {
			c.fail(index("spec.communities", i)+".name", named.Name, fmt.Sprintf("must have at most %d characters", MaxCommunityName))
		}
		if reason := communityFault(named.Value); reason != "" {
			c.fail(index("spec.communities", i)+".value", named.Value, reason)
		}
	}
	for i, a := range s.PrefixAdvertisements {
		field := index("spec.prefixAdvertisements", i)
		c.masked(field+".cidr", a.CIDR)
		if len(a.Communities) > 50 {
			c.fail(field+".communities", nil, fmt.Sprintf("has %d entries: must be at most 50", len(a.Communities)))
		}
		for j, text := range a.Communities {
			isName := slices.ContainsFunc(s.Communities, func(n Community) bool { return n.Name == text })
			if reason := communityFault(text); reason != "" && !isName {
				c.fail(index(field+".communities", j), text, reason+`, or a name from spec.communities`)
			}
		}
	}
}

// communityFault says what is wrong with a community's value: "aa:nn" has two
// numbers of 16 bits (RFC 1997), "aa:nn:mm" three of 32 (RFC 8092).
func communityFault(value string) string {
	parts := strings.Split(value, ":")
	bits := map[int]int{2: 16, 3: 32}[len(parts)]
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, max(bits, 1)); err != nil || bits == 0 {
			return `must be "aa:nn" with 0 to 65535 each or "aa:nn:mm" with 0 to 4294967295 each`
		}
	}
	return ""
}

// interfacePattern checks a name in which * stands for any text.
func (c *checker) interfacePattern(field, name string) {
	if strings.Trim(name, "*") == "" || len(name) > 15 || !consistsOf(name, "._-*") {
		c.fail(field, name, "must be 1 to 15 letters, digits, '.', '_', '-' and '*', and more than '*'")
	}
}

func (c *checker) bgpPeer(s *BGPPeerSpec) {
	c.selector("spec.nodeSelector", s.NodeSelector)
	c.selector("spec.peerSelector", s.PeerSelector)
	c.selector("spec.localWorkloadSelector", s.LocalWorkloadSelector)
	c.peerTarget(s)
	c.asNumber("spec.asNumber", &s.ASNumber)
	c.asNumber("spec.localASNumber", s.LocalASNumber)
	if s.Node != "" && s.NodeSelector != "" {
		c.fail("spec.node", s.Node, "must be empty with nodeSelector")
	}
	if s.KeepOriginalNextHop && s.NextHopMode != nil {
		c.fail("spec.keepOriginalNextHop", true, "must be left out with nextHopMode, which replaces it")
	}
	c.oneOf("spec.sourceAddress", optional(s.SourceAddress), "UseNodeIP", "None")
	c.oneOf("spec.nextHopMode", optional(s.NextHopMode), "Auto", "Self", "Keep")
	c.oneOf("spec.reversePeering", optional(s.ReversePeering), "Auto", "Manual")
	c.restartTime("spec.maxRestartTime", s.MaxRestartTime)
	if k := s.KeepaliveTime; k != nil && k.Duration < 0 {
		c.fail("spec.keepaliveTime", k.Duration, "must not be negative")
	}
	if n := s.NumAllowedLocalASNumbers; n != nil && *n < 0 {
		c.fail("spec.numAllowedLocalASNumbers", *n, "must not be negative")
	}
	for i, name := range s.Filters {
		if !isDNSSubdomain(name) {
			c.fail(index("spec.filters", i), name, "must be the name of a BGPFilter: lower-case letters, digits, inner dashes and dots")
		}
	}
}

// peerTarget checks whom the session is with.
func (c *checker) peerTarget(s *BGPPeerSpec) {
	var peer netip.AddrPort
	if s.PeerIP != "" {
		var err error
		if peer, err = ParsePeerIP(s.PeerIP); err != nil {
			c.fail("spec.peerIP", s.PeerIP, `must be an address, with a port as "192.0.2.1:1790" or "[2001:db8::1]:1790"`)
		}
	}
	if s.PeerSelector != "" && s.PeerIP != "" {
		c.fail("spec.peerIP", s.PeerIP, "must be empty with peerSelector")
	}
	if s.PeerSelector != "" && s.ASNumber != 0 {
		c.fail("spec.asNumber", uint32(s.ASNumber), "must be left out with peerSelector: the nodes have theirs")
	}
	if s.LocalWorkloadSelector != "" {
		if s.PeerIP != "" {
			c.fail("spec.peerIP", s.PeerIP, "must be empty with localWorkloadSelector")
		}
		if s.PeerSelector != "" {
			c.fail("spec.peerSelector", s.PeerSelector, "must be empty with localWorkloadSelector")
		}
		if s.ASNumber == 0 {
			c.fail("spec.asNumber", nil, "must be set with localWorkloadSelector")
		}
	}
	switch {
	case s.ReachableBy == "":
	case s.PeerIP == "":
		c.fail("spec.reachableBy", s.ReachableBy, "must be empty without peerIP")
	case peer.IsValid():
		c.addr("spec.reachableBy", s.ReachableBy, familyOf(peer.Addr()))
	}
}

// ParsePeerIP reads an address with or without a port; port 0 means none was given.
// Text of colons without brackets is an IPv6 address, whatever its end looks like.
func ParsePeerIP(text string) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(text); err == nil && !addr.Is4In6() {
		return netip.AddrPortFrom(addr, 0), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 || ap.Addr().Is4In6() {
		return netip.AddrPort{}, fmt.Errorf("peer address: %q: must be an address, with a port 1 to 65535 as \"192.0.2.1:1790\" or \"[2001:db8::1]:1790\"", text)
	}
	return ap, nil
}
