package route

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
)

// trouble is what Problems says, so far as it is not asked for anew: that happens after
// every batch.
type trouble struct {
	site       []model.Problem // of pools and of the node itself
	vteps      int             // addresses of VXLAN devices that several nodes have
	stuck      []model.Problem // nodes to which no route leads
	stuckKnown bool            // stuck is up to date
}

func (t *trouble) shared(changed bool, by int) {
	if changed {
		t.vteps += by
	}
}

// Problems is what can't be done as asked: pools whose encapsulation this node can't
// have; an MTU too small for IPv6; without BGP, nodes to which no route leads; addresses
// that several workloads of this node, or VXLAN devices of several nodes, claim. The first
// by namespace and name has the address; each other one is a problem, by its key and
// address. They take over in turn when the first goes.
func (g *Graph) Problems() []model.Problem {
	if !g.trouble.stuckKnown {
		g.trouble.stuck, g.trouble.stuckKnown = g.stuck(), true
	}
	out := slices.Concat(g.trouble.site, g.trouble.stuck, g.lostVTEPs())
	slices.SortFunc(out, func(a, b model.Problem) int { return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Text, b.Text)) })
	return append(out, g.lostAddrs()...)
}

// lostAddrs are the workloads that do not have their addresses.
func (g *Graph) lostAddrs() []model.Problem {
	if g.contested == 0 {
		return nil
	}
	type loss struct {
		key model.Key
		a   netip.Addr
		to  model.Key
	}
	var losses []loss
	for a, keys := range g.claims {
		for _, k := range keys[1:] {
			losses = append(losses, loss{k, a, keys[0]})
		}
	}
	slices.SortFunc(losses, func(x, y loss) int { return cmp.Or(compareKeys(x.key, y.key), x.a.Compare(y.a)) })
	var out []model.Problem
	for _, l := range losses {
		out = append(out, model.Problem{Key: l.key, Text: fmt.Sprintf(
			"address %v: no route to it on link %s: %v has it already; an address belongs to one workload",
			l.a, g.known[l.key].(model.Endpoint).Link, l.to)})
	}
	return out
}

// lostVTEPs are the nodes whose tunnel address another one has.
func (g *Graph) lostVTEPs() []model.Problem {
	if g.trouble.vteps == 0 {
		return nil
	}
	var out []model.Problem
	for k, names := range g.vteps {
		for _, name := range names[1:] {
			out = append(out, model.Problem{Key: model.Node{Name: name}.Key(), Text: fmt.Sprintf(
				"VXLAN tunnel address %v: node %s has it, too: its packets go there; a tunnel address belongs to one node", k.Addr, names[0])})
		}
	}
	return out
}

// stuck are the pools whose blocks have no route since there is neither BGP nor an
// encapsulation to carry them over the routers between the nodes.
func (g *Graph) stuck() []model.Problem {
	if !g.site.noBGP {
		return nil
	}
	nodes := map[pool]map[string]netip.Addr{}
	look := func(p netip.Prefix) {
		in := g.pools.of(p)
		if in.tunnel != plain {
			return
		}
		m, ok := g.member(g.home(p))
		to := m.addr[family(p.Addr().Is6())]
		if !ok || !to.IsValid() || !g.site.addr[family(to.Is6())].IsValid() || g.site.near(to) {
			return
		}
		if nodes[in] == nil {
			nodes[in] = map[string]netip.Addr{}
		}
		if had, ok := nodes[in][m.name]; !ok || to.Less(had) {
			nodes[in][m.name] = to
		}
	}
	for p := range g.blocks {
		look(p)
	}
	for a := range g.loans {
		look(host(a))
	}
	var out []model.Problem
	for in, addrs := range nodes {
		out = append(out, stuckIn(in, addrs))
	}
	return out
}

// stuckIn is the problem of a pool, or of blocks outside of all, with those nodes.
func stuckIn(in pool, addrs map[string]netip.Addr) model.Problem {
	first := slices.Min(slices.Collect(maps.Keys(addrs)))
	whom := fmt.Sprintf("node %s (%v)", first, addrs[first])
	if n := len(addrs) - 1; n > 0 {
		whom += fmt.Sprintf(" and %d more", n)
	}
	if in.name == "" {
		return model.Problem{Text: fmt.Sprintf("blocks in no pool: no route to those on %s: "+
			"in another subnet than this node, and there is no BGP; create a pool with vxlanMode CrossSubnet or Always for them", whom)}
	}
	return model.Problem{Key: model.Pool{Name: in.name}.Key(), Text: fmt.Sprintf("no route to its addresses on %s: "+
		"in another subnet than this node, there is no BGP, and the pool has no encapsulation; set its vxlanMode to CrossSubnet or Always", whom)}
}
