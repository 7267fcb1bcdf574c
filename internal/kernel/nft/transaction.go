package nft

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

const (
	subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
	// listBytes bounds the elements in one message; an attribute has at most 64 KiB.
	listBytes = 48 << 10
	// echoRules is how many new rules the kernel is asked to tell the handles of, so
	// that its answers fit any receive buffer. Of more, they are read when needed.
	echoRules = 512
	// drainTime is how long each answer is waited for when some were lost. All are there,
	// but a deadline that is past hides them, and this process may not be run for a while.
	drainTime = 200 * time.Millisecond
	// beginBytes is the length of the messages that begin and end a batch.
	beginBytes = netlink.HeaderBytes + 4
)

// stage is what a message does, in the order of a transaction.
type stage uint8

const (
	atTable stage = iota
	atSet
	atChain
	atElements
	atRules
	atRulesGone
	atSetGone
	atChainGone
)

// op is a message of a transaction.
type op struct {
	stage stage
	t     *table
	s     *set
	c     *chain
	start int   // of the message
	rule  *rule // that it makes; its handle is told
}

// transaction is messages, and what is true when the kernel took them. They are sent in
// one batch, but for the marks and for what no send buffer takes at once.
type transaction struct {
	encoder
	ops     []op
	marks   [2]int // messages before which a batch of their own ends
	marked  int    // how many marks there are
	batches uint64 // sent
	version uint64
	tables  []tableWork
	sets    []*setWork
	chains  []chainWork
	list    int // start of the list of elements under way
	part    []byte
}

// tableWork is a table that is made, or with gone removed.
type tableWork struct {
	t    *table
	gone bool
}

// setWork is what a transaction does to a set.
type setWork struct {
	s              *set
	made, gone     bool
	put, delete    []plan.Member
	putElement     []elementWork
	deleteElement  []elemKey
	changedStrays  []bound
	changedMembers []plan.Member // all, for another try

	first, now, last elements // all of the changes, by when they are made
}

// elements are changes of what is in a set.
type elements struct {
	strays        []bound
	delete        []plan.Member
	deleteElement []elemKey
	put           []plan.Member
	putElement    []elementWork
}

type elementWork struct {
	k     elemKey
	value string
}

// chainWork is what a transaction makes of a chain.
type chainWork struct {
	c      *chain
	gone   bool
	closed bool
	next   []rule
}

// keepBytes is the size of a buffer that is worth keeping for the next transaction:
// the first one is of megabytes, later ones as a rule of some hundred bytes.
const keepBytes = 64 << 10

// reset begins another transaction. The batch's first message stands before its own.
func (tx *transaction) reset() {
	tx.release()
	tx.b = appendBatch(tx.b, unix.NFNL_MSG_BATCH_BEGIN, 0)
}

// release lets go of what was sent.
func (tx *transaction) release() {
	if cap(tx.b)+cap(tx.part) > keepBytes {
		*tx = transaction{}
		return
	}
	clear(tx.ops)
	*tx = transaction{encoder: encoder{tx.b[:0]}, ops: tx.ops[:0], part: tx.part[:0]}
}

// message begins a message of nf_tables that names its table.
func (tx *transaction) message(o op, typ, flags uint16, nameAttr uint16) {
	o.start = len(tx.b)
	tx.b = netlink.AppendHeader(tx.b, subsystem|typ, unix.NLM_F_REQUEST|flags, 0)
	tx.b = append(tx.b, o.t.family, unix.NFNETLINK_V0, 0, 0)
	tx.str(nameAttr, o.t.name)
	tx.ops = append(tx.ops, o)
}

// mark ends a batch, if there are messages before and after.
func (tx *transaction) mark() {
	tx.marks[tx.marked] = len(tx.ops)
	tx.marked++
}

// divided reports whether a mark divides the messages.
func (tx *transaction) divided() bool {
	return slices.ContainsFunc(tx.marks[:tx.marked], func(m int) bool { return 0 < m && m < len(tx.ops) })
}

func (tx *transaction) end() { netlink.EndMessage(tx.b, tx.ops[len(tx.ops)-1].start) }

// openElements begins a message with elements of s.
func (tx *transaction) openElements(s *set, typ, flags uint16) {
	tx.message(op{stage: atElements, t: s.t, s: s}, typ, flags, unix.NFTA_SET_ELEM_LIST_TABLE)
	tx.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	tx.list = tx.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
}

func (tx *transaction) closeElements() {
	tx.close(tx.list)
	tx.end()
}

// nextElement makes room in the list for one more element.
func (tx *transaction) nextElement(s *set, typ, flags uint16) {
	if len(tx.b)-tx.list > listBytes {
		tx.closeElements()
		tx.openElements(s, typ, flags)
	}
}

// answer is what the kernel said to a transaction.
type answer struct {
	partly bool       // messages before those that were refused are in the kernel
	whole  unix.Errno // of the batch itself
	errs   []refusal  // in order of the messages
}

// refusal is a message that the kernel refused.
type refusal struct {
	op    int
	errno unix.Errno
}

func (a *answer) ok() bool { return a.whole == 0 && len(a.errs) == 0 }

// exchange sends the transaction, at once if the send buffer allows it and else in
// parts, and reads the answers. It holds no lock. With an error nobody knows what was
// done.
func (n *NFT) exchange() (answer, error) {
	tx := &n.tx
	if need := len(tx.b) + 2*beginBytes; need > n.buffer {
		var err error
		if n.buffer, err = n.writer.SendBuffer(need); err != nil {
			return answer{}, fmt.Errorf("size send buffer: %w", err)
		}
	}
	for from := 0; from < len(tx.ops); {
		to := tx.cut(from, n.buffer-2*beginBytes)
		for _, m := range tx.marks {
			if from < m && m < to {
				to = m
				break
			}
		}
		a, err := n.send(from, to)
		tx.batches++
		if err != nil || !a.ok() {
			a.partly = from > 0
			return a, err
		}
		from = to
	}
	return answer{}, nil
}

// cut is where the part that begins with message from ends, so that it has at most
// size bytes: between two objects if possible.
func (tx *transaction) cut(from, size int) int {
	if len(tx.b)-tx.ops[from].start <= size {
		return len(tx.ops)
	}
	to, between := from+1, 0
	for ; to < len(tx.ops) && tx.offset(to+1)-tx.ops[from].start <= size; to++ {
		if a, b := tx.ops[to-1], tx.ops[to]; a.stage != b.stage || a.s != b.s || a.c != b.c {
			between = to
		}
	}
	if between > 0 {
		return between
	}
	return to
}

// offset is where message i begins, or where all end.
func (tx *transaction) offset(i int) int {
	if i >= len(tx.ops) {
		return len(tx.b)
	}
	return tx.ops[i].start
}

// send sends the messages from to to as a batch.
func (n *NFT) send(from, to int) (answer, error) {
	tx := &n.tx
	begin := n.writer.Next()
	for i := from; i < to; i++ {
		netlink.Native.PutUint32(tx.b[tx.ops[i].start+8:], n.writer.Next())
	}
	addFlags(tx.b[tx.ops[to-1].start:], unix.NLM_F_ACK)
	var batch []byte
	if to-from == len(tx.ops) {
		netlink.Native.PutUint32(tx.b[8:], begin)
		tx.b = appendBatch(tx.b, unix.NFNL_MSG_BATCH_END, n.writer.Next())
		batch = tx.b
	} else {
		tx.part = appendBatch(tx.part[:0], unix.NFNL_MSG_BATCH_BEGIN, begin)
		tx.part = append(tx.part, tx.b[tx.ops[from].start:tx.offset(to)]...)
		tx.part = appendBatch(tx.part, unix.NFNL_MSG_BATCH_END, n.writer.Next())
		batch = tx.part
	}
	if err := n.writer.Send(batch); err != nil {
		return answer{}, fmt.Errorf("send %d bytes: %w", len(batch), err)
	}
	return n.receive(begin, from, to)
}

// addFlags adds to the flags of the message that b begins with.
func addFlags(b []byte, flags uint16) {
	netlink.Native.PutUint16(b[6:], netlink.Native.Uint16(b[6:])|flags)
}

func appendBatch(b []byte, typ uint16, seq uint32) []byte {
	start := len(b)
	b = netlink.AppendHeader(b, typ, unix.NLM_F_REQUEST, seq)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	netlink.EndMessage(b, start)
	return b
}

// receive reads the answers to a batch: errors, the handles of new rules, and the
// acknowledgement of the last message. When they are too many for the receive buffer,
// the first errors are what is read of them.
func (n *NFT) receive(begin uint32, from, to int) (a answer, err error) {
	count := uint32(to - from)
	overrun := false
	for {
		datagram, err := n.writer.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun) && !overrun:
			// All that was kept is there by now.
			overrun = true
			datagram = nil
		case err != nil && overrun && len(a.errs) > 0:
			return a, nil
		case err != nil:
			return a, fmt.Errorf("read answer: %w", err)
		}
		if overrun {
			if err := n.writer.Patience(drainTime); err != nil {
				return a, err
			}
		}
		for m := range netlink.Messages(datagram) {
			i := m.Seq - begin // 0: the batch
			switch {
			case i > count:
			case m.Type == unix.NLMSG_ERROR && i == 0:
				// The kernel looked at no message, or could not finish.
				a.whole = m.Errno()
				return a, nil
			case m.Type == unix.NLMSG_ERROR:
				if errno := m.Errno(); errno != 0 {
					a.errs = append(a.errs, refusal{from + int(i) - 1, errno})
				}
				if i == count {
					return a, nil
				}
			case m.Type == subsystem|unix.NFT_MSG_NEWRULE && i > 0:
				if r := n.tx.ops[from+int(i)-1].rule; r != nil {
					r.told(m.Body)
				}
			}
		}
	}
}

// told takes in what the kernel made of a new rule.
func (r *rule) told(b []byte) {
	k, ok := parseRule(b)
	if !ok {
		return
	}
	r.handle = k.handle
	if string(k.body) != string(r.body) {
		r.dumped = append(body(nil), k.body...)
	}
}

// errOut says that an answer has an error that no object is to blame for.
var errOut = errors.New("the kernel refused the transaction")
