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
	err = v.create()
	if !errors.Is(err, unix.EEXIST) {
		return false, err
	}
	inPod, ours, err := v.find(nl)
	switch {
	case err != nil:
		return false, err
	case inPod != nil && ours && v.whole(nl, inPod):
		return true, nil
	case inPod != nil && !ours:
		return false, fmt.Errorf("link %s: already in %s, and not ours", v.name, v.ns.path)
	case inPod != nil:
		err := v.ns.doNL(func(nl *netlink.Handle) error { return remove(nl, inPod) })
		if err != nil {
			return false, err
		}
	}
	if err := v.removeHost(nl); err != nil {
		return false, err
	}
	return false, v.create()
}

// replace is make where the host's end may be there already; index is that of
// the host's end then.
func (v veth) replace(nl *netlink.Handle) (kept bool, index int, err error) {
	if kept, err = v.make(nl); err != nil {
		return kept, 0, err
	}
	host, err := linkByName(nl, v.host)
	if err == nil && host == nil {
		err = fmt.Errorf("link %s: gone as soon as it was made", v.host)
	}
	if err != nil {
		return kept, 0, err
	}
	return kept, host.Attrs().Index, nil
}

// create asks for the pair, in the thread's namespace.
func (v veth) create() error {
	socket, err := dialRtnl()
	if err != nil {
		return err
	}
	defer socket.close()
	return socket.do(newVeth(v))
}

// find looks for the container's end; nil if there is no interface of that
// name. It is ours if it is a veth with the address that we give it, or if its
// other end is the host link that we would make.
func (v veth) find(nl *netlink.Handle) (inPod netlink.Link, ours bool, err error) {
	err = v.ns.doNL(func(nl *netlink.Handle) error {
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

// whole reports whether the pair is as create makes it, but for its hardware address,
// which the agent may know better.
func (v veth) whole(nl *netlink.Handle, inPod netlink.Link) bool {
	host := v.peer(nl, inPod)
	return host != nil && host.Attrs().HardwareAddr.String() == hostMAC &&
		host.Attrs().Flags&net.FlagUp != 0
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

// setHostMTU sets the MTU of the node's end; 0 leaves it.
func (v veth) setHostMTU(mtu int) error {
	if mtu == 0 {
		return nil
	}
	socket, err := dialRtnl()
	if err != nil {
		return err
	}
	defer socket.close()
	index, err := socket.index(v.host)
	if err != nil {
		return err
	}
	if err := socket.do(linkMTU(index, mtu)); err != nil {
		return fmt.Errorf("link %s: %w", v.host, err)
	}
	return nil
}

// prepare does inside the container what does not depend on its addresses:
// sysctls, interface up, and for each family gateway and routes. The gateway's
// neighbour entry is permanent because proxy ARP on the host answers only where
// the host has a route to the gateway's address, and only after a delay.
func (v veth) prepare(pod rtnl, f families, routes []netip.Prefix, forward bool) error {
	if err := f.sysctls(v.name, forward); err != nil {
		return err
	}
	index, err := pod.index(v.name)
	if err != nil {
		return err
	}
	requests := []request{linkUp(index)}
	for _, gateway := range f.gateways() {
		requests = append(requests, permanentNeighbor(index, gateway, hostMAC))
		if gateway.Is4() { // the IPv6 one is link-local
			requests = append(requests, unicastRoute(index, single(gateway), netip.Addr{}))
		}
		for _, dst := range routes {
			if dst.Addr().Is4() == gateway.Is4() {
				requests = append(requests, unicastRoute(index, dst.Masked(), gateway))
			}
		}
	}
	if err := pod.do(requests...); err != nil {
		return fmt.Errorf("link %s: %w", v.name, err)
	}
	return nil
}

// correct undoes what prepare guessed and the agent, which reads the pod's annotations,
// knows better: the hardware address, and which families there are. A pair that was kept
// may have another address, too.
func (v veth) correct(pod rtnl, kept bool, mac string, guess, is families, routes []netip.Prefix, forward bool) error {
	index, err := pod.index(v.name)
	if err != nil {
		return err
	}
	have := v.mac
	if kept {
		if have, err = pod.mac(index); err != nil {
			return fmt.Errorf("link %s: %w", v.name, err)
		}
	}
	requests := withoutGateways(index, families{guess.v4 && !is.v4, guess.v6 && !is.v6}, routes)
	missing := families{is.v4 && !guess.v4, is.v6 && !guess.v6}
	if mac == "" {
		mac = v.mac
	}
	if mac != have {
		requests = append(requests, linkMAC(index, mac))
		missing = is // with the address the kernel drops the neighbour entries
	}
	if len(requests) > 0 {
		if err := pod.do(requests...); err != nil {
			return fmt.Errorf("link %s: %w", v.name, err)
		}
	}
	if missing != (families{}) {
		return v.prepare(pod, missing, routes, forward)
	}
	return nil
}

// withoutGateways undoes what prepare does for families, but for sysctls.
func withoutGateways(index int, f families, routes []netip.Prefix) (out []request) {
	for _, gateway := range f.gateways() {
		for _, dst := range routes {
			if dst.Addr().Is4() == gateway.Is4() {
				out = append(out, withoutRoute(index, dst.Masked()))
			}
		}
		if gateway.Is4() {
			out = append(out, withoutRoute(index, single(gateway)))
		}
		out = append(out, withoutNeighbor(index, gateway))
	}
	return out
}

// addAddrs gives the container's end its addresses, without their subnets, and
// its MTU unless that is 0.
func (v veth) addAddrs(pod rtnl, addrs []netip.Prefix, mtu int) error {
	index, err := pod.index(v.name)
	if err != nil {
		return err
	}
	var requests []request
	if mtu != 0 {
		requests = append(requests, linkMTU(index, mtu))
	}
	for _, a := range addrs {
		requests = append(requests, hostAddr(index, a.Addr()))
	}
	if err := pod.do(requests...); err != nil {
		return fmt.Errorf("link %s: %w", v.name, err)
	}
	for _, a := range addrs {
		if err := settle(pod, a.Addr()); err != nil {
			return fmt.Errorf("link %s: %w", v.name, err)
		}
	}
	return nil
}

// settle waits until addr is usable. The kernel finishes an IPv6 address in a
// work queue after it was added, usually within 0.1 ms: until then packets to it
// would be sent out.
func settle(pod rtnl, addr netip.Addr) error {
	const patience = 20 * time.Second
	for start := time.Now(); addr.Is6() && !pod.localRoute(addr); time.Sleep(100 * time.Microsecond) {
		if time.Since(start) > patience {
			return fmt.Errorf("address %v is not usable after %v", addr, patience)
		}
	}
	return nil
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
