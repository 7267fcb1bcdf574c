package route

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// member is another node as the graph keeps it: there may be thousands. It is comparable.
// Lists of two are by family, IPv4 first.
type member struct {
	name string
	addr [2]netip.Addr // zero: none
	vtep [2]netip.Addr // of its VXLAN devices; zero: none
	mac  [2]string     // of the same; empty where there is none
}

// Key implements [model.Value].
func (m member) Key() model.Key { return model.Node{Name: m.name}.Key() }

// family is the index into a list of two.
func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func memberOf(n model.Node) member {
	m := member{
		name: n.Name,
		addr: [2]netip.Addr{n.IPv4.Addr(), n.IPv6.Addr()},
		vtep: [2]netip.Addr{n.VXLANTunnel, n.VXLANTunnelV6},
	}
	for i, mac := range []string{n.VXLANMAC, n.VXLANMACV6} {
		if m.vtep[i].IsValid() {
			m.mac[i] = macOf(n.Name, mac, i == 1)
		}
	}
	return m
}

// macOf is mac, or what stands for none.
func macOf(node, mac string, v6 bool) string {
	if mac == "" {
		return model.VTEPMAC(node, v6)
	}
	return mac
}

// vteps are m's ends of VXLANs: those of which both addresses are known.
func (m member) vteps() []plan.VTEP {
	var out []plan.VTEP
	for i, t := range []tunnel{vxlan, vxlan6} {
		if m.vtep[i].IsValid() && m.addr[i].IsValid() {
			out = append(out, plan.VTEP{
				VTEPKey:   plan.VTEPKey{Link: t.device(), Addr: m.vtep[i]},
				VTEPAttrs: plan.VTEPAttrs{MAC: m.mac[i], Node: m.addr[i]},
			})
		}
	}
	return out
}

// block is a block as the graph keeps it: where its addresses are.
type block struct {
	cidr  netip.Prefix
	owner string // empty: none
	loans []loan // single addresses that are elsewhere
}

// loan is a single address of a block that another node than its owner has.
type loan struct {
	addr netip.Addr
	node string
	from netip.Prefix // the block
}

// Key implements [model.Value].
func (b block) Key() model.Key { return model.BlockKey(b.cidr) }

func blockOf(b model.Block) block {
	out := block{cidr: b.CIDR}
	if !b.Deleted && b.Owner.Type == model.AffinityHost {
		out.owner = b.Owner.Node
	}
	for p, node := range b.Homes() {
		if node != out.owner {
			out.loans = append(out.loans, loan{p.Addr(), node, b.CIDR})
		}
	}
	return out
}

func (b block) empty() bool { return b.owner == "" && len(b.loans) == 0 }

func (b block) equal(o block) bool {
	return b.cidr == o.cidr && b.owner == o.owner && slices.Equal(b.loans, o.loans)
}

// homes yields the prefixes of b that are somewhere, with the nodes.
func (b block) homes(yield func(netip.Prefix, string) bool) {
	if b.owner != "" && !yield(b.cidr, b.owner) {
		return
	}
	for _, l := range b.loans {
		if !yield(host(l.addr), l.node) {
			return
		}
	}
}

// compareLoans orders what blocks say of one address: the smallest block is right.
func compareLoans(a, b loan) int {
	return cmp.Or(cmp.Compare(b.from.Bits(), a.from.Bits()), strings.Compare(a.node, b.node))
}

// owners says who has a thing: names, sorted, of which the first counts.
type owners[K comparable] map[K][]string

func (o owners[K]) add(k K, name string) {
	if at, found := slices.BinarySearch(o[k], name); !found {
		o[k] = slices.Insert(o[k], at, name)
	}
}

func (o owners[K]) remove(k K, name string) {
	at, found := slices.BinarySearch(o[k], name)
	if !found {
		return
	}
	if o[k] = slices.Delete(o[k], at, at+1); len(o[k]) == 0 {
		delete(o, k)
	}
}
