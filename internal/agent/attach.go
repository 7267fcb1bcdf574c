package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/kernel/veth"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// delTimeout bounds a DEL, and what undoes an ADD: a datastore that does not
// answer is an error, and the runtime asks again.
const delTimeout = 10 * time.Second

// statusTimeout bounds what STATUS asks the datastore.
const statusTimeout = 5 * time.Second

// maxAttempts is how often the write of an endpoint is tried again when somebody
// else wrote it first.
const maxAttempts = 20

// attachments serves the CNI executable.
type attachments struct {
	node     string
	store    store.Store
	alloc    *allocator.Allocator
	arrivals *arrivals
	// orchestrator knows pods; nil: requests are taken as they are.
	orchestrator Orchestrator
	kubeNode     string // what Kubernetes calls this node; empty: the same
	// applied returns when the kernel has everything that the workload on that
	// link needs, routes and policy; where index is not 0, on the link with that
	// index.
	applied func(ctx context.Context, link string, index int32) error
	// unready says why nothing can be served now; empty when it can.
	unready func() string
	mtu     func() int // of workload interfaces, bytes
	// unlink deletes the host's end of a workload's link. It takes some 20 ms.
	unlink    func(index int32, name string) error
	unlinking sync.WaitGroup // deletions under way
	log       *slog.Logger

	mu      sync.Mutex
	adds    uint64                    // ADDs begun
	added   map[rpc.Attachment]uint64 // the number of the latest ADD of each
	profile map[string]bool           // profiles that are known to exist
	ranges  []netip.Prefix            // of this node's pods, once they are known
}

var _ rpc.Agent = (*attachments)(nil)

// Add implements [rpc.Agent].
func (a *attachments) Add(ctx context.Context, in rpc.AddRequest) (rpc.AddResponse, error) {
	if err := a.serves(in.Node); err != nil {
		return rpc.AddResponse{}, err
	}
	r, err := a.describe(ctx, in)
	if err != nil {
		return rpc.AddResponse{}, err
	}
	if r.Preview {
		return r.preview(), nil
	}
	if err := a.gate(ctx, r.ReadinessGates); err != nil {
		return rpc.AddResponse{}, err
	}
	a.begin(r.Attachment)
	req := allocator.Request{Request: ipam.Request{
		Holder: a.holder(r.AddRequest),
		Use:    model.UseWorkload,
		Addrs:  r.Address.Exact,
	}}
	if len(r.Address.Exact) == 0 {
		req.V4, req.V6 = wish(r.Address.IPv4, r.Address.IPv4Pools), wish(r.Address.IPv6, r.Address.IPv6Pools)
	}
	if r.Endpoint == nil {
		got, err := a.alloc.Assign(ctx, req)
		return rpc.AddResponse{Addrs: printed(got.Addrs, r.Address.Exact)}, explain(err)
	}
	got, ep, before, err := a.assignWithEndpoint(ctx, req, r)
	if err != nil {
		return rpc.AddResponse{}, explain(err)
	}
	if err := a.inForce(ctx, r.AddRequest, ep); err != nil {
		return rpc.AddResponse{}, err
	}
	a.forget(ctx, r.Attachment, before)
	addrs := append(printed(got.Addrs, r.Address.Exact), r.Endpoint.Given...)
	return rpc.AddResponse{Addrs: addrs, MTU: mtuFor(a.mtu(), addrs), MAC: r.Endpoint.MAC}, nil
}

// forget takes back the addresses of the container that a pod had before: its link has
// gone to the new one. Its DEL, if it comes, finds nothing to do.
func (a *attachments) forget(ctx context.Context, at rpc.Attachment, before string) {
	if before == "" || before == at.ContainerID {
		return
	}
	if _, err := a.alloc.Release(ctx, v3.HandleID(at.Network, before)); err != nil {
		a.log.Warn("addresses of a pod's earlier container stay until its DEL or a collection of garbage", "workload", at.String(), "container", before, "err", err)
	}
}

// mtuFor is the MTU of an interface with these addresses: mtu, but with IPv6 no less than
// Linux needs to have it there.
func mtuFor(mtu int, addrs []netip.Prefix) int {
	if mtu != 0 && slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return max(mtu, veth.MinIPv6)
	}
	return mtu
}

// inForce waits until the endpoint's routes and policy are in the kernel. When the
// time for that is over it is an error, unless the request says to go on: the
// kernel drops what an interface sends and gets that it has no policy for.
func (a *attachments) inForce(ctx context.Context, r rpc.AddRequest, ep model.Endpoint) error {
	wait := r.PolicyTimeout
	if wait <= 0 {
		wait = rpc.DefaultPolicyTimeout
	}
	waiting, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("not within %v", wait))
	defer cancel()
	err := a.arrivals.wait(waiting, ep)
	if err == nil {
		if err = a.applied(waiting, ep.Link, int32(r.HostIndex)); err != nil {
			err = fmt.Errorf("agent: %s: routes and policy of %s: %w", r.Attachment, ep.Link, err)
		}
	}
	if err != nil && r.PolicyProceed && ctx.Err() == nil {
		a.log.Warn("workload starts before its routes and policy are in force", "workload", r.Attachment.String(), "link", ep.Link, "err", err)
		return nil
	}
	return err
}

// assignWithEndpoint gives out the addresses and writes the endpoint that has
// them, in one transaction. before is the container that had the endpoint, if any.
func (a *attachments) assignWithEndpoint(ctx context.Context, req allocator.Request, r attaching) (got allocator.Result, ep model.Endpoint, before string, err error) {
	if r.Orchestrator != rpc.Kubernetes { // whose profiles are those of namespaces
		if err := a.ensureProfiles(ctx, r.Endpoint.Profiles); err != nil {
			return got, ep, "", err
		}
	}
	key, err := endpointKey(a.node, r.Attachment, r.Workload)
	if err != nil {
		return got, ep, "", &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: err.Error()}
	}
	// Whether the endpoint exists is nearly always known without a read. When
	// what is known is old, the transaction is refused, and it is read.
	_, exists := a.arrivals.get(key)
	for attempt := 0; ; attempt++ {
		old := store.Object{}
		if exists {
			if old, err = a.store.Get(ctx, key); errors.Is(err, store.ErrNotFound) {
				old = store.Object{}
			} else if err != nil {
				return got, ep, "", err
			}
		}
		if was, ok := old.Object.(*v3.WorkloadEndpoint); ok {
			before = was.Spec.ContainerID
		}
		req.Extra = func(addrs []ipam.Assigned) ([]store.Op, error) {
			op, parsed, err := a.endpointOp(key, old, r, addrs)
			ep = parsed
			return op, err
		}
		got, err := a.alloc.Assign(ctx, req)
		if lost := errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound); !lost || attempt == maxAttempts {
			return got, ep, before, err
		}
		exists = true
	}
}

// Del implements [rpc.Agent].
func (a *attachments) Del(ctx context.Context, r rpc.DelRequest) error {
	ctx, cancel := context.WithTimeout(ctx, delTimeout)
	defer cancel()
	a.mu.Lock()
	delete(a.added, r.Attachment)
	a.mu.Unlock()
	if err := a.release(ctx, r); err != nil {
		return err
	}
	if r.HostIndex != 0 {
		a.unlinking.Go(func() {
			if err := a.unlink(int32(r.HostIndex), r.HostLink); err != nil {
				a.log.Warn("link of a deleted workload stays", "link", r.HostLink, "err", err)
			}
		})
	}
	return nil
}

// release takes back the addresses and the endpoint in one transaction. Somebody
// may change the endpoint meanwhile (a user, the ADD of the pod's next container):
// then it is looked at again, until ctx ends.
func (a *attachments) release(ctx context.Context, r rpc.DelRequest) error {
	handle := v3.HandleID(r.Network, r.ContainerID)
	for {
		var extra []store.Op
		if !r.AddressesOnly {
			o, err := a.endpointOf(ctx, r.Attachment, r.Workload)
			if err != nil {
				return err
			}
			if o.Object != nil {
				extra = append(extra, store.Op{Verb: store.Delete, Object: o})
			}
		}
		_, err := a.alloc.Release(ctx, handle, extra...)
		if !errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// endpointOf reads the endpoint of an attachment; the zero Object if there is
// none, or if it meanwhile belongs to another container of the same pod.
func (a *attachments) endpointOf(ctx context.Context, at rpc.Attachment, w rpc.Workload) (store.Object, error) {
	key, err := endpointKey(a.node, at, w)
	if err != nil {
		// It can't have been added either.
		return store.Object{}, nil
	}
	o, err := a.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return store.Object{}, nil
	}
	if err != nil {
		return store.Object{}, err
	}
	if ep, ok := o.Object.(*v3.WorkloadEndpoint); !ok || ep.Spec.ContainerID != at.ContainerID {
		return store.Object{}, nil
	}
	return o, nil
}

// Check implements [rpc.Agent].
func (a *attachments) Check(ctx context.Context, r rpc.CheckRequest) error {
	bad := func(format string, args ...any) error {
		return &rpc.Error{Code: rpc.CodeCheck, Msg: "agent: " + r.Attachment.String() + ": " + fmt.Sprintf(format, args...)}
	}
	if err := a.serves(r.Node); err != nil {
		return err
	}
	if r.AddressesOnly {
		return a.checkAddresses(ctx, r, bad)
	}
	o, err := a.endpointOf(ctx, r.Attachment, r.Workload)
	if err != nil {
		return err
	}
	stored, ok := o.Object.(*v3.WorkloadEndpoint)
	if !ok {
		return bad("its endpoint is not in the datastore")
	}
	value, err := model.Parse(stored)
	ep, ok := value.(model.Endpoint)
	switch {
	case err != nil || !ok:
		return bad("its endpoint is not valid: %v", err)
	case r.HostLink != "" && ep.Link != r.HostLink:
		return bad("its endpoint is on %s, not on %s", ep.Link, r.HostLink)
	}
	for _, addr := range r.Addrs {
		if !slices.Contains(ep.Addrs, addr) {
			return bad("its endpoint does not have %v", addr)
		}
	}
	if !r.Given {
		if err := a.checkAddresses(ctx, r, bad); err != nil {
			return err
		}
	}
	soon, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := a.applied(soon, ep.Link, 0); err != nil {
		return bad("the kernel lacks routes of %s: %v", ep.Link, err)
	}
	return nil
}

// checkAddresses checks that the handle of the attachment has the addresses.
func (a *attachments) checkAddresses(ctx context.Context, r rpc.CheckRequest, bad func(string, ...any) error) error {
	handle := v3.HandleID(r.Network, r.ContainerID)
	held := map[netip.Addr]bool{}
	o, err := a.store.Get(ctx, model.HandleKey(handle))
	if errors.Is(err, store.ErrNotFound) {
		return bad("it has no addresses")
	}
	if err != nil {
		return err
	}
	h, err := model.Parse(o.Object)
	if err != nil {
		return bad("its handle is not valid: %v", err)
	}
	for cidr := range h.(model.Handle).Blocks {
		o, err := a.store.Get(ctx, model.BlockKey(cidr))
		if err != nil {
			return bad("block %v: %v", cidr, err)
		}
		b, err := model.Parse(o.Object)
		if err != nil {
			return bad("block %v: %v", cidr, err)
		}
		for _, addr := range ipam.Held(b.(model.Block), handle) {
			held[addr] = true
		}
	}
	for _, addr := range r.Addrs {
		if !held[addr] {
			return bad("it does not have %v", addr)
		}
	}
	return nil
}

// Status implements [rpc.Agent].
func (a *attachments) Status(ctx context.Context, r rpc.StatusRequest) error {
	if err := a.serves(r.Node); err != nil {
		e := *err.(*rpc.Error)
		if e.Code == rpc.CodeTryLater {
			e.Code = rpc.CodeNotAvailable
		}
		return &e
	}
	// Without its record no address is assigned; and reading it shows whether the
	// datastore answers.
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	if _, err := a.store.Get(ctx, model.Node{Name: a.node}.Key()); err != nil {
		return &rpc.Error{Code: rpc.CodeNotAvailable, Msg: "agent: no address can be assigned now: " + err.Error()}
	}
	return nil
}

// begin notes that an ADD of at has begun.
func (a *attachments) begin(at rpc.Attachment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.adds++
	a.added[at] = a.adds
}

// since reports whether an ADD of the container of at began after the ADD of
// that number.
func (a *attachments) since(at rpc.Attachment, number uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for other, n := range a.added {
		if n > number && other.Network == at.Network && other.ContainerID == at.ContainerID {
			return true
		}
	}
	return false
}

// serves says why a request can't be served now, as an *rpc.Error.
func (a *attachments) serves(node string) error {
	if node != "" && node != a.node {
		return &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: fmt.Sprintf("agent: the configuration names node %s, but this is the agent of node %s", node, a.node)}
	}
	if why := a.unready(); why != "" {
		return &rpc.Error{Code: rpc.CodeTryLater, Msg: "agent: " + why}
	}
	return nil
}

func wish(wanted bool, pools []string) ipam.Family {
	if !wanted {
		return ipam.Family{}
	}
	return ipam.Family{Count: 1, Pools: pools}
}

// printed gives addresses the prefix length that Calico's plugin prints: that
// of the block, or the whole length for those asked for by name.
func printed(addrs []ipam.Assigned, exact []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range addrs {
		if slices.Contains(exact, x.Addr) {
			out = append(out, single(x.Addr))
		} else {
			out = append(out, netip.PrefixFrom(x.Addr, x.Block.Bits()))
		}
	}
	return out
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// explain gives an error of address assignment the code that the runtime sees.
func explain(err error) error {
	var exhausted *ipam.ExhaustedError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exhausted), errors.Is(err, ipam.ErrTaken), errors.Is(err, ipam.ErrNoPool):
		return &rpc.Error{Code: rpc.CodeNoAddress, Msg: err.Error()}
	case errors.Is(err, allocator.ErrUnknownOutcome):
		return &rpc.Error{Code: rpc.CodeTryLater, Msg: err.Error()}
	}
	return err
}
