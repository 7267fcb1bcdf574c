package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/route"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/mem"
)

// tunnelWorld is a datastore with a node whose tunnels are kept.
type tunnelWorld struct {
	testing.TB
	store mem.Store
	alloc *allocator.Allocator
	t     *tunnels
	noted []model.Problem
	stop  func()
}

func newTunnelWorld(t testing.TB, pools ...string) *tunnelWorld {
	w := &tunnelWorld{TB: t, store: mem.New()}
	w.write("kind: Node\nmetadata: {name: node-a, labels: {rack: '1'}}\nspec: {bgp: {ipv4Address: 192.168.0.1/24}}")
	for _, p := range pools {
		name, spec, _ := strings.Cut(p, ": ")
		w.pool(name, spec)
	}
	w.start(w.store)
	return w
}

// start starts an agent's part on a connection to the datastore.
func (w *tunnelWorld) start(st store.Store) {
	ctx, cancel := context.WithCancel(context.Background())
	w.alloc = allocator.New(st, "node-a", time.Now)
	done := make(chan struct{})
	go func() { defer close(done); _ = w.alloc.Run(ctx) }()
	w.stop = func() { cancel(); <-done }
	w.Cleanup(w.stop)
	w.t = newTunnels("node-a", st, w.alloc, func() bool { return false }, func(p []model.Problem) { w.noted = p }, slog.New(slog.DiscardHandler))
}

func (w *tunnelWorld) write(doc string) {
	w.Helper()
	o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\n" + doc + "\n"))
	if err != nil {
		w.Fatal(err)
	}
	v3.Default(o)
	key, _ := model.KeyOf(o)
	op := store.Op{Verb: store.Create, Object: store.New(o)}
	if old, err := w.store.Get(context.Background(), key); err == nil {
		o.Meta().ResourceVersion = old.Object.Meta().ResourceVersion
		op = store.Op{Verb: store.Update, Object: old.With(o)}
	}
	if _, err := w.store.Commit(context.Background(), op); err != nil {
		w.Fatal(err)
	}
}

func (w *tunnelWorld) pool(name, spec string) {
	w.write(fmt.Sprintf("kind: IPPool\nmetadata: {name: %s}\nspec: {%s}", name, spec))
}

func (w *tunnelWorld) delete(key model.Key) {
	o, err := w.store.Get(context.Background(), key)
	if err == nil {
		_, err = w.store.Commit(context.Background(), store.Op{Verb: store.Delete, Object: o})
	}
	if err != nil {
		w.Fatal(err)
	}
}

// batch is all of the datastore.
func (w *tunnelWorld) batch() model.Batch {
	b := model.Batch{Reset: true, Synced: true}
	for _, kind := range []model.Kind{model.KindIPPool, model.KindNode, model.KindIPAMBlock} {
		objects, err := w.store.List(context.Background(), kind, "")
		if err != nil {
			w.Fatal(err)
		}
		for _, o := range objects {
			key, _ := model.KeyOf(o.Object)
			if v, err := model.Parse(o.Object); err != nil {
				b.Invalids = append(b.Invalids, model.Invalid{Key: key, Err: err})
			} else {
				b.Puts = append(b.Puts, v)
			}
		}
	}
	return b
}

// needs parses "ipip vxlan6".
func needs(text string) route.Tunnels {
	has := func(name string) bool { return slices.Contains(strings.Fields(text), name) }
	return route.Tunnels{IPIP: has("ipip"), VXLAN: has("vxlan"), VXLAN6: has("vxlan6"), WireGuard: has("wg"), WireGuard6: has("wg6")}
}

// settle makes a pass with what is in the datastore now.
func (w *tunnelWorld) settle(want string) (string, error) {
	b := w.batch()
	w.alloc.Step(b)
	w.t.step(b, needs(want))
	problems, err := w.t.pass(context.Background())
	var text []string
	for _, p := range problems {
		text = append(text, p.String())
	}
	return strings.Join(text, "\n"), err
}

func (w *tunnelWorld) node() *v3.Node {
	o, err := w.store.Get(context.Background(), model.Node{Name: "node-a"}.Key())
	if err != nil {
		w.Fatal(err)
	}
	return o.Object.(*v3.Node)
}

// held is the addresses of each tunnel by its handle, those in blocks.
func (w *tunnelWorld) held() map[string][]string {
	objects, err := w.store.List(context.Background(), model.KindIPAMBlock, "")
	if err != nil {
		w.Fatal(err)
	}
	out := map[string][]string{}
	for _, o := range objects {
		v, err := model.Parse(o.Object)
		if err != nil {
			w.Fatal(err)
		}
		b := v.(model.Block)
		for i, a := 0, b.CIDR.Addr(); i < len(b.Allocations); i, a = i+1, a.Next() {
			if n := b.Allocations[i]; n >= 0 {
				out[b.Attributes[n].Handle] = append(out[b.Attributes[n].Handle], a.String())
			}
		}
	}
	return out
}

// check fails unless record and IPAM agree; it returns "ipip=10.0.0.0 …" of the record.
func (w *tunnelWorld) check() string {
	w.Helper()
	n, held := w.node(), w.held()
	var out []string
	for _, t := range allocator.Tunnels() {
		handle := t.Holder("node-a").Handle
		var want []string
		if a := tunnelAddr(n, t); a != "" {
			want = []string{a}
			out = append(out, strings.TrimSuffix(handle, "-tunnel-addr-node-a")+"="+a)
		}
		if !slices.Equal(held[handle], want) {
			w.Errorf("%v: the record says %v, IPAM %v", t, want, held[handle])
		}
		if _, err := w.store.Get(context.Background(), model.HandleKey(handle)); (err == nil) != (want != nil) {
			w.Errorf("%v: handle: %v, addresses %v", t, err, want)
		}
	}
	return strings.Join(out, " ")
}
