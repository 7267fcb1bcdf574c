package nft

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// Flags of a translation (linux/netfilter/nf_nat.h).
const (
	natMapAddrs     = 1  // NF_NAT_RANGE_MAP_IPS
	natPorts        = 2  // NF_NAT_RANGE_PROTO_SPECIFIED
	natRandomFully  = 16 // NF_NAT_RANGE_PROTO_RANDOM_FULLY
	natSource       = 0  // NFT_NAT_SNAT
	natDestination  = 1  // NFT_NAT_DNAT
	natPortWord     = 4  // the registers that hold the first port, behind an address of IPv6
	natLastPortWord = natPortWord + 4
)

// nat encodes the translation of p's connections: addresses and ports are loaded into
// registers, which the statement names.
func (r *ruler) nat(p *plan.Rule) error {
	var n plan.NAT
	if p.NAT != nil {
		n = *p.NAT
	}
	if n.LastPort < n.FirstPort || n.FirstPort == 0 && n.LastPort > 0 {
		return fmt.Errorf("ports %d-%d: want 1 to 65535, the first not above the last", n.FirstPort, n.LastPort)
	}
	given := p.Verdict == plan.SNAT || p.Verdict == plan.DNAT
	if given != n.Addr.IsValid() || given && n.Addr.Is4() == r.v6 {
		return fmt.Errorf("%v to address %v: want one of the table's family for snat and dnat, and none for masquerade", p.Verdict, n.Addr)
	}
	var flags uint32
	last := natPortWord // one port is in one register, else nft lists a range
	if given {
		flags |= natMapAddrs
		r.load(0, n.Addr.AsSlice())
	}
	if n.LastPort > 0 {
		flags |= natPorts
		r.load(natPortWord, be16(n.FirstPort))
		if n.LastPort > n.FirstPort {
			last = natLastPortWord
			r.load(last, be16(n.LastPort))
		}
	}
	if n.Random {
		flags |= natRandomFully
	}
	switch p.Verdict {
	case plan.SNAT:
		r.translate(natSource, flags, last)
	case plan.DNAT:
		r.translate(natDestination, flags, last)
	default:
		r.masquerade(flags, last)
	}
	return nil
}

func (r *ruler) translate(which, flags uint32, last int) {
	family := uint32(unix.NFPROTO_IPV4)
	if r.v6 {
		family = unix.NFPROTO_IPV6
	}
	r.expr("nat", func() {
		r.u32(unix.NFTA_NAT_TYPE, which)
		r.u32(unix.NFTA_NAT_FAMILY, family)
		r.u32(unix.NFTA_NAT_REG_ADDR_MIN, reg(0))
		r.u32(unix.NFTA_NAT_REG_ADDR_MAX, reg(0))
		if flags&natPorts != 0 {
			r.u32(unix.NFTA_NAT_REG_PROTO_MIN, reg(natPortWord))
			r.u32(unix.NFTA_NAT_REG_PROTO_MAX, reg(last))
		}
		r.u32(unix.NFTA_NAT_FLAGS, flags)
	})
}

func (r *ruler) masquerade(flags uint32, last int) {
	r.expr("masq", func() {
		if flags != 0 {
			r.u32(unix.NFTA_MASQ_FLAGS, flags)
		}
		if flags&natPorts != 0 {
			r.u32(unix.NFTA_MASQ_REG_PROTO_MIN, reg(natPortWord))
			r.u32(unix.NFTA_MASQ_REG_PROTO_MAX, reg(last))
		}
	})
}
