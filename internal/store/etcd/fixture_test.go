package etcd_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const fixtures = "../../../test/fixtures/"

// lines reads a file of one JSON value a line.
func lines[T any](t *testing.T, name string) []T {
	t.Helper()
	data, err := os.ReadFile(fixtures + name)
	if err != nil {
		t.Fatal(err)
	}
	var out []T
	scan := bufio.NewScanner(bytes.NewReader(data))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var v T
		if err := json.Unmarshal(scan.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, v)
	}
	if len(out) == 0 {
		t.Fatalf("%s is empty", name)
	}
	return out
}

// ours are the kinds that weft reads; every one must occur in the dump.
func ours() []model.Kind {
	return []model.Kind{
		model.KindBGPConfiguration, model.KindBGPPeer, model.KindBlockAffinity, model.KindClusterInformation,
		model.KindFelixConfiguration, model.KindIPAMBlock, model.KindIPAMConfig, model.KindIPAMHandle,
		model.KindIPPool, model.KindIPReservation, model.KindNode, model.KindProfile, model.KindTier,
		model.KindWorkloadEndpoint, model.KindBGPFilter, model.KindCalicoNodeStatus, model.KindKubeControllersConfiguration,
	}
}

// TestDumpOfCalico loads what Calico's own tools left in an etcd and takes it over.
func TestDumpOfCalico(t *testing.T) {
	t.Parallel()
	url, stop := serve(t, t.TempDir())
	t.Cleanup(stop)
	raw, s := client(t, url), open(t, url)
	dump := map[string]string{}
	for _, e := range lines[struct {
		Key   string
		Value json.RawMessage
	}](t, "etcd/keys.jsonl") {
		dump[e.Key] = string(e.Value)
		if _, err := raw.Put(t.Context(), e.Key, string(e.Value)); err != nil {
			t.Fatal(err)
		}
	}
	stored := func() map[string]string {
		got, err := raw.Get(t.Context(), "/", clientv3.WithFromKey())
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for _, e := range got.Kvs {
			m[string(e.Key)] = string(e.Value)
		}
		return m
	}

	var all []store.Object
	for _, kind := range ours() {
		objects, err := s.List(t.Context(), kind, "")
		if err != nil || len(objects) == 0 {
			t.Errorf("list %s: %d objects, %v; want some, all readable", kind, len(objects), err)
		}
		all = append(all, objects...)
	}
	// Written back as they are: nothing changes, byte for byte.
	for i, o := range all {
		done, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: o})
		if err != nil {
			t.Fatal(err)
		}
		all[i] = done[0]
	}
	compare(t, "written back", stored(), dump)

	// Deleted and made again from the object alone: the form is Calico's own.
	for _, o := range all {
		_, err := s.Commit(t.Context(), store.Op{Verb: store.Delete, Object: o})
		if err == nil {
			_, err = s.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(o.Object)})
		}
		if err != nil {
			t.Error(err)
		}
	}
	compare(t, "made again", withoutBirth(stored()), withoutBirth(dump))

	for b, err := range s.Watch(t.Context()) {
		if err != nil || len(b.Invalids) > 0 {
			t.Errorf("watch: %v, invalid: %v", err, b.Invalids)
		}
		if b.Synced {
			break
		}
	}
}

func compare(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for key := range want {
		if got[key] != want[key] {
			t.Errorf("%s: %s\n got %s\nwant %s", what, key, got[key], want[key])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d keys, want %d", what, len(got), len(want))
	}
}

// withoutBirth replaces what differs from run to run.
func withoutBirth(in map[string]string) map[string]string {
	birth := regexp.MustCompile(`"uid":"[^"]*","creationTimestamp":"[^"]*"`)
	out := map[string]string{}
	for k, v := range in {
		out[k] = birth.ReplaceAllString(v, `"uid":"<uid>","creationTimestamp":"<time>"`)
	}
	return out
}

// TestStoredByCalico applies documents as a user does and compares the bytes with
// those that calicoctl wrote for them.
func TestStoredByCalico(t *testing.T) {
	t.Parallel()
	url, stop := serve(t, t.TempDir())
	t.Cleanup(stop)
	raw, s := client(t, url), open(t, url)
	type write struct {
		Key  string
		Text string `json:"value_text"`
	}
	check := func(id string, w write) {
		t.Helper()
		got, err := raw.Get(t.Context(), w.Key)
		if err != nil || len(got.Kvs) != 1 {
			t.Errorf("%s: %s: %v, %v", id, w.Key, got, err)
			return
		}
		text := withoutBirth(map[string]string{"": string(got.Kvs[0].Value)})[""]
		guid := regexp.MustCompile(`"clusterGUID":"[0-9a-f]{32}"`)
		if text = guid.ReplaceAllString(text, `"clusterGUID":"<guid>"`); text != w.Text {
			t.Errorf("%s: %s\n got %s\nwant %s", id, w.Key, text, w.Text)
		}
	}
	if err := store.Initialise(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	for _, w := range lines[write](t, "stored/initial.jsonl") {
		check("initial", w)
	}
	tried := 0
	for _, c := range lines[struct {
		ID, Input string
		Before    []string
		Written   []write
	}](t, "stored/cases.jsonl") {
		if _, err := v3.DecodeAll([]byte(c.Input)); err != nil || c.Input == "" || len(c.Written) == 0 {
			continue // a kind that weft does not know yet, a command, or a refusal
		}
		tried++
		for _, doc := range append(c.Before, c.Input) {
			apply(t, s, doc)
		}
		for _, w := range c.Written {
			check(c.ID, w)
		}
	}
	if tried < 38 {
		t.Errorf("only %d cases were tried", tried)
	}
}

// apply writes a document as the command line does: new or in place of the old.
func apply(t *testing.T, s store.Store, doc string) {
	t.Helper()
	objects, err := v3.DecodeAll([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		v3.ClearSystemFields(o)
		v3.Default(o)
		_, err := s.Commit(t.Context(), store.Op{Verb: store.Update, Object: store.New(o)})
		if err != nil {
			_, err = s.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(o)})
		}
		if err != nil {
			t.Error(err)
		}
	}
}
