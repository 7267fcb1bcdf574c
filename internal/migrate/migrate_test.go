package migrate_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/migrate"
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
