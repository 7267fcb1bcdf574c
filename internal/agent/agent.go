// Package agent is the node agent: one process per node that does the work of
// Calico's Felix, BIRD and confd. It wires the deciders to the doors and
// decides nothing itself.
//
//	store.Source ─ batches ─► engine ─┬─ route.Graph ──► plan.Delta ─► kernel/fib
//	                            ▲     ├─ policy.Graph ─► plan.FilterDelta ─► kernel/nft
//	                            │     ├─ peering.View ─► bgp.Config ─► speaker ─┐
//	                            │     └─ allocator (settings)                   │
//	                            └───────────── learned routes ──────────────────┘
//	weft-cni ─► socket ─► attachments ─► allocator ─► store (block, handle, endpoint)
//	                          └─ waits until the engine and the kernel have it
//
// The endpoint that a CNI request writes comes back through the datastore's
// watch like everything else: there is one way into the deciders, so what a
// restarted agent sees is what the running one saw.
//
// Beside that the agent watches the node's address, carries out the DELs that
// found no agent, and answers `weft node status`.
//
// Invariant: when the agent ends, however it ends, it takes nothing out of the
// kernel and tells no peer to forget its routes: traffic goes on, and the next
// agent finds what this one left.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/cni/install"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/kernel/remnant"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/peering"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/speaker"
	"github.com/weft-net/weft/internal/startup"
	"github.com/weft-net/weft/internal/store"
)

// queueInterval is the time between two looks at the queue of DELs that found
// no agent: an executable that gave up may write a moment after we began.
const queueInterval = 10 * time.Second

// firstPolicyTimeout bounds how long readiness waits for the first rules.
const firstPolicyTimeout = 20 * time.Second

// Config is what an agent must be told. All of it is required unless said
// otherwise.
type Config struct {
	Settings startup.Settings
	// Open connects to the datastore; it may wait for it, and calls waits with why as often as
	// it likes. What it returns is closed in the end.
	Open    func(ctx context.Context, waits func(why error)) (store.Store, error)
	Felix   []model.FelixConfig // settings of the process, the strongest first; may be empty
	Ignored []string            // names among those settings that no field has
	Peering peering.Options     // its Secrets are read from SecretsDir
	Backend Backend             // CALICO_NETWORKING_BACKEND
	Version string

	CNISocket    string // where the CNI executable asks
	StatusSocket string // where `weft node status` asks
	QueueDir     string // of DELs that found no agent
	SecretsDir   string // of BGP passwords; empty: none
	NodeNameFile string // written for the CNI executable
	MTUFile      string // the same, with the MTU of pods; empty: none

	// Kube is the Kubernetes that the node is part of; nil: none.
	Kube *kube.Client
	// KubeRequired says that the datastore is there too: the node must be.
	KubeRequired bool
	Pod          Pod                // of this process; may be empty
	Installer    *install.Installer // of the CNI plugin; nil: not the agent's business
	// NoWait has the agent fail at the start, rather than wait, while the API server does not
	// answer.
	NoWait bool
	// TrustEmpty has the agent believe a datastore that has nothing, whatever the kernel has.
	TrustEmpty bool
	// KeepCalico leaves what Calico's agent left in the packet filter.
	KeepCalico bool

	Log    *slog.Logger
	Level  *slog.LevelVar // of Log; follows logSeverityScreen
	Recent *run.Recent    // what was logged last, for diagnostics; nil: nothing
}

// Backend is how routes to other nodes come about (CALICO_NETWORKING_BACKEND).
type Backend string

// The backends.
const (
	BackendBIRD  Backend = "bird"  // BGP, and the datastore for pools that are encapsulated
	BackendVXLAN Backend = "vxlan" // the datastore; no BGP
	BackendNone  Backend = "none"  // no BGP, and no routes to pools that are not encapsulated
)

// Run prepares the node and keeps it right until ctx ends. It returns nil when
// ctx ended, else the first thing that could not go on. What it serves of its health, and the
// status socket, are there before all else.
func Run(ctx context.Context, c Config) error {
	p := newPages(c.Log)
	s := &socket{node: c.Settings.Node, version: c.Version, started: time.Now(), pages: p, recent: c.Recent}
	l, err := rpc.Listen(c.StatusSocket)
	if err != nil {
		return err
	}
	p.configure(route.SettingsFor(model.Node{Name: c.Settings.Node}, nil, c.Felix...).Pages)
	served, end := context.WithCancel(ctx)
	var serving sync.WaitGroup
	serving.Go(func() { p.run(served) })
	defer serving.Wait()
	defer end()
	asked, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	serving.Go(func() { fail(s.serve(served, l)) })
	if err = runBehind(asked, c, s); ctx.Err() != nil {
		return nil
	}
	return err
}

// runBehind is Run behind its pages.
func runBehind(ctx context.Context, c Config, s *socket) error {
	p := s.pages
	k := newKubernetes(c)
	defer k.begin(ctx)()
	p.waiting("waiting for the datastore")
	st, err := c.Open(ctx, func(why error) { p.waiting("waiting for the datastore: " + why.Error()) })
	if err != nil {
		return err
	}
	defer func() { _ = st.Close() }()
	if c.Settings.PodCIDR {
		st = podRanges{st}
	}
	p.waiting("preparing the node")
	host := startup.ThisHost()
	node, err := k.prepare(ctx, &c, st, host)
	if err != nil {
		return err // a node that can't start has written nothing
	}
	if err := startup.WriteNodeName(c.NodeNameFile, node.Name); err != nil {
		return err
	}
	if err := fib.EnableForwarding(true, node.IPv6.IsValid()); err != nil {
		return err
	}
	a, err := wire(c, st, k, p, node)
	if err != nil {
		return err
	}
	a.started = s.started
	err = a.run(ctx, host, s)
	if conflict := (*startup.ConflictError)(nil); errors.As(err, &conflict) {
		k.tellConflict(ctx, conflict)
	}
	if ctx.Err() != nil {
		k.farewell()
	}
	return err
}

// introduce makes the node and its cluster known in the datastore.
func introduce(ctx context.Context, c *Config, st store.Store, host startup.Host) (model.Node, error) {
	node, err := startup.Prepare(ctx, st, c.Settings, host, c.Log)
	if err != nil {
		return node, err
	}
	if err := store.Initialise(ctx, st); err != nil {
		return node, fmt.Errorf("agent: initialise the datastore: %w", err)
	}
	if err := startup.Describe(ctx, st, c.Settings); err != nil {
		c.Log.Warn("the cluster's type is not written", "err", err) // it is there for people
	}
	return node, nil
}

// agent is what runs.
type agent struct {
	Config
	store   store.Store
	node    model.Node
	kube    *kubernetes // nil: there is none
	pages   *pages
	record  *startup.Refresher
	engine  *engine
	doubt   *doubt
	scout   *fib.Scout
	calico  *remnant.Remnants
	network *network
	speaker *speaker.Speaker // nil: no BGP
	alloc   *allocator.Allocator
	cni     *attachments
	queue   rpc.Queue
	tunnels *tunnels
	under   *underlay
	podMTU  *podMTU
	mtus    chan int // of the underlay, the latest; room for one
	started time.Time
	limit   atomic.Int64 // nanoseconds that a loop may be at one thing
	seen    model.Node   // the node's record as it came last; the engine's
	served  atomic.Pointer[install.Families]
	ready   chan struct{} // closed when the datastore is known, its policy in force and the queue drained
}

// wire makes the parts of an agent.
func wire(c Config, st store.Store, k *kubernetes, p *pages, node model.Node) (*agent, error) {
	settings := route.SettingsFor(node, nil, c.Felix...)
	run.Tune(settings.Process.GCPercent, settings.Process.MaxProcs, settings.Process.MemoryLimitMB)
	roads, err := newNetwork(node, c.Felix, c.Backend == BackendVXLAN, c.Log)
	if err != nil {
		return nil, err
	}
	table := roads.fib
	arrived := newArrivals(node.Name)
	guard, err := newFilter(node.Name, c.Felix, arrived.link, c.Log)
	if err != nil {
		return nil, err
	}
	a := &agent{
		Config: c, store: st, node: node, kube: k, pages: p, network: roads,
		alloc:   allocator.New(st, node.Name, time.Now),
		queue:   rpc.Queue{Dir: c.QueueDir},
		started: time.Now(),
		ready:   make(chan struct{}),
		mtus:    make(chan int, 1),
	}
	noted := newNotes(c.Log)
	noted.problems("settings", unknownSettings(c.Ignored))
	report := func(origin string) func([]model.Problem) {
		return func(found []model.Problem) { noted.problems(origin, found) }
	}
	a.tunnels = newTunnels(node.Name, st, a.alloc, noted.locked, report("tunnels"), c.Log.With("part", "tunnels"))
	a.tunnels.ofRange = c.Settings.PodCIDR
	a.podMTU = newPodMTU(node.Name, c.MTUFile, report("mtu"), c.Log)
	a.under = newUnderlay(underlayFrom(settings, node), a.measured, c.Log)
	if a.scout, err = fib.OpenScout(roads.fibOptions(settings)); err != nil {
		return nil, err
	}
	if a.calico, err = remnant.Open(); err != nil {
		return nil, err
	}
	a.doubt = newDoubt(a.scout.Look, c.TrustEmpty, noted, c.Log)
	a.engine = &engine{
		node:     node.Name,
		network:  roads,
		tunnels:  a.tunnels,
		view:     peering.NewView(node.Name),
		options:  c.Peering,
		secrets:  secrets(c.SecretsDir),
		filter:   guard,
		alloc:    a.alloc,
		arrivals: arrived,
		doubt:    a.doubt,
		notes:    noted,
		log:      c.Log,
		synced:   make(chan struct{}),

		encrypted: make(chan struct{}),

		onSettings: a.follow,
		onBatch:    a.heard,
		pulse:      newPulse(),
		onPodMTU: func(bytes int) {
			s := roads.graph.Settings()
			a.podMTU.set(bytes, s.InterfacePrefixes, s.Tunnel.RequireMTUFile)
		},
	}
	if c.Backend == BackendBIRD {
		inherited, err := table.Inherited()
		if err != nil {
			return nil, err
		}
		a.speaker = speaker.New(c.Log.With("part", "bgp"))
		a.engine.speaker = a.speaker
		a.engine.restarting = inherited
	}
	a.cni = a.attachments(table, guard)
	a.limit.Store(int64(settings.Pages.Watchdog))
	if k != nil {
		k.overlap = func(found []model.Problem) { noted.errors("services", found) }
	}
	return a, nil
}

// attachments makes what serves the CNI executable: a pod is attached when its routes and
// its policy are in the kernel.
func (a *agent) attachments(table *fib.FIB, guard *filter) *attachments {
	at := &attachments{
		node: a.node.Name, store: a.store, alloc: a.alloc, arrivals: a.engine.arrivals,
		applied: func(ctx context.Context, link string, index int32) error {
			if index != 0 {
				if err := table.WaitLink(ctx, link, index); err != nil {
					return err
				}
			}
			if err := table.WaitApplied(ctx, link); err != nil {
				return err
			}
			return guard.inForce(ctx, link, index)
		},
		unready: a.unready,
		mtu:     a.podMTU.get,
		unlink:  table.Unlink,
		log:     a.Log,
		added:   map[rpc.Attachment]uint64{}, profile: map[string]bool{},
	}
	if a.Kube != nil {
		at.orchestrator, at.kubeNode = a.Kube, a.kubeNode()
	}
	return at
}

// run runs the parts until one of them fails or ctx ends.
func (a *agent) run(ctx context.Context, host startup.Host, s *socket) error {
	cniSocket, err := rpc.Listen(a.CNISocket)
	if err != nil {
		return err
	}
	a.record = &startup.Refresher{Store: a.store, Settings: a.Settings, Host: host, Log: a.Log}
	told, batches := make(chan model.Batch), make(chan model.Batch)
	var learned <-chan bgp.LearnedBatch
	group, ctx := errgroup.WithContext(ctx)
	start := func(f func(context.Context) error) { group.Go(func() error { return f(ctx) }) }
	a.network.run(start)
	a.engine.filter.run(start)
	start(a.alloc.Run)
	start(a.tunnels.run)
	start(a.under.run)
	start(a.podMTU.run)
	start(func(ctx context.Context) error { return follow(ctx, a.store, told, a.engine.notes) })
	start(func(ctx context.Context) error { return a.doubt.run(ctx, told, batches) })
	start((&takeover{
		remnants: a.calico, ready: a.ready, keep: a.KeepCalico, notes: a.engine.notes, log: a.Log,
		inForce: func() bool { s := a.engine.filter.table.State(); return s.Synced && s.Err == "" && a.unready() == "" },
	}).run)
	if a.speaker != nil {
		learned = a.speaker.Learned()
		start(a.speaker.Run)
	}
	start(func(ctx context.Context) error { return a.engine.run(ctx, batches, learned, a.mtus) })
	start(func(ctx context.Context) error { return a.drain(ctx) })
	start(func(ctx context.Context) error { return rpc.Serve(ctx, cniSocket, a.cni, a.Log) })
	start(func(ctx context.Context) error { return a.watchAddress(ctx) })
	start(a.engine.pulse.run)
	a.kube.run(start, a.routingDown)
	a.pages.begin(a.health, a.metrics)
	s.agent.Store(a)
	a.Log.Info("agent runs", "node", a.node.Name, "version", a.Version)
	defer func() { _, _ = a.scout.Close(), a.calico.Close() }()
	defer a.cni.unlinking.Wait()
	return group.Wait()
}

// drain waits for the first policy to be in force, and carries out what the CNI
// executable could not tell an agent, first of all and then now and again; it reports
// readiness in between.
func (a *agent) drain(ctx context.Context) error {
	select {
	case <-a.engine.synced:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Who asks for readiness wants to know that policy is in force. Where the kernel
	// refuses it for good, an ADD says so better than an agent that is never ready.
	wait, cancel := context.WithTimeout(ctx, firstPolicyTimeout)
	_ = a.engine.filter.wait(wait)
	cancel()
	// A pod that starts before its node encrypts would talk in clear.
	select {
	case <-a.engine.encrypted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	last := ""
	for turn := 0; ; turn++ {
		text := ""
		if err := a.queue.Each(ctx, a.cni.Del); err != nil {
			text = err.Error()
		}
		if text != "" && text != last {
			a.Log.Warn("queued DELs", "err", text)
		}
		last = text
		if turn == 0 {
			close(a.ready)
			a.Log.Info("agent is ready", "node", a.node.Name)
			if f := a.served.Load(); f != nil {
				a.kube.serve(*f)
			}
		}
		if turn < 2 { // the first scan of connections, too, leaves something
			if err := run.DropStartup(); err != nil {
				a.Log.Debug("memory of the start stays", "err", err)
			}
		}
		select {
		case <-time.After(queueInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// unready says why no CNI request can be served; empty when it can.
func (a *agent) unready() string {
	if why := a.doubt.unready(); why != "" {
		return why
	}
	select {
	case <-a.ready:
	default:
		return "the agent has just started and is reading the datastore: try again"
	}
	if a.engine.notes.locked() {
		return "the datastore is locked (ClusterInformation datastoreReady is false): try again when it is unlocked"
	}
	return a.podMTU.unready()
}

// health is what the pages /liveness and /readiness say. That new pods can't be started for
// want of the CNI plugin does not keep the agent from its work, and is a reason to look.
func (a *agent) health() run.Health {
	if why := a.stuck(time.Duration(a.limit.Load())); why != "" {
		return run.Health{Why: why}
	}
	why := a.unready()
	if why == "" {
		why = a.kube.problem()
	}
	if why == "" {
		return run.Health{Live: true, Ready: true, Why: "ready"}
	}
	return run.Health{Live: true, Why: why}
}

// routingDown says why packets of pods are not routed here as they are to be; empty when they
// are: what is wanted has been written to the kernel, and BGP, if it is spoken, was begun.
func (a *agent) routingDown() string {
	if why := a.unready(); why != "" {
		return why
	}
	k := a.network.fib.State()
	if k.Err != "" {
		return k.Err
	}
	if n := k.Routes - k.Applied - k.Waiting - k.Conflicts - k.Refused; n > 0 {
		return fmt.Sprintf("%d routes are being written", n)
	}
	return ""
}

// heard passes on what a batch means outside of the engine.
func (a *agent) heard(b model.Batch) {
	self := a.node.Key()
	for _, v := range b.Puts {
		if n, ok := v.(model.Node); ok && n.Name == a.node.Name && !reflect.DeepEqual(n, a.seen) {
			a.seen = n
			a.record.Forget()
		}
	}
	if slices.Contains(b.Deletes, self) {
		a.seen = model.Node{}
		a.record.Forget()
		a.kube.madeAnew()
	}
	if b.Synced || concernsPools(b) {
		pools := a.alloc.Pools()
		a.kube.setPools(pools)
		a.families(pools)
	}
}

// families says that pods may be started, and of which families they get addresses: those
// that the node speaks and that have a pool.
func (a *agent) families(pools []model.Pool) {
	has := func(v6 bool) bool {
		return a.node.Addr(v6).IsValid() && slices.ContainsFunc(pools, func(p model.Pool) bool { return p.CIDR.Addr().Is6() == v6 && !p.Disabled })
	}
	f := install.Families{V4: has(false), V6: has(true)}
	if !f.V4 && !f.V6 { // ADD says what is missing
		f.V4 = true
	}
	a.served.Store(&f)
	select {
	case <-a.ready:
		a.kube.serve(f)
	default: // drain will
	}
}

// watchAddress detects the node's address again now and then, and writes it
// when it changed: the record comes back through the watch.
func (a *agent) watchAddress(ctx context.Context) error {
	if a.Settings.PollInterval == 0 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	last := ""
	for {
		select {
		case <-time.After(a.Settings.PollInterval):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		err := a.record.Refresh(ctx)
		if conflict := (*startup.ConflictError)(nil); errors.As(err, &conflict) {
			return err // the address changed to one that another node has
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != "" && text != last && ctx.Err() == nil {
			a.Log.Warn("the node's address can't be checked; the last one stays", "err", text)
		}
		last = text
	}
}

// measured passes the MTU of the underlay on to the engine, which needs the latest only.
func (a *agent) measured(mtu int) {
	for {
		select {
		case a.mtus <- mtu:
			return
		case <-a.mtus:
		}
	}
}

// follow puts changed settings to use.
func (a *agent) follow(s route.Settings) {
	if level, err := run.ParseLevel(s.LogSeverity); err == nil && s.LogSeverity != "" {
		a.Level.Set(level)
	}
	run.Tune(s.Process.GCPercent, s.Process.MaxProcs, s.Process.MemoryLimitMB)
	a.limit.Store(int64(s.Pages.Watchdog))
	a.pages.configure(s.Pages)
	a.network.fib.Configure(a.network.fibOptions(s))
	a.under.configure(underlayFrom(s, a.node))
}

// resync is the interval of full comparisons as package fib wants it.
func resync(s route.Settings) time.Duration {
	if s.RouteRefresh == 0 {
		return -1
	}
	return s.RouteRefresh
}

// underlayFrom is what the underlay's MTU is found by.
func underlayFrom(s route.Settings, node model.Node) underlaySettings {
	return underlaySettings{
		pattern: s.Tunnel.MTUPattern, prefixes: s.InterfacePrefixes,
		tunnels: []string{
			plan.IPIPDevice, plan.VXLANDevice, plan.VXLAN6Device, model.DefaultWireGuardLink, model.DefaultWireGuardLinkV6,
		},
		addrs: [2]netip.Addr{node.IPv4.Addr(), node.IPv6.Addr()},
	}
}
