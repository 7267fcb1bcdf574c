package bgp

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// noRule is the index of no rule: accepted unchanged.
const noRule = -1

// judge gives the index of the rule that accepts the route, noRule if p is
// absent, and false if the route is refused.
func (p *compiled) judge(prefix netip.Prefix, a *wire.Attrs, from Sources) (int, bool) {
	if p == nil {
		return noRule, true
	}
	for i := range p.policy {
		if r := &p.policy[i]; r.matches(prefix, a, from) {
			return i, r.Accept
		}
	}
	return 0, false
}

// compiled is a policy that a peer uses; nil stands for none.
type compiled struct{ policy Policy }

func (r *Rule) matches(prefix netip.Prefix, a *wire.Attrs, from Sources) bool {
	switch {
	case r.Sources != 0 && r.Sources&from == 0:
		return false
	case r.Prefix.IsValid() && !r.relates(prefix):
		return false
	case r.MaxBits != 0 && (prefix.Bits() < int(r.MinBits) || prefix.Bits() > int(r.MaxBits)):
		return false
	case r.Community != 0 && !slices.Contains(a.Communities, r.Community):
		return false
	case r.ASPathPrefix != "" && !strings.HasPrefix(a.ASPath.String()+" ", r.ASPathPrefix+" "):
		return false
	}
	return true
}

func (r *Rule) relates(p netip.Prefix) bool {
	in := p.Bits() >= r.Prefix.Bits() && r.Prefix.Contains(p.Addr())
	switch r.Op {
	case Equal:
		return p == r.Prefix
	case NotEqual:
		return p != r.Prefix
	case NotIn:
		return !in
	}
	return in
}

// change gives the attributes as rule i changes them; a itself is not modified.
func (p *compiled) change(i int, a *wire.Attrs) *wire.Attrs {
	if i == noRule {
		return a
	}
	r := &p.policy[i]
	if len(r.AddCommunities)+len(r.AddLargeCommunities)+len(r.PrependAS) == 0 && r.LocalPref == 0 {
		return a
	}
	c := *a
	c.Communities = union(c.Communities, r.AddCommunities)
	for _, l := range r.AddLargeCommunities {
		if !slices.Contains(c.Large, [3]uint32(l)) {
			c.Large = append(slices.Clip(c.Large), l)
		}
	}
	c.ASPath = c.ASPath.Prepend(r.PrependAS...)
	if r.LocalPref != 0 {
		c.LocalPref, c.HasLocalPref = r.LocalPref, true
	}
	return &c
}

// union appends to a what b has more; a is not modified.
func union(a, b []uint32) []uint32 {
	a = slices.Clip(a)
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}

// equalPolicy reports whether two policies judge and change alike.
func equalPolicy(a, b Policy) bool {
	return slices.EqualFunc(a, b, func(x, y Rule) bool {
		return x.Prefix == y.Prefix && x.Op == y.Op && x.MinBits == y.MinBits && x.MaxBits == y.MaxBits &&
			x.Sources == y.Sources && x.Community == y.Community && x.ASPathPrefix == y.ASPathPrefix &&
			x.Accept == y.Accept && x.LocalPref == y.LocalPref &&
			slices.Equal(x.AddCommunities, y.AddCommunities) &&
			slices.Equal(x.AddLargeCommunities, y.AddLargeCommunities) && slices.Equal(x.PrependAS, y.PrependAS)
	})
}
