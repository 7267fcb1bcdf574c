package bgp

import (
	"fmt"
	"net/netip"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// Sizes of one call of Updates.
const (
	updateBatch = 4096      // prefixes that are grouped by their attributes
	updateBytes = 128 << 10 // about how much is produced
)

// concerns reports whether a change of d can be anything to the peer. It is a
// cheap sieve that spares a mesh most of the work; outlet.judge decides.
func (n *neighbor) concerns(d destID) bool {
	best := n.r.rib.best(d)
	if best == nil || n.advertised.has(d) {
		return n.advertised.has(d)
	}
	from := n.r.peers[best.peer]
	return from == nil || !n.outl.ibgp || from.src.from != FromIBGP || from.src.client || n.cfg.RRClient
}

// Ready lists the connections for which Updates has something.
func (r *Router) Ready() []ConnID {
	var out []ConnID
	for _, n := range r.peers {
		if n != nil && n.conn != nil && n.dirty {
			out = append(out, n.conn.id)
		}
	}
	return out
}

// Updates appends UPDATE messages for a connection, about 128 kB at most; when
// there are more, the connection is Ready still. The caller sends them before
// it asks again, so a slow peer gets the latest state and not the history.
func (r *Router) Updates(dst []byte, id ConnID) []byte {
	n := r.owner(id)
	if n == nil || n.conn == nil || n.conn.id != id {
		return dst
	}
	start, at := len(dst), destID(0)
	for len(dst)-start < updateBytes {
		b := batch{n: n, exports: map[exportKey]*wire.Attrs{}, groups: map[*wire.Attrs]*group{}}
		next, more := b.collect(at)
		dst = b.append(dst)
		if at = next; !more {
			n.dirty = false
			if !r.self.restarting {
				for _, f := range n.owed.Each() {
					dst = wire.AppendEndOfRIB(dst, f)
				}
				n.owed = 0
			}
			r.sweep()
			break
		}
	}
	return dst
}

// batch is the work of telling a peer about some prefixes.
type batch struct {
	n        *neighbor
	exports  map[exportKey]*wire.Attrs
	groups   map[*wire.Attrs]*group
	order    []*group
	withdraw [2][]netip.Prefix // IPv4, IPv6
}

// group is prefixes that share the attributes.
type group struct {
	attrs    *wire.Attrs
	family   Families
	prefixes []netip.Prefix
}

// collect takes prefixes out of pending, from at on. While the restart is not
// over only our own networks are told, as what was learned may be incomplete.
func (b *batch) collect(at destID) (next destID, more bool) {
	n := b.n
	for i := 0; i < updateBatch; {
		d, ok := n.pending.next(at)
		if !ok {
			return 0, false
		}
		at = d + 1
		best := n.r.rib.best(d)
		if n.r.self.restarting && best != nil && best.peer != selfID {
			continue
		}
		i++
		n.pending.set(d, false)
		b.add(d, best)
	}
	return at, true
}

// add decides what the peer is told of d.
func (b *batch) add(d destID, best *path) {
	n, k := b.n, &b.n.r.rib.entry(d).key
	attrs := n.r.exported(&n.outl, n.id, d, best, b.exports)
	if attrs == nil {
		if n.advertised.set(d, false) {
			n.countAdvertised(k.family(), -1)
			i := k.family() - 1
			b.withdraw[i] = append(b.withdraw[i], k.prefix())
		}
		return
	}
	if n.advertised.set(d, true) {
		n.countAdvertised(k.family(), 1)
	}
	g := b.groups[attrs]
	if g == nil {
		g = &group{attrs: attrs, family: k.family()}
		b.groups[attrs] = g
		b.order = append(b.order, g)
	}
	g.prefixes = append(g.prefixes, k.prefix())
}

// countAdvertised adds to the number of prefixes that the peer has from us.
func (n *neighbor) countAdvertised(f Families, more int) {
	n.nAdvertised += more
	if f == IPv6 {
		n.nAdvertised6 += more
	}
}

// exported is what the peer with the given outlet and id is told of d, nil for
// nothing. seen keeps results for as long as attribute numbers are not reused.
func (r *Router) exported(o *outlet, to peerID, d destID, best *path, seen map[exportKey]*wire.Attrs) *wire.Attrs {
	if best == nil || best.peer == to {
		return nil
	}
	src := source{from: FromSelf}
	if p := r.peers[best.peer]; p != nil {
		src = p.src
	}
	k := &r.rib.entry(d).key
	a := r.rib.attrs[best.attrs].Attrs
	rule, ok := o.judge(k.prefix(), a, src)
	if !ok {
		return nil
	}
	name := exportKey{best.attrs, best.peer, int16(rule), k.family() == IPv6}
	out, ok := seen[name]
	if !ok {
		out = o.export(a, src, rule, k.family())
		seen[name] = out
	}
	return out
}

// append appends the messages: withdrawals first, they free room at the peer.
func (b *batch) append(dst []byte) []byte {
	for i, list := range b.withdraw {
		dst = wire.AppendUnreach(dst, Families(i+1), list)
	}
	for _, g := range b.order {
		var ok bool
		if dst, ok = wire.AppendReach(dst, g.family, g.attrs, g.prefixes, b.n.conn.opts); !ok {
			err := fmt.Errorf("attributes of %v and %d more do not fit a message: withdrawn", g.prefixes[0], len(g.prefixes)-1)
			b.n.r.reports = append(b.n.r.reports, Report{Peer: b.n.name, Up: true, Err: err})
			dst = wire.AppendUnreach(dst, g.family, g.prefixes)
		}
	}
	return dst
}
