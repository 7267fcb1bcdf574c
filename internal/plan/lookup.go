package plan

import (
	"maps"
	"net/netip"
	"slices"
)

// value is what a map has for an interface or class.
func (m *Machine) value(set, key string) (string, bool) {
	s := m.table.Sets[set]
	if s == nil || key == "" {
		return "", false
	}
	values, ok := m.values[s]
	if !ok {
		values = make(map[string]string, len(s.Elements))
		for e := range s.Elements {
			values[e.Link] = e.Value
		}
		m.values[s] = values
	}
	v, ok := values[key]
	return v, ok
}

func (m *Machine) hasElement(s *SetContent, e Element) bool {
	if s == nil {
		return false
	}
	_, ok := s.Elements[e]
	return ok
}

func (m *Machine) hasMember(s *SetContent, x Member) bool {
	if s == nil {
		return false
	}
	_, ok := s.Members[x]
	return ok
}

// hasSource reports whether the set has the address, or a net with it, for that link.
func (m *Machine) hasSource(s *SetContent, link string, a netip.Addr) bool {
	if s == nil {
		return false
	}
	if s.Type == SetLinkAddrs {
		_, ok := s.Elements[Element{Link: link, Net: netip.PrefixFrom(a, a.BitLen())}]
		return ok
	}
	for _, bits := range m.lengthsOf(s) {
		if net, err := a.Prefix(int(bits)); err == nil {
			if _, ok := s.Elements[Element{Link: link, Net: net}]; ok {
				return true
			}
		}
	}
	return false
}

// hasAddr reports whether the address, or a net that has it, is a member.
func (m *Machine) hasAddr(s *SetContent, a netip.Addr) bool {
	if s == nil {
		return false
	}
	if s.Type == SetAddrs {
		_, ok := s.Members[AddrMember(a)]
		return ok
	}
	for _, bits := range m.lengthsOf(s) {
		if net, err := a.Prefix(int(bits)); err == nil {
			if _, ok := s.Members[NetMember(net)]; ok {
				return true
			}
		}
	}
	return false
}

func (m *Machine) hasPort(s *SetContent, port uint16) bool {
	if s == nil {
		return false
	}
	ranges, ok := m.ports[s]
	if !ok {
		ranges = slices.SortedFunc(maps.Keys(s.Members), Member.Compare)
		m.ports[s] = ranges
	}
	// Ranges of a set do not overlap: the last that begins at or before port is the
	// only one that can have it.
	i, found := slices.BinarySearchFunc(ranges, port, func(x Member, p uint16) int { return int(x.port) - int(p) })
	return found || i > 0 && port <= ranges[i-1].last
}

// lengthsOf are the prefix lengths in a set of nets, longest first.
func (m *Machine) lengthsOf(s *SetContent) []uint8 {
	if l, ok := m.lengths[s]; ok {
		return l
	}
	var seen [129]bool
	for x := range s.Members {
		seen[x.bits] = true
	}
	for e := range s.Elements {
		seen[e.Net.Bits()] = true
	}
	l := []uint8{}
	for bits := range seen {
		if seen[bits] {
			l = append(l, uint8(bits))
		}
	}
	slices.Reverse(l)
	m.lengths[s] = l
	return l
}
