package fib

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

const (
	// batchBytes keeps a batch below the default net.core.wmem_max, so that
	// no privilege over the send buffer is needed.
	batchBytes = 48 << 10
	// batchMessages bounds how long a pod's route waits behind others
	// (about 3 ms); a batch of overrunMessages is small enough for all of
	// its errors to fit any receive buffer.
	batchMessages   = 800
	overrunMessages = 64
)

// kind is what a message of a batch does.
type kind uint8

const (
	addRoute kind = iota
	deleteRoute
	deleteExternal
	addNeighbor
	deleteNeighbor
	addRule
	deleteRule
	pin
)

// op is a message of the batch under way.
type op struct {
	kind   kind
	k      key       // of a route
	attr   uint32    // as sent
	pinned bool      // its gateway has a route of its own
	n      *neighbor // to add
	index  int32     // its link
	rule   *rule     // to add
}

// batch is a sequence of netlink messages to send at once.
type batch struct {
	buf    []byte
	ops    []op
	errnos []unix.Errno // by op, after the exchange
	start  int          // of the last message
	base   uint32       // sequence number of the first
	limit  int
}

func (b *batch) open(typ, flags uint16, o op) {
	if b.buf == nil {
		b.buf = make([]byte, 0, batchBytes+4096)
	}
	b.start = len(b.buf)
	b.buf = netlink.AppendHeader(b.buf, typ, unix.NLM_F_REQUEST|flags, b.base+uint32(len(b.ops)))
	b.ops = append(b.ops, o)
}

func (b *batch) close() { netlink.Native.PutUint32(b.buf[b.start:], uint32(len(b.buf)-b.start)) }

func (b *batch) full() bool { return len(b.ops) >= b.limit || len(b.buf) >= batchBytes }

// exchange sends the batch, without the lock, and takes in the results.
func (f *FIB) exchange() {
	b := &f.batch
	if len(b.ops) == 0 {
		return
	}
	n := len(b.ops)
	last := b.base + uint32(n-1)
	flags := netlink.Native.Uint16(b.buf[b.start+6:])
	netlink.Native.PutUint16(b.buf[b.start+6:], flags|unix.NLM_F_ACK)
	b.errnos = append(b.errnos[:0], make([]unix.Errno, n)...)

	f.mu.Unlock()
	err := f.writer.Exchange(b.buf, last, func(seq uint32, errno unix.Errno) {
		if i := seq - b.base; i < uint32(n) {
			b.errnos[i] = errno
		}
	})
	f.mu.Lock()
	f.stats.Messages += uint64(n)
	if err != nil {
		// Nobody knows what was done: ask the kernel, and go on in small steps.
		f.fault, f.needDump, b.limit = err, true, overrunMessages
	}
	for i := range b.ops {
		errno := b.errnos[i]
		if err != nil && errno == 0 {
			errno = unix.EIO
		}
		f.settle(&b.ops[i], errno)
	}
	b.base += uint32(n)
	b.buf, b.ops = b.buf[:0], b.ops[:0]
	f.wake()
}

// stageRoute adds the message that makes a wanted, dirty route.
func (f *FIB) stageRoute(k key, e entry) {
	if !e.is(wanted | dirty) {
		return
	}
	old, a := e, f.attrs.all[e.attr]
	e.flags &^= dirty | hit | exact
	if a.why != reasonNone {
		e.why, e.errno = a.why, 0
		if a.why == noGateway && e.is(owned) {
			f.stageRemoval(k, old, e) // it leads where nobody is
			return
		}
		f.set(k, old, e)
		return
	}
	flags := uint16(unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if e.is(owned) || f.replaceable(k, a) {
		flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	}
	e.flags |= flying
	f.set(k, old, e)
	b := &f.batch
	b.open(unix.RTM_NEWROUTE, flags, op{kind: addRoute, k: k, attr: e.attr})
	b.buf = appendWanted(b.buf, k, a)
	b.close()
	f.stats.Puts++
}

// stageDelete adds the message that removes a route which is not wanted. It
// names the protocol, and a device route's link, so that it cannot hit another's.
func (f *FIB) stageDelete(k key, e entry) {
	if e.is(wanted) || !e.is(dirty) {
		return
	}
	old, a := e, f.attrs.all[e.attr]
	if f.spared[destination(k)] {
		// Its successor is refused: rather the old route than none.
		e.flags &^= dirty
		f.set(k, old, e)
		return
	}
	e.flags &^= dirty | hit | exact | owned
	if a.device() && a.why != reasonNone {
		f.set(k, old, e) // the kernel dropped it with its link
		return
	}
	f.stageRemoval(k, old, e)
}

// destination is k without its metric.
func destination(k key) key {
	k.metric = 0
	return k
}

// refusedDestinations are those of the wanted routes that the kernel refuses; nil
// when there are none, as nearly always.
func (f *FIB) refusedDestinations() map[key]bool {
	if f.count.why[refused] == 0 {
		return nil
	}
	out := map[key]bool{}
	for k, e := range f.entries {
		if e.is(wanted) && e.why == refused {
			out[destination(k)] = true
		}
	}
	return out
}

// stageRemoval adds the message that removes what the kernel has on the key of
// e, whose former value is old.
func (f *FIB) stageRemoval(k key, old, e entry) {
	a := f.attrs.all[e.attr]
	e.flags = e.flags&^owned | flying
	f.set(k, old, e)
	b := &f.batch
	// Whatever has a protocol of ours on that key is ours, also if somebody has changed it.
	ours, typ := slices.Contains(f.opts.Protocols, a.Proto), kernelType(a.Type)
	if ours {
		typ = unix.RTN_UNSPEC
	}
	b.open(unix.RTM_DELROUTE, 0, op{kind: deleteRoute, k: k, attr: e.attr})
	b.buf = appendRoute(b.buf, k, unix.RT_SCOPE_NOWHERE, a.Proto, typ, 0)
	if a.device() && !ours {
		b.buf = netlink.AppendAttr32(b.buf, unix.RTA_OIF, uint32(a.hops[0].index))
	}
	b.close()
	f.stats.Deletes++
}

// settle takes in the result of a message.
func (f *FIB) settle(o *op, errno unix.Errno) {
	switch o.kind {
	case addRoute:
		f.settleAdd(o, errno)
	case deleteRoute:
		f.settleDelete(o, errno)
	case addNeighbor:
		o.n.errno = errno
		o.n.ok = errno == 0 && !o.n.hit
		if errno == unix.ENODEV {
			o.n.errno = 0 // the link's event brings it back
		}
		if l := f.byIndex[o.index]; l != nil && o.n.errno != 0 {
			f.troubled[l.name] = true
		}
	case addRule:
		f.settleRule(o.rule, errno)
	case deleteNeighbor, deleteExternal, deleteRule, pin: // gone anyhow, or seen by the next dump
	}
}

func (f *FIB) settleAdd(o *op, errno unix.Errno) {
	e := f.entries[o.k]
	old := e
	e.flags = e.flags&^(flying|seen) | f.parity
	switch {
	case errno == 0:
		f.overwritten(o.k)
		f.needDump = f.needDump || e.why == refused // what was spared for it may go
		e.flags |= owned
		e.why, e.errno = reasonNone, 0
		if !e.is(wanted) { // deleted meanwhile
			f.set(o.k, old, e)
			f.touch(o.k, e)
			return
		}
		if e.attr == o.attr && !e.is(dirty) {
			e.flags |= exact
		}
	case errno == unix.EEXIST:
		// Something stands there that no event told of: look what it is.
		f.needDump = f.needDump || e.why != conflict
		e.why, e.errno = conflict, uint16(errno)
	default:
		e.why, e.errno = refused, uint16(errno)
		f.last = failure{o.k, errno}
		if f.pinnable(o, errno) {
			f.pins = append(f.pins, o.k)
		}
	}
	f.set(o.k, old, e)
}

func (f *FIB) settleDelete(o *op, errno unix.Errno) {
	e := f.entries[o.k]
	old := e
	e.flags &^= flying
	switch {
	case errno == 0 || errno == unix.ESRCH || errno == unix.ENODEV:
	case e.is(wanted):
		e.flags |= owned
	default:
		e.flags |= owned
		e.why = refused
		f.last = failure{o.k, errno}
		f.stats.DeletesRefused++
	}
	f.set(o.k, old, e)
}
