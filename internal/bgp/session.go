package bgp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// Timers that are not negotiated; Calico's values for BIRD (facts S-05).
const (
	connectDelay  = 2 * time.Second // from the start of a session to its first attempt
	connectRetry  = 5 * time.Second // between attempts, and for one to succeed
	errorWaitMin  = 5 * time.Second // after a protocol error, doubled by each further one
	errorWaitMax  = 30 * time.Second
	errorForget   = 300 * time.Second // Established for so long, errors are forgotten
	openHold      = 240 * time.Second // for the peer's OPEN (RFC 4271 §8.2.2)
	peerReconnect = "peer opened a new connection"
)

// ConnID names a connection between a Router and its shell. IDs are never
// used again.
type ConnID uint64

// EffectKind says what the shell must do.
type EffectKind uint8

// The kinds of Effect.
const (
	Dial  EffectKind = iota // open a connection to Peer; then Connected or Closed
	Send                    // write Data before anything that Updates gives
	Close                   // close after what was sent before; no Closed follows
)

// Effect is something the shell must do.
type Effect struct {
	Kind EffectKind
	Conn ConnID
	Peer Peer   // of Dial
	Data []byte // of Send; now the shell's
}

// conn is one TCP connection of a session.
type conn struct {
	id       ConnID
	outgoing bool
	state    State // Connect, OpenSent, OpenConfirm or Established
	local    netip.Addr
	rest     []byte    // an incomplete message
	expires  time.Time // connect timer, then hold timer; zero means never
	beat     time.Time // next KEEPALIVE; zero means never
	hold     time.Duration
	open     wire.Open    // the peer's
	opts     wire.Options // for what the peer sends
	refresh  bool
}

// events is what a session reports. The Router implements it; so do tests.
type events interface {
	up(c *conn)
	// down: the session that was Established is over. The routes of families
	// in keep may be used on, for up to the time the peer asked for.
	down(keep Families, err error)
	update(u *wire.Update)
	refresh(r wire.Refresh)
}

// self is what all sessions of a speaker have in common.
type self struct {
	ASN         uint32
	ID          netip.Addr
	RestartTime time.Duration
	kept        bool   // an earlier process's routes are in the kernel
	restarting  bool   // and the first synchronisation is not over
	lastConn    ConnID // the one given out last
	effects     []Effect
}

func (s *self) newConn() ConnID { s.lastConn++; return s.lastConn }

// Session is the state machine of RFC 4271 §8 for one peer, with up to one
// connection in each direction until collision detection leaves one.
type Session struct {
	peer   Peer
	self   *self
	on     events
	in     *conn // accepted
	out    *conn // dialled
	dialAt time.Time
	idle   time.Time     // no connection is made or taken before; zero means now
	wait   time.Duration // last error wait
	since  time.Time     // of the state that Status reports
	shown  State
	err    error
	once   bool // was Established before
	upd    wire.Update
}

func newSession(p Peer, s *self, on events) *Session { return &Session{peer: p, self: s, on: on} }

// start lets the session begin at now.
func (s *Session) start(now time.Time) { s.dialAt = now.Add(connectDelay); s.note(now) }

// State is that of the connection that is furthest.
func (s *Session) State() State {
	st := Active
	if !s.idle.IsZero() || s.dialAt.IsZero() && s.in == nil && s.out == nil {
		st = Idle
	}
	for _, c := range []*conn{s.in, s.out} {
		if c != nil {
			st = max(st, c.state)
		}
	}
	if s.out != nil && st == Active {
		st = Connect
	}
	return st
}

func (s *Session) note(now time.Time) {
	if st := s.State(); st != s.shown || s.since.IsZero() {
		s.shown, s.since = st, now
	}
}

// established is the connection that carries routes, or nil.
func (s *Session) established() *conn {
	for _, c := range []*conn{s.in, s.out} {
		if c != nil && c.state == Established {
			return c
		}
	}
	return nil
}

func (s *Session) conn(id ConnID) *conn {
	for _, c := range []*conn{s.in, s.out} {
		if c != nil && c.id == id {
			return c
		}
	}
	return nil
}

// deadline is when tick is due next; zero means never.
func (s *Session) deadline() time.Time {
	var d time.Time
	soonest(&d, s.idle)
	if s.idle.IsZero() && s.out == nil && s.established() == nil {
		soonest(&d, s.dialAt)
	}
	for _, c := range []*conn{s.in, s.out} {
		if c != nil {
			soonest(&d, c.expires)
			soonest(&d, c.beat)
		}
	}
	return d
}

// soonest moves d forward to t, where zero stands for never.
func soonest(d *time.Time, t time.Time) {
	if !t.IsZero() && (d.IsZero() || t.Before(*d)) {
		*d = t
	}
}

func due(t, now time.Time) bool { return !t.IsZero() && !now.Before(t) }

// tick does what is due at now.
func (s *Session) tick(now time.Time) {
	defer s.note(now)
	if due(s.idle, now) {
		s.idle, s.dialAt = time.Time{}, now
	}
	for _, c := range []*conn{s.in, s.out} {
		switch {
		case c == nil:
		case due(c.expires, now) && c.state == Connect:
			s.drop(c)
			if !s.once {
				s.err = errors.New("connect: no answer")
			}
			s.dialAt = now
		case due(c.expires, now):
			s.fail(now, c, &wire.Notification{Code: wire.CodeHold})
		case due(c.beat, now):
			s.send(c, wire.AppendKeepalive(nil))
			c.beat = now.Add(s.beatEvery(c))
		}
	}
	if s.idle.IsZero() && due(s.dialAt, now) && s.out == nil && s.established() == nil {
		s.dial(now)
	}
}

func (s *Session) dial(now time.Time) {
	s.dialAt = now.Add(connectRetry)
	if s.peer.Passive {
		return // dialAt only keeps the state Active
	}
	s.out = &conn{id: s.self.newConn(), outgoing: true, state: Connect, expires: now.Add(connectRetry)}
	s.self.effects = append(s.self.effects, Effect{Kind: Dial, Conn: s.out.id, Peer: s.peer})
}

// connected: the dialled connection is there.
func (s *Session) connected(now time.Time, id ConnID, local netip.Addr) {
	if c := s.conn(id); c != nil && c.state == Connect {
		s.begin(now, c, local)
	}
}

// accept takes a connection from the peer, or refuses it.
func (s *Session) accept(now time.Time, local netip.Addr) (ConnID, error) {
	if !s.idle.IsZero() || s.dialAt.IsZero() {
		return 0, fmt.Errorf("not before %v", s.idle.Sub(now).Round(time.Second))
	}
	if c := s.established(); c != nil {
		if s.keeps(c) == 0 || now.Sub(s.since) < connectRetry {
			return 0, errors.New("there is a session already")
		}
		// RFC 4724 §5: the peer has restarted, and its old connection is gone. A
		// session this young has rather met the loser of a collision, late.
		s.lost(now, c, errors.New(peerReconnect))
		s.drop(c)
	}
	if s.in != nil {
		// The peer would not connect twice unless the first one were gone.
		s.drop(s.in)
	}
	s.in = &conn{id: s.self.newConn()}
	s.begin(now, s.in, local)
	return s.in.id, nil
}

// begin sends the OPEN.
func (s *Session) begin(now time.Time, c *conn, local netip.Addr) {
	c.state, c.local, c.expires = OpenSent, local, now.Add(openHold)
	s.send(c, wire.AppendOpen(nil, s.ourOpen()))
	s.note(now)
}

// received handles bytes of any number of messages, whole or in part.
func (s *Session) received(now time.Time, id ConnID, data []byte) {
	c := s.conn(id)
	if c == nil || c.state == Connect {
		return
	}
	defer s.note(now)
	if len(c.rest) > 0 {
		c.rest = append(c.rest, data...)
		data = c.rest
	}
	for s.conn(id) == c {
		t, body, rest, err := wire.Frame(data)
		if err != nil {
			s.fail(now, c, err)
			return
		}
		if body == nil {
			c.rest = append(c.rest[:0], rest...)
			return
		}
		if err := s.message(now, c, t, body); err != nil {
			s.fail(now, c, err)
			return
		}
		data = rest
	}
}

// message handles one message. An error ends the connection; if it is a
// *wire.Notification the peer is told.
func (s *Session) message(now time.Time, c *conn, t wire.Type, body []byte) error {
	if t == wire.TypeNotification {
		return &notified{wire.ParseNotification(body)}
	}
	unexpected := &wire.Notification{Code: wire.CodeFSM, Subcode: uint8(c.state - OpenSent + 1)}
	if c.state != OpenSent && c.hold > 0 {
		c.expires = now.Add(c.hold)
	}
	switch {
	case c.state == OpenSent && t == wire.TypeOpen:
		return s.opened(now, c, body)
	case c.state == OpenConfirm && t == wire.TypeKeepalive:
		s.up(c)
	case c.state == Established && t == wire.TypeKeepalive:
		if c.hold > 0 && s.wait > 0 && now.Sub(s.since) > errorForget {
			s.wait = 0
		}
	case c.state == Established && t == wire.TypeUpdate:
		if err := s.upd.Parse(body, c.opts); err != nil {
			return err
		}
		s.on.update(&s.upd)
	case c.state == Established && t == wire.TypeRefresh:
		r, err := wire.ParseRefresh(body)
		if err != nil {
			return err
		}
		s.on.refresh(r)
	default:
		return unexpected
	}
	return nil
}

// notified is a NOTIFICATION from the peer.
type notified struct{ *wire.Notification }

func (n *notified) Error() string { return "received: " + n.Notification.Error() }
func (n *notified) Unwrap() error { return n.Notification }

func (s *Session) up(c *conn) {
	c.state = Established
	if !s.once {
		s.once, s.err = true, nil // earlier attempts matter no more
	}
	if other := s.in; other != c && other != nil {
		s.drop(other)
	}
	if other := s.out; other != c && other != nil {
		s.drop(other)
	}
	s.on.up(c)
}

// beatEvery is the time between KEEPALIVEs.
func (s *Session) beatEvery(c *conn) time.Duration {
	if k := s.peer.KeepaliveTime; k > 0 {
		return min(k, c.hold/3)
	}
	return c.hold / 3
}

// closed: the connection broke, or could not be made.
func (s *Session) closed(now time.Time, id ConnID, err error) {
	c := s.conn(id)
	if c == nil {
		return
	}
	defer s.note(now)
	if c.state == Established {
		s.lost(now, c, err)
	} else if s.established() == nil && (c.state != Connect || !s.once) {
		s.err = err
	}
	s.forget(c)
	if s.idle.IsZero() && c.state != Connect && !due(s.dialAt, now.Add(connectDelay)) {
		s.dialAt = now.Add(connectDelay)
	}
}

// keeps are the families whose routes outlive c (RFC 4724).
func (s *Session) keeps(c *conn) Families {
	if r := c.open.Restart; r.Known && !s.peer.NoRestart && r.Time > 0 {
		return r.Families & c.opts.Families
	}
	return 0
}

// lost reports that the Established connection c ended without a NOTIFICATION.
func (s *Session) lost(now time.Time, c *conn, err error) {
	s.err, s.dialAt = err, now.Add(connectDelay)
	s.on.down(s.keeps(c), err)
}

// fail ends c for a protocol error of either side. Unless it was only a
// collision, the session then rests for a while that grows.
func (s *Session) fail(now time.Time, c *conn, err error) {
	var n *wire.Notification
	var from *notified
	if errors.As(err, &n) && !errors.As(err, &from) {
		s.send(c, wire.AppendNotification(nil, n))
	}
	was := c.state
	s.drop(c)
	if n != nil && n.Code == wire.CodeCease && n.Subcode == wire.CeaseCollision {
		return
	}
	s.err = err
	s.rest(now)
	if was == Established {
		s.on.down(0, err)
	}
}

// rest closes everything and begins the error wait.
func (s *Session) rest(now time.Time) {
	for _, c := range []*conn{s.in, s.out} {
		if c != nil && c.state != Established {
			s.drop(c)
		}
	}
	if s.established() != nil {
		return // the failed connection was a second one
	}
	s.wait = min(max(2*s.wait, errorWaitMin), errorWaitMax)
	s.idle = now.Add(s.wait)
}

// stop ends the session for good. The peer is told n, unless that is nil.
func (s *Session) stop(now time.Time, n *wire.Notification) {
	was := s.established()
	for _, c := range []*conn{s.in, s.out} {
		if c == nil {
			continue
		}
		if n != nil && c.state != Connect {
			s.send(c, wire.AppendNotification(nil, n))
		}
		s.drop(c)
	}
	s.dialAt, s.idle = time.Time{}, time.Time{}
	if was != nil {
		s.on.down(0, errors.New("stopped by configuration"))
	}
	s.note(now)
}

func (s *Session) send(c *conn, data []byte) {
	s.self.effects = append(s.self.effects, Effect{Kind: Send, Conn: c.id, Data: data})
}

// drop closes c and forgets it.
func (s *Session) drop(c *conn) {
	s.self.effects = append(s.self.effects, Effect{Kind: Close, Conn: c.id})
	s.forget(c)
}

func (s *Session) forget(c *conn) {
	if s.in == c {
		s.in = nil
	}
	if s.out == c {
		s.out = nil
	}
}
