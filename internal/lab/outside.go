package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/lab/topology"
)

// outside is a host beyond the fabric: a namespace on a link of its own.
type outside struct {
	target topology.Target
	ns     *namespace
	addrs  []netip.Addr
}

// gateways are the fabric's addresses on the link to a host outside, the same on each:
// of the link only, so that they collide with nothing.
func gateways() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("169.254.254.1"), netip.MustParseAddr("fe80::1")}
}

// makeOutside makes the i-th host: its addresses are its alone, and everything else is
// behind the fabric, which has a route to it and none to pods.
func (h *holder) makeOutside(i int, o *topology.Outside) error {
	at := &outside{target: o.Target(), addrs: o.Addresses}
	var err error
	if at.ns, err = newNamespace(filepath.Join(h.Dir.netns(), "outside", o.Name)); err != nil {
		return err
	}
	target, err := os.Open(at.ns.path)
	if err != nil {
		return err
	}
	defer target.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("outside%d", i+1)
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(target.Fd()))}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link %s: %w", attrs.Name, err)
	}
	ours := linkSetup{link: veth, routes: at.addrs}
	for _, g := range gateways() {
		bits := g.BitLen()
		if g.Is6() {
			bits = 64
		}
		ours.addrs = append(ours.addrs, netip.PrefixFrom(g, bits))
	}
	if err := ours.apply(); err != nil {
		return err
	}
	h.outside = append(h.outside, at)
	return at.ns.open(at.configure)
}

// configure is the part of makeOutside inside the host.
func (o *outside) configure() error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("link eth0: %w", err)
	}
	theirs := linkSetup{link: eth0}
	for _, a := range o.addrs {
		theirs.addrs = append(theirs.addrs, netip.PrefixFrom(a, a.BitLen()))
	}
	err = theirs.apply()
	for _, a := range o.addrs {
		for _, g := range gateways() {
			if g.Is4() != a.Is4() {
				continue
			}
			route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: g.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}
			if e := netlink.RouteAdd(route); e != nil {
				err = errors.Join(err, fmt.Errorf("add default route via %v: %w", g, e))
			}
		}
	}
	return err
}

// linkSetup is one end of a link: its addresses, and single ones that are on it.
type linkSetup struct {
	link   netlink.Link
	addrs  []netip.Prefix
	routes []netip.Addr
}

func (s linkSetup) apply() error {
	for _, p := range s.addrs {
		if err := addAddr(s.link, p); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(s.link); err != nil {
		return fmt.Errorf("link %s: up: %w", s.link.Attrs().Name, err)
	}
	for _, a := range s.routes {
		dst := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
		route := &netlink.Route{LinkIndex: s.link.Attrs().Index, Dst: dst, Scope: unix.RT_SCOPE_LINK}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("add route to %v: %w", a, err)
		}
	}
	return nil
}

// needs says what the machine lacks of what a topology cannot do without: the tunnels that
// it expects to see. IP in IP is done in user space where the kernel has none, if this user
// may make TUN devices.
func needs(t *topology.Topology) error {
	seen := map[string]bool{}
	for i, e := range t.Expect {
		if e.Reachable == nil || seen[e.Reachable.Carried] {
			continue
		}
		seen[e.Reachable.Carried] = true
		at := fmt.Sprintf("expect[%d].reachable.carried: %s", i, e.Reachable.Carried)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "tunnel-probe"
		switch e.Reachable.Carried {
		case topology.CarriedWireGuard:
			if err := probe(&netlink.Wireguard{LinkAttrs: attrs}, at, "needs kernel wireguard, which this kernel does not have: as root: modprobe wireguard"); err != nil {
				return err
			}
		case topology.CarriedIPIP:
			tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
			if err == nil {
				_ = tun.Close()
				continue
			}
			outer := &netlink.Iptun{LinkAttrs: attrs, Local: net.IPv4(192, 0, 2, 1), Remote: net.IPv4(192, 0, 2, 2)}
			lacking := fmt.Sprintf("needs kernel ipip, which this kernel does not have, or TUN devices: %v: as root: modprobe ipip, or chmod 666 /dev/net/tun", err)
			if err := probe(outer, at, lacking); err != nil {
				return err
			}
		}
	}
	return nil
}

// probe makes a link and removes it; lacking is the error where the kernel has none of that
// kind.
func probe(link netlink.Link, at, lacking string) error {
	name := link.Attrs().Name
	switch err := netlink.LinkAdd(link); {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%s: %s", at, lacking)
	case err != nil:
		return fmt.Errorf("%s: add a %s link: %w", at, link.Type(), err)
	}
	made, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(made)
	}
	if err != nil {
		return fmt.Errorf("%s: remove a %s link: %w", at, link.Type(), err)
	}
	return nil
}
