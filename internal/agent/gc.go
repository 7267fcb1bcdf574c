package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// GC implements [rpc.Agent].
func (a *attachments) GC(ctx context.Context, r rpc.GCRequest) (rpc.GCResponse, error) {
	if err := a.serves(r.Node); err != nil {
		return rpc.GCResponse{}, err
	}
	a.mu.Lock()
	before := a.adds
	a.mu.Unlock()
	valid := map[string]bool{}
	for _, v := range r.Valid {
		valid[v3.HandleID(r.Network, v.ContainerID)] = true
	}
	var out rpc.GCResponse
	stale, errs := a.staleEndpoints(ctx, r, valid)
	for _, s := range stale {
		if a.since(s.at, before) {
			continue
		}
		if err := a.Del(ctx, rpc.DelRequest{Attachment: s.at, Workload: s.workload, AddressesOnly: r.AddressesOnly}); err != nil {
			errs = append(errs, err)
			continue
		}
		if !r.AddressesOnly {
			out.HostLinks = append(out.HostLinks, s.link)
			out.Removed = append(out.Removed, s.at)
		}
	}
	handles, err := a.staleHandles(ctx, r.Network, valid)
	errs = append(errs, err)
	for _, h := range handles {
		at := rpc.Attachment{Network: r.Network, ContainerID: strings.TrimPrefix(h, r.Network+"."), IfName: ""}
		if a.since(at, before) {
			continue
		}
		_, err := a.alloc.Release(ctx, h)
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

type staleEndpoint struct {
	at       rpc.Attachment
	workload rpc.Workload
	link     string
}

// staleEndpoints finds the endpoints of this node that belong to the network
// and to no valid attachment. An endpoint does not name its network: it is of
// this one if the handle made of both exists, or if its annotation says so.
func (a *attachments) staleEndpoints(ctx context.Context, r rpc.GCRequest, valid map[string]bool) ([]staleEndpoint, []error) {
	objects, err := store.EndpointsOn(ctx, a.store, a.node)
	errs := []error{err}
	var out []staleEndpoint
	for _, o := range objects {
		ep, ok := o.Object.(*v3.WorkloadEndpoint)
		if !ok || ep.Spec.ContainerID == "" {
			continue
		}
		handle := v3.HandleID(r.Network, ep.Spec.ContainerID)
		if valid[handle] {
			continue
		}
		if ep.Annotations[networkAnnotation] != r.Network {
			if _, err := a.store.Get(ctx, model.HandleKey(handle)); err != nil {
				if !errors.Is(err, store.ErrNotFound) {
					errs = append(errs, err)
				}
				continue
			}
		}
		out = append(out, staleEndpoint{
			at:       rpc.Attachment{Network: r.Network, ContainerID: ep.Spec.ContainerID, IfName: ep.Spec.Endpoint},
			workload: rpc.Workload{Orchestrator: ep.Spec.Orchestrator, Namespace: ep.Namespace, Pod: ep.Spec.Pod},
			link:     ep.Spec.InterfaceName,
		})
	}
	return out, errs
}

// staleHandles finds the handles of the network that hold addresses for this
// node and belong to no valid attachment.
func (a *attachments) staleHandles(ctx context.Context, network string, valid map[string]bool) ([]string, error) {
	objects, err := a.store.List(ctx, model.KindIPAMBlock, "")
	found := map[string]bool{}
	for _, o := range objects {
		v, parseErr := model.Parse(o.Object)
		b, ok := v.(model.Block)
		if parseErr != nil || !ok {
			continue
		}
		for _, at := range b.Attributes {
			container, ok := strings.CutPrefix(at.Handle, network+".")
			// With a further dot it may be the handle of the network NETWORK.REST:
			// rather a leak than somebody else's address.
			if ok && !strings.Contains(container, ".") && at.Secondary["node"] == a.node && at.ReleasedAt.IsZero() && !valid[at.Handle] {
				found[at.Handle] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), err
}
