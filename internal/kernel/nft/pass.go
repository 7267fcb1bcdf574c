package nft

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// maxAttempts bounds the transactions of a pass. Each that fails has an object more
// left out of the next.
const maxAttempts = 64

// pass is one turn of the loop.
func (n *NFT) pass(_ context.Context, cause reconcile.Cause) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if cause == reconcile.Resync {
		for _, t := range n.tables {
			t.stale, t.early = true, false
		}
	}
	if !n.synced {
		return n.readEarly()
	}
	n.fault = nil
	if cause != reconcile.Kick {
		n.tryAgain()
	}
	err := n.work()
	n.tx.release()
	if err != nil {
		n.fault = err
		for _, t := range n.tables {
			t.stale = true // nobody knows what was done
		}
	}
	n.wake()
	return errors.Join(err, n.refused())
}

// work reads what is stale and writes what is dirty, until that is nothing.
func (n *NFT) work() error {
	read, overtaken := 0, false
	defer func() { n.whole = false }()
	for range maxAttempts {
		for _, t := range n.tables {
			if !t.stale {
				continue
			}
			if err := n.readTable(t); err != nil {
				return fmt.Errorf("nft: %w", err)
			}
			read++
		}
		n.read = true
		if err := n.readHandles(); err != nil {
			return fmt.Errorf("nft: %w", err)
		}
		if err := n.coverReplaced(); err != nil {
			return fmt.Errorf("nft: %w", err)
		}
		n.build(n.tables[:]...)
		if len(n.tx.ops) == 0 {
			n.settle()
			return n.uncoverAll()
		}
		a, err := n.unlocked(n.exchangeQuietly)
		n.stats.Transactions++
		n.stats.Messages += uint64(len(n.tx.ops))
		n.stats.Batches += n.tx.batches
		if err != nil {
			n.unsettle()
			return fmt.Errorf("nft: %w", err)
		}
		if a.ok() {
			n.settle()
			return n.uncoverAll()
		}
		n.stats.Refused++
		n.unsettle()
		if a.partly {
			n.staleAll()
		}
		if n.tx.divided() {
			// What is wanted may be right where half of the way is not: a new chain
			// that rejects, say, while the old base chain may not lead there.
			n.whole = true
			continue
		}
		if n.version != n.tx.version && !overtaken {
			// What was refused may have been put right meanwhile. But once only: where
			// changes never end, the faulty ones must not keep the others out.
			overtaken = true
			continue
		}
		if err := n.blame(a, read < 2*len(n.tables)); err != nil {
			return err
		}
	}
	return fmt.Errorf("nft: %w %d times; it is tried again later", errOut, maxAttempts)
}

// urgent writes what was applied while the kernel is being read, so that a pod does not
// wait for the whole of it. What fails is left to the pass.
func (n *NFT) urgent() {
	if !n.read {
		return // everything would seem to be missing
	}
	dirty := false
	for _, t := range n.tables {
		if t.replace || !t.there && !t.empty() {
			return
		}
		dirty = dirty || len(t.dirtySets)+len(t.dirtyChains) > 0
	}
	if !dirty || n.readHandles() != nil {
		return
	}
	n.build(n.tables[:]...)
	if len(n.tx.ops) == 0 {
		n.settle()
		return
	}
	a, err := n.unlocked(n.exchange)
	n.stats.Transactions++
	n.stats.Messages += uint64(len(n.tx.ops))
	n.stats.Batches += n.tx.batches
	if err != nil || !a.ok() {
		n.stats.Refused++
		n.unsettle()
		return
	}
	n.settle()
	n.wake()
}

// coverReplaced covers tables that are to be replaced.
func (n *NFT) coverReplaced() error {
	for _, t := range n.tables {
		if t.replace && t.there && !t.covered && !t.empty() {
			if err := n.cover(t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *NFT) uncoverAll() error {
	for _, t := range n.tables {
		if t.covered {
			if err := n.uncover(t); err != nil {
				return fmt.Errorf("nft: %w", err)
			}
		}
	}
	return nil
}

// readHandles reads the rules of chains that are to change and were written without
// asking for handles.
func (n *NFT) readHandles() error {
	for _, t := range n.tables {
		for c := range t.dirtyChains {
			if c.want && c.there && !c.known && !t.replace {
				if err := n.readChain(c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// blame finds what is wrong with a refused transaction, and has the next one leave it
// out. If our view of the kernel may be wrong, and reread allows it, it is read again
// first. The error is one that no object is to blame for.
func (n *NFT) blame(a answer, reread bool) error {
	switch {
	case a.whole == unix.ERESTART || a.whole == unix.EINTR || a.whole == unix.EAGAIN:
		n.staleAll()
		return nil
	case a.whole != 0:
		return fmt.Errorf("nft: %w: %w", errOut, a.whole)
	}
	for _, e := range a.errs {
		switch e.errno {
		case unix.EPERM, unix.ENOMEM, unix.ENOBUFS:
			return fmt.Errorf("nft: %w: %w", errOut, e.errno)
		case unix.ENOENT, unix.EEXIST, unix.EBUSY, unix.ENOTEMPTY:
			if reread {
				n.staleAll()
				return nil
			}
		}
	}
	// What fails because another is not there is not to blame, unless nothing before
	// it failed otherwise; then everything is to blame that lacks something. Nor is a
	// rule to blame after the first: the kernel looks at the whole table with each.
	lacking := a.errs[0].errno == unix.ENOENT
	for i, e := range a.errs {
		o := &n.tx.ops[e.op]
		switch {
		case o.stage == atTable: // and all that is in it fails as well; the other one goes in
			o.t.refused, o.t.troubled = fmt.Errorf("make: %w", e.errno), true
			return nil
		case i == 0, e.errno == unix.ENOENT && lacking, e.errno != unix.ENOENT && o.stage < atRules:
			o.refuse(e.errno)
		}
	}
	return nil
}

func (n *NFT) staleAll() {
	for _, t := range n.tables {
		t.stale = true
	}
}

// refuse leaves the object of o out of what is written until it is tried again.
func (o *op) refuse(errno unix.Errno) {
	if gone := o.s != nil && !o.s.want || o.c != nil && !o.c.want; gone && o.stage < atRulesGone {
		return // nobody wants it any more since the transaction was built
	}
	what := map[stage]string{
		atSet: "make", atChain: "make", atElements: "change elements", atRules: "change rules",
		atRulesGone: "delete rules", atSetGone: "delete", atChainGone: "delete",
	}[o.stage]
	err := fmt.Errorf("%s: %w", what, errno)
	o.t.troubled = true
	if o.s != nil {
		o.s.refused = err
		return
	}
	o.c.refused = err
	o.t.touchChain(o.c)
}

// tryAgain marks what was refused.
func (n *NFT) tryAgain() {
	for _, t := range n.tables {
		if !t.troubled {
			continue
		}
		t.refused = nil
		for _, s := range t.sets {
			if s.refused != nil {
				s.refused = nil
				t.touchSet(s)
			}
		}
		for _, c := range t.chains {
			if c.refused != nil {
				c.refused = nil
				t.touchChain(c)
			}
		}
	}
}

// settle takes in that the kernel took the transaction.
func (n *NFT) settle() {
	tx := &n.tx
	n.applied = tx.version
	for _, w := range tx.tables {
		w.t.there = !w.gone
	}
	for _, w := range tx.sets {
		w.settle()
	}
	for _, w := range tx.chains {
		w.settle()
	}
}

func (w *setWork) settle() {
	s := w.s
	if w.gone {
		if !s.want {
			if s.t.sets[s.Name] == s {
				delete(s.t.sets, s.Name)
			}
			delete(s.t.dirtySets, s)
			s.there = false
			return
		}
		s.lost() // put again meanwhile
		return
	}
	s.there = true
	for _, m := range w.put {
		f := s.members[m]
		s.members[m] = f&^seen | there | s.t.parity
	}
	for _, m := range w.delete {
		s.miss(m, s.members[m])
	}
	for _, k := range w.deleteElement {
		if e := s.elements[k]; e != nil {
			e.have = ""
			s.missElementAfter(k, e)
		}
	}
	for _, p := range w.putElement {
		e := s.elements[p.k]
		e.mark = e.mark&^seen | there | s.t.parity
		e.have = p.value
	}
}

// missElementAfter is missElement for one that may be put in the same transaction.
func (s *set) missElementAfter(k elemKey, e *element) {
	e.mark &^= there
	if e.mark&(wanted|queued) == 0 {
		delete(s.elements, k)
	}
}

func (w *chainWork) settle() {
	c := w.c
	if w.gone {
		if !c.want {
			if c.t.chains[c.name] == c {
				delete(c.t.chains, c.name)
			}
			delete(c.t.dirtyChains, c) // it may have come and gone meanwhile
			c.there = false
			return
		}
		c.lost()
		return
	}
	c.there, c.closed = true, w.closed
	c.actual, c.known, c.epoch = w.next, true, c.t.epoch
	for i := range c.actual {
		c.known = c.known && c.actual[i].handle != 0
	}
}

// unsettle takes in that the kernel did not take the transaction: all of it is to be
// done still.
func (n *NFT) unsettle() {
	tx := &n.tx
	for _, w := range tx.tables {
		w.t.stale = true
	}
	for _, w := range tx.sets {
		s := w.s
		s.t.touchSet(s)
		s.strays = append(s.strays, w.changedStrays...)
		for _, list := range [][]plan.Member{w.put, w.delete} {
			for _, m := range list {
				s.requeue(m)
			}
		}
		for _, k := range w.deleteElement {
			s.queueElement(k, s.elements[k])
		}
		for _, p := range w.putElement {
			s.queueElement(p.k, s.elements[p.k])
		}
	}
	for _, w := range tx.chains {
		w.c.t.touchChain(w.c)
	}
}

func (s *set) requeue(m plan.Member) {
	if f := s.members[m]; f&queued == 0 {
		s.members[m] = f | queued
		s.changedMembers = append(s.changedMembers, m)
	}
}
