package fib

import (
	"bytes"
	"cmp"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// defaultMetric6 is what the kernel makes of metric 0 in an IPv6 route
// (IP6_RT_PRIO_USER), and `ip -6 route` prints.
const defaultMetric6 = 1024

// key is plan.RouteKey without pointers and padding: 28 bytes that the garbage
// collector does not look into. An IPv4 address stands in its first 4 bytes.
type key struct {
	addr          [16]byte
	table, metric uint32
	bits          uint16
	family        uint16 // 0 is IPv4, 1 is IPv6
}

func makeKey(k plan.RouteKey) key {
	out := key{table: k.Table, metric: k.Priority, bits: uint16(k.Dst.Bits())}
	if a := k.Dst.Addr(); a.Is4() {
		a4 := a.As4()
		copy(out.addr[:], a4[:])
	} else {
		out.addr, out.family = a.As16(), 1
		if out.metric == 0 {
			out.metric = defaultMetric6
		}
	}
	return out
}

func (k *key) v6() bool { return k.family != 0 }

func (k *key) addrBytes() []byte {
	if k.v6() {
		return k.addr[:]
	}
	return k.addr[:4]
}

// valid reports whether the length fits the family; what we made ourselves is.
func (k *key) valid() bool { return int(k.bits) <= 8*len(k.addrBytes()) }

// host reports whether k is the route to a single address.
func (k *key) host() bool { return int(k.bits) == 8*len(k.addrBytes()) }

func (k *key) prefix() netip.Prefix {
	a, _ := netip.AddrFromSlice(k.addrBytes())
	return netip.PrefixFrom(a, int(k.bits))
}

func (k *key) plan() plan.RouteKey {
	return plan.RouteKey{Dst: k.prefix(), Table: k.table, Priority: k.metric}
}

// hop is one way out: through a gateway on a link, or, with family 0, onto the
// link itself.
type hop struct {
	gateway [16]byte
	index   int32
	gen     uint32 // of the link, when we resolved it; not compared
	family  uint8  // AF_INET, AF_INET6, or 0 for no gateway
	onLink  bool   // the gateway need not be on a connected network of the link
}

func (h *hop) gatewayBytes() []byte {
	if h.family == unix.AF_INET {
		return h.gateway[:4]
	}
	return h.gateway[:]
}

func (h *hop) addr() netip.Addr {
	a, _ := netip.AddrFromSlice(h.gatewayBytes())
	return a
}

func (h *hop) setGateway(family uint8, v []byte) {
	h.family = family
	copy(h.gateway[:], v)
}

// setVia reads an RTA_VIA attribute: a family and an address.
func (h *hop) setVia(v []byte) {
	if len(v) >= 6 {
		h.setGateway(uint8(netlink.Native.Uint16(v)), v[2:])
	}
}

func (h hop) same(o hop) bool {
	return h.gateway == o.gateway && h.index == o.index && h.family == o.family && h.onLink == o.onLink
}

func (h hop) compare(o hop) int {
	return cmp.Or(cmp.Compare(h.index, o.index), bytes.Compare(h.gateway[:], o.gateway[:]))
}

// sameHops compares as sets: the kernel keeps its own order.
func sameHops(a, b []hop) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		found := false
		for _, y := range b {
			found = found || x.same(y)
		}
		if !found {
			return false
		}
	}
	return true
}
