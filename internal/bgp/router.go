package bgp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// How long the first synchronisation waits. Both are well below the 120 s for
// which peers keep the routes of one that restarts.
const (
	settleUp    = 20 * time.Second // for a session to come up
	settleRIB   = 60 * time.Second // for an established one to send End-of-RIB
	settleQuiet = 5 * time.Second  // for one that does not know End-of-RIB
)

// Router is a whole BGP speaker but for its sockets and its clock. Every
// method that takes now handles one event; afterwards the caller carries out
// Effects, asks Updates for each connection in Ready, takes Learned, and comes
// back no later than Deadline. A Router is not safe for concurrent use.
type Router struct {
	cfg     Config
	self    self
	now     time.Time
	started time.Time // of the first Apply; zero before
	rib     *rib
	peers   []*neighbor // by peerID; that of selfID is nil, unused ones too
	byName  map[string]*neighbor
	byAddr  map[netip.Addr]*neighbor
	cluster []uint32 // the cluster IDs we reflect with

	toLearn  bitset // prefixes whose Learned may have changed
	learned  bitset // prefixes that the consumer has
	cursor   destID // where the search of toLearn goes on
	dying    bitset // prefixes without paths, to be released once everybody knows
	dead     int    // how many those are
	reset    bool   // the first LearnedBatch is out
	synced   bool
	told     bool // and the consumer knows
	waitTill time.Time
	scratch  []candidate
	reports  []Report
}

// Report is something that an operator may want in the log.
type Report struct {
	Peer string
	Up   bool  // the session is established
	Err  error // why it is not, or what was wrong with a message
}

// NewRouter gives a Router without configuration.
func NewRouter() *Router {
	return &Router{
		rib: newRIB(), peers: make([]*neighbor, 1),
		byName: map[string]*neighbor{}, byAddr: map[netip.Addr]*neighbor{},
	}
}

// Tick does what is due.
func (r *Router) Tick(now time.Time) {
	r.now = now
	for _, n := range r.peers {
		if n == nil {
			continue
		}
		n.sess.tick(now)
		if due(n.staleUntil, now) {
			n.dropStale(IPv4 | IPv6)
		}
	}
	r.settle()
}

// Deadline is when Tick is due; zero means that nothing is.
func (r *Router) Deadline() time.Time {
	d := r.waitTill
	for _, n := range r.peers {
		if n != nil {
			soonest(&d, n.sess.deadline())
			soonest(&d, n.staleUntil)
		}
	}
	return d
}

// Connected: the connection that Dial asked for is there; local is our end.
func (r *Router) Connected(now time.Time, id ConnID, local netip.Addr) {
	r.now = now
	if n := r.owner(id); n != nil {
		n.sess.connected(now, id, local)
	}
}

// Accept takes a connection that came from remote to local, or says why not;
// then the caller closes it.
func (r *Router) Accept(now time.Time, remote, local netip.Addr) (ConnID, error) {
	r.now = now
	n := r.byAddr[remote]
	if n == nil {
		return 0, fmt.Errorf("bgp: connection from %v: not a configured peer", remote)
	}
	id, err := n.sess.accept(now, local)
	if err != nil {
		return 0, fmt.Errorf("bgp: connection from %v: peer %s: %w", remote, n.name, err)
	}
	r.settle()
	return id, nil
}

// Received: the peer sent data, which the Router does not keep.
func (r *Router) Received(now time.Time, id ConnID, data []byte) {
	r.now = now
	if n := r.owner(id); n != nil {
		n.sess.received(now, id, data)
		r.settle()
	}
}

// Closed: the connection broke, or could not be made, because of err.
func (r *Router) Closed(now time.Time, id ConnID, err error) {
	r.now = now
	if n := r.owner(id); n != nil {
		n.sess.closed(now, id, err)
		r.settle()
	}
}

func (r *Router) owner(id ConnID) *neighbor {
	for _, n := range r.peers {
		if n != nil && n.sess.conn(id) != nil {
			return n
		}
	}
	return nil
}

// Effects gives what is to be done now, in this order, and forgets it.
func (r *Router) Effects() []Effect {
	out := r.self.effects
	r.self.effects = nil
	return out
}

// Reports gives what happened since the last call.
func (r *Router) Reports() []Report {
	out := r.reports
	r.reports = nil
	return out
}

// Status lists the peers, by name.
func (r *Router) Status() []PeerStatus {
	var out []PeerStatus
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		n := r.byName[name]
		s := PeerStatus{
			Name: name, Kind: n.cfg.Kind, Addr: n.cfg.Addr, ASN: n.cfg.ASN, State: n.sess.State(), Since: n.sess.since,
			Received: n.received, Advertised: n.nAdvertised, Stale: n.nStale,
			Received6: n.received6, Advertised6: n.nAdvertised6,
		}
		if n.conn != nil {
			s.Families = n.conn.opts.Families
		}
		if n.sess.err != nil {
			s.Err = n.sess.err.Error()
		}
		out = append(out, s)
	}
	return out
}

// Synced reports whether the first synchronisation is over.
func (r *Router) Synced() bool { return r.synced }

// settle ends the first synchronisation, and before it the deferral that a
// restart begins with (RFC 4724 §4.1), once no peer is worth waiting for.
func (r *Router) settle() {
	if r.synced || r.started.IsZero() {
		return
	}
	r.waitTill = time.Time{}
	var sync, ready time.Time // zero: at once
	for _, n := range r.peers {
		if n == nil {
			continue
		}
		t := n.settles(r.started)
		sync = later(sync, t)
		if n.conn == nil || !n.conn.open.Restart.Restarting {
			ready = later(ready, t) // else both would wait for each other
		}
	}
	if r.self.restarting && !ready.After(r.now) {
		r.self.restarting = false
		for _, n := range r.peers {
			if n != nil && n.conn != nil {
				n.dirty = true
			}
		}
	}
	if r.synced = !sync.After(r.now); r.synced {
		return
	}
	soonest(&r.waitTill, sync)
	if r.self.restarting {
		soonest(&r.waitTill, ready)
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Learned puts up to limit changes into b, reusing its memory, and reports
// whether there is anything in it. The consumer must not lose a batch.
func (r *Router) Learned(b *LearnedBatch, limit int) bool {
	*b = LearnedBatch{Puts: b.Puts[:0], Deletes: b.Deletes[:0]}
	if r.started.IsZero() {
		return false
	}
	b.Reset, r.reset = !r.reset, true
	for len(b.Puts)+len(b.Deletes) < limit {
		d, ok := r.toLearn.next(r.cursor)
		if !ok {
			if d, ok = r.toLearn.next(0); !ok {
				break
			}
		}
		r.cursor = d + 1
		r.toLearn.set(d, false)
		l, ok := r.learn(d)
		switch {
		case ok:
			r.learned.set(d, true)
			b.Puts = append(b.Puts, l)
		case r.learned.set(d, false):
			b.Deletes = append(b.Deletes, l.Prefix)
		}
	}
	if _, more := r.toLearn.next(0); !more {
		b.Synced = r.synced && !r.told
		r.told = r.synced
		r.sweep()
	}
	return b.Reset || b.Synced || len(b.Puts)+len(b.Deletes) > 0
}

// learn gives what the kernel should have for d; false means nothing.
func (r *Router) learn(d destID) (Learned, bool) {
	l := Learned{Prefix: r.rib.entry(d).key.prefix()}
	best := r.rib.best(d)
	if best == nil || best.peer == selfID {
		return l, false
	}
	l.Source = r.peers[best.peer].src.from
	l.NextHops = r.rib.attrs[best.attrs].hop
	if best.next != 0 {
		l.NextHops = r.mergedHops(d)
	}
	return l, true
}

// mergedHops gives the next hops of all paths that are as good as the best.
func (r *Router) mergedHops(d destID) []netip.Addr {
	equal := choose(r.candidates(d))
	hops := make([]netip.Addr, 0, len(equal))
	for _, c := range equal[:min(len(equal), maxHops)] {
		hops = append(hops, c.NextHop)
	}
	slices.SortFunc(hops, netip.Addr.Compare)
	if hops = slices.Compact(hops); len(hops) == 1 {
		return r.rib.attrs[r.rib.best(d).attrs].hop
	}
	var name strings.Builder
	for _, h := range hops {
		name.WriteString(h.String() + " ")
	}
	if have, ok := r.rib.merged[name.String()]; ok {
		return have
	}
	if len(r.rib.merged) > 1024 { // sharing saves memory only, so forgetting is harmless
		clear(r.rib.merged)
	}
	r.rib.merged[name.String()] = hops
	return hops
}

// candidates lists the paths of d; valid until the next call.
func (r *Router) candidates(d destID) []candidate {
	r.scratch = r.scratch[:0]
	for i := r.rib.entry(d).head; i != 0; i = r.rib.paths.at(i).next {
		p := r.rib.paths.at(i)
		c := candidate{Attrs: r.rib.attrs[p.attrs].Attrs, index: i, id: p.id, local: p.peer == selfID}
		if n := r.peers[p.peer]; n != nil {
			c.ebgp, c.origin, c.addr = n.src.from == FromEBGP, n.src.id, n.cfg.Addr
		}
		if c.OriginatorID.IsValid() {
			c.origin = c.OriginatorID
		}
		r.scratch = append(r.scratch, c)
	}
	return r.scratch
}

// identityOf is what makes the best path a different one to a peer.
type identityOf struct {
	peer  peerID
	attrs attrID
}

func (r *Router) bestOf(d destID) identityOf {
	if p := r.rib.best(d); p != nil {
		return identityOf{p.peer, p.attrs}
	}
	return identityOf{}
}

// changed: the paths of d are not what they were when its best one was old.
// It chooses anew, and marks d for everybody whom that may concern.
func (r *Router) changed(d destID, old identityOf) {
	switch best := r.rib.best(d); {
	case best == nil:
		if r.dying.set(d, true) {
			r.dead++
		}
	case best.next != 0:
		r.promote(d, choose(r.candidates(d))[0].index)
	}
	r.toLearn.set(d, true)
	if now := r.bestOf(d); now != old {
		for _, n := range r.peers {
			if n != nil && n.conn != nil && n.concerns(d) {
				n.pending.set(d, true)
				n.dirty = true
			}
		}
	}
}

// promote moves a path of d to the head of its list.
func (r *Router) promote(d destID, best uint32) {
	at := &r.rib.entry(d).head
	if *at == best {
		return
	}
	for *at != best {
		at = &r.rib.paths.at(*at).next
	}
	*at = r.rib.paths.at(best).next
	r.rib.paths.at(best).next = r.rib.entry(d).head
	r.rib.entry(d).head = best
}

// sweep releases the prefixes that nobody has to hear of any more.
func (r *Router) sweep() {
	if r.dead == 0 {
		return
	}
	for d, ok := r.dying.next(0); ok; d, ok = r.dying.next(d + 1) {
		if r.rib.entry(d).head != 0 {
			r.dying.set(d, false)
			r.dead--
			continue
		}
		known := func(n *neighbor) bool { return n != nil && (n.pending.has(d) || n.advertised.has(d)) }
		if !r.toLearn.has(d) && !r.learned.has(d) && !slices.ContainsFunc(r.peers, known) {
			r.dying.set(d, false)
			r.dead--
			r.rib.release(d)
		}
	}
}
