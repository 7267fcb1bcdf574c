package device

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// batchBytes keeps a batch below the default net.core.wmem_max, and its errors within
// any receive buffer.
const batchBytes = 48 << 10

// batchBase is the sequence number of the first entry, far from those of requests about
// devices.
const batchBase = 1 << 31

// batch is a sequence of messages about entries, to be sent at once.
type batch struct {
	buf    []byte
	ops    []*status // of entries that are added; nil: one is removed
	errnos []unix.Errno
	start  int // of the last message
	base   uint32
}

func (b *batch) open(typ, flags uint16, s *status) {
	if b.buf == nil {
		b.buf = make([]byte, 0, batchBytes+4096)
	}
	b.start = len(b.buf)
	b.buf = netlink.AppendHeader(b.buf, typ, unix.NLM_F_REQUEST|flags, b.base+uint32(len(b.ops)))
	b.ops = append(b.ops, s)
	if s != nil {
		s.hit = false
	}
}

// flush writes what is to be written of e: additions before removals. The lock is held,
// but not while the kernel works.
func (d *Devices) flush(e *ends, index int32) {
	// Frames find their node before packets find the frames' address.
	for len(e.writeF) > 0 {
		f := e.writeF[len(e.writeF)-1]
		e.writeF = e.writeF[:len(e.writeF)-1]
		f.dirty = false
		if e.forwards[f.mac] == f && !f.ok {
			d.stage(e, &f.status, func(b []byte) []byte { return appendForward(b, index, f.mac, f.node) })
		}
	}
	for len(e.writeN) > 0 {
		n := e.writeN[len(e.writeN)-1]
		e.writeN = e.writeN[:len(e.writeN)-1]
		n.dirty = false
		if e.neighbors[n.addr] == n && !n.ok {
			d.stage(e, &n.status, func(b []byte) []byte { return appendNeighbor(b, index, n.addr, &n.mac) })
		}
	}
	d.exchange(e)
	goneN, goneF := e.goneN, e.goneF
	e.goneN, e.goneF = nil, nil
	for _, addr := range goneN {
		if e.neighbors[addr] == nil { // else it was put again
			d.stage(e, nil, func(b []byte) []byte { return appendNeighbor(b, index, addr, nil) })
		}
	}
	for _, m := range goneF {
		if e.forwards[m] == nil {
			d.stage(e, nil, func(b []byte) []byte { return appendForward(b, index, m, netip.Addr{}) })
		}
	}
	d.exchange(e)
}

// stage adds the message of an entry that is added, or with a nil s removed.
func (d *Devices) stage(e *ends, s *status, body func([]byte) []byte) {
	typ, flags := uint16(unix.RTM_NEWNEIGH), uint16(unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	if s == nil {
		typ, flags = unix.RTM_DELNEIGH, 0
	}
	b := &d.batch
	b.open(typ, flags, s)
	b.buf = body(b.buf)
	netlink.EndMessage(b.buf, b.start)
	if len(b.buf) >= batchBytes {
		d.exchange(e)
	}
}

// exchange sends the batch, without the lock, and takes in the results.
func (d *Devices) exchange(e *ends) {
	b := &d.batch
	n := uint32(len(b.ops))
	if n == 0 {
		return
	}
	netlink.Native.PutUint16(b.buf[b.start+6:], netlink.Native.Uint16(b.buf[b.start+6:])|unix.NLM_F_ACK)
	b.errnos = append(b.errnos[:0], make([]unix.Errno, n)...)

	d.mu.Unlock()
	err := d.writer.Exchange(b.buf, b.base+n-1, func(seq uint32, errno unix.Errno) {
		if i := seq - b.base; i < n {
			b.errnos[i] = errno
		}
	})
	d.mu.Lock()
	d.stats.Messages += uint64(n)
	if err != nil {
		d.fault, d.full = err, true // nobody knows what was done
	}
	for i, s := range b.ops {
		if s == nil {
			continue // gone anyhow, or seen by the next dump
		}
		errno := b.errnos[i]
		if err != nil && errno == 0 {
			errno = unix.EIO
		}
		s.ok = errno == 0 && !s.hit && !s.dirty
		if s.errno != 0 {
			e.failed--
		}
		if errno != 0 {
			e.failed++
		}
		s.errno = errno
	}
	b.base += n
	b.buf, b.ops = b.buf[:0], b.ops[:0]
	d.wake()
}
