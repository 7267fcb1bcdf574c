package policy

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// View is a world as policy sees it: labels inherited, policies and tiers in their
// order. It is immutable and may be used by several goroutines. It answers by
// looking at everything: it is the reference, and what people are told from; the
// agent's way is [Graph].
type View struct {
	world    model.World
	tiers    []TierList // all policies of each tier, whomever they select
	subjects []Subject  // sorted by key
	holders  []Holder   // sorted by key
	slices   []model.EndpointSlice
	configs  []model.Value              // FelixConfigs
	set      func(node string) Settings // nil: from world
	seen     func(node string, p plan.Packet) (src netip.Addr, why string, changed bool)
}

// Holder is who has addresses that a rule's selector may find: a workload endpoint, a
// host endpoint or a network set.
type Holder struct {
	Key    model.Key
	Labels map[string]string // own and inherited; own ones win
	Nets   []netip.Prefix    // masked; those of a set may overlap
	Ports  []model.NamedPort
}

// NewView looks at w, which must not be changed as long as the view is used.
func NewView(w model.World) *View {
	v := &View{world: w}
	lists := map[string]*TierList{}
	list := func(name string) *TierList {
		if lists[name] == nil {
			lists[name] = &TierList{Tier: ImpliedTier(name)}
		}
		return lists[name]
	}
	for _, k := range slices.SortedFunc(maps.Keys(w), CompareKeys) {
		switch o := w[k].(type) {
		case model.Tier:
			list(o.Name).Tier = o
		case model.Policy:
			l := list(o.Tier)
			l.Policies = append(l.Policies, &o)
		case model.Endpoint:
			profiles := v.profiles(o.Profiles)
			labels := EffectiveLabels(o.Labels, profiles)
			v.subjects = append(v.subjects, Subject{Key: k, Node: o.Node, Link: o.Link, Labels: labels, Profiles: profiles})
			v.holders = append(v.holders, Holder{k, labels, single(o.Addrs), o.Ports})
		case model.HostEndpoint:
			profiles := v.profiles(o.Profiles)
			labels := EffectiveLabels(o.Labels, profiles)
			v.subjects = append(v.subjects, Subject{Key: k, Host: true, Node: o.Node, Link: o.Link, Labels: labels, Profiles: profiles})
			v.holders = append(v.holders, Holder{k, labels, single(o.Addrs), o.Ports})
		case model.NetworkSet:
			v.holders = append(v.holders, Holder{k, EffectiveLabels(o.Labels, v.profiles(o.Profiles)), o.Nets, nil})
		case model.EndpointSlice:
			v.slices = append(v.slices, o)
		case model.FelixConfig:
			v.configs = append(v.configs, o)
		}
	}
	for _, l := range lists {
		slices.SortFunc(l.Policies, ComparePolicies)
		v.tiers = append(v.tiers, *l)
	}
	slices.SortFunc(v.tiers, func(a, b TierList) int { return CompareTiers(a.Tier, b.Tier) })
	return v
}

// profiles are those of that name that exist.
func (v *View) profiles(names []string) []*model.Profile {
	var out []*model.Profile
	for _, name := range names {
		p, ok := v.world[model.Profile{Name: name}.Key()].(model.Profile)
		if builtin := model.DefaultAllow(); !ok && name == builtin.Name {
			p, ok = builtin, true
		}
		if ok {
			out = append(out, &p)
		}
	}
	return out
}

func single(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// World is the world that v looks at; it must not be changed.
func (v *View) World() model.World { return v.world }

// Subjects are all workload and host endpoints, sorted by key; not to be changed.
func (v *View) Subjects() []Subject { return v.subjects }

// Subject is the endpoint of that key.
func (v *View) Subject(k model.Key) (Subject, bool) {
	i, ok := slices.BinarySearchFunc(v.subjects, k, func(s Subject, k model.Key) int { return CompareKeys(s.Key, k) })
	if !ok {
		return Subject{}, false
	}
	return v.subjects[i], true
}

// Holders are all that selectors of rules may find, sorted by key; not to be changed.
func (v *View) Holders() []Holder { return v.holders }

// Holder is the endpoint or network set of that key.
func (v *View) Holder(k model.Key) (Holder, bool) {
	i, ok := slices.BinarySearchFunc(v.holders, k, func(h Holder, k model.Key) int { return CompareKeys(h.Key, k) })
	if !ok {
		return Holder{}, false
	}
	return v.holders[i], true
}

// Tiers are the policies that s meets in that direction and stage, in order of
// evaluation. Profiles come after them in the stage Normal only.
func (v *View) Tiers(s Subject, d Direction, st Stage) []TierList {
	out, _ := v.tiersWith(s, d, st, nil)
	return out
}

// With is v with settings of nodes other than those of the configurations in its world.
func (v *View) With(settings func(node string) Settings) *View {
	out := *v
	out.set = settings
	return &out
}

// Translating is v with what becomes of the source address of a packet that leaves a node:
// who it reaches sees that one. Why is for people.
func (v *View) Translating(seen func(node string, p plan.Packet) (src netip.Addr, why string, changed bool)) *View {
	out := *v
	out.seen = seen
	return &out
}

// Settings are those of a node.
func (v *View) Settings(node string) Settings {
	if v.set != nil {
		return v.set(node)
	}
	n, ok := v.world[model.Node{Name: node}.Key()].(model.Node)
	if !ok {
		n.Name = node
	}
	return SettingsFor(n, slices.Values(v.configs))
}

// HostEndpointOf is the host endpoint of an interface of a node that has those
// addresses; ok is false where there is none. If several fit, the first by name is it;
// one for all interfaces ("*") only counts where no other fits.
func (v *View) HostEndpointOf(node, link string, addrs []netip.Addr) (s Subject, ok bool) {
	for _, c := range v.subjects {
		if !c.Host || c.Node != node {
			continue
		}
		h, _ := v.world[c.Key].(model.HostEndpoint)
		switch {
		case h.Link == "*":
			if !ok {
				s, ok = c, true
			}
		case h.Link == link,
			h.Link == "" && slices.ContainsFunc(h.Addrs, func(a netip.Addr) bool { return slices.Contains(addrs, a) }):
			return c, true
		}
	}
	return s, ok
}
