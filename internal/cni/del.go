package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// delRequest asks for all of the attachment back.
func (c *call) delRequest() rpc.DelRequest {
	r := rpc.DelRequest{Attachment: c.attachment(), Workload: c.req.Workload, AddressesOnly: c.ipamOnly}
	if c.req.Endpoint != nil {
		r.HostLink = c.req.Endpoint.HostLink
	}
	return r
}

// tellOrQueue asks the agent; if there is none, the request waits on disk.
func (c *call) tellOrQueue(ctx context.Context, r rpc.DelRequest) error {
	err := c.agent.Del(ctx, r)
	if !unreachable(err) {
		return err
	}
	c.log.Warn("cni: the agent will carry this out when it is back", "err", err)
	if putErr := c.queue.Put(r); putErr != nil {
		return errors.Join(err, putErr)
	}
	return nil
}

// del detaches the container. It does all it can before it reports an error.
func (c *call) del(ctx context.Context) error {
	nl, err := hostHandle()
	if err != nil {
		return err
	}
	defer nl.Close()
	v := veth{host: c.req.Endpoint.HostLink, name: c.cmd.IfName, mac: c.req.Endpoint.MAC}
	r := c.delRequest()
	var inPod netlink.Link
	if c.cmd.Netns != "" {
		switch v.ns, err = openNetns(c.cmd.Netns); {
		case err == nil:
			defer v.ns.close()
			if inPod, r.HostIndex, err = v.ownEnds(nl); err != nil {
				return err
			}
		case !netnsGone(err):
			return err
		}
	}
	return errors.Join(c.detach(ctx, nl, v, inPod, r), c.delegatedDel(ctx))
}

// delegatedDel releases what another IPAM plugin gave.
func (c *call) delegatedDel(ctx context.Context) error {
	if !c.conf.delegates() || c.conf.IPAM.Type == "" {
		return nil
	}
	return c.delegateDel(ctx)
}

// ownEnds finds both ends of the attachment's pair; nil and 0 if there is none
// that is ours.
func (v veth) ownEnds(nl *netlink.Handle) (inPod netlink.Link, host int, err error) {
	inPod, _, err = v.find(nl)
	if err != nil || inPod == nil {
		return nil, 0, err
	}
	if l := v.peer(nl, inPod); l != nil {
		return inPod, l.Attrs().Index, nil
	}
	return nil, 0, nil
}

// detach asks the agent to take everything back and removes the pair. With an
// agent the pair is only set aside: the agent deletes it after its answer,
// because the kernel takes its time over that.
func (c *call) detach(ctx context.Context, nl *netlink.Handle, v veth, inPod netlink.Link, r rpc.DelRequest) error {
	err := c.agent.Del(ctx, r)
	if err == nil {
		if inPod == nil {
			return nil
		}
		return v.setAside(inPod)
	}
	if !unreachable(err) {
		return err
	}
	c.log.Warn("cni: the agent will carry this out when it is back", "err", err)
	if inPod != nil {
		if err := v.removeHost(nl); err != nil {
			return err
		}
	}
	r.HostIndex = 0
	if putErr := c.queue.Put(r); putErr != nil {
		return errors.Join(err, putErr)
	}
	return nil
}

// setAside takes the container's end down and gives it a name that no later ADD
// will find. The agent may have deleted it already.
func (v veth) setAside(inPod netlink.Link) error {
	return v.ns.doNL(func(nl *netlink.Handle) error {
		err := nl.LinkSetDown(inPod)
		if err == nil {
			err = nl.LinkSetName(inPod, fmt.Sprintf("weftdel%d", inPod.Attrs().Index))
		}
		if err == nil || isGone(err) {
			return nil
		}
		return fmt.Errorf("link %s: set aside: %w", v.name, err)
	})
}
