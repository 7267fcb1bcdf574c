package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/testenv"
)

// routeAgent does of a node agent's work what the kernel needs: it gives out
// addresses from memory and writes the host route. So these benchmarks show the
// executable's share and the kernel's, without a datastore's.
type routeAgent struct {
	nl *netlink.Handle

	mu   sync.Mutex
	next uint16
	gave map[rpc.Attachment]netip.Prefix
}

func (a *routeAgent) Add(ctx context.Context, r rpc.AddRequest) (rpc.AddResponse, error) {
	a.mu.Lock()
	addr, ok := a.gave[r.Attachment]
	if !ok {
		a.next++
		addr = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, byte(a.next >> 8), byte(a.next)}), 26)
		a.gave[r.Attachment] = addr
	}
	a.mu.Unlock()
	for {
		link, err := a.nl.LinkByName(r.Endpoint.HostLink)
		if err == nil {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: netlink.NewIPNet(addr.Addr().AsSlice())}
			return rpc.AddResponse{Addrs: []netip.Prefix{addr}}, a.nl.RouteReplace(route)
		}
		select {
		case <-ctx.Done():
			return rpc.AddResponse{}, context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

func (a *routeAgent) Del(_ context.Context, r rpc.DelRequest) error {
	a.mu.Lock()
	delete(a.gave, r.Attachment)
	a.mu.Unlock()
	if r.HostIndex != 0 {
		go func() { _ = a.nl.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: r.HostIndex}}) }()
	}
	return nil
}

func (*routeAgent) Check(context.Context, rpc.CheckRequest) error   { return nil }
func (*routeAgent) Status(context.Context, rpc.StatusRequest) error { return nil }
func (*routeAgent) GC(context.Context, rpc.GCRequest) (rpc.GCResponse, error) {
	return rpc.GCResponse{}, nil
}

// cniNode is a node with an agent and the executable.
type cniNode struct {
	b       testing.TB
	ns      *testenv.Namespace
	program string
	env     []string
}

func newCNINode(b testing.TB) *cniNode {
	b.Helper()
	dir := b.TempDir()
	n := &cniNode{b: b, ns: testenv.Netns(b), program: filepath.Join(dir, "calico")}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", n.program, "github.com/weft-net/weft/cmd/weft-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	socket := filepath.Join(dir, "agent.sock")
	n.env = []string{"WEFT_AGENT_SOCKET=" + socket, "WEFT_CNI_QUEUE=" + filepath.Join(dir, "del"), "CNI_PATH=" + dir, "CNI_IFNAME=eth0"}
	agent := &routeAgent{gave: map[rpc.Attachment]netip.Prefix{}}
	n.ns.MustDo(func() (err error) { agent.nl, err = netlink.NewHandle(); return err })
	listener, err := rpc.Listen(socket)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = rpc.Serve(ctx, listener, agent, slog.New(slog.DiscardHandler)) }()
	b.Cleanup(func() { cancel(); <-done; agent.nl.Close() })
	return n
}

// command is the executable as a runtime starts it.
func (n *cniNode) command(verb, container string, pod *testenv.Namespace) *exec.Cmd {
	cmd := exec.Command(n.program)
	cmd.Env = append(slices.Clone(n.env), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+container, "CNI_NETNS="+pod.Path(),
		"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+container)
	cmd.Stdin = bytes.NewReader([]byte(`{"name":"k8s-pod-network","cniVersion":"1.0.0","type":"calico","ipam":{"type":"calico-ipam"}}`))
	return cmd
}

// run returns how long one run took.
func (n *cniNode) run(verb, container string, pod *testenv.Namespace) (took time.Duration, err error) {
	cmd := n.command(verb, container, pod)
	var out bytes.Buffer
	cmd.Stdout = &out
	err = n.ns.Do(func() error {
		start := time.Now()
		err := cmd.Run()
		took = time.Since(start)
		return err
	})
	if err != nil {
		return took, fmt.Errorf("%s: %w: %s", verb, err, &out)
	}
	return took, nil
}

// resident is the most memory that an ADD held, in bytes, as seen by looking at
// it again and again while it runs. (The number that wait(2) reports includes the
// memory of whoever started the program.)
func (n *cniNode) resident(container string, pod *testenv.Namespace) (most int64) {
	cmd := n.command("ADD", container, pod)
	if err := n.ns.Start(cmd); err != nil {
		n.b.Fatal(err)
	}
	proc := fmt.Sprintf("/proc/%d/", cmd.Process.Pid)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case err := <-done:
			if err != nil {
				n.b.Fatal(err)
			}
			return most
		default:
		}
		status, _ := os.ReadFile(proc + "status")
		if exe, _ := os.Readlink(proc + "exe"); exe != n.program {
			continue // not yet, or not any more
		}
		if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
			if kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64); err == nil {
				most = max(most, kib<<10)
			}
		}
	}
}

// report gives the median and the 99th percentile of took in milliseconds.
func report(b *testing.B, name string, took []time.Duration) {
	slices.Sort(took)
	for p, q := range map[string]int{"p50": len(took) / 2, "p99": len(took) * 99 / 100} {
		b.ReportMetric(float64(took[min(q, len(took)-1)].Microseconds())/1000, name+"-"+p+"-ms")
	}
}

// BenchmarkCNI attaches and detaches one container after the other, and 10 and
// 100 at once. Targets: ADD median at most 12 ms, 99th percentile 40 ms; 10 at
// once 60 ms each; 100 at once 1.5 s in all; program 10 MiB, in memory 20 MiB.
func BenchmarkCNI(b *testing.B) {
	for _, atOnce := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("at-once=%d", atOnce), func(b *testing.B) {
			n := newCNINode(b)
			var adds, dels, all []time.Duration
			round := 0
			for b.Loop() {
				b.StopTimer()
				pods := make([]*testenv.Namespace, atOnce)
				for i := range pods {
					pods[i] = testenv.Netns(b)
				}
				round++
				b.StartTimer()
				took, total := n.together("ADD", round, pods)
				adds, all = append(adds, took...), append(all, total)
				b.StopTimer()
				took, _ = n.together("DEL", round, pods)
				dels = append(dels, took...)
				b.StartTimer()
			}
			report(b, "add", adds)
			report(b, "del", dels)
			report(b, "all", all)
			info, err := os.Stat(n.program)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(info.Size())/(1<<20), "program-MiB")
			b.ReportMetric(float64(n.resident("memory", testenv.Netns(b)))/(1<<20), "resident-MiB")
		})
	}
}

// together runs one verb for all pods at the same time.
func (n *cniNode) together(verb string, round int, pods []*testenv.Namespace) (took []time.Duration, total time.Duration) {
	took = make([]time.Duration, len(pods))
	var wg sync.WaitGroup
	start := time.Now()
	for i, pod := range pods {
		wg.Go(func() {
			var err error
			if took[i], err = n.run(verb, fmt.Sprintf("c%d-%d", round, i), pod); err != nil {
				n.b.Error(err)
			}
		})
	}
	wg.Wait()
	return took, time.Since(start)
}
