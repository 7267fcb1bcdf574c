package model

import (
	"math"
	"net/netip"

	v3 "github.com/weft-net/weft/api/v3"
)

// FloatingIP is an address outside of an endpoint that leads to one of its own. It is
// comparable.
type FloatingIP struct {
	External netip.Addr
	Internal netip.Addr // of the endpoint, and of the same family
}

// QoS limits what an endpoint gets and sends. It is comparable; the zero QoS limits
// nothing.
type QoS struct {
	Ingress, Egress Limits // to the workload, and from it
	DSCP            uint8  // of what leaves the cluster, if Marked
	Marked          bool
}

// Limits are those of one direction; what is zero is no limit.
type Limits struct {
	Bandwidth   Bandwidth
	Packets     uint32 // per second
	PacketBurst uint32 // packets beyond that at once; 0: DefaultPacketBurst
	Connections uint32 // open at once
}

// DefaultPacketBurst is how many packets may come at once where nothing else is said.
const DefaultPacketBurst = 5

// Bandwidth limits the bits of a direction.
type Bandwidth struct {
	Rate     uint64 // bits per second; 0: no limit
	Burst    uint64 // bits beyond Rate at once; 0: what suits the rate
	Peak     uint64 // bits per second within a burst; 0: any
	MinBurst uint64 // bits at once within Peak; 0: a packet
}

// parseQoS reads the limits of an endpoint; nil is none.
func parseQoS(e *first, q *v3.QoSControls) QoS {
	if q == nil {
		return QoS{}
	}
	count := func(field string, n int64) uint32 {
		if n < 0 || n > math.MaxUint32 {
			e.fail("spec.qosControls.%s: %d: must be 0 to %d", field, n, uint32(math.MaxUint32))
			return 0
		}
		return uint32(n)
	}
	bits := func(field string, n int64) uint64 {
		if n < 0 {
			e.fail("spec.qosControls.%s: %d: must not be negative", field, n)
			return 0
		}
		return uint64(n)
	}
	out := QoS{
		Ingress: Limits{
			Bandwidth: Bandwidth{
				bits("ingressBandwidth", q.IngressBandwidth), bits("ingressBurst", q.IngressBurst),
				bits("ingressPeakrate", q.IngressPeakrate), bits("ingressMinburst", q.IngressMinburst),
			},
			Packets: count("ingressPacketRate", q.IngressPacketRate), PacketBurst: count("ingressPacketBurst", q.IngressPacketBurst),
			Connections: count("ingressMaxConnections", q.IngressMaxConnections),
		},
		Egress: Limits{
			Bandwidth: Bandwidth{
				bits("egressBandwidth", q.EgressBandwidth), bits("egressBurst", q.EgressBurst),
				bits("egressPeakrate", q.EgressPeakrate), bits("egressMinburst", q.EgressMinburst),
			},
			Packets: count("egressPacketRate", q.EgressPacketRate), PacketBurst: count("egressPacketBurst", q.EgressPacketBurst),
			Connections: count("egressMaxConnections", q.EgressMaxConnections),
		},
	}
	if q.DSCP != nil {
		n, known := q.DSCP.Codepoint()
		if !known {
			e.fail("spec.qosControls.dscp: %q: must be 0 to 63 or a name such as AF11", v3.Protocol(*q.DSCP).String())
		}
		out.DSCP, out.Marked = n, known
	}
	return out
}

// floatingIPs reads the addresses outside of an endpoint that lead to it.
func floatingIPs(e *first, list []v3.IPNAT) []FloatingIP {
	var out []FloatingIP
	for i, n := range list {
		f := FloatingIP{
			External: try1(e, addr, "spec.ipNATs", i, n.ExternalIP),
			Internal: try1(e, addr, "spec.ipNATs", i, n.InternalIP),
		}
		if f.External.IsValid() && f.Internal.IsValid() {
			out = append(out, f)
		}
	}
	return out
}
