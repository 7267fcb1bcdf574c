// Package nflog listens to the packets that rules of the packet filter log
// (nfnetlink_log, NFLOG): which rule it was, by the prefix it gave, and which packet.
//
//	rule: log group 1 prefix "…" ─► kernel ─► reader ─► queue ─► Each
//	                                  │          │        │
//	                               Missed     parse    Dropped
//
// It is lossy by design. The kernel copies the first bytes of a packet into the
// socket's buffer, and when that is full the packet goes on without them: nobody
// waits for a slow listener, least of all the packet. What got lost is counted in
// two places: what the kernel could not hand over (Missed), by the sequence numbers
// that it gives, and what Each was too slow for (Dropped).
//
// A group belongs to one listener in a network namespace, and is another group in
// another namespace, so agents of several namespaces do not disturb one another.
//
// Packets are what others sent: every byte of them is hostile. What cannot be read
// of one is left at zero, and the event still says which rule it met.
package nflog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

const (
	// copyBytes of each packet are enough for an IPv6 header, a few extension
	// headers, and ports.
	copyBytes = 128
	// bufferBytes is how much the kernel gathers before it hands it over.
	bufferBytes = 32 << 10
	// gatherTime is how long it gathers, in hundredths of a second; gatherPackets is
	// how many packets at most.
	gatherTime, gatherPackets = 10, 50
	// queueLength is how many events wait for Each.
	queueLength = 1024
)

// Event is one packet that met a rule which logs.
type Event struct {
	Prefix string // of the rule
	Hook   plan.Hook
	// Packet has no State and no DstLocal. Ports, and ICMP's type and code, are zero
	// when the packet does not have them: a later fragment, or one that is cut short.
	Packet plan.Packet
	Mark   uint32
	Bytes  int       // length of the packet, as its IP header says; 0: unknown
	Time   time.Time // when the kernel took it in, or now if it does not say
}

// Options say what to listen to.
type Options struct {
	// Groups to listen to. A rule's group is plan.NFLog.Group.
	Groups []uint16
	// Each is called with every event, by one goroutine. It may take its time, at the
	// price of later events. The event is its to keep.
	Each func(Event)
	// Log gets a warning when events begin to get lost, and how many at the end of
	// it. Default: nothing is logged.
	Log *slog.Logger
}

// Counts are what became of the packets since New.
type Counts struct {
	Events  uint64 // given to Each
	Missed  uint64 // lost between the kernel and us
	Dropped uint64 // lost because Each was slow
}

// Listener listens. Make one with New.
type Listener struct {
	opts   Options
	socket *netlink.Socket
	names  *names
	queue  chan Event
	next   map[uint16]uint32 // sequence number that a group's next packet has

	events, missed, dropped atomic.Uint64
	lost                    atomic.Uint64 // when the last report was made
}

// New binds the groups in the network namespace that the calling thread is in. It
// needs CAP_NET_ADMIN there. The error wraps unix.EPERM, as the kernel says it, when
// somebody else listens to a group; it may be worth trying later.
func New(o Options) (*Listener, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	names, err := openNames()
	if err != nil {
		return nil, fmt.Errorf("nflog: %w", err)
	}
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		names.file.Close()
		return nil, fmt.Errorf("nflog: %w", err)
	}
	l := &Listener{opts: o, socket: s, names: names, queue: make(chan Event, queueLength), next: map[uint16]uint32{}}
	for _, group := range o.Groups {
		if err := l.bind(group); err != nil {
			l.close()
			return nil, fmt.Errorf("nflog: listen to group %d: %w", group, err)
		}
		l.next[group] = 0
	}
	return l, s.Listen()
}

func (l *Listener) close() {
	l.socket.Close()
	l.names.file.Close()
}

// bind binds a group and says how much of its packets we want, and how soon.
func (l *Listener) bind(group uint16) error {
	seq := l.socket.Next()
	var refused error
	err := l.socket.Exchange(appendBind(nil, seq, group), seq, func(_ uint32, errno unix.Errno) { refused = errno })
	if errors.Is(refused, unix.EPERM) {
		refused = fmt.Errorf("%w: another program listens to it, or CAP_NET_ADMIN is missing", refused)
	}
	return errors.Join(err, refused)
}

// Counts is what became of the packets so far. Anybody may ask at any time.
func (l *Listener) Counts() Counts {
	return Counts{l.events.Load(), l.missed.Load(), l.dropped.Load()}
}

// Run hands over events until ctx ends, and returns the cause of that, or the error
// that ends it. The Listener is closed then, and its groups are free.
func (l *Listener) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { l.socket.Close() })
	defer stop()
	defer l.close()
	var wait sync.WaitGroup
	wait.Go(func() {
		for e := range l.queue {
			l.opts.Each(e)
			l.events.Add(1)
		}
	})
	err := l.read()
	close(l.queue)
	wait.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// read takes in packets until the socket is closed.
func (l *Listener) read() error {
	report := time.Now()
	for {
		datagram, err := l.socket.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun):
			continue // the sequence numbers tell how many
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("nflog: read: %w", err)
		}
		for m := range netlink.Messages(datagram) {
			if m.Type == msgPacket {
				l.packet(m.Body)
			}
		}
		if now := time.Now(); now.Sub(report) >= time.Minute {
			report = now
			l.report()
		}
	}
}

// packet takes in one message about a packet.
func (l *Listener) packet(body []byte) {
	var r record
	if !r.parse(body) {
		return
	}
	if next, known := l.next[r.group]; known && r.numbered {
		l.missed.Add(uint64(r.seq - next)) // wraps around as the kernel's does
	}
	l.next[r.group] = r.seq + 1
	if len(l.queue) == cap(l.queue) { // we are the only one who fills it
		l.dropped.Add(1)
		return
	}
	l.queue <- r.event(l.names.of)
}

// report logs what got lost since the last report.
func (l *Listener) report() {
	c := l.Counts()
	if lost := c.Missed + c.Dropped; lost != l.lost.Swap(lost) {
		l.opts.Log.Warn("logged packets come faster than they are written; some are not", "missed", c.Missed, "dropped", c.Dropped, "written", c.Events)
	}
}
