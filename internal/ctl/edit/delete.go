package edit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// Delete removes the object that o names. A resourceVersion in o must be that of the stored
// object; all else of o is passed over. A pool is disabled first and its blocks are given up;
// a node's addresses, endpoints, peers and settings go with it.
func (e *Editor) Delete(ctx context.Context, o v3.Object) Result {
	if v3.KindOf(o).Namespaced && o.Meta().Namespace == "" {
		o.Meta().Namespace = v3.DefaultNamespace
	}
	if w, ok := o.(*v3.WorkloadEndpoint); ok && w.Name == "" {
		v3.Default(o)
	}
	k, err := model.KeyOf(o)
	if err != nil {
		return failed(o, err)
	}
	if k.Name == "" {
		return e.absent(o, k, &store.Error{Key: k, Err: store.ErrNotFound})
	}
	if err := e.checkDelete(ctx, o); err != nil {
		if errors.Is(err, ErrInUse) {
			if _, err := e.store.Get(ctx, k); errors.Is(err, store.ErrNotFound) {
				return e.absent(o, k, err)
			}
		}
		return failed(o, err)
	}
	return e.remove(ctx, k, o)
}

// absent is the result of deleting what is not there.
func (e *Editor) absent(o v3.Object, k model.Key, err error) Result {
	if e.SkipNotExists {
		return Result{Key: k, Object: o, Outcome: Skipped, Note: "it does not exist"}
	}
	return failed(o, err)
}

// remove deletes the object k, which o names.
func (e *Editor) remove(ctx context.Context, k model.Key, o v3.Object) Result {
	r := Result{Key: k, Object: o, Outcome: Deleted}
	before, err := e.store.Get(ctx, k)
	unreadable := errors.Is(err, store.ErrUnreadable) // it can go nevertheless
	switch {
	case errors.Is(err, store.ErrNotFound):
		return e.absent(o, k, err)
	case err != nil && !unreadable:
		return failed(o, err)
	case err == nil:
		r.Before = before.Object
		if rev := o.Meta().ResourceVersion; rev != "" && rev != before.Meta().ResourceVersion {
			return failed(o, &store.Error{Key: k, Err: store.ErrConflict})
		}
	}
	if e.DryRun {
		return r
	}
	if !unreadable {
		if err := e.tidy(ctx, before); err != nil {
			return failed(o, err)
		}
	}
	gone := clone(o)
	if r.Before != nil && needsTidying(o) {
		gone.Meta().ResourceVersion = "" // it was looked at, and tidying may have changed it
	}
	if _, err := e.store.Commit(ctx, store.Op{Verb: store.Delete, Object: store.New(gone)}); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return e.absent(o, k, err)
		}
		return failed(o, err)
	}
	e.forget(k)
	if r.Before != nil && len(r.Before.Meta().Finalizers) > 0 {
		r.Note = e.lingering(ctx, k)
	}
	return r
}

// lingering says what an object waits for that was deleted and is still there; empty when it
// is gone.
func (e *Editor) lingering(ctx context.Context, k model.Key) string {
	o, err := e.store.Get(ctx, k)
	if err != nil || len(o.Meta().Finalizers) == 0 {
		return ""
	}
	return "it goes when its finalizers are taken off: " + strings.Join(o.Meta().Finalizers, ", ")
}

// needsTidying reports whether more goes with o than o.
func needsTidying(o v3.Object) bool {
	switch o.(type) {
	case *v3.IPPool, *v3.Node:
		return true
	}
	return false
}

// tidy takes away what must not outlive an object, before it goes.
func (e *Editor) tidy(ctx context.Context, before store.Object) error {
	switch o := before.Object.(type) {
	case *v3.IPPool:
		return e.closePool(ctx, before, o)
	case *v3.Node:
		if !e.Kubernetes {
			return e.clearNode(ctx, o)
		}
	}
	return nil
}

// closePool makes nobody take addresses of a pool any more, and its blocks nobody's.
func (e *Editor) closePool(ctx context.Context, before store.Object, o *v3.IPPool) error {
	cidr, err := netip.ParsePrefix(o.Spec.CIDR)
	if err != nil {
		return nil // no block is of it
	}
	if !o.Spec.Disabled {
		off := *o
		off.Spec.Disabled = true
		if _, err := e.store.Commit(ctx, store.Op{Verb: store.Update, Object: before.With(&off)}); err != nil {
			return fmt.Errorf("%s: disable before deletion: %w", v3.Describe(o), err)
		}
	}
	return e.allocate(ctx, func(a *allocator.Allocator) error {
		err := a.GiveUp(ctx, func(b model.Block) bool { return cidr.Contains(b.CIDR.Addr()) && cidr.Bits() <= b.CIDR.Bits() })
		if err != nil {
			return fmt.Errorf("%s: give its blocks up: %w", v3.Describe(o), err)
		}
		return nil
	})
}

// allocate runs f with an allocator.
func (e *Editor) allocate(ctx context.Context, f func(*allocator.Allocator) error) error {
	running, stop := context.WithCancel(ctx)
	a := allocator.New(e.store, "", e.now)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = a.Run(running) // its end is ours
	}()
	defer func() {
		stop()
		<-ended
	}()
	return f(a)
}

// clearNode removes what a node leaves: addresses, endpoints, its claims to blocks, and the
// peers and settings that are of it alone.
func (e *Editor) clearNode(ctx context.Context, n *v3.Node) error {
	endpoints, err := e.store.List(ctx, model.KindWorkloadEndpoint, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return err
	}
	addrs := tunnelAddrs(n)
	var going []store.Object
	for _, o := range endpoints {
		w, ok := o.Object.(*v3.WorkloadEndpoint)
		if !ok || w.Spec.Node != n.Name {
			continue
		}
		going = append(going, o)
		for _, text := range w.Spec.IPNetworks {
			if p, err := netip.ParsePrefix(text); err == nil {
				addrs = append(addrs, p.Addr())
			}
		}
	}
	err = e.allocate(ctx, func(a *allocator.Allocator) error {
		for _, addr := range addrs {
			if err := a.ReleaseAddr(ctx, addr, ipam.Check{}); err != nil && !errors.Is(err, ipam.ErrNotAssigned) {
				return fmt.Errorf("%s: release %v: %w", v3.Describe(n), addr, err)
			}
		}
		owner := model.Affinity{Type: model.AffinityHost, Node: n.Name}
		return a.GiveUp(ctx, func(b model.Block) bool { return b.Owner == owner })
	})
	if err != nil {
		return err
	}
	return e.removeAll(ctx, append(going, e.ownedBy(ctx, n.Name)...))
}

// tunnelAddrs are the addresses that a node has for its tunnels.
func tunnelAddrs(n *v3.Node) []netip.Addr {
	texts := []string{n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr}
	if n.Spec.BGP != nil {
		texts = append(texts, n.Spec.BGP.IPv4IPIPTunnelAddr)
	}
	if n.Spec.Wireguard != nil {
		texts = append(texts, n.Spec.Wireguard.InterfaceIPv4Address, n.Spec.Wireguard.InterfaceIPv6Address)
	}
	var addrs []netip.Addr
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// ownedBy are the peers and settings that are of one node alone.
func (e *Editor) ownedBy(ctx context.Context, node string) []store.Object {
	var out []store.Object
	peers, _ := e.store.List(ctx, model.KindBGPPeer, "") // what can't be read stays
	for _, o := range peers {
		if p, ok := o.Object.(*v3.BGPPeer); ok && p.Spec.Node == node {
			out = append(out, o)
		}
	}
	for _, kind := range []model.Kind{model.KindBGPConfiguration, model.KindFelixConfiguration} {
		if o, err := e.store.Get(ctx, model.Key{Kind: kind, Name: "node." + node}); err == nil {
			out = append(out, o)
		}
	}
	return out
}

// removeAll deletes objects; those that are gone already count as deleted.
func (e *Editor) removeAll(ctx context.Context, objects []store.Object) error {
	for _, o := range objects {
		if _, err := e.store.Commit(ctx, store.Op{Verb: store.Delete, Object: o}); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}
