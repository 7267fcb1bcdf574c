package allocator_test

import (
	"encoding/json"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
)

// tunnel is one sort of tunnel address of a node.
type tunnel struct {
	name, kind string // of the handle and in its attributes
	v6         bool
	wants      func(*v3.Node, model.Pool) bool // whether the pool serves it
	field      func(*v3.Node) *string
}

// tunnels are in the order in which Calico gives them addresses.
func tunnels() []tunnel {
	always := func(m model.EncapMode) bool { return m == model.EncapAlways || m == model.EncapCrossSubnet }
	return []tunnel{
		{"wireguard", "wireguardTunnelAddress", false, func(n *v3.Node, _ model.Pool) bool {
			return n.Status.WireguardPublicKey != ""
		}, func(n *v3.Node) *string { return &n.Spec.Wireguard.InterfaceIPv4Address }},
		{"wireguard-v6", "wireguardV6TunnelAddress", true, func(n *v3.Node, _ model.Pool) bool {
			return n.Status.WireguardPublicKeyV6 != ""
		}, func(n *v3.Node) *string { return &n.Spec.Wireguard.InterfaceIPv6Address }},
		{
			"ipip", "ipipTunnelAddress", false, func(_ *v3.Node, p model.Pool) bool { return always(p.IPIP) },
			func(n *v3.Node) *string { return &n.Spec.BGP.IPv4IPIPTunnelAddr },
		},
		{
			"vxlan", "vxlanTunnelAddress", false, func(_ *v3.Node, p model.Pool) bool { return always(p.VXLAN) },
			func(n *v3.Node) *string { return &n.Spec.IPv4VXLANTunnelAddr },
		},
		{
			"vxlan-v6", "vxlanV6TunnelAddress", true, func(_ *v3.Node, p model.Pool) bool { return always(p.VXLAN) },
			func(n *v3.Node) *string { return &n.Spec.IPv6VXLANTunnelAddr },
		},
	}
}

// tunnels does what Calico's one-shot allocation of tunnel addresses does: an
// address for each tunnel that a pool asks for, none for the others.
func (r *replay) tunnels(id string, s step) {
	o, err := r.store.Get(r.Context(), model.Node{Name: s.Node}.Key())
	if err != nil {
		r.Fatal(err)
	}
	node := o.Object.(*v3.Node)
	if node.Spec.Wireguard == nil {
		node.Spec.Wireguard = &v3.NodeWireguardSpec{}
	}
	for _, tun := range tunnels() {
		r.tunnel(s.Node, node, tun)
	}
	if *node.Spec.Wireguard == (v3.NodeWireguardSpec{}) {
		node.Spec.Wireguard = nil
	}
	r.write(node)
	raw, err := json.Marshal(node.Spec)
	if err != nil {
		r.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		r.Fatal(err)
	}
	delete(spec, "addresses")
	r.compare(id+": node", s.NodeSpec, spec)
	r.compare(id+": handles", s.Handles, r.handles())
	r.adds++
}

func (r *replay) tunnel(name string, node *v3.Node, tun tunnel) {
	handle := tun.name + "-tunnel-addr-" + name
	field := tun.field(node)
	pools := r.poolsFor(node, tun)
	if *field != "" && len(pools) > 0 {
		return
	}
	*field = ""
	// Calico takes a new address when the node has lost its record of it.
	if _, err := r.on(name).Release(r.Context(), handle); err != nil {
		r.Fatal(err)
	}
	if len(pools) == 0 {
		return
	}
	req := allocator.Request{Request: ipam.Request{
		Use:    model.UseTunnel,
		Holder: model.Attribute{Handle: handle, Secondary: map[string]string{"node": name, "type": tun.kind}},
	}}
	if tun.v6 {
		req.V6 = ipam.Family{Count: 1, Pools: pools}
	} else {
		req.V4 = ipam.Family{Count: 1, Pools: pools}
	}
	res, err := r.on(name).Assign(r.Context(), req)
	if err != nil {
		r.Fatal(err)
	}
	*field = res.Addrs[0].Addr.String()
}

// poolsFor names the pools that a tunnel may have its address from.
func (r *replay) poolsFor(node *v3.Node, tun tunnel) []string {
	objects, err := r.store.List(r.Context(), model.KindIPPool, "")
	if err != nil {
		r.Fatal(err)
	}
	var names []string
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		if err != nil {
			r.Fatal(err)
		}
		p := v.(model.Pool)
		if p.CIDR.Addr().Is6() == tun.v6 && p.Uses.Has(model.UseTunnel) && !p.Disabled && tun.wants(node, p) {
			names = append(names, p.Name)
		}
	}
	return names
}
