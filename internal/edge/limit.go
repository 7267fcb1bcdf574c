package edge

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// Names of the chains and maps of limits. Each limited workload has a chain for each
// direction, because a limit is its rule's own.
const (
	LimitForward    = "limit-forward"
	LimitForwardTo  = "limit-forward-to"
	LimitInput      = "limit-input"
	LimitOutput     = "limit-output"
	limitFrom       = "limit-from-"        // the chain of a link, packets from its workload
	limitTo         = "limit-to-"          // likewise, to it
	limitFromLinks  = "limit-from-links"   // plan.MapClasses
	limitFromChains = "limit-from-chains"  // plan.MapChains
	limitToLinks    = "limit-to-links"     // plan.MapClasses
	limitToChains   = "limit-to-chains"    // plan.MapChains
	MarkingChain    = "limit-mark-leaving" // sets the DSCP of what leaves the cluster
)

// Priorities. Limits come before policy, which they spare work: what is over the rate is
// not judged any more. Marks come while packets still have the addresses of workloads.
const (
	priorityLimit = -19
	priorityMark  = -150 // mangle
)

// limited are the workloads of the node among values that something here bears upon, in
// order of their keys.
func limited(node string, values iter.Seq[model.Value]) []model.Endpoint {
	var out []model.Endpoint
	for v := range values {
		if e, ok := v.(model.Endpoint); ok {
			if kept, ok := concerns(node, e); ok {
				out = append(out, kept)
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Endpoint) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

// concerns is what counts here of an endpoint; false: nothing does.
func concerns(node string, e model.Endpoint) (model.Endpoint, bool) {
	if e.Node != node || e.Link == "" || e.QoS == (model.QoS{}) && len(e.FloatingIPs) == 0 {
		return model.Endpoint{}, false
	}
	kept := model.Endpoint{Namespace: e.Namespace, Name: e.Name, Node: e.Node, Pod: e.Pod, Link: e.Link, FloatingIPs: e.FloatingIPs, QoS: e.QoS}
	if e.QoS.Marked {
		kept.Addrs = e.Addrs
	}
	return kept, true
}

// shapesOf are the bandwidths of the workloads, by link; of two on one link the first
// counts.
func shapesOf(endpoints []model.Endpoint) map[string]plan.Shape {
	out := map[string]plan.Shape{}
	for _, e := range slices.Backward(endpoints) {
		s := plan.Shape{Link: e.Link, Ingress: rateOf(e.QoS.Ingress.Bandwidth), Egress: rateOf(e.QoS.Egress.Bandwidth)}
		if s != (plan.Shape{Link: e.Link}) {
			out[e.Link] = s
		}
	}
	return out
}

func rateOf(b model.Bandwidth) plan.Rate {
	if b.Rate == 0 {
		return plan.Rate{}
	}
	return plan.Rate{Bits: b.Rate, Burst: b.Burst, Peak: b.Peak, MinBurst: b.MinBurst}
}

// limits adds to t what limits packets and connections.
func (f *family) limits(t plan.Table) {
	from := limiter{dispatch: plan.Dispatch{Classes: limitFromLinks, Chains: limitFromChains}, prefix: limitFrom, way: "egress"}
	to := limiter{dispatch: plan.Dispatch{Out: true, Classes: limitToLinks, Chains: limitToChains}, prefix: limitTo, way: "ingress"}
	from.v6, to.v6 = f.v6, f.v6
	for _, e := range f.endpoints {
		from.add(t, e, e.QoS.Egress)
		to.add(t, e, e.QoS.Ingress)
	}
	from.hook(t, map[string]plan.Hook{LimitForward: plan.Forward, LimitInput: plan.Input})
	to.hook(t, map[string]plan.Hook{LimitForwardTo: plan.Forward, LimitOutput: plan.Output})
}

// limiter makes the limits of one direction.
type limiter struct {
	dispatch        plan.Dispatch
	v6              bool
	prefix          string // of the chains of links
	way             string // egress or ingress
	classes, chains plan.SetChange
	done            map[string]bool // links that have a chain
}

func (l *limiter) add(t plan.Table, e model.Endpoint, limits model.Limits) {
	rules := l.rules(e, limits)
	if len(rules) == 0 || l.done[e.Link] {
		return
	}
	if l.done == nil {
		l.done = map[string]bool{}
	}
	l.done[e.Link] = true
	name := l.prefix + e.Link
	t.Chains[name] = plan.Chain{Name: name, Rules: rules}
	l.classes.PutElement = append(l.classes.PutElement, plan.Element{Link: e.Link, Value: e.Link})
	l.chains.PutElement = append(l.chains.PutElement, plan.Element{Link: e.Link, Value: name})
}

func (l *limiter) rules(e model.Endpoint, limits model.Limits) []plan.Rule {
	var rules []plan.Rule
	if n := limits.Packets; n > 0 {
		burst := limits.PacketBurst
		if burst == 0 {
			burst = model.DefaultPacketBurst
		}
		if l.v6 {
			// Without neighbour discovery (RFC 4861) no address works at all.
			rules = append(rules, plan.Rule{
				Match: []plan.Match{{Kind: plan.MatchICMPType, Low: 133, High: 137}}, Verdict: plan.Accept, Comment: "neighbour discovery",
			})
		}
		rules = append(rules, plan.Rule{
			Match: []plan.Match{{Kind: plan.MatchOverRate, Rate: n, Burst: burst}},
			Count: true, Verdict: plan.Drop, Comment: l.comment(e, "PacketRate"),
		})
	}
	if n := limits.Connections; n > 0 {
		rules = append(rules, plan.Rule{
			Match: []plan.Match{{Kind: plan.MatchState, Low: plan.StateNew}, {Kind: plan.MatchOverConns, Rate: n}},
			Count: true, Verdict: plan.Reject, Comment: l.comment(e, "MaxConnections"),
		})
	}
	return rules
}

// comment says whose limit it is, within the length that a comment may have.
func (l *limiter) comment(e model.Endpoint, limit string) string {
	text := fmt.Sprintf("%s%s of %s/%s", l.way, limit, e.Namespace, cmp.Or(e.Pod, e.Name))
	return text[:min(len(text), 120)]
}

// hook has the packets of base chains looked at, if anything is limited.
func (l *limiter) hook(t plan.Table, hooks map[string]plan.Hook) {
	if len(l.done) == 0 {
		return
	}
	l.classes.Set, l.chains.Set = l.dispatch.Classes, l.dispatch.Chains
	t.Apply(plan.TableDelta{
		PutSets: []plan.Set{{Name: l.dispatch.Classes, Type: plan.MapClasses}, {Name: l.dispatch.Chains, Type: plan.MapChains}},
		Changes: []plan.SetChange{l.classes, l.chains},
	})
	for name, h := range hooks {
		base(t, name, plan.Base{Hook: h, Priority: priorityLimit}, []plan.Rule{{Dispatch: &l.dispatch}})
	}
}

// marks adds to t what sets the DSCP of packets that leave the cluster.
func (f *family) marks(t plan.Table) {
	var rules []plan.Rule
	for _, e := range f.endpoints {
		if !e.QoS.Marked {
			continue
		}
		for _, a := range e.Addrs {
			if a.Is4() == f.v6 {
				continue
			}
			rules = append(rules, plan.Rule{
				Match: []plan.Match{
					{Kind: plan.MatchSrcNet, Net: single(a)},
					{Kind: plan.MatchDstSet, Set: AllPools, Not: true},
					{Kind: plan.MatchDstSet, Set: AllHosts, Not: true},
				},
				SetDSCP: true, DSCP: e.QoS.DSCP, Comment: (&limiter{}).comment(e, "dscp"),
			})
		}
	}
	if len(rules) > 0 {
		base(t, MarkingChain, plan.Base{Hook: plan.Postrouting, Priority: priorityMark}, rules)
	}
}
