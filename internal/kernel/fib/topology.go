package fib

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// link is a network interface that exists, or that something wanted names.
type link struct {
	name  string
	index int32 // 0: it does not exist
	up    bool
	gen   uint32 // changes with index and up: what the kernel had on it is gone

	want, v4, v6 bool   // workload link, of these families
	tuned        bool   // its sysctls are right
	detuned      uint32 // counts how often somebody changed them
	err          error  // why not

	routes    map[key]struct{} // wanted device routes
	neighbors map[netip.Addr]*neighbor
}

// link gives the link of that name; it is made if nobody has named it yet.
func (f *FIB) link(name string) *link {
	l := f.links[name]
	if l == nil {
		l = &link{name: name, routes: map[key]struct{}{}, neighbors: map[netip.Addr]*neighbor{}}
		f.links[name] = l
	}
	return l
}

// forget removes a link that neither exists nor is named.
func (f *FIB) forget(l *link) {
	if l.index == 0 && !l.want && len(l.routes)+len(l.neighbors) == 0 {
		delete(f.links, l.name)
	}
}

// linkIs takes in the state of a link.
func (f *FIB) linkIs(name string, index int32, up bool) {
	if old := f.byIndex[index]; old != nil && old.name != name {
		f.linkGone(index) // renamed
	}
	l := f.link(name)
	if l.index == index && l.up == up {
		return
	}
	if l.index != index {
		delete(f.byIndex, l.index)
		l.tuned = false
	}
	if l.index != index || !up {
		f.flushed(l, l.index != index)
	}
	l.index, l.up = index, up
	f.byIndex[index] = l
	f.linkChanged(l)
	f.wake()
}

// linkGone takes in that a link was deleted, renamed, or moved elsewhere.
func (f *FIB) linkGone(index int32) {
	l := f.byIndex[index]
	if l == nil {
		return
	}
	delete(f.byIndex, index)
	f.flushed(l, true)
	l.index, l.up, l.tuned = 0, false, false
	f.linkChanged(l)
	f.forget(l)
}

// flushed takes in that the kernel dropped what it had on a link, of which for
// IPv4 it tells nothing (fib_sync_down_dev).
func (f *FIB) flushed(l *link, gone bool) {
	for _, n := range l.neighbors {
		n.ok = false
	}
	if l.index != 0 && !f.ours(l.name) {
		f.ways.events++
		f.ways.linkLost(l.index, gone, func(index int32) bool {
			other := f.byIndex[index]
			return other != nil && other.up
		})
	}
}

func (f *FIB) linkChanged(l *link) {
	f.gen++
	f.eased = true
	l.gen = f.gen
	if l.want || len(l.neighbors)+len(l.routes) > 0 {
		f.dirtyLinks[l.name] = true
	}
}

// resolve finds the hops of a, or why there are none. Of several gateways those
// that can be reached are used. The slice is valid until the next call.
func (f *FIB) resolve(a *attrs) ([]hop, reason) {
	hops := f.scratch[:0]
	if a.Type != plan.Unicast {
		return hops, reasonNone
	}
	why := noGateway
	add := func(l *link, gw netip.Addr) {
		switch {
		case l == nil || l.index == 0:
			why = linkMissing
		case !l.up:
			why = linkDown
		default:
			h := hop{index: l.index, gen: l.gen}
			if gw.IsValid() {
				h.setGateway(netlink.Family(gw.Is6()), gw.AsSlice())
			}
			hops = append(hops, h)
		}
	}
	if a.Via == "" {
		add(f.links[a.Link], netip.Addr{})
	}
	for gw := range a.Via.All() {
		if a.Link != "" {
			add(f.links[a.Link], gw)
		} else if l := f.workload(gw); l != nil {
			add(l, gw)
		} else {
			hops = f.through(hops, gw)
		}
	}
	for i := range hops {
		hops[i].onLink = hops[i].onLink || a.OnLink
	}
	f.scratch = hops
	if len(hops) > 0 {
		why = reasonNone
	}
	return hops, why
}

// refresh resolves all attributes again after links or ways changed, and marks the routes for which that made a difference.
func (f *FIB) refresh() {
	if f.resolved == f.gen {
		return
	}
	f.resolved = f.gen
	if f.eased {
		f.eased = false
		f.tryAgain()
	}
	clear(f.remote)
	differ := map[uint32]bool{} // number → the kernel has dropped such routes
	scan := false
	for id, a := range f.attrs.all[1:] {
		if a == nil {
			continue
		}
		hops, why := f.resolve(a)
		if why == a.why && slices.Equal(hops, a.hops) {
			continue
		}
		// Without hops it was not written yet: what the kernel has is its predecessor.
		differ[uint32(id+1)] = len(a.hops) > 0 && !slices.ContainsFunc(a.hops, f.stands)
		a.hops, a.why = slices.Clone(hops), why
		scan = scan || !a.device() || len(f.links[a.Link].routesOf()) < a.refs
	}
	if !scan {
		for id, lost := range differ {
			for k := range f.links[f.attrs.all[id].Link].routesOf() {
				f.upset(k, f.entries[k], lost)
			}
		}
		return
	}
	for k, e := range f.entries {
		if lost, ok := differ[e.attr]; ok {
			f.upset(k, e, lost)
		}
	}
}

// routesOf is l.routes; a nil link has none.
func (l *link) routesOf() map[key]struct{} {
	if l == nil {
		return nil
	}
	return l.routes
}

// stands reports whether the link of h has been there and up ever since.
func (f *FIB) stands(h hop) bool {
	l := f.byIndex[h.index]
	return l != nil && l.up && l.gen == h.gen
}

// upset takes in that the hops of a route changed; if lost, the kernel has
// dropped the route with its links.
func (f *FIB) upset(k key, e entry, lost bool) {
	old := e
	e.flags &^= exact
	if lost {
		e.flags &^= owned
	}
	if e.is(wanted) {
		f.set(k, old, e)
		f.touch(k, e)
		return
	}
	if lost {
		e.flags &^= dirty
	}
	f.set(k, old, e)
}
