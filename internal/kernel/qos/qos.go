// Package qos limits the bandwidth of workloads' links, by traffic control (tc(8)). It is
// the only writer of these queues.
//
//	Want(shapes) ──────────────┐
//	rtnetlink events ─► kick ──┼─► pass ─► links, qdiscs, filters ─► kernel
//	a dump every 90 s ─────────┘
//
// What goes to a workload leaves the node by its link, and waits there in a token
// bucket (tbf). What comes from it can't wait where it comes in: a filter sends it
// through a device of its own (ifb), which has the bucket, and gives it back to the link.
// So policy and routing see it as coming from the link, and nothing of this is in the
// workload's namespace, where it could be removed.
//
//	to the workload      node ─► cali1: tbf ══ eth0
//	from the workload    eth0 ══ cali1: ingress, u32, mirred ─► weftq…: tbf ─► cali1 ─► node
//
// Packets wait for at most as long as the queue holds, and are dropped then: TCP slows
// down. A limit of packets or connections is no queue, but rules: see package edge.
//
// Ownership: a root qdisc with our handle, a filter with our preference, and ifb devices
// with our names. A link that has a root qdisc of somebody else (the CNI plugin
// bandwidth, say) keeps it, and the limit is a problem that is told. A link's ingress qdisc
// may have others' filters: then it stays.
//
// Invariant: nothing is removed before the first Want, and what an earlier run left as
// we want it is not written again. A filter goes before the device that it leads to.
package qos

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// Options are what QoS needs beside the plan. The zero value is useful.
type Options struct {
	// Resync is the time between full comparisons. Default: 90 s; negative: never.
	Resync time.Duration
	// Log gets changes of health. Default: nothing is logged.
	Log *slog.Logger
}

// Problem is why a link is not limited as it should be.
type Problem struct {
	Object string // name of the link
	Text   string // one line
}

// QoS is the queues of one network namespace. Make one with New. All methods but Run may
// be called at any time by any goroutine.
type QoS struct {
	opts   Options
	loop   *reconcile.Loop
	socket *netlink.Socket
	events *netlink.Socket // of links and queues
	health reconcile.Health

	mu       sync.Mutex
	want     map[string]plan.Shape
	told     bool            // Want was called
	ours     bool            // something of ours may be in the kernel
	seen     map[string]seen // by link: what the last pass saw to
	changed  chan struct{}   // closed, and made anew, when seen changes
	problems map[string]error
	writes   uint64
}

// seen is that a pass has made a link as wanted, or could not.
type seen struct {
	index int32  // of the link
	mtu   uint32 // likewise, bytes
	shape plan.Shape
}

// New opens the sockets in the network namespace of the calling thread. Call Run, which
// also closes them.
func New(opts Options) (*QoS, error) {
	if opts.Resync == 0 {
		opts.Resync = 90 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	q := &QoS{opts: opts, ours: true, problems: map[string]error{}, changed: make(chan struct{})}
	var err error
	if q.socket, err = netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE}); err != nil {
		return nil, fmt.Errorf("qos: %w", err)
	}
	q.events, err = netlink.Open(netlink.Options{Protocol: unix.NETLINK_ROUTE, Groups: []int{unix.RTNLGRP_LINK, unix.RTNLGRP_TC}})
	if err == nil {
		err = q.events.Ignore(q.socket)
	}
	if err != nil {
		q.close()
		return nil, fmt.Errorf("qos: %w", err)
	}
	q.health = reconcile.Health{Log: opts.Log, Good: "bandwidths are limited as wanted again", Bad: "bandwidths are not limited as wanted"}
	q.loop = reconcile.New(q.pass, reconcile.Options{Resync: max(opts.Resync, 0), Health: q.health.Note})
	return q, nil
}

func (q *QoS) close() {
	_ = q.socket.Close()
	if q.events != nil {
		_ = q.events.Close()
	}
}

// Run keeps the links limited as wanted until ctx ends, and returns the cause of that. It
// leaves everything in place. It can run once.
func (q *QoS) Run(ctx context.Context) error { return q.loop.RunWith(ctx, q.listen, q.close) }

// Want says which links are to be limited, by name, all of them: links that it does not
// name are to have no limit of ours. The map is not changed any more. A link that is not
// there yet is limited as soon as it is.
func (q *QoS) Want(shapes map[string]plan.Shape) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.told && maps.Equal(q.want, shapes) {
		return
	}
	q.want, q.told = shapes, true
	q.loop.Kick()
}

// Wait returns when a pass has seen to a link, if that is to be limited: the one with that
// index, where index is not 0. What the kernel refuses is a problem, and no reason to wait.
// The error is that ctx ended first.
func (q *QoS) Wait(ctx context.Context, link string, index int32) error {
	for {
		q.mu.Lock()
		_, wanted := q.want[link]
		seen := q.seen[link]
		ch := q.changed
		q.mu.Unlock()
		if !wanted || seen.index != 0 && (index == 0 || seen.index == index) && seen.shape == q.shape(link) {
			return nil
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("qos: the limits of %s are not written: %w", link, context.Cause(ctx))
		}
	}
}

func (q *QoS) shape(link string) plan.Shape {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.want[link]
}

// Problems are the links that are not limited as wanted.
func (q *QoS) Problems() []Problem {
	q.mu.Lock()
	defer q.mu.Unlock()
	var out []Problem
	for _, name := range slices.Sorted(maps.Keys(q.problems)) {
		out = append(out, Problem{name, q.problems[name].Error()})
	}
	return out
}

// Resync asks for a full comparison.
func (q *QoS) Resync() { q.loop.Resync() }

// Writes is how many requests have changed the kernel since New.
func (q *QoS) Writes() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.writes
}
