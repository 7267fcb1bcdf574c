package index

import "slices"

// shape is a set of own labels with a list of parents, shared by all items that
// have them.
type shape struct {
	// data is the own terms, sorted, then the parents, in order, then the place of
	// this shape in the list that each of those keeps.
	data    []uint32
	nOwn    uint32
	first   uint32 // item, plus one
	chain   uint32 // next shape of the same hash
	hash    uint64
	matches []uint32 // selectors, sorted
}

func (s *shape) own() []uint32     { return s.data[:s.nOwn] }
func (s *shape) parents() []uint32 { return s.data[s.nOwn : len(s.data)/2] }
func (s *shape) id() []uint32      { return s.data[:len(s.data)/2] }
func (s *shape) places() []uint32  { return s.data[len(s.data)/2:] }

// parent is a profile: its labels, as terms, if it exists.
type parent struct {
	name   string
	known  bool
	labels []uint32 // sorted
	places []uint32 // of this parent in the list that each label keeps
	shapes []uint32 // that have it
}

// intern finds or makes the shape of these labels and parents. The one that the
// item had before, or 0, helps to match a new one.
func (x *Index) intern(labels map[string]string, parents []string, old uint32) uint32 {
	id := x.scratch.own[:0]
	for name, value := range labels {
		id = append(id, x.pair(name, value))
	}
	slices.Sort(id)
	nOwn := uint32(len(id))
	for _, name := range parents {
		if p := x.parent(name); !slices.Contains(id[nOwn:], p) {
			id = append(id, p)
		}
	}
	x.scratch.own = id
	h := hash(id, nOwn)
	for sh := x.shapeOf[h]; sh != 0; sh = x.shapes[sh].chain {
		if s := &x.shapes[sh]; s.nOwn == nOwn && slices.Equal(s.id(), id) {
			return sh
		}
	}
	return x.newShape(id, nOwn, h, old)
}

// hash is FNV-1a over the numbers. Who chooses labels cannot choose numbers, and
// shapes of equal hash are told apart.
func hash(id []uint32, nOwn uint32) uint64 {
	h := uint64(14695981039346656037) ^ uint64(nOwn)
	for _, v := range id {
		h = (h ^ uint64(v)) * 1099511628211
		h ^= h >> 29
	}
	return h
}

func (x *Index) newShape(id []uint32, nOwn uint32, h uint64, old uint32) uint32 {
	var sh uint32
	if n := len(x.freeShape); n > 0 {
		sh, x.freeShape = x.freeShape[n-1], x.freeShape[:n-1]
	} else {
		sh = uint32(len(x.shapes))
		x.shapes = append(x.shapes, shape{})
	}
	data := make([]uint32, 2*len(id))
	copy(data, id)
	x.shapes[sh] = shape{data: data, nOwn: nOwn, hash: h, chain: x.shapeOf[h]}
	x.shapeOf[h] = sh
	places := data[len(id):]
	for i, t := range id[:nOwn] {
		tm := &x.terms[t]
		tm.users++
		places[i] = uint32(len(tm.posts))
		tm.posts = append(tm.posts, sh)
	}
	for i, p := range id[nOwn:] {
		pa := &x.parents[p]
		places[int(nOwn)+i] = uint32(len(pa.shapes))
		pa.shapes = append(pa.shapes, sh)
	}
	x.countShape(sh, 1)
	x.match(sh, old)
	return sh
}

// countShape counts the labels of a shape in or out.
func (x *Index) countShape(sh uint32, n int) {
	s := &x.shapes[sh]
	for _, t := range s.own() {
		x.count(t, n)
	}
	for _, p := range s.parents() {
		for _, t := range x.parents[p].labels {
			x.count(t, n)
		}
	}
}

func (x *Index) dropIfUnused(sh uint32) {
	if sh == 0 || x.shapes[sh].first != 0 {
		return
	}
	x.countShape(sh, -1)
	s := x.shapes[sh]
	if at := x.shapeOf[s.hash]; at == sh && s.chain == 0 {
		delete(x.shapeOf, s.hash)
	} else if at == sh {
		x.shapeOf[s.hash] = s.chain
	} else {
		for x.shapes[at].chain != sh {
			at = x.shapes[at].chain
		}
		x.shapes[at].chain = s.chain
	}
	for i, t := range s.own() {
		place := s.places()[i]
		if moved, ok := takeOut(&x.terms[t].posts, place); ok {
			m := &x.shapes[moved]
			at, _ := slices.BinarySearch(m.own(), t)
			m.places()[at] = place
		}
		x.release(t)
	}
	for i, p := range s.parents() {
		place := s.places()[int(s.nOwn)+i]
		if moved, ok := takeOut(&x.parents[p].shapes, place); ok {
			m := &x.shapes[moved]
			m.places()[int(m.nOwn)+slices.Index(m.parents(), p)] = place
		}
		x.dropParentIfUnused(p)
	}
	x.shapes[sh] = shape{}
	x.freeShape = append(x.freeShape, sh)
}

// load makes the labels of a shape, own and inherited, the ones that eval sees.
func (x *Index) load(sh uint32) {
	x.nextRound()
	s := &x.shapes[sh]
	for _, t := range s.own() {
		x.scratch.slots[x.terms[t].label] = slot{x.scratch.round, t}
	}
	for _, p := range s.parents() {
		for _, t := range x.parents[p].labels {
			if at := &x.scratch.slots[x.terms[t].label]; at.round != x.scratch.round {
				*at = slot{x.scratch.round, t}
			}
		}
	}
}

// value is the term of a label in the shape that is loaded, or 0.
func (x *Index) value(label uint32) uint32 {
	if s := x.scratch.slots[label]; s.round == x.scratch.round {
		return s.term
	}
	return 0
}
