package agent

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/kernel/wg"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/wireguard"
)

// network is how packets travel between nodes: what route and wireguard decide, and the
// doors that make it so.
//
// Its methods are for the engine's goroutine, but for run's.
type network struct {
	graph   *route.Graph
	crypt   *wireguard.Graph
	fib     *fib.FIB
	devices *device.Devices
	wg      *wg.WG
	carrier *carrier
	keys    chan deviceKey // what wg found
	ended   chan struct{}  // closed when run's context ends

	leaving map[string]bool  // devices that are to go when due
	due     <-chan time.Time // nil: none are
}

// deviceDelay is how long a device that is not wanted any more stays: with it the kernel
// would take the routes that lead through it, before they are written anew.
const deviceDelay = time.Second

// deviceKey is the public key of a WireGuard device; the zero key: it is gone.
type deviceKey struct {
	link string
	key  plan.PublicKey
}

// newNetwork opens the doors in the network namespace of the calling thread. With
// datastoreOnly the routes to all blocks come from the datastore, none from BGP.
func newNetwork(node model.Node, felix []model.FelixConfig, datastoreOnly bool, log *slog.Logger) (*network, error) {
	settings := route.SettingsFor(node, nil, felix...)
	n := &network{
		graph:   route.NewGraph(route.Options{Node: node.Name, NoBGP: datastoreOnly, Env: felix}),
		crypt:   wireguard.NewGraph(wireguard.Options{Node: node.Name, Env: felix}),
		carrier: newCarrier(log.With("part", "ipip")),
		keys:    make(chan deviceKey),
		ended:   make(chan struct{}),
		leaving: map[string]bool{},
	}
	var err error
	o := n.fibOptions(settings)
	o.Log = log.With("part", "fib")
	if n.fib, err = fib.New(o); err != nil {
		return nil, err
	}
	n.devices, err = device.New(device.Options{UserIPIP: n.carrier.open, Log: log.With("part", "device")})
	if err != nil {
		return nil, fmt.Errorf("agent: tunnels: %w", err)
	}
	if n.wg, err = wg.New(wg.Options{Keys: n.tellKey, Log: log.With("part", "wireguard")}); err != nil {
		return nil, fmt.Errorf("agent: encryption: %w", err)
	}
	return n, nil
}

// fibOptions say which kernel objects are the cluster's. Protocol 80 is what Calico's
// Felix gives its routes: they are taken over.
func (n *network) fibOptions(s route.Settings) fib.Options {
	tables := []uint32{plan.TableMain}
	for _, v6 := range []bool{false, true} {
		if t := n.crypt.Table(v6); t != 0 {
			tables = append(tables, t)
		}
	}
	return fib.Options{
		Protocols:            []uint8{plan.ProtoBird, plan.ProtoFelix},
		Tables:               tables,
		Prefixes:             s.InterfacePrefixes,
		DeviceProtocol:       s.Form.Proto,
		RemoveExternalRoutes: s.RemoveExternal,
		Resync:               resync(s),
	}
}

// run starts what keeps the doors working.
func (n *network) run(start func(func(context.Context) error)) {
	start(n.fib.Run)
	start(n.devices.Run)
	start(n.wg.Run)
	start(n.carrier.run)
	start(func(ctx context.Context) error {
		<-ctx.Done()
		close(n.ended)
		return context.Cause(ctx)
	})
}

// tellKey passes on what wg found.
func (n *network) tellKey(link string, key plan.PublicKey) {
	select {
	case n.keys <- deviceKey{link, key}:
	case <-n.ended:
	}
}

// keyed takes in the public key of a device.
func (n *network) keyed(k deviceKey) { n.apply(n.crypt.SetKey(k.link, k.key)) }

// step takes in one batch from the datastore, and returns what is to be applied when the
// packet filter has been told.
func (n *network) step(b model.Batch) [2]plan.Delta {
	return [2]plan.Delta{n.graph.Step(b), n.crypt.Step(b)}
}

// learn takes in what BGP told.
func (n *network) learn(b bgp.LearnedBatch) { n.apply(n.graph.Learn(b)) }

// fix takes in the routes to BGP peers that the user wrote.
func (n *network) fix(routes map[netip.Prefix]plan.Hops) { n.apply(n.graph.Fix(routes)) }

// apply tells the doors. Each works by itself: a route waits for its device, and a device
// goes some time after its routes.
func (n *network) apply(d plan.Delta) {
	if d.Empty() {
		return
	}
	for _, put := range d.PutDevices {
		delete(n.leaving, put.Name)
	}
	for _, name := range d.DeleteDevices {
		n.leaving[name] = true
		n.due = time.After(deviceDelay)
	}
	d.DeleteDevices = nil
	n.wg.Apply(d)
	n.devices.Apply(d)
	n.carrier.apply(d)
	n.fib.Apply(d)
}

// measured takes in the MTU of the underlay, bytes.
func (n *network) measured(mtu int) {
	n.apply(n.graph.SetUnderlay(route.Underlay{MTU: mtu}))
	n.apply(n.crypt.SetUnderlay(mtu))
}

// expire removes the devices that are not wanted any more.
func (n *network) expire() {
	gone := plan.Delta{DeleteDevices: slices.Sorted(maps.Keys(n.leaving))}
	n.due = nil
	clear(n.leaving)
	n.devices.Apply(gone)
	n.wg.Apply(gone)
	n.carrier.apply(gone)
}

// synced lets the doors remove what an earlier run left; before BGP has told its routes,
// only what is not of them.
func (n *network) synced(learned bool) {
	n.devices.Synced()
	n.wg.Synced()
	if learned {
		n.fib.Synced()
	} else {
		n.fib.SyncedLocal()
	}
}

// refused is what the kernel did not do as it was asked.
func (n *network) refused() []model.Problem {
	var out []model.Problem
	for _, p := range n.devices.Problems() {
		out = append(out, model.Problem{Text: fmt.Sprintf("device %s: %s", p.Object, p.Text)})
	}
	for _, p := range n.wg.Problems() {
		out = append(out, model.Problem{Text: fmt.Sprintf("device %s: %s", p.Object, p.Text)})
	}
	return out
}

// tunnels is how the tunnels' devices are, by name; any goroutine may ask.
func (n *network) tunnels() []Tunnel {
	var out []Tunnel
	for _, d := range n.devices.State() {
		t := Tunnel{Device: d.Name, Kind: d.Kind.String(), UserSpace: d.UserSpace, Addr: d.Addr, MTU: d.MTU, Up: d.Up, Ends: d.Ends}
		if d.Kind == plan.WireGuard {
			s := n.wg.State(d.Name)
			t.Ends = s.Peers
			if s.Key != (plan.PublicKey{}) {
				t.Key = base64.StdEncoding.EncodeToString(s.Key[:])
			}
		}
		out = append(out, t)
	}
	return out
}

// notices is what works otherwise than one might expect.
func (n *network) notices() []model.Problem {
	var out []model.Problem
	for _, p := range n.devices.Notices() {
		out = append(out, model.Problem{Text: fmt.Sprintf("device %s: %s", p.Object, p.Text)})
	}
	return out
}
