package device

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// status is how things stand with an entry.
type status struct {
	ok    bool // the kernel has it
	dirty bool // it is in a list of those to write
	hit   bool // somebody changed it while a request or a dump was under way
	met   bool // the dump under way has met it
	errno unix.Errno
}

// neighbor is where on the VXLAN another node's device is.
type neighbor struct {
	addr netip.Addr
	mac  mac
	node netip.Addr
	status
}

// forward is to which node frames for a device go.
type forward struct {
	mac     mac
	node    netip.Addr
	holders []netip.Addr // of the neighbours that are there; the last one says which node
	status
}

// ends are the other nodes' ends of one VXLAN. A MAC address may pass from one node to
// another; while two have it, the later one does.
type ends struct {
	neighbors map[netip.Addr]*neighbor
	forwards  map[mac]*forward

	writeN []*neighbor
	writeF []*forward
	goneN  []netip.Addr
	goneF  []mac
	read   bool // the kernel's entries are to be read
	failed int  // entries that the kernel refused
}

func newEnds() *ends {
	return &ends{neighbors: map[netip.Addr]*neighbor{}, forwards: map[mac]*forward{}, read: true}
}

func parseMAC(s string) (m mac, ok bool) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != len(m) {
		return m, false
	}
	return mac(hw), true
}

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

func (e *ends) put(v plan.VTEP) {
	m, ok := parseMAC(v.MAC)
	if !ok || !v.Addr.IsValid() || !v.Node.IsValid() {
		return // the plan's invariant
	}
	n := e.neighbors[v.Addr]
	switch {
	case n == nil:
		n = &neighbor{addr: v.Addr, mac: m, node: v.Node}
		e.neighbors[v.Addr] = n
		e.touchNeighbor(n)
	case n.mac == m && n.node == v.Node:
		return
	case n.mac != m:
		e.leave(n)
		n.mac = m
		e.touchNeighbor(n)
	}
	n.node = v.Node
	e.hold(n)
}

// hold has frames for the device of n go to its node.
func (e *ends) hold(n *neighbor) {
	f := e.forwards[n.mac]
	if f == nil {
		f = &forward{mac: n.mac}
		e.forwards[n.mac] = f
	}
	if i := slices.Index(f.holders, n.addr); i >= 0 {
		f.holders = slices.Delete(f.holders, i, i+1)
	}
	f.holders = append(f.holders, n.addr)
	e.lead(f, n.node)
}

// leave ends hold.
func (e *ends) leave(n *neighbor) {
	f := e.forwards[n.mac]
	f.holders = slices.DeleteFunc(f.holders, func(a netip.Addr) bool { return a == n.addr })
	if len(f.holders) == 0 {
		delete(e.forwards, n.mac)
		e.dropped(&f.status)
		if !e.read {
			e.goneF = append(e.goneF, n.mac)
		}
		return
	}
	e.lead(f, e.neighbors[f.holders[len(f.holders)-1]].node)
}

func (e *ends) lead(f *forward, node netip.Addr) {
	if f.node != node {
		f.node = node
		e.touchForward(f)
	}
}

func (e *ends) delete(addr netip.Addr) {
	n := e.neighbors[addr]
	if n == nil {
		return
	}
	delete(e.neighbors, addr)
	e.dropped(&n.status)
	if !e.read { // else what the kernel has will be found
		e.goneN = append(e.goneN, addr)
	}
	e.leave(n)
}

func (e *ends) dropped(s *status) {
	if s.errno != 0 {
		e.failed--
	}
}

func (e *ends) touchNeighbor(n *neighbor) {
	n.ok = false
	if !n.dirty {
		n.dirty = true
		e.writeN = append(e.writeN, n)
	}
}

func (e *ends) touchForward(f *forward) {
	f.ok = false
	if !f.dirty {
		f.dirty = true
		e.writeF = append(e.writeF, f)
	}
}

// lost takes in that the link is gone, and all entries with it.
func (e *ends) lost() {
	e.goneN, e.goneF = nil, nil
	e.read = true
	for _, n := range e.neighbors {
		e.touchNeighbor(n)
	}
	for _, f := range e.forwards {
		e.touchForward(f)
	}
}

// again has what the kernel refused tried once more.
func (e *ends) again() {
	if e.failed == 0 {
		return
	}
	e.failed = 0
	for _, n := range e.neighbors {
		if n.errno != 0 {
			n.errno = 0
			e.touchNeighbor(n)
		}
	}
	for _, f := range e.forwards {
		if f.errno != 0 {
			f.errno = 0
			e.touchForward(f)
		}
	}
}

// pending reports whether there is anything to read or write.
func (e *ends) pending() bool {
	return len(e.writeN)+len(e.writeF)+len(e.goneN)+len(e.goneF) > 0 || e.read
}

func (e *ends) missing() error {
	if err := e.problem(); err != nil {
		return err
	}
	if e.pending() {
		return fmt.Errorf("%d neighbors and %d forwarding entries are being written", len(e.writeN), len(e.writeF))
	}
	return nil
}

// problem says what the kernel refused.
func (e *ends) problem() error {
	if e.failed == 0 {
		return nil
	}
	for _, n := range e.neighbors {
		if n.errno != 0 {
			return fmt.Errorf("%d entries: refused, among them neighbor %v lladdr %v: %w", e.failed, n.addr, n.mac, n.errno)
		}
	}
	for _, f := range e.forwards {
		if f.errno != 0 {
			return fmt.Errorf("%d entries: refused, among them frames to %v dst %v: %w", e.failed, f.mac, f.node, f.errno)
		}
	}
	return nil
}

// neighborEvent takes in that somebody added, changed or deleted a neighbour. What nobody
// wants goes, if prune.
func (e *ends) neighborEvent(there bool, k *kernelEntry, prune bool) {
	switch n := e.neighbors[k.addr]; {
	case n == nil:
		if there && prune && k.permanent {
			e.goneN = append(e.goneN, k.addr)
		}
	case !there || !n.is(k):
		n.hit = true
		e.touchNeighbor(n)
	}
}

// forwardEvent is neighborEvent for a forwarding entry. It is called for our own changes,
// too: the driver does not say whose they are.
func (e *ends) forwardEvent(there bool, k *kernelEntry, prune bool) {
	switch f := e.forwards[k.mac]; {
	case f == nil:
		if there && prune {
			e.goneF = append(e.goneF, k.mac)
		}
	case !there || !f.is(k):
		f.hit = true
		e.touchForward(f)
	}
}

func (n *neighbor) is(k *kernelEntry) bool { return k.permanent && k.mac == n.mac && !k.odd }

func (f *forward) is(k *kernelEntry) bool { return k.permanent && k.addr == f.node && !k.odd }

// readEnds compares the kernel's entries of a link with those that are wanted.
func (d *Devices) readEnds(e *ends, index int32) error {
	d.mu.Lock()
	e.read = false
	for _, n := range e.neighbors {
		n.met, n.hit = false, false
	}
	for _, f := range e.forwards {
		f.met, f.hit = false, false
	}
	d.mu.Unlock()
	neighbors := netlink.AppendAttr32(make([]byte, neighborBytes), unix.NDA_IFINDEX, uint32(index))
	forwards := make([]byte, neighborBytes)
	forwards[0] = unix.AF_BRIDGE
	netlink.Native.PutUint32(forwards[4:], uint32(index))
	for _, body := range [][]byte{neighbors, forwards} {
		err := d.dump(unix.RTM_GETNEIGH, body, func(b []byte) {
			if k, ok := parseEntry(b); ok && k.index == index {
				d.mu.Lock()
				e.compare(&k, d.synced)
				d.mu.Unlock()
			}
		})
		if err != nil {
			d.mu.Lock()
			defer d.mu.Unlock()
			e.read = true
			return fmt.Errorf("read entries: %w", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range e.neighbors {
		if !n.met {
			e.touchNeighbor(n)
		}
	}
	for _, f := range e.forwards {
		if !f.met {
			e.touchForward(f)
		}
	}
	return nil
}

// compare takes in an entry that a dump met.
func (e *ends) compare(k *kernelEntry, prune bool) {
	if k.bridge {
		switch f := e.forwards[k.mac]; {
		case f == nil:
			if prune {
				e.goneF = append(e.goneF, k.mac)
			}
		case f.is(k) && !f.hit:
			f.met, f.ok, f.errno = true, true, 0
		}
		return
	}
	switch n := e.neighbors[k.addr]; {
	case n == nil:
		if prune && k.permanent {
			e.goneN = append(e.goneN, k.addr)
		}
	case n.is(k) && !n.hit:
		n.met, n.ok, n.errno = true, true, 0
	}
}
