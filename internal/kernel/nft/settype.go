package nft

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
)

// Numbers by which nft(8) knows data types (include/datatype.h of nftables), six
// bits each where they are concatenated.
const (
	typeIPv4    = 7
	typeIPv6    = 8
	typeProto   = 12 // inet_proto
	typePort    = 13 // inet_service
	typeMark    = 19 // mark
	typeLink    = 41 // ifname
	typeBits    = 6
	typeVerdict = 0xffffff00 // NFT_DATA_VERDICT

	// classPad bytes of nothing stand before the class in a map of classes. See
	// dispatch.
	classPad = 4

	setConcat = 0x80 // NFT_SET_CONCAT

	// How nft(8) is told of the byte order of keys and data: NFTNL_UDATA_SET_*.
	udataKeyOrder, udataDataOrder = 0, 1
	orderInvalid, orderHost       = 0, 1
	orderBig                      = 2
)

// portedSet is a set of our own, for rules that compare ports whatever the protocol:
// only these protocols have any.
const (
	portedSet              = "weft_ported"
	setPorted plan.SetType = 250
)

const (
	// flowTimeout is how long a flow stays in a set of flows when whoever puts it
	// there says nothing else. TCP repeats itself after at most two minutes.
	flowTimeout = 3 * time.Minute
	// flowsMax bounds a set of flows, which grows by packets; nft(8) wants a bound.
	flowsMax = 65535
)

// shape is a set as the kernel sees it. Two sets of one shape are of one type.
type shape struct {
	flags             uint32
	keyType, keyLen   uint32
	dataType, dataLen uint32
}

// setLayout is what the kernel is to know of a type of set in a family.
type setLayout struct {
	shape
	order    uint32 // of the key
	fields   []byte // lengths of the parts of the key, of a concatenation of intervals
	interval bool   // single keys with their ends as elements of their own
}

// concat numbers a concatenation of types.
func concat(types ...uint32) uint32 {
	var n uint32
	for _, t := range types {
		n = n<<typeBits | t
	}
	return n
}

// layoutOf is the layout of sets of a type; false: there is no such type.
func layoutOf(t plan.SetType, v6 bool) (l setLayout, ok bool) {
	addr, n := uint32(typeIPv4), uint32(4)
	if v6 {
		addr, n = typeIPv6, 16
	}
	key := func(order, length uint32, types ...uint32) {
		l.order, l.keyLen, l.keyType = order, length, concat(types...)
	}
	switch t {
	case plan.SetAddrs:
		key(orderBig, n, addr)
	case plan.SetNets:
		key(orderBig, n, addr)
		l.flags, l.interval = unix.NFT_SET_INTERVAL, true
	case plan.SetPorts:
		key(orderBig, 2, typePort)
		l.flags, l.interval = unix.NFT_SET_INTERVAL, true
	case plan.SetAddrPorts:
		key(orderInvalid, n+8, addr, typeProto, typePort)
	case plan.SetLinkAddrs:
		key(orderInvalid, linkBytes+n, typeLink, addr)
	case plan.SetLinkNets:
		key(orderInvalid, linkBytes+n, typeLink, addr)
		l.flags, l.fields = unix.NFT_SET_INTERVAL|setConcat, []byte{linkBytes, byte(n)}
	case plan.SetLinks:
		key(orderHost, linkBytes, typeLink)
	case plan.MapClasses:
		key(orderHost, linkBytes, typeLink)
		l.flags, l.dataType, l.dataLen = unix.NFT_SET_MAP, concat(typeMark, typeLink), classPad+linkBytes
	case plan.MapChains:
		key(orderHost, linkBytes, typeLink)
		l.flags, l.dataType = unix.NFT_SET_MAP, typeVerdict
	case plan.SetFlows:
		key(orderInvalid, 2*n+12, addr, addr, typeProto, typePort, typePort)
		l.flags = unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	case setPorted:
		key(orderBig, 1, typeProto)
	default:
		return l, false
	}
	return l, true
}

// appendSet encodes the attributes of a new set after its table's name.
func (e *encoder) appendSet(name string, id uint32, t plan.SetType, l *setLayout) {
	e.str(unix.NFTA_SET_NAME, name)
	e.u32(unix.NFTA_SET_FLAGS, l.flags)
	e.u32(unix.NFTA_SET_KEY_TYPE, l.keyType)
	e.u32(unix.NFTA_SET_KEY_LEN, l.keyLen)
	if l.flags&unix.NFT_SET_MAP != 0 {
		e.u32(unix.NFTA_SET_DATA_TYPE, l.dataType)
		e.u32(unix.NFTA_SET_DATA_LEN, l.dataLen)
	}
	e.u32(unix.NFTA_SET_ID, id)
	switch {
	case l.fields != nil:
		e.appendFields(l.fields)
	case t == plan.SetFlows:
		n := e.open(unix.NFTA_SET_DESC)
		e.u32(nftaSetDescSize, flowsMax)
		e.close(n)
		e.u64(unix.NFTA_SET_TIMEOUT, uint64(flowTimeout.Milliseconds()))
	}
	udata := append([]byte{udataKeyOrder, 4}, native32(l.order)...)
	if l.flags&unix.NFT_SET_MAP != 0 && l.dataLen > 0 {
		udata = append(append(udata, udataDataOrder, 4), native32(orderInvalid)...)
	}
	e.bytes(unix.NFTA_SET_USERDATA, udata)
}

func (e *encoder) appendFields(lengths []byte) {
	desc := e.open(unix.NFTA_SET_DESC)
	fields := e.open(nftaSetDescConcat)
	for _, n := range lengths {
		field := e.open(unix.NFTA_LIST_ELEM)
		e.u32(1, uint32(n)) // NFTA_SET_FIELD_LEN
		e.close(field)
	}
	e.close(fields)
	e.close(desc)
}
