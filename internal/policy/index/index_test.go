package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/weft-net/weft/internal/selector"
)

// reference is the obvious way: every selector against every item's labels.
type reference struct {
	labels  map[uint32]map[string]string
	parents map[uint32][]string
	given   map[string]map[string]string
	sels    map[uint32]*selector.Selector
	users   map[uint32]int
}

func (r *reference) matches(n uint32, s *selector.Selector) bool {
	all := map[string]string{}
	for _, p := range slices.Backward(r.parents[n]) {
		maps.Copy(all, r.given[p])
	}
	maps.Copy(all, r.labels[n])
	return s.Matches(all)
}

type match struct{ item, sel uint32 }

// check compares the folded events, and the answers of the index, with the reference.
func (r *reference) check(x *Index, got map[match]bool) error {
	want := map[match]bool{}
	for n := range r.labels {
		var list []uint32
		for id, s := range r.sels {
			if r.matches(n, s) {
				want[match{n, id}] = true
				list = append(list, id)
			}
		}
		slices.Sort(list)
		if !slices.Equal(list, x.Matches(n)) {
			return fmt.Errorf("Matches(%d) is %v, want %v", n, x.Matches(n), list)
		}
	}
	if !maps.Equal(want, got) {
		return fmt.Errorf("events add up to %v, want %v", got, want)
	}
	for p := range r.given {
		if !maps.Equal(r.given[p], x.ParentLabels(p)) {
			return fmt.Errorf("parent %s has %v, want %v", p, x.ParentLabels(p), r.given[p])
		}
	}
	for id := range r.sels {
		n := 0
		for it := range x.Items(id) {
			if n++; !want[match{it, id}] {
				return fmt.Errorf("Items(%d) has %d", id, it)
			}
		}
		for m := range want {
			if m.sel == id {
				n--
			}
		}
		if n != 0 {
			return fmt.Errorf("Items(%d) is %d items off", id, n)
		}
	}
	return nil
}

var values = []string{"", "a", "b", "ab"}

func randomLabels(next func(int) int) map[string]string {
	m := map[string]string{}
	for range next(4) {
		m[fmt.Sprintf("l%d", next(5))] = values[next(len(values))]
	}
	return m
}

func randomExpr(next func(int) int, depth int) string {
	label, value := fmt.Sprintf("l%d", next(6)), values[next(len(values))]
	if depth > 0 && next(2) == 0 {
		a, b := randomExpr(next, depth-1), randomExpr(next, depth-1)
		return []string{"(" + a + " && " + b + ")", "(" + a + " || " + b + ")", "!(" + a + ")"}[next(3)]
	}
	switch next(10) {
	case 0:
		return "has(" + label + ")"
	case 1:
		return label + " != '" + value + "'"
	case 2:
		return label + " in {'" + value + "','a'}"
	case 3:
		return label + " not in {'" + value + "','b'}"
	case 4:
		return label + " contains '" + value + "'"
	case 5:
		return label + " starts with '" + value + "'"
	case 6:
		return label + " ends with '" + value + "'"
	case 7:
		return []string{"all()", "!all()", label + " in {}", "!has(" + label + ")"}[next(4)]
	}
	return label + " == '" + value + "'"
}

func script(next func(int) int, steps int) error {
	r := reference{
		map[uint32]map[string]string{},
		map[uint32][]string{},
		map[string]map[string]string{},
		map[uint32]*selector.Selector{},
		map[uint32]int{},
	}
	got := map[match]bool{}
	var wrong error
	x := New(func(n, s uint32, yes bool) {
		m := match{n, s}
		if got[m] == yes {
			wrong = fmt.Errorf("event %v %v tells nothing new", m, yes)
		}
		if delete(got, m); yes {
			got[m] = true
		}
	})
	for i := range steps {
		n := uint32(next(12))
		parent := fmt.Sprintf("p%d", next(3))
		var what string
		switch next(8) {
		case 0, 1, 2:
			r.labels[n], r.parents[n] = randomLabels(next), nil
			for range next(3) {
				r.parents[n] = append(r.parents[n], fmt.Sprintf("p%d", next(3)))
			}
			what = fmt.Sprintf("put %d %v %v", n, r.labels[n], r.parents[n])
			x.Put(n, r.labels[n], r.parents[n])
		case 3:
			delete(r.labels, n)
			what = fmt.Sprintf("delete %d", n)
			x.Delete(n)
		case 4:
			r.given[parent] = randomLabels(next)
			what = fmt.Sprintf("parent %s %v", parent, r.given[parent])
			x.PutParent(parent, r.given[parent])
		case 5:
			delete(r.given, parent)
			what = "delete parent " + parent
			x.DeleteParent(parent)
		case 6:
			s, err := selector.Parse(randomExpr(next, 3))
			if err != nil {
				return err
			}
			what = "add " + s.String()
			id := x.Add(s)
			r.sels[id], r.users[id] = s, r.users[id]+1
		case 7:
			ids := slices.Sorted(maps.Keys(r.sels))
			if len(ids) == 0 {
				continue
			}
			id := ids[next(len(ids))]
			what = "remove " + r.sels[id].String()
			if r.users[id]--; r.users[id] == 0 {
				delete(r.sels, id)
			}
			x.Remove(id)
		}
		if wrong == nil {
			wrong = r.check(x, got)
		}
		if wrong != nil {
			return fmt.Errorf("step %d, %s: %w", i, what, wrong)
		}
	}
	return empties(x, &r)
}

// empties takes everything out and sees that nothing stays behind.
func empties(x *Index, r *reference) error {
	for n := range r.labels {
		x.Delete(n)
	}
	for id, users := range r.users {
		for range users {
			x.Remove(id)
		}
	}
	for p := range r.given {
		x.DeleteParent(p)
	}
	if len(x.labelOf)+len(x.pairOf)+len(x.parentOf)+len(x.shapeOf)+len(x.selOf)+len(x.always) != 0 {
		return fmt.Errorf("left behind: labels %v, pairs %v, parents %v, %d shapes, selectors %v",
			x.labelOf, x.pairOf, x.parentOf, len(x.shapeOf), x.selOf)
	}
	for i, t := range x.terms {
		if t.users != 0 || t.count != 0 {
			return fmt.Errorf("term %d is left behind: %+v", i, t)
		}
	}
	return nil
}

func TestAgreesWithReference(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		if err := script(rnd.IntN, 120); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzAgreesWithReference(f *testing.F) {
	for seed := range byte(4) {
		data := make([]byte, 400)
		for i := range data {
			data[i] = byte(i*i) * (seed + 3)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		next := func(n int) int {
			if len(data) == 0 {
				return 0
			}
			v := int(data[0]) % n
			data = data[1:]
			return v
		}
		if err := script(next, min(len(data)/4, 200)); err != nil {
			t.Fatal(err)
		}
	})
}

func parse(t testing.TB, text string) *selector.Selector {
	t.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A label that becomes common stops being what selectors are filed under, in
// whatever order items and selectors come.
func TestFilesUnderTheRarest(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"selectors", "items"} {
		x := New(func(uint32, uint32, bool) {})
		add := func() {
			for i := range 100 {
				x.Add(parse(t, fmt.Sprintf(`app == "web" && has(x-%d)`, i)))
			}
		}
		if first == "selectors" {
			add()
		}
		for i := range uint32(500) {
			x.Put(i, map[string]string{"app": "web", "n": fmt.Sprint(i)}, nil)
		}
		if first == "items" {
			add()
		}
		if n := len(x.moreOf(x.pair("app", "web")).filed); n > 0 {
			t.Errorf("%s first: %d selectors are filed under app == web, which all items have", first, n)
		}
	}
}

func TestMarksSurviveTheEndOfTheirNumbers(t *testing.T) {
	t.Parallel()
	n := 0
	x := New(func(_, _ uint32, yes bool) {
		if n--; yes {
			n += 2
		}
	})
	x.Add(parse(t, "has(a)"))
	x.Put(0, map[string]string{"b": "x"}, nil)
	x.scratch.round = 1<<32 - 3
	for range 6 {
		x.Put(1, map[string]string{"a": "x"}, nil)
		if n != 1 {
			t.Fatalf("%d matches, want 1", n)
		}
		x.Delete(1)
	}
}
