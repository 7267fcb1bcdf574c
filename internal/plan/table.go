package plan

import (
	"net/netip"
	"strings"
)

// Table is a node's packet filter for one family: sets, maps and chains of the
// nftables table `ip weft` or `ip6 weft`. The zero Table is empty.
//
// There is one for each family because the sets of a family hold addresses of one
// length, and because rules then need not ask which family a packet is of.
type Table struct {
	Sets   map[string]*SetContent
	Chains map[string]Chain
}

// SetContent is a set or map with what is in it.
type SetContent struct {
	Set
	Members  map[Member]struct{}  // of sets of addresses and ports
	Elements map[Element]struct{} // of sets and maps whose key has an interface or a class
	values   map[string]string    // of a map: the value of each key; Apply makes it
}

// SetType says what a set holds, as nft types name it. ADDR is ipv4_addr or
// ipv6_addr, as the table's family.
type SetType uint8

// The types of sets.
const (
	SetAddrs     SetType = iota // Members: ADDR; every member is one address
	SetNets                     // Members: ADDR, interval; members do not overlap
	SetPorts                    // Members: inet_service, interval; Port to Bits.. see [PortMember]
	SetAddrPorts                // Members: ADDR . inet_proto . inet_service
	SetLinkAddrs                // Elements: ifname . ADDR
	SetLinkNets                 // Elements: ifname . ADDR, interval
	SetLinks                    // Elements: ifname
	MapClasses                  // Elements: ifname : ifname; an interface's class (its Value)
	MapChains                   // Elements: ifname : verdict; a class's chain (goto Value)
	SetFlows                    // ADDR . ADDR . inet_proto . inet_service . inet_service, timeout; see SetFlows in kernel/nft: its contents are not planned
)

// HasElements reports whether contents of this type are Elements, not Members.
func (t SetType) HasElements() bool { return t >= SetLinkAddrs && t <= MapChains }

// Set is the identity of a set: its name, 1 to 63 bytes, and what it holds. A set
// never changes its type: another type needs another name.
type Set struct {
	Name string
	Type SetType
}

// Member is one member of a set of addresses or ports. It has no pointers, because
// there may be a million. The family is the table's. Make one with [AddrMember],
// [NetMember], [PortMember] or [AddrPortMember].
type Member struct {
	addr  [16]byte // IPv4 in the first four
	bits  uint8    // prefix length
	proto uint8
	port  uint16
	last  uint16 // of a range of ports
}

// AddrMember is one address, as a member of SetAddrs or SetNets.
func AddrMember(a netip.Addr) Member { return NetMember(netip.PrefixFrom(a, a.BitLen())) }

// NetMember is a prefix, masked; in SetAddrs it must be a single address.
func NetMember(p netip.Prefix) Member {
	m := Member{bits: uint8(p.Bits())}
	if p.Addr().Is4() {
		a := p.Addr().As4()
		copy(m.addr[:], a[:])
	} else {
		m.addr = p.Addr().As16()
	}
	return m
}

// PortMember is the ports from first to last, as a member of SetPorts.
func PortMember(first, last uint16) Member { return Member{port: first, last: last} }

// AddrPortMember is a port of an address, as a member of SetAddrPorts.
func AddrPortMember(a netip.Addr, proto uint8, port uint16) Member {
	m := AddrMember(a)
	m.proto, m.port = proto, port
	return m
}

// Net is the prefix of m in a table of that family.
func (m Member) Net(v6 bool) netip.Prefix {
	if v6 {
		return netip.PrefixFrom(netip.AddrFrom16(m.addr), int(m.bits))
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte(m.addr[:4])), int(m.bits))
}

// Bits is the length of the prefix of m.
func (m Member) Bits() uint8 { return m.bits }

// Protocol, Port and Last are the other parts of m; zero where it has none.
func (m Member) Protocol() uint8 { return m.proto }

// Port is the port, or the first of a range.
func (m Member) Port() uint16 { return m.port }

// Last is the last port of a range.
func (m Member) Last() uint16 { return m.last }

// Compare orders members: by address, length, protocol, port.
func (m Member) Compare(o Member) int {
	if c := strings.Compare(string(m.addr[:]), string(o.addr[:])); c != 0 {
		return c
	}
	key := func(m Member) uint64 {
		return uint64(m.bits)<<40 | uint64(m.proto)<<32 | uint64(m.port)<<16 | uint64(m.last)
	}
	a, b := key(m), key(o)
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Element is one element of a set or map whose key has a name in it.
type Element struct {
	Link  string       // interface, or class in MapChains
	Net   netip.Prefix // SetLinkAddrs (single) and SetLinkNets; else zero
	Value string       // class in MapClasses, chain in MapChains; else empty
}

// Chain is a list of rules. A base chain hangs on a hook of the kernel; a packet
// that comes to its end is accepted. Chains are immutable once they are in a plan.
type Chain struct {
	Name  string // 1 to 63 bytes
	Base  *Base  // nil: reached by jumps only
	Rules []Rule
}

// Base is where a base chain hangs (nft(8), "chains").
type Base struct {
	Hook     Hook
	Priority int32
	Type     ChainType
}

// ChainType says what a base chain is asked for.
type ChainType uint8

// The types of base chains.
const (
	ChainFilter ChainType = iota // every packet: whether it goes on
	ChainNAT                     // the first packet of every connection: whether its addresses are translated
)

// Hook is a place on a packet's way.
type Hook uint8

// The hooks; the numbers are those of the kernel (NF_INET_*).
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
)

// Rule is one rule of a chain: a packet that fits every match is counted, logged
// and judged, in that order. Rules are compared with [Rule.Equal].
type Rule struct {
	Match []Match
	// Update adds the packet's flow to this set (of SetFlows), renewing its time;
	// empty: no.
	Update string
	Count  bool
	Log    *NFLog
	// ClearMark and SetMark are bits of the packet's mark that the rule clears, then
	// sets; 0: none. It is how a base chain tells a later one that
	// the packet has been let in.
	SetMark, ClearMark uint32
	Track              bool // notrack: this packet is not for connection tracking
	SetDSCP            bool // the packet's DSCP becomes DSCP, 0 to 63
	DSCP               uint8
	Verdict            Verdict
	Target             string // chain, of Jump and Goto
	NAT                *NAT   // of Masquerade, SNAT and DNAT; nil: as the zero NAT
	// Dispatch goes, without coming back, to the chain of the packet's interface; it
	// stands in place of a verdict. An interface that has none: the next rule.
	Dispatch *Dispatch
	// Comment says where the rule comes from; nft lists it. At most 120 bytes. A rule
	// of a policy has the ID under which its origin is known; see package policy.
	Comment string
}

// Verdict ends a rule.
type Verdict uint8

// The verdicts. Accept ends the base chain only; other base chains of the hook
// still see the packet. Drop and Reject are final.
const (
	Continue Verdict = iota // go on with the next rule
	Accept
	Drop
	Reject // drop, and tell the sender: TCP reset, or ICMP "administratively prohibited"
	Return // go on after the jump that led here
	Jump   // to the chain Target
	Goto   // the chain Target, without coming back

	// These are of base chains of ChainNAT, and end them.

	Masquerade // the connection's source becomes an address of the interface that the packet leaves by
	SNAT       // the connection's source becomes NAT.Addr
	DNAT       // the connection's destination becomes NAT.Addr
)

// Dispatch finds a chain in two steps: interface to class, class to chain. So that
// many interfaces share a chain, and one more is one more element.
type Dispatch struct {
	Out     bool   // by the outgoing interface, not the incoming one
	Classes string // map of MapClasses
	Chains  string // map of MapChains
}

// NFLog sends packets to user space (nfnetlink_log), at most so many a second.
type NFLog struct {
	Group  uint16
	Prefix string // at most 120 bytes
	// Rate is the most packets in Per seconds, with a burst; 0: all of them.
	Rate, Burst uint32
	PerSeconds  uint32
}

// MatchKind says what a match compares.
type MatchKind uint8

// The matches. Address and port mean those of the packet as it passes the hook.
const (
	MatchInLink       MatchKind = iota // incoming interface is Link; "cali*" is a prefix
	MatchOutLink                       // outgoing interface
	MatchInLinkSet                     // incoming interface is in Set (SetLinks)
	MatchOutLinkSet                    // outgoing interface is in Set (SetLinks)
	MatchInSource                      // incoming interface . source address is in Set (SetLinkAddrs, SetLinkNets)
	MatchSrcNet                        // source address is in Net
	MatchDstNet                        //
	MatchSrcSet                        // source address is in Set (SetAddrs, SetNets)
	MatchDstSet                        //
	MatchProtocol                      // layer 4 protocol is Low
	MatchSrcPort                       // source port is Low to High; only TCP, UDP, UDPLite and SCTP have ports
	MatchDstPort                       //
	MatchSrcPortSet                    // source port is in Set (SetPorts)
	MatchDstPortSet                    //
	MatchSrcAddrPort                   // source address . protocol . source port is in Set (SetAddrPorts)
	MatchDstAddrPort                   //
	MatchICMPType                      // type of ICMP (v4) or ICMPv6 (v6) is Low to High
	MatchICMPCode                      // code is Low
	MatchICMPTypeCode                  // type is Low and code is High, compared as one: its negation is "not both"
	MatchState                         // state of the connection is any of Low (State bits)
	MatchFlow                          // source . destination . protocol . ports is in Set (SetFlows)
	MatchDstLocal                      // destination is an address of this node (fib daddr type local)
	MatchMark                          // any of the bits of Mark are set in the packet's mark
	MatchSrcLocal                      // source is an address of this node (fib saddr type local)
	MatchSrcLink                       // source is an address of the interface that the packet leaves by (fib saddr . oif type local)
	MatchOverRate                      // more than Rate packets a second have come here, and Burst beyond that
	MatchOverConns                     // of the connections whose packets came here, more than Rate are open
)

// States of connections, as bits of Match.Low (nf_conntrack_common.h).
const (
	StateInvalid     uint16 = 1
	StateEstablished uint16 = 2
	StateRelated     uint16 = 4
	StateNew         uint16 = 8
	StateUntracked   uint16 = 64
)

// Match is one condition of a rule. It is comparable.
type Match struct {
	Kind      MatchKind
	Not       bool
	Link      string
	Set       string
	Net       netip.Prefix
	Low, High uint16
	Mark      uint32
	Rate      uint32 // of MatchOverRate and MatchOverConns, at least 1
	Burst     uint32 // of MatchOverRate
}

// SetChange is a change of what is in one set. Members that are put and are there,
// or are deleted and are not there, are no error.
type SetChange struct {
	Set                       string
	Put, Delete               []Member
	PutElement, DeleteElement []Element // an element with another Value replaces
}

// TableDelta is a change of one table. It is to be applied as a whole. A put chain
// replaces the one of its name; a put set is new and empty, its contents are in
// Changes.
type TableDelta struct {
	PutSets      []Set
	Changes      []SetChange
	PutChains    []Chain
	DeleteChains []string
	DeleteSets   []string
}

// Empty reports whether d changes nothing.
func (d *TableDelta) Empty() bool {
	return len(d.PutSets)+len(d.Changes)+len(d.PutChains)+len(d.DeleteChains)+len(d.DeleteSets) == 0
}

// Filter is the packet filter of a node: the tables of IPv4 and IPv6.
type Filter struct{ V4, V6 Table }

// FilterDelta is a change of both tables, to be applied as a whole.
type FilterDelta struct{ V4, V6 TableDelta }

// Empty reports whether d changes nothing.
func (d *FilterDelta) Empty() bool { return d.V4.Empty() && d.V6.Empty() }
