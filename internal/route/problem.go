package route

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
)

// Problems are the addresses that several workloads of this node claim. The
// first by namespace and name has the address; each other one is a problem, by
// its key and address. They take over in turn when the first goes.
func (g *Graph) Problems() []model.Problem {
	if g.contested == 0 {
		return nil // asked for after every batch
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
