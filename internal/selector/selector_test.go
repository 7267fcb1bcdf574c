package selector

import (
	"bufio"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const fixtures = "../../test/fixtures/selectors"

type fixture struct {
	Selector  string
	Valid     bool
	Canonical string
	UniqueID  string `json:"unique_id"`
	Matches   []bool
	Changes   bool `json:"canonical_does_not_reparse_to_itself"`
}

func readFixtures(t testing.TB) (cases []fixture, labels []map[string]string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(fixtures, "labels.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &labels); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(fixtures, "cases.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var c fixture
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if lines.Err() != nil || len(cases) < 200 || len(labels) != 6 {
		t.Fatalf("read %d cases, %d label maps: %v", len(cases), len(labels), lines.Err())
	}
	return cases, labels
}

// What Calico's own parser makes of the same strings.
func TestCalicoAgrees(t *testing.T) {
	t.Parallel()
	cases, labels := readFixtures(t)
	for _, c := range cases {
		s, err := Parse(c.Selector)
		if (err == nil) != c.Valid {
			t.Errorf("%q: error %v, want valid %v", c.Selector, err, c.Valid)
			continue
		}
		if err != nil {
			if !errors.Is(err, ErrSyntax) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: error %q, want one line that wraps ErrSyntax", c.Selector, err)
			}
			continue
		}
		if s.String() != c.Canonical {
			t.Errorf("%q: prints %s, want %s", c.Selector, s, c.Canonical)
		}
		if s.ID() != c.UniqueID {
			t.Errorf("%q: ID %s, want %s", c.Selector, s.ID(), c.UniqueID)
		}
		for i, l := range labels {
			if got := s.Matches(l); got != c.Matches[i] {
				t.Errorf("%q: matches %v: %v, want %v", c.Selector, l, got, c.Matches[i])
			}
		}
		again, err := Parse(s.String())
		if err != nil || (again.String() == s.String()) == c.Changes {
			t.Errorf("%q: %s parsed again is %s, %v", c.Selector, s, again, err)
		}
	}
}

func TestErrorsSayWhereAndWhat(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`a = 'b'`:                       `unexpected '=' at offset 2, want an operator: ==, !=, in, not in, contains, starts with, ends with`,
		`a == `:                         `unexpected end, want a quoted string`,
		`a == "b`:                       `the string that begins at offset 5 has no closing "`,
		`has(a`:                         `unexpected end, want )`,
		`a == 'b' c`:                    `unexpected 'c' at offset 9, want &&, || or the end`,
		`é`:                             `unexpected 'é' at offset 0, want a label name, (, !, all(), global() or has(name)`,
		`a in {'b' 'c'}`:                `unexpected '\'' at offset 10, want }`,
		strings.Repeat("x", MaxLen+1):   `1025 bytes, want at most 1024`,
		strings.Repeat("x", MaxLabel+1): `the label name at offset 0 has 513 bytes, want at most 512`,
	} {
		if _, err := Parse(text); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%.40q: error %v, want …%s", text, err, want)
		}
	}
}

func TestLongestTextIsValid(t *testing.T) {
	t.Parallel()
	if _, err := Parse("a == '" + strings.Repeat("x", MaxLen-7) + "'"); err != nil {
		t.Error(err)
	}
}

func TestZeroSelectsEverything(t *testing.T) {
	t.Parallel()
	var zero Selector
	all, err := Parse("all()")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Selector{&zero, nil} {
		if s.String() != all.String() || s.ID() != all.ID() || s.Root() != all.Root() || !s.Matches(nil) {
			t.Errorf("%#v is %s, want all()", s, s)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string][]string{
		"":                             nil,
		"all() || global()":            nil,
		"has(b) && !(a == 'x')":        {"a", "b"},
		"b in {'x'} || a contains 'x'": {"a", "b"},
		"a != 'x' && a not in {'y'}":   {"a"},
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, s.Names()); d != "" {
			t.Errorf("%q (-want +got):\n%s", text, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	cases, labels := readFixtures(f)
	for _, c := range cases {
		f.Add(c.Selector)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(s.String())
		if err != nil && len(s.String()) <= MaxLen {
			t.Fatalf("%q prints %q, which does not parse: %v", text, s, err)
		}
		if err != nil {
			return // the canonical text may be longer than what was written
		}
		names := s.Names()
		for _, l := range labels {
			if s.Matches(l) != again.Matches(l) {
				t.Fatalf("%q and its canonical text %q differ on %v", text, s, l)
			}
			mentioned := maps.Clone(l)
			maps.DeleteFunc(mentioned, func(name, _ string) bool { return !slices.Contains(names, name) })
			if s.Matches(l) != s.Matches(mentioned) {
				t.Fatalf("%q: a label that Names leaves out changes the match of %v", text, l)
			}
		}
	})
}

func BenchmarkMatches(b *testing.B) {
	s, err := Parse(`role == 'db' && env in {'prod','stage'} && !has(quarantine)`)
	if err != nil {
		b.Fatal(err)
	}
	labels := map[string]string{"role": "db", "env": "stage", "app": "x"}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Matches(labels) {
			b.Fatal("no match")
		}
	}
}
