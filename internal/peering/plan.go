// Package peering decides with whom one node speaks BGP, how, and which
// prefixes it originates. It does in process what Calico's confd does with
// text templates for BIRD.
//
//	model.Batch ─► View.Step ─► Plan ─┬─► bgp.Config ──► speaker
//	                                  └─► routes to peers ─► route.Graph.Fix
//
// A node has a session with
//
//  1. every address that a BGPPeer for it names, the most special BGPPeer
//     first: one for this node by name, by selector, for all nodes;
//  2. every other node, unless the mesh is off or one of the two is a route
//     reflector.
//
// One address has one session: the first of this list that asks for it.
// Whoever can't have a session as asked for has none: a peer without its
// password or its filters is left out and reported, not let in.
//
// Exported is what lies in a pool that may be exported, whoever originated it.
// Everything is imported, as Calico does: what a peer may say is the peer's
// configuration. Whether a learned route is put to use is package route's.
//
// Plan is pure and starts from nothing each time, in time proportional to
// nodes + BGPPeers × nodes that they select. The speaker finds out what is
// new, so an unchanged session is never disturbed.
package peering

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// DefaultASN is the AS number of nodes that have none set anywhere.
const DefaultASN = 64512

// exportPolicy is the name of the policy for all peers in bgp.Config.Policies.
const exportPolicy = "pools"

// Options are what the agent knows and the datastore does not.
type Options struct {
	// RouterID is the BGP identifier, an IPv4 address (CALICO_ROUTER_ID). Zero
	// means the node's IPv4 address or, without one, a hash of its name.
	RouterID netip.Addr
	// HashRouterID means the hash in any case (CALICO_ROUTER_ID=hash).
	HashRouterID bool
	// Secrets are the passwords that could be found. A session whose password
	// is not among them is not made.
	Secrets map[model.SecretRef]string
	// FloatingIPs says that those of the node's workloads lead to them: they are announced,
	// too.
	FloatingIPs bool
}

// Plan returns what node's speaker must be in a world: its configuration, the
// routes to peers that the user wrote (BGPPeer reachableBy) by destination,
// and what it could not do, sorted. The configuration is always valid; without
// an object for the node it has no peers.
func Plan(node string, w model.World, opt Options) (bgp.Config, map[netip.Prefix]plan.Hops, []model.Problem) {
	b := newBuilder(node, w, opt)
	b.cfg.ASN, b.cfg.RouterID, b.cfg.ListenPort = b.asn(b.self), b.routerID(), b.port(b.self)
	b.cfg.Policies = map[string]bgp.Policy{exportPolicy: b.export()}
	b.cfg.Networks = b.networks()
	if b.bindsNodeIP() {
		for _, p := range []netip.Prefix{b.self.IPv4, b.self.IPv6} {
			if p.IsValid() {
				b.cfg.ListenAddrs = append(b.cfg.ListenAddrs, p.Addr())
			}
		}
	}
	if !b.known {
		b.problem(b.self.Key(), "not in the datastore: no BGP sessions until it is")
		return b.cfg, nil, b.problems
	}
	for _, name := range []string{"default", "node." + node} {
		if c := b.configs[name]; len(c.Unbuilt) > 0 {
			b.problem(c.Key(), "no effect in this version: %s", strings.Join(c.Unbuilt, ", "))
		}
	}
	for _, p := range b.peers {
		b.explicit(p)
	}
	b.mesh()
	slices.SortFunc(b.problems, func(x, y model.Problem) int { return strings.Compare(x.String(), y.String()) })
	return b.cfg, b.fixed, slices.Compact(b.problems)
}

// builder holds the parts of a world that matter, sorted, and what is made of
// them so far.
type builder struct {
	node    string
	opt     Options
	self    model.Node
	known   bool // self is in the datastore
	nodes   []model.Node
	byAddr  map[netip.Addr]model.Node
	configs map[string]model.BGPConfig
	peers   []model.Peer // most special first
	pools   []model.Pool // most specific first
	blocks  []netip.Prefix
	addrs   []netip.Addr // of workloads on this node

	cfg      bgp.Config
	from     map[netip.Addr]demand // who asked for the session with an address
	fixed    map[netip.Prefix]plan.Hops
	problems []model.Problem
}

// demand is a session that is made.
type demand struct {
	key  model.Key // of the object that asked for it
	name string    // in Config.Peers
}

func newBuilder(node string, w model.World, opt Options) *builder {
	b := &builder{
		node: node, opt: opt, self: model.Node{Name: node},
		byAddr: map[netip.Addr]model.Node{}, configs: map[string]model.BGPConfig{},
		cfg:  bgp.Config{Peers: map[string]bgp.Peer{}},
		from: map[netip.Addr]demand{}, fixed: map[netip.Prefix]plan.Hops{},
	}
	for _, v := range w {
		switch v := v.(type) {
		case model.Node:
			b.nodes = append(b.nodes, v)
			if v.Name == node {
				b.self, b.known = v, true
			}
		case model.BGPConfig:
			b.configs[v.Name] = v
		case model.Peer:
			b.peers = append(b.peers, v)
		case model.Pool:
			b.pools = append(b.pools, v)
		case model.Block:
			if concerns(node, v) {
				b.blocks = append(b.blocks, v.CIDR)
			}
		case model.Endpoint:
			if concerns(node, v) {
				b.addrs = append(b.addrs, v.Addrs...)
				for _, f := range v.FloatingIPs {
					if opt.FloatingIPs {
						b.addrs = append(b.addrs, f.External)
					}
				}
			}
		}
	}
	b.sort()
	return b
}

func (b *builder) sort() {
	slices.SortFunc(b.nodes, func(x, y model.Node) int { return strings.Compare(x.Name, y.Name) })
	for _, n := range slices.Backward(b.nodes) {
		for _, p := range []netip.Prefix{n.IPv4, n.IPv6} {
			if p.IsValid() {
				b.byAddr[p.Addr()] = n // of two with one address the first by name
			}
		}
	}
	slices.SortFunc(b.peers, func(x, y model.Peer) int {
		if d := generality(x) - generality(y); d != 0 {
			return d
		}
		return strings.Compare(x.Name, y.Name)
	})
	slices.SortFunc(b.pools, func(x, y model.Pool) int {
		if d := y.CIDR.Bits() - x.CIDR.Bits(); d != 0 {
			return d
		}
		if d := x.CIDR.Addr().Compare(y.CIDR.Addr()); d != 0 {
			return d
		}
		return strings.Compare(x.Name, y.Name)
	})
}

// generality orders BGPPeers: for a node by name, by selector, for all.
func generality(p model.Peer) int {
	switch {
	case p.Node != "":
		return 0
	case p.NodeSelector != nil:
		return 1
	}
	return 2
}

// asn is the AS number of n: its own, or the cluster's. The configuration of
// one node can't set it.
func (b *builder) asn(n model.Node) uint32 {
	if n.ASN != 0 {
		return n.ASN
	}
	if c := b.configs["default"]; c.ASN != nil && *c.ASN != 0 {
		return *c.ASN
	}
	return DefaultASN
}

// port is where n listens; 0 means the default port.
func (b *builder) port(n model.Node) uint16 {
	for _, name := range []string{"node." + n.Name, "default"} {
		if c := b.configs[name]; c.ListenPort != nil {
			return *c.ListenPort
		}
	}
	return 0
}

func (b *builder) bindsNodeIP() bool {
	return b.configs["default"].BindNodeIP || b.configs["node."+b.node].BindNodeIP
}

// routerID is the BGP identifier, which must differ between all speakers.
func (b *builder) routerID() netip.Addr {
	switch {
	case b.opt.HashRouterID:
	case b.opt.RouterID.IsValid():
		return b.opt.RouterID
	case b.self.IPv4.IsValid():
		return b.self.IPv4.Addr()
	}
	sum := sha256.Sum256([]byte(b.node))
	if sum[0]%224 == 0 {
		sum[0] = 1 // 0/8 is no host
	}
	return netip.AddrFrom4([4]byte{sum[0] % 224, sum[1], sum[2], sum[3]}) // nor is 224/3
}

// networks are the prefixes that this node originates: its blocks, and each
// address of its workloads that lies in none of them.
func (b *builder) networks() []bgp.Network {
	prefixes := map[netip.Prefix]struct{}{}
	for _, p := range b.blocks {
		prefixes[p] = struct{}{}
	}
	for _, a := range b.addrs {
		if !slices.ContainsFunc(b.blocks, func(p netip.Prefix) bool { return p.Contains(a) }) {
			prefixes[netip.PrefixFrom(a, a.BitLen())] = struct{}{}
		}
	}
	var out []bgp.Network
	for p := range prefixes {
		if b.exported(p) {
			out = append(out, bgp.Network{Prefix: p})
		}
	}
	slices.SortFunc(out, func(x, y bgp.Network) int { return comparePrefixes(x.Prefix, y.Prefix) })
	return out
}

func comparePrefixes(a, b netip.Prefix) int {
	if d := a.Addr().Compare(b.Addr()); d != 0 {
		return d
	}
	return a.Bits() - b.Bits()
}

// exported reports whether the most specific pool around p lets it out. What
// is in no pool stays in.
func (b *builder) exported(p netip.Prefix) bool {
	for _, pool := range b.pools {
		if pool.CIDR.Bits() <= p.Bits() && pool.CIDR.Contains(p.Addr()) {
			return !pool.DisableBGPExport
		}
	}
	return false
}

// export is exported in the language of the speaker, for learned routes too.
func (b *builder) export() bgp.Policy {
	policy := bgp.Policy{}
	for _, pool := range b.pools {
		policy = append(policy, bgp.Rule{Prefix: pool.CIDR, Op: bgp.In, Accept: !pool.DisableBGPExport})
	}
	return policy
}

func (b *builder) problem(k model.Key, format string, args ...any) {
	b.problems = append(b.problems, model.Problem{Key: k, Text: fmt.Sprintf(format, args...)})
}
