package kv

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/weft-net/weft/internal/model"
)

const (
	endpointText = `{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"node--a-k8s-web--1-eth0","namespace":"shop",` +
		`"uid":"7599c5d7-e258-4b7e-a0df-e3ed21863038","creationTimestamp":"2026-11-20T06:08:38Z","labels":{"app":"web",` +
		`"projectcalico.org/namespace":"shop","projectcalico.org/orchestrator":"k8s"}},"spec":{"orchestrator":"k8s","node":"node-a",` +
		`"containerID":"c0ffee","pod":"web-1","endpoint":"eth0","ipNetworks":["10.0.0.1/32"],"profiles":["kns.shop"],` +
		`"interfaceName":"cali1","mac":"ee:ee:ee:ee:ee:ee","ports":[{"name":"http","protocol":"TCP","port":8080,"hostPort":0,"hostIP":""}],` +
		`"allowSpoofedSourcePrefixes":["192.0.2.0/24"]}}`
	endpointName = "node--a-k8s-web--1-eth0"
)

// edited is endpointText with edits, each OLD→NEW.
func edited(edits ...string) string {
	text := endpointText
	for _, e := range edits {
		from, to, _ := strings.Cut(e, "→")
		if !strings.Contains(text, from) {
			panic("nothing to edit: " + e)
		}
		text = strings.ReplaceAll(text, from, to)
	}
	return text
}

// follow takes in a value as a snapshot does, quickly where f can.
func follow(f *forms, k model.Key, value string) model.Batch {
	var b model.Batch
	(&follower{forms: f}).put(&b, k, []byte(value), 1)
	return b
}

// same compares what became of one value on two ways.
func same(t *testing.T, value string, want, got model.Batch) {
	t.Helper()
	byText := cmp.Transformer("", func(in model.Invalid) string { return in.Err.Error() })
	if d := cmp.Diff(want, got, byText, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("%s: (-the usual way +by its form):\n%s", value, d)
	}
}

// TestForms has one endpoint teach the form, and then others that differ from it in
// one thing: what is quick is so, and comes to the same.
func TestForms(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		value string
		name  string // of the key, or NAMESPACE/NAME; empty: endpointName
		quick bool
	}{
		"same again":         {value: endpointText, quick: true},
		"another pod":        {value: edited("web--1→web--2", "web-1→web-2", "10.0.0.1→10.0.0.2", "cali1→cali2"), name: "node--a-k8s-web--2-eth0", quick: true},
		"another node":       {value: edited("node--a→b", "node-a→b"), name: "b-k8s-web--1-eth0", quick: true},
		"two addresses":      {value: edited(`"10.0.0.1/32"→"10.0.0.1/32", "fd00::1/128"`), quick: true},
		"no address":         {value: edited(`"10.0.0.1/32"→ `), quick: true},
		"another MAC":        {value: edited("ee:ee→02:ab"), quick: true},
		"MAC in upper case":  {value: edited("ee:ee→EE:EE")},
		"bad MAC":            {value: edited("ee:ee→eg:ee")},
		"short MAC":          {value: edited("ee:ee:ee:→")},
		"whole subnet":       {value: edited("10.0.0.1/32→10.0.0.0/24")},
		"mapped address":     {value: edited("10.0.0.1/32→::ffff:10.0.0.1/128")},
		"bare address":       {value: edited("10.0.0.1/32→10.0.0.1")},
		"no link":            {value: edited(`"cali1"→""`)},
		"long link":          {value: edited("cali1→cali456789abcdef")},
		"link with a dot":    {value: edited("cali1→cali.1")},
		"bad link":           {value: edited("cali1→cali/1")},
		"bad time":           {value: edited("06:08:38Z→06:08:99Z")},
		"null":               {value: edited(`"c0ffee"→null`)},
		"number":             {value: edited(`"c0ffee"→7`)},
		"escape":             {value: edited(`c0ffee→c\u0030ffee`)},
		"not ASCII":          {value: edited(`c0ffee→cöffee`)},
		"other name":         {value: edited("web--1→web--2")},
		"name of its own":    {value: edited("web--1→web--2"), name: "node--a-k8s-web--2-eth0"},
		"no name":            {value: edited(endpointName + "→")},
		"dash at the end":    {value: edited("web-1→web-", "web--1→web--"), name: "node--a-k8s-web---eth0"},
		"field twice":        {value: edited(`"pod":"web-1"→"pod":"x","pod":"web-1"`)},
		"field in capitals":  {value: edited(`"pod":"web-1"→"pod":"web-1","Pod":"web-2"`)},
		"unknown field":      {value: edited(`"pod":"web-1"→"pod":"web-1","more":1`)},
		"section twice":      {value: edited(`"spec":{"orch→"spec":{"pod":"x"},"spec":{"orch`)},
		"another label":      {value: edited(`"app":"web"→"app":"db"`), quick: true},
		"label twice":        {value: edited(`"app":"web"→"app":"db","app":"web"`), quick: true},
		"escape in a label":  {value: edited(`"app":"web"→"app":"\u0061"`)},
		"number in a label":  {value: edited(`"app":"web"→"app":1`)},
		"null for labels":    {value: edited(`{"app":"web","projectcalico.org/namespace":"shop","projectcalico.org/orchestrator":"k8s"}→null`)},
		"system label":       {value: edited(`"projectcalico.org/namespace":"shop"→"projectcalico.org/namespace":"shed"`), quick: true},
		"another profile":    {value: edited(`"kns.shop"→"kns.shed","ksa.shop.default"`), quick: true},
		"no profiles":        {value: edited(`"kns.shop"→`), quick: true},
		"number for profile": {value: edited(`"kns.shop"→1`)},
		"of another team":    {value: edited(`"namespace":"shop"→"namespace":"shed"`, `/namespace":"shop"→/namespace":"shed"`), name: "shed/" + endpointName, quick: true},
		"service account":    {value: edited(`"endpoint"→"serviceAccountName":"robot","endpoint"`)},
		"other ports":        {value: edited(`8080→8081`)},
		"bad label":          {value: edited(`"app":"web"→"app":"-"`)},
		"floating address":   {value: edited(`"mac"→"ipNATs":[{"internalIP":"10.0.0.1","externalIP":"192.0.2.1"}],"mac"`)},
		"white space":        {value: " " + strings.ReplaceAll(endpointText, ":", " :\n ") + "\t"},
		"cut off":            {value: endpointText[:len(endpointText)-1]},
		"more at the end":    {value: endpointText + "}"},
		"no object":          {value: "[]"},
		"nothing":            {value: ""},
		"another kind":       {value: edited(`"WorkloadEndpoint"→"IPPool"`)},
		"another namespace":  {value: edited(`"namespace":"shop"→"namespace":"shed"`)},
		"no namespace":       {value: edited(`"namespace":"shop",→`)},
		"no labels":          {value: edited(`,"labels":{"app":"web","projectcalico.org/namespace":"shop","projectcalico.org/orchestrator":"k8s"}→`)},
		"empty labels":       {value: edited(`"app":"web","projectcalico.org/namespace":"shop","projectcalico.org/orchestrator":"k8s"→`), quick: true},
		"bad source prefix":  {value: edited(`192.0.2.0/24→192.0.2.0/240`)},
		"no pod":             {value: edited(`"pod":"web-1",→`)},
		"bracket in a label": {value: edited(`"app":"web"→"app":"}{"`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &forms{}
			k := model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "shop", Name: endpointName}
			if b := follow(f, k, endpointText); len(b.Puts) != 1 {
				t.Fatal(b.Invalids)
			}
			if ns, name, ok := strings.Cut(tt.name, "/"); ok {
				k.Namespace, k.Name = ns, name
			} else if tt.name != "" {
				k.Name = tt.name
			}
			if _, quick := f.endpoint(k, []byte(tt.value)); quick != tt.quick {
				t.Errorf("quick is %t, want %t", quick, tt.quick)
			}
			want := follow(nil, k, tt.value)
			same(t, tt.value, want, follow(f, k, tt.value))
			same(t, tt.value, want, follow(f, k, tt.value)) // now its form may be known
		})
	}
}

// TestFormsShare: endpoints of one form share what they have in common, and what
// is remembered of forms stays bounded.
func TestFormsShare(t *testing.T) {
	t.Parallel()
	f := &forms{}
	k := model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "shop", Name: endpointName}
	first := follow(f, k, endpointText).Puts[0].(model.Endpoint)
	second := follow(f, k, endpointText).Puts[0].(model.Endpoint)
	second.Labels["app"] = "changed"
	if first.Labels["app"] != "changed" || &first.Profiles[0] != &second.Profiles[0] {
		t.Error("labels and profiles are not shared")
	}
	long := strings.Repeat("x", 60)
	for i := range 40_000 {
		follow(f, k, edited(fmt.Sprintf(`"app":"web"→"a":"%s","b":"%s","c":"%s","d":"%d"`, long, long, long, i)))
		if f.size > maxFormBytes+1000 {
			t.Fatalf("%d bytes of forms after %d", f.size, i)
		}
	}
	if len(f.close) < 5_000 || len(f.close) > 30_000 {
		t.Errorf("%d forms are known", len(f.close))
	}
}

func FuzzForms(f *testing.F) {
	f.Add(endpointText, endpointText)
	f.Add(endpointText, edited("10.0.0.1/32→10.0.0.300/32"))
	f.Add(edited(`"app":"web"→"app":"\"}"`), edited(`"pod":"web-1"→"Pod":"web-1"`))
	f.Add(`{"spec":{"pod":"a"`, `{"metadata":{"name":[]},"spec":[`)
	f.Fuzz(func(t *testing.T, first, second string) {
		forms := &forms{}
		k := model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "shop", Name: endpointName}
		for _, value := range []string{endpointText, first, second, second} {
			same(t, value, follow(nil, k, value), follow(forms, k, value))
		}
	})
}

// BenchmarkEndpoint reads one endpoint: with its form known, and the usual way.
func BenchmarkEndpoint(b *testing.B) {
	k := model.Key{Kind: model.KindWorkloadEndpoint, Namespace: "shop", Name: endpointName}
	for name, f := range map[string]*forms{"close": {}, "wide": {}, "usual": nil} {
		b.Run(name, func(b *testing.B) {
			follow(f, k, endpointText)
			b.ReportAllocs()
			for b.Loop() {
				if name == "wide" {
					clear(f.close)
				}
				if got := follow(f, k, endpointText); len(got.Puts) != 1 {
					b.Fatal(got)
				}
			}
		})
	}
}
