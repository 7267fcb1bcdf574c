package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Diff says how got differs from want, a line each with - (missing) or +
// (too much), sorted; empty when they are equal.
func Diff(want, got Node) string {
	return diffLines(want.lines(), got.lines())
}

// diffLines are the lines that only one side has.
func diffLines(w, g map[string]bool) string {
	var out []string
	for l := range w {
		if !g[l] {
			out = append(out, "-"+l)
		}
	}
	for l := range g {
		if !w[l] {
			out = append(out, "+"+l)
		}
	}
	slices.SortFunc(out, func(a, b string) int { return strings.Compare(a[1:]+a[:1], b[1:]+b[:1]) })
	return strings.Join(out, "\n")
}

// String prints n, a line an object, sorted.
func (n Node) String() string {
	return strings.Join(slices.Sorted(maps.Keys(n.lines())), "\n")
}

func (n Node) lines() map[string]bool {
	out := map[string]bool{}
	for k, a := range n.Routes {
		out["route "+Route{k, a}.String()] = true
	}
	for _, l := range n.Links {
		out[fmt.Sprintf("link %s v4=%t v6=%t", l.Name, l.V4, l.V6)] = true
	}
	for k, mac := range n.Neighbors {
		out[fmt.Sprintf("neighbor %v dev %s lladdr %s", k.Addr, k.Link, mac)] = true
	}
	n.tunnelLines(out)
	return out
}
