package policy_test

import (
	"fmt"
	"math"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/selector"
)

const benchNode = "node-0"

// feed makes the values of a world in batches, as a datastore's watch would: every
// string is a new one.
type feed struct {
	b     testing.TB
	graph *policy.Graph
	batch model.Batch
	size  int
	own   time.Duration // processor time of Step itself: what it takes where nothing else runs
	all   time.Duration // of the process meanwhile, idle garbage collection included
	base  uint64
}

func newFeed(b testing.TB) *feed {
	runtime.LockOSThread() // for own; the benchmark's goroutine ends with its thread
	f := &feed{b: b, size: 500, base: heap()}
	f.graph = policy.NewGraph(benchNode)
	f.batch.Reset = true
	return f
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// cpu is the processor time of the process (RUSAGE_SELF) or of the thread
// (RUSAGE_THREAD).
func cpu(who int) time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(who, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (f *feed) put(v model.Value) {
	if f.batch.Puts = append(f.batch.Puts, v); len(f.batch.Puts) == f.size {
		f.step()
	}
}

func (f *feed) step() plan.FilterDelta {
	own, all := cpu(syscall.RUSAGE_THREAD), cpu(syscall.RUSAGE_SELF)
	d := f.graph.Step(f.batch)
	f.own, f.all = f.own+cpu(syscall.RUSAGE_THREAD)-own, f.all+cpu(syscall.RUSAGE_SELF)-all
	f.batch = model.Batch{}
	return d
}

// done completes the snapshot and reports.
func (f *feed) done(b *testing.B) {
	f.batch.Synced = true
	f.step()
	b.ReportMetric(f.own.Seconds(), "step-cpu-s")
	b.ReportMetric(f.all.Seconds(), "process-cpu-s")
	b.ReportMetric(float64(heap()-f.base)/1e6, "heap-MB")
	runtime.KeepAlive(f.graph)
}

func parsed(b testing.TB, format string, args ...any) *selector.Selector {
	s, err := selector.Parse(fmt.Sprintf(format, args...))
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// pod is the i-th pod of a namespace.
func pod(i, ns, node int, labels map[string]string) model.Endpoint {
	namespace := fmt.Sprintf("ns-%d", ns)
	all := map[string]string{
		model.LabelNamespace: namespace, model.LabelOrchestrator: "k8s", model.LabelServiceAccount: "default",
	}
	for k, v := range labels {
		all[k] = v
	}
	return model.Endpoint{
		Namespace: namespace, Name: fmt.Sprintf("node--%d-k8s-web--%d--abcde-eth0", node, i), Node: fmt.Sprintf("node-%d", node),
		Pod: fmt.Sprintf("web-%d-abcde", i), Link: fmt.Sprintf("cali%011x", i),
		Addrs:  []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
		Labels: all, Profiles: []string{"kns." + namespace, "ksa." + namespace + ".default"},
		Ports: []model.NamedPort{{Name: "http", Protocol: 6, Port: 8080}},
	}
}

func profile(ns int) model.Profile {
	name := fmt.Sprintf("ns-%d", ns)
	return model.Profile{
		Name:    "kns." + name,
		Labels:  map[string]string{"pcns.projectcalico.org/name": name, "pcns.team": fmt.Sprintf("team-%d", ns%50)},
		Ingress: []model.Rule{{Action: model.Allow, Field: "spec.ingress[0]"}}, Egress: []model.Rule{{Action: model.Allow, Field: "spec.egress[0]"}},
	}
}

// nsPolicy is a policy of a namespace with three rules.
func nsPolicy(b testing.TB, ns, i int, who string) model.Policy {
	name := fmt.Sprintf("ns-%d", ns)
	from := func(app int) model.Entity {
		return model.Entity{Selector: parsed(b, `%s == "%s" && app == "app-%d"`, model.LabelNamespace, name, app)}
	}
	ports := model.Entity{Ports: []model.PortRange{{First: 8080, Last: 8080}}}
	return model.Policy{
		Origin: model.Key{Kind: model.KindNetworkPolicy, Namespace: name, Name: fmt.Sprintf("policy-%d", i)},
		Tier:   "default", Order: 1000, Selector: parsed(b, `%s == "%s" && %s`, model.LabelNamespace, name, who),
		AppliesIngress: true, AppliesEgress: true,
		Ingress: []model.Rule{
			{Action: model.Allow, Protocol: 6, Source: from(i % 7), Destination: ports, Field: "spec.ingress[0]"},
			{Action: model.Allow, Protocol: 17, Source: from(i % 5), Field: "spec.ingress[1]"},
		},
		Egress: []model.Rule{{Action: model.Allow, Destination: from(i % 3), Field: "spec.egress[0]"}},
	}
}

// 250,000 endpoints, 200 of them local, in 1,000 namespaces, with 10,000 policies.
func BenchmarkSnapshot250k(b *testing.B) {
	for _, unique := range []bool{false, true} {
		name := map[bool]string{false: "deployments", true: "a label of its own each"}[unique]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f := newFeed(b)
				for i := range 1000 {
					f.put(profile(i))
				}
				for i := range 10000 {
					f.put(nsPolicy(b, i%1000, i, fmt.Sprintf(`app == "app-%d"`, i%10)))
				}
				for i := range 250000 {
					labels := map[string]string{"app": fmt.Sprintf("app-%d", i%10), "pod-template-hash": fmt.Sprintf("%x", i/25)}
					if unique {
						labels["statefulset.kubernetes.io/pod-name"] = fmt.Sprintf("web-%d", i)
					}
					f.put(pod(i, i/250, i%1250, labels))
				}
				f.done(b)
			}
		})
	}
}

// Namespaces with one pod and one policy each; 100 pods are local.
func BenchmarkNamespaces(b *testing.B) {
	for _, n := range []int{10000, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				f := newFeed(b)
				for i := range n {
					f.put(profile(i))
					f.put(pod(i, i, i%(n/100), map[string]string{"app": "web"}))
					p := nsPolicy(b, i, 0, `app == "web"`)
					p.Ingress, p.AppliesEgress, p.Egress = slices.Clone(p.Ingress[:1]), false, nil
					f.put(p)
				}
				f.done(b)
			}
		})
	}
}

// 10,000 policies in force whose rules name a network set each.
func BenchmarkNetworkSets(b *testing.B) {
	for b.Loop() {
		f := newFeed(b)
		for i := range 100 {
			f.put(pod(i, 0, 0, map[string]string{"app": fmt.Sprintf("app-%d", i)}))
		}
		for i := range 10000 {
			f.put(model.NetworkSet{
				Name: fmt.Sprintf("set-%d", i), Labels: map[string]string{"set": fmt.Sprintf("set-%d", i), "kind": "external"},
				Nets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(16 + i>>16), byte(i >> 8), byte(i)}), 32)},
			})
			f.put(model.Policy{
				Origin: model.Key{Kind: model.KindGlobalNetworkPolicy, Name: fmt.Sprintf("policy-%d", i)},
				Tier:   "default", Order: 1000, Selector: parsed(b, `app == "app-%d"`, i%100), AppliesEgress: true,
				Egress: []model.Rule{{
					Action: model.Allow, Protocol: 6, Field: "spec.egress[0]",
					Destination: model.Entity{Selector: parsed(b, `set == "set-%d" && kind == "external"`, i)},
				}},
			})
		}
		f.done(b)
	}
}

// large is a graph with 1,000 policies of 10 rules, 500 local endpoints, 50,000 others,
// all of which a selector matches, and 10,000 CIDRs in network sets.
func large(b testing.TB) (*feed, func(i int, labels map[string]string) model.Endpoint) {
	f := newFeed(b)
	f.put(profile(0))
	all := parsed(b, `%s == "ns-0"`, model.LabelNamespace)
	for i := range 1000 {
		p := nsPolicy(b, 0, i, fmt.Sprintf(`app == "app-%d"`, i%100))
		for j := range 7 {
			p.Ingress = append(p.Ingress, model.Rule{
				Action: model.Allow, Protocol: 6, Source: model.Entity{Selector: all}, Field: fmt.Sprintf("spec.ingress[%d]", 2+j),
				Destination: model.Entity{Ports: []model.PortRange{{First: uint16(100 + j), Last: uint16(100 + i + j)}}},
			})
		}
		p.Egress = append(p.Egress, model.Rule{Action: model.Allow, Destination: model.Entity{Selector: parsed(b, `zone == "z"`)}})
		f.put(p)
	}
	for i := range 1000 {
		s := model.NetworkSet{Name: fmt.Sprintf("set-%d", i), Labels: map[string]string{"zone": "z"}}
		for j := range 10 {
			s.Nets = append(s.Nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, byte(j), byte(i), byte(i >> 8 << 4)}), 28).Masked())
		}
		f.put(s)
	}
	local := func(i int, labels map[string]string) model.Endpoint { return pod(i, 0, 0, labels) }
	for i := range 500 {
		f.put(local(i, map[string]string{"app": fmt.Sprintf("app-%d", i%100)}))
	}
	for i := range 50000 {
		f.put(pod(1000+i, 0, 1+i%500, map[string]string{"app": fmt.Sprintf("app-%d", i%100)}))
	}
	return f, local
}

func BenchmarkLargeWorld(b *testing.B) {
	for b.Loop() {
		f, _ := large(b)
		f.done(b)
	}
}

// BenchmarkChange is single changes in the large world, each with how it is undone.
func BenchmarkChange(b *testing.B) {
	f, local := large(b)
	f.batch.Synced = true
	f.step()
	remote := func(app string) model.Value { return pod(1000+77, 0, 78, map[string]string{"app": app}) }
	rule := func(port uint16) model.Value {
		p := nsPolicy(b, 0, 5, `app == "app-5"`)
		p.Ingress[0].Destination.Ports[0] = model.PortRange{First: port, Last: port}
		return p
	}
	who := func(sel string) model.Value {
		p := nsPolicy(b, 0, 6, `app == "app-6"`)
		p.Ingress[0].Source.Selector = parsed(b, "%s", sel)
		return p
	}
	set := func(bits int) model.Value {
		return model.NetworkSet{
			Name: "set-5", Labels: map[string]string{"zone": "z"},
			Nets: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("172.0.0.0/%d", bits))},
		}
	}
	fresh := local(600, map[string]string{"app": "app-7"})
	for name, batches := range map[string][2]model.Batch{
		"label of a remote pod":             {{Puts: []model.Value{remote("app-1")}}, {Puts: []model.Value{remote("app-2")}}},
		"label that nobody asks for":        {{Puts: []model.Value{remote("x")}}, {Puts: []model.Value{remote("y")}}},
		"local pod comes and goes":          {{Puts: []model.Value{fresh}}, {Deletes: []model.Key{fresh.Key()}}},
		"a rule":                            {{Puts: []model.Value{rule(1)}}, {Puts: []model.Value{rule(2)}}},
		"selector over 50,000":              {{Puts: []model.Value{who(`has(app)`)}}, {Puts: []model.Value{who(`app starts with "app"`)}}},
		"CIDR that holds 5,000 others":      {{Puts: []model.Value{set(9)}}, {Puts: []model.Value{set(28)}}},
		"tier default":                      {{Puts: []model.Value{model.Tier{Name: "default", Order: 1e6}}}, {Puts: []model.Value{model.Tier{Name: "default", Order: 1e6, Default: model.Pass}}}},
		"policy of all local pods moves up": {{Puts: []model.Value{everyone(b, 1)}}, {Puts: []model.Value{everyone(b, math.Inf(1))}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			start := cpu(syscall.RUSAGE_SELF)
			for i := 0; b.Loop(); i++ {
				f.graph.Step(batches[i%2])
			}
			b.ReportMetric(float64((cpu(syscall.RUSAGE_SELF)-start).Microseconds())/float64(b.N), "cpu-µs/op")
		})
	}
}

func everyone(b testing.TB, order float64) model.Policy {
	return model.Policy{
		Origin: model.Key{Kind: model.KindGlobalNetworkPolicy, Name: "everyone"}, Tier: "default", Order: order,
		Selector: parsed(b, "all()"), AppliesIngress: true, Ingress: []model.Rule{{Action: model.Allow}},
	}
}
