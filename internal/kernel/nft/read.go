package nft

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// tornTries is how often a dump is repeated that a change interrupted. The change may
// be of a table that is not ours: then nothing is wrong with the dump, and if it is
// ours its event has us read again.
const tornTries = 3

// setForeign is the type of a set in our table that nobody here has made.
const setForeign plan.SetType = 255

// dump asks for objects of a table and calls each with the attributes of every one,
// under the lock, which the caller holds. The attributes may be written to.
func (n *NFT) dump(t *table, typ uint16, attrs []byte, start func(), each func(b []byte)) error {
	n.mu.Unlock()
	defer n.mu.Lock()
	return dumpOf(n.reader, t.family, typ, attrs, func() {
		n.mu.Lock()
		start()
		n.mu.Unlock()
	}, func(b []byte) {
		n.mu.Lock()
		each(b)
		n.mu.Unlock()
	})
}

func dumpOf(s *netlink.Socket, family uint8, typ uint16, attrs []byte, start func(), each func(b []byte)) error {
	req := append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...)
	var err error
	for range tornTries {
		start()
		err = s.Dump(subsystem|typ, req, func(_ uint16, b []byte) {
			if len(b) >= 4 {
				each(b[4:])
			}
		}, nil)
		if !errors.Is(err, netlink.ErrInterrupted) {
			return err
		}
	}
	return nil
}

// cString is v without its terminator.
func cString(v []byte) []byte {
	if i := bytes.IndexByte(v, 0); i >= 0 {
		return v[:i]
	}
	return v
}

func isOurs(v []byte) bool { return string(cString(v)) == tableName }

// readTable compares a table with what is wanted of it.
func (n *NFT) readTable(t *table) error {
	early := t.early
	t.stale, t.early = false, false
	t.parity ^= seen
	n.stats.Reads++
	if err := n.findTable(t); err != nil || !t.there {
		return err
	}
	if !early {
		if err := n.readChains(t); err != nil {
			return fmt.Errorf("read chains of %s: %w", t, err)
		}
	}
	if err := n.readSets(t); err != nil {
		return fmt.Errorf("read sets of %s: %w", t, err)
	}
	if !early {
		if err := n.readRules(t); err != nil {
			return fmt.Errorf("read rules of %s: %w", t, err)
		}
	}
	if err := n.readForeign(t); err != nil {
		return fmt.Errorf("read objects of %s: %w", t, err)
	}
	return nil
}

// readEarly reads chains and rules, the most of what there is to read, while others
// are still finding out what is wanted. Sets wait for that: what is wanted of them says
// how they are read.
func (n *NFT) readEarly() error {
	for _, t := range n.tables {
		if t.early {
			continue
		}
		t.early = true // an event takes it back
		err := n.findTable(t)
		if err == nil && t.there {
			if err = n.readChains(t); err == nil {
				err = n.readRules(t)
			}
		}
		n.stats.Reads++
		if err != nil {
			t.early = false
			return fmt.Errorf("nft: read %s before its time: %w", t, err)
		}
	}
	return nil
}

// findTable finds out whether t is there, and whether as it should be.
func (n *NFT) findTable(t *table) error {
	found := false
	err := n.dump(t, unix.NFT_MSG_GETTABLE, nil, func() { found = false }, func(b []byte) {
		ours, flags := false, uint32(0)
		for typ, v := range netlink.Attributes(b) {
			switch typ {
			case unix.NFTA_TABLE_NAME:
				ours = isOurs(v)
				t.covered = t.covered || string(cString(v)) == coverName // an earlier run ended there
			case unix.NFTA_TABLE_FLAGS:
				flags = netlink.BE32(v)
			}
		}
		if ours {
			found = true
			t.replace = t.replace || flags != 0 // dormant, or owned by a process
		}
	})
	if err != nil {
		return fmt.Errorf("read tables of %s: %w", t, err)
	}
	if !found {
		t.forget()
		return nil
	}
	t.there = true
	return nil
}

// readForeign looks for objects of kinds that we have none of.
func (n *NFT) readForeign(t *table) error {
	for _, typ := range []uint16{unix.NFT_MSG_GETOBJ, unix.NFT_MSG_GETFLOWTABLE} {
		err := n.dump(t, typ, nil, func() {}, func(b []byte) { t.replace = t.replace || namesOurs(b) })
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
	}
	return nil
}

// forget has t not be in the kernel, so that all of it is to be written.
func (t *table) forget() {
	t.there, t.replace = false, false
	for name, s := range t.sets {
		if !s.want {
			delete(t.sets, name)
			delete(t.dirtySets, s)
			continue
		}
		s.lost()
	}
	for name, c := range t.chains {
		if !c.want {
			delete(t.chains, name)
			delete(t.dirtyChains, c)
			continue
		}
		c.lost()
	}
}

// lost has c not be in the kernel.
func (c *chain) lost() {
	c.there, c.actual, c.known = false, nil, false
	c.t.touchChain(c)
}

func nameAttrs(typ uint16, names ...string) []byte {
	var b []byte
	for i, name := range names {
		b = netlink.AppendAttrString(b, typ+uint16(i), name)
	}
	return b
}

func (n *NFT) readChains(t *table) error {
	clear := func() {
		for _, c := range t.chains {
			c.met = false
		}
	}
	err := n.dump(t, unix.NFT_MSG_GETCHAIN, nil, clear, t.chainMet)
	if err != nil {
		return err
	}
	for _, c := range t.chains {
		if !c.met && c.there {
			c.lost()
		}
	}
	return nil
}

// chainMet takes in a chain of the kernel.
func (t *table) chainMet(b []byte) {
	var name, typ []byte
	var base *plan.Base
	ours, policy := false, uint32(1)
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_CHAIN_TABLE:
			ours = isOurs(v)
		case unix.NFTA_CHAIN_NAME:
			name = cString(v)
		case unix.NFTA_CHAIN_TYPE:
			typ = cString(v)
		case unix.NFTA_CHAIN_POLICY:
			policy = netlink.BE32(v)
		case unix.NFTA_CHAIN_HOOK:
			base = parseHook(v)
		}
	}
	if !ours {
		return
	}
	c := t.chains[string(name)]
	if c == nil {
		c = &chain{name: string(name), t: t, base: base}
		t.chains[c.name] = c
		t.touchChain(c)
	}
	if base != nil && string(typ) == plan.ChainNAT.String() {
		base.Type = plan.ChainNAT
	}
	c.there, c.met, c.odd = true, true, base != nil && (policy != 1 || string(typ) != base.Type.String())
	if c.want && (c.odd || !sameBase(c.base, base)) {
		t.replace = true
	}
}

func parseHook(b []byte) *plan.Base {
	var base plan.Base
	for a, v := range netlink.Attributes(b) {
		switch a {
		case nftaHookNum:
			base.Hook = plan.Hook(netlink.BE32(v))
		case nftaHookPriority:
			base.Priority = int32(netlink.BE32(v))
		}
	}
	return &base
}
