package bench_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/ctl"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/store/etcd/server"
)

// checked is the number of addresses of BenchmarkIPAMCheck.
const checked = 100_000

// BenchmarkIPAMCheck is `weft ipam check` of 100,000 addresses of 100,000 pods, each with
// its endpoint and its handle, in an embedded etcd on the same machine: reading, parsing,
// comparing, printing. The first of every thousand is leaked.
func BenchmarkIPAMCheck(b *testing.B) {
	dir := b.TempDir()
	url := "unix://" + filepath.Join(dir, "s")
	srv, err := server.Start(b.Context(), server.Config{Dir: filepath.Join(dir, "data"), ClientURLs: []string{url}, Volatile: true})
	if err != nil {
		b.Fatal(err)
	}
	defer srv.Stop()
	s, err := etcd.Open(b.Context(), etcd.Config{Endpoints: []string{url}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	fillAddresses(b, s)
	want := fmt.Sprintf("%d problems: %d leaked", checked/1000, checked/1000)
	b.ReportAllocs()
	for b.Loop() {
		var out bytes.Buffer
		err := ctl.Execute(b.Context(), ctl.Process{
			Program: "weft", Args: []string{"ipam", "check"}, Environ: []string{"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + url},
			Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out,
		})
		if err != nil || !strings.Contains(out.String(), want) {
			b.Fatalf("%v\n%s", err, out.String())
		}
	}
	b.ReportMetric(checked*float64(b.N)/b.Elapsed().Seconds(), "addresses/s")
}

// fillAddresses writes blocks of 64 of a hundred nodes, all in use.
func fillAddresses(b *testing.B, s store.Store) {
	b.Helper()
	var ops []store.Op
	flush := func(most int) {
		if len(ops) == 0 || len(ops) < most {
			return
		}
		if _, err := s.Commit(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
		ops = ops[:0]
	}
	add := func(o v3.Object) {
		ops = append(ops, store.Op{Verb: store.Create, Object: store.New(o)})
		flush(128)
	}
	o, _ := v3.New("IPPool")
	pool := o.(*v3.IPPool)
	pool.Name, pool.Spec.CIDR = "pool", "10.0.0.0/8"
	v3.Default(pool)
	add(pool)
	for n := range 100 {
		o, _ := v3.New("Node")
		o.Meta().Name = fmt.Sprintf("node%d", n)
		add(o)
	}
	addr := netip.MustParseAddr("10.0.0.0")
	for n := 0; n < checked; {
		owner := model.HostAffinity(fmt.Sprintf("node%d", n/64%100))
		block := model.Block{CIDR: netip.PrefixFrom(addr, 26), Owner: owner, SequenceOf: map[int]uint64{}, Sequence: 64}
		for ord := range 64 {
			if n == checked {
				block.Allocations, block.Unallocated = append(block.Allocations, -1), append(block.Unallocated, ord)
				continue
			}
			pod := fmt.Sprintf("pod%d", n)
			handle := "k8s-pod-network." + pod
			block.Allocations = append(block.Allocations, ord)
			block.SequenceOf[ord] = uint64(ord)
			block.Attributes = append(block.Attributes, model.Attribute{Handle: handle, Secondary: map[string]string{
				"namespace": "default", "node": owner.Node, "pod": pod, "timestamp": "2026-08-01 00:00:00 +0000 UTC",
			}})
			add(model.Handle{ID: handle, Blocks: map[netip.Prefix]int{block.CIDR: 1}}.API())
			if n%1000 != 0 {
				add(benchEndpoint(b, owner.Node, pod, addr))
			}
			addr = addr.Next()
			n++
		}
		add(block.API())
		add(model.BlockAffinity{Owner: owner, CIDR: block.CIDR, State: model.AffinityConfirmed}.API())
	}
	flush(0)
}

func benchEndpoint(b *testing.B, node, pod string, addr netip.Addr) v3.Object {
	o, _ := v3.New("WorkloadEndpoint")
	ep := o.(*v3.WorkloadEndpoint)
	name, err := v3.WorkloadEndpointName(v3.EndpointID{Node: node, Orchestrator: v3.OrchestratorKubernetes, Pod: pod, Endpoint: "eth0"})
	if err != nil {
		b.Fatal(err)
	}
	ep.Namespace, ep.Name, ep.Labels = "default", name, map[string]string{"app": "web", "tier": "front"}
	ep.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: v3.OrchestratorKubernetes, Node: node, Pod: pod, Endpoint: "eth0", InterfaceName: "cali0123456789a",
		ContainerID: strings.Repeat("ab", 32), IPNetworks: []string{netip.PrefixFrom(addr, 32).String()}, MAC: "ee:ee:ee:ee:ee:ee",
		Profiles: []string{"kns.default", "ksa.default.default"},
	}
	return ep
}
