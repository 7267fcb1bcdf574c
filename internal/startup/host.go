package startup

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"
)

// ThisHost asks the machine (the network namespace) that the process runs on.
func ThisHost() Host { return Host{Links: Links, SourceTo: SourceTo} }

// Links lists the interfaces of this machine.
func Links() ([]Link, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	slices.SortFunc(ifaces, func(a, b net.Interface) int { return a.Index - b.Index })
	var out []Link
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			// The interface went away since it was listed.
			continue
		}
		l := Link{Name: i.Name, Up: i.Flags&net.FlagUp != 0, MTU: i.MTU}
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			addr, _ := netip.AddrFromSlice(n.IP)
			ones, _ := n.Mask.Size()
			l.Addrs = append(l.Addrs, netip.PrefixFrom(addr.Unmap(), ones))
		}
		out = append(out, l)
	}
	return out, nil
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
