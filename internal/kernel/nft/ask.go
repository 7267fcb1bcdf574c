package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// Counter is what fitted a rule of the plan since the rule was written.
type Counter struct{ Packets, Bytes uint64 }

// Counters reads the counters of all rules of both tables, by comment; rules of one
// comment are added up.
func (n *NFT) Counters(ctx context.Context) (map[string]Counter, error) {
	n.asking.Lock()
	defer n.asking.Unlock()
	var out map[string]Counter
	for _, t := range n.tables {
		before := out
		err := dumpOf(n.asker, t.family, unix.NFT_MSG_GETRULE, nameAttrs(unix.NFTA_RULE_TABLE, tableName), func() {
			out = map[string]Counter{}
			for k, v := range before {
				out[k] = v
			}
		}, func(b []byte) { count(out, b) })
		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, fmt.Errorf("nft: read counters of %s: %w", t, err)
		}
	}
	return out, nil
}

// count adds the counters of a rule to those of its comment.
func count(out map[string]Counter, b []byte) {
	var comment []byte
	var v [2]uint64 // bytes, packets
	found := 0
	for a, attr := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_RULE_EXPRESSIONS:
			forCounters(attr, func(c []byte) {
				if len(c) == 8 {
					v[found%2] += netlink.BE64(c)
					found++
				}
			})
		case unix.NFTA_RULE_USERDATA:
			if len(attr) > 2 && attr[0] == udataComment {
				comment = cString(attr[2:])
			}
		}
	}
	if found == 0 || len(comment) == 0 {
		return
	}
	c := out[string(comment)]
	c.Bytes += v[0]
	c.Packets += v[1]
	out[string(comment)] = c
}

// Flow is one direction of a connection, as packets of it look.
type Flow struct {
	Src, Dst         netip.Addr
	Protocol         uint8
	SrcPort, DstPort uint16 // of protocols that have them
}

// EndFlows puts flows into a set of type plan.SetFlows of the table of their family
// for that time; 0 means three minutes. A flow that is there stays. It returns when they
// are in the kernel.
func (n *NFT) EndFlows(name string, flows []Flow, timeout time.Duration) error {
	n.asking.Lock()
	defer n.asking.Unlock()
	for _, t := range n.tables {
		var tx transaction
		s := &set{Set: plan.Set{Name: name, Type: plan.SetFlows}, t: t}
		for i := range flows {
			if flows[i].Src.Is6() == t.v6 {
				tx.addFlow(s, &flows[i], timeout)
			}
		}
		if len(tx.ops) == 0 {
			continue
		}
		tx.closeElements()
		if err := n.ask(&tx); err != nil {
			return fmt.Errorf("nft: %s: set %s: add flows: %w", t, name, err)
		}
	}
	return nil
}

// addFlow puts a flow into the message under way, or begins one.
func (tx *transaction) addFlow(s *set, f *Flow, timeout time.Duration) {
	if len(tx.ops) == 0 {
		tx.openElements(s, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
	}
	tx.nextElement(s, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
	var x scratch
	key := putAddr(putAddr(x.key[:0], f.Src), f.Dst)
	key = append(key, f.Protocol, 0, 0, 0)
	key = append(binary.BigEndian.AppendUint16(key, f.SrcPort), 0, 0)
	key = append(binary.BigEndian.AppendUint16(key, f.DstPort), 0, 0)
	tx.elem(&elem{key: key, timeoutMs: uint64(timeout.Milliseconds())})
}

// ask sends a small transaction from the socket that others than the loop use, in
// parts of one message.
func (n *NFT) ask(tx *transaction) error {
	for i := range tx.ops {
		begin := n.asker.Next()
		b := appendBatch(nil, unix.NFNL_MSG_BATCH_BEGIN, begin)
		start := len(b)
		b = append(b, tx.b[tx.ops[i].start:tx.offset(i+1)]...)
		last := n.asker.Next()
		netlink.Native.PutUint32(b[start+8:], last)
		addFlags(b[start:], unix.NLM_F_ACK)
		b = appendBatch(b, unix.NFNL_MSG_BATCH_END, n.asker.Next())
		var refused unix.Errno
		err := n.asker.Exchange(b, last, func(seq uint32, errno unix.Errno) {
			if seq == begin || seq == last {
				refused = errno
			}
		})
		if err != nil {
			return err
		}
		if refused != 0 {
			return refused
		}
	}
	return nil
}
