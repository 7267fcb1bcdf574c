package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// check compares the attachment with the result of its ADD.
func (c *call) check(ctx context.Context) error {
	prev, err := c.conf.previous()
	if err != nil {
		return err
	}
	v := veth{host: c.req.Endpoint.HostLink, name: c.cmd.IfName}
	for _, i := range prev.Interfaces {
		switch {
		case i.Sandbox == "" && strings.EqualFold(i.Mac, hostMAC):
			v.host = i.Name
		case i.Sandbox != "" && i.Name == v.name:
			v.mac = strings.ToLower(i.Mac)
		}
	}
	addrs, err := prevAddrs(prev)
	if err != nil {
		return err
	}
	if v.ns, err = openNetns(c.cmd.Netns); err != nil {
		return err
	}
	defer v.ns.close()
	nl, err := hostHandle()
	if err != nil {
		return err
	}
	defer nl.Close()
	brings := c.bringsAddrs(ctx)
	errs := []error{
		v.checkHost(nl),
		v.ns.doNL(func(nl *netlink.Handle) error { return v.checkPod(nl, addrs, c.routes()) }),
		c.agent.Check(ctx, rpc.CheckRequest{Attachment: c.attachment(), Workload: c.req.Workload, HostLink: v.host, Addrs: addrs, Given: brings || c.conf.delegates()}),
	}
	if c.conf.delegates() && c.conf.IPAM.Type != "" && !brings {
		errs = append(errs, c.delegateCheck(ctx))
	}
	return errors.Join(errs...)
}

// bringsAddrs reports whether the pod brought its addresses itself, so that no IPAM
// plugin knows of them.
func (c *call) bringsAddrs(ctx context.Context) bool {
	if c.resolve() != nil || len(c.req.Endpoint.Given) > 0 || c.req.Orchestrator != rpc.Kubernetes {
		return len(c.req.Endpoint.Given) > 0
	}
	r := c.req
	r.Preview = true
	got, err := c.agent.Add(ctx, r)
	return err == nil && len(got.Addrs) > 0
}

func checkError(format string, args ...any) error {
	return &rpc.Error{Code: rpc.CodeCheck, Msg: "check: " + fmt.Sprintf(format, args...)}
}

// addrsText prints a list of addresses for messages.
func addrsText(addrs []netip.Addr) string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	return strings.Join(s, ", ")
}

// previous is the result of the ADD, which the runtime hands to CHECK.
func (c *config) previous() (*types100.Result, error) {
	if len(c.PrevResult) == 0 || bytes.Equal(c.PrevResult, []byte("null")) {
		return nil, confError("prevResult: missing; CHECK needs the result of ADD")
	}
	raw, err := version.NewResult(c.CNIVersion, c.PrevResult)
	if err != nil {
		return nil, confError("prevResult: %v", err)
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return nil, confError("prevResult: %v", err)
	}
	return result, nil
}

// prevAddrs are the addresses of a result.
func prevAddrs(r *types100.Result) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, ip := range r.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, confError("prevResult: %q: not an IP address", ip.Address.IP)
		}
		out = append(out, addr.Unmap())
	}
	return out, nil
}

// checkHost compares the node's end.
func (v veth) checkHost(nl *netlink.Handle) error {
	host, err := linkByName(nl, v.host)
	switch {
	case err != nil:
		return err
	case host == nil:
		return checkError("link %s: missing on the node", v.host)
	case host.Type() != "veth":
		return checkError("link %s: is a %s, want a veth", v.host, host.Type())
	case host.Attrs().Flags&net.FlagUp == 0:
		return checkError("link %s: is down", v.host)
	case host.Attrs().HardwareAddr.String() != hostMAC:
		return checkError("link %s: has the address %v, want %s", v.host, host.Attrs().HardwareAddr, hostMAC)
	}
	return nil
}

// checkPod compares the container's end; nl is of the container's namespace.
func (v veth) checkPod(nl *netlink.Handle, addrs []netip.Addr, routes []netip.Prefix) error {
	link, err := linkByName(nl, v.name)
	switch {
	case err != nil:
		return err
	case link == nil:
		return checkError("link %s: missing in %s", v.name, v.ns.path)
	case link.Attrs().Flags&net.FlagUp == 0:
		return checkError("link %s: is down", v.name)
	case v.mac != "" && link.Attrs().HardwareAddr.String() != v.mac:
		return checkError("link %s: has the address %v, want %s", v.name, link.Attrs().HardwareAddr, v.mac)
	}
	var f families
	for _, a := range addrs {
		f.v4, f.v6 = f.v4 || a.Is4(), f.v6 || a.Is6()
	}
	errs := []error{checkAddrs(nl, link, addrs)}
	for _, gateway := range f.gateways() {
		errs = append(errs, checkNeighbor(nl, link, gateway), checkRoutes(nl, link, gateway, routes))
	}
	return errors.Join(errs...)
}

func checkAddrs(nl *netlink.Handle, link netlink.Link, want []netip.Addr) error {
	list, err := nl.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	have := map[netip.Addr]bool{}
	for _, a := range list {
		addr, _ := netip.AddrFromSlice(a.IP)
		have[addr.Unmap()] = true
	}
	var missing []netip.Addr
	for _, a := range want {
		if !have[a] {
			missing = append(missing, a)
		}
	}
	if len(missing) > 0 {
		return checkError("link %s: has no address %s", link.Attrs().Name, addrsText(missing))
	}
	return nil
}

func checkNeighbor(nl *netlink.Handle, link netlink.Link, gateway netip.Addr) error {
	list, err := nl.NeighList(link.Attrs().Index, familyOf(gateway))
	if err != nil {
		return err
	}
	for _, n := range list {
		if addr, _ := netip.AddrFromSlice(n.IP); addr.Unmap() == gateway {
			if n.State&netlink.NUD_PERMANENT == 0 || n.HardwareAddr.String() != hostMAC {
				return checkError("link %s: neighbour %v is not permanent with %s", link.Attrs().Name, gateway, hostMAC)
			}
			return nil
		}
	}
	return checkError("link %s: has no neighbour %v", link.Attrs().Name, gateway)
}

func checkRoutes(nl *netlink.Handle, link netlink.Link, gateway netip.Addr, want []netip.Prefix) error {
	list, err := nl.RouteList(link, familyOf(gateway))
	if err != nil {
		return err
	}
	have := map[netip.Prefix]bool{}
	for _, r := range list {
		if via, _ := netip.AddrFromSlice(r.Gw); via.Unmap() == gateway {
			have[prefixOf(r.Dst, gateway)] = true
		}
	}
	for _, dst := range want {
		if dst.Addr().Is4() == gateway.Is4() && !have[dst.Masked()] {
			return checkError("link %s: has no route %v via %v", link.Attrs().Name, dst, gateway)
		}
	}
	return nil
}

// prefixOf is a route's destination; nil means everything of the gateway's family.
func prefixOf(dst *net.IPNet, gateway netip.Addr) netip.Prefix {
	if dst == nil {
		if gateway.Is4() {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	addr, _ := netip.AddrFromSlice(dst.IP)
	bits, _ := dst.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
