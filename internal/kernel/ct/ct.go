// Package ct is the door to Linux connection tracking: it lists the flows that the
// kernel knows, and ends those that policy forbids now.
//
//	kick ─► Ender ─► dump ─► Judge ─► forbidden ─► Entomb ─► Delete
//	                  ▲                  │            │         │
//	              the kernel      plan.Filter's   tombstones   the kernel forgets
//	                              chains          (kernel/nft)
//
// Rules accept packets of established connections before anything else, so a new
// Deny reaches new connections only. What it is to do to others is done here, after
// the rules are in force and never on their way: a flow whose first packet the rules
// would now drop loses its entry. Its next packet is a new one, and is judged.
//
// Unless it comes the other way: Linux takes up TCP in mid-stream
// (nf_conntrack_tcp_loose), so an answer would found a new flow in the other
// direction, which may well be allowed. So before an entry goes, the tuple of its
// answers is put among the tombstones, which rules look up for new flows only.
//
// Flows that the node began are left alone, since what it sends to its workloads is
// not policed, and so are flows with no workload at either end, and what is not tracked.
// A flow from a workload to the node is judged as one that leaves the workload. A flow
// that is related to another (FTP data) ends with the other.
//
// Invariant: an entry is deleted by its tuple and its ID, so never a successor of the
// one that was judged, and never before its tombstone stands.
package ct

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Status holds the bits IPS_* of nf_conntrack_common.h.
type Status uint32

// The status bits that matter here.
const (
	Expected  Status = 1 << 0 // related to another flow (Flow.Master)
	SeenReply Status = 1 << 1 // packets went both ways
	Assured   Status = 1 << 2 // not to be dropped early when the table is full
	Confirmed Status = 1 << 3 // its first packet left the machine
	SourceNAT Status = 1 << 4
	DestNAT   Status = 1 << 5
	Dying     Status = 1 << 9
	Offloaded Status = 1 << 14 // in a flowtable
)

// Tuple is one direction of a flow. It is comparable.
type Tuple struct {
	Src, Dst netip.Addr // of one family; never 4-in-6
	Protocol uint8      // IP protocol number
	// Ports of TCP, UDP, UDPLite, SCTP and DCCP, and the keys of GRE; else 0.
	SrcPort, DstPort uint16
	// Of ICMP and ICMPv6.
	ICMPID             uint16
	ICMPType, ICMPCode uint8
}

// HasPorts reports whether SrcPort and DstPort say something.
func (t Tuple) HasPorts() bool {
	switch t.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP, unix.IPPROTO_DCCP, unix.IPPROTO_GRE:
		return true
	}
	return false
}

// String is t as in "6 10.0.0.1:40000 > 10.0.0.2:80", protocol first.
func (t Tuple) String() string {
	if !t.HasPorts() {
		return fmt.Sprintf("%d %v > %v", t.Protocol, t.Src, t.Dst)
	}
	return fmt.Sprintf("%d %v > %v", t.Protocol, netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort))
}

// Flow is one entry of the connection table.
type Flow struct {
	// Orig is the first packet as it came in, before address translation. Reply is
	// the packets that answer, as they come in: its source is where the first packet
	// went to after destination NAT, its destination is what source NAT showed.
	Orig, Reply Tuple
	// Master is the Orig of the flow that this one is related to; zero: of none.
	Master  Tuple
	Status  Status
	Mark    uint32
	ID      uint32 // as the kernel gave it: opaque
	Timeout uint32 // seconds until it ends by itself
	Zone    uint16
	// oneWay says that the zone is that of the original direction only.
	oneWay bool
}

// Filter says which flows to list. The zero Filter lists all.
type Filter struct {
	Family uint8 // unix.AF_INET, unix.AF_INET6, or 0 for both
	// Mark and MarkMask select the flows with Mark&MarkMask equal to the flow's.
	Mark, MarkMask uint32
	// Zoned selects the flows of Zone only.
	Zoned bool
	Zone  uint16
}

func (f Filter) has(flow *Flow) bool {
	return (f.Family == 0 || f.Family == family(flow.Orig.Src)) &&
		flow.Mark&f.MarkMask == f.Mark&f.MarkMask && (!f.Zoned || flow.Zone == f.Zone)
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
