package bgp

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// Well-known communities, RFC 1997.
const (
	noExport          = 0xFFFFFF01
	noAdvertise       = 0xFFFFFF02
	noExportSubconfed = 0xFFFFFF03
)

// source is what a route's origin means for what may be done with it. The
// zero source is this speaker itself.
type source struct {
	from   Sources
	client bool       // a route reflection client
	id     netip.Addr // BGP identifier of the peer
}

// outlet decides what one peer is told: a pure function of a route. The
// Router keeps one per session, and compares the old with the new one when
// the configuration changes.
type outlet struct {
	peer     Peer
	asn      uint32     // ours towards the peer
	local    netip.Addr // our end of the connection
	cluster  netip.Addr // our cluster ID
	ibgp     bool
	families Families
	policy   *compiled
}

// exportKey is what the result of export depends on, the prefix left out.
type exportKey struct {
	attrs attrID
	peer  peerID // the source
	rule  int16
	v6    bool
}

// judge reports whether the peer may have the route at all, and which rule of
// the export policy lets it pass.
func (o *outlet) judge(prefix netip.Prefix, a *wire.Attrs, src source) (rule int, ok bool) {
	switch {
	case !o.families.Has(wire.FamilyOf(prefix.Addr())):
		return 0, false
	case o.ibgp && src.from == FromIBGP && !src.client && !o.peer.RRClient:
		return 0, false // RFC 4271 §9.2, RFC 4456 §6
	}
	for _, c := range a.Communities {
		if c == noAdvertise || !o.ibgp && (c == noExport || c == noExportSubconfed) {
			return 0, false
		}
	}
	return o.policy.judge(prefix, a, src.from)
}

// export gives the attributes as the peer gets them, or nil if there is no
// next hop that it could use. a is not modified.
func (o *outlet) export(a *wire.Attrs, src source, rule int, f Families) *wire.Attrs {
	c := *o.policy.change(rule, a)
	if c.NextHop, c.LinkLocal = o.nextHop(a, f); !c.NextHop.IsValid() || c.NextHop == o.peer.Addr {
		return nil
	}
	if o.ibgp {
		if !c.HasLocalPref {
			c.LocalPref, c.HasLocalPref = defaultLocalPref, true
		}
		if src.from == FromIBGP {
			o.reflect(&c, src)
		}
		return &c
	}
	c.ASPath = c.ASPath.Prepend(o.asn)
	c.LocalPref, c.HasLocalPref = 0, false
	c.OriginatorID, c.ClusterList = netip.Addr{}, nil
	if src.from != FromSelf {
		c.MED, c.HasMED = 0, false // it was meant for us (RFC 4271 §5.1.4)
	}
	c.Ext = slices.DeleteFunc(slices.Clone(c.Ext), func(e [8]byte) bool { return e[0]&0x40 != 0 })
	return &c
}

// reflect marks a route that goes from one internal peer to another (RFC 4456 §8).
func (o *outlet) reflect(c *wire.Attrs, src source) {
	if !c.OriginatorID.IsValid() {
		c.OriginatorID = src.id
	}
	c.ClusterList = append([]uint32{word(o.cluster)}, c.ClusterList...)
}

// word is an IPv4 address as a number.
func word(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func (o *outlet) nextHop(a *wire.Attrs, f Families) (hop, linkLocal netip.Addr) {
	keep := o.peer.NextHop == NextHopKeep || o.peer.NextHop == NextHopAuto && o.ibgp
	if keep && a.NextHop.IsValid() && wire.FamilyOf(a.NextHop) == f && !a.NextHop.IsLinkLocalUnicast() {
		return a.NextHop, netip.Addr{} // a link-local one means nothing elsewhere
	}
	own := o.peer.NextHop4
	if f == IPv6 {
		own = o.peer.NextHop6
	}
	if !own.IsValid() && wire.FamilyOf(o.local) == f {
		own = o.local.WithZone("")
	}
	if own.IsLinkLocalUnicast() {
		return own, own // RFC 2545: the global part repeats it when there is none
	}
	return own, netip.Addr{}
}
