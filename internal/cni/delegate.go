package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// delegateAdd gets addresses from the IPAM plugin that the configuration names.
// What a complete interface of an earlier ADD has is kept: IPAM plugins refuse
// to serve a container twice.
func (c *call) delegateAdd(ctx context.Context, nl *netlink.Handle, v veth) ([]netip.Prefix, error) {
	inPod, ours, err := v.find(nl)
	if err != nil {
		return nil, err
	}
	if inPod != nil && ours {
		if addrs, err := v.addrs(); err != nil || (len(addrs) > 0 && v.whole(nl, inPod)) {
			return addrs, err
		}
		if err := c.delegateDel(ctx); err != nil { // of an ADD that did not finish
			return nil, err
		}
	}
	conf, err := c.delegateConf()
	if err != nil {
		return nil, err
	}
	raw, err := invoke.DelegateAdd(ctx, c.conf.IPAM.Type, conf, nil)
	if err != nil {
		return nil, fmt.Errorf("ipam %s: %w", c.conf.IPAM.Type, err)
	}
	addrs, err := delegatedAddrs(raw)
	if err != nil {
		_ = c.delegateDel(ctx) // the reason for failing is the one to report
		return nil, fmt.Errorf("ipam %s: %w", c.conf.IPAM.Type, err)
	}
	return addrs, nil
}

// delegatedAddrs are the addresses in another plugin's result: at most one of
// each family, IPv4 first.
func delegatedAddrs(raw types.Result) ([]netip.Prefix, error) {
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, ip := range result.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("%q in the result is not an IP address", ip.Address.IP)
		}
		bits, _ := ip.Address.Mask.Size()
		if len(ip.Address.Mask) == 16 && addr.Is4In6() {
			bits -= 96
		}
		out = append(out, netip.PrefixFrom(addr.Unmap(), bits))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the result has no address")
	}
	slices.SortStableFunc(out, func(a, b netip.Prefix) int { return a.Addr().BitLen() - b.Addr().BitLen() })
	return out, nil
}

// delegateConf is the configuration for the IPAM plugin: ours, with addresses
// that only an annotation asks for in the place where plugins look.
func (c *call) delegateConf() ([]byte, error) {
	if len(c.req.Address.Exact) == 0 {
		return c.cmd.StdinData, nil
	}
	var conf map[string]any
	if err := json.Unmarshal(c.cmd.StdinData, &conf); err != nil {
		return nil, confError("%v", err)
	}
	args, _ := conf["args"].(map[string]any)
	if args == nil {
		args = map[string]any{}
		conf["args"] = args
	}
	cni, _ := args["cni"].(map[string]any)
	if cni == nil {
		cni = map[string]any{}
		args["cni"] = cni
	}
	cni["ips"] = c.req.Address.Exact
	return json.Marshal(conf)
}

func (c *call) delegateDel(ctx context.Context) error {
	return c.delegate(invoke.DelegateDel(ctx, c.conf.IPAM.Type, c.cmd.StdinData, nil))
}

func (c *call) delegateCheck(ctx context.Context) error {
	return c.delegate(invoke.DelegateCheck(ctx, c.conf.IPAM.Type, c.cmd.StdinData, nil))
}

func (c *call) delegateStatus(ctx context.Context) error {
	return c.delegate(invoke.DelegateStatus(ctx, c.conf.IPAM.Type, c.cmd.StdinData, nil))
}

func (c *call) delegateGC(ctx context.Context) error {
	return c.delegate(invoke.DelegateGC(ctx, c.conf.IPAM.Type, c.cmd.StdinData, nil))
}

func (c *call) delegate(err error) error {
	if err != nil {
		return fmt.Errorf("ipam %s: %w", c.conf.IPAM.Type, err)
	}
	return nil
}

// addrs are the global addresses of the container's end.
func (v veth) addrs() (out []netip.Prefix, err error) {
	err = v.ns.do(func(nl *netlink.Handle) error {
		link, err := nl.LinkByName(v.name)
		if err != nil {
			return fmt.Errorf("link %s: %w", v.name, err)
		}
		list, err := nl.AddrList(link, netlink.FAMILY_ALL)
		for _, a := range list {
			if addr, ok := netip.AddrFromSlice(a.IP); ok && !addr.Unmap().IsLinkLocalUnicast() {
				out = append(out, single(addr.Unmap()))
			}
		}
		return err
	})
	return out, err
}
