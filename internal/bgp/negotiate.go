package bgp

import (
	"fmt"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
)

func (s *Session) ourOpen() wire.Open {
	p, f := s.peer, s.peer.families()
	o := wire.Open{ASN: s.localASN(), HoldTime: p.holdTime(), ID: s.self.ID}
	o.Capabilities = wire.Capabilities{Families: f, ASN4: true, Refresh: true, AddPathIn: f}
	if !p.NoRestart {
		o.Restart = wire.Restart{Known: true, Restarting: s.self.restarting, Time: s.restartTime(), Families: f}
		if s.once || s.self.kept {
			o.Restart.Forwarding = f
		}
	}
	return o
}

func (s *Session) localASN() uint32 { return s.peer.localASN(Config{ASN: s.self.ASN}) }
func (s *Session) restartTime() time.Duration {
	return s.peer.restartTime(Config{RestartTime: s.self.RestartTime})
}

// opened handles the peer's OPEN.
func (s *Session) opened(now time.Time, c *conn, body []byte) error {
	o, err := wire.ParseOpen(body)
	if err != nil {
		return err
	}
	bad := func(sub uint8, data ...byte) error {
		return &wire.Notification{Code: wire.CodeOpen, Subcode: sub, Data: data}
	}
	ibgp := s.peer.ASN == s.localASN()
	if o.ASN != s.peer.ASN {
		return fmt.Errorf("peer is AS %d, configured is %d: %w", o.ASN, s.peer.ASN, bad(wire.OpenBadAS))
	}
	if o.ID == s.self.ID && ibgp { // RFC 6286
		return fmt.Errorf("peer has our router id %v: %w", o.ID, bad(wire.OpenBadID))
	}
	theirs, ours := o.Families, s.peer.families()
	if theirs == 0 {
		theirs = wire.IPv4
	}
	if theirs&ours == 0 {
		return fmt.Errorf("peer speaks %v, configured is %v: %w", theirs, ours, bad(wire.OpenBadCap, 1, 4, 0, byte(ours.Each()[0]), 0, 1))
	}
	if !s.wins(c, o) {
		return &wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseCollision}
	}
	c.open, c.refresh = o, o.Refresh
	c.opts = wire.Options{ASN4: o.ASN4, IBGP: ibgp, Families: theirs & ours, AddPath: o.AddPathOut & ours}
	c.hold, c.expires, c.state = min(o.HoldTime, s.peer.holdTime()), time.Time{}, OpenConfirm
	s.send(c, wire.AppendKeepalive(nil))
	if c.hold > 0 {
		c.expires, c.beat = now.Add(c.hold), now.Add(s.beatEvery(c))
	}
	return nil
}

// wins resolves a collision between c, whose OPEN o has come, and the other
// connection, which it closes if that loses (RFC 4271 §6.8, RFC 6286).
func (s *Session) wins(c *conn, o wire.Open) bool {
	other := s.in
	if !c.outgoing {
		other = s.out
	}
	switch {
	case other == nil, other.state == Connect:
		// One that is not known to be there goes when c is up, or collides then:
		// the peer may have it already, and have decided for it.
		return true
	case other.state == Established:
		return false
	}
	ours := s.self.ID.Compare(o.ID)
	if ours == 0 && s.localASN() > o.ASN {
		ours = 1
	}
	if (ours > 0) != c.outgoing {
		return false
	}
	s.send(other, wire.AppendNotification(nil, &wire.Notification{Code: wire.CodeCease, Subcode: wire.CeaseCollision}))
	s.drop(other)
	return true
}
