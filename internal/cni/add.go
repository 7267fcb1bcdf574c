package cni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// hostHandle is a netlink handle in the node's namespace.
func hostHandle() (*netlink.Handle, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	return nl, nil
}

// add attaches the container and prints the result.
func (c *call) add(ctx context.Context) error {
	if err := c.resolve(); err != nil {
		return err
	}
	v, err := c.veth()
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
	if err := c.queue.Settle(ctx, c.attachment(), c.agent.Del); err != nil {
		return err
	}
	result, err := c.attach(ctx, nl, v)
	if err != nil {
		return err
	}
	return c.printResult(result)
}

// veth is the pair that the configuration describes, without its namespace.
func (c *call) veth() (veth, error) {
	mtu, err := c.conf.mtu(c.mtuFile)
	e := c.req.Endpoint
	return veth{host: e.HostLink, name: c.cmd.IfName, mac: e.MAC, mtu: mtu, queues: c.conf.NumQueues}, err
}

// attach makes the interface and gets its addresses, both at once: the agent
// needs the link only when it has assigned. Where the host's link exists already
// it comes first. On an error both are undone.
func (c *call) attach(ctx context.Context, nl *netlink.Handle, v veth) (*types100.Result, error) {
	ranges, err := c.preview(ctx)
	if err != nil {
		return nil, err
	}
	delegated := c.conf.delegates() && len(c.req.Endpoint.Given) == 0
	if delegated {
		if c.conf.IPAM.Type == "" {
			return nil, confError("ipam.type: missing; calico-ipam, host-local or another IPAM plugin is wanted")
		}
		given, err := c.delegateAdd(ctx, nl, v, ranges)
		if err != nil {
			return nil, err
		}
		c.req.Endpoint.Given, c.req.Address, c.req.Delegated = given, rpc.AddressWish{}, true
	}
	before, err := linkByName(nl, v.host)
	if err != nil {
		return nil, errors.Join(err, c.undo(nl, v, false, delegated, rpc.ErrNoAgent))
	}
	kept := false
	if before != nil {
		// Of an earlier container, or of this one: what the agent has on it must not
		// pass for what it does for the new one.
		if kept, c.req.HostIndex, err = v.replace(nl); err != nil {
			return nil, errors.Join(err, c.undo(nl, v, kept, delegated, rpc.ErrNoAgent))
		}
	}
	answer := make(chan agentAnswer, 1)
	asking, withdraw := context.WithCancel(ctx)
	defer withdraw()
	go func() {
		r, err := c.agent.Add(asking, c.req)
		answer <- agentAnswer{r, err}
	}()
	if before == nil {
		kept, err = v.make(nl)
	}
	got := agentAnswer{}
	if err == nil {
		got, err = c.configure(v, kept, answer, withdraw)
	} else {
		withdraw()
		got = <-answer
	}
	if err != nil {
		return nil, errors.Join(err, c.undo(nl, v, kept, delegated, got.err))
	}
	if got.MAC != "" {
		v.mac = got.MAC
	}
	return c.result(v, got.Addrs), nil
}

// preview asks the agent what the pod's annotations say of addresses, and for the ranges
// of the node's pods: what an IPAM plugin of others must be told before it is asked.
func (c *call) preview(ctx context.Context) (ranges []netip.Prefix, err error) {
	if !c.conf.delegates() || len(c.req.Endpoint.Given) > 0 || c.req.Orchestrator != rpc.Kubernetes && !c.conf.usesPodCIDR() {
		return nil, nil
	}
	r := c.req
	r.Preview, r.PodCIDRs = true, c.conf.usesPodCIDR()
	got, err := c.agent.Add(ctx, r)
	if err != nil {
		return nil, err
	}
	if r.PodCIDRs && len(got.PodCIDRs) == 0 {
		return nil, &rpc.Error{Code: rpc.CodeTryLater, Msg: "agent: it does not know usePodCidr; it is of another version than this program"}
	}
	c.req.Address.Exact = got.Exact
	c.req.Endpoint.Given = got.Addrs
	return got.PodCIDRs, nil
}

// configure sets the container's end up while the agent works, waits for its
// answer, and does the rest. An error of the first part withdraws the request.
func (c *call) configure(v veth, kept bool, answer <-chan agentAnswer, withdraw func()) (got agentAnswer, err error) {
	answered, mtu := false, v.mtu
	err = v.ns.do(func() error {
		pod, err := dialRtnl()
		if err != nil {
			return err
		}
		defer pod.close()
		if err := v.prepare(pod, c.families(), c.routes(), c.conf.Container.AllowIPForwarding); err != nil {
			return err
		}
		got, answered = <-answer, true
		if got.err != nil {
			return got.err
		}
		if err := v.correct(pod, kept, got.MAC, c.families(), familiesOf(got.Addrs), c.routes(), c.conf.Container.AllowIPForwarding); err != nil {
			return err
		}
		if len(got.Addrs) == 0 {
			return &rpc.Error{Code: rpc.CodeNoAddress, Msg: "agent: no address was assigned; are assign_ipv4 and assign_ipv6 both off?"}
		}
		if c.conf.MTU == 0 && got.MTU != 0 { // the agent knows better than the file that it wrote
			mtu = got.MTU
		}
		return v.addAddrs(pod, got.Addrs, mtu)
	})
	if !answered {
		withdraw()
		got = <-answer
	}
	if err == nil && (kept || v.mtu != mtu) { // a new pair has what was known then
		err = v.setHostMTU(mtu)
	}
	return got, err
}

type agentAnswer struct {
	rpc.AddResponse
	err error
}

// families are those of the addresses that the container will have, as far as
// that is known before the agent answers.
func (c *call) families() families {
	f := familiesOf(c.req.Endpoint.Given)
	if len(c.req.Address.Exact) == 0 {
		f.v4, f.v6 = f.v4 || c.req.Address.IPv4, f.v6 || c.req.Address.IPv6
	}
	for _, a := range c.req.Address.Exact {
		f.v4, f.v6 = f.v4 || a.Is4(), f.v6 || a.Is6()
	}
	return f
}

// routes are the destinations that the container reaches through its gateway:
// those of the configuration's IPAM section, else everything.
func (c *call) routes() []netip.Prefix {
	var out []netip.Prefix
	if len(c.conf.IPAM.Routes) == 0 || c.conf.IncludeDefaultRoutes {
		out = append(out, netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	for _, r := range c.conf.IPAM.Routes {
		out = append(out, r.Dst)
	}
	return out
}

// undo takes back a failed ADD; asked is how the agent's own part went. A pair
// that was there before this ADD belongs to one that succeeded, and stays.
func (c *call) undo(nl *netlink.Handle, v veth, kept, delegated bool, asked error) error {
	if kept {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), rpc.Budget)
	defer cancel()
	var errs []error
	if inPod, ours, err := v.find(nl); err == nil && inPod != nil && ours {
		errs = append(errs, v.removeHost(nl))
	}
	if !errors.Is(asked, rpc.ErrNoAgent) {
		errs = append(errs, c.tellOrQueue(ctx, c.delRequest()))
	}
	if delegated {
		errs = append(errs, c.delegateDel(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("and to undo it: %w", err)
	}
	return nil
}

// result is what the runtime sees. Its addresses are the interface's own,
// without the prefix length of the block they came from.
func (c *call) result(v veth, addrs []netip.Prefix) *types100.Result {
	r := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: v.host, Mac: hostMAC},
			{Name: v.name, Mac: v.mac, Sandbox: v.ns.path},
		},
	}
	for _, a := range addrs {
		r.IPs = append(r.IPs, &types100.IPConfig{Interface: types100.Int(1), Address: *ipNet(single(a.Addr())), Gateway: gatewayOf(a.Addr())})
	}
	return r
}

// gatewayOf is the gateway of addr's family.
func gatewayOf(addr netip.Addr) net.IP {
	if addr.Is4() {
		return gateway4.AsSlice()
	}
	return gateway6.AsSlice()
}
