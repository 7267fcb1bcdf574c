package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// ipamReader reads what is recorded of addresses, and who uses them.
type ipamReader struct {
	store store.Store
	// kube is asked about pods and services; nil: nobody is.
	kube *kube.Client
	// inKube says that the datastore is Kubernetes: its pods are the endpoints.
	inKube bool
	// progress is told what is being read.
	progress func(text string)

	mu    sync.Mutex // for what concurrent reads add to
	world audit.World
}

// listed reads all objects of a kind, parsed. What can't be read is returned beside them.
func listed[T model.Value](ctx context.Context, st store.Store, kind model.Kind) (all []T, broken []audit.Broken, err error) {
	objects, err := st.List(ctx, kind, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return nil, nil, err
	}
	for _, e := range store.Errors(err) {
		broken = append(broken, audit.Broken{Key: e.Key, Err: e.Err})
	}
	all = make([]T, 0, len(objects))
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		if err != nil {
			key, keyErr := model.KeyOf(o.Object)
			if keyErr != nil {
				key = model.Key{Kind: kind, Name: o.Meta().Name}
			}
			broken = append(broken, audit.Broken{Key: key, Err: err})
			continue
		}
		if t, ok := v.(T); ok {
			all = append(all, t)
		}
	}
	return all, broken, nil
}

// look compares both sides. The blocks are read before and after all else, so that what
// one change made look wrong is not told; see package audit.
func (r *ipamReader) look(ctx context.Context) (audit.World, audit.Result, error) {
	fail := func(err error) (audit.World, audit.Result, error) {
		return audit.World{}, audit.Result{}, fmt.Errorf("ipam: %w", err)
	}
	r.world = audit.World{}
	r.progress("reading blocks")
	before, lost, err := listed[model.Block](ctx, r.store, model.KindIPAMBlock)
	if err != nil {
		return fail(err)
	}
	if err := r.rest(ctx); err != nil {
		return fail(err)
	}
	r.progress("reading blocks again")
	after, lostAfter, err := listed[model.Block](ctx, r.store, model.KindIPAMBlock)
	if err != nil {
		return fail(err)
	}
	r.progress("comparing")
	first, second := r.world, r.world
	first.Blocks, first.Broken = before, append(lost, r.world.Broken...)
	second.Blocks, second.Broken = after, append(lostAfter, r.world.Broken...)
	result := audit.Check(second)
	if len(result.Findings) > 0 && !sameBlocks(before, after) {
		result = audit.Confirm(audit.Check(first), result)
	}
	return second, result, nil
}

// sameBlocks reports whether no block has changed: each change raises its sequence.
func sameBlocks(a, b []model.Block) bool {
	return slices.EqualFunc(a, b, func(a, b model.Block) bool {
		return a.CIDR == b.CIDR && a.Sequence == b.Sequence && a.Owner == b.Owner
	})
}

// rest reads everything but the blocks, at once.
func (r *ipamReader) rest(ctx context.Context) error {
	reads := []func(context.Context) error{r.pools, r.handles, r.affinities, r.nodes}
	if !r.inKube {
		reads = append(reads, r.endpoints)
	}
	if r.kube != nil {
		reads = append(reads, r.pods, r.services)
	}
	r.progress("reading handles, endpoints and nodes")
	errs := make([]error, len(reads))
	var all sync.WaitGroup
	for i, read := range reads {
		all.Go(func() { errs[i] = read(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// add changes the world while others read.
func (r *ipamReader) add(change func(*audit.World)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.world)
}

func (r *ipamReader) pools(ctx context.Context) error {
	pools, broken, err := listed[model.Pool](ctx, r.store, model.KindIPPool)
	if err != nil {
		return err
	}
	reserved, err := reservations(ctx, r.store)
	if err != nil {
		return err
	}
	r.add(func(w *audit.World) { w.Pools, w.BadPools, w.Reserved = pools, len(broken) > 0, reserved })
	return nil
}

// reservations are the ranges that are kept from assignment.
func reservations(ctx context.Context, st store.Store) ([]netip.Prefix, error) {
	all, _, err := listed[model.Reservation](ctx, st, model.KindIPReservation)
	var out []netip.Prefix
	for _, v := range all {
		out = append(out, v.CIDRs...)
	}
	return out, err
}

func (r *ipamReader) handles(ctx context.Context) error {
	handles, broken, err := listed[model.Handle](ctx, r.store, model.KindIPAMHandle)
	r.add(func(w *audit.World) { w.Handles, w.Broken = handles, append(w.Broken, broken...) })
	return err
}

func (r *ipamReader) affinities(ctx context.Context) error {
	claims, broken, err := listed[model.BlockAffinity](ctx, r.store, model.KindBlockAffinity)
	r.add(func(w *audit.World) { w.Affinities, w.Broken = claims, append(w.Broken, broken...) })
	return err
}

// nodes reads which nodes there are, and the addresses of their tunnels. A node that can't
// be read exists, and has those addresses that can be understood.
func (r *ipamReader) nodes(ctx context.Context) error {
	objects, err := r.store.List(ctx, model.KindNode, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return err
	}
	there := map[string]bool{}
	for _, e := range store.Errors(err) {
		there[e.Key.Name] = true
	}
	var users []audit.User
	for _, o := range objects {
		n, ok := o.Object.(*v3.Node)
		if !ok {
			continue
		}
		there[n.Name] = true
		texts := []string{n.Spec.IPv4VXLANTunnelAddr, n.Spec.IPv6VXLANTunnelAddr}
		if n.Spec.BGP != nil {
			texts = append(texts, n.Spec.BGP.IPv4IPIPTunnelAddr)
		}
		if n.Spec.Wireguard != nil {
			texts = append(texts, n.Spec.Wireguard.InterfaceIPv4Address, n.Spec.Wireguard.InterfaceIPv6Address)
		}
		for _, text := range texts {
			if a, ok := addrIn(text); ok {
				users = append(users, audit.User{Sort: audit.Node, Name: n.Name, Node: n.Name, Addr: a})
			}
		}
	}
	r.add(func(w *audit.World) { w.Nodes, w.Users = there, append(w.Users, users...) })
	return nil
}

// addrIn is the address in text, which may have a mask.
func addrIn(text string) (netip.Addr, bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil
}

// endpoints reads the addresses of workload endpoints where these are objects of their
// own. They are not parsed: there may be very many, and one that is wrong uses its
// addresses nevertheless. One that can't even be read may have any address.
func (r *ipamReader) endpoints(ctx context.Context) error {
	objects, err := r.store.List(ctx, model.KindWorkloadEndpoint, "")
	if err != nil && !errors.Is(err, store.ErrUnreadable) {
		return err
	}
	var broken []audit.Broken
	for _, e := range store.Errors(err) {
		broken = append(broken, audit.Broken{Key: e.Key, Err: e.Err})
	}
	users := make([]audit.User, 0, len(objects))
	for _, o := range objects {
		ep, ok := o.Object.(*v3.WorkloadEndpoint)
		if !ok {
			continue
		}
		u := audit.User{Sort: audit.Workload, Name: ep.Namespace + "/" + ep.Name, Node: ep.Spec.Node}
		if ep.Spec.Orchestrator == v3.OrchestratorKubernetes {
			u.Namespace, u.Pod = ep.Namespace, ep.Spec.Pod
		}
		for _, text := range ep.Spec.IPNetworks {
			if a, ok := addrIn(text); ok {
				u.Addr = a
				users = append(users, u)
			}
		}
	}
	r.add(func(w *audit.World) { w.Users, w.Broken = append(w.Users, users...), append(w.Broken, broken...) })
	return nil
}
