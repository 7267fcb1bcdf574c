package index

import (
	"fmt"
	"testing"
)

// One pod's update against 10,000 selectors that share a common label.
func BenchmarkUpdateAgainst10kSelectors(b *testing.B) {
	for _, form := range []string{`app == "web" && has(x-%d)`, `app == "web" && !has(x-%d)`, `team != "t%d"`} {
		b.Run(form, func(b *testing.B) {
			x := New(func(uint32, uint32, bool) {})
			for i := range uint32(1000) {
				x.Put(i, map[string]string{"app": "web", "pod": fmt.Sprint(i)}, []string{"kns.default"})
			}
			for i := range 10000 {
				x.Add(parse(b, fmt.Sprintf(form, i)))
			}
			labels := [2]map[string]string{{"app": "web", "pod": "p", "v": "1"}, {"app": "web", "pod": "p", "v": "2"}}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				x.Put(5, labels[i%2], []string{"kns.default"})
			}
		})
	}
}

// One selector comes and goes over 100,000 endpoints, half of which it selects.
func BenchmarkSelectorOver100kItems(b *testing.B) {
	for name, unique := range map[string]bool{"shared labels": false, "a label of its own each": true} {
		b.Run(name, func(b *testing.B) {
			n := 0
			x := New(func(uint32, uint32, bool) { n++ })
			for i := range uint32(100000) {
				labels := map[string]string{"app": fmt.Sprint(i % 500), "half": fmt.Sprint(i % 2)}
				if unique {
					labels["pod"] = fmt.Sprint(i)
				}
				x.Put(i, labels, []string{"kns.default"})
			}
			s := parse(b, `half == "1"`)
			b.ReportAllocs()
			for b.Loop() {
				x.Remove(x.Add(s))
			}
			if n != b.N*100000 {
				b.Errorf("%d events in %d rounds", n, b.N)
			}
		})
	}
}

// Items of 100,000 namespaces against a selector for each namespace.
func BenchmarkNamespaces100k(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		x := New(func(uint32, uint32, bool) { n++ })
		for i := range 100000 {
			ns := fmt.Sprintf("ns-%d", i)
			x.Add(parse(b, `projectcalico.org/namespace == "`+ns+`" && app == "web"`))
			x.PutParent("kns."+ns, map[string]string{"pcns.name": ns})
			x.Put(uint32(i), map[string]string{"app": "web", "projectcalico.org/namespace": ns}, []string{"kns." + ns})
		}
		if n != 100000 {
			b.Errorf("%d matches", n)
		}
	}
}
