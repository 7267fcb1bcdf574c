package wireguard_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	vnl "github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/device"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/kernel/wg"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
	"github.com/weft-net/weft/internal/wireguard"
)

// secret is in every packet of a pod or host that the tests send.
const secret = "this-must-not-be-on-the-wire"

// patience is how long a test waits for what must come; the machine is emulated.
const patience = testenv.Patience

// cluster is nodes on one bridge, of which everything is seen.
type cluster struct {
	t      *testing.T
	v6     bool
	wire   *testenv.Namespace
	nodes  []*node
	clear  atomic.Int64 // frames with the secret
	sealed atomic.Int64 // frames to WireGuard's port
	shared []model.Value
}

// node is a host with a pod, and a small agent: a graph and the doors.
type node struct {
	c        *cluster
	number   int
	host     *testenv.Namespace
	pod      *testenv.Namespace
	record   model.Node
	stop     func()
	mu       sync.Mutex // guards graph, and the order of what the doors get
	graph    *wireguard.Graph
	fib      *fib.FIB
	wg       *wg.WG
	devices  *device.Devices
	filter   *nft.NFT
	want     plan.Node
	key      plan.PublicKey // of the device
	keyMoved chan struct{}
}

func newCluster(t *testing.T, v6 bool, shared ...model.Value) *cluster {
	testenv.VM(t)
	c := &cluster{t: t, v6: v6, wire: testenv.Netns(t), shared: shared}
	c.wire.MustDo(func() error {
		// Else what one port takes in is seen on the bridge again, but nothing is wrong with that.
		if err := vnl.LinkAdd(&vnl.Bridge{LinkAttrs: vnl.LinkAttrs{Name: "br0"}}); err != nil {
			return err
		}
		return linkUp("br0")
	})
	c.capture()
	return c
}

func linkUp(name string) error {
	l, err := vnl.LinkByName(name)
	if err != nil {
		return err
	}
	return vnl.LinkSetUp(l)
}

// capture counts what passes the wire.
func (c *cluster) capture() {
	var fd int
	c.wire.MustDo(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(uint16(unix.ETH_P_ALL)<<8))
		return err
	})
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		defer unix.Close(fd)
		buf := make([]byte, 65536)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, err := unix.Read(fd, buf)
			if err != nil {
				continue
			}
			frame := buf[:n]
			if bytes.Contains(frame, []byte(secret)) {
				c.clear.Add(1)
			}
			if port, ok := udpPort(frame); ok && (port == model.DefaultWireGuardPort || port == model.DefaultWireGuardPortV6) {
				c.sealed.Add(1)
			}
		}
	}()
	c.t.Cleanup(func() { close(stop); <-done })
}

// udpPort is the destination port of a UDP packet in an Ethernet frame.
func udpPort(frame []byte) (uint16, bool) {
	if len(frame) < 14+48 {
		return 0, false
	}
	ip, at := frame[14:], 0
	switch {
	case ip[0]>>4 == 4 && ip[9] == unix.IPPROTO_UDP:
		at = int(ip[0]&15) * 4
	case ip[0]>>4 == 6 && ip[6] == unix.IPPROTO_UDP:
		at = 40
	default:
		return 0, false
	}
	return uint16(ip[at+2])<<8 | uint16(ip[at+3]), true
}

func (c *cluster) addr4(format string, n int) netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf(format, n))
}

// hostAddr, podAddr and block are the addresses of node n in the cluster's family.
func (c *cluster) hostAddr(n int) netip.Prefix {
	if c.v6 {
		return c.addr4("fd00::%d/64", n)
	}
	return c.addr4("192.168.0.%d/24", n)
}

func (c *cluster) podAddr(n int) netip.Addr {
	if c.v6 {
		return c.addr4("fd10:0:0:%d::2/128", n).Addr()
	}
	return c.addr4("10.0.%d.2/32", n).Addr()
}

func (c *cluster) block(n int) model.Block {
	p := c.addr4("10.0.%d.0/26", n)
	if c.v6 {
		p = c.addr4("fd10:0:0:%d::/122", n)
	}
	return model.Block{CIDR: p, Owner: model.HostAffinity(name(n))}
}

func name(n int) string { return fmt.Sprintf("node-%d", n) }

func (c *cluster) link() string {
	if c.v6 {
		return model.DefaultWireGuardLinkV6
	}
	return model.DefaultWireGuardLink
}

// join makes a host with a pod; its agent is started apart. Routes lead to all
// pods in clear, as BGP's would, and reverse paths are filtered strictly.
func (c *cluster) join() *node {
	n := &node{c: c, number: len(c.nodes) + 1, host: testenv.Netns(c.t), pod: testenv.Netns(c.t)}
	c.nodes = append(c.nodes, n)
	n.record = model.Node{Name: name(n.number)}
	if c.v6 {
		n.record.IPv6, n.record.WireGuardAddrV6 = c.hostAddr(n.number), c.podAddr(n.number).Next()
	} else {
		n.record.IPv4, n.record.WireGuardAddr = c.hostAddr(n.number), c.podAddr(n.number).Next()
	}
	port := fmt.Sprintf("port%d", n.number)
	testenv.Veth(c.t, n.host, "eth0", []string{c.hostAddr(n.number).String()}, c.wire, port, nil)
	c.wire.MustDo(func() error {
		l, err := vnl.LinkByName(port)
		if err != nil {
			return err
		}
		br, err := vnl.LinkByName("br0")
		if err != nil {
			return err
		}
		return vnl.LinkSetMaster(l, br)
	})
	gateway, pod := "169.254.1.1/32", netip.PrefixFrom(c.podAddr(n.number), c.podAddr(n.number).BitLen()).String()
	if c.v6 {
		gateway = "fd0f::1/128"
	}
	testenv.Veth(c.t, n.host, "cali1", []string{gateway}, n.pod, "eth0", []string{pod})
	testenv.Forward(c.t, n.host)
	n.host.MustDo(func() error {
		return errors.Join(os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0), os.WriteFile("/proc/sys/net/ipv4/conf/eth0/rp_filter", []byte("1"), 0))
	})
	via, _, _ := strings.Cut(gateway, "/")
	testenv.Route(c.t, n.pod, gateway, "eth0", "")
	testenv.Route(c.t, n.pod, map[bool]string{false: "0.0.0.0/0", true: "::/0"}[c.v6], "eth0", via)
	testenv.Route(c.t, n.host, pod, "cali1", "")
	for _, o := range c.nodes[:n.number-1] {
		testenv.Route(c.t, n.host, c.block(o.number).CIDR.String(), "eth0", c.hostAddr(o.number).Addr().String())
		testenv.Route(c.t, o.host, c.block(n.number).CIDR.String(), "eth0", c.hostAddr(n.number).Addr().String())
	}
	n.echo(n.pod, c.podAddr(n.number))
	n.echo(n.host, c.hostAddr(n.number).Addr())
	return n
}

// echo answers UDP and TCP on port 7 of an address.
func (n *node) echo(ns *testenv.Namespace, a netip.Addr) {
	var u net.PacketConn
	var l net.Listener
	at := netip.AddrPortFrom(a, 7).String()
	ns.MustDo(func() (err error) {
		if u, err = net.ListenPacket("udp", at); err != nil {
			return err
		}
		l, err = net.Listen("tcp", at)
		return err
	})
	n.c.t.Cleanup(func() { u.Close(); l.Close() })
	go func() {
		b := make([]byte, 2000)
		for {
			k, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(b[:k], from)
		}
	}()
	go func() {
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, len(secret))
			if k, err := s.Read(b); err == nil {
				_, _ = s.Write(b[:k])
			}
			s.Close()
		}
	}()
}

// start starts the agent with what the datastore has.
func (n *node) start(values ...model.Value) {
	ctx, cancel := context.WithCancel(context.Background())
	n.graph, n.keyMoved = wireguard.NewGraph(wireguard.Options{Node: n.record.Name}), make(chan struct{}, 100)
	var wait sync.WaitGroup
	ready := make(chan error)
	wait.Go(func() {
		_ = n.host.Do(func() (err error) {
			if n.fib, err = fib.New(fib.Options{Tables: []uint32{plan.TableMain, 1}}); err == nil {
				if n.wg, err = wg.New(wg.Options{Keys: n.newKey}); err == nil {
					if n.devices, err = device.New(device.Options{}); err == nil {
						n.filter, err = nft.New(nft.Options{})
					}
				}
			}
			ready <- err
			if err != nil {
				return err
			}
			for _, run := range []func(context.Context) error{n.fib.Run, n.wg.Run, n.devices.Run, n.filter.Run} {
				wait.Go(func() { _ = n.host.Do(func() error { return run(ctx) }) })
			}
			<-ctx.Done()
			return nil
		})
	})
	if err := <-ready; err != nil {
		n.c.t.Fatal(err)
	}
	n.stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	n.c.t.Cleanup(n.stop)
	n.do(func() plan.Delta { return n.graph.SetUnderlay(1500) })
	pod := n.c.podAddr(n.number)
	n.fib.Apply(plan.Delta{ // as package route decides
		PutLinks: []plan.Link{{Name: "cali1", V4: !n.c.v6, V6: n.c.v6}},
		PutRoutes: []plan.Route{{
			RouteKey:   plan.RouteKey{Dst: netip.PrefixFrom(pod, pod.BitLen()), Table: plan.TableMain},
			RouteAttrs: plan.RouteAttrs{Proto: plan.ProtoBoot, Link: "cali1"},
		}},
	})
	n.tell(model.Batch{Reset: true, Puts: values, Synced: true})
	n.fib.Synced()
	n.wg.Synced()
	n.devices.Synced()
	n.filter.Synced()
}

// ruled waits until what the node sends goes where the agent says.
func (n *node) ruled() {
	n.c.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		found := false
		n.host.MustDo(func() error {
			rules, err := vnl.RuleList(map[bool]int{false: vnl.FAMILY_V4, true: vnl.FAMILY_V6}[n.c.v6])
			for _, r := range rules {
				found = found || r.Priority == model.DefaultWireGuardPriority
			}
			return err
		})
		if found {
			return
		}
		if time.Now().After(end) {
			n.c.t.Fatal("no routing rule")
		}
	}
}

// newKey is told by the door of WireGuard.
func (n *node) newKey(_ string, key plan.PublicKey) {
	n.do(func() plan.Delta {
		n.key = key
		n.keyMoved <- struct{}{}
		return n.graph.SetKey(n.c.link(), key)
	})
}

func (n *node) tell(b model.Batch) { n.do(func() plan.Delta { return n.graph.Step(b) }) }

// do gives the doors what f decides.
func (n *node) do(f func() plan.Delta) {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := f()
	n.want = n.want.Apply(d)
	n.filter.Apply(n.graph.Filter())
	n.wg.Apply(d)
	n.devices.Apply(d)
	n.fib.Apply(d)
}

// publish waits for another key of the device than the record has, writes the
// record, and tells everybody of it.
func (n *node) publish() {
	n.c.t.Helper()
	for {
		n.mu.Lock()
		key := n.key
		n.mu.Unlock()
		if was := plan.PublicKey(n.record.WireGuardKey); key != (plan.PublicKey{}) && key != was && key != plan.PublicKey(n.record.WireGuardKeyV6) {
			if n.c.v6 {
				n.record.WireGuardKeyV6 = key
			} else {
				n.record.WireGuardKey = key
			}
			n.c.put(n.record)
			return
		}
		select {
		case <-n.keyMoved:
		case <-time.After(patience):
			n.c.t.Fatalf("%s has no key: %v %v", n.record.Name, n.wg.Problems(), n.devices.Problems())
		}
	}
}

// put tells all agents that run.
func (c *cluster) put(values ...model.Value) {
	for _, n := range c.nodes {
		if n.stop != nil {
			n.tell(model.Batch{Puts: values})
		}
	}
}

// store is what the datastore has.
func (c *cluster) store() []model.Value {
	out := c.shared
	for _, n := range c.nodes {
		out = append(out[:len(out):len(out)], n.record, c.block(n.number))
	}
	return out
}

// ask sends the secret from a namespace and reports whether it comes back in time.
func ask(ns *testenv.Namespace, network string, to netip.Addr, within time.Duration) error {
	return ns.Do(func() error {
		d := net.Dialer{Timeout: within}
		s, err := d.Dial(network, netip.AddrPortFrom(to, 7).String())
		if err != nil {
			return err
		}
		defer s.Close()
		_ = s.SetDeadline(time.Now().Add(within))
		if _, err := s.Write([]byte(secret)); err != nil {
			return err
		}
		_, err = s.Read(make([]byte, len(secret)))
		return err
	})
}

// reaches waits until ns gets an answer.
func (c *cluster) reaches(what string, ns *testenv.Namespace, network string, to netip.Addr) {
	c.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if err = ask(ns, network, to, time.Second); err == nil {
			return
		}
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) {
			time.Sleep(20 * time.Millisecond) // an error that comes at once
		}
	}
	c.inspect()
	c.t.Fatalf("%s: %v", what, err)
}

// inspect logs what there is to know of the nodes.
func (c *cluster) inspect() {
	for _, n := range c.nodes {
		if n.stop != nil {
			c.t.Logf("%s: %v %v", n.record.Name, n.wg.Problems(), n.devices.Problems())
			n.mu.Lock()
			ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
			for k := range n.want.Routes {
				if err := n.fib.WaitApplied(ctx, "", k); err != nil {
					c.t.Logf("%s: %v", n.record.Name, err)
				}
			}
			cancel()
			n.mu.Unlock()
			for _, args := range []string{"ip -d -s link show type wireguard", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "nstat -s", "nft list ruleset"} {
				out, _ := exec.Command("nsenter", append([]string{"--net=" + n.host.Path()}, strings.Fields(args)...)...).CombinedOutput()
				c.t.Logf("%s: %s\n%s", n.record.Name, args, out)
			}
		}
	}
}

// silent makes sure that nothing was on the wire in clear since the test began.
func (c *cluster) silent(what string) {
	c.t.Helper()
	time.Sleep(200 * time.Millisecond) // of capturing
	if n := c.clear.Load(); n > 0 {
		c.t.Fatalf("%s: %d frames in clear", what, n)
	}
}

// chatter sends from a pod to another all the time, until the test ends.
func (c *cluster) chatter(from, to *node) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = ask(from.pod, "udp", c.podAddr(to.number), 20*time.Millisecond)
			}
		}
	}()
	c.t.Cleanup(func() { close(stop); <-done })
}

func felixConfig(v6, strict, hosts bool) model.FelixConfig {
	yes := true
	c := model.FelixConfig{Name: "default"}
	if v6 {
		c.Tunnel.WireGuardV6 = &yes
	} else {
		c.Tunnel.WireGuard = &yes
	}
	if strict {
		c.Tunnel.WireGuardStrict = &yes
	}
	if hosts {
		c.Tunnel.WireGuardHosts = &yes
	}
	return c
}

func pool(v6 bool) model.Pool {
	if v6 {
		return model.Pool{Name: "six", CIDR: netip.MustParsePrefix("fd10::/16"), Uses: model.UseWorkload}
	}
	return model.Pool{Name: "four", CIDR: netip.MustParsePrefix("10.0.0.0/16"), Uses: model.UseWorkload}
}

// TestVMStrict: pods talk, and not one of their packets is on the wire in clear: while
// nodes join and leave, and while one gets a new key.
func TestVMStrict(t *testing.T) {
	for family, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(family, func(t *testing.T) {
			c := newCluster(t, v6, felixConfig(v6, true, false), pool(v6))
			a, b := c.join(), c.join()
			a.start(c.store()...)
			b.start(c.store()...)
			a.publish()
			b.publish()
			c.reaches("pod to pod", a.pod, "udp", c.podAddr(2))
			c.reaches("pod to pod, TCP", b.pod, "tcp", c.podAddr(1))
			c.silent("two nodes")
			if c.sealed.Load() == 0 {
				t.Fatal("nothing went to WireGuard's port, so the capture sees nothing")
			}

			d := c.join() // its pod is there, and routes to it, before anybody knows its block or key
			c.chatter(a, d)
			d.start(c.store()...)
			d.ruled() // before that an agent lets no pod start
			c.chatter(d, b)
			c.put(d.record)
			c.put(c.block(d.number))
			d.publish()
			c.reaches("to the pod that joined", a.pod, "udp", c.podAddr(3))
			c.reaches("from the pod that joined", d.pod, "udp", c.podAddr(2))
			c.silent("a node joins")

			d.host.MustDo(func() error { // as after it was rebooted
				l, err := vnl.LinkByName(c.link())
				if err != nil {
					return err
				}
				return vnl.LinkDel(l)
			})
			d.publish()
			c.reaches("to the pod with the new key", a.pod, "udp", c.podAddr(3))
			c.silent("a new key")

			gone := []model.Key{d.record.Key(), c.block(d.number).Key()}
			a.tell(model.Batch{Deletes: gone})
			b.tell(model.Batch{Deletes: gone})
			for end := time.Now().Add(patience); ask(a.pod, "udp", c.podAddr(3), 2*time.Second) == nil; {
				if time.Now().After(end) {
					t.Fatal("a pod of a node that left answers")
				}
			}
			c.reaches("the others", a.pod, "udp", c.podAddr(2))
			c.silent("a node leaves")
		})
	}
}

// TestVMAllow: without the strict setting a node that has no key is spoken to in clear,
// and one that has gets everything encrypted.
func TestVMAllow(t *testing.T) {
	c := newCluster(t, false, felixConfig(false, false, false), pool(false))
	a, b := c.join(), c.join()
	a.start(c.store()...)
	c.reaches("pod to pod in clear", a.pod, "udp", c.podAddr(2))
	for end := time.Now().Add(patience); c.clear.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the capture does not see what is in clear")
		}
	}
	b.start(c.store()...)
	a.publish()
	b.publish()
	for end := time.Now().Add(patience); ; {
		c.clear.Store(0)
		sealed := c.sealed.Load()
		c.reaches("pod to pod", a.pod, "udp", c.podAddr(2))
		time.Sleep(200 * time.Millisecond)
		if c.clear.Load() == 0 && c.sealed.Load() > sealed {
			break
		}
		if time.Now().After(end) {
			t.Fatal("is still sent in clear")
		}
	}
	// From a pod to the other host it goes in clear, and the answer comes encrypted.
	c.reaches("pod to host", a.pod, "udp", c.hostAddr(2).Addr())
}

// TestVMHosts: hosts talk encrypted; one that was rebooted has no key, reaches a
// service on a host that knows its old one only, publishes the new one through it, and
// is encrypted again.
func TestVMHosts(t *testing.T) {
	c := newCluster(t, false, felixConfig(false, true, true), pool(false))
	a, b := c.join(), c.join()
	a.start(c.store()...)
	b.start(c.store()...)
	a.publish()
	b.publish()
	encrypted := func(what string) {
		t.Helper()
		for end := time.Now().Add(patience); ; {
			c.clear.Store(0)
			c.reaches(what, b.host, "tcp", c.hostAddr(1).Addr())
			c.reaches(what, a.host, "tcp", c.hostAddr(2).Addr())
			time.Sleep(200 * time.Millisecond)
			if c.clear.Load() == 0 {
				return
			}
			if time.Now().After(end) {
				c.inspect()
				t.Fatalf("%s: is in clear", what)
			}
		}
	}
	encrypted("host to host")
	c.reaches("pod to pod", a.pod, "udp", c.podAddr(2))

	b.stop()
	b.stop = nil
	b.host.MustDo(func() error { // a reboot takes these with it
		l, err := vnl.LinkByName(c.link())
		if err != nil {
			return err
		}
		rules, err := vnl.RuleList(vnl.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if r.Priority == model.DefaultWireGuardPriority {
				if err := vnl.RuleDel(&r); err != nil {
					return err
				}
			}
		}
		return vnl.LinkDel(l)
	})
	b.key = plan.PublicKey{}
	c.reaches("the datastore from a node that boots", b.host, "tcp", c.hostAddr(1).Addr())
	b.start(c.store()...) // the record has the old key still
	if err := ask(b.host, "tcp", c.hostAddr(1).Addr(), 5*time.Second); err != nil {
		t.Fatalf("before the new key is published: %v", err)
	}
	b.publish()
	encrypted("host to host with the new key")
	c.reaches("pod to pod with the new key", a.pod, "udp", c.podAddr(2))
}
