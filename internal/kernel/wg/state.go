package wg

import (
	"crypto/ecdh"
	"crypto/rand"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/plan"
)

// state is what a device has in the kernel.
type state struct {
	index  int32
	public plan.PublicKey // zero: it has no key
	port   uint16
	mark   uint32
	peers  map[plan.PublicKey]*peer
	owners map[netip.Prefix]plan.PublicKey // of allowed prefixes, of which each has one
}

// peer is what a peer has in the kernel.
type peer struct {
	endpoint  netip.AddrPort
	keepalive time.Duration
	allowed   map[netip.Prefix]struct{}
}

// change is what to write of one peer.
type change struct {
	key       plan.PublicKey
	remove    bool
	whole     bool // allowed is all that it is allowed, not an addition
	endpoint  netip.AddrPort
	keepalive time.Duration
	allowed   []netip.Prefix
}

func newState() *state {
	return &state{peers: map[plan.PublicKey]*peer{}, owners: map[netip.Prefix]plan.PublicKey{}}
}

// allow moves a prefix to a peer.
func (s *state) allow(p netip.Prefix, k plan.PublicKey) {
	if owner, ok := s.owners[p]; ok && owner != k {
		delete(s.peers[owner].allowed, p)
	}
	s.owners[p] = k
	s.peers[k].allowed[p] = struct{}{}
}

// missing is what to add so that the peer has all that is wanted.
func (s *state) missing(k plan.PublicKey, want plan.WireGuardPeerAttrs) (change, bool) {
	c := change{key: k, endpoint: want.Endpoint, keepalive: want.Keepalive}
	for p := range want.Allowed.All() {
		if s.owners[p] != k {
			c.allowed = append(c.allowed, p)
		}
	}
	have := s.peers[k]
	return c, have == nil || len(c.allowed) > 0 || have.endpoint != want.Endpoint || have.keepalive != want.Keepalive
}

// excess is what to write anew of a peer that has more than is wanted.
func (s *state) excess(k plan.PublicKey, want plan.WireGuardPeerAttrs) (change, bool) {
	have := s.peers[k]
	if have == nil {
		return change{}, false
	}
	c := change{key: k, whole: true, endpoint: want.Endpoint, keepalive: want.Keepalive, allowed: slices.Collect(want.Allowed.All())}
	return c, len(have.allowed) != len(c.allowed)
}

func (s *state) added(list []change) {
	for _, c := range list {
		if s.peers[c.key] == nil {
			s.peers[c.key] = &peer{allowed: map[netip.Prefix]struct{}{}}
		}
		s.peers[c.key].endpoint, s.peers[c.key].keepalive = c.endpoint, c.keepalive
		for _, p := range c.allowed {
			s.allow(p, c.key)
		}
	}
}

func (s *state) replaced(list []change) {
	for _, c := range list {
		for p := range s.peers[c.key].allowed {
			delete(s.owners, p)
		}
		clear(s.peers[c.key].allowed)
	}
	s.added(list)
}

func (s *state) removed(list []change) {
	for _, c := range list {
		for p := range s.peers[c.key].allowed {
			delete(s.owners, p)
		}
		delete(s.peers, c.key)
	}
}

// newKey makes a private key and its public half.
func newKey() (*[32]byte, plan.PublicKey, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, plan.PublicKey{}, err
	}
	private := [32]byte(k.Bytes())
	// As wg(8) prints it; the kernel and X25519 do the same with any 32 bytes.
	private[0] &= 248
	private[31] = private[31]&127 | 64
	return &private, plan.PublicKey(k.PublicKey().Bytes()), nil
}
