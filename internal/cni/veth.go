package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The gateways that a container sees, both at the host's end of its veth. The
// IPv6 one is the link-local address that hostMAC makes.
var (
	gateway4 = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	gateway6 = netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: 0xec, 9: 0xee, 10: 0xee, 11: 0xff, 12: 0xfe, 13: 0xee, 14: 0xee, 15: 0xee})
)

// veth is the pair that joins a container to the node.
type veth struct {
	ns     podNetns
	host   string // name of the node's end
	name   string // name of the container's end
	mac    string // of the container's end; empty: any
	mtu    int    // bytes; 0: the kernel's default
	queues int    // of each end; 0: the kernel's default
}

// make creates the pair, the host's end up. If the pair is there already, as a
// previous ADD of the same container made it, it stays and kept is true; what
// is left of something else of ours is removed. An interface of that name in the
// container that is not ours is an error.
func (v veth) make(nl *netlink.Handle) (kept bool, err error) {
	err = v.create(nl)
	if !errors.Is(err, unix.EEXIST) {
		return false, err
	}
	inPod, ours, err := v.find(nl)
	switch {
	case err != nil:
		return false, err
	case inPod != nil && ours && v.whole(nl, inPod):
		return true, v.setMTU(nl, v.mtu)
	case inPod != nil && !ours:
		return false, fmt.Errorf("link %s: already in %s, and not ours", v.name, v.ns.path)
	case inPod != nil:
		err := v.ns.do(func(nl *netlink.Handle) error { return remove(nl, inPod) })
		if err != nil {
			return false, err
		}
	}
	if err := v.removeHost(nl); err != nil {
		return false, err
	}
	return false, v.create(nl)
}

func (v veth) create(nl *netlink.Handle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = v.host
	attrs.MTU = v.mtu
	attrs.Flags = net.FlagUp
	attrs.HardwareAddr, _ = net.ParseMAC(hostMAC)
	attrs.NumTxQueues, attrs.NumRxQueues = v.queues, v.queues
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: v.name, PeerNamespace: netlink.NsFd(v.ns.fd)}
	pair.PeerHardwareAddr, _ = net.ParseMAC(v.mac)
	if err := nl.LinkAdd(pair); err != nil {
		return fmt.Errorf("link %s: add: %w", v.host, err)
	}
	return nil
}

// find looks for the container's end; nil if there is no interface of that
// name. It is ours if it is a veth with the address that we give it, or if its
// other end is the host link that we would make.
func (v veth) find(nl *netlink.Handle) (inPod netlink.Link, ours bool, err error) {
	err = v.ns.do(func(nl *netlink.Handle) error {
		inPod, err = linkByName(nl, v.name)
		return err
	})
	if err != nil || inPod == nil {
		return nil, false, err
	}
	_, isVeth := inPod.(*netlink.Veth)
	sameMAC := v.mac != "" && inPod.Attrs().HardwareAddr.String() == v.mac
	return inPod, isVeth && (sameMAC || v.peer(nl, inPod) != nil), nil
}

// peer is the host's end of inPod if it has the name it should have, else nil.
func (v veth) peer(nl *netlink.Handle, inPod netlink.Link) netlink.Link {
	host, err := linkByName(nl, v.host)
	if err != nil || host == nil {
		return nil
	}
	// Indices are per namespace, so one match could be chance.
	if host.Attrs().Index != inPod.Attrs().ParentIndex || inPod.Attrs().Index != host.Attrs().ParentIndex {
		return nil
	}
	return host
}

// whole reports whether the pair is as create makes it.
func (v veth) whole(nl *netlink.Handle, inPod netlink.Link) bool {
	host := v.peer(nl, inPod)
	return host != nil && host.Attrs().HardwareAddr.String() == hostMAC &&
		host.Attrs().Flags&net.FlagUp != 0 && inPod.Attrs().HardwareAddr.String() == v.mac
}

// removeHost deletes an interface with the host's name, if there is one: the
// end of a container that was there before.
func (v veth) removeHost(nl *netlink.Handle) error {
	host, err := linkByName(nl, v.host)
	if err != nil || host == nil {
		return err
	}
	if _, ok := host.(*netlink.Veth); !ok {
		return fmt.Errorf("link %s: exists on the node and is a %s, not a veth", v.host, host.Type())
	}
	return remove(nl, host)
}

// setMTU sets both ends; 0 leaves them.
func (v veth) setMTU(nl *netlink.Handle, mtu int) error {
	if mtu == 0 {
		return nil
	}
	set := func(nl *netlink.Handle, name string) error {
		l, err := nl.LinkByName(name)
		if err == nil && l.Attrs().MTU != mtu {
			err = nl.LinkSetMTU(l, mtu)
		}
		if err != nil {
			return fmt.Errorf("link %s: mtu %d: %w", name, mtu, err)
		}
		return nil
	}
	if err := set(nl, v.host); err != nil {
		return err
	}
	return v.ns.do(func(nl *netlink.Handle) error { return set(nl, v.name) })
}

// prepare does inside the container what does not depend on its addresses:
// sysctls, interface up, and for each family gateway and routes.
func (v veth) prepare(nl *netlink.Handle, f families, routes []netip.Prefix, forward bool) error {
	if err := f.sysctls(v.name, forward); err != nil {
		return err
	}
	link, err := nl.LinkByName(v.name)
	if err != nil {
		return fmt.Errorf("link %s: %w", v.name, err)
	}
	if err := nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s: up: %w", v.name, err)
	}
	for _, gateway := range f.gateways() {
		if err := addGateway(nl, link.Attrs().Index, gateway); err != nil {
			return fmt.Errorf("link %s: %w", v.name, err)
		}
		for _, dst := range routes {
			if dst.Addr().Is4() != gateway.Is4() {
				continue
			}
			if err := nl.RouteReplace(routeVia(link.Attrs().Index, dst, gateway)); err != nil {
				return fmt.Errorf("link %s: add route %v via %v: %w", v.name, dst, gateway, err)
			}
		}
	}
	return nil
}

// addGateway makes the gateway known on the link. The neighbour entry is
// permanent because proxy ARP on the host answers only where the host has a
// route to the gateway's address, and only after a delay.
func addGateway(nl *netlink.Handle, link int, gateway netip.Addr) error {
	mac, _ := net.ParseMAC(hostMAC)
	neigh := &netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: mac}
	if err := nl.NeighSet(neigh); err != nil {
		return fmt.Errorf("add neighbour %v: %w", gateway, err)
	}
	if !gateway.Is4() {
		return nil // link-local: on the link without a route
	}
	onLink := &netlink.Route{LinkIndex: link, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.PrefixFrom(gateway, 32))}
	if err := nl.RouteReplace(onLink); err != nil {
		return fmt.Errorf("add route %v: %w", gateway, err)
	}
	return nil
}

func routeVia(link int, dst netip.Prefix, gateway netip.Addr) *netlink.Route {
	return &netlink.Route{LinkIndex: link, Dst: ipNet(dst.Masked()), Gw: gateway.AsSlice()}
}

// addAddrs gives the container's end its addresses, without their subnets.
func (v veth) addAddrs(nl *netlink.Handle, addrs []netip.Prefix) error {
	link, err := nl.LinkByName(v.name)
	if err != nil {
		return fmt.Errorf("link %s: %w", v.name, err)
	}
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: ipNet(single(a.Addr()))}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // usable at once; nobody else is on the link
		}
		if err := nl.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("link %s: add address %v: %w", v.name, a.Addr(), err)
		}
	}
	for _, a := range addrs {
		if err := settle(nl, a.Addr()); err != nil {
			return fmt.Errorf("link %s: %w", v.name, err)
		}
	}
	return nil
}

// settle waits until addr is usable. The kernel finishes an IPv6 address in a
// work queue after it was added, usually within 0.1 ms: until then packets to it
// would be sent out.
func settle(nl *netlink.Handle, addr netip.Addr) error {
	if addr.Is4() {
		return nil
	}
	const patience = 5 * time.Second
	for start := time.Now(); ; time.Sleep(100 * time.Microsecond) {
		routes, err := nl.RouteGet(addr.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Since(start) > patience {
			return fmt.Errorf("address %v is not usable after %v", addr, patience)
		}
	}
}

// families says which address families a container has.
type families struct{ v4, v6 bool }

func familiesOf(addrs []netip.Prefix) (f families) {
	for _, a := range addrs {
		f.v4, f.v6 = f.v4 || a.Addr().Is4(), f.v6 || a.Addr().Is6()
	}
	return f
}

func (f families) gateways() (out []netip.Addr) {
	if f.v4 {
		out = append(out, gateway4)
	}
	if f.v6 {
		out = append(out, gateway6)
	}
	return out
}

// sysctls sets what a container's namespace needs before its link goes up. A
// new namespace has the node's settings, which forward packets.
func (f families) sysctls(link string, forward bool) error {
	forwarding := "0"
	if forward {
		forwarding = "1"
	}
	var settings [][2]string
	if f.v4 {
		settings = append(settings, [2]string{"net/ipv4/ip_forward", forwarding})
	}
	if f.v6 {
		settings = append(settings,
			[2]string{"net/ipv6/conf/all/disable_ipv6", "0"},
			[2]string{"net/ipv6/conf/default/disable_ipv6", "0"},
			[2]string{"net/ipv6/conf/" + link + "/disable_ipv6", "0"},
			[2]string{"net/ipv6/conf/" + link + "/accept_dad", "0"},
			[2]string{"net/ipv6/conf/all/forwarding", forwarding})
	}
	for _, s := range settings {
		if err := sysctl(s[0], s[1]); err != nil {
			return fmt.Errorf("sysctl %s: set %s: %w", s[0], s[1], err)
		}
	}
	return nil
}

// sysctl sets a key of the thread's namespace, unless it has the value: a write
// may take a lock of the whole machine even where it changes nothing.
func sysctl(key, value string) error {
	path := "/proc/sys/" + key
	have, err := os.ReadFile(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	if strings.TrimSpace(string(have)) == value {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return errors.Unwrap(err)
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// linkByName is the link of that name; nil if there is none.
func linkByName(nl *netlink.Handle, name string) (netlink.Link, error) {
	l, err := nl.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return l, nil
}

// remove deletes a link; one that has gone meanwhile is no error.
func remove(nl *netlink.Handle, l netlink.Link) error {
	err := nl.LinkDel(l)
	if err != nil && !isGone(err) {
		return fmt.Errorf("link %s: delete: %w", l.Attrs().Name, err)
	}
	return nil
}

// single is the prefix that holds a alone.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// isGone reports whether err means that the link does not exist any more.
func isGone(err error) bool { return errors.Is(err, unix.ENODEV) }
