package bgp

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// Apply makes the Router follow c. A session is restarted only if something
// changed that the two sides agreed on; a change of policy or of networks is
// told as the difference. An invalid c is refused as a whole, and the Router
// goes on with what it had. The Router keeps c; do not change it afterwards.
func (r *Router) Apply(now time.Time, c Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	r.now = now
	old := r.cfg
	if r.started.IsZero() {
		r.started = now
		r.self.kept, r.self.restarting = c.Restarting, c.Restarting
	}
	restart := old.ASN != c.ASN || old.RouterID != c.RouterID
	r.stopPeers(c, restart)
	r.cfg = c
	r.self.ASN, r.self.ID, r.self.RestartTime = c.ASN, c.RouterID, c.RestartTime
	r.cluster = clusterIDs(c)
	r.updatePeers(old, c)
	r.startPeers(c)
	r.applyNetworks(c.Networks)
	r.settle()
	return nil
}

// Stop ends all sessions for good, telling the peers so; they withdraw what
// we told them. To have them keep it, just close the connections.
func (r *Router) Stop(now time.Time) {
	r.now = now
	for _, n := range r.byName {
		n.sess.stop(now, &wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseShutdown})
	}
}

func clusterIDs(c Config) []uint32 {
	var out []uint32
	for _, p := range c.Peers {
		if p.RRClient {
			out = union(out, []uint32{word(p.clusterID(c))})
		}
	}
	return out
}

func (p Peer) clusterID(c Config) netip.Addr {
	if p.ClusterID.IsValid() {
		return p.ClusterID
	}
	return c.RouterID
}

// sessionPart is p without what can change while the session lasts. The port is
// one of these: it is for the next connection.
func (p Peer) sessionPart() Peer {
	p.Port = 0
	p.Kind, p.Passive, p.AllowLocalAS, p.RestartTime = 0, false, 0, 0
	p.NextHop, p.NextHop4, p.NextHop6 = 0, netip.Addr{}, netip.Addr{}
	p.RRClient, p.ClusterID = false, netip.Addr{}
	p.Import, p.Export = "", ""
	return p
}

// stopPeers ends the sessions that c does not have, or has differently.
func (r *Router) stopPeers(c Config, all bool) {
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		n := r.byName[name]
		p, ok := c.Peers[name]
		why := uint8(wire.CeaseDeconfigured)
		if ok {
			why = wire.CeaseChange
			if !all && p.sessionPart() == n.cfg.sessionPart() {
				continue
			}
		}
		n.sess.stop(r.now, &wire.Notification{Code: wire.CodeCease, Subcode: why})
		n.removeIf(func(*dest, *path) bool { return true }) // also what was kept through a restart
		delete(r.byName, name)
		delete(r.byAddr, n.cfg.Addr)
		r.peers[n.id] = nil
	}
}

// updatePeers changes the sessions that go on.
func (r *Router) updatePeers(old, c Config) {
	changedClients := false
	for name, n := range r.byName {
		changedClients = changedClients || n.cfg.RRClient != c.Peers[name].RRClient
	}
	for name, n := range r.byName {
		p := c.Peers[name]
		was := *n
		n.cfg, n.sess.peer, n.imp = p, p, policyOf(c, p.Import)
		if n.conn == nil {
			continue
		}
		n.src.client = p.RRClient
		n.outl = r.outletFor(n)
		if was.cfg.Import != p.Import || !samePolicy(was.imp, n.imp) || was.cfg.AllowLocalAS != p.AllowLocalAS {
			n.readmit()
		}
		if changedClients || n.outl.differs(&was.outl) {
			r.reexport(n, &was.outl, old)
		}
	}
}

// readmit has the peer tell its routes again, as they were not kept as it sent them.
func (n *neighbor) readmit() {
	if !n.conn.refresh {
		n.sess.fail(n.r.now, n.conn, &wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseChange})
		return
	}
	for _, f := range n.conn.opts.Families.Each() {
		n.sess.send(n.conn, wire.AppendRefresh(nil, wire.Refresh{Family: f}))
	}
}

func (r *Router) startPeers(c Config) {
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		if _, ok := r.byName[name]; ok {
			continue
		}
		p := c.Peers[name]
		n := &neighbor{r: r, name: name, cfg: p, imp: policyOf(c, p.Import)}
		n.sess = newSession(p, &r.self, n)
		if i := slices.Index(r.peers[1:], nil); i >= 0 {
			n.id = peerID(i + 1)
			r.peers[n.id] = n
		} else {
			n.id, r.peers = peerID(len(r.peers)), append(r.peers, n)
		}
		r.byName[name], r.byAddr[p.Addr] = n, n
		n.sess.start(r.now)
	}
}

func policyOf(c Config, name string) *compiled {
	if name == "" {
		return nil
	}
	return &compiled{c.Policies[name]}
}

func samePolicy(a, b *compiled) bool {
	if a == nil || b == nil {
		return a == b
	}
	return equalPolicy(a.policy, b.policy)
}

func (r *Router) outletFor(n *neighbor) outlet {
	return outlet{
		peer: n.cfg, asn: n.cfg.localASN(r.cfg), local: n.conn.local, cluster: n.cfg.clusterID(r.cfg),
		ibgp: n.conn.opts.IBGP, families: n.conn.opts.Families, policy: policyOf(r.cfg, n.cfg.Export),
	}
}

// differs reports whether o may tell other routes than was did.
func (o *outlet) differs(was *outlet) bool {
	a, b := o.peer, was.peer
	return a.NextHop != b.NextHop || a.NextHop4 != b.NextHop4 || a.NextHop6 != b.NextHop6 || a.RRClient != b.RRClient ||
		o.cluster != was.cluster || !samePolicy(o.policy, was.policy)
}

// reexport makes those prefixes due of which the peer is to hear something
// else than before, when was and old applied.
func (r *Router) reexport(n *neighbor, was *outlet, old Config) {
	seen, before := map[exportKey]*wire.Attrs{}, map[exportKey]*wire.Attrs{}
	same := map[[2]*wire.Attrs]bool{}
	for d := range destID(r.rib.dests.len()) {
		best := r.rib.best(d)
		if best == nil {
			continue
		}
		a, b := r.exported(&n.outl, n.id, d, best, seen), r.exportedBefore(was, n.id, d, best, before, old)
		if a == b {
			continue // both nil
		}
		equal := false
		if a != nil && b != nil {
			var known bool
			if equal, known = same[[2]*wire.Attrs{a, b}]; !known {
				equal = string(identity(nil, a)) == string(identity(nil, b))
				same[[2]*wire.Attrs{a, b}] = equal
			}
		}
		if !equal {
			n.pending.set(d, true)
			n.dirty = true
		}
	}
}

// exportedBefore is exported as it was while old applied.
func (r *Router) exportedBefore(o *outlet, to peerID, d destID, best *path, seen map[exportKey]*wire.Attrs, old Config) *wire.Attrs {
	p := r.peers[best.peer]
	if p == nil {
		return r.exported(o, to, d, best, seen)
	}
	now := p.src
	p.src.client = old.Peers[p.name].RRClient
	defer func() { p.src = now }()
	return r.exported(o, to, d, best, seen)
}

// applyNetworks makes list what we originate.
func (r *Router) applyNetworks(list []Network) {
	want := map[destID]bool{}
	for _, n := range list {
		d := r.rib.dest(n.Prefix)
		want[d] = true
		old := r.bestOf(d)
		if _, changed := r.rib.put(d, selfID, 0, r.rib.intern(n.attrs())); changed {
			r.changed(d, old)
		}
	}
	for d := range destID(r.rib.dests.len()) {
		if best := r.rib.best(d); best == nil || best.peer != selfID || want[d] {
			continue
		}
		old := r.bestOf(d)
		r.rib.remove(d, func(p *path) bool { return p.peer == selfID })
		r.changed(d, old)
	}
}

// attrs are those of the route that n stands for.
func (n *Network) attrs() *wire.Attrs {
	a := &wire.Attrs{NextHop: n.NextHop, MED: n.MED, HasMED: n.MED != 0, LocalPref: n.LocalPref, HasLocalPref: n.LocalPref != 0}
	a.Communities = slices.Sorted(slices.Values(n.Communities))
	for _, l := range n.LargeCommunities {
		a.Large = append(a.Large, l)
	}
	slices.SortFunc(a.Large, func(x, y [3]uint32) int { return slices.Compare(x[:], y[:]) })
	return a
}
