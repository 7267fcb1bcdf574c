package route

import (
	"net/netip"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// lookup is the route of n's main table that a packet to a takes: the longest prefix, then
// the lowest metric. It looks at every route, so it is for explaining, not for many packets.
func lookup(n plan.Node, a netip.Addr) (plan.Route, bool) {
	var best plan.Route
	found := false
	for k, attrs := range n.Routes {
		if k.Table != plan.TableMain || attrs.Type == plan.Throw || !k.Dst.Contains(a) {
			continue
		}
		better := k.Dst.Bits() > best.Dst.Bits() || k.Dst.Bits() == best.Dst.Bits() && k.Priority < best.Priority
		if !found || better {
			best, found = plan.Route{RouteKey: k, RouteAttrs: attrs}, true
		}
	}
	return best, found
}

// Path is how a node sends packets to an address.
type Path struct {
	Route plan.Route
	// Device is the tunnel; the zero one: none, and From and To are zero, too.
	Device   plan.Device
	From, To netip.Addr // of the outer packet: the two nodes; To is zero if n does not know the VTEP
}

// PathFrom says how the node o.Node sends packets to a in a world where each node learns
// from BGP what a full mesh would tell it; false if it has no route there. The underlay's MTU is
// what the node's record says.
func PathFrom(o Options, w model.World, a netip.Addr) (Path, bool) {
	self, _ := w[model.Node{Name: o.Node}.Key()].(model.Node)
	learned := map[netip.Prefix]bgp.Learned{}
	if !o.NoBGP {
		learned = Mesh(o.Node, w)
	}
	return pathTo(Compile(o, Underlay{MTU: self.MTU}, w, learned, nil), self, a)
}

// Mesh is what a full mesh would tell a node: where all other nodes' blocks, and addresses
// borrowed from blocks, are. It stands for what a speaker really learned where that is not
// known: for explaining.
func Mesh(node string, w model.World) map[netip.Prefix]bgp.Learned {
	out := map[netip.Prefix]bgp.Learned{}
	for p, at := range newCompiler(Options{Node: node}, Underlay{}, w).homes() {
		n, _ := w[model.Node{Name: at}.Key()].(model.Node)
		if to := n.Addr(p.Addr().Is6()); at != node && to.IsValid() {
			out[p] = bgp.Learned{Prefix: p, NextHops: []netip.Addr{to.Addr()}, Source: bgp.FromIBGP}
		}
	}
	return out
}

// pathTo says how a node whose plan is n and whose record is self sends packets to a; false
// if n has no route there.
func pathTo(n plan.Node, self model.Node, a netip.Addr) (Path, bool) {
	r, ok := lookup(n, a)
	p := Path{Route: r}
	if d, tunnel := n.Devices[r.Link]; ok && tunnel {
		p.Device = d
		for gateway := range r.Via.All() {
			switch d.Kind {
			case plan.IPIP:
				p.From, p.To = self.IPv4.Addr(), gateway
			case plan.VXLAN:
				p.From, p.To = d.Local, n.VTEPs[plan.VTEPKey{Link: d.Name, Addr: gateway}].Node
			}
		}
	}
	return p, ok
}
