package index

import "slices"

// term is a label, or a label with a value: what shapes have and selectors require.
type term struct {
	label uint32 // the term of the label; for a label, itself
	users uint32 // own labels of shapes, labels of parents, and selectors
	count uint32 // how many shapes have it or inherit it, hidden ones included
	place uint32 // of a value: its place in the posts of its label
	text  string // the label's name, or the value
	// posts are, of a label, its values (terms); of a value, the shapes whose own it is.
	posts []uint32
	more  *more // nil for most
}

// more is what few terms have.
type more struct {
	filed     []uint32 // selectors filed under this term
	checked   uint32   // count when it was last asked whether they stand well here
	mentioned []uint32 // of a label: selectors that mention it
	parents   []uint32 // of a value: parents that give it
}

type pair struct {
	label uint32
	value string
}

// scratch is room for one operation at a time. A mark or slot counts only if it
// carries the number of its round.
type scratch struct {
	round     uint32
	slots     []slot   // by label: its term in the shape that is loaded
	selMark   []uint32 // by selector: round in which it was met
	shapeMark []uint32
	own       []uint32
	found     []uint32
	merged    []uint32
	shapes    []uint32
	changed   []uint32
}

type slot struct{ round, term uint32 }

// nextRound makes all marks and slots void.
func (x *Index) nextRound() {
	s := &x.scratch
	if s.round++; s.round == 0 { // after four billion rounds old marks would look new
		clear(s.slots)
		clear(s.selMark)
		clear(s.shapeMark)
		s.round = 1
	}
}

func (x *Index) label(name string) uint32 {
	if id, ok := x.labelOf[name]; ok {
		return id
	}
	id := x.newTerm(term{text: name})
	x.terms[id].label = id
	x.labelOf[name] = id
	return id
}

func (x *Index) pair(name, value string) uint32 { return x.valueOf(x.label(name), value) }

// valueOf is the term of a label's value.
func (x *Index) valueOf(label uint32, value string) uint32 {
	if id, ok := x.pairOf[pair{label, value}]; ok {
		return id
	}
	posts := &x.terms[label].posts
	place := uint32(len(*posts))
	id := x.newTerm(term{label: label, text: value, place: place})
	posts = &x.terms[label].posts // the terms may have moved
	*posts = append(*posts, id)
	x.terms[label].users++
	x.pairOf[pair{label, value}] = id
	return id
}

func (x *Index) newTerm(t term) uint32 {
	if n := len(x.freeTerm); n > 0 {
		id := x.freeTerm[n-1]
		x.freeTerm = x.freeTerm[:n-1]
		x.terms[id] = t
		return id
	}
	x.terms = append(x.terms, t)
	x.scratch.slots = append(x.scratch.slots, make([]slot, len(x.terms)-len(x.scratch.slots))...)
	return uint32(len(x.terms) - 1)
}

func (x *Index) isLabel(t uint32) bool { return x.terms[t].label == t }

// release takes a user away from a term, which goes with the last one.
func (x *Index) release(id uint32) {
	t := &x.terms[id]
	if t.users--; t.users > 0 {
		return
	}
	if label := t.label; label == id {
		delete(x.labelOf, t.text)
	} else {
		delete(x.pairOf, pair{label, t.text})
		posts, place := &x.terms[label].posts, t.place
		if moved, ok := takeOut(posts, place); ok {
			x.terms[moved].place = place
		}
		x.release(label)
	}
	x.terms[id] = term{}
	x.scratch.slots[id] = slot{}
	x.freeTerm = append(x.freeTerm, id)
}

func (x *Index) moreOf(t uint32) *more {
	if x.terms[t].more == nil {
		x.terms[t].more = &more{}
	}
	return x.terms[t].more
}

// count adds n to the number of shapes that have a value, and so its label. It
// files selectors anew where a term has become common.
func (x *Index) count(t uint32, n int) {
	for _, id := range [2]uint32{t, x.terms[t].label} {
		tm := &x.terms[id]
		tm.count = uint32(int(tm.count) + n)
		if tm.more != nil && tm.count > 2*tm.more.checked+16 {
			tm.more.checked = tm.count
			x.refile(tm.more)
		}
	}
}

// takeOut removes the value at a place from a list by moving the last one there;
// it says which one moved.
func takeOut(list *[]uint32, place uint32) (moved uint32, ok bool) {
	last := len(*list) - 1
	moved = (*list)[last]
	(*list)[place] = moved
	*list = (*list)[:last]
	return moved, int(place) != last
}

// addSorted and cutSorted keep a list sorted; cutSorted reports whether v was there.
func addSorted(list []uint32, v uint32) []uint32 {
	at, found := slices.BinarySearch(list, v)
	if found {
		return list
	}
	return slices.Insert(list, at, v)
}

func cutSorted(list []uint32, v uint32) ([]uint32, bool) {
	at, found := slices.BinarySearch(list, v)
	if !found {
		return list, false
	}
	return slices.Delete(list, at, at+1), true
}
