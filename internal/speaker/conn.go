package speaker

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/weft-net/weft/internal/bgp"
)

// A peer that takes nothing for so long is dead (RFC 9687).
const sendHold = 3 * time.Minute

// How long a farewell may take to be written.
const leaveTime = 2 * time.Second

// conn is a connection, or an attempt at one.
type conn struct {
	id    bgp.ConnID
	nc    net.Conn // nil while dialling
	queue [][]byte // to be sent before any update; guarded by Speaker.mu
	kick  chan struct{}
	gone  chan struct{}      // closed by leave
	stop  context.CancelFunc // of an attempt
}

func newConn(id bgp.ConnID) *conn {
	return &conn{id: id, kick: make(chan struct{}, 1), gone: make(chan struct{}), stop: func() {}}
}

func (c *conn) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// leave lets the writer send what is queued and then close. It is called once,
// by whoever took c out of Speaker.conns, with Speaker.mu held.
func (c *conn) leave() {
	c.stop()
	if c.nc != nil {
		_ = c.nc.SetWriteDeadline(time.Now().Add(leaveTime))
	}
	close(c.gone)
}

// dial begins an attempt. s.mu is held.
func (s *Speaker) dial(id bgp.ConnID, p bgp.Peer) {
	c := newConn(id)
	var ctx context.Context
	ctx, c.stop = context.WithCancel(s.ctx)
	s.conns[id] = c
	s.tasks.Go(func() {
		nc, err := dialPeer(ctx, p)
		c.stop()
		if err != nil {
			s.closed(c, err)
			return
		}
		s.step(func(now time.Time) {
			if s.conns[id] != c { // no longer wanted
				_ = nc.Close()
				return
			}
			s.start(id, nc)
			s.router.Connected(now, id, addrOf(nc.LocalAddr()))
		})
		s.wake()
	})
}

// read hands what the peer sends to the Router until the connection ends.
func (s *Speaker) read(c *conn) {
	buf := make([]byte, readBytes)
	for {
		n, err := c.nc.Read(buf)
		if n > 0 {
			s.step(func(now time.Time) { s.router.Received(now, c.id, buf[:n]) })
			s.wake()
		}
		if err != nil {
			s.closed(c, err)
			return
		}
	}
}

// write sends what the Router has for the peer until the connection ends.
func (s *Speaker) write(c *conn) {
	defer c.nc.Close()
	for {
		data, last := s.outgoing(c)
		if len(data) > 0 {
			limit := sendHold
			if last {
				limit = leaveTime
			}
			_ = c.nc.SetWriteDeadline(time.Now().Add(limit))
			if _, err := c.nc.Write(data); err != nil {
				s.closed(c, err)
				return
			}
		}
		switch {
		case last:
			return
		case len(data) > 0:
			continue
		}
		select {
		case <-c.kick:
		case <-c.gone:
		}
	}
}

// outgoing gives what to send next, and whether the connection ends after it.
func (s *Speaker) outgoing(c *conn) (data []byte, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range c.queue {
		data = append(data, m...)
	}
	c.queue = nil
	select {
	case <-c.gone:
		return data, true
	default:
		return s.router.Updates(data, c.id), false
	}
}

// addrOf gives the address of a TCP endpoint.
func addrOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := t.AddrPort().Addr().Unmap()
	if !addr.IsLinkLocalUnicast() {
		addr = addr.WithZone("")
	}
	return addr
}
