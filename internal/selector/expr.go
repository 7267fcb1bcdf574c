package selector

import (
	"slices"
	"strings"
)

// Expr is a node of the parse tree: one of [All], [Global], [Has], [Compare], [In],
// [Not], [And], [Or].
type Expr interface {
	match(get func(string) (string, bool)) bool
	text(b []byte) []byte // appends the canonical text
}

// All is all(): it selects everything.
type All struct{}

// Global is global(). It selects everything here; where it may stand it means
// objects without a namespace.
type Global struct{}

// Has is has(Label): the label is there, whatever its value.
type Has struct{ Label string }

// Op is the operator of a [Compare].
type Op string

// The operators, by their canonical text. NotEqual also selects objects without
// the label; the others do not.
const (
	Equal      Op = "=="
	NotEqual   Op = "!="
	Contains   Op = "contains"
	StartsWith Op = "starts with"
	EndsWith   Op = "ends with"
)

// Compare compares a label's value with a text.
type Compare struct {
	Label string
	Op    Op
	Value string
}

// In is Label in {Values}, or not in. Values is sorted and without duplicates. Not
// also selects objects without the label.
type In struct {
	Label  string
	Values []string
	Not    bool
}

// Not is !X.
type Not struct{ X Expr }

// And is X && Y && …; it has two or more parts.
type And struct{ Parts []Expr }

// Or is X || Y || …; it has two or more parts.
type Or struct{ Parts []Expr }

func (All) match(func(string) (string, bool)) bool    { return true }
func (Global) match(func(string) (string, bool)) bool { return true }

func (e Has) match(get func(string) (string, bool)) bool {
	_, ok := get(e.Label)
	return ok
}

func (e Compare) match(get func(string) (string, bool)) bool {
	value, ok := get(e.Label)
	switch e.Op {
	case Equal:
		return ok && value == e.Value
	case NotEqual:
		return !ok || value != e.Value
	case Contains:
		return ok && strings.Contains(value, e.Value)
	case StartsWith:
		return ok && strings.HasPrefix(value, e.Value)
	default: // EndsWith
		return ok && strings.HasSuffix(value, e.Value)
	}
}

func (e In) match(get func(string) (string, bool)) bool {
	value, ok := get(e.Label)
	if !ok {
		return e.Not
	}
	_, found := slices.BinarySearch(e.Values, value)
	return found != e.Not
}

func (e Not) match(get func(string) (string, bool)) bool { return !e.X.match(get) }

func (e And) match(get func(string) (string, bool)) bool {
	for _, part := range e.Parts {
		if !part.match(get) {
			return false
		}
	}
	return true
}

func (e Or) match(get func(string) (string, bool)) bool {
	for _, part := range e.Parts {
		if part.match(get) {
			return true
		}
	}
	return false
}

func (All) text(b []byte) []byte    { return append(b, "all()"...) }
func (Global) text(b []byte) []byte { return append(b, "global()"...) }

func (e Has) text(b []byte) []byte {
	b = append(append(b, "has("...), e.Label...)
	return append(b, ')')
}

func (e Compare) text(b []byte) []byte {
	b = append(append(b, e.Label...), ' ')
	b = append(append(b, e.Op...), ' ')
	return quote(b, e.Value)
}

func (e In) text(b []byte) []byte {
	b = append(b, e.Label...)
	if e.Not {
		b = append(b, " not"...)
	}
	b = append(b, " in {"...)
	for i, v := range e.Values {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = quote(b, v)
	}
	return append(b, '}')
}

func (e Not) text(b []byte) []byte { return e.X.text(append(b, '!')) }
func (e And) text(b []byte) []byte { return partsText(b, e.Parts, " && ") }
func (e Or) text(b []byte) []byte  { return partsText(b, e.Parts, " || ") }

func partsText(b []byte, parts []Expr, op string) []byte {
	b = append(b, '(')
	for i, part := range parts {
		if i > 0 {
			b = append(b, op...)
		}
		b = part.text(b)
	}
	return append(b, ')')
}

// quote uses double quotes where it can: a string holds at most one of the two.
func quote(b []byte, s string) []byte {
	mark := byte('"')
	if strings.IndexByte(s, mark) >= 0 {
		mark = '\''
	}
	b = append(append(b, mark), s...)
	return append(b, mark)
}

func walk(e Expr, visit func(Expr)) {
	visit(e)
	switch e := e.(type) {
	case Not:
		walk(e.X, visit)
	case And:
		for _, part := range e.Parts {
			walk(part, visit)
		}
	case Or:
		for _, part := range e.Parts {
			walk(part, visit)
		}
	}
}
