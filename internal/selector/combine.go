package selector

import (
	"slices"
	"strings"
)

// Of is the selector with that parse tree, whose texts must not hold both kinds of
// quotes; it is of any length. Nobody may change the tree afterwards.
func Of(root Expr) *Selector { return &Selector{root: root, text: printed(root, 32)} }

// AllOf selects what every one of the selectors selects. It is never nil, may be
// longer than [MaxLen], and says nothing twice: conjunctions are laid into one, in
// order, without all() and without repetitions. So selectors that differ in these
// only come out equal.
func AllOf(selectors ...*Selector) *Selector {
	var parts []Expr
	var texts []string
	var only *Selector // the one that says something, while there is one
	for _, s := range selectors {
		before := len(parts)
		parts, texts = conjuncts(s.Root(), parts, texts)
		if len(parts) > before {
			only = s
			if before > 0 {
				only = nil
			}
		}
	}
	switch {
	case len(parts) == 0:
		return Of(All{})
	case len(parts) == 1 && only != nil && only.text == texts[0]:
		return only
	case len(parts) == 1:
		return &Selector{root: parts[0], text: texts[0]}
	}
	return &Selector{root: And{parts}, text: "(" + strings.Join(texts, " && ") + ")"}
}

// conjuncts appends to parts what must hold for e to hold, and its text to texts.
func conjuncts(e Expr, parts []Expr, texts []string) ([]Expr, []string) {
	switch e := e.(type) {
	case All:
		return parts, texts
	case And:
		for _, part := range e.Parts {
			parts, texts = conjuncts(part, parts, texts)
		}
		return parts, texts
	}
	text := printed(e, 32)
	if slices.Contains(texts, text) {
		return parts, texts
	}
	return append(parts, e), append(texts, text)
}

// Rename is s about other labels: each name it mentions becomes label(name).
func (s *Selector) Rename(label func(name string) string) *Selector {
	return s.Replace(func(leaf Expr) Expr {
		switch leaf := leaf.(type) {
		case Has:
			return Has{label(leaf.Label)}
		case Compare:
			leaf.Label = label(leaf.Label)
			return leaf
		case In:
			leaf.Label = label(leaf.Label)
			return leaf
		}
		return leaf
	})
}

// Replace is s with other leaves: f gets each [All], [Global], [Has], [Compare] and
// [In], and returns what is to stand in its place. It is never nil.
func (s *Selector) Replace(f func(leaf Expr) Expr) *Selector { return Of(replace(s.Root(), f)) }

func replace(e Expr, f func(Expr) Expr) Expr {
	switch e := e.(type) {
	case Not:
		return Not{replace(e.X, f)}
	case And:
		return And{replaceParts(e.Parts, f)}
	case Or:
		return Or{replaceParts(e.Parts, f)}
	}
	return f(e)
}

func replaceParts(parts []Expr, f func(Expr) Expr) []Expr {
	out := make([]Expr, len(parts))
	for i, part := range parts {
		out[i] = replace(part, f)
	}
	return out
}

// printed is the text of e, expected to have about size bytes.
func printed(e Expr, size int) string {
	var b strings.Builder
	b.Grow(size)
	e.print(&b)
	return b.String()
}

// OneOf is label in {values}: it sorts a copy of the values.
func OneOf(label string, values ...string) In {
	sorted := slices.Sorted(slices.Values(values))
	return In{Label: label, Values: slices.Compact(sorted)}
}
