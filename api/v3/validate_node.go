package v3

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func (c *checker) node(o *Node) {
	s := &o.Spec
	if b := s.BGP; b != nil {
		if *b == (NodeBGPSpec{}) {
			c.fail("spec.bgp", nil, "must not be empty: leave it out for a node without BGP")
		}
		c.nodeAddr("spec.bgp.ipv4Address", b.IPv4Address, ipv4)
		c.nodeAddr("spec.bgp.ipv6Address", b.IPv6Address, ipv6)
		c.addr("spec.bgp.ipv4IPIPTunnelAddr", b.IPv4IPIPTunnelAddr, ipv4)
		c.addr("spec.bgp.routeReflectorClusterID", b.RouteReflectorClusterID, ipv4)
	}
	c.addr("spec.ipv4VXLANTunnelAddr", s.IPv4VXLANTunnelAddr, ipv4)
	c.addr("spec.ipv6VXLANTunnelAddr", s.IPv6VXLANTunnelAddr, ipv6)
	c.mac("spec.vxlanTunnelMACAddr", s.VXLANTunnelMACAddr)
	c.mac("spec.vxlanTunnelMACAddrV6", s.VXLANTunnelMACAddrV6)
	if w := s.Wireguard; w != nil {
		c.addr("spec.wireguard.interfaceIPv4Address", w.InterfaceIPv4Address, ipv4)
		c.addr("spec.wireguard.interfaceIPv6Address", w.InterfaceIPv6Address, ipv6)
	}
	c.wireguardKey("status.wireguardPublicKey", o.Status.WireguardPublicKey)
	c.wireguardKey("status.wireguardPublicKeyV6", o.Status.WireguardPublicKeyV6)
}

// nodeAddr checks an address with or without the length of its subnet.
func (c *checker) nodeAddr(field, text string, want family) {
	if text == "" {
		return
	}
	p, ok := addrOrPrefix(text)
	if !ok || familyOf(p.Addr())&want == 0 {
		c.fail(field, text, fmt.Sprintf("must be an %v address, with the length of its subnet where known", want))
	}
}

func (c *checker) wireguardKey(field, text string) {
	key, err := base64.StdEncoding.DecodeString(text)
	if text != "" && (err != nil || len(key) != 32) {
		c.fail(field, text, "must be 32 bytes in base64")
	}
}

func (c *checker) endpoint(o *WorkloadEndpoint) {
	s := &o.Spec
	c.endpointName(o)
	c.interfaceName("spec.interfaceName", s.InterfaceName)
	c.mac("spec.mac", s.MAC)
	c.addr("spec.ipv4Gateway", s.IPv4Gateway, ipv4)
	c.addr("spec.ipv6Gateway", s.IPv6Gateway, ipv6)
	var own []netip.Addr
	for i, text := range s.IPNetworks {
		p, ok := addrOrPrefix(text)
		switch {
		case !ok:
			c.fail(index("spec.ipNetworks", i), text, "must be an address, or one with /32 or /128")
		case !p.IsSingleIP():
			c.fail(index("spec.ipNetworks", i), text, fmt.Sprintf("must be a single address: /%d", p.Addr().BitLen()))
		default:
			own = append(own, p.Addr())
		}
	}
	for i, nat := range s.IPNATs {
		c.ipNAT(index("spec.ipNATs", i), nat, own)
	}
	for i, p := range s.Ports {
		c.endpointPort(index("spec.ports", i), p)
	}
	for i, text := range s.AllowSpoofedSourcePrefixes {
		if _, ok := addrOrPrefix(text); !ok {
			c.fail(index("spec.allowSpoofedSourcePrefixes", i), text, "must be a prefix or an address")
		}
	}
}

// endpointName checks the fields that the name is made of, and that it is.
func (c *checker) endpointName(o *WorkloadEndpoint) {
	ok := true
	for _, p := range EndpointIDOf(o).parts() {
		switch {
		case p.value == "":
			c.fail("spec."+p.field, nil, "must be set")
			ok = false
		case strings.HasPrefix(p.value, "-") || strings.HasSuffix(p.value, "-"):
			c.fail("spec."+p.field, p.value, "must not begin or end with a dash")
			ok = false
		}
	}
	if name, _ := WorkloadEndpointName(EndpointIDOf(o)); ok && name != o.Name {
		c.fail("metadata.name", o.Name, fmt.Sprintf("must be %q, which node, orchestrator, workload and endpoint give", name))
	}
}

func (c *checker) ipNAT(field string, nat IPNAT, own []netip.Addr) {
	internal, errInternal := netip.ParseAddr(nat.InternalIP)
	external, errExternal := netip.ParseAddr(nat.ExternalIP)
	switch {
	case errInternal != nil:
		c.fail(field+".internalIP", nat.InternalIP, "must be an address")
	case errExternal != nil:
		c.fail(field+".externalIP", nat.ExternalIP, "must be an address")
	case familyOf(internal) != familyOf(external):
		c.fail(field+".externalIP", nat.ExternalIP, fmt.Sprintf("must be %v like internalIP", familyOf(internal)))
	case !slices.Contains(own, internal):
		c.fail(field+".internalIP", nat.InternalIP, "must be one of the endpoint's ipNetworks")
	}
}

func (c *checker) endpointPort(field string, p WorkloadEndpointPort) {
	if !p.Protocol.hasPorts() {
		c.fail(field+".protocol", p.Protocol.String(), "must be TCP, UDP or SCTP")
	}
	if p.Name != "" || p.HostPort == 0 {
		c.portName(field+".name", p.Name)
	}
	if p.Port == 0 {
		c.fail(field+".port", p.Port, "must be 1 to 65535")
	}
	c.addr(field+".hostIP", p.HostIP, anyFamily)
}

// portName checks a name by the rules for names of services (RFC 6335).
func (c *checker) portName(field, name string) {
	if len(name) > 15 || !isDNSText(name) || isDigits(strings.ReplaceAll(name, "-", "")) || strings.Contains(name, "--") {
		c.fail(field, name, "must be 1 to 15 lower-case letters, digits and single inner dashes, with a letter")
	}
}

// hasPorts reports whether packets of the protocol have ports that rules can match.
func (p Protocol) hasPorts() bool {
	return slices.Contains([]string{"TCP", "UDP", "SCTP", "6", "17", "132"}, p.String())
}
