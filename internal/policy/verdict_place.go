package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
)

// protoIPIP is IP in IP (RFC 2003).
const protoIPIP = 4

// UnknownError is an end of a query that the world does not know.
type UnknownError struct{ Key model.Key }

// Error implements error.
func (e *UnknownError) Error() string { return fmt.Sprintf("%v: there is no such object", e.Key) }

// resolve finds out who the two ends are, and their addresses.
func (w *walk) resolve() error {
	src, err := w.view.candidates(w.query.Src)
	if err != nil {
		return err
	}
	dst, err := w.view.candidates(w.query.Dst)
	if err != nil {
		return err
	}
	// Neighbours and pings of IPv6 are ICMPv6: the protocol may name the family.
	want := map[uint8]uint8{protoICMP: 4, protoICMPv6: 6}[w.query.Protocol]
	for _, a := range src {
		if i := slices.IndexFunc(dst, func(b netip.Addr) bool { return b.Is4() == a.Is4() }); i >= 0 && (want == 0 || want == family(a)) {
			w.src, w.dst = w.view.place(w.query.Src, a), w.view.place(w.query.Dst, dst[i])
			return nil
		}
	}
	if want != 0 {
		return fmt.Errorf("%s: the two ends must both have an IPv%d address", ProtocolName(w.query.Protocol), want)
	}
	return fmt.Errorf("the two ends have no addresses of one family: the source has %v, the destination %v", src, dst)
}

// candidates are the addresses that a party may have in the packet, in order of
// preference: IPv4 first.
func (v *View) candidates(p Party) ([]netip.Addr, error) {
	if p.Addr.IsValid() {
		if _, known := v.world[p.Key]; p.Key != (model.Key{}) && !known {
			return nil, &UnknownError{p.Key}
		}
		return []netip.Addr{p.Addr.Unmap()}, nil
	}
	var out []netip.Addr
	if o, ok := v.world[p.Key].(model.Node); ok {
		for _, n := range []netip.Prefix{o.IPv4, o.IPv6} {
			if n.IsValid() {
				out = append(out, n.Addr())
			}
		}
	} else if h, ok := v.Holder(p.Key); ok {
		for _, n := range h.Nets {
			out = append(out, n.Addr())
		}
	} else {
		return nil, &UnknownError{p.Key}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%v has no address: give one", p.Key)
	}
	slices.SortStableFunc(out, func(a, b netip.Addr) int { return int(family(a)) - int(family(b)) })
	return out, nil
}

// place is where a party with that address is: what is given by address only is
// whoever has it.
func (v *View) place(p Party, a netip.Addr) place {
	out := place{Party: Party{Key: p.Key, Addr: a}}
	if p.Key == (model.Key{}) || p.Key.Kind == model.KindNetworkSet || p.Key.Kind == model.KindGlobalNetworkSet {
		if k, ok := v.at(a); ok {
			out.Key = k
		}
	}
	switch o := v.world[out.Key].(type) {
	case model.Endpoint:
		s, _ := v.Subject(out.Key)
		out.node, out.workload = o.Node, &s
	case model.HostEndpoint:
		out.node = o.Node
	case model.Node:
		out.node = o.Name
	}
	return out
}

// at is the endpoint or node that has an address: of workloads the first by key, then
// nodes, then host endpoints.
func (v *View) at(a netip.Addr) (model.Key, bool) {
	var host, node model.Key
	for _, s := range v.subjects {
		switch o := v.world[s.Key].(type) {
		case model.HostEndpoint:
			if host == (model.Key{}) && slices.Contains(o.Addrs, a) {
				host = s.Key
			}
		case model.Endpoint:
			if slices.Contains(o.Addrs, a) {
				return s.Key, true
			}
		}
	}
	for k, value := range v.world {
		o, ok := value.(model.Node)
		has := ok && (o.IPv4.Addr() == a || o.IPv6.Addr() == a || o.IPIPTunnel == a)
		if has && (node == (model.Key{}) || CompareKeys(k, node) < 0) {
			node = k
		}
	}
	if node != (model.Key{}) {
		return node, true
	}
	return host, host != (model.Key{})
}

// hostEndpoint is the one that polices what a node exchanges with others.
func (w *walk) hostEndpoint(node string) (Subject, bool) {
	v := w.view
	n, _ := v.world[model.Node{Name: node}.Key()].(model.Node)
	addrs := []netip.Addr{n.IPv4.Addr(), n.IPv6.Addr()}
	for _, end := range []place{w.src, w.dst} {
		if end.node == node && end.workload == nil {
			addrs = append(addrs, end.Addr)
		}
	}
	if w.query.Uplink != "" {
		return v.HostEndpointOf(node, w.query.Uplink, addrs)
	}
	var named []Subject
	for _, s := range v.subjects {
		h, ok := v.world[s.Key].(model.HostEndpoint)
		if !ok || h.Node != node || h.Link == "*" {
			continue
		}
		if slices.ContainsFunc(h.Addrs, func(a netip.Addr) bool { return slices.Contains(addrs, a) }) {
			return s, true
		}
		if h.Link != "" {
			named = append(named, s)
		}
	}
	switch len(named) {
	case 0:
		return v.HostEndpointOf(node, "", addrs)
	case 1:
		return named[0], true
	}
	w.note(fmt.Sprintf("%s has several host endpoints: the one of interface %s is taken; name the interface to choose another", node, named[0].Link))
	return named[0], true
}

// unusual notes what keeps a workload from being policed as it says of itself: its node
// knows interfaces, not workloads.
func (w *walk) unusual(s Subject) {
	if s.Link == "" {
		w.note(s.Key.String() + " has no interface: its node drops whatever it sends")
		return
	}
	for _, o := range w.view.subjects {
		if o.Host || o.Node != s.Node || o.Link != s.Link || CompareKeys(o.Key, s.Key) >= 0 {
			continue
		}
		if e, _ := w.view.world[o.Key].(model.Endpoint); slices.ContainsFunc(e.Addrs, func(a netip.Addr) bool { return a.Is4() == w.packet.Src.Is4() }) {
			w.note(fmt.Sprintf("%v says that it has the interface %s of %s, too: its policies count there, not these", o.Key, s.Link, s.Node))
			return
		}
	}
}
