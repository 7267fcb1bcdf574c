package ipip

import (
	"fmt"
	"testing"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// ways are those between the pods of two hosts.
func ways() map[string]func(testing.TB) (a, b *host) {
	return map[string]func(testing.TB) (a, b *host){"routed": routed, "tunnel": joined}
}

// routed gives two hosts that know the way to each other's pod without a tunnel.
func routed(t testing.TB) (a, b *host) {
	a, b = hosts(t)
	for _, h := range []*host{a, b} {
		o := 3 - h.number
		testenv.Route(t, h.ns, fmt.Sprintf("10.65.%d.0/24", o), "eth0", fmt.Sprintf("192.168.9.%d", o))
	}
	return a, b
}

// BenchmarkBulk sends one TCP connection from pod to pod: through the tunnel, and by
// plain routing between the same namespaces.
func BenchmarkBulk(b *testing.B) {
	const bytes = 256 << 20
	for mode, connect := range ways() {
		b.Run(mode, func(b *testing.B) {
			x, y := connect(b)
			x.pinger().answers(y.podAddr())
			b.SetBytes(bytes)
			for b.Loop() {
				bulk(b, x, y, bytes)
			}
		})
	}
}

// BenchmarkRoundTrip is a ping from pod to pod.
func BenchmarkRoundTrip(b *testing.B) {
	for mode, connect := range ways() {
		b.Run(mode, func(b *testing.B) {
			x, y := connect(b)
			p := x.pinger()
			p.answers(y.podAddr())
			for b.Loop() {
				if got := p.ping(y.podAddr(), 84, true); got != "reply" {
					b.Fatal(got)
				}
			}
		})
	}
}

// BenchmarkDecapsulate takes segments of one connection as they come from the
// underlay, up to the write to the device.
func BenchmarkDecapsulate(b *testing.B) {
	r := newReceiver(&Tunnel{name: plan.IPIPDevice})
	r.mtu = 1480
	raw := make([][]byte, receiveMessages)
	for i := range raw {
		raw[i] = segment(i*1428, 1428, flagACK)
	}
	b.SetBytes(int64(len(raw) * 1428))
	b.ReportAllocs()
	for b.Loop() {
		r.count = 0
		clear(r.open[:])
		for i, s := range raw {
			r.packet(r.bufs[i][:copy(r.bufs[i], s)])
		}
	}
}

// BenchmarkEncapsulate cuts what the kernel hands over at once into segments.
func BenchmarkEncapsulate(b *testing.B) {
	s := newSender(&Tunnel{})
	p, _ := checked(stream(44 * 1428))
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		s.count = 0
		if err := s.split(p, 1428, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLookup finds one of 5,000 nodes' blocks; BenchmarkApply adds one more.
func BenchmarkLookup(b *testing.B) {
	t := manyRoutes(5000)
	for i := 0; b.Loop(); i++ {
		if t.root.Load().lookup(0x0a410000+address(i*64%(5000*64))) == nil {
			b.Fatal("no route")
		}
	}
}

func BenchmarkApply(b *testing.B) {
	t := manyRoutes(5000)
	one := nodeRoute(5001)
	b.ReportAllocs()
	for b.Loop() {
		t.apply(plan.Delta{PutRoutes: []plan.Route{one}})
		t.apply(plan.Delta{DeleteRoutes: []plan.RouteKey{one.RouteKey}})
	}
}
