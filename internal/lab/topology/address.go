package topology

import (
	"fmt"
	"net/netip"
	"slices"
)

// The places in a subnet from which addresses are given: routers first, then
// nodes, so that a node's number in the rack can be read from its address.
const (
	firstRouter = 2
	firstNode   = 11
)

// fillAddresses gives every node and router one address of each subnet of its
// rack. What the file says comes first; the rest is given in file order.
func (t *Topology) fillAddresses() error {
	taken := map[netip.Addr]string{}
	for _, r := range t.Racks {
		for _, p := range r.Subnets {
			taken[p.Addr()] = "the subnet itself"
			taken[Gateway(p)] = "the fabric"
			if p.Addr().Is4() {
				taken[lastOf(p)] = "the subnet's broadcast"
			}
		}
	}
	for i, n := range t.Nodes {
		if err := t.take(fmt.Sprintf("nodes[%d].addresses", i), n.Name, n.Rack, n.Addresses, taken); err != nil {
			return err
		}
	}
	for i, r := range t.Routers {
		if err := t.take(fmt.Sprintf("routers[%d].addresses", i), r.Name, r.Rack, r.Addresses, taken); err != nil {
			return err
		}
	}
	for i := range t.Routers {
		r := &t.Routers[i]
		if err := t.give("router "+r.Name, r.Rack, firstRouter, &r.Addresses, taken); err != nil {
			return err
		}
	}
	for i := range t.Nodes {
		n := &t.Nodes[i]
		if err := t.give("node "+n.Name, n.Rack, firstNode, &n.Addresses, taken); err != nil {
			return err
		}
	}
	return nil
}

// take notes addresses that the file gives, if they can be had.
func (t *Topology) take(path, owner, rack string, addrs []netip.Addr, taken map[netip.Addr]string) error {
	used := map[netip.Prefix]bool{}
	for i, a := range addrs {
		subnet, ok := t.Rack(rack).Subnet(a)
		switch {
		case !ok:
			return fmt.Errorf("%s[%d]: %v: must be in a subnet of rack %s: %v", path, i, a, rack, t.Rack(rack).Subnets)
		case used[subnet]:
			return fmt.Errorf("%s[%d]: %v: there is another address in %v: one of each subnet is allowed", path, i, a, subnet)
		case taken[a] != "":
			return fmt.Errorf("%s[%d]: %v: that is the address of %s already", path, i, a, taken[a])
		}
		used[subnet] = true
		taken[a] = owner
	}
	return nil
}

// give completes addrs, starting at the n-th address of each subnet, or at the
// first free one where a subnet is too small for that. They end up in the order
// of the subnets.
func (t *Topology) give(owner, rack string, n int, addrs *[]netip.Addr, taken map[netip.Addr]string) error {
	var out []netip.Addr
	for _, subnet := range t.Rack(rack).Subnets {
		if i := slices.IndexFunc(*addrs, subnet.Contains); i >= 0 {
			out = append(out, (*addrs)[i])
			continue
		}
		a, ok := free(subnet, n, taken)
		if !ok {
			return fmt.Errorf("racks: %s: subnet %v has no address left for %s", rack, subnet, owner)
		}
		taken[a] = owner
		out = append(out, a)
	}
	*addrs = out
	return nil
}

// free finds an address that is not taken: the n-th or a later one, else an
// earlier one.
func free(subnet netip.Prefix, n int, taken map[netip.Addr]string) (netip.Addr, bool) {
	start := subnet.Addr()
	for range n {
		start = start.Next()
	}
	for _, from := range []netip.Addr{start, subnet.Addr()} {
		for a := from; subnet.Contains(a); a = a.Next() {
			if taken[a] == "" {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// lastOf is the last address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
