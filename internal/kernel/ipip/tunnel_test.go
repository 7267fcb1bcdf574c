package ipip

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

const eventually = testenv.Patience

// host is a node with a pod behind it. Node n has 192.168.9.n on the underlay,
// 10.65.n.0 on the device and its pod is 10.65.n.2.
type host struct {
	testing.TB
	ns, pod *testenv.Namespace
	number  int
	link    string
	tunnel  *Tunnel
	stop    func()
}

func hosts(t testing.TB) (a, b *host) {
	needTUN(t)
	a, b = &host{TB: t, number: 1, link: plan.IPIPDevice}, &host{TB: t, number: 2, link: plan.IPIPDevice}
	for _, h := range []*host{a, b} {
		h.ns, h.pod = testenv.Netns(t), testenv.Netns(t)
		testenv.Forward(t, h.ns)
		testenv.Veth(t, h.ns, "cali1", []string{fmt.Sprintf("10.65.%d.1/24", h.number)}, h.pod, "eth0", []string{h.podAddr() + "/24"})
		testenv.Route(t, h.pod, "0.0.0.0/0", "eth0", fmt.Sprintf("10.65.%d.1", h.number))
		h.sysctl("net/ipv4/conf/all/rp_filter", "1") // strict: answers must come from where they are routed to
	}
	testenv.Veth(t, a.ns, "eth0", []string{"192.168.9.1/24"}, b.ns, "eth0", []string{"192.168.9.2/24"})
	return a, b
}

// joined gives two hosts with a tunnel between them.
func joined(t testing.TB) (a, b *host) {
	a, b = hosts(t)
	for _, h := range []*host{a, b} {
		h.open()
		h.configure(1480)
	}
	return a, b
}

// needTUN skips the test where an ordinary user may not have TUN devices.
func needTUN(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		testenv.Skip(t, "no TUN devices: %v", err)
	}
	_ = f.Close()
}

func (h *host) podAddr() string { return fmt.Sprintf("10.65.%d.2", h.number) }

func (h *host) sysctl(name, value string) {
	h.Helper()
	h.ns.MustDo(func() error { return os.WriteFile("/proc/sys/"+name, []byte(value), 0) })
}

// open opens the tunnel and runs it until the test, or stop, ends it.
func (h *host) open() {
	h.Helper()
	h.ns.MustDo(func() (err error) { h.tunnel, err = Open(Options{Name: h.link}); return err })
	h.tunnel.Apply(h.route())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func(tunnel *Tunnel) { done <- tunnel.Run(ctx) }(h.tunnel)
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			h.Errorf("Run returned %v", err)
		}
		if err := h.tunnel.Close(); err != nil {
			h.Error(err)
		}
	})
	h.Cleanup(h.stop)
}

// route is the way to the other's pod.
func (h *host) route() plan.Delta {
	other := 3 - h.number
	return plan.Delta{PutRoutes: []plan.Route{{
		RouteKey: plan.RouteKey{Dst: netip.MustParsePrefix(fmt.Sprintf("10.65.%d.0/24", other)), Table: plan.TableMain},
		RouteAttrs: plan.RouteAttrs{
			Proto: plan.ProtoBird, OnLink: true, Link: h.link,
			Via: plan.MakeHops(netip.AddrFrom4([4]byte{192, 168, 9, byte(other)})),
		},
	}}}
}

// configure is what other doors do: address, MTU, up, routes.
func (h *host) configure(mtu int) {
	h.Helper()
	h.ns.MustDo(func() error {
		l, err := netlink.LinkByName(h.link)
		if err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr(fmt.Sprintf("10.65.%d.0/32", h.number))
		_, dst, _ := net.ParseCIDR(fmt.Sprintf("10.65.%d.0/24", 3-h.number))
		return errors.Join(
			netlink.LinkSetMTU(l, mtu), netlink.AddrAdd(l, addr), netlink.LinkSetUp(l),
			netlink.RouteAdd(&netlink.Route{
				LinkIndex: l.Attrs().Index, Dst: dst, Protocol: unix.RTPROT_BIRD, Flags: int(netlink.FLAG_ONLINK),
				Gw: net.IPv4(192, 168, 9, byte(3-h.number)),
			}))
	})
}

// pinger is a raw socket that sends echo requests whose packets have a given size.
type pinger struct {
	testing.TB
	fd  int
	seq uint16
}

func (h *host) pinger() *pinger {
	h.Helper()
	p := &pinger{TB: h}
	h.pod.MustDo(func() (err error) {
		if p.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP); err != nil {
			return err
		}
		// PROBE: packets go out although a smaller MTU was learned before.
		return errors.Join(
			unix.SetsockoptInt(p.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE),
			unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}),
		)
	})
	h.Cleanup(func() { _ = unix.Close(p.fd) })
	return p
}

// ping sends a packet of size bytes with DF, or without, and says what came back:
// "reply", "too big MTU", "unreachable", or "nothing" within a second.
func (p *pinger) ping(to string, size int, df bool) string {
	p.Helper()
	mode := unix.IP_PMTUDISC_DONT
	if df {
		mode = unix.IP_PMTUDISC_PROBE
	}
	if err := unix.SetsockoptInt(p.fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, mode); err != nil {
		p.Fatal(err)
	}
	p.seq++
	b := make([]byte, size-outerLen)
	b[0], b[4], b[5], b[6], b[7] = 8, 0x42, 0x42, byte(p.seq>>8), byte(p.seq)
	c := ^fold(sum(b))
	b[2], b[3] = byte(c>>8), byte(c)
	if err := unix.Sendto(p.fd, b, 0, &unix.SockaddrInet4{Addr: netip.MustParseAddr(to).As4()}); err != nil {
		p.Fatal(err)
	}
	in := make([]byte, maxPacket)
	for {
		n, _, err := unix.Recvfrom(p.fd, in, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "nothing"
		}
		m, ok := checked(in[:n])
		if !ok || fold(sum(m.payload())) != 0xffff {
			p.Fatalf("malformed ICMP %x", in[:n])
		}
		icmp := m.payload()
		id := func(echo []byte) bool { return string(echo[4:8]) == string(b[4:8]) }
		switch {
		case icmp[0] == 0 && id(icmp):
			return "reply"
		case icmp[0] == icmpUnreachable && len(icmp) >= 36 && id(icmp[28:]):
			if icmp[1] == codeTooBig {
				return fmt.Sprintf("too big %d", int(icmp[6])<<8|int(icmp[7]))
			}
			return "unreachable"
		}
	}
}

// answers pings until one is answered.
func (p *pinger) answers(to string) {
	p.Helper()
	for end := time.Now().Add(eventually); ; {
		got := p.ping(to, 84, true)
		if got == "reply" {
			return
		}
		if time.Now().After(end) {
			p.Fatalf("no answer from %s: %s", to, got)
		}
	}
}

// bulk sends that many bytes from a's pod to b's by TCP and gives the time it took.
func bulk(t testing.TB, a, b *host, bytes int64) time.Duration {
	t.Helper()
	var l net.Listener
	b.pod.MustDo(func() (err error) { l, err = net.Listen("tcp4", b.podAddr()+":0"); return err })
	defer l.Close()
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 1<<18))
		got <- n
	}()
	var c net.Conn
	a.pod.MustDo(func() (err error) { c, err = net.DialTimeout("tcp4", l.Addr().String(), eventually); return err })
	start := time.Now()
	block := make([]byte, 1<<18)
	for left := bytes; left > 0; left -= int64(len(block)) {
		if _, err := c.Write(block[:min(left, int64(len(block)))]); err != nil {
			t.Fatal(err)
		}
	}
	c.Close()
	if n := <-got; n != bytes {
		t.Fatalf("%d of %d bytes arrived", n, bytes)
	}
	return time.Since(start)
}

func TestTunnel(t *testing.T) {
	t.Parallel()
	a, b := joined(t)
	p := a.pinger()
	p.answers(b.podAddr())
	bulk(t, a, b, 50<<20)
	bulk(t, b, a, 50<<20)
	if got := a.ns.MustRun("ip", "route", "show", "10.65.2.0/24"); strings.TrimSpace(got) != "10.65.2.0/24 via 192.168.9.2 dev tunl0 proto bird onlink" {
		t.Errorf("route is %q", got)
	}
	if got := a.ns.MustRun("ip", "link", "show", "tunl0"); !strings.Contains(got, "link/ipip") {
		t.Errorf("device is %s", got)
	}
	if c := a.tunnel.Counts(); c.Sent < 1000 || c.Received < 1000 || c.NoRoute+c.Loop+c.TooBig+c.SendErrors+c.WriteErrors != 0 {
		t.Errorf("counts %+v", c)
	}
}

// TestMTU: the largest packet with DF passes, and of one byte more the sender hears,
// whoever finds that it does not fit: the kernel before the device, the kernel behind
// the sockets, or a router of the underlay.
func TestMTU(t *testing.T) {
	t.Parallel()
	a, b := joined(t)
	a.narrow(b)
}

// narrow makes the way from a to b narrower, and sends what just fits, and one byte more.
func (h *host) narrow(b *host) {
	h.Helper()
	p := h.pinger()
	p.answers(b.podAddr())
	largest := func(why string, size int) {
		h.Helper()
		if got := p.ping(b.podAddr(), size, true); got != "reply" {
			h.Errorf("%s: %d bytes: %s", why, size, got)
		}
		want := fmt.Sprintf("too big %d", size)
		if got := p.ping(b.podAddr(), size+1, true); got != want {
			h.Errorf("%s: %d bytes: %s, want %s", why, size+1, got, want)
		}
		if got := p.ping(b.podAddr(), size+1, false); got != "reply" {
			h.Errorf("%s: %d bytes that may be fragmented: %s", why, size+1, got)
		}
	}
	largest("device", 1480)

	// The device would let it pass: the sockets find it.
	h.ns.MustRun("ip", "link", "set", "eth0", "mtu", "1400")
	largest("underlay", 1380)
	bulk(h, h, b, 1<<20)

	// The kernel has learned of a narrower way, as it does from ICMP.
	h.ns.MustRun("ip", "link", "set", "eth0", "mtu", "1500")
	h.ns.MustRun("ip", "route", "replace", "192.168.9.2/32", "dev", "eth0", "mtu", "1300")
	h.ns.MustRun("ip", "route", "flush", "cache")
	largest("path", 1280)
	bulk(h, h, b, 1<<20)
}

// TestVMKernel: the other node has the kernel's own ipip.
func TestVMKernel(t *testing.T) {
	testenv.VM(t)
	a, b := hosts(t)
	a.link = "weft0" // tunl0 is there, and the kernel's
	a.open()
	a.configure(1480)
	b.ns.MustDo(func() error { // the module makes the device in each namespace, or in the first only
		if _, err := netlink.LinkByName(b.link); err == nil {
			return nil
		}
		return netlink.LinkAdd(&netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: b.link}})
	})
	if got := b.ns.MustRun("ip", "-d", "link", "show", "tunl0"); !strings.Contains(got, "ipip any remote any local any") {
		t.Fatalf("tunl0 is %s", got)
	}
	b.configure(1480)
	a.narrow(b)
	b.pinger().answers(a.podAddr())
	bulk(t, a, b, 4<<20)
	bulk(t, b, a, 4<<20)
	if c := a.tunnel.Counts(); c.Sent < 1000 || c.Received < 100 || c.NoRoute+c.Loop+c.SendErrors+c.WriteErrors != 0 {
		t.Errorf("counts %+v", c)
	}
}

// TestRestart: while nobody runs the tunnel packets are lost, and nothing else.
func TestRestart(t *testing.T) {
	t.Parallel()
	a, b := joined(t)
	p := a.pinger()
	p.answers(b.podAddr())
	before := a.ns.MustRun("sh", "-c", "ip route; ip -4 -o addr | sed 's/NO-CARRIER,//'")

	err := a.ns.Do(func() error { _, err := Open(Options{}); return err })
	if !errors.Is(err, unix.EBUSY) || !strings.Contains(err.Error(), "tunl0") {
		t.Errorf("opened twice: %v", err)
	}
	for _, h := range []*host{a, b} { // the second's kernel says that it does not know the protocol
		h.stop()
		if got := p.ping(b.podAddr(), 84, true); got != "nothing" {
			t.Errorf("nobody runs on node %d, and the answer is %s", h.number, got)
		}
		h.open()
	}
	p.answers(b.podAddr())
	if after := a.ns.MustRun("sh", "-c", "ip route; ip -4 -o addr | sed 's/NO-CARRIER,//'"); after != before {
		t.Errorf("before the restart:\n%safter it:\n%s", before, after)
	}
}

// TestUnreachable: what cannot arrive is counted, and senders hear of what will not be
// otherwise soon.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	a, b := joined(t)
	p := a.pinger()
	p.answers(b.podAddr())
	a.tunnel.Apply(plan.Delta{DeleteRoutes: []plan.RouteKey{a.route().PutRoutes[0].RouteKey}})
	if got := p.ping(b.podAddr(), 84, true); got != "nothing" || a.tunnel.Counts().NoRoute == 0 {
		t.Errorf("without a route: %s", got)
	}
	loop := a.route()
	loop.PutRoutes[0].Via = plan.MakeHops(netip.MustParseAddr("10.65.2.9"))
	a.tunnel.Apply(loop)
	if got := p.ping(b.podAddr(), 84, true); got != "nothing" || a.tunnel.Counts().Loop == 0 {
		t.Errorf("with a gateway behind the tunnel itself: %s", got)
	}
	a.tunnel.Apply(a.route())
	p.answers(b.podAddr())
	a.ns.MustRun("ip", "route", "add", "unreachable", "192.168.9.2/32")
	if got := p.ping(b.podAddr(), 84, true); got != "unreachable" || a.tunnel.Counts().SendErrors == 0 {
		t.Errorf("without a way to the node: %s, %+v", got, a.tunnel.Counts())
	}
}

// TestFilter: what the input hook drops does not come in.
func TestFilter(t *testing.T) {
	t.Parallel()
	a, b := joined(t)
	p := a.pinger()
	p.answers(b.podAddr())
	b.ns.MustRun("nft", "add table ip t; add chain ip t in { type filter hook input priority 0; }; add rule ip t in ip protocol 4 ip saddr != 192.168.9.7 drop")
	if got := p.ping(b.podAddr(), 84, true); got != "nothing" {
		t.Errorf("from a node that is not known: %s", got)
	}
}

// TestOff: what comes while nobody wants the device is dropped, and carried again when
// somebody does.
func TestOff(t *testing.T) {
	t.Parallel()
	a, b := joined(t)
	p := a.pinger()
	p.answers(b.podAddr())
	b.tunnel.Apply(plan.Delta{DeleteDevices: []string{b.link}})
	if got := p.ping(b.podAddr(), 84, true); got != "nothing" || b.tunnel.Counts().Off == 0 {
		t.Errorf("to a device that nobody wants: %s; %+v", got, b.tunnel.Counts())
	}
	b.tunnel.Apply(plan.Delta{PutDevices: []plan.Device{{Name: b.link, Kind: plan.IPIP}}})
	p.answers(b.podAddr())
}

// TestForeign: a device of another kind is left alone, and one that goes ends Run.
func TestForeign(t *testing.T) {
	t.Parallel()
	needTUN(t)
	ns := testenv.Netns(t)
	ns.MustRun("ip", "link", "add", "tunl0", "type", "bridge")
	err := ns.Do(func() error { _, err := Open(Options{}); return err })
	if !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "device tunl0: somebody else") {
		t.Errorf("got %v", err)
	}
	err = ns.Do(func() error { _, err := Open(Options{Name: "sixteen-letters-"}); return err })
	if err == nil || !strings.Contains(err.Error(), `device "sixteen-letters-": a name has 1 to 15 bytes`) {
		t.Errorf("got %v", err)
	}
	ns.MustRun("ip", "link", "delete", "tunl0")
	var tunnel *Tunnel
	ns.MustDo(func() (err error) { tunnel, err = Open(Options{}); return err })
	defer tunnel.Close()
	done := make(chan error, 1)
	go func() { done <- tunnel.Run(context.Background()) }()
	ns.MustRun("ip", "link", "delete", "tunl0")
	select {
	case err := <-done:
		if !errors.Is(err, unix.EBADFD) {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(eventually):
		t.Error("Run goes on without a device")
	}
}
