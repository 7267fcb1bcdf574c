package cni_test

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/cni/rpc"
)

func TestCheckFindsEachBreakage(t *testing.T) {
	t.Parallel()
	const conf = `{"name":"k8s-pod-network","cniVersion":"1.1.0","type":"calico","ipam":{"type":"calico-ipam","assign_ipv6":"true"}}`
	mac := func(s string) net.HardwareAddr { m, _ := net.ParseMAC(s); return m }
	for name, tt := range map[string]struct {
		pod, node func(l netlink.Link) error // what to break, on either end
		agent     bool                       // forget the endpoint
		text      string
	}{
		"whole":        {},
		"down":         {pod: netlink.LinkSetDown, text: "link eth0: is down"},
		"other mac":    {pod: func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, mac("02:00:00:00:00:01")) }, text: "has the address 02:00:00:00:00:01"},
		"no address":   {pod: delAddr("10.65.0.1/32"), text: "has no address 10.65.0.1"},
		"no v6":        {pod: delAddr("fd00::1/128"), text: "has no address fd00::1"},
		"no default":   {pod: delRoute("0.0.0.0/0"), text: "has no route 0.0.0.0/0 via 169.254.1.1"},
		"no default 6": {pod: delRoute("::/0"), text: "has no route ::/0 via fe80::ecee:eeff:feee:eeee"},
		"no neighbour": {pod: delNeigh("169.254.1.1"), text: "has no neighbour 169.254.1.1"},
		"host down":    {node: netlink.LinkSetDown, text: "link cali0d7763386da: is down"},
		"no links":     {node: netlink.LinkDel, text: "link cali0d7763386da: missing on the node; check: link eth0: missing"},
		"no endpoint":  {agent: true, text: "no endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			p := n.pod("web-0")
			conf := with(conf, "prevResult="+n.mustRun("calico", "ADD", conf, p))
			if tt.pod != nil {
				p.ns.MustDo(func() error { return onLink("eth0", tt.pod) })
			}
			if tt.node != nil {
				n.ns.MustDo(func() error { return onLink("cali0d7763386da", tt.node) })
			}
			if tt.agent {
				_ = n.agent.Del(t.Context(), rpc.DelRequest{Attachment: n.agent.asked(p.container).Attachment})
			}
			switch {
			case tt.text == "":
				n.mustRun("calico", "CHECK", conf, p)
			case tt.agent:
				n.refused("calico", "CHECK", conf, p, 3, tt.text)
			default:
				n.refused("calico", "CHECK", conf, p, 101, tt.text)
			}
		})
	}
}

func onLink(name string, f func(netlink.Link) error) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return f(l)
}

func delAddr(s string) func(netlink.Link) error {
	return func(l netlink.Link) error {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		return netlink.AddrDel(l, a)
	}
}

func delRoute(s string) func(netlink.Link) error {
	return func(l netlink.Link) error {
		_, dst, err := net.ParseCIDR(s)
		if err != nil {
			return err
		}
		return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst})
	}
}

func delNeigh(s string) func(netlink.Link) error {
	return func(l netlink.Link) error {
		return netlink.NeighDel(&netlink.Neigh{LinkIndex: l.Attrs().Index, IP: net.ParseIP(s)})
	}
}
