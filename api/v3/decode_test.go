package v3

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeAll(t *testing.T) {
	t.Parallel()
	const (
		head  = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: "
		a, b  = head + "a}\n", head + "b}\n"
		jsonA = `{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"a"}}`
	)
	for name, tt := range map[string]struct{ in, want string }{
		"one":                    {a, "a"},
		"mark first":             {"---\n" + a, "a"},
		"two":                    {a + "---\n" + b, "a b"},
		"empty one between":      {a + "---\n\n---\n# nothing\n---\n" + b + "---\n", "a b"},
		"comments first":         {"# hello\n\n---\n" + a, "a"},
		"text on the mark":       {"--- " + jsonA + "\n---\t# b\n" + b, "a b"},
		"dashes that are text":   {a + "spec: {}\n# ---\n", "a"},
		"windows line ends":      {strings.ReplaceAll(a+"---\n"+b, "\n", "\r\n"), "a b"},
		"JSON":                   {jsonA, "a"},
		"JSON list":              {"[" + jsonA + "," + jsonA + "]", "a a"},
		"empty first":            {"---\n---\n" + a, "error"},
		"nothing":                {"", "error"},
		"only a comment":         {"# nothing\n", "error"},
		"bad one after a good":   {a + "---\nkind: x\n", "error"},
		"list with a bad item":   {"[" + jsonA + ",1]", "error"},
		"tabs for indentation":   {"kind:\n\t- x", "error"},
		"bytes that are no text": {"\xff\xfe", "error"},
	} {
		objects, err := DecodeAll([]byte(tt.in))
		var names []string
		for _, o := range objects {
			names = append(names, o.Meta().Name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error"
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error %q, want one line", name, err)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %s (%v), want %s", name, got, err, tt.want)
		}
	}
}

func TestDecodeIsLenientWhereCalicoIs(t *testing.T) {
	t.Parallel()
	o, err := Decode([]byte(`
apiVersion: projectcalico.org/v3
kind: IPPool
Metadata: {name: 1, labels: {rack: 7, spare: yes, ratio: 0.5}}
SPEC: {Cidr: 10.0.0.0/16, BLOCKSIZE: 28, natoutgoing: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := o.(*IPPool)
	want := IPPoolSpec{CIDR: "10.0.0.0/16", BlockSize: 28, NATOutgoing: true}
	if d := cmp.Diff(want, p.Spec); d != "" {
		t.Errorf("spec (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]string{"rack": "7", "spare": "true", "ratio": "0.5"}, p.Labels); d != "" || p.Name != "1" {
		t.Errorf("name %q, labels (-want +got):\n%s", p.Name, d)
	}
}

func TestDecodeStoredIgnoresUnknownFields(t *testing.T) {
	t.Parallel()
	o, err := DecodeStored([]byte(`{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","z":1},"spec":{"cidr":"10.0.0.0/8","y":{}},"x":[]}`))
	if err != nil || o.(*IPPool).Spec.CIDR != "10.0.0.0/8" {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{``, `[]`, `{}`, `"x"`, `{"kind":"IPPool"}`, `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","spec":1}`} {
		if _, err := DecodeStored([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

// Every kind is in every table.
func TestKindTables(t *testing.T) {
	t.Parallel()
	if len(Kinds()) < 14 {
		t.Fatalf("%d kinds", len(Kinds()))
	}
	for _, k := range Kinds() {
		o, ok := New(k.Name)
		if !ok || KindOf(o).Name != k.Name || *o.Type() != k.TypeMeta() {
			t.Fatalf("%s: New gives %+v, %v", k.Name, o, ok)
		}
		text, err := Encode(o)
		if again, decodeErr := DecodeStored(text); err != nil || decodeErr != nil || KindOf(again).Name != k.Name {
			t.Errorf("%s: stored as %s (%v), which reads as %v (%v)", k.Name, text, err, again, decodeErr)
		}
		for _, name := range append(k.ShortNames, k.Plural, strings.ToUpper(k.Name)) {
			if got, ok := KindByName(name); !ok || got.Name != k.Name {
				t.Errorf("%s: means %s, want %s", name, got.Name, k.Name)
			}
		}
	}
	if _, ok := New("ippool"); ok {
		t.Error("New takes a kind in lower case")
	}
}

func TestValuesRoundTrip(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`as 64512`: `64512`, `as "1.10"`: `65546`, `as "65001"`: `65001`, `as 4294967295`: `4294967295`, `as "65535.65535"`: `4294967295`,
		`as 4294967296`: `error`, `as "1.65536"`: `error`, `as -1`: `error`, `as "x"`: `error`, `as 1.5`: `65541`, `as true`: `error`, `as [1]`: `error`,
		`port 80`: `80`, `port "80"`: `80`, `port "80:80"`: `80`, `port "1:65535"`: `"1:65535"`, `port "http"`: `"http"`, `port 0`: `0`,
		`port 65536`: `error`, `port "2:1"`: `error`, `port ""`: `error`, `port "a b"`: `error`, `port "1:2:3"`: `error`, `port -1`: `error`, `port 1.5`: `error`,
		`protocol "TCP"`: `"TCP"`, `protocol 6`: `6`, `protocol "6"`: `6`, `protocol 256`: `error`, `protocol "256"`: `error`, `protocol -1`: `error`, `protocol {}`: `error`,
		`rate "10/second"`: `10 in 1s`, `rate "1/minute"`: `1 in 1m0s`, `rate "9999/hour"`: `9999 in 1h0m0s`, `rate "5/day"`: `5 in 24h0m0s`,
		`rate "0/day"`: `error`, `rate "10000/day"`: `error`, `rate "01/day"`: `error`, `rate "+1/day"`: `error`, `rate "5/week"`: `error`, `rate "5"`: `error`, `rate ""`: `error`, `rate "/day"`: `error`,
		`dscp 46`: `46`, `dscp "AF11"`: `"AF11"`, `dscp 64`: `error`, `dscp -1`: `error`, `dscp 1.5`: `error`,
	} {
		kind, text, _ := strings.Cut(in, " ")
		if kind == "rate" {
			text, _ := strconv.Unquote(text)
			got := "error"
			if n, per, err := ParseRate(text); err == nil {
				got = fmt.Sprintf("%d in %v", n, per)
			}
			if got != want {
				t.Errorf("%s: %s, want %s", in, got, want)
			}
			continue
		}
		into := map[string]any{"as": new(ASNumber), "port": new(Port), "protocol": new(Protocol), "dscp": new(DSCP)}[kind]
		got := "error"
		if err := json.Unmarshal([]byte(text), into); err == nil {
			out, err := json.Marshal(into)
			if err != nil {
				t.Fatal(err)
			}
			got = string(out)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Hostile bytes never panic. What decodes and is valid is stored in a form that
// reads back the same, and its defaults are complete.
func FuzzDecode(f *testing.F) {
	for _, c := range readLines[validationCase](f, "validation/cases.jsonl") {
		f.Add([]byte(c.Input))
	}
	for _, doc := range []string{kubePolicy, clusterPolicy, endpointSlice} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := DecodeAll(data)
		if err != nil {
			return
		}
		for _, o := range objects {
			Default(o)
			err := Validate(o)
			once, encodeErr := Encode(o)
			if encodeErr != nil {
				if err == nil {
					t.Fatalf("%q is valid but has no stored form: %v", data, encodeErr)
				}
				continue
			}
			again, decodeErr := DecodeStored(once)
			if decodeErr != nil {
				t.Fatalf("%q is stored as %s, which does not read: %v", data, once, decodeErr)
			}
			Default(again)
			if twice, _ := Encode(again); err == nil && string(twice) != string(once) {
				t.Fatalf("%q is stored as %s, then as %s", data, once, twice)
			}
		}
	})
}
