package agent

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

var webKey = model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "shop", Name: "node--a-k8s-web--1-eth0"}

// endpoint reads the endpoint of the pod web-1.
func (b *bench) endpoint() *v3.WorkloadEndpoint {
	b.t.Helper()
	o, err := b.store.Get(b.t.Context(), webKey)
	if err != nil {
		b.t.Fatal(err)
	}
	return o.Object.(*v3.WorkloadEndpoint)
}

func TestEndpointSaysWhatThePodAskedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	r := addRequest("c1", "web-1")
	r.Endpoint.FloatingIPs = []netip.Addr{netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8")}
	r.Endpoint.SourcePrefixes = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	r.Endpoint.Ports = []rpc.Port{{Protocol: "tcp", Port: 80, HostPort: 8080}}
	addr := b.add(r).Addr().String()
	s := b.endpoint().Spec
	want := []v3.IPNAT{{InternalIP: addr, ExternalIP: "192.0.2.7"}, {InternalIP: addr, ExternalIP: "192.0.2.8"}}
	if len(s.IPNATs) != 2 || s.IPNATs[0] != want[0] || s.IPNATs[1] != want[1] {
		t.Errorf("ipNATs: got %v, want %v", s.IPNATs, want)
	}
	if len(s.AllowSpoofedSourcePrefixes) != 1 || s.AllowSpoofedSourcePrefixes[0] != "203.0.113.0/24" {
		t.Errorf("allowSpoofedSourcePrefixes: %v", s.AllowSpoofedSourcePrefixes)
	}
	if len(s.Ports) != 1 || s.Ports[0].Port != 80 || s.Ports[0].HostPort != 8080 || s.Ports[0].Protocol.Name != "TCP" {
		t.Errorf("ports: %+v", s.Ports)
	}
	// Without the annotations none of it is left.
	b.add(addRequest("c1", "web-1"))
	if s := b.endpoint().Spec; len(s.IPNATs)+len(s.AllowSpoofedSourcePrefixes)+len(s.Ports) != 0 {
		t.Errorf("after an ADD that asks for nothing: %+v", s)
	}
	before := b.state()
	r = addRequest("c2", "web-2")
	r.Endpoint.FloatingIPs = []netip.Addr{netip.MustParseAddr("2001:db8::1")}
	if _, err := b.Add(t.Context(), r); codeOf(err) != rpc.CodeInvalidConfig || !strings.Contains(err.Error(), "2001:db8::1") {
		t.Errorf("a floating address of a family that the pod lacks: %v", err)
	}
	if after := b.state(); after != before {
		t.Errorf("a refused ADD changed %s to %s", before, after)
	}
}

func TestEndpointKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	b.add(addRequest("c1", "web-1"))
	o, err := b.store.Get(t.Context(), webKey)
	if err != nil {
		t.Fatal(err)
	}
	raw := strings.Replace(string(o.Raw()), `"spec":{`, `"spec":{"fromTheFuture":{"a":[1,2]},`, 1)
	// Only what the store writes itself can be unknown to it.
	changed := store.Stored(o.Object, []byte(raw))
	o.Object.Meta().Labels["x"] = "y"
	if _, err := b.store.Commit(t.Context(), store.Op{Verb: store.Update, Object: changed}); err != nil {
		t.Fatal(err)
	}
	b.add(addRequest("c2", "web-1"))
	o, err = b.store.Get(t.Context(), webKey)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(o.Raw()), `"fromTheFuture":{"a":[1,2]}`) || b.endpoint().Spec.ContainerID != "c2" {
		t.Errorf("stored: %s", o.Raw())
	}
}

// meddler changes an endpoint between the reading and the writing of others.
type meddler struct {
	store.Store
	times int
}

func (m *meddler) Get(ctx context.Context, k model.Key) (store.Object, error) {
	o, err := m.Store.Get(ctx, k)
	if k.Kind != model.KindWorkloadEndpoint || err != nil || m.times == 0 {
		return o, err
	}
	m.times--
	again, err := m.Store.Get(ctx, k)
	if err != nil {
		return o, err
	}
	again.Object.Meta().Labels["touched"] = strings.Repeat("x", m.times+1)
	_, err = m.Store.Commit(ctx, store.Op{Verb: store.Update, Object: again})
	return o, err
}

func TestDelOfAnEndpointThatOthersChange(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	b.add(addRequest("c1", "web-1"))
	b.attachments.store = &meddler{b.store, 3}
	if err := b.Del(t.Context(), rpc.DelRequest{Attachment: at("c1"), Workload: pod("web-1")}); err != nil {
		t.Fatal(err)
	}
	if s := b.state(); s != "" {
		t.Errorf("after DEL: %s", s)
	}
}

func TestGCOfAddressesThatOthersGave(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	for _, network := range []string{"net", "other"} {
		r := addRequest("c-"+network, "web-"+network)
		r.Network, r.Address = network, rpc.AddressWish{}
		r.Endpoint.Given = []netip.Prefix{netip.MustParsePrefix("10.77.0.5/24")}
		b.add(r)
	}
	if _, err := b.GC(t.Context(), rpc.GCRequest{Network: "net", Valid: []rpc.Attachment{at("c-net")}}); err != nil {
		t.Fatal(err)
	}
	before := "node--a-k8s-web--net-eth0=10.77.0.5/32@c-net node--a-k8s-web--other-eth0=10.77.0.5/32@c-other"
	if s := b.state(); s != before {
		t.Fatalf("GC with all valid: %s", s)
	}
	got, err := b.GC(t.Context(), rpc.GCRequest{Network: "net"})
	if err != nil || len(got.HostLinks) != 1 || got.HostLinks[0] != "calic-net" {
		t.Errorf("GC: %+v, %v", got, err)
	}
	if s := b.state(); s != "node--a-k8s-web--other-eth0=10.77.0.5/32@c-other" {
		t.Errorf("after GC: %s", s)
	}
}

func TestCheckOfAddressesThatAreReleased(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	addr := b.add(addRequest("c1", "web-1")).Addr()
	r := rpc.CheckRequest{Attachment: at("c1"), Workload: pod("web-1"), HostLink: "calic1", Addrs: []netip.Addr{addr}}
	if err := b.Check(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if _, err := b.alloc.Release(t.Context(), "net.c1"); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(t.Context(), r); codeOf(err) != rpc.CodeCheck || !strings.Contains(err.Error(), "no addresses") {
		t.Errorf("the address may be given to others, and CHECK says %v", err)
	}
	r.Given = true
	if err := b.Check(t.Context(), r); err != nil {
		t.Errorf("of an address that is not ours: %v", err)
	}
}

func TestStatusWithoutDatastore(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	if err := b.Status(t.Context(), rpc.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Status(t.Context(), rpc.StatusRequest{}); codeOf(err) != rpc.CodeNotAvailable {
		t.Errorf("got %v, want the code for not available", err)
	}
}

// latecomer begins an ADD as soon as somebody lists endpoints.
type latecomer struct {
	store.Store
	begin func()
}

func (l latecomer) List(ctx context.Context, kind model.Kind, namespace string) ([]store.Object, error) {
	l.begin()
	return l.Store.List(ctx, kind, namespace)
}

func TestGCSparesWhatIsAddedMeanwhile(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	b.add(addRequest("c1", "web-1"))
	addressOnly := addRequest("c2", "web-2")
	addressOnly.Endpoint = nil
	b.add(addressOnly)
	before := b.state()
	b.attachments.store = latecomer{b.store, func() { b.begin(at("c1")); b.begin(at("c2")) }}
	if got, err := b.GC(t.Context(), rpc.GCRequest{Network: "net"}); err != nil || len(got.HostLinks) != 0 {
		t.Errorf("GC: %+v, %v", got, err)
	}
	if after := b.state(); after != before {
		t.Errorf("GC made of %s %s", before, after)
	}
}
