// Package edge_test sends packets through what package edge decides and kernel/nft writes:
// a pod behind a node, and somebody outside of the cluster, in namespaces of their own.
//
//	pod eth0 ── cali1 node eth0 ── eth0 outside
package edge_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/edge"
	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/testenv"
)

const (
	patience = testenv.Patience       // for what will come
	silence  = 400 * time.Millisecond // after which nothing comes
)

// addr is an address of each family.
type addr [2]string

// Who has which.
var (
	podAddr     = addr{"10.65.0.2", "fd65::2"}
	gateway     = addr{"10.65.0.1", "fd65::1"}
	nodeAddr    = addr{"192.0.2.1", "2001:db8::1"}
	nodeOther   = addr{"192.0.2.77", "2001:db8::77"}
	outsideAddr = addr{"192.0.2.2", "2001:db8::2"}
	elsewhere   = addr{"203.0.113.9", "2001:db8:9::9"} // behind outside
	otherPod    = addr{"10.66.0.9", "fd66::9"}         // the same, in another pool
)

func (a addr) of(v6 bool) netip.Addr {
	if v6 {
		return netip.MustParseAddr(a[1])
	}
	return netip.MustParseAddr(a[0])
}

// with is a with a prefix length for each family.
func (a addr) with(v4, v6 int) []string {
	return []string{fmt.Sprintf("%s/%d", a[0], v4), fmt.Sprintf("%s/%d", a[1], v6)}
}

// both runs a test for each family.
func both(t *testing.T, f func(t *testing.T, g *ground, v6 bool)) {
	t.Helper()
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) { t.Parallel(); f(t, newGround(t), v6) })
	}
}

// ground is a pod, its node, and who is outside.
type ground struct {
	testing.TB
	pod, node, outside *testenv.Namespace
	graph              *edge.Graph
	policy             *policy.Graph
	table              *nft.NFT
}

func newGround(t *testing.T) *ground {
	testenv.Need(t, "ip", "nft")
	g := &ground{TB: t, pod: testenv.Netns(t), node: testenv.Netns(t), outside: testenv.Netns(t)}
	g.graph = edge.NewGraph(edge.Options{Node: "node-a"})
	testenv.Veth(t, g.node, "cali1", gateway.with(24, 64), g.pod, "eth0", podAddr.with(24, 64))
	testenv.Veth(t, g.node, "eth0", nodeAddr.with(24, 64), g.outside, "eth0", outsideAddr.with(24, 64))
	for _, a := range nodeOther.with(32, 128) {
		g.run(g.node, "ip addr add %s dev eth0 nodad preferred_lft 0", a) // asked for only
	}
	testenv.Forward(t, g.node)
	testenv.Forward(t, g.outside)
	for _, a := range []string{elsewhere[0] + "/32", otherPod[0] + "/32", elsewhere[1] + "/128", otherPod[1] + "/128"} {
		g.run(g.outside, "ip addr add %s dev lo nodad", a)
	}
	for i, all := range []string{"0.0.0.0/0", "::/0"} {
		testenv.Route(t, g.pod, all, "eth0", gateway[i])
		testenv.Route(t, g.node, all, "eth0", outsideAddr[i])
		pods := []string{"10.65.0.0/16", "fd65::/64"}[i]
		testenv.Route(t, g.outside, pods, "eth0", nodeAddr[i]) // who is asked by a pod can answer it
	}
	g.node.MustDo(func() (err error) { g.table, err = nft.New(nft.Options{Resync: -1}); return err })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.table.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	// Policy is in the tables, too, but has no say here: cali1 is no name of a workload's.
	g.policy = policy.NewGraph("node-a", model.FelixConfig{InterfacePrefixes: []string{"none"}})
	g.table.Apply(g.policy.Step(model.Batch{Reset: true, Synced: true}))
	g.table.Synced()
	g.serve()
	return g
}

// run runs a program inside.
func (g *ground) run(ns *testenv.Namespace, format string, args ...any) string {
	g.Helper()
	f := strings.Fields(fmt.Sprintf(format, args...))
	return ns.MustRun(f[0], f[1:]...)
}

// set makes values the whole truth, and waits until that is in force.
func (g *ground) set(values ...model.Value) {
	g.Helper()
	g.table.Apply(g.graph.Step(model.Batch{Reset: true, Puts: values, Synced: true}))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := g.table.WaitApplied(ctx); err != nil {
		g.Fatal(err)
	}
}

// serve has outside tell whoever connects to port 7 from where, and then repeat what it
// hears.
func (g *ground) serve() {
	var l net.Listener
	g.outside.MustDo(func() (err error) { l, err = net.Listen("tcp", ":7"); return err })
	g.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, c.RemoteAddr())
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintln(c, lines.Text())
				}
			}()
		}
	}()
}

// talk is a connection to outside.
type talk struct {
	net.Conn
	lines *bufio.Reader
	seen  netip.AddrPort // whom outside believes to talk to
}

// connect connects to port 7 from inside, by a local address unless that is zero.
func (g *ground) connect(ns *testenv.Namespace, from, to netip.Addr) (*talk, error) {
	d := net.Dialer{Timeout: patience}
	if from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	t := &talk{}
	err := ns.Do(func() (err error) {
		t.Conn, err = d.Dial("tcp", netip.AddrPortFrom(to, 7).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	g.Cleanup(func() { _ = t.Close() })
	t.lines = bufio.NewReader(t.Conn)
	text, err := t.hear()
	if err != nil {
		return nil, err
	}
	seen, err := netip.ParseAddrPort(text)
	t.seen = netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port())
	return t, err
}

func (t *talk) hear() (string, error) {
	_ = t.SetReadDeadline(time.Now().Add(patience))
	text, err := t.lines.ReadString('\n')
	return strings.TrimSpace(text), err
}

// says has the other end repeat something.
func (t *talk) says(text string) error {
	if _, err := fmt.Fprintln(t, text); err != nil {
		return err
	}
	if got, err := t.hear(); err != nil || got != text {
		return fmt.Errorf("heard %q: %w", got, err)
	}
	return nil
}

// wantSeen connects from the pod, and wants to be seen as one address.
func (g *ground) wantSeen(what string, to, as netip.Addr) *talk {
	g.Helper()
	t, err := g.connect(g.pod, netip.Addr{}, to)
	if err != nil {
		g.Fatalf("%s: %v\n%s", what, err, g.run(g.node, "nft list ruleset"))
	}
	if t.seen.Addr() != as {
		g.Errorf("%s: %v sees %v, want %v\n%s", what, to, t.seen.Addr(), as, g.run(g.node, "nft list ruleset"))
	}
	return t
}

// pool is that of the pods, with natOutgoing.
func pool(v6 bool) model.Pool {
	return model.Pool{Name: "pods", CIDR: []netip.Prefix{netip.MustParsePrefix("10.65.0.0/16"), netip.MustParsePrefix("fd65::/64")}[index(v6)], NATOutgoing: true}
}

// farPool is that of otherPod.
func farPool(v6 bool) model.Pool {
	return model.Pool{Name: "others", CIDR: netip.PrefixFrom(otherPod.of(v6), 24).Masked()}
}

func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

func node(name string, a addr) model.Node {
	return model.Node{Name: name, IPv4: netip.PrefixFrom(a.of(false), 24), IPv6: netip.PrefixFrom(a.of(true), 64)}
}

func felix(nat model.NATConfig) model.FelixConfig {
	return model.FelixConfig{Name: "default", NAT: nat}
}
