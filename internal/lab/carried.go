package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/lab/frame"
	"github.com/weft-net/weft/internal/lab/topology"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/store"
)

// trace is one probe as it is looked for on the wire.
type trace struct {
	way
	mark uint64 // in its payload, of ICMP and UDP
}

// direction is which way a packet of a probe goes.
type direction uint8

const (
	forth direction = iota
	back
)

func (d direction) String() string { return [...]string{"request", "answer"}[d] }

// recognises reports whether h is of the probe, and which way it goes. TCP is known by
// the target's port: its probes have no payload.
func (t trace) recognises(h frame.Header) (direction, bool) {
	switch t.protocol {
	case "tcp":
		if h.Protocol != frame.TCP {
			return 0, false
		}
		switch {
		case h.Dst == t.addr && h.DstPort == t.port:
			return forth, true
		case h.Src == t.addr && h.SrcPort == t.port:
			return back, true
		}
		return 0, false
	case "udp":
		return t.byMark(h, h.Protocol == frame.UDP, h.DstPort == t.port && h.Dst == t.addr)
	default:
		echo := icmpFor(t.addr)
		return t.byMark(h, (h.Protocol == frame.ICMP || h.Protocol == frame.ICMPv6) && (h.Type == echo.request || h.Type == echo.reply), h.Type == echo.request)
	}
}

func (t trace) byMark(h frame.Header, protocol, to bool) (direction, bool) {
	if !protocol || len(h.Payload) < 8 || binary.BigEndian.Uint64(h.Payload) != t.mark {
		return 0, false
	}
	if to {
		return forth, true
	}
	return back, true
}

// try asks once, as [way.ask] does, and looks at the packets of the probe on their way.
// The error is what is wrong with them, or why there is no answer.
func (o *observer) try(ctx context.Context, p topology.Pair, w way) error {
	t := trace{w, rand.Uint64()}
	wire, target, err := o.open(p, w)
	if err != nil {
		return err
	}
	defer wire.close()
	if target != nil {
		defer target.close()
	}
	err = w.ask(ctx, probeWait, t.mark)
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = errNoAnswer // until now
	}
	if target != nil {
		err = o.checkSource(p.Source, t, target, err)
	}
	if p.Carried == "" {
		return err
	}
	if wrong := o.checkWire(p.Carried, t, wire); wrong != nil {
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

// wire are captures at the ports of nodes, and which racks the ports are of.
type wire []portCapture

type portCapture struct {
	*capture
	rack string
}

func (w wire) close() {
	for _, c := range w {
		c.close()
	}
}

// open begins to capture what a way is to be judged by.
func (o *observer) open(p topology.Pair, w way) (wire, *capture, error) {
	var out wire
	if p.Carried != "" {
		for _, t := range []topology.Target{w.from, w.to} {
			node, ok := o.nodeOf(t)
			if !ok {
				continue
			}
			for i, at := range node.Interfaces() {
				c, err := newCapture(&namespace{}, o.machine(node.Name).ports[i])
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
	c, err := newCapture(ns, "")
	if err != nil {
		out.close()
		return nil, nil, err
	}
	return out, c, nil
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

// sights is what a capture had of a probe: by form and direction, one example.
type sights map[frame.Form]map[direction]string

func (s sights) add(f frame.Form, d direction, text string) {
	if s[f] == nil {
		s[f] = map[direction]string{}
	}
	if s[f][d] == "" {
		s[f][d] = text
	}
}

// checkWire judges what passed the ports of the nodes at the ends of a probe's way.
func (o *observer) checkWire(carried string, t trace, at wire) error {
	want := map[string]frame.Form{
		topology.CarriedPlain: frame.Plain, topology.CarriedIPIP: frame.IPIP,
		topology.CarriedVXLAN: frame.VXLAN, topology.CarriedWireGuard: frame.WireGuard,
	}[carried]
	here, _ := o.nodeOf(t.from)
	there, known := o.nodeOf(t.to)
	seen := sights{}
	var leak, strange error
	for _, c := range at {
		err := c.drain(func(k captured) {
			p, ok := frame.Parse(k.bytes, o.ports)
			if !ok {
				return
			}
			if d, ok := t.carries(p, here, there); ok {
				seen.add(p.Form, d, fmt.Sprintf("%v seen on %s", p, c.rack))
				if strange == nil && !between(p, d, here, there) {
					strange = fmt.Errorf("carried %v: %v seen on %s, not between addresses of the nodes", p.Form, p, c.rack)
				}
			}
			if want == frame.WireGuard && leak == nil {
				leak = t.leaks(k.bytes, p, c.rack)
			}
		})
		if err != nil {
			return err
		}
	}
	if known && here.Name == there.Name {
		return seen.nothing(here.Name)
	}
	if err := seen.only(want); err != nil {
		return err
	}
	return cmp.Or(leak, strange)
}

// nothing is the verdict on a way that does not leave its node.
func (s sights) nothing(node string) error {
	for f, examples := range s {
		for _, text := range examples {
			return fmt.Errorf("carried %v: %s, but both ends are on %s", f, text, node)
		}
	}
	return nil
}

// only is an error unless all that was seen has one form, in both directions.
func (s sights) only(want frame.Form) error {
	for _, f := range []frame.Form{frame.Plain, frame.IPIP, frame.VXLAN, frame.WireGuard} {
		for _, d := range []direction{forth, back} {
			text := s[f][d]
			if f != want && f != frame.WireGuard && text != "" {
				return fmt.Errorf("carried %v: %s", f, text)
			}
		}
	}
	for _, d := range []direction{forth, back} {
		if s[want][d] != "" {
			continue
		}
		if text := s[frame.WireGuard][d]; text != "" {
			return fmt.Errorf("carried %v: %s", frame.WireGuard, text)
		}
		return fmt.Errorf("not carried %v: no packet of the %v was seen on the underlay", want, d)
	}
	return nil
}

// carries reports whether p is of the probe, as far as it can be known: what is
// encrypted between its two nodes is taken for it.
func (t trace) carries(p frame.Packet, here, there topology.Node) (direction, bool) {
	if p.Form != frame.WireGuard {
		return t.recognises(p.Inner)
	}
	switch {
	case !p.Data:
	case owns(here, p.Outer.Src) && owns(there, p.Outer.Dst):
		return forth, true
	case owns(there, p.Outer.Src) && owns(here, p.Outer.Dst):
		return back, true
	}
	return 0, false
}

// between checks that the outside of an encapsulated packet has addresses of the two
// nodes, as far as the ends of the way have one.
func between(p frame.Packet, d direction, here, there topology.Node) bool {
	if p.Form == frame.Plain {
		return true
	}
	if d == back {
		here, there = there, here
	}
	return (here.Name == "" || owns(here, p.Outer.Src)) && (there.Name == "" || owns(there, p.Outer.Dst))
}

// leaks looks for what nobody on the underlay may read: the probe's mark and the
// addresses of pods. BGP tells other nodes about blocks, and is passed over.
func (t trace) leaks(b []byte, p frame.Packet, rack string) error {
	if t.protocol != "tcp" && bytes.Contains(b, binary.BigEndian.AppendUint64(nil, t.mark)) {
		return fmt.Errorf("in clear: the payload in %v seen on %s", p, rack)
	}
	const bgp = 179
	if p.Outer.Protocol == frame.TCP && (p.Outer.SrcPort == bgp || p.Outer.DstPort == bgp) {
		return nil
	}
	for target, a := range map[topology.Target]netip.Addr{t.from: t.source, t.to: t.addr} {
		if target.Kind == topology.ToPod && a.IsValid() && bytes.Contains(b, a.AsSlice()) {
			return fmt.Errorf("in clear: %v in %v seen on %s", a, p, rack)
		}
	}
	return nil
}

// owns reports whether a is an address of n.
func owns(n topology.Node, a netip.Addr) bool {
	return slices.ContainsFunc(n.Interfaces(), func(i topology.Interface) bool { return slices.Contains(i.Addresses, a) })
}

// checkSource judges from whom the target saw the requests come; err is what became of
// the probe.
func (o *observer) checkSource(want string, t trace, at *capture, err error) error {
	var saw []netip.Addr
	lost := at.drain(func(k captured) {
		p, ok := frame.Parse(k.bytes, o.ports)
		if !ok || k.outgoing || p.Form != frame.Plain || p.Outer.Dst != t.addr {
			return
		}
		d, ok := t.recognises(p.Outer)
		if again := p.Outer.Protocol == frame.TCP && p.Outer.Flags&(frame.SYN|frame.ACK) != frame.SYN; !ok || d != forth || again {
			return // an end of an earlier connection
		}
		if !slices.Contains(saw, p.Outer.Src) {
			saw = append(saw, p.Outer.Src)
		}
	})
	if err == nil {
		err = lost
	}
	allowed := o.sources(want, t.way)
	wrong := slices.ContainsFunc(saw, func(a netip.Addr) bool { return !slices.Contains(allowed, a) })
	switch {
	case wrong && err != nil:
		return fmt.Errorf("%w; %v saw it come from %s, want %s", err, t.to, list(saw), o.sourceText(want, allowed))
	case wrong:
		return fmt.Errorf("%v saw it come from %s, want %s", t.to, list(saw), o.sourceText(want, allowed))
	case err == nil && len(saw) == 0:
		return fmt.Errorf("%v saw no packet of it", t.to)
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
