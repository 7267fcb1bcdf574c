package v3

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type storedCase struct {
	ID, About, Input string
	Written          []struct {
		Key       string
		ValueText string `json:"value_text"`
	}
}

// put encodes o as a datastore would, with the marks of the fixtures.
func put(t *testing.T, o Object) string {
	t.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o.Meta().UID, o.Meta().CreationTimestamp = "UID", metav1.NewTime(at)
	text, err := Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`"UID"`, `"<uid>"`, at.Format(time.RFC3339), "<time>").Replace(string(text))
}

// The very bytes that Calico's own tool writes for the same documents.
func TestStoredBytes(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, c := range readLines[storedCase](t, "stored/cases.jsonl") {
		for doc := range strings.SplitSeq(c.Input, "---\n") {
			o, err := Decode([]byte(doc))
			if err != nil {
				continue // kinds that are not in this package yet
			}
			ClearSystemFields(o)
			Default(o)
			if err := Validate(o); err != nil {
				t.Errorf("%s (%s): %v", c.ID, c.About, err)
			}
			if len(c.Written) == 0 {
				continue
			}
			ran++
			text := put(t, o)
			if !slices.ContainsFunc(c.Written, func(w struct {
				Key       string
				ValueText string `json:"value_text"`
			},
			) bool {
				return w.ValueText == text
			}) {
				t.Errorf("%s (%s):\n got %s\nwant %s", c.ID, c.About, text, c.Written[0].ValueText)
			}
		}
	}
	if ran < 39 {
		t.Errorf("%d cases ran, want all of our kinds", ran)
	}
}

// What Calico stored reads back, and writes again, byte for byte.
func TestStoredRoundTrip(t *testing.T) {
	t.Parallel()
	ran := 0
	for _, kv := range readLines[struct {
		Key   string
		Value json.RawMessage
	}](t, "etcd/keys.jsonl") {
		o, err := DecodeStored(kv.Value)
		if err != nil {
			continue // other kinds, and the keys of address assignment
		}
		ran++
		text, err := Encode(o)
		var want bytes.Buffer
		json.HTMLEscape(&want, kv.Value) // the file has & for what is \u0026 in the datastore
		if err != nil || string(text) != want.String() {
			t.Errorf("%s: error %v (-want +got):\n%s", kv.Key, err, cmp.Diff(want.String(), string(text)))
		}
		if err := Validate(o); err != nil {
			t.Errorf("%s: %v", kv.Key, err)
		}
		Default(o)
		if again, _ := Encode(o); string(again) != string(text) {
			t.Errorf("%s: defaults change what is stored (-want +got):\n%s", kv.Key, cmp.Diff(string(text), string(again)))
		}
	}
	if ran < 27 {
		t.Errorf("%d values ran, want all of our kinds", ran)
	}
}

// A new datastore's tiers.
func TestBuiltinTiers(t *testing.T) {
	t.Parallel()
	var want, got []string
	for _, kv := range readLines[struct {
		Key       string
		ValueText string `json:"value_text"`
	}](t, "stored/initial.jsonl") {
		if strings.Contains(kv.Key, "/tiers/") {
			want = append(want, kv.ValueText)
		}
	}
	for _, tier := range BuiltinTiers() {
		got = append(got, put(t, tier))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// The annotation of stored policies is not seen by users, whatever they gave.
func TestStoredAnnotation(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		o    Object
		want string // annotations of the stored form
	}{
		"none given":     {&NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, `{"projectcalico.org/metadata":"{\"name\":\"a\"}"}`},
		"others given":   {&StagedGlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": "y"}}}, `{"projectcalico.org/metadata":"{\"name\":\"a\"}","x":"y"}`},
		"a wrong one":    {&GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{metadataAnnotation: "b"}}}, `{"projectcalico.org/metadata":"{\"name\":\"a\"}"}`},
		"not for a set":  {&NetworkSet{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": "y"}}}, `{"x":"y"}`},
		"not for k8s's":  {&KubernetesNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": "y"}}}, `{"x":"y"}`},
		"not for staged": {&StagedKubernetesNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{"x": "y"}}}, `{"x":"y"}`},
	} {
		given := len(tt.o.Meta().Annotations)
		text, err := Encode(tt.o)
		if err != nil || !strings.Contains(string(text), `"annotations":`+tt.want) {
			t.Errorf("%s: stored as %s, %v; want annotations %s", name, text, err, tt.want)
		}
		if len(tt.o.Meta().Annotations) != given {
			t.Errorf("%s: encoding changed the object: %v", name, tt.o.Meta().Annotations)
		}
		back, err := DecodeStored(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, still := back.Meta().Annotations[metadataAnnotation]; still {
			t.Errorf("%s: reads back with %v", name, back.Meta().Annotations)
		}
	}
}

func TestMergeKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	// Each value is the spec; the change is made to what was read from stored.
	for name, tt := range map[string]struct {
		stored, want string
		change       func(*Node)
	}{
		"nothing unknown": {
			`{"bgp":{"ipv4Address":"10.0.0.1/24"}}`, `{"bgp":{"asNumber":1,"ipv4Address":"10.0.0.1/24"}}`,
			func(n *Node) { n.Spec.BGP.ASNumber = new(ASNumber(1)) },
		},
		"in objects, bytes kept": {
			`{"new":{"b":1.50,"a":"<"},"bgp":{"mode":[1, 2],"ipv4Address":"10.0.0.1/24"}}`,
			`{"bgp":{"ipv4Address":"10.0.0.2/24","mode":[1,2]},"new":{"b":1.50,"a":"<"}}`,
			func(n *Node) { n.Spec.BGP.IPv4Address = "10.0.0.2/24" },
		},
		"unchanged": {
			`{"bgp":{"mode":1}}`, `{"bgp":{"mode":1}}`,
			func(*Node) {},
		},
		"gone with its object": {
			`{"bgp":{"mode":1,"ipv4Address":"10.0.0.1/24"},"x":1}`, `{"x":1}`,
			func(n *Node) { n.Spec.BGP = nil },
		},
		"list element by content": {
			`{"addresses":[{"address":"a","x":1},{"address":"b","x":2}]}`, `{"addresses":[{"address":"b","x":2}]}`,
			func(n *Node) { n.Spec.Addresses = n.Spec.Addresses[1:] },
		},
		"list element by place": {
			`{"addresses":[{"address":"a","x":1},{"address":"b","x":2}]}`, `{"addresses":[{"address":"a","x":1},{"address":"c","x":2}]}`,
			func(n *Node) { n.Spec.Addresses[1].Address = "c" },
		},
		"new list element": {
			`{"addresses":[{"address":"a","x":1}]}`, `{"addresses":[{"address":"a","x":1},{"address":"z"}]}`,
			func(n *Node) { n.Spec.Addresses = append(n.Spec.Addresses, NodeAddress{Address: "z"}) },
		},
	} {
		const head, tail = `{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n","labels":{"a":"b"},"y":true},"spec":`, `,"status":{},"later":null}`
		o, err := DecodeStored([]byte(head + tt.stored + tail))
		if err != nil {
			t.Fatal(err)
		}
		tt.change(o.(*Node))
		got, err := Merge([]byte(head+tt.stored+tail), o)
		if err != nil || string(got) != head+tt.want+tail {
			t.Errorf("%s: error %v (-want +got):\n%s", name, err, cmp.Diff(head+tt.want+tail, string(got)))
		}
	}
}

func TestMergeKeepsUnknownInOmittedStruct(t *testing.T) {
	t.Parallel()
	const stored = `{"kind":"Profile","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":{"ingress":[{"action":"Allow","source":{"zone":"z"}}]}}`
	o, err := DecodeStored([]byte(stored))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Merge([]byte(stored), o); err != nil || string(got) != stored {
		t.Errorf("error %v (-want +got):\n%s", err, cmp.Diff(stored, string(got)))
	}
}

// Whatever is stored: merging what was read changes nothing that a second merge
// would change again, and no known field.
func FuzzMerge(f *testing.F) {
	for _, kv := range readLines[struct{ Value json.RawMessage }](f, "etcd/keys.jsonl") {
		f.Add([]byte(kv.Value))
	}
	f.Add([]byte(`{"kind":"Node","apiVersion":"projectcalico.org/v3","spec":{"addresses":[null,{"x":1}],"bgp":null},"Spec":{}}`))
	f.Fuzz(func(t *testing.T, stored []byte) {
		o, err := DecodeStored(stored)
		if err != nil {
			return
		}
		once, err := Merge(stored, o)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Merge(once, o)
		if err != nil || string(again) != string(once) {
			t.Fatalf("%s: merged %s, merged again %s, %v", stored, once, again, err)
		}
	})
}

// The number of settings that facts about Calico v3.33 give, beside those of our own.
// A field that is lost here would be refused in manifests.
func TestFelixConfigurationIsWhole(t *testing.T) {
	t.Parallel()
	ours := []string{"deniedConnections", "logDefaultDeny", "wireguardCleartext"}
	fields := jsonFields(reflect.TypeFor[FelixConfigurationSpec]())
	calicos := slices.DeleteFunc(slices.Clone(fields), func(f jsonField) bool { return slices.Contains(ours, f.name) })
	if len(calicos) != 187 || len(fields) != 187+len(ours) {
		t.Errorf("%d fields of Calico, %d in all; want 187 and ours %v", len(calicos), len(fields), ours)
	}
}

func BenchmarkDecodeStoredEndpoint(b *testing.B) {
	const stored = `{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"node--a-k8s-frontend--1-eth0","namespace":"shop","labels":{"app":"frontend","projectcalico.org/namespace":"shop","projectcalico.org/orchestrator":"k8s"}},"spec":{"orchestrator":"k8s","node":"node-a","containerID":"c0ffee","pod":"frontend-1","endpoint":"eth0","ipNetworks":["192.168.97.2/32"],"profiles":["kns.shop"],"interfaceName":"calic285cddbb40","mac":"ee:ee:ee:ee:ee:ee"}}`
	b.ReportAllocs()
	for b.Loop() {
		o, err := DecodeStored([]byte(stored))
		if err != nil {
			b.Fatal(err)
		}
		Default(o)
		if err := Validate(o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeStoredPolicy(b *testing.B) {
	const stored = `{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"frontend","namespace":"shop","uid":"8d649f94-5578-4298-a34a-5be7f119f3f7","creationTimestamp":"2026-11-20T06:08:51Z","labels":{"projectcalico.org/tier":"default"},"annotations":{"projectcalico.org/metadata":"{\"name\":\"frontend\"}"}},"spec":{"tier":"default","order":500,"ingress":[{"action":"Allow","protocol":"TCP","source":{"selector":"app != 'db'","namespaceSelector":"team == 'web'"},"destination":{"ports":["http",443]}},{"action":"Allow","protocol":"ICMP","icmp":{"type":8,"code":0}}],"egress":[{"action":"Allow","protocol":"TCP","destination":{"selector":"app == 'api'","ports":[8443]}}],"selector":"app == 'frontend'","types":["Ingress","Egress"]}}`
	b.ReportAllocs()
	for b.Loop() {
		o, err := DecodeStored([]byte(stored))
		if err != nil {
			b.Fatal(err)
		}
		Default(o)
		if err := Validate(o); err != nil {
			b.Fatal(err)
		}
	}
}
