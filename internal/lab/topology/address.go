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
		for j, l := range n.Links {
			if err := t.take(fmt.Sprintf("nodes[%d].links[%d].addresses", i, j), n.Name, l.Rack, l.Addresses, taken); err != nil {
				return err
			}
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
	for i := range t.Nodes { // after all first ones, whose numbers do not depend on links
		for j := range t.Nodes[i].Links {
			l := &t.Nodes[i].Links[j]
			if err := t.give("node "+t.Nodes[i].Name, l.Rack, firstNode, &l.Addresses, taken); err != nil {
				return err
			}
		}
	}
	return nil
}

// outsideNets are where hosts outside get their addresses from, for documentation all
// (RFC 5737, RFC 3849).
func outsideNets() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8:51::/64")}
}

// fillOutside gives every host outside an address of each family that racks have. A
// host with addresses has those and no others.
func (t *Topology) fillOutside() error {
	taken := map[netip.Addr]string{}
	for i, o := range t.Outside {
		for j, a := range o.Addresses {
			at := fmt.Sprintf("outside[%d].addresses[%d]: %v", i, j, a)
			k := slices.IndexFunc(t.Racks, func(r Rack) bool { _, ok := r.Subnet(a); return ok })
			switch {
			case k >= 0:
				return fmt.Errorf("%s: is in a subnet of rack %s: must be outside of all racks", at, t.Racks[k].Name)
			case !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "":
				return fmt.Errorf("%s: must be a unicast address", at)
			case j > 1 || j == 1 && a.Is4() == o.Addresses[0].Is4():
				return fmt.Errorf("%s: a host has at most one address of each family", at)
			case taken[a] != "":
				return fmt.Errorf("%s: that is the address of %s already", at, taken[a])
			}
			taken[a] = o.Name
		}
	}
	const first = 10 // and the N-th host has 10+N, as far as that is free
	for i := range t.Outside {
		o := &t.Outside[i]
		if len(o.Addresses) > 0 {
			continue
		}
		for _, net := range outsideNets() {
			if !slices.ContainsFunc(t.Racks, func(r Rack) bool { return r.Has(net.Addr().Is6()) }) {
				continue
			}
			a, ok := free(net, first+i+1, taken)
			if !ok || slices.ContainsFunc(t.Racks, func(r Rack) bool { _, ok := r.Subnet(a); return ok }) {
				return fmt.Errorf("outside[%d].addresses: missing: %v has none for it: must be given", i, net)
			}
			taken[a] = o.Name
			o.Addresses = append(o.Addresses, a)
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
