package lab_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/lab"
	"github.com/weft-net/weft/internal/store/etcd/server"
	"github.com/weft-net/weft/internal/testenv"
)

// TestMain lets the test binary stand in for weft and weft-cni: the holder and
// the store are the real ones, the node agent and the CNI executable are fakes
// that know just enough. The real ones run in test/e2e.
func TestMain(m *testing.M) {
	var err error
	switch args := strings.Join(os.Args[1:], " "); {
	case args == strings.Join(lab.HoldCommand(), " "):
		err = lab.Hold(lab.HolderFiles())
	case strings.HasPrefix(args, "store "):
		err = fakeStore(os.Args[2:])
	case args == "node run":
		err = fakeAgent()
	case filepath.Base(os.Args[0]) == "calico":
		err = fakeCNI()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fakeStore(args []string) error {
	s, err := server.Start(context.Background(), server.Config{Dir: args[1], ClientURLs: []string{args[3]}, Volatile: true})
	if err != nil {
		return err
	}
	return <-s.Err()
}

// fakeAgent serves the CNI socket and does nothing with it.
func fakeAgent() error {
	if os.Getenv("FAKE") == "broken" {
		return errors.New("agent: FAKE: \"broken\": must be something else")
	}
	l, err := rpc.Listen(os.Getenv("WEFT_AGENT_SOCKET"))
	if err != nil {
		return err
	}
	return rpc.Serve(context.Background(), l, nothing{}, slog.New(slog.DiscardHandler))
}

type nothing struct{}

func (nothing) Add(context.Context, rpc.AddRequest) (rpc.AddResponse, error) {
	return rpc.AddResponse{}, nil
}
func (nothing) Del(context.Context, rpc.DelRequest) error       { return nil }
func (nothing) Check(context.Context, rpc.CheckRequest) error   { return nil }
func (nothing) Status(context.Context, rpc.StatusRequest) error { return nil }
func (nothing) GC(context.Context, rpc.GCRequest) (rpc.GCResponse, error) {
	return rpc.GCResponse{}, nil
}

// fakeCNI joins a pod to its node and gives it the address it asked for; it
// serves pods of one node only.
func fakeCNI() error {
	var conf struct {
		Args struct {
			CNI struct {
				IPs    []netip.Addr
				Labels []struct{ Key, Value string }
			}
		}
	}
	if err := json.NewDecoder(os.Stdin).Decode(&conf); err != nil {
		return err
	}
	if len(conf.Args.CNI.IPs) == 0 {
		fmt.Println(`{"code": 100, "msg": "ipam: pools exhausted", "details": "fake"}`)
		os.Exit(1)
	}
	addr := conf.Args.CNI.IPs[0]
	pod, err := netns.GetFromPath(os.Getenv("CNI_NETNS"))
	if err != nil {
		return err
	}
	link := fmt.Sprintf("cali%d", addr.As4()[3])
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(pod))}); err != nil {
		return err
	}
	if err := fakeHost(link, addr); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := netns.Set(pod); err != nil {
		return err
	}
	if err := fakePod(addr); err != nil {
		return err
	}
	fmt.Printf(`{"cniVersion": "1.0.0", "interfaces": [{"name": %q}, {"name": "eth0", "sandbox": "x"}], "ips": [{"address": "%v/32"}]}`, link, addr)
	return nil
}

func fakeHost(link string, addr netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0),
		os.WriteFile("/proc/sys/net/ipv4/conf/"+link+"/proxy_arp", []byte("1"), 0),
		os.WriteFile("/proc/sys/net/ipv4/neigh/"+link+"/proxy_delay", []byte("0"), 0),
		netlink.LinkSetUp(l),
		netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}}),
	)
}

func fakePod(addr netip.Addr) error {
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	gateway := &net.IPNet{IP: net.IPv4(169, 254, 1, 1).To4(), Mask: net.CIDRMask(32, 32)}
	return errors.Join(
		netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}}),
		netlink.LinkSetUp(eth0),
		netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: gateway}),
		netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.IP}),
	)
}

// spec is a lab of the test's own, made of fakes.
func spec(t *testing.T, topology string) lab.Spec {
	t.Helper()
	testenv.Need(t, "ip")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.MkdirTemp("/tmp", "lab") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	dir, err := lab.DirFor("test", func(name string) string { return map[string]string{"WEFT_LAB_DIR": base}[name] })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := dir.Down(context.Background()); err != nil {
			t.Errorf("down: %v", err)
		}
	})
	return lab.Spec{Name: "test", Dir: dir, File: "lab.yaml", Topology: []byte(topology), Executable: exe, CNI: exe, Environ: os.Environ()}
}

func up(t *testing.T, s lab.Spec, lease bool) *lab.Lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // in emulation, beside others
	defer cancel()
	l, err := lab.Up(ctx, s, lease, func(step string) { t.Log(step) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close) // and until then the lease is not garbage
	return l
}

const small = `
racks: [{name: r1, subnets: [10.1.0.0/24, 'fd00:1::/64']}, {name: r2, subnets: [10.2.0.0/24, 'fd00:2::/64']}]
nodes: [{name: a, rack: r1, labels: {zone: east}}, {name: b, rack: r2}]
pods:
- {name: p, node: a, addresses: [192.168.0.1]}
- {name: q, node: a, addresses: [192.168.0.2]}
resources:
- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: blue}, spec: {cidr: 192.168.0.0/16}}
expect:
- reachable: {from: nodes, to: nodes}
- reachable: {from: pod/default/p, to: [pod/default/q, a]}
- unreachable: {from: b, to: pods}
- unreachable: {from: a, to: 198.51.100.1}
- route: {at: a, line: 192.168.0.1 dev cali1 scope link}
- {route: {at: b, line: default via fd00:2::1 dev eth0}, within: 500ms}
- noRoute: {at: b, line: 192.168.* dev * scope link}
`

// TestLife brings a lab up, looks at it from all sides, and takes it down.
// Whoever asks for a lab and changes their mind at any step of it (Ctrl-C) gets an
// error that says so, and nothing is left when they do.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		s := spec(t, small)
		ctx, cancel := context.WithCancelCause(t.Context())
		steps := 0
		l, err := lab.Up(ctx, s, false, func(string) {
			if steps++; steps == n {
				cancel(errors.New("interrupt signal received"))
			}
		})
		if steps < n { // it has no more steps
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Dir.Down(t.Context()); err != nil {
				t.Error(err)
			}
			return
		}
		if err == nil { // the last step was the end of it
			if _, err := l.Dir.Down(t.Context()); err != nil {
				t.Error(err)
			}
		} else if !strings.Contains(err.Error(), "interrupt signal received") {
			t.Errorf("interrupted at step %d: %v", n, err)
		}
		if err == nil && n == 1 {
			t.Error("interrupted at the first step, the lab came up all the same")
		}
		if _, err := os.Stat(string(s.Dir)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("interrupted at step %d, %s is still there: %v", n, s.Dir, err)
		}
	}
}

// A lab that is just coming up is taken down as soon as it can be.
func TestDownWhileComingUp(t *testing.T) {
	t.Parallel()
	s := spec(t, small)
	begun, done := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	go func() {
		defer close(done)
		_, _ = lab.Up(t.Context(), s, false, func(string) { begin() })
	}()
	<-begun
	if was, err := s.Dir.Down(t.Context()); err != nil || !was {
		t.Errorf("down: %v, %v", was, err)
	}
	<-done
	if _, err := os.Stat(string(s.Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", s.Dir, err)
	}
}

func TestLife(t *testing.T) {
	t.Parallel()
	s := spec(t, small)
	s.Patience = 10
	ctx := t.Context()
	l := up(t, s, false)

	status, err := l.Dir.StatusOf(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	_, _ = status.WriteTo(&text)
	for _, want := range []string{"a      r1     10.1.0.11,fd00:1::b   ready", "pod/default/q   a      192.168.0.2   cali2"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("status lacks %q:\n%s", want, text.String())
		}
	}
	report, err := l.Dir.Check(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	text.Reset()
	_, _ = report.WriteTo(&text)
	for i, r := range report.Results {
		if want := i != 5; r.Passed != want { // ip prints more words on that line
			t.Errorf("%s: passed %v, want %v", r.Expectation, r.Passed, want)
		}
	}
	if !strings.Contains(text.String(), "not within 5s: b has: default via 10.2.0.1 dev eth0; ") {
		t.Errorf("no reason for the line that is not there:\n%s", text.String())
	}
	if _, err := lab.Up(ctx, s, false, nil); err == nil || !strings.Contains(err.Error(), "it is up already") {
		t.Errorf("a second one of that name: got %v", err)
	}
	if was, err := l.Dir.Down(ctx); err != nil || !was {
		t.Errorf("down: %v, %v", was, err)
	}
	if _, err := os.Stat(string(s.Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after down %s is still there: %v", s.Dir, err)
	}
	if _, err := l.Dir.StatusOf(ctx); !errors.Is(err, lab.ErrDown) {
		t.Errorf("status after down: got %v, want %v", err, lab.ErrDown)
	}
}

// run executes a command in the lab and returns its output and exit code.
func run(t *testing.T, d lab.Dir, target string, argv ...string) (string, int) {
	t.Helper()
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	code, err := d.Exec(t.Context(), lab.Command{Target: target, Argv: argv, Cwd: "/", Environ: os.Environ(), Stdin: null, Stdout: out, Stderr: out})
	if err != nil {
		t.Fatalf("exec %s: %v", target, err)
	}
	body, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(body), code
}

// TestExec runs commands in every sort of target.
func TestExec(t *testing.T) {
	t.Parallel()
	d := up(t, spec(t, small), true).Dir
	for name, tt := range map[string]struct {
		target string
		argv   []string
		want   string
		code   int
	}{
		"node":        {"a", []string{"ip", "-4", "-br", "addr", "show", "eth0"}, "10.1.0.11/24", 0},
		"pod":         {"pod/default/p", []string{"ip", "-4", "-br", "addr"}, "192.168.0.1/32", 0},
		"fabric":      {"fabric", []string{"ip", "-br", "link"}, "rack2", 0},
		"sysfs":       {"pod/default/p", []string{"sh", "-c", "ls /sys/class/net"}, "eth0\nlo", 0},
		"exit code":   {"b", []string{"sh", "-c", "exit 7"}, "", 7},
		"environment": {"a", []string{"sh", "-c", "echo $NODENAME $ETCD_ENDPOINTS"}, "a " + d.Endpoint(), 0},
		"processes":   {"b", []string{"sh", "-c", "readlink /proc/1/exe"}, "lab.test", 0},
	} {
		t.Run(name, func(t *testing.T) {
			out, code := run(t, d, tt.target, tt.argv...)
			if !strings.Contains(out, tt.want) || code != tt.code {
				t.Errorf("got exit code %d and %q, want %d and %q", code, out, tt.code, tt.want)
			}
		})
	}
	_, err := d.Exec(t.Context(), lab.Command{Target: "nobody", Argv: []string{"true"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr})
	if err == nil || !strings.Contains(err.Error(), `"nobody": the lab has no such target: must be a, b, fabric, pod/default/p`) {
		t.Errorf("unknown target: got %v", err)
	}
}

// TestStopAndStart ends a node agent, sees it in the status, and starts it again.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	d := up(t, spec(t, "nodes: [{name: a}]"), true).Dir
	state := func() string {
		s, err := d.StatusOf(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Nodes[0].State
	}
	if err := d.Stop(t.Context(), "a", true); err != nil || state() != lab.StateStopped {
		t.Errorf("stop: %v, then %s", err, state())
	}
	if err := d.Stop(t.Context(), "a", true); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("stop again: got %v", err)
	}
	if err := d.Start(t.Context(), "a"); err != nil || state() != lab.StateReady {
		t.Errorf("start: %v, then %s", err, state())
	}
	s, err := d.StatusOf(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, d, "a", "sh", "-c", fmt.Sprintf("kill -9 %d", s.Nodes[0].PID)); code != 0 {
		t.Fatalf("kill: exit code %d: %s", code, out)
	}
	for deadline := time.Now().Add(testenv.Patience); state() != lab.StateFailed; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("a killed node is %s, want %s", state(), lab.StateFailed)
		}
	}
}

// holderOf is the PID of the holder, as seen from here.
func holderOf(t *testing.T, d lab.Dir) int {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range all {
		cmdline, _ := os.ReadFile(proc + "/cmdline")
		mounts, _ := os.ReadFile(proc + "/mountinfo")
		if strings.HasPrefix(string(cmdline), "weft-lab:test\x00") && strings.Contains(string(mounts), string(d)+"/netns") {
			n := 0
			_, _ = fmt.Sscanf(proc, "/proc/%d", &n)
			return n
		}
	}
	t.Fatal("no holder found")
	return 0
}

// TestKilled kills the holder, as an out-of-memory killer would: no process may
// be left, and down cleans the directory.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := spec(t, small)
	up(t, s, false)
	pid := holderOf(t, s.Dir)
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		t.Fatal(err)
	}
	if n := inPIDNamespace(namespace); n < 4 {
		t.Fatalf("%d processes in the lab, want at least the holder, the store and 2 nodes", n)
	}
	p, _ := os.FindProcess(pid)
	_ = p.Kill()
	_, _ = p.Wait()
	if n := inPIDNamespace(namespace); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	if _, err := s.Dir.StatusOf(t.Context()); !errors.Is(err, lab.ErrDown) {
		t.Errorf("status: got %v, want %v", err, lab.ErrDown)
	}
	if was, err := s.Dir.Down(t.Context()); err != nil || !was {
		t.Errorf("down: %v, %v", was, err)
	}
	if _, err := os.Stat(string(s.Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after down %s is still there", s.Dir)
	}
}

// inPIDNamespace counts processes.
func inPIDNamespace(ns string) int {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/pid")
	n := 0
	for _, l := range links {
		if at, err := os.Readlink(l); err == nil && at == ns {
			n++
		}
	}
	return n
}

// TestLease: the lab of a `lab run` that is killed goes away by itself, with its
// directory.
func TestLease(t *testing.T) {
	t.Parallel()
	s := spec(t, `
nodes: [{name: a}]
pods: # two whose names are the same when joined by a dash
- {namespace: x-y, name: z, node: a, addresses: [192.168.0.1]}
- {namespace: x, name: y-z, node: a, addresses: [192.168.0.2]}
`)
	l := up(t, s, true)
	if n := len(l.Status.Pods); n != 2 {
		t.Errorf("%d pods, want 2", n)
	}
	l.Close()
	if _, err := os.Stat(string(s.Dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there", s.Dir)
	}
}

// TestRouters lets one router learn what another announces, by real BIRDs.
func TestRouters(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird", "birdc")
	d := up(t, spec(t, `
nodes: [{name: a}]
routers:
- name: spine
  addresses: [10.99.1.2]
  asn: 65001
  announce: [203.0.113.0/24, 2001:db8:1::/48]
  loopbacks: [203.0.113.1]
  birdConfig: |
    router id 10.99.1.2;
    protocol device {}
    protocol static { ipv4; route 203.0.113.0/24 blackhole; }
    protocol bgp tor { local 10.99.1.2 as 65001; neighbor 10.99.1.3 as 65002; passive on; ipv4 { import all; export all; }; }
- name: tor
  addresses: [10.99.1.3]
  birdConfig: |
    router id 10.99.1.3;
    protocol device {}
    protocol kernel { ipv4 { export all; }; }
    protocol bgp spine { local 10.99.1.3 as 65002; neighbor 10.99.1.2 as 65001; connect delay time 1; ipv4 { import all; export none; }; }
expect:
- route: {at: tor, line: 203.0.113.0/24 via 10.99.1.2 dev eth0 proto bird metric *}
- reachable: {from: tor, to: 203.0.113.1}
`), true).Dir
	report, err := d.Check(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if !r.Passed {
			t.Errorf("%s: %s", r.Expectation, r.Reason)
		}
	}
	if out, code := run(t, d, "tor", "sh", "-c", "birdc -s $BIRD_SOCKET show protocols"); code != 0 || !strings.Contains(out, "Established") {
		t.Errorf("birdc: exit code %d:\n%s", code, out)
	}
}

// TestOrdinaryUser runs other tests of this file again without root.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	if !testenv.RealRoot() {
		t.Skip("the other tests run as an ordinary user here")
	}
	dir, err := os.MkdirTemp("/tmp", "labuser") // others can read it, unlike go test's
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	exe := filepath.Join(dir, "lab.test")
	own, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []*exec.Cmd{exec.Command("cp", own, exe), exec.Command("chmod", "-R", "a+rX", dir)} {
		if out, err := step.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	const nobody = 65534
	cmd := exec.Command(exe, "-test.run=^(TestLife|TestExec|TestKilled|TestRouters|TestVersion6|TestLossyRack)$", "-test.v")
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "\n--- PASS: Test") != 6 {
		t.Errorf("as an ordinary user: %v, want 6 tests to pass:\n%s", err, out)
	}
}

// TestForeignDirectory: a directory that others may write to is not used.
func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	s := spec(t, "nodes: [{name: a}]")
	if err := os.Chmod(filepath.Dir(string(s.Dir)), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Up(t.Context(), s, true, nil); err == nil || !strings.Contains(err.Error(), "that nobody else may write to") {
		t.Errorf("got %v", err)
	}
}

// TestErrors: what goes wrong on the way up is one line, and leaves nothing.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ topology, want string }{
		"topology": {"nodes: [{nam: a}]", "topology: lab.yaml: nodes[0].nam: no such field"},
		"node":     {"nodes: [{name: a, env: {FAKE: broken}}, {name: b}]", `lab: a: it ended (exit status 1): agent: FAKE: "broken": must be something else`},
		"pod":      {"nodes: [{name: a}]\npods: [{name: p, node: a}]", "lab: pod/default/p: CNI ADD: ipam: pools exhausted: fake"},
		"resource": {"resources: [{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: x}, spec: {cidr: 10.0.0.0/33}}]", "lab: lab.yaml: resources[0]: "},
		"bird":     {"nodes: [{name: a}]\nrouters: [{name: tor, birdConfig: nonsense}]", "lab: tor: it ended (exit status 1): "},
		"bird, after long reading": {
			"nodes: [{name: a}]\nrouters: [{name: tor, birdConfig: \"" + strings.Repeat("# slowly ", 200000) + "\\n nonsense\"}]",
			"lab: tor: it ended (exit status 1): ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if strings.HasPrefix(name, "bird") {
				testenv.Need(t, "bird")
			}
			s := spec(t, tt.topology)
			_, err := lab.Up(t.Context(), s, false, nil)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant one line that starts with %q", err, tt.want)
			}
			if _, err := os.Stat(string(s.Dir)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is still there", s.Dir)
			}
		})
	}
}
