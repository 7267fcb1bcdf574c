package forward

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// rulesOf reads a chain: "drop", "accept", "return", "jump X", "goto X", "some" for a
// rule with a condition, "ours in", "ours out". A rule's place is its number, from 1.
func rulesOf(t *testing.T, text string) (rules []rule) {
	t.Helper()
	for i, word := range strings.Split(text, ", ") {
		if word == "" {
			continue
		}
		r := rule{at: uint64(i + 1)}
		verb, target, _ := strings.Cut(word, " ")
		switch verb {
		case "drop":
			r.action = drops
		case "accept":
			r.action = accepts
		case "return":
			r.action = returns
		case "jump", "goto":
			r.target = target
			r.action = map[string]action{"jump": jumps, "goto": goesTo}[verb]
		case "ours":
			r.ours, r.gate = true, gate{"cali", target == "out"}
		case "some":
		default:
			t.Fatalf("rule %q", word)
		}
		rules = append(rules, r)
	}
	return rules
}

func (e edit) String() string {
	var out []string
	for _, at := range e.remove {
		out = append(out, fmt.Sprint("-", at))
	}
	if len(e.insert) > 0 {
		out = append(out, fmt.Sprintf("+%d", len(e.insert)))
	}
	switch {
	case len(e.insert) == 0:
	case e.first:
		out = append(out, "first")
	case e.before > 0:
		out = append(out, fmt.Sprint("before ", e.before))
	default:
		out = append(out, "last")
	}
	if e.move {
		out = append(out, "(move)")
	}
	return strings.Join(out, " ")
}

func TestEditFor(t *testing.T) {
	t.Parallel()
	others := map[string]string{
		"drops": "some, drop", "accepts": "some, accept", "falls": "some", "returns": "return, drop",
		"deep": "jump drops", "loop": "jump loop",
	}
	for name, tt := range map[string]struct {
		rules string
		drops bool // by policy
		want  string
		end   string // with atEnd
	}{
		"empty, drops":         {"", true, "+2 first", "+2 last"},
		"empty, accepts":       {"", false, "", ""},
		"last drops":           {"some, drop", false, "+2 first", "+2 before 2"},
		"behind the drop":      {"some, drop, some", true, "+2 first", "+2 before 2"},
		"last accepts":         {"some, accept", true, "", ""},
		"returns":              {"return, drop", false, "", ""},
		"returns, drops":       {"return, accept", true, "+2 first", "+2 before 1"},
		"jump that drops":      {"some, jump drops, some", false, "+2 first", "+2 before 2"},
		"jump that accepts":    {"jump accepts", true, "", ""},
		"jump that falls":      {"jump falls, drop", false, "+2 first", "+2 before 2"},
		"jump that returns":    {"jump returns, accept", true, "", ""},
		"jump to a jump":       {"jump deep", false, "+2 first", "+2 before 1"},
		"goto that drops":      {"goto drops, accept", false, "+2 first", "+2 before 1"},
		"goto that falls":      {"goto falls, accept", true, "+2 first", "+2 before 1"},
		"jump to nowhere":      {"jump gone, some", true, "+2 first", "+2 last"},
		"loop":                 {"jump loop", false, "", ""},
		"right":                {"ours in, ours out, some", true, "", ""},
		"right, other order":   {"ours out, ours in, drop", false, "", ""},
		"only ours":            {"ours in, ours out", true, "", ""},
		"one is missing":       {"ours in, some", true, "-1 +2 first", "-1 +2 last"},
		"one twice":            {"ours in, ours in, some", true, "-1 -2 +2 first", "-1 -2 +2 last"},
		"one too many":         {"ours in, ours out, ours in", true, "-1 -2 -3 +2 first", "-1 -2 -3 +2 last"},
		"drops no longer":      {"ours in, ours out, some", false, "-1 -2", "-1 -2"},
		"another is first":     {"some, ours in, ours out", true, "-2 -3 +2 first (move)", ""},
		"behind what drops":    {"drop, ours in, ours out", false, "-2 -3 +2 first (move)", "-2 -3 +2 before 1 (move)"},
		"between":              {"ours in, some, ours out, drop", false, "-1 -3 +2 first (move)", ""},
		"ours are no decision": {"ours in, ours out, drop", false, "", ""},
	} {
		for _, atEnd := range []bool{false, true} {
			chain := func(name string) []rule { return rulesOf(t, others[name]) }
			rules := rulesOf(t, tt.rules)
			e := editFor(rules, tt.drops, chain, gatesFor([]string{"cali"}), atEnd, false)
			want := tt.want
			if atEnd {
				want = tt.end
			}
			if got := e.String(); got != want {
				t.Errorf("%s, at the end %t: got %q, want %q", name, atEnd, got, want)
			}
			after := made(rules, e)
			if again := editFor(after, tt.drops, chain, gatesFor([]string{"cali"}), atEnd, false); !again.empty() {
				t.Errorf("%s, at the end %t: once more it is %q", name, atEnd, again)
			}
			if left := editFor(after, tt.drops, chain, nil, atEnd, false); len(left.insert) > 0 || slices.ContainsFunc(made(after, left), func(r rule) bool { return r.ours }) {
				t.Errorf("%s, at the end %t: without prefixes ours do not go: %v", name, atEnd, left)
			}
		}
	}
}

// made is rules after an edit. New ones get places from 100 on.
func made(rules []rule, e edit) (out []rule) {
	insert := func() {
		for i, g := range e.insert {
			out = append(out, rule{at: uint64(100 + i), ours: true, gate: g})
		}
	}
	if e.first {
		insert()
	}
	for _, r := range rules {
		if r.at == e.before {
			insert()
		}
		if !slices.Contains(e.remove, r.at) {
			out = append(out, r)
		}
	}
	if !e.first && e.before == 0 {
		insert()
	}
	return out
}
