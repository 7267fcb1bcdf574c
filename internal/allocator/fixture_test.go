package allocator_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/mem"
	"github.com/weft-net/weft/internal/testenv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

var update = flag.Bool("update", false, "rewrite testdata/errors.golden")

// scenario is one file of test/fixtures/ipam: what Calico's own tools did.
type scenario struct {
	ID    string
	Setup []string
	Steps []step
}

type step struct {
	Do        string
	Node      string
	Pod       string
	Container string
	Name      *string // of the network
	NS        *string
	Args      json.RawMessage // of ADD text, of calicoctl a list
	IPAM      struct {
		V4    *string  `json:"assign_ipv4"`
		V6    *string  `json:"assign_ipv6"`
		Pools []string `json:"ipv4_pools"`
	}
	OK       bool
	Facts    []fact
	Stdin    string
	Exit     int
	Blocks   []blockLine
	Handles  map[string]handleLine
	Keys     map[string]json.RawMessage
	Seconds  int
	NodeSpec map[string]any `json:"node_spec"`
}

type fact struct {
	IP           string `json:"ip"`
	Pool         string `json:"pool"`
	Block        string `json:"block"`
	New          bool   `json:"block_is_new"`
	Ordinal      int    `json:"ordinal"`
	Affinity     string `json:"block_affinity"`
	Borrowed     bool   `json:"borrowed"`
	SameAsEarler string `json:"same_ip_as_earlier_pod"`
}

type blockLine struct {
	CIDR        string  `json:"cidr"`
	Label       *string `json:"label"`
	Affinity    *string `json:"affinity"`
	Unallocated []int   `json:"unallocated"`
}

type handleLine struct {
	Block   map[string]int `json:"block"`
	Deleted bool           `json:"deleted"`
}

// TestScenarios replays what Calico's tools did and compares every address,
// block, handle and stored value, and whether each step succeeds. Addresses are
// compared as they are, since blocks are chosen as Calico chooses them; only
// for single-address blocks that choice is by the clock there.
func TestScenarios(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../test/fixtures/ipam/ipam-*.json")
	if err != nil || len(files) != 30 {
		t.Fatalf("found %d scenarios, %v, want 30", len(files), err)
	}
	golden := &golden{file: filepath.Join("testdata", "errors.golden"), got: map[string]string{}}
	var scenarios []scenario
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var s scenario
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		scenarios = append(scenarios, s)
	}
	t.Run("mem", func(t *testing.T) {
		for _, s := range scenarios {
			t.Run(s.ID, func(t *testing.T) {
				t.Parallel()
				st := mem.New()
				newReplay(t, s, golden, st, func() map[string]json.RawMessage { return memKeys(t, st) }).run()
			})
		}
	})
	golden.check(t)
	t.Run("etcd", func(t *testing.T) {
		st, raw := etcdStore(t)
		for _, s := range scenarios {
			t.Run(s.ID, func(t *testing.T) {
				newReplay(t, s, golden, st, func() map[string]json.RawMessage { return etcdKeys(t, raw) }).run()
			})
			if _, err := raw.Delete(t.Context(), "/", clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		}
	})
	golden.check(t)
}

// memKeys is everything under /calico/ipam/ as it is stored.
func memKeys(t *testing.T, st mem.Store) map[string]json.RawMessage {
	page, err := st.DB.Range(t.Context(), "/calico/ipam/", "/calico/ipam0", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]json.RawMessage{}
	for _, e := range page.Entries {
		got[e.Key] = e.Value
	}
	return got
}

// etcdKeys is memKeys for etcd.
func etcdKeys(t *testing.T, raw *clientv3.Client) map[string]json.RawMessage {
	resp, err := raw.Get(t.Context(), "/calico/ipam/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]json.RawMessage{}
	for _, e := range resp.Kvs {
		got[string(e.Key)] = e.Value
	}
	return got
}

// etcdStore is a server of the test's own, and a connection past the store.
func etcdStore(t *testing.T) (store.Store, *clientv3.Client) {
	dir := t.TempDir()
	url := startEtcd(t, dir)
	st, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{url}, Timeout: testenv.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	raw, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, Logger: zap.NewNop(), DialTimeout: testenv.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	return st, raw
}

// golden holds our texts for the refusals of all scenarios.
type golden struct {
	mu   sync.Mutex
	file string
	got  map[string]string
}

func (g *golden) add(id string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got[id] = err.Error()
}

func (g *golden) check(t *testing.T) {
	var b strings.Builder
	var ids []string
	for id := range g.got {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		fmt.Fprintf(&b, "%s: %s\n", id, g.got[id])
	}
	if *update {
		if err := os.WriteFile(g.file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(g.file)
	if err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(strings.Split(string(want), "\n"), strings.Split(b.String(), "\n")); d != "" {
		t.Errorf("texts of refusals (-want +got), rewrite with -update:\n%s", d)
	}
}

// replay is a scenario under way.
type replay struct {
	*testing.T
	scenario
	golden *golden
	store  store.Store
	keys   func() map[string]json.RawMessage // everything under /calico/ipam/ as stored
	clock  *clock
	nodes  map[string]*allocator.Allocator
	labels map[string]string // of blocks: B1, B2 … in order of appearance
	ips    map[string]string // pod that had it first, by address
	adds   int
}

func newReplay(t *testing.T, s scenario, g *golden, st store.Store, keys func() map[string]json.RawMessage) *replay {
	// The steps are the scenario's own: ipam-22 changes what they want.
	s.Steps = slices.Clone(s.Steps)
	return &replay{
		T: t, scenario: s, golden: g, store: st, keys: keys,
		clock: &clock{at: time.Date(2026, 11, 20, 6, 0, 0, 0, time.UTC)},
		nodes: map[string]*allocator.Allocator{}, labels: map[string]string{}, ips: map[string]string{},
	}
}

// clock is a clock that the test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func (r *replay) run() {
	for _, doc := range r.Setup {
		r.apply(doc)
	}
	for i, s := range r.Steps {
		id := fmt.Sprintf("%s step %d", r.ID, i+1)
		switch s.Do {
		case "ADD":
			r.add(id, s)
		case "DEL":
			r.del(id, s)
		case "WAIT":
			r.clock.advance(time.Duration(s.Seconds) * time.Second)
		case "BLOCKS":
			want := slices.Clone(s.Blocks)
			r.compare(id, want, r.blocks(want))
		case "HANDLES":
			r.compare(id, s.Handles, r.handles())
		case "LOOK":
			r.compare(id, r.plain(s.Keys), r.plain(r.keys()))
		case "TUNNELS":
			r.tunnels(id, s)
		case "calicoctl":
			r.calicoctl(id, s)
		default:
			r.Fatalf("%s: unknown step %q", id, s.Do)
		}
	}
	if r.adds == 0 {
		r.Error("no ADD was compared")
	}
}

func (r *replay) compare(id string, want, got any) {
	r.Helper()
	if d := gocmp.Diff(want, got); d != "" {
		r.Errorf("%s (-want +got):\n%s", id, d)
	}
}

// on is the allocator of a node.
func (r *replay) on(node string) *allocator.Allocator {
	if a, ok := r.nodes[node]; ok {
		return a
	}
	r.nodes[node] = start(r.T, r.store, node, r.clock.now)
	return r.nodes[node]
}

// start runs an allocator until the test ends.
func start(t testing.TB, st store.Store, node string, now func() time.Time) *allocator.Allocator {
	a := allocator.New(st, node, now)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
	return a
}

func (s step) handle() string {
	return s.network() + "." + cmp.Or(s.Container, "c-"+s.Pod)
}

func (s step) network() string {
	if s.Name != nil {
		return *s.Name
	}
	return "k8s-pod-network"
}

// request is what the plugin makes of an ADD; false when it refuses that itself.
func (s step) request(at time.Time) (allocator.Request, bool) {
	ns := "default"
	if s.NS != nil {
		ns = *s.NS
	}
	r := allocator.Request{Request: ipam.Request{
		Use: model.UseWorkload, Holder: ipam.PodHolder(s.handle(), s.Node, ns, s.Pod, at),
	}}
	if s.Name != nil && (*s.Name == "" || strings.Contains(*s.Name, " ")) {
		return r, false
	}
	var args string
	_ = json.Unmarshal(s.Args, &args)
	if ip, ok := strings.CutPrefix(args, "IP="); ok {
		a, err := netip.ParseAddr(ip)
		r.Addrs = []netip.Addr{a}
		return r, err == nil
	}
	if s.IPAM.V4 == nil || *s.IPAM.V4 == "true" {
		r.V4 = ipam.Family{Count: 1, Pools: s.IPAM.Pools}
	}
	if s.IPAM.V6 != nil && *s.IPAM.V6 == "true" {
		r.V6.Count = 1
	}
	return r, true
}

func (r *replay) add(id string, s step) {
	req, ok := s.request(r.clock.now())
	if !ok {
		if s.OK {
			r.Errorf("%s: refused before assignment, but Calico takes it", id)
		}
		return
	}
	r.adds++
	a := r.on(s.Node)
	before := r.handles()[s.handle()]
	var blocks []string
	for _, b := range r.blocks(nil) {
		blocks = append(blocks, b.CIDR)
	}
	res, err := a.Assign(r.Context(), req)
	if held := len(before.Block) > 0; held {
		// Asked again: Calico refuses the same address and gives a further one
		// otherwise. Ours gives the same; then follow Calico's course.
		r.compare(id+": handle after asking again", before, r.handles()[s.handle()])
		if err != nil || len(req.Addrs) > 0 {
			r.compare(id+": error when asked again", error(nil), err)
			return
		}
		req.V4.Count++
		res, err = a.Assign(r.Context(), req)
		res.Addrs = res.Addrs[1:]
	}
	if (err == nil) != s.OK {
		r.Errorf("%s: ADD %s: error is %v, want success %v", id, s.Pod, err, s.OK)
		return
	}
	if err != nil {
		r.golden.add(fmt.Sprintf("%s ADD %s", r.ID, s.Pod), err)
		return
	}
	got := []fact{}
	for _, as := range res.Addrs {
		got = append(got, r.fact(s.Pod, as, blocks))
	}
	if r.ID == "ipam-22" { // see TestScenarios
		s.Facts = slices.Clone(s.Facts)
		for i := range s.Facts {
			s.Facts[i].IP = got[i].IP
		}
	}
	r.compare(fmt.Sprintf("%s: ADD %s", id, s.Pod), s.Facts, got)
}

// fact describes an address that a pod got; before are the blocks before it.
func (r *replay) fact(pod string, as ipam.Assigned, before []string) fact {
	f := fact{IP: as.Addr.String(), Pool: as.Pool, Block: r.labels[as.Block.String()], Borrowed: as.Borrowed}
	f.New = !slices.Contains(before, as.Block.String())
	if f.Block == "" {
		f.Block = fmt.Sprintf("B%d", len(r.labels)+1)
		r.labels[as.Block.String()] = f.Block
	}
	b := r.block(as.Block)
	f.Affinity = b.Owner.String()
	for f.Ordinal = 0; ipam.AddrAt(as.Block, f.Ordinal) != as.Addr; f.Ordinal++ {
	}
	f.SameAsEarler = r.ips[f.IP]
	r.ips[f.IP] = cmp.Or(r.ips[f.IP], pod)
	return f
}

func (r *replay) block(cidr netip.Prefix) model.Block {
	o, err := r.store.Get(r.Context(), model.BlockKey(cidr))
	if err != nil {
		r.Fatal(err)
	}
	v, err := model.Parse(o.Object)
	if err != nil {
		r.Fatal(err)
	}
	return v.(model.Block)
}

func (r *replay) del(id string, s step) {
	for _, h := range []string{s.handle(), "default." + s.Pod} {
		if _, err := r.on(s.Node).Release(r.Context(), h); err != nil {
			r.Errorf("%s: DEL %s: %v", id, s.Pod, err)
		}
	}
}

// blocks lists the blocks as want does: in the order of keys, with labels.
func (r *replay) blocks(want []blockLine) []blockLine {
	var got []blockLine
	objects, err := r.store.List(r.Context(), model.KindIPAMBlock, "")
	if err != nil {
		r.Fatal(err)
	}
	for i, o := range objects {
		s := o.Object.(*v3.IPAMBlock).Spec
		line := blockLine{CIDR: s.CIDR, Affinity: s.Affinity, Unallocated: s.Unallocated}
		if label := r.labels[s.CIDR]; label != "" {
			line.Label = &label
		}
		if r.ID == "ipam-22" && i < len(want) { // see TestScenarios
			line.Label = want[i].Label
			line.Unallocated, want[i].Unallocated = nil, nil
		}
		got = append(got, line)
	}
	return got
}

func (r *replay) handles() map[string]handleLine {
	got := map[string]handleLine{}
	objects, err := r.store.List(r.Context(), model.KindIPAMHandle, "")
	if err != nil {
		r.Fatal(err)
	}
	for _, o := range objects {
		s := o.Object.(*v3.IPAMHandle).Spec
		got[s.HandleID] = handleLine{s.Block, s.Deleted}
	}
	return got
}

// plain decodes values, without what differs from run to run.
func (r *replay) plain(keys map[string]json.RawMessage) map[string]any {
	out := map[string]any{}
	for key, raw := range keys {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber() // sequence numbers have more digits than a float
		var v any
		if err := d.Decode(&v); err != nil {
			r.Fatalf("%s: %v", key, err)
		}
		out[key] = plain(v)
	}
	return out
}

// plain replaces what differs from run to run: times, and the start of sequence
// numbers.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		if n, ok := v["sequenceNumber"]; ok {
			before := map[string]uint64{} // the block's number, by ordinal
			for ord, seq := range v["sequenceNumberForAllocation"].(map[string]any) {
				before[ord] = number(n) - number(seq)
			}
			out["sequenceNumberForAllocation"] = before
		}
		for k, x := range v {
			switch k {
			case "affinity_claim_time", "timestamp", "releasedAt":
				out[k] = "<time>"
			case "sequenceNumber", "sequenceNumberForAllocation":
			default:
				out[k] = plain(x)
			}
		}
		return out
	case []any:
		var out []any
		for _, x := range v {
			out = append(out, plain(x))
		}
		return out
	}
	return v
}

func number(v any) uint64 {
	n, _ := strconv.ParseUint(v.(json.Number).String(), 10, 64)
	return n
}

// apply creates or replaces an object.
func (r *replay) apply(doc string) {
	o, err := v3.Decode([]byte(doc))
	if err != nil {
		r.Fatal(err)
	}
	r.write(o)
}

func (r *replay) write(o v3.Object) {
	_, err := r.store.Commit(r.Context(), store.Op{Verb: store.Create, Object: store.New(o)})
	if errors.Is(err, store.ErrExists) {
		_, err = r.store.Commit(r.Context(), store.Op{Verb: store.Update, Object: store.New(o)})
	}
	if err != nil {
		r.Fatal(err)
	}
}

// calicoctl carries out those commands that change something; what they print is
// not assignment's.
func (r *replay) calicoctl(id string, s step) {
	var args []string
	if err := json.Unmarshal(s.Args, &args); err != nil {
		r.Fatal(err)
	}
	switch cmd := args[0]; {
	case cmd == "apply" && s.Exit == 0:
		r.apply(s.Stdin)
	case cmd == "delete":
		r.delete(args[1], args[2])
	case cmd == "ipam" && args[1] == "configure" && s.Exit == 0:
		r.configure(args[2:])
	case cmd == "ipam" && args[1] == "release" && len(args) > 2:
		addr, err := netip.ParseAddr(strings.TrimPrefix(args[2], "--ip="))
		if err != nil {
			return
		}
		err = r.on("").ReleaseAddr(r.Context(), addr, ipam.Check{})
		if (err == nil) != (s.Exit == 0) {
			r.Errorf("%s: release %v: %v, want exit %d", id, addr, err, s.Exit)
		}
		if err != nil {
			r.golden.add(fmt.Sprintf("%s release %v", r.ID, addr), err)
		}
	}
}

func (r *replay) delete(kind, name string) {
	k, ok := v3.KindByName(kind)
	if !ok {
		r.Fatalf("no kind %q", kind)
	}
	o, err := r.store.Get(r.Context(), model.Key{Kind: model.Kind(k.Name), Name: name})
	if err == nil {
		_, err = r.store.Commit(r.Context(), store.Op{Verb: store.Delete, Object: o})
	}
	if pool, ok := o.Object.(*v3.IPPool); ok && err == nil {
		cidr := netip.MustParsePrefix(pool.Spec.CIDR)
		err = r.on("").GiveUp(r.Context(), func(b model.Block) bool { return cidr.Overlaps(b.CIDR) })
	}
	if err != nil {
		r.Fatal(err)
	}
}

func (r *replay) configure(args []string) {
	config := v3.NewIPAMConfig()
	if o, err := r.store.Get(r.Context(), model.IPAMConfig{}.Key()); err == nil {
		config.Spec = o.Object.(*v3.IPAMConfig).Spec
	}
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.Atoi(value)
		switch name {
		case "--strictaffinity":
			config.Spec.StrictAffinity = value == "true"
		case "--max-blocks-per-host":
			config.Spec.MaxBlocksPerHost = n
		case "--ip-cooldown-seconds":
			config.Spec.IPCooldownSeconds = n
		default:
			r.Fatalf("unknown argument %q", arg)
		}
	}
	r.write(config)
}
