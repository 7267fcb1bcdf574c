package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/reconcile"
)

// pass makes all chains right that may have changed.
func (f *Forward) pass(ctx context.Context, cause reconcile.Cause) error {
	if cause == reconcile.Kick {
		pause(ctx, max(gather, spacing-time.Since(f.last)))
	}
	now := time.Now()
	f.mu.Lock()
	opts, rewrite := f.opts, f.rewrite
	all := f.all || now.Sub(f.full) >= everything || f.failed != nil && now.After(f.again)
	f.all, f.rewrite = false, false
	f.mu.Unlock()

	if all {
		f.full = now
		f.failed = f.tables(opts, rewrite)
		f.backOff()
	}
	var legacy error
	if cause != reconcile.Kick {
		legacy = f.legacyTables(ctx, opts, rewrite, all)
	}
	err := errors.Join(f.failed, legacy)
	f.last = time.Now()

	f.mu.Lock()
	defer f.mu.Unlock()
	f.rewrite = f.rewrite || err != nil && rewrite
	f.state.Passes++
	f.state.Chains = nil
	for c := range f.opened {
		f.state.Chains = append(f.state.Chains, c)
	}
	slices.SortFunc(f.state.Chains, Chain.compare)
	return err
}

// backOff says when all chains are looked at again after a failure. The loop cannot:
// to it, a look at the legacy tables each second is a try as well.
func (f *Forward) backOff() {
	if f.failed == nil {
		f.delay = 0
		return
	}
	f.delay = min(max(2*f.delay, leastDelay), mostDelay)
	f.again = time.Now().Add(f.delay)
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tables makes the chains of nf_tables right.
func (f *Forward) tables(opts Options, rewrite bool) error {
	bases, err := f.baseChains()
	if err != nil {
		return fmt.Errorf("forward: list chains: %w", err)
	}
	var errs []error
	seen, there := map[chain]bool{}, map[Chain]bool{}
	for _, c := range bases {
		there[c.public()] = true
		if err := f.table(c, seen, opts, rewrite); err != nil {
			errs = append(errs, fmt.Errorf("forward: chain %v: %w", c.public(), err))
		}
	}
	f.mu.Lock()
	f.watched = seen
	f.mu.Unlock()
	for c := range f.opened {
		if !c.Legacy && !there[c] {
			delete(f.opened, c)
		}
	}
	return errors.Join(errs...)
}

// table makes one base chain right, and puts all chains it read into seen.
func (f *Forward) table(c baseChain, seen map[chain]bool, opts Options, rewrite bool) error {
	var failure error
	known := map[string][]rule{}
	read := func(name string) []rule {
		if rules, ok := known[name]; ok {
			return rules
		}
		key := chain{c.family, c.table, name}
		seen[key] = true
		f.mu.Lock()
		f.watched[key] = true // before it is read: no change escapes
		f.mu.Unlock()
		rules, err := f.rules(key)
		failure = errors.Join(failure, err)
		known[name] = rules
		return rules
	}
	gates := gatesFor(opts.Prefixes)
	rules := read(c.name)
	e := editFor(rules, c.drops, read, gates, opts.Append, rewrite)
	if failure != nil {
		return failure
	}
	if !f.mayMove(c.public(), e) {
		f.mu.Lock()
		f.all = true // look again with the next pass
		f.mu.Unlock()
		return nil
	}
	if err := f.apply(c.chain, e); err != nil {
		return err
	}
	f.edited(c.public(), e, slices.ContainsFunc(rules, func(r rule) bool { return r.ours }))
	return nil
}

// mayMove reports whether it is time for an edit, which must wait if all it does is to
// move rules that were moved not long ago.
func (f *Forward) mayMove(c Chain, e edit) bool {
	if !e.move {
		return true
	}
	if time.Since(f.moved[c]) < calm {
		return false
	}
	f.moved[c] = time.Now()
	return true
}

// edited takes note of an edit that was made in a chain, which had rules of ours or
// not.
func (f *Forward) edited(c Chain, e edit, had bool) {
	has := len(e.insert) > 0 || had && e.empty()
	if !e.empty() {
		f.mu.Lock()
		f.state.Edits++
		f.mu.Unlock()
	}
	switch {
	case has && !f.opened[c] && e.empty(): // of an earlier run
	case has && !f.opened[c]:
		f.opts.Log.Info("workload packets are let through a chain that drops by default", "chain", c.String())
	case has && !e.empty():
		f.opts.Log.Info("rules that let workload packets through a chain are put back", "chain", c.String())
	case had && !has:
		f.opts.Log.Info("rules that let workload packets through a chain are gone: it drops no longer", "chain", c.String())
	}
	if has {
		f.opened[c] = true
	} else {
		delete(f.opened, c)
	}
}

// baseChains are the chains of others on the forward hook.
func (f *Forward) baseChains() ([]baseChain, error) {
	var out []baseChain
	err := f.writer.Dump(msgGetChain, []byte{unix.NFPROTO_UNSPEC, unix.NFNETLINK_V0, 0, 0}, func(typ uint16, body []byte) {
		if c, ok := parseChain(body); ok && typ == msgNewChain && c.forwards() && !c.own() {
			out = append(out, c)
		}
	}, nil)
	return out, err
}

// rules are those of a chain; none if there is no such chain.
func (f *Forward) rules(c chain) ([]rule, error) {
	var out []rule
	err := f.writer.Dump(msgGetRule, c.appendRuleKey(nil), func(typ uint16, body []byte) {
		if typ != msgNewRule || chainOfRule(body) != c {
			return
		}
		if r, ok := parseRule(body); ok {
			out = append(out, r)
		}
	}, nil)
	return out, err
}

// apply makes an edit, all of it or nothing.
func (f *Forward) apply(c chain, e edit) error {
	if e.empty() {
		return nil
	}
	b := appendBatchEnd(nil, unix.NFNL_MSG_BATCH_BEGIN, f.writer.Next())
	var last uint32
	start := 0
	add := func(typ, flags uint16, body func([]byte) []byte) {
		start, last = len(b), f.writer.Next()
		b = body(netlink.AppendHeader(b, typ, unix.NLM_F_REQUEST|flags, last))
		netlink.EndMessage(b, start)
	}
	for _, handle := range e.remove {
		add(msgDelRule, 0, func(b []byte) []byte { return appendBE64(c.appendRuleKey(b), unix.NFTA_RULE_HANDLE, handle) })
	}
	gates, flags := slices.Clone(e.insert), uint16(unix.NLM_F_CREATE)
	if e.first {
		slices.Reverse(gates) // each goes before the last
	} else if e.before == 0 {
		flags |= unix.NLM_F_APPEND
	}
	for _, g := range gates {
		add(msgNewRule, flags, func(b []byte) []byte { return c.appendRule(b, g, e.before) })
	}
	netlink.Native.PutUint16(b[start+6:], netlink.Native.Uint16(b[start+6:])|unix.NLM_F_ACK)
	b = appendBatchEnd(b, unix.NFNL_MSG_BATCH_END, f.writer.Next())
	var refused unix.Errno
	err := f.writer.Exchange(b, last, func(_ uint32, errno unix.Errno) {
		if refused == 0 {
			refused = errno
		}
	})
	switch {
	case err != nil:
		return err
	case refused == unix.EPERM:
		return fmt.Errorf("%w: its table has an owner, who must let workloads through himself", refused)
	case refused != 0:
		return refused
	}
	return nil
}

// appendBatchEnd adds the message that begins or ends a batch.
func appendBatchEnd(b []byte, typ uint16, seq uint32) []byte {
	start := len(b)
	b = netlink.AppendHeader(b, typ, unix.NLM_F_REQUEST, seq)
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES)
	netlink.EndMessage(b, start)
	return b
}

// public is the name of c for people.
func (c chain) public() Chain {
	family := map[uint8]string{unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_INET: "inet"}[c.family]
	return Chain{Family: family, Table: c.table, Name: c.name}
}
