package cni_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/weft-net/weft/internal/cni/rpc"
)

// fakeAgent keeps attachments in a map and gives out addresses of two blocks.
type fakeAgent struct {
	node string

	mu    sync.Mutex
	have  map[rpc.Attachment]rpc.AddRequest
	gave  map[rpc.Attachment][]netip.Prefix
	dels  []rpc.DelRequest
	next  int
	fixed []netip.Prefix        // what the next Add gives, unless nil
	fail  error                 // of each Add, after it assigned
	stall chan struct{}         // Add closes it after it assigned, and waits for its context
	pod   func(*rpc.AddRequest) // what the agent finds out of the pod; nil: nothing
	cidrs []netip.Prefix        // of the node's pods
}

func newFakeAgent() *fakeAgent {
	return &fakeAgent{node: "node-a", have: map[rpc.Attachment]rpc.AddRequest{}, gave: map[rpc.Attachment][]netip.Prefix{}}
}

func (f *fakeAgent) checkNode(name string) error {
	if name != "" && name != f.node {
		return &rpc.Error{Code: rpc.CodeInvalidConfig, Msg: fmt.Sprintf("agent: nodename %q: this is node %q", name, f.node)}
	}
	return nil
}

func (f *fakeAgent) Add(ctx context.Context, r rpc.AddRequest) (rpc.AddResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.checkNode(r.Node); err != nil {
		return rpc.AddResponse{}, err
	}
	if f.pod != nil {
		f.pod(&r)
	}
	if r.Preview {
		out := rpc.AddResponse{Exact: r.Address.Exact}
		if r.Endpoint != nil {
			out.Addrs = r.Endpoint.Given
		}
		if r.PodCIDRs {
			out.PodCIDRs = f.cidrs
		}
		return out, nil
	}
	addrs, again := f.gave[r.Attachment]
	if !again {
		addrs = f.assign(r)
	}
	f.have[r.Attachment], f.gave[r.Attachment] = r, addrs
	if f.stall != nil {
		close(f.stall)
		<-ctx.Done()
		return rpc.AddResponse{}, context.Cause(ctx)
	}
	if err := f.fail; err != nil {
		return rpc.AddResponse{}, err
	}
	out := rpc.AddResponse{Addrs: addrs, MTU: 1450}
	if r.Endpoint != nil {
		out.MAC = r.Endpoint.MAC
	}
	return out, nil
}

func (f *fakeAgent) assign(r rpc.AddRequest) (out []netip.Prefix) {
	if f.fixed != nil {
		return f.fixed
	}
	for _, a := range r.Address.Exact {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	f.next++
	if out == nil && r.Address.IPv4 {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, 0, byte(f.next)}), 26))
	}
	if r.Address.IPv6 && len(r.Address.Exact) == 0 {
		out = append(out, netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(f.next)}), 122))
	}
	if r.Endpoint != nil {
		out = append(out, r.Endpoint.Given...)
	}
	return out
}

func (f *fakeAgent) Del(_ context.Context, r rpc.DelRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dels = append(f.dels, r)
	delete(f.have, r.Attachment)
	delete(f.gave, r.Attachment)
	return f.checkNode(r.Node)
}

func (f *fakeAgent) Check(_ context.Context, r rpc.CheckRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.have[r.Attachment]; !ok {
		return &rpc.Error{Code: rpc.CodeUnknownContainer, Msg: fmt.Sprintf("agent: %v: no endpoint", r.Attachment)}
	}
	return nil
}

func (f *fakeAgent) Status(_ context.Context, r rpc.StatusRequest) error { return f.checkNode(r.Node) }

func (f *fakeAgent) GC(_ context.Context, r rpc.GCRequest) (out rpc.GCResponse, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, add := range maps.Clone(f.have) {
		if a.Network == r.Network && !slices.Contains(r.Valid, a) {
			delete(f.have, a)
			delete(f.gave, a)
			if add.Endpoint != nil {
				out.HostLinks = append(out.HostLinks, add.Endpoint.HostLink)
			}
		}
	}
	return out, nil
}

// asked is the request with which a was added; the zero value if it is unknown.
func (f *fakeAgent) asked(container string) rpc.AddRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	for a, r := range f.have {
		if a.ContainerID == container {
			return r
		}
	}
	return rpc.AddRequest{}
}

func (f *fakeAgent) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.have)
}

// set changes how Add goes on.
func (f *fakeAgent) set(fail error, stall chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail, f.stall = fail, stall
}

// serve starts the agent on socket; stop ends it and waits.
func (f *fakeAgent) serve(t testing.TB, socket string) (stop func()) {
	t.Helper()
	l, err := rpc.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := rpc.Serve(ctx, l, f, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func socketIn(t testing.TB) string { return filepath.Join(t.TempDir(), "agent.sock") }

// script fixes what the next Add of a new attachment gives.
func (f *fakeAgent) script(addrs []netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fixed = addrs
}
