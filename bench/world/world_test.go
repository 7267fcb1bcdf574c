package world_test

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/weft-net/weft/bench/world"
	"github.com/weft-net/weft/internal/agent"
	nl "github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/store/etcd"
	"github.com/weft-net/weft/internal/testenv"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// program is a weft to measure instead of the one that is built of this tree: an
// earlier one, or one with a profiler.
var program = flag.String("weft", "", "path of the weft to measure; empty: build it")

// ground is an etcd that holds a world, and a namespace with the links of the
// world's local pods, for agents to start in. The etcd is a process of its own.
type ground struct {
	b     *testing.B
	w     world.World
	ns    *testenv.Namespace
	dir   string
	weft  string
	url   string
	etcd  *clientv3.Client
	agent *exec.Cmd
}

func newGround(b *testing.B, w world.World) *ground {
	g := &ground{b: b, w: w, ns: testenv.Netns(b), dir: b.TempDir(), weft: *program}
	if g.weft == "" {
		g.weft = filepath.Join(g.dir, "weft")
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", g.weft, "github.com/weft-net/weft/cmd/weft")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	g.url = "unix://" + filepath.Join(g.dir, "etcd.sock")
	g.start("store", "store", "--data-dir", filepath.Join(g.dir, "data"), "--listen", g.url)
	g.fill()
	g.links()
	return g
}

// fill writes the world into the etcd.
func (g *ground) fill() {
	var err error
	g.etcd, err = clientv3.New(clientv3.Config{Endpoints: []string{g.url}, DialTimeout: 30 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		g.b.Fatal(err)
	}
	g.b.Cleanup(func() { _ = g.etcd.Close() })
	var ops []clientv3.Op
	size := 0
	flush := func() {
		if _, err := g.etcd.Txn(g.b.Context()).Then(ops...).Commit(); err != nil {
			g.b.Fatal(err)
		}
		ops, size = ops[:0], 0
	}
	for e := range g.w.Entries() {
		if len(ops) == 128 || size+len(e.Value) > 1<<20 { // what etcd takes by default
			flush()
		}
		ops, size = append(ops, clientv3.OpPut(e.Key, e.Value)), size+len(e.Value)
	}
	flush()
}

// links makes the host side of the local pods: two at a time, which costs half of
// what pods would.
func (g *ground) links() {
	g.ns.MustDo(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet([]byte{172, 16, 1, 0})}); err != nil {
			return err
		}
		for i := 0; i < g.w.Local; i += 2 {
			if err := pair(g.w.Link(i), g.w.Link(i+1)); err != nil {
				return err
			}
		}
		return nil
	})
}

// pair makes two links that are joined to each other, up.
func pair(a, b string) error {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}); err != nil {
		return err
	}
	for _, name := range []string{a, b} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// start starts weft in the namespace, to be killed when the benchmark ends.
func (g *ground) start(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(g.weft, args...)
	cmd.Env = append(os.Environ(), "ETCD_ENDPOINTS="+g.url, "NODENAME="+world.Node, "IP=172.16.1.0/16", "CALICO_NETWORKING_BACKEND=none",
		"CALICO_NODENAME_FILE="+filepath.Join(g.dir, "nodename"), "WEFT_AGENT_SOCKET="+filepath.Join(g.dir, "agent.sock"),
		"WEFT_STATUS_SOCKET="+g.status(), "WEFT_CNI_QUEUE="+filepath.Join(g.dir, "del"))
	log, err := os.Create(filepath.Join(g.dir, name+".log"))
	if err != nil {
		g.b.Fatal(err)
	}
	cmd.Stderr = log
	if err := g.ns.Start(cmd); err != nil {
		g.b.Fatal(err)
	}
	g.b.Cleanup(func() {
		_ = log.Close()
		g.kill(cmd)
	})
	return cmd
}

func (g *ground) kill(cmd *exec.Cmd) {
	if cmd != nil && cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

func (g *ground) status() string { return filepath.Join(g.dir, "status.sock") }

// cost is what it took an agent to start.
type cost struct {
	wall, cpu time.Duration
	peak      int // kB resident, at most
}

// startAgent starts an agent, after it killed the one that ran, and waits until
// it is ready and has stopped to change the packet filter; the time is that of the
// later one.
func (g *ground) startAgent() cost {
	g.kill(g.agent)
	generation := g.generation()
	last := generation()
	began := time.Now()
	changed := began
	g.agent = g.start("node", "node", "run")
	ready := time.Duration(0)
	for end := began.Add(time.Minute); ready == 0 || time.Since(changed) < 500*time.Millisecond; time.Sleep(2 * time.Millisecond) {
		if now := generation(); now != last {
			last, changed = now, time.Now()
		}
		if ready == 0 && g.isReady() {
			ready = time.Since(began)
			changed = time.Now()
		}
		if time.Now().After(end) {
			log, _ := os.ReadFile(filepath.Join(g.dir, "node.log"))
			g.b.Fatalf("the agent does not get ready; its log:\n%s", log)
		}
	}
	var s agent.Status
	if err := run.Fetch(g.b.Context(), g.status(), "status", &s); err != nil || s.PID != g.agent.Process.Pid || s.Kernel.Links != g.w.Local {
		g.b.Fatalf("the agent is not as it must be: %v, %+v", err, s)
	}
	return cost{changed.Sub(began), g.cpu(), g.memory("VmHWM:")}
}

// isReady asks the agent in the cheapest way there is.
func (g *ground) isReady() bool {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", g.status())
		},
	}}
	resp, err := client.Get("http://agent/readiness")
	if err != nil {
		return false
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode == http.StatusOK
}

// generation makes a function that reads the generation of the namespace's packet
// filter, a number that goes up with each transaction.
func (g *ground) generation() func() uint32 {
	var s *nl.Socket
	g.ns.MustDo(func() (err error) {
		s, err = nl.Open(nl.Options{Protocol: unix.NETLINK_NETFILTER})
		return err
	})
	g.b.Cleanup(func() { _ = s.Close() })
	return func() uint32 {
		req := nl.AppendHeader(nil, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, unix.NLM_F_REQUEST, s.Next())
		req = append(req, make([]byte, 4)...) // struct nfgenmsg
		nl.EndMessage(req, 0)
		if err := s.Send(req); err != nil {
			g.b.Fatal(err)
		}
		datagram, err := s.Read()
		if err != nil {
			g.b.Fatal(err)
		}
		for m := range nl.Messages(datagram) {
			for typ, v := range nl.Attributes(m.Body[4:]) {
				if typ == unix.NFTA_GEN_ID {
					return nl.BE32(v)
				}
			}
		}
		g.b.Fatal("the kernel does not tell the generation of its packet filter")
		return 0
	}
}

// memory is a line of the agent's /proc/PID/status, kB.
func (g *ground) memory(field string) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.agent.Process.Pid))
	if err != nil {
		g.b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), field)
	var kB int
	if _, err := fmt.Sscan(after, &kB); err != nil {
		g.b.Fatal(err)
	}
	return kB
}

// cpu is the time that the agent's threads have run, in steps of a nanosecond.
func (g *ground) cpu() time.Duration {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", g.agent.Process.Pid))
	if err != nil || len(threads) == 0 {
		g.b.Fatal("no threads", err)
	}
	var sum time.Duration
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread ended
		}
		var ns int64
		if _, err := fmt.Sscan(string(text), &ns); err != nil {
			g.b.Fatal(path, err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

// measureStart measures the start of an agent b.N times.
func measureStart(b *testing.B, again bool) {
	g := newGround(b, world.Large())
	if again {
		g.startAgent()
	}
	var sum cost
	for i := range b.N {
		if i > 0 && !again {
			g.clearKernel()
		}
		c := g.startAgent()
		if i == b.N-1 {
			time.Sleep(12 * time.Second) // what the start took is given back by then
		}
		sum.wall, sum.cpu = sum.wall+c.wall, sum.cpu+c.cpu
		sum.peak = max(sum.peak, c.peak)
	}
	b.ReportMetric(float64(sum.wall.Milliseconds())/float64(b.N), "wall-ms/op")
	b.ReportMetric(float64(sum.cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(sum.peak)/1024, "peak-MB")
	b.ReportMetric(float64(g.memory("VmRSS:"))/1024, "rss-MB")
	b.ReportMetric(0, "ns/op")
}

// clearKernel removes what an agent left, so that the next one begins from nothing.
func (g *ground) clearKernel() {
	nft := testenv.Need(g.b, "nft")
	g.kill(g.agent)
	g.ns.MustDo(func() error {
		if out, err := exec.Command(nft, "flush", "ruleset").CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: 80}, netlink.RT_FILTER_PROTOCOL)
		for _, r := range routes {
			if err := netlink.RouteDel(&r); err != nil {
				return err
			}
		}
		return err
	})
}

// BenchmarkStart has an agent begin the day in the large world, in a kernel that
// has nothing but the links.
func BenchmarkStart(b *testing.B) { measureStart(b, false) }

// BenchmarkRestart is the same where the kernel is right already.
func BenchmarkRestart(b *testing.B) { measureStart(b, true) }

// BenchmarkIdle reports what an agent with 100,000 endpoints takes of a core
// while nothing happens, during 20 s.
func BenchmarkIdle(b *testing.B) {
	w := world.Large()
	w.Remote = 99_000
	g := newGround(b, w)
	g.startAgent()
	time.Sleep(2 * time.Second)
	const span = 20 * time.Second
	for range b.N {
		before := g.cpu()
		time.Sleep(span)
		b.ReportMetric(100*float64(g.cpu()-before)/float64(span), "%core")
	}
	b.ReportMetric(float64(g.memory("VmRSS:"))/1024, "rss-MB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSnapshot reads the large world from the store, parsed, and does nothing
// with it: the part of a start that no decider can avoid.
func BenchmarkSnapshot(b *testing.B) {
	g := newGround(b, world.World{Remote: 51_000, Namespaces: 200, Policies: 1000})
	c, err := etcd.ConfigFromEnv(func(name string) string { return map[string]string{"ETCD_ENDPOINTS": g.url}[name] })
	if err != nil {
		b.Fatal(err)
	}
	s, err := etcd.Open(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	b.ReportAllocs()
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		endpoints, invalid := 0, 0
		for batch, err := range s.Watch(ctx) {
			if err != nil {
				b.Fatal(err)
			}
			invalid += len(batch.Invalids)
			for _, v := range batch.Puts {
				if _, ok := v.(model.Endpoint); ok {
					endpoints++
				}
			}
			if batch.Synced {
				break
			}
		}
		cancel()
		if endpoints != 51_000 || invalid > 0 {
			b.Fatal(endpoints, invalid)
		}
	}
}
