package bgp

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// world drives a Router by messages of its peers, and keeps what everybody
// should know in the plainest way there is.
type world struct {
	t     *testing.T
	r     *Router
	now   time.Time
	peers []*fake
	own   map[netip.Prefix]bool
	cfg   Config
	got   map[netip.Prefix]Learned // by the consumer
}

// fake is a peer: what it tells, and what it was told.
type fake struct {
	addr  netip.Addr
	asn   uint32
	opts  string
	id    ConnID // 0 while down
	tells map[netip.Prefix]*wire.Attrs
	told  map[netip.Prefix]string // AS path and next hop
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, r: NewRouter(), now: time.Unix(1e9, 0), own: map[netip.Prefix]bool{}, got: map[netip.Prefix]Learned{}}
	for _, s := range []string{"10.0.0.1 64512", "10.0.0.2 64512 client", "10.0.0.3 65001", "10.0.0.4 65001"} {
		f := strings.SplitN(s, " ", 3)
		p := &fake{addr: netip.MustParseAddr(f[0]), asn: 64512, opts: s, tells: map[netip.Prefix]*wire.Attrs{}}
		fmt.Sscan(f[1], &p.asn)
		w.peers = append(w.peers, p)
	}
	w.cfg = withID(config(64512, "", w.peers[0].opts, w.peers[1].opts, w.peers[2].opts, w.peers[3].opts), "10.0.0.100")
	w.check(w.r.Apply(w.now, w.cfg))
	for _, p := range w.peers {
		w.up(p)
	}
	return w
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) up(p *fake) {
	id, err := w.r.Accept(w.now, p.addr, netip.MustParseAddr("10.0.0.100"))
	w.check(err)
	p.id, p.told = id, map[netip.Prefix]string{}
	open := wire.Open{ASN: p.asn, HoldTime: time.Hour, ID: p.addr, Capabilities: wire.Capabilities{ASN4: true, Families: IPv4}}
	w.r.Received(w.now, id, wire.AppendKeepalive(wire.AppendOpen(nil, open)))
}

func (w *world) options(p *fake) wire.Options {
	return wire.Options{ASN4: true, IBGP: p.asn == 64512, Families: IPv4}
}

// step does what three bytes say.
func (w *world) step(op, who, what byte) {
	p := w.peers[who%4]
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, what % 8, 0, 0}), 16)
	switch op % 8 {
	case 0, 1, 2:
		if p.id == 0 {
			return
		}
		a := w.attrs(p, who/4, what/8)
		msg, _ := wire.AppendReach(nil, IPv4, a, []netip.Prefix{prefix}, w.options(p))
		w.r.Received(w.now, p.id, msg)
		p.tells[prefix] = a
	case 3:
		if p.id != 0 {
			w.r.Received(w.now, p.id, wire.AppendUnreach(nil, IPv4, []netip.Prefix{prefix}))
			delete(p.tells, prefix)
		}
	case 4:
		if p.id == 0 {
			w.up(p)
		} else {
			w.r.Closed(w.now, p.id, errors.New("closed"))
			p.id = 0
			clear(p.tells)
		}
	case 5:
		if w.own[prefix] {
			delete(w.own, prefix)
		} else {
			w.own[prefix] = true
		}
		w.cfg.Networks = nil
		for n := range w.own {
			w.cfg.Networks = append(w.cfg.Networks, Network{Prefix: n})
		}
		w.check(w.r.Apply(w.now, w.cfg))
	case 6:
		w.consume(1)
	case 7:
		w.hear(p)
	}
}

// attrs are what p tells, different enough to reach each step of the selection.
func (w *world) attrs(p *fake, x, y byte) *wire.Attrs {
	a := &wire.Attrs{NextHop: p.addr, Origin: x & 1}
	if p.asn != 64512 {
		a.ASPath = a.ASPath.Prepend(p.asn)
	}
	if x&2 != 0 {
		a.ASPath = a.ASPath.Prepend(p.asn + 1)
	}
	if x&4 != 0 {
		a.MED, a.HasMED = uint32(x>>3), true
	}
	if y&1 != 0 && p.asn == 64512 {
		a.LocalPref, a.HasLocalPref = 100+uint32(y>>1&1), true
	}
	if y&4 != 0 {
		a.Communities = []uint32{noExport}
	}
	return a
}

func (w *world) consume(limit int) bool {
	var b LearnedBatch
	if !w.r.Learned(&b, limit) {
		return false
	}
	for _, l := range b.Puts {
		w.got[l.Prefix] = l
	}
	for _, p := range b.Deletes {
		delete(w.got, p)
	}
	return true
}

// hear reads what the Router has for p.
func (w *world) hear(p *fake) {
	if p.id == 0 {
		return
	}
	var u wire.Update
	for rest := w.r.Updates(nil, p.id); len(rest) > 0; {
		_, body, more, err := wire.Frame(rest)
		w.check(err)
		w.check(u.Parse(body, w.options(p)))
		rest = more
		for _, list := range u.Unreach {
			for _, prefix := range list.All() {
				delete(p.told, prefix)
			}
		}
		for _, list := range u.Reach {
			for _, prefix := range list.All() {
				p.told[prefix] = fmt.Sprintf("%v via %v", u.Attrs.ASPath, list.NextHop)
			}
		}
	}
}

// told is a route of the reference.
type told struct {
	*wire.Attrs
	by *fake // nil: our own
}

// best is the reference for the selection: all paths, less those that any
// other beats at each step in turn.
func (w *world) best(prefix netip.Prefix) (equal []told) {
	if w.own[prefix] {
		return []told{{Attrs: &wire.Attrs{}}}
	}
	for _, p := range w.peers {
		if a := p.tells[prefix]; a != nil {
			equal = append(equal, told{a, p})
		}
	}
	pref := func(r told) int {
		if r.HasLocalPref {
			return int(r.LocalPref)
		}
		return 100
	}
	for _, beats := range []func(a, b told) bool{
		func(a, b told) bool { return pref(a) > pref(b) },
		func(a, b told) bool { return a.ASPath.Len() < b.ASPath.Len() },
		func(a, b told) bool { return a.Origin < b.Origin },
		func(a, b told) bool { return a.ASPath.First() == b.ASPath.First() && a.MED < b.MED },
		func(a, b told) bool { return a.by.asn != 64512 && b.by.asn == 64512 },
	} {
		all := slices.Clone(equal)
		equal = slices.DeleteFunc(equal, func(r told) bool {
			return slices.ContainsFunc(all, func(o told) bool { return beats(o, r) })
		})
	}
	slices.SortFunc(equal, func(a, b told) int { return a.by.addr.Compare(b.by.addr) })
	return equal
}

func (w *world) compare() {
	w.t.Helper()
	for w.consume(3) {
	}
	learned, told := map[netip.Prefix]string{}, [4]map[netip.Prefix]string{}
	for p, l := range w.got {
		learned[p] = fmt.Sprint(l.NextHops)
	}
	want := map[netip.Prefix]string{}
	for i, p := range w.peers {
		w.hear(p)
		told[i] = map[netip.Prefix]string{}
		if p.id == 0 {
			p.told = told[i]
		}
	}
	for i := range 8 {
		prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)
		equal := w.best(prefix)
		if len(equal) == 0 {
			continue
		}
		if equal[0].by != nil {
			var hops []netip.Addr
			for _, r := range equal {
				hops = append(hops, r.by.addr)
			}
			want[prefix] = fmt.Sprint(hops)
		}
		for i, p := range w.peers {
			if s, ok := w.export(equal[0], p); ok && p.id != 0 {
				told[i][prefix] = s
			}
		}
	}
	if d := cmp.Diff(want, learned, prefixText); d != "" {
		w.t.Fatalf("learned (-want +got):\n%s", d)
	}
	for i, p := range w.peers {
		if d := cmp.Diff(told[i], p.told, prefixText); d != "" {
			w.t.Fatalf("told to %v (-want +got):\n%s", p.addr, d)
		}
		if s := w.r.Status()[i]; s.Advertised != len(p.told) || s.Received != len(p.tells) {
			w.t.Fatalf("counts of %v: %+v", p.addr, s)
		} else if r, _ := w.r.Routes(p.addr); len(r.Received) != s.Received || len(r.Advertised) != s.Advertised || s.Received6+s.Advertised6 != 0 {
			w.t.Fatalf("routes of %v: %+v with %+v", p.addr, r, s)
		}
	}
}

var prefixText = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

// export is the reference for what p is told.
func (w *world) export(r told, p *fake) (string, bool) {
	internal := p.asn == 64512
	client := strings.HasSuffix(p.opts, "client")
	if r.by == p || !internal && len(r.Communities) > 0 {
		return "", false
	}
	hop := netip.MustParseAddr("10.0.0.100")
	if !internal {
		return fmt.Sprintf("%v via %v", r.ASPath.Prepend(64512), hop), true
	}
	if r.by != nil {
		if r.by.asn == 64512 && !client && !strings.HasSuffix(r.by.opts, "client") {
			return "", false
		}
		hop = r.by.addr
	}
	return fmt.Sprintf("%v via %v", r.ASPath, hop), true
}

// FuzzRouter holds tables, selection and advertising against the reference,
// after any history of announcements, failures and slow readers.
func FuzzRouter(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x01\x00\x00\x02\x00\x05\x00\x00\x07\x01\x00\x05\x00\x00\x03\x00\x00\x04\x02\x00"))
	f.Add([]byte("\x00\x0a\x01\x00\x0b\x01\x04\x02\x01\x04\x02\x01\x00\x16\x09\x00\x17\x01\x06\x00\x00\x03\x01\x01"))
	seq := make([]byte, 900)
	for i := range seq {
		seq[i] = byte(i * i * 7 / 3)
	}
	f.Add(seq)
	f.Fuzz(againstReference)
}

// TestRouterAgainstReference is FuzzRouter with many long random histories, as
// the mutations of a fuzzer stay short of what fills tables.
func TestRouterAgainstReference(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 3*(1+rnd.IntN(400)))
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		if againstReference(t, script); t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func againstReference(t *testing.T, script []byte) {
	w := newWorld(t)
	for len(script) >= 3 {
		w.step(script[0], script[1], script[2])
		script = script[3:]
	}
	w.compare()
	for i, p := range w.peers { // and nothing is left when all are gone
		if p.id != 0 {
			w.step(4, byte(i), 0)
		}
	}
	w.cfg.Networks = nil
	clear(w.own)
	w.check(w.r.Apply(w.now, w.cfg))
	w.compare()
	if w.r.rib.index.n != 0 || len(w.r.rib.byKey) != 0 {
		t.Fatalf("%d prefixes and %d attribute sets are left", w.r.rib.index.n, len(w.r.rib.byKey))
	}
}

// FuzzSession: a hostile peer cannot make a Router panic, whatever it sends in
// whichever state, and the Router survives it.
func FuzzSession(f *testing.F) {
	id := netip.MustParseAddr("10.0.0.2")
	open := wire.AppendOpen(nil, wire.Open{ASN: 65001, HoldTime: 3e9, ID: id, Capabilities: wire.Capabilities{
		ASN4: true, Families: IPv4, Refresh: true, AddPathOut: IPv4, Restart: wire.Restart{Known: true, Time: 5e9, Families: IPv4, Forwarding: IPv4},
	}})
	up := wire.AppendKeepalive(slices.Clone(open))
	reach, _ := wire.AppendReach(slices.Clone(up), IPv4, &wire.Attrs{NextHop: id}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, wire.Options{ASN4: true})
	f.Add(open, uint16(0))
	f.Add(append(slices.Clone(up), open...), uint16(3))
	f.Add(reach, uint16(9))
	f.Add(wire.AppendRefresh(slices.Clone(up), wire.Refresh{Family: IPv4}), uint16(40))
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		now := time.Unix(1e9, 0)
		r := NewRouter()
		if err := r.Apply(now, withID(config(64512, "10.65.0.0/26", "10.0.0.2 65001"), "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		a, err := r.Accept(now, id, netip.MustParseAddr("10.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		k := min(int(cut), len(in))
		r.Received(now, a, in[:k])
		now = now.Add(time.Duration(cut) * time.Millisecond)
		r.Tick(now)
		if b, err := r.Accept(now, id, netip.MustParseAddr("10.0.0.1")); err == nil {
			r.Received(now, b, in)
			a = b
		}
		r.Received(now, a, in[k:])
		r.Updates(nil, a)
		for range 20 {
			if d := r.Deadline(); !d.IsZero() && d.After(now) {
				now = d
			}
			r.Tick(now)
			for _, e := range r.Effects() {
				if e.Kind == Dial {
					r.Connected(now, e.Conn, netip.MustParseAddr("10.0.0.1"))
					r.Received(now, e.Conn, in)
				}
			}
		}
		var b LearnedBatch
		for r.Learned(&b, 10) {
		}
	})
}

// A malformed attribute costs the route, not the session.
func TestTreatAsWithdraw(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, prefix := w.peers[2], netip.MustParsePrefix("10.1.0.0/16")
	w.step(0, 2, 1)
	w.consume(10)
	if _, ok := w.got[prefix]; !ok {
		t.Fatalf("not learned: %v", w.got)
	}
	msg, _ := wire.AppendReach(nil, IPv4, w.attrs(p, 0, 0), []netip.Prefix{prefix}, w.options(p))
	msg[wire.HeaderLen+4+3] = 7 // ORIGIN
	w.r.Received(w.now, p.id, msg)
	w.consume(10)
	if _, ok := w.got[prefix]; ok {
		t.Error("a route with a malformed ORIGIN is still used")
	}
	if s := w.r.Status()[2]; s.State != Established || s.Err != "UPDATE: ORIGIN: malformed value 07" {
		t.Errorf("status: %+v", s)
	}
}

// Policies and AS paths refuse what they must.
func TestImport(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	prefix := netip.MustParsePrefix("10.1.0.0/16")
	for name, tt := range map[string]struct {
		peer int
		a    wire.Attrs
		want bool
	}{
		"plain":             {2, wire.Attrs{ASPath: wire.ASPath{{Kind: wire.Sequence, ASNs: []uint32{65001}}}}, true},
		"our AS":            {2, wire.Attrs{ASPath: wire.ASPath{{Kind: wire.Sequence, ASNs: []uint32{65001, 64512}}}}, false},
		"we are originator": {0, wire.Attrs{OriginatorID: netip.MustParseAddr("10.0.0.100")}, false},
		"our cluster":       {0, wire.Attrs{ClusterList: []uint32{1, 0x0a000064}}, false},
		"another cluster":   {0, wire.Attrs{ClusterList: []uint32{1}}, true},
		"our next hop":      {0, wire.Attrs{NextHop: netip.MustParseAddr("10.0.0.100")}, false},
	} {
		p := w.peers[tt.peer]
		if !tt.a.NextHop.IsValid() {
			tt.a.NextHop = p.addr
		}
		msg, _ := wire.AppendReach(nil, IPv4, &tt.a, []netip.Prefix{prefix}, w.options(p))
		w.r.Received(w.now, p.id, msg)
		for w.consume(10) {
		}
		if _, got := w.got[prefix]; got != tt.want {
			t.Errorf("%s: taken %v, want %v", name, got, tt.want)
		}
		w.r.Received(w.now, p.id, wire.AppendUnreach(nil, IPv4, []netip.Prefix{prefix}))
		for w.consume(10) {
		}
	}
}
