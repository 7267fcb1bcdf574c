package plan

import "net/netip"

// PrioritySourceNAT is the priority of chains that translate source addresses, which
// nft writes as srcnat.
const PrioritySourceNAT = 100

// PriorityDestinationNAT is that of chains that translate destinations, which nft writes as
// dstnat.
const PriorityDestinationNAT = -100

// NAT says what the source of a connection becomes, or its destination. It is comparable. The zero NAT
// keeps ports where it can.
type NAT struct {
	Addr                netip.Addr // of SNAT and DNAT
	FirstPort, LastPort uint16     // the source port is one of these; 0: any
	Random              bool       // the source port is a random one, so that nobody else's is tried first
}

// String is what nft writes behind the verdict; it begins with a space, or is empty.
func (n *NAT) String() string {
	if n == nil {
		return ""
	}
	to, random := "", ""
	if n.Addr.IsValid() {
		to = n.Addr.String()
	}
	if n.LastPort > 0 {
		if n.Addr.Is6() {
			to = "[" + to + "]"
		}
		to += ":" + rangeText(n.FirstPort, n.LastPort)
	}
	if to != "" {
		to = " to " + to
	}
	if n.Random {
		random = " fully-random"
	}
	return to + random
}
