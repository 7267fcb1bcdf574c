// Package wg gives WireGuard devices their keys, ports and peers. It is the only writer
// of these; the devices themselves, with address and MTU, are package device's.
//
//	plan.Delta ─► Apply ─► want ──┐
//	rtnetlink events ─► dirty ────┼─► pass ─► generic netlink ─► kernel
//	a dump every 90 s ────────────┘              │
//	                                  Keys ◄─────┘ public key of each device
//
// A device that does not exist is waited for: the event that tells of it starts the
// work. A pass writes the peers that changed, many in a message, and additions
// before removals: a prefix that moves to another peer is added there, and the kernel takes
// it from the first, so at no time is it nobody's (but where two peers swap theirs). Only
// a peer that keeps what nobody else wants has its whole list written anew.
//
// A device without a private key gets one, made here and known to nobody but the
// kernel: it is not stored, not read back, and not logged. It lives as long as the
// device: restarting the agent keeps it and the sessions, a node that boots has a new one,
// and Keys tells its public half, for the agent to publish.
//
// Peers may wander: the kernel sends to where a peer's last authentic packet came
// from. The full comparison puts the address back that the plan names.
//
// Ownership: all peers of a device that the plan names are ours. Invariant: nothing that an
// earlier run left is removed before Synced but what Apply deletes by name, and what it left as
// we want it is not written again.
package wg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// Options are what WG needs beside the plan. The zero value is useful.
type Options struct {
	// Keys is told the public key of each wanted device once it is known, when it
	// changes, and that it is none (the zero key) when the device has gone. It is
	// called by the goroutine of Run, without locks held; it may call Apply. Default:
	// nobody is told.
	Keys func(link string, key plan.PublicKey)
	// Resync is the time between full comparisons. Default: 90 s; negative: never.
	Resync time.Duration
	// Log gets changes of health. Default: nothing is logged.
	Log *slog.Logger
}

// Problem is why something is not as wanted.
type Problem struct {
	Object string // name of a device
	Text   string // one line
}

// Stats count what was done since New.
type Stats struct {
	Devices uint64 // settings of devices written
	Peers   uint64 // peers written or removed
	Dumps   uint64 // devices read
}

// WG is the WireGuard devices of one network namespace. Make one with New. All methods but
// Busy is how long the pass under way has taken; 0: none is.
func (w *WG) Busy() time.Duration { return w.loop.Busy() }

// Run may be called at any time by any goroutine; they wait for a pass that is under way.
type WG struct {
	opts   Options
	loop   *reconcile.Loop
	kernel kernel
	events *netlink.Socket // of links

	mu      sync.Mutex
	devices map[string]*device
	synced  bool
	tell    []told
	health  reconcile.Health
	stats   Stats
}

// told is a call of Options.Keys that is due.
type told struct {
	link string
	key  plan.PublicKey
}

// device is what is known of a device by name.
type device struct {
	want   plan.Device
	wanted bool
	peers  map[plan.PublicKey]plan.WireGuardPeerAttrs
	dirty  map[plan.PublicKey]struct{} // of peers, to be written
	gone   map[plan.PublicKey]struct{} // deleted by name, to be removed

	index int32          // 0: there is none, as far as we know
	have  *state         // nil: to be read
	key   plan.PublicKey // as told to Options.Keys
	swept bool           // was compared as a whole since have was read
	errs  []error
}

// New opens the sockets in the network namespace of the calling thread. Call Run, which
// also closes them.
func New(opts Options) (*WG, error) {
	if opts.Resync == 0 {
		opts.Resync = 90 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Keys == nil {
		opts.Keys = func(string, plan.PublicKey) {}
	}
	socket, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_GENERIC})
	if err != nil {
		return nil, fmt.Errorf("wg: %w", err)
	}
	w := blank(opts, &generic{socket: socket})
	w.events, err = netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE, Groups: []int{unix.RTNLGRP_LINK}})
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("wg: %w", err)
	}
	return w, nil
}

// blank gives a WG that knows and wants nothing.
func blank(opts Options, k kernel) *WG {
	w := &WG{opts: opts, kernel: k, devices: map[string]*device{}}
	w.health = reconcile.Health{Log: opts.Log, Good: "WireGuard devices are as wanted again", Bad: "WireGuard devices are not as wanted"}
	w.loop = reconcile.New(w.pass, reconcile.Options{Resync: max(opts.Resync, 0), Health: w.health.Note})
	return w
}

// Run keeps the devices as wanted until ctx ends, and returns the cause of that. It leaves
// everything in place. Sysctls are written as seen by the calling goroutine's thread,
// which therefore must be in the same network namespace as the caller of New was. It can
// run once.
func (w *WG) Run(ctx context.Context) error {
	return w.loop.RunWith(ctx, w.listen, func() {
		w.kernel.close()
		w.events.Close()
	})
}

// Apply changes what is wanted and starts writing it. Of delta only WireGuard's devices
// and peers matter.
func (w *WG) Apply(delta plan.Delta) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed := false
	for _, v := range delta.PutDevices {
		if v.Kind == plan.WireGuard {
			if d := w.device(v.Name); !d.wanted || d.want != v {
				d.want, d.wanted, d.have = v, true, nil
				changed = true
			}
		}
	}
	for _, p := range delta.PutPeers {
		d := w.device(p.Link)
		d.peers[p.Key] = p.WireGuardPeerAttrs
		d.dirty[p.Key] = struct{}{}
		delete(d.gone, p.Key)
		changed = true
	}
	for _, k := range delta.DeletePeers {
		d := w.device(k.Link)
		delete(d.peers, k.Key)
		delete(d.dirty, k.Key)
		d.gone[k.Key] = struct{}{}
		changed = true
	}
	for _, name := range delta.DeleteDevices {
		if d := w.devices[name]; d != nil && d.wanted {
			d.wanted = false
			w.tellKey(name, d, plan.PublicKey{})
			changed = true
		}
	}
	if changed {
		w.loop.Kick()
	}
}

func (w *WG) device(name string) *device {
	d := w.devices[name]
	if d == nil {
		d = &device{
			peers: map[plan.PublicKey]plan.WireGuardPeerAttrs{},
			dirty: map[plan.PublicKey]struct{}{}, gone: map[plan.PublicKey]struct{}{},
		}
		w.devices[name] = d
	}
	return d
}

// Synced says that everything that is wanted has been put: what an earlier run left and
// nobody put may go. Further calls do nothing.
func (w *WG) Synced() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.synced {
		w.synced = true
		w.loop.Resync()
	}
}

// Resync asks for a full comparison.
func (w *WG) Resync() { w.loop.Resync() }

// Problems are what is not as wanted, by device.
func (w *WG) Problems() []Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Problem
	for _, name := range slices.Sorted(maps.Keys(w.devices)) {
		for _, err := range w.devices[name].errs {
			out = append(out, Problem{name, err.Error()})
		}
	}
	return out
}

// State is how a wanted device is.
type State struct {
	Key   plan.PublicKey // its own; zero: it has none yet
	Peers int            // wanted
}

// State tells how the device of that name is; the zero State: it is not wanted.
func (w *WG) State(link string) State {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.devices[link]
	if d == nil || !d.wanted {
		return State{}
	}
	return State{Key: d.key, Peers: len(d.peers)}
}

// Stats says what was done so far.
func (w *WG) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// listen takes in the kernel's events until the socket is closed.
func (w *WG) listen() error {
	for {
		datagram, err := w.events.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun):
			w.loop.Resync()
			continue
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("wg: read events: %w", err)
		}
		w.mu.Lock()
		for m := range netlink.Messages(datagram) {
			if name, index, ok := parseLink(m); ok && w.linkEvent(name, index, m.Type == unix.RTM_NEWLINK) {
				w.loop.Kick()
			}
		}
		w.mu.Unlock()
	}
}

// linkEvent takes in that a link is there or gone, and reports whether that is news.
func (w *WG) linkEvent(name string, index int32, there bool) bool {
	news := false
	for known, d := range w.devices {
		same := known == name
		switch {
		case there && same && d.index != index, // it is new, or has got this name
			d.index == index && (!there || !same): // it is gone, or has lost it
			d.index, d.have = 0, nil
			news = news || d.wanted
		}
	}
	return news
}
