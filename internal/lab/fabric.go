package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/filter"
	"github.com/weft-net/weft/internal/lab/topology"
)

// buildFabric makes the holder's own namespace the router between the racks: a
// bridge for each, with the first address of its subnets.
func buildFabric(t *topology.Topology) error {
	if err := linkUp("lo"); err != nil {
		return fmt.Errorf("lab: fabric: %w", err)
	}
	if err := setting("ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("lab: fabric: %w", err)
	}
	if err := setting("ipv6/conf/all/forwarding", "1"); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("lab: fabric: %w", err)
	}
	// Where Docker runs, bridges would hand the packets of a segment to the rules for
	// what is forwarded. Elsewhere there is no such setting.
	for _, name := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
		if err := setting(name, "0"); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("lab: fabric: %w", err)
		}
	}
	for i, rack := range t.Racks {
		bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
		bridge.Name = bridgeName(i)
		if err := netlink.LinkAdd(bridge); err != nil {
			return fmt.Errorf("lab: rack %s: add bridge: %w", rack.Name, err)
		}
		if err := netlink.LinkSetMTU(bridge, int(rack.MTU)); err != nil {
			return fmt.Errorf("lab: rack %s: mtu %d: %w", rack.Name, rack.MTU, err)
		}
		for _, subnet := range rack.Subnets {
			if err := addAddr(bridge, netip.PrefixFrom(topology.Gateway(subnet), subnet.Bits())); err != nil {
				return fmt.Errorf("lab: rack %s: %w", rack.Name, err)
			}
		}
		if err := netlink.LinkSetUp(bridge); err != nil {
			return fmt.Errorf("lab: rack %s: up: %w", rack.Name, err)
		}
	}
	if err := filter.Fabric(t, bridgeName); err != nil {
		return fmt.Errorf("lab: fabric: strictness and loss: %w", err)
	}
	return nil
}

// bridgeName is that of the i-th rack.
func bridgeName(i int) string { return fmt.Sprintf("rack%d", i+1) }

// plug is a machine's place in a rack.
type plug struct {
	port           string // the name of the fabric's end
	link           string // that of the machine's
	bridge         string
	rack           topology.Rack
	addrs          []netip.Addr
	noDefaultRoute bool
}

// connect gives ns an interface in the rack, with addresses and, unless it is not to
// have one, a default route by the fabric.
func (ns *namespace) connect(p plug) error {
	bridge, err := netlink.LinkByName(p.bridge)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", p.bridge, err)
	}
	target, err := os.Open(ns.path)
	if err != nil {
		return err
	}
	defer target.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MasterIndex, attrs.MTU = p.port, bridge.Attrs().Index, int(p.rack.MTU)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: p.link, PeerMTU: uint32(p.rack.MTU), PeerNamespace: netlink.NsFd(int(target.Fd()))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link %s: %w", p.port, err)
	}
	if err := filter.Port(p.port, p.rack); err != nil {
		return fmt.Errorf("link %s: strictness and loss: %w", p.port, err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return fmt.Errorf("link %s: up: %w", p.port, err)
	}
	return ns.open(func() error { return p.configure() })
}

// configure is the part of connect inside the machine.
func (p plug) configure() error {
	link, err := netlink.LinkByName(p.link)
	if err != nil {
		return fmt.Errorf("link %s: %w", p.link, err)
	}
	for _, a := range p.addrs {
		subnet, _ := p.rack.Subnet(a)
		if err := addAddr(link, netip.PrefixFrom(a, subnet.Bits())); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: up: %w", p.link, err)
	}
	if p.noDefaultRoute {
		return nil
	}
	for _, a := range p.addrs {
		subnet, _ := p.rack.Subnet(a)
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: topology.Gateway(subnet).AsSlice()}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add default route via %v: %w", topology.Gateway(subnet), err)
		}
	}
	return nil
}

// addAddr adds an address that is usable at once: nobody else has it.
func addAddr(l netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("link %s: add %v: %w", l.Attrs().Name, p, err)
	}
	return nil
}
