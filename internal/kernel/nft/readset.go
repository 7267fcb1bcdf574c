package nft

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

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
		n.urgent()
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
