package plan

import "net/netip"

// Packet is what rules can see of a packet at a hook.
type Packet struct {
	InLink, OutLink  string // empty: none, as at output and input
	Src, Dst         netip.Addr
	Protocol         uint8
	SrcPort, DstPort uint16 // of protocols that have them
	// ICMPType and ICMPCode are of ICMP (IPv4) and ICMPv6 (IPv6) messages.
	ICMPType, ICMPCode uint8
	State              uint16 // one of the State bits
	DstLocal           bool   // Dst is an address of this node
	SrcLocal           bool   // Src is an address of this node
	SrcLink            bool   // Src is an address of OutLink
	Mark               uint32 // as it comes to the hook
}
