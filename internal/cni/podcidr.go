package cni

import (
	"net/netip"
	"strings"
)

// What a configuration writes in place of a subnet for the ranges of the node's pods.
const (
	usePodCIDR   = "usePodCidr"     // all of them; in one of several ranges that of IPv4
	usePodCIDRv6 = "usePodCidrIPv6" // that of IPv6
)

// usesPodCIDR reports whether the IPAM section wants the ranges of the node's pods.
func (c *config) usesPodCIDR() bool {
	for _, set := range c.IPAM.Ranges {
		for _, r := range set {
			if standsForPodCIDR(r.Subnet) {
				return true
			}
		}
	}
	return standsForPodCIDR(c.IPAM.Subnet)
}

func standsForPodCIDR(subnet string) bool {
	return strings.EqualFold(subnet, usePodCIDR) || strings.EqualFold(subnet, usePodCIDRv6)
}

// setPodCIDRs puts the ranges of the node's pods where an IPAM section says so. Without
// ranges it puts one that holds every address: to take addresses back, for which a
// plugin wants a valid range and does not look into it, no agent need be asked.
func setPodCIDRs(ipam map[string]any, ranges []netip.Prefix) error {
	v4, v6 := firstOfFamily(ranges, false), firstOfFamily(ranges, true)
	if len(ranges) == 0 {
		v4, v6 = netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	pick := func(text string) (netip.Prefix, error) {
		p := v4
		if strings.EqualFold(text, usePodCIDRv6) {
			p = v6
		} else if !p.IsValid() {
			p = v6 // a cluster of IPv6 alone
		}
		if !p.IsValid() {
			return p, confError("ipam: %s: the node has no such range, only %v", text, ranges)
		}
		return p, nil
	}
	sets, _ := ipam["ranges"].([]any)
	for _, set := range sets {
		list, _ := set.([]any)
		for _, item := range list {
			r, _ := item.(map[string]any)
			if text, _ := r["subnet"].(string); standsForPodCIDR(text) {
				p, err := pick(text)
				if err != nil {
					return err
				}
				r["subnet"] = p.String()
			}
		}
	}
	text, _ := ipam["subnet"].(string)
	if !standsForPodCIDR(text) {
		return nil
	}
	first, err := pick(text)
	if err != nil {
		return err
	}
	ipam["subnet"] = first.String()
	// A range of the other family becomes a set of its own, so that a pod gets an
	// address of each.
	if strings.EqualFold(text, usePodCIDR) && first == v4 && v6.IsValid() && len(ranges) > 0 && len(sets) == 0 {
		ipam["ranges"] = []any{[]any{map[string]any{"subnet": v6.String()}}}
	}
	return nil
}

func firstOfFamily(ranges []netip.Prefix, v6 bool) netip.Prefix {
	for _, p := range ranges {
		if p.Addr().Is6() == v6 {
			return p
		}
	}
	return netip.Prefix{}
}
