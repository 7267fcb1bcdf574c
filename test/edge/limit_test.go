package edge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/testenv"
)

// floatingAddr is one that nobody has.
var floatingAddr = addr{"198.51.100.7", "2001:db8:5::7"}

// workload is the pod's endpoint.
func workload(q model.QoS, floating bool) model.Endpoint {
	e := model.Endpoint{Namespace: "shop", Name: "w", Pod: "w", Node: "node-a", Link: "cali1", QoS: q, Addrs: []netip.Addr{podAddr.of(false), podAddr.of(true)}}
	if floating {
		for _, v6 := range []bool{false, true} {
			e.FloatingIPs = append(e.FloatingIPs, model.FloatingIP{External: floatingAddr.of(v6), Internal: podAddr.of(v6)})
		}
	}
	return e
}

// servePod has the pod do what outside does at port 7.
func (g *ground) servePod() {
	g.Helper()
	var l net.Listener
	g.pod.MustDo(func() (err error) { l, err = net.Listen("tcp", ":7"); return err })
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

// TestFloatingAddress: whoever connects to it reaches the workload, which sees whom it
// talks to; itself it sees as the floating address.
func TestFloatingAddress(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, g *ground, v6 bool) {
		g.servePod()
		to := floatingAddr.of(v6)
		testenv.Route(t, g.outside, netip.PrefixFrom(to, to.BitLen()).String(), "eth0", nodeAddr[index(v6)])
		g.set(pool(v6), felix(model.NATConfig{FloatingIPs: true}), workload(model.QoS{}, true))
		for name, tt := range map[string]struct {
			from *testenv.Namespace
			as   netip.Addr
		}{
			"outside": {g.outside, outsideAddr.of(v6)}, "the node": {g.node, nodeAddr.of(v6)}, "the pod": {g.pod, to},
		} {
			c, err := g.connect(tt.from, netip.Addr{}, to)
			if err != nil {
				t.Errorf("%s: %v\n%s", name, err, g.run(g.node, "nft list ruleset"))
				continue
			}
			if c.seen.Addr() != tt.as {
				t.Errorf("%s is seen as %v, want %v", name, c.seen.Addr(), tt.as)
			}
			if err := c.says("and back"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		// What the pod opens by itself goes out as before.
		g.wantSeen("from the pod", outsideAddr.of(v6), nodeAddr.of(v6))
		g.set(pool(v6), workload(model.QoS{}, true))
		if list := g.run(g.node, "nft list ruleset"); strings.Contains(list, floatingAddr[index(v6)]) {
			t.Errorf("with floatingIPs Disabled:\n%s", list)
		}
	})
}

// count is how many of n packets come from one namespace to an address in another, and how
// long that took. least of them are waited for.
func (g *ground) count(from, to *testenv.Namespace, addr netip.Addr, n, least int) (got int, took time.Duration) {
	g.Helper()
	var server net.PacketConn
	to.MustDo(func() (err error) { server, err = net.ListenPacket("udp", ":0"); return err })
	defer server.Close()
	var client net.Conn
	from.MustDo(func() (err error) {
		port := uint16(server.LocalAddr().(*net.UDPAddr).Port)
		client, err = net.Dial("udp", netip.AddrPortFrom(addr, port).String())
		return err
	})
	defer client.Close()
	start := time.Now()
	for range n {
		if _, err := client.Write([]byte("x")); err != nil && !errors.Is(err, unix.EPERM) { // which the node itself is told
			g.Fatal(err)
		}
	}
	for b := make([]byte, 10); ; got++ {
		wait := silence
		if got < least {
			wait = patience
		}
		_ = server.SetReadDeadline(time.Now().Add(wait))
		if _, _, err := server.ReadFrom(b); err != nil {
			return got, time.Since(start)
		}
	}
}

// TestPacketRate: what is over the rate is dropped, to and from the workload, whoever the
// other end is; without a limit all comes.
func TestPacketRate(t *testing.T) {
	t.Parallel()
	const rate, burst, sent = 1, 10, 100
	both(t, func(t *testing.T, g *ground, v6 bool) {
		// Packets that wait for addresses to become usable, and for neighbours, would come late.
		g.servePod()
		for from, to := range map[*testenv.Namespace]netip.Addr{g.outside: podAddr.of(v6), g.node: podAddr.of(v6), g.pod: outsideAddr.of(v6)} {
			if _, err := g.connect(from, netip.Addr{}, to); err != nil {
				t.Fatal(err)
			}
		}
		limit := model.Limits{Packets: rate, PacketBurst: burst}
		for name, tt := range map[string]struct {
			q        model.QoS
			from, to *testenv.Namespace
			addr     addr
		}{
			"from outside": {model.QoS{Ingress: limit}, g.outside, g.pod, podAddr},
			"from node":    {model.QoS{Ingress: limit}, g.node, g.pod, podAddr},
			"to outside":   {model.QoS{Egress: limit}, g.pod, g.outside, outsideAddr},
			"to node":      {model.QoS{Egress: limit}, g.pod, g.node, gateway},
		} {
			g.set(workload(tt.q, false))
			got, took := g.count(tt.from, tt.to, tt.addr.of(v6), sent, 1)
			if most := burst + rate*(int(took/time.Second)+2); got < 1 || got > most {
				t.Errorf("%s: %d of %d packets within %v, want 1 to %d\n%s", name, got, sent, took, most, g.run(g.node, "nft list ruleset"))
			}
			g.set()
			if got, _ := g.count(tt.from, tt.to, tt.addr.of(v6), sent/2, sent/2); got != sent/2 {
				t.Errorf("%s, without a limit: %d of %d packets", name, got, sent/2)
			}
		}
	})
}

// TestMaxConnections: one more than allowed is refused, until one of them ends.
func TestMaxConnections(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, g *ground, v6 bool) {
		g.servePod()
		g.set(workload(model.QoS{Ingress: model.Limits{Connections: 2}, Egress: model.Limits{Connections: 1}}, false))
		var open []*talk
		for range 2 {
			c, err := g.connect(g.outside, netip.Addr{}, podAddr.of(v6))
			if err != nil {
				t.Fatalf("a connection that is allowed: %v", err)
			}
			open = append(open, c)
		}
		if _, err := g.connect(g.outside, netip.Addr{}, podAddr.of(v6)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the third connection: %v, want that it is refused", err)
		}
		for _, c := range open {
			if err := c.says("still here"); err != nil {
				t.Errorf("an older connection: %v", err)
			}
		}
		if _, err := g.connect(g.pod, netip.Addr{}, outsideAddr.of(v6)); err != nil {
			t.Errorf("the other direction has a limit of its own: %v", err)
		}
		_ = open[0].Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for {
			if _, err := g.connect(g.outside, netip.Addr{}, podAddr.of(v6)); err == nil {
				break
			} else if ctx.Err() != nil {
				t.Fatalf("after one has ended: %v", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}

// TestDSCP: what leaves the cluster is marked, and what stays in it is not.
func TestDSCP(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, g *ground, v6 bool) {
		family := []string{"ip", "ip6"}[index(v6)]
		g.run(g.outside, "nft add table inet seen")
		g.run(g.outside, "nft add chain inet seen in { type filter hook input priority 0 ; }")
		g.run(g.outside, "nft add rule inet seen in tcp dport 7 %s dscp ef counter comment marked", family)
		marked := func() bool {
			return !strings.Contains(g.run(g.outside, "nft list chain inet seen in"), "packets 0")
		}
		far := farPool(v6)
		if v6 {
			far.CIDR = netip.PrefixFrom(otherPod.of(v6), 64).Masked()
		}
		g.set(pool(v6), far, workload(model.QoS{DSCP: 46, Marked: true}, false))
		g.wantSeen("another pod", otherPod.of(v6), podAddr.of(v6))
		if marked() {
			t.Error("a packet to another pod is marked")
		}
		g.wantSeen("outside", outsideAddr.of(v6), nodeAddr.of(v6))
		if !marked() {
			t.Errorf("a packet that left the cluster is not marked\n%s", g.run(g.node, "nft list ruleset"))
		}
	})
}
