package wireguard

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Names in the packet filter.
const (
	setNodes    = "wireguard-nodes" // addresses of the other nodes
	setPools    = "wireguard-pools" // ranges of pods
	chainClear  = "wireguard-clear"
	chainMark   = "wireguard-mark"
	chainForget = "wireguard-forget"
)

// Priorities of the chains: judging when the destination is final (destination NAT is
// -100), forgetting last.
const (
	priorityClear  = -90
	priorityMark   = -89
	priorityForget = 400
)

// filter is what [Graph.Filter] gave out.
type filter struct {
	stale bool
	have  [2]table
}

// table is this package's part of one family's packet filter. Set contents are there
// where the chain is that asks them.
type table struct {
	chains       map[string]plan.Chain
	nodes, pools map[netip.Prefix]struct{}
}

// Filter returns how our part of the packet filter has changed since the last call.
//
// With wireguardCleartext: Drop it drops what comes from a pool's range to pods of this
// node other than through WireGuard or from one of them.
//
// What a pod elsewhere sends to this host comes in clear, while routes lead back to it
// through WireGuard. [Mark] has its source found where it came from (sysctl
// src_valid_mark), where reverse paths are filtered strictly, and is forgotten then. With
// wireguardHostEncryptionEnabled it is what comes in clear from the other hosts that is
// marked, and connections that it opens are answered in clear (sysctl tcp_fwmark_accept):
// a node that was rebooted reaches the datastore, wherever that is, to publish its new
// key. Package kernel/wg sets these sysctls.
func (g *Graph) Filter() plan.FilterDelta {
	var d plan.FilterDelta
	if !g.filter.stale {
		return d
	}
	g.filter.stale = false
	nodes := func(yield func(model.Node) bool) {
		for k, v := range g.known {
			if n, ok := v.(model.Node); ok && k.Name != g.opts.Node && !yield(n) {
				return
			}
		}
	}
	pools := slices.Collect(maps.Keys(g.pools))
	for f, out := range []*plan.TableDelta{&d.V4, &d.V6} {
		now := g.sides[f].part(f, nodes, pools)
		change(out, g.filter.have[f], now)
		g.filter.have[f] = now
	}
	return d
}

// part is the side's part of its family's table.
func (s side) part(f int, nodes func(func(model.Node) bool), pools []netip.Prefix) table {
	t := table{chains: map[string]plan.Chain{}}
	if s.on && s.strict || s.usable() && !s.hosts {
		t.pools = map[netip.Prefix]struct{}{}
		for _, p := range pools {
			if p.Addr().Is6() == (f == 1) && !slices.ContainsFunc(pools, func(o netip.Prefix) bool { return o.Bits() < p.Bits() && o.Overlaps(p) }) {
				t.pools[p] = struct{}{} // members of a set of prefixes do not overlap
			}
		}
	}
	if s.on && s.strict {
		t.put(chainClear, plan.Prerouting, priorityClear, plan.Rule{
			Match: append(s.outside(), plan.Match{Kind: plan.MatchSrcSet, Set: setPools}, plan.Match{Kind: plan.MatchDstLocal, Not: true}),
			Count: true, Verdict: plan.Drop, Comment: "from a pod in clear (wireguardCleartext)",
		})
	}
	if s.usable() && !s.hosts {
		t.put(chainMark, plan.Prerouting, priorityMark, plan.Rule{
			Match:   append(s.outside(), plan.Match{Kind: plan.MatchSrcSet, Set: setPools}, plan.Match{Kind: plan.MatchDstLocal}),
			SetMark: Mark, Comment: "from a pod to this host in clear",
		})
		t.put(chainForget, plan.Input, priorityForget, plan.Rule{
			Match: []plan.Match{{Kind: plan.MatchMark, Mark: Mark}}, ClearMark: Mark, // answered through WireGuard
		})
	}
	if s.usable() && s.hosts {
		t.nodes = map[netip.Prefix]struct{}{}
		for n := range nodes {
			if a := n.Addr(f == 1).Addr(); a.IsValid() {
				t.nodes[single(a)] = struct{}{}
			}
		}
		t.put(chainMark, plan.Prerouting, priorityMark, plan.Rule{
			Match:   append(s.outside(), plan.Match{Kind: plan.MatchSrcSet, Set: setNodes}, plan.Match{Kind: plan.MatchDstLocal}),
			SetMark: Mark, Comment: "asked in clear, answered in clear",
		})
		// What accepts a connection takes its mark as a whole.
		t.put(chainForget, plan.Input, priorityForget, plan.Rule{
			Match: []plan.Match{{Kind: plan.MatchMark, Mark: Mark}}, ClearMark: ^Mark,
		})
	}
	return t
}

func (t table) put(name string, hook plan.Hook, priority int32, r plan.Rule) {
	t.chains[name] = plan.Chain{Name: name, Base: &plan.Base{Hook: hook, Priority: priority}, Rules: []plan.Rule{r}}
}

// outside matches what came in neither through the device nor from this node itself or
// its workloads.
func (s side) outside() []plan.Match {
	out := []plan.Match{{Kind: plan.MatchInLink, Not: true, Link: "lo"}, {Kind: plan.MatchInLink, Not: true, Link: s.link}}
	for prefix := range strings.SplitSeq(s.prefixes, ",") {
		out = append(out, plan.Match{Kind: plan.MatchInLink, Not: true, Link: prefix + "*"})
	}
	return out
}

// change says how a table becomes another.
func change(d *plan.TableDelta, was, now table) {
	changeSet(d, plan.Set{Name: setNodes, Type: plan.SetAddrs}, was.nodes, now.nodes)
	changeSet(d, plan.Set{Name: setPools, Type: plan.SetNets}, was.pools, now.pools)
	for _, name := range []string{chainClear, chainMark, chainForget} {
		w, had := was.chains[name]
		n, ok := now.chains[name]
		switch {
		case ok && (!had || !n.Equal(w)):
			d.PutChains = append(d.PutChains, n)
		case had && !ok:
			d.DeleteChains = append(d.DeleteChains, name)
		}
	}
}

// changeSet says how the members of a set change; a nil map: there is no set.
func changeSet(d *plan.TableDelta, set plan.Set, was, now map[netip.Prefix]struct{}) {
	if was != nil && now == nil {
		d.DeleteSets = append(d.DeleteSets, set.Name)
		return
	}
	if was == nil && now != nil {
		d.PutSets = append(d.PutSets, set)
	}
	c := plan.SetChange{Set: set.Name}
	for p := range now {
		if _, had := was[p]; !had {
			c.Put = append(c.Put, plan.NetMember(p))
		}
	}
	for p := range was {
		if _, still := now[p]; !still {
			c.Delete = append(c.Delete, plan.NetMember(p))
		}
	}
	if len(c.Put)+len(c.Delete) > 0 {
		slices.SortFunc(c.Put, plan.Member.Compare)
		slices.SortFunc(c.Delete, plan.Member.Compare)
		d.Changes = append(d.Changes, c)
	}
}
