package allocator

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Tunnel is a tunnel for which a node needs an address of its own.
type Tunnel uint8

// The tunnels, in the order in which Calico gives them addresses.
const (
	WireGuard Tunnel = iota
	WireGuard6
	IPIP
	VXLAN
	VXLAN6
)

// Tunnels are all of them.
func Tunnels() []Tunnel { return []Tunnel{WireGuard, WireGuard6, IPIP, VXLAN, VXLAN6} }

// String is the tunnel as problems name it.
func (t Tunnel) String() string {
	return [...]string{"WireGuard", "IPv6 WireGuard", "IPIP", "VXLAN", "IPv6 VXLAN"}[t]
}

// V6 reports whether its address is an IPv6 one.
func (t Tunnel) V6() bool { return t == WireGuard6 || t == VXLAN6 }

// Holder describes a node's tunnel as the holder of its address, as Calico does.
func (t Tunnel) Holder(node string) model.Attribute {
	name := [...]string{"wireguard", "wireguard-v6", "ipip", "vxlan", "vxlan-v6"}[t]
	kind := [...]string{"wireguard", "wireguardV6", "ipip", "vxlan", "vxlanV6"}[t]
	return model.Attribute{
		Handle:    name + "-tunnel-addr-" + node,
		Secondary: map[string]string{"node": node, "type": kind + "TunnelAddress"},
	}
}

// Serves reports whether the pool is of the tunnel's family and encapsulation; WireGuard
// takes any.
func (t Tunnel) Serves(p model.Pool) bool {
	on := func(m model.EncapMode) bool { return m == model.EncapAlways || m == model.EncapCrossSubnet }
	switch {
	case p.CIDR.Addr().Is6() != t.V6():
		return false
	case t == IPIP:
		return on(p.IPIP)
	case t == VXLAN, t == VXLAN6:
		return on(p.VXLAN)
	}
	return true
}

// TunnelPools are those of pools that give an address to the tunnel of a node with these
// labels, by name.
func TunnelPools(t Tunnel, pools []model.Pool, labels map[string]string) []model.Pool {
	var out []model.Pool
	lost := ipam.Overlaps(pools)
	for _, p := range pools {
		switch {
		case !t.Serves(p), p.Disabled, p.Terminating, !p.Uses.Has(model.UseTunnel):
		case p.NodeSelector != nil && !p.NodeSelector.Matches(labels):
		case slices.ContainsFunc(lost, func(l model.Problem) bool { return l.Key == p.Key() }):
		default:
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b model.Pool) int { return compare(a.Name, b.Name) })
	return out
}

// Held reads which addresses a handle has; those of one that does not exist are none.
func (a *Allocator) Held(ctx context.Context, handle string) ([]netip.Addr, error) {
	v, err := read[model.Handle](ctx, a.loop.store, model.HandleKey(handle))
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for cidr := range v.Blocks {
		b, err := read[model.Block](ctx, a.loop.store, model.BlockKey(cidr))
		if err != nil {
			return nil, err
		}
		out = append(out, ipam.Held(b, handle)...)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

// read reads one object; the zero value if there is none.
func read[T model.Value](ctx context.Context, st store.Store, key model.Key) (T, error) {
	var zero T
	o, err := st.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return zero, nil
	}
	if err != nil {
		return zero, err
	}
	v, err := model.Parse(o.Object)
	if err != nil {
		return zero, fmt.Errorf("%v: %w", key, err)
	}
	return v.(T), nil
}

// Move frees what the handle of r has, and gives it what r asks for, in one transaction:
// when there is nothing for r it keeps what it has. Errors are those of Assign.
func (a *Allocator) Move(ctx context.Context, r Request) (Result, error) {
	c := &call{
		handle: r.Holder.Handle, extra: r.Extra,
		decide: func(v *ipam.View) (ipam.Change, error) { return move(v, r.Request) },
	}
	err := a.do(ctx, c)
	return Result{c.addrs, c.written}, err
}

func move(v *ipam.View, r ipam.Request) (ipam.Change, error) {
	freed, err := v.Release(r.Holder.Handle)
	if err != nil {
		return ipam.Change{}, err
	}
	after := v.Clone()
	after.Apply(freed)
	got, err := after.Assign(r)
	if err != nil {
		return ipam.Change{}, err
	}
	return freed.Then(got), nil
}

// BadPools reports whether Step told of a pool that can't be read, so that Pools may
// lack one.
func (a *Allocator) BadPools() bool {
	s := a.settings()
	return s != nil && s.badPools
}
