package agent

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/store"
)

// Bounds of the time between two attempts to put the record right, when one failed.
const (
	firstTunnelDelay = time.Second
	lastTunnelDelay  = 30 * time.Second
)

// tunnelTimeout bounds one attempt: a datastore that does not answer is an error.
const tunnelTimeout = 20 * time.Second

// tunnels keeps what this node's record says of its tunnels: an address for each that is
// needed and none for the others, the hardware addresses of the VXLAN devices, the public
// keys of the WireGuard devices, and the MTU of the underlay. An address is given out,
// changed or taken back in the transaction that writes the record, so the two agree
// whenever the agent ends. What the record says besides is its other writers' (start-up,
// users): a record that changed meanwhile is read again.
//
// Its methods are safe for concurrent use.
type tunnels struct {
	node   string
	store  store.Store
	alloc  *allocator.Allocator
	locked func() bool           // the datastore asks for no changes
	report func([]model.Problem) // what can't be done; called by run
	log    *slog.Logger
	kick   chan struct{} // room for one
	// ofRange has tunnels' addresses be of the node's range in Kubernetes (USE_POD_CIDR): a
	// block of a pool might be some node's range.
	ofRange bool

	mu     sync.Mutex
	synced bool
	want   route.Tunnels
	mtu    int            // of the underlay, bytes; 0: not known, the record stays
	keys   [2]keyOfRecord // of WireGuard, IPv4 and IPv6
	seen   model.Node     // the record as it came last
	mine   []netip.Addr   // addresses that the record names, as a pass left it
	hungry bool           // some tunnel got no address for want of one
}

func newTunnels(node string, st store.Store, alloc *allocator.Allocator, locked func() bool, report func([]model.Problem), log *slog.Logger) *tunnels {
	return &tunnels{node: node, store: st, alloc: alloc, locked: locked, report: report, log: log, kick: make(chan struct{}, 1)}
}

// need says that the node takes part in other tunnels than with the last batch, for a
// reason that is not in the datastore.
func (t *tunnels) need(want route.Tunnels) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.synced && t.want != want {
		t.want = want
		t.look()
	}
}

// keyOfRecord is the public key of a WireGuard device as the record must have it, in
// base64; empty: none. The zero value: it is not known, and the record stays.
type keyOfRecord struct {
	known bool
	text  string
}

// publishedKey is the key that the record must have, if one is wanted and known.
func publishedKey(key plan.PublicKey, wanted bool) keyOfRecord {
	switch {
	case !wanted:
		return keyOfRecord{known: true}
	case key == plan.PublicKey{}:
		return keyOfRecord{}
	}
	return keyOfRecord{true, base64.StdEncoding.EncodeToString(key[:])}
}

// setKey says which key the record must have. Before the datastore is known, and while a
// snapshot is under way, nobody knows whether one is wanted: it must be said again then.
func (t *tunnels) setKey(v6 bool, key keyOfRecord) {
	i := 0
	if v6 {
		i = 1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.synced && t.keys[i] != key {
		t.keys[i] = key
		t.look()
	}
}

// setMTU says the MTU of the underlay, bytes.
func (t *tunnels) setMTU(mtu int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.mtu != mtu {
		t.mtu = mtu
		t.look()
	}
}

// underlay is the MTU that was set last, bytes; 0: none was.
func (t *tunnels) underlay() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mtu
}

// step looks for what concerns the record in a batch that the allocator has had already;
// want are the tunnels that the node takes part in with it. Nothing is written before
// the datastore is known, and nothing new is decided while a snapshot is under way.
func (t *tunnels) step(b model.Batch, want route.Tunnels) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.synced = b.Synced || t.synced && !b.Reset
	look := b.Synced || concernsPools(b) || t.want != want
	if t.synced {
		t.want = want
	}
	self := model.Node{Name: t.node}.Key()
	for _, v := range b.Puts {
		switch v := v.(type) {
		case model.Node:
			if v.Name == t.node {
				look = look || !sameTunnels(v, t.seen)
				t.seen = v
			}
		case model.Block:
			look = look || t.hungry || t.robs(v)
		case model.Cluster:
			look = true // unlocked, perhaps
		}
	}
	for _, k := range b.Deletes {
		look = look || k.Kind == model.KindIPAMBlock && (t.hungry || t.robbed(k)) || k == self
	}
	for _, in := range b.Invalids {
		look = look || in.Key == self
	}
	if look {
		t.look()
	}
}

// look asks for a pass. t is locked.
func (t *tunnels) look() {
	if !t.synced {
		return
	}
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// robs reports whether the block gives an address of ours to nobody.
func (t *tunnels) robs(b model.Block) bool {
	return slices.ContainsFunc(t.mine, func(a netip.Addr) bool {
		if !b.CIDR.Contains(a) {
			return false
		}
		holder, ok := ipam.HolderOf(b, a)
		return !ok || holder.Secondary["node"] != t.node
	})
}

// robbed reports whether the block of that key, which is gone, had an address of ours.
func (t *tunnels) robbed(block model.Key) bool {
	cidr, err := netip.ParsePrefix(strings.Replace(block.Name, "-", "/", 1))
	return err == nil && slices.ContainsFunc(t.mine, cidr.Contains)
}

// sameTunnels reports whether two records are the same to a pass.
func sameTunnels(a, b model.Node) bool {
	return a.IPIPTunnel == b.IPIPTunnel && a.VXLANTunnel == b.VXLANTunnel && a.VXLANTunnelV6 == b.VXLANTunnelV6 &&
		a.WireGuardAddr == b.WireGuardAddr && a.WireGuardAddrV6 == b.WireGuardAddrV6 &&
		a.VXLANMAC == b.VXLANMAC && a.VXLANMACV6 == b.VXLANMACV6 && a.MTU == b.MTU &&
		a.WireGuardKey == b.WireGuardKey && a.WireGuardKeyV6 == b.WireGuardKeyV6 &&
		fmt.Sprint(a.Labels) == fmt.Sprint(b.Labels) // selectors of pools
}

// run keeps the record right until ctx ends.
func (t *tunnels) run(ctx context.Context) error {
	var again <-chan time.Time
	delay := firstTunnelDelay
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.kick:
		case <-again:
		}
		problems, err := t.pass(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			problems = append(problems, model.Problem{Key: model.Node{Name: t.node}.Key(), Text: "tunnels: " + err.Error()})
		}
		t.report(problems)
		if len(problems) == 0 {
			again, delay = nil, firstTunnelDelay
			continue
		}
		// Not more often than this, whatever happens meanwhile: an attempt to get an
		// address from pools that are full reads all blocks.
		if err := pause(ctx, firstTunnelDelay); err != nil {
			return err
		}
		again, delay = time.After(delay), min(2*delay, lastTunnelDelay)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// pass makes the record right, as far as it can: problems are what pools do not allow,
// the error what the datastore did not.
func (t *tunnels) pass(ctx context.Context) ([]model.Problem, error) {
	ctx, cancel := context.WithTimeout(ctx, tunnelTimeout)
	defer cancel()
	if t.locked() {
		return nil, nil
	}
	t.mu.Lock()
	want, mtu, keys := t.want, t.mtu, t.keys
	t.mu.Unlock()
	p := recordPass{tunnels: t, pools: t.alloc.Pools(), keep: t.alloc.BadPools()}
	var errs []error
	for _, tunnel := range allocator.Tunnels() {
		errs = append(errs, p.settle(ctx, tunnel, wants(want, tunnel)))
	}
	errs = append(errs, p.describe(ctx, want, mtu, keys))
	t.mu.Lock()
	t.mine, t.hungry = p.mine, p.hungry
	t.mu.Unlock()
	return p.problems, errors.Join(errs...)
}

func wants(want route.Tunnels, t allocator.Tunnel) bool {
	switch t {
	case allocator.IPIP:
		return want.IPIP
	case allocator.VXLAN:
		return want.VXLAN
	case allocator.VXLAN6:
		return want.VXLAN6
	case allocator.WireGuard:
		return want.WireGuard
	}
	return want.WireGuard6
}
