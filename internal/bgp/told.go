package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// PeerRoute is one route as a peer told it to us, or has it from us: what an operator wants
// to see of it.
type PeerRoute struct {
	Prefix      netip.Prefix
	NextHop     netip.Addr
	ASPath      string // as BIRD and others write it: 65001 65002; empty: it begins in our system
	LocalPref   uint32 // 0 where there is none
	MED         uint32 // 0 where there is none
	Communities []string
	Best        bool // received: it is the one in use; advertised: always
	Stale       bool // received: kept while the peer restarts
}

// PeerRoutes are the routes of one peer, by prefix, IPv4 first.
type PeerRoutes struct {
	Received   []PeerRoute // accepted from the peer: what its import filters refuse is not kept
	Advertised []PeerRoute // as the peer has them; what is about to be withdrawn is not among them
}

// Routes tells what the peer with that address told and was told; false if there is no such
// peer. It looks at the whole table.
func (r *Router) Routes(peer netip.Addr) (PeerRoutes, bool) {
	n := r.byAddr[peer]
	if n == nil {
		return PeerRoutes{}, false
	}
	var out PeerRoutes
	seen := map[exportKey]*wire.Attrs{}
	for d := range destID(r.rib.dests.len()) {
		e := r.rib.entry(d)
		for i := e.head; i != 0; i = r.rib.paths.at(i).next {
			if p := r.rib.paths.at(i); p.peer == n.id {
				route := peerRoute(e.key.prefix(), r.rib.attrs[p.attrs].Attrs)
				route.Best, route.Stale = i == e.head, p.stale
				out.Received = append(out.Received, route)
			}
		}
		if n.conn == nil || !n.advertised.has(d) {
			continue
		}
		if attrs := r.exported(&n.outl, n.id, d, r.rib.best(d), seen); attrs != nil {
			route := peerRoute(e.key.prefix(), attrs)
			route.Best = true
			out.Advertised = append(out.Advertised, route)
		}
	}
	for _, list := range [][]PeerRoute{out.Received, out.Advertised} {
		slices.SortFunc(list, func(a, b PeerRoute) int {
			return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()), a.NextHop.Compare(b.NextHop))
		})
	}
	return out, true
}

func peerRoute(prefix netip.Prefix, a *wire.Attrs) PeerRoute {
	out := PeerRoute{Prefix: prefix, NextHop: a.NextHop, ASPath: a.ASPath.String()}
	if a.HasLocalPref {
		out.LocalPref = a.LocalPref
	}
	if a.HasMED {
		out.MED = a.MED
	}
	for _, c := range a.Communities {
		out.Communities = append(out.Communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
	}
	for _, c := range a.Large {
		out.Communities = append(out.Communities, fmt.Sprintf("%d:%d:%d", c[0], c[1], c[2]))
	}
	return out
}
