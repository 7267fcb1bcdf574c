package startup

import (
	"net/netip"
	"regexp"
	"slices"
)

// UnderlayMTU is the MTU between the nodes as far as this one knows, bytes: the smallest
// of the links that are up and whose name matches the pattern; if there is none, of those
// that have one of the node's addresses. Links that skip names are passed over: those of
// workloads and the tunnels that the answer is for. 0: no link of either sort.
func UnderlayMTU(links []Link, pattern *regexp.Regexp, skip func(name string) bool, addrs ...netip.Addr) int {
	least := func(fits func(Link) bool) int {
		mtu := 0
		for _, l := range links {
			if l.Up && l.MTU > 0 && !skip(l.Name) && fits(l) && (mtu == 0 || l.MTU < mtu) {
				mtu = l.MTU
			}
		}
		return mtu
	}
	if mtu := least(func(l Link) bool { return pattern.MatchString(l.Name) }); mtu != 0 {
		return mtu
	}
	return least(func(l Link) bool {
		return slices.ContainsFunc(l.Addrs, func(p netip.Prefix) bool { return slices.Contains(addrs, p.Addr()) })
	})
}
