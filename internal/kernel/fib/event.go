package fib

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// eventGroups are the kernel's events that concern us.
var eventGroups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_IFADDR,
	unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
}

// listen takes in the kernel's events until the socket is closed.
func (f *FIB) listen() error {
	var r route
	for {
		datagram, err := f.events.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun):
			f.mu.Lock()
			f.heard = false
			f.stats.Overruns++
			f.mu.Unlock()
			f.loop.Resync()
			continue
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("fib: read events: %w", err)
		}
		f.mu.Lock()
		for m := range netlink.Messages(datagram) {
			f.event(m, &r)
		}
		f.kick()
		f.mu.Unlock()
	}
}

func (f *FIB) event(m netlink.Message, r *route) {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if f.linksHeard != nil && len(m.Body) >= linkBytes && m.Body[0] != unix.AF_BRIDGE {
			f.linksHeard[int32(netlink.Native.Uint32(m.Body[4:]))] = true
		}
		f.linkEvent(m.Type == unix.RTM_NEWLINK, m.Body)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		if n, ok := parseNeighbor(m.Body); ok {
			f.neighborEvent(m.Type == unix.RTM_NEWNEIGH, n)
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if r.parse(m.Body) && !r.cloned && f.tables[r.key.table] {
			f.routeEvent(r, m.Type == unix.RTM_NEWROUTE, m.Flags)
		}
	case unix.RTM_DELRULE:
		f.ruleGone(m.Body)
	case unix.RTM_DELADDR:
		f.addressGone(m.Body)
	case unix.RTM_NEWNETCONF:
		f.netconfEvent(m.Body)
	}
}

func (f *FIB) linkEvent(there bool, b []byte) {
	if len(b) < linkBytes || b[0] == unix.AF_BRIDGE { // a port joined or left its bridge
		return
	}
	index := int32(netlink.Native.Uint32(b[4:]))
	if !there {
		f.linkGone(index)
		return
	}
	for typ, v := range netlink.Attributes(b[linkBytes:]) {
		if typ == unix.IFLA_IFNAME {
			f.linkIs(string(bytes.TrimRight(v, "\x00")), index, netlink.Native.Uint32(b[8:])&unix.IFF_UP != 0)
		}
	}
}

// addressGone handles what the kernel does without an event: it drops the IPv4
// routes whose source an address was (fib_sync_down_addr), and with the last one
// of a link all that are there (fib_disable_ip).
func (f *FIB) addressGone(b []byte) {
	if len(b) < addrBytes {
		return
	}
	for typ, v := range netlink.Attributes(b[addrBytes:]) {
		addr, ok := netip.AddrFromSlice(v)
		if typ != unix.IFA_LOCAL || !ok {
			continue
		}
		index := int32(netlink.Native.Uint32(b[4:]))
		l := f.byIndex[index]
		ours := slices.ContainsFunc(f.attrs.all[1:], func(a *attrs) bool {
			return a != nil && (a.Src == addr || addr.Is4() && a.Link != "" && l != nil && a.Link == l.name)
		})
		if ours || f.dependsOn(index, addr) {
			f.loop.Resync()
			return
		}
	}
}

func (f *FIB) neighborEvent(there bool, k kernelNeighbor) {
	l := f.byIndex[k.index]
	if l == nil {
		return
	}
	n := l.neighbors[k.addr]
	if n == nil || there && n.is(k) {
		return
	}
	n.ok, n.hit = false, true
	f.dirtyLinks[l.name] = true
}

// routeEvent takes in that somebody else added, replaced or removed a route.
func (f *FIB) routeEvent(r *route, added bool, flags uint16) {
	f.wayEvent(r, added, flags)
	e, known := f.entries[r.key]
	switch {
	case !known:
		if added {
			f.stray(r)
		}
	case !e.is(wanted):
		f.unwantedEvent(r, e, added)
	case added:
		f.wantedAdded(r, e, flags&unix.NLM_F_REPLACE != 0)
	default:
		f.wantedRemoved(r, e)
	}
}

// unwantedEvent handles a new or removed route on a key of which we know that it has to go.
// The event may be older than what we know, by the dumps that were read and the removals
// that were sent meanwhile, so it never makes us forget: removing twice does no harm.
func (f *FIB) unwantedEvent(r *route, e entry, added bool) {
	a := f.attrs.all[e.attr]
	ours := added && f.owns(r) || !added && e.is(owned) && r.matches(a)
	switch {
	case ours && f.prunable(a):
		f.touch(r.key, e)
	case ours && !added:
		old := e
		e.flags &^= owned | dirty | exact
		f.set(r.key, old, e)
	}
}

// wantedAdded handles a new route on a key that we want.
func (f *FIB) wantedAdded(r *route, e entry, replaced bool) {
	a := f.attrs.all[e.attr]
	switch {
	case r.matches(a):
		if !e.is(dirty) && !e.is(flying) {
			old := e
			e.flags |= owned | exact
			e.why, e.errno = reasonNone, 0
			f.set(r.key, old, e)
			f.wake()
		}
	case e.is(owned) && (replaced || r.key.v6()): // IPv6 tells of a hop more or less
		e.flags |= hit
		f.touch(r.key, e)
	}
}

// wantedRemoved handles the end of a route on a key that we want.
func (f *FIB) wantedRemoved(r *route, e entry) {
	a := f.attrs.all[e.attr]
	switch {
	case r.proto == a.Proto && (e.is(owned) || e.is(flying)):
		if !r.key.v6() || len(a.hops) < 2 || sameHops(r.hops, a.hops) {
			e.flags &^= owned
		} // else one hop of several went, and the others are there still
		e.flags |= hit
		f.touch(r.key, e)
	case e.why == conflict:
		f.touch(r.key, e)
	}
}
