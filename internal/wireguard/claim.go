package wireguard

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
)

// rank orders claims to one prefix, the strongest first.
type rank uint8

const (
	local   rank = iota // a workload of this node has it, whatever IPAM says
	home                // IPAM's blocks say that it is there
	tunnel              // a node's record says that its tunnel's device has it
	address             // it is the node's own
)

// claim is a node's claim to a prefix, and the object that makes it.
type claim struct {
	rank rank
	node string
	by   model.Key
}

func compareClaims(a, b claim) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), strings.Compare(a.node, b.node),
		strings.Compare(string(a.by.Kind), string(b.by.Kind)),
		strings.Compare(a.by.Namespace, b.by.Namespace), strings.Compare(a.by.Name, b.by.Name))
}

// homes is all that counts of a Block: where its addresses are.
type homes struct {
	key model.Key
	at  map[netip.Prefix]string // to node
}

// Key implements [model.Value].
func (h homes) Key() model.Key { return h.key }

func homesOf(b model.Block) homes {
	h := homes{key: b.Key(), at: map[netip.Prefix]string{}}
	for p, node := range b.Homes() {
		h.at[p] = node
	}
	return h
}

// claimsOf are the claims that v makes, nil for none.
func claimsOf(v model.Value) map[netip.Prefix]claim {
	out := map[netip.Prefix]claim{}
	switch v := v.(type) {
	case model.Endpoint:
		for _, a := range v.Addrs {
			out[single(a)] = claim{local, v.Node, v.Key()}
		}
	case homes:
		for p, node := range v.at {
			out[p] = claim{home, node, v.key}
		}
	case model.Node:
		for _, p := range []netip.Prefix{v.IPv4, v.IPv6} {
			if p.IsValid() {
				out[single(p.Addr())] = claim{address, v.Name, v.Key()}
			}
		}
		for _, a := range []netip.Addr{v.IPIPTunnel, v.VXLANTunnel, v.VXLANTunnelV6, v.WireGuardAddr, v.WireGuardAddrV6} {
			if a.IsValid() && a != v.IPv4.Addr() && a != v.IPv6.Addr() {
				out[single(a)] = claim{tunnel, v.Name, v.Key()}
			}
		}
	}
	return out
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (g *Graph) claim(p netip.Prefix, c claim) {
	was := g.winner(p)
	if at, found := slices.BinarySearchFunc(g.claims[p], c, compareClaims); !found {
		g.claims[p] = slices.Insert(g.claims[p], at, c)
	}
	g.moved(p, was)
}

func (g *Graph) unclaim(p netip.Prefix, c claim) {
	was := g.winner(p)
	if at, found := slices.BinarySearchFunc(g.claims[p], c, compareClaims); found {
		g.claims[p] = slices.Delete(g.claims[p], at, at+1)
	}
	if len(g.claims[p]) == 0 {
		delete(g.claims, p)
	}
	g.moved(p, was)
}

// winner is the claim that counts; the zero claim, which has no node: none.
func (g *Graph) winner(p netip.Prefix) claim {
	if list := g.claims[p]; len(list) > 0 {
		return list[0]
	}
	return claim{}
}

// moved takes in that p may be another node's than it was.
func (g *Graph) moved(p netip.Prefix, was claim) {
	now := g.winner(p)
	if now == was {
		return
	}
	g.dirty.prefixes[p] = struct{}{}
	if now.node == was.node {
		return
	}
	if was.node != "" {
		if delete(g.won[was.node], p); len(g.won[was.node]) == 0 {
			delete(g.won, was.node)
		}
		g.dirty.nodes[was.node] = struct{}{}
	}
	if now.node != "" {
		if g.won[now.node] == nil {
			g.won[now.node] = map[netip.Prefix]struct{}{}
		}
		g.won[now.node][p] = struct{}{}
		g.dirty.nodes[now.node] = struct{}{}
	}
}
