package ctl

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/allocator"
	"github.com/weft-net/weft/internal/audit"
	"github.com/weft-net/weft/internal/ipam"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// ipamWorld is a datastore whose addresses a test gives out and then spoils.
type ipamWorld struct {
	t      testing.TB
	st     store.Store
	nodes  map[string]*allocator.Allocator
	pods   []string // that have an address
	onNode map[string]string
}

func newIPAMWorld(t testing.TB, st store.Store, nodes ...string) *ipamWorld {
	w := &ipamWorld{t: t, st: st, nodes: map[string]*allocator.Allocator{}, onNode: map[string]string{}}
	for name, cidr := range map[string]string{"pool-a": "10.0.0.0/22", "pool-six": "fd00::/112"} {
		o, _ := v3.New("IPPool")
		p := o.(*v3.IPPool)
		p.Name, p.Spec.CIDR = name, cidr
		if p.Spec.BlockSize = 28; strings.Contains(cidr, ":") {
			p.Spec.BlockSize = 124
		}
		v3.Default(p)
		w.commit(store.Create, p)
	}
	for _, name := range nodes {
		o, _ := v3.New("Node")
		o.Meta().Name = name
		w.commit(store.Create, o)
		w.start(name)
	}
	return w
}

// start runs the allocator of a node until the test ends.
func (w *ipamWorld) start(node string) {
	a := allocator.New(w.st, node, time.Now)
	done := make(chan struct{})
	go func() { defer close(done); _ = a.Run(w.t.Context()) }()
	w.t.Cleanup(func() { <-done })
	w.nodes[node] = a
}

func (w *ipamWorld) commit(verb store.Verb, o v3.Object) {
	w.t.Helper()
	if _, err := w.st.Commit(w.t.Context(), store.Op{Verb: verb, Object: store.New(o)}); err != nil {
		w.t.Fatal(err)
	}
}

// endpointOf is the endpoint of a pod.
func (w *ipamWorld) endpointOf(node, pod string, addrs ...netip.Addr) *v3.WorkloadEndpoint {
	o, _ := v3.New("WorkloadEndpoint")
	ep := o.(*v3.WorkloadEndpoint)
	name, err := v3.WorkloadEndpointName(v3.EndpointID{Node: node, Orchestrator: v3.OrchestratorKubernetes, Pod: pod, Endpoint: "eth0"})
	if err != nil {
		w.t.Fatal(err)
	}
	ep.Namespace, ep.Name = "default", name
	ep.Spec = v3.WorkloadEndpointSpec{Orchestrator: v3.OrchestratorKubernetes, Node: node, Pod: pod, Endpoint: "eth0", InterfaceName: "cali" + pod}
	for _, a := range addrs {
		ep.Spec.IPNetworks = append(ep.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return ep
}

// add makes a pod with an address of each family, as the agent of its node does.
func (w *ipamWorld) add(node, pod string) {
	w.t.Helper()
	_, err := w.nodes[node].Assign(w.t.Context(), allocator.Request{
		Request: ipam.Request{
			Holder: ipam.PodHolder("net."+pod, node, "default", pod, time.Unix(1, 0)), Use: model.UseWorkload,
			V4: ipam.Family{Count: 1}, V6: ipam.Family{Count: 1},
		},
		Extra: func(got []ipam.Assigned) ([]store.Op, error) {
			var addrs []netip.Addr
			for _, a := range got {
				addrs = append(addrs, a.Addr)
			}
			return []store.Op{{Verb: store.Create, Object: store.New(w.endpointOf(node, pod, addrs...))}}, nil
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.pods, w.onNode[pod] = append(w.pods, pod), node
}

// remove takes a pod away, as the agent of its node does.
func (w *ipamWorld) remove(pod string) {
	w.t.Helper()
	node := w.onNode[pod]
	extra := store.Op{Verb: store.Delete, Object: store.New(w.endpointOf(node, pod))}
	if _, err := w.nodes[node].Release(w.t.Context(), "net."+pod, extra); err != nil {
		w.t.Fatal(err)
	}
	w.pods = slices.DeleteFunc(w.pods, func(p string) bool { return p == pod })
}

// tunnel gives a node an address for its tunnel, and tells it unless lost.
func (w *ipamWorld) tunnel(node string, lost bool) netip.Addr {
	w.t.Helper()
	r, err := w.nodes[node].Assign(w.t.Context(), allocator.Request{Request: ipam.Request{
		Holder: allocator.VXLAN.Holder(node), Use: model.UseTunnel, V4: ipam.Family{Count: 1},
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	if !lost {
		w.change(model.Node{Name: node}.Key(), func(o v3.Object) { o.(*v3.Node).Spec.IPv4VXLANTunnelAddr = r.Addrs[0].Addr.String() })
	}
	return r.Addrs[0].Addr
}

// change rewrites one object.
func (w *ipamWorld) change(key model.Key, f func(v3.Object)) {
	w.t.Helper()
	o, err := w.st.Get(w.t.Context(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	f(o.Object)
	if _, err := w.st.Commit(w.t.Context(), store.Op{Verb: store.Update, Object: o}); err != nil {
		w.t.Fatal(err)
	}
}

// drop deletes one object.
func (w *ipamWorld) drop(key model.Key) {
	w.t.Helper()
	o, err := w.st.Get(w.t.Context(), key)
	if err == nil {
		_, err = w.st.Commit(w.t.Context(), store.Op{Verb: store.Delete, Object: o})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// addrsOf are the addresses of a pod, in text.
func (w *ipamWorld) addrsOf(pod string) []string {
	w.t.Helper()
	o, err := w.st.Get(w.t.Context(), w.endpointKey(pod))
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, text := range o.Object.(*v3.WorkloadEndpoint).Spec.IPNetworks {
		out = append(out, netip.MustParsePrefix(text).Addr().String())
	}
	return out
}

func (w *ipamWorld) endpointKey(pod string) model.Key {
	ep := w.endpointOf(w.onNode[pod], pod)
	return model.Key{Kind: model.KindWorkloadEndpoint, Namespace: ep.Namespace, Name: ep.Name}
}

// blocks are all blocks.
func (w *ipamWorld) blocks() []model.Block {
	w.t.Helper()
	blocks, _, err := listed[model.Block](w.t.Context(), w.st, model.KindIPAMBlock)
	if err != nil {
		w.t.Fatal(err)
	}
	return blocks
}

// found is what a check finds, such as "leaked 10.0.0.1", sorted.
func (w *ipamWorld) found() []string {
	w.t.Helper()
	r := &ipamReader{store: w.st, progress: func(string) {}}
	_, result, err := r.look(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, f := range result.Findings {
		out = append(out, string(f.Kind)+" "+findingText(f))
	}
	slices.Sort(out)
	return out
}

func findingText(f audit.Finding) string {
	if f.Kind == audit.MissingHandle || f.Kind == audit.OrphanHandle || f.Kind == audit.HandleCount {
		return f.Handle
	}
	return findingOf(f)
}

// faults are what a test does to a healthy world; each returns what a check must find.
func faults() map[string]func(w *ipamWorld, rnd *rand.Rand) []string {
	each := func(kind string, addrs []string) []string {
		var out []string
		for _, a := range addrs {
			out = append(out, kind+" "+a)
		}
		return out
	}
	// take picks a pod that no other fault is about.
	take := func(w *ipamWorld, rnd *rand.Rand) string {
		i := rnd.IntN(len(w.pods))
		pod := w.pods[i]
		w.pods = slices.Delete(w.pods, i, i+1)
		return pod
	}
	return map[string]func(w *ipamWorld, rnd *rand.Rand) []string{
		"lose a handle": func(w *ipamWorld, rnd *rand.Rand) []string {
			pod := take(w, rnd)
			w.drop(model.HandleKey("net." + pod))
			return []string{"missing-handle net." + pod}
		},
		"orphan a handle": func(w *ipamWorld, rnd *rand.Rand) []string {
			id := fmt.Sprintf("net.orphan-%d", rnd.IntN(1000))
			w.commit(store.Create, model.Handle{ID: id, Blocks: map[netip.Prefix]int{netip.MustParsePrefix("10.0.3.240/28"): 1}}.API())
			return []string{"orphaned-handle " + id}
		},
		"miscount a handle": func(w *ipamWorld, rnd *rand.Rand) []string {
			pod := take(w, rnd)
			w.change(model.HandleKey("net."+pod), func(o v3.Object) {
				for cidr := range o.(*v3.IPAMHandle).Spec.Block {
					o.(*v3.IPAMHandle).Spec.Block[cidr]++
				}
			})
			return []string{"wrong-handle net." + pod}
		},
		"leak": func(w *ipamWorld, rnd *rand.Rand) []string {
			pod := take(w, rnd)
			addrs := w.addrsOf(pod)
			w.drop(w.endpointKey(pod))
			return each("leaked", addrs)
		},
		"use an address twice": func(w *ipamWorld, rnd *rand.Rand) []string {
			pod := take(w, rnd)
			addrs := w.addrsOf(pod)
			twin := w.endpointOf(w.onNode[pod], "twin-"+pod, netip.MustParseAddr(addrs[0]))
			w.commit(store.Create, twin)
			return each("doubly-owned", []string{addrs[0], addrs[0]}) // two use it, and one is not who holds it
		},
		"use a free address": func(w *ipamWorld, rnd *rand.Rand) []string {
			a := netip.MustParseAddr(fmt.Sprintf("fd00::f%x%x", rnd.IntN(16), rnd.IntN(16)))
			name := fmt.Sprintf("squatter-%d", rnd.IntN(1000))
			w.commit(store.Create, w.endpointOf("a", name, a))
			return []string{"unallocated-in-use " + a.String()}
		},
		"corrupt a block": func(w *ipamWorld, rnd *rand.Rand) []string {
			var with []model.Block
			for _, b := range w.blocks() {
				if len(b.Unallocated) > 0 {
					with = append(with, b)
				}
			}
			if len(with) == 0 {
				return nil
			}
			b := with[rnd.IntN(len(with))]
			w.change(b.Key(), func(o v3.Object) {
				spec := &o.(*v3.IPAMBlock).Spec
				spec.Unallocated = spec.Unallocated[1:]
			})
			return []string{"invalid-block " + b.CIDR.String()}
		},
		"lose an affinity": func(w *ipamWorld, rnd *rand.Rand) []string {
			b := w.blocks()[rnd.IntN(len(w.blocks()))]
			w.drop(model.AffinityKey(b.Owner, b.CIDR))
			return []string{"missing-affinity " + b.CIDR.String()}
		},
		"claim nothing": func(w *ipamWorld, _ *rand.Rand) []string {
			cidr := netip.MustParsePrefix("10.0.3.240/28")
			for _, b := range w.blocks() {
				if b.CIDR == cidr {
					return nil
				}
			}
			w.commit(store.Create, model.BlockAffinity{Owner: model.HostAffinity("a"), CIDR: cidr, State: model.AffinityConfirmed}.API())
			return []string{"orphaned-affinity " + cidr.String()}
		},
		"forget a tunnel": func(w *ipamWorld, rnd *rand.Rand) []string {
			return []string{"stray-tunnel " + w.tunnel("c", true).String()}
		},
		"lose a node": func(w *ipamWorld, _ *rand.Rand) []string {
			w.commit(store.Create, model.BlockAffinity{Owner: model.HostAffinity("gone"), CIDR: netip.MustParsePrefix("10.0.3.224/28"), State: model.AffinityPending}.API())
			return []string{"affinity-of-no-node 10.0.3.224/28"}
		},
	}
}

// weftOn runs a command line on the datastore that environ names, and returns both of
// what it prints.
func weftOn(t testing.TB, program string, environ []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	err := Execute(t.Context(), Process{Program: program, Args: args, Environ: environ, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs, Version: "v0"})
	if err != nil && !errors.As(err, new(*ExitError)) {
		errs.WriteString(err.Error() + "\n")
	}
	return out.String(), errs.String(), ExitCode(err)
}
