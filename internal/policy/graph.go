package policy

import (
	"maps"
	"reflect"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy/index"
)

// Graph is the incremental form of [Compile]. It is for one goroutine.
//
//	all endpoints and network sets ─► holders × selectors of rules in force ─► sets
//	endpoints of this node ─► subjects × selectors of policies ─► lists
//	lists ─► tier chains, profile chains ─► policy chains ─► sets that rules need
//
// Whatever is used by nothing is not there: a policy that selects no endpoint of
// this node costs one entry of an index. Of an endpoint elsewhere the Graph keeps
// its addresses, the names of its ports and the number of its labels.
type Graph struct {
	node  string
	env   []model.FelixConfig
	round uint32 // number of the snapshot in progress, or of the last

	// others are the values that are kept as they are: configurations, nodes, tiers,
	// slices of services.
	others map[model.Key]*other
	poor   map[model.Key]struct{} // known by Invalid.Strict only: there never was a good version

	holders  holders
	members  *index.Index // holders × selectors of rules
	bySel    [][]*liveSet // by number of the selector
	services map[model.Service]map[model.Key]*other

	policies map[model.Key]*pol
	profiles map[string]*prof
	gone     gone
	shared   map[plainRule][]model.Rule
	subjects subjects
	selected *index.Index // subjects × selectors of policies
	chosen   [][]*pol     // by number of the selector
	links    []Link
	points   Points // at which host endpoints have lists

	flawed   map[*pol]struct{} // policies that may have problems
	problems []model.Problem
	synced   bool // there was a snapshot
	loading  bool // one is in progress
	stale    bool // something was known before it

	settings Settings
	halves   [2]*half                       // IPv4, IPv6
	memo     map[string]*[numPoints]*wanted // lists of subjects, while a flush works them out
	dirty    dirty
}

// other is a value with the snapshot that last mentioned it.
type other struct {
	v     model.Value
	round uint32
}

// dirty is what the next flush looks at again.
type dirty struct {
	settings bool                  // they may have changed
	hosts    bool                  // host endpoints or interfaces may have
	chains   bool                  // all chains may look otherwise
	base     bool                  // the chains and sets that are always there may
	subjects map[*subject]struct{} // their lists and elements
	bodies   map[*body]struct{}    // their rules
	tiers    map[string]struct{}   // chains of tiers of these names
	problems bool                  // Problems may be others
}

// NewGraph returns a Graph for the node of that name which knows nothing yet. What
// process sets wins over every FelixConfiguration, first over later.
func NewGraph(node string, process ...model.FelixConfig) *Graph {
	g := &Graph{
		node: node, env: process,
		others:   map[model.Key]*other{},
		poor:     map[model.Key]struct{}{},
		holders:  newHolders(),
		services: map[model.Service]map[model.Key]*other{},
		policies: map[model.Key]*pol{},
		profiles: map[string]*prof{},
		gone:     gone{map[model.Key]*pol{}, map[string]*prof{}},
		shared:   map[plainRule][]model.Rule{},
		subjects: newSubjects(),
		flawed:   map[*pol]struct{}{},
		dirty: dirty{
			subjects: map[*subject]struct{}{}, bodies: map[*body]struct{}{}, tiers: map[string]struct{}{},
		},
	}
	g.members = index.New(g.memberEvent)
	g.selected = index.New(func(n, _ uint32, _ bool) { g.dirty.subjects[g.subjects.list[n]] = struct{}{} })
	g.halves = [2]*half{newHalf(false), newHalf(true)}
	g.resettle()
	g.putProfile(model.DefaultAllow())
	return g
}

// Settings is what holds for this node now.
func (g *Graph) Settings() Settings { return g.settings }

// Step takes in a batch and returns how the plan changes. During a snapshot nothing
// does, until the batch with Synced: half of the policies would allow what the whole
// denies, and a snapshot that equals what is known changes nothing. Chains and sets in the result are sorted by name, members
// are in no order. The chains are shared with the Graph, and not to be changed.
func (g *Graph) Step(b model.Batch) plan.FilterDelta {
	if b.Reset {
		g.round++
		g.loading = true
		g.stale = g.stale || len(g.holders.list)+len(g.policies)+len(g.profiles)+len(g.others) > 0
	}
	for _, in := range b.Invalids {
		known := g.mention(in.Key) // the last good version stays
		_, poor := g.poor[in.Key]
		if in.Strict != nil && (poor || !known) && g.put(in.Key, in.Strict) {
			g.poor[in.Key] = struct{}{}
		}
	}
	for _, v := range b.Puts {
		k := v.Key()
		delete(g.poor, k)
		g.put(k, v)
	}
	for _, k := range b.Deletes {
		g.drop(k)
	}
	if b.Synced {
		if g.stale {
			g.sweep()
		}
		g.synced, g.loading, g.stale = true, false, false
	}
	return g.flush()
}

// SetLinks says which interfaces the node has; host endpoints are found by them. The
// Graph keeps the slice.
func (g *Graph) SetLinks(links []Link) plan.FilterDelta {
	same := func(a, b Link) bool { return a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs) }
	if slices.EqualFunc(g.links, links, same) {
		return plan.FilterDelta{}
	}
	g.links = links
	g.dirty.hosts = true
	return g.flush()
}

// put makes v the known version of k; ok says that it is of a kind that counts.
func (g *Graph) put(k model.Key, v model.Value) (ok bool) {
	switch v := v.(type) {
	case model.Endpoint:
		fresh := g.putHolder(k, holderOf(v.Addrs, nil, v.Ports), v.Labels, v.Profiles)
		if v.Node == g.node && v.Link != "" {
			g.putSubject(k, &subject{
				key: k, link: v.Link, labels: v.Labels, parents: v.Profiles,
				addrs: v.Addrs, sources: v.SourcePrefixes,
			})
		} else if !fresh {
			g.dropSubject(k)
		}
	case model.HostEndpoint:
		g.putHolder(k, holderOf(v.Addrs, nil, v.Ports), v.Labels, v.Profiles)
		if v.Node == g.node {
			g.putSubject(k, &subject{
				key: k, host: true, link: v.Link, labels: v.Labels, parents: v.Profiles, addrs: v.Addrs,
			})
		} else {
			g.dropSubject(k)
		}
	case model.NetworkSet:
		g.putHolder(k, holderOf(nil, v.Nets, nil), v.Labels, v.Profiles)
	case model.Policy:
		g.putPolicy(k, v)
	case model.Profile:
		g.putProfile(v)
	case model.Tier, model.EndpointSlice:
		g.putOther(k, v)
	case model.FelixConfig:
		g.putOther(k, v)
	case model.Node:
		if v.Name != g.node {
			v = model.Node{Name: v.Name, IPv4: v.IPv4, IPv6: v.IPv6, Addrs: v.Addrs, Labels: v.Labels} // all that counts of others
		}
		g.putOther(k, v)
	default:
		return false
	}
	return true
}

// drop forgets the object of that key.
func (g *Graph) drop(k model.Key) {
	delete(g.poor, k)
	switch k.Kind {
	case model.KindWorkloadEndpoint, model.KindHostEndpoint:
		g.dropSubject(k)
		g.dropHolder(k)
	case model.KindNetworkSet, model.KindGlobalNetworkSet:
		g.dropHolder(k)
	case model.KindProfile:
		g.dropProfile(k.Name)
	default:
		if _, ok := g.policies[k]; ok {
			g.dropPolicy(k)
			return
		}
		g.dropOther(k)
	}
}

// mention says that the snapshot in progress has k; known is whether the Graph has.
func (g *Graph) mention(k model.Key) (known bool) {
	if h := g.holders.find(k); h != nil {
		h.round = g.round
		return true
	}
	if p := g.policies[k]; p != nil {
		p.round = g.round
		return true
	}
	if k.Kind == model.KindProfile {
		if p := g.profiles[k.Name]; p != nil {
			p.round = g.round
			return true
		}
	}
	if o := g.others[k]; o != nil {
		o.round = g.round
		return true
	}
	return false
}

// sweep drops what the snapshot that is complete has not mentioned.
func (g *Graph) sweep() {
	for k := range g.holders.all() {
		if g.holders.find(k).round != g.round {
			g.drop(k)
		}
	}
	for k, p := range g.policies {
		if p.round != g.round {
			g.drop(k)
		}
	}
	for name, p := range g.profiles {
		if p.round != g.round {
			g.drop(model.Profile{Name: name}.Key())
		}
	}
	for k, o := range g.others {
		if o.round != g.round {
			g.drop(k)
		}
	}
}

func (g *Graph) putOther(k model.Key, v model.Value) {
	o := g.others[k]
	if o != nil && reflect.DeepEqual(o.v, v) {
		o.round = g.round
		return
	}
	g.dropOther(k)
	o = &other{v, g.round}
	g.others[k] = o
	g.noteOther(o, true)
}

func (g *Graph) dropOther(k model.Key) {
	if o := g.others[k]; o != nil {
		delete(g.others, k)
		g.noteOther(o, false)
	}
}

// noteOther marks what follows from a value that came or went.
func (g *Graph) noteOther(o *other, came bool) {
	switch v := o.v.(type) {
	case model.Tier:
		g.dirty.tiers[v.Name] = struct{}{}
		g.dirty.problems = true
	case model.EndpointSlice:
		if v.Service == (model.Service{}) {
			return
		}
		of := g.services[v.Service]
		if of == nil {
			of = map[model.Key]*other{}
			g.services[v.Service] = of
		}
		if came {
			of[v.Key()] = o
		} else if delete(of, v.Key()); len(of) == 0 {
			delete(g.services, v.Service)
		}
		g.serviceChanged(v, came)
	case model.Node:
		for _, h := range g.halves {
			if a := v.Addr(h.v6).Addr(); a.IsValid() && came {
				h.nodes.add(plan.AddrMember(a))
			} else if a.IsValid() {
				h.nodes.cut(plan.AddrMember(a))
			}
		}
		g.nodeChanged(v, came)
		g.dirty.settings = g.dirty.settings || v.Name == g.node
	default:
		g.dirty.settings = true
	}
}

// tier is the tier of that name, or what stands for it while there is none.
func (g *Graph) tier(name string) model.Tier {
	if o := g.others[model.Tier{Name: name}.Key()]; o != nil {
		return o.v.(model.Tier)
	}
	return ImpliedTier(name)
}

// resettle works the settings out again; if they changed, all chains may have.
func (g *Graph) resettle() {
	self, _ := g.known(model.Node{Name: g.node}.Key()).(model.Node)
	self.Name = g.node
	now := SettingsFor(self, func(yield func(model.Value) bool) {
		for o := range maps.Values(g.others) {
			if _, ok := o.v.(model.FelixConfig); ok && !yield(o.v) {
				return
			}
		}
	}, g.env...)
	if !g.settings.Equal(now) {
		g.settings, g.dirty.chains, g.dirty.hosts = now, true, true
		for _, h := range g.halves {
			h.emitter.Settings, h.active = now, !h.v6 || now.IPv6
		}
		g.touchAll()
	}
}

// known is the value of k among others, or nil.
func (g *Graph) known(k model.Key) model.Value {
	if o := g.others[k]; o != nil {
		return o.v
	}
	return nil
}

// at is room for element i of a list.
func at[T any](list *[]T, i uint32) *T {
	if n := int(i) + 1 - len(*list); n > 0 {
		*list = append(*list, make([]T, n)...)
	}
	return &(*list)[i]
}
