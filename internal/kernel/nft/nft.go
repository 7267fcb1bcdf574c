package nft

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/reconcile"
)

// tableName is the name of our tables, one of each family.
const tableName = "weft"

// Options are what a node may set. The zero value is useful.
type Options struct {
	// MaxSetSize is the most members that a set may have (maxIpsetSize).
	// Default: 1,048,576.
	MaxSetSize int
	// Resync is the time between full comparisons (ipsetsRefreshInterval).
	// Default: 90 s; negative: never.
	Resync time.Duration
	// Log gets changes of health, and what others did to our tables. Default:
	// nothing is logged.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.MaxSetSize <= 0 {
		o.MaxSetSize = 1 << 20
	}
	if o.Resync == 0 {
		o.Resync = 90 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// NFT is one network namespace's packet filter, as we want it and as far as we know
// it. Make one with New. All methods but Run may be called at any time by any
// goroutine; WaitApplied, Counters and EndFlows wait for the kernel.
type NFT struct {
	opts   Options
	loop   *reconcile.Loop
	writer *netlink.Socket // transactions
	reader *netlink.Socket // dumps of the loop
	events *netlink.Socket

	asking sync.Mutex      // guards asker
	asker  *netlink.Socket // counters, flows

	// buffer is what the writer can send at once, as far as is known. It, tx, whole
	// and pairs are the loop's.
	buffer int
	tx     transaction
	whole  bool    // changes are sent in one transaction, see work
	pairs  []bound // scratch of the loop's dumps

	mu        sync.Mutex
	tables    [2]*table // IPv4, IPv6
	synced    bool
	read      bool   // the kernel has been read since Synced
	hit       bool   // events of the transaction under way were ours
	version   uint64 // counts Apply
	applied   uint64 // version that was last written, but for what was refused
	changed   chan struct{}
	awaited   bool
	fault     error // of the last exchange or dump
	health    reconcile.Health
	warned    time.Time // that others change our tables
	nextSetID uint32
	stats     Stats
}

// New opens the sockets in the network namespace of the calling thread. Call Run,
// which also closes them.
func New(opts Options) (*NFT, error) {
	n := blank(opts)
	n.health = reconcile.Health{Log: n.opts.Log, Good: "the kernel's packet filter is as wanted again", Bad: "the kernel's packet filter is not as wanted"}
	n.loop = reconcile.New(n.pass, reconcile.Options{Resync: max(n.opts.Resync, 0), Health: n.health.Note})
	open := func(groups ...int) *netlink.Socket {
		s, err := netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER, Groups: groups})
		if err != nil && n.fault == nil {
			n.fault = err
		}
		return s
	}
	n.writer, n.reader, n.asker, n.events = open(), open(), open(), open(unix.NFNLGRP_NFTABLES)
	if n.fault == nil {
		n.fault = n.events.Ignore(n.writer, n.asker)
	}
	if err := n.fault; err != nil {
		n.close()
		return nil, fmt.Errorf("nft: %w", err)
	}
	return n, nil
}

// blank gives an NFT that knows and wants nothing, without a kernel.
func blank(opts Options) *NFT {
	return &NFT{
		opts: opts.withDefaults(), tables: [2]*table{newTable(false), newTable(true)}, changed: make(chan struct{}),
	}
}

func (n *NFT) close() {
	for _, s := range []*netlink.Socket{n.writer, n.reader, n.asker, n.events} {
		if s != nil {
			s.Close()
		}
	}
}

// Run keeps the kernel as wanted until ctx ends, and returns the cause of that. It
// leaves everything in place. It can run once.
func (n *NFT) Run(ctx context.Context) error {
	return n.loop.RunWith(ctx, n.listen, n.close)
}

// Apply changes what is wanted and starts writing it. It does not wait. n keeps
// nothing of d that a caller could change.
func (n *NFT) Apply(d plan.FilterDelta) {
	if d.Empty() {
		return
	}
	n.mu.Lock()
	n.tables[0].apply(&d.V4)
	n.tables[1].apply(&d.V6)
	n.version++
	n.mu.Unlock()
	n.loop.Kick()
}

// Synced says that everything that is wanted has been applied: before it, nothing is
// written, so that what an earlier run left stays in force. Further calls do nothing.
func (n *NFT) Synced() {
	n.mu.Lock()
	first := !n.synced
	n.synced = true
	n.mu.Unlock()
	if first {
		n.loop.Kick() // what has not been read is read by this pass
	}
}

// Busy is how long the pass under way has taken; 0: none is.
func (n *NFT) Busy() time.Duration { return n.loop.Busy() }

// Resync asks for a full comparison, which nothing but doubt makes necessary.
func (n *NFT) Resync() { n.loop.Resync() }

// Configure changes the options while n runs, but for Log.
func (n *NFT) Configure(o Options) {
	o = o.withDefaults()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.opts.Resync == o.Resync && n.opts.MaxSetSize == o.MaxSetSize {
		return
	}
	n.opts.Resync, n.opts.MaxSetSize = o.Resync, o.MaxSetSize
	n.loop.Every(max(o.Resync, 0))
	n.loop.Resync()
}

// WaitApplied waits until everything that was applied before the call is in the
// kernel. The error names the objects that the kernel refused, which keep their last
// good version; or, wrapping the cause of ctx's end, what it waited for.
func (n *NFT) WaitApplied(ctx context.Context) error {
	n.mu.Lock()
	version := n.version
	for {
		done, changed, err := n.read && n.applied >= version, n.changed, n.fault
		if done {
			err = n.refused()
			n.mu.Unlock()
			return err
		}
		n.awaited = true
		synced := n.synced
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			if err == nil && !synced {
				err = fmt.Errorf("the agent has not yet read all of its state")
			}
			if err != nil {
				return fmt.Errorf("nft: wait: %w: %w", err, context.Cause(ctx))
			}
			return fmt.Errorf("nft: wait: %w", context.Cause(ctx))
		}
		n.mu.Lock()
	}
}

// wake has those who wait look again.
func (n *NFT) wake() {
	if n.awaited {
		close(n.changed)
		n.changed, n.awaited = make(chan struct{}), false
	}
}
