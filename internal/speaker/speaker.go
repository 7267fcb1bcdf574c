// Package speaker puts a bgp.Router on the network: sockets, timers, TCP
// options, and the goroutines around them.
//
// It decides nothing. The Router says what to dial, send and close; the
// speaker carries that out, hands it what arrives and when time passes, and
// gives its learned routes to one consumer, at the consumer's pace: while that
// is busy, changes of the same prefix merge.
//
//	Apply ──► ┌────────────┐ ──► Learned
//	          │ bgp.Router │
//	reader ─► └────────────┘ ─► writer      (one each per connection)
//
// One lock guards the Router. A reader holds it while it hands over what one
// read gave, a writer while it fetches what to send next, so a slow peer holds
// up nobody and is told the latest state rather than the history.
//
// When Run ends, connections are closed without a NOTIFICATION: peers that
// know graceful restart (RFC 4724) keep our routes while a new process starts.
// It listens and dials in the network namespace of the process. It writes no
// route; package route decides and kernel/fib writes.
package speaker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/bgp"
)

const (
	batchLimit  = 4096            // routes in a LearnedBatch
	readBytes   = 16 << 10        // per read; each session has such a buffer
	listenRetry = 5 * time.Second // while a port cannot be listened on
)

// Speaker is a BGP speaker. Its methods may be called by several goroutines at
// once; only one may receive from Learned.
type Speaker struct {
	log     *slog.Logger
	learned chan bgp.LearnedBatch
	kick    chan struct{} // something happened that the loop should look at

	mu     sync.Mutex
	router *bgp.Router
	want   *bgp.Config // not applied yet
	conns  map[bgp.ConnID]*conn
	peers  map[netip.Addr]bgp.Peer // as applied

	// Only the loop uses what follows.
	ctx       context.Context // of Run, for the goroutines it owns
	tasks     sync.WaitGroup
	listeners []*listener
	listening listenKey
	listenErr string
	retry     time.Time
}

// New gives a speaker that does nothing before Run, and has no peers before Apply.
func New(log *slog.Logger) *Speaker {
	return &Speaker{
		log: log, learned: make(chan bgp.LearnedBatch), kick: make(chan struct{}, 1),
		router: bgp.NewRouter(), conns: map[bgp.ConnID]*conn{}, peers: map[netip.Addr]bgp.Peer{},
	}
}

// Apply makes c the configuration, without disturbing sessions that it does
// not change. The error says what is wrong with c, which is then not used. The
// speaker keeps c; do not change it afterwards.
func (s *Speaker) Apply(c bgp.Config) error {
	if err := c.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	s.want = &c
	s.mu.Unlock()
	s.wake()
	return nil
}

// Learned delivers what the peers told. The first batch has Reset set, and one
// has Synced. The slices of a batch are used again: they are valid until the
// next receive. The channel is never closed.
func (s *Speaker) Learned() <-chan bgp.LearnedBatch { return s.learned }

// Status lists the peers by name.
func (s *Speaker) Status() []bgp.PeerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.router.Status()
}

// Routes tells what the peer with that address told and was told; false if there is no such
// peer. Sessions wait meanwhile, some milliseconds for 100,000 routes.
func (s *Speaker) Routes(peer netip.Addr) (bgp.PeerRoutes, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.router.Routes(peer)
}

// Stop tells every peer that we leave for good, so that they withdraw our
// routes at once. Run goes on, without sessions, until its context ends.
func (s *Speaker) Stop() { s.step(s.router.Stop) }

func (s *Speaker) wake() {
	select {
	case s.kick <- struct{}{}:
	default: // the loop has not seen the last one yet
	}
}

// Run speaks until ctx ends, and returns its cause. It may be called once.
func (s *Speaker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	s.ctx = ctx
	defer s.tasks.Wait()
	defer s.closeAll()
	defer cancel()
	var batches [2]bgp.LearnedBatch // the consumer has one while the other fills
	var timer <-chan time.Time
	for have := false; ; {
		s.applyWanted()
		s.step(s.router.Tick)
		s.mu.Lock()
		if !have {
			have = s.router.Learned(&batches[0], batchLimit)
		}
		deadline := s.router.Deadline()
		s.mu.Unlock()
		s.listen()
		if !s.retry.IsZero() && (deadline.IsZero() || s.retry.Before(deadline)) {
			deadline = s.retry
		}
		timer = nil
		if !deadline.IsZero() {
			timer = time.After(time.Until(deadline))
		}
		var out chan<- bgp.LearnedBatch
		if have {
			out = s.learned
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.kick:
		case <-timer:
		case out <- batches[0]:
			have, batches[0], batches[1] = false, batches[1], batches[0]
		}
	}
}

// applyWanted hands a new configuration to the Router.
func (s *Speaker) applyWanted() {
	s.mu.Lock()
	c := s.want
	s.want = nil
	s.mu.Unlock()
	if c == nil {
		return
	}
	peers := make(map[netip.Addr]bgp.Peer, len(c.Peers))
	for _, p := range c.Peers {
		peers[p.Addr] = p
	}
	s.mu.Lock()
	s.peers = peers
	s.mu.Unlock()
	s.rekey(peers) // before anything is dialled: the peer may be quicker
	s.reconfigureListeners(c)
	var err error
	s.step(func(now time.Time) { err = s.router.Apply(now, *c) })
	if err != nil {
		s.log.Error("configuration refused", "err", err)
	}
}

// step lets the Router handle something, and carries out what it then wants.
func (s *Speaker) step(f func(now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(time.Now())
	for _, e := range s.router.Effects() {
		s.carryOut(e)
	}
	for _, id := range s.router.Ready() {
		if c := s.conns[id]; c != nil {
			c.wake()
		}
	}
	for _, r := range s.router.Reports() {
		s.report(r)
	}
}

func (s *Speaker) report(r bgp.Report) {
	switch {
	case !r.Up:
		s.log.Warn("session down", "peer", r.Peer, "err", r.Err)
	case r.Err != nil:
		s.log.Warn("bad message", "peer", r.Peer, "err", r.Err)
	default:
		s.log.Info("session established", "peer", r.Peer)
	}
}

// carryOut does one thing that the Router wants. s.mu is held.
func (s *Speaker) carryOut(e bgp.Effect) {
	switch e.Kind {
	case bgp.Dial:
		s.dial(e.Conn, e.Peer)
	case bgp.Send:
		if c := s.conns[e.Conn]; c != nil {
			c.queue = append(c.queue, e.Data)
			c.wake()
		}
	case bgp.Close:
		if c := s.conns[e.Conn]; c != nil {
			delete(s.conns, e.Conn)
			c.leave()
		}
	}
}

// accepted handles a connection from a peer.
func (s *Speaker) accepted(nc net.Conn) {
	remote, local := addrOf(nc.RemoteAddr()), addrOf(nc.LocalAddr())
	s.mu.Lock()
	peer, known := s.peers[remote]
	s.mu.Unlock()
	if known {
		if err := setPeerOptions(nc, peer); err != nil {
			s.log.Warn("socket options", "peer", remote, "err", err)
			known = peer.TTLSecurity == 0 // without the check the connection is not to be trusted
		}
	}
	if !known {
		_ = nc.Close()
		return
	}
	s.step(func(now time.Time) {
		id, err := s.router.Accept(now, remote, local)
		if err != nil {
			s.log.Debug("connection refused", "err", err)
			_ = nc.Close()
			return
		}
		s.start(id, nc)
	})
	s.wake()
}

// start begins to read and write a connection. s.mu is held.
func (s *Speaker) start(id bgp.ConnID, nc net.Conn) {
	if s.ctx.Err() != nil { // Run ends, and has closed what there was
		_ = nc.Close()
		return
	}
	c := s.conns[id]
	if c == nil {
		c = newConn(id)
		s.conns[id] = c
	}
	c.nc = nc
	s.tasks.Go(func() { s.read(c) })
	s.tasks.Go(func() { s.write(c) })
}

// closed tells the Router that a connection is gone, unless it knows.
func (s *Speaker) closed(c *conn, err error) {
	if errors.Is(err, io.EOF) {
		err = errors.New("connection closed by the peer")
	}
	s.step(func(now time.Time) {
		if s.conns[c.id] == c {
			delete(s.conns, c.id)
			c.leave()
			s.router.Closed(now, c.id, err)
		}
	})
	s.wake()
}

// closeAll ends what Run began.
func (s *Speaker) closeAll() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.conns {
		delete(s.conns, id)
		c.leave()
	}
}
