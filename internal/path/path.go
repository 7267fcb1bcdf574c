// Package path says by which way a packet travels: which route it takes on the node it comes
// from, through which tunnel or with which encryption, under which source address, and
// how it ends on the node of its destination.
//
//	model.World ─► route.PathFrom ─┐
//	            ─► wireguard ──────┼─► Trace ─► hops, for `weft explain`
//	            ─► edge.Translate ─┘
//
// It is made of what the deciders say, so it is what the nodes are told to do; whether
// each of them does is what `weft node status` says there. What BGP told them is not in the
// datastore; here every node is taken to know what a full mesh would tell it.
//
// It is deliberately not policy, which says whether the packet may travel at all.
//
// Invariant: nothing here decides; a hop is a decider's answer in words.
package path

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/wireguard"
)

// Query asks for the way of a packet.
type Query struct {
	Packet plan.Packet
	// From and To are the nodes of source and destination; empty: outside of the cluster.
	From, To string
	// Env is what the agent of a node is set to beside the datastore, the strongest first;
	// nil: nothing.
	Env func(node string) []model.FelixConfig
	// NoBGP says that no node learns routes (CALICO_NETWORKING_BACKEND=vxlan).
	NoBGP bool
}

// Hop is what one node does with the packet.
type Hop struct {
	Node string `json:"node"`
	// Route is the line of `ip route`; empty: none of ours leads there.
	Route   string `json:"route,omitempty"`
	Device  string `json:"device,omitempty"`  // empty: the node's own routes say which
	NextHop string `json:"nextHop,omitempty"` // the gateway; empty: the destination itself
	// Encapsulation is none, ipip, vxlan or wireguard.
	Encapsulation string `json:"encapsulation"`
	OuterSource   string `json:"outerSource,omitempty"`
	OuterTarget   string `json:"outerDestination,omitempty"`
	NAT           string `json:"nat,omitempty"` // what becomes of the source address, and why; empty: it stays
	MTU           int    `json:"mtu,omitempty"` // bytes; 0: not known
	Note          string `json:"note,omitempty"`
}

// Trace is the way of a packet, a hop for each node of the cluster that it passes.
func Trace(w model.World, q Query) []Hop {
	t := tracer{w, q}
	var hops []Hop
	if q.From != "" {
		hops = append(hops, t.leave())
	}
	if q.To == "" && len(hops) == 1 && hops[0].Route != "" {
		t.To = t.nodeAt(hops[0]) // nobody has the address, but its block is somewhere
	}
	if t.To != "" && t.To != q.From {
		hops = append(hops, t.arrive())
	}
	return hops
}

// nodeAt is the node that a hop leads to; empty: none.
func (t tracer) nodeAt(h Hop) string {
	target := h.NextHop
	if h.OuterTarget != "" {
		target = h.OuterTarget
	}
	at, err := netip.ParseAddr(target)
	if err != nil { // WireGuard's has a port
		var port netip.AddrPort
		port, err = netip.ParseAddrPort(target)
		at = port.Addr()
	}
	for _, v := range t.world {
		if n, ok := v.(model.Node); ok && err == nil && n.Addr(at.Is6()).Addr() == at {
			return n.Name
		}
	}
	return ""
}

// tracer answers one query.
type tracer struct {
	world model.World
	Query
}

func (t tracer) options(node string) route.Options {
	o := route.Options{Node: node, NoBGP: t.NoBGP}
	if t.Env != nil {
		o.Env = t.Env(node)
	}
	return o
}

func (t tracer) node(name string) model.Node {
	n, _ := t.world[model.Node{Name: name}.Key()].(model.Node)
	n.Name = name
	return n
}

// leave is the hop on the source's node.
func (t tracer) leave() Hop {
	h := t.hop(t.From)
	if !t.encrypt(&h) {
		if p, ok := route.PathFrom(t.options(t.From), t.world, t.Packet.Dst); ok {
			t.describe(&h, p)
		} else {
			t.foreign(&h)
		}
	}
	t.translate(&h)
	return h
}

// arrive is the hop on the destination's node.
func (t tracer) arrive() Hop {
	h := t.hop(t.To)
	if p, ok := route.PathFrom(t.options(t.To), t.world, t.Packet.Dst); ok {
		t.describe(&h, p)
	} else {
		h.Note = "an address of the node itself"
	}
	return h
}

func (t tracer) hop(node string) Hop { return Hop{Node: node, Encapsulation: "none"} }

// describe says what a route does with the packet.
func (t tracer) describe(h *Hop, p route.Path) {
	h.Route, h.Device = p.Route.IPRoute(), p.Route.Link
	for gateway := range p.Route.Via.All() {
		h.NextHop = gateway.String()
	}
	self := t.node(h.Node)
	switch {
	case p.Device.Name != "":
		h.Encapsulation, h.MTU = p.Device.Kind.String(), p.Device.MTU
		h.OuterSource, h.OuterTarget = text(p.From), text(p.To)
	case p.Route.Type == plan.Blackhole:
		h.Note = "the node drops it: the address is of its own block, and nobody has it"
	case h.Device != "":
		h.MTU = t.podMTU(h.Node)
	default:
		h.MTU = self.MTU
		t.uplink(h, p.Route)
	}
}

// uplink names the device of a route that has only its gateways, and says where BGP may
// have told the node another one.
func (t tracer) uplink(h *Hop, r plan.Route) {
	self, v6 := t.node(h.Node), r.Dst.Addr().Is6()
	near := true
	for gateway := range r.Via.All() {
		near = near && self.Addr(v6).Masked().Contains(gateway)
	}
	switch {
	case !near:
		h.Note = "if BGP tells it, as a full mesh does; the gateway is reached by the node's own routes"
		return
	case !t.encapsulates(r.Dst) && !t.meshed():
		h.Note = "the node's BGP peers tell the gateway: nodeToNodeMeshEnabled is false; a full mesh would tell this one"
	}
	if r.Link = self.LinkOf(v6); r.Link != "" {
		h.Route, h.Device = r.IPRoute(), r.Link
	}
}

// encapsulates reports whether a block is of a pool whose routes come from the datastore.
func (t tracer) encapsulates(block netip.Prefix) bool {
	var best model.Pool
	for _, v := range t.world {
		if p, ok := v.(model.Pool); ok && p.CIDR.Contains(block.Addr()) && (best.Name == "" || p.CIDR.Bits() > best.CIDR.Bits()) {
			best = p
		}
	}
	never := func(m model.EncapMode) bool { return m == "" || m == model.EncapNever }
	return !never(best.IPIP) || !never(best.VXLAN)
}

// meshed reports whether nodes tell each other their routes.
func (t tracer) meshed() bool {
	c, _ := t.world[model.BGPConfig{Name: "default"}.Key()].(model.BGPConfig)
	return c.Mesh == nil || *c.Mesh
}

// foreign describes a way that none of our routes says. Which device it leads to is known
// where the destination is in the node's own subnet, or there is one device only.
func (t tracer) foreign(h *Hop) {
	self, dst := t.node(h.Node), t.Packet.Dst
	v6 := dst.Is6()
	to := t.node(t.To)
	switch {
	case t.To == h.Node:
		h.Note = "an address of the node itself"
		return
	case t.To != "" && dst != to.Addr(v6).Addr() && !slices.ContainsFunc(to.Links, func(l model.NodeLink) bool { return slices.Contains(l.Addrs, dst) }):
		h.Note = fmt.Sprintf("no route of the cluster leads to %v: no block that has it is known with its node's addresses", dst)
		return
	}
	h.Note, h.MTU = "the node's own routes lead there", self.MTU
	var links []string
	for _, l := range self.Links {
		if slices.ContainsFunc(l.Addrs, func(a netip.Addr) bool { return a.Is6() == v6 }) {
			links = append(links, l.Name)
		}
	}
	switch {
	case self.Addr(v6).Masked().Contains(dst):
		h.Device = self.LinkOf(v6)
	case len(links) == 1:
		h.Device = links[0]
	}
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// podMTU is that of workloads' links of a node; 0: not known.
func (t tracer) podMTU(node string) int {
	g := route.NewGraph(t.options(node))
	g.SetUnderlay(route.Underlay{MTU: t.node(node).MTU})
	g.Step(model.Batch{Reset: true, Synced: true, Puts: slices.Collect(maps.Values(t.world))})
	return g.PodMTU()
}

// encrypt says what WireGuard does with the packet; false: nothing.
func (t tracer) encrypt(h *Hop) bool {
	self, dst := t.node(t.From), t.Packet.Dst
	o := wireguard.Options{Node: t.From, Env: t.options(t.From).Env}
	n, _ := wireguard.Compile(o, t.world, self.MTU, wireguard.RecordKeys(o, t.world))
	r, ok := longest(n, dst)
	switch {
	case !ok || r.Type == plan.Throw:
		return false
	case r.Type == plan.Blackhole:
		h.Route, h.Note = r.IPRoute(), "the node drops it: it would leave in clear (wireguardCleartext: Drop)"
		return true
	}
	h.Route, h.Device, h.Encapsulation = r.IPRoute(), r.Link, plan.WireGuard.String()
	h.MTU = n.Devices[r.Link].MTU
	for k, peer := range n.Peers {
		if k.Link == r.Link && slices.ContainsFunc(slices.Collect(peer.Allowed.All()), func(p netip.Prefix) bool { return p == r.Dst }) {
			h.OuterSource, h.OuterTarget = text(self.Addr(peer.Endpoint.Addr().Is6()).Addr()), peer.Endpoint.String()
		}
	}
	return true
}

// longest is the route to a in the tables that rules lead to before the main one.
func longest(n plan.Node, a netip.Addr) (plan.Route, bool) {
	var best plan.Route
	found := false
	for k, attrs := range n.Routes {
		if k.Table != plan.TableMain && k.Dst.Contains(a) && (!found || k.Dst.Bits() > best.Dst.Bits()) {
			best, found = plan.Route{RouteKey: k, RouteAttrs: attrs}, true
		}
	}
	return best, found
}

// translate says what becomes of the source address on the way out.
func (t tracer) translate(h *Hop) {
	p := t.Packet
	p.OutLink = h.Device
	p.SrcLocal = p.Src == t.node(t.From).Addr(p.Src.Is6()).Addr()
	if t.To == t.From {
		return // it does not leave
	}
	o := edge.Options{Node: t.From, Env: t.options(t.From).Env}
	if tr := edge.Translate(o, t.world, p); tr.Verdict != plan.Continue {
		h.NAT = tr.Text
	}
}

// Text prints hops for people.
func Text(hops []Hop) string {
	var b strings.Builder
	b.WriteString("path\n")
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for _, h := range hops {
		first := h.Route
		if first == "" {
			first = h.Note
		}
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", h.Node, first)
		for _, line := range h.details() {
			_, _ = fmt.Fprintf(w, "  \t%s\n", line)
		}
	}
	_ = w.Flush()
	return b.String()
}

// details are the lines below the route.
func (h Hop) details() []string {
	var out []string
	var parts []string
	if h.Route == "" && h.Device != "" {
		parts = append(parts, "dev "+h.Device)
	}
	if h.Encapsulation != "none" {
		part := h.Encapsulation
		if h.OuterTarget != "" {
			part += fmt.Sprintf(", %s to %s", h.OuterSource, h.OuterTarget)
		}
		parts = append(parts, part)
	}
	if h.MTU != 0 {
		parts = append(parts, fmt.Sprintf("MTU %d", h.MTU))
	}
	if len(parts) > 0 {
		out = append(out, strings.Join(parts, "; "))
	}
	if h.NAT != "" {
		out = append(out, "NAT: "+h.NAT)
	}
	if h.Route != "" && h.Note != "" {
		out = append(out, h.Note)
	}
	return out
}
