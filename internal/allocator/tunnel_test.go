package allocator_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// tunnelField is where a record has the address of a tunnel.
func tunnelField(n *v3.Node, t allocator.Tunnel) *string {
	switch t {
	case allocator.WireGuard:
		return &n.Spec.Wireguard.InterfaceIPv4Address
	case allocator.WireGuard6:
		return &n.Spec.Wireguard.InterfaceIPv6Address
	case allocator.IPIP:
		return &n.Spec.BGP.IPv4IPIPTunnelAddr
	case allocator.VXLAN:
		return &n.Spec.IPv4VXLANTunnelAddr
	}
	return &n.Spec.IPv6VXLANTunnelAddr
}

// tunnels does what Calico's one-shot allocation of tunnel addresses does: an
// address for each tunnel that a pool asks for, none for the others.
func (r *replay) tunnels(id string, s step) {
	o, err := r.store.Get(r.Context(), model.Node{Name: s.Node}.Key())
	if err != nil {
		r.Fatal(err)
	}
	node := o.Object.(*v3.Node)
	if node.Spec.Wireguard == nil {
		node.Spec.Wireguard = &v3.NodeWireguardSpec{}
	}
	for _, t := range allocator.Tunnels() {
		r.tunnel(node, t)
	}
	if *node.Spec.Wireguard == (v3.NodeWireguardSpec{}) {
		node.Spec.Wireguard = nil
	}
	r.write(node)
	raw, err := json.Marshal(node.Spec)
	if err != nil {
		r.Fatal(err)
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		r.Fatal(err)
	}
	delete(spec, "addresses")
	r.compare(id+": node", s.NodeSpec, spec)
	r.compare(id+": handles", s.Handles, r.handles())
	r.adds++
}

func (r *replay) tunnel(node *v3.Node, t allocator.Tunnel) {
	field, holder := tunnelField(node, t), t.Holder(node.Name)
	names := poolNames(allocator.TunnelPools(t, r.pools(), node.Labels))
	if t == allocator.WireGuard && node.Status.WireguardPublicKey == "" || t == allocator.WireGuard6 && node.Status.WireguardPublicKeyV6 == "" {
		names = nil
	}
	if *field != "" && len(names) > 0 {
		return
	}
	*field = ""
	// Calico takes a new address when the node has lost its record of it.
	if _, err := r.on(node.Name).Release(r.Context(), holder.Handle); err != nil {
		r.Fatal(err)
	}
	if len(names) == 0 {
		return
	}
	res, err := r.on(node.Name).Assign(r.Context(), tunnelRequest(t, node.Name, names...))
	if err != nil {
		r.Fatal(err)
	}
	*field = res.Addrs[0].Addr.String()
}

// tunnelRequest asks for the address of a tunnel from the named pools.
func tunnelRequest(t allocator.Tunnel, node string, pools ...string) allocator.Request {
	req := allocator.Request{Request: ipam.Request{Use: model.UseTunnel, Holder: t.Holder(node)}}
	if family := (ipam.Family{Count: 1, Pools: pools}); t.V6() {
		req.V6 = family
	} else {
		req.V4 = family
	}
	return req
}

func poolNames(pools []model.Pool) []string {
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	return names
}

// pools are those in the store.
func (r *replay) pools() []model.Pool {
	objects, err := r.store.List(r.Context(), model.KindIPPool, "")
	if err != nil {
		r.Fatal(err)
	}
	var out []model.Pool
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		if err != nil {
			r.Fatal(err)
		}
		out = append(out, v.(model.Pool))
	}
	return out
}

func TestTunnelPools(t *testing.T) {
	t.Parallel()
	var pools []model.Pool
	for name, spec := range map[string]string{
		"ipip":       "cidr: 10.1.0.0/24, ipipMode: Always",
		"ipip-cross": "cidr: 10.2.0.0/24, ipipMode: CrossSubnet",
		"vxlan":      "cidr: 10.3.0.0/24, vxlanMode: CrossSubnet",
		"plain":      "cidr: 10.4.0.0/24",
		"disabled":   "cidr: 10.5.0.0/24, ipipMode: Always, disabled: true",
		"pods":       "cidr: 10.6.0.0/24, ipipMode: Always, allowedUses: [Workload]",
		"elsewhere":  "cidr: 10.7.0.0/24, ipipMode: Always, nodeSelector: rack == '2'",
		"z-overlaps": "cidr: 10.1.0.0/25, ipipMode: Always",
		"vxlan6":     "cidr: 'fd00::/120', vxlanMode: Always",
		"plain6":     "cidr: 'fd01::/120'",
	} {
		o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: " + name + "}\nspec: {" + spec + "}\n"))
		if err != nil {
			t.Fatal(err)
		}
		v, err := model.Parse(o)
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, v.(model.Pool))
	}
	for tunnel, want := range map[allocator.Tunnel]string{
		allocator.IPIP:       "[ipip ipip-cross]",
		allocator.VXLAN:      "[vxlan]",
		allocator.VXLAN6:     "[vxlan6]",
		allocator.WireGuard:  "[ipip ipip-cross plain vxlan]",
		allocator.WireGuard6: "[plain6 vxlan6]",
	} {
		if got := fmt.Sprint(poolNames(allocator.TunnelPools(tunnel, pools, map[string]string{"rack": "1"}))); got != want {
			t.Errorf("%v: got %s, want %s", tunnel, got, want)
		}
	}
}

// TestMove: the old address goes when the new one comes, and stays when there is none.
func TestMove(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	for _, doc := range []string{
		"kind: IPPool\nmetadata:\n  name: pool-b\nspec:\n  cidr: 10.20.0.0/24\n  blockSize: 28\n",
		"kind: IPPool\nmetadata:\n  name: pool-tiny\nspec:\n  cidr: 10.30.0.0/32\n  blockSize: 32\n",
	} {
		o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\n" + doc))
		if err != nil {
			t.Fatal(err)
		}
		create(t, s, o)
	}
	a := start(t, s, "node-a", noon)
	held := func() string {
		addrs, err := a.Held(t.Context(), allocator.IPIP.Holder("node-a").Handle)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(addrs)
	}
	if got := held(); got != "[]" {
		t.Errorf("before: %s", got)
	}
	for _, name := range []string{"pool-a", "pool-b", "pool-a", "pool-tiny", "pool-tiny"} {
		res, err := a.Move(t.Context(), tunnelRequest(allocator.IPIP, "node-a", name))
		if err != nil || len(res.Addrs) != 1 || res.Addrs[0].Pool != name || held() != fmt.Sprint([]netip.Addr{res.Addrs[0].Addr}) {
			t.Fatalf("to %s: %v, %v; held %s", name, res.Addrs, err, held())
		}
	}
	other := tunnelRequest(allocator.IPIP, "node-b", "pool-a")
	if _, err := start(t, s, "node-b", noon).Move(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	before := held()
	full := tunnelRequest(allocator.VXLAN, "node-a", "pool-a")
	if _, err := a.Move(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	var exhausted *ipam.ExhaustedError
	if _, err := a.Move(t.Context(), tunnelRequest(allocator.VXLAN, "node-a", "pool-tiny")); !errors.As(err, &exhausted) {
		t.Errorf("from a full pool: %v, want an ExhaustedError", err)
	}
	if got, err := a.Held(t.Context(), allocator.VXLAN.Holder("node-a").Handle); err != nil || len(got) != 1 || held() != before {
		t.Errorf("after a move that failed: %v, %v, %s", got, err, held())
	}
}

// TestMoveWrites: a move whose extra operation is refused changes nothing; and the blocks
// that it empties stay consistent with their affinities and handles.
func TestMoveWrites(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	a := start(t, s, "node-a", noon)
	req := tunnelRequest(allocator.IPIP, "node-a", "pool-a")
	if _, err := a.Move(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	handle := req.Holder.Handle
	before, err := a.Held(t.Context(), handle)
	if err != nil {
		t.Fatal(err)
	}
	req.Extra = func([]ipam.Assigned) ([]store.Op, error) {
		return []store.Op{{Verb: store.Create, Object: store.New(&v3.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-b"}})}}, nil
	}
	if _, err := a.Move(t.Context(), req); !errors.Is(err, store.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if now, err := a.Held(t.Context(), handle); err != nil || !slices.Equal(now, before) {
		t.Errorf("held %v, %v; want still %v", now, err, before)
	}
	req.Extra = nil
	for range 40 { // through every address of the block, and into the next
		if _, err := a.Move(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	keys := map[string]int{}
	for _, kind := range []model.Kind{model.KindIPAMBlock, model.KindBlockAffinity, model.KindIPAMHandle} {
		objects, err := s.List(t.Context(), kind, "")
		if err != nil {
			t.Fatal(err)
		}
		keys[string(kind)] = len(objects)
	}
	if want := map[string]int{"IPAMBlock": 1, "BlockAffinity": 1, "IPAMHandle": 1}; !maps.Equal(keys, want) {
		t.Errorf("after many moves: %v, want %v", keys, want)
	}
}

func TestTunnelHolders(t *testing.T) {
	t.Parallel()
	var got []string
	for _, tunnel := range allocator.Tunnels() {
		h := tunnel.Holder("n")
		got = append(got, h.Handle+"="+h.Secondary["type"]+"@"+h.Secondary["node"])
	}
	const want = "wireguard-tunnel-addr-n=wireguardTunnelAddress@n wireguard-v6-tunnel-addr-n=wireguardV6TunnelAddress@n ipip-tunnel-addr-n=ipipTunnelAddress@n vxlan-tunnel-addr-n=vxlanTunnelAddress@n vxlan-v6-tunnel-addr-n=vxlanV6TunnelAddress@n"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}
