package edge

import (
	"fmt"
	"net/netip"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Names of the base chains of floating addresses.
const (
	FloatingIn  = "nat-prerouting"
	FloatingOut = "nat-output"
)

// floatingIPs are those of the family that count, each external address once: that of the
// first endpoint in order. With FelixConfiguration's floatingIPs Disabled none does.
func (f *family) floatingIPs() []model.FloatingIP {
	if !f.nat.FloatingIPs {
		return nil
	}
	var out []model.FloatingIP
	seen := map[netip.Addr]bool{}
	for _, e := range f.endpoints {
		for _, n := range e.FloatingIPs {
			if n.External.Is4() != f.v6 && !seen[n.External] {
				seen[n.External] = true
				out = append(out, n)
			}
		}
	}
	return out
}

// floating leads connections to a floating address to the workload that has it, whether
// they come from elsewhere or from the node itself. A workload that connects to its own
// gets the floating address as source: from its own address it would answer
// itself directly, and not know the connection.
func (f *family) floating(t plan.Table) (leaving []plan.Rule) {
	var to []plan.Rule
	for _, n := range f.floatingIPs() {
		comment := fmt.Sprintf("floating address of %v", n.Internal)
		to = append(to, plan.Rule{
			Match: []plan.Match{{Kind: plan.MatchDstNet, Net: single(n.External)}},
			Count: true, Verdict: plan.DNAT, NAT: &plan.NAT{Addr: n.Internal}, Comment: comment,
		})
		leaving = append(leaving, plan.Rule{
			Match: []plan.Match{{Kind: plan.MatchSrcNet, Net: single(n.Internal)}, {Kind: plan.MatchDstNet, Net: single(n.Internal)}},
			Count: true, Verdict: plan.SNAT, NAT: &plan.NAT{Addr: n.External}, Comment: comment,
		})
	}
	if len(to) > 0 {
		base(t, FloatingIn, plan.Base{Hook: plan.Prerouting, Priority: plan.PriorityDestinationNAT, Type: plan.ChainNAT}, to)
		base(t, FloatingOut, plan.Base{Hook: plan.Output, Priority: plan.PriorityDestinationNAT, Type: plan.ChainNAT}, to)
	}
	return leaving
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
