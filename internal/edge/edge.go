// Package edge decides what a node does where the network of the cluster meets another
// one: which connections that leave the cluster get a source address of the node (NAT),
// which floating addresses lead to its workloads, how much these may send and get, and
// from whom the node takes encapsulated packets on the network underneath.
//
//	pools, nodes, FelixConfigs, ── Graph.Step ────► plan.FilterDelta ──► kernel/nft
//	endpoints of the node          Graph.Shapes ──► plan.Shape ────────► kernel/qos
//
// Its sets and chains stand in the tables of package policy, and share nothing with
// those: no name of theirs begins with all-, masq-, external-, nat-, limit- or tunnels-.
//
//	prerouting  -300  VXLAN to this node is not tracked
//	prerouting  -100  floating addresses become those of workloads; output likewise
//	input        -20  encapsulated packets of strangers are dropped, before all policy
//	forward      -19  packets and connections over a workload's limits; input and output likewise
//	output      -300  VXLAN of this node is not tracked
//	postrouting -150  what leaves the cluster gets the DSCP of its workload
//	postrouting  100  connections out of the cluster get an address of the node
//
// It is deliberately no policy. Who may send what is asked before, where packets still
// have the addresses of pods, and that a host endpoint lets encapsulated packets of
// nodes pass is the trade of package policy. Which devices and routes carry them is that
// of package route.
//
// Answers, and ICMP errors about packets that were translated, are translated back by
// the kernel's connection tracking; a rule sees the first packet of a connection only.
// So what changes here holds for new connections, and those that are there go on.
//
// Invariant: what a [Graph] has emitted is what [Compile] makes of the same world.
// [Translate] says the same of one packet, with the reason.
package edge

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"

	"github.com/weft-net/weft/internal/model"
)

// Kinds are what a Graph reads.
func Kinds() []model.Kind {
	return []model.Kind{model.KindIPPool, model.KindNode, model.KindFelixConfiguration, model.KindWorkloadEndpoint}
}

// settings is what the FelixConfigs say, laid over each other.
type settings struct {
	nat       model.NATConfig
	tunnel    model.TunnelConfig
	vxlanPort uint16
	ipv6      bool // there is a table for IPv6
}

// settingsFor lays configurations over each other for one node. The first that sets a
// field wins: env, then as [model.FelixConfigsFor] has them.
func settingsFor(self model.Node, values iter.Seq[model.Value], env []model.FelixConfig) settings {
	var s settings
	var port *uint16
	var v6 *bool
	for _, c := range append(slices.Clone(env), model.FelixConfigsFor(self, values)...) {
		s.nat, s.tunnel = s.nat.Over(c.NAT), s.tunnel.Over(c.Tunnel)
		port, v6 = cmp.Or(port, c.Filter.VXLANPort), cmp.Or(v6, c.Filter.IPv6)
	}
	s.vxlanPort = model.DefaultVXLANPort
	if port != nil {
		s.vxlanPort = *port
	}
	s.ipv6 = v6 == nil || *v6
	return s
}

// maximal are the nets of one family that no other one holds, sorted.
func maximal(nets []netip.Prefix, v6 bool) []netip.Prefix {
	var kept []netip.Prefix
	for _, n := range slices.SortedFunc(slices.Values(nets), netip.Prefix.Compare) {
		// Sorted, a net stands behind those that hold it, and of those that were kept
		// only the last one can.
		last := len(kept) - 1
		if n.Addr().Is4() != v6 && (last < 0 || !kept[last].Overlaps(n)) {
			kept = append(kept, n)
		}
	}
	return kept
}

// in reports whether one of the nets has a.
func in(nets []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Contains(a) })
}
