package policy

import (
	"slices"

	"github.com/weft-net/weft/internal/model"
)

// pol is a policy that is known. Lists point to p, which is replaced in place.
type pol struct {
	p      model.Policy
	sel    uint32 // in Graph.selected
	round  uint32
	bodies [2][2]*body // by family and direction; nil: not in force
}

// prof is a profile that is known, or that lists still have.
type prof struct {
	p      model.Profile // without labels: those are in Graph.members
	round  uint32
	bodies [2][2]*body
}

// gone is what was dropped since the last flush and still is in force: what comes back
// before it has to be the same again, since lists of that name hold on to it.
type gone struct {
	policies map[model.Key]*pol
	profiles map[string]*prof
}

// putPolicy takes in a policy.
func (g *Graph) putPolicy(k model.Key, v model.Policy) {
	p := g.policies[k]
	if p == nil {
		if p = g.gone.policies[k]; p == nil {
			p = &pol{}
		}
		p.p, p.round = v, g.round
		g.policies[k] = p
		g.choose(p)
		g.touchBodies(p.bodies)
		g.look(p)
		return
	}
	p.round = g.round
	if p.p.Selector.String() != v.Selector.String() {
		g.unchoose(p)
		p.p = v
		g.choose(p)
	} else {
		moved := !samePlace(&p.p, &v)
		if p.p = v; moved {
			g.touchSelected(p.sel)
		}
	}
	g.touchBodies(p.bodies)
	g.look(p)
}

// samePlace reports whether two versions of a policy stand in the same lists at the
// same places, with the same behind them.
func samePlace(a, b *model.Policy) bool {
	return Inlined(a, Ingress) == Inlined(b, Ingress) && Inlined(a, Egress) == Inlined(b, Egress) && a.Tier == b.Tier && a.Order == b.Order && a.Staged == b.Staged && a.Delete == b.Delete &&
		a.AppliesIngress == b.AppliesIngress && a.AppliesEgress == b.AppliesEgress &&
		a.DoNotTrack == b.DoNotTrack && a.PreDNAT == b.PreDNAT && a.ApplyOnForward == b.ApplyOnForward
}

func (g *Graph) dropPolicy(k model.Key) {
	p := g.policies[k]
	g.unchoose(p)
	delete(g.policies, k)
	g.gone.policies[k] = p
	if _, ok := g.flawed[p]; ok {
		delete(g.flawed, p)
		g.dirty.problems = true
	}
}

// choose lets a policy select subjects.
func (g *Graph) choose(p *pol) {
	p.sel = g.selected.Add(p.p.Selector)
	of := at(&g.chosen, p.sel)
	if len(*of) > 0 { // else the index told of every match
		g.touchSelected(p.sel)
	}
	*of = append(*of, p)
}

func (g *Graph) unchoose(p *pol) {
	g.touchSelected(p.sel)
	of := &g.chosen[p.sel]
	i := slices.Index(*of, p)
	if *of = slices.Delete(*of, i, i+1); len(*of) == 0 {
		*of = nil
	}
	g.selected.Remove(p.sel)
}

// touchSelected marks the subjects of a selector.
func (g *Graph) touchSelected(sel uint32) {
	for n := range g.selected.Items(sel) {
		g.dirty.subjects[g.subjects.list[n]] = struct{}{}
	}
}

func (g *Graph) touchBodies(bodies [2][2]*body) {
	for _, of := range bodies {
		for _, b := range of {
			if b != nil {
				g.dirty.bodies[b] = struct{}{}
			}
		}
	}
}

// putProfile takes in a profile.
func (g *Graph) putProfile(v model.Profile) {
	g.members.PutParent(v.Name, v.Labels)
	p, had := g.profiles[v.Name]
	if !had {
		if p = g.gone.profiles[v.Name]; p == nil {
			p = &prof{}
		}
		g.profiles[v.Name] = p
	}
	p.p, p.round = model.Profile{Name: v.Name, Ingress: g.share(v.Ingress), Egress: g.share(v.Egress)}, g.round
	g.touchBodies(p.bodies)
	users := g.subjects.byProfile[v.Name]
	if users == nil {
		return
	}
	g.selected.PutParent(v.Name, v.Labels)
	if !had {
		g.touchProfile(users)
	}
}

// share is rules, or equal ones that other profiles have: there is a profile for each
// namespace and service account, and nearly all have one rule, which allows all.
func (g *Graph) share(rules []model.Rule) []model.Rule {
	if len(rules) != 1 || !plain(&rules[0]) {
		return rules
	}
	key := plainRule{rules[0].Action, rules[0].Field}
	if g.shared[key] == nil {
		g.shared[key] = rules
	}
	return g.shared[key]
}

// plainRule is a rule that matches everything.
type plainRule struct {
	action model.Action
	field  string
}

func plain(r *model.Rule) bool {
	return r.Family|r.Protocol|r.NotProtocol == 0 && r.ICMP == (model.ICMP{}) && r.NotICMP == (model.ICMP{}) &&
		r.Unbuilt == "" && anyEnd(&r.Source) && anyEnd(&r.Destination)
}

func anyEnd(e *model.Entity) bool {
	return e.Selector == nil && e.NotSelector == nil && e.Nodes == nil && e.Service == (model.Service{}) &&
		len(e.Nets)+len(e.NotNets)+len(e.Ports)+len(e.NotPorts)+len(e.NamedPorts)+len(e.NotNamedPorts) == 0
}

func (g *Graph) dropProfile(name string) {
	if builtin := model.DefaultAllow(); name == builtin.Name {
		g.putProfile(builtin) // it exists without an object
		return
	}
	p := g.profiles[name]
	if p == nil {
		return
	}
	g.gone.profiles[name] = p
	g.members.DeleteParent(name)
	delete(g.profiles, name)
	if users := g.subjects.byProfile[name]; users != nil {
		g.selected.DeleteParent(name)
		g.touchProfile(users)
	}
}

// touchProfile marks the subjects of a profile that came or went.
func (g *Graph) touchProfile(users map[*subject]struct{}) {
	g.dirty.problems = true
	for s := range users {
		g.dirty.subjects[s] = struct{}{}
	}
}
