// Package selector is the language in which policies, pools and peers choose
// objects by their labels: parse, canonical text, match.
//
//	selector   = "" | or                       the empty selector selects everything
//	or         = and { "||" and }
//	and        = operand { "&&" operand }
//	operand    = { "!" } ( "(" or ")" | "all()" | "global()" | "has(" label ")" | comparison )
//	comparison = label ( "==" | "!=" | "contains" | "starts with" | "ends with" ) string
//	           | label ( "in" | "not in" ) "{" [ string { "," string } [ "," ] ] "}"
//	label      = 1 or more of A-Z a-z 0-9 _ . / -
//	string     = "'" any but ' "'" | '"' any but " '"'
//
// White space is spaces and tabs. The words of an operator may be written together
// ("notin"); a call's name and its parenthesis must be ("all ()" is an error). Every
// word may also be a label name. There are no escapes. A text that users write has at
// most 1024 bytes; what is made of several selectors ([AllOf]), or of a selector about
// something else ([Selector.Rename], [Selector.Replace]), has no limit.
//
// Invariant: [ParseLimit] of s.String() selects what s selects. The canonical text is
// the one Calico prints, so that names made from it ([Selector.ID]) agree.
//
// The package decides about labels only. Which objects there are, what labels they
// inherit and where global() is allowed is for its users; they can walk the parse
// tree ([Selector.Root]) and index it by the names it mentions ([Selector.Names]).
package selector

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"slices"
)

// Limits of a selector, in bytes.
const (
	MaxLen   = 1024 // the whole text
	MaxLabel = 512  // one label name
)

// Selector is a parsed selector. It is immutable and may be used by several
// goroutines. The zero Selector and the nil pointer select everything. Selectors
// are compared by their text: a.String() == b.String().
type Selector struct {
	root Expr   // nil: everything
	text string // canonical; empty when root is nil
}

// String returns the canonical text; that of the zero Selector is all().
func (s *Selector) String() string {
	if s == nil || s.root == nil {
		return "all()"
	}
	return s.text
}

// Matches reports whether s selects an object with these labels.
func (s *Selector) Matches(labels map[string]string) bool {
	return s.MatchesFunc(func(name string) (string, bool) {
		value, ok := labels[name]
		return value, ok
	})
}

// MatchesFunc is Matches for labels that are not one map, such as inherited ones:
// get returns a label's value and whether the object has it.
func (s *Selector) MatchesFunc(get func(name string) (value string, ok bool)) bool {
	return s == nil || s.root == nil || s.root.match(get)
}

// Root returns the parse tree; for the zero Selector that is [All].
func (s *Selector) Root() Expr {
	if s == nil || s.root == nil {
		return All{}
	}
	return s.root
}

// Names returns the label names that s mentions, sorted, each once. A change of any
// other label changes no match.
func (s *Selector) Names() []string {
	seen := map[string]bool{}
	walk(s.Root(), func(e Expr) {
		switch e := e.(type) {
		case Has:
			seen[e.Label] = true
		case Compare:
			seen[e.Label] = true
		case In:
			seen[e.Label] = true
		}
	})
	return slices.Sorted(maps.Keys(seen))
}

// Walk calls visit for every expression of s, parents before their parts.
func (s *Selector) Walk(visit func(Expr)) { walk(s.Root(), visit) }

// ID returns the name that Calico derives from the canonical text: "s:" and 38
// characters of URL-safe base64. Selectors with equal text have equal IDs.
func (s *Selector) ID() string {
	sum := sha256.Sum224([]byte("s:" + s.String()))
	return "s:" + base64.RawURLEncoding.EncodeToString(sum[:])
}
