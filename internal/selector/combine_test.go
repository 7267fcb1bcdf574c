package selector

import (
	"strings"
	"testing"
)

func mustParse(t testing.TB, text string) *Selector {
	t.Helper()
	s, err := ParseLimit(text, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAllOf(t *testing.T) {
	t.Parallel()
	for want, texts := range map[string][]string{
		"all()":                            {"", "all()", "all() && all()"},
		"has(a)":                           {"has(a)", "all()", "has(a)"},
		"(has(a) && has(b))":               {"has(a)", "has(b) && has(a)"},
		"(has(a) && has(b) && has(c))":     {"has(a) && (has(b) && has(c))"},
		"((has(a) || has(b)) && has(c))":   {"has(a) || has(b)", "has(c)"},
		"(!(has(a) && has(b)) && has(c))":  {"!(has(a) && has(b))", "has(c)"},
		`(a == "b" && global())`:           {"a == 'b'", "global()"},
		`(a in {"x", "y"} && a not in {})`: {"a in {'y', 'x'}", "a not in {}", `a in {"x", "y", "x"}`},
	} {
		var parts []*Selector
		for _, text := range texts {
			parts = append(parts, mustParse(t, text))
		}
		got := AllOf(parts...)
		if got.String() != want {
			t.Errorf("%q: got %s, want %s", texts, got, want)
		}
		if again := AllOf(got, nil); again.String() != want || Of(got.Root()).String() != want {
			t.Errorf("%q: all of %s is %s", texts, got, again)
		}
	}
}

// TestAllOfIsLong: what is made of selectors has no limit of length.
func TestAllOfIsLong(t *testing.T) {
	t.Parallel()
	var parts []*Selector
	for _, c := range "abcdefgh" {
		parts = append(parts, mustParse(t, "x == '"+strings.Repeat(string(c), 900)+"'"))
	}
	s := AllOf(parts...)
	if _, err := Parse(s.String()); len(s.String()) < 8*900 || err == nil {
		t.Errorf("%d bytes, %v", len(s.String()), err)
	}
	if again := mustParse(t, s.String()); again.String() != s.String() {
		t.Errorf("parsed again it is %s", again)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"all()":                    "has(ns)",
		"global()":                 "!has(ns)",
		"!(all() || has(a))":       "!(has(ns) || has(a))",
		"a == 'all()' && !all()":   `(a == "all()" && !has(ns))`,
		"a starts with 'global()'": `a starts with "global()"`,
	} {
		s := mustParse(t, text)
		got := s.Replace(func(leaf Expr) Expr {
			switch leaf.(type) {
			case All:
				return Has{"ns"}
			case Global:
				return Not{Has{"ns"}}
			}
			return leaf
		})
		if got.String() != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestOneOf(t *testing.T) {
	t.Parallel()
	if got := Of(OneOf("a", "c", "b", "c")).String(); got != `a in {"b", "c"}` {
		t.Error(got)
	}
}

func TestIsLabel(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "a.b/c-d_E9": true, "": false, "a b": false, "a)": false, "é": false, strings.Repeat("a", MaxLabel+1): false,
	} {
		if IsLabel(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
}

// FuzzCombine holds what is made of selectors against what they say one by one.
func FuzzCombine(f *testing.F) {
	cases, labels := readFixtures(f)
	for i, c := range cases {
		f.Add(c.Selector, cases[(i*7+3)%len(cases)].Selector)
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		a, errA := Parse(one)
		b, errB := Parse(other)
		if errA != nil || errB != nil {
			return
		}
		both := AllOf(a, b)
		again, err := ParseLimit(both.String(), 1<<20)
		if err != nil {
			t.Fatalf("%q and %q print %q, which does not parse: %v", one, other, both, err)
		}
		renamed := a.Rename(func(name string) string { return "p." + name })
		for _, l := range labels {
			want := a.Matches(l) && b.Matches(l)
			if both.Matches(l) != want || again.Matches(l) != want {
				t.Fatalf("%q and %q make %q, which matches %v: %v, and parsed again %v", one, other, both, l, both.Matches(l), again.Matches(l))
			}
			prefixed := map[string]string{}
			for k, v := range l {
				prefixed["p."+k] = v
			}
			if renamed.Matches(prefixed) != a.Matches(l) {
				t.Fatalf("%q renamed is %q, which does not match as it does", one, renamed)
			}
		}
		if a.Replace(func(e Expr) Expr { return e }).String() != a.String() {
			t.Fatalf("%q: replacing nothing makes %q", one, a)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	for name, text := range map[string]string{
		"equal": `app == "web"`,
		"usual": `app == 'web' && has(x-1) && env in {'prod','stage'}`,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAllOf(b *testing.B) {
	own := mustParse(b, `app == "web" && has(x-1)`)
	namespace := Of(Compare{"projectcalico.org/namespace", Equal, "ns-1"})
	b.ReportAllocs()
	for b.Loop() {
		if AllOf(own, namespace) == nil {
			b.Fatal("nil")
		}
	}
}
