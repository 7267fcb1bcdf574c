// Package index knows which items each selector selects, and says what changed
// when labels, parents or selectors do. Items are endpoints and network sets;
// parents are profiles, whose labels items inherit.
//
//	Put, Delete, PutParent, DeleteParent, Add, Remove ──► Index ──► event(item, selector, matches)
//
// An item's own label hides an inherited one, and an earlier parent's label hides
// that of a later one, as in Calico. A parent that does not exist gives nothing.
//
// Three things make it fast:
//
//   - Items with equal labels and parents share a shape. Selectors are matched
//     against shapes; an item only points to its shape.
//   - A selector is filed under what it requires: of all terms (label, or label and
//     value) without which it cannot match, those that the fewest shapes have. A
//     shape meets only the selectors that are filed under its own terms.
//   - When labels change, only selectors that mention those labels are asked again.
//
// It is deliberately not a store: what an item is, its key and its addresses, is the
// caller's. The package holds numbers instead of pointers wherever there may be a
// million of them, for the sake of the garbage collector.
//
// Invariant: the events so far, folded, are the pairs of item and selector for which
// [selector.Selector.Matches] holds on the labels that the item has and inherits.
package index

import (
	"iter"
	"slices"

	"github.com/weft-net/weft/internal/selector"
)

// Index is the matches between items and selectors. It is for one goroutine.
type Index struct {
	event func(item, sel uint32, matches bool)

	terms    []term // 0 is none
	labelOf  map[string]uint32
	pairOf   map[pair]uint32
	freeTerm []uint32

	parents    []parent
	parentOf   map[string]uint32
	freeParent []uint32

	shapes    []shape // 0 is none
	shapeOf   map[uint64]uint32
	freeShape []uint32
	items     []item

	sels    []sel
	selOf   map[string]uint32
	freeSel []uint32
	always  []uint32 // selectors that require nothing

	scratch scratch
}

// item is where an item stands: its shape, and its neighbours among those that
// have the shape, as numbers plus one.
type item struct{ shape, next, prev uint32 }

// New returns an empty Index. It calls event whenever an item begins or ceases to be
// selected by a selector; event must not use the index.
func New(event func(item, sel uint32, matches bool)) *Index {
	return &Index{
		event:    event,
		terms:    make([]term, 1),
		labelOf:  map[string]uint32{},
		pairOf:   map[pair]uint32{},
		parentOf: map[string]uint32{},
		shapes:   make([]shape, 1),
		shapeOf:  map[uint64]uint32{},
		selOf:    map[string]uint32{},
	}
}

// Put gives an item its labels and parents, the first parent being the one whose
// labels win. The caller chooses the item's number; numbers should be dense. The
// index keeps the strings of labels, but not the map.
func (x *Index) Put(n uint32, labels map[string]string, parents []string) {
	if int(n) >= len(x.items) {
		x.items = append(x.items, make([]item, int(n)+1-len(x.items))...)
	}
	old := x.items[n].shape
	now := x.intern(labels, parents, old)
	if old == now {
		return
	}
	x.unlink(n)
	x.link(n, now)
	x.compare(n, x.shapes[old].matches, x.shapes[now].matches)
	x.dropIfUnused(old)
}

// Delete forgets an item.
func (x *Index) Delete(n uint32) {
	if int(n) >= len(x.items) || x.items[n].shape == 0 {
		return
	}
	old := x.items[n].shape
	x.unlink(n)
	x.compare(n, x.shapes[old].matches, nil)
	x.dropIfUnused(old)
}

// Matches are the selectors that select an item, sorted. The slice is the index's,
// and good until the next change.
func (x *Index) Matches(n uint32) []uint32 {
	if int(n) >= len(x.items) {
		return nil
	}
	return x.shapes[x.items[n].shape].matches
}

// Items are the items that a selector selects, in no order. The index may be asked,
// but not changed, meanwhile.
func (x *Index) Items(s uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for _, id := range slices.Clone(x.candidates(s)) {
			if _, ok := slices.BinarySearch(x.shapes[id].matches, s); !ok {
				continue
			}
			for n := x.shapes[id].first; n != 0; n = x.items[n-1].next {
				if !yield(n - 1) {
					return
				}
			}
		}
	}
}

// Selectors is how many distinct selectors there are.
func (x *Index) Selectors() int { return len(x.selOf) }

// Add takes in a selector, counts its users and returns its number. Selectors with
// equal text are one.
func (x *Index) Add(s *selector.Selector) uint32 {
	text := s.String()
	if id, ok := x.selOf[text]; ok {
		x.sels[id].users++
		return id
	}
	id := x.newSel(text, s.Root())
	x.file(id)
	for _, sh := range x.candidates(id) {
		x.load(sh)
		if x.eval(&x.sels[id].root) {
			x.insertMatch(sh, id)
			x.tell(sh, id, true)
		}
	}
	return id
}

// Remove takes one user away from a selector. Without users it is forgotten, and
// its items cease to match.
func (x *Index) Remove(id uint32) {
	if x.sels[id].users--; x.sels[id].users > 0 {
		return
	}
	for _, sh := range x.candidates(id) {
		if x.removeMatch(sh, id) {
			x.tell(sh, id, false)
		}
	}
	x.unfile(id)
	x.freeSelector(id)
}

// tell reports a match or its end for every item of a shape.
func (x *Index) tell(sh, s uint32, matches bool) {
	for n := x.shapes[sh].first; n != 0; n = x.items[n-1].next {
		x.event(n-1, s, matches)
	}
}

// compare reports the differences between two sorted lists of selectors.
func (x *Index) compare(n uint32, old, now []uint32) {
	i, j := 0, 0
	for i < len(old) || j < len(now) {
		switch {
		case j == len(now) || i < len(old) && old[i] < now[j]:
			x.event(n, old[i], false)
			i++
		case i == len(old) || now[j] < old[i]:
			x.event(n, now[j], true)
			j++
		default:
			i, j = i+1, j+1
		}
	}
}

func (x *Index) link(n, sh uint32) {
	s := &x.shapes[sh]
	x.items[n] = item{shape: sh, next: s.first}
	if s.first != 0 {
		x.items[s.first-1].prev = n + 1
	}
	s.first = n + 1
}

func (x *Index) unlink(n uint32) {
	it := x.items[n]
	if it.shape == 0 {
		return
	}
	if it.prev != 0 {
		x.items[it.prev-1].next = it.next
	} else {
		x.shapes[it.shape].first = it.next
	}
	if it.next != 0 {
		x.items[it.next-1].prev = it.prev
	}
	x.items[n] = item{}
}
