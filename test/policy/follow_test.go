package policy_test

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/testenv"
	"github.com/weft-net/weft/test/policy/world"
)

const (
	lives = 16 // worlds that are edited, one after the other
	edits = 5  // of each
)

// What an agent does: the kernel follows the incremental graph from one state of the
// cluster to the next, and each time does what the explanation says.
func TestKernelFollowsTheGraph(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	g := policy.NewGraph(world.Node)
	var folded plan.Filter
	for n := range uint64(lives) {
		r := rand.New(rand.NewPCG(*seed+n, 2))
		w, err := world.Random(r)
		if err != nil {
			t.Fatal(err)
		}
		k.step(t, n, 0, w, &folded, g.SetLinks(w.Links), g.Step(w.Snapshot()))
		for edit := 1; edit <= edits; edit++ {
			k.follows(t, w, w.Packets(r, 16))
			other, err := world.Random(r)
			if err != nil {
				t.Fatal(err)
			}
			now, batch, err := w.Edit(r, other)
			if err != nil {
				t.Fatal(err)
			}
			w = now
			k.step(t, n, edit, w, &folded, g.Step(batch))
		}
		k.follows(t, w, w.Packets(r, 16))
	}
}

// step has the kernel follow changes after which the world is w.
func (k *kernel) step(t *testing.T, n uint64, edit int, w world.World, folded *plan.Filter, deltas ...plan.FilterDelta) {
	t.Helper()
	for _, d := range deltas {
		*folded = folded.Apply(d)
		k.nft.Apply(d)
	}
	if d := plan.DiffFilters(compile(w).Filter, *folded); d != "" {
		t.Fatalf("-seed %d, edit %d: from scratch and as followed (-want +got):\n%s\n%v", *seed+n, edit, d, w)
	}
	if err := k.settle(); err != nil {
		t.Fatalf("-seed %d, edit %d: %v\n%v", *seed+n, edit, err, w)
	}
}

// settle waits for the kernel, and forgets all connections.
func (k *kernel) settle() error {
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	if err := k.nft.WaitApplied(ctx); err != nil {
		return err
	}
	return k.forget()
}

// follows compares what the kernel does with what is explained.
func (k *kernel) follows(t *testing.T, w world.World, ps []world.Packet) {
	t.Helper()
	got, want, err := k.compare(w, ps)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range ps {
		if got[i] != want[i] {
			t.Fatalf("%v: explained: allowed %v; kernel: %v\n%s\n%v", p, want[i], got[i], differ(w, compile(w), p), w)
		}
	}
}
