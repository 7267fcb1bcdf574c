package cni

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// assign is ADD in the role of an IPAM plugin: addresses, no interface.
func (c *call) assign(ctx context.Context) error {
	if err := c.resolve(); err != nil {
		return err
	}
	if err := c.queue.Settle(ctx, c.attachment(), c.agent.Del); err != nil {
		return err
	}
	got, err := c.agent.Add(ctx, c.req)
	if err != nil {
		if errors.Is(err, rpc.ErrLost) { // it may have assigned
			err = errors.Join(err, c.tellOrQueue(ctx, c.delRequest()))
		}
		return err
	}
	// The runtime's plugin gets each address as the agent has it, with its block's
	// length, and the same again as a route: so does Calico's.
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	for _, a := range got.Addrs {
		r.IPs = append(r.IPs, &types100.IPConfig{Address: *ipNet(a)})
		r.Routes = append(r.Routes, &types.Route{Dst: *ipNet(a)})
	}
	return c.printResult(r)
}

// release is DEL in the role of an IPAM plugin.
func (c *call) release(ctx context.Context) error { return c.tellOrQueue(ctx, c.delRequest()) }

// checkAssigned is CHECK in the role of an IPAM plugin.
func (c *call) checkAssigned(ctx context.Context) error {
	prev, err := c.conf.previous()
	if err != nil {
		return err
	}
	addrs, err := prevAddrs(prev)
	if err != nil {
		return err
	}
	return c.agent.Check(ctx, rpc.CheckRequest{Attachment: c.attachment(), Workload: c.req.Workload, Addrs: addrs, AddressesOnly: true})
}
