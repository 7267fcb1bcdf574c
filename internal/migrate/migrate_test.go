package migrate_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/migrate"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	kubestore "github.com/weft-net/weft/internal/store/kube"
	"github.com/weft-net/weft/internal/store/kube/kubetest"
	"github.com/weft-net/weft/internal/store/kv"
	"github.com/weft-net/weft/internal/store/mem"
)

// fixture is a store in memory with what Calico's own tools left in an etcd.
func fixture(t testing.TB) mem.Store {
	t.Helper()
	file, err := os.Open("../../test/fixtures/etcd/keys.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := mem.New()
	scan := bufio.NewScanner(file)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var e struct {
			Key   string
			Value json.RawMessage
		}
		if err := json.Unmarshal(scan.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		put(t, s, e.Key, string(e.Value))
	}
	if scan.Err() != nil {
		t.Fatal(scan.Err())
	}
	return s
}

// put writes past the store.
func put(t testing.TB, s mem.Store, key, value string) {
	t.Helper()
	if _, err := s.DB.Txn(t.Context(), []kv.Write{{Key: key, Value: []byte(value)}}); err != nil {
		t.Fatal(err)
	}
}

// contents are all keys and values, without births: those differ in every datastore.
func contents(t testing.TB, s mem.Store) map[string]any {
	t.Helper()
	page, err := s.DB.Range(t.Context(), "/", "0", 100_000, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	for _, e := range page.Entries {
		var v map[string]any
		if err := json.Unmarshal(e.Value, &v); err != nil {
			t.Fatalf("%s: %v", e.Key, err)
		}
		if meta, ok := v["metadata"].(map[string]any); ok {
			delete(meta, "uid")
			delete(meta, "creationTimestamp")
		}
		if spec, ok := v["spec"].(map[string]any); ok && strings.Contains(e.Key, "/nodes/") {
			delete(spec, "addresses") // derived from the others, at every start
		}
		out[e.Key] = v
	}
	return out
}

// read is a Dump of a store.
func read(t testing.TB, from migrate.Datastore) migrate.Dump {
	t.Helper()
	d, err := migrate.Read(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// carried is d after a journey as a file.
func carried(t testing.TB, d migrate.Dump) migrate.Dump {
	t.Helper()
	var file bytes.Buffer
	if err := d.Write(&file); err != nil {
		t.Fatal(err)
	}
	back, err := migrate.Parse(file.Bytes())
	if err != nil {
		t.Fatalf("%v\n%s", err, &file)
	}
	var again bytes.Buffer
	if err := back.Write(&again); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(file.String(), again.String()); d != "" {
		t.Errorf("a file that is read and written is another (-want +got):\n%s", d)
	}
	return back
}

// imported imports d, all of which must land.
func imported(t testing.TB, to migrate.Datastore, d migrate.Dump) migrate.Report {
	t.Helper()
	r, err := migrate.Import(t.Context(), to, d, migrate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Done() {
		t.Errorf("failed %v, different %+v", r.Failed, r.Different)
	}
	return r
}

// unlocked unlocks a store.
func unlocked(t testing.TB, s store.Store) {
	t.Helper()
	if changed, err := migrate.SetReady(t.Context(), s, true); err != nil || !changed {
		t.Fatalf("unlock: %v, %v", changed, err)
	}
}

// TestEtcdToEtcd: every key and value of Calico's dump is in the other etcd.
func TestEtcdToEtcd(t *testing.T) {
	t.Parallel()
	from, to := fixture(t), mem.New()
	d := carried(t, read(t, migrate.Datastore{Store: from}))
	r := imported(t, migrate.Datastore{Store: to}, d)
	if r.Created != len(d.Objects) || len(r.Notes) != 0 {
		t.Errorf("created %d of %d, notes %q", r.Created, len(d.Objects), r.Notes)
	}
	unlocked(t, to)
	if d := cmp.Diff(contents(t, from), contents(t, to)); d != "" {
		t.Errorf("(-from +to):\n%s", d)
	}
	again := imported(t, migrate.Datastore{Store: to}, d)
	if again.Created+again.Updated != 0 || again.Same != len(d.Objects) {
		t.Errorf("doing it again did %+v", again)
	}
}

// own reports whether Kubernetes keeps what is under the key by itself, so that no import
// carries it there.
func own(key string) bool {
	return strings.Contains(key, "/profiles/") || strings.Contains(key, "/workloadendpoints/")
}

// TestRoundTrip carries Calico's dump to Kubernetes and back.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, group := range []string{"projectcalico.org", "crd.projectcalico.org"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			api := kubetest.New(t, kubetest.CalicoResources(group)...)
			s, err := kubestore.Open(t.Context(), api.Config(), kubestore.Options{})
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, s, nodesOf(t, api.Config()))
		})
	}
}

// roundTrip carries the fixture to s, which is Kubernetes, and back. node makes a node there.
func roundTrip(t *testing.T, s store.Store, node func(name string)) {
	t.Helper()
	node("node-a")
	node("node-b")
	from, back := fixture(t), mem.New()
	cluster := migrate.Datastore{Store: s, Kubernetes: true}
	r := imported(t, cluster, carried(t, read(t, migrate.Datastore{Store: from})))
	if len(r.Notes) != 0 || r.Updated != 2 {
		t.Errorf("notes %q, updated %d", r.Notes, r.Updated)
	}
	unlocked(t, s)
	imported(t, migrate.Datastore{Store: back}, carried(t, read(t, cluster)))
	unlocked(t, back)
	want := contents(t, from)
	for key := range want {
		if own(key) {
			delete(want, key)
		}
	}
	if d := cmp.Diff(want, contents(t, back)); d != "" {
		t.Errorf("(-from +back):\n%s", d)
	}
}

// errBreak is a datastore that goes away.
var errBreak = errors.New("the connection broke")

// TestBreak breaks an import at every write, before it and after, and does it again: the result
// is that of an import that met with nothing.
func TestBreak(t *testing.T) {
	t.Parallel()
	d := carried(t, read(t, migrate.Datastore{Store: fixture(t)}))
	whole := mem.New()
	imported(t, migrate.Datastore{Store: whole}, d)
	want := contents(t, whole)
	broken := 0
	for at := 0; ; at++ {
		for _, before := range []bool{true, false} {
			var seen atomic.Int64 // writes come from several goroutines
			s := mem.Piecewise{Store: mem.New()}
			s.Fail = func(_ store.Op, now bool) error {
				if now == before && seen.Add(1) > int64(at) {
					return errBreak
				}
				return nil
			}
			_, err := migrate.Import(t.Context(), migrate.Datastore{Store: s}, d, migrate.Options{})
			switch {
			case err == nil && before && at > len(d.Objects): // and the ClusterInformation
				if broken < len(d.Objects) {
					t.Errorf("%d breaks for %d objects", broken, len(d.Objects))
				}
				return
			case err == nil && before:
				t.Fatalf("no break at write %d of %d", at, len(d.Objects))
			case err != nil && !errors.Is(err, errBreak):
				t.Fatalf("write %d: %v", at, err)
			case err != nil: // else only the answers were lost, which is found out
				broken++
			}
			if locked, err := migrate.IsLocked(t.Context(), s); err != nil || !locked && at > 0 {
				t.Errorf("write %d: after the break the datastore is not locked: %v", at, err)
			}
			noAddressWithoutHandle(t, s.Store)
			s.Fail = nil
			imported(t, migrate.Datastore{Store: s}, d)
			if diff := cmp.Diff(want, contents(t, s.Store)); diff != "" {
				t.Fatalf("write %d, before %v (-want +got):\n%s", at, before, diff)
			}
		}
	}
}

// noAddressWithoutHandle fails when an address is taken in a block and no handle names it.
func noAddressWithoutHandle(t *testing.T, s store.Store) {
	t.Helper()
	handles, err := s.List(t.Context(), model.KindIPAMHandle, "")
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := s.List(t.Context(), model.KindIPAMBlock, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		spec := b.Object.(*v3.IPAMBlock).Spec
		for _, a := range spec.Attributes {
			if !slices.ContainsFunc(handles, func(h store.Object) bool {
				handle := h.Object.(*v3.IPAMHandle).Spec
				return handle.HandleID == *a.HandleID && handle.Block[spec.CIDR] > 0
			}) {
				t.Errorf("block %s names handle %s, which is not there", spec.CIDR, *a.HandleID)
			}
		}
	}
}

// TestCancel: an import that is told to stop does, and says so.
func TestCancel(t *testing.T) {
	t.Parallel()
	d := read(t, migrate.Datastore{Store: fixture(t)})
	ctx, cancel := context.WithCancel(t.Context())
	s := mem.New()
	_, err := migrate.Import(ctx, migrate.Datastore{Store: s}, d, migrate.Options{Progress: func(done, all int) {
		if done > all/2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if r := imported(t, migrate.Datastore{Store: s}, d); r.Same == 0 || r.Created == 0 {
		t.Errorf("going on did %+v", r)
	}
}

// pool is a document of a pool.
func pool(t testing.TB, name, cidr string) store.Object {
	t.Helper()
	o, err := v3.Decode([]byte("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: " + name + "}\nspec: {cidr: " + cidr + "}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return store.New(o)
}

// TestTarget: what may be in a target, and what is done with it.
func TestTarget(t *testing.T) {
	t.Parallel()
	const occupied = "migrate: import: the datastore is not empty: "
	for name, tt := range map[string]struct {
		has       []store.Object
		overwrite bool
		want      string // an error, or "created updated same"
	}{
		"nothing":         {want: "1 0 0"},
		"the same":        {has: []store.Object{pool(t, "a", "10.0.0.0/16")}, want: "0 0 1"},
		"another":         {has: []store.Object{pool(t, "b", "10.0.0.0/16")}, want: occupied + "IPPool/b is not in the file"},
		"a different one": {has: []store.Object{pool(t, "a", "10.1.0.0/16")}, want: occupied + "IPPool/a is another one"},
		"both":            {has: []store.Object{pool(t, "a", "10.1.0.0/16"), pool(t, "b", "10.2.0.0/16")}, want: occupied + "IPPool/a is another one; IPPool/b is not in the file"},
		"overwritten":     {has: []store.Object{pool(t, "a", "10.1.0.0/16"), pool(t, "b", "10.2.0.0/16")}, overwrite: true, want: "0 1 0"},
		"what all have":   {has: []store.Object{store.New(v3.BuiltinTiers()[0])}, want: "1 0 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mem.New()
			for _, o := range tt.has {
				if _, err := s.Commit(t.Context(), store.Op{Verb: store.Create, Object: o}); err != nil {
					t.Fatal(err)
				}
			}
			before := contents(t, s)
			r, err := migrate.Import(t.Context(), migrate.Datastore{Store: s}, migrate.Dump{Objects: []store.Object{pool(t, "a", "10.0.0.0/16")}}, migrate.Options{Overwrite: tt.overwrite})
			got := fmt.Sprint(r.Created, r.Updated, r.Same)
			if err != nil {
				if got = err.Error(); !errors.Is(err, migrate.ErrOccupied) || cmp.Diff(before, contents(t, s)) != "" {
					t.Errorf("%v, and the target has changed", err)
				}
			} else if locked, err := migrate.IsLocked(t.Context(), s); !locked || err != nil || !r.Done() {
				t.Errorf("locked %v, %v, %+v", locked, err, r)
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestUnknown: fields of a newer version are not lost in silence.
func TestUnknown(t *testing.T) {
	t.Parallel()
	from := mem.New()
	put(t, from, "/calico/resources/v3/projectcalico.org/ippools/a",
		`{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/16","shade":"blue"}}`)
	put(t, from, "/calico/ipam/v2/handle/h", `{"block":{},"deleted":false,"shade":"red"}`)
	d := carried(t, read(t, migrate.Datastore{Store: from}))
	_, err := migrate.Import(t.Context(), migrate.Datastore{Store: mem.New()}, d, migrate.Options{})
	const want = "migrate: import: fields would be lost: IPPool/a: spec.shade: not known to this version\nIPAMHandle/h: shade: not known to this version"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	r, err := migrate.Import(t.Context(), migrate.Datastore{Store: mem.New()}, d, migrate.Options{DropUnknown: true})
	if err != nil || len(r.Notes) != 2 || !r.Done() {
		t.Errorf("%v, %+v", err, r)
	}
}

// TestUnreadable: what can't be read is named, and nothing is exported without it.
func TestUnreadable(t *testing.T) {
	t.Parallel()
	s := fixture(t)
	put(t, s, "/calico/resources/v3/projectcalico.org/ippools/a", `{`)
	_, err := migrate.Read(t.Context(), migrate.Datastore{Store: s})
	if !errors.Is(err, store.ErrUnreadable) || !strings.Contains(err.Error(), "IPPool/a") {
		t.Errorf("got %v", err)
	}
}

// refusing is a store that refuses pools, and changes what it is given of tiers.
type refusing struct{ store.Store }

func (r refusing) Commit(ctx context.Context, ops ...store.Op) ([]store.Object, error) {
	for i, op := range ops {
		switch o := op.Object.Object.(type) {
		case *v3.IPPool:
			return nil, &store.Error{Key: model.Key{Kind: model.KindIPPool, Name: o.Name}, Err: store.ErrRefused}
		case *v3.GlobalNetworkSet:
			c := *o
			c.Spec.Nets = []string{"192.0.2.0/24"}
			ops[i].Object = store.New(&c)
		}
	}
	return r.Store.Commit(ctx, ops...)
}

// TestReport: what does not land, or lands as something else, is told object by object.
func TestReport(t *testing.T) {
	t.Parallel()
	d := read(t, migrate.Datastore{Store: fixture(t)})
	r, err := migrate.Import(t.Context(), migrate.Datastore{Store: refusing{mem.New()}}, d, migrate.Options{})
	if err != nil || r.Done() || len(r.Failed) != 2 || len(r.Different) != 3 {
		t.Fatalf("%v, %+v", err, r)
	}
	want := []migrate.Mismatch{
		{Key: model.Key{Kind: model.KindIPPool, Name: "default-ipv4-ippool"}},
		{Key: model.Key{Kind: model.KindIPPool, Name: "v6"}},
		{Key: model.Key{Kind: model.KindGlobalNetworkSet, Name: "threats"}, Fields: []migrate.Difference{{Path: "spec.nets[0]", Want: `"203.0.113.0/24"`, Got: `"192.0.2.0/24"`}}},
	}
	if diff := cmp.Diff(want, r.Different); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestEveryKind: no kind of the datastore is forgotten.
func TestEveryKind(t *testing.T) {
	t.Parallel()
	carried := migrate.Kinds()
	for _, k := range v3.Kinds() {
		kind := model.Kind(k.Name)
		if own := strings.HasPrefix(k.Name, "Kubernetes") || kind == model.KindClusterInformation; own == slices.Contains(carried, kind) {
			t.Errorf("%s is carried: %v", k.Name, !own)
		}
	}
}

// TestParse: files of Calico's tool, and files that are none.
func TestParse(t *testing.T) {
	t.Parallel()
	const cluster, none = "{}\n===\n", "===\n{}\n===\n{}\n"
	for name, tt := range map[string]struct{ file, want string }{
		"nothing": {none, ""},
		"lists as Calico writes them": {
			"apiVersion: projectcalico.org/v3\nitems:\n- spec: {order: 5}\n  metadata: {name: a, creationTimestamp: null}\n- apiVersion: projectcalico.org/v3\n  kind: Tier\n  metadata: {name: b}\n  spec: {}\nkind: TierList\nmetadata: {resourceVersion: \"7\"}\n---\napiVersion: projectcalico.org/v3\nitems: []\nkind: IPPoolList\n---\n" + none,
			"Tier/a Tier/b",
		},
		"marks in text": {"kind: Tier\napiVersion: projectcalico.org/v3\nmetadata:\n  name: a\n  annotations:\n    a: |\n      ===\n      ---\n      b===\n" + none, "Tier/a"},
		"addresses":     {"===\n" + cluster + `{"blocks":[],"handles":[{"Key":"/calico/ipam/v2/handle/h","Value":{"block":{}},"TTL":0}],"config":{"Key":"/calico/ipam/v2/config","Value":{"strict_affinity":true},"TTL":0}}`, "IPAMConfig/default IPAMHandle/h"},
		"cut off":       {"===\n{}\n", "error: is no file of an export: must be three parts with lines of === between them, has 2: was it cut off?"},
		"empty":         {"", "error: is no file of an export: must be three parts with lines of === between them, has 1: was it cut off?"},
		"all that is wrong": {
			"kind: Frob\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\n---\na: b: c\n---\n7\n===\n[]\n===\n{\"handles\":[{\"Key\":\"x\"}]}\n",
			"error: document 1: Frob",
		},
		"no name": {"kind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {}\n" + none, "error: document 1: Tier: metadata.name is missing"},
		"twice":   {"kind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\n---\nkind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\n" + none, "error: Tier/a is in the file twice"},
		"foreign": {"kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: a, namespace: b}\n" + none, "error: kind KubernetesNetworkPolicy does not belong into an export"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := migrate.Parse([]byte(tt.file))
			var got []string
			for _, o := range d.Objects {
				got = append(got, v3.Describe(o.Object))
			}
			text := strings.Join(got, " ")
			if err != nil {
				text = "error: " + err.Error()
			}
			want := tt.want
			if name == "all that is wrong" {
				if n := strings.Count(text, "\n"); n != 4 || !strings.HasPrefix(text, "error: document 1: ") {
					t.Errorf("%d more lines: %s", n, text)
				}
				return
			}
			if err == nil {
				want = strings.ToLower(strings.ReplaceAll(want, "/", " "))
				text = strings.ToLower(text)
			}
			if text != want {
				t.Errorf("got  %s\nwant %s", text, want)
			}
		})
	}
}

// FuzzParse: no bytes make Parse panic, and what it takes it also writes and takes again.
func FuzzParse(f *testing.F) {
	var file bytes.Buffer
	d, err := migrate.Read(f.Context(), migrate.Datastore{Store: fixture(f)})
	if err == nil {
		err = d.Write(&file)
	}
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte("kind: Tier\n===\n{}\n===\n{}\n"))
	f.Add([]byte("kind: TierList\nitems: [{}]\n===\n{}\n===\n{\"other_resources\":[{}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := migrate.Parse(data)
		if err != nil {
			return
		}
		var file bytes.Buffer
		if err := d.Write(&file); err != nil {
			t.Fatal(err)
		}
		if _, err := migrate.Parse(file.Bytes()); err != nil {
			t.Errorf("%v\n%s", err, &file)
		}
	})
}

// BenchmarkImport carries 10,000 pools, written, read back and compared.
func BenchmarkImport(b *testing.B) {
	var d migrate.Dump
	for i := range 10_000 {
		d.Objects = append(d.Objects, pool(b, fmt.Sprint("p", i), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256)))
	}
	for b.Loop() {
		if r, err := migrate.Import(b.Context(), migrate.Datastore{Store: mem.New()}, d, migrate.Options{}); err != nil || !r.Done() {
			b.Fatal(err, r.Different)
		}
	}
}
