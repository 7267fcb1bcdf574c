package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/selector"
	"github.com/weft-net/weft/internal/testenv"
)

// road is two pods on one node: namespaces joined by a third that routes.
type road struct {
	client, node, server *testenv.Namespace
	to                   netip.Addr // the server's
}

// newRoad makes a road. A namespace has no connection tracking until some rule asks
// for it, so one without policy is plain routing.
func newRoad(b *testing.B) *road {
	b.Helper()
	r := &road{testenv.Netns(b), testenv.Netns(b), testenv.Netns(b), netip.MustParseAddr("10.65.0.2")}
	testenv.Veth(b, r.node, "calia", []string{"169.254.1.1/32"}, r.client, "eth0", []string{"10.65.0.1/32"})
	testenv.Veth(b, r.node, "calib", []string{"169.254.1.1/32"}, r.server, "eth0", []string{"10.65.0.2/32"})
	testenv.Forward(b, r.node)
	for _, pod := range []*testenv.Namespace{r.client, r.server} {
		testenv.Route(b, pod, "169.254.1.1/32", "eth0", "")
		testenv.Route(b, pod, "0.0.0.0/0", "eth0", "169.254.1.1")
	}
	testenv.Route(b, r.node, "10.65.0.1/32", "calia", "")
	testenv.Route(b, r.node, "10.65.0.2/32", "calib", "")
	r.serve(b)
	return r
}

// Ports of the server.
const (
	portConnect = 8001 // closes what it accepts
	portEcho    = 8002 // sends back each byte
	portBulk    = 8003 // reads and forgets
)

// serve starts the server.
func (r *road) serve(b *testing.B) {
	b.Helper()
	listen := func(port int, each func(fd int)) {
		var fd int
		r.server.MustDo(func() (err error) {
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
				return err
			}
			return unix.Listen(fd, 1024)
		})
		b.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR); _ = unix.Close(fd) })
		go func() {
			for {
				c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
				if err != nil {
					return
				}
				each(c)
			}
		}()
	}
	var l net.Listener
	r.server.MustDo(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprint(":", portConnect))
		return err
	})
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	listen(portEcho, func(c int) {
		_ = unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		one := make([]byte, 1)
		for {
			if n, err := again(unix.Read, c, one); n != 1 || err != nil {
				break
			}
			if _, err := again(unix.Write, c, one); err != nil {
				break
			}
		}
		_ = unix.Close(c)
	})
	listen(portBulk, func(c int) {
		buf := make([]byte, 256<<10)
		for {
			if n, err := again(unix.Read, c, buf); n <= 0 || err != nil {
				break
			}
		}
		_ = unix.Close(c)
	})
}

// dial connects from the client. The connection ends by a reset, so that ports
// don't run out.
func (r *road) dial(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 2})
	to := &unix.SockaddrInet4{Port: port, Addr: r.to.As4()}
	for err = unix.Connect(fd, to); errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY); {
		err = unix.Connect(fd, to) // the Go scheduler's signals interrupt it
	}
	if err != nil && !errors.Is(err, unix.EISCONN) {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	return fd, nil
}

// again repeats a read or write that a signal interrupted.
func again(call func(int, []byte) (int, error), fd int, buf []byte) (int, error) {
	for {
		if n, err := call(fd, buf); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// work is one measure of a road: how much it does a second, over the time given.
type work func(r *road, d time.Duration) (perSecond float64, err error)

// connections opens connections one after the other as programs do, by package net;
// the server accepts and closes.
func connections(r *road, d time.Duration) (float64, error) {
	to := netip.AddrPortFrom(r.to, portConnect).String()
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		c, err := net.DialTimeout("tcp", to, 2*time.Second)
		if err != nil {
			return 0, err
		}
		_ = c.(*net.TCPConn).SetLinger(0) // a reset, so that ports don't run out
		_ = c.Close()
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

func roundTrips(r *road, d time.Duration) (float64, error) {
	fd, err := r.dial(portEcho)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	one := make([]byte, 1)
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		if _, err := again(unix.Write, fd, one); err != nil {
			return 0, err
		}
		if _, err := again(unix.Read, fd, one); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

func bulk(r *road, d time.Duration) (float64, error) {
	fd, err := r.dial(portBulk)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 256<<10)
	n := 0
	start := time.Now()
	for time.Since(start) < d {
		m, err := again(unix.Write, fd, buf)
		if err != nil {
			return 0, err
		}
		n += m
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// slice is how long one measure takes; the two roads take turns, so that what else
// the machine does falls on both.
const slice = 200 * time.Millisecond

// compare runs w on both roads in turn and reports what road b reaches of road a: the
// median of the ratios of neighbouring slices.
func compare(b *testing.B, plain, filtered *road, w work) {
	b.Helper()
	var ratios, rates []float64
	for b.Loop() {
		var got [2]float64
		for i, r := range []*road{plain, filtered} {
			err := r.client.Do(func() (err error) {
				got[i], err = w(r, slice)
				return err
			})
			if err != nil {
				b.Fatal(err)
			}
		}
		ratios, rates = append(ratios, got[1]/got[0]), append(rates, got[0])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rates), "plain/s")
	b.ReportMetric(median(ratios), "of-plain")
}

func median(x []float64) float64 {
	x = slices.Sorted(slices.Values(x))
	return x[len(x)/2]
}

// BenchmarkDatapath compares a node with policy to plain routing. 100 policies select
// both pods, and only the last rule of the last one allows the connection. The large node
// has 5,000 workloads and 20,000 rules more.
func BenchmarkDatapath(b *testing.B) {
	for _, node := range []struct {
		name             string
		others, policies int
	}{{"100-policies", 0, 0}, {"large", 5000, 2000}} {
		b.Run(node.name, func(b *testing.B) {
			plain, filtered := newRoad(b), newRoad(b)
			filtered.enforce(b, guardedWorld(b, node.others, node.policies))
			b.Run("connections", func(b *testing.B) { compare(b, plain, filtered, connections) })
			b.Run("round-trips", func(b *testing.B) { compare(b, plain, filtered, roundTrips) })
			b.Run("bulk", func(b *testing.B) { compare(b, plain, filtered, bulk) })
		})
	}
}

// guardedWorld is a node with the two pods of a road, 100 policies that select them,
// and so many other workloads and policies of 10 rules for these.
func guardedWorld(b *testing.B, others, policies int) model.World {
	b.Helper()
	w := model.World{}
	put := func(v model.Value) { w[v.Key()] = v }
	put(model.Tier{Name: "default", Order: 1e6})
	endpoint := func(name, link, addr string, labels map[string]string) {
		put(model.Endpoint{Namespace: "default", Name: name, Node: "node-a", Link: link, Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Labels: labels})
	}
	endpoint("client", "calia", "10.65.0.1", map[string]string{"app": "client", "guarded": "yes"})
	endpoint("server", "calib", "10.65.0.2", map[string]string{"app": "server", "guarded": "yes"})
	for i := range others {
		a := netip.AddrFrom4([4]byte{10, 66, byte(i >> 8), byte(i)})
		endpoint(fmt.Sprint("other-", i), fmt.Sprint("calix", i), a.String(), map[string]string{"team": fmt.Sprint(i % max(policies, 1))})
	}
	add := func(name string, order float64, sel string, rules []model.Rule) {
		put(model.Policy{
			Origin: model.Key{Kind: model.KindNetworkPolicy, Namespace: "default", Name: name}, Tier: "default", Order: order,
			Selector: parseSelector(b, sel), AppliesIngress: true, AppliesEgress: true, Ingress: rules, Egress: rules,
		})
	}
	for i := range 99 {
		add(fmt.Sprint("p", i), float64(i), `guarded == "yes"`, []model.Rule{{
			Action: model.Allow, Protocol: unix.IPPROTO_TCP,
			Source:      model.Entity{Selector: parseSelector(b, fmt.Sprintf("team == %q", fmt.Sprint(i)))},
			Destination: model.Entity{Ports: []model.PortRange{{First: 443, Last: 443}}},
		}})
	}
	add("last", 100, `guarded == "yes"`, []model.Rule{{Action: model.Allow, Protocol: unix.IPPROTO_TCP, Source: model.Entity{Selector: parseSelector(b, `app == "client"`)}}})
	for i := range policies {
		var rules []model.Rule
		for j := range 5 {
			rules = append(rules, model.Rule{
				Action: model.Allow, Protocol: unix.IPPROTO_TCP, Source: model.Entity{Selector: parseSelector(b, fmt.Sprintf("team == %q", fmt.Sprint(j)))},
				Destination: model.Entity{Ports: []model.PortRange{{First: uint16(1000 + j), Last: uint16(1000 + j)}}},
			})
		}
		add(fmt.Sprint("other-", i), 200, fmt.Sprintf("team == %q", fmt.Sprint(i)), rules)
	}
	return w
}

func parseSelector(b *testing.B, text string) *selector.Selector {
	b.Helper()
	s, err := selector.Parse(text)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// enforce puts a world's policy in force on the node, as its agent would.
func (r *road) enforce(b *testing.B, w model.World) {
	b.Helper()
	graph := policy.NewGraph("node-a")
	batch := model.Batch{Reset: true, Synced: true}
	for _, v := range w {
		batch.Puts = append(batch.Puts, v)
	}
	var table *nft.NFT
	r.node.MustDo(func() (err error) {
		table, err = nft.New(nft.Options{})
		return err
	})
	go func() { _ = table.Run(b.Context()) }()
	table.Apply(graph.Step(batch))
	table.Synced()
	if err := table.WaitApplied(b.Context()); err != nil {
		b.Fatal(err)
	}
	s := table.State()
	b.Logf("%d chains with %d rules, %d sets with %d members", s.Chains, s.Rules, s.Sets, s.Members)
}
