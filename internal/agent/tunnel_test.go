package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/startup"
	"github.com/weft-net/weft/internal/store"
)

const (
	poolIPIP  = "ipip: cidr: 10.1.0.0/24, ipipMode: Always"
	poolVXLAN = "vxlan: cidr: 10.2.0.0/24, vxlanMode: CrossSubnet"
	poolSix   = "six: cidr: 'fd00::/112', vxlanMode: Always"
)

func TestTunnelAddresses(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, poolIPIP, poolVXLAN, poolSix)
	in := func(text, want string) {
		t.Helper()
		if text != want {
			t.Errorf("got  %q\nwant %q", text, want)
		}
	}
	settle := func(want string) string {
		t.Helper()
		problems, err := w.settle(want)
		if err != nil || problems != "" {
			t.Fatalf("%v, problems %s", err, problems)
		}
		return w.check()
	}
	all := settle("ipip vxlan vxlan6 wg wg6")
	n := w.node()
	if len(strings.Fields(all)) != 5 {
		t.Errorf("got %s, want five", all)
	}
	for a, cidr := range map[string]string{n.Spec.BGP.IPv4IPIPTunnelAddr: "10.1.0.0/24", n.Spec.IPv4VXLANTunnelAddr: "10.2.0.0/24", n.Spec.IPv6VXLANTunnelAddr: "fd00::/112"} {
		if !netip.MustParsePrefix(cidr).Contains(netip.MustParseAddr(a)) {
			t.Errorf("%s is not in %s", a, cidr)
		}
	}
	in(n.Spec.VXLANTunnelMACAddr, model.VTEPMAC("node-a", false))
	in(n.Spec.VXLANTunnelMACAddrV6, model.VTEPMAC("node-a", true))
	in(n.Spec.BGP.IPv4Address, "192.168.0.1/24")
	in(settle("ipip vxlan vxlan6 wg wg6"), all)
	if again := w.node().ResourceVersion; again != n.ResourceVersion {
		t.Errorf("a pass that changes nothing wrote the record: revision %s, then %s", n.ResourceVersion, again)
	}
	in(settle("ipip"), "ipip="+n.Spec.BGP.IPv4IPIPTunnelAddr)
	if n := w.node(); n.Spec.VXLANTunnelMACAddr+n.Spec.VXLANTunnelMACAddrV6 != "" || n.Spec.Wireguard != nil {
		t.Errorf("left over: %+v", n.Spec)
	}
	in(settle(""), "")
	if held := w.held(); len(held) != 0 {
		t.Errorf("left over: %v", held)
	}
}

// TestTunnelRecordChanged: whatever others write into the record, it says again what
// this node has.
func TestTunnelRecordChanged(t *testing.T) {
	t.Parallel()
	for name, doc := range map[string]string{
		"cleared":  "spec: {bgp: {ipv4Address: 192.168.0.1/24}}",
		"foreign":  "spec: {bgp: {ipv4Address: 192.168.0.1/24, ipv4IPIPTunnelAddr: 10.1.0.200}}",
		"nonsense": "spec: {bgp: {ipv4Address: 192.168.0.1/24, ipv4IPIPTunnelAddr: nonsense}}",
		"no BGP":   "spec: {}",
	} {
		w := newTunnelWorld(t, poolIPIP)
		if _, err := w.settle("ipip"); err != nil {
			t.Fatal(err)
		}
		before := w.check()
		w.write("kind: Node\nmetadata: {name: node-a, labels: {rack: '2'}}\n" + doc)
		if problems, err := w.settle("ipip"); err != nil || problems != "" {
			t.Errorf("%s: %v, %s", name, err, problems)
		}
		if got := w.check(); got != before || w.node().Labels["rack"] != "2" {
			t.Errorf("%s: got %s, want %s and the new label", name, got, before)
		}
	}
}

// TestTunnelPoolChanges: an address of a pool that is no longer for it is replaced if
// another pool has one, and stays if there is none.
func TestTunnelPoolChanges(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ pools, want, problem string }{
		"other mode":          {"ipip: cidr: 10.1.0.0/24, vxlanMode: Always; new: cidr: 10.3.0.0/24, ipipMode: Always", "10.3.", ""},
		"disabled":            {"ipip: cidr: 10.1.0.0/24, ipipMode: Always, disabled: true; new: cidr: 10.3.0.0/24, ipipMode: Always", "10.3.", ""},
		"not selected":        {"ipip: cidr: 10.1.0.0/24, ipipMode: Always, nodeSelector: rack == '7'; new: cidr: 10.3.0.0/24, ipipMode: Always", "10.3.", ""},
		"not for tunnels":     {"ipip: cidr: 10.1.0.0/24, ipipMode: Always, allowedUses: [Workload]; new: cidr: 10.3.0.0/24, ipipMode: CrossSubnet", "10.3.", ""},
		"disabled, no other":  {"ipip: cidr: 10.1.0.0/24, ipipMode: Always, disabled: true", "10.1.", "IPPool/ipip: IPIP: no pool gives this node an address"},
		"none, of its own":    {"ipip: cidr: 10.1.0.0/24", "", "Node/node-a: IPIP: no pool gives this node an address"},
		"other, which is old": {"ipip: cidr: 10.1.0.0/24, ipipMode: Always; a: cidr: 10.0.0.0/24, ipipMode: Always", "10.1.", ""},
	} {
		w := newTunnelWorld(t, poolIPIP)
		if _, err := w.settle("ipip"); err != nil {
			t.Fatal(err)
		}
		for _, p := range strings.Split(tt.pools, "; ") {
			pool, spec, _ := strings.Cut(p, ": ")
			w.pool(pool, spec)
		}
		problems, err := w.settle("ipip")
		got := strings.TrimPrefix(w.check(), "ipip=")
		if err != nil || tt.want == "" && got != "" || !strings.HasPrefix(got, tt.want) || !strings.HasPrefix(problems, tt.problem) || (problems == "") != (tt.problem == "") {
			t.Errorf("%s: got %q, %v, problems %q; want %s…", name, got, err, problems, tt.want)
		}
	}
}

// TestTunnelPoolExhausted: the problem names the pool and what to do; other tunnels have
// their addresses; and when there is room the missing one comes.
func TestTunnelPoolExhausted(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, "tiny: cidr: 10.1.0.0/32, blockSize: 32, ipipMode: Always", poolVXLAN)
	w.alloc.Step(w.batch())
	got, err := w.alloc.Assign(t.Context(), allocator.Request{Request: ipam.Request{
		Holder: model.Attribute{Handle: "pod"}, Use: model.UseWorkload, Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.0")},
	}})
	if err != nil || len(got.Addrs) != 1 {
		t.Fatal(err)
	}
	problems, err := w.settle("ipip vxlan")
	if err != nil || strings.Contains(problems, "\n") || !strings.HasPrefix(problems, "IPPool/tiny: IPIP: this node has no address for it: ") || !strings.Contains(problems, "10.1.0.0/32: 1 block, 1 of 1 in use") || !strings.HasSuffix(problems, "or create another pool of it") {
		t.Errorf("%v, problems %q", err, problems)
	}
	if got := w.check(); !strings.HasPrefix(got, "vxlan=10.2.0.") {
		t.Errorf("got %s, want an address for VXLAN", got)
	}
	if !w.t.hungry {
		t.Error("freed addresses are not looked for")
	}
	if _, err := w.alloc.Release(t.Context(), "pod"); err != nil {
		t.Fatal(err)
	}
	if problems, err = w.settle("ipip vxlan"); err != nil || problems != "" || w.t.hungry {
		t.Errorf("%v, problems %q", err, problems)
	}
	if got := w.check(); !strings.HasPrefix(got, "ipip=10.1.0.0 vxlan=") {
		t.Errorf("got %s", got)
	}
}

// TestTunnelsWhilePoolUnreadable: while it is not known what a pool is, nothing is taken
// back.
func TestTunnelsWhilePoolUnreadable(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, poolIPIP, poolVXLAN)
	if _, err := w.settle("ipip vxlan"); err != nil {
		t.Fatal(err)
	}
	before := w.check()
	w.stop()
	w.pool("ipip", "cidr: 10.1.0.0/24, ipipMode: Always, nodeSelector: 'has('")
	w.start(w.store)
	for _, want := range []string{"ipip vxlan", "vxlan", ""} {
		if _, err := w.settle(want); err != nil {
			t.Fatal(err)
		}
		if got := w.check(); got != before {
			t.Errorf("with %q: got %s, want %s", want, got, before)
		}
	}
	if w.node().Spec.VXLANTunnelMACAddr == "" {
		t.Error("the hardware address went")
	}
}

func TestTunnelsWithoutRecord(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, poolIPIP)
	if _, err := w.settle("ipip"); err != nil {
		t.Fatal(err)
	}
	before := w.check()
	w.delete(model.Node{Name: "node-a"}.Key())
	if problems, err := w.settle("ipip"); err != nil || problems != "" {
		t.Errorf("%v, %s", err, problems)
	}
	w.write("kind: Node\nmetadata: {name: node-a}\nspec: {bgp: {ipv4Address: 192.168.0.1/24}}")
	if _, err := w.settle("ipip"); err != nil || w.check() != before {
		t.Errorf("%v, got %s, want %s", err, w.check(), before)
	}
}

// TestKeysInRecord: a key that is published stays until it is known that none is wanted.
func TestKeysInRecord(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t)
	w.rewrite(func(n *v3.Node) { n.Status.WireguardPublicKey = publishedKey(plan.PublicKey{7}, true).text })
	none, unknown := publishedKey(plan.PublicKey{7}, false), publishedKey(plan.PublicKey{}, true)
	has := func(v4, v6 plan.PublicKey) {
		t.Helper()
		if _, err := w.settle("wg"); err != nil {
			t.Fatal(err)
		}
		v, err := model.Parse(w.node())
		if n, _ := v.(model.Node); err != nil || n.WireGuardKey != v4 || n.WireGuardKeyV6 != v6 {
			t.Errorf("got %v, %v, %v; want %v, %v", n.WireGuardKey, n.WireGuardKeyV6, err, v4, v6)
		}
	}
	w.t.setKey(false, none) // before the datastore is known
	has(plan.PublicKey{7}, plan.PublicKey{})
	w.t.setKey(false, unknown)
	w.t.setKey(true, publishedKey(plan.PublicKey{9}, true))
	has(plan.PublicKey{7}, plan.PublicKey{9})
	w.t.step(model.Batch{Reset: true}, route.Tunnels{})
	w.t.setKey(true, none) // while a snapshot is under way
	has(plan.PublicKey{7}, plan.PublicKey{9})
	w.t.setKey(false, publishedKey(plan.PublicKey{8}, true))
	w.t.setKey(true, none)
	has(plan.PublicKey{8}, plan.PublicKey{})
}

func TestMTUInRecord(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t)
	w.write("kind: Node\nmetadata: {name: node-a, annotations: {a: b, weft.net/mtu: nonsense}}\nspec: {}")
	for _, mtu := range []int{0, 1500, 9000} {
		w.t.setMTU(mtu)
		if _, err := w.settle(""); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"a": "b", model.MTUAnnotation: fmt.Sprint(mtu)}
		if mtu == 0 {
			want[model.MTUAnnotation] = "nonsense"
		}
		if got := w.node().Annotations; !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// lossy is a connection that loses requests and answers; once dead it loses all.
type lossy struct {
	store.Store
	dead    atomic.Bool
	percent int
}

var errLossy = errors.New("connection lost")

func (l *lossy) lost() bool { return l.dead.Load() || rand.IntN(100) < l.percent }

func (l *lossy) Get(ctx context.Context, key model.Key) (store.Object, error) {
	if l.lost() {
		return store.Object{}, errLossy
	}
	return l.Store.Get(ctx, key)
}

func (l *lossy) List(ctx context.Context, kind model.Kind, ns string) ([]store.Object, error) {
	if l.lost() {
		return nil, errLossy
	}
	return l.Store.List(ctx, kind, ns)
}

func (l *lossy) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if l.lost() {
		return nil, errLossy
	}
	objects, err := l.Store.Commit(ctx, ops...)
	if l.lost() { // the agent may die here, too: it has written, and does not know
		return nil, errLossy
	}
	return objects, err
}

// TestTunnelsInRoughWeather: while pools and needs change, others write the record, and
// the agent loses its connection, dies and starts again at any instant, record and IPAM
// always agree; in the end nothing is left over.
func TestTunnelsInRoughWeather(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, poolIPIP, poolVXLAN, poolSix)
	specs := []string{
		"cidr: 10.1.0.0/24, ipipMode: Always", "cidr: 10.1.0.0/24, vxlanMode: Always", "cidr: 10.1.0.0/24",
		"cidr: 10.1.0.0/24, ipipMode: Always, disabled: true", "cidr: 10.1.0.0/24, ipipMode: Always, nodeSelector: rack == '2'",
	}
	wants := []string{"ipip", "vxlan", "ipip vxlan vxlan6 wg wg6", "", "wg6 vxlan6", "ipip wg"}
	conn := &lossy{Store: w.store, percent: 5}
	w.stop()
	w.start(conn)
	failed, want := 0, ""
	for range 400 {
		switch rand.IntN(6) {
		case 0:
			w.pool("ipip", specs[rand.IntN(len(specs))])
		case 1:
			w.pool("other", fmt.Sprintf("cidr: 10.9.0.0/2%d, blockSize: 2%d, ipipMode: Always, disabled: %t", 8, 8, rand.IntN(2) == 0))
		case 2: // a user changes the node, and does not know of tunnels
			w.rewrite(func(n *v3.Node) { n.Labels = map[string]string{"rack": fmt.Sprint(rand.IntN(3))} })
		case 3:
			conn.dead.Store(true)
			w.stop()
			conn = &lossy{Store: w.store, percent: 5}
			w.start(conn)
		case 4:
			want = wants[rand.IntN(len(wants))]
		}
		if _, err := w.settle(want); err != nil {
			failed++
		}
		w.check()
		if t.Failed() {
			return
		}
	}
	if failed == 0 {
		t.Error("no pass ever failed: the connection is too good")
	}
	w.stop()
	w.start(w.store)
	w.pool("ipip", specs[0])
	if problems, err := w.settle("ipip vxlan vxlan6 wg wg6"); err != nil || problems != "" || len(strings.Fields(w.check())) != 5 {
		t.Errorf("in the end: %v, %s, %s", err, problems, w.check())
	}
	if _, err := w.settle(""); err != nil || len(w.held()) != 0 || w.check() != "" {
		t.Errorf("%v, left over: %v", err, w.held())
	}
}

func (w *tunnelWorld) rewrite(change func(*v3.Node)) {
	o, err := w.store.Get(context.Background(), model.Node{Name: "node-a"}.Key())
	if err != nil {
		w.Fatal(err)
	}
	n := *o.Object.(*v3.Node)
	n.ObjectMeta = *n.ObjectMeta.DeepCopy()
	change(&n)
	if _, err := w.store.Commit(context.Background(), store.Op{Verb: store.Update, Object: o.With(&n)}); err != nil {
		w.Fatal(err)
	}
}

// rival lets somebody else write the record before some of our writes.
type rival struct {
	store.Store
	before func()
	times  int
}

func (r *rival) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	if r.times > 0 {
		r.times--
		r.before()
	}
	return r.Store.Commit(ctx, ops...)
}

// TestTunnelsWithRivals: who else writes the record loses nothing, and neither do we.
func TestTunnelsWithRivals(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, poolIPIP, poolVXLAN)
	w.stop()
	writes := 0
	conn := &rival{Store: w.store, times: 7, before: func() {
		writes++
		w.rewrite(func(n *v3.Node) { metav1.SetMetaDataAnnotation(&n.ObjectMeta, "writes", fmt.Sprint(writes)) })
	}}
	w.start(conn)
	w.t.setMTU(1400)
	if problems, err := w.settle("ipip vxlan wg"); err != nil || problems != "" {
		t.Fatalf("%v, %s", err, problems)
	}
	if got := w.check(); len(strings.Fields(got)) != 3 || writes != 7 || w.node().Annotations["writes"] != "7" || w.node().Annotations[model.MTUAnnotation] != "1400" {
		t.Errorf("got %s after %d writes of others, %v", got, writes, w.node().Annotations)
	}
}

// TestTunnelsAndStartup: a start of the node, and the detection of a new address, leave what
// the record says of tunnels, and the other way round.
func TestTunnelsAndStartup(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, poolIPIP, poolVXLAN, poolSix)
	w.t.setMTU(1450)
	if _, err := w.settle("ipip vxlan vxlan6 wg wg6"); err != nil {
		t.Fatal(err)
	}
	before, mac := w.check(), w.node().Spec.VXLANTunnelMACAddr
	settings, err := startup.SettingsFrom("node-a", func(name string) string { return map[string]string{"IP": "autodetect"}[name] })
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range []string{"192.168.0.7/24", "192.168.7.7/24"} {
		host := startup.Host{Links: func() ([]startup.Link, error) {
			return []startup.Link{{Name: "eth0", Up: true, MTU: 1500, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}}, nil
		}}
		if i == 0 {
			_, err = startup.Prepare(t.Context(), w.store, settings, host, slog.New(slog.DiscardHandler))
		} else {
			err = startup.Refresh(t.Context(), w.store, settings, host, slog.New(slog.DiscardHandler))
		}
		if err != nil {
			t.Fatal(err)
		}
		revision := w.node().ResourceVersion
		if _, err := w.settle("ipip vxlan vxlan6 wg wg6"); err != nil {
			t.Fatal(err)
		}
		n := w.node()
		if n.Spec.BGP.IPv4Address != addr || w.check() != before || n.Spec.VXLANTunnelMACAddr != mac || n.Annotations[model.MTUAnnotation] != "1450" || n.ResourceVersion != revision {
			t.Errorf("got %+v %v, revision %s after %s", n.Spec, n.Annotations, n.ResourceVersion, revision)
		}
	}
}

// TestTunnelsRun: a pass follows what concerns it and nothing else; one that fails is
// tried again, at growing intervals.
func TestTunnelsRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newTunnelWorld(t, poolIPIP)
		w.stop()
		conn := &lossy{Store: w.store}
		w.start(conn)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.t.run(ctx) }()
		look := func(want string) {
			b := w.batch()
			w.alloc.Step(b)
			w.t.step(b, needs(want))
			synctest.Wait()
		}
		w.t.need(needs("ipip"))
		synctest.Wait()
		if got := w.check(); got != "" {
			t.Errorf("before the datastore is known: %s", got)
		}
		look("ipip")
		first := w.check()
		if first == "" {
			t.Error("no address")
		}
		conn.dead.Store(true)
		look("ipip vxlan")
		if len(w.noted) != 1 || !strings.Contains(w.noted[0].Text, "connection lost") {
			t.Errorf("noted %v", w.noted)
		}
		w.pool("vxlan", "cidr: 10.2.0.0/24, vxlanMode: Always")
		conn.dead.Store(false)
		w.alloc.Step(w.batch()) // the pass is not told
		time.Sleep(firstTunnelDelay * 4)
		synctest.Wait()
		if got := w.check(); !strings.HasPrefix(got, first+" vxlan=10.2.") || len(w.noted) != 0 {
			t.Errorf("after an outage: %s, noted %v", got, w.noted)
		}
		w.t.need(needs("ipip"))
		synctest.Wait()
		if got := w.check(); got != first {
			t.Errorf("without VXLAN: %s", got)
		}
		look("ipip vxlan")
		// A snapshot begins: until it is complete nothing counts that it lacks.
		w.t.step(model.Batch{Reset: true}, route.Tunnels{})
		w.t.step(model.Batch{Puts: []model.Value{model.Cluster{}}}, route.Tunnels{})
		synctest.Wait()
		if got := w.check(); len(strings.Fields(got)) != 2 {
			t.Errorf("during a snapshot: %s", got)
		}
		look("ipip vxlan")
		// An address that somebody releases behind our back is taken again.
		if _, err := w.alloc.Release(t.Context(), allocator.IPIP.Holder("node-a").Handle); err != nil {
			t.Fatal(err)
		}
		var blocks model.Batch
		for _, v := range w.batch().Puts {
			if _, ok := v.(model.Block); ok {
				blocks.Puts = append(blocks.Puts, v)
			}
		}
		w.t.step(blocks, needs("ipip vxlan"))
		synctest.Wait()
		if got := w.check(); len(strings.Fields(got)) != 2 {
			t.Errorf("after a release by others: %s", got)
		}
		// And so is one whose block somebody deletes.
		blocks = model.Batch{}
		for _, kind := range []model.Kind{model.KindIPAMBlock, model.KindBlockAffinity, model.KindIPAMHandle} {
			objects, err := w.store.List(t.Context(), kind, "")
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				key, _ := model.KeyOf(o.Object)
				w.delete(key)
				blocks.Deletes = append(blocks.Deletes, key)
			}
		}
		w.t.step(blocks, needs("ipip vxlan"))
		synctest.Wait()
		if got := w.check(); len(strings.Fields(got)) != 2 {
			t.Errorf("after a deletion of blocks by others: %s", got)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		w.stop()
	})
}

func TestTunnelsLocked(t *testing.T) {
	t.Parallel()
	w := newTunnelWorld(t, poolIPIP)
	locked := true
	w.t.locked = func() bool { return locked }
	if _, err := w.settle("ipip"); err != nil || w.check() != "" {
		t.Errorf("locked: %v, %s", err, w.check())
	}
	locked = false
	if _, err := w.settle("ipip"); err != nil || w.check() == "" {
		t.Errorf("unlocked: %v, nothing", err)
	}
}
