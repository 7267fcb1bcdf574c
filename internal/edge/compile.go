package edge

import (
	"maps"
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Compile is what the node of that name must have, from scratch: the slow and obvious
// reference of [Graph].
func Compile(o Options, world model.World) plan.Filter {
	families := familiesOf(o, world)
	return plan.Filter{V4: families[0].withHosts(world), V6: families[1].withHosts(world)}
}

// familiesOf are those of IPv4 and IPv6.
func familiesOf(o Options, world model.World) [2]family {
	self, _ := world[model.Node{Name: o.Node}.Key()].(model.Node)
	self.Name = o.Node
	s := settingsFor(self, maps.Values(world), o.Env)
	endpoints := limited(o.Node, maps.Values(world))
	return [2]family{familyOf(s, maps.Values(world), endpoints, false), familyOf(s, maps.Values(world), endpoints, true)}
}

// Shapes are the bandwidths that the workloads of the node of that name are limited to,
// by link.
func Shapes(o Options, world model.World) map[string]plan.Shape {
	return shapesOf(limited(o.Node, maps.Values(world)))
}

func (f *family) withHosts(world model.World) plan.Table {
	t := f.table()
	hosts := t.Sets[AllHosts]
	for _, v := range world {
		if a := hostAddr(v, f.v6); hosts != nil && a.IsValid() {
			hosts.Members[plan.AddrMember(a)] = struct{}{}
		}
	}
	return t
}

// hostAddr is the address of that family, if v is a node that has one; else zero.
func hostAddr(v model.Value, v6 bool) netip.Addr {
	n, _ := v.(model.Node)
	return n.Addr(v6).Addr()
}
