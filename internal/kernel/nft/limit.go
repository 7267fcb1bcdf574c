package nft

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// Attributes of ct count (linux/netfilter/nf_tables.h), which x/sys does not name.
const (
	nftaConnlimitCount, nftaConnlimitFlags = 1, 2

	overLimit = 1 // NFT_LIMIT_F_INV, NFT_CONNLIMIT_F_INV
)

// matchOver encodes a match that fits what exceeds a limit, or with Not what does not.
// The count is the rule's own, and begins anew when its chain is written.
func (r *ruler) matchOver(m *plan.Match) error {
	if m.Rate == 0 {
		return fmt.Errorf("limit of 0: want at least 1")
	}
	var flags uint32
	if !m.Not {
		flags = overLimit
	}
	if m.Kind == plan.MatchOverConns {
		r.expr("connlimit", func() {
			r.u32(nftaConnlimitCount, m.Rate)
			if flags != 0 { // or the kernel does not say
				r.u32(nftaConnlimitFlags, flags)
			}
		})
		return nil
	}
	r.expr("limit", func() {
		r.u64(unix.NFTA_LIMIT_RATE, uint64(m.Rate))
		r.u64(unix.NFTA_LIMIT_UNIT, 1)
		r.u32(unix.NFTA_LIMIT_BURST, max(m.Burst, 1))
		r.u32(unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS)
		r.u32(unix.NFTA_LIMIT_FLAGS, flags)
	})
	return nil
}

// setDSCP writes the six bits of the DSCP into the first two bytes of the packet's
// header (RFC 2474), and in IPv4 mends its checksum.
func (r *ruler) setDSCP(dscp uint8) error {
	if dscp > 63 {
		return fmt.Errorf("DSCP %d: want 0 to 63", dscp)
	}
	// IPv4: version and length, then DSCP and ECN. IPv6: version, traffic class.
	keep, set := uint16(0xff03), uint16(dscp)<<2
	checksum, checksumAt := uint32(unix.NFT_PAYLOAD_CSUM_INET), uint32(10)
	if r.v6 {
		keep, set = 0xf03f, uint16(dscp)<<6
		checksum, checksumAt = unix.NFT_PAYLOAD_CSUM_NONE, 0
	}
	r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 0, 2, 0)
	r.bitwise(be16(keep), be16(set))
	r.expr("payload", func() {
		r.u32(unix.NFTA_PAYLOAD_SREG, reg(0))
		r.u32(unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER)
		r.u32(unix.NFTA_PAYLOAD_OFFSET, 0)
		r.u32(unix.NFTA_PAYLOAD_LEN, 2)
		r.u32(unix.NFTA_PAYLOAD_CSUM_TYPE, checksum)
		r.u32(unix.NFTA_PAYLOAD_CSUM_OFFSET, checksumAt)
		r.u32(unix.NFTA_PAYLOAD_CSUM_FLAGS, 0)
	})
	return nil
}
