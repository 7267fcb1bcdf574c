package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/store"
)

// recordPass is one pass over the record.
type recordPass struct {
	*tunnels
	pools    []model.Pool
	keep     bool // a pool can't be read: nothing is taken back
	problems []model.Problem
	mine     []netip.Addr
	hungry   bool
}

// settle makes the record and the addresses of one tunnel's handle right. When somebody
// else writes the record meanwhile, it is read again.
func (p *recordPass) settle(ctx context.Context, t allocator.Tunnel, wanted bool) error {
	for noted := len(p.problems); ; p.problems = p.problems[:noted] {
		err := p.settleOnce(ctx, t, wanted)
		if !errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

func (p *recordPass) settleOnce(ctx context.Context, t allocator.Tunnel, wanted bool) error {
	old, node, err := p.record(ctx)
	if node == nil {
		return err
	}
	if p.ofRange {
		return p.settleOfRange(ctx, t, wanted, old, node)
	}
	holder := t.Holder(p.node)
	held, err := p.alloc.Held(ctx, holder.Handle)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", holder.Handle, err)
	}
	fit := allocator.TunnelPools(t, p.pools, node.Labels)
	switch {
	case !wanted && p.keep, !wanted && tunnelAddr(node, t) == "" && len(held) == 0:
		return nil
	case !wanted:
		return p.giveBack(ctx, t, old, held)
	case len(held) == 1 && (p.keep || inAny(fit, held[0])):
		return p.name(ctx, t, old, held[0])
	case len(fit) == 0:
		return p.makeDo(ctx, t, old, held)
	}
	return p.acquire(ctx, t, old, held, fit)
}

// settleOfRange makes the record right where pods have addresses of their nodes' ranges: a
// tunnel has the first of this node's, which host-local keeps for a gateway and gives to no
// pod (as in Calico).
func (p *recordPass) settleOfRange(ctx context.Context, t allocator.Tunnel, wanted bool, old store.Object, node *v3.Node) error {
	addr, ok := firstOfRange(node.Status.PodCIDRs, t.V6())
	switch {
	case wanted && ok:
		return p.name(ctx, t, old, addr)
	case wanted:
		p.problem(nil, "%v: this node has no address for it: Kubernetes has given the node no range for pods of that family (spec.podCIDRs)", t)
		return nil
	}
	ops := withAddr(old, t, "")
	if ops == nil {
		return nil
	}
	_, err := p.store.Commit(ctx, ops...)
	return err
}

// firstOfRange is the first address after that of the network itself, of the first range of
// that family.
func firstOfRange(ranges []string, v6 bool) (netip.Addr, bool) {
	for _, text := range ranges {
		r, err := netip.ParsePrefix(text)
		if err != nil || r.Addr().Is6() != v6 {
			continue
		}
		if first := r.Masked().Addr().Next(); r.Contains(first) {
			return first, true
		}
	}
	return netip.Addr{}, false
}

// record reads this node's record; nil when there is none, or it is being deleted: who
// made it will make it again.
func (p *recordPass) record(ctx context.Context) (store.Object, *v3.Node, error) {
	o, err := p.store.Get(ctx, model.Node{Name: p.node}.Key())
	if errors.Is(err, store.ErrNotFound) {
		return o, nil, nil
	}
	if err != nil {
		return o, nil, err
	}
	node, ok := o.Object.(*v3.Node)
	if !ok {
		return o, nil, fmt.Errorf("node %s: got a %T", p.node, o.Object)
	}
	return o, node, nil
}

// giveBack takes the address out of the record and frees it.
func (p *recordPass) giveBack(ctx context.Context, t allocator.Tunnel, old store.Object, held []netip.Addr) error {
	_, err := p.alloc.Release(ctx, t.Holder(p.node).Handle, withAddr(old, t, "")...)
	if err == nil {
		p.log.Info("tunnel needs no address any more", "tunnel", t.String(), "addrs", held)
	}
	return err
}

// name makes the record say the address that the tunnel has.
func (p *recordPass) name(ctx context.Context, t allocator.Tunnel, old store.Object, addr netip.Addr) error {
	p.mine = append(p.mine, addr)
	ops := withAddr(old, t, addr.String())
	if ops == nil {
		return nil
	}
	_, err := p.store.Commit(ctx, ops...)
	return err
}

// makeDo is for a tunnel that no pool is for: an address of a pool that gives no new ones
// stays, another can't be kept.
func (p *recordPass) makeDo(ctx context.Context, t allocator.Tunnel, old store.Object, held []netip.Addr) error {
	var of []model.Pool
	for _, pool := range p.pools {
		if t.Serves(pool) {
			of = append(of, pool)
		}
	}
	p.problem(of, "%v: no pool gives this node an address for it: a pool of it must be enabled, overlap no other, have Tunnel among its allowedUses and a nodeSelector that selects this node", t)
	if len(held) == 1 && inAny(of, held[0]) || p.keep {
		if len(held) == 1 {
			return p.name(ctx, t, old, held[0])
		}
		return nil
	}
	if ops := withAddr(old, t, ""); ops != nil || len(held) > 0 {
		_, err := p.alloc.Release(ctx, t.Holder(p.node).Handle, ops...)
		return err
	}
	return nil
}

// acquire gets the tunnel an address of one of the pools, in place of those it has.
func (p *recordPass) acquire(ctx context.Context, t allocator.Tunnel, old store.Object, held []netip.Addr, pools []model.Pool) error {
	req := allocator.Request{Request: ipam.Request{Use: model.UseTunnel, Holder: t.Holder(p.node)}}
	family := ipam.Family{Count: 1}
	for _, pool := range pools {
		family.Pools = append(family.Pools, pool.Name)
	}
	if t.V6() {
		req.V6 = family
	} else {
		req.V4 = family
	}
	req.Extra = func(addrs []ipam.Assigned) ([]store.Op, error) {
		return withAddr(old, t, addrs[0].Addr.String()), nil
	}
	got, err := p.alloc.Move(ctx, req)
	var exhausted *ipam.ExhaustedError
	switch {
	case errors.As(err, &exhausted):
		p.hungry = true
		p.problem(pools, "%v: this node has no address for it: %v: release addresses, or create another pool of it", t, err)
		if len(held) == 1 {
			return p.name(ctx, t, old, held[0])
		}
		return nil
	case err != nil:
		return err
	}
	addr := got.Addrs[0].Addr
	p.mine = append(p.mine, addr)
	p.log.Info("tunnel has a new address", "tunnel", t.String(), "addr", addr, "pool", got.Addrs[0].Pool, "before", held)
	return nil
}

// problem notes what ails a tunnel, at the first of the pools it concerns, else at the node.
func (p *recordPass) problem(pools []model.Pool, format string, args ...any) {
	key := model.Node{Name: p.node}.Key()
	if len(pools) > 0 {
		key = pools[0].Key()
	}
	p.problems = append(p.problems, model.Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func inAny(pools []model.Pool, a netip.Addr) bool {
	return slices.ContainsFunc(pools, func(p model.Pool) bool { return p.CIDR.Contains(a) })
}

// tunnelAddr is what the record says of a tunnel; empty: nothing.
func tunnelAddr(n *v3.Node, t allocator.Tunnel) string {
	switch {
	case t == allocator.IPIP && n.Spec.BGP != nil:
		return n.Spec.BGP.IPv4IPIPTunnelAddr
	case t == allocator.VXLAN:
		return n.Spec.IPv4VXLANTunnelAddr
	case t == allocator.VXLAN6:
		return n.Spec.IPv6VXLANTunnelAddr
	case t == allocator.WireGuard && n.Spec.Wireguard != nil:
		return n.Spec.Wireguard.InterfaceIPv4Address
	case t == allocator.WireGuard6 && n.Spec.Wireguard != nil:
		return n.Spec.Wireguard.InterfaceIPv6Address
	}
	return ""
}

// withAddr is the write that makes the record say addr of a tunnel; nil: it does.
func withAddr(old store.Object, t allocator.Tunnel, addr string) []store.Op {
	stored := old.Object.(*v3.Node)
	if tunnelAddr(stored, t) == addr {
		return nil
	}
	n := *stored
	switch t {
	case allocator.IPIP:
		var bgp v3.NodeBGPSpec
		if n.Spec.BGP != nil {
			bgp = *n.Spec.BGP
		}
		bgp.IPv4IPIPTunnelAddr = addr
		if n.Spec.BGP = &bgp; bgp == (v3.NodeBGPSpec{}) {
			n.Spec.BGP = nil
		}
	case allocator.VXLAN:
		n.Spec.IPv4VXLANTunnelAddr = addr
	case allocator.VXLAN6:
		n.Spec.IPv6VXLANTunnelAddr = addr
	default:
		var wg v3.NodeWireguardSpec
		if n.Spec.Wireguard != nil {
			wg = *n.Spec.Wireguard
		}
		if t.V6() {
			wg.InterfaceIPv6Address = addr
		} else {
			wg.InterfaceIPv4Address = addr
		}
		if n.Spec.Wireguard = &wg; wg == (v3.NodeWireguardSpec{}) {
			n.Spec.Wireguard = nil
		}
	}
	return []store.Op{{Verb: store.Update, Object: old.With(&n)}}
}

// describe makes the record say the hardware addresses of the VXLAN devices, the public
// keys of the WireGuard devices, and the MTU.
// A hardware address that is there stays, since others may know it; ours goes with the
// device.
func (p *recordPass) describe(ctx context.Context, want route.Tunnels, mtu int, keys [2]keyOfRecord) error {
	for {
		old, node, err := p.record(ctx)
		if node == nil {
			return err
		}
		n := *node
		n.ObjectMeta = *node.ObjectMeta.DeepCopy()
		p.mac(&n.Spec.VXLANTunnelMACAddr, want.VXLAN, false)
		p.mac(&n.Spec.VXLANTunnelMACAddrV6, want.VXLAN6, true)
		for i, field := range []*string{&n.Status.WireguardPublicKey, &n.Status.WireguardPublicKeyV6} {
			if keys[i].known {
				*field = keys[i].text
			}
		}
		if text := strconv.Itoa(mtu); mtu > 0 && n.Annotations[model.MTUAnnotation] != text {
			if n.Annotations == nil {
				n.Annotations = map[string]string{}
			}
			n.Annotations[model.MTUAnnotation] = text
		}
		if n.Spec.VXLANTunnelMACAddr == node.Spec.VXLANTunnelMACAddr && n.Spec.VXLANTunnelMACAddrV6 == node.Spec.VXLANTunnelMACAddrV6 &&
			n.Status.WireguardPublicKey == node.Status.WireguardPublicKey && n.Status.WireguardPublicKeyV6 == node.Status.WireguardPublicKeyV6 &&
			n.Annotations[model.MTUAnnotation] == node.Annotations[model.MTUAnnotation] {
			return nil
		}
		_, err = p.store.Commit(ctx, store.Op{Verb: store.Update, Object: old.With(&n)})
		if !errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

func (p *recordPass) mac(field *string, wanted, v6 bool) {
	ours := model.VTEPMAC(p.node, v6)
	switch {
	case wanted && *field == "":
		*field = ours
	case !wanted && *field == ours && !p.keep:
		*field = ""
	}
}
