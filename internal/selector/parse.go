package selector

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrSyntax is wrapped by every error of [Parse].
var ErrSyntax = errors.New("invalid selector")

// Parse reads a selector; the result is nil exactly when there is an error. White
// space alone is the selector all(). An error names the offset in bytes and what
// could stand there.
func Parse(text string) (*Selector, error) { return ParseLimit(text, MaxLen) }

// ParseLimit is Parse for texts of up to limit bytes: those that were made from
// other objects may be longer than what users may write.
func ParseLimit(text string, limit int) (*Selector, error) {
	if len(text) > limit {
		return nil, fmt.Errorf("selector: %q…: %w: %d bytes, want at most %d", text[:min(32, limit)], ErrSyntax, len(text), limit)
	}
	p := parser{text: text}
	p.space()
	if p.pos == len(text) {
		return &everything, nil
	}
	root := p.or()
	if p.err == nil && p.pos < len(text) {
		p.fail("&&, || or the end")
	}
	if p.err != nil {
		return nil, p.err
	}
	canonical := root.text(make([]byte, 0, len(text)+8))
	if string(canonical) == text {
		return &Selector{root: root, text: text}, nil // one copy less
	}
	return &Selector{root: root, text: string(canonical)}, nil
}

// everything is what the empty text selects, which most fields of rules are. It is
// never written.
var everything = Selector{root: All{}, text: "all()"}

// parser is a recursive descent over text. After each symbol it stands at the next
// one, white space passed. The first error stays in err and ends the descent: every
// method returns at once, and its result is not used.
type parser struct {
	text string
	pos  int
	err  error
}

func (p *parser) space() {
	for p.pos < len(p.text) && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t') {
		p.pos++
	}
}

// fail records that at the current place something else was wanted.
func (p *parser) fail(want string) {
	if p.err != nil {
		return
	}
	if p.pos >= len(p.text) {
		p.err = fmt.Errorf("selector: %q: %w: unexpected end, want %s", p.text, ErrSyntax, want)
		return
	}
	r := []rune(p.text[p.pos:])[0]
	p.err = fmt.Errorf("selector: %q: %w: unexpected %q at offset %d, want %s", p.text, ErrSyntax, r, p.pos, want)
}

// take passes over symbol if it stands here.
func (p *parser) take(symbol string) bool {
	if p.err != nil || !strings.HasPrefix(p.text[p.pos:], symbol) {
		return false
	}
	p.pos += len(symbol)
	p.space()
	return true
}

// expect passes over symbol or fails.
func (p *parser) expect(symbol string) {
	if !p.take(symbol) {
		p.fail(symbol)
	}
}

func (p *parser) or() Expr {
	one := p.and()
	if !p.take("||") {
		return one // without a slice, since nearly all are
	}
	parts := []Expr{one, p.and()}
	for p.take("||") {
		parts = append(parts, p.and())
	}
	return Or{parts}
}

func (p *parser) and() Expr {
	one := p.operand()
	if !p.take("&&") {
		return one
	}
	parts := []Expr{one, p.operand()}
	for p.take("&&") {
		parts = append(parts, p.operand())
	}
	return And{parts}
}

func (p *parser) operand() Expr {
	// Two negations in a row cancel out; "!(!x)" stays as it is, as in Calico.
	not := false
	for p.take("!") {
		not = !not
	}
	e := p.primary()
	if not {
		return Not{e}
	}
	return e
}

func (p *parser) primary() Expr {
	switch {
	case p.take("("):
		e := p.or()
		p.expect(")")
		return e
	case p.take("all("):
		p.expect(")")
		return All{}
	case p.take("global("):
		p.expect(")")
		return Global{}
	case p.take("has("):
		label := p.label()
		p.expect(")")
		return Has{label}
	}
	label := p.label()
	return p.comparison(label)
}

func (p *parser) comparison(label string) Expr {
	for _, op := range []Op{Equal, NotEqual} {
		if p.take(string(op)) {
			return Compare{label, op, p.str()}
		}
	}
	switch {
	case p.words("contains"):
		return Compare{label, Contains, p.str()}
	case p.words("starts", "with"):
		return Compare{label, StartsWith, p.str()}
	case p.words("ends", "with"):
		return Compare{label, EndsWith, p.str()}
	case p.words("not", "in"):
		return In{label, p.set(), true}
	case p.words("in"):
		return In{label, p.set(), false}
	}
	p.fail("an operator: ==, !=, in, not in, contains, starts with, ends with")
	return nil
}

// words passes over an operator of words, written with white space between them or
// together, if it stands here as a whole.
func (p *parser) words(words ...string) bool {
	if p.err != nil {
		return false
	}
	start := p.pos
	for _, w := range words {
		p.space()
		if !strings.HasPrefix(p.text[p.pos:], w) {
			p.pos = start
			return false
		}
		p.pos += len(w)
	}
	if p.pos < len(p.text) && isLabelByte(p.text[p.pos]) {
		p.pos = start
		return false
	}
	p.space()
	return true
}

// IsLabel reports whether name can stand as a label name in a selector.
func IsLabel(name string) bool {
	for i := range len(name) {
		if !isLabelByte(name[i]) {
			return false
		}
	}
	return name != "" && len(name) <= MaxLabel
}

func isLabelByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_./-", c) >= 0
}

func (p *parser) label() string {
	if p.err != nil {
		return ""
	}
	start := p.pos
	for p.pos < len(p.text) && isLabelByte(p.text[p.pos]) {
		p.pos++
	}
	if p.pos == start {
		p.fail("a label name, (, !, all(), global() or has(name)")
	}
	label := p.text[start:p.pos]
	if len(label) > MaxLabel {
		p.err = fmt.Errorf("selector: %w: the label name at offset %d has %d bytes, want at most %d", ErrSyntax, start, len(label), MaxLabel)
	}
	p.space()
	return label
}

// str reads a quoted string.
func (p *parser) str() string {
	if p.err != nil {
		return ""
	}
	if p.pos >= len(p.text) || p.text[p.pos] != '\'' && p.text[p.pos] != '"' {
		p.fail("a quoted string")
		return ""
	}
	mark := p.text[p.pos]
	s, _, closed := strings.Cut(p.text[p.pos+1:], string(mark))
	if !closed {
		p.err = fmt.Errorf("selector: %q: %w: the string that begins at offset %d has no closing %c", p.text, ErrSyntax, p.pos, mark)
		return ""
	}
	p.pos += len(s) + 2
	p.space()
	return s
}

// set reads a list of strings in braces; it may be empty and may end in a comma.
func (p *parser) set() []string {
	p.expect("{")
	values := []string{}
	for p.err == nil && !p.take("}") {
		values = append(values, p.str())
		if p.take(",") {
			continue
		}
		p.expect("}")
		break
	}
	slices.Sort(values)
	return slices.Compact(values)
}
