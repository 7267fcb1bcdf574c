package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/kernel/ct"
	"github.com/weft-net/weft/internal/kernel/forward"
	"github.com/weft-net/weft/internal/kernel/nflog"
	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/kernel/qos"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/startup"
)

const (
	// tombstoneTime is how long the kernel remembers a flow that policy ended: longer
	// than a sender is silent that has not given up. Each packet of TCP renews it.
	tombstoneTime = 3 * time.Minute
	// forwardPatience is how long others' tables wait for ours when the agent starts.
	forwardPatience = 10 * time.Second
	// listenRetry is the time between two tries to listen to the log groups, which
	// one program in a network namespace can do.
	listenRetry = 30 * time.Second
	// lookInterval is the time between two looks at what the kernel refuses, and at the
	// node's interfaces, which a host endpoint may be found by.
	lookInterval = 5 * time.Second
)

// filter is the node's packet filter: what policy decides, kernel/nft keeps in
// force, and beside that what limits bandwidths, ends connections, hears logged packets and
// keeps the defaults of others' tables from dropping what was allowed.
//
// step and relink are for the engine's goroutine.
type filter struct {
	node    string
	graph   *policy.Graph
	edge    *edge.Graph
	table   *nft.NFT
	shaper  *qos.QoS
	forward *forward.Forward
	conns   *ct.Table
	ender   *ct.Ender
	log     *slog.Logger

	synced   bool            // the datastore is known
	settings policy.Settings // written by the engine's goroutine, with mu held
	changed  chan struct{}   // holds a token when rules changed that may deny more

	// linkOf is the link of the workload on this node that has an address.
	linkOf func(netip.Addr) string

	mu      sync.Mutex // taken before that of table
	origins origins
}

// newFilter opens the doors in the network namespace of the calling thread.
func newFilter(node string, felix []model.FelixConfig, linkOf func(netip.Addr) string, log *slog.Logger) (*filter, error) {
	f := &filter{
		node: node, graph: policy.NewGraph(node, felix...), edge: edge.NewGraph(edge.Options{Node: node, Env: felix}), log: log, changed: make(chan struct{}, 1),
		linkOf: linkOf, origins: newOrigins(),
	}
	f.settings = f.graph.Settings()
	var err error
	if f.table, err = nft.New(f.nftOptions()); err != nil {
		return nil, err
	}
	if f.shaper, err = qos.New(qos.Options{Resync: f.nftOptions().Resync, Log: log.With("part", "qos")}); err != nil {
		return nil, err
	}
	if f.forward, err = forward.New(f.forwardOptions()); err != nil {
		return nil, err
	}
	if f.conns, err = ct.Open(); err != nil {
		return nil, err
	}
	f.ender = ct.NewEnder(ct.EnderOptions{Conns: f.conns, Judge: f.forbidden, Entomb: f.entomb, Log: log.With("part", "conntrack")})
	return f, nil
}

func (f *filter) nftOptions() nft.Options {
	o := nft.Options{MaxSetSize: f.settings.MaxSetSize, Resync: f.settings.Refresh, Log: f.log.With("part", "nft")}
	if o.Resync == 0 {
		o.Resync = -1 // never
	}
	return o
}

func (f *filter) forwardOptions() forward.Options {
	o := forward.Options{Prefixes: f.settings.Prefixes, Append: f.settings.Append, Log: f.log.With("part", "forward")}
	if f.settings.LeaveAllowed {
		o.Prefixes = []string{} // nowhere
	}
	return o
}

// step takes in one batch from the datastore, and the rules that belong to encryption.
func (f *filter) step(b model.Batch, encryption plan.FilterDelta) {
	f.apply(b, f.graph.Step(b))
	f.table.Apply(f.edge.Step(b))
	f.table.Apply(encryption)
	if f.synced = f.synced || b.Synced; f.synced {
		f.shaper.Want(f.edge.Shapes())
	}
}

// firstHost reports whether b brings a host endpoint to this node, which had none: then
// nobody has looked at its interfaces of late.
func (f *filter) firstHost(b model.Batch) bool {
	host := func(v model.Value) bool { h, ok := v.(model.HostEndpoint); return ok && h.Node == f.node }
	return !f.graph.NeedsLinks() && (slices.ContainsFunc(b.Puts, host) ||
		slices.ContainsFunc(b.Invalids, func(in model.Invalid) bool { return in.Strict != nil && host(in.Strict) }))
}

// relink looks at the node's interfaces.
func (f *filter) relink() error {
	found, err := startup.Links()
	if err != nil {
		return fmt.Errorf("agent: interfaces: %w", err)
	}
	var links []policy.Link
	for _, l := range found {
		link := policy.Link{Name: l.Name}
		for _, p := range l.Addrs {
			link.Addrs = append(link.Addrs, p.Addr())
		}
		links = append(links, link)
	}
	f.apply(model.Batch{}, f.graph.SetLinks(links))
	return nil
}

func (f *filter) apply(b model.Batch, d plan.FilterDelta) {
	f.table.Apply(d)
	f.mu.Lock()
	f.origins.step(b)
	f.mu.Unlock()
	if s := f.graph.Settings(); !s.Equal(f.settings) {
		f.mu.Lock()
		f.settings = s
		f.mu.Unlock()
		f.table.Configure(f.nftOptions())
		if err := f.forward.Configure(f.forwardOptions()); err != nil {
			f.log.Warn("others' chains stay as they are", "err", err)
		}
	}
	if !d.Empty() && f.settings.EndFlows {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
}

// run starts what keeps the doors working.
func (f *filter) run(start func(func(context.Context) error)) {
	start(f.table.Run)
	start(f.shaper.Run)
	start(f.open)
	start(f.endFlows)
	start(f.listen)
}

// open keeps other tables open, once ours are as wanted or the datastore lets wait: who
// listens while a node's whole policy goes into the kernel doubles what that takes.
func (f *filter) open(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, forwardPatience)
	_ = f.table.WaitApplied(soon) // which says elsewhere what it could not
	cancel()
	return f.forward.Run(ctx)
}

// endFlows has connections looked at whenever rules that may deny more are in the
// kernel, and first of all when the kernel has today's.
func (f *filter) endFlows(ctx context.Context) error {
	defer f.conns.Close()
	select {
	case <-f.changed:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !f.inKernel(ctx) {
		return context.Cause(ctx)
	}
	var ender sync.WaitGroup
	ender.Go(func() { _ = f.ender.Run(ctx) })
	defer ender.Wait()
	for {
		select {
		case <-f.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if !f.inKernel(ctx) {
			return context.Cause(ctx)
		}
		f.ender.Kick()
	}
}

// wait returns when what is wanted now is in force. What the kernel refuses does not
// hold up a workload: that denies, if it has no good version, and the status names it.
func (f *filter) wait(ctx context.Context) error {
	if err := f.table.WaitApplied(ctx); err != nil && ctx.Err() != nil {
		return fmt.Errorf("agent: policy: %w", err)
	}
	return nil
}

// inForce is wait, and for the bandwidth of a link: the one with that index, if it is not 0.
func (f *filter) inForce(ctx context.Context, link string, index int32) error {
	if err := f.wait(ctx); err != nil {
		return err
	}
	if err := f.shaper.Wait(ctx, link, index); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

// inKernel waits until what is wanted now is in the kernel, but for what it refuses;
// false: ctx ended.
func (f *filter) inKernel(ctx context.Context) bool {
	return f.wait(ctx) == nil
}

// forbidden says which flows the rules forbid now.
func (f *filter) forbidden(flows []ct.Flow, forbidden []bool) {
	f.table.Judge(func(v4, v6 *plan.Machine) {
		judge := ct.NewJudge(f.linkOf, v4, v6)
		for i := range flows {
			forbidden[i] = judge.Forbids(&flows[i])
		}
	})
}

// entomb keeps flows from coming back from their other end.
func (f *filter) entomb(_ context.Context, tuples []ct.Tuple) error {
	flows := make([]nft.Flow, len(tuples))
	for i, t := range tuples {
		flows[i] = nft.Flow{Src: t.Src, Dst: t.Dst, Protocol: t.Protocol, SrcPort: t.SrcPort, DstPort: t.DstPort}
	}
	return f.table.EndFlows(policy.EndedFlows, flows, tombstoneTime)
}

// listen logs the packets that rules log. Another program that listens to the groups
// keeps us from it, and from nothing else.
func (f *filter) listen(ctx context.Context) error {
	last := ""
	for ctx.Err() == nil {
		l, err := nflog.New(nflog.Options{
			Groups: []uint16{policy.LogGroup(policy.Ingress), policy.LogGroup(policy.Egress)},
			Each:   f.logged, Log: f.log.With("part", "nflog"),
		})
		if err == nil {
			last = ""
			err = l.Run(ctx)
		}
		if err != nil && ctx.Err() == nil && err.Error() != last {
			last = err.Error()
			f.log.Warn("packets that rules log are not heard; trying again", "err", err)
		}
		select {
		case <-time.After(listenRetry):
		case <-ctx.Done():
		}
	}
	return context.Cause(ctx)
}

// logged says what is known of a packet that a rule logged.
func (f *filter) logged(e nflog.Event) {
	f.mu.Lock()
	origin, ok := f.origins.of(e.Prefix)
	prefix := f.settings.LogPrefix
	f.mu.Unlock()
	p := e.Packet
	attrs := []any{
		"prefix", prefix, "src", p.Src, "dst", p.Dst, "protocol", policy.ProtocolName(p.Protocol),
		"in", p.InLink, "out", p.OutLink, "bytes", e.Bytes,
	}
	if policy.HasPorts(p.Protocol) {
		attrs = append(attrs, "sport", p.SrcPort, "dport", p.DstPort)
	}
	if !ok {
		f.log.Info("packet logged by a rule that is gone", append(attrs, "rule", e.Prefix)...)
		return
	}
	f.log.Info("packet logged", append(attrs, origin.attrs()...)...)
}

// stats are the counters of the rules that are in force.
func (f *filter) stats(ctx context.Context) ([]RuleStat, error) {
	counters, err := f.table.Counters(ctx)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	// Rules that are not in the kernel yet have met nothing.
	f.table.EachRule(func(_, _ string, r *plan.Rule) {
		if _, ok := counters[r.Comment]; !ok && r.Count && r.Comment != "" {
			counters[r.Comment] = nft.Counter{}
		}
	})
	var out []stat
	for id, c := range counters {
		if s, ok := f.origins.stat(id); ok {
			s.Packets, s.Bytes = c.Packets, c.Bytes
			out = append(out, s)
		}
	}
	return inOrder(out), nil
}

// refused are the objects that the kernel does not enforce as they are, each with
// what the kernel says.
func (f *filter) refused() []model.Problem {
	var out []model.Problem
	for _, p := range f.shaper.Problems() {
		out = append(out, model.Problem{Text: fmt.Sprintf("link %s: %s", p.Object, p.Text)})
	}
	problems := f.table.Problems()
	if len(problems) == 0 {
		return out
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	concerned := f.concerned(problems)
	seen := map[model.Problem]bool{}
	for _, p := range problems {
		text := fmt.Sprintf("%s of %s can't be written: %s: the last good version is in force; rules that never had one deny", p.Object, p.Table, p.Text)
		keys := concerned[object{p.Table, p.Object}]
		if keys == nil {
			keys = []model.Key{{}}
		}
		for _, key := range keys {
			if one := (model.Problem{Key: key, Text: text}); !seen[one] {
				seen[one] = true
				out = append(out, one)
			}
		}
	}
	return out
}

// object is a chain or set of a table, as an [nft.Problem] names it.
type object struct{ table, name string }

// concerned are the objects of the datastore that rules with problems come from, as
// far as they are known.
func (f *filter) concerned(problems []nft.Problem) map[object][]model.Key {
	out := map[object][]model.Key{}
	for _, p := range problems {
		out[object{p.Table, p.Object}] = nil
	}
	note := func(o object, r *plan.Rule) {
		keys, asked := out[o]
		if !asked {
			return
		}
		if key, ok := f.origins.key(r.Comment); ok && !slices.Contains(keys, key) {
			out[o] = append(keys, key)
		}
	}
	f.table.EachRule(func(table, chain string, r *plan.Rule) {
		note(object{table, "chain " + chain}, r)
		for i := range r.Match {
			if set := r.Match[i].Set; set != "" {
				note(object{table, "set " + set}, r)
			}
		}
	})
	return out
}
