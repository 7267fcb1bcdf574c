package edge

import (
	"maps"
	"reflect"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Options say for whom a Graph decides.
type Options struct {
	Node string // name of the node
	// Env is what the process sets; it wins over every FelixConfiguration, first over
	// later.
	Env []model.FelixConfig
}

// Graph is the incremental form of [Compile]. It is for one goroutine.
//
// Pools and configurations are few and change seldom, so all that follows from them is
// made anew and compared. Nodes are many, and one more costs the change of one member.
type Graph struct {
	options Options
	objects map[model.Key]*object
	round   uint32 // number of the snapshot in progress, or of the last
	loading bool   // a snapshot is in progress
	stale   bool   // something was known before it
	dirty   bool   // pools or settings may be others
	halves  [2]half
	shapes  map[string]plan.Shape
	// floating says that the settings have floating addresses.
	floating bool
}

// object is a value with the snapshot that last mentioned it.
type object struct {
	v     model.Value
	round uint32
}

// half is one family as it was emitted.
type half struct {
	v6    bool
	table plan.Table // nobody's address is in AllHosts
	// hosts are nodes' addresses, with the number of nodes that have them, and was those
	// that changed since the last flush: whether they were there.
	hosts map[plan.Member]int
	was   map[plan.Member]bool
}

// NewGraph returns a Graph that knows nothing yet.
func NewGraph(o Options) *Graph {
	g := &Graph{options: o, objects: map[model.Key]*object{}}
	for i := range g.halves {
		g.halves[i] = half{v6: i == 1, hosts: map[plan.Member]int{}, was: map[plan.Member]bool{}}
	}
	return g
}

// Step takes in a batch and returns how the plan changes. During a snapshot nothing
// does, until the batch with Synced. Invalid objects stay as they were. Members are in
// no order; the chains are shared with the Graph, and not to be changed.
func (g *Graph) Step(b model.Batch) plan.FilterDelta {
	if b.Reset {
		g.round++
		g.loading, g.stale = true, g.stale || len(g.objects) > 0
	}
	for _, in := range b.Invalids {
		if o := g.objects[in.Key]; o != nil {
			o.round = g.round
		}
	}
	for _, v := range b.Puts {
		g.put(v)
	}
	for _, k := range b.Deletes {
		g.drop(k)
	}
	if b.Synced {
		for k, o := range g.objects {
			if g.stale && o.round != g.round {
				g.drop(k)
			}
		}
		g.loading, g.stale = false, false
	}
	return g.flush()
}

func (g *Graph) put(v model.Value) {
	switch n := v.(type) {
	case model.Pool, model.FelixConfig:
	case model.Endpoint:
		kept, ok := concerns(g.options.Node, n)
		if !ok {
			g.drop(v.Key())
			return
		}
		v = kept
	case model.Node:
		kept := model.Node{Name: n.Name, IPv4: n.IPv4, IPv6: n.IPv6} // all that counts of others
		if n.Name == g.options.Node {
			kept.Labels = n.Labels
		}
		v = kept
	default:
		return
	}
	o := g.objects[v.Key()]
	if o != nil && reflect.DeepEqual(o.v, v) {
		o.round = g.round
		return
	}
	g.drop(v.Key())
	g.objects[v.Key()] = &object{v, g.round}
	g.note(v, 1)
}

func (g *Graph) drop(k model.Key) {
	if o := g.objects[k]; o != nil {
		delete(g.objects, k)
		g.note(o.v, -1)
	}
}

// note marks what follows from a value that came (1) or went (-1).
func (g *Graph) note(v model.Value, by int) {
	n, ok := v.(model.Node)
	if !ok || n.Name == g.options.Node {
		g.dirty = true
	}
	for i := range g.halves {
		h := &g.halves[i]
		if a := hostAddr(v, h.v6); a.IsValid() {
			h.count(plan.AddrMember(a), by)
		}
	}
}

// count says that one node more, or one less, has an address.
func (h *half) count(m plan.Member, by int) {
	before := h.hosts[m]
	if _, noted := h.was[m]; !noted {
		h.was[m] = before > 0
	}
	if h.hosts[m] = before + by; h.hosts[m] == 0 {
		delete(h.hosts, m)
	}
}

// flush emits what has changed since the last.
func (g *Graph) flush() plan.FilterDelta {
	if g.loading {
		return plan.FilterDelta{}
	}
	var d plan.FilterDelta
	if !g.dirty {
		g.halves[0].flushHosts(&d.V4, g.halves[0].table)
		g.halves[1].flushHosts(&d.V6, g.halves[1].table)
		return d
	}
	g.dirty = false
	// Tables without nodes' addresses follow from nothing of other nodes.
	world := model.World{}
	for k, o := range g.objects {
		if n, ok := o.v.(model.Node); !ok || n.Name == g.options.Node {
			world[k] = o.v
		}
	}
	families := familiesOf(g.options, world)
	g.floating = families[0].nat.FloatingIPs
	if shapes := shapesOf(families[0].endpoints); !maps.Equal(shapes, g.shapes) {
		g.shapes = shapes
	}
	return plan.FilterDelta{V4: g.halves[0].become(families[0].table()), V6: g.halves[1].become(families[1].table())}
}

// FloatingIPs reports whether floating addresses lead to the node's workloads.
func (g *Graph) FloatingIPs() bool { return g.floating }

// Shapes are the bandwidths that the node's workloads are limited to, by link. The map is
// never changed.
func (g *Graph) Shapes() map[string]plan.Shape { return g.shapes }

// become emits the change to a table, and of nodes' addresses.
func (h *half) become(now plan.Table) plan.TableDelta {
	d := difference(h.table, now)
	h.flushHosts(&d, now)
	h.table = now
	return d
}

// flushHosts emits how nodes' addresses have changed, all of them if their set is new.
func (h *half) flushHosts(d *plan.TableDelta, now plan.Table) {
	switch c := (plan.SetChange{Set: AllHosts}); {
	case now.Sets[AllHosts] == nil:
	case h.table.Sets[AllHosts] == nil:
		c.Put = slices.Collect(maps.Keys(h.hosts))
		d.Changes = appendChange(d.Changes, c)
	default:
		for m, was := range h.was {
			if _, is := h.hosts[m]; is && !was {
				c.Put = append(c.Put, m)
			} else if was && !is {
				c.Delete = append(c.Delete, m)
			}
		}
		d.Changes = appendChange(d.Changes, c)
	}
	clear(h.was)
}

// difference is what makes now of before. A set of ours never changes its type.
func difference(before, now plan.Table) plan.TableDelta {
	var d plan.TableDelta
	for _, name := range slices.Sorted(maps.Keys(now.Sets)) {
		c := plan.SetChange{Set: name}
		old := before.Sets[name]
		if old == nil {
			d.PutSets = append(d.PutSets, now.Sets[name].Set)
			old = &plan.SetContent{}
		}
		c.Put, c.Delete = missing(now.Sets[name].Members, old.Members), missing(old.Members, now.Sets[name].Members)
		c.PutElement, c.DeleteElement = missing(now.Sets[name].Elements, old.Elements), missing(old.Elements, now.Sets[name].Elements)
		d.Changes = appendChange(d.Changes, c)
	}
	for _, name := range slices.Sorted(maps.Keys(now.Chains)) {
		if old, ok := before.Chains[name]; !ok || !old.Equal(now.Chains[name]) {
			d.PutChains = append(d.PutChains, now.Chains[name])
		}
	}
	for name := range before.Chains {
		if _, ok := now.Chains[name]; !ok {
			d.DeleteChains = append(d.DeleteChains, name)
		}
	}
	for name := range before.Sets {
		if now.Sets[name] == nil {
			d.DeleteSets = append(d.DeleteSets, name)
		}
	}
	slices.Sort(d.DeleteChains)
	slices.Sort(d.DeleteSets)
	return d
}

// missing are the members of a that b has not.
func missing[K comparable](a, b map[K]struct{}) (out []K) {
	for m := range a {
		if _, ok := b[m]; !ok {
			out = append(out, m)
		}
	}
	return out
}

func appendChange(list []plan.SetChange, c plan.SetChange) []plan.SetChange {
	if len(c.Put)+len(c.Delete)+len(c.PutElement)+len(c.DeleteElement) == 0 {
		return list
	}
	return append(list, c)
}
