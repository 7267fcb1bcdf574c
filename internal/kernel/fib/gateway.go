package fib

import (
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// workload gives the link of the wanted workload whose address gw is, or nil.
func (f *FIB) workload(gw netip.Addr) *link {
	for metric := range f.hosts {
		k := makeKey(plan.RouteKey{Dst: netip.PrefixFrom(gw, gw.BitLen()), Table: plan.TableMain, Priority: metric})
		if e, ok := f.entries[k]; ok && e.is(wanted) && f.attrs.all[e.attr].device() {
			return f.links[f.attrs.all[e.attr].Link]
		}
	}
	return nil
}

// through adds the hops by which others' routes lead to gw, but for those that
// are among hops already.
func (f *FIB) through(hops []hop, gw netip.Addr) []hop {
	var found [8]hop
	some, direct := found[:0], false
	f.ways.towards(gw, func(_ netip.Prefix, w way) bool {
		for _, h := range w.hops {
			l := f.byIndex[h.index]
			if l == nil || !l.up {
				continue
			}
			h.gen = l.gen
			if h.family == 0 {
				h.setGateway(netlink.Family(gw.Is6()), gw.AsSlice())
				direct = true
			}
			some = append(some, h)
		}
		return len(some) == 0 && len(w.hops) > 0
	})
	if !direct {
		f.remote[gw] = struct{}{}
		if f.inBlock(gw) {
			return hops // whoever is asked would send it back
		}
	}
	for _, h := range some {
		if !slices.ContainsFunc(hops, h.same) {
			hops = append(hops, h)
		}
	}
	return hops
}

// inBlock reports whether gw is in a block of this node.
func (f *FIB) inBlock(gw netip.Addr) bool {
	for k := range f.blocks {
		if k.prefix().Contains(gw) {
			return true
		}
	}
	return false
}

// workloadFound has gateways looked up again when the new route k leads to one.
func (f *FIB) workloadFound(k key) {
	if !k.host() || k.table != plan.TableMain {
		return
	}
	f.hosts[k.metric] = struct{}{}
	if _, ok := f.remote[k.prefix().Addr()]; ok {
		f.gen++
	}
}

// blockChanged takes in that k became a block of this node, or is none any more.
func (f *FIB) blockChanged(k key, there bool) {
	if _, was := f.blocks[k]; was == there || k.table != plan.TableMain {
		return
	}
	if there {
		f.blocks[k] = struct{}{}
	} else {
		delete(f.blocks, k)
	}
	for gw := range f.remote {
		if k.prefix().Contains(gw) {
			f.gen++
			return
		}
	}
}
