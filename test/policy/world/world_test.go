package world

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Every world that is drawn is one that users could write, and the same seed draws the
// same.
func TestRandom(t *testing.T) {
	t.Parallel()
	kinds := map[string]int{}
	for seed := range uint64(200) {
		a, err := Random(rand.New(rand.NewPCG(seed, 0)))
		if err != nil {
			t.Fatal(seed, err)
		}
		b, _ := Random(rand.New(rand.NewPCG(seed, 0)))
		if !slices.Equal(a.Docs, b.Docs) {
			t.Fatalf("seed %d gives two worlds", seed)
		}
		for k := range a.Values {
			kinds[string(k.Kind)]++
		}
		p, q := a.Packets(rand.New(rand.NewPCG(seed, 1)), 20), b.Packets(rand.New(rand.NewPCG(seed, 1)), 20)
		if !slices.Equal(p, q) {
			t.Fatalf("seed %d gives two lists of packets", seed)
		}
	}
	if len(kinds) < 15 {
		t.Errorf("only these kinds were drawn: %v", kinds)
	}
}
