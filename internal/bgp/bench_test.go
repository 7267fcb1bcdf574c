package bgp

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// BenchmarkLearn100k takes 100,000 routes from one peer out of messages as a
// peer packs them, and gives them to the consumer. It reports what a route
// then costs in live memory.
func BenchmarkLearn100k(b *testing.B) {
	const count = 100_000
	prefixes := make([]netip.Prefix, count)
	a := netip.MustParseAddr("16.0.0.0")
	for i := range prefixes {
		prefixes[i] = netip.PrefixFrom(a, 32)
		a = a.Next()
	}
	hop := netip.MustParseAddr("10.0.0.2")
	feed, _ := wire.AppendReach(nil, IPv4, &wire.Attrs{ASPath: wire.ASPath{{Kind: wire.Sequence, ASNs: []uint32{65001}}}, NextHop: hop}, prefixes, wire.Options{ASN4: true})
	now := time.Unix(1e9, 0)
	b.ReportAllocs()
	var keep *Router
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		r := NewRouter()
		c := config(64512, "", "10.0.0.2 65001")
		c.RouterID = netip.MustParseAddr("10.0.0.1")
		if err := r.Apply(now, c); err != nil {
			b.Fatal(err)
		}
		id, err := r.Accept(now, hop, c.RouterID)
		if err != nil {
			b.Fatal(err)
		}
		open := wire.Open{ASN: 65001, HoldTime: time.Minute, ID: hop, Capabilities: wire.Capabilities{ASN4: true, Families: IPv4}}
		r.Received(now, id, wire.AppendKeepalive(wire.AppendOpen(nil, open)))
		for data := feed; len(data) > 0; data = data[min(len(data), 65536):] {
			r.Received(now, id, data[:min(len(data), 65536)])
		}
		n := 0
		for batch := (LearnedBatch{}); r.Learned(&batch, 4096); {
			n += len(batch.Puts)
		}
		if n != count {
			b.Fatalf("learned %d", n)
		}
		keep = r
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/count, "live-B/route")
	runtime.KeepAlive(keep)
}

// BenchmarkReflect has ten clients with 10,000 routes each, of which each is
// told those of the nine others: 900,000 routes sent.
func BenchmarkReflect(b *testing.B) {
	const clients, each = 10, 10_000
	now := time.Unix(1e9, 0)
	self := netip.MustParseAddr("10.0.0.100")
	var names []string
	var feeds [][]byte
	for i := range clients {
		hop := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		names = append(names, hop.String()+" 64512 client")
		a := netip.AddrFrom4([4]byte{byte(16 + i), 0, 0, 0})
		var list []netip.Prefix
		for range each {
			list = append(list, netip.PrefixFrom(a, 32))
			a = a.Next()
		}
		open := wire.AppendOpen(nil, wire.Open{ASN: 64512, HoldTime: time.Hour, ID: hop, Capabilities: wire.Capabilities{ASN4: true, Families: IPv4}})
		feed, _ := wire.AppendReach(wire.AppendKeepalive(open), IPv4, &wire.Attrs{NextHop: hop}, list, wire.Options{ASN4: true, IBGP: true})
		feeds = append(feeds, feed)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := NewRouter()
		if err := r.Apply(now, withID(config(64512, "", names...), self.String())); err != nil {
			b.Fatal(err)
		}
		var ids []ConnID
		for i := range clients {
			id, err := r.Accept(now, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), self)
			if err != nil {
				b.Fatal(err)
			}
			ids = append(ids, id)
			r.Received(now, id, feeds[i])
		}
		sent := 0
		for buf := []byte(nil); len(r.Ready()) > 0; {
			for _, id := range ids {
				buf = r.Updates(buf[:0], id)
				sent += len(buf)
			}
		}
		if sent < clients*(clients-1)*each*5 {
			b.Fatalf("only %d bytes were sent", sent)
		}
	}
}
