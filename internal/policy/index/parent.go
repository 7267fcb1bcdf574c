package index

import "slices"

// PutParent gives a parent these labels.
func (x *Index) PutParent(name string, labels map[string]string) {
	p := x.parent(name)
	x.parents[p].known = true
	now := make([]uint32, 0, len(labels))
	for k, v := range labels {
		now = append(now, x.pair(k, v))
	}
	slices.Sort(now)
	x.relabel(p, now)
}

// DeleteParent takes a parent's labels away.
func (x *Index) DeleteParent(name string) {
	p, ok := x.parentOf[name]
	if !ok {
		return
	}
	x.parents[p].known = false
	x.relabel(p, nil)
	x.dropParentIfUnused(p)
}

// ParentLabels are the labels of a parent, in a new map.
func (x *Index) ParentLabels(name string) map[string]string {
	p, ok := x.parentOf[name]
	if !ok {
		return nil
	}
	out := make(map[string]string, len(x.parents[p].labels))
	for _, t := range x.parents[p].labels {
		out[x.terms[x.terms[t].label].text] = x.terms[t].text
	}
	return out
}

func (x *Index) parent(name string) uint32 {
	if p, ok := x.parentOf[name]; ok {
		return p
	}
	var p uint32
	if n := len(x.freeParent); n > 0 {
		p, x.freeParent = x.freeParent[n-1], x.freeParent[:n-1]
	} else {
		p = uint32(len(x.parents))
		x.parents = append(x.parents, parent{})
	}
	x.parents[p] = parent{name: name}
	x.parentOf[name] = p
	return p
}

func (x *Index) dropParentIfUnused(p uint32) {
	pa := &x.parents[p]
	if pa.known || len(pa.shapes) > 0 {
		return
	}
	delete(x.parentOf, pa.name)
	*pa = parent{}
	x.freeParent = append(x.freeParent, p)
}

// relabel makes now, sorted, the labels of a parent and matches its shapes again.
func (x *Index) relabel(p uint32, now []uint32) {
	old := x.parents[p].labels
	if slices.Equal(old, now) {
		return
	}
	changed := x.changedLabels(old, now)
	shapes := len(x.parents[p].shapes)
	places := make([]uint32, len(now))
	for i, t := range now {
		x.terms[t].users++ // before the old ones are released
		m := x.moreOf(t)
		places[i] = uint32(len(m.parents))
		m.parents = append(m.parents, p)
	}
	oldPlaces := x.parents[p].places
	x.parents[p].labels, x.parents[p].places = now, places
	for i, t := range old {
		x.leave(p, t, oldPlaces[i])
		x.count(t, -shapes)
	}
	for _, t := range now {
		x.count(t, shapes)
	}
	for _, sh := range x.parents[p].shapes {
		x.rematch(sh, changed)
	}
	for _, t := range old {
		x.release(t)
	}
}

// leave takes a parent out of the list of a term. A parent that keeps the term
// stands in the list twice for a moment; the places tell which is which.
func (x *Index) leave(p, t, place uint32) {
	m := x.terms[t].more
	moved, ok := takeOut(&m.parents, place)
	if !ok {
		return
	}
	pa := &x.parents[moved]
	at, _ := slices.BinarySearch(pa.labels, t)
	pa.places[at] = place
}

// changedLabels are the labels of the terms that are in one sorted list only.
func (x *Index) changedLabels(a, b []uint32) []uint32 {
	out := x.scratch.changed[:0]
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		var t uint32
		switch {
		case j == len(b) || i < len(a) && a[i] < b[j]:
			t = a[i]
			i++
		case i == len(a) || b[j] < a[i]:
			t = b[j]
			j++
		default:
			i, j = i+1, j+1
			continue
		}
		if l := x.terms[t].label; !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	x.scratch.changed = out
	return out
}
