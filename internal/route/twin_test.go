package route

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// twin runs a Graph and folds what it was told, to compare it with Compile.
type twin struct {
	options  Options
	graph    *Graph
	underlay Underlay
	world    model.World
	learned  map[netip.Prefix]bgp.Learned
	fixed    map[netip.Prefix]plan.Hops
	got      plan.Node
	partial  [2]bool // a snapshot is in progress: of the model, of BGP
	last     string
}

func newTwin() *twin { return newTwinOf(Options{Node: "a"}) }

func newTwinOf(o Options) *twin {
	return &twin{options: o, graph: NewGraph(o), world: model.World{}, learned: map[netip.Prefix]bgp.Learned{}}
}

func (w *twin) step(t testing.TB, e event) {
	t.Helper()
	w.last = ""
	if e.mtu != nil {
		w.underlay = Underlay{MTU: *e.mtu}
		w.apply(t, w.graph.SetUnderlay(w.underlay))
	}
	if !e.batch.Empty() {
		w.apply(t, w.graph.Step(e.batch))
		w.world = w.world.Apply(e.batch)
		w.partial[0] = (e.batch.Reset || w.partial[0]) && !e.batch.Synced
	}
	if l := e.learned; l.Reset || l.Synced || len(l.Puts)+len(l.Deletes) > 0 {
		w.apply(t, w.graph.Learn(l))
		if l.Reset {
			clear(w.learned)
		}
		for _, p := range l.Puts {
			w.learned[p.Prefix] = p
		}
		for _, p := range l.Deletes {
			delete(w.learned, p)
		}
		w.partial[1] = (l.Reset || w.partial[1]) && !l.Synced
	}
	if e.fixed != nil {
		w.apply(t, w.graph.Fix(e.fixed))
		w.fixed = e.fixed
	}
	if w.partial != [2]bool{} {
		return
	}
	if d := plan.Diff(Compile(w.options, w.underlay, w.world, w.learned, w.fixed), w.got); d != "" {
		t.Fatalf("after %+v (-want +got):\n%s", e, d)
	}
}

// apply folds d and checks that it says nothing twice and nothing needless.
func (w *twin) apply(t testing.TB, d plan.Delta) {
	t.Helper()
	seen := map[plan.RouteKey]bool{}
	for _, r := range d.PutRoutes {
		if seen[r.RouteKey] {
			t.Fatalf("delta puts %v twice", r)
		}
		if w.got.Routes[r.RouteKey] == r.RouteAttrs {
			t.Fatalf("delta puts %v, which is there already", r)
		}
		seen[r.RouteKey] = true
		w.last += " +" + r.String()
	}
	for _, k := range d.DeleteRoutes {
		if _, ok := w.got.Routes[k]; seen[k] || !ok {
			t.Fatalf("delta deletes %v, which it puts too or is not there", k)
		}
		seen[k] = true
		w.last += fmt.Sprintf(" -%v", k.Dst)
	}
	w.applyTunnels(t, d)
	w.got = w.got.Apply(d)
}

// applyTunnels checks and prints what d says of devices and VTEPs.
func (w *twin) applyTunnels(t testing.TB, d plan.Delta) {
	t.Helper()
	seen := map[any]bool{}
	for _, v := range d.PutDevices {
		if w.got.Devices[v.Name] == v || seen[v.Name] {
			t.Fatalf("delta puts %v, which is there already, or twice", v)
		}
		seen[v.Name] = true
		w.last += " +" + v.Name
	}
	for _, k := range d.DeleteDevices {
		if _, ok := w.got.Devices[k]; !ok || seen[k] {
			t.Fatalf("delta deletes %v, which it puts too or is not there", k)
		}
		w.last += " -" + k
	}
	for _, v := range d.PutVTEPs {
		if w.got.VTEPs[v.VTEPKey] == v.VTEPAttrs || seen[v.VTEPKey] {
			t.Fatalf("delta puts %v, which is there already, or twice", v)
		}
		seen[v.VTEPKey] = true
		w.last += fmt.Sprintf(" +vtep %v", v.Addr)
	}
	for _, k := range d.DeleteVTEPs {
		if _, ok := w.got.VTEPs[k]; !ok || seen[k] {
			t.Fatalf("delta deletes %v, which it puts too or is not there", k)
		}
		w.last += fmt.Sprintf(" -vtep %v", k.Addr)
	}
}
