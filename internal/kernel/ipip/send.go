package ipip

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of what a sender gathers before it calls the kernel again.
const (
	sendReads    = 16  // packets, each maybe of many segments
	sendMessages = 128 // segments
)

// sender takes packets from the device and sends them to their nodes.
type sender struct {
	t     *Tunnel
	root  *node
	local address

	// What was read. Each buffer begins with room for the outer header, of which the last
	// bytes are used by the header that the kernel puts before a packet.
	bufs    [sendReads][]byte
	lengths [sendReads]int
	read    int
	readErr error
	fill    func(fd uintptr) bool

	// What is to be sent: head, then payload if that is not in one piece with it.
	count    int
	messages [sendMessages]message
	iovs     [sendMessages][2]unix.Iovec
	names    [sendMessages]unix.RawSockaddrInet4
	heads    [sendMessages][outerLen + maxHeaders]byte
	done     int
	sent     int
	errno    unix.Errno
	write    func(fd uintptr) bool

	// The last destination, and what the table said.
	last    address
	lastHop address
	lastWhy verdict

	scratch [quoteLen]byte
	id      uint16 // of the last packet that was cut
}

// verdict is what becomes of a packet.
type verdict uint8

const (
	unknown verdict = iota
	toNode
	noRoute
	looping
)

func newSender(t *Tunnel) *sender {
	s := &sender{t: t, id: uint16(rand.Uint32())}
	for i := range s.bufs {
		s.bufs[i] = make([]byte, outerLen+vnetLen+maxPacket)
	}
	for i := range s.messages {
		s.names[i].Family = unix.AF_INET
		h := &s.messages[i].header
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.names[i])), unix.SizeofSockaddrInet4
		h.Iov = &s.iovs[i][0]
	}
	s.fill, s.write = s.readSome, s.sendSome
	return s
}

func (s *sender) run() error {
	for {
		s.read = 0
		if err := s.t.dev.raw.Read(s.fill); err != nil {
			return s.t.dev.why(err)
		}
		s.root, s.local, s.lastWhy = s.t.table.root.Load(), address(s.t.local.Load()), unknown
		for i := range s.read {
			if err := s.packet(s.bufs[i][:s.lengths[i]]); err != nil {
				return err
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
		if s.readErr != nil {
			return s.readErr
		}
	}
}

// readSome reads what is there; false: nothing is.
func (s *sender) readSome(fd uintptr) bool {
	for s.read < len(s.bufs) {
		n, err := unix.Read(int(fd), s.bufs[s.read][outerLen:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return s.read > 0
		case err != nil:
			s.readErr = err
			return true
		}
		s.lengths[s.read] = outerLen + n
		s.read++
	}
	return true
}

// packet takes one that was read into b after room for an outer header.
func (s *sender) packet(b []byte) error {
	if len(b) < outerLen+vnetLen {
		s.t.count.malformed.Add(1)
		return nil
	}
	const at = outerLen + vnetLen
	about := *vnetAt(b[outerLen:])
	p, ok := checked(b[at:])
	if !ok {
		s.t.count.malformed.Add(1) // IPv6, which the device does not carry, among them
		return nil
	}
	hop, why := s.route(p)
	switch why {
	case looping:
		s.t.count.loop.Add(1)
		return nil
	case noRoute:
		s.t.count.noRoute.Add(1)
		return nil
	}
	if about.gso != gsoNone {
		return s.split(p, int(about.size), hop)
	}
	if about.flags&needsChecksum != 0 && !finish(p, int(about.start), int(about.offset)) ||
		len(p) > maxPacket-outerLen {
		s.t.count.malformed.Add(1)
		return nil
	}
	putOuter(b[at-outerLen:], p, len(p), s.local, hop)
	return s.add(b[at-outerLen:at+len(p)], nil, hop)
}

// finish writes the checksum that the kernel left to the network card.
func finish(p ipv4, start, offset int) bool {
	at := start + offset
	if start < p.headerLen() || at+2 > len(p) {
		return false
	}
	c := ^fold(sum(p[start:])) // the field holds the sum of the pseudo header
	if c == 0 {
		c = 0xffff // to UDP zero means none; to others it is the same
	}
	binary.BigEndian.PutUint16(p[at:], c)
	return true
}

// route gives the node that p goes to. Of several gateways one connection uses one.
func (s *sender) route(p ipv4) (address, verdict) {
	if p.dst() == s.last && s.lastWhy != unknown {
		return s.lastHop, s.lastWhy
	}
	hops := s.root.lookup(p.dst())
	if len(hops) == 0 {
		return 0, noRoute
	}
	hop := hops[0]
	if len(hops) > 1 {
		hop = hops[int((uint32(p.src())*2654435761^uint32(p.dst()))*2654435761>>16)%len(hops)]
	}
	why := toNode
	if s.root.lookup(hop) != nil {
		why = looping
	}
	if len(hops) == 1 {
		s.last, s.lastHop, s.lastWhy = p.dst(), hop, why
	}
	return hop, why
}

// split sends the TCP packet p as segments with size bytes of payload each.
func (s *sender) split(p ipv4, size int, hop address) error {
	tcp, header := p.tcpLen(), p.headerLen()
	if tcp == 0 || size == 0 || header+tcp+size > maxPacket-outerLen {
		s.t.count.malformed.Add(1)
		return nil
	}
	payload := p[header+tcp:]
	id, seq := binary.BigEndian.Uint16(p[4:]), binary.BigEndian.Uint32(p[header+4:])
	for off := 0; off == 0 || off < len(payload); off += size {
		if s.count == len(s.messages) {
			if err := s.flush(); err != nil {
				return err
			}
		}
		part := payload[off:min(off+size, len(payload))]
		head := s.heads[s.count][:outerLen+header+tcp]
		inner := ipv4(head[outerLen:])
		copy(inner, p)
		binary.BigEndian.PutUint16(inner[2:], uint16(len(inner)+len(part)))
		binary.BigEndian.PutUint16(inner[4:], id)
		id++
		inner.setChecksum()
		t := inner[header:]
		binary.BigEndian.PutUint32(t[4:], seq+uint32(off))
		if off+size < len(payload) {
			t[13] &^= flagFIN | flagPSH
		}
		t[16], t[17] = 0, 0
		binary.BigEndian.PutUint16(t[16:], ^fold(inner.pseudo(tcp+len(part))+sum(t)+sum(part)))
		putOuter(head, inner, len(inner)+len(part), s.local, hop)
		if err := s.add(head, part, hop); err != nil {
			return err
		}
	}
	return nil
}

// add puts a packet into the batch: head, which has the outer header, and the rest.
func (s *sender) add(head, rest []byte, hop address) error {
	if s.count == len(s.messages) {
		if err := s.flush(); err != nil {
			return err
		}
	}
	i := s.count
	s.names[i].Addr = hop.bytes4()
	s.iovs[i][0].Base = &head[0]
	s.iovs[i][0].SetLen(len(head))
	s.messages[i].header.SetIovlen(1)
	if len(rest) > 0 {
		s.iovs[i][1].Base = &rest[0]
		s.iovs[i][1].SetLen(len(rest))
		s.messages[i].header.SetIovlen(2)
	}
	s.count++
	return nil
}

// flush sends the batch.
func (s *sender) flush() error {
	defer func() { s.count = 0 }()
	for s.done = 0; s.done < s.count; {
		if err := s.t.sock.out.raw.Write(s.write); err != nil {
			return err
		}
		s.t.count.sent.Add(uint64(s.sent))
		s.done += s.sent
		if s.errno != 0 {
			s.failed(s.done, s.errno)
			s.done++
		} else if s.t.lastError.Load() != 0 {
			s.t.lastError.Store(0)
		}
	}
	return nil
}

// sendSome sends what the kernel takes; false: nothing at the moment.
func (s *sender) sendSome(fd uintptr) bool {
	s.sent, s.errno = batch(unix.SYS_SENDMMSG, fd, s.messages[s.done:s.count])
	if s.errno == unix.EINTR {
		s.errno = 0
	}
	return s.errno != unix.EAGAIN
}

// failed does what is to be done about a packet of the batch that the kernel refused.
func (s *sender) failed(i int, errno unix.Errno) {
	to := address(binary.BigEndian.Uint32(s.names[i].Addr[:]))
	h := &s.messages[i].header
	p := ipv4(unsafe.Slice(s.iovs[i][0].Base, s.iovs[i][0].Len)[outerLen:])
	switch errno {
	case unix.EMSGSIZE:
		if !p.noFragment() {
			whole := slices.Clone(unsafe.Slice(s.iovs[i][0].Base, s.iovs[i][0].Len))
			if h.Iovlen > 1 {
				whole = append(whole, unsafe.Slice(s.iovs[i][1].Base, s.iovs[i][1].Len)...)
			}
			s.sendFragments(whole, to)
			return
		}
		s.t.tooBig(s.quote(i), to)
	case unix.EHOSTUNREACH, unix.ENETUNREACH:
		s.t.refused(errno, int64(errno), to)
		s.t.answer(s.quote(i), codeHost, 0)
	default:
		s.t.refused(errno, int64(errno), to)
	}
}

// sendFragments sends an outer packet, larger than the underlay's device carries, in
// as many fragments as it takes. The kernel does so itself where the way is narrower
// farther on.
func (s *sender) sendFragments(whole ipv4, to address) {
	mtu := s.t.sock.pathMTU(to)
	step := (mtu - outerLen) &^ 7
	if step <= 0 || len(whole) <= mtu {
		s.t.refused(unix.EMSGSIZE, int64(unix.EMSGSIZE), to)
		return
	}
	s.id++
	piece := make(ipv4, 0, mtu)
	for payload, off := whole[outerLen:], 0; off < len(payload); off += step {
		part := payload[off:min(off+step, len(payload))]
		piece = append(append(piece[:0], whole[:outerLen]...), part...)
		binary.BigEndian.PutUint16(piece[2:], uint16(len(piece)))
		binary.BigEndian.PutUint16(piece[4:], max(s.id, 1)) // the kernel would replace a zero, in each by another
		word := uint16(off / 8)
		if off+step < len(payload) {
			word |= moreFragments
		}
		binary.BigEndian.PutUint16(piece[6:], word)
		if err := s.t.sock.send(piece, to); err != nil {
			var errno unix.Errno
			errors.As(err, &errno)
			s.t.refused(err, int64(errno), to)
			return
		}
	}
	s.t.count.sent.Add(1)
}

// quote is the beginning of the inner packet of a message.
func (s *sender) quote(i int) ipv4 {
	n := copy(s.scratch[:], unsafe.Slice(s.iovs[i][0].Base, s.iovs[i][0].Len)[outerLen:])
	if s.messages[i].header.Iovlen > 1 {
		n += copy(s.scratch[n:], unsafe.Slice(s.iovs[i][1].Base, s.iovs[i][1].Len))
	}
	return ipv4(s.scratch[:n])
}

// tooBig tells the sender of p how large a packet to a node may be.
func (t *Tunnel) tooBig(p ipv4, to address) {
	t.count.tooBig.Add(1)
	if mtu := t.sock.pathMTU(to); mtu > outerLen {
		t.answer(p, codeTooBig, mtu-outerLen)
	}
}
