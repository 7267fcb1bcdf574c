package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
)

// bench is an agent's CNI side on a datastore in memory, without a kernel.
type bench struct {
	*attachments
	t     *testing.T
	store store.Store

	mu      sync.Mutex
	why     string          // why it is not ready
	missing map[string]bool // links whose routes the kernel lacks
	awaited func()          // is called when those are waited for; may be nil
	gone    []string        // links that were deleted
}

// newBench starts a node with a pool.
func newBench(t *testing.T, cidr string, bits int) *bench {
	t.Helper()
	st := mem.New()
	ctx, cancel := context.WithCancel(t.Context())
	put := func(o v3.Object) {
		if _, err := st.Commit(ctx, store.Op{Verb: store.Create, Object: store.New(o)}); err != nil {
			t.Fatal(err)
		}
	}
	node := &v3.Node{}
	node.Name = "node-a"
	put(node)
	pool := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: cidr, BlockSize: bits}}
	pool.Name = "pool"
	v3.Default(pool)
	put(pool)

	b := &bench{t: t, store: st, missing: map[string]bool{}}
	b.attachments = &attachments{
		node: "node-a", store: st, alloc: allocator.New(st, "node-a", time.Now), arrivals: newArrivals("node-a"),
		applied: b.applied, unready: b.unready, mtu: func() int { return 1500 }, unlink: b.unlink,
		log:   slog.New(slog.DiscardHandler),
		added: map[rpc.Attachment]uint64{}, profile: map[string]bool{},
	}
	batches := make(chan model.Batch)
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.alloc.Run(ctx) })
	wg.Go(func() { _ = follow(ctx, st, batches, newNotes(slog.New(slog.DiscardHandler))) })
	wg.Go(func() {
		for {
			select {
			case x := <-batches:
				b.alloc.Step(x)
				b.arrivals.step(x)
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return b
}

func (b *bench) applied(ctx context.Context, link string, _ int32) error {
	b.mu.Lock()
	missing, awaited := b.missing[link], b.awaited
	b.mu.Unlock()
	if missing {
		if awaited != nil {
			awaited()
		}
		<-ctx.Done()
		return errors.New("route is not there")
	}
	return nil
}

func (b *bench) unlink(index int32, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = append(b.gone, fmt.Sprintf("%d %s", index, name))
	return nil
}

func (b *bench) unready() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why
}

func at(container string) rpc.Attachment {
	return rpc.Attachment{Network: "net", ContainerID: container, IfName: "eth0"}
}

func pod(name string) rpc.Workload {
	return rpc.Workload{Orchestrator: rpc.Kubernetes, Namespace: "shop", Pod: name}
}

// addRequest asks for a pod's address and endpoint.
func addRequest(container, name string) rpc.AddRequest {
	return rpc.AddRequest{
		Attachment: at(container), Workload: pod(name), Address: rpc.AddressWish{IPv4: true},
		Endpoint: &rpc.Endpoint{HostLink: "cali" + container, MAC: "0a:00:00:00:00:01", Labels: map[string]string{"app": name}},
	}
}

func (b *bench) add(r rpc.AddRequest) netip.Prefix {
	b.t.Helper()
	got, err := b.Add(b.t.Context(), r)
	if err != nil || len(got.Addrs) != 1 {
		b.t.Fatalf("add %v: %+v, %v", r.Attachment, got, err)
	}
	return got.Addrs[0]
}

// state lists endpoints and the handles with their addresses.
func (b *bench) state() string {
	b.t.Helper()
	var out []string
	endpoints, err := b.store.List(b.t.Context(), model.KindWorkloadEndpoint, "")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, o := range endpoints {
		ep := o.Object.(*v3.WorkloadEndpoint)
		out = append(out, fmt.Sprintf("%s=%s@%s", ep.Name, strings.Join(ep.Spec.IPNetworks, ","), ep.Spec.ContainerID))
	}
	handles, err := b.store.List(b.t.Context(), model.KindIPAMHandle, "")
	if err != nil {
		b.t.Fatal(err)
	}
	for _, o := range handles {
		out = append(out, o.Object.(*v3.IPAMHandle).Spec.HandleID)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func codeOf(err error) uint {
	if e := (*rpc.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return 0
}

func TestAddAndDel(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	first := b.add(addRequest("c1", "web-1"))
	if first.Bits() != 26 {
		t.Errorf("got %v, want the block's prefix length", first)
	}
	if again := b.add(addRequest("c1", "web-1")); again != first {
		t.Errorf("the second ADD of a container: got %v, want %v", again, first)
	}
	ep, err := b.store.Get(t.Context(), model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "shop", Name: "node--a-k8s-web--1-eth0"})
	if err != nil {
		t.Fatal(err)
	}
	o := ep.Object.(*v3.WorkloadEndpoint)
	if o.Labels["app"] != "web-1" || o.Labels[v3.LabelNamespace] != "shop" || !slices.Equal(o.Spec.Profiles, []string{"kns.shop", "ksa.shop.default"}) ||
		o.Spec.InterfaceName != "calic1" || o.Spec.Node != "node-a" || o.Spec.IPNetworks[0] != single(first.Addr()).String() {
		t.Errorf("endpoint: %+v %+v", o.Labels, o.Spec)
	}
	if err := b.Del(t.Context(), rpc.DelRequest{Attachment: at("c1"), Workload: pod("web-1"), HostLink: "calic1", HostIndex: 7}); err != nil {
		t.Fatal(err)
	}
	b.unlinking.Wait()
	if !slices.Equal(b.gone, []string{"7 calic1"}) {
		t.Errorf("deleted links: %q", b.gone)
	}
	if s := b.state(); s != "" {
		t.Errorf("after DEL: %s", s)
	}
	if err := b.Del(t.Context(), rpc.DelRequest{Attachment: at("never"), Workload: pod("web-9")}); err != nil {
		t.Errorf("DEL of what is unknown: %v", err)
	}
}

func TestANewContainerOfAPodTakesTheEndpoint(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	old := b.add(addRequest("c1", "db-0"))
	fresh := b.add(addRequest("c2", "db-0"))
	if old == fresh {
		t.Fatalf("both have %v", old)
	}
	// The runtime's DEL of the old sandbox comes late.
	if err := b.Del(t.Context(), rpc.DelRequest{Attachment: at("c1"), Workload: pod("db-0")}); err != nil {
		t.Fatal(err)
	}
	want := "net.c2 node--a-k8s-db--0-eth0=" + single(fresh.Addr()).String() + "@c2"
	if s := b.state(); s != want {
		t.Errorf("got %s, want %s", s, want)
	}
}

func TestRequestsThatCantBeServed(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/30", 30)
	wrong := addRequest("c1", "web-1")
	wrong.Node = "node-z"
	if _, err := b.Add(t.Context(), wrong); codeOf(err) != rpc.CodeInvalidConfig || !strings.Contains(err.Error(), "node-z") {
		t.Errorf("another node's name: %v", err)
	}
	for i := range 4 {
		b.add(addRequest(fmt.Sprintf("c%d", i), fmt.Sprintf("web-%d", i)))
	}
	before := b.state()
	if _, err := b.Add(t.Context(), addRequest("c9", "web-9")); codeOf(err) != rpc.CodeNoAddress || !strings.Contains(err.Error(), "pool") || !strings.Contains(err.Error(), "node-a") {
		t.Errorf("an exhausted pool: %v; want the pool and the holders", err)
	}
	if b.state() != before {
		t.Errorf("a refused ADD changed %s to %s", before, b.state())
	}
	b.mu.Lock()
	b.why = "starting"
	b.mu.Unlock()
	if _, err := b.Add(t.Context(), addRequest("c9", "web-9")); codeOf(err) != rpc.CodeTryLater {
		t.Errorf("while not ready: %v", err)
	}
	if err := b.Status(t.Context(), rpc.StatusRequest{}); codeOf(err) != rpc.CodeNotAvailable {
		t.Errorf("STATUS while not ready: %v", err)
	}
	if err := b.Del(t.Context(), rpc.DelRequest{Attachment: at("c0"), Workload: pod("web-0")}); err != nil {
		t.Errorf("DEL while not ready: %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	addr := b.add(addRequest("c1", "web-1")).Addr()
	good := rpc.CheckRequest{Attachment: at("c1"), Workload: pod("web-1"), HostLink: "calic1", Addrs: []netip.Addr{addr}}
	if err := b.Check(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	addressesOnly := good
	addressesOnly.AddressesOnly = true
	if err := b.Check(t.Context(), addressesOnly); err != nil {
		t.Fatal(err)
	}
	other := []netip.Addr{netip.MustParseAddr("10.0.0.200")}
	for name, change := range map[string]func(*rpc.CheckRequest){
		"another address":            func(r *rpc.CheckRequest) { r.Addrs = other },
		"another link":               func(r *rpc.CheckRequest) { r.HostLink = "calix" },
		"another container":          func(r *rpc.CheckRequest) { r.ContainerID = "c2" },
		"IPAM: another address":      func(r *rpc.CheckRequest) { r.AddressesOnly, r.Addrs = true, other },
		"IPAM: nothing was assigned": func(r *rpc.CheckRequest) { r.AddressesOnly, r.ContainerID = true, "c2" },
	} {
		r := good
		change(&r)
		if err := b.Check(t.Context(), r); codeOf(err) != rpc.CodeCheck {
			t.Errorf("%s: got %v, want the code of CHECK", name, err)
		}
	}
	b.mu.Lock()
	b.missing["calic1"] = true
	b.mu.Unlock()
	if err := b.Check(t.Context(), good); codeOf(err) != rpc.CodeCheck || !strings.Contains(err.Error(), "calic1") {
		t.Errorf("a route is missing: %v", err)
	}
}

func TestGC(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	kept := b.add(addRequest("c1", "web-1"))
	b.add(addRequest("c2", "web-2"))
	other := addRequest("c3", "web-3")
	other.Network = "other"
	third := b.add(other)
	longer := addRequest("c5", "web-5")
	longer.Network, longer.Endpoint = "net.longer", nil
	b.add(longer)
	addressOnly := addRequest("c4", "web-4")
	addressOnly.Endpoint = nil
	b.add(addressOnly)

	got, err := b.GC(t.Context(), rpc.GCRequest{Network: "net", Valid: []rpc.Attachment{at("c1")}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.HostLinks, []string{"calic2"}) {
		t.Errorf("links: %v, want calic2", got.HostLinks)
	}
	want := "net.c1 net.longer.c5 node--a-k8s-web--1-eth0=" + single(kept.Addr()).String() + "@c1" +
		" node--a-k8s-web--3-eth0=" + single(third.Addr()).String() + "@c3 other.c3"
	if s := b.state(); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestPlainCNIGetsAProfile(t *testing.T) {
	t.Parallel()
	b := newBench(t, "10.0.0.0/24", 26)
	r := addRequest("c1", "")
	r.Workload = rpc.Workload{Orchestrator: rpc.PlainCNI}
	r.Endpoint.Profiles = []string{"net"}
	b.add(r)
	o, err := b.store.Get(t.Context(), model.Key{Kind: model.KindProfile, Name: "net"})
	if err != nil {
		t.Fatal(err)
	}
	if p := o.Object.(*v3.Profile); len(p.Spec.Ingress) != 1 || p.Spec.Ingress[0].Source.Selector != "has(net)" {
		t.Errorf("profile: %+v", p.Spec)
	}
	if s := b.state(); !strings.Contains(s, "node--a-cni-c1-eth0=") {
		t.Errorf("endpoint: %s", s)
	}
}

// ADD waits for policy as long as it is told to, and then fails, or goes on where
// that is what the configuration says.
func TestAddWithoutPolicyInForce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "10.0.0.0/24", 26)
		b.missing["calic1"] = true
		r := addRequest("c1", "web")
		r.PolicyTimeout = 10 * time.Second
		begun := time.Now()
		if _, err := b.Add(t.Context(), r); err == nil || !strings.Contains(err.Error(), "routes and policy of calic1") {
			t.Errorf("it succeeded, or failed otherwise: %v", err)
		}
		if took := time.Since(begun); took < r.PolicyTimeout || took > r.PolicyTimeout+time.Second {
			t.Errorf("it waited %v, want %v", took, r.PolicyTimeout)
		}
		r.PolicyProceed = true
		if got, err := b.Add(t.Context(), r); err != nil || len(got.Addrs) != 1 {
			t.Errorf("told to proceed: %+v, %v", got, err)
		}
		withdrawn, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := b.Add(withdrawn, r); err == nil {
			t.Error("a withdrawn request succeeded")
		}
	})
}
