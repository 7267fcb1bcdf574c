package fib

import (
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// neighbor is a permanent neighbour entry that is wanted.
type neighbor struct {
	addr  netip.Addr
	mac   [6]byte
	ok    bool // the kernel has it
	hit   bool // somebody changed it while a request was on its way
	errno unix.Errno
}

// goneNeighbor is one to delete.
type goneNeighbor struct {
	index int32
	addr  netip.Addr
}

func (f *FIB) putLink(p plan.Link) {
	l := f.link(p.Name)
	if l.want && l.v4 == p.V4 && l.v6 == p.V6 {
		return
	}
	l.want, l.v4, l.v6, l.tuned = true, p.V4, p.V6, false
	f.dirtyLinks[l.name] = true
}

// deleteLink stops looking after a link, which its maker removes.
func (f *FIB) deleteLink(name string) {
	if l := f.links[name]; l != nil {
		l.want, l.tuned, l.err = false, false, nil
		f.forget(l)
	}
}

func (f *FIB) putNeighbor(p plan.Neighbor) {
	hw, err := net.ParseMAC(p.MAC)
	if err != nil || len(hw) != 6 || !p.Addr.IsValid() {
		return // the plan's invariant
	}
	l, mac := f.link(p.Link), [6]byte(hw)
	if n := l.neighbors[p.Addr]; n != nil && n.mac == mac {
		return
	}
	l.neighbors[p.Addr] = &neighbor{addr: p.Addr, mac: mac}
	f.dirtyLinks[l.name] = true
}

func (f *FIB) deleteNeighbor(k plan.NeighborKey) {
	l := f.links[k.Link]
	if l == nil || l.neighbors[k.Addr] == nil {
		return
	}
	delete(l.neighbors, k.Addr)
	if l.index != 0 {
		f.gone = append(f.gone, goneNeighbor{l.index, k.Addr})
	}
	f.forget(l)
}

// urgent brings links up to date: their sysctls, neighbours and device routes.
// It runs between the batches of anything longer, because a pod waits for it.
func (f *FIB) urgent() {
	if len(f.dirtyLinks) == 0 {
		return
	}
	f.refresh()
	for name := range f.dirtyLinks {
		delete(f.dirtyLinks, name)
		l := f.links[name]
		if l == nil {
			continue
		}
		f.tune(l)
		if l.index != 0 && l.up {
			for _, n := range l.neighbors {
				if !n.ok {
					f.stageNeighbor(l, n)
				}
			}
		}
		for k := range l.routes {
			f.stageRoute(k, f.entries[k])
			if f.batch.full() { // a tunnel has one for each prefix of the cluster
				f.exchange()
			}
		}
		if f.batch.full() {
			f.exchange()
		}
	}
	f.exchange()
	f.wake()
}

// tune writes the sysctls of a link, without the lock.
func (f *FIB) tune(l *link) {
	if !l.want || l.tuned || l.index == 0 {
		return
	}
	index, v4, v6, detuned := l.index, l.v4, l.v6, l.detuned
	f.mu.Unlock()
	n, err := tuneLink(l.name, v4, v6)
	f.mu.Lock()
	f.stats.Sysctls += uint64(n)
	if !l.want || l.index != index || l.v4 != v4 || l.v6 != v6 || l.detuned != detuned {
		return // it changed meanwhile, and is dirty again
	}
	if errors.Is(err, unix.ENOENT) && f.links[l.name] == l && !exists(l.name) {
		return // gone: the event is on its way
	}
	l.tuned, l.err = err == nil, err
	if err != nil {
		f.troubled[l.name] = true
	}
	f.wake()
}

// exists reports whether the kernel has the link, for the calling thread.
func exists(name string) bool {
	var st unix.Stat_t
	return unix.Stat("/proc/sys/net/ipv4/conf/"+name, &st) == nil
}

func (f *FIB) stageNeighbor(l *link, n *neighbor) {
	b := &f.batch
	n.hit = false
	b.open(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, op{kind: addNeighbor, n: n, index: l.index})
	b.buf = appendNeighbor(b.buf, l.index, n.addr)
	b.buf = netlink.AppendAttr(b.buf, unix.NDA_LLADDR, n.mac[:])
	b.close()
	f.stats.Neighbors++
}

func (f *FIB) stageGone(g goneNeighbor) {
	l := f.byIndex[g.index]
	if l == nil || l.neighbors[g.addr] != nil {
		return // put again, or gone with its link
	}
	b := &f.batch
	b.open(unix.RTM_DELNEIGH, 0, op{kind: deleteNeighbor})
	b.buf = appendNeighbor(b.buf, g.index, g.addr)
	b.close()
	f.stats.Neighbors++
}

func appendNeighbor(b []byte, index int32, addr netip.Addr) []byte {
	b = append(b, netlink.Family(addr.Is6()), 0, 0, 0)
	b = netlink.Native.AppendUint32(b, uint32(index))
	b = netlink.Native.AppendUint16(b, unix.NUD_PERMANENT)
	b = append(b, 0, unix.RTN_UNICAST)
	return netlink.AppendAttr(b, unix.NDA_DST, addr.AsSlice())
}

// kernelNeighbor is a neighbour as the kernel tells it.
type kernelNeighbor struct {
	index     int32
	addr      netip.Addr
	mac       []byte
	permanent bool
}

func parseNeighbor(b []byte) (n kernelNeighbor, ok bool) {
	if len(b) < neighborBytes || b[0] != unix.AF_INET && b[0] != unix.AF_INET6 || b[10]&unix.NTF_PROXY != 0 {
		return n, false
	}
	n.index = int32(netlink.Native.Uint32(b[4:]))
	n.permanent = netlink.Native.Uint16(b[8:])&unix.NUD_PERMANENT != 0
	for typ, v := range netlink.Attributes(b[neighborBytes:]) {
		switch typ {
		case unix.NDA_DST:
			n.addr, ok = netip.AddrFromSlice(v)
		case unix.NDA_LLADDR:
			n.mac = v
		}
	}
	return n, ok
}

// is reports whether the kernel's k is what n wants.
func (n *neighbor) is(k kernelNeighbor) bool {
	return k.permanent && string(k.mac) == string(n.mac[:])
}
