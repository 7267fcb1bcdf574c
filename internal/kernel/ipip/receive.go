package ipip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of what a receiver gathers before it calls the kernel again.
const (
	receiveMessages = 64
	openFrames      = 8 // connections whose segments are put together at a time
)

// TCP's flags, the low byte.
const (
	flagFIN = 0x01
	flagPSH = 0x08
	flagACK = 0x10
)

// receiver takes packets from nodes and writes what is in them to the device.
type receiver struct {
	t        *Tunnel
	bufs     [receiveMessages][]byte
	messages [receiveMessages]message
	iovs     [receiveMessages]unix.Iovec
	received int
	errno    unix.Errno
	read     func(fd uintptr) bool

	frames [receiveMessages]frame
	count  int
	open   [openFrames]*frame // those that may grow; nil: free
	oldest int                // of open, next to be given up
	mtu    int                // of the device; 0: not asked for in this batch

	outErr error
	out    *frame
	write  func(fd uintptr)

	errors [1 << 10]byte
}

// frame is what is written to the device at once: a packet, or segments of a connection
// that follow each other. Its first buffer has room in front for the kernel's header.
type frame struct {
	p     ipv4 // the first packet
	start []byte
	iovs  [receiveMessages]unix.Iovec
	count int // of iovs

	// Of TCP that may grow.
	tcp    int    // length of its header
	next   uint32 // sequence number
	size   int    // of a segment's payload
	total  int    // bytes, with headers
	proven bool   // the checksum of p is right
}

func newReceiver(t *Tunnel) *receiver {
	r := &receiver{t: t}
	for i := range r.bufs {
		r.bufs[i] = make([]byte, maxPacket)
		r.iovs[i].Base = &r.bufs[i][0]
		r.iovs[i].SetLen(len(r.bufs[i]))
		r.messages[i].header.Iov = &r.iovs[i]
		r.messages[i].header.SetIovlen(1)
	}
	r.read, r.write = r.readSome, r.writeOne
	return r
}

func (r *receiver) run() error {
	for idle := 0; ; {
		if err := r.t.sock.in.raw.Read(r.read); err != nil {
			return err
		}
		if r.errno != 0 { // an ICMP error about something sent, usually
			if r.failures() > 0 || r.errno == unix.EINTR {
				idle = 0
			} else if idle++; idle > 100 {
				return fmt.Errorf("receive: %w", r.errno)
			}
			continue
		}
		idle = 0
		r.t.count.received.Add(uint64(r.received))
		if r.t.off.Load() {
			r.t.count.off.Add(uint64(r.received))
			continue
		}
		r.count, r.mtu = 0, 0
		clear(r.open[:])
		for i := range r.received {
			r.packet(r.bufs[i][:r.messages[i].n])
		}
		for i := range r.count {
			if err := r.deliver(&r.frames[i]); err != nil {
				return err
			}
		}
	}
}

// readSome reads what is there; false: nothing is.
func (r *receiver) readSome(fd uintptr) bool {
	r.received, r.errno = batch(unix.SYS_RECVMMSG, fd, r.messages[:])
	return r.errno != unix.EAGAIN
}

// packet takes one as it came from the underlay.
func (r *receiver) packet(b []byte) {
	p, ok := decapsulate(b)
	if !ok {
		r.t.count.malformed.Add(1)
		return
	}
	tcp := p.tcpLen()
	if tcp > 0 && r.joins(p, tcp) {
		return
	}
	f := &r.frames[r.count]
	r.count++
	f.p, f.count, f.tcp, f.total = p, 1, tcp, len(p)
	f.start = b[ipv4(b).headerLen()-vnetLen:][:vnetLen+len(p)]
	f.iovs[0].Base = &f.start[0]
	f.iovs[0].SetLen(len(f.start))
	if tcp == 0 {
		return
	}
	f.size = len(p) - p.headerLen() - tcp
	if f.size > 0 && p.headerLen() == outerLen && p[outerLen+13] == flagACK && len(p) <= r.deviceMTU() {
		f.next = binary.BigEndian.Uint32(p[outerLen+4:]) + uint32(f.size)
		f.proven = false
		r.opens(f)
	}
}

// opens lets f grow.
func (r *receiver) opens(f *frame) {
	for i := range r.open {
		if r.open[i] == nil {
			r.open[i] = f
			return
		}
	}
	r.open[r.oldest] = f
	r.oldest = (r.oldest + 1) % len(r.open)
}

// joins appends p, of TCP, to what came before of the same connection, if it follows.
// What does not follow ends what came before: nothing overtakes within a connection.
func (r *receiver) joins(p ipv4, tcp int) bool {
	for i, f := range r.open {
		if f == nil || !f.sameFlow(p) {
			continue
		}
		if !f.follows(p, tcp) {
			r.open[i] = nil
			return false
		}
		part := p[outerLen+tcp:]
		f.iovs[f.count].Base = &part[0]
		f.iovs[f.count].SetLen(len(part))
		f.count++
		f.total += len(part)
		f.next += uint32(len(part))
		f.p[outerLen+13] |= p[outerLen+13]
		if len(part) < f.size || p[outerLen+13] != flagACK || f.count == len(f.iovs) {
			r.open[i] = nil
		}
		return true
	}
	return false
}

// sameFlow compares addresses and ports.
func (f *frame) sameFlow(p ipv4) bool {
	h := p.headerLen()
	return [8]byte(f.p[12:20]) == [8]byte(p[12:20]) && [4]byte(f.p[outerLen:]) == [4]byte(p[h:])
}

// follows reports whether the receiver of f and p would see the same if they were one:
// all but lengths, sequence number, ID and checksums is alike, and the data go on.
func (f *frame) follows(p ipv4, tcp int) bool {
	if p.headerLen() != outerLen || tcp != f.tcp || len(p) == outerLen+tcp {
		return false
	}
	a, b := f.p[outerLen:outerLen+tcp], p[outerLen:outerLen+tcp]
	size := len(p) - outerLen - tcp
	if f.p.tos() != p.tos() || f.p[8] != p[8] || f.p[6] != p[6] ||
		binary.BigEndian.Uint32(b[4:]) != f.next || size > f.size || f.total+size > maxPacket ||
		[5]byte(a[8:13]) != [5]byte(b[8:13]) || b[13]&^(flagPSH|flagFIN) != flagACK ||
		[2]byte(a[14:16]) != [2]byte(b[14:16]) || string(a[18:]) != string(b[18:]) {
		return false
	}
	// The device is told that the checksum is to be made, so it must have been right.
	if !f.proven && !f.p.unfinished() && !f.p.intact() {
		return false
	}
	f.proven = true
	return p.unfinished() || p.intact()
}

// deviceMTU is the MTU of the device, bytes, asked for once in a batch.
func (r *receiver) deviceMTU() int {
	if r.mtu == 0 {
		r.mtu = -1
		_ = r.t.sock.in.raw.Control(func(fd uintptr) {
			if mtu := mtuOf(int(fd), r.t.name); mtu > 0 {
				r.mtu = mtu
			}
		})
	}
	return r.mtu
}

// deliver writes f to the device.
func (r *receiver) deliver(f *frame) error {
	about := vnetAt(f.start)
	*about = vnet{}
	header := f.p.headerLen()
	switch {
	case f.count > 1:
		binary.BigEndian.PutUint16(f.p[2:], uint16(f.total))
		f.p.setChecksum()
		f.segments(about, f.size)
	case f.tcp > 0 && f.size > 0 && len(f.p) > 1280 && len(f.p) > r.deviceMTU() &&
		r.mtu > header+f.tcp && (f.p.unfinished() || f.p.intact()):
		// The kernel has put segments together (GRO) and does not tell of what size. Any
		// will do that fits: TCP is a stream.
		f.segments(about, r.mtu-header-f.tcp)
	case f.p.unfinished():
		about.flags, about.start, about.offset = needsChecksum, uint16(header), uint16(f.p.checksumAt())
	}
	r.out = f
	if err := r.t.dev.raw.Control(r.write); err != nil {
		return err
	}
	if r.outErr == nil {
		return nil
	}
	r.t.count.writeErrors.Add(1)
	if errors.Is(r.outErr, unix.EBADFD) {
		return fmt.Errorf("write: %w", r.outErr)
	}
	return nil
}

// segments says that the kernel is to cut f, if it must, into parts of size bytes.
func (f *frame) segments(about *vnet, size int) {
	header := f.p.headerLen()
	*about = vnet{
		flags: needsChecksum, gso: gsoTCP, headers: uint16(header + f.tcp), size: uint16(size),
		start: uint16(header), offset: 16,
	}
	binary.BigEndian.PutUint16(f.p[header+16:], fold(f.p.pseudo(f.total-header)))
}

func (r *receiver) writeOne(fd uintptr) {
	_, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&r.out.iovs[0])), uintptr(r.out.count))
	r.outErr = nil
	if errno != 0 {
		r.outErr = errno
	}
}

// failures tells senders of the ICMP errors that came back about their packets, and
// gives the number of errors.
func (r *receiver) failures() int {
	for n := 0; ; n++ {
		f, ok := r.t.sock.in.nextFailure(r.errors[:])
		if !ok {
			return n
		}
		r.failure(f)
	}
}

// failure relays one (RFC 2003 section 4.1) if it is about a packet that could have been
// ours: anybody can write ICMP. Only that a packet is too big is relayed, as by the
// kernel's own device: everything else may pass by itself, such as a node whose agent is
// just started again, and would end connections that only have to wait.
func (r *receiver) failure(f failure) {
	p, ok := quoted(f.inner)
	if !ok || f.kind != icmpUnreachable || f.code != codeTooBig {
		return // of a short quote the kernel has learned, and will say more about the next packet
	}
	for _, hop := range r.t.table.root.Load().lookup(p.dst()) {
		if hop == f.to {
			r.t.tooBig(p, f.to)
			return
		}
	}
}
