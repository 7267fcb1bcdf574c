package startup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/kv"
	"github.com/weft-net/weft/internal/store/mem"
)

var quiet = slog.New(slog.DiscardHandler)

// prepare runs Prepare for a node on a machine with the given links.
func prepare(t *testing.T, st store.Store, node, environment, machine string) (model.Node, error) {
	t.Helper()
	s, err := SettingsFrom(node, env(environment))
	if err != nil {
		t.Fatal(err)
	}
	host := Host{Links: func() ([]Link, error) { return links(t, machine), nil }}
	return Prepare(t.Context(), st, s, host, quiet)
}

func getNode(t *testing.T, st store.Store, name string) *v3.Node {
	t.Helper()
	o, err := st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return o.Object.(*v3.Node)
}

func pools(t *testing.T, st store.Store) string {
	t.Helper()
	objects, err := st.List(t.Context(), model.KindIPPool, "")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		p := o.Object.(*v3.IPPool)
		out = append(out, fmt.Sprintf("%s %s/%d ipip=%s", p.Name, p.Spec.CIDR, p.Spec.BlockSize, p.Spec.IPIPMode))
	}
	return strings.Join(out, "; ")
}

func TestPrepareWritesTheRecord(t *testing.T) {
	t.Parallel()
	st := mem.New()
	n, err := prepare(t, st, "node-a", "IP=autodetect AS=64600 CALICO_K8S_NODE_REF=worker", "eth0 10.0.0.5/24 fd00::5/64")
	if err != nil {
		t.Fatal(err)
	}
	if n.IPv4.String() != "10.0.0.5/24" || n.IPv6.IsValid() || n.ASN != 64600 {
		t.Errorf("got %+v", n)
	}
	stored := getNode(t, st, "node-a")
	if b := stored.Spec.BGP; b == nil || b.IPv4Address != "10.0.0.5/24" || *b.ASNumber != 64600 {
		t.Errorf("bgp: %+v", b)
	}
	if a := stored.Spec.Addresses; len(a) != 1 || a[0] != (v3.NodeAddress{Address: "10.0.0.5/24", Type: v3.AddressCalicoNodeIP}) {
		t.Errorf("addresses: %+v", a)
	}
	if i := stored.Spec.Interfaces; len(i) != 1 || i[0].Name != "eth0" || fmt.Sprint(i[0].Addresses) != "[10.0.0.5]" {
		t.Errorf("interfaces: %+v", i)
	}
	if r := stored.Spec.OrchRefs; len(r) != 1 || r[0].NodeName != "worker" {
		t.Errorf("orchRefs: %+v", r)
	}
	rev := stored.ResourceVersion
	if _, err := prepare(t, st, "node-a", "IP=autodetect AS=64600 CALICO_K8S_NODE_REF=worker", "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	if again := getNode(t, st, "node-a"); again.ResourceVersion != rev {
		t.Errorf("a second start wrote the record again: revision %s, then %s", rev, again.ResourceVersion)
	}
	if _, err := prepare(t, st, "node-a", "IP=autodetect", "eth0 10.0.0.6/16"); err != nil {
		t.Fatal(err)
	}
	if now := getNode(t, st, "node-a").Spec.BGP; now.IPv4Address != "10.0.0.6/16" || *now.ASNumber != 64600 {
		t.Errorf("after the address changed: %+v; want the new address and the old AS", now)
	}
}

func TestPrepareKeepsWhatUsersWrote(t *testing.T) {
	t.Parallel()
	st := mem.New()
	o, _ := v3.New("Node")
	n := o.(*v3.Node)
	n.Name, n.Labels = "node-a", map[string]string{"rack": "1"}
	n.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: "10.9.9.9/24", RouteReflectorClusterID: "244.0.0.1"}
	n.Spec.Addresses = []v3.NodeAddress{{Address: "10.0.0.5", Type: v3.AddressInternalIP}}
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(n)}); err != nil {
		t.Fatal(err)
	}
	got, err := prepare(t, st, "node-a", "", "eth0 10.0.0.5/24")
	if err != nil || got.IPv4.String() != "10.9.9.9/24" || got.RouteReflector.String() != "244.0.0.1" || got.Labels["rack"] != "1" {
		t.Fatalf("empty IP keeps the stored address: got %+v, %v", got, err)
	}
	got, err = prepare(t, st, "node-a", "IP=autodetect IP_AUTODETECTION_METHOD=kubernetes-internal-ip", "eth0 10.1.0.5/24; eth1 10.0.0.5/24")
	if err != nil || got.IPv4.String() != "10.0.0.5/24" {
		t.Fatalf("the record's InternalIP: got %+v, %v", got, err)
	}
}

func TestPrepareRefusesATakenAddress(t *testing.T) {
	t.Parallel()
	st := mem.New()
	if _, err := prepare(t, st, "node-a", "IP=autodetect", "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	_, err := prepare(t, st, "node-b", "IP=autodetect", "eth0 10.0.0.5/16")
	var conflict *ConflictError
	if !errors.As(err, &conflict) || conflict.Owner != "node-a" || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v, want a ConflictError about node-a", err)
	}
	refused := getNode(t, st, "node-b")
	if refused.Spec.BGP != nil || len(refused.Spec.Addresses) != 0 {
		t.Errorf("the refused node's record has an address: %+v", refused.Spec)
	}
	if note := refused.Annotations[ConflictAnnotation]; !strings.Contains(note, "10.0.0.5") || !strings.Contains(note, "node-a") {
		t.Errorf("the record does not say why: %q", note)
	}
	if getNode(t, st, "node-a").Spec.BGP.IPv4Address != "10.0.0.5/24" {
		t.Error("the owner's record changed")
	}
	if _, err := prepare(t, st, "node-b", "IP=autodetect DISABLE_NODE_IP_CHECK=true", "eth0 10.0.0.5/16"); err != nil {
		t.Errorf("with the check off: %v", err)
	}
	if _, err := prepare(t, st, "node-b", "IP=autodetect", "eth0 10.0.0.6/16"); err != nil {
		t.Fatal(err)
	}
	if note, ok := getNode(t, st, "node-b").Annotations[ConflictAnnotation]; ok {
		t.Errorf("the conflict is over, but the record says %q", note)
	}
}

func TestPrepareWithoutAnAddressWritesNothing(t *testing.T) {
	t.Parallel()
	for _, e := range []string{"IP=autodetect", "IP=none", "IP=autodetect IP_AUTODETECTION_METHOD=interface=ens3"} {
		st := mem.New()
		_, err := prepare(t, st, "node-a", e, "lo 127.0.0.1/8; docker0 172.17.0.1/16")
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line", e, err)
		}
		if _, err := st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "node-a"}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: a record was written (%v)", e, err)
		}
		if p := pools(t, st); p != "" {
			t.Errorf("%s: pools were created: %s", e, p)
		}
	}
}

func TestDefaultPools(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ env, links, want string }{
		"default":            {"", "eth0 10.0.0.5/24", "default-ipv4-ippool 192.168.0.0/16/26 ipip=Never"},
		"around the host":    {"", "eth0 192.168.1.5/24", "default-ipv4-ippool 172.16.0.0/16/26 ipip=Never"},
		"as set":             {"CALICO_IPV4POOL_CIDR=10.5.0.0/16 CALICO_IPV4POOL_IPIP=always CALICO_IPV4POOL_BLOCK_SIZE=28", "eth0 10.0.0.5/24", "default-ipv4-ippool 10.5.0.0/16/28 ipip=Always"},
		"none":               {"NO_DEFAULT_POOLS=true", "eth0 10.0.0.5/24", ""},
		"no v4":              {"CALICO_IPV4POOL_CIDR=none", "eth0 10.0.0.5/24", ""},
		"both, v6 on demand": {"CALICO_IPV6POOL_CIDR=fd00:1::/48", "eth0 10.0.0.5/24", "default-ipv4-ippool 192.168.0.0/16/26 ipip=Never; default-ipv6-ippool fd00:1::/48/122 ipip=Never"},
	} {
		st := mem.New()
		if _, err := prepare(t, st, "node-a", tt.env, tt.links); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := pools(t, st); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		// A second start with other settings leaves existing pools alone.
		if _, err := prepare(t, st, "node-a", "CALICO_IPV4POOL_CIDR=10.77.0.0/16", tt.links); err != nil {
			t.Errorf("%s: again: %v", name, err)
		}
		if got := pools(t, st); tt.want != "" && got != tt.want {
			t.Errorf("%s: the second start made of %q %q", name, tt.want, got)
		}
	}
}

// TestIPv6Only: a node without an IPv4 address has a record, and the pools of its family
// only, unless the other is asked for by name; with the encapsulation that is asked for.
func TestIPv6Only(t *testing.T) {
	t.Parallel()
	const vxlan = "CALICO_IPV6POOL_CIDR=fd77::/48 CALICO_IPV6POOL_VXLAN=CrossSubnet CALICO_IPV4POOL_VXLAN=Always"
	for name, tt := range map[string]struct{ env, links, want string }{
		"detected":      {"IP=none IP6=autodetect " + vxlan, "lo ::1/128; eth0 fe80::5/64 fd00::5/64", "default-ipv6-ippool fd77::/48 CrossSubnet"},
		"IPv4 by name":  {"IP=none IP6=fd00::5 CALICO_IPV4POOL_CIDR=10.5.0.0/16 " + vxlan, "eth0 fd00::5/64", "default-ipv4-ippool 10.5.0.0/16 Always; default-ipv6-ippool fd77::/48 CrossSubnet"},
		"IPv4 there is": {"IP=none IP6=autodetect " + vxlan, "eth0 10.0.0.5/24 fd00::5/64", "default-ipv6-ippool fd77::/48 CrossSubnet"},
	} {
		st := mem.New()
		n, err := prepare(t, st, "node-a", tt.env, tt.links)
		if err != nil || n.IPv4.IsValid() || n.IPv6.String() != "fd00::5/64" {
			t.Errorf("%s: %+v, %v", name, n, err)
		}
		objects, err := st.List(t.Context(), model.KindIPPool, "")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range objects {
			p := o.Object.(*v3.IPPool)
			got = append(got, fmt.Sprint(p.Name, " ", p.Spec.CIDR, " ", p.Spec.VXLANMode))
		}
		if text := strings.Join(got, "; "); text != tt.want {
			t.Errorf("%s: pools %s, want %s", name, text, tt.want)
		}
	}
	_, err := prepare(t, mem.New(), "node-a", "IP6=autodetect", "eth0 fd00::5/64")
	if err == nil || !strings.Contains(err.Error(), "set IP=none") || strings.Contains(err.Error(), "\n") {
		t.Errorf("IP is not set: %v; want one line that says what to do", err)
	}
}

func TestNodesThatStartTogether(t *testing.T) {
	t.Parallel()
	st := mem.New()
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			s, err := SettingsFrom(fmt.Sprintf("node-%d", i), env("IP=autodetect"))
			if err == nil {
				host := Host{Links: func() ([]Link, error) { return links(t, fmt.Sprintf("eth0 10.0.0.%d/24", i+1)), nil }}
				_, err = Prepare(t.Context(), st, s, host, quiet)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if got := pools(t, st); got != "default-ipv4-ippool 192.168.0.0/16/26 ipip=Never" {
		t.Errorf("pools: %s", got)
	}
}

// together holds back the first look at the nodes until all have looked.
type together struct {
	store.Store
	looked *sync.WaitGroup
	once   sync.Once
}

func (s *together) List(ctx context.Context, kind model.Kind, namespace string) ([]store.Object, error) {
	found, err := s.Store.List(ctx, kind, namespace)
	if kind == model.KindNode {
		s.once.Do(func() {
			s.looked.Done()
			s.looked.Wait()
		})
	}
	return found, err
}

func TestNodesThatStartTogetherWithOneAddress(t *testing.T) {
	t.Parallel()
	st := mem.New()
	var looked sync.WaitGroup
	looked.Add(8)
	results := make(chan error, 8)
	for i := range cap(results) {
		go func() {
			_, err := prepare(t, &together{Store: st, looked: &looked}, fmt.Sprintf("node-%d", i), "IP=autodetect", "eth0 10.0.0.5/24")
			results <- err
		}()
	}
	started := 0
	for range cap(results) {
		switch err := <-results; {
		case err == nil:
			started++
		case !errors.As(err, new(*ConflictError)):
			t.Error(err)
		}
	}
	if started != 1 {
		t.Errorf("%d nodes started with one address, want 1", started)
	}
	holders := 0
	for i := range cap(results) {
		if b := getNode(t, st, fmt.Sprintf("node-%d", i)).Spec.BGP; b != nil && b.IPv4Address != "" {
			holders++
		}
	}
	if holders != 1 {
		t.Errorf("%d records have the address, want 1", holders)
	}
}

func TestPoolThatCantBeChosen(t *testing.T) {
	t.Parallel()
	st := mem.New()
	machine := "eth0 10.0.0.5/24 192.168.0.1/24"
	for i := range 16 {
		machine += fmt.Sprintf(" 172.%d.0.1/24", 16+i)
	}
	if _, err := prepare(t, st, "node-a", "IP=autodetect", machine); err == nil || !strings.Contains(err.Error(), "CALICO_IPV4POOL_CIDR") {
		t.Errorf("got %v, want the variable that helps", err)
	}
	if _, err := st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "node-a"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a record was written all the same (%v)", err)
	}
}

func TestNodeMadeAnew(t *testing.T) {
	t.Parallel()
	st := mem.New()
	if _, err := prepare(t, st, "node-a", "IP=autodetect AS=64600", "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	o, err := st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Delete, Object: o}); err != nil {
		t.Fatal(err)
	}
	s, err := SettingsFrom("node-a", env("IP=autodetect AS=64600"))
	if err != nil {
		t.Fatal(err)
	}
	host := Host{Links: func() ([]Link, error) { return links(t, "eth0 10.0.0.5/24"), nil }}
	if err := Refresh(t.Context(), st, s, host, quiet); err != nil {
		t.Fatal(err)
	}
	if b := getNode(t, st, "node-a").Spec.BGP; b == nil || b.IPv4Address != "10.0.0.5/24" || *b.ASNumber != 64600 {
		t.Errorf("the running node's record after it was deleted: %+v", b)
	}
}

func TestPrepareKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	st := mem.New()
	const stored = `{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"node-a","labels":{"rack":"1"}},"spec":{"bgp":{"ipv4Address":"10.9.9.9/24","fromTheFuture":true},"novel":{"a":[1]}},"status":{"new":"x"}}`
	key := "/calico/resources/v3/projectcalico.org/nodes/node-a"
	if out, err := st.DB.Txn(t.Context(), []kv.Write{{Key: key, Value: []byte(stored)}}); err != nil || out.Refused != nil {
		t.Fatal(out, err)
	}
	if _, err := prepare(t, st, "node-a", "IP=autodetect", "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	o, err := st.Get(t.Context(), model.Key{Kind: model.KindNode, Name: "node-a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"ipv4Address":"10.0.0.5/24"`, `"fromTheFuture":true`, `"novel":{"a":[1]}`, `"new":"x"`, `"rack":"1"`} {
		if !strings.Contains(string(o.Raw()), want) {
			t.Errorf("lost %s: %s", want, o.Raw())
		}
	}
}

func TestAddressesThatAreGiven(t *testing.T) {
	t.Parallel()
	for environment, want := range map[string]string{
		"IP=10.0.0.5":            "10.0.0.5/20", // the length of the interface that has it
		"IP=10.0.0.5/30":         "10.0.0.5/30",
		"IP=10.99.0.1":           "10.99.0.1/32", // no interface has it
		"IP=none IP6=fd00::5":    "fd00::5/64",
		"IP=none IP6=autodetect": "fd00::5/64",
		"IP=autodetect IP_AUTODETECTION_METHOD=kubernetes-internal-ip KUBERNETES_INTERNAL_IP=fd00::9,10.7.0.7": "10.7.0.7/24",
	} {
		n, err := prepare(t, mem.New(), "node-a", environment, "eth0 10.0.0.5/20 fd00::5/64; eth1 10.7.0.7/24")
		got := n.IPv4
		if !got.IsValid() {
			got = n.IPv6
		}
		if err != nil || got.String() != want {
			t.Errorf("%s: got %v, %v, want %s", environment, got, err, want)
		}
	}
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	st := mem.New()
	const setting = "IP=autodetect"
	if _, err := prepare(t, st, "node-a", setting, "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	if _, err := prepare(t, st, "node-b", setting+" DISABLE_NODE_IP_CHECK=true", "eth0 10.0.0.5/24"); err != nil {
		t.Fatal(err)
	}
	refresh := func(machine string) error {
		s, err := SettingsFrom("node-a", env(setting))
		if err != nil {
			t.Fatal(err)
		}
		return Refresh(t.Context(), st, s, Host{Links: func() ([]Link, error) { return links(t, machine), nil }}, quiet)
	}
	if err := refresh("eth0 10.0.0.5/24"); err != nil || getNode(t, st, "node-a").Spec.BGP == nil {
		t.Errorf("a running node lost its address to a later one: %v", err)
	}
	if err := refresh("eth0 10.0.0.7/24"); err != nil || getNode(t, st, "node-a").Spec.BGP.IPv4Address != "10.0.0.7/24" {
		t.Errorf("a changed address was not written: %v", err)
	}
	if err := refresh("eth0 10.0.0.5/24"); !errors.As(err, new(*ConflictError)) {
		t.Errorf("the address changed to that of node-b: got %v", err)
	}
}
