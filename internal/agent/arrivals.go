package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/weft-net/weft/internal/model"
)

// arrivals knows which endpoints of this node the loop has taken in, so that a
// CNI request can wait for its own. It is safe for concurrent use.
type arrivals struct {
	node string

	mu      sync.Mutex
	known   map[model.Key]model.Endpoint
	links   map[netip.Addr]string       // of known, by their addresses
	stale   map[model.Key]bool          // known, and not yet mentioned by the snapshot in progress
	changed map[model.Key]chan struct{} // closed when the endpoint of that key changes
}

func newArrivals(node string) *arrivals {
	return &arrivals{node: node, known: map[model.Key]model.Endpoint{}, links: map[netip.Addr]string{}, changed: map[model.Key]chan struct{}{}}
}

// step takes in a batch that the loop has just handed to the doors.
func (a *arrivals) step(b model.Batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if b.Reset {
		a.stale = map[model.Key]bool{}
		for k := range a.known {
			a.stale[k] = true
		}
	}
	for _, in := range b.Invalids {
		delete(a.stale, in.Key)
	}
	for _, v := range b.Puts {
		if ep, ok := v.(model.Endpoint); ok && ep.Node == a.node {
			delete(a.stale, ep.Key())
			a.leave(ep.Key())
			a.known[ep.Key()] = ep
			for _, addr := range ep.Addrs {
				a.links[addr] = ep.Link
			}
			a.announce(ep.Key())
		}
	}
	gone := b.Deletes
	if b.Synced {
		gone = slices.AppendSeq(slices.Clone(gone), maps.Keys(a.stale))
		a.stale = nil
	}
	for _, k := range gone {
		a.leave(k)
		a.announce(k)
	}
}

// leave forgets an endpoint. An address that another one has taken stays that one's.
func (a *arrivals) leave(k model.Key) {
	ep := a.known[k]
	for _, addr := range ep.Addrs {
		if a.links[addr] == ep.Link {
			delete(a.links, addr)
		}
	}
	delete(a.known, k)
}

// addresses is how many addresses the workloads of this node have.
func (a *arrivals) addresses() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.links)
}

// link is the host's end of the workload on this node that has an address; empty:
// none has.
func (a *arrivals) link(addr netip.Addr) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.links[addr]
}

func (a *arrivals) announce(k model.Key) {
	if ch, ok := a.changed[k]; ok {
		close(ch)
		delete(a.changed, k)
	}
}

// get returns an endpoint of this node.
func (a *arrivals) get(k model.Key) (model.Endpoint, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ep, ok := a.known[k]
	return ep, ok
}

// wait returns when the endpoint has been taken in with the same link and
// addresses.
func (a *arrivals) wait(ctx context.Context, want model.Endpoint) error {
	for {
		a.mu.Lock()
		got, ok := a.known[want.Key()]
		if ok && got.Link == want.Link && slices.Equal(got.Addrs, want.Addrs) {
			a.mu.Unlock()
			return nil
		}
		ch, ok := a.changed[want.Key()]
		if !ok {
			ch = make(chan struct{})
			a.changed[want.Key()] = ch
		}
		a.mu.Unlock()
		select {
		case <-ch:
		case <-ctx.Done():
			return fmt.Errorf("agent: endpoint %s/%s: the datastore has not reported it: %w", want.Namespace, want.Name, context.Cause(ctx))
		}
	}
}
