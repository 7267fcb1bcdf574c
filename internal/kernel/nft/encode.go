package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
)

// Attributes that x/sys does not name (linux/netfilter/nf_tables.h).
const (
	nftaHookNum, nftaHookPriority = 1, 2

	nftaBitwiseOp = 6

	nftaSetDescSize, nftaSetDescConcat = 1, 2

	nftaSetElemKeyEnd = 10

	nftaDynsetFlags = 9
)

// encoder appends attributes in the order, and with the flags, in which the kernel
// dumps them: nests carry no NLA_F_NESTED.
type encoder struct{ b []byte }

func (e *encoder) open(typ uint16) (start int) {
	start = len(e.b)
	e.b = append(e.b, 0, 0)
	e.b = netlink.Native.AppendUint16(e.b, typ)
	return start
}

func (e *encoder) close(start int) { netlink.CloseNest(e.b, start) }

func (e *encoder) u32(typ uint16, v uint32) { e.b = netlink.AppendAttrBE32(e.b, typ, v) }

func (e *encoder) u64(typ uint16, v uint64) {
	e.b = netlink.Native.AppendUint16(e.b, 12)
	e.b = netlink.Native.AppendUint16(e.b, typ)
	e.b = binary.BigEndian.AppendUint64(e.b, v)
}

func (e *encoder) u16(typ, v uint16) { e.bytes(typ, []byte{byte(v >> 8), byte(v)}) }

func (e *encoder) u8(typ uint16, v uint8) { e.bytes(typ, []byte{v}) }

func (e *encoder) str(typ uint16, s string) { e.b = netlink.AppendAttrString(e.b, typ, s) }

func (e *encoder) bytes(typ uint16, v []byte) { e.b = netlink.AppendAttr(e.b, typ, v) }

// value is a nest with an NFTA_DATA_VALUE.
func (e *encoder) value(typ uint16, v []byte) {
	n := e.open(typ)
	e.bytes(unix.NFTA_DATA_VALUE, v)
	e.close(n)
}

// expr is one expression of a rule; data may be nil.
func (e *encoder) expr(name string, data func()) {
	elem := e.open(unix.NFTA_LIST_ELEM)
	e.str(unix.NFTA_EXPR_NAME, name)
	if data != nil {
		n := e.open(unix.NFTA_EXPR_DATA)
		data()
		e.close(n)
	}
	e.close(elem)
}

// reg is the number of the register that begins at the given word of four bytes, as
// the kernel dumps it: four big registers share their space with sixteen small ones.
func reg(word int) uint32 {
	if word%4 == 0 {
		return uint32(unix.NFT_REG_1 + word/4)
	}
	return uint32(unix.NFT_REG32_00 + word)
}

func (e *encoder) meta(key uint32, word int) {
	e.expr("meta", func() {
		e.u32(unix.NFTA_META_KEY, key)
		e.u32(unix.NFTA_META_DREG, reg(word))
	})
}

func (e *encoder) setMeta(key uint32, word int) {
	e.expr("meta", func() {
		e.u32(unix.NFTA_META_KEY, key)
		e.u32(unix.NFTA_META_SREG, reg(word))
	})
}

func (e *encoder) payload(base, offset, length uint32, word int) {
	e.expr("payload", func() {
		e.u32(unix.NFTA_PAYLOAD_DREG, reg(word))
		e.u32(unix.NFTA_PAYLOAD_BASE, base)
		e.u32(unix.NFTA_PAYLOAD_OFFSET, offset)
		e.u32(unix.NFTA_PAYLOAD_LEN, length)
	})
}

func (e *encoder) cmp(op uint32, v []byte) {
	e.expr("cmp", func() {
		e.u32(unix.NFTA_CMP_SREG, reg(0))
		e.u32(unix.NFTA_CMP_OP, op)
		e.value(unix.NFTA_CMP_DATA, v)
	})
}

// equal compares register 1 with v, or with its opposite.
func (e *encoder) equal(not bool, v []byte) {
	if not {
		e.cmp(unix.NFT_CMP_NEQ, v)
		return
	}
	e.cmp(unix.NFT_CMP_EQ, v)
}

// between compares register 1 with a range.
func (e *encoder) between(not bool, first, last []byte) {
	switch {
	case string(first) == string(last):
		e.equal(not, first)
	case not:
		e.expr("range", func() {
			e.u32(unix.NFTA_RANGE_SREG, reg(0))
			e.u32(unix.NFTA_RANGE_OP, unix.NFT_RANGE_NEQ)
			e.value(unix.NFTA_RANGE_FROM_DATA, first)
			e.value(unix.NFTA_RANGE_TO_DATA, last)
		})
	default:
		e.cmp(unix.NFT_CMP_GTE, first)
		e.cmp(unix.NFT_CMP_LTE, last)
	}
}

// bitwise is register 1 = register 1 & mask ^ xor.
func (e *encoder) bitwise(mask, xor []byte) {
	e.expr("bitwise", func() {
		e.u32(unix.NFTA_BITWISE_SREG, reg(0))
		e.u32(unix.NFTA_BITWISE_DREG, reg(0))
		e.u32(unix.NFTA_BITWISE_LEN, uint32(len(mask)))
		e.u32(nftaBitwiseOp, 0)
		e.value(unix.NFTA_BITWISE_MASK, mask)
		e.value(unix.NFTA_BITWISE_XOR, xor)
	})
}

// lookup asks a set for the key that begins in register 1.
func (e *encoder) lookup(set string, not bool) {
	e.expr("lookup", func() {
		e.str(unix.NFTA_LOOKUP_SET, set)
		e.u32(unix.NFTA_LOOKUP_SREG, reg(0))
		var flags uint32
		if not {
			flags = unix.NFT_LOOKUP_F_INV
		}
		e.u32(unix.NFTA_LOOKUP_FLAGS, flags)
	})
}

// mapTo puts what a map has for the register at that word into the given register.
func (e *encoder) mapTo(set string, word int, dreg uint32) {
	e.expr("lookup", func() {
		e.str(unix.NFTA_LOOKUP_SET, set)
		e.u32(unix.NFTA_LOOKUP_SREG, reg(word))
		e.u32(unix.NFTA_LOOKUP_DREG, dreg)
		e.u32(unix.NFTA_LOOKUP_FLAGS, 0)
	})
}

func (e *encoder) verdict(code int32, chain string) {
	e.expr("immediate", func() {
		e.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		n := e.open(unix.NFTA_IMMEDIATE_DATA)
		e.verdictData(code, chain)
		e.close(n)
	})
}

func (e *encoder) verdictData(code int32, chain string) {
	n := e.open(unix.NFTA_DATA_VERDICT)
	e.u32(unix.NFTA_VERDICT_CODE, uint32(code))
	if chain != "" {
		e.str(unix.NFTA_VERDICT_CHAIN, chain)
	}
	e.close(n)
}

// load puts a constant into the registers from that word on.
func (e *encoder) load(word int, v []byte) {
	e.expr("immediate", func() {
		e.u32(unix.NFTA_IMMEDIATE_DREG, reg(word))
		e.value(unix.NFTA_IMMEDIATE_DATA, v)
	})
}

func (e *encoder) counter() {
	e.expr("counter", func() {
		e.u64(unix.NFTA_COUNTER_BYTES, 0)
		e.u64(unix.NFTA_COUNTER_PACKETS, 0)
	})
}
