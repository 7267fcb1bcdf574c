// Package testenv tells tests what the machine they run on can do, and gives
// them network namespaces of their own.
//
// A test that needs a program, root, or a kernel feature asks for it first. If
// it is missing the test is skipped, and the reason is printed; where the
// machine is known to have everything (CI), WEFT_NO_SKIP=1 turns each such skip
// into a failure, so that a test cannot disappear unnoticed.
//
// A namespace is a handle on an anonymous network namespace. It lives as long
// as the test. Code that must run inside goes through Namespace.Do, which takes
// an OS thread, moves it, and lets the runtime destroy the thread afterwards:
// a thread that was once inside is never given back to other goroutines.
// Sockets and netlink handles made inside stay inside wherever they are used.
//
// The package is for tests only; no product package imports it.
package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Skip skips the test for the given reason, or fails it if WEFT_NO_SKIP is set.
func Skip(t testing.TB, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...)
	if os.Getenv("WEFT_NO_SKIP") != "" {
		t.Fatalf("cannot run here, and WEFT_NO_SKIP is set: %s", reason)
	}
	t.Skipf("SKIPPED: %s", reason)
}

// Need skips the test unless each program is in PATH, where Debian keeps
// daemons (/usr/sbin) included, and returns the path of the first.
func Need(t testing.TB, programs ...string) string {
	t.Helper()
	var first string
	for _, name := range programs {
		path, err := exec.LookPath(name)
		for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
			if err != nil {
				path, err = exec.LookPath(dir + name)
			}
		}
		if err != nil {
			Skip(t, "program %s is not installed", name)
		}
		if first == "" {
			first = path
		}
	}
	return first
}

// NeedRoot skips the test unless it may create network namespaces.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "not root; run it under: unshare -Urnm")
	}
}

// Namespace is a network namespace that is the test's own.
type Namespace struct {
	t testing.TB
	h netns.NsHandle
}

// Netns makes a namespace with its loopback up. It needs root, real or of a
// user namespace, and is gone when the test ends.
func Netns(t testing.TB) *Namespace {
	t.Helper()
	NeedRoot(t)
	n := &Namespace{t: t}
	err := onThread(func() (err error) {
		if n.h, err = netns.New(); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		Skip(t, "cannot make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = n.h.Close() })
	return n
}

// Do runs f inside the namespace, on a thread of its own, and returns its
// error. Goroutines that f starts are not inside. As f runs on another
// goroutine it must return an error rather than call t.Fatal.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(n.h); err != nil {
			return fmt.Errorf("netns: enter: %w", err)
		}
		return f()
	})
}

// MustDo is Do for set-up steps: an error fails the test at once.
func (n *Namespace) MustDo(f func() error) {
	n.t.Helper()
	if err := n.Do(f); err != nil {
		n.t.Fatal(err)
	}
}

// Start starts cmd inside the namespace. The caller waits for it.
func (n *Namespace) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Run runs a program inside, with these arguments, and gives what it printed on both
// outputs, without the blanks that iproute2 puts at the ends of lines. Need finds it.
func (n *Namespace) Run(program string, args ...string) (string, error) {
	n.t.Helper()
	var out strings.Builder
	cmd := exec.Command(Need(n.t, program), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.Start(cmd); err != nil {
		return "", err
	}
	err := cmd.Wait()
	var trimmed strings.Builder
	for line := range strings.Lines(out.String()) {
		text, newline := strings.CutSuffix(line, "\n")
		trimmed.WriteString(strings.TrimRight(text, " "))
		if newline {
			trimmed.WriteByte('\n')
		}
	}
	return trimmed.String(), err
}

// MustRun is Run for set-up steps: an error fails the test at once.
func (n *Namespace) MustRun(program string, args ...string) string {
	n.t.Helper()
	out, err := n.Run(program, args...)
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// Keep runs inside what open returns, until the test, or the returned function, ends it
// by its context. An error of open fails the test at once.
func (n *Namespace) Keep(open func() (run func(context.Context) error, err error)) (stop func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	opened, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		entered := n.Do(func() error {
			run, err := open()
			opened <- err
			if err == nil {
				_ = run(ctx) // the end of ctx is how it ends
			}
			return nil
		})
		if entered != nil {
			opened <- entered
		}
	}()
	if err := <-opened; err != nil {
		cancel()
		n.t.Fatal(err)
	}
	stop = func() { cancel(); <-done }
	n.t.Cleanup(stop)
	return stop
}

// Handle is the open descriptor of the namespace, for netlink.NewHandleAt and
// the like. It is closed when the test ends.
func (n *Namespace) Handle() netns.NsHandle { return n.h }

// Path names the namespace for programs that want a file, such as nsenter or a
// CNI plugin, as long as this process lives.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.h)) }

// Veth joins a and b by a veth pair whose ends have the given names and
// addresses ("10.0.0.1/24", "fd00::1/64"; no duplicate address detection), up.
func Veth(t testing.TB, a *Namespace, aName string, aAddrs []string, b *Namespace, bName string, bAddrs []string) {
	t.Helper()
	a.MustDo(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: aName, MTU: 1500},
			PeerName:  bName, PeerNamespace: netlink.NsFd(b.h),
		})
	})
	a.MustDo(func() error { return linkUp(aName, aAddrs) })
	b.MustDo(func() error { return linkUp(bName, bAddrs) })
}

func linkUp(name string, addrs []string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	for _, s := range addrs {
		addr, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		if addr.IP.To4() == nil {
			addr.Flags |= 0x02 // IFA_F_NODAD: usable at once
		}
		if err := netlink.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("link %s: add %s: %w", name, s, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// onThread runs f on a goroutine whose thread dies with it.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread may be in another namespace
		done <- f()
	}()
	return <-done
}

// RealRoot reports whether the test runs as root of the machine, rather than as
// an ordinary user or as root of a user namespace that such a one made.
func RealRoot() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, count uint64
	_, scanErr := fmt.Sscan(string(ids), &inside, &outside, &count)
	return os.Geteuid() == 0 && err == nil && scanErr == nil && outside == 0 && count > 1
}

// Forward makes n a router, in both families.
func Forward(t testing.TB, n *Namespace) {
	t.Helper()
	n.MustDo(func() error {
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+name, []byte("1"), 0); err != nil {
				return fmt.Errorf("forwarding: %w", err)
			}
		}
		return nil
	})
}

// Route adds a route in n to dst on a link, through a gateway unless via is empty.
func Route(t testing.TB, n *Namespace, dst, link, via string) {
	t.Helper()
	n.MustDo(func() error {
		l, err := netlink.LinkByName(link)
		if err != nil {
			return fmt.Errorf("link %s: %w", link, err)
		}
		_, prefix, err := net.ParseCIDR(dst)
		if err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: prefix}
		if via == "" {
			r.Scope = netlink.SCOPE_LINK
			if prefix.IP.To4() == nil {
				r.Scope = netlink.SCOPE_UNIVERSE
			}
		} else {
			r.Gw = net.ParseIP(via)
		}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("route %s dev %s: %w", dst, link, err)
		}
		return nil
	})
}

// Patience is how long a test waits for what must come: far longer than it takes on
// any machine, since it is spent only by a test that is going to fail. A test that
// wants to know how fast something is, is a benchmark.
const Patience = 2 * time.Minute

// ByEvent is how long a test waits for a repair that an event is to bring about: less
// than the 67 s after which, at the earliest, everything is compared in any case.
const ByEvent = time.Minute
