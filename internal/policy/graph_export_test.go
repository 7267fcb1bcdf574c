package policy

import "fmt"

// Leftovers says what a graph still has that knows no object and no interface; empty:
// nothing.
func (g *Graph) Leftovers() string {
	counts := map[string]int{
		"others": len(g.others), "poor": len(g.poor), "live holders": len(g.holders.list) - len(g.holders.free),
		"namespaces": len(g.holders.namespaces.byName), "ports": len(g.holders.ports.byText),
		"selectors of rules": g.members.Selectors(), "services": len(g.services),
		"policies": len(g.policies), "profiles": len(g.profiles) - 1 /* the one that is always there */, "subjects": len(g.subjects.byKey),
		"links": len(g.subjects.byLink), "profiles of subjects": len(g.subjects.byProfile),
		"selectors of policies": g.selected.Selectors(), "flawed": len(g.flawed), "gone": len(g.gone.policies) + len(g.gone.profiles),
		"dirty subjects": len(g.dirty.subjects), "dirty bodies": len(g.dirty.bodies), "dirty tiers": len(g.dirty.tiers),
	}
	for _, h := range g.halves {
		counts["sets"] += len(h.sets) + len(h.dirtySets)
		counts["lists"] += len(h.lists) + len(h.touchedLists)
		counts["tiers"] += len(h.tiers) + len(h.touchedTiers)
		counts["blocks"] += len(h.blocks) + len(h.idleBlocks)
		counts["elements"] += len(h.elems.now) + len(h.elems.was)
		counts["nodes"] += len(h.nodes.counts)
	}
	for _, of := range g.bySel {
		counts["sets by selector"] += len(of)
	}
	for _, of := range g.chosen {
		counts["policies by selector"] += len(of)
	}
	for what, n := range counts {
		if n == 0 {
			delete(counts, what)
		}
	}
	if len(counts) == 0 {
		return ""
	}
	return fmt.Sprint(counts)
}
