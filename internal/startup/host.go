package startup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// ThisHost asks the machine (the network namespace) that the process runs on.
func ThisHost() Host { return Host{Links: Links, SourceTo: SourceTo} }

// Links lists the interfaces of this machine.
func Links() ([]Link, error) {
	links, err := again(netlink.LinkList)
	if err != nil {
		return nil, err
	}
	addrs, err := again(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(links, func(a, b netlink.Link) int { return a.Attrs().Index - b.Attrs().Index })
	var out []Link
	for _, i := range links {
		at := i.Attrs()
		l := Link{Name: at.Name, Up: at.Flags&net.FlagUp != 0, MTU: at.MTU}
		for _, a := range addrs {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && a.LinkIndex == at.Index {
				ones, _ := a.Mask.Size()
				l.Addrs = append(l.Addrs, netip.PrefixFrom(addr.Unmap(), ones))
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// again repeats a dump that the kernel interrupted because something changed
// meanwhile.
func again[T any](dump func() ([]T, error)) ([]T, error) {
	for range 10 {
		out, err := dump()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return dump()
}

// SourceTo finds the address from which this machine would send to dst, by
// connecting a UDP socket: no packet is sent.
func SourceTo(ctx context.Context, dst string, v6 bool) (netip.Addr, error) {
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, network, net.JoinHostPort(dst, "80"))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no route or no address to %s: %w", dst, err)
	}
	defer func() { _ = conn.Close() }()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
