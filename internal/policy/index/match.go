package index

import "slices"

// candidates are the shapes that a selector may select, each once: those that have
// what it is filed under. The slice is good until the next call.
func (x *Index) candidates(id uint32) []uint32 {
	out := x.scratch.shapes[:0]
	s := &x.sels[id]
	if len(s.filed) == 0 {
		for sh := 1; sh < len(x.shapes) && !s.hopeless; sh++ {
			if x.shapes[sh].first != 0 {
				out = append(out, uint32(sh))
			}
		}
		x.scratch.shapes = out
		return out
	}
	if n := len(x.shapes) - len(x.scratch.shapeMark); n > 0 {
		x.scratch.shapeMark = append(x.scratch.shapeMark, make([]uint32, n)...)
	}
	x.nextRound()
	for _, f := range s.filed {
		if !x.isLabel(f.term) {
			out = x.having(f.term, out)
			continue
		}
		for _, value := range x.terms[f.term].posts {
			out = x.having(value, out)
		}
	}
	x.scratch.shapes = out
	return out
}

// having appends the shapes that have or inherit a value, hidden ones included, if
// this round did not meet them yet.
func (x *Index) having(t uint32, out []uint32) []uint32 {
	add := func(shapes []uint32) {
		for _, sh := range shapes {
			if mark := &x.scratch.shapeMark[sh]; *mark != x.scratch.round {
				*mark = x.scratch.round
				out = append(out, sh)
			}
		}
	}
	add(x.terms[t].posts)
	if m := x.terms[t].more; m != nil {
		for _, p := range m.parents {
			add(x.parents[p].shapes)
		}
	}
	return out
}

// match finds the selectors of a new shape: from those of a similar one if only few
// selectors mention what is different, else from nothing.
func (x *Index) match(sh, like uint32) {
	if like != 0 {
		if changed, ok := x.differences(sh, like); ok && x.mentions(changed) < x.meets(sh) {
			x.shapes[sh].matches = x.derive(sh, x.shapes[like].matches, changed)
			return
		}
	}
	x.shapes[sh].matches = x.fresh(sh)
}

// rematch finds the selectors of a shape again after these labels have changed, and
// reports the differences.
func (x *Index) rematch(sh uint32, changed []uint32) {
	old := x.shapes[sh].matches
	x.load(sh)
	var now []uint32
	if x.mentions(changed) < x.meets(sh) {
		now = x.derive(sh, old, changed)
	} else {
		now = x.fresh(sh)
	}
	if slices.Equal(old, now) {
		return
	}
	x.shapes[sh].matches = now
	for n := x.shapes[sh].first; n != 0; n = x.items[n-1].next {
		x.compare(n-1, old, now)
	}
}

// differences are the labels that two shapes have differently. It gives up when
// there are many. It leaves sh loaded.
func (x *Index) differences(sh, like uint32) (labels []uint32, ok bool) {
	const many = 8
	labels = x.scratch.changed[:0]
	note := func(t uint32) {
		label := x.terms[t].label
		if x.value(label) != t && len(labels) <= many && !slices.Contains(labels, label) {
			labels = append(labels, label)
		}
	}
	x.load(sh)
	x.all(like, note) // more than visible: a hidden term only adds work
	x.load(like)
	x.all(sh, note)
	x.load(sh)
	x.scratch.changed = labels
	return labels, len(labels) <= many
}

// all calls visit for every term that a shape has or inherits.
func (x *Index) all(sh uint32, visit func(term uint32)) {
	s := &x.shapes[sh]
	for _, t := range s.own() {
		visit(t)
	}
	for _, p := range s.parents() {
		for _, t := range x.parents[p].labels {
			visit(t)
		}
	}
}

// mentions is how many selectors mention labels, at most.
func (x *Index) mentions(labels []uint32) int {
	n := 0
	for _, l := range labels {
		if m := x.terms[l].more; m != nil {
			n += len(m.mentioned)
		}
	}
	return n
}

// meets is how many selectors a shape meets, at most.
func (x *Index) meets(sh uint32) int {
	n := len(x.always)
	x.all(sh, func(t uint32) {
		for _, id := range [2]uint32{t, x.terms[t].label} {
			if m := x.terms[id].more; m != nil {
				n += len(m.filed)
			}
		}
	})
	return n
}

// derive works out the selectors of the loaded shape from those that would be its own had
// these labels not changed.
func (x *Index) derive(sh uint32, base, changed []uint32) []uint32 {
	round := x.scratch.round
	ask := x.scratch.found[:0]
	for _, l := range changed {
		m := x.terms[l].more
		if m == nil {
			continue
		}
		for _, s := range m.mentioned {
			if x.scratch.selMark[s] != round {
				x.scratch.selMark[s] = round
				ask = append(ask, s)
			}
		}
	}
	found := ask[:0]
	for _, s := range ask {
		if x.eval(&x.sels[s].root) {
			found = append(found, s)
		}
	}
	slices.Sort(found)
	x.scratch.found = ask[:0]
	out := x.scratch.merged[:0]
	for _, s := range base {
		if x.scratch.selMark[s] == round {
			continue
		}
		for len(found) > 0 && found[0] < s {
			out, found = append(out, found[0]), found[1:]
		}
		out = append(out, s)
	}
	x.scratch.merged = append(out, found...)
	return tight(x.scratch.merged)
}

// fresh works out the selectors of a shape from nothing.
func (x *Index) fresh(sh uint32) []uint32 {
	x.load(sh)
	found := x.scratch.found[:0]
	ask := func(list []uint32) {
		for _, s := range list {
			if x.scratch.selMark[s] == x.scratch.round {
				continue
			}
			x.scratch.selMark[s] = x.scratch.round
			if x.eval(&x.sels[s].root) {
				found = append(found, s)
			}
		}
	}
	ask(x.always)
	x.all(sh, func(t uint32) {
		for _, id := range [2]uint32{t, x.terms[t].label} {
			if m := x.terms[id].more; m != nil {
				ask(m.filed)
			}
		}
	})
	slices.Sort(found)
	x.scratch.found = found
	return tight(found)
}

// tight is a copy of list without room to spare; nil if it is empty.
func tight(list []uint32) []uint32 {
	if len(list) == 0 {
		return nil
	}
	return append(make([]uint32, 0, len(list)), list...)
}

func (x *Index) insertMatch(sh, s uint32) {
	old := x.shapes[sh].matches
	if n := len(old); n == cap(old) && n > 0 { // grow by little: there may be many shapes
		grown := make([]uint32, n, n+1+n/4)
		copy(grown, old)
		old = grown
	}
	x.shapes[sh].matches = addSorted(old, s)
}

func (x *Index) removeMatch(sh, s uint32) (was bool) {
	x.shapes[sh].matches, was = cutSorted(x.shapes[sh].matches, s)
	return was
}
