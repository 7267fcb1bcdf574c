package selector

import "slices"

// Of is the selector with that parse tree, whose texts must not hold both kinds of
// quotes; it is of any length. Nobody may change the tree afterwards.
func Of(root Expr) *Selector {
	return &Selector{root: root, text: string(root.text(make([]byte, 0, 64)))}
}

// AllOf selects what every one of the selectors selects. It is never nil, may be
// longer than [MaxLen], and says nothing twice: conjunctions are laid into one, in
// order, without all() and without repetitions. So selectors that differ in these
// only come out equal.
func AllOf(selectors ...*Selector) *Selector {
	size := 2
	for _, s := range selectors {
		size += len(s.String()) + 4
	}
	c := conjunction{text: append(make([]byte, 0, size), '(')}
	for _, s := range selectors {
		c.add(s.Root())
	}
	switch len(c.parts) {
	case 0:
		return &everything
	case 1:
		return &Selector{root: c.parts[0], text: string(c.text[1:])}
	}
	return &Selector{root: And{c.parts}, text: string(append(c.text, ')'))}
}

// conjunction is what must hold together, each part once.
type conjunction struct {
	parts []Expr
	text  []byte // an opening parenthesis, and the parts with " && " between them
	ends  []int  // of the parts, in text
}

func (c *conjunction) add(e Expr) {
	switch e := e.(type) {
	case All:
		return
	case And:
		for _, part := range e.Parts {
			c.add(part)
		}
		return
	}
	const and = " && "
	before := len(c.text)
	if len(c.parts) > 0 {
		c.text = append(c.text, and...)
	}
	start := len(c.text)
	c.text = e.text(c.text)
	from := 1
	for _, end := range c.ends {
		if string(c.text[from:end]) == string(c.text[start:]) {
			c.text = c.text[:before]
			return
		}
		from = end + len(and)
	}
	c.parts, c.ends = append(c.parts, e), append(c.ends, len(c.text))
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

// OneOf is label in {values}: it sorts a copy of the values.
func OneOf(label string, values ...string) In {
	sorted := slices.Sorted(slices.Values(values))
	return In{Label: label, Values: slices.Compact(sorted)}
}
