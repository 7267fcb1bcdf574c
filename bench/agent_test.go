package bench

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/datastore"
	"github.com/weft-net/weft/internal/testenv"
)

// node is a store and an agent, as real processes.
type node struct {
	b     *testing.B
	dir   string
	weft  string
	agent *exec.Cmd
	store store.Store
}

// newNode starts a store, fills it, and starts an agent in a namespace.
func newNode(b *testing.B, ns *testenv.Namespace, objects []v3.Object, env ...string) *node {
	n := &node{b: b, dir: b.TempDir()}
	n.weft = filepath.Join(n.dir, "weft")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", n.weft, "github.com/weft-net/weft/cmd/weft")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	url := "unix://" + filepath.Join(n.dir, "etcd.sock")
	n.start(ns, nil, "store", "--data-dir", filepath.Join(n.dir, "data"), "--listen", url)
	lookup := func(name string) string { return map[string]string{"ETCD_ENDPOINTS": url}[name] }
	var err error
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n.store, err = datastore.Open(b.Context(), lookup); err == nil {
			break
		}
		if time.Now().After(end) {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() { _ = n.store.Close() })
	for chunk := range slices.Chunk(objects, 100) {
		var ops []store.Op
		for _, o := range chunk {
			v3.Default(o)
			ops = append(ops, store.Op{Verb: store.Create, Object: store.New(o)})
		}
		if _, err := n.store.Commit(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
	}
	n.agent = n.start(ns, append(env, "ETCD_ENDPOINTS="+url, "IP=autodetect", "CALICO_NODENAME_FILE="+filepath.Join(n.dir, "nodename"),
		"WEFT_AGENT_SOCKET="+filepath.Join(n.dir, "agent.sock"), "WEFT_STATUS_SOCKET="+n.status(), "WEFT_CNI_QUEUE="+filepath.Join(n.dir, "del")), "node", "run")
	n.until(func(s agent.Status) bool { return s.Ready })
	return n
}

func (n *node) status() string { return filepath.Join(n.dir, "status.sock") }

func (n *node) start(ns *testenv.Namespace, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(n.weft, args...)
	cmd.Env = append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(n.dir, args[0]+".log"))
	if err != nil {
		n.b.Fatal(err)
	}
	cmd.Stderr = log
	if err := ns.Start(cmd); err != nil {
		n.b.Fatal(err)
	}
	n.b.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		_ = log.Close()
	})
	return cmd
}

// until waits for a status of the agent.
func (n *node) until(ok func(agent.Status) bool) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		var s agent.Status
		if err := run.Fetch(n.b.Context(), n.status(), "status", &s); err == nil && ok(s) {
			return
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(n.dir, "node.log"))
			n.b.Fatalf("the agent does not get there; its log:\n%s", log)
		}
	}
}

// rss is a process's resident memory, in kB.
func rss(b *testing.B, pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kB int
	if _, err := fmt.Sscan(after, &kB); err != nil {
		b.Fatal(err)
	}
	return kB
}

// agent measures the whole node agent, which writes what it learns into the
// kernel.
func (f *feed) agent() cost {
	peer := &v3.BGPPeer{Spec: v3.BGPPeerSpec{PeerIP: "10.9.0.2", ASNumber: 65001}}
	peer.Name = "feed"
	n := newNode(f.b, f.ns, []v3.Object{peer}, "NODENAME=node-a", "AS=64512")
	n.until(func(s agent.Status) bool { return len(s.Peers) == 1 })
	f.begin()
	f.until(func() bool { return f.inKernel(n.agent.Process.Pid) >= feedRoutes })
	return f.measure(n.agent)
}

// BenchmarkAgentFeed has Debian's bird2 tell 100,000 routes to a bird2 that
// writes them into the kernel, and to the whole node agent. See BenchmarkBGPFeed.
func BenchmarkAgentFeed(b *testing.B) {
	testenv.Need(b, "bird", "birdc")
	for name, receive := range map[string]func(*feed) cost{
		"bird2-kernel": func(f *feed) cost { return f.bird("protocol kernel { ipv4 { export all; }; }") },
		"weft-kernel":  (*feed).agent,
	} {
		b.Run(name, func(b *testing.B) {
			var sum cost
			for range b.N {
				c := receive(newFeed(b))
				sum = cost{sum.wall + c.wall, sum.cpu + c.cpu, max(sum.rss, c.rss)}
			}
			b.ReportMetric(float64(sum.wall.Milliseconds())/float64(b.N), "wall-ms/op")
			b.ReportMetric(float64(sum.cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(sum.rss)/1024, "rss-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkAgentIdle reports the memory of an agent that has synchronised with
// 10 nodes and 100 pods, ten of them its own, and has nothing to do.
func BenchmarkAgentIdle(b *testing.B) {
	ns, them := testenv.Netns(b), testenv.Netns(b)
	testenv.Veth(b, ns, "eth0", []string{"10.9.0.1/24"}, them, "eth0", []string{"10.9.0.200/24"})
	pool := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.65.0.0/16"}}
	pool.Name = "pool"
	objects := []v3.Object{pool}
	for i := range 10 {
		addr := netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)})
		o := &v3.Node{Spec: v3.NodeSpec{BGP: &v3.NodeBGPSpec{IPv4Address: addr.String() + "/24"}}}
		o.Name = fmt.Sprintf("node-%d", i)
		block := model.Block{
			CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, byte(i), 0}), 26), Owner: model.HostAffinity(o.Name),
			Allocations: slices.Repeat([]int{-1}, 64), SequenceOf: map[int]uint64{},
		}
		for n := range 64 {
			block.Unallocated = append(block.Unallocated, n)
		}
		affinity := model.BlockAffinity{Owner: block.Owner, CIDR: block.CIDR, State: model.AffinityConfirmed}
		objects = append(objects, o, block.API(), affinity.API())
		for n := range 10 {
			ep := &v3.WorkloadEndpoint{Spec: v3.WorkloadEndpointSpec{
				Orchestrator: "k8s", Node: o.Name, Pod: fmt.Sprintf("pod-%d", n), Endpoint: "eth0", ContainerID: fmt.Sprintf("c%d-%d", i, n),
				IPNetworks: []string{fmt.Sprintf("10.65.%d.%d/32", i, n)}, InterfaceName: fmt.Sprintf("cali%d-%d", i, n),
			}}
			ep.Namespace = "default"
			objects = append(objects, ep)
		}
	}
	n := newNode(b, ns, objects, "NODENAME=node-0")
	n.until(func(s agent.Status) bool { return s.Kernel.Links == 10 && len(s.Peers) == 9 })
	most := 0
	for range b.N {
		most = max(most, rss(b, n.agent.Process.Pid))
		runtime.Gosched()
	}
	b.ReportMetric(float64(most)/1024, "rss-MB")
	b.ReportMetric(0, "ns/op")
}
