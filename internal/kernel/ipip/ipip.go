// Package ipip carries IPv4 in IPv4 (RFC 2003, protocol 4) in user space, on nodes
// whose kernel has no ipip module. What the kernel would do behind its device tunl0 is
// done here behind a TUN device of the same name: routes, addresses, captures and
// `ip route` look and work alike.
//
//	pod ─► kernel ─► route via NODE dev tunl0 ─► TUN ─► sender ───► raw socket ─► underlay
//	pod ◄─ kernel ◄──────────────────────────── TUN ◄─ receiver ◄─ raw socket ◄─ underlay
//
// A TUN device does not tell the gateway of the route by which a packet came to it, so
// a [Tunnel] is told the routes (Apply) and looks the gateway up again: it is where the
// outer packet goes. The outer source is the kernel's choice, as for any packet of the
// node, unless the device has a local address. Who may send encapsulated packets is for
// the packet filter to say: raw sockets get what its input hook has let pass.
//
// As with tunl0 the outer packet may be fragmented only if the inner one may, and who
// sends what does not fit is told by ICMP. Unlike it the outer TTL is 64 rather than the
// inner one, and the whole TOS byte is copied rather than its congestion bits alone.
//
// It is fast where TCP is: the kernel hands over, and takes, up to 64 KiB of a
// connection at once; packets of their own exist only between the nodes. Nothing is
// allocated for a packet, and routes are read without a lock.
//
// Device, address and routes outlive the process (TUNSETPERSIST): while no agent runs
// packets are lost, and nothing else is.
package ipip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/internal/plan"
)

// outerTTL is enough to cross any underlay (RFC 2003 section 3.1).
const outerTTL = 64

// Options of a Tunnel.
type Options struct {
	Name string       // of the device, 1 to 15 bytes; empty: plan.IPIPDevice
	Log  *slog.Logger // nil: none
}

// Counts are of packets since Open. Packets on the underlay are counted, not what the
// kernel hands over or takes at once.
type Counts struct {
	Sent, Received uint64 // encapsulated
	NoRoute        uint64 // came to the device, and no route that Apply has told is for them: none yet, maybe
	Loop           uint64 // the gateway itself is behind the tunnel
	TooBig         uint64 // did not fit into the underlay, and the sender is told
	Malformed      uint64 // no whole IPv4 packet in them, or congestion that their sender knows nothing of
	SendErrors     uint64 // refused by the kernel on their way out
	WriteErrors    uint64 // refused by the device, which is down
	Off            uint64 // came while nobody wanted the device
}

type counters struct {
	sent, received, noRoute, loop, tooBig, malformed, sendErrors, writeErrors, off atomic.Uint64
}

// Tunnel is a TUN device and the sockets behind it. Its methods may be called by any
// goroutine, Run by one at a time.
type Tunnel struct {
	name  string
	log   *slog.Logger
	table table
	local atomic.Uint32 // an address; 0: the kernel chooses
	off   atomic.Bool   // nobody wants the device any more
	count counters

	dev  *device
	sock *sockets

	answers struct {
		sync.Mutex
		since time.Time // of the second that is counted
		count int
		buf   [vnetLen + outerLen + 8 + quoteLen]byte
	}
	lastError atomic.Int64 // errno of the last packet that was refused, to log changes only
}

// Open makes the device, or takes the one that an earlier process has left, and opens
// the sockets, in the network namespace of the calling thread. It does not set the device
// up, nor its address or MTU. A device of that name of another kind, or that a process
// holds already, is an error. CAP_NET_ADMIN and CAP_NET_RAW are needed.
func Open(o Options) (*Tunnel, error) {
	if o.Name == "" {
		o.Name = plan.IPIPDevice
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	t := &Tunnel{name: o.Name, log: o.Log}
	t.table.link = o.Name
	var err error
	if t.dev, err = openDevice(o.Name); err != nil {
		return nil, fmt.Errorf("ipip: %w", err)
	}
	if t.sock, err = openSockets(); err != nil {
		_ = t.dev.file.Close()
		return nil, fmt.Errorf("ipip: %w", err)
	}
	return t, nil
}

// Apply folds in the routes of d whose link is the device, and the device's local
// address. It may be called before Run, and while it runs. While the device is deleted,
// what comes is dropped: nobody says then who may send it.
func (t *Tunnel) Apply(d plan.Delta) {
	for _, v := range d.PutDevices {
		if v.Name != t.name {
			continue
		}
		local := address(0)
		if v.Local.Is4() {
			local = addressOf(v.Local)
		}
		t.local.Store(uint32(local))
		t.off.Store(false)
	}
	if slices.Contains(d.DeleteDevices, t.name) {
		t.off.Store(true)
	}
	t.table.apply(d)
}

// Run carries packets until ctx ends, whose cause it returns, or until somebody deletes
// the device. It may be called again.
func (t *Tunnel) Run(ctx context.Context) error {
	if err := t.wake(time.Time{}); err != nil {
		return fmt.Errorf("ipip: %s: %w", t.name, err)
	}
	group, inner := errgroup.WithContext(ctx)
	woken := make(chan struct{})
	context.AfterFunc(inner, func() { _ = t.wake(time.Unix(1, 0)); close(woken) })
	group.Go(func() error { return newSender(t).run() })
	group.Go(func() error { return newReceiver(t).run() })
	err := group.Wait() // which ends inner, if nothing has
	<-woken
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("ipip: %s: %w", t.name, err)
}

// wake ends what waits for a descriptor at the given time; the zero time: never.
func (t *Tunnel) wake(when time.Time) error {
	var errs []error
	for _, f := range []*os.File{t.dev.file, t.sock.in.file, t.sock.out.file} {
		errs = append(errs, f.SetDeadline(when))
	}
	return errors.Join(errs...)
}

// Close closes device and sockets. The device, its address and routes remain.
func (t *Tunnel) Close() error { return errors.Join(t.dev.file.Close(), t.sock.close()) }

// Counts are the counts so far.
func (t *Tunnel) Counts() Counts {
	c := &t.count
	return Counts{
		c.sent.Load(), c.received.Load(), c.noRoute.Load(), c.loop.Load(), c.tooBig.Load(),
		c.malformed.Load(), c.sendErrors.Load(), c.writeErrors.Load(), c.off.Load(),
	}
}

// maxAnswers is how many ICMP errors go out in a second.
const maxAnswers = 1000

// answer tells the sender of p by ICMP why it did not arrive, through the device, as if
// a router behind it had said so. Too many answers are not given.
func (t *Tunnel) answer(p ipv4, code byte, mtu int) {
	a := &t.answers
	a.Lock()
	defer a.Unlock()
	if now := time.Now(); now.Sub(a.since) >= time.Second {
		a.since, a.count = now, 0
	}
	if a.count++; a.count > maxAnswers {
		return
	}
	clear(a.buf[:vnetLen])
	if n := putError(a.buf[vnetLen:], p, code, mtu); n > 0 {
		if _, err := t.dev.file.Write(a.buf[:vnetLen+n]); err != nil {
			t.count.writeErrors.Add(1)
		}
	}
}

// refused counts a packet that the kernel did not send, and logs the first of each kind
// in a row.
func (t *Tunnel) refused(err error, errno int64, to address) {
	t.count.sendErrors.Add(1)
	if t.lastError.Swap(errno) != errno {
		t.log.Warn("encapsulated packets cannot be sent", "link", t.name, "node", to.String(), "err", err)
	}
}
