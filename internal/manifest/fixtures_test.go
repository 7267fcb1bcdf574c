package manifest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
)

// fixture is a document, and what Calico said of it.
type fixture struct {
	ID, Kind, About string
	Before          []string
	Input           string
	Verdict, Stage  string
}

func fixtures(t testing.TB) []fixture {
	t.Helper()
	data, err := os.ReadFile("../../test/fixtures/validation/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var all []fixture
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var one fixture
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
	if len(all) < 357 {
		t.Fatalf("%d cases, want all", len(all))
	}
	return all
}

// judge does what an apply does, short of storing.
func judge(o Options, input string, before []string) (wrong Problems, errs []error) {
	var stored []v3.Object
	for _, tier := range v3.BuiltinTiers() {
		stored = append(stored, tier)
	}
	for _, text := range before {
		docs, _ := ReadBytes(o, "before", []byte(text))
		for _, d := range docs {
			v3.Default(d.Object)
			stored = append(stored, d.Object)
		}
	}
	docs, err := Read(Options{Calico: o.Calico, Stdin: strings.NewReader(input)}, "-")
	if wrong = ProblemsOf(err); err != nil && len(wrong) == 0 {
		errs = append(errs, err)
	}
	wrong = Join(wrong, Validate(docs))
	for _, d := range docs {
		v3.Default(d.Object)
		hasTier := func(tier string) bool {
			return slices.ContainsFunc(stored, func(old v3.Object) bool { return v3.KindOf(old).Name == "Tier" && old.Meta().Name == tier })
		}
		wrong = append(append(wrong, d.Locate(v3.CheckWritable(d.Object))...), d.Locate(v3.CheckTier(d.Object, hasTier))...)
		for _, old := range stored {
			if v3.Describe(old) == v3.Describe(d.Object) {
				wrong = append(wrong, d.Locate(v3.ValidateUpdate(old, d.Object))...)
			}
		}
		stored = append(stored, d.Object)
	}
	return wrong, errs
}

// What Calico takes is taken, and what it refuses refused, with a place; but for two files that
// weft reads in its own voice, because their meaning is plain.
func TestCalicoAgreesOnValidity(t *testing.T) {
	t.Parallel()
	plain := []string{
		"file-004", // Kubernetes' List
		"file-014", // an empty document first
	}
	for _, c := range fixtures(t) {
		for _, calico := range []bool{true, false} {
			wrong, errs := judge(Options{Calico: calico}, c.Input, c.Before)
			want := c.Verdict == "accept" || !calico && slices.Contains(plain, c.ID)
			if got := len(wrong)+len(errs) == 0; got != want {
				t.Errorf("%s (%s), calico %v: accepted %v, want %v: %v %v", c.ID, c.About, calico, got, want, wrong, errs)
			}
			for _, p := range wrong {
				if p.Line < 1 || p.Column < 1 || p.Line > 1+strings.Count(c.Input, "\n") {
					t.Errorf("%s (%s): %v is at no place of the file", c.ID, c.About, p)
				}
			}
		}
	}
}

// bomb is a document that is 9^n long when its aliases are followed.
func bomb(n int) string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x]\n")
	for i := range n {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 8), i)
	}
	return b.String()
}

// Text that grows without bound when it is followed is refused, not followed.
func TestHostileText(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"alias bomb":           bomb(40),
		"bomb in an object":    tier + "a}\nspec:\n  " + strings.ReplaceAll(bomb(40), "\n", "\n  "),
		"bomb with duplicates": "x: 1\nx: 2\n" + bomb(40),
		"merged bomb":          "a: &a {x: 1}\n" + strings.Repeat("<<: *a\n", 2000),
		"alias of itself":      "a: &a [*a]\n",
		"deep list":            strings.Repeat("[", 200_000),
		"deep JSON":            strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000),
		"deep indentation":     deep(3000),
		"long key":             head + strings.Repeat("K", 1<<20) + "\n" + strings.Repeat("f", 1<<20) + ": 1\n",
		"many unknown fields":  head + "Tier\n" + numbered(20_000),
		"many duplicates":      head + "Tier\n" + strings.Repeat("a: 1\n", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			docs, wrong := ReadBytes(Options{}, "f", []byte(text))
			if len(docs) > 0 || len(wrong) == 0 || len(wrong) > 200 {
				t.Errorf("%d objects, %d problems, want some problems and no object", len(docs), len(wrong))
			}
			if n := len(wrong.Error()); n > 5<<20 {
				t.Errorf("the text of the problems has %d bytes", n)
			}
		})
	}
}

func deep(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "f%d: 1\n", i)
	}
	return b.String()
}

// No bytes panic, every problem has a place inside the file, and what is read has the form that
// it is said to have been written in.
func FuzzRead(f *testing.F) {
	for i, c := range fixtures(f) {
		if i%8 == 0 {
			f.Add([]byte(c.Input))
		}
	}
	f.Add([]byte(bomb(3)))
	f.Add([]byte("--- [{\"kind\": \"TierList\"}]\n...\n--- \u00e9: [\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines := 2 // YAML has five ends of line
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} {
			lines += bytes.Count(data, []byte(end))
		}
		for _, calico := range []bool{false, true} {
			docs, wrong := ReadBytes(Options{Calico: calico}, "f", data)
			for _, p := range Join(wrong, Validate(docs)) {
				if p.Line < 1 || p.Column < 1 || p.Line > lines {
					t.Fatalf("%q: %v has no place", data, p)
				}
			}
			for _, d := range docs {
				again, err := v3.DecodeJSON(d.Raw)
				if err != nil || v3.KindOf(again).Name != v3.KindOf(d.Object).Name {
					t.Fatalf("%q: raw %s: %v", data, d.Raw, err)
				}
			}
		}
	})
}

// world is n documents of one file, as separate documents or as a list.
func world(n int, form string) []byte {
	var b bytes.Buffer
	switch form {
	case "yaml":
		for i := range n {
			fmt.Fprintf(&b, "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata:\n  name: p-%d\n  namespace: prod\n  labels: {app: web}\nspec:\n  selector: app == 'web'\n  ingress:\n  - action: Allow\n    protocol: TCP\n    source:\n      nets: [10.0.0.0/8, 192.0.2.0/24]\n    destination:\n      ports: [80, 443]\n", i)
		}
	case "json list":
		b.WriteString(`{"apiVersion":"v1","kind":"List","items":[`)
		for i := range n {
			if i > 0 {
				b.WriteString(",\n")
			}
			fmt.Fprintf(&b, `{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{"name":"p-%d","namespace":"prod","labels":{"app":"web"}},"spec":{"selector":"app == 'web'","ingress":[{"action":"Allow","protocol":"TCP","source":{"nets":["10.0.0.0/8","192.0.2.0/24"]},"destination":{"ports":[80,443]}}]}}`, i)
		}
		b.WriteString("]}\n")
	case "yaml list":
		b.WriteString("apiVersion: projectcalico.org/v3\nkind: NetworkPolicyList\nitems:\n")
		for i := range n {
			fmt.Fprintf(&b, "- apiVersion: projectcalico.org/v3\n  kind: NetworkPolicy\n  metadata:\n    name: p-%d\n    namespace: prod\n    labels: {app: web}\n  spec:\n    selector: app == 'web'\n    ingress:\n    - action: Allow\n      protocol: TCP\n      source:\n        nets: [10.0.0.0/8, 192.0.2.0/24]\n      destination:\n        ports: [80, 443]\n", i)
		}
	}
	return b.Bytes()
}

// 20,000 documents, read and checked.
func BenchmarkRead(b *testing.B) {
	for _, form := range []string{"yaml", "yaml list", "json list"} {
		b.Run(form, func(b *testing.B) {
			const n = 20_000
			data := world(n, form)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				docs, wrong := ReadBytes(Options{}, "f", data)
				if wrong = Join(wrong, Validate(docs)); len(docs) != n || len(wrong) > 0 {
					b.Fatalf("%d documents, %d problems", len(docs), len(wrong))
				}
			}
		})
	}
}
