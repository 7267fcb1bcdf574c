package lab

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/lab/topology"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/store"
)

// decidedBy checks that what decides about the packets of a pair is the object that
// the topology names, and that it decides as was seen: by the datastore, and the same
// code that the node agents compile for the kernel.
func (h *holder) decidedBy(ctx context.Context, p topology.Pair, by string, allowed bool) error {
	kinds := slices.Concat(policy.Kinds(), edge.Kinds())
	slices.Sort(kinds)
	world, _, err := store.Snapshot(ctx, h.store, slices.Compact(kinds)...)
	if err != nil {
		return err
	}
	ways, err := h.ways(p)
	if err != nil {
		return err
	}
	view := policy.NewView(world).With(func(node string) policy.Settings { return h.settings(world, node) }).
		Translating(func(node string, p plan.Packet) (netip.Addr, string, bool) {
			return edge.Seen(edge.Options{Node: node, Env: h.felix(node)}, world, p)
		})
	for _, w := range ways {
		e, err := view.Verdict(w.query())
		if err != nil {
			return fmt.Errorf("%v: %w", w, err)
		}
		decider, _ := e.Decider()
		if e.Allowed != allowed || decider.Object != by {
			is := "nothing polices it"
			if decider.Object != "" {
				is = "decided by " + decider.Object
			} else if decider.Text != "" {
				is = decider.Text
			}
			return fmt.Errorf("%v: policy allows it: %t, %s; want %t, by %s", w, e.Allowed, is, allowed, by)
		}
	}
	return nil
}

// settings are those of a node's agent: what the topology sets for it wins over the
// datastore.
func (h *holder) settings(world model.World, node string) policy.Settings {
	n, ok := world[model.Node{Name: node}.Key()].(model.Node)
	if !ok {
		n.Name = node
	}
	return policy.SettingsFor(n, maps.Values(world), h.felix(node)...)
}

// felix is what the environment of a node's agent sets.
func (h *holder) felix(node string) []model.FelixConfig {
	for _, m := range h.nodes {
		if m.target.Name == node {
			// An agent that refuses its settings does not run, and no pod is up.
			env, _, _ := agent.FelixFromEnv(m.environ)
			return []model.FelixConfig{env}
		}
	}
	return nil
}

// query is the first packet of w as policy is asked about it.
func (w way) query() policy.Query {
	q := policy.Query{Dst: policy.Party{Addr: w.addr}, SrcPort: 32768, DstPort: w.port}
	switch w.from.Kind {
	case topology.ToNode:
		q.Src.Key = model.Node{Name: w.from.Name}.Key()
	default:
		q.Src.Addr = w.source
	}
	switch {
	case w.protocol == "tcp":
		q.Protocol = unix.IPPROTO_TCP
	case w.protocol == "udp":
		q.Protocol = unix.IPPROTO_UDP
	case w.addr.Is4():
		q.Protocol, q.ICMPType = unix.IPPROTO_ICMP, 8
	default:
		q.Protocol, q.ICMPType = unix.IPPROTO_ICMPV6, 128
	}
	return q
}
