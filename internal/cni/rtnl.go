package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rtnl is a routing socket that sends several requests at once. The kernel
// serves each of them under one lock of the whole machine; who asks one by one
// goes to the end of the line each time, which tells when many containers start
// together.
type rtnl struct{ fd int }

// dialRtnl opens a socket in the calling thread's namespace.
func dialRtnl() (rtnl, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return rtnl{}, fmt.Errorf("netlink: socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return rtnl{}, fmt.Errorf("netlink: bind: %w", err)
	}
	return rtnl{fd}, nil
}

func (s rtnl) close() { _ = unix.Close(s.fd) }

// index is the interface index of a link; it does not take the kernel's lock.
func (s rtnl) index(link string) (int, error) {
	ifreq, err := unix.NewIfreq(link)
	if err == nil {
		err = unix.IoctlIfreq(s.fd, unix.SIOCGIFINDEX, ifreq)
	}
	if err != nil {
		return 0, fmt.Errorf("link %s: %w", link, err)
	}
	return int(ifreq.Uint32()), nil
}

// request is one change of the kernel's tables.
type request struct {
	what string // for messages: "add route 10.0.0.0/8"
	*nl.NetlinkRequest
}

// do sends all requests in one message and waits for the answers. The error is
// that of the first request that failed.
func (s rtnl) do(requests ...request) error {
	var message []byte
	pending := map[uint32]int{}
	for i, r := range requests {
		message = append(message, r.Serialize()...)
		pending[r.Seq] = i
	}
	if err := unix.Sendto(s.fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("netlink: send: %w", err)
	}
	failed := make([]error, len(requests))
	buf := make([]byte, 32<<10)
	for len(pending) > 0 {
		n, _, err := unix.Recvfrom(s.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("netlink: receive: %w", err)
		}
		answers, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("netlink: receive: %w", err)
		}
		for _, m := range answers {
			i, ok := pending[m.Header.Seq]
			if !ok || m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
				continue
			}
			delete(pending, m.Header.Seq)
			if code := int32(nl.NativeEndian().Uint32(m.Data)); code != 0 {
				failed[i] = fmt.Errorf("%s: %w", requests[i].what, unix.Errno(-code))
			}
		}
	}
	for _, err := range failed {
		if err != nil {
			return err
		}
	}
	return nil
}

// newVeth asks for the pair v.
func newVeth(v veth) request {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Flags, head.Change = unix.IFF_UP, unix.IFF_UP
	r.AddData(head)
	for _, a := range v.attributes(v.host, hostMAC) {
		r.AddData(a)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.VETH_INFO_PEER, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, a := range append(v.attributes(v.name, v.mac), nl.NewRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(v.ns.fd)))) {
		peer.AddChild(a)
	}
	r.AddData(info)
	return request{fmt.Sprintf("link %s: add", v.host), r}
}

// attributes describe one end of v.
func (v veth) attributes(name, mac string) []*nl.RtAttr {
	hw, _ := net.ParseMAC(mac)
	out := []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), nl.NewRtAttr(unix.IFLA_ADDRESS, hw)}
	if v.mtu > 0 {
		out = append(out, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(v.mtu))))
	}
	if v.queues > 0 {
		n := nl.Uint32Attr(uint32(v.queues))
		out = append(out, nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, n), nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, n))
	}
	return out
}

// linkUp asks for a link to be up.
func linkUp(index int) request {
	r := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	head.Flags, head.Change = unix.IFF_UP, unix.IFF_UP
	r.AddData(head)
	return request{"up", r}
}

// linkMTU asks for a link's MTU, in bytes.
func linkMTU(index, mtu int) request {
	r := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	r.AddData(head)
	r.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	return request{fmt.Sprintf("mtu %d", mtu), r}
}

// linkMAC asks for a link's hardware address.
func linkMAC(index int, mac string) request {
	r := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	hw, _ := net.ParseMAC(mac)
	r.AddData(head)
	r.AddData(nl.NewRtAttr(unix.IFLA_ADDRESS, hw))
	return request{"address " + mac, r}
}

// mac is the hardware address of a link.
func (s rtnl) mac(index int) (string, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	head := nl.NewIfInfomsg(unix.AF_UNSPEC)
	head.Index = int32(index)
	r.AddData(head)
	if err := unix.Sendto(s.fd, r.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return "", fmt.Errorf("netlink: send: %w", err)
	}
	buf := make([]byte, 32<<10)
	n, _, err := unix.Recvfrom(s.fd, buf, 0)
	if err != nil {
		return "", fmt.Errorf("netlink: receive: %w", err)
	}
	answers, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil || len(answers) == 0 || answers[0].Header.Type != unix.RTM_NEWLINK {
		return "", fmt.Errorf("its hardware address can't be read: %w", errors.Join(err, unix.ENODEV))
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(&answers[0])
	if err != nil {
		return "", fmt.Errorf("netlink: receive: %w", err)
	}
	for _, a := range attributes {
		if a.Attr.Type == unix.IFLA_ADDRESS {
			return net.HardwareAddr(a.Value).String(), nil
		}
	}
	return "", nil
}

// withoutRoute asks for a route of the link to go.
func withoutRoute(index int, dst netip.Prefix) request {
	r := nl.NewNetlinkRequest(unix.RTM_DELROUTE, unix.NLM_F_ACK)
	r.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(familyOf(dst.Addr())), Dst_len: uint8(dst.Bits()), Table: unix.RT_TABLE_MAIN, Scope: unix.RT_SCOPE_NOWHERE,
	}})
	if dst.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, dst.Addr().AsSlice()))
	}
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	return request{fmt.Sprintf("delete route %v", dst), r}
}

// withoutNeighbor asks for a neighbour entry to go.
func withoutNeighbor(index int, addr netip.Addr) request {
	r := nl.NewNetlinkRequest(unix.RTM_DELNEIGH, unix.NLM_F_ACK)
	r.AddData(&netlink.Ndmsg{Family: uint8(familyOf(addr)), Index: uint32(index)})
	r.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	return request{fmt.Sprintf("delete neighbour %v", addr), r}
}

const replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE | unix.NLM_F_ACK

// permanentNeighbor asks for a neighbour entry that never ages.
func permanentNeighbor(index int, addr netip.Addr, mac string) request {
	r := nl.NewNetlinkRequest(unix.RTM_NEWNEIGH, replace)
	hw, _ := net.ParseMAC(mac)
	r.AddData(&netlink.Ndmsg{Family: uint8(familyOf(addr)), Index: uint32(index), State: netlink.NUD_PERMANENT})
	r.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	r.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, hw))
	return request{fmt.Sprintf("add neighbour %v", addr), r}
}

// unicastRoute asks for a route to dst (masked); the zero via means on-link.
func unicastRoute(index int, dst netip.Prefix, via netip.Addr) request {
	r := nl.NewNetlinkRequest(unix.RTM_NEWROUTE, replace)
	head := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: uint8(familyOf(dst.Addr())), Dst_len: uint8(dst.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: unix.RTPROT_BOOT, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_UNICAST,
	}}
	if !via.IsValid() {
		head.Scope = unix.RT_SCOPE_LINK
	}
	r.AddData(head)
	if dst.Bits() > 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_DST, dst.Addr().AsSlice()))
	}
	if via.IsValid() {
		r.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, via.AsSlice()))
	}
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index))))
	return request{fmt.Sprintf("add route %v via %v", dst, via), r}
}

// hostAddr asks for an address without a subnet. Nobody else is on the link, so
// an IPv6 address needs no detection of duplicates.
func hostAddr(index int, addr netip.Addr) request {
	r := nl.NewNetlinkRequest(unix.RTM_NEWADDR, replace)
	head := nl.NewIfAddrmsg(familyOf(addr))
	head.Prefixlen = uint8(addr.BitLen())
	head.Index = uint32(index)
	if addr.Is6() {
		head.IfAddrmsg.Flags = unix.IFA_F_NODAD
	}
	r.AddData(head)
	r.AddData(nl.NewRtAttr(unix.IFA_LOCAL, addr.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()))
	return request{fmt.Sprintf("add address %v", addr), r}
}

// localRoute reports whether packets to addr stay in the namespace: whether an
// address that was added is in use.
func (s rtnl) localRoute(addr netip.Addr) bool {
	r := nl.NewNetlinkRequest(unix.RTM_GETROUTE, 0)
	r.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(familyOf(addr)), Dst_len: uint8(addr.BitLen())}})
	r.AddData(nl.NewRtAttr(unix.RTA_DST, addr.AsSlice()))
	if unix.Sendto(s.fd, r.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return false
	}
	buf := make([]byte, 8<<10)
	n, _, err := unix.Recvfrom(s.fd, buf, 0)
	if err != nil {
		return false
	}
	answers, err := syscall.ParseNetlinkMessage(buf[:n])
	if err != nil || len(answers) == 0 || answers[0].Header.Type != unix.RTM_NEWROUTE || len(answers[0].Data) < unix.SizeofRtMsg {
		return false
	}
	return nl.DeserializeRtMsg(answers[0].Data).Type == unix.RTN_LOCAL
}
