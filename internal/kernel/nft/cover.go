package nft

import (
	"golang.org/x/sys/unix"
)

// coverName is the name of a table that is in force while ours is replaced.
//
// The kernel changes all rules at one instant, but a packet that is between two base
// chains at that instant meets the new one before it has rules, and then the old one
// when it has none any more. It was seen here: 2 of 32,000 packets in 30 replacements.
// So that no denied packet slips through, the wanted table is made a second time, under
// this name, before ours goes and comes; and taken away after.
//
// That is only for what cannot be changed in place: where a base chain hangs, the type
// of a set, what others did to the table itself.
const coverName = "weft_cover"

// cover puts the cover of t into force. A cover that the kernel refuses is done without,
// and t replaced at once.
func (n *NFT) cover(t *table) error {
	n.tx.reset()
	n.build(t.coverTable())
	a, err := n.unlocked(n.exchange)
	t.covered = a.ok()
	n.whole = n.whole || !t.covered
	return err
}

// uncover takes the cover of t away.
func (n *NFT) uncover(t *table) error {
	n.tx.reset()
	cover := &table{name: coverName, family: t.family, v6: t.v6}
	n.tx.message(op{stage: atTable, t: cover}, unix.NFT_MSG_DELTABLE, 0, unix.NFTA_TABLE_NAME)
	n.tx.end()
	_, err := n.unlocked(n.exchange)
	t.covered = err != nil // refused: somebody else did it
	return err
}

// unlocked calls f without the lock.
func (n *NFT) unlocked(f func() (answer, error)) (answer, error) {
	n.mu.Unlock()
	defer n.mu.Lock()
	a, err := f()
	return a, err
}

// coverTable is a table that wants what t wants.
func (t *table) coverTable() *table {
	c := newTable(t.v6)
	c.name = coverName
	for name, s := range t.sets {
		if !s.want || s.refused != nil {
			continue
		}
		copied := c.newSet(s.Set)
		copied.want = true
		c.sets[name] = copied
		c.touchSet(copied)
		for m, f := range s.members {
			if f&wanted != 0 {
				copied.mark(m, 0, true)
			}
		}
		for k, e := range s.elements {
			if e.mark&wanted != 0 {
				x := &element{mark: wanted, want: e.want}
				copied.elements[k] = x
				copied.wanted++
				copied.queueElement(k, x)
			}
		}
	}
	for name, x := range t.chains {
		if x.want {
			c.chains[name] = &chain{name: name, t: c, want: true, rules: x.rules, invalid: x.bad()}
			if x.base != nil {
				base := *x.base
				c.chains[name].base = &base
			}
			c.touchChain(c.chains[name])
		}
	}
	return c
}
