package wire

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Code is the type code of a path attribute.
type Code uint8

// The path attributes that have a meaning here.
const (
	Origin          Code = 1
	ASPathCode      Code = 2
	NextHop         Code = 3
	MED             Code = 4
	LocalPref       Code = 5
	AtomicAggregate Code = 6
	AggregatorCode  Code = 7
	Communities     Code = 8
	OriginatorID    Code = 9
	ClusterList     Code = 10
	MPReach         Code = 14
	MPUnreach       Code = 15
	ExtCommunities  Code = 16
	AS4Path         Code = 17
	AS4Aggregator   Code = 18
	LargeComms      Code = 32
)

func (c Code) String() string {
	if s := table[c]; s.name != "" {
		return s.name
	}
	return fmt.Sprintf("attribute %d", uint8(c))
}

// Attrs are the path attributes of a route. What is absent is zero or nil;
// where zero has a meaning of its own a Has field says which it is. Values are
// shared: do not change the slices of one that you did not make.
type Attrs struct {
	Origin       uint8 // 0 IGP, 1 EGP, 2 incomplete
	ASPath       ASPath
	NextHop      netip.Addr // of either family; from MP_REACH_NLRI when that brought the prefix
	LinkLocal    netip.Addr // second next hop of an IPv6 route (RFC 2545)
	MED          uint32
	LocalPref    uint32
	HasMED       bool
	HasLocalPref bool
	Atomic       bool       // ATOMIC_AGGREGATE
	Aggregator   Aggregator // zero ASN means absent
	Communities  []uint32
	Ext          [][8]byte // extended communities
	Large        [][3]uint32
	OriginatorID netip.Addr
	ClusterList  []uint32
	Unknown      []Unknown // optional transitive ones that we do not know, by code
}

// Aggregator is who formed an aggregate.
type Aggregator struct {
	ASN  uint32
	Addr netip.Addr
}

// Unknown is an attribute that is passed on as it came.
type Unknown struct {
	Code  Code
	Value string
}

// Attribute flags.
const (
	flagOptional   = 0x80
	flagTransitive = 0x40
	flagPartial    = 0x20
	flagExtended   = 0x10
)

// penalty is what a malformed attribute costs, mildest first (RFC 7606 §2).
type penalty uint8

const (
	discard  penalty = iota // the attribute alone is dropped
	withdraw                // the prefixes of the message count as withdrawn
	reset                   // the session ends
)

// spec describes one attribute.
type spec struct {
	name  string
	flags uint8
	cost  penalty // of being malformed
	ibgp  bool    // dropped when it comes from an eBGP peer
	unit  int     // the length is a multiple of it, and not 0; 0 means parse looks
	// parse sets the field of a; false means malformed. v has a valid length.
	parse func(a *Attrs, v []byte, o Options) bool
	// append appends the value, and reports whether there is one to send.
	append func(dst []byte, a *Attrs, o Options) ([]byte, bool)
}

// table has every attribute that is read or written, by code. MP_REACH_NLRI
// and MP_UNREACH_NLRI are not values of a route; update.go reads them, and
// AS4_PATH and AS4_AGGREGATOR are merged into what they complete.
var table = [256]spec{
	Origin: {
		name: "ORIGIN", flags: flagTransitive, cost: withdraw, unit: 1,
		parse:  func(a *Attrs, v []byte, _ Options) bool { a.Origin = v[0]; return len(v) == 1 && v[0] <= 2 },
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) { return append(dst, a.Origin), true },
	},
	ASPathCode: {
		name: "AS_PATH", flags: flagTransitive, cost: withdraw,
		parse: func(a *Attrs, v []byte, o Options) (ok bool) {
			a.ASPath, ok = parsePath(v, asnBytes(o))
			return ok
		},
		append: func(dst []byte, a *Attrs, o Options) ([]byte, bool) { return a.ASPath.append(dst, asnBytes(o)), true },
	},
	NextHop: {
		name: "NEXT_HOP", flags: flagTransitive, cost: withdraw, unit: 4,
		parse: func(a *Attrs, v []byte, _ Options) bool {
			a.NextHop = addr4(v)
			return len(v) == 4 && usable(a.NextHop)
		},
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) {
			return appendAddr(dst, a.NextHop), a.NextHop.Is4()
		},
	},
	MED: {
		name: "MULTI_EXIT_DISC", flags: flagOptional, cost: withdraw, unit: 4,
		parse: func(a *Attrs, v []byte, _ Options) bool {
			a.MED, a.HasMED = binary.BigEndian.Uint32(v), true
			return len(v) == 4
		},
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) {
			return binary.BigEndian.AppendUint32(dst, a.MED), a.HasMED
		},
	},
	LocalPref: {
		name: "LOCAL_PREF", flags: flagTransitive, cost: withdraw, ibgp: true, unit: 4,
		parse: func(a *Attrs, v []byte, _ Options) bool {
			a.LocalPref, a.HasLocalPref = binary.BigEndian.Uint32(v), true
			return len(v) == 4
		},
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) {
			return binary.BigEndian.AppendUint32(dst, a.LocalPref), a.HasLocalPref
		},
	},
	AtomicAggregate: {
		name: "ATOMIC_AGGREGATE", flags: flagTransitive, cost: discard,
		parse:  func(a *Attrs, v []byte, _ Options) bool { a.Atomic = len(v) == 0; return a.Atomic },
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) { return dst, a.Atomic },
	},
	AggregatorCode: {
		name: "AGGREGATOR", flags: flagOptional | flagTransitive, cost: discard,
		parse: func(a *Attrs, v []byte, o Options) bool {
			return parseAggregator(&a.Aggregator, v, asnBytes(o))
		},
		append: func(dst []byte, a *Attrs, o Options) ([]byte, bool) {
			return appendAddr(appendASN(dst, a.Aggregator.ASN, asnBytes(o)), a.Aggregator.Addr), a.Aggregator.ASN != 0
		},
	},
	Communities: {
		name: "COMMUNITIES", flags: flagOptional | flagTransitive, cost: withdraw, unit: 4,
		parse:  func(a *Attrs, v []byte, _ Options) bool { a.Communities = words(v); return true },
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) { return appendWords(dst, a.Communities) },
	},
	OriginatorID: {
		name: "ORIGINATOR_ID", flags: flagOptional, cost: withdraw, ibgp: true, unit: 4,
		parse: func(a *Attrs, v []byte, _ Options) bool { a.OriginatorID = addr4(v); return len(v) == 4 },
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) {
			return appendAddr(dst, a.OriginatorID), a.OriginatorID.IsValid()
		},
	},
	ClusterList: {
		name: "CLUSTER_LIST", flags: flagOptional, cost: withdraw, ibgp: true, unit: 4,
		parse:  func(a *Attrs, v []byte, _ Options) bool { a.ClusterList = words(v); return true },
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) { return appendWords(dst, a.ClusterList) },
	},
	MPReach:   {name: "MP_REACH_NLRI", flags: flagOptional, cost: reset},
	MPUnreach: {name: "MP_UNREACH_NLRI", flags: flagOptional, cost: reset},
	ExtCommunities: {
		name: "EXTENDED_COMMUNITIES", flags: flagOptional | flagTransitive, cost: withdraw, unit: 8,
		parse: func(a *Attrs, v []byte, _ Options) bool {
			for c := range slices.Chunk(v, 8) {
				a.Ext = append(a.Ext, [8]byte(c))
			}
			return true
		},
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) {
			for _, c := range a.Ext {
				dst = append(dst, c[:]...)
			}
			return dst, len(a.Ext) > 0
		},
	},
	AS4Path:       {name: "AS4_PATH", flags: flagOptional | flagTransitive, cost: discard, append: appendAS4Path},
	AS4Aggregator: {name: "AS4_AGGREGATOR", flags: flagOptional | flagTransitive, cost: discard, append: appendAS4Aggregator},
	LargeComms: {
		name: "LARGE_COMMUNITY", flags: flagOptional | flagTransitive, cost: withdraw, unit: 12,
		parse: func(a *Attrs, v []byte, _ Options) bool {
			for c := range slices.Chunk(words(v), 3) {
				a.Large = append(a.Large, [3]uint32(c))
			}
			return true
		},
		append: func(dst []byte, a *Attrs, _ Options) ([]byte, bool) {
			for _, c := range a.Large {
				dst, _ = appendWords(dst, c[:])
			}
			return dst, len(a.Large) > 0
		},
	},
}

// order lists the attributes with a value, as they are sent (RFC 4271 §5).
var order = []Code{
	Origin, ASPathCode, NextHop, MED, LocalPref, AtomicAggregate, AggregatorCode, Communities,
	OriginatorID, ClusterList, ExtCommunities, AS4Path, AS4Aggregator, LargeComms,
}

// AppendAttrs appends a as a session with options o sends it, without the MP
// attributes. With Options{ASN4: true, IBGP: true} it is also an identity: two
// Attrs are equal exactly when these bytes and the next hops are.
func AppendAttrs(dst []byte, a *Attrs, o Options) []byte {
	for _, code := range order {
		s := &table[code]
		start := len(dst)
		dst = append(dst, s.flags|flagExtended, byte(code), 0, 0)
		var have bool
		dst, have = s.append(dst, a, o)
		if n := len(dst) - start - 4; !have || s.ibgp && !o.IBGP {
			dst = dst[:start]
		} else {
			dst = shorten(dst, start, n)
		}
	}
	for _, u := range a.Unknown {
		start := len(dst)
		dst = append(dst, flagOptional|flagTransitive|flagPartial|flagExtended, byte(u.Code), 0, 0)
		dst = shorten(append(dst, u.Value...), start, len(u.Value))
	}
	return dst
}

// shorten writes the length n of the attribute at start, in one byte if it fits.
func shorten(dst []byte, start, n int) []byte {
	if n > 255 {
		binary.BigEndian.PutUint16(dst[start+2:], uint16(n))
		return dst
	}
	dst[start] &^= flagExtended
	dst[start+2] = byte(n)
	copy(dst[start+3:], dst[start+4:])
	return dst[:len(dst)-1]
}

func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && !a.Is4In6()
}

func appendAddr(dst []byte, a netip.Addr) []byte { return append(dst, a.AsSlice()...) }

func words(v []byte) []uint32 {
	out := make([]uint32, 0, len(v)/4)
	for ; len(v) >= 4; v = v[4:] {
		out = append(out, binary.BigEndian.Uint32(v))
	}
	return out
}

func appendWords(dst []byte, list []uint32) ([]byte, bool) {
	for _, w := range list {
		dst = binary.BigEndian.AppendUint32(dst, w)
	}
	return dst, len(list) > 0
}
