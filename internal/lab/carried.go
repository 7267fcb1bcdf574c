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

// checkWire judges what passed the ports of the nodes at the ends of a probe's way.
func (o *observer) checkWire(carried string, t trace, at wire) error {
	here, _ := o.nodeOf(t.from)
	there, _ := o.nodeOf(t.to)
	w := watch{trace: t, want: formOf(carried), here: here, there: there, ports: o.ports}
	for _, c := range at {
		if err := c.drain(func(k captured) { w.see(k.bytes, c.rack) }); err != nil {
			return err
		}
	}
	return w.verdict()
}

func formOf(carried string) frame.Form {
	return map[string]frame.Form{
		topology.CarriedPlain: frame.Plain, topology.CarriedIPIP: frame.IPIP,
		topology.CarriedVXLAN: frame.VXLAN, topology.CarriedWireGuard: frame.WireGuard,
	}[carried]
}

// watch judges how a probe is carried, by the packets at the ports of the nodes that its
// ends are on. Ends that are on none have a zero node.
type watch struct {
	trace
	want        frame.Form
	here, there topology.Node
	ports       frame.Ports

	seen    [frame.WireGuard + 1][back + 1]string // an example of each
	strange error                                 // encapsulated, but not between the nodes
	leak    error
}

// see takes in a packet.
func (w *watch) see(b []byte, rack string) {
	p, ok := frame.Parse(b, w.ports)
	if !ok {
		return
	}
	if d, ok := w.carries(p); ok {
		if w.seen[p.Form][d] == "" {
			w.seen[p.Form][d] = fmt.Sprintf("%v seen on %s", p, rack)
		}
		if w.strange == nil && !w.between(p, d) {
			w.strange = fmt.Errorf("carried %v: %v seen on %s, not between addresses of the nodes", p.Form, p, rack)
		}
	}
	if w.want == frame.WireGuard && w.leak == nil {
		w.leak = w.leaks(b, p, rack)
	}
}

// carries reports whether p is of the probe, as far as it can be known: what is
// encrypted between its two nodes is taken for it.
func (w *watch) carries(p frame.Packet) (direction, bool) {
	if p.Form != frame.WireGuard {
		return w.recognises(p.Inner)
	}
	switch {
	case !p.Data:
	case owns(w.here, p.Outer.Src) && owns(w.there, p.Outer.Dst):
		return forth, true
	case owns(w.there, p.Outer.Src) && owns(w.here, p.Outer.Dst):
		return back, true
	}
	return 0, false
}

// between checks that the outside of an encapsulated packet has addresses of the two
// nodes, as far as the ends of the way have one.
func (w *watch) between(p frame.Packet, d direction) bool {
	if p.Form == frame.Plain {
		return true
	}
	from, to := w.here, w.there
	if d == back {
		from, to = to, from
	}
	return (from.Name == "" || owns(from, p.Outer.Src)) && (to.Name == "" || owns(to, p.Outer.Dst))
}

// leaks looks for what nobody on the underlay may read: the probe's mark and the
// addresses of pods. BGP tells other nodes about blocks, and is passed over.
func (w *watch) leaks(b []byte, p frame.Packet, rack string) error {
	if w.protocol != "tcp" && bytes.Contains(b, binary.BigEndian.AppendUint64(nil, w.mark)) {
		return fmt.Errorf("in clear: the payload of %v seen on %s", p, rack)
	}
	const bgp = 179
	if p.Outer.Protocol == frame.TCP && (p.Outer.SrcPort == bgp || p.Outer.DstPort == bgp) {
		return nil
	}
	for target, a := range map[topology.Target]netip.Addr{w.from: w.source, w.to: w.addr} {
		if target.Kind == topology.ToPod && a.IsValid() && bytes.Contains(b, a.AsSlice()) {
			return fmt.Errorf("in clear: %v in %v seen on %s", a, p, rack)
		}
	}
	return nil
}

// verdict is an error unless all that was seen of the probe has the form that is
// wanted, in both directions; within a node, unless nothing was.
func (w *watch) verdict() error {
	within := w.here.Name == w.there.Name
	for f, ways := range w.seen {
		f := frame.Form(f)
		for _, text := range ways {
			switch {
			case text == "" || f == frame.WireGuard: // which may be anybody's
			case within:
				return fmt.Errorf("carried %v: %s, but both ends are on %s", f, text, w.here.Name)
			case f != w.want:
				return fmt.Errorf("carried %v: %s", f, text)
			}
		}
	}
	if within {
		return nil
	}
	for d, text := range w.seen[w.want] {
		if text != "" {
			continue
		}
		if text := w.seen[frame.WireGuard][d]; text != "" {
			return fmt.Errorf("carried %v: %s", frame.WireGuard, text)
		}
		return fmt.Errorf("not carried %v: no packet of the %v was seen on the underlay", w.want, direction(d))
	}
	return cmp.Or(w.leak, w.strange)
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
