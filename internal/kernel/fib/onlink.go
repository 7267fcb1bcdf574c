package fib

import (
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// IPv6 takes a gateway that is said to be on a link (onlink) only if the route that leads
// to the gateway itself leaves by that link, or is a default route, or there is none
// (ip6_route_check_nh_onlink in net/ipv6/route.c). The gateway of a route through a VXLAN
// is an address of the very block that the route is to: while that leads another way, as
// when a pool's mode changes, the kernel refuses with EINVAL what it would take a moment
// later. It asks only when it takes a route. So for that moment the gateway gets a route
// of its own, which the packets to it could take as well.

// pinMetric is that of the gateways' routes: the first to be asked.
const pinMetric = 1

// pinnable reports whether a route that was refused may be taken once its gateway has a
// route of its own.
func (f *FIB) pinnable(o *op, errno unix.Errno) bool {
	if errno != unix.EINVAL || !o.k.v6() || o.pinned {
		return false
	}
	a := f.attrs.all[o.attr]
	return len(a.hops) == 1 && a.hops[0].onLink && a.hops[0].family == unix.AF_INET6
}

// flushPinned writes again what was refused for its gateway.
func (f *FIB) flushPinned() {
	list := f.pins
	f.pins = nil
	for _, k := range list {
		e := f.entries[k]
		if !e.is(wanted) || e.why != refused {
			continue // it changed meanwhile
		}
		a := f.attrs.all[e.attr]
		if a.why != reasonNone || len(a.hops) != 1 {
			continue
		}
		old := e
		e.flags |= dirty
		e.why, e.errno = reasonNone, 0
		f.set(k, old, e)
		gateway := a.hops[0]
		f.stagePin(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, k.table, gateway, a.Proto)
		f.stageRoute(k, e)
		f.batch.ops[len(f.batch.ops)-1].pinned = true
		f.stagePin(unix.RTM_DELROUTE, 0, k.table, gateway, a.Proto)
		if f.batch.full() {
			f.exchange()
		}
	}
	f.exchange()
}

// stagePin adds the message that makes, or removes, the route of a gateway.
func (f *FIB) stagePin(typ, flags uint16, table uint32, gateway hop, proto uint8) {
	k := key{addr: gateway.gateway, family: 1, bits: 128, table: table, metric: pinMetric}
	b := &f.batch
	b.open(typ, flags, op{kind: pin})
	b.buf = appendRoute(b.buf, k, unix.RT_SCOPE_UNIVERSE, proto, unix.RTN_UNICAST, 0)
	b.buf = netlink.AppendAttr32(b.buf, unix.RTA_OIF, uint32(gateway.index))
	b.close()
}
