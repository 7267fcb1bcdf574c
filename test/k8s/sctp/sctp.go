// Package sctp lets the test program agnhost speak SCTP on a kernel that has no SCTP
// sockets: it has the functions of github.com/ishidawataru/sctp that agnhost calls, over
// raw sockets of IP protocol 132.
//
// build.sh puts it in the place of that module where, and only where, the kernel lacks
// SCTP. Packet filters and connection tracking see real SCTP: the four-way handshake with
// verification tags, data, and shutdown, with the checksums of RFC 9260. So upstream's
// tests of network policy for SCTP, and of ClusterNetworkPolicy, which mixes it into
// most of its tests, can run there.
//
// It is not an SCTP for anything else. An association has one path, one stream, and one
// chunk of data in flight at a time; whatever is not of this kind is left unanswered.
//
//	DialSCTP ──INIT──►  ◄──INIT ACK──  ──COOKIE ECHO──►  ◄──COOKIE ACK── AcceptSCTP
//	Write    ──DATA──►  ◄──SACK──
//	Close    ──SHUTDOWN──►  ◄──SHUTDOWN ACK──  ──SHUTDOWN COMPLETE──►
package sctp

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	resend    = 500 * time.Millisecond // of what has not been answered
	dialLimit = time.Minute
	lingering = 2 * time.Second // of Close, for what has not been acknowledged
)

// SCTPAddr is where an association ends: one address, unlike the standard's.
type SCTPAddr struct {
	IPAddrs []net.IPAddr
	Port    int
}

// Network is "sctp".
func (a *SCTPAddr) Network() string { return "sctp" }

// String is host:port.
func (a *SCTPAddr) String() string {
	var host string
	if len(a.IPAddrs) > 0 {
		host = a.IPAddrs[0].String()
	}
	return net.JoinHostPort(host, strconv.Itoa(a.Port))
}

// ResolveSCTPAddr reads host:port; a name is looked up, no host means any address.
func ResolveSCTPAddr(_, text string) (*SCTPAddr, error) {
	udp, err := net.ResolveUDPAddr("udp", text)
	if err != nil {
		return nil, err
	}
	a := &SCTPAddr{Port: udp.Port}
	if udp.IP != nil {
		a.IPAddrs = []net.IPAddr{{IP: udp.IP, Zone: udp.Zone}}
	}
	return a, nil
}

// peer is the far end of an association.
type peer struct {
	addr string
	port uint16
}

// endpoint is a port of this namespace: it reads one raw socket and gives each packet to
// the association that it is for.
type endpoint struct {
	raw  *net.IPConn
	port uint16
	news chan *SCTPConn // for who listens; nil at who dialled

	secret maphash.Seed

	mu    sync.Mutex
	peers map[peer]*SCTPConn
}

func open(network string, bind net.IP, port uint16, news chan *SCTPConn) (*endpoint, error) {
	raw, err := net.ListenIP(network+":132", &net.IPAddr{IP: bind})
	if err != nil {
		return nil, err
	}
	return &endpoint{raw: raw, port: port, news: news, secret: maphash.MakeSeed(), peers: map[peer]*SCTPConn{}}, nil
}

// serve reads until the socket is closed.
func (e *endpoint) serve() {
	buf := make([]byte, 65536)
	for {
		n, from, err := e.raw.ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		h, chunks, ok := parse(buf[:n])
		if !ok || h.dst != e.port {
			continue
		}
		for _, c := range chunks {
			e.take(peer{from.String(), h.src}, from, h, c)
		}
	}
}

func (e *endpoint) take(p peer, from *net.IPAddr, h header, c chunk) {
	e.mu.Lock()
	conn := e.peers[p]
	e.mu.Unlock()
	switch {
	case e.news != nil && c.kind == kindInit && len(c.value) >= 16:
		// All that is to be remembered travels in the cookie: nothing is kept.
		theirs := initKeys(c.value)
		mine := e.keysFor(p, theirs)
		e.send(from, p.port, theirs.tag, chunk{kindInitAck, 0, initAck(mine, theirs)})
	case e.news != nil && c.kind == kindCookieEcho && len(c.value) == cookieBytes:
		mine, theirs := fromCookie(c.value)
		if conn == nil || conn.mine.tag != mine.tag {
			conn = e.conn(p, from, mine, theirs)
			select {
			case e.news <- conn:
			default: // nobody accepts
				return
			}
		}
		e.send(from, p.port, theirs.tag, chunk{kind: kindCookieAck})
	case conn != nil && h.tag == conn.mine.tag:
		conn.take(c)
	}
}

// keysFor are those of this end for whom theirs are: the same when an INIT comes again
// because the answer was late. With others connection tracking, which remembers the last
// ones that it saw, would take what follows for invalid.
func (e *endpoint) keysFor(p peer, theirs keys) keys {
	h := maphash.Comparable(e.secret, struct {
		peer   peer
		theirs keys
	}{p, theirs})
	return keys{tag: uint32(h>>32) | 1, tsn: uint32(h)}
}

// conn makes the association with p.
func (e *endpoint) conn(p peer, at *net.IPAddr, mine, theirs keys) *SCTPConn {
	c := &SCTPConn{
		end: e, peer: p, at: at, mine: mine, theirs: theirs,
		data: make(chan []byte, 64), acked: make(chan uint32, 16), control: make(chan chunk, 16),
		over: make(chan struct{}), seen: theirs.tsn - 1,
	}
	e.mu.Lock()
	e.peers[p] = c
	e.mu.Unlock()
	return c
}

func (e *endpoint) send(to *net.IPAddr, port uint16, tag uint32, c chunk) {
	// What does not arrive is sent again, or is missed by who waits for it.
	_, _ = e.raw.WriteToIP(packet(header{e.port, port, tag}, c), to)
}

// SCTPListener accepts associations.
type SCTPListener struct {
	ends []*endpoint
	news chan *SCTPConn
}

// ListenSCTP listens at a port; an address of one family means this family.
func ListenSCTP(_ string, a *SCTPAddr) (*SCTPListener, error) {
	l := &SCTPListener{news: make(chan *SCTPConn, 64)}
	networks := []string{"ip4", "ip6"}
	var bind net.IP
	if len(a.IPAddrs) > 0 {
		bind = a.IPAddrs[0].IP
		if bind.To4() != nil {
			networks = networks[:1]
		} else if !bind.IsUnspecified() {
			networks = networks[1:]
		}
	}
	for _, network := range networks {
		e, err := open(network, bind, uint16(a.Port), l.news)
		if err != nil {
			if network == "ip6" && len(l.ends) > 0 {
				break // a kernel without IPv6
			}
			return nil, fmt.Errorf("sctp: listen at %v: %w", a, err)
		}
		l.ends = append(l.ends, e)
		go e.serve()
	}
	return l, nil
}

// AcceptSCTP waits for an association.
func (l *SCTPListener) AcceptSCTP() (*SCTPConn, error) {
	c, ok := <-l.news
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// Close stops listening.
func (l *SCTPListener) Close() error {
	for _, e := range l.ends {
		_ = e.raw.Close()
	}
	return nil
}

// DialSCTP makes an association. What nobody answers it tries for a minute.
func DialSCTP(_ string, _, to *SCTPAddr) (*SCTPConn, error) {
	if len(to.IPAddrs) == 0 {
		return nil, fmt.Errorf("sctp: dial %v: no address", to)
	}
	at := to.IPAddrs[0]
	network := "ip6"
	if at.IP.To4() != nil {
		network = "ip4"
	}
	e, err := open(network, nil, uint16(32768+rand.IntN(28000)), nil)
	if err != nil {
		return nil, fmt.Errorf("sctp: dial %v: %w", to, err)
	}
	mine := keys{tag: rand.Uint32() | 1, tsn: rand.Uint32()}
	c := e.conn(peer{at.String(), uint16(to.Port)}, &at, mine, keys{})
	go e.serve()
	if err := c.shake(); err != nil {
		_ = e.raw.Close()
		return nil, fmt.Errorf("sctp: dial %v: %w", to, err)
	}
	return c, nil
}

// SCTPConn is an association. One goroutine may read it while another writes.
type SCTPConn struct {
	end          *endpoint
	peer         peer
	at           *net.IPAddr
	mine, theirs keys

	data    chan []byte
	acked   chan uint32 // numbers that the peer has acknowledged
	control chan chunk  // of handshakes
	over    chan struct{}
	once    sync.Once
	seen    uint32 // the last number received; of the reading goroutine

	mu       sync.Mutex
	deadline time.Time
}

func (c *SCTPConn) send(k chunk) { c.end.send(c.at, c.peer.port, c.theirs.tag, k) }

// ask sends k until an answer of a kind comes. What the peer has ended it had begun: it need not
// acknowledge a cookie, or a shutdown, any more.
func (c *SCTPConn) ask(k chunk, kind byte, limit time.Duration) (chunk, error) {
	stop := time.After(limit)
	for {
		c.send(k)
		again := time.After(resend)
	answers:
		for {
			select {
			case a := <-c.control:
				switch a.kind {
				case kind:
					return a, nil
				case kindAbort:
					return chunk{}, syscall.ECONNREFUSED
				}
			case <-c.over:
				select {
				case a := <-c.control:
					if a.kind == kindAbort {
						return chunk{}, syscall.ECONNREFUSED
					}
				default:
				}
				return chunk{}, nil
			case <-again:
				break answers
			case <-stop:
				return chunk{}, syscall.ETIMEDOUT
			}
		}
	}
}

// shake is the handshake of who dials.
func (c *SCTPConn) shake() error {
	a, err := c.ask(chunk{kindInit, 0, initValue(c.mine)}, kindInitAck, dialLimit)
	if err != nil {
		return err
	}
	cookie, ok := cookieOf(a.value)
	if !ok {
		return errors.New("the answer has no cookie")
	}
	c.theirs = initKeys(a.value)
	c.end.mu.Lock()
	c.seen = c.theirs.tsn - 1
	c.end.mu.Unlock()
	_, err = c.ask(chunk{kindCookieEcho, 0, cookie}, kindCookieAck, dialLimit)
	return err
}

// take handles a chunk of this association.
func (c *SCTPConn) take(k chunk) {
	switch k.kind {
	case kindData:
		c.takeData(k.value)
	case kindSack:
		if len(k.value) >= 4 {
			offer(c.acked, be.Uint32(k.value))
		}
	case kindShutdown:
		c.end.mu.Lock()
		c.finish()
		c.end.mu.Unlock()
		c.send(chunk{kind: kindShutdownAck})
	case kindShutdownAck:
		c.send(chunk{kind: kindShutdownComplete})
		offer(c.control, k)
	case kindAbort:
		offer(c.control, k)
		c.finish()
	default:
		offer(c.control, k)
	}
}

func (c *SCTPConn) takeData(value []byte) {
	if len(value) < 12 {
		return
	}
	c.end.mu.Lock()
	tsn := be.Uint32(value)
	if tsn == c.seen+1 {
		c.seen = tsn
		offer(c.data, append([]byte(nil), value[12:]...))
	}
	seen := c.seen
	c.end.mu.Unlock()
	c.send(chunk{kindSack, 0, sack(seen)})
}

// offer gives v to who waits, if there is room.
func offer[T any](to chan T, v T) {
	select {
	case to <- v:
	default:
	}
}

func (c *SCTPConn) finish() { c.once.Do(func() { close(c.over) }) }

// Read gives one message; io.EOF after the peer's shutdown.
func (c *SCTPConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	var late <-chan time.Time
	if !deadline.IsZero() {
		late = time.After(time.Until(deadline))
	}
	select {
	case m := <-c.data:
		return copy(p, m), nil
	default:
	}
	select {
	case m := <-c.data:
		return copy(p, m), nil
	case <-c.over:
		select { // what came before the end
		case m := <-c.data:
			return copy(p, m), nil
		default:
			return 0, io.EOF
		}
	case <-late:
		return 0, syscall.ETIMEDOUT
	}
}

// Write sends one message, and waits for a while that the peer has it: a peer that only
// sends and shuts down acknowledges nothing.
func (c *SCTPConn) Write(p []byte) (int, error) {
	tsn := c.mine.tsn
	c.mine.tsn++
	stop := time.After(lingering)
	for {
		c.send(chunk{kindData, 3, dataValue(tsn, p)}) // 3: first and last part
		again := time.After(resend)
	acks:
		for {
			select {
			case got := <-c.acked:
				if int32(got-tsn) >= 0 {
					return len(p), nil
				}
			case <-again:
				break acks
			case <-c.over:
				return len(p), nil
			case <-stop:
				return len(p), nil
			}
		}
	}
}

// Close ends the association, the peer's acknowledgement awaited for a while.
func (c *SCTPConn) Close() error {
	select {
	case <-c.over: // the peer has ended it
	default:
		c.end.mu.Lock()
		seen := c.seen
		c.end.mu.Unlock()
		_, _ = c.ask(chunk{kindShutdown, 0, sack(seen)[:4]}, kindShutdownAck, lingering)
		c.finish()
	}
	if c.end.news == nil {
		return c.end.raw.Close()
	}
	c.end.mu.Lock()
	defer c.end.mu.Unlock()
	if c.end.peers[c.peer] == c {
		delete(c.end.peers, c.peer)
	}
	return nil
}

// SCTPRemoteAddr is the peer's.
func (c *SCTPConn) SCTPRemoteAddr(int) (*SCTPAddr, error) {
	return &SCTPAddr{IPAddrs: []net.IPAddr{*c.at}, Port: int(c.peer.port)}, nil
}

// SetReadDeadline bounds the Reads that begin after it.
func (c *SCTPConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}
