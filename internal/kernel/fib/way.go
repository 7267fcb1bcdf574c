package fib

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// way is a route of others that may lead to gateways: a connected network, a
// route through a gateway, or a dead end.
type way struct {
	metric uint32
	src    netip.Addr // preferred source; the zero Addr: none
	hops   []hop      // as the kernel has them; none: it is a dead end
}

func (w way) equal(o way) bool {
	return w.metric == o.metric && w.src == o.src && sameHops(w.hops, o.hops)
}

// gatewayed reports whether a hop of w has a gateway.
func (w way) gatewayed() bool {
	return slices.ContainsFunc(w.hops, func(h hop) bool { return h.family != 0 })
}

// on reports whether a hop of w is on the link of that index.
func (w way) on(index int32) bool {
	return slices.ContainsFunc(w.hops, func(h hop) bool { return h.index == index })
}

// ways are the ways of one routing table. A lookup costs one map access for each
// length of prefix that there is, however many routes others have.
type ways struct {
	by      map[netip.Prefix][]way // by ascending metric; of equal ones, the kernel uses the first
	lengths [2][129]int            // by family: how many prefixes of that length
	events  uint64                 // changes that the kernel told of
}

func newWays(events uint64) ways { return ways{by: map[netip.Prefix][]way{}, events: events} }

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return 1
	}
	return 0
}

func (w *ways) store(p netip.Prefix, list []way) {
	n := &w.lengths[familyOf(p.Addr())][p.Bits()]
	_, had := w.by[p]
	switch {
	case len(list) > 0:
		w.by[p] = list
		if !had {
			*n++
		}
	case had:
		delete(w.by, p)
		*n--
	}
}

// add puts x behind those of its metric, or before them if first. It reports
// whether it is new.
func (w *ways) add(p netip.Prefix, x way, first bool) bool {
	list := w.by[p]
	if slices.ContainsFunc(list, x.equal) {
		return false
	}
	at := slices.IndexFunc(list, func(o way) bool { return o.metric > x.metric || first && o.metric == x.metric })
	if at < 0 {
		at = len(list)
	}
	w.store(p, slices.Insert(list, at, x))
	return true
}

// remove takes away the first way to p of that metric for which is holds.
func (w *ways) remove(p netip.Prefix, metric uint32, is func(way) bool) bool {
	list := w.by[p]
	at := slices.IndexFunc(list, func(o way) bool { return o.metric == metric && is(o) })
	if at < 0 {
		return false
	}
	w.store(p, slices.Delete(list, at, at+1))
	return true
}

// equal reports whether o has the same ways.
func (w *ways) equal(o *ways) bool {
	return maps.EqualFunc(w.by, o.by, func(a, b []way) bool { return slices.EqualFunc(a, b, way.equal) })
}

// towards yields the ways to gw as the kernel would prefer them: the longest
// prefix first, then the lowest metric.
func (w *ways) towards(gw netip.Addr, yield func(netip.Prefix, way) (more bool)) {
	for bits := gw.BitLen(); bits >= 0; bits-- {
		if w.lengths[familyOf(gw)][bits] == 0 {
			continue
		}
		p, _ := gw.Prefix(bits)
		for _, x := range w.by[p] {
			if !yield(p, x) {
				return
			}
		}
	}
}

// linkLost drops what the kernel drops, partly without an event, with a link that
// was set down: routes of which no hop is up. With a link that is gone, IPv4 routes
// go with all their hops, and IPv6 routes lose that hop.
func (w *ways) linkLost(index int32, gone bool, up func(index int32) bool) {
	on := func(h hop) bool { return h.index == index }
	lost := func(x way) bool {
		if gone {
			return len(x.hops) == 0
		}
		return !slices.ContainsFunc(x.hops, func(h hop) bool { return !on(h) && up(h.index) })
	}
	for p, list := range w.by {
		if !slices.ContainsFunc(list, func(x way) bool { return x.on(index) }) {
			continue
		}
		kept := list[:0]
		for _, x := range list {
			switch {
			case !x.on(index):
				kept = append(kept, x)
				continue
			case gone && p.Addr().Is6():
				x.hops = slices.DeleteFunc(x.hops, on)
			case gone:
				x.hops = nil
			}
			if !lost(x) {
				kept = append(kept, x)
			}
		}
		w.store(p, kept)
	}
}

// wayOf gives the way that r is, if it is one. Our own routes are none, and
// neither is what leads to a workload: FIB.workload finds that among what is wanted.
func (f *FIB) wayOf(r *route) (way, bool) {
	if r.key.table != plan.TableMain || !r.key.valid() || f.owns(r) {
		return way{}, false
	}
	if a := r.key.prefix().Addr(); r.key.bits > 0 && (a.IsLinkLocalUnicast() || a.IsMulticast()) {
		return way{}, false
	}
	w := way{metric: r.key.metric}
	switch r.typ {
	case unix.RTN_UNICAST:
		for _, h := range r.hops {
			if l := f.byIndex[h.index]; l == nil || f.ours(l.name) {
				return way{}, false
			}
		}
		if r.hasSrc {
			w.src, _ = netip.AddrFromSlice(r.src[:len(r.key.addrBytes())])
		}
		if !r.encap { // else its gateway knows nothing of the inner packet
			w.hops = slices.Clone(r.hops)
			slices.SortFunc(w.hops, hop.compare) // the kernel tells of the same hops in many orders
		}
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
	default:
		return way{}, false
	}
	return w, true
}

// wayEvent takes in that others added, replaced or removed r.
func (f *FIB) wayEvent(r *route, added bool, flags uint16) {
	if r.key.table != plan.TableMain || !r.key.valid() {
		return
	}
	p, metric, changed := r.key.prefix(), r.key.metric, false
	w, is := f.wayOf(r)
	switch {
	case !added:
		changed = is && f.ways.withdraw(p, w)
	case flags&unix.NLM_F_REPLACE != 0:
		changed = f.ways.remove(p, metric, func(way) bool { return true })
	case is && r.key.v6(): // it has all hops of one that we may know with fewer
		changed = f.ways.remove(p, metric, func(o way) bool { return len(o.hops) > 0 && covers(w.hops, o.hops) })
	}
	if added && is {
		changed = f.ways.add(p, w, flags&unix.NLM_F_APPEND == 0 && !r.key.v6()) || changed
	}
	if changed {
		f.ways.events++
		f.gen++
		f.eased = f.eased || len(w.hops) > 0 && !w.gatewayed()
	}
}

// withdraw removes x, or if there is no such way, one hop of an IPv6 way of several.
func (w *ways) withdraw(p netip.Prefix, x way) bool {
	if w.remove(p, x.metric, func(o way) bool { return sameHops(o.hops, x.hops) }) {
		return true
	}
	if len(x.hops) != 1 || !p.Addr().Is6() {
		return false
	}
	for i, o := range w.by[p] {
		if o.metric == x.metric && covers(o.hops, x.hops) {
			w.by[p][i].hops = slices.DeleteFunc(slices.Clone(o.hops), x.hops[0].same)
			return true
		}
	}
	return false
}

// covers reports whether every hop of b is one of a.
func covers(a, b []hop) bool {
	return !slices.ContainsFunc(b, func(h hop) bool { return !slices.ContainsFunc(a, h.same) })
}

// overwritten takes in that our route stands on k: what others had there is gone.
func (f *FIB) overwritten(k key) {
	if k.table != plan.TableMain || f.ways.lengths[k.family][k.bits] == 0 {
		return
	}
	if f.ways.remove(k.prefix(), k.metric, func(way) bool { return true }) {
		f.ways.events++
		f.gen++
		f.loop.Kick() // this pass is about to end
	}
}

// dependsOn reports whether the kernel may drop, without an event, an IPv4 way
// through a gateway with an address of that link.
func (f *FIB) dependsOn(index int32, addr netip.Addr) bool {
	for p, list := range f.ways.by {
		if p.Addr().Is4() && slices.ContainsFunc(list, func(w way) bool { return w.gatewayed() && (w.src == addr || w.on(index)) }) {
			return true
		}
	}
	return false
}
