package model

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
)

func parseNode(o *v3.Node) (Value, error) {
	n := Node{Name: o.Name, Labels: o.Labels}
	var e first
	if b := o.Spec.BGP; b != nil {
		n.IPv4 = try(&e, nodeAddr, "spec.bgp.ipv4Address", b.IPv4Address)
		n.IPv6 = try(&e, nodeAddr, "spec.bgp.ipv6Address", b.IPv6Address)
		n.IPIPTunnel = try(&e, addr, "spec.bgp.ipv4IPIPTunnelAddr", b.IPv4IPIPTunnelAddr)
		n.RouteReflector = try(&e, addr, "spec.bgp.routeReflectorClusterID", b.RouteReflectorClusterID)
		if b.ASNumber != nil {
			n.ASN = uint32(*b.ASNumber)
		}
	}
	n.VXLANTunnel = try(&e, addr, "spec.ipv4VXLANTunnelAddr", o.Spec.IPv4VXLANTunnelAddr)
	n.VXLANTunnelV6 = try(&e, addr, "spec.ipv6VXLANTunnelAddr", o.Spec.IPv6VXLANTunnelAddr)
	n.VXLANMAC = canonicalMAC(o.Spec.VXLANTunnelMACAddr)
	n.VXLANMACV6 = canonicalMAC(o.Spec.VXLANTunnelMACAddrV6)
	if w := o.Spec.Wireguard; w != nil {
		n.WireGuardAddr = try(&e, addr, "spec.wireguard.interfaceIPv4Address", w.InterfaceIPv4Address)
		n.WireGuardAddrV6 = try(&e, addr, "spec.wireguard.interfaceIPv6Address", w.InterfaceIPv6Address)
	}
	n.WireGuardKey = try(&e, publicKey, "status.wireguardPublicKey", o.Status.WireguardPublicKey)
	n.WireGuardKeyV6 = try(&e, publicKey, "status.wireguardPublicKeyV6", o.Status.WireguardPublicKeyV6)
	for _, i := range o.Spec.Interfaces {
		link := NodeLink{Name: i.Name}
		for _, text := range i.Addresses {
			if a, err := netip.ParseAddr(text); err == nil { // others' field: what is not an address explains nothing
				link.Addrs = append(link.Addrs, a)
			}
		}
		n.Links = append(n.Links, link)
	}
	for _, text := range o.Status.PodCIDRs {
		if p, err := netip.ParsePrefix(text); err == nil { // Kubernetes' field
			n.PodCIDRs = append(n.PodCIDRs, p.Masked())
		}
	}
	n.Addrs = nodeAddrs(o, n)
	// The node's agent writes it anew where it is none.
	if mtu, err := strconv.ParseUint(o.Annotations[MTUAnnotation], 10, 16); err == nil {
		n.MTU = int(mtu)
	}
	return n, e.err
}

// nodeAddrs are the addresses by which policy knows a node. What is none in the list,
// which others write, too, is passed over.
func nodeAddrs(o *v3.Node, n Node) []netip.Addr {
	var out []netip.Addr
	for _, p := range []netip.Prefix{n.IPv4, n.IPv6} {
		if p.IsValid() {
			out = append(out, p.Addr())
		}
	}
	for _, a := range o.Spec.Addresses {
		text, _, _ := strings.Cut(a.Address, "/")
		if addr, err := netip.ParseAddr(text); err == nil {
			out = append(out, addr.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
