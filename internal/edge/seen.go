package edge

import (
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Seen is the source address under which the connection that p opens leaves the node, and
// why, as far as the datastore tells: the address of the interface that it leaves by is
// taken to be the node's own. Changed is false where the source stays.
func Seen(o Options, world model.World, p plan.Packet) (src netip.Addr, why string, changed bool) {
	self, _ := world[model.Node{Name: o.Node}.Key()].(model.Node)
	p.SrcLocal = p.Src == self.Addr(p.Src.Is6()).Addr()
	t := Translate(o, world, p)
	switch {
	case t.Verdict == plan.SNAT:
		src = t.NAT.Addr
	case t.Verdict == plan.Masquerade && t.Origin != (model.Key{}):
		src = self.Addr(p.Src.Is6()).Addr()
	}
	return src, t.Text, src.IsValid()
}
