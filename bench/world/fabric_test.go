package world_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/bench/world"
	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/run"
)

// fleetNodes is how many other nodes there are.
const fleetNodes = 5000

// fleetBlock is the block of the i-th node; its first address is that of its tunnel.
func fleetBlock(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(i>>10), byte(i >> 2), byte(i << 6)}), 26)
}

// fleetNode is what the store says of the i-th node, as Calico writes it.
func fleetNode(i int) []world.Entry {
	name, block := fmt.Sprintf("node-%04d", i), fleetBlock(i)
	free := make([]string, 0, 64)
	for n := 1; n < 64; n++ {
		free = append(free, fmt.Sprint(n))
	}
	return []world.Entry{
		{Key: "/calico/resources/v3/projectcalico.org/nodes/" + name, Value: fmt.Sprintf(
			`{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":%q,"labels":{"kubernetes.io/hostname":%q}},`+
				`"spec":{"bgp":{"ipv4Address":"172.16.%d.%d/16"},"ipv4VXLANTunnelAddr":"%v","vxlanTunnelMACAddr":"66:00:00:00:%02x:%02x"},"status":{}}`,
			name, name, 1+i/250, 1+i%250, block.Addr(), i>>8, i&255)},
		{Key: "/calico/ipam/v2/assignment/ipv4/block/" + strings.Replace(block.String(), "/", "-", 1), Value: fmt.Sprintf(
			`{"cidr":"%v","affinity":"host:%s","allocations":[0%s],"unallocated":[%s],"attributes":[{"handle_id":"vxlan-tunnel-addr-%s","secondary":`+
				`{"node":%q,"type":"vxlanTunnelAddress"}}],"deleted":false,"sequenceNumber":1,"sequenceNumberForAllocation":{}}`,
			block, name, strings.Repeat(",null", 63), strings.Join(free, ","), name, name)},
		{Key: "/calico/ipam/v2/handle/vxlan-tunnel-addr-" + name, Value: fmt.Sprintf(
			`{"handleID":"vxlan-tunnel-addr-%s","block":{"%v":1},"deleted":false}`, name, block)},
	}
}

// newFleet is a ground whose store has that many nodes, which a VXLAN joins.
func newFleet(b *testing.B) *ground {
	g := newGround(b, world.World{})
	put := func(list ...world.Entry) {
		var ops []clientv3.Op
		for _, e := range list {
			ops = append(ops, clientv3.OpPut(e.Key, e.Value))
		}
		if _, err := g.etcd.Txn(b.Context()).Then(ops...).Commit(); err != nil {
			b.Fatal(err)
		}
	}
	put(world.Entry{Key: "/calico/resources/v3/projectcalico.org/ippools/pool", Value: `{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"pool"},"spec":` +
		`{"cidr":"10.64.0.0/12","ipipMode":"Never","vxlanMode":"Always","natOutgoing":true,"blockSize":26,"nodeSelector":"all()","allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic"}}`})
	for i := range fleetNodes + 1 {
		put(fleetNode(i)...)
	}
	g.ns.MustDo(func() error { return pair("eth0", "eth1") }) // an underlay, whose MTU the agent waits for
	return g
}

// startFleet starts an agent and returns the time until all routes are in the kernel.
func (g *ground) startFleet() time.Duration {
	start := time.Now()
	g.agent = g.start("node", "node", "run")
	var s agent.Status
	for end := start.Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := run.Fetch(g.b.Context(), g.status(), "status", &s)
		if err == nil && s.PID == g.agent.Process.Pid && s.Kernel.Applied >= fleetNodes && s.Kernel.Applied == s.Kernel.Routes {
			return time.Since(start)
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(g.dir, "node.log"))
			g.b.Fatalf("the routes are not there: %v, %+v; the agent's log:\n%s", err, s.Kernel, log)
		}
	}
}

// BenchmarkFleetStart has an agent begin the day among 5,000 nodes: from the start of the process, which
// reads the store, to the last route. Its memory is that after it gave back what the
// start took.
func BenchmarkFleetStart(b *testing.B) {
	var took []time.Duration
	for range b.N {
		g := newFleet(b)
		took = append(took, g.startFleet())
		if len(took) == b.N {
			peak := g.memory("VmHWM:")
			time.Sleep(12 * time.Second)
			b.ReportMetric(float64(peak)/1024, "peak-MB")
			b.ReportMetric(float64(g.memory("VmRSS:"))/1024, "rss-MB")
		}
		g.kill(g.agent)
	}
	report(b, took)
}

// BenchmarkFleetNode adds nodes to 5,000, with the address of their VXLAN, and then their block: from
// the write of that to the kernel's announcement of the route.
func BenchmarkFleetNode(b *testing.B) {
	g := newFleet(b)
	g.startFleet()
	time.Sleep(time.Second)
	events := g.listen()
	var took []time.Duration
	for i := range b.N {
		entries := fleetNode(fleetNodes + 1 + i)
		if _, err := g.etcd.Put(b.Context(), entries[0].Key, entries[0].Value); err != nil {
			b.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		addr := fleetBlock(fleetNodes + 1 + i).Addr().As4()
		took = append(took, g.change(events, entries[1], of(addr[:], newRoute)))
	}
	report(b, took)
}
