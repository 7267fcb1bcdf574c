package qos

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// bench is a node with a workload behind cali1, and the door under test.
type bench struct {
	testing.TB
	node, pod *testenv.Namespace
}

// newBench makes the namespaces, or skips where the kernel lacks what is needed.
func newBench(t *testing.T) bench {
	testenv.Need(t, "ip", "tc")
	b := bench{t, testenv.Netns(t), testenv.Netns(t)}
	testenv.Veth(t, b.node, "cali1", []string{"10.0.0.1/24", "fd00::1/64"}, b.pod, "eth0", []string{"10.0.0.2/24", "fd00::2/64"})
	for _, kind := range []string{"ifb", "tbf"} {
		probe := []string{"link", "add", "probe0", "type", "ifb"}
		program := "ip"
		if kind == "tbf" {
			program, probe = "tc", strings.Fields("qdisc add dev lo root tbf rate 1mbit burst 10k limit 10k")
		}
		if out, err := b.node.Run(program, probe...); err != nil {
			testenv.Skip(t, "the kernel has no %s: %s", kind, out)
		}
	}
	b.node.MustRun("ip", "link", "del", "probe0")
	b.node.MustRun("tc", "qdisc", "del", "dev", "lo", "root")
	return b
}

// start runs a QoS; stop ends it as a crash would.
func (b bench) start() (q *QoS, stop func()) {
	b.Helper()
	b.node.MustDo(func() (err error) { q, err = New(Options{Resync: -1}); return err })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = q.Run(ctx) }()
	stop = func() { cancel(); <-done }
	b.Cleanup(stop)
	return q, stop
}

// set says what is wanted, and waits for it.
func (b bench) set(q *QoS, shapes ...plan.Shape) {
	b.Helper()
	want := map[string]plan.Shape{}
	for _, s := range shapes {
		want[s.Link] = s
	}
	q.Want(want)
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	for link := range want {
		if err := q.Wait(ctx, link, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func (b bench) until(what string, fact func() bool) {
	b.Helper()
	for start := time.Now(); !fact(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > testenv.Patience {
			b.Fatalf("not within %v: %s\n%s", testenv.Patience, what, b.all())
		}
	}
}

func (b bench) all() string {
	return b.node.MustRun("tc", "qdisc", "show") + "\n" + b.node.MustRun("tc", "filter", "show", "dev", "cali1", "ingress") + "\n" + b.node.MustRun("ip", "-o", "link")
}

// took is how long n bytes take from one namespace to an address in the other.
func (b bench) took(from, to *testenv.Namespace, addr string, n int) time.Duration {
	b.Helper()
	var l net.Listener
	to.MustDo(func() (err error) { l, err = net.Listen("tcp", net.JoinHostPort(addr, "0")); return err })
	defer l.Close()
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, c)
			_ = c.Close()
		}
		got <- err
	}()
	var c net.Conn
	from.MustDo(func() (err error) { c, err = net.DialTimeout("tcp", l.Addr().String(), testenv.Patience); return err })
	start := time.Now()
	_ = c.SetDeadline(start.Add(testenv.Patience))
	if _, err := c.Write(make([]byte, n)); err != nil {
		b.Fatal(err)
	}
	_ = c.Close()
	select {
	case err := <-got:
		if err != nil {
			b.Fatal(err)
		}
	case <-time.After(testenv.Patience):
		b.Fatal("the bytes do not arrive")
	}
	return time.Since(start)
}

// TestTraffic: a limit is one of its own direction and of both families, and none is left
// when it is not wanted any more.
func TestTraffic(t *testing.T) {
	t.Parallel()
	const bytes, rate = 1 << 20, 4e6 // 2.1 s at that rate, but for the burst
	const least = time.Second
	for name, tt := range map[string]struct {
		shape plan.Shape
		in    bool
	}{
		"ingress": {plan.Shape{Link: "cali1", Ingress: plan.Rate{Bits: rate}}, true},
		"egress":  {plan.Shape{Link: "cali1", Egress: plan.Rate{Bits: rate}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			q, _ := b.start()
			b.set(q, tt.shape)
			if p := q.Problems(); len(p) > 0 {
				t.Fatalf("problems: %v", p)
			}
			limited := func(in bool, v6 bool) time.Duration {
				from, to, addr := b.pod, b.node, [2]string{"10.0.0.1", "fd00::1"}
				if in {
					from, to, addr = b.node, b.pod, [2]string{"10.0.0.2", "fd00::2"}
				}
				if v6 {
					return b.took(from, to, addr[1], bytes)
				}
				return b.took(from, to, addr[0], bytes)
			}
			for _, v6 := range []bool{false, true} {
				if d := limited(tt.in, v6); d < least {
					t.Errorf("IPv6 %t: %d bytes took %v, want at least %v\n%s", v6, bytes, d, least, b.all())
				}
			}
			fast := min(limited(!tt.in, false), limited(!tt.in, false), limited(!tt.in, false))
			b.set(q)
			b.until("nothing is left", func() bool { return !strings.Contains(b.all(), "tbf") && !strings.Contains(b.all(), "weftq") })
			if out := b.all(); strings.Contains(out, "ingress") || strings.Contains(out, "mirred") {
				t.Errorf("left:\n%s", out)
			}
			// On a machine that is never quick nothing is known of the other direction.
			if free := min(limited(tt.in, false), limited(tt.in, false), limited(tt.in, false)); fast > least && free < least/4 {
				t.Errorf("the other direction took %v, without limits %v", fast, free)
			}
		})
	}
}

// TestRestart: what is there is adopted, healed, and removed when it is not wanted.
func TestRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	shape := plan.Shape{
		Link: "cali1", Ingress: plan.Rate{Bits: 50e9, Burst: 8e6, Peak: 80e9, MinBurst: 1e6},
		Egress: plan.Rate{Bits: 1e6, Burst: 30e9},
	}
	q, stop := b.start()
	b.set(q, shape)
	before := b.all()
	for _, want := range []string{"tbf ca71: dev cali1", "rate 50Gbit", "peakrate 80Gbit", "rate 1Mbit", "mirred (Egress Redirect to device " + ifbFor("cali1")} {
		if !strings.Contains(before, want) {
			t.Errorf("no %q in\n%s", want, before)
		}
	}
	stop()
	q, _ = b.start()
	b.set(q, shape)
	if n := q.Writes(); n != 0 || b.all() != before {
		t.Errorf("%d writes; was\n%s\nis\n%s", n, before, b.all())
	}
	b.node.MustRun("tc", "qdisc", "del", "dev", "cali1", "root")
	b.until("the root is back", func() bool { return strings.Contains(b.all(), "tbf ca71: dev cali1") })
	b.node.MustRun("ip", "link", "del", ifbFor("cali1"))
	b.until("the device is back, and packets go there", func() bool {
		out := b.all()
		return strings.Contains(out, "mirred (Egress Redirect to device "+ifbFor("cali1"))
	})
	b.node.MustRun("tc", "qdisc", "del", "dev", "cali1", "ingress")
	b.until("the filter is back", func() bool { return strings.Contains(b.all(), "mirred") })
	shape.Ingress.Bits = 2e6
	shape.Ingress.Peak = 0
	b.set(q, shape)
	if out := b.all(); !strings.Contains(out, "rate 2Mbit") || strings.Contains(out, "peakrate") {
		t.Errorf("after another rate:\n%s", out)
	}
	// The link goes with its workload, and comes back with another.
	b.node.MustRun("ip", "link", "del", "cali1")
	b.node.MustRun("ip", "link", "add", "cali1", "type", "veth", "peer", "name", "cali1b")
	b.until("the new link is limited", func() bool { return strings.Contains(b.all(), "tbf ca71: dev cali1 ") })
	b.set(q)
	b.until("nothing is left", func() bool { return !strings.Contains(b.all(), "tbf") && !strings.Contains(b.all(), "weftq") })
}

// TestOthers: what somebody else made stays.
func TestOthers(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.node.MustRun("tc", "qdisc", "add", "dev", "cali1", "root", "handle", "1:", "tbf", "rate", "1mbit", "burst", "10k", "limit", "10k")
	b.node.MustRun("tc", "qdisc", "add", "dev", "cali1", "clsact")
	b.node.MustRun("ip", "link", "add", "other0", "type", "ifb")
	b.node.MustRun("tc", strings.Fields("filter add dev cali1 ingress pref 60000 protocol all u32 match u32 0 0 action mirred egress redirect dev other0")...)
	q, _ := b.start()
	b.set(q, plan.Shape{Link: "cali1", Ingress: plan.Rate{Bits: 2e6}, Egress: plan.Rate{Bits: 3e6}})
	p := q.Problems()
	if len(p) != 1 || p[0].Object != "cali1" || !strings.Contains(p[0].Text, "qdisc tbf 1:") || strings.Contains(p[0].Text, "\n") {
		t.Errorf("problems: %v", p)
	}
	if out := b.all(); !strings.Contains(out, "tbf 1: dev cali1 root") || !strings.Contains(out, "rate 3Mbit") || !strings.Contains(out, "to device other0") {
		t.Errorf("got\n%s", out)
	}
	b.set(q)
	b.until("ours has gone", func() bool { return !strings.Contains(b.all(), "weftq") })
	if out := b.all(); !strings.Contains(out, "tbf 1: dev cali1 root") || !strings.Contains(out, "clsact") || !strings.Contains(out, "to device other0") {
		t.Errorf("something of others has gone:\n%s", out)
	}
}

// TestLeftOfAnEarlierRun: nothing is removed before it is known what is wanted.
func TestLeftOfAnEarlierRun(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	q, stop := b.start()
	b.set(q, plan.Shape{Link: "cali1", Ingress: plan.Rate{Bits: 2e6}, Egress: plan.Rate{Bits: 3e6}})
	stop()
	q, _ = b.start()
	q.Resync()
	b.node.MustRun("ip", "link", "set", "cali1", "mtu", "1400")
	if out := b.all(); !strings.Contains(out, "rate 2Mbit") || !strings.Contains(out, "rate 3Mbit") {
		t.Errorf("removed before anybody said so:\n%s", out)
	}
	b.set(q)
	b.until("nothing is left", func() bool { return !strings.Contains(b.all(), "tbf") && !strings.Contains(b.all(), "weftq") })
}

func TestBucketFor(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		rate plan.Rate
		want string
	}{
		"none":             {plan.Rate{}, "{0 0 0 0 0}"},
		"usual":            {plan.Rate{Bits: 80e6}, "{10000000 0 1000000 0 1250000}"},
		"slow":             {plan.Rate{Bits: 8e3}, "{1000 0 15140 0 80676}"},
		"burst":            {plan.Rate{Bits: 8e6, Burst: 8e6}, "{1000000 0 1000000 0 1065536}"},
		"burst, too small": {plan.Rate{Bits: 8e6, Burst: 8}, "{1000000 0 1514 0 67050}"},
		"burst, huge":      {plan.Rate{Bits: 8e6, Burst: 1 << 60}, "{1000000 0 4294967295 0 4294967295}"},
		"peak":             {plan.Rate{Bits: 8e6, Peak: 16e6}, "{1000000 2000000 100000 1514 165536}"},
		"peak, too low":    {plan.Rate{Bits: 8e6, Peak: 8e6}, "{1000000 0 100000 0 165536}"},
	} {
		if got := fmt.Sprint(bucketFor(tt.rate, 1500)); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(putTBF(7, bucket{rate: 1, burst: 2, limit: 3}))
	f.Add(putFilter(7, 8))
	f.Add(newIFB("weftq0123456789", 1500))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if l, ok := parseLink(b); ok {
			s := &state{map[string]*link{l.name: &l}, map[int32]*link{l.index: &l}}
			s.addQdisc(b)
		}
		if len(b) >= tcBytes {
			mirredTo(b[tcBytes:])
		}
	})
}
