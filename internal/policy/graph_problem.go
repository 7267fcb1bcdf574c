package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// Problems are what keeps the node from doing all that objects ask for, sorted by
// object: workloads that claim one interface, profiles and tiers that do not exist, rules
// that ask for what is not built. During a snapshot they are those of before. The slice
// is good until the next Step, and not to be changed.
func (g *Graph) Problems() []model.Problem {
	if !g.dirty.problems || !g.synced || g.loading {
		return g.problems
	}
	g.dirty.problems = false
	var out []model.Problem
	note := func(k model.Key, format string, args ...any) {
		out = append(out, model.Problem{Key: k, Text: fmt.Sprintf(format, args...)})
	}
	for link, of := range g.subjects.byLink {
		for _, s := range of[1:] {
			note(s.key, "interface %s: %v has it already: policy of that endpoint applies, not of this one; an interface belongs to one workload", link, of[0].key)
		}
	}
	for name, of := range g.subjects.byProfile {
		if g.profiles[name] != nil {
			continue
		}
		for s := range of {
			note(s.key, "profile %q: there is no such object: it gives neither labels nor rules", name)
		}
	}
	for p := range g.flawed {
		if g.tierMissing(p.p.Tier) {
			note(p.p.Origin, "tier %q: there is no such object: the policy is enforced in a tier behind all others", p.p.Tier)
		}
		for _, r := range slices.Concat(p.p.Ingress, p.p.Egress) {
			if r.Unbuilt != "" {
				note(p.p.Origin, "%s: %s is not built: the rule allows nothing", r.Field, r.Unbuilt)
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Problem) int {
		return cmp.Or(CompareKeys(a.Key, b.Key), strings.Compare(a.Text, b.Text))
	})
	g.problems = out
	return out
}

// tierMissing reports whether a tier is neither there nor one that is always there.
func (g *Graph) tierMissing(name string) bool {
	if name == "default" || name == "kube-admin" || name == "kube-baseline" {
		return false
	}
	return g.others[model.Tier{Name: name}.Key()] == nil
}

// look remembers whether a policy may have problems.
func (g *Graph) look(p *pol) {
	unbuilt := func(r model.Rule) bool { return r.Unbuilt != "" }
	_, was := g.flawed[p]
	now := g.tierMissing(p.p.Tier) || slices.ContainsFunc(p.p.Ingress, unbuilt) || slices.ContainsFunc(p.p.Egress, unbuilt)
	if !was && !now {
		return
	}
	g.dirty.problems = true
	if delete(g.flawed, p); now {
		g.flawed[p] = struct{}{}
	}
}
