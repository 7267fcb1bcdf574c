// Package forward lets the packets of workloads through chains of others that drop
// what they do not know.
//
// Docker, ufw, firewalld and others set up a chain on the forward hook that drops by
// default. In nftables a drop in any base chain is final, whatever ours accept. So
// every such chain gets two rules of ours for each interface prefix:
//
//	iifname "cali*" counter accept comment "weft"
//	oifname "cali*" counter accept comment "weft"
//
// That opens nothing: a packet from or to a workload passes our own base chains on
// the same hook, and their drop is as final.
//
//	nf_tables events ─► chain of interest? ─┐
//	every 90 s: all chains ─────────────────┼─► pass: which chains drop by default?
//	every second: the legacy tables ────────┘         ours where they do, nowhere else
//
// A chain drops by default when a packet that no conditional rule decides is dropped:
// by its policy, or by a rule that has no condition, such as the last one of
// firewalld's chains, there or in a chain to which an unconditional rule leads.
// Tables of iptables-nft are nf_tables like all others, and iptables lists our rules
// as its own. The tables of iptables-legacy (ip_tables, ip6_tables) are another thing,
// which tells nobody of changes; they are looked at only where they are in use
// already, since asking for one makes it.
//
// Ownership: our rules have the comment "weft" and exactly the shape above; nothing
// else is ever touched, and chains that drop no longer lose them. They stay when this
// program ends, as our own tables do. No prefixes: they go everywhere.
package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/reconcile"
)

const (
	// gather is how long a burst of changes is waited for, and spacing the least
	// time between two passes, so that a program that rewrites its tables all the
	// time costs little. Both together are well below the second in which we heal.
	gather, spacing = 20 * time.Millisecond, 200 * time.Millisecond
	// legacyEvery is the time between looks at the tables of iptables-legacy: whether
	// they have as many rules, of the same length, as before. Even so all is read, as a
	// policy may have changed, but a long table more seldom: reading takes no more than
	// a two hundredth of the time.
	legacyEvery = 500 * time.Millisecond
	legacyShare = 200
	// everything is the time between looks at all chains, for what no event told.
	everything = 90 * time.Second
	// leastDelay and mostDelay bound the time after which a failed look at all chains
	// is tried again.
	leastDelay, mostDelay = 50 * time.Millisecond, 30 * time.Second
	// calm is the least time between two moves of our rules in one chain to its
	// beginning: another program may want to be first as well.
	calm = 10 * time.Second
)

// Options say which packets to let through, and where. The zero value is Calico's
// default.
type Options struct {
	// Prefixes of the names of workload links, 1 to 15 bytes. Default: cali.
	// Not nil, but empty: none.
	Prefixes []string
	// Append puts our rules behind those of others, before the one that drops all,
	// rather than first (chainInsertMode Append).
	Append bool
	// Log gets a line for each chain that gets or loses our rules, and changes of
	// health. Default: nothing is logged.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Prefixes == nil {
		o.Prefixes = []string{"cali"}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Chain names a chain of another program.
type Chain struct {
	Family string // ip, ip6 or inet
	Table  string
	Name   string
	Legacy bool // of iptables-legacy
}

// String is c as nft names it; a legacy one as in "iptables-legacy filter FORWARD".
func (c Chain) String() string {
	switch {
	case !c.Legacy:
		return c.Family + " " + c.Table + " " + c.Name
	case c.Family == "ip6":
		return "ip6tables-legacy " + c.Table + " " + c.Name
	}
	return "iptables-legacy " + c.Table + " " + c.Name
}

func (c Chain) compare(o Chain) int { return cmp.Compare(c.String(), o.String()) }

// Forward keeps the chains of one network namespace open. Make one with New.
// Configure and State may be called at any time by any goroutine.
type Forward struct {
	loop           *reconcile.Loop
	events, writer *netlink.Socket

	health reconcile.Health

	mu      sync.Mutex
	opts    Options
	all     bool           // look at all chains in the next pass
	rewrite bool           // put all of our rules anew: the mode changed
	watched map[chain]bool // chains whose rules matter
	state   State          // but for Err

	// Of the pass alone.
	last   time.Time           // pass
	failed error               // the last look at all chains
	again  time.Time           // when it is due because it failed
	delay  time.Duration       // that it waited for
	full   time.Time           // look at all chains
	moved  map[Chain]time.Time // to the beginning
	opened map[Chain]bool      // with our rules in it
	legacy map[Chain]look      // the last look
}

// look is what a look at a legacy table showed.
type look struct {
	info [infoBytes]byte
	full time.Time // until when all need not be read again
}

// State is what Forward has done.
type State struct {
	Chains []Chain // that have our rules, sorted
	Passes uint64  // looks at some or all chains, since New
	Edits  uint64  // changes of a chain, since New
	Err    string  // of the last pass; empty: it was well
}

// New opens the namespace that the calling thread is in. It needs CAP_NET_ADMIN
// there. Run must run there too.
func New(o Options) (*Forward, error) {
	f := &Forward{opts: o.withDefaults(), all: true, watched: map[chain]bool{}, moved: map[Chain]time.Time{}, opened: map[Chain]bool{}, legacy: map[Chain]look{}}
	if err := checkPrefixes(f.opts.Prefixes); err != nil {
		return nil, err
	}
	var err error
	if f.writer, err = netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER}); err != nil {
		return nil, fmt.Errorf("forward: %w", err)
	}
	f.events, err = netlink.Open(netlink.Options{Protocol: unix.NETLINK_NETFILTER})
	if err == nil {
		err = f.events.Ignore(f.writer)
	}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("forward: %w", err)
	}
	f.health = reconcile.Health{
		Log:  f.opts.Log,
		Good: "workload packets pass the packet filters of other programs",
		Bad:  "cannot let workload packets through another program's packet filter",
	}
	f.loop = reconcile.New(f.pass, reconcile.Options{Resync: legacyEvery, Health: f.health.Note})
	return f, nil
}

func (f *Forward) close() {
	f.writer.Close()
	if f.events != nil {
		f.events.Close()
	}
}

func checkPrefixes(prefixes []string) error {
	for _, p := range prefixes {
		if p == "" || len(p) >= unix.IFNAMSIZ {
			return fmt.Errorf("forward: interface prefix %q: it must have 1 to %d bytes", p, unix.IFNAMSIZ-1)
		}
	}
	return nil
}

// Configure changes Prefixes and Append while Forward runs. The error names a prefix
// that cannot be; nothing changes then.
func (f *Forward) Configure(o Options) error {
	o = o.withDefaults()
	if err := checkPrefixes(o.Prefixes); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.Equal(f.opts.Prefixes, o.Prefixes) && f.opts.Append == o.Append {
		return nil
	}
	f.rewrite = f.rewrite || f.opts.Append != o.Append
	f.opts.Prefixes, f.opts.Append = slices.Clone(o.Prefixes), o.Append
	f.all = true
	f.loop.Resync()
	return nil
}

// State is what f has done so far.
func (f *Forward) State() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	s.Chains, s.Err = slices.Clone(s.Chains), f.health.Err()
	return s
}

// Run keeps the chains open until ctx ends, and returns the cause of that. f is of no
// use then; our rules stay.
func (f *Forward) Run(ctx context.Context) error {
	if err := f.events.Join(unix.NFNLGRP_NFTABLES); err != nil {
		f.close()
		return fmt.Errorf("forward: %w", err)
	}
	var wait sync.WaitGroup
	wait.Go(f.listen)
	err := f.loop.Run(ctx)
	f.close()
	wait.Wait()
	return err
}

// listen takes in events until the socket is closed.
func (f *Forward) listen() {
	for {
		datagram, err := f.events.Read()
		switch {
		case errors.Is(err, netlink.ErrOverrun):
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			// Without events there is the look at everything.
			f.opts.Log.Warn("cannot hear changes of packet filter chains", "err", err)
			return
		case !f.concerns(datagram):
			continue
		}
		f.mu.Lock()
		f.all = true
		f.mu.Unlock()
		f.loop.Kick()
	}
}

// concerns reports whether one of the events is about a chain that matters.
func (f *Forward) concerns(datagram []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for m := range netlink.Messages(datagram) {
		switch m.Type {
		case msgNewChain, msgDelChain:
			if c, ok := parseChain(m.Body); ok && c.forwards() && !c.own() {
				return true
			}
		case msgNewRule, msgDelRule:
			if f.watched[chainOfRule(m.Body)] {
				return true
			}
		}
	}
	return false
}
