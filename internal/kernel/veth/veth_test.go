package veth

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// mtus are of links, in the order of names.
func mtus(t *testing.T, ns *testenv.Namespace, names ...string) string {
	t.Helper()
	var out []string
	ns.MustDo(func() error {
		for _, name := range names {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			out = append(out, fmt.Sprint(l.Attrs().MTU))
		}
		return nil
	})
	return strings.Join(out, " ")
}

func setMTUs(t *testing.T, ns *testenv.Namespace, name string, mtu int) {
	t.Helper()
	ns.MustDo(func() error {
		l, err := netlink.LinkByName(name)
		return errors.Join(err, netlink.LinkSetMTU(l, mtu))
	})
}

func TestSetMTU(t *testing.T) {
	t.Parallel()
	host, a, b, far := testenv.Netns(t), testenv.Netns(t), testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, host, "cali1", nil, a, "eth0", nil)
	testenv.Veth(t, host, "cali2", nil, a, "eth1", nil) // a workload may have two
	testenv.Veth(t, host, "cali3", nil, b, "eth0", nil) // of which one end has an MTU of its own
	testenv.Veth(t, host, "cali4", nil, b, "eth1", nil) // whose configuration says an MTU
	testenv.Veth(t, host, "cali5", nil, far, "eth0", nil)
	testenv.Veth(t, host, "eth0", nil, b, "eth2", nil) // no workload's
	setMTUs(t, b, "eth0", 1300)
	setMTUs(t, host, "cali4", 1200)
	setMTUs(t, b, "eth1", 1200)
	plain := t.TempDir() + "/no-namespace"
	if err := os.WriteFile(plain, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := func(to int, from ...int) Report {
		t.Helper()
		var got Report
		host.MustDo(func() (err error) {
			got, err = SetMTU(Options{Prefixes: []string{"cali"}, From: from, To: to, Namespaces: []string{plain, "/no/such", host.Path(), a.Path(), a.Path(), b.Path()}})
			return err
		})
		return got
	}
	check := func(want string) {
		t.Helper()
		got := mtus(t, host, "cali1", "cali2", "cali3", "cali4", "cali5", "eth0") + " | " + mtus(t, a, "eth0", "eth1") + " | " + mtus(t, b, "eth0", "eth1", "eth2") + " | " + mtus(t, far, "eth0")
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	got := set(1400, 1500)
	if !slices.Equal(got.Changed, []string{"cali1", "cali2"}) || !slices.Equal(got.Left, []string{"cali5"}) {
		t.Errorf("got %+v", got)
	}
	check("1400 1400 1500 1200 1500 1500 | 1400 1400 | 1300 1200 1500 | 1500")
	if got := set(1450, 1400); !slices.Equal(got.Changed, []string{"cali1", "cali2"}) || got.Left != nil {
		t.Errorf("larger again: %+v", got)
	}
	check("1450 1450 1500 1200 1500 1500 | 1450 1450 | 1300 1200 1500 | 1500")
	// Of a change that was cut short one end is new.
	setMTUs(t, a, "eth0", 1350)
	if got := set(1350, 1450, 1999); !slices.Equal(got.Changed, []string{"cali1", "cali2"}) {
		t.Errorf("after a change that was cut short: %+v", got)
	}
	check("1350 1350 1500 1200 1500 1500 | 1350 1350 | 1300 1200 1500 | 1500")
	if got := set(1350, 1350, 1450); got.Changed != nil || got.Left != nil {
		t.Errorf("nothing to do: %+v", got)
	}
	host.MustDo(func() error {
		if _, err := SetMTU(Options{Prefixes: []string{"cali"}, From: []int{1350}, To: 1 << 20, Namespaces: []string{a.Path()}}); err == nil {
			return errors.New("an MTU that the kernel refuses: no error")
		}
		return nil
	})
	check("1350 1350 1500 1200 1500 1500 | 1350 1350 | 1300 1200 1500 | 1500")
}

// TestIPv6Stays: below 1280 bytes Linux would take IPv6 from an interface for good.
func TestIPv6Stays(t *testing.T) {
	t.Parallel()
	host, pod := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, host, "cali1", nil, pod, "eth0", []string{"10.0.0.1/32", "fd00::1/128"})
	testenv.Veth(t, host, "cali2", nil, pod, "eth1", []string{"10.0.0.2/32"})
	for _, step := range []struct {
		from, to int
		want     string
	}{{1500, 1200, "1280 1200 1280 1200"}, {1500, 1200, "1280 1200 1280 1200"}, {1200, 1250, "1280 1250 1280 1250"}, {1250, 1400, "1400 1400 1400 1400"}} {
		var got Report
		host.MustDo(func() (err error) {
			got, err = SetMTU(Options{Prefixes: []string{"cali"}, From: []int{step.from}, To: step.to, Namespaces: []string{pod.Path()}})
			return err
		})
		if text := mtus(t, host, "cali1", "cali2") + " " + mtus(t, pod, "eth0", "eth1"); text != step.want || got.Left != nil {
			t.Errorf("%d to %d: %s, %+v; want %s", step.from, step.to, text, got, step.want)
		}
	}
	pod.MustDo(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
		if err == nil && !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.String() == "fd00::1" }) {
			err = fmt.Errorf("the address went: %v", addrs)
		}
		return err
	})
}

// TestOfProcess finds a workload's namespace by a process that runs in it.
func TestOfProcess(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "sleep")
	host, pod := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, host, "cali1", nil, pod, "eth0", nil)
	sleep := sleeper(t, pod)
	var got Report
	host.MustDo(func() (err error) {
		got, err = SetMTU(Options{Prefixes: []string{"cali"}, From: []int{1500}, To: 1400, Namespaces: []string{fmt.Sprintf("/proc/%d/ns/net", sleep)}})
		return err
	})
	if want := mtus(t, host, "cali1") + " " + mtus(t, pod, "eth0"); want != "1400 1400" || !slices.Equal(got.Changed, []string{"cali1"}) {
		t.Errorf("got %+v, MTUs %s", got, want)
	}
}

// TestPacketTooBig: after the MTU of what lies behind the node went down, a workload learns
// it, whether or not its interface could be changed: by its own interface, or by ICMP. The
// largest packet arrives, in both directions.
func TestPacketTooBig(t *testing.T) {
	t.Parallel()
	for name, reached := range map[string]bool{"reached": true, "not reached": false} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, IPv6 %t", name, v6), func(t *testing.T) {
				t.Parallel()
				host, pod, peer := testenv.Netns(t), testenv.Netns(t), testenv.Netns(t)
				testenv.Veth(t, host, "cali1", []string{"10.1.0.1/24", "fd01::1/64"}, pod, "eth0", []string{"10.1.0.2/24", "fd01::2/64"})
				testenv.Veth(t, host, "eth0", []string{"10.2.0.1/24", "fd02::1/64"}, peer, "eth0", []string{"10.2.0.2/24", "fd02::2/64"})
				testenv.Forward(t, host)
				testenv.Route(t, pod, "10.2.0.0/24", "eth0", "10.1.0.1")
				testenv.Route(t, pod, "fd02::/64", "eth0", "fd01::1")
				testenv.Route(t, peer, "10.1.0.0/24", "eth0", "10.2.0.1")
				testenv.Route(t, peer, "fd01::/64", "eth0", "fd02::1")
				setMTUs(t, host, "eth0", 1400)
				setMTUs(t, peer, "eth0", 1400)
				o := Options{Prefixes: []string{"cali"}, From: []int{1500}, To: 1400, Namespaces: []string{}}
				if reached {
					o.Namespaces = []string{pod.Path()}
				}
				host.MustDo(func() error { _, err := SetMTU(o); return err })
				if got, want := mtus(t, host, "cali1")+" "+mtus(t, pod, "eth0"), map[bool]string{true: "1400 1400", false: "1500 1500"}[reached]; got != want {
					t.Fatalf("MTUs %s, want %s", got, want)
				}
				headers, from, to := 28, "10.1.0.2", "10.2.0.2"
				if v6 {
					headers, from, to = 48, "fd01::2", "fd02::2"
				}
				arrives(t, pod, from, peer, to, 1400-headers)
				arrives(t, peer, to, pod, from, 1400-headers)
			})
		}
	}
}

// arrives sends from one namespace to another, never in fragments: one byte more than the
// largest datagram must become an error, and then the largest arrives.
func arrives(t *testing.T, src *testenv.Namespace, from string, dst *testenv.Namespace, to string, largest int) {
	t.Helper()
	var out, in net.PacketConn
	dst.MustDo(func() (err error) { in, err = net.ListenPacket("udp", net.JoinHostPort(to, "0")); return err })
	src.MustDo(func() (err error) { out, err = net.ListenPacket("udp", net.JoinHostPort(from, "0")); return err })
	defer func() { _ = errors.Join(in.Close(), out.Close()) }()
	raw, err := out.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
	})
	if err != nil {
		t.Fatal(err)
	}
	send := func(n int) error { _, err := out.WriteTo(make([]byte, n), in.LocalAddr()); return err }
	for deadline := time.Now().Add(testenv.Patience); !errors.Is(send(largest+1), unix.EMSGSIZE); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s to %s: %d bytes and more are never refused", from, to, largest+1)
		}
	}
	if err := send(largest); err != nil {
		t.Fatalf("%s to %s: send %d bytes: %v", from, to, largest, err)
	}
	if err := in.SetReadDeadline(time.Now().Add(testenv.Patience)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := in.ReadFrom(make([]byte, 2000)); err != nil || n != largest {
		t.Errorf("%s to %s: got %d bytes, %v; want %d", from, to, n, err, largest)
	}
}

// sleeper runs a process in ns until the test ends, and returns its number.
func sleeper(t *testing.T, ns *testenv.Namespace) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func TestMounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	odd := dir + `/a [b]*?\ c`
	if err := os.WriteFile(odd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	table := `28 1 0:4 net:[4026532] /run/netns/cni-1 rw shared:9 - nsfs nsfs rw
29 1 0:4 pid:[4026533] /run/pidns/1 rw - nsfs nsfs rw
30 1 8:1 / / rw - ext4 /dev/root rw
31 1 0:4 net:[4026534] ` + strings.NewReplacer(" ", `\040`, `\`, `\134`).Replace(odd) + " rw - nsfs nsfs rw\n\nx\n"
	got := mounted(table)
	if len(got) != 2 || got[0] != "/run/netns/cni-1" {
		t.Fatalf("got %q", got)
	}
	if files, err := filepath.Glob(got[1]); err != nil || !slices.Equal(files, []string{odd}) {
		t.Errorf("%q gives %q, %v; want %q", got[1], files, err, odd)
	}
	if len(mounted("")) != 0 || !slices.Contains(DefaultNamespaces(), "/proc/[0-9]*/ns/net") {
		t.Error("of no table")
	}
}
