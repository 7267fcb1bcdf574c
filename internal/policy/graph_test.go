package policy_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/test/policy/world"
)

// replay is a graph beside the world that it was told.
type replay struct {
	graph *policy.Graph
	world model.World
	poor  map[model.Key]bool // of the world: known by Invalid.Strict only
	links []policy.Link
	got   plan.Filter
	// before is the world that a snapshot in progress replaces; else nil.
	before model.World
}

func newReplay() *replay {
	r := &replay{graph: policy.NewGraph(world.Node), world: model.World{}, poor: map[model.Key]bool{}}
	r.got = r.got.Apply(r.graph.Step(model.Batch{}))
	return r
}

// step gives the graph a batch and compares what it made of it.
func (r *replay) step(b model.Batch) error {
	if b.Reset {
		r.before = r.world // what the snapshot does not mention goes, but only then
	}
	r.world = r.world.Apply(b)
	for _, in := range b.Invalids {
		old, known := r.before[in.Key]
		if _, ok := r.world[in.Key]; !ok && known {
			r.world[in.Key] = old
		}
		if _, ok := r.world[in.Key]; in.Strict != nil && (!ok || r.poor[in.Key]) {
			r.world[in.Key], r.poor[in.Key] = in.Strict, true
		}
	}
	for _, v := range b.Puts {
		delete(r.poor, v.Key())
	}
	for _, k := range b.Deletes {
		delete(r.poor, k)
		delete(r.before, k)
	}
	if b.Synced {
		r.before = nil
	}
	return r.take(r.graph.Step(b), r.before == nil)
}

func (r *replay) link(links []policy.Link) error {
	r.links = links
	return r.take(r.graph.SetLinks(links), r.before == nil)
}

// take folds a delta, which must be sound and without anything superfluous.
func (r *replay) take(d plan.FilterDelta, exact bool) error {
	if err := superfluous(r.got.V4, d.V4); err != nil {
		return fmt.Errorf("v4: %w", err)
	}
	if err := superfluous(r.got.V6, d.V6); err != nil {
		return fmt.Errorf("v6: %w", err)
	}
	r.got = r.got.Apply(d)
	if !exact {
		return nil
	}
	self, _ := r.world[model.Node{Name: world.Node}.Key()].(model.Node)
	self.Name = world.Node
	settings := policy.SettingsFor(self, maps.Values(r.world))
	want := policy.Compile(world.Node, r.world, r.links, settings)
	if diff := plan.DiffFilters(want, r.got); diff != "" {
		return fmt.Errorf("(-want +got):\n%s", diff)
	}
	return nil
}

// superfluous says what of d changes nothing in t, or does not fit it.
func superfluous(t plan.Table, d plan.TableDelta) error {
	fresh := map[string]bool{}
	for _, s := range d.PutSets {
		if t.Sets[s.Name] != nil {
			return fmt.Errorf("set %s is put twice", s.Name)
		}
		fresh[s.Name] = true
	}
	for _, name := range d.DeleteSets {
		if t.Sets[name] == nil || fresh[name] {
			return fmt.Errorf("set %s is deleted and was not there", name)
		}
	}
	for _, c := range d.Changes {
		s := t.Sets[c.Set]
		if s == nil && !fresh[c.Set] {
			return fmt.Errorf("set %s is changed and is not there", c.Set)
		}
		if s == nil {
			s = &plan.SetContent{}
		}
		for _, m := range c.Put {
			if _, ok := s.Members[m]; ok {
				return fmt.Errorf("set %s: %v is put and is there", c.Set, m)
			}
		}
		for _, m := range c.Delete {
			if _, ok := s.Members[m]; !ok {
				return fmt.Errorf("set %s: %v is deleted and is not there", c.Set, m)
			}
		}
		for _, e := range c.PutElement {
			if _, ok := s.Elements[e]; ok {
				return fmt.Errorf("set %s: %v is put and is there", c.Set, e)
			}
		}
		for _, e := range c.DeleteElement {
			if _, ok := s.Elements[e]; !ok {
				return fmt.Errorf("set %s: %v is deleted and is not there", c.Set, e)
			}
		}
	}
	for _, c := range d.PutChains {
		if old, ok := t.Chains[c.Name]; ok && old.Equal(c) {
			return fmt.Errorf("chain %s is put and is there", c.Name)
		}
		fresh[c.Name] = true
	}
	for _, name := range d.DeleteChains {
		if _, ok := t.Chains[name]; !ok || fresh[name] {
			return fmt.Errorf("chain %s is deleted and was not there", name)
		}
	}
	return nil
}

// towards is batches that make the world of r into want: all differences in random
// order, or a snapshot, in random pieces.
func (r *replay) towards(rnd *rand.Rand, want model.World) []model.Batch {
	snapshot := rnd.IntN(4) == 0
	var puts []model.Value
	for _, k := range slices.SortedFunc(maps.Keys(want), policy.CompareKeys) {
		if old, ok := r.world[k]; snapshot || !ok || fmt.Sprint(old) != fmt.Sprint(want[k]) {
			puts = append(puts, want[k])
		}
	}
	var deletes []model.Key
	for _, k := range slices.SortedFunc(maps.Keys(r.world), policy.CompareKeys) {
		if _, ok := want[k]; !ok && !snapshot {
			deletes = append(deletes, k)
		}
	}
	rnd.Shuffle(len(puts), func(i, j int) { puts[i], puts[j] = puts[j], puts[i] })
	rnd.Shuffle(len(deletes), func(i, j int) { deletes[i], deletes[j] = deletes[j], deletes[i] })
	var out []model.Batch
	for len(puts)+len(deletes) > 0 || len(out) == 0 {
		p, d := min(len(puts), rnd.IntN(8)), min(len(deletes), rnd.IntN(4))
		b := model.Batch{Puts: puts[:p], Deletes: deletes[:d]}
		puts, deletes = puts[p:], deletes[d:]
		out = append(out, b)
	}
	if snapshot {
		for i := range len(out) - 1 { // goes, and comes back
			if later := out[i+1+rnd.IntN(len(out)-i-1)]; len(later.Puts) > 0 && rnd.IntN(3) == 0 {
				out[i].Deletes = append(out[i].Deletes, later.Puts[rnd.IntN(len(later.Puts))].Key())
			}
		}
		out[0].Reset, out[len(out)-1].Synced = true, true
	}
	return out
}

// invalid makes some puts invalid: the last good version stays, or the strict one
// counts.
func invalid(rnd *rand.Rand, b *model.Batch) {
	for len(b.Puts) > 0 && rnd.IntN(5) == 0 {
		v := b.Puts[0]
		in := model.Invalid{Key: v.Key(), Err: fmt.Errorf("broken")}
		if rnd.IntN(2) == 0 {
			in.Strict = v
		}
		b.Puts, b.Invalids = b.Puts[1:], append(b.Invalids, in)
	}
}

// odd adds to a world what Random leaves out: a table less, host endpoints on workloads'
// interfaces, nets that hold one another.
func odd(rnd *rand.Rand, w model.World) {
	put := func(v model.Value) {
		if rnd.IntN(3) == 0 {
			w[v.Key()] = v
		}
	}
	no := false
	put(model.FelixConfig{Name: "node." + world.Node, Filter: model.FilterConfig{IPv6: &no}})
	put(model.HostEndpoint{Name: "odd-0", Node: world.Node, Link: "cali1"})
	put(model.HostEndpoint{Name: "odd-1", Node: world.Node, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.77")}})
	set := model.NetworkSet{Name: "odd", Labels: map[string]string{"app": []string{"a", "b"}[rnd.IntN(2)], "role": "x"}}
	for range rnd.IntN(6) {
		bits := rnd.IntN(33)
		set.Nets = append(set.Nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, 0, byte(rnd.IntN(8))}), bits).Masked())
		set.Nets = append(set.Nets, netip.PrefixFrom(netip.MustParseAddr("fd65::1"), 4*bits).Masked())
	}
	put(set)
}

func worlds(seed uint64, n int) error {
	rnd := rand.New(rand.NewPCG(seed, 7))
	r := newReplay()
	for i := range n {
		w, err := world.Random(rnd)
		if err != nil {
			return err
		}
		want := w.Values
		odd(rnd, want)
		w.Links = append(w.Links, policy.Link{Name: "cali2", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.77")}})
		if i == n-1 {
			want = model.World{} // and back to nothing
		}
		if rnd.IntN(2) == 0 {
			if err := r.link(w.Links); err != nil {
				return fmt.Errorf("world %d: links %v: %w", i, w.Links, err)
			}
		}
		for j, b := range r.towards(rnd, want) {
			invalid(rnd, &b)
			if err := r.step(b); err != nil {
				return fmt.Errorf("world %d, batch %d %+v: %w", i, j, b, err)
			}
		}
	}
	if left := r.graph.Leftovers(); left != "" {
		return fmt.Errorf("when all is gone there still are %s", left)
	}
	return nil
}

// What the graph emits step by step adds up to what Compile makes of the whole.
func TestGraphAgreesWithCompile(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		if err := worlds(seed, 5); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func FuzzGraph(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(1000 + seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		if err := worlds(seed, 4); err != nil {
			t.Fatal(err)
		}
	})
}
