package ct

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/testenv"
)

const eventually = testenv.Patience

// net3 is a client and a server with a router between them, which tracks
// connections.
type net3 struct {
	*testing.T
	client, router, server *testenv.Namespace
	table                  *Table
}

// rules accept what is established, drop what has a tombstone, and then all that
// the chain "denies" drops. New flows of the server are allowed.
const rules = `
table inet t {
	set tombs4 { type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; flags timeout; timeout 1m; }
	set tombs6 { type ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service; flags timeout; timeout 1m; }
	chain denies {
	}
	chain judge {
		type filter hook forward priority 0;
		ct state established,related accept
		ct state invalid drop
		ip saddr . ip daddr . meta l4proto . th sport . th dport @tombs4 counter drop comment "tomb"
		ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport @tombs6 counter drop comment "tomb"
		jump denies
	}
}`

func newNet3(t *testing.T) net3 {
	testenv.Need(t, "nft", "ip")
	n := net3{T: t, client: testenv.Netns(t), router: testenv.Netns(t), server: testenv.Netns(t)}
	testenv.Veth(t, n.client, "eth0", []string{"10.0.1.2/24", "fd00:1::2/64"}, n.router, "cali1", []string{"10.0.1.1/24", "fd00:1::1/64"})
	testenv.Veth(t, n.server, "eth0", []string{"10.0.2.2/24", "fd00:2::2/64"}, n.router, "cali2", []string{"10.0.2.1/24", "fd00:2::1/64"})
	n.run(n.client, "ip route add default via 10.0.1.1")
	n.run(n.client, "ip -6 route add default via fd00:1::1")
	n.run(n.server, "ip route add default via 10.0.2.1")
	n.run(n.server, "ip -6 route add default via fd00:2::1")
	n.router.MustDo(func() error {
		for _, path := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	n.nft(rules)
	n.router.MustDo(func() (err error) {
		n.table, err = Open()
		return err
	})
	t.Cleanup(func() { n.table.Close() })
	return n
}

func (n net3) run(ns *testenv.Namespace, command string) string {
	n.Helper()
	args := strings.Fields(command)
	return ns.MustRun(args[0], args[1:]...)
}

// nft runs a script in the router.
func (n net3) nft(script string) {
	n.Helper()
	var out strings.Builder
	cmd := exec.Command(testenv.Need(n, "nft"), "-f", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &out, &out
	if err := n.router.Start(cmd); err != nil {
		n.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		n.Fatalf("nft: %v\n%s\n%s", err, script, out.String())
	}
}

// buried reports whether a tombstone has stopped a packet.
func (n net3) buried() bool {
	for line := range strings.Lines(n.run(n.router, "nft list ruleset")) {
		if strings.Contains(line, "tomb") && !strings.Contains(line, "packets 0 ") {
			return true
		}
	}
	return false
}

// until waits for something that comes by itself.
func (n net3) until(what string, done func() bool) {
	n.Helper()
	for end := time.Now().Add(eventually); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			n.Fatalf("not within %v: %s", eventually, what)
		}
	}
}

// pair is a flow from the client to the server, and its two ends.
type pair struct {
	net3
	a, b net.Conn
}

// connect makes a flow over "tcp" or "udp" to a port of the server, with a message
// each way.
func (n net3) connect(network, host string, port int) pair {
	n.Helper()
	p := pair{net3: n}
	addr := net.JoinHostPort(host, fmt.Sprint(port))
	accepted := make(chan net.Conn, 1)
	n.server.MustDo(func() error {
		if network == "udp" {
			c, err := net.ListenPacket(network, addr)
			if err == nil {
				p.b = &udpEnd{PacketConn: c}
			}
			return err
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		go func() {
			defer l.Close()
			if c, err := l.Accept(); err == nil {
				accepted <- c
			}
		}()
		return nil
	})
	n.client.MustDo(func() (err error) {
		p.a, err = net.DialTimeout(network, addr, eventually)
		return err
	})
	if p.b == nil {
		p.b = <-accepted
	}
	n.Cleanup(func() { p.a.Close(); p.b.Close() })
	if !p.passes(p.a, p.b, eventually) || !p.passes(p.b, p.a, eventually) {
		n.Fatalf("%s to %s: no message passes", network, addr)
	}
	return p
}

// udpEnd answers who wrote last.
type udpEnd struct {
	net.PacketConn
	net.Conn // nil: not used
	peer     net.Addr
}

func (u *udpEnd) Read(b []byte) (n int, err error) {
	n, u.peer, err = u.ReadFrom(b)
	return n, err
}
func (u *udpEnd) Write(b []byte) (int, error)       { return u.WriteTo(b, u.peer) }
func (u *udpEnd) Close() error                      { return u.PacketConn.Close() }
func (u *udpEnd) LocalAddr() net.Addr               { return u.PacketConn.LocalAddr() }
func (u *udpEnd) RemoteAddr() net.Addr              { return u.peer }
func (u *udpEnd) SetDeadline(t time.Time) error     { return u.PacketConn.SetDeadline(t) }
func (u *udpEnd) SetReadDeadline(t time.Time) error { return u.PacketConn.SetReadDeadline(t) }
func (u *udpEnd) SetWriteDeadline(t time.Time) error {
	return u.PacketConn.SetWriteDeadline(t)
}

// passes reports whether a message from one end comes to the other in time.
func (p pair) passes(from, to net.Conn, within time.Duration) bool {
	p.Helper()
	if _, err := from.Write([]byte("x")); err != nil {
		p.Fatal(err)
	}
	_ = to.SetReadDeadline(time.Now().Add(within))
	_, err := io.ReadFull(to, make([]byte, 1))
	return err == nil
}

// entry is the flow in the router's table; false if there is none.
func (p pair) entry() (found Flow, ok bool) {
	p.Helper()
	src, dst := netip.MustParseAddrPort(p.a.LocalAddr().String()), netip.MustParseAddrPort(p.a.RemoteAddr().String())
	err := p.table.Flows(context.Background(), Filter{}, func(f *Flow) bool {
		if f.Orig.Src == src.Addr() && f.Orig.SrcPort == src.Port() && f.Orig.Dst == dst.Addr() && f.Orig.DstPort == dst.Port() {
			found, ok = *f, true
		}
		return true
	})
	if err != nil {
		p.Fatal(err)
	}
	return found, ok
}

// end ends the flows to port 7001 in the router; there must be count. Without entomb
// there are no tombstones.
func (n net3) end(count uint64, entomb bool) {
	n.Helper()
	n.runEnder(count, func(flows []Flow, forbidden []bool) {
		for i := range flows {
			forbidden[i] = flows[i].Orig.DstPort == 7001
		}
	}, func(_ context.Context, tuples []Tuple) error {
		for _, t := range tuples {
			set := map[bool]string{true: "tombs4", false: "tombs6"}[t.Src.Is4()]
			if entomb {
				n.nft(fmt.Sprintf("add element inet t %s { %v . %v . %d . %d . %d }", set, t.Src, t.Dst, t.Protocol, t.SrcPort, t.DstPort))
			}
		}
		return nil
	})
}

// runEnder runs an Ender in the router until it has ended count flows.
func (n net3) runEnder(count uint64, judge func([]Flow, []bool), entomb func(context.Context, []Tuple) error) {
	n.Helper()
	e := NewEnder(EnderOptions{Conns: n.table, Judge: judge, Entomb: entomb})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = e.Run(ctx); close(done) }()
	n.until(fmt.Sprintf("%d flows ended", count), func() bool { return e.State().Ended >= count })
	cancel()
	<-done
	if s := e.State(); s.Ended != count || s.Err != "" {
		n.Errorf("ended %d flows, want %d; error %q", s.Ended, count, s.Err)
	}
}

// mustEnd checks that end, which is called when the rules deny the flow, ends it in
// both directions, and leaves the other flow, whose entry was that, alone.
func (p pair) mustEnd(spared pair, was Flow, end func()) {
	p.Helper()
	if !p.passes(p.a, p.b, eventually) {
		p.Fatal("the rule alone ended the flow: this test shows nothing")
	}
	end()
	if _, there := p.entry(); there {
		p.Error("the flow has its entry still")
	}
	if _, err := p.b.Write([]byte("answer")); err != nil {
		p.Fatal(err)
	}
	p.until("an answer stopped by the tombstone", p.buried)
	if _, err := p.a.Write([]byte("question")); err != nil {
		p.Fatal(err)
	}
	if !spared.passes(spared.a, spared.b, eventually) || !spared.passes(spared.b, spared.a, eventually) {
		p.Error("the allowed flow stopped")
	}
	if is, ok := spared.entry(); !ok || is.ID != was.ID {
		p.Errorf("the allowed flow is another: %+v, was %+v", is, was)
	}
	_ = p.a.SetReadDeadline(time.Now())
	if n, _ := p.a.Read(make([]byte, 64)); n > 0 {
		p.Error("an answer came through")
	}
}

// TestNewDenyEndsFlows is the contract: a new Deny ends the flows that it forbids,
// in both directions, and no others.
func TestNewDenyEndsFlows(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"10.0.2.2", "fd00:2::2"} {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(network+" "+host, func(t *testing.T) {
				t.Parallel()
				n := newNet3(t)
				doomed, spared := n.connect(network, host, 7001), n.connect(network, host, 7002)
				was, ok := spared.entry()
				if _, there := doomed.entry(); !ok || !there {
					t.Fatal("the router does not track the flows")
				}
				n.nft("add rule inet t denies meta l4proto { tcp, udp } th dport 7001 drop")
				doomed.mustEnd(spared, was, func() { n.end(1, true) })
			})
		}
	}
}

// TestAnswersReviveWithoutTombstone is why there are tombstones.
func TestAnswersReviveWithoutTombstone(t *testing.T) {
	t.Parallel()
	n := newNet3(t)
	doomed := n.connect("tcp", "10.0.2.2", 7001)
	n.nft("add rule inet t denies tcp dport 7001 drop")
	n.end(1, false)
	if !doomed.passes(doomed.b, doomed.a, eventually) {
		testenv.Skip(t, "this kernel does not take up TCP in mid-stream")
	}
}

// TestFlows looks at what the kernel tells of flows: translated, marked, of both
// families, ICMP.
func TestFlows(t *testing.T) {
	t.Parallel()
	n := newNet3(t)
	n.nft(`
		add table ip nat
		add chain ip nat pre { type nat hook prerouting priority -100; }
		add rule ip nat pre ip daddr 10.96.0.1 tcp dport 80 dnat to 10.0.2.2:7003
		insert rule inet t judge ip6 version 6 ct mark set 5`)
	n.run(n.client, "ip route add 10.96.0.1 via 10.0.1.1")
	var l net.Listener
	n.server.MustDo(func() (err error) { l, err = net.Listen("tcp", "10.0.2.2:7003"); return err })
	defer l.Close()
	var c net.Conn
	n.client.MustDo(func() (err error) { c, err = net.DialTimeout("tcp", "10.96.0.1:80", eventually); return err })
	defer c.Close()
	six := n.connect("udp", "fd00:2::2", 7004)

	var seen []string
	list := func(filter Filter) []string {
		seen = nil
		if err := n.table.Flows(t.Context(), filter, func(f *Flow) bool {
			src := netip.AddrPortFrom(f.Orig.Src, 0).Addr()
			seen = append(seen, fmt.Sprintf("%v %v:%d < %v:%d mark %d nat %t", src, f.Orig.Dst, f.Orig.DstPort, f.Reply.Src, f.Reply.SrcPort, f.Mark, f.Status&DestNAT != 0))
			return true
		}); err != nil {
			t.Fatal(err)
		}
		slices.Sort(seen)
		return seen
	}
	v4 := "10.0.1.2 10.96.0.1:80 < 10.0.2.2:7003 mark 0 nat true"
	v6 := "fd00:1::2 fd00:2::2:7004 < fd00:2::2:7004 mark 5 nat false"
	for _, tt := range []struct {
		filter Filter
		want   []string
	}{
		{Filter{}, []string{v4, v6}},
		{Filter{Family: unix.AF_INET}, []string{v4}},
		{Filter{Family: unix.AF_INET6}, []string{v6}},
		{Filter{Mark: 5, MarkMask: 7}, []string{v6}},
		{Filter{Mark: 2, MarkMask: 2}, nil},
		{Filter{Zoned: true}, []string{v4, v6}},
		{Filter{Zoned: true, Zone: 3}, nil},
	} {
		if got := list(tt.filter); !slices.Equal(got, tt.want) {
			t.Errorf("%+v:\n%q, want\n%q", tt.filter, got, tt.want)
		}
	}
	f, _ := six.entry()
	other := f
	other.ID++
	if got, err := n.table.Delete([]Flow{other}); got != 0 || err != nil {
		t.Errorf("deleting the flow with another ID: %d, %v; want nothing", got, err)
	}
	if got, err := n.table.Delete([]Flow{other, f, f}); got != 1 || err != nil {
		t.Errorf("deleting the flow: %d, %v; want it alone", got, err)
	}
	if _, there := six.entry(); there {
		t.Error("the flow is there still")
	}
}

// fill puts count flows into the table of the namespace.
func fill(t testing.TB, ns *testenv.Namespace, count int) *Table {
	var table *Table
	err := ns.Do(func() (err error) {
		table, err = Open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	s := table.socket
	for i := 0; i < count; {
		var b []byte
		var start int
		var seq uint32
		for ; i < count && len(b) < batchBytes; i++ {
			f := Flow{Orig: Tuple{Src: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: 17, SrcPort: uint16(1000 + i>>16), DstPort: 53}}
			f.Reply, f.Timeout, f.Status = reversed(f.Orig), 600, Confirmed|SeenReply
			start, seq = len(b), s.Next()
			b = netlink.AppendHeader(b, unix.NFNL_SUBSYS_CTNETLINK<<8, unix.NLM_F_REQUEST|unix.NLM_F_CREATE, seq)
			b = f.appendFlow(b)
			netlink.EndMessage(b, start)
		}
		netlink.Native.PutUint16(b[start+6:], unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_ACK)
		if err := s.Exchange(b, seq, func(_ uint32, errno unix.Errno) { err = errno }); err != nil {
			t.Fatal(err)
		}
	}
	if err != nil {
		testenv.Skip(t, "cannot make flows: %v", err)
	}
	return table
}

// TestDeleteMany deletes more flows than a batch holds.
func TestDeleteMany(t *testing.T) {
	t.Parallel()
	ns := testenv.Netns(t)
	if !fill(t, ns, 0).Empty() {
		t.Error("the table of a new namespace is not empty")
	}
	table := fill(t, ns, 2000)
	if table.Empty() {
		t.Error("a table of 2000 flows is empty")
	}
	var all []Flow
	take := func(f *Flow) bool { all = append(all, *f); return true }
	if err := table.Flows(t.Context(), Filter{}, take); err != nil || len(all) != 2000 {
		t.Fatalf("%d flows, %v", len(all), err)
	}
	n, err := table.Delete(all)
	all = nil
	if ferr := table.Flows(t.Context(), Filter{}, take); n != 2000 || err != nil || len(all) != 0 || ferr != nil {
		t.Errorf("deleted %d (%v), left %d (%v), want 2000 and 0", n, err, len(all), ferr)
	}
}

// TestLocal lists the router's addresses.
func TestLocal(t *testing.T) {
	t.Parallel()
	n := newNet3(t)
	n.run(n.router, "ip addr add 10.9.9.1 peer 10.9.9.2 dev cali1")
	local, err := n.table.Local()
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{"10.0.1.1": true, "fd00:2::1": true, "127.0.0.1": true, "::1": true, "10.9.9.1": true, "10.9.9.2": false, "10.0.1.2": false} {
		if got := local[netip.MustParseAddr(addr)]; got != want {
			t.Errorf("%s: %t, want %t", addr, got, want)
		}
	}
}

// TestListEnds: who has seen enough, or has no more time, gets no more.
func TestListEnds(t *testing.T) {
	t.Parallel()
	table := fill(t, testenv.Netns(t), 500)
	seen := 0
	if err := table.Flows(t.Context(), Filter{}, func(*Flow) bool { seen++; return seen < 3 }); err != nil || seen != 3 {
		t.Errorf("saw %d flows, %v; want 3", seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen = 0
	if err := table.Flows(ctx, Filter{}, func(*Flow) bool { seen++; cancel(); return true }); err == nil || seen != 1 {
		t.Errorf("saw %d flows after the end, %v; want 1 and an error", seen, err)
	}
	seen = 0
	if err := table.Flows(t.Context(), Filter{}, func(*Flow) bool { seen++; return true }); err != nil || seen != 500 {
		t.Errorf("saw %d flows, %v; want 500", seen, err)
	}
}

func BenchmarkFlows(b *testing.B) {
	for _, count := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			table := fill(b, testenv.Netns(b), count)
			b.ReportAllocs()
			for b.Loop() {
				n := 0
				if err := table.Flows(b.Context(), Filter{}, func(*Flow) bool { n++; return true }); err != nil || n != count {
					b.Fatal(n, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/flow")
		})
	}
}
