package crd

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
)

// texts are what a field of text may be given: each is right somewhere, and wrong
// elsewhere.
func texts() []string {
	return []string{
		"", "x", "a.b", "a/b", "a b", "-", "1", "é", "node-a", "Node A", "eth0", "eth*", "*", "**", "cali.*", "([", "http", "http-1", "a--b", "none",
		strings.Repeat("a", 16), strings.Repeat("a", 64), strings.Repeat("a.", 130) + "a", strings.Repeat("a", 1025),
		"Enabled", "enabled", "Disabled", "Auto", "Always", "Never", "CrossSubnet", "Manual", "Workload", "LoadBalancer", "Drop", "drop", "Accept", "Reject", "Return",
		"Info", "DEBUG", "Trace", "Allow", "Deny", "Pass", "Log", "Set", "Delete", "Learn", "Ingress", "Egress", "eBGP", "RemotePeers", "In", "NotIn", "Equal", "Exists",
		"Self", "Keep", "UseNodeIP", "NodeIP", "EnabledIPIPOnly", "AllServices", "BGP", "Agent", "default", "TCP", "tcp", "UDP", "ICMP", "ICMPv6", "GRE", "AssumeNeededOnEveryNode",
		"all()", "has(a)", "a == 'b'", "(a == 'b'", "a == 'b')", "!(a in {'b',})", "a = b", "a notin {}", "global()", "global() || all()", "a == 'global('", "has (a)", "a == 'b' &&", " all() ", "a\n== 'b'",
		"10.0.0.0/8", "10.0.0.1/8", "10.0.0.1", "0.0.0.0/0", "10.0.0.0/33", "10.0.0.0/08", "010.0.0.1", "10.0.0", "169.254.0.0/24", "169.0.0.0/8",
		"fd00::/64", "fd00::1/64", "fd00:0:0::/64", "FD00::/64", "fd00::1", "::/0", "fe80::/64", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "::ffff:a00:1", "fd00::g", "fd00::/129", "64:ff9b::10.0.0.0/96",
		"10.0.0.1:179", "10.0.0.1:0", "10.0.0.1:65536", "[fd00::1]:179", "[fd00::1]", "[10.0.0.1]:179", "[fd00::1%eth0]:179",
		"90s", "-1s", "0", "0s", "1h30m", "1.5m", ".5s", "5", "1d", "4096s", "99999999h", "+3s", "10ms",
		"65000:1", "65536:1", "1:2:3", "4294967296:1:1", "1:2:3:4", "00001:2", "10/minute", "0/second", "10000/day", "a=true", "a=true,b=", "a=b", "a=b,", "80", "80:90", "90:80", "0:1", "65536", "1.10", "65536.1", "2147483648", "4294967295",
		"/a", "/a?b", "GET",
	}
}

func numbers() []json.Number {
	return []json.Number{
		"-1", "0", "1", "2", "4", "5", "6", "17", "20", "26", "32", "33", "58", "63", "64", "116", "122", "128", "129", "132", "179", "250", "251", "254", "255", "256", "1000",
		"1200", "1201", "4095", "9999", "10000", "32765", "32766", "65535", "65536", "86400", "86401", "1000000", "1000001", "16777215", "16777216", "2147483646", "2147483647", "2147483648", "4294967295", "4294967296",
	}
}

// leaf is a field that holds one value, by its path.
type leaf struct {
	path   []string
	schema *Schema
}

// leaves are those of a spec.
func leaves(s *Schema, path ...string) []leaf {
	path = slices.Clip(path)
	switch {
	case s.IntOrString || s.Properties == nil && s.Items == nil && s.AdditionalProperties == nil:
		return []leaf{{path, s}}
	case s.Items != nil:
		return leaves(s.Items, append(path, "[]")...)
	case s.AdditionalProperties != nil:
		return leaves(s.AdditionalProperties, append(path, "{}")...)
	}
	var all []leaf
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		all = append(all, leaves(s.Properties[name], append(path, name)...)...)
	}
	return all
}

// values are what a leaf may be given.
func (l leaf) values() []any {
	var all []any
	add := func(ok bool, values []any) {
		if ok {
			all = append(all, values...)
		}
	}
	text, number := []any{}, []any{}
	for _, v := range texts() {
		text = append(text, v)
	}
	for _, v := range numbers() {
		number = append(number, v)
	}
	add(l.schema.Type == "string" && l.schema.Format != "date-time", text)
	add(l.schema.Type == "integer" || l.schema.Type == "number", number)
	add(l.schema.Type == "boolean", []any{true, false})
	add(l.schema.IntOrString, slices.Concat(text, number))
	for _, w := range l.schema.Enum {
		add(true, slices.Repeat([]any{w}, 10)) // likely to be right
	}
	return all
}

// usual is a value of a required field that is right.
func usual(owner []string, name string) any {
	in := ""
	for _, p := range owner {
		if p != "[]" {
			in = p
		}
	}
	switch name {
	case "action":
		if strings.HasPrefix(in, "export") || strings.HasPrefix(in, "import") {
			return "Accept"
		}
		return "Allow"
	case "cidr":
		if strings.HasSuffix(in, "V6") {
			return "fd00::/8"
		}
		return "10.0.0.0/8"
	case "prefix":
		return []any{json.Number("64512")}
	case "value":
		if in == "setPriority" {
			return json.Number("100")
		}
		return "65000:1"
	case "values":
		return []any{"65000:1"}
	case "classes":
		return []any{"BGP"}
	case "updatePeriodSeconds", "min":
		return json.Number("1")
	case "max":
		return json.Number("2")
	case "timeout":
		return "1s"
	case "protocol":
		return "TCP"
	case "port":
		return json.Number("80")
	case "operator":
		return "Exists"
	}
	return "a1"
}

// fill gives a struct the fields that it must have.
func fill(s *Schema, path []string) map[string]any {
	tree := map[string]any{}
	for _, name := range s.Required {
		tree[name] = usual(path, name)
	}
	return tree
}

// put puts a value at a path, below a struct of schema s, and makes what is on the way.
func put(tree map[string]any, s *Schema, walked, path []string, value any) {
	name, rest := path[0], path[1:]
	walked = append(slices.Clip(walked), name)
	p := s.Properties[name]
	switch {
	case len(rest) == 0:
		tree[name] = value
	case rest[0] == "[]" && len(rest) == 1:
		list, _ := tree[name].([]any)
		tree[name] = append(list, value)
	case rest[0] == "[]":
		list, _ := tree[name].([]any)
		if len(list) == 0 {
			list = []any{fill(p.Items, walked)}
		}
		put(list[0].(map[string]any), p.Items, append(walked, "[]"), rest[1:], value)
		tree[name] = list
	case rest[0] == "{}":
		tree[name] = map[string]any{"a": value}
	default:
		inner, ok := tree[name].(map[string]any)
		if !ok {
			inner = fill(p, walked)
		}
		put(inner, p, walked, rest, value)
		tree[name] = inner
	}
}

// verdict is weft's on one document, whoever writes it, and other objects aside.
func verdict(text []byte) error {
	o, err := v3.Decode(text)
	if err != nil {
		return err
	}
	v3.Default(o)
	if _, policy := o.(*v3.NetworkPolicy); policy { // the names of other systems' policies
		err = v3.CheckWritable(o)
	}
	return errors.Join(err, v3.Validate(o))
}

// random is a document of a kind, most of which is right.
func random(r *rand.Rand, kind string, spec *Schema, fields []leaf) map[string]any {
	names := []string{"default", "a", "a.b", "node.a", "kube-admin", "a.b.c", "knp.default.a", "ossg.default.a.b", strings.Repeat("a", 64)}
	name := names[0]
	if r.IntN(10) == 0 {
		name = names[r.IntN(len(names))]
	}
	body := fill(spec, nil)
	for range r.IntN(4) + 1 {
		f := fields[r.IntN(len(fields))]
		values := f.values()
		if len(values) > 0 {
			put(body, spec, nil, f.path, values[r.IntN(len(values))])
		}
	}
	return map[string]any{"apiVersion": v3.APIVersion, "kind": kind, "metadata": map[string]any{"name": name}, "spec": body}
}

// agreesAtRandom: the server and weft say the same of random documents, but for known
// sorts of differences, each of which has an example.
func agreesAtRandom(t *testing.T, s server) {
	const count = 4000 // a multiple of it by WEFT_CRD_ROUNDS
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRD_ROUNDS"))
	r := rand.New(rand.NewPCG(1, uint64(max(1, rounds))))
	type answer struct {
		text         []byte
		ours, theirs error
	}
	todo, answers := make(chan document), make(chan answer)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for d := range todo {
				text, err := json.Marshal(d.tree)
				if err != nil {
					panic(err) // made of maps, lists, texts and numbers
				}
				_, err = s.do(t.Context(), http.MethodPost, d.list()+"?dryRun=All&fieldValidation=Strict", d.tree)
				answers <- answer{text, verdict(text), err}
			}
		})
	}
	go func() {
		schemas := map[string]*Schema{}
		for _, k := range customKinds() {
			schemas[k.Name] = schemaFor(k)
		}
		for i := range count * max(1, rounds) {
			k := customKinds()[i%len(schemas)]
			spec := schemas[k.Name].at("spec")
			todo <- document{
				tree: random(r, k.Name, spec, leaves(spec)), version: v3.APIVersion,
				kind: k.Name, plural: k.Plural, namespace: "default", namespaced: k.Namespaced,
			}
		}
		close(todo)
		group.Wait()
		close(answers)
	}()
	sorts, accepted := exemptions(), 0
	for a := range answers {
		if broken := (fatal{}); errors.As(a.theirs, &broken) {
			t.Error(a.theirs)
			continue
		}
		if a.theirs == nil {
			accepted++
		}
		if (a.ours == nil) == (a.theirs == nil) {
			continue
		}
		if !slices.ContainsFunc(sorts, func(e exemption) bool { return e.covers(a.ours, a.theirs) }) {
			t.Errorf("weft: %v\nserver: %v\n%s", a.ours, a.theirs, a.text)
		}
	}
	for _, e := range sorts {
		s.stillDiffers(t, e)
	}
	if accepted < count/10 {
		t.Errorf("%d documents of %d are accepted: too few to tell anything", accepted, count)
	}
}

// stillDiffers checks that a sort of difference is one.
func (s server) stillDiffers(t *testing.T, e exemption) {
	t.Helper()
	d, err := parse("apiVersion: " + v3.APIVersion + "\nkind: " + e.example)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(d.tree)
	if err != nil {
		t.Fatal(err)
	}
	_, theirs := s.do(t.Context(), http.MethodPost, d.list()+"?dryRun=All&fieldValidation=Strict", d.tree)
	if ours := verdict(text); (ours == nil) == (theirs == nil) || !e.covers(ours, theirs) {
		t.Errorf("%s\nweft: %v\nserver: %v\nwant the difference %q", e.example, ours, theirs, e.why)
	}
}

// schemaFor is the whole schema of a kind.
func schemaFor(k v3.Kind) *Schema {
	o, _ := v3.New(k.Name)
	root := builder{docs: Comments{}, rules: rules()}.schemaOf(reflect.TypeOf(o).Elem())
	finish(root)
	return root
}
