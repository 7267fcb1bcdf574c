package route

import (
	"slices"

	"github.com/weft-net/weft/internal/model"
)

func (g *Graph) index(k model.Key, v model.Value) {
	switch v := v.(type) {
	case model.Endpoint:
		g.indexEndpoint(k, v)
	case block:
		if v.owner != "" {
			g.blocks[v.cidr] = v.owner
		}
		for _, l := range v.loans {
			at, _ := slices.BinarySearchFunc(g.loans[l.addr], l, compareLoans)
			g.loans[l.addr] = slices.Insert(g.loans[l.addr], at, l)
		}
		for p, node := range v.homes {
			g.homes[node] = append(g.homes[node], p)
		}
	case member:
		for _, a := range v.addr {
			if a.IsValid() {
				g.addrs.add(a, v.name)
			}
		}
		for _, t := range v.vteps() {
			g.vteps.add(t.VTEPKey, v.name)
			g.trouble.shared(len(g.vteps[t.VTEPKey]) == 2, 1)
		}
	default:
		g.configs[k] = v
	}
}

func (g *Graph) unindex(k model.Key, v model.Value) {
	switch v := v.(type) {
	case model.Endpoint:
		g.unindexEndpoint(k, v)
	case block:
		delete(g.blocks, v.cidr)
		for _, l := range v.loans {
			removeFrom(g.loans, l.addr, l)
		}
		for p, node := range v.homes {
			removeFrom(g.homes, node, p)
		}
	case member:
		for _, a := range v.addr {
			g.addrs.remove(a, v.name)
		}
		for _, t := range v.vteps() {
			g.vteps.remove(t.VTEPKey, v.name)
			g.trouble.shared(len(g.vteps[t.VTEPKey]) == 1, -1)
		}
	default:
		delete(g.configs, k)
	}
}

func (g *Graph) indexEndpoint(k model.Key, v model.Endpoint) {
	if v.Link == "" {
		return // there is nothing to route to yet
	}
	g.links[v.Link] = append(g.links[v.Link], k)
	for _, a := range v.Addrs {
		if at, found := slices.BinarySearchFunc(g.claims[a], k, compareKeys); !found {
			if g.claims[a] = slices.Insert(g.claims[a], at, k); len(g.claims[a]) == 2 {
				g.contested++
			}
		}
	}
}

func (g *Graph) unindexEndpoint(k model.Key, v model.Endpoint) {
	removeFrom(g.links, v.Link, k)
	for _, a := range v.Addrs {
		had := len(g.claims[a])
		if removeFrom(g.claims, a, k); had == 2 && len(g.claims[a]) == 1 {
			g.contested--
		}
	}
}

func removeFrom[K, V comparable](m map[K][]V, at K, v V) {
	i := slices.Index(m[at], v)
	if i < 0 {
		return
	}
	if m[at] = slices.Delete(m[at], i, i+1); len(m[at]) == 0 {
		delete(m, at)
	}
}
