package ctl

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/store/mem"
)

// TestIPAMCheckFindsFaults: of a random history nothing is found; of faults that are put
// into it exactly these are.
func TestIPAMCheckFindsFaults(t *testing.T) {
	t.Parallel()
	all := faults()
	names := slices.Sorted(maps.Keys(all))
	for seed := range uint64(24) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			w := newIPAMWorld(t, mem.New(), "a", "b", "c")
			w.tunnel("a", false)
			for i := range 60 + rnd.IntN(60) {
				if len(w.pods) > 8 && rnd.IntN(3) == 0 {
					w.remove(w.pods[rnd.IntN(len(w.pods))])
					continue
				}
				w.add([]string{"a", "b", "c"}[rnd.IntN(3)], fmt.Sprintf("p%d", i))
			}
			if got := w.found(); len(got) > 0 {
				t.Fatalf("healthy: found %q", got)
			}
			want := []string{}
			done := map[string]bool{}
			for range 1 + rnd.IntN(4) {
				name := names[rnd.IntN(len(names))]
				if done[name] { // some would hide their like
					continue
				}
				done[name] = true
				want = append(want, all[name](w, rnd)...)
			}
			slices.Sort(want)
			if d := cmp.Diff(want, append([]string{}, w.found()...)); d != "" {
				t.Errorf("faults %v (-want +found):\n%s", slices.Sorted(maps.Keys(done)), d)
			}
		})
	}
}

// Each fault by itself is found.
func TestIPAMCheckFindsEach(t *testing.T) {
	t.Parallel()
	for name, spoil := range faults() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newIPAMWorld(t, mem.New(), "a", "b", "c")
			for i := range 12 {
				w.add([]string{"a", "b", "c"}[i%3], fmt.Sprintf("p%d", i))
			}
			want := spoil(w, rand.New(rand.NewPCG(7, 7)))
			if len(want) == 0 {
				t.Fatal("the fault did nothing")
			}
			slices.Sort(want)
			if d := cmp.Diff(want, w.found()); d != "" {
				t.Errorf("(-want +found):\n%s", d)
			}
		})
	}
}
