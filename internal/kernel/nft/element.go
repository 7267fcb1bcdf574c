package nft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// elemKey is the key of an element with a name in it, as a comparable value without
// pointers.
type elemKey struct {
	link [linkBytes]byte
	addr [16]byte // IPv4 in the first four
	bits uint8    // prefix length
}

// makeElemKey checks e, which is to be in a set of type t.
func makeElemKey(e plan.Element, t plan.SetType, v6 bool) (k elemKey, err error) {
	if e.Link == "" || len(e.Link) >= linkBytes {
		return k, fmt.Errorf("element %q: want a name of 1 to %d bytes", e.Link, linkBytes-1)
	}
	k.link = linkKey(e.Link)
	switch t {
	case plan.SetLinkAddrs, plan.SetLinkNets:
		if !e.Net.IsValid() || e.Net.Addr().Is4() == v6 {
			return k, fmt.Errorf("element %s . %v: is not of the table's family", e.Link, e.Net)
		}
		if t == plan.SetLinkAddrs && !e.Net.IsSingleIP() {
			return k, fmt.Errorf("element %s . %v: want a single address", e.Link, e.Net)
		}
		k.bits = uint8(e.Net.Bits())
		copy(k.addr[:], e.Net.Masked().Addr().AsSlice())
	case plan.MapClasses:
		if e.Value == "" || len(e.Value) >= linkBytes {
			return k, fmt.Errorf("element %s : %q: want a class of 1 to %d bytes", e.Link, e.Value, linkBytes-1)
		}
	case plan.MapChains:
		if e.Value == "" || len(e.Value) > maxName {
			return k, fmt.Errorf("element %s : %q: want a chain of 1 to %d bytes", e.Link, e.Value, maxName)
		}
	}
	return k, nil
}

// keyText prints k for errors.
func (k *elemKey) String() string { return string(bytes.TrimRight(k.link[:], "\x00")) }

// elem adds one element: its key, and where it has them its end and its data.
type elem struct {
	key, end, value []byte
	chain           string // goto, instead of value
	flags           uint32
	timeoutMs       uint64
}

func (e *encoder) elem(x *elem) {
	n := e.open(unix.NFTA_LIST_ELEM)
	if x.flags != 0 {
		e.u32(unix.NFTA_SET_ELEM_FLAGS, x.flags)
	}
	e.value(unix.NFTA_SET_ELEM_KEY, x.key)
	if x.end != nil {
		e.value(nftaSetElemKeyEnd, x.end)
	}
	if x.timeoutMs != 0 {
		e.u64(unix.NFTA_SET_ELEM_TIMEOUT, x.timeoutMs)
	}
	switch {
	case x.value != nil:
		e.value(unix.NFTA_SET_ELEM_DATA, x.value)
	case x.chain != "":
		d := e.open(unix.NFTA_SET_ELEM_DATA)
		e.verdictData(unix.NFT_GOTO, x.chain)
		e.close(d)
	}
	e.close(n)
}

// scratch is room for the keys of one element.
type scratch struct{ key, end [64]byte }

// appendMember adds member m to a message, as one element or as the two ends of an
// interval.
func (e *encoder) appendMember(s *scratch, m plan.Member, t plan.SetType, v6 bool) {
	switch t {
	case plan.SetAddrs:
		e.elem(&elem{key: putAddr(s.key[:0], m.Net(v6).Addr())})
	case plan.SetAddrPorts:
		key := putAddr(s.key[:0], m.Net(v6).Addr())
		key = append(key, m.Protocol(), 0, 0, 0)
		key = binary.BigEndian.AppendUint16(key, m.Port())
		e.elem(&elem{key: append(key, 0, 0)})
	case setPorted:
		e.elem(&elem{key: append(s.key[:0], m.Protocol())})
	default:
		first, end := interval(s, m, t, v6)
		e.elem(&elem{key: first})
		if end != nil {
			e.elem(&elem{key: end, flags: unix.NFT_SET_ELEM_INTERVAL_END})
		}
	}
}

// interval gives the first key of an interval, and the key after the last; that is nil
// when the last is the greatest that there is.
func interval(s *scratch, m plan.Member, t plan.SetType, v6 bool) (first, end []byte) {
	if t == plan.SetPorts {
		first = binary.BigEndian.AppendUint16(s.key[:0], m.Port())
		if m.Last() == 0xffff {
			return first, nil
		}
		return first, binary.BigEndian.AppendUint16(s.end[:0], m.Last()+1)
	}
	net := m.Net(v6)
	first = putAddr(s.key[:0], net.Addr())
	end = append(s.end[:0], first...)
	if net.Bits() == 0 {
		return first, nil
	}
	// One more in the last bit of the prefix; what it carries out of is all ones.
	i := (net.Bits() - 1) / 8
	carry := 1 << (7 - (net.Bits()-1)%8)
	for ; i >= 0 && carry > 0; i-- {
		sum := int(end[i]) + carry
		end[i] = byte(sum)
		carry = sum >> 8
	}
	if carry > 0 {
		return first, nil
	}
	return first, end
}

// appendElement adds an element with a name in its key; value counts in maps that are
// put into only.
func (e *encoder) appendElement(s *scratch, k *elemKey, value string, t plan.SetType, v6 bool) {
	key := append(s.key[:0], k.link[:]...)
	x := elem{}
	n := 4
	if v6 {
		n = 16
	}
	switch t {
	case plan.SetLinkAddrs:
		key = append(key, k.addr[:n]...)
	case plan.SetLinkNets:
		x.end = append(append(s.end[:0], k.link[:]...), k.addr[:n]...)
		for i := int(k.bits); i < 8*n; i++ {
			x.end[linkBytes+i/8] |= 0x80 >> (i % 8)
		}
		key = append(key, k.addr[:n]...)
	case plan.MapClasses:
		if value != "" {
			v := linkKey(value)
			x.value = append(append(s.end[:0], make([]byte, classPad)...), v[:]...)
		}
	case plan.MapChains:
		x.chain = value
	}
	x.key = key
	e.elem(&x)
}

func putAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		a4 := a.As4()
		return append(b, a4[:]...)
	}
	a16 := a.As16()
	return append(b, a16[:]...)
}

// addrOf reads an address; keys have the length of their set's.
func addrOf(b []byte, v6 bool) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.AddrFrom4([4]byte(b))
}

// parseMember reads the key of a set that is not one of intervals.
func parseMember(key []byte, t plan.SetType, v6 bool) plan.Member {
	switch t {
	case plan.SetAddrPorts:
		n := len(key) - 8
		return plan.AddrPortMember(addrOf(key[:n], v6), key[n], binary.BigEndian.Uint16(key[n+4:]))
	case setPorted:
		return portedMember(key[0])
	}
	return plan.AddrMember(addrOf(key, v6))
}

// portedMember is a protocol, as a member of portedSet.
func portedMember(proto uint8) plan.Member {
	return plan.AddrPortMember(netip.IPv4Unspecified(), proto, 0)
}

// parseInterval is the member that reaches from first to before end, which is nil
// after the greatest; false: there is none, because no prefix has these ends.
func parseInterval(first, end []byte, t plan.SetType, v6 bool) (plan.Member, bool) {
	if t == plan.SetPorts {
		last := uint16(0xffff)
		if end != nil {
			last = binary.BigEndian.Uint16(end) - 1
		}
		return plan.PortMember(binary.BigEndian.Uint16(first), last), true
	}
	// end is first and one in the last bit of the prefix: so one of the two has
	// nothing but zeros after that bit, and both have zeros there.
	bits := 8 * len(first)
	host := min(trailingZeros(first, bits), trailingZeros(end, bits))
	m := plan.NetMember(netip.PrefixFrom(addrOf(first, v6), bits-host))
	var s scratch
	_, e := interval(&s, m, t, v6)
	return m, bytes.Equal(e, end)
}

// trailingZeros of a key; nil is the one after the greatest, which has only zeros.
func trailingZeros(key []byte, bits int) int {
	n := 0
	for i := len(key) - 1; i >= 0; i-- {
		if key[i] != 0 {
			for b := key[i]; b&1 == 0; b >>= 1 {
				n++
			}
			return n
		}
		n += 8
	}
	return bits
}
