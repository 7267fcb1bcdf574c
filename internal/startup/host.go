package startup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// ThisHost asks the machine (the network namespace) that the process runs on.
func ThisHost() Host { return Host{Links: Links, SourceTo: SourceTo} }

// Links lists the interfaces of this machine, in the order in which they were made.
func Links() ([]Link, error) {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE})
	if err != nil {
		return nil, fmt.Errorf("startup: links: %w", err)
	}
	defer func() { _ = s.Close() }()
	var links map[int32]*Link
	for range 10 {
		// A dump during which something changed is begun again.
		if links, err = readLinks(s); !errors.Is(err, netlink.ErrInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("startup: links: %w", err)
	}
	out := make([]Link, 0, len(links))
	for _, index := range slices.Sorted(maps.Keys(links)) {
		out = append(out, *links[index])
	}
	return out, nil
}

// skipStatistics is RTEXT_FILTER_SKIP_STATS (linux/rtnetlink.h): counters are most
// of what the kernel has to say of a link.
const skipStatistics = 1 << 3

// readLinks reads links and then their addresses (rtnetlink(7)).
func readLinks(s *netlink.Socket) (map[int32]*Link, error) {
	links := map[int32]*Link{}
	all := netlink.AppendAttr32(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_EXT_MASK, skipStatistics)
	err := s.Dump(unix.RTM_GETLINK, all, func(_ uint16, body []byte) {
		if index, l, ok := parseLink(body); ok {
			links[index] = &l
		}
	}, nil)
	if err != nil {
		return nil, err
	}
	return links, s.Dump(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg), func(_ uint16, body []byte) {
		if index, p, ok := parseAddr(body); ok && links[index] != nil {
			links[index].Addrs = append(links[index].Addrs, p)
		}
	}, nil)
}

// parseLink reads the body of a message about a link, all but its addresses. Messages
// about a link as the port of a bridge are none.
func parseLink(body []byte) (index int32, l Link, ok bool) {
	if len(body) < unix.SizeofIfInfomsg || body[0] != unix.AF_UNSPEC {
		return 0, Link{}, false
	}
	l.Up = netlink.Uint32(body[8:])&unix.IFF_UP != 0
	for typ, v := range netlink.Attributes(body[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = unix.ByteSliceToString(v)
		case unix.IFLA_MTU:
			l.MTU = int(netlink.Uint32(v))
		}
	}
	return int32(netlink.Uint32(body[4:])), l, true
}

// parseAddr reads the body of a message about an address of a link.
func parseAddr(body []byte) (index int32, p netip.Prefix, ok bool) {
	if len(body) < unix.SizeofIfAddrmsg {
		return 0, netip.Prefix{}, false
	}
	var addr, local netip.Addr // of the far end of a line, and then of this one
	for typ, v := range netlink.Attributes(body[unix.SizeofIfAddrmsg:]) {
		switch typ {
		case unix.IFA_ADDRESS:
			addr, _ = netip.AddrFromSlice(v)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(v)
		}
	}
	if local.IsValid() {
		addr = local
	}
	return int32(netlink.Uint32(body[4:])), netip.PrefixFrom(addr, int(body[1])), addr.IsValid()
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
