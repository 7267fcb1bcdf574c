package ipip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/plan"
)

// stream is a TCP packet of 52 bytes of headers, with right checksums unless it is too
// long for a packet, and size bytes of payload.
func stream(size int) []byte {
	b := make([]byte, 52+size)
	b[0], b[6], b[8], b[9] = 0x45, dontFragment>>8, 63, protoTCP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], []byte{10, 65, 1, 2, 10, 65, 2, 2})
	ipv4(b).setChecksum()
	t := b[20:]
	copy(t, []byte{0x9c, 0x40, 0, 80})
	t[12], t[13] = 8<<4, flagACK
	for i := range size {
		b[52+i] = byte(i * 7)
	}
	p := ipv4(b)
	binary.BigEndian.PutUint16(t[16:], ^fold(p.pseudo(len(t))+sum(t)))
	return b
}

// segment is an encapsulated one, with that sequence number, payload and TCP flags.
func segment(seq, size int, flags byte) []byte {
	inner := ipv4(stream(size))
	t := inner[20:]
	binary.BigEndian.PutUint32(t[4:], uint32(seq))
	t[13], t[16], t[17] = flags, 0, 0
	binary.BigEndian.PutUint16(t[16:], ^fold(inner.pseudo(len(t))+sum(t)))
	return encapsulated(inner)
}

func encapsulated(inner ipv4) []byte {
	b := make([]byte, outerLen, outerLen+len(inner))
	putOuter(b, inner, len(inner), 0x01010101, 0x02020202)
	return append(b, inner...)
}

func nodeRoute(i int) plan.Route {
	return plan.Route{
		RouteKey: plan.RouteKey{Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(65 + i>>10), byte(i >> 2), byte(i << 6)}), 26), Table: plan.TableMain},
		RouteAttrs: plan.RouteAttrs{
			Via: plan.MakeHops(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})), Link: plan.IPIPDevice,
		},
	}
}

func manyRoutes(n int) *table {
	t := &table{link: plan.IPIPDevice}
	var d plan.Delta
	for i := range n {
		d.PutRoutes = append(d.PutRoutes, nodeRoute(i))
	}
	t.apply(d)
	return t
}

// TestChecksum compares the sum with that of RFC 1071, word by word.
func TestChecksum(t *testing.T) {
	t.Parallel()
	for size := range 200 {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(0xff - rand.IntN(3))
		}
		slow := uint64(0)
		for i := range b {
			slow += uint64(b[i]) << (8 * (1 - i%2))
		}
		if got, want := fold(sum(b)), fold(slow); got != want {
			t.Errorf("%x: %#x, want %#x", b, got, want)
		}
	}
}

// TestCongestion is figure 4 of RFC 6040, for the outer and the inner mark.
func TestCongestion(t *testing.T) {
	t.Parallel()
	name := []string{"Not-ECT", "ECT(1)", "ECT(0)", "CE"}
	want := map[string]string{ // inner: by outer
		"Not-ECT": "Not-ECT Not-ECT Not-ECT drop",
		"ECT(0)":  "ECT(0) ECT(1) ECT(0) CE",
		"ECT(1)":  "ECT(1) ECT(1) ECT(1) CE",
		"CE":      "CE CE CE CE",
	}
	for inner := range byte(4) {
		var got []string
		for outer := range byte(4) {
			p := ipv4(stream(8))
			p[1] = 0xb8 | inner
			p.setChecksum()
			b := encapsulated(p)
			if b[1] != p[1] {
				t.Errorf("TOS %#x is carried with %#x", p[1], b[1])
			}
			b[1] = outer
			out, ok := decapsulate(b)
			switch {
			case !ok:
				got = append(got, "drop")
			case fold(sum(out[:20])) != 0xffff || out.tos()&^ecnMask != 0xb8:
				t.Errorf("outer %s, inner %s: header %x", name[outer], name[inner], out[:20])
			default:
				got = append(got, name[out.tos()&ecnMask])
			}
		}
		if s := strings.Join(got, " "); s != want[name[inner]] {
			t.Errorf("inner %s: %s, want %s", name[inner], s, want[name[inner]])
		}
	}
}

// TestSplitAndMerge: what the kernel hands over at once arrives at once, as it was.
func TestSplitAndMerge(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 1428, 1429, 10 * 1428, 10*1428 + 1, 44*1428 + 3} {
		s, r := newSender(&Tunnel{}), newReceiver(&Tunnel{name: plan.IPIPDevice})
		r.mtu = 1480
		p, _ := checked(stream(size))
		p[20+13] |= flagPSH
		if err := s.split(slices.Clone(p), 1428, 1); err != nil {
			t.Fatal(err)
		}
		for i := range s.count {
			n := copy(r.bufs[i], s.heads[i][:s.iovs[i][0].Len])
			if s.messages[i].header.Iovlen > 1 {
				off := i * 1428
				n += copy(r.bufs[i][n:], p[52+off:min(52+off+1428, len(p))])
			}
			if in, ok := decapsulate(r.bufs[i][:n]); !ok || !in.intact() || fold(sum(in[:20])) != 0xffff {
				t.Fatalf("%d bytes: segment %d is %x", size, i, in[:52])
			}
			r.packet(r.bufs[i][:n])
		}
		if want := (size + 1427) / 1428; s.count != want || r.count != 1 || r.frames[0].count != want {
			t.Errorf("%d bytes: %d segments, %d frames", size, s.count, r.count)
		}
		if got := r.frames[0].whole(); !bytes.Equal(got, p[52:]) || r.frames[0].p[20+13] != flagACK|flagPSH {
			t.Errorf("%d bytes: %d arrive", size, len(got))
		}
	}
}

// whole is the payload of f.
func (f *frame) whole() []byte {
	out := slices.Clone([]byte(f.p[f.p.headerLen()+f.tcp:]))
	for i := 1; i < f.count; i++ {
		out = append(out, bytesAt(f.iovs[i])...)
	}
	return out
}

// TestMerge tells which segments become one: letters are connections, numbers lengths;
// "!" has PSH, "x" a wrong checksum, "-" does not follow, "~" another TOS.
func TestMerge(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a9 a9 a9":       "a27",
		"a9 a9 a5 a9":    "a23 a9",   // a shorter one is the last
		"a9 a9! a9":      "a18 a9",   // so is one that is urgent for the application
		"a9 b9 a9 b9":    "a18 b18",  // connections do not get into each other's way
		"a9 a9 a-9 a9":   "a18 a18",  // a gap
		"a9 xa9 a9":      "a9 a9 a9", // what is broken arrives as it is
		"xa9 a9 a9":      "a9 a18",   //
		"a9 a10":         "a9 a10",   // no longer than the first
		"a9 ~a9 a9":      "a9 a9 a9", // headers differ, and nothing overtakes
		"a0 a0 a0":       "a0 a0 a0", // acknowledgements
		"a9 a0 a9":       "a9 a0 a9", //
		"a9 b9 c9 d9 a9": "a18 b9 c9 d9",
		"a! a9 a9":       "a0 a18",
		"a1481 a1481":    "a1481 a1481", // more than the device's MTU
	} {
		r := newReceiver(&Tunnel{name: plan.IPIPDevice})
		r.mtu = 1480
		next := map[byte]int{}
		for i, word := range strings.Fields(in) {
			word, broken := strings.CutPrefix(word, "x")
			word, tos := strings.CutPrefix(word, "~")
			rest, push := strings.CutSuffix(word[1:], "!")
			rest, gap := strings.CutPrefix(rest, "-")
			size := 0
			_, _ = fmt.Sscan(rest, &size)
			flow := word[0]
			if gap {
				next[flow] += 1000
			}
			flags := byte(flagACK)
			if push {
				flags |= flagPSH
			}
			b := segment(next[flow], size, flags)
			next[flow] += size
			p, _ := decapsulate(b)
			p[21] += flow // the port; a sum that changes by as much
			c := binary.BigEndian.Uint16(p[36:])
			binary.BigEndian.PutUint16(p[36:], ^fold(uint64(^c)+uint64(flow)))
			if broken {
				p[36]++
			}
			if tos {
				p.setTOS(8)
			}
			r.packet(r.bufs[i][:copy(r.bufs[i], b)])
		}
		var got []string
		for i := range r.count {
			f := &r.frames[i]
			got = append(got, fmt.Sprintf("%c%d", f.p[21]-0x40, len(f.whole())))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s becomes %s, want %s", in, s, want)
		}
	}
}

// TestErrors: who is told what, and that nobody is told of errors.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(p ipv4)
		told   bool
	}{
		"TCP":              {func(ipv4) {}, true},
		"echo":             {func(p ipv4) { p[9], p[20] = protoICMP, 8 }, true},
		"ICMP error":       {func(p ipv4) { p[9], p[20] = protoICMP, icmpUnreachable }, false},
		"redirect":         {func(p ipv4) { p[9], p[20] = protoICMP, 5 }, false},
		"first fragment":   {func(p ipv4) { p[6] = 0x20 }, true},
		"later fragment":   {func(p ipv4) { p[7] = 1 }, false},
		"from nobody":      {func(p ipv4) { clear(p[12:16]) }, false},
		"from many":        {func(p ipv4) { p[12] = 224 }, false},
		"to many":          {func(p ipv4) { p[16] = 239 }, false},
		"from the machine": {func(p ipv4) { p[12] = 127 }, false},
	} {
		p := ipv4(stream(1000))
		tt.change(p)
		var b [outerLen + 8 + quoteLen]byte
		n := putError(b[:], p, codeTooBig, 1400)
		if (n > 0) != tt.told {
			t.Errorf("%s: %d bytes", name, n)
		}
		if n == 0 {
			continue
		}
		m, ok := checked(b[:n])
		if !ok || m.src() != p.dst() || m.dst() != p.src() || fold(sum(m[:20])) != 0xffff || fold(sum(m.payload())) != 0xffff ||
			!bytes.Equal(m.payload()[:2], []byte{3, 4}) || binary.BigEndian.Uint16(m.payload()[6:]) != 1400 ||
			!bytes.Equal(m.payload()[8:], p[:quoteLen]) {
			t.Errorf("%s: %x", name, m)
		}
	}
}

// TestTable compares the trie with a walk over all routes, after changes at random.
func TestTable(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	tab := &table{link: plan.IPIPDevice}
	want := plan.Node{}
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, byte(rng.IntN(3)), 0, byte(rng.IntN(256))}) }
	for range 3000 {
		var d plan.Delta
		r := nodeRoute(rng.IntN(4000))
		r.Dst = netip.PrefixFrom(addr(), rng.IntN(33)).Masked()
		r.Priority = uint32(rng.IntN(2))
		switch rng.IntN(8) {
		case 0:
			r.Link = "eth0"
		case 1:
			r.Type = plan.Blackhole
		}
		if rng.IntN(3) == 0 {
			d.DeleteRoutes = append(d.DeleteRoutes, r.RouteKey)
		} else {
			d.PutRoutes = append(d.PutRoutes, r)
		}
		want = want.Apply(d)
		tab.apply(d)
		a := addr()
		best, bestBits, bestPriority := address(0), -1, uint32(0)
		for k, v := range want.Routes {
			if v.Link == plan.IPIPDevice && v.Type == plan.Unicast && k.Dst.Contains(a) &&
				(k.Dst.Bits() > bestBits || k.Dst.Bits() == bestBits && k.Priority < bestPriority) {
				best, bestBits, bestPriority = addressOf(v.Via.Addrs()[0]), k.Dst.Bits(), k.Priority
			}
		}
		got := address(0)
		if hops := tab.root.Load().lookup(addressOf(a)); hops != nil {
			got = hops[0]
		}
		if got != best {
			t.Fatalf("%v goes to %v, want %v", a, got, best)
		}
	}
	for k := range want.Routes {
		tab.apply(plan.Delta{DeleteRoutes: []plan.RouteKey{k}})
	}
	if tab.root.Load() != nil || len(tab.routes) != 0 {
		t.Error("something remains of an empty table")
	}
}

// TestGateways: several share the connections, and what cannot be a node is none.
func TestGateways(t *testing.T) {
	t.Parallel()
	tab := &table{link: plan.IPIPDevice}
	r := nodeRoute(1)
	via := func(list ...string) {
		var addrs []netip.Addr
		for _, s := range list {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		r.Via = plan.MakeHops(addrs...)
		tab.apply(plan.Delta{PutRoutes: []plan.Route{r}})
	}
	p := ipv4(stream(0))
	seen := map[address]bool{}
	via("192.168.0.1", "192.168.0.2", "192.168.0.3")
	copy(p[16:20], r.Dst.Addr().AsSlice())
	for i := range byte(100) {
		p[15] = i
		s := sender{root: tab.root.Load()}
		hop, why := s.route(p)
		if again, _ := s.route(p); again != hop || why != toNode {
			t.Fatalf("%v, then %v (%v)", hop, again, why)
		}
		seen[hop] = true
	}
	if len(seen) != 3 {
		t.Errorf("of 3 gateways %d are used", len(seen))
	}
	for _, bad := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "fd00::1"} {
		via(bad)
		if hop, why := (&sender{root: tab.root.Load()}).route(p); why != noRoute {
			t.Errorf("%s: goes to %v", bad, hop)
		}
	}
}

// FuzzReceive: whatever comes from the underlay, nothing panics, each packet becomes
// part of one frame, and what goes to the device is what came.
func FuzzReceive(f *testing.F) {
	f.Add(segment(0, 100, flagACK), segment(100, 100, flagACK), 1480)
	f.Add(segment(0, 3000, flagACK), segment(3000, 1, flagACK|flagPSH), 1480)
	f.Add(encapsulated(stream(0))[:30], []byte{0x45}, 0)
	f.Add(encapsulated(encapsulated(stream(10))), encapsulated(ipv4{0x46, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), -1)
	f.Add([]byte{0x6f}, bytes.Repeat([]byte{0x45, 0, 0, 20}, 20), 68)
	r := newReceiver(&Tunnel{name: plan.IPIPDevice, dev: nowhere(f)})
	f.Fuzz(func(t *testing.T, one, two []byte, mtu int) {
		r.count = 0
		clear(r.open[:])
		r.mtu = max(-1, min(mtu, maxPacket))
		if r.mtu == 0 {
			r.mtu = -1
		}
		total := 0
		for i, b := range [][]byte{one, two} {
			b = b[:min(len(b), maxPacket)]
			if p, ok := decapsulate(slices.Clone(b)); ok {
				total += len(p)
				if p.tcpLen() > 0 && i > 0 && r.count > 0 && r.joins(slices.Clone(p), p.tcpLen()) {
					total -= p.headerLen() + p.tcpLen()
					continue
				}
			}
			r.packet(r.bufs[i][:copy(r.bufs[i], b)])
		}
		got := 0
		for i := range r.count {
			got += r.frames[i].total
			if err := r.deliver(&r.frames[i]); err != nil {
				t.Fatal(err)
			}
		}
		if got != total {
			t.Errorf("%d bytes of %d are delivered", got, total)
		}
	})
}

// FuzzSend: whatever the device hands over, nothing panics.
func FuzzSend(f *testing.F) {
	tcp := append([]byte{1, 1, 52, 0, 100, 0, 20, 0, 16, 0}, stream(1000)...)
	f.Add(tcp)
	f.Add(tcp[:40])
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 20, 0, 6, 0}, stream(3)...))
	f.Add(append(make([]byte, 10), 0x60))
	f.Add(append([]byte{1, 0, 0, 0, 0, 0, 255, 255, 255, 255}, stream(3)...))
	s := newSender(&Tunnel{dev: nowhere(f)})
	f.Fuzz(func(_ *testing.T, b []byte) {
		s.count, s.lastWhy = 0, unknown
		s.root = (*node)(nil).with(0, 0, []address{0xc0a80001}).with(0xc0a80000, 16, nil)
		s.t.table.root.Store(s.root)
		b = b[:min(len(b), maxPacket+vnetLen)]
		// Few enough segments that they need not be sent.
		if len(b) > vnetLen && int(vnetAt(b).size)*100 < len(b) {
			vnetAt(b).size = maxPacket / 100
		}
		_ = s.packet(s.bufs[0][:outerLen+copy(s.bufs[0][outerLen:], b)])
		if q, ok := quoted(b); ok {
			var out [outerLen + 8 + quoteLen]byte
			putError(out[:], q, codeHost, 0)
		}
	})
}
