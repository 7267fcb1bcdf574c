package index

import (
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/selector"
)

// sel is a selector with numbers in place of labels and values.
type sel struct {
	text      string
	users     int
	root      node
	filed     []filing // under which terms; none: under always, if not hopeless
	mentioned []filing // by label
	place     uint32   // in always
	hopeless  bool     // it can never match
}

// filing is a term with a selector's place in one of the lists that it keeps.
type filing struct{ term, place uint32 }

type op uint8

const (
	opAll op = iota
	opHas
	opEqual
	opIn
	opContains
	opStarts
	opEnds
	opAnd
	opOr
)

// node is an expression. Negations stand at the leaves.
type node struct {
	op    op
	not   bool
	label uint32
	value uint32   // opEqual
	set   []uint32 // opIn, sorted
	text  string   // opContains, opStarts, opEnds
	parts []node   // opAnd, opOr
}

func (x *Index) newSel(text string, root selector.Expr) uint32 {
	var id uint32
	if n := len(x.freeSel); n > 0 {
		id, x.freeSel = x.freeSel[n-1], x.freeSel[:n-1]
	} else {
		id = uint32(len(x.sels))
		x.sels = append(x.sels, sel{})
		x.scratch.selMark = append(x.scratch.selMark, 0)
	}
	x.selOf[text] = id
	s := sel{text: text, users: 1, root: x.compile(root, false)}
	for _, label := range labelsOf(&s.root, nil) {
		m := x.moreOf(label)
		s.mentioned = append(s.mentioned, filing{label, uint32(len(m.mentioned))})
		m.mentioned = append(m.mentioned, id)
	}
	x.sels[id] = s
	return id
}

// compile puts negations down to the leaves and takes a use of every term.
func (x *Index) compile(e selector.Expr, not bool) node {
	use := func(t uint32) uint32 { x.terms[t].users++; return t }
	switch e := e.(type) {
	case selector.Not:
		return x.compile(e.X, !not)
	case selector.And:
		return x.compileParts(e.Parts, not, opAnd, opOr)
	case selector.Or:
		return x.compileParts(e.Parts, not, opOr, opAnd)
	case selector.Has:
		return node{op: opHas, not: not, label: use(x.label(e.Label))}
	case selector.In:
		n := node{op: opIn, not: not != e.Not, label: use(x.label(e.Label))}
		for _, v := range e.Values {
			n.set = append(n.set, use(x.valueOf(n.label, v)))
		}
		slices.Sort(n.set)
		return n
	case selector.Compare:
		n := node{not: not, label: use(x.label(e.Label)), text: e.Value}
		switch e.Op {
		case selector.Equal, selector.NotEqual:
			n.op, n.text = opEqual, ""
			n.not = not != (e.Op == selector.NotEqual)
			n.value = use(x.valueOf(n.label, e.Value))
		case selector.Contains:
			n.op = opContains
		case selector.StartsWith:
			n.op = opStarts
		default:
			n.op = opEnds
		}
		return n
	}
	return node{op: opAll, not: not} // all() and global()
}

func (x *Index) compileParts(parts []selector.Expr, not bool, op, negated op) node {
	n := node{op: op, parts: make([]node, 0, len(parts))}
	if not {
		n.op = negated
	}
	for _, p := range parts {
		n.parts = append(n.parts, x.compile(p, not))
	}
	return n
}

// labelsOf appends the labels that n mentions to out, each once.
func labelsOf(n *node, out []uint32) []uint32 {
	if n.label != 0 && !slices.Contains(out, n.label) {
		out = append(out, n.label)
	}
	for i := range n.parts {
		out = labelsOf(&n.parts[i], out)
	}
	return out
}

func (x *Index) releaseTerms(n *node) {
	if n.value != 0 {
		x.release(n.value)
	}
	for _, t := range n.set {
		x.release(t)
	}
	if n.label != 0 {
		x.release(n.label)
	}
	for i := range n.parts {
		x.releaseTerms(&n.parts[i])
	}
}

// eval reports whether n selects the shape that is loaded.
func (x *Index) eval(n *node) bool {
	switch n.op {
	case opAnd:
		for i := range n.parts {
			if !x.eval(&n.parts[i]) {
				return false
			}
		}
		return true
	case opOr:
		for i := range n.parts {
			if x.eval(&n.parts[i]) {
				return true
			}
		}
		return false
	case opAll:
		return !n.not
	}
	t := x.value(n.label)
	if t == 0 {
		return n.not
	}
	var yes bool
	switch n.op {
	case opHas:
		yes = true
	case opEqual:
		yes = t == n.value
	case opIn:
		_, yes = slices.BinarySearch(n.set, t)
	case opContains:
		yes = strings.Contains(x.terms[t].text, n.text)
	case opStarts:
		yes = strings.HasPrefix(x.terms[t].text, n.text)
	case opEnds:
		yes = strings.HasSuffix(x.terms[t].text, n.text)
	}
	return yes != n.not
}

func (x *Index) freeSelector(id uint32) {
	s := &x.sels[id]
	for _, f := range s.mentioned {
		m := x.terms[f.term].more
		if moved, ok := takeOut(&m.mentioned, f.place); ok {
			setPlace(x.sels[moved].mentioned, f.term, f.place)
		}
	}
	x.releaseTerms(&s.root)
	delete(x.selOf, s.text)
	x.sels[id] = sel{}
	x.freeSel = append(x.freeSel, id)
}

func setPlace(list []filing, term, place uint32) {
	for i := range list {
		if list[i].term == term {
			list[i].place = place
			return
		}
	}
}
