package bgp

import "hash/maphash"

// pageLen is how many elements a slab grows by.
const pageLen = 1024

// slab is a growing array that never moves what it holds: growing copies
// nothing and leaves no garbage, and pointers into it stay good.
type slab[T any] struct {
	pages []*[pageLen]T
	n     int
}

func (s *slab[T]) len() int { return s.n }

func (s *slab[T]) at(i uint32) *T { return &s.pages[i/pageLen][i%pageLen] }

// add appends v and gives its index.
func (s *slab[T]) add(v T) uint32 {
	i := uint32(s.n)
	if s.n++; int(i/pageLen) == len(s.pages) {
		s.pages = append(s.pages, new([pageLen]T))
	}
	*s.at(i) = v
	return i
}

// index finds a dest by its key: open addressing with linear probing, four
// bytes a slot, at most three quarters full. The keys stay in the dests.
type index struct {
	slots []destID // plus one; 0 is free
	n     int
	seed  maphash.Seed
	dests *slab[dest]
}

func newIndex(dests *slab[dest]) index {
	return index{slots: make([]destID, 64), seed: maphash.MakeSeed(), dests: dests}
}

// slot is where k is, or where it would go.
func (x *index) slot(k *key) int {
	mask := len(x.slots) - 1
	i := int(maphash.Bytes(x.seed, k[:])) & mask
	for x.slots[i] != 0 && x.dests.at(uint32(x.slots[i]-1)).key != *k {
		i = (i + 1) & mask
	}
	return i
}

func (x *index) get(k key) (destID, bool) {
	d := x.slots[x.slot(&k)]
	return d - 1, d != 0
}

// put adds d, whose key must not be there yet.
func (x *index) put(d destID) {
	if x.n++; 4*x.n > 3*len(x.slots) {
		old := x.slots
		x.slots = make([]destID, 2*len(old))
		for _, o := range old {
			if o != 0 {
				x.slots[x.slot(&x.dests.at(uint32(o-1)).key)] = o
			}
		}
	}
	x.slots[x.slot(&x.dests.at(uint32(d)).key)] = d + 1
}

// remove takes d out, and closes the gap so that probing needs no tombstones.
func (x *index) remove(d destID) {
	mask := len(x.slots) - 1
	gap := x.slot(&x.dests.at(uint32(d)).key)
	x.slots[gap] = 0
	x.n--
	for i := (gap + 1) & mask; x.slots[i] != 0; i = (i + 1) & mask {
		o := x.slots[i]
		x.slots[i] = 0
		x.slots[x.slot(&x.dests.at(uint32(o-1)).key)] = o
	}
}
