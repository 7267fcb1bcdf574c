package bgp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// Sizes of one call of Updates.
const (
	updateBatch = 4096      // prefixes that are grouped by their attributes
	updateBytes = 128 << 10 // about how much is produced
)

// neighbor is all that a Router keeps of a peer: its session, what it told is
// in the rib under its id, and what it was told is one bit per prefix.
type neighbor struct {
	r    *Router
	name string
	id   peerID
	cfg  Peer
	sess *Session
	conn *conn // established, or nil
	src  source
	imp  *compiled // import policy
	outl outlet

	received   int // paths
	nStale     int
	staleUntil time.Time
	upSince    time.Time
	waiting    Families // whose End-of-RIB has not come

	pending     bitset // prefixes to look at in Updates
	advertised  bitset // prefixes that the peer has from us
	nAdvertised int
	dirty       bool     // Updates may have something to send
	owed        Families // whose End-of-RIB we have not sent
}

// settles is until when the first synchronisation, begun at start, waits for
// the peer; zero when it need not.
func (n *neighbor) settles(start time.Time) time.Time {
	switch {
	case n.conn == nil:
		return start.Add(settleUp)
	case n.waiting == 0:
		return time.Time{}
	case !n.conn.open.Restart.Known:
		return n.upSince.Add(settleQuiet)
	}
	return start.Add(settleRIB)
}

// up implements events.
func (n *neighbor) up(c *conn) {
	n.conn, n.upSince = c, n.r.now
	n.waiting, n.owed = c.opts.Families, c.opts.Families
	n.src = source{from: FromEBGP, id: c.open.ID, client: n.cfg.RRClient}
	if c.opts.IBGP {
		n.src.from = FromIBGP
	}
	n.outl = n.r.outletFor(n)
	if gone := (IPv4 | IPv6) &^ (c.open.Restart.Forwarding & c.opts.Families); gone != 0 {
		n.dropStale(gone)
	}
	if n.nStale > 0 {
		n.staleUntil = n.r.now.Add(c.open.Restart.Time)
	}
	n.feed(c.opts.Families)
	n.r.reports = append(n.r.reports, Report{Peer: n.name, Up: true})
}

// feed makes every route of families due to be told.
func (n *neighbor) feed(families Families) {
	for d := range destID(n.r.rib.dests.len()) {
		if e := n.r.rib.entry(d); e.head != 0 && families.Has(e.key.family()) {
			n.pending.set(d, true)
		}
	}
	n.dirty = true
}

// down implements events.
func (n *neighbor) down(keep Families, err error) {
	restart := n.conn.open.Restart.Time
	n.conn, n.pending, n.advertised, n.nAdvertised = nil, nil, nil, 0
	n.dirty, n.owed = false, 0
	n.r.reports = append(n.r.reports, Report{Peer: n.name, Err: err})
	if n.nStale > 0 {
		n.dropStale(IPv4 | IPv6) // it failed to restart
	}
	n.removeIf(func(d *dest, p *path) bool { return !keep.Has(d.key.family()) })
	if keep == 0 || n.received == 0 {
		return
	}
	for d := range destID(n.r.rib.dests.len()) {
		for i := n.r.rib.entry(d).head; i != 0; i = n.r.rib.paths.at(i).next {
			if p := n.r.rib.paths.at(i); p.peer == n.id {
				p.stale = true
				n.nStale++
			}
		}
	}
	n.staleUntil = n.r.now.Add(restart)
}

// dropStale forgets what was kept through a restart.
func (n *neighbor) dropStale(families Families) {
	if n.nStale > 0 {
		n.removeIf(func(d *dest, p *path) bool { return p.stale && families.Has(d.key.family()) })
	}
	if n.nStale == 0 {
		n.staleUntil = time.Time{}
	}
}

// removeIf takes away the peer's paths that match.
func (n *neighbor) removeIf(match func(*dest, *path) bool) {
	if n.received == 0 {
		return
	}
	for d := range destID(n.r.rib.dests.len()) {
		e := n.r.rib.entry(d)
		if e.head != 0 {
			n.remove(d, func(p *path) bool { return p.peer == n.id && match(e, p) })
		}
	}
}

func (n *neighbor) remove(d destID, match func(*path) bool) {
	old := n.r.bestOf(d)
	k := n.r.rib.remove(d, func(p *path) bool {
		yes := match(p)
		if yes && p.stale {
			n.nStale--
		}
		return yes
	})
	if k > 0 {
		n.received -= k
		n.r.changed(d, old)
	}
}

// update implements events.
func (n *neighbor) update(u *wire.Update) {
	if len(u.Problems) > 0 {
		n.sess.err = fmt.Errorf("UPDATE: %w", u.Problems[0])
		n.r.reports = append(n.r.reports, Report{Peer: n.name, Up: true, Err: n.sess.err})
	}
	for _, list := range u.Unreach {
		n.withdraw(list)
	}
	for _, reach := range u.Reach {
		if u.Withdraw || !n.admits(u.Attrs, reach) {
			n.withdraw(reach.Prefixes)
			continue
		}
		n.learn(u.Attrs, reach)
	}
	if u.EndOfRIB != 0 {
		n.waiting &^= u.EndOfRIB
		n.dropStale(u.EndOfRIB)
	}
}

func (n *neighbor) withdraw(list wire.Prefixes) {
	for id, prefix := range list.All() {
		if d, ok := n.r.rib.index.get(keyOf(prefix)); ok {
			n.remove(d, func(p *path) bool { return p.peer == n.id && p.id == id })
		}
	}
}

// admits reports whether a route may be used at all: it must not have been
// here before (RFC 4271 §9.1.2, RFC 4456 §8), nor lead back to us.
func (n *neighbor) admits(a *wire.Attrs, reach wire.Reach) bool {
	asn := n.cfg.localASN(n.r.cfg)
	switch {
	case a.ASPath.Count(asn) > int(n.cfg.AllowLocalAS):
		return false
	case a.OriginatorID == n.r.self.ID:
		return false
	case slices.ContainsFunc(a.ClusterList, func(c uint32) bool { return slices.Contains(n.r.cluster, c) }):
		return false
	}
	return reach.NextHop != n.conn.local.WithZone("")
}

// learn takes the announced routes in.
func (n *neighbor) learn(in *wire.Attrs, reach wire.Reach) {
	base := *in
	base.NextHop, base.LinkLocal = reach.NextHop, reach.LinkLocal
	if base.NextHop.IsLinkLocalUnicast() && base.NextHop.Is6() {
		base.NextHop = base.NextHop.WithZone(n.cfg.Addr.Zone())
	}
	rib, rule, ids := n.r.rib, noRule, map[int]attrID(nil)
	attrs := rib.intern(&base)
	for id, prefix := range reach.All() {
		use := attrs
		if n.imp != nil {
			var ok bool
			if rule, ok = n.imp.judge(prefix, &base, n.src.from); !ok {
				if d, ok := rib.index.get(keyOf(prefix)); ok {
					n.remove(d, func(p *path) bool { return p.peer == n.id && p.id == id })
				}
				continue
			}
			if use, ok = ids[rule]; !ok {
				if ids == nil {
					ids = map[int]attrID{}
				}
				use = rib.intern(n.imp.change(rule, &base))
				ids[rule] = use
			}
		}
		n.put(rib.dest(prefix), id, use)
	}
	rib.unref(attrs)
	for _, use := range ids {
		rib.unref(use)
	}
}

func (n *neighbor) put(d destID, id uint32, attrs attrID) {
	rib, old := n.r.rib, n.r.bestOf(d)
	rib.attrs[attrs].refs++
	if n.nStale > 0 {
		for i := rib.entry(d).head; i != 0; i = rib.paths.at(i).next {
			if p := rib.paths.at(i); p.peer == n.id && p.id == id && p.stale {
				n.nStale--
			}
		}
	}
	added, changed := rib.put(d, n.id, id, attrs)
	if added {
		n.received++
	}
	if changed {
		n.r.changed(d, old)
	}
}

// refresh implements events.
func (n *neighbor) refresh(r wire.Refresh) {
	if r.Subtype == 0 && r.Family != 0 && n.conn.opts.Families.Has(r.Family) {
		n.feed(r.Family)
		n.owed |= r.Family
	}
}

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
			n.nAdvertised--
			i := k.family() - 1
			b.withdraw[i] = append(b.withdraw[i], k.prefix())
		}
		return
	}
	if n.advertised.set(d, true) {
		n.nAdvertised++
	}
	g := b.groups[attrs]
	if g == nil {
		g = &group{attrs: attrs, family: k.family()}
		b.groups[attrs] = g
		b.order = append(b.order, g)
	}
	g.prefixes = append(g.prefixes, k.prefix())
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
