package plan

import (
	"iter"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
)

// Source is where a [Machine] looks up chains and sets: a Table, or what kernel/nft
// holds of one, so that nobody needs a second copy to judge by.
type Source interface {
	// Base yields the base chains.
	Base() iter.Seq[Chain]
	// Chain is the chain of that name; false: there is none.
	Chain(name string) (Chain, bool)
	// Set is what is in the set of that name; nil: there is none.
	Set(name string) Content
}

// Content is what is in a set, as a Machine asks it. It may change while a Machine has
// it.
type Content interface {
	// Has reports whether m is a member, of any type but SetPorts.
	Has(m Member) bool
	// HasPort reports whether a member of SetPorts has that port.
	HasPort(port uint16) bool
	// HasElement reports whether e, which has no Value, is in a set with names.
	HasElement(e Element) bool
	// Value is what a map has for an interface or class.
	Value(key string) (string, bool)
	// Lengths are the prefix lengths that nets in it may have, and perhaps more.
	Lengths() *Lengths
}

// Lengths are prefix lengths, 0 to 128. The zero value has none.
type Lengths [3]uint64

// Add puts in a length.
func (l *Lengths) Add(length uint8) { l[length/64] |= 1 << (length % 64) }

// Longest yields the lengths, the longest first.
func (l *Lengths) Longest() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i := len(l) - 1; i >= 0; i-- {
			for rest := l[i]; rest != 0; {
				top := bits.Len64(rest) - 1
				rest &^= 1 << top
				if !yield(64*i + top) {
					return
				}
			}
		}
	}
}

// value is what a map has for an interface or class.
func (m *Machine) value(set, key string) (string, bool) {
	s := m.source.Set(set)
	if s == nil || key == "" {
		return "", false
	}
	return s.Value(key)
}

// hasAddr reports whether the address, or a net that has it, is a member.
func hasAddr(s Content, a netip.Addr) bool {
	if s == nil {
		return false
	}
	for length := range s.Lengths().Longest() {
		if net, err := a.Prefix(length); err == nil && s.Has(NetMember(net)) {
			return true
		}
	}
	return false
}

// hasSource reports whether the set has the address, or a net with it, for that link.
func hasSource(s Content, link string, a netip.Addr) bool {
	if s == nil {
		return false
	}
	for length := range s.Lengths().Longest() {
		if net, err := a.Prefix(length); err == nil && s.HasElement(Element{Link: link, Net: net}) {
			return true
		}
	}
	return false
}

// frozen is a Table that does not change, as a Source.
type frozen struct {
	*Table
	sets map[string]*content
}

func (f frozen) Base() iter.Seq[Chain] {
	return func(yield func(Chain) bool) {
		for _, c := range f.Chains {
			if c.Base != nil && !yield(c) {
				return
			}
		}
	}
}

func (f frozen) Chain(name string) (Chain, bool) {
	c, ok := f.Chains[name]
	return c, ok
}

func (f frozen) Set(name string) Content {
	if c := f.sets[name]; c != nil {
		return c
	}
	s := f.Sets[name]
	if s == nil {
		return nil
	}
	c := &content{SetContent: s}
	f.sets[name] = c
	return c
}

// content is a SetContent that does not change, with what was found out about it when
// it was first asked.
type content struct {
	*SetContent
	lengths *Lengths
	values  map[string]string
	ports   []Member // sorted
}

func (c *content) Has(m Member) bool {
	_, ok := c.Members[m]
	return ok
}

func (c *content) HasElement(e Element) bool {
	_, ok := c.Elements[e]
	return ok
}

func (c *content) Value(key string) (string, bool) {
	if c.values == nil {
		c.values = make(map[string]string, len(c.Elements))
		for e := range c.Elements {
			c.values[e.Link] = e.Value
		}
	}
	v, ok := c.values[key]
	return v, ok
}

func (c *content) HasPort(port uint16) bool {
	if c.ports == nil {
		c.ports = slices.SortedFunc(maps.Keys(c.Members), Member.Compare)
	}
	// Ranges of a set do not overlap: the last that begins at or before port is the
	// only one that can have it.
	i, found := slices.BinarySearchFunc(c.ports, port, func(x Member, p uint16) int { return int(x.port) - int(p) })
	return found || i > 0 && port <= c.ports[i-1].last
}

func (c *content) Lengths() *Lengths {
	if c.lengths == nil {
		c.lengths = &Lengths{}
		for m := range c.Members {
			c.lengths.Add(m.bits)
		}
		for e := range c.Elements {
			if e.Net.IsValid() {
				c.lengths.Add(uint8(e.Net.Bits()))
			}
		}
	}
	return c.lengths
}
