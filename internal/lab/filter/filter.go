// Package filter drops packets in a lab's fabric, as bad cables and strict clouds do: by
// rules of nftables in its namespace, in tables named lab.
//
//	netdev lab, chain PORT at ingress: what a machine sends, first of all:
//	    the strictness of its rack, then the rack's loss
//	inet lab, chain forward: what the fabric passes on between racks:
//	    the strictness of the fabric, then the loss of the rack it goes to
//
// So a packet is exposed to the loss of a rack once: when it enters the segment. The
// fabric's own packets, such as ICMP errors, are exposed to nothing.
//
// Rules are written as netlink messages, since the lab starts no nft, and package nft of
// the node agents has other rules only: no loss, and no chain that sees a port. They are
// made once, when a lab comes up, and gone with its namespace: nothing is read back.
package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/lab/topology"
)

// tableName is that of both tables.
const tableName = "lab"

// ruleset is a transaction of nf_tables that is being written.
type ruleset struct {
	b      []byte
	starts []int // of its messages
}

// hook is where a base chain stands.
type hook struct {
	kind   string // filter
	number uint32
	device string // of ingress hooks
}

// expr appends an expression of a rule.
type expr func(b []byte) []byte

// message appends one of nf_tables; body adds its attributes.
func (r *ruleset) message(typ uint16, family uint8, body func(b []byte) []byte) {
	start := len(r.b)
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_CREATE)
	if typ == unix.NFT_MSG_NEWRULE {
		flags |= unix.NLM_F_APPEND
	}
	r.b = netlink.AppendHeader(r.b, unix.NFNL_SUBSYS_NFTABLES<<8|typ, flags, 0)
	r.b = append(r.b, family, unix.NFNETLINK_V0, 0, 0)
	r.b = body(r.b)
	netlink.EndMessage(r.b, start)
	r.starts = append(r.starts, start)
}

// table makes the lab's table of that family, unless there is one.
func (r *ruleset) table(family uint8) {
	r.message(unix.NFT_MSG_NEWTABLE, family, func(b []byte) []byte {
		return netlink.AppendAttrString(b, unix.NFTA_TABLE_NAME, tableName)
	})
}

// chain makes a chain; at is nil for one that rules jump to.
func (r *ruleset) chain(family uint8, name string, at *hook) {
	const hookNumber, hookPriority, hookDevice = 1, 2, 3 // NFTA_HOOK_*
	r.message(unix.NFT_MSG_NEWCHAIN, family, func(b []byte) []byte {
		b = netlink.AppendAttrString(b, unix.NFTA_CHAIN_TABLE, tableName)
		b = netlink.AppendAttrString(b, unix.NFTA_CHAIN_NAME, name)
		if at == nil {
			return b
		}
		b = nest(b, unix.NFTA_CHAIN_HOOK, func(b []byte) []byte {
			b = netlink.AppendAttrBE32(b, hookNumber, at.number)
			b = netlink.AppendAttrBE32(b, hookPriority, 0)
			if at.device != "" {
				b = netlink.AppendAttrString(b, hookDevice, at.device)
			}
			return b
		})
		return netlink.AppendAttrString(b, unix.NFTA_CHAIN_TYPE, at.kind)
	})
}

// rule adds a rule at the end of a chain.
func (r *ruleset) rule(family uint8, chain string, exprs ...[]expr) {
	r.message(unix.NFT_MSG_NEWRULE, family, func(b []byte) []byte {
		b = netlink.AppendAttrString(b, unix.NFTA_RULE_TABLE, tableName)
		b = netlink.AppendAttrString(b, unix.NFTA_RULE_CHAIN, chain)
		return nest(b, unix.NFTA_RULE_EXPRESSIONS, func(b []byte) []byte {
			for _, e := range slices.Concat(exprs...) {
				b = e(b)
			}
			return b
		})
	})
}

// commit sends the transaction to the kernel of the calling thread's namespace, which
// takes all of it or nothing.
func (r *ruleset) commit() error {
	s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.SendBuffer(len(r.b) + 256); err != nil {
		return err
	}
	batch := appendBatch(nil, unix.NFNL_MSG_BATCH_BEGIN, s.Next())
	var last uint32
	for _, start := range r.starts {
		last = s.Next()
		netlink.Native.PutUint32(r.b[start+8:], last)
	}
	final := r.starts[len(r.starts)-1]
	netlink.Native.PutUint16(r.b[final+6:], netlink.Native.Uint16(r.b[final+6:])|unix.NLM_F_ACK)
	batch = appendBatch(append(batch, r.b...), unix.NFNL_MSG_BATCH_END, s.Next())
	var refused error
	err = s.Exchange(batch, last, func(_ uint32, errno unix.Errno) {
		if refused == nil {
			refused = fmt.Errorf("nf_tables: %w", errno)
		}
	})
	return errors.Join(err, refused)
}

func appendBatch(b []byte, typ uint16, seq uint32) []byte {
	start := len(b)
	b = netlink.AppendHeader(b, typ, unix.NLM_F_REQUEST, seq)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	netlink.EndMessage(b, start)
	return b
}

// nest appends an attribute of attributes.
func nest(b []byte, typ uint16, body func(b []byte) []byte) []byte {
	start := len(b)
	b = body(netlink.OpenNest(b, typ))
	netlink.CloseNest(b, start)
	return b
}

// expression is one by its name in the kernel.
func expression(name string, data func(b []byte) []byte) expr {
	return func(b []byte) []byte {
		return nest(b, unix.NFTA_LIST_ELEM, func(b []byte) []byte {
			b = netlink.AppendAttrString(b, unix.NFTA_EXPR_NAME, name)
			return nest(b, unix.NFTA_EXPR_DATA, data)
		})
	}
}

// value is a nest with data.
func value(b []byte, typ uint16, v []byte) []byte {
	return nest(b, typ, func(b []byte) []byte { return netlink.AppendAttr(b, unix.NFTA_DATA_VALUE, v) })
}

// compare compares register 1 with v.
func compare(op uint32, v []byte) expr {
	return expression("cmp", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_CMP_SREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_CMP_OP, op)
		return value(b, unix.NFTA_CMP_DATA, v)
	})
}

// meta fits packets of which the kernel knows that.
func meta(key uint32, v []byte) []expr {
	load := expression("meta", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_META_KEY, key)
		return netlink.AppendAttrBE32(b, unix.NFTA_META_DREG, unix.NFT_REG_1)
	})
	return []expr{load, compare(unix.NFT_CMP_EQ, v)}
}

// ofVersion fits packets of IPv6, or of IPv4, also where a chain sees frames.
func ofVersion(v6 bool) []expr {
	if v6 {
		return meta(unix.NFT_META_PROTOCOL, []byte{0x86, 0xdd})
	}
	return meta(unix.NFT_META_PROTOCOL, []byte{0x08, 0x00})
}

// outOf fits packets that leave by an interface.
func outOf(link string) []expr {
	return meta(unix.NFT_META_OIFNAME, append([]byte(link), make([]byte, unix.IFNAMSIZ-len(link))...))
}

// address fits packets whose source, or destination, is in p. The family must have
// been asked for before.
func address(destination bool, p netip.Prefix) []expr {
	size := uint32(p.Addr().BitLen() / 8)
	offset := uint32(12) // in the header of IPv4
	if p.Addr().Is6() {
		offset = 8
	}
	if destination {
		offset += size
	}
	mask := make([]byte, size)
	for i := range p.Bits() {
		mask[i/8] |= 1 << (7 - i%8)
	}
	load := expression("payload", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_PAYLOAD_DREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_PAYLOAD_BASE, unix.NFT_PAYLOAD_NETWORK_HEADER)
		b = netlink.AppendAttrBE32(b, unix.NFTA_PAYLOAD_OFFSET, offset)
		return netlink.AppendAttrBE32(b, unix.NFTA_PAYLOAD_LEN, size)
	})
	masked := expression("bitwise", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_BITWISE_SREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_BITWISE_DREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_BITWISE_LEN, size)
		b = value(b, unix.NFTA_BITWISE_MASK, mask)
		return value(b, unix.NFTA_BITWISE_XOR, make([]byte, size))
	})
	return []expr{load, masked, compare(unix.NFT_CMP_EQ, p.Masked().Addr().AsSlice())}
}

// lossBase is what loss is counted in: hundredths of a percent.
const lossBase = 10000

// byChance fits that many of 100 packets.
func byChance(percent float64) []expr {
	load := expression("numgen", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_NG_DREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_NG_MODULUS, lossBase)
		return netlink.AppendAttrBE32(b, unix.NFTA_NG_TYPE, unix.NFT_NG_RANDOM)
	})
	// The register has a number of the machine, and cmp compares bytes.
	most := binary.BigEndian.AppendUint32(nil, uint32(math.Round(percent*lossBase/100)))
	return []expr{load, toNetworkOrder(), compare(unix.NFT_CMP_LT, most)}
}

// toNetworkOrder turns the number in register 1 around.
func toNetworkOrder() expr {
	return expression("byteorder", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_BYTEORDER_SREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_BYTEORDER_DREG, unix.NFT_REG_1)
		b = netlink.AppendAttrBE32(b, unix.NFTA_BYTEORDER_OP, unix.NFT_BYTEORDER_HTON)
		b = netlink.AppendAttrBE32(b, unix.NFTA_BYTEORDER_LEN, 4)
		return netlink.AppendAttrBE32(b, unix.NFTA_BYTEORDER_SIZE, 4)
	})
}

// nfDrop is NF_DROP (linux/netfilter.h).
const nfDrop = 0

// verdict ends a rule; chain is that of a jump or goto.
func verdict(code int32, chain string) []expr {
	return []expr{expression("immediate", func(b []byte) []byte {
		b = netlink.AppendAttrBE32(b, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		return nest(b, unix.NFTA_IMMEDIATE_DATA, func(b []byte) []byte {
			return nest(b, unix.NFTA_DATA_VERDICT, func(b []byte) []byte {
				b = netlink.AppendAttrBE32(b, unix.NFTA_VERDICT_CODE, uint32(code))
				if chain != "" {
					b = netlink.AppendAttrString(b, unix.NFTA_VERDICT_CHAIN, chain)
				}
				return b
			})
		})
	})}
}

// knownFrom is the chain that drops packets unless they are from and to known addresses.
const knownFrom = "known-from"

// knownOnly makes that chain.
func (r *ruleset) knownOnly(family uint8, known []netip.Prefix) {
	const from, to = knownFrom, "known-to"
	r.chain(family, to, nil)
	r.chain(family, from, nil)
	for _, p := range known {
		r.rule(family, from, ofVersion(p.Addr().Is6()), address(false, p), verdict(unix.NFT_GOTO, to))
		r.rule(family, to, ofVersion(p.Addr().Is6()), address(true, p), verdict(unix.NFT_RETURN, ""))
	}
	// Neighbour discovery and what else stays in a segment.
	for _, local := range []string{"fe80::/10", "::/128"} {
		r.rule(family, from, ofVersion(true), address(false, netip.MustParsePrefix(local)), verdict(unix.NFT_RETURN, ""))
	}
	for _, local := range []string{"fe80::/10", "ff02::/16"} {
		r.rule(family, to, ofVersion(true), address(true, netip.MustParsePrefix(local)), verdict(unix.NFT_RETURN, ""))
	}
	for _, chain := range []string{from, to} {
		r.rule(family, chain, ofVersion(false), verdict(nfDrop, ""))
		r.rule(family, chain, ofVersion(true), verdict(nfDrop, ""))
	}
}

// knownAddresses are those that clouds would let pass: of the racks, and outside.
func knownAddresses(t *topology.Topology) []netip.Prefix {
	var out []netip.Prefix
	for _, r := range t.Racks {
		out = append(out, r.Subnets...)
	}
	for _, o := range t.Outside {
		for _, a := range o.Addresses {
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return out
}

// Fabric is what the fabric does to what it passes on, and the ground of what [Port]
// adds. It is for the namespace of the calling thread; bridge names that of the i-th rack.
// The error is the kernel's, which may lack nf_tables or a part of it.
func Fabric(t *topology.Topology, bridge func(i int) string) error {
	var r ruleset
	switch {
	case slices.ContainsFunc(t.Racks, func(r topology.Rack) bool { return r.Strict || r.Loss > 0 }):
		r.table(unix.NFPROTO_NETDEV)
		r.knownOnly(unix.NFPROTO_NETDEV, knownAddresses(t))
	case !t.Strict:
		return nil
	}
	const forward = "forward"
	r.table(unix.NFPROTO_INET)
	r.chain(unix.NFPROTO_INET, forward, &hook{kind: "filter", number: unix.NF_INET_FORWARD})
	if t.Strict {
		r.knownOnly(unix.NFPROTO_INET, knownAddresses(t))
		r.rule(unix.NFPROTO_INET, forward, verdict(unix.NFT_JUMP, knownFrom))
	}
	for i, rack := range t.Racks {
		if rack.Loss > 0 {
			r.rule(unix.NFPROTO_INET, forward, outOf(bridge(i)), byChance(rack.Loss), verdict(nfDrop, ""))
		}
	}
	return r.commit()
}

// Port is what a rack does to what a machine sends, at the fabric's end of its link,
// which exists.
func Port(port string, rack topology.Rack) error {
	if !rack.Strict && rack.Loss == 0 {
		return nil
	}
	const ingress = 0 // NF_NETDEV_INGRESS
	var r ruleset
	r.chain(unix.NFPROTO_NETDEV, port, &hook{kind: "filter", number: ingress, device: port})
	if rack.Strict {
		r.rule(unix.NFPROTO_NETDEV, port, verdict(unix.NFT_JUMP, knownFrom))
	}
	if rack.Loss > 0 {
		r.rule(unix.NFPROTO_NETDEV, port, byChance(rack.Loss), verdict(nfDrop, ""))
	}
	return r.commit()
}
