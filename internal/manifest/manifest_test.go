package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
)

const (
	head = "apiVersion: projectcalico.org/v3\nkind: "
	pool = head + "IPPool\nmetadata:\n  name: p\nspec:\n"
	tier = head + "Tier\nmetadata: {name: "
)

// list prints what was read: line:column kind of each object, then the problems without the
// name of the file.
func list(docs []Document, wrong Problems) string {
	var out []string
	for _, d := range docs {
		out = append(out, fmt.Sprintf("%d:%d %s", d.Line, d.Column, v3.Describe(d.Object)))
	}
	for _, p := range wrong {
		out = append(out, strings.TrimPrefix(p.Error(), "f:"))
	}
	return strings.Join(out, "\n")
}

func TestPositions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"one":            {pool + "  cidr: 10.0.0.0/16\n", "1:1 ippool p"},
		"behind comment": {"# a\n\n  # b\n---\n" + tier + "a}\n---\n# c\n" + tier + "b}\n", "5:1 tier a\n10:1 tier b"},
		"on the mark":    {"--- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}, x: 1}", "1:73: tier a: x: unknown field"},
		"windows":        {strings.ReplaceAll("---\n"+tier+"a}\n---\n"+tier+"b}\n", "\n", "\r\n"), "2:1 tier a\n6:1 tier b"},
		"ends by dots":   {tier + "a}\n...\n" + tier + "b}\n", "1:1 tier a\n5:1 tier b"},
		"byte order":     {"\ufeff" + tier + "a}\n", "1:1 tier a"},
		"semantic value": {
			pool + "  # the network\n  cidr: 10.0.0.0/40\n  blockSize: 99\n",
			"1:1 ippool p\n7:9: ippool p: spec.cidr: \"10.0.0.0/40\": must be a prefix such as \"10.0.0.0/8\" or \"fd00::/8\"",
		},
		"unknown fields": {
			pool + "  cidr: 10.0.0.0/16\n  blokSize: 26\nmetadatas: {}\n",
			"7:3: ippool p: spec.blokSize: unknown field: is blockSize meant?\n8:1: ippool p: metadatas: unknown field: is metadata meant?",
		},
		"third behind a bad second": {
			tier + "a}\n---\n\nkind: [\n---\n" + tier + "c}\nspec: {ordr: 1}\n",
			"1:1 tier a\n7:1: not valid YAML: did not find expected node content while parsing a flow node\n11:8: tier c: spec.ordr: unknown field: is order meant?",
		},
		"syntax":          {pool + "  cidr: a: b\n", "6:10: not valid YAML: mapping values are not allowed in this context"},
		"syntax, context": {tier + "a}\nspec: {a: 1\n  b: 2}\n", "5:4: not valid YAML: did not find expected ',' or '}' while parsing a flow mapping that begins at line 4, column 7"},
		"twice": {
			pool + "  cidr: 10.0.0.0/16\n  x: 1\n  cidr: 10.0.0.0/17\nkind: IPPool\n",
			"7:3: ippool p: spec.x: unknown field\n8:3: spec.cidr: given twice: stands on line 6 already\n9:1: kind: given twice: stands on line 2 already",
		},
		"twice in JSON": {"{\n \"kind\": \"a\",\n \"kind\": \"b\"}", "3:2: kind: given twice: stands on line 2 already\n3:10: kind: \"b\" is unknown: must be one of"},
		"kind near":     {"\n" + head + "IPPol\n", "3:7: kind: \"IPPol\" is unknown: is IPPool meant?"},
		"version":       {"apiVersion: crd.projectcalico.org/v1\nkind: IPPool\n", "1:13: IPPool: apiVersion: \"crd.projectcalico.org/v1\": must be projectcalico.org/v3"},
		"no kind":       {"\n a: 1\n", "2:2: kind: missing: must be a kind such as IPPool"},
		"text":          {"hello", "1:1: the document is text: must have apiVersion, kind, metadata and spec"},
		"sequence":      {"# x\n- " + strings.ReplaceAll(tier, "\n", "\n  ") + "a}\n-  " + strings.ReplaceAll(tier, "\n", "\n   ") + "b, c: d}\n- 7\n", "2:3 tier a\n7:24: tier b: metadata.c: unknown field\n8:3: the document is a number: must have apiVersion, kind, metadata and spec"},
		"List of kubectl": {
			"apiVersion: v1\nkind: List\nmetadata: {}\nitems:\n- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}\n- {kind: Pod}\n",
			"5:3 tier a\n6:10: kind: \"Pod\" is unknown: must be one of",
		},
		"list of a kind": {head + "TierList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n  spec: {order: x}\n", "4:3 tier a\n6:17: tier b: spec.order: \"x\": must be a number"},
		"JSON list": {
			"{\"apiVersion\": \"projectcalico.org/v3\", \"items\": [ {\"metadata\": {\"name\": \"a\"}},\n  {\"metadata\": {\"name\": \"b\"},\n   \"spec\": {\"order\": true}}],\n \"kind\": \"TierList\"}",
			"1:51 tier a\n3:22: tier b: spec.order: true: must be a number",
		},
		"JSON array": {"[{\"apiVersion\":\"projectcalico.org/v3\",\"kind\":\"Tier\",\"metadata\":{\"name\":\"a\"}},\n {\"kind\": 1}]", "1:2 tier a\n2:11: kind: missing: must be a kind such as IPPool"},
		"namespace":  {head + "NetworkSet\nmetadata: {name: s}\n---\n" + head + "NetworkSet\nmetadata: {name: s, namespace: x}\n", "1:1 networkset prod/s\n5:1 networkset x/s"},
		"dotted label": {
			head + "Tier\nmetadata:\n  name: t\n  labels:\n    a.b/c: ok\n    a: {}\n    a.b: []\n",
			"7:8: tier t: metadata.labels.a: an object: must be text\n8:10: tier t: metadata.labels.a.b: a list: must be text",
		},
		"alias": {pool + "  cidr: &c 10.0.0.0/16\n  nodeSelector: *c\n  blockSize: *c\n", "8:14: ippool p: spec.blockSize: \"10.0.0.0/16\": must be an integer of 64 bits"},
		"not an object": {
			head + "GlobalNetworkPolicy\nmetadata: {name: p}\nspec:\n  ingress:\n  - action: Allow\n    source:\n      nets: 10.0.0.0/8\n  egress: {a: 1}\n",
			"8:13: globalnetworkpolicy p: spec.ingress[0].source.nets: \"10.0.0.0/8\": must be a list\n9:11: globalnetworkpolicy p: spec.egress: an object: must be a list",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			docs, wrong := ReadBytes(Options{Namespace: "prod"}, "f", []byte(tt.in))
			got := list(docs, Join(wrong, Validate(docs)))
			if want := strings.TrimSpace(tt.want); got != want && !(strings.HasSuffix(want, "must be one of") && strings.HasPrefix(got, want)) {
				t.Errorf("%s\n got:\n%s\nwant:\n%s", tt.in, got, want)
			}
		})
	}
}

func TestReadFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.json": `{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"b"}}`, "a.yaml": tier + "a}\n", "c.txt": "junk",
		"sub/e.YML": tier + "e}\n", "empty/x.yaml": "# none\n", "bad/1.yaml": "a: [", "bad/2.yaml": "x", "bad/3.yaml": tier + "f}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		options    Options
		path, want string
		is         error
	}{
		"directory":       {path: ".", want: "tier a, tier b"},
		"recursive":       {path: ".", options: Options{Recursive: true}, want: "tier a, tier b, tier f, tier e", is: ErrSyntax},
		"a file":          {path: "a.yaml", want: "tier a"},
		"any extension":   {path: "c.txt", is: ErrNoObject},
		"empty directory": {path: "empty", is: ErrEmpty},
		"empty, skipped":  {path: "empty", options: Options{SkipEmpty: true}},
		"missing":         {path: "nosuch.yaml", is: fs.ErrNotExist},
		"one is good":     {path: "bad", want: "tier f", is: ErrNoObject},
		"standard input":  {path: "-", options: Options{Stdin: strings.NewReader(tier + "in}")}, want: "tier in"},
		"no input":        {path: "-", is: ErrEmpty},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := tt.path
			if path != "-" {
				path = filepath.Join(dir, path)
			}
			docs, err := Read(tt.options, path)
			var names []string
			for _, d := range docs {
				names = append(names, v3.Describe(d.Object))
			}
			if got := strings.Join(names, ", "); got != tt.want {
				t.Errorf("read %s, want %s", got, tt.want)
			}
			if !errors.Is(err, tt.is) || tt.is == nil && err != nil {
				t.Errorf("error %v, want %v", err, tt.is)
			}
		})
	}
}
