package peering

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// explicit makes the sessions of one BGPPeer on this node: those that it asks
// this node for and, unless it is manual, those by which this node answers.
func (b *builder) explicit(p model.Peer) {
	applies := b.applies(p, b.self)
	switch {
	case p.PeerSelector == nil && !p.Addr.IsValid():
		if applies {
			b.problem(p.Key(), "localWorkloadSelector has no effect in this version: set peerIP or peerSelector")
		}
		return
	case p.PeerSelector == nil:
		if applies {
			b.remote(p)
		}
		return
	}
	answers := !p.Manual && p.PeerSelector.Matches(b.self.Labels)
	if !applies && !answers {
		return
	}
	for _, n := range b.nodes {
		switch {
		case n.Name == b.node:
		case applies && p.PeerSelector.Matches(n.Labels):
			b.between(p, n, p.LocalASN, b.asn(n))
		case answers && b.applies(p, n):
			// The other end shows the AS number that p tells it to.
			b.between(p, n, 0, orElse(p.LocalASN, b.asn(n)))
		}
	}
}

func orElse(asn, other uint32) uint32 {
	if asn != 0 {
		return asn
	}
	return other
}

// applies reports whether p is for n.
func (b *builder) applies(p model.Peer, n model.Node) bool {
	switch {
	case p.Node != "":
		return p.Node == n.Name
	case p.NodeSelector != nil:
		return p.NodeSelector.Matches(n.Labels)
	}
	return true
}

// remote makes the session to the address that p names. Where that is a node,
// what p leaves out is the node's.
func (b *builder) remote(p model.Peer) {
	a, port, asn := p.Addr.Addr(), p.Addr.Port(), p.ASN
	if n, ok := b.byAddr[a]; ok {
		if port == 0 {
			port = b.port(n)
		}
		asn = orElse(asn, b.asn(n))
	}
	asn = orElse(asn, b.asn(model.Node{}))
	name := sessionName(kindOf(p), a)
	if p.Addr.Port() != 0 {
		name += "_port_" + strconv.Itoa(int(p.Addr.Port()))
	}
	made := b.session(p, name, bgp.Peer{Addr: a, Port: port, ASN: asn, LocalASN: p.LocalASN})
	if made && p.ReachableBy.IsValid() {
		b.fixed[netip.PrefixFrom(a.WithZone(""), a.BitLen())] = plan.MakeHops(p.ReachableBy)
	}
}

// between makes the sessions of p to another node, one for each family in
// which both have an address.
func (b *builder) between(p model.Peer, n model.Node, localASN, asn uint32) {
	for _, v6 := range []bool{false, true} {
		if a := n.Addr(v6); a.IsValid() && b.self.Addr(v6).IsValid() {
			b.session(p, sessionName(kindOf(p), a.Addr()),
				bgp.Peer{Addr: a.Addr(), Port: b.port(n), ASN: asn, LocalASN: localASN})
		}
	}
}

// session completes s with what p says and adds it. It reports whether the
// session is p's.
func (b *builder) session(p model.Peer, name string, s bgp.Peer) bool {
	local := b.self.Addr(!s.Addr.Is4())
	switch {
	case b.own(s.Addr):
		return false // a BGPPeer for many nodes may well name one of them
	case !local.IsValid():
		if p.Node != "" {
			b.problem(p.Key(), "no session with %v: node %s has no address of that family", s.Addr, b.node)
		}
		return false
	case len(p.Filters) > 0:
		b.problem(p.Key(), "no session: filters %s have no effect in this version, and without them it would be more open than asked for",
			strings.Join(p.Filters, ", "))
		return false
	}
	var ok bool
	if s.Password, ok = b.password(p.Key(), p.Password); !ok {
		return false
	}
	if !p.NoSourceAddr {
		s.Local = local.Addr()
	}
	s.Kind, s.NextHop = kindOf(p), nextHops(p.NextHop)
	s.RestartTime, s.KeepaliveTime, s.TTLSecurity = p.RestartTime, p.Keepalive, p.TTLSecurity
	s.AllowLocalAS = uint8(min(max(p.AllowLocalAS, 0), 255))
	return b.add(p.Key(), name, s)
}

// mesh makes the sessions with all other nodes that have none yet.
func (b *builder) mesh() {
	c := b.configs["default"]
	if c.Mesh != nil && !*c.Mesh || b.self.RouteReflector.IsValid() {
		return
	}
	for _, n := range b.nodes {
		if n.Name == b.node || n.RouteReflector.IsValid() {
			continue
		}
		for _, v6 := range []bool{false, true} {
			a, local := n.Addr(v6).Addr(), b.self.Addr(v6).Addr()
			if _, taken := b.from[a]; taken || !a.IsValid() || !local.IsValid() || b.own(a) {
				continue
			}
			password, ok := b.password(c.Key(), c.MeshPassword)
			if !ok {
				return // nor has any other
			}
			b.add(n.Key(), sessionName(bgp.NodeMesh, a), bgp.Peer{
				Kind: bgp.NodeMesh, Addr: a, Port: b.port(n), ASN: b.asn(n), Local: local,
				Password: password, RestartTime: c.MeshRestartTime,
			})
		}
	}
}

// add takes a session into the configuration, unless its address has another
// one or the speaker could not run it. It reports whether the address has a
// session of that object.
func (b *builder) add(from model.Key, name string, s bgp.Peer) bool {
	if s.LocalASN == b.cfg.ASN {
		s.LocalASN = 0
	}
	b.reflect(&s)
	s.Export = exportPolicy
	if first, taken := b.from[s.Addr]; taken {
		other := b.cfg.Peers[first.name]
		other.Kind = s.Kind
		if other != s {
			b.problem(from, "no session with %v: %v asks for it already, in another way; an address has one session", s.Addr, first.key)
		}
		return first.key == from
	}
	alone := b.cfg
	alone.Peers, alone.Networks = map[string]bgp.Peer{name: s}, nil
	if err := alone.Validate(); err != nil {
		b.problem(from, "no session with %v: %v", s.Addr, err)
		return false
	}
	b.cfg.Peers[name], b.from[s.Addr] = s, demand{from, name}
	return true
}

// reflect marks s as route reflection where this node is a reflector: iBGP
// peers of its own cluster are other reflectors, all others are clients.
func (b *builder) reflect(s *bgp.Peer) {
	cluster := b.self.RouteReflector
	if !cluster.IsValid() || s.ASN != orElse(s.LocalASN, b.cfg.ASN) {
		return
	}
	s.ClusterID = cluster
	s.RRClient = b.byAddr[s.Addr].RouteReflector != cluster
}

// password finds the password of sessions of k; false when they should have one
// that is not known.
func (b *builder) password(k model.Key, ref model.SecretRef) (bgp.Secret, bool) {
	if ref == (model.SecretRef{}) {
		return "", true
	}
	s, ok := b.opt.Secrets[ref]
	if !ok || s == "" {
		b.problem(k, "no session: its password, key %s of secret %s, is not to be found", ref.Key, ref.Name)
		return "", false
	}
	return bgp.Secret(s), true
}

// own reports whether a is an address of this node.
func (b *builder) own(a netip.Addr) bool {
	return a == b.self.IPv4.Addr() || a == b.self.IPv6.Addr()
}

func kindOf(p model.Peer) bgp.PeerKind {
	if generality(p) == 2 {
		return bgp.GlobalPeer
	}
	return bgp.NodePeer
}

func nextHops(m model.NextHopMode) bgp.NextHopMode {
	switch m {
	case model.NextHopSelf:
		return bgp.NextHopSelf
	case model.NextHopKeep:
		return bgp.NextHopKeep
	}
	return bgp.NextHopAuto
}

// sessionName is the name of Calico's BIRD protocol: Mesh_10_0_0_2.
func sessionName(k bgp.PeerKind, a netip.Addr) string {
	prefix := "Mesh_"
	switch k {
	case bgp.NodePeer:
		prefix = "Node_"
	case bgp.GlobalPeer:
		prefix = "Global_"
	}
	return prefix + strings.Map(func(r rune) rune {
		if strings.ContainsRune(".:%", r) {
			return '_'
		}
		return r
	}, a.String())
}
