package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// helper is what the test binary does inside of a lab.
func helper(args []string) error {
	if len(args) == 3 && args[0] == "ping" {
		to, err := netip.ParseAddr(args[1])
		tries, err2 := strconv.Atoi(args[2])
		if err := errors.Join(err, err2); err != nil {
			return err
		}
		return pingOnce(to, tries)
	}
	if len(args) == 2 && (args[0] == "train" || args[0] == "watch") {
		to, err := netip.ParseAddr(args[1])
		if err != nil {
			return err
		}
		if args[0] == "train" {
			return pingTrain(to)
		}
		return watch(to, os.Stdin, os.Stdout)
	}
	if args[0] == "hear" {
		return hear(args[1:], os.Stdin, os.Stdout)
	}
	if args[0] == "probe" {
		return probes(os.Stdin, os.Stdout)
	}
	if args[0] == "wrap" {
		return wrap(os.Stdin, os.Stdout)
	}
	if len(args) == 1 && args[0] == "runtime" {
		return containers(os.Stdin, os.Stdout)
	}
	return policyHelper(args)
}

// trainEvery is the time between two echo requests of a train.
const trainEvery = time.Millisecond

// trainResult is what became of a train.
type trainResult struct {
	Sent int   // requests
	Lost []int // numbers of those without an answer
}

// pingTrain sends echo requests until standard input ends, waits for what is still to
// come, and prints a trainResult. It prints "ready" after the first answer.
func pingTrain(to netip.Addr) error {
	fd, err := echoSocket(to)
	if err != nil {
		return err
	}
	end := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(end) }()
	var mu sync.Mutex
	got := map[int]bool{}
	arrived := make(chan struct{})
	first := sync.OnceFunc(func() { fmt.Println("ready"); close(arrived) })
	go func() {
		for {
			n, ok := echoReply(fd, to.Is6())
			if !ok {
				continue
			}
			mu.Lock()
			got[n] = true
			mu.Unlock()
			first()
		}
	}()
	r := trainResult{}
	time.AfterFunc(testenv.Patience, func() {
		select {
		case <-arrived:
		default:
			fmt.Printf("%v does not answer\n", to)
			os.Exit(1)
		}
	})
	for tick := time.NewTicker(trainEvery); ; r.Sent++ {
		select {
		case <-end:
			tick.Stop()
			r.Lost = missing(&mu, got, r.Sent)
			return json.NewEncoder(os.Stdout).Encode(r)
		case <-tick.C:
			// A request that the kernel refuses (no route) is lost like any other.
			_ = unix.Sendto(fd, echoRequest(r.Sent, to.Is6()), 0, sockaddr(to))
		}
	}
}

// missing waits for the answers that are under way, and lists what did not come.
func missing(mu *sync.Mutex, got map[int]bool, sent int) []int {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		mu.Lock()
		var lost []int
		for i := range sent {
			if !got[i] {
				lost = append(lost, i)
			}
		}
		mu.Unlock()
		if len(lost) == 0 || time.Now().After(deadline) {
			return lost
		}
	}
}

// pingTries is how often a ping asks that must be answered: for a minute.
const pingTries = 600

// ping is the shell command that succeeds if an address answers.
func ping(to string) string { return pingTimes(to, pingTries) }

// pingTimes is ping with a number of requests, ten a second.
func pingTimes(to string, tries int) string {
	self, err := os.Executable()
	if err != nil {
		panic(err) // it is read from /proc
	}
	return fmt.Sprintf("%s helper ping %s %d", self, to, tries)
}

// pingOnce sends echo requests, that many at most, until one is answered.
func pingOnce(to netip.Addr, tries int) error {
	fd, err := echoSocket(to)
	if err != nil {
		return err
	}
	answered := make(chan struct{})
	go func() {
		for {
			if _, ok := echoReply(fd, to.Is6()); ok {
				close(answered)
				return
			}
		}
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := range tries {
		_ = unix.Sendto(fd, echoRequest(i, to.Is6()), 0, sockaddr(to))
		select {
		case <-answered:
			return nil
		case <-tick.C:
		}
	}
	return fmt.Errorf("%v does not answer", to)
}

func sockaddr(a netip.Addr) unix.Sockaddr {
	if a.Is6() {
		return &unix.SockaddrInet6{Addr: a.As16()}
	}
	return &unix.SockaddrInet4{Addr: a.As4()}
}

func echoSocket(to netip.Addr) (int, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if to.Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return 0, fmt.Errorf("raw socket: %w", err)
	}
	// A second of answers, when this process is not run for a while.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	return fd, unix.Connect(fd, sockaddr(to))
}

// Types of ICMP and ICMPv6 messages, RFC 792 and RFC 4443.
const (
	echo4, echoReply4 = 8, 0
	echo6, echoReply6 = 128, 129
)

// echoRequest is a request with the number in its data; the kernel fills in the
// checksum of ICMPv6.
func echoRequest(n int, v6 bool) []byte {
	b := make([]byte, 16)
	b[0] = echo4
	if v6 {
		b[0] = echo6
	}
	binary.BigEndian.PutUint16(b[4:], uint16(os.Getpid()))
	binary.BigEndian.PutUint16(b[6:], uint16(n))
	binary.BigEndian.PutUint64(b[8:], uint64(n))
	if !v6 {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// echoReply reads one message and gives the number in it, if it answers us.
func echoReply(fd int, v6 bool) (int, bool) {
	b := make([]byte, 256)
	n, err := unix.Read(fd, b)
	if err != nil {
		return 0, false
	}
	b = b[:n]
	want := byte(echoReply6)
	if !v6 {
		want = echoReply4
		if len(b) < 20 || len(b) < int(b[0]&15)*4 {
			return 0, false
		}
		b = b[int(b[0]&15)*4:] // the IP header
	}
	if len(b) < 16 || b[0] != want || binary.BigEndian.Uint16(b[4:]) != uint16(os.Getpid()) {
		return 0, false
	}
	return int(binary.BigEndian.Uint64(b[8:])), true
}

// startTrain sends echo requests from a pod until the returned function is called,
// which gives what was lost.
func (c *cluster) startTrain(fromPod, to string) func() trainResult {
	c.t.Helper()
	p := c.help("pod/default/"+fromPod, "train", to)
	if got := p.read(); got != "ready" {
		c.t.Fatalf("train: %s", got)
	}
	return func() trainResult {
		c.t.Helper()
		p.stdin.Close()
		var r trainResult
		if err := json.Unmarshal([]byte(p.read()), &r); err != nil {
			c.t.Fatal(err)
		}
		return r
	}
}

// noLoss ends a train and fails the test unless every request was answered.
func noLoss(t testing.TB, what string, end func() trainResult) {
	t.Helper()
	r := end()
	if len(r.Lost) > 0 {
		t.Errorf("%s: %d of %d lost, number %d first and %d last", what, len(r.Lost), r.Sent, r.Lost[0], r.Lost[len(r.Lost)-1])
	}
	t.Logf("%s: %d echoes, %d lost", what, r.Sent, len(r.Lost))
}

// cniCall asks the runtime for one CNI command in each of some containers, all at
// once, or for a program in each.
type cniCall struct {
	Containers []string
	Program    string            // the CNI executable
	Command    string            // ADD, DEL …
	Conf       []byte            // on its standard input
	Env        []string          // beside what the standard asks for
	Netns      map[string]string // instead of the container's own, by name
	Exec       []string          // run this in the container's namespace instead
	KillEvery  time.Duration     // kill the first one after this time, the second after twice this time …
}

// cniAnswer is what came of it in one container.
type cniAnswer struct {
	Container string
	Code      int
	Stdout    string
	Stderr    string
	Took      time.Duration
	Routed    bool // ADD: when it returned, the kernel had a route to each address
}

// containers is a container runtime as far as CNI sees one: it makes network
// namespaces, keeps them, and runs plugins. It reads a cniCall a line and answers
// each with a line of cniAnswers.
func containers(in io.Reader, out io.Writer) error {
	spaces := map[string]netns.NsHandle{}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var call cniCall
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			return err
		}
		for _, name := range call.Containers {
			if _, ok := spaces[name]; ok {
				continue
			}
			ns, err := newNetns()
			if err != nil {
				return fmt.Errorf("namespace of %s: %w", name, err)
			}
			spaces[name] = ns
		}
		answers := make([]cniAnswer, len(call.Containers))
		var wait sync.WaitGroup
		for i, name := range call.Containers {
			wait.Go(func() { answers[i] = call.run(name, spaces[name], time.Duration(i+1)*call.KillEvery) })
		}
		wait.Wait()
		if err := json.NewEncoder(out).Encode(answers); err != nil {
			return err
		}
	}
	return lines.Err()
}

func newNetns() (ns netns.NsHandle, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is in another namespace
		if ns, err = netns.New(); err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
	}()
	<-done
	return ns, err
}

// areRouted reports whether the node has a route to every address of a CNI result.
func areRouted(stdout string) bool {
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if json.Unmarshal([]byte(stdout), &result) != nil || len(result.IPs) == 0 {
		return false
	}
	for _, ip := range result.IPs {
		a := ip.Address.Addr()
		var routes []netlink.Route
		var err error = netlink.ErrDumpInterrupted // the table may change while it is read
		for errors.Is(err, netlink.ErrDumpInterrupted) {
			routes, err = netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{
				Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
			}, netlink.RT_FILTER_DST)
		}
		if err != nil || len(routes) == 0 {
			return false
		}
	}
	return true
}

// run carries the call out in one container, and kills it after a time that is not 0.
func (call cniCall) run(name string, ns netns.NsHandle, kill time.Duration) cniAnswer {
	path, id := fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns)), "id-"+name
	if other, ok := call.Netns[name]; ok {
		path = other
	}
	argv := []string{call.Program}
	if len(call.Exec) > 0 {
		argv = append([]string{"nsenter", "--net=" + path, "--"}, call.Exec...)
	}
	ctx := context.Background()
	if kill > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, kill)
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(call.Conf)
	cmd.Env = slices.Concat(os.Environ(), []string{
		"CNI_COMMAND=" + call.Command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + path, "CNI_IFNAME=eth0", "CNI_PATH=/nowhere",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name + ";K8S_POD_INFRA_CONTAINER_ID=" + id,
	}, call.Env)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	routed := err == nil && call.Command == "ADD" && areRouted(stdout.String())
	a := cniAnswer{Routed: routed, Container: name, Took: time.Since(start), Stdout: stdout.String(), Stderr: stderr.String()}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		a.Code = exit.ExitCode()
	} else if err != nil {
		a.Code, a.Stderr = -1, err.Error()
	}
	return a
}
