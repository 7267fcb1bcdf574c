// Package fib makes Linux forward as the plan says. It is the only writer of
// routes, of routing rules, and of the permanent neighbours and sysctls of workload links.
//
//	plan.Delta ─► Apply ─► want ──┐
//	rtnetlink events ─► changed ──┼─► pass ─► one netlink batch ─► kernel
//	a dump every 90 s ─► have ────┘
//
// A pass writes only what changed: the new wants, and what the kernel's own
// events say somebody else deleted or altered. So a pod's route is in the kernel
// a fraction of a millisecond after Apply, however many routes there are. The
// full comparison is for what no event tells.
//
// What cannot be done yet stays wanted: a route whose link does not exist, is
// down, or to whose gateway nothing leads is programmed by the event that cures
// it.
//
// How a gateway is reached is decided here, once for all routes that share it: by
// the longest prefix, then the lowest metric, among the routes of others in the
// main table. If that is a connected network, the gateway is on its link; if it
// is a route through a gateway, say the default route, ours leads through the same
// (RFC 4271 section 5.1.3, recursive next hops). Routes of ours are never taken,
// and a gateway in a block of this node is a workload here or nobody.
//
// Ownership: routes of the cluster's protocol (12, bird) are ours; so are host
// routes of the device protocol (3, boot) on links with our prefix, and permanent
// neighbours there; and routing rules of the cluster's protocol. A foreign route on a
// key that a route of the cluster wants stays, and is reported as a conflict; on the key
// of a workload it is replaced.
// A route of ours that somebody altered is put back.
//
// Invariant: nothing that an earlier run left is removed before Synced, and what
// it left as we want it is not written again: restarting drops no packet.
package fib

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// Options say which kernel objects are ours. The zero value is Calico's default,
// but for RemoveExternalRoutes.
type Options struct {
	// Protocols of routes that are all ours in our tables. Default: ProtoBird.
	Protocols []uint8
	// DeviceProtocol is the one of routes to workloads
	// (deviceRouteProtocol). Default: ProtoBoot.
	DeviceProtocol uint8
	// Prefixes of the names of workload links (interfacePrefix). Default: cali.
	Prefixes []string
	// Tables in which to look for routes of an earlier run, beside those
	// that routes name and TableMain (routeTableRanges).
	Tables []uint32
	// RemoveExternalRoutes also removes, after Synced, the routes of others on
	// workload links (removeExternalRoutes). Routes that the kernel made stay.
	RemoveExternalRoutes bool
	// Resync is the time between full comparisons (routeRefreshInterval).
	// Default: 90 s; negative: never.
	Resync time.Duration
	// Log gets changes of health. Default: nothing is logged.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if len(o.Protocols) == 0 {
		o.Protocols = []uint8{plan.ProtoBird}
	}
	if o.DeviceProtocol == 0 {
		o.DeviceProtocol = plan.ProtoBoot
	}
	if len(o.Prefixes) == 0 {
		o.Prefixes = []string{"cali"}
	}
	if o.Resync == 0 {
		o.Resync = 90 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// FIB is one network namespace's forwarding, as we want it and as far as we
// know it. Make one with New. All methods but Run may be called at any time by
// any goroutine, and none of them waits for the kernel but WaitApplied.
type FIB struct {
	opts   Options
	loop   *reconcile.Loop
	writer *netlink.Socket // requests
	reader *netlink.Socket // dumps
	events *netlink.Socket

	unlinking sync.Mutex      // guards unlinker
	unlinker  *netlink.Socket // deletions of links

	mu      sync.Mutex
	entries map[key]entry
	attrs   interned
	links   map[string]*link
	byIndex map[int32]*link
	tables  map[uint32]bool

	queue      queue           // routes to write or delete
	pins       []key           // routes to write again, with a route to their gateway
	dirtyLinks map[string]bool // links whose sysctls, neighbours or routes are to be written
	troubled   map[string]bool // links of which something may have failed
	gone       []goneNeighbor  // neighbours to delete
	spared     map[key]bool    // destinations of which no route is deleted for now
	external   []externalRoute // routes of others to delete

	rules      map[plan.RoutingRule]*rule // wanted
	goneRules  []goneRule                 // to delete
	dirtyRules bool                       // some of rules is not in the kernel

	ways     ways                    // to gateways
	blocks   map[key]struct{}        // wanted blackholes
	hosts    map[uint32]struct{}     // metrics of routes to workloads
	remote   map[netip.Addr]struct{} // gateways on no connected network, as last resolved
	gen      uint32                  // counts changes of links and ways
	resolved uint32                  // gen at which attrs were resolved
	eased    bool                    // what the kernel refused it may take now

	parity                     flag // entries with it were seen by this dump, or are younger
	heard                      bool // no event was lost since the last dump
	blind                      bool // a dump is under way after events were lost, or the first one
	needDump                   bool
	linksHeard                 map[int32]bool // links of which events told since the dump of links began; nil: there is none
	localSynced, clusterSynced bool
	changed                    chan struct{} // closed when something was applied
	awaited                    bool          // somebody waits for that
	count                      counts
	last                       failure
	stats                      Stats
	fault                      error // of the last dump or exchange
	batch                      batch // the loop's
	lastShape                  shape // of the route that internKernel saw last
	lastShapeID                uint32
	scratch                    []hop
	health                     reconcile.Health
}

// New opens the sockets in the network namespace of the calling thread. Call
// Run, which also closes them.
func New(opts Options) (*FIB, error) {
	f := blank(opts)
	f.health = reconcile.Health{Log: f.opts.Log, Good: "kernel routes are as wanted again", Bad: "kernel routes are not as wanted"}
	f.loop = reconcile.New(f.pass, reconcile.Options{Resync: max(f.opts.Resync, 0), Health: f.health.Note})
	var err error
	if f.writer, err = openSocket(); err == nil {
		if f.reader, err = openSocket(); err == nil {
			if f.events, err = openSocket(eventGroups...); err == nil {
				if err = f.events.Ignore(f.writer); err == nil {
					f.unlinker, err = openSocket()
				}
			}
		}
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// blank gives a FIB that knows and wants nothing, without a kernel.
func blank(opts Options) *FIB {
	f := &FIB{
		opts:       opts.withDefaults(),
		entries:    map[key]entry{},
		attrs:      newInterned(),
		links:      map[string]*link{},
		byIndex:    map[int32]*link{},
		tables:     map[uint32]bool{plan.TableMain: true},
		rules:      map[plan.RoutingRule]*rule{},
		dirtyLinks: map[string]bool{},
		troubled:   map[string]bool{},
		changed:    make(chan struct{}),
		ways:       newWays(0),
		blocks:     map[key]struct{}{},
		hosts:      map[uint32]struct{}{},
		remote:     map[netip.Addr]struct{}{},
		gen:        1,
	}
	for _, t := range f.opts.Tables {
		f.tables[t] = true
	}
	f.batch.limit = batchMessages
	return f
}

func (f *FIB) close() {
	for _, s := range []*netlink.Socket{f.writer, f.reader, f.events, f.unlinker} {
		if s != nil {
			s.Close()
		}
	}
}

// Run keeps the kernel as wanted until ctx ends, and returns the cause of that.
// It leaves everything in place. Sysctls are written as seen by the calling
// goroutine's thread, which therefore must be in the same network namespace as
// the caller of New was. It can run once.
func (f *FIB) Run(ctx context.Context) error {
	return f.loop.RunWith(ctx, f.listen, f.close)
}

// Apply changes what is wanted and starts writing it. It does not wait.
func (f *FIB) Apply(d plan.Delta) {
	f.mu.Lock()
	for i := range d.PutRoutes {
		f.putRoute(&d.PutRoutes[i])
	}
	for _, l := range d.PutLinks {
		f.putLink(l)
	}
	for _, n := range d.PutNeighbors {
		f.putNeighbor(n)
	}
	for _, r := range d.PutRules {
		f.putRule(r)
	}
	for _, r := range d.DeleteRules {
		f.deleteRule(r)
	}
	for _, k := range d.DeleteRoutes {
		f.deleteRoute(makeKey(k))
	}
	for _, n := range d.DeleteNeighbors {
		f.deleteNeighbor(n)
	}
	for _, name := range d.DeleteLinks {
		f.deleteLink(name)
	}
	f.kick()
	f.mu.Unlock()
}

// Synced says that everything that is wanted has been put: what an earlier run
// left and nobody put may go. Further calls do nothing.
func (f *FIB) Synced() { f.sync(true, true) }

// SyncedLocal is Synced for workload links only. It is for a caller that knows its
// workloads before BGP has told the routes to those of others.
func (f *FIB) SyncedLocal() { f.sync(true, false) }

func (f *FIB) sync(local, cluster bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if (!local || f.localSynced) && (!cluster || f.clusterSynced) {
		return
	}
	f.localSynced = f.localSynced || local
	f.clusterSynced = f.clusterSynced || cluster
	f.loop.Resync()
}

// Busy is how long the pass under way has taken; 0: none is.
func (f *FIB) Busy() time.Duration { return f.loop.Busy() }

// Resync asks for a full comparison, which nothing but doubt makes necessary.
func (f *FIB) Resync() { f.loop.Resync() }

// kick wakes the loop if there is anything to do.
func (f *FIB) kick() {
	if !f.queue.empty() || len(f.dirtyLinks)+len(f.gone)+len(f.external)+len(f.goneRules) > 0 || f.dirtyRules || f.gen != f.resolved {
		f.loop.Kick()
	}
}

// ours reports whether name is that of a workload link.
func (f *FIB) ours(name string) bool {
	for _, p := range f.opts.Prefixes {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
