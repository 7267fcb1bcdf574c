package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/lab/frame"
	"github.com/weft-net/weft/internal/lab/topology"
	"github.com/weft-net/weft/internal/lab/wire"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/store"
)

// try asks once, as [way.ask] does, and looks at the packets of the probe on their way.
// The error is what is wrong with them, or why there is no answer.
func (o *observer) try(ctx context.Context, p topology.Pair, w way) error {
	t := wire.Probe{From: w.from, To: w.to, Source: w.source, Addr: w.addr, Protocol: w.protocol, Port: w.port, Mark: rand.Uint64()}
	ports, target, err := o.open(p, w)
	if err != nil {
		return err
	}
	defer ports.close()
	if target != nil {
		defer target.Close()
	}
	err = w.ask(ctx, probeWait, t.Mark)
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = errNoAnswer // until now
	}
	if target != nil {
		err = o.checkSource(p.Source, w, t, target, err)
	}
	if p.Carried == "" {
		return err
	}
	if wrong := o.checkWire(p.Carried, t, ports); wrong != nil {
		if err != nil {
			return fmt.Errorf("%w; %w", err, wrong)
		}
		return wrong
	}
	return err
}

// observer knows what packets are to be looked at by.
type observer struct {
	h     *holder
	ports frame.Ports
}

// observer reads the ports of encapsulations out of the configuration of the first
// node's agent.
func (h *holder) observer(ctx context.Context) (*observer, error) {
	world, _, err := store.Snapshot(ctx, h.store, policy.Kinds()...)
	if err != nil {
		return nil, err
	}
	o := &observer{h, frame.Ports{VXLAN: model.DefaultVXLANPort, WireGuard: [2]uint16{model.DefaultWireGuardPort, model.DefaultWireGuardPortV6}}}
	configs := []model.FelixConfig{}
	if len(h.nodes) > 0 {
		// An agent that refuses its settings does not run, and no pod is up.
		env, _, _ := agent.FelixFromEnv(h.nodes[0].environ)
		configs = append(configs, env)
	}
	if c, ok := world[model.FelixConfig{Name: "default"}.Key()].(model.FelixConfig); ok {
		configs = append(configs, c)
	}
	for _, c := range slices.Backward(configs) { // the environment wins
		for at, port := range map[*uint16]*uint16{&o.ports.VXLAN: c.Filter.VXLANPort, &o.ports.WireGuard[0]: c.Tunnel.WireGuardPort, &o.ports.WireGuard[1]: c.Tunnel.WireGuardPortV6} {
			if port != nil {
				*at = *port
			}
		}
	}
	return o, nil
}

// portCaptures are captures at the ports of nodes, and which racks the ports are of.
type portCaptures []portCapture

type portCapture struct {
	*wire.Capture
	rack string
}

func (p portCaptures) close() {
	for _, c := range p {
		c.Close()
	}
}

// open begins to capture what a way is to be judged by.
func (o *observer) open(p topology.Pair, w way) (portCaptures, *wire.Capture, error) {
	var out portCaptures
	if p.Carried != "" {
		for _, t := range []topology.Target{w.from, w.to} {
			node, ok := o.nodeOf(t)
			if !ok {
				continue
			}
			for i, at := range node.Interfaces() {
				c, err := captureIn(&namespace{}, o.machine(node.Name).ports[i])
				if err != nil {
					out.close()
					return nil, nil, err
				}
				out = append(out, portCapture{c, at.Rack})
			}
		}
	}
	if p.Source == "" {
		return out, nil, nil
	}
	to := w.to
	if to.Kind == topology.ToAddress {
		to = o.h.holderOf(to)
	}
	if to.Kind == topology.ToAddress {
		out.close()
		return nil, nil, fmt.Errorf("%v: no part of the lab has this address, to see what comes from whom", to)
	}
	ns, _ := o.h.place(to)
	c, err := captureIn(ns, "")
	if err != nil {
		out.close()
		return nil, nil, err
	}
	return out, c, nil
}

// captureIn opens a capture on a link of ns, or on all of them.
func captureIn(ns *namespace, link string) (c *wire.Capture, err error) {
	err = ns.open(func() error {
		c, err = wire.NewCapture(link)
		return err
	})
	return c, err
}

func (o *observer) machine(node string) *machine {
	i := slices.IndexFunc(o.h.nodes, func(m *machine) bool { return m.target.Name == node })
	return o.h.nodes[i]
}

// nodeOf is the node that a target is, or is on.
func (o *observer) nodeOf(t topology.Target) (topology.Node, bool) {
	if t.Kind == topology.ToAddress {
		t = o.h.holderOf(t)
	}
	name := t.Name
	if t.Kind == topology.ToPod {
		for _, p := range o.h.pods {
			if p.Target() == t {
				name = p.at.Name
			}
		}
	}
	if t.Kind != topology.ToPod && t.Kind != topology.ToNode {
		return topology.Node{}, false
	}
	return nodeOf(o.h.topo, name), true
}

// checkWire judges what passed the ports of the nodes at the ends of a probe's way.
func (o *observer) checkWire(carried string, t wire.Probe, at portCaptures) error {
	here, _ := o.nodeOf(t.From)
	there, _ := o.nodeOf(t.To)
	w := wire.Watch{Probe: t, Want: wire.FormOf(carried), Here: here, There: there, Ports: o.ports}
	for _, c := range at {
		if err := c.Drain(func(k wire.Packet) { w.See(k.Bytes, c.rack) }); err != nil {
			return err
		}
	}
	return w.Verdict()
}

// checkSource judges from whom the target saw the requests come; err is what became of
// the probe.
func (o *observer) checkSource(want string, w way, t wire.Probe, at *wire.Capture, err error) error {
	var saw []netip.Addr
	lost := at.Drain(func(k wire.Packet) {
		p, ok := frame.Parse(k.Bytes, o.ports)
		if !ok || k.Outgoing || p.Form != frame.Plain || p.Outer.Dst != t.Addr {
			return
		}
		d, ok := t.Recognises(p.Outer)
		if again := p.Outer.Protocol == frame.TCP && p.Outer.Flags&(frame.SYN|frame.ACK) != frame.SYN; !ok || d != wire.Forth || again {
			return // an end of an earlier connection
		}
		if !slices.Contains(saw, p.Outer.Src) {
			saw = append(saw, p.Outer.Src)
		}
	})
	if err == nil {
		err = lost
	}
	allowed := o.sources(want, w)
	wrong := slices.ContainsFunc(saw, func(a netip.Addr) bool { return !slices.Contains(allowed, a) })
	switch {
	case wrong && err != nil:
		return fmt.Errorf("%w; %v saw it come from %s, want %s", err, w.to, list(saw), o.sourceText(want, allowed))
	case wrong:
		return fmt.Errorf("%v saw it come from %s, want %s", w.to, list(saw), o.sourceText(want, allowed))
	case err == nil && len(saw) == 0:
		return fmt.Errorf("%v saw no packet of it", w.to)
	}
	return err
}

func (o *observer) sourceText(want string, allowed []netip.Addr) string {
	if list(allowed) == want {
		return want
	}
	return strings.TrimSpace(list(allowed) + " (" + want + ")")
}

// sources are the addresses that a source may be, of the family of the way.
func (o *observer) sources(want string, w way) []netip.Addr {
	if want == topology.SourceOwn {
		return []netip.Addr{w.source}
	}
	var all []netip.Addr
	if want == topology.SourceNode {
		if node, ok := o.nodeOf(w.from); ok {
			want = node.Name
		}
	}
	t, err := o.h.topo.Target(want)
	switch {
	case err != nil:
		return nil // the topology was checked: a way from nowhere
	case t.Kind == topology.ToAddress:
		return []netip.Addr{t.Addr}
	case t.Kind == topology.ToNode:
		for _, i := range nodeOf(o.h.topo, t.Name).Interfaces() {
			all = append(all, i.Addresses...)
		}
	default:
		_, all = o.h.place(t)
	}
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return a.Is4() != w.addr.Is4() })
}
