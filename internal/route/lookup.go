package route

import (
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Lookup is the route of n's main table that a packet to a takes: the longest prefix, then
// the lowest metric. It looks at every route, so it is for explaining, not for many packets.
func Lookup(n plan.Node, a netip.Addr) (plan.Route, bool) {
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
	// Device is the tunnel; the zero one: none, and what follows is zero, too.
	Device   plan.Device
	From, To netip.Addr // of the outer packet: the two nodes; To is zero if n does not know the VTEP
}

// PathTo says how a node whose plan is n and whose record is self sends packets to a; false
// if n has no route there.
func PathTo(n plan.Node, self model.Node, a netip.Addr) (Path, bool) {
	r, ok := Lookup(n, a)
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
