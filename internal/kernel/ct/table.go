package ct

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// batchBytes keeps a batch of deletions below the default net.core.wmem_max; the
// errors of all of its messages fit the receive buffer.
const batchBytes = 48 << 10

// Table is the connection table of a network namespace. Make one with Open. Its
// methods may be called by any goroutine; they wait for one another.
type Table struct {
	mu     sync.Mutex // held for a whole list or deletion
	socket *netlink.Socket
	routes *netlink.Socket // of rtnetlink
	buf    []byte
}

// Open opens the table of the network namespace that the calling thread is in. It
// needs CAP_NET_ADMIN there.
func Open() (*Table, error) {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return nil, fmt.Errorf("ct: %w", err)
	}
	routes, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE})
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("ct: %w", err)
	}
	return &Table{socket: s, routes: routes}, nil
}

// Close ends what is under way.
func (t *Table) Close() error { return errors.Join(t.socket.Close(), t.routes.Close()) }

// Empty reports whether the kernel says that there is no flow. A kernel that does not
// answer may have some.
func (t *Table) Empty() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	seq := t.socket.Next()
	t.buf = netlink.AppendHeader(t.buf[:0], msgStats, unix.NLM_F_REQUEST, seq)
	t.buf = append(t.buf, make([]byte, genBytes)...)
	netlink.EndMessage(t.buf, 0)
	if t.socket.Send(t.buf) != nil {
		return false
	}
	for {
		datagram, err := t.socket.Read()
		if err != nil {
			return false
		}
		for m := range netlink.Messages(datagram) {
			if m.Seq == seq {
				return m.Type == msgStats && hasNoEntries(m.Body)
			}
		}
	}
}

// hasNoEntries reports whether an answer to msgStats tells of an empty table.
func hasNoEntries(b []byte) bool {
	if len(b) < genBytes {
		return false
	}
	for typ, v := range netlink.Attributes(b[genBytes:]) {
		if typ == attrEntries && len(v) == 4 {
			return netlink.BE32(v) == 0
		}
	}
	return false
}

// Flows calls each with every flow of the filter, in no order, until it returns
// false or ctx ends. The flow is valid until each returns; each may take its time,
// but must not use t. Flows that come or go meanwhile are seen or not; one that
// stays is seen. The error is the cause of ctx's end, or the kernel's.
func (t *Table) Flows(ctx context.Context, filter Filter, each func(*Flow) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var f Flow
	t.buf = filter.appendRequest(t.buf[:0])
	more := true
	err := t.socket.Dump(msgGet, t.buf, func(_ uint16, body []byte) {
		if more && f.parse(body) && filter.has(&f) {
			more = each(&f) && ctx.Err() == nil
		}
	}, nil)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return fmt.Errorf("ct: list flows: %w", err)
	}
	return nil
}

// Delete deletes the flows, each only if it is still the one of its ID, and returns
// how many there were. A flow that is gone is no error. It does all it can; the
// error joins the kernel's first refusal in each batch, or says that no answer came.
func (t *Table) Delete(flows []Flow) (deleted int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var refusals []error
	for len(flows) > 0 {
		b := t.deletion(flows)
		if err := t.socket.Exchange(b.bytes, b.last, b.failed); err != nil {
			return deleted, fmt.Errorf("ct: delete %d flows: %w", len(flows), errors.Join(append(refusals, err)...))
		}
		deleted += len(b.flows) - b.gone
		if b.refused != nil {
			refusals = append(refusals, b.refused)
		}
		flows = flows[len(b.flows):]
	}
	return deleted, errors.Join(refusals...)
}

// batch is a sequence of deletions to send at once, and what became of them.
type batch struct {
	bytes       []byte
	flows       []Flow
	first, last uint32 // sequence numbers
	gone        int    // flows that the kernel did not delete
	refused     error  // the first, but for those that were not there
}

// deletion is a batch of as many of the flows, from the first, as one holds.
func (t *Table) deletion(flows []Flow) *batch {
	b := &batch{bytes: t.buf[:0], first: t.socket.Next()}
	b.last = b.first
	start, n := 0, 0
	for ; n < len(flows) && len(b.bytes) < batchBytes; n++ {
		if n > 0 {
			b.last = t.socket.Next()
		}
		start = len(b.bytes)
		b.bytes = netlink.AppendHeader(b.bytes, msgDelete, unix.NLM_F_REQUEST, b.last)
		b.bytes = flows[n].appendDelete(b.bytes)
		netlink.EndMessage(b.bytes, start)
	}
	netlink.Native.PutUint16(b.bytes[start+6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b.flows, t.buf = flows[:n], b.bytes
	return b
}

func (b *batch) failed(seq uint32, errno unix.Errno) {
	i := seq - b.first
	if i >= uint32(len(b.flows)) {
		return // of an earlier request
	}
	b.gone++
	if errno != unix.ENOENT && b.refused == nil {
		b.refused = fmt.Errorf("ct: delete %v: %w", b.flows[i].Orig, errno)
	}
}
