package bench_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/testenv"
)

// cniNode is a node with the real agent, an embedded etcd and the executable.
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
	n.build(n.program, "weft-cni")
	socket := filepath.Join(dir, "agent.sock")
	n.env = []string{"WEFT_AGENT_SOCKET=" + socket, "WEFT_CNI_QUEUE=" + filepath.Join(dir, "del"), "CNI_PATH=" + dir, "CNI_IFNAME=eth0"}
	n.serve(dir, socket)
	return n
}

func (n *cniNode) build(program, command string) {
	n.b.Helper()
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/weft-net/weft/cmd/"+command)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		n.b.Fatalf("%v: %s", err, out)
	}
}

// serve starts the agent and an etcd that keeps its data where tests have their
// temporary files.
func (n *cniNode) serve(dir, socket string) {
	n.b.Helper()
	weft := filepath.Join(dir, "weft")
	n.build(weft, "weft")
	etcd := "unix://" + filepath.Join(dir, "etcd.sock")
	testenv.Veth(n.b, n.ns, "eth0", []string{"172.16.0.1/24"}, testenv.Netns(n.b), "eth0", []string{"172.16.0.2/24"})
	env := []string{
		"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=" + etcd, "NODENAME=node-a", "IP=autodetect", "IP_AUTODETECTION_METHOD=interface=eth0",
		"CALICO_IPV4POOL_CIDR=10.65.0.0/16", "CALICO_IPV4POOL_IPIP=Never", "CALICO_IPV6POOL_CIDR=none", "WEFT_AGENT_SOCKET=" + socket,
		"WEFT_STATUS_SOCKET=" + filepath.Join(dir, "status.sock"), "WEFT_CNI_QUEUE=" + filepath.Join(dir, "del"), "HOME=" + dir,
	}
	n.start(weft, env, "store", "--data-dir", filepath.Join(dir, "store"), "--listen", etcd)
	n.await("the datastore", func() error { _, err := os.Stat(strings.TrimPrefix(etcd, "unix://")); return err })
	n.start(weft, env, "node", "run")
	n.await("the agent", func() error { return rpc.Client{Socket: socket}.Status(n.b.Context(), rpc.StatusRequest{}) })
}

// await returns when ready does not fail any more.
func (n *cniNode) await(what string, ready func() error) {
	n.b.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) { // real processes start
		err := ready()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.b.Fatalf("%s does not become ready: %v", what, err)
		}
	}
}

// start runs a daemon on the node until the test ends.
func (n *cniNode) start(program string, env []string, args ...string) {
	n.b.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = env
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := n.ns.Start(cmd); err != nil {
		n.b.Fatal(err)
	}
	n.b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || n.b.Failed() {
			n.b.Logf("%s %v: %v\n%s", filepath.Base(program), args, err, &log)
		}
	})
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
// 100 at once, with the node agent and an embedded etcd. Targets: ADD median at
// most 12 ms, 99th percentile 40 ms; 10 at once 60 ms each; 100 at once 1.5 s in
// all; program 10 MiB, in memory 20 MiB. The kernel has one lock for all network
// changes of the machine, so run it while nothing else makes namespaces.
func BenchmarkCNI(b *testing.B) {
	for _, atOnce := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("at-once=%d", atOnce), func(b *testing.B) { benchmarkCNI(b, newCNINode(b), atOnce) })
	}
}

func benchmarkCNI(b *testing.B, n *cniNode, atOnce int) {
	var adds, dels, all []time.Duration
	// The rounds share their pods' namespaces: what the kernel does for a link
	// grows with the namespaces that there are.
	pods := make([]*testenv.Namespace, atOnce)
	for i := range pods {
		pods[i] = testenv.Netns(b)
	}
	n.together("ADD", -1, pods) // the node claims its blocks
	n.together("DEL", -1, pods)
	n.settle()
	for round := 0; b.Loop(); round++ {
		took, total := n.together("ADD", round, pods)
		adds, all = append(adds, took...), append(all, total)
		b.StopTimer()
		took, _ = n.together("DEL", round, pods)
		dels = append(dels, took...)
		n.settle()
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
}

// settle waits until the agent has deleted the links of the last round, which
// keeps the kernel's lock busy after DEL has returned.
func (n *cniNode) settle() {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var links []netlink.Link
		err := n.ns.Do(func() (err error) { links, err = netlink.LinkList(); return err })
		if err == nil && len(links) <= 2 { // lo and eth0
			return
		}
		if time.Now().After(deadline) {
			n.b.Fatalf("%d links stay after DEL: %v", len(links)-2, err)
		}
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
