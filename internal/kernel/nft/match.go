package nft

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

const (
	linkBytes = 16 // IFNAMSIZ

	protoICMP   = 1
	protoICMPv6 = 58
)

// portProtocols have ports, at the same place of their headers: TCP, UDP, SCTP and
// UDPLite.
var portProtocols = [...]uint8{6, 17, 132, 136}

func hasPorts(proto uint16) bool {
	return proto < 256 && slices.Contains(portProtocols[:], uint8(proto))
}

// ruler encodes the rules of a table.
type ruler struct {
	encoder
	v6 bool
	// types tells the type of a set that rules may name.
	types func(set string) (plan.SetType, bool)
	sets  map[string]struct{} // that the rules ask
	// ported is set when a rule needs the set of protocols with ports.
	ported bool

	proto  int32 // the protocol that the rule under way has matched; -1: none
	named  bool  // registers hold the name of the incoming interface, from the match before
	guided bool  // a match of the rule has made sure of a protocol with ports
	reset  bool  // to reject is to reset a TCP connection
}

func (r *ruler) addrBytes() uint32 {
	if r.v6 {
		return 16
	}
	return 4
}

// addrOffset is where an address stands in the IP header.
func (r *ruler) addrOffset(dst bool) uint32 {
	switch {
	case r.v6 && dst:
		return 24
	case r.v6:
		return 8
	case dst:
		return 16
	}
	return 12
}

func (r *ruler) addr(dst bool, word int) {
	r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, r.addrOffset(dst), r.addrBytes(), word)
}

// addrWords is the length of an address in registers.
func (r *ruler) addrWords() int { return int(r.addrBytes()) / 4 }

func (r *ruler) port(dst bool, word int) {
	var offset uint32
	if dst {
		offset = 2
	}
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 2, word)
}

// match encodes m. The error says what is wrong with it.
func (r *ruler) match(m *plan.Match) error {
	defer func() { r.named = m.Kind == plan.MatchInLink }()
	switch m.Kind {
	case plan.MatchInLink, plan.MatchOutLink:
		return r.matchLink(m)
	case plan.MatchSrcNet, plan.MatchDstNet:
		return r.matchNet(m)
	case plan.MatchProtocol:
		if m.Low > 255 {
			return fmt.Errorf("protocol %d: want 0 to 255", m.Low)
		}
		r.meta(unix.NFT_META_L4PROTO, 0)
		r.equal(m.Not, []byte{uint8(m.Low)})
		if !m.Not {
			r.proto = int32(m.Low)
		}
	case plan.MatchSrcPort, plan.MatchDstPort:
		if m.High < m.Low {
			return fmt.Errorf("ports %d-%d: the last is below the first", m.Low, m.High)
		}
		r.guard()
		r.port(m.Kind == plan.MatchDstPort, 0)
		r.between(m.Not, be16(m.Low), be16(m.High))
	case plan.MatchICMPType, plan.MatchICMPCode, plan.MatchICMPTypeCode:
		return r.matchICMP(m)
	case plan.MatchState:
		r.expr("ct", func() {
			r.u32(unix.NFTA_CT_DREG, reg(0))
			r.u32(unix.NFTA_CT_KEY, unix.NFT_CT_STATE)
		})
		r.anyBit(m.Not, uint32(m.Low))
	case plan.MatchMark:
		r.meta(unix.NFT_META_MARK, 0)
		r.anyBit(m.Not, m.Mark)
	case plan.MatchDstLocal:
		r.local(m.Not, unix.NFTA_FIB_F_DADDR)
	case plan.MatchSrcLocal:
		r.local(m.Not, unix.NFTA_FIB_F_SADDR)
	case plan.MatchSrcLink:
		r.local(m.Not, unix.NFTA_FIB_F_SADDR|unix.NFTA_FIB_F_OIF)
	case plan.MatchOverRate, plan.MatchOverConns:
		return r.matchOver(m)
	default:
		return r.matchSet(m)
	}
	return nil
}

// local fits when the address that flags name is the node's own.
func (r *ruler) local(not bool, flags uint32) {
	r.expr("fib", func() {
		r.u32(unix.NFTA_FIB_DREG, reg(0))
		r.u32(unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
		r.u32(unix.NFTA_FIB_FLAGS, flags)
	})
	r.equal(not, native32(unix.RTN_LOCAL))
}

// anyBit fits when register 1 has one of bits.
func (r *ruler) anyBit(not bool, bits uint32) {
	r.bitwise(native32(bits), make([]byte, 4))
	r.equal(!not, make([]byte, 4))
}

func (r *ruler) matchLink(m *plan.Match) error {
	prefix, wild := strings.CutSuffix(m.Link, "*")
	if prefix == "" || len(prefix) >= linkBytes {
		return fmt.Errorf("interface %q: want 1 to %d bytes", m.Link, linkBytes-1)
	}
	key := uint32(unix.NFT_META_IIFNAME)
	if m.Kind == plan.MatchOutLink {
		key = unix.NFT_META_OIFNAME
	}
	r.meta(key, 0)
	if wild {
		r.equal(m.Not, []byte(prefix))
		return nil
	}
	name := linkKey(m.Link)
	r.equal(m.Not, name[:])
	return nil
}

// matchNet compares whole bytes only where the length allows it, as nft does.
func (r *ruler) matchNet(m *plan.Match) error {
	if !m.Net.IsValid() || m.Net.Addr().Is4() == r.v6 {
		return fmt.Errorf("net %v: is not of the table's family", m.Net)
	}
	addr, bits, dst := m.Net.Masked().Addr().AsSlice(), m.Net.Bits(), m.Kind == plan.MatchDstNet
	if bits%8 == 0 && bits > 0 {
		n := bits / 8
		r.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, r.addrOffset(dst), uint32(n), 0)
		r.equal(m.Not, addr[:n])
		return nil
	}
	mask := make([]byte, len(addr))
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	r.addr(dst, 0)
	r.bitwise(mask, make([]byte, len(addr)))
	r.equal(m.Not, addr)
	return nil
}

// guard lets only packets with ports go on, unless the rule has seen to that.
func (r *ruler) guard() {
	if r.guided || r.proto >= 0 && hasPorts(uint16(r.proto)) {
		return
	}
	r.meta(unix.NFT_META_L4PROTO, 0)
	r.lookup(portedSet, false)
	r.ported, r.guided = true, true
}

func (r *ruler) matchICMP(m *plan.Match) error {
	if m.Low > 255 || m.High > 255 {
		return fmt.Errorf("ICMP type or code %d, %d: want 0 to 255", m.Low, m.High)
	}
	proto := uint8(protoICMP)
	if r.v6 {
		proto = protoICMPv6
	}
	if r.proto != int32(proto) {
		r.meta(unix.NFT_META_L4PROTO, 0)
		r.equal(false, []byte{proto})
		r.proto = int32(proto)
	}
	offset, length := uint32(0), uint32(1)
	switch m.Kind {
	case plan.MatchICMPCode:
		offset = 1
	case plan.MatchICMPTypeCode:
		length = 2
	}
	r.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, length, 0)
	switch m.Kind {
	case plan.MatchICMPCode:
		r.equal(m.Not, []byte{uint8(m.Low)})
	case plan.MatchICMPTypeCode:
		r.equal(m.Not, []byte{uint8(m.Low), uint8(m.High)})
	default:
		if m.High < m.Low {
			return fmt.Errorf("ICMP types %d-%d: the last is below the first", m.Low, m.High)
		}
		r.between(m.Not, []byte{uint8(m.Low)}, []byte{uint8(m.High)})
	}
	return nil
}

// matchSet encodes a match that asks a set.
func (r *ruler) matchSet(m *plan.Match) error {
	var want []plan.SetType
	switch m.Kind {
	case plan.MatchInLinkSet:
		want = []plan.SetType{plan.SetLinks}
		r.meta(unix.NFT_META_IIFNAME, 0)
	case plan.MatchOutLinkSet:
		want = []plan.SetType{plan.SetLinks}
		r.meta(unix.NFT_META_OIFNAME, 0)
	case plan.MatchInSource:
		want = []plan.SetType{plan.SetLinkAddrs, plan.SetLinkNets}
		if !r.named { // each packet of a workload comes here: 40 ns
			r.meta(unix.NFT_META_IIFNAME, 0)
		}
		r.addr(false, linkBytes/4)
	case plan.MatchSrcSet, plan.MatchDstSet:
		want = []plan.SetType{plan.SetAddrs, plan.SetNets}
		r.addr(m.Kind == plan.MatchDstSet, 0)
	case plan.MatchSrcPortSet, plan.MatchDstPortSet:
		want = []plan.SetType{plan.SetPorts}
		r.guard()
		r.port(m.Kind == plan.MatchDstPortSet, 0)
	case plan.MatchSrcAddrPort, plan.MatchDstAddrPort:
		want = []plan.SetType{plan.SetAddrPorts}
		dst := m.Kind == plan.MatchDstAddrPort
		r.addr(dst, 0)
		r.meta(unix.NFT_META_L4PROTO, r.addrWords())
		r.port(dst, r.addrWords()+1)
	case plan.MatchFlow:
		want = []plan.SetType{plan.SetFlows}
		r.flow()
	default:
		return fmt.Errorf("match of kind %d: is not known", m.Kind)
	}
	r.lookup(m.Set, m.Not)
	return r.checkSet(m.Set, want...)
}

// checkSet says why a rule cannot ask that set.
func (r *ruler) checkSet(name string, want ...plan.SetType) error {
	r.sets[name] = struct{}{}
	typ, ok := r.types(name)
	if !ok {
		return fmt.Errorf("set %q: is not in the plan", name)
	}
	if !slices.Contains(want, typ) {
		return fmt.Errorf("set %q: is of type %d, want %d", name, typ, want)
	}
	return nil
}

// flow loads the key of a set of flows.
func (r *ruler) flow() {
	w := r.addrWords()
	r.addr(false, 0)
	r.addr(true, w)
	r.meta(unix.NFT_META_L4PROTO, 2*w)
	r.port(false, 2*w+1)
	r.port(true, 2*w+2)
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// native32 is what a register holds of a number of the kernel's.
func native32(v uint32) []byte { return netlink.Native.AppendUint32(nil, v) }

// linkKey is a name as registers and sets hold it.
func linkKey(name string) (k [linkBytes]byte) {
	copy(k[:], name)
	return k
}
