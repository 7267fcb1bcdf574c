package bgp

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// maxHops is how many next hops a route may have; BIRD's default for ECMP.
const maxHops = 16

// defaultLocalPref is that of a route which brings none; BIRD's default.
const defaultLocalPref = 100

// candidate is a path with what the selection compares.
type candidate struct {
	*wire.Attrs
	index  uint32 // in rib.paths
	id     uint32
	local  bool // one of Config.Networks
	ebgp   bool
	origin netip.Addr // ORIGINATOR_ID, or the router id of the peer
	addr   netip.Addr // of the peer
}

func (c *candidate) pref() uint32 {
	if c.HasLocalPref {
		return c.LocalPref
	}
	return defaultLocalPref
}

// rank orders by the steps of RFC 4271 §9.1 that come before the tie-breaks
// a) to c) on the multi-exit discriminator: less is better. A network of our
// own comes first, as BIRD prefers static routes to BGP.
func rank(a, b *candidate) int {
	switch {
	case a.local != b.local:
		return trueFirst(a.local)
	case a.pref() != b.pref():
		return cmp.Compare(b.pref(), a.pref())
	}
	return cmp.Or(cmp.Compare(a.ASPath.Len(), b.ASPath.Len()), cmp.Compare(a.Origin, b.Origin))
}

func trueFirst(a bool) int {
	if a {
		return -1
	}
	return 1
}

// tie orders candidates that are equally good, as BIRD does: the originator's
// identifier, the length of the cluster list (RFC 4456 §9), the peer's
// address, the path identifier.
func tie(a, b *candidate) int {
	return cmp.Or(a.origin.Compare(b.origin), cmp.Compare(len(a.ClusterList), len(b.ClusterList)),
		a.addr.Compare(b.addr), cmp.Compare(a.id, b.id))
}

// choose gives the equally good best of cs, the very best first. It works in
// rounds, as RFC 4271 does, because a comparison in pairs would depend on the
// order when the discriminators of several neighbours mix. It reuses cs.
func choose(cs []candidate) []candidate {
	if len(cs) == 1 {
		return cs
	}
	best := slices.MinFunc(cs, func(a, b candidate) int { return rank(&a, &b) })
	cs = slices.DeleteFunc(cs, func(c candidate) bool { return rank(&best, &c) != 0 })

	lowest := map[uint32]uint32{} // discriminator by neighbouring AS
	for _, c := range cs {
		if least, ok := lowest[c.ASPath.First()]; !ok || c.MED < least {
			lowest[c.ASPath.First()] = c.MED
		}
	}
	cs = slices.DeleteFunc(cs, func(c candidate) bool { return c.MED > lowest[c.ASPath.First()] })

	if slices.ContainsFunc(cs, func(c candidate) bool { return c.ebgp }) {
		cs = slices.DeleteFunc(cs, func(c candidate) bool { return !c.ebgp })
	}
	slices.SortFunc(cs, func(a, b candidate) int { return tie(&a, &b) })
	return cs
}
