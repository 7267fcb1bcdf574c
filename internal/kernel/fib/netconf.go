package fib

import (
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// The kernel tells of changes of some sysctls by RTM_NEWNETCONF: struct
// netconfmsg, which is a family, and attributes of 32 bits (linux/netconf.h).
const (
	netconfBytes      = 4 // struct netconfmsg, padded
	netconfIfindex    = 1 // NETCONFA_IFINDEX; negative: all or default
	netconfForwarding = 2 // NETCONFA_FORWARDING
	netconfProxy      = 5 // NETCONFA_PROXY_NEIGH: proxy_arp or proxy_ndp
)

// netconfEvent takes in that sysctls of a link changed. What matters is one of
// ours that was switched off; that of the others is found by the next resync.
func (f *FIB) netconfEvent(b []byte) {
	if len(b) < netconfBytes {
		return
	}
	var index int32
	off := false
	for typ, v := range netlink.Attributes(b[netconfBytes:]) {
		switch typ {
		case netconfIfindex:
			index = int32(netlink.Uint32(v))
		case netconfForwarding, netconfProxy:
			off = off || netlink.Uint32(v) == 0
		}
	}
	l := f.byIndex[index]
	if !off || l == nil || !l.want || b[0] == unix.AF_INET && !l.v4 || b[0] == unix.AF_INET6 && !l.v6 {
		return
	}
	l.tuned = false
	l.detuned++
	f.dirtyLinks[l.name] = true
}
