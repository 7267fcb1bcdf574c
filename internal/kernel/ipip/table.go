package ipip

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weft-net/weft/internal/plan"
)

// address is an IPv4 address in host order.
type address uint32

func addressOf(a netip.Addr) address {
	b := a.As4()
	return address(binary.BigEndian.Uint32(b[:]))
}

// bit is the bit of a after the first n, 0 to 31.
func (a address) bit(n int) int { return int(a>>(31-n)) & 1 }

// fits reports whether the first n bits of a and b are the same.
func (a address) fits(b address, n int) bool { return uint32(a^b)>>(32-n) == 0 }

// node is a prefix of a path-compressed binary trie, and never changes: a change makes new
// nodes from the root down. A nil node is an empty trie.
type node struct {
	prefix address // masked
	bits   int
	hops   []address // gateways; empty: no route, the node is a fork
	child  [2]*node
}

// lookup gives the gateways of the longest prefix that has a; nil: none.
func (n *node) lookup(a address) []address {
	var best []address
	for n != nil && a.fits(n.prefix, n.bits) {
		if n.hops != nil {
			best = n.hops
		}
		if n.bits == 32 {
			break
		}
		n = n.child[a.bit(n.bits)]
	}
	return best
}

// with is the trie with those gateways for a prefix; without it when hops is nil.
func (n *node) with(prefix address, length int, hops []address) *node {
	if n == nil {
		if hops == nil {
			return nil
		}
		return &node{prefix: prefix, bits: length, hops: hops}
	}
	common := min(bits.LeadingZeros32(uint32(n.prefix^prefix)), n.bits, length)
	switch {
	case common == n.bits && common == length:
		c := *n
		c.hops = hops
		return c.pruned()
	case common == n.bits:
		c := *n
		side := prefix.bit(common)
		c.child[side] = c.child[side].with(prefix, length, hops)
		return c.pruned()
	case hops == nil:
		return n
	case common == length:
		c := &node{prefix: prefix, bits: length, hops: hops}
		c.child[n.prefix.bit(common)] = n
		return c
	}
	c := &node{prefix: prefix &^ (1<<(32-common) - 1), bits: common}
	c.child[prefix.bit(common)] = &node{prefix: prefix, bits: length, hops: hops}
	c.child[n.prefix.bit(common)] = n
	return c
}

// pruned is n, or what remains of it when it is neither a route nor a fork.
func (n *node) pruned() *node {
	switch {
	case n.hops != nil || n.child[0] != nil && n.child[1] != nil:
		return n
	case n.child[0] != nil:
		return n.child[0]
	}
	return n.child[1]
}

// table is what the kernel knows and a TUN device does not tell: the gateways of the
// routes through the device. Readers take root, once for each batch.
type table struct {
	link string
	root atomic.Pointer[node]

	mu     sync.Mutex
	routes map[netip.Prefix][]plan.Route // the lowest priority first
}

// apply folds in the routes of d through the device. The kernel holds one route for a
// prefix and priority; of several priorities the lowest number wins, as in the kernel.
func (t *table) apply(d plan.Delta) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.routes == nil {
		t.routes = map[netip.Prefix][]plan.Route{}
	}
	root := t.root.Load()
	for _, r := range d.PutRoutes {
		root = t.set(root, r.RouteKey, r, t.carries(r))
	}
	for _, k := range d.DeleteRoutes {
		root = t.set(root, k, plan.Route{}, false)
	}
	t.root.Store(root)
}

// carries reports whether r is a route of ours.
func (t *table) carries(r plan.Route) bool {
	return r.Link == t.link && r.Type == plan.Unicast && r.Dst.Addr().Is4()
}

// set puts or removes the route with key k and gives the changed trie.
func (t *table) set(root *node, k plan.RouteKey, r plan.Route, put bool) *node {
	if !k.Dst.Addr().Is4() {
		return root
	}
	before := t.routes[k.Dst]
	after := slices.DeleteFunc(slices.Clone(before), func(o plan.Route) bool { return o.RouteKey == k })
	if put {
		after = append(after, r)
		slices.SortFunc(after, func(a, b plan.Route) int {
			if a.Priority != b.Priority {
				return int(int64(a.Priority) - int64(b.Priority))
			}
			return int(int64(a.Table) - int64(b.Table))
		})
	}
	if len(before)+len(after) == 0 {
		return root
	}
	t.routes[k.Dst] = after
	var hops []address
	if len(after) == 0 {
		delete(t.routes, k.Dst)
	} else {
		hops = gateways(after[0])
	}
	return root.with(addressOf(k.Dst.Addr()), k.Dst.Bits(), hops)
}

// gateways are the usable ones of r: addresses that a host can have.
func gateways(r plan.Route) []address {
	var out []address
	for a := range r.Via.All() {
		if a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			out = append(out, addressOf(a))
		}
	}
	return out
}
