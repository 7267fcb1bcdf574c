package bgp

import (
	"math/bits"
	"net/netip"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// peerID numbers a source of routes within a Router.
type peerID uint16

// selfID is the source of Config.Networks.
const selfID peerID = 0

// destID numbers a prefix in a rib; used again once nothing refers to it.
type destID uint32

// attrID numbers a set of attributes in a rib; 0 is none.
type attrID uint32

// key is a prefix without pointers: the 16-byte form of the address, and its
// length, to which IPv4 adds v4Base. So the tables cost the collector nothing.
type key [17]byte

const v4Base = 129 // one more than the longest IPv6 prefix

func keyOf(p netip.Prefix) key {
	var k key
	a := p.Addr().As16()
	copy(k[:], a[:])
	k[16] = byte(p.Bits())
	if p.Addr().Is4() {
		k[16] += v4Base
	}
	return k
}

func (k *key) prefix() netip.Prefix {
	if k.family() == IPv6 {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte(k[:16])), int(k[16]))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(k[12:16])), int(k[16])-v4Base)
}

func (k *key) family() Families {
	if k[16] < v4Base {
		return IPv6
	}
	return IPv4
}

// dest is a prefix and its paths, the best one first.
type dest struct {
	key  key
	head uint32 // index in rib.paths; 0 is none
}

// path is one way to a prefix.
type path struct {
	attrs attrID
	id    uint32 // path identifier of RFC 7911
	next  uint32 // the next path of the same dest; 0 ends the list
	peer  peerID
	stale bool // kept through the peer's restart
}

// interned is a set of attributes and what is often asked of it.
type interned struct {
	*wire.Attrs
	key  string
	refs int
	hop  []netip.Addr // the next hop alone
}

// rib holds what peers told and what we originate, each attribute set once.
type rib struct {
	dests  slab[dest]
	paths  slab[path]
	index  index
	free   []destID
	gone   uint32 // head of the list of unused paths
	attrs  []interned
	spare  []attrID
	byKey  map[string]attrID
	buf    []byte
	merged map[string][]netip.Addr // next hop lists of more than one
}

func newRIB() *rib {
	r := &rib{attrs: make([]interned, 1), byKey: map[string]attrID{}, merged: map[string][]netip.Addr{}}
	r.index = newIndex(&r.dests)
	r.paths.add(path{}) // 0 is none
	return r
}

// intern gives a's number. The caller holds a reference until it calls unref.
func (r *rib) intern(a *wire.Attrs) attrID {
	r.buf = identity(r.buf[:0], a)
	id, ok := r.byKey[string(r.buf)]
	if !ok {
		it := interned{Attrs: a, key: string(r.buf)}
		if a.NextHop.IsValid() {
			it.hop = []netip.Addr{a.NextHop}
		}
		if n := len(r.spare); n > 0 {
			id, r.spare = r.spare[n-1], r.spare[:n-1]
			r.attrs[id] = it
		} else {
			id, r.attrs = attrID(len(r.attrs)), append(r.attrs, it)
		}
		r.byKey[it.key] = id
	}
	r.attrs[id].refs++
	return id
}

// identity appends bytes that differ whenever two attribute sets differ.
func identity(dst []byte, a *wire.Attrs) []byte {
	hops := [32]byte{}
	if a.NextHop.IsValid() {
		b := a.NextHop.As16()
		copy(hops[:], b[:])
	}
	if a.LinkLocal.IsValid() {
		b := a.LinkLocal.As16()
		copy(hops[16:], b[:])
	}
	dst = wire.AppendAttrs(append(dst, hops[:]...), a, wire.Options{ASN4: true, IBGP: true})
	return append(dst, a.NextHop.Zone()...)
}

func (r *rib) unref(id attrID) {
	it := &r.attrs[id]
	if it.refs--; it.refs == 0 {
		delete(r.byKey, it.key)
		*it = interned{}
		r.spare = append(r.spare, id)
	}
}

// dest gives the number of a prefix, a new one if need be.
func (r *rib) dest(p netip.Prefix) destID {
	k := keyOf(p)
	id, ok := r.index.get(k)
	if !ok {
		if n := len(r.free); n > 0 {
			id, r.free = r.free[n-1], r.free[:n-1]
			*r.entry(id) = dest{key: k}
		} else {
			id = destID(r.dests.add(dest{key: k}))
		}
		r.index.put(id)
	}
	return id
}

// entry is the dest with a number that dest gave.
func (r *rib) entry(d destID) *dest { return r.dests.at(uint32(d)) }

// release forgets a prefix that has no paths and that nobody must be told of.
func (r *rib) release(id destID) {
	r.index.remove(id)
	*r.entry(id) = dest{}
	r.free = append(r.free, id)
}

// put sets the path that peer has to d. It takes over one reference of attrs.
// It reports whether that is a new path, and whether anything changed.
func (r *rib) put(d destID, peer peerID, id uint32, attrs attrID) (added, changed bool) {
	for i := r.entry(d).head; i != 0; i = r.paths.at(i).next {
		p := r.paths.at(i)
		if p.peer != peer || p.id != id {
			continue
		}
		p.stale = false
		old := p.attrs
		p.attrs = attrs
		r.unref(old)
		return false, old != attrs
	}
	n := path{attrs: attrs, id: id, peer: peer, next: r.entry(d).head}
	i := r.gone
	if i != 0 {
		r.gone = r.paths.at(i).next
		*r.paths.at(i) = n
	} else {
		i = r.paths.add(n)
	}
	r.entry(d).head = i
	return true, true
}

// remove takes away the paths of d for which match reports true, and says how many.
func (r *rib) remove(d destID, match func(*path) bool) int {
	n := 0
	for at := &r.entry(d).head; *at != 0; {
		i := *at
		p := r.paths.at(i)
		if !match(p) {
			at = &p.next
			continue
		}
		*at = p.next
		r.unref(p.attrs)
		*p = path{next: r.gone}
		r.gone = i
		n++
	}
	return n
}

// best is the first path of d, or nil.
func (r *rib) best(d destID) *path {
	if i := r.entry(d).head; i != 0 {
		return r.paths.at(i)
	}
	return nil
}

// bitset is a set of destIDs.
type bitset []uint64

func (b bitset) has(d destID) bool {
	return int(d>>6) < len(b) && b[d>>6]&(1<<(d&63)) != 0
}

// set puts d into the set or out of it, and reports whether that changed it.
func (b *bitset) set(d destID, in bool) bool {
	for int(d>>6) >= len(*b) {
		if !in {
			return false
		}
		*b = append(*b, 0)
	}
	w, m := &(*b)[d>>6], uint64(1)<<(d&63)
	was := *w&m != 0
	if in {
		*w |= m
	} else {
		*w &^= m
	}
	return was != in
}

// next is the least member at or after d; false if there is none.
func (b bitset) next(d destID) (destID, bool) {
	for i := int(d >> 6); i < len(b); i++ {
		w := b[i]
		if i == int(d>>6) {
			w &= ^uint64(0) << (d & 63)
		}
		if w != 0 {
			return destID(i<<6 + bits.TrailingZeros64(w)), true
		}
	}
	return 0, false
}
