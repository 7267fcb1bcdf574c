package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

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
	t.stale = false
	t.parity ^= seen
	n.stats.Reads++
	found := false
	err := n.dump(t, unix.NFT_MSG_GETTABLE, nil, func() { found = false }, func(b []byte) {
		ours, flags := false, uint32(0)
		for typ, v := range netlink.Attributes(b) {
			switch typ {
			case unix.NFTA_TABLE_NAME:
				ours = isOurs(v)
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
	if err := n.readChains(t); err != nil {
		return fmt.Errorf("read chains of %s: %w", t, err)
	}
	if err := n.readSets(t); err != nil {
		return fmt.Errorf("read sets of %s: %w", t, err)
	}
	if err := n.readRules(t); err != nil {
		return fmt.Errorf("read rules of %s: %w", t, err)
	}
	if err := n.readForeign(t); err != nil {
		return fmt.Errorf("read objects of %s: %w", t, err)
	}
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

// lost has s not be in the kernel.
func (s *set) lost() {
	s.there, s.strays = false, nil
	for m, f := range s.members {
		if f&there != 0 {
			s.miss(m, f)
		}
	}
	for k, e := range s.elements {
		if e.mark&there != 0 {
			s.missElement(k, e)
		}
	}
	s.t.touchSet(s)
}

// miss notes that m, of which f is known, is not in the kernel.
func (s *set) miss(m plan.Member, f mark) {
	f &^= there
	switch {
	case f&(wanted|queued) == 0:
		delete(s.members, m)
		return
	case f&queued == 0:
		f |= queued
		s.changedMembers = append(s.changedMembers, m)
		s.t.touchSet(s)
	}
	s.members[m] = f
}

func (s *set) missElement(k elemKey, e *element) {
	e.mark &^= there
	if e.mark&(wanted|queued) == 0 {
		delete(s.elements, k)
		return
	}
	s.queueElement(k, e)
	s.t.touchSet(s)
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
	c.there, c.met = true, true
	if c.want && (!sameBase(c.base, base) || base != nil && (policy != 1 || string(typ) != "filter")) {
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

func (n *NFT) readSets(t *table) error {
	clear := func() {
		for _, s := range t.sets {
			s.met = false
		}
	}
	err := n.dump(t, unix.NFT_MSG_GETSET, nameAttrs(unix.NFTA_SET_TABLE, tableName), clear, t.setMet)
	if err != nil {
		return err
	}
	var met []*set
	for _, s := range t.sets {
		switch {
		case s.met:
			met = append(met, s)
		case s.there:
			s.lost()
		}
	}
	for _, s := range met {
		if !s.want || s.Type == plan.SetFlows || t.replace {
			continue
		}
		if err := n.readElements(s); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return nil
}

// setMet takes in a set of the kernel.
func (t *table) setMet(b []byte) {
	var name []byte
	var got shape
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_SET_NAME:
			name = cString(v)
		case unix.NFTA_SET_FLAGS:
			got.flags = netlink.BE32(v)
		case unix.NFTA_SET_KEY_TYPE:
			got.keyType = netlink.BE32(v)
		case unix.NFTA_SET_KEY_LEN:
			got.keyLen = netlink.BE32(v)
		case unix.NFTA_SET_DATA_TYPE:
			got.dataType = netlink.BE32(v)
		case unix.NFTA_SET_DATA_LEN:
			got.dataLen = netlink.BE32(v)
		}
	}
	if got.flags&unix.NFT_SET_ANONYMOUS != 0 {
		return // it goes with its rule
	}
	s := t.sets[string(name)]
	if s == nil {
		s = &set{Set: plan.Set{Name: string(name), Type: setForeign}, t: t}
		t.sets[s.Name] = s
		t.touchSet(s)
	}
	s.there, s.met = true, true
	if s.dataVerdict() {
		got.dataLen = 0
	}
	if s.want && got != s.layout.shape {
		t.replace = true
	}
}

// dataVerdict reports whether s is a map to verdicts, whose length is the kernel's
// business.
func (s *set) dataVerdict() bool { return s.layout.dataType == typeVerdict }

// readElements compares what is in a set with what is wanted.
func (n *NFT) readElements(s *set) error {
	s.strays = nil
	attrs := nameAttrs(unix.NFTA_SET_ELEM_LIST_TABLE, tableName, s.Name)
	start := func() { n.pairs = n.pairs[:0] }
	err := n.dump(s.t, unix.NFT_MSG_GETSETELEM, attrs, start, func(b []byte) {
		for a, v := range netlink.Attributes(b) {
			if a != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
				continue
			}
			for _, v := range netlink.Attributes(v) {
				n.elementMet(s, v)
			}
		}
	})
	if err != nil {
		return err
	}
	if s.layout.interval {
		n.pairUp(s)
	}
	for m, f := range s.members {
		if f&there != 0 && f&seen != s.t.parity {
			s.miss(m, f)
		}
	}
	for k, e := range s.elements {
		if e.mark&there != 0 && e.mark&seen != s.t.parity {
			s.missElement(k, e)
		}
	}
	return nil
}

// elementMet takes in an element of the kernel.
func (n *NFT) elementMet(s *set, b []byte) {
	var key, end, data []byte
	var flags uint32
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_SET_ELEM_KEY:
			key = dataValue(v)
		case nftaSetElemKeyEnd:
			end = dataValue(v)
		case unix.NFTA_SET_ELEM_DATA:
			data = v
		case unix.NFTA_SET_ELEM_FLAGS:
			flags = netlink.BE32(v)
		}
	}
	switch {
	case len(key) != int(s.layout.keyLen):
		s.t.replace = true // a catch-all element
	case s.layout.interval:
		b := bound{end: flags&unix.NFT_SET_ELEM_INTERVAL_END != 0}
		copy(b.key[:], key)
		n.pairs = append(n.pairs, b)
	case s.Type.HasElements():
		s.namedMet(key, end, data)
	default:
		s.memberMet(parseMember(key, s.Type, s.t.v6))
	}
}

// memberMet notes that m is in the kernel.
func (s *set) memberMet(m plan.Member) {
	f := s.members[m]
	f = f&^seen | s.t.parity | there
	if f&(wanted|queued) == 0 {
		f |= queued
		s.changedMembers = append(s.changedMembers, m)
		s.t.touchSet(s)
	}
	s.members[m] = f
}

// dataValue is the NFTA_DATA_VALUE in v.
func dataValue(v []byte) []byte {
	for a, v := range netlink.Attributes(v) {
		if a == unix.NFTA_DATA_VALUE {
			return v
		}
	}
	return nil
}

// namedMet notes that an element with a name in its key is in the kernel.
func (s *set) namedMet(key, end, data []byte) {
	k := elemKey{link: [linkBytes]byte(key)}
	n := copy(k.addr[:], key[linkBytes:])
	k.bits = uint8(8 * n)
	if s.Type == plan.SetLinkNets {
		var ok bool
		if k.bits, ok = prefixBits(key, end); !ok {
			s.t.replace = true
			return
		}
	}
	var value []byte
	switch s.Type {
	case plan.MapClasses:
		if v := dataValue(data); len(v) > classPad {
			value = cString(v[classPad:])
		}
	case plan.MapChains:
		value = gotoTarget(data)
	}
	e := s.elements[k]
	if e == nil {
		e = &element{}
		s.elements[k] = e
	}
	e.mark = e.mark&^seen | s.t.parity | there
	if string(value) != e.have {
		e.have = string(value)
	}
	if e.mark&wanted == 0 || e.have != e.want {
		s.queueElement(k, e)
		s.t.touchSet(s)
	}
}

// prefixBits is the length of the prefix between two keys of name and address.
func prefixBits(first, last []byte) (uint8, bool) {
	if last == nil {
		last = first
	}
	if len(last) != len(first) || !bytes.Equal(first[:linkBytes], last[:linkBytes]) {
		return 0, false
	}
	n := 8 * (len(first) - linkBytes)
	for bits := range n + 1 {
		same := true
		for i := range n {
			a := first[linkBytes+i/8] >> (7 - i%8) & 1
			b := last[linkBytes+i/8] >> (7 - i%8) & 1
			if i < bits && a != b || i >= bits && (a != 0 || b != 1) {
				same = false
				break
			}
		}
		if same {
			return uint8(bits), true
		}
	}
	return 0, false
}

// gotoTarget is the chain that a verdict goes to. What is no goto is none, so that it
// is replaced.
func gotoTarget(data []byte) (chain []byte) {
	for a, v := range netlink.Attributes(data) {
		if a != unix.NFTA_DATA_VERDICT {
			continue
		}
		code := int32(0)
		for a, v := range netlink.Attributes(v) {
			switch a {
			case unix.NFTA_VERDICT_CODE:
				code = int32(netlink.BE32(v))
			case unix.NFTA_VERDICT_CHAIN:
				chain = cString(v)
			}
		}
		if code != unix.NFT_GOTO {
			return nil
		}
	}
	return chain
}

// pairUp makes members of the ends that a dump of intervals gave.
func (n *NFT) pairUp(s *set) {
	slices.SortFunc(n.pairs, func(a, b bound) int {
		if c := bytes.Compare(a.key[:], b.key[:]); c != 0 {
			return c
		}
		switch {
		case a.end == b.end:
			return 0
		case a.end: // of the one before
			return -1
		}
		return 1
	})
	n.pairs = slices.Compact(n.pairs)
	size := s.layout.keyLen
	for i := 0; i < len(n.pairs); i++ {
		b := &n.pairs[i]
		if b.end {
			s.stray(*b)
			continue
		}
		var end []byte
		if i+1 < len(n.pairs) && n.pairs[i+1].end {
			i++
			end = n.pairs[i].key[:size]
		} else if i+1 < len(n.pairs) {
			s.stray(*b) // it has no end, and is not the last
			continue
		}
		m, ok := parseInterval(b.key[:size], end, s.Type, s.t.v6)
		if !ok {
			s.stray(*b)
			if end != nil {
				s.stray(n.pairs[i])
			}
			continue
		}
		s.memberMet(m)
	}
}

func (s *set) stray(b bound) {
	s.strays = append(s.strays, b)
	s.t.touchSet(s)
}

// kernelRule is a rule as a message tells it.
type kernelRule struct {
	table, chain []byte
	handle       uint64
	body         body // with counters at zero
}

// parseRule reads a message of a rule, in which it sets counters to zero.
func parseRule(b []byte) (r kernelRule, ok bool) {
	if len(b) < 4 {
		return r, false
	}
	return parseRuleAttrs(b[4:])
}

func parseRuleAttrs(b []byte) (r kernelRule, ok bool) {
	at := 0
	for a, v := range netlink.Attributes(b) {
		start := at
		at += netlink.Align(4 + len(v))
		switch a {
		case unix.NFTA_RULE_TABLE:
			r.table = cString(v)
		case unix.NFTA_RULE_CHAIN:
			r.chain = cString(v)
		case unix.NFTA_RULE_HANDLE:
			r.handle = netlink.BE64(v)
		case unix.NFTA_RULE_EXPRESSIONS:
			blankCounters(v)
			r.body = body(b[start:])
		case unix.NFTA_RULE_USERDATA:
			if r.body == nil {
				r.body = body(b[start:])
			}
		}
	}
	return r, r.handle != 0
}

// blankCounters sets the counters in a list of expressions to zero.
func blankCounters(list []byte) {
	forCounters(list, func(v []byte) { clear(v) })
}

// forCounters calls f with the values of the counters in a list of expressions: bytes
// and packets, in turn.
func forCounters(list []byte, f func(v []byte)) {
	for _, expr := range netlink.Attributes(list) {
		counter := false
		for a, v := range netlink.Attributes(expr) {
			switch a {
			case unix.NFTA_EXPR_NAME:
				counter = string(cString(v)) == "counter"
			case unix.NFTA_EXPR_DATA:
				if !counter {
					continue
				}
				for _, v := range netlink.Attributes(v) {
					f(v)
				}
			}
		}
	}
}

func (n *NFT) readRules(t *table) error {
	clear := func() {
		for _, c := range t.chains {
			c.scan = c.scan[:0]
		}
	}
	err := n.dump(t, unix.NFT_MSG_GETRULE, nameAttrs(unix.NFTA_RULE_TABLE, tableName), clear, func(b []byte) {
		r, ok := parseRuleAttrs(b)
		if c := t.chains[string(r.chain)]; ok && c != nil && string(r.table) == tableName {
			c.ruleMet(&r)
		}
	})
	if err != nil {
		return err
	}
	for _, c := range t.chains {
		if c.there {
			c.scanned()
		}
	}
	return nil
}

// readChain reads the rules of one chain, whose handles are not known.
func (n *NFT) readChain(c *chain) error {
	attrs := nameAttrs(unix.NFTA_RULE_TABLE, tableName, c.name)
	err := n.dump(c.t, unix.NFT_MSG_GETRULE, attrs, func() { c.scan = c.scan[:0] }, func(b []byte) {
		if r, ok := parseRuleAttrs(b); ok && string(r.chain) == c.name && string(r.table) == tableName {
			c.ruleMet(&r)
		}
	})
	if err != nil {
		return fmt.Errorf("read chain %s of %s: %w", c.name, c.t, err)
	}
	c.scanned()
	return nil
}

// ruleMet takes in the next rule of c. It keeps what it has in place of equal bytes.
func (c *chain) ruleMet(k *kernelRule) {
	i := len(c.scan)
	r := rule{handle: k.handle}
	switch {
	case i < len(c.actual) && c.actual[i].is(k.body):
		r.body, r.dumped = c.actual[i].body, c.actual[i].dumped
	case i < len(c.rules) && bytes.Equal(c.rules[i], k.body):
		r.body = c.rules[i]
	case i < len(c.actual) && c.actual[i].handle == 0 && c.epoch == c.t.epoch:
		// Ours, and nobody else was here: so this is how the kernel puts it.
		r.body, r.dumped = c.actual[i].body, slices.Clone(k.body)
	default:
		r.body = slices.Clone(k.body)
	}
	c.scan = append(c.scan, r)
}

// is reports whether the kernel's form b is that of r.
func (r *rule) is(b body) bool {
	return bytes.Equal(r.body, b) || r.dumped != nil && bytes.Equal(r.dumped, b)
}

// scanned takes in all rules of c.
func (c *chain) scanned() {
	c.actual = append(c.actual[:0], c.scan...)
	c.known, c.epoch = true, c.t.epoch
	if !c.want || !c.asWanted() {
		c.t.touchChain(c)
	}
}

// asWanted reports whether the rules in the kernel are those that are wanted.
func (c *chain) asWanted() bool {
	return slices.EqualFunc(c.actual, c.rules, func(r rule, b body) bool { return bytes.Equal(r.body, b) })
}

// parseGeneration reads who made a transaction.
func parseGeneration(b []byte) (process string, pid uint32) {
	for a, v := range netlink.Attributes(b) {
		switch a {
		case unix.NFTA_GEN_PROC_NAME:
			process = string(cString(v))
		case unix.NFTA_GEN_PROC_PID:
			pid = binary.BigEndian.Uint32(append(slices.Clone(v), 0, 0, 0, 0))
		}
	}
	return process, pid
}
