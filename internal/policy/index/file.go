package index

import "math"

// need is a set of terms of which a shape must have at least one, with the price of
// looking there: the number of shapes that have them, and then of selectors that are
// filed there already.
type need struct {
	terms []uint32
	price uint64
}

// everything is the need of what requires nothing.
var everything = need{price: math.MaxUint64}

// requires works out the cheapest need of n.
func (x *Index) requires(n *node) need {
	switch n.op {
	case opAnd:
		best := everything
		for i := range n.parts {
			if r := x.requires(&n.parts[i]); r.price < best.price {
				best = r
			}
		}
		return best
	case opOr:
		var all need
		for i := range n.parts {
			r := x.requires(&n.parts[i])
			if r.price == math.MaxUint64 {
				return everything
			}
			all.terms = append(all.terms, r.terms...)
			all.price += r.price
		}
		return all
	case opAll:
		if n.not {
			return need{} // never
		}
		return everything
	}
	if n.not {
		return everything
	}
	has := need{terms: []uint32{n.label}, price: x.price(n.label)}
	switch n.op {
	case opEqual:
		return need{terms: []uint32{n.value}, price: x.price(n.value)}
	case opIn:
		in := need{terms: n.set}
		for _, t := range n.set {
			in.price += x.price(t)
		}
		if len(n.set) == 0 || in.price <= has.price {
			return in
		}
	}
	return has
}

func (x *Index) price(t uint32) uint64 {
	p := uint64(x.terms[t].count) << 20
	if m := x.terms[t].more; m != nil {
		p += uint64(min(len(m.filed), 1<<20-1))
	}
	return p
}

// file puts a selector where shapes will meet it.
func (x *Index) file(id uint32) {
	s := &x.sels[id]
	r := x.requires(&s.root)
	if r.price == math.MaxUint64 {
		s.place = uint32(len(x.always))
		x.always = append(x.always, id)
		return
	}
	s.hopeless = len(r.terms) == 0
	for _, t := range r.terms {
		if hasTerm(s.filed, t) {
			continue
		}
		m := x.moreOf(t)
		if len(m.filed) == 0 {
			m.checked = x.terms[t].count
		}
		s.filed = append(s.filed, filing{t, uint32(len(m.filed))})
		m.filed = append(m.filed, id)
	}
}

func hasTerm(list []filing, t uint32) bool {
	for _, f := range list {
		if f.term == t {
			return true
		}
	}
	return false
}

func (x *Index) unfile(id uint32) {
	s := &x.sels[id]
	if len(s.filed) == 0 && !s.hopeless {
		if moved, ok := takeOut(&x.always, s.place); ok {
			x.sels[moved].place = s.place
		}
		return
	}
	for _, f := range s.filed {
		if moved, ok := takeOut(&x.terms[f.term].more.filed, f.place); ok {
			setPlace(x.sels[moved].filed, f.term, f.place)
		}
	}
	s.filed = nil
}

// refile files the selectors of a term anew where something rarer is required too.
func (x *Index) refile(m *more) {
	moving := append([]uint32(nil), m.filed...)
	for _, id := range moving {
		s := &x.sels[id]
		now := x.requires(&s.root)
		var was uint64
		for _, f := range s.filed {
			was += x.price(f.term)
		}
		if now.price < was {
			x.unfile(id)
			x.file(id)
		}
	}
}
