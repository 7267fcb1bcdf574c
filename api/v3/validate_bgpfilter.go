package v3

import (
	"fmt"
	"math"
	"net/netip"
)

// Limits of filters, those of Calico's CRD.
const (
	maxOperations = 10
	maxPrepended  = 10 // AS numbers of one operation
)

func (c *checker) bgpFilter(s *BGPFilterSpec) {
	for _, list := range []struct {
		field string
		rules []BGPFilterRule
		want  family
	}{
		{"spec.exportV4", s.ExportV4, ipv4},
		{"spec.importV4", s.ImportV4, ipv4},
		{"spec.exportV6", s.ExportV6, ipv6},
		{"spec.importV6", s.ImportV6, ipv6},
	} {
		if !c.atMost(list.field, len(list.rules), MaxFilterRules) {
			continue
		}
		for i := range list.rules {
			c.filterRule(index(list.field, i), &list.rules[i], list.want)
		}
	}
}

func (c *checker) filterRule(field string, r *BGPFilterRule, want family) {
	c.filterPrefix(field, r, want)
	c.oneOf(field+".source", string(r.Source), "RemotePeers")
	c.oneOf(field+".peerType", string(r.PeerType), "eBGP", "iBGP")
	if name := r.Interface; name != "" && (len(name) > 15 || !consistsOf(name, "._-*")) {
		c.fail(field+".interface", name, "must be 1 to 15 letters, digits, '.', '_', '-' and '*'")
	}
	if m := r.Communities; m != nil {
		if len(m.Values) != 1 {
			c.fail(field+".communities.values", nil, fmt.Sprintf("has %d entries: must have exactly one", len(m.Values)))
		}
		for i, value := range m.Values {
			c.community(index(field+".communities.values", i), value)
		}
	}
	c.number(field+".priority", r.Priority, 1, math.MaxInt32-1)
	switch {
	case r.Action == "":
		c.fail(field+".action", nil, "must be set")
	case r.Action == BGPFilterReject && len(r.Operations) > 0:
		c.fail(field+".operations", nil, "must be left out unless the action is Accept")
	}
	c.oneOf(field+".action", string(r.Action), "Accept", "Reject")
	if c.atMost(field+".operations", len(r.Operations), maxOperations) {
		for i := range r.Operations {
			c.filterOperation(index(field+".operations", i), &r.Operations[i])
		}
	}
}

// filterPrefix checks what is asked of a route's prefix; want is the family of the
// list.
func (c *checker) filterPrefix(field string, r *BGPFilterRule, want family) {
	c.oneOf(field+".matchOperator", string(r.MatchOperator), "Equal", "NotEqual", "In", "NotIn")
	switch {
	case r.CIDR == "" && r.MatchOperator != "":
		c.fail(field+".cidr", nil, "must be set with matchOperator")
	case r.CIDR == "" && r.PrefixLength != nil:
		c.fail(field+".cidr", nil, "must be set with prefixLength")
	case r.CIDR != "" && r.MatchOperator == "":
		c.fail(field+".matchOperator", nil, "must be set with cidr")
	}
	if r.CIDR != "" {
		if p, ok := c.masked(field+".cidr", r.CIDR); ok && familyOf(p.Addr()) != want {
			c.fail(field+".cidr", r.CIDR, fmt.Sprintf("must be %v in this list", want))
		}
	}
	if l := r.PrefixLength; l != nil {
		most := netip.IPv4Unspecified().BitLen()
		if want == ipv6 {
			most = netip.IPv6Unspecified().BitLen()
		}
		c.prefixBits(field+".prefixLength.min", l.Min, most)
		c.prefixBits(field+".prefixLength.max", l.Max, most)
	}
}

// prefixBits checks a prefix length; nil is allowed.
func (c *checker) prefixBits(field string, bits *int32, most int) {
	if bits != nil && (*bits < 0 || int(*bits) > most) {
		c.fail(field, *bits, fmt.Sprintf("must be 0 to %d", most))
	}
}

func (c *checker) community(field, value string) {
	if reason := communityFault(value); reason != "" {
		c.fail(field, value, reason)
	}
}

func (c *checker) filterOperation(field string, o *BGPFilterOperation) {
	c.exactlyOne(field, map[string]bool{
		"addCommunity": o.AddCommunity != nil, "prependASPath": o.PrependASPath != nil, "setPriority": o.SetPriority != nil,
	})
	if a := o.AddCommunity; a != nil {
		c.community(field+".addCommunity.value", a.Value)
	}
	if p := o.PrependASPath; p != nil {
		c.between(field+".prependASPath.prefix", len(p.Prefix), maxPrepended)
	}
	if p := o.SetPriority; p != nil {
		if p.Value == nil {
			c.fail(field+".setPriority.value", nil, "must be set")
		}
		c.number(field+".setPriority.value", p.Value, 1, math.MaxInt32-1)
	}
}
