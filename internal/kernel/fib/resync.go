package fib

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// externalRoute is a foreign route on a workload link, to be removed.
type externalRoute struct {
	k          key
	proto, typ uint8
	index      int32
}

// shape is all of a kernel route with one hop but its key.
type shape struct {
	typ, proto, scope, family uint8
	onLink, hasSrc            bool
	src                       [16]byte
	hop                       hop
}

// resync reads links, routes and neighbours, and marks what is not as wanted.
// The lock is held while a message is worked on, not while waiting for one.
func (f *FIB) resync() error {
	f.parity ^= seen
	f.blind = !f.heard
	if err := f.readLinks(); err != nil {
		return fmt.Errorf("read links: %w", err)
	}
	if !f.heard {
		// Gateways cannot be compared before the ways to them are known.
		f.heard = true
		f.ways = newWays(f.ways.events)
		if err := f.readRoutes(func(r *route) {
			if w, ok := f.wayOf(r); ok {
				f.ways.add(r.key.prefix(), w, false)
			}
		}); err != nil {
			f.heard = false
			return fmt.Errorf("read routes: %w", err)
		}
		f.gen++
		f.eased = true
	}
	f.refresh()
	now := newWays(f.ways.events)
	if err := f.readRoutes(func(r *route) {
		if w, ok := f.wayOf(r); ok {
			now.add(r.key.prefix(), w, false)
		}
		f.compare(r)
	}); err != nil {
		return fmt.Errorf("read routes: %w", err)
	}
	if f.ways.events == now.events && !f.ways.equal(&now) { // else the events are newer
		f.ways = now
		f.gen++
		f.eased = true
	}
	f.sweep()
	if err := f.readRules(); err != nil {
		return fmt.Errorf("read routing rules: %w", err)
	}
	if err := f.readNeighbors(); err != nil {
		return fmt.Errorf("read neighbors: %w", err)
	}
	for name, l := range f.links {
		if l.want {
			l.tuned = false
			f.dirtyLinks[name] = true
		}
	}
	f.stats.Dumps++
	f.blind = false
	return nil
}

// dump is socket.dump around the lock, which the caller holds. Between
// datagrams, what a pod waits for is written; but not before the kernel was
// compared for the first time, as most of it may be there.
func (f *FIB) dump(typ uint16, body []byte, each func(typ uint16, body []byte)) error {
	f.mu.Unlock()
	defer f.mu.Lock()
	return dumpAll(f.reader, typ, body, func(typ uint16, body []byte) {
		f.mu.Lock()
		each(typ, body)
		f.mu.Unlock()
	}, func() {
		f.mu.Lock()
		if !f.blind {
			f.urgent()
		}
		f.mu.Unlock()
	})
}

// readLinks takes in all links. Events go on meanwhile, and a datagram may have
// been written before one of them: what an event told since the dump began is newer, or the
// same.
func (f *FIB) readLinks() error {
	f.linksHeard = map[int32]bool{}
	defer func() { f.linksHeard = nil }()
	there := map[int32]bool{}
	err := f.dump(unix.RTM_GETLINK, make([]byte, linkBytes), func(typ uint16, body []byte) {
		if typ == unix.RTM_NEWLINK && len(body) >= linkBytes {
			there[int32(netlink.Native.Uint32(body[4:]))] = true
			f.linkDumped(body)
		}
	})
	if err != nil {
		return err
	}
	for index := range f.byIndex {
		if !there[index] && !f.linksHeard[index] {
			f.linkGone(index)
		}
	}
	return nil
}

// linkDumped takes in a link of a dump, unless an event told of it meanwhile.
func (f *FIB) linkDumped(body []byte) {
	if !f.linksHeard[int32(netlink.Native.Uint32(body[4:]))] {
		f.linkEvent(true, body)
	}
}

func (f *FIB) readRoutes(each func(*route)) error {
	var r route
	for _, table := range f.dumpTables() {
		for _, v6 := range []bool{false, true} {
			body := make([]byte, routeBytes)
			body[0] = netlink.Family(v6)
			if table != unix.RT_TABLE_UNSPEC {
				if table < 256 {
					body[4] = uint8(table)
				}
				body = netlink.AppendAttr32(body, unix.RTA_TABLE, table)
			}
			err := f.dump(unix.RTM_GETROUTE, body, func(typ uint16, body []byte) {
				if typ == unix.RTM_NEWROUTE && r.parse(body) && !r.cloned && f.tables[r.key.table] &&
					(table == unix.RT_TABLE_UNSPEC || r.key.table == table) {
					each(&r)
				}
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// fewTables is up to how many tables it is cheaper to ask for each than to read all.
const fewTables = 4

// dumpTables are the tables to ask the kernel for; the unspecified one means all.
func (f *FIB) dumpTables() []uint32 {
	if len(f.tables) > fewTables {
		return []uint32{unix.RT_TABLE_UNSPEC}
	}
	return slices.Collect(maps.Keys(f.tables))
}

// compare takes in a route that a dump met.
func (f *FIB) compare(r *route) {
	old, known := f.entries[r.key]
	if !known {
		f.stray(r)
		return
	}
	e, a := old, f.attrs.all[old.attr]
	met := e.flags&seen == f.parity
	e.flags = e.flags&^seen | f.parity
	switch {
	case !e.is(wanted):
		if f.owns(r) && !e.is(flying) {
			e.flags |= owned
			f.set(r.key, old, e)
		}
	case r.matches(a):
		e.flags |= owned
		if !e.is(hit) && !e.is(flying) {
			e.flags = e.flags&^dirty | exact
			e.why, e.errno = reasonNone, 0
		}
		f.set(r.key, old, e)
	case met && e.is(exact): // ours stands; this is a second one
	case r.proto == a.Proto && !r.odd || f.owns(r):
		e.flags |= owned
		f.touch(r.key, e)
	case e.is(owned) || f.replaceable(r.key, a):
		f.touch(r.key, e) // somebody replaced ours
	default:
		e.flags &^= dirty | exact
		e.why, e.errno = conflict, uint16(unix.EEXIST)
		f.set(r.key, old, e)
	}
}

// sweep marks what the dump should have met and did not, and what may now go.
func (f *FIB) sweep() {
	for k, e := range f.entries {
		met, old := e.flags&seen == f.parity, e
		switch {
		case !met && e.is(wanted):
			e.flags = e.flags&^(seen|exact|owned) | f.parity
			f.set(k, old, e)
			if old.is(owned) || e.why == conflict || e.why == reasonNone {
				f.touch(k, e)
			}
		case !met && !e.is(flying):
			e.flags &^= owned | dirty
			f.set(k, old, e)
		case !e.is(wanted) && e.is(owned) && !e.is(dirty) && f.prunable(f.attrs.all[e.attr]):
			f.touch(k, e)
		}
	}
}

// owns reports whether a route of the kernel is ours by its marks.
func (f *FIB) owns(r *route) bool {
	if r.odd || r.typ != unix.RTN_UNICAST && r.typ != unix.RTN_BLACKHOLE && r.typ != unix.RTN_THROW {
		return false
	}
	if slices.Contains(f.opts.Protocols, r.proto) {
		return true
	}
	l := f.byIndex[r.device()]
	return l != nil && r.proto == f.opts.DeviceProtocol && r.key.host() && f.ours(l.name)
}

// prunable reports whether such a route may be removed when nobody wants it.
func (f *FIB) prunable(a *attrs) bool {
	if a.device() && f.ours(a.Link) {
		return f.localSynced
	}
	return f.clusterSynced
}

// stray handles a route on a key that we do not want. Ours is remembered until
// it is put or may go; a foreign one on a workload link may have to go too.
func (f *FIB) stray(r *route) {
	if f.owns(r) {
		id := f.internKernel(r)
		a := f.attrs.all[id]
		e := entry{attr: id, flags: owned | f.parity}
		if r.matches(a) {
			e.flags |= exact
		}
		f.set(r.key, entry{}, e)
		if f.prunable(a) {
			f.touch(r.key, e)
		}
		return
	}
	l := f.byIndex[r.device()]
	if l == nil || !f.opts.RemoveExternalRoutes || !f.localSynced || !f.ours(l.name) ||
		r.proto == unix.RTPROT_KERNEL || r.proto == unix.RTPROT_RA || r.typ != unix.RTN_UNICAST {
		return
	}
	f.external = append(f.external, externalRoute{r.key, r.proto, r.typ, l.index})
}

func (f *FIB) stageExternal(x externalRoute) {
	if _, known := f.entries[x.k]; known {
		return // put since
	}
	b := &f.batch
	b.open(unix.RTM_DELROUTE, 0, op{kind: deleteExternal, k: x.k})
	b.buf = appendRoute(b.buf, x.k, unix.RT_SCOPE_NOWHERE, x.proto, x.typ, 0)
	b.buf = netlink.AppendAttr32(b.buf, unix.RTA_OIF, uint32(x.index))
	b.close()
	f.stats.Deletes++
}

// internKernel numbers what r looks like. An earlier run leaves many routes of few
// looks, in a row.
func (f *FIB) internKernel(r *route) uint32 {
	s := shape{r.typ, r.proto, r.scope, netlink.Family(r.key.v6()), r.onLink, r.hasSrc, r.src, r.single}
	id := f.lastShapeID
	if len(r.hops) <= 1 && f.lastShape == s && id != 0 && f.attrs.all[id] != nil && r.matches(f.attrs.all[id]) {
		f.attrs.all[id].refs++
		return id
	}
	a := plan.RouteAttrs{Proto: r.proto, OnLink: r.onLink}
	switch r.typ {
	case unix.RTN_BLACKHOLE:
		a.Type = plan.Blackhole
	case unix.RTN_THROW:
		a.Type = plan.Throw
	}
	if r.hasSrc {
		a.Src, _ = netip.AddrFromSlice(r.src[:len(r.key.addrBytes())])
	}
	var via []netip.Addr
	for i, h := range r.hops {
		if h.family != 0 {
			via = append(via, h.addr())
		}
		if l := f.byIndex[h.index]; l != nil && (i == 0 || l.name == a.Link) {
			a.Link = l.name
		} else {
			a.Link = ""
		}
	}
	slices.SortFunc(via, netip.Addr.Compare)
	a.Via = plan.MakeHops(via...)
	id = f.intern(&a)
	f.lastShape, f.lastShapeID = s, id
	return id
}

func (f *FIB) readNeighbors() error {
	met := map[*neighbor]bool{}
	err := f.dump(unix.RTM_GETNEIGH, make([]byte, neighborBytes), func(_ uint16, body []byte) {
		k, ok := parseNeighbor(body)
		l := f.byIndex[k.index]
		if !ok || l == nil {
			return
		}
		switch n := l.neighbors[k.addr]; {
		case n != nil && n.is(k):
			n.ok, n.errno, met[n] = true, 0, true
		case n == nil && k.permanent && f.localSynced && f.ours(l.name):
			f.gone = append(f.gone, goneNeighbor{l.index, k.addr})
		}
	})
	if err != nil {
		return err
	}
	for _, l := range f.links {
		for _, n := range l.neighbors {
			n.ok = n.ok && met[n]
			if !n.ok {
				f.dirtyLinks[l.name] = true
			}
		}
	}
	return nil
}
