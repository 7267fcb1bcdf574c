package bgp

import (
	"fmt"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
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
	received6  int // of them, those of IPv6
	nStale     int
	staleUntil time.Time
	upSince    time.Time
	waiting    Families // whose End-of-RIB has not come

	pending      bitset // prefixes to look at in Updates
	advertised   bitset // prefixes that the peer has from us
	nAdvertised  int
	nAdvertised6 int      // of them, those of IPv6
	dirty        bool     // Updates may have something to send
	owed         Families // whose End-of-RIB we have not sent
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
	n.conn, n.pending, n.advertised, n.nAdvertised, n.nAdvertised6 = nil, nil, nil, 0, 0
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
		if n.r.rib.entry(d).key.family() == IPv6 {
			n.received6 -= k
		}
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
		if rib.entry(d).key.family() == IPv6 {
			n.received6++
		}
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
