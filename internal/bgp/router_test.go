package bgp

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/bgp/wire"
)

// lab is routers joined by perfect wires and a clock of their own.
type lab struct {
	t       *testing.T
	now     time.Time
	routers map[netip.Addr]*box
	cut     map[netip.Addr]bool // addresses that answer nothing
	slow    map[netip.Addr]bool // those that notice last that a connection they asked for is there
	wires   map[end]end
	held    map[end][]byte // what has come for ends that were not noticed yet
}

// box is one router with what a kernel would have from it.
type box struct {
	*Router
	addr    netip.Addr
	routes  map[netip.Prefix]Learned
	synced  time.Time
	reports []Report
}

type end struct {
	b  *box
	id ConnID
}

func newLab(t *testing.T) *lab {
	return &lab{
		t: t, now: time.Unix(1e9, 0), routers: map[netip.Addr]*box{},
		cut: map[netip.Addr]bool{}, slow: map[netip.Addr]bool{}, wires: map[end]end{}, held: map[end][]byte{},
	}
}

// router adds a speaker, or replaces the one with that address, whose
// connections then break as those of a killed process do.
func (l *lab) router(addr string, c Config) *box {
	a := netip.MustParseAddr(addr)
	l.kill(a)
	b := &box{Router: NewRouter(), addr: a, routes: map[netip.Prefix]Learned{}}
	l.routers[a] = b
	l.apply(b, c)
	return b
}

func (l *lab) apply(b *box, c Config) {
	l.t.Helper()
	if !c.RouterID.IsValid() {
		c.RouterID = b.addr
		if b.addr.Is6() {
			c.RouterID = netip.AddrFrom4([4]byte(b.addr.AsSlice()[12:]))
		}
	}
	if err := b.Apply(l.now, c); err != nil {
		l.t.Fatal(err)
	}
	l.settle()
}

func (l *lab) kill(a netip.Addr) {
	old := l.routers[a]
	delete(l.routers, a)
	for e, far := range maps.Clone(l.wires) {
		if e.b == old {
			delete(l.wires, e)
			delete(l.wires, far)
			far.b.Closed(l.now, far.id, io.EOF)
		}
	}
	l.settle()
}

func (l *lab) sorted() []*box {
	return slices.SortedFunc(maps.Values(l.routers), func(a, b *box) int { return a.addr.Compare(b.addr) })
}

// settle carries out everything that can happen at once.
func (l *lab) settle() {
	for busy := true; busy; {
		busy = false
		for _, b := range l.sorted() {
			for _, e := range b.Effects() {
				busy = true
				l.effect(b, e)
			}
			for _, id := range b.Ready() {
				if data := b.Updates(nil, id); len(data) > 0 {
					busy = true
					l.deliver(end{b, id}, data)
				}
			}
			var batch LearnedBatch
			for b.Learned(&batch, 3) {
				busy = true
				l.consume(b, batch)
			}
			b.reports = append(b.reports, b.Reports()...)
		}
		for e, data := range l.held {
			if !busy {
				delete(l.held, e)
				e.b.Connected(l.now, e.id, e.b.addr)
				e.b.Received(l.now, e.id, data)
				busy = true
			}
		}
	}
}

func (l *lab) consume(b *box, batch LearnedBatch) {
	if batch.Reset {
		clear(b.routes)
	}
	for _, r := range batch.Puts {
		b.routes[r.Prefix] = r
	}
	for _, p := range batch.Deletes {
		if _, ok := b.routes[p]; !ok {
			l.t.Errorf("delete of %v, which was not there", p)
		}
		delete(b.routes, p)
	}
	if batch.Synced {
		b.synced = l.now
	}
}

func (l *lab) effect(b *box, e Effect) {
	near := end{b, e.Conn}
	switch e.Kind {
	case Dial:
		far := l.routers[e.Peer.Addr]
		if l.cut[e.Peer.Addr] || l.cut[b.addr] {
			return
		}
		if far == nil {
			b.Closed(l.now, e.Conn, errors.New("connection refused"))
			return
		}
		id, err := far.Accept(l.now, b.addr, far.addr)
		if l.slow[b.addr] && err == nil {
			l.held[near] = nil
		} else {
			b.Connected(l.now, e.Conn, b.addr)
		}
		if err != nil {
			b.Closed(l.now, e.Conn, io.EOF)
			return
		}
		l.wires[near], l.wires[end{far, id}] = end{far, id}, near
	case Send:
		l.deliver(near, e.Data)
	case Close:
		delete(l.held, near)
		if far, ok := l.wires[near]; ok {
			delete(l.wires, near)
			delete(l.wires, far)
			far.b.Closed(l.now, far.id, io.EOF)
		}
	}
}

func (l *lab) deliver(from end, data []byte) {
	if far, ok := l.wires[from]; ok && !l.cut[from.b.addr] && !l.cut[far.b.addr] {
		if before, ok := l.held[far]; ok {
			l.held[far] = append(before, data...)
			return
		}
		for chunk := range slices.Chunk(data, 1000) { // messages come in pieces
			far.b.Received(l.now, far.id, chunk)
		}
	}
}

// run lets d pass.
func (l *lab) run(d time.Duration) {
	end := l.now.Add(d)
	for i := 0; ; i++ {
		if i > 10000 {
			l.t.Fatal("time does not pass: some deadline is never dealt with")
		}
		l.settle()
		next := end
		for _, b := range l.routers {
			if at := b.Deadline(); !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if next.After(l.now) {
			l.now = next
		}
		for _, b := range l.sorted() {
			b.Tick(l.now)
		}
		l.settle()
		if !l.now.Before(end) {
			return
		}
	}
}

// peers builds a Config: "10.0.0.2 64512 client" and so on.
func config(asn uint32, networks string, peers ...string) Config {
	c := Config{ASN: asn, Peers: map[string]Peer{}}
	for _, p := range strings.Fields(networks) {
		c.Networks = append(c.Networks, Network{Prefix: netip.MustParsePrefix(p)})
	}
	for _, s := range peers {
		f := strings.Fields(s)
		p := Peer{Addr: netip.MustParseAddr(f[0])}
		fmt.Sscan(f[1], &p.ASN)
		for _, o := range f[2:] {
			switch o {
			case "client":
				p.RRClient = true
			case "passive":
				p.Passive = true
			case "norestart":
				p.NoRestart = true
			case "self":
				p.NextHop = NextHopSelf
			case "keep":
				p.NextHop = NextHopKeep
			}
		}
		c.Peers["Peer_"+f[0]] = p
	}
	return c
}

// table prints routes as lines "prefix via hops".
func (b *box) table() string {
	var out []string
	for p, r := range b.routes {
		hops := make([]string, len(r.NextHops))
		for i, h := range r.NextHops {
			hops[i] = h.String()
		}
		out = append(out, fmt.Sprintf("%v via %s %v", p, strings.Join(hops, ","), r.Source))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

func (b *box) want(t *testing.T, lines ...string) {
	t.Helper()
	if d := cmp.Diff(strings.Join(lines, "\n"), b.table()); d != "" {
		t.Errorf("routes of %v (-want +got):\n%s", b.addr, d)
	}
}

func (b *box) state(addr string) PeerStatus {
	for _, s := range b.Status() {
		if s.Addr.String() == addr {
			return s
		}
	}
	return PeerStatus{}
}

func TestMeshOfThree(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ a, b, c, na, nb string }{
		{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.65.1.0/26", "10.65.2.0/26"},
		{"fd00::1", "fd00::2", "fd00::3", "fd65:0:0:1::/122", "fd65:0:0:2::/122"},
	} {
		l := newLab(t)
		a := l.router(v.a, config(64512, v.na, v.b+" 64512", v.c+" 64512"))
		b := l.router(v.b, config(64512, v.nb, v.a+" 64512", v.c+" 64512"))
		c := l.router(v.c, config(64512, "", v.a+" 64512", v.b+" 64512"))
		l.run(3 * time.Second)
		a.want(t, v.nb+" via "+v.b+" ibgp")
		b.want(t, v.na+" via "+v.a+" ibgp")
		c.want(t, v.na+" via "+v.a+" ibgp", v.nb+" via "+v.b+" ibgp")
		if s := c.state(v.a); s.State != Established || s.Received != 1 {
			t.Errorf("status: %+v", s)
		}
		if got := len(l.wires); got != 6 {
			t.Errorf("%d ends of connections are left, want 6: collisions were not resolved", got)
		}
		if c.synced.IsZero() {
			t.Error("never synced although everybody is there")
		}
		l.apply(b, config(64512, "", v.a+" 64512", v.c+" 64512"))
		c.want(t, v.na+" via "+v.a+" ibgp")
	}
}

// Two speakers connect at the same moment, and one of them hears from the other
// before it knows that its own connection is there. One of the two stays.
func TestCollisionWithConnectionUnnoticed(t *testing.T) {
	t.Parallel()
	for _, slow := range []string{"10.0.0.1", "10.0.0.2"} {
		l := newLab(t)
		l.slow[netip.MustParseAddr(slow)] = true
		a := l.router("10.0.0.1", config(64512, "10.65.1.0/26", "10.0.0.2 64512"))
		b := l.router("10.0.0.2", config(64512, "10.65.2.0/26", "10.0.0.1 64512"))
		l.run(connectDelay)
		a.want(t, "10.65.2.0/26 via 10.0.0.2 ibgp")
		b.want(t, "10.65.1.0/26 via 10.0.0.1 ibgp")
		if got := len(l.wires); got != 2 {
			t.Errorf("%s slow: %d ends of connections are left, want 2", slow, got)
		}
		for _, s := range slices.Concat(a.Status(), b.Status()) {
			if s.Err != "" {
				t.Errorf("%s slow: the session with %v is up, and its status says: %s", slow, s.Addr, s.Err)
			}
		}
	}
}

func TestPathsBetweenSystems(t *testing.T) {
	t.Parallel()
	// tor (65001) – a (64512) = b (64512) – far (4200000000)
	l := newLab(t)
	tor := l.router("10.0.0.9", config(65001, "192.0.2.0/24", "10.0.0.1 64512"))
	a := l.router("10.0.0.1", config(64512, "10.65.1.0/26", "10.0.0.9 65001", "10.0.0.2 64512"))
	b := l.router("10.0.0.2", config(64512, "10.65.2.0/26", "10.0.0.1 64512", "10.0.1.1 4200000000"))
	far := l.router("10.0.1.1", config(4200000000, "198.51.100.0/24", "10.0.0.2 64512"))
	l.run(3 * time.Second)
	a.want(t, "10.65.2.0/26 via 10.0.0.2 ibgp", "192.0.2.0/24 via 10.0.0.9 ebgp", "198.51.100.0/24 via 10.0.1.1 ibgp")
	b.want(t, "10.65.1.0/26 via 10.0.0.1 ibgp", "192.0.2.0/24 via 10.0.0.9 ibgp", "198.51.100.0/24 via 10.0.1.1 ebgp")
	tor.want(t, "10.65.1.0/26 via 10.0.0.1 ebgp", "10.65.2.0/26 via 10.0.0.1 ebgp", "198.51.100.0/24 via 10.0.0.1 ebgp")
	far.want(t, "10.65.1.0/26 via 10.0.0.2 ebgp", "10.65.2.0/26 via 10.0.0.2 ebgp", "192.0.2.0/24 via 10.0.0.2 ebgp")
	if got := path0(t, tor, "198.51.100.0/24").ASPath.String(); got != "64512 4200000000" {
		t.Errorf("AS path at tor: %s", got)
	}
	// next hop self towards the other node
	ca := a.cfg
	ca.Peers = maps.Clone(ca.Peers)
	p := ca.Peers["Peer_10.0.0.2"]
	p.NextHop = NextHopSelf
	ca.Peers["Peer_10.0.0.2"] = p
	since := a.state("10.0.0.2").Since
	l.run(time.Second)
	l.apply(a, ca)
	b.want(t, "10.65.1.0/26 via 10.0.0.1 ibgp", "192.0.2.0/24 via 10.0.0.1 ibgp", "198.51.100.0/24 via 10.0.1.1 ebgp")
	if a.state("10.0.0.2").Since != since {
		t.Error("a change of the next hop restarted the session")
	}
}

func path0(t *testing.T, b *box, prefix string) *wire.Attrs {
	t.Helper()
	d, ok := b.rib.index.get(keyOf(netip.MustParsePrefix(prefix)))
	if !ok || b.rib.best(d) == nil {
		t.Fatalf("%v has no route to %s", b.addr, prefix)
	}
	return b.rib.attrs[b.rib.best(d).attrs].Attrs
}

func TestReflection(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	r1 := l.router("10.0.0.1", config(64512, "", "10.0.0.2 64512", "10.0.0.11 64512 client", "10.0.0.12 64512 client"))
	l.router("10.0.0.2", config(64512, "", "10.0.0.1 64512", "10.0.0.11 64512 client", "10.0.0.12 64512 client"))
	c1 := l.router("10.0.0.11", config(64512, "10.65.1.0/26", "10.0.0.1 64512", "10.0.0.2 64512"))
	c2 := l.router("10.0.0.12", config(64512, "10.65.2.0/26", "10.0.0.1 64512", "10.0.0.2 64512"))
	l.run(5 * time.Second)
	c1.want(t, "10.65.2.0/26 via 10.0.0.12 ibgp")
	c2.want(t, "10.65.1.0/26 via 10.0.0.11 ibgp")
	got := path0(t, c2, "10.65.1.0/26")
	if got.OriginatorID.String() != "10.0.0.11" || len(got.ClusterList) != 1 {
		t.Errorf("reflected route has originator %v, clusters %v", got.OriginatorID, got.ClusterList)
	}
	if s := c1.state("10.0.0.1"); s.Received != 1 {
		t.Errorf("a client took its own route back: %+v", s)
	}
	l.kill(r1.addr) // one reflector less loses no route
	c1.want(t, "10.65.2.0/26 via 10.0.0.12 ibgp")
	l.run(5 * time.Minute)
	c1.want(t, "10.65.2.0/26 via 10.0.0.12 ibgp")
}

func TestMultipath(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.router("10.0.0.1", config(64512, "", "10.0.0.8 65001", "10.0.0.9 65001"))
	l.router("10.0.0.8", config(65001, "0.0.0.0/0 192.0.2.0/24", "10.0.0.1 64512"))
	tor := l.router("10.0.0.9", config(65001, "0.0.0.0/0", "10.0.0.1 64512"))
	l.run(3 * time.Second)
	a.want(t, "0.0.0.0/0 via 10.0.0.8,10.0.0.9 ebgp", "192.0.2.0/24 via 10.0.0.8 ebgp")
	c := config(65001, "0.0.0.0/0", "10.0.0.1 64512")
	c.Networks[0].MED = 5 // same neighbouring AS: worse
	l.apply(tor, c)
	a.want(t, "0.0.0.0/0 via 10.0.0.8 ebgp", "192.0.2.0/24 via 10.0.0.8 ebgp")
}

func TestRestartKeepsRoutes(t *testing.T) {
	t.Parallel()
	for _, v := range []struct{ a, b, n1, n2 string }{
		{"10.0.0.1", "10.0.0.2", "10.65.1.0/26", "10.65.1.64/26"},
		{"fd00::1", "fd00::2", "fd65::/122", "fd65::100/122"},
	} {
		l := newLab(t)
		ca := config(64512, v.n1+" "+v.n2, v.b+" 64512")
		a := l.router(v.a, ca)
		b := l.router(v.b, config(64512, "", v.a+" 64512"))
		l.run(3 * time.Second)
		both := []string{v.n1 + " via " + v.a + " ibgp", v.n2 + " via " + v.a + " ibgp"}
		slices.Sort(both)
		b.want(t, both...)

		l.kill(a.addr)
		l.run(10 * time.Second)
		b.want(t, both...) // helper
		if s := b.state(v.a); s.Stale != 2 {
			t.Errorf("status while the peer restarts: %+v", s)
		}
		ca.Restarting, ca.Networks = true, ca.Networks[:1]
		a = l.router(v.a, ca)
		l.run(10 * time.Second)
		b.want(t, v.n1+" via "+v.a+" ibgp") // End-of-RIB removed the other
		if s := b.state(v.a); s.Stale != 0 || s.State != Established {
			t.Errorf("status after the restart: %+v", s)
		}
		l.kill(a.addr)
		l.run(119 * time.Second)
		b.want(t, v.n1+" via "+v.a+" ibgp")
		l.run(2 * time.Second)
		b.want(t) // it did not come back in time
	}
}

func TestRestartWithoutKeptForwarding(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ca := config(64512, "10.65.1.0/26", "10.0.0.2 64512")
	a := l.router("10.0.0.1", ca)
	b := l.router("10.0.0.2", config(64512, "", "10.0.0.1 64512"))
	l.run(3 * time.Second)
	l.kill(a.addr)
	ca.Networks = nil
	l.router("10.0.0.1", ca) // a rebooted machine: Restarting is not set
	for b.state("10.0.0.1").State != Established {
		l.run(100 * time.Millisecond)
	}
	b.want(t)
}

func TestRestartDefersLearned(t *testing.T) {
	t.Parallel()
	// a restarts between b, which has routes, and tor; it must not tell tor that it is done before b told it everything.
	l := newLab(t)
	ca := config(64512, "10.65.1.0/26", "10.0.0.2 64512", "10.0.0.9 65001", "10.0.0.77 64512")
	l.router("10.0.0.1", ca)
	b := l.router("10.0.0.2", config(64512, "10.65.2.0/26", "10.0.0.1 64512"))
	tor := l.router("10.0.0.9", config(65001, "", "10.0.0.1 64512"))
	l.run(3 * time.Second)
	want := []string{"10.65.1.0/26 via 10.0.0.1 ebgp", "10.65.2.0/26 via 10.0.0.1 ebgp"}
	tor.want(t, want...)
	ca.Restarting = true
	a := l.router("10.0.0.1", ca)
	l.cut[b.addr] = true // b is slow
	l.run(12 * time.Second)
	l.cut[b.addr] = false
	tor.want(t, want...)
	l.run(7 * time.Second)
	tor.want(t, want...)
	if s := tor.state("10.0.0.1"); s.Stale != 1 || s.State != Established {
		t.Errorf("the learned route should still be stale: %+v", s)
	}
	if !a.synced.IsZero() {
		t.Error("synced while a peer was missing")
	}
	l.run(5 * time.Second) // 10.0.0.77 never comes: 20 s are enough
	tor.want(t, want...)
	if s := tor.state("10.0.0.1"); s.Stale != 0 {
		t.Errorf("after the deferral: %+v", s)
	}
	if a.synced.IsZero() {
		t.Error("not synced although the missing peer had its time")
	}
}

func TestTwoThatRestartDoNotWaitForEachOther(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ca, cb := config(64512, "10.65.1.0/26", "10.0.0.2 64512"), config(64512, "10.65.2.0/26", "10.0.0.1 64512")
	ca.Restarting, cb.Restarting = true, true
	a, b := l.router("10.0.0.1", ca), l.router("10.0.0.2", cb)
	l.run(3 * time.Second)
	if a.synced.IsZero() || b.synced.IsZero() {
		t.Errorf("synced: %v, %v", a.synced, b.synced)
	}
}

func TestSecondConnection(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		option   string
		after    time.Duration
		accepted bool
	}{
		"the peer has restarted unnoticed": {"", 10 * time.Second, true},
		"left over from a collision":       {"", time.Second, false},
		"without graceful restart":         {" norestart", time.Minute, false},
	} {
		l := newLab(t)
		a := l.router("10.0.0.1", config(64512, "", "10.0.0.2 64512"+tt.option))
		b := l.router("10.0.0.2", config(64512, "10.65.2.0/26", "10.0.0.1 64512"))
		for a.state("10.0.0.2").State != Established {
			l.run(100 * time.Millisecond)
		}
		l.run(tt.after)
		_, err := a.Accept(l.now, b.addr, a.addr)
		if (err == nil) != tt.accepted {
			t.Errorf("%s: %v", name, err)
		}
		a.want(t, "10.65.2.0/26 via 10.0.0.2 ibgp")
		if got := a.state("10.0.0.2").Stale; (got == 1) != tt.accepted {
			t.Errorf("%s: %d stale routes", name, got)
		}
	}
}

func TestHoldTimer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	a := l.router("10.0.0.1", config(64512, "", "10.0.0.2 64512"))
	b := l.router("10.0.0.2", config(64512, "10.65.2.0/26", "10.0.0.1 64512"))
	l.run(10 * time.Minute) // KEEPALIVEs keep it up
	if s := a.state("10.0.0.2"); s.State != Established || l.now.Sub(s.Since) < 9*time.Minute {
		t.Fatalf("after ten minutes: %+v", s)
	}
	l.cut[b.addr] = true
	l.run(59 * time.Second)
	a.want(t, "10.65.2.0/26 via 10.0.0.2 ibgp")
	l.run(32 * time.Second)
	a.want(t) // not graceful: the peer is dead, not restarting
	if s := a.state("10.0.0.2"); s.State == Established || s.Err != "hold timer expired" {
		t.Errorf("after 90 s of silence: %+v", s)
	}
	l.cut[b.addr] = false
	l.run(time.Minute)
	a.want(t, "10.65.2.0/26 via 10.0.0.2 ibgp")
}

func TestSessionTimers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var dials []time.Duration
	start := l.now
	r := NewRouter()
	if err := r.Apply(l.now, Config{ASN: 1, RouterID: netip.MustParseAddr("10.0.0.1"), Peers: map[string]Peer{
		"p": {Addr: netip.MustParseAddr("10.0.0.2"), ASN: 2},
	}}); err != nil {
		t.Fatal(err)
	}
	now := start
	for range 12 {
		now = r.Deadline()
		r.Tick(now)
		for _, e := range r.Effects() {
			if e.Kind != Dial {
				continue
			}
			dials = append(dials, now.Sub(start).Round(time.Second))
			switch len(dials) {
			case 1: // no answer
			case 2:
				r.Closed(now, e.Conn, errors.New("connection refused"))
			default: // wrong AS
				r.Connected(now, e.Conn, netip.MustParseAddr("10.0.0.1"))
				r.Received(now, e.Conn, wire.AppendOpen(nil, wire.Open{ASN: 3, HoldTime: 90e9, ID: netip.MustParseAddr("10.0.0.2")}))
			}
		}
	}
	// delay 2; no answer for 5; refused, retry after 5; then errors: 5, 10, 20, 30, 30
	want := []time.Duration{2e9, 7e9, 12e9, 17e9, 27e9, 47e9, 77e9, 107e9}
	if d := cmp.Diff(want, dials[:min(len(dials), len(want))]); d != "" {
		t.Errorf("dials (-want +got):\n%s", d)
	}
	if s := r.Status()[0]; s.State != Idle || !strings.Contains(s.Err, "peer is AS 3, configured is 2") {
		t.Errorf("status: %+v", s)
	}
	if _, err := r.Accept(now, netip.MustParseAddr("10.0.0.2"), netip.Addr{}); err == nil {
		t.Error("accepted a connection while resting after an error")
	}
	if _, err := r.Accept(now, netip.MustParseAddr("10.0.0.3"), netip.Addr{}); err == nil {
		t.Error("accepted a connection from a stranger")
	}
}

func TestReconfigure(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	ca := config(64512, "10.65.1.0/26 10.65.1.64/26", "10.0.0.2 64512", "10.0.0.3 64512")
	a := l.router("10.0.0.1", ca)
	b := l.router("10.0.0.2", config(64512, "", "10.0.0.1 64512"))
	c := l.router("10.0.0.3", config(64512, "10.65.3.0/26", "10.0.0.1 64512"))
	l.run(3 * time.Second)

	// An export policy takes one network from b, and leaves c alone.
	ca.Policies = map[string]Policy{
		"one": {{Prefix: netip.MustParsePrefix("10.65.1.0/24"), Op: In, MinBits: 26, MaxBits: 26, Sources: FromSelf, Accept: true, AddCommunities: []uint32{7}}},
		"not": {{Prefix: netip.MustParsePrefix("10.65.1.64/26"), Op: Equal}, {Accept: true}},
	}
	set := func(peer string, f func(*Peer)) {
		ca.Peers = maps.Clone(ca.Peers)
		p := ca.Peers[peer]
		f(&p)
		ca.Peers[peer] = p
	}
	set("Peer_10.0.0.2", func(p *Peer) { p.Export = "not" })
	l.apply(a, ca)
	b.want(t, "10.65.1.0/26 via 10.0.0.1 ibgp")
	c.want(t, "10.65.1.0/26 via 10.0.0.1 ibgp", "10.65.1.64/26 via 10.0.0.1 ibgp")

	set("Peer_10.0.0.2", func(p *Peer) { p.Export = "one" })
	l.apply(a, ca)
	b.want(t, "10.65.1.0/26 via 10.0.0.1 ibgp", "10.65.1.64/26 via 10.0.0.1 ibgp")
	if got := path0(t, b, "10.65.1.0/26").Communities; !slices.Equal(got, []uint32{7}) {
		t.Errorf("communities: %v", got)
	}

	// An import policy works on what was already received.
	set("Peer_10.0.0.3", func(p *Peer) { p.Import = "one" })
	l.apply(a, ca)
	a.want(t)
	set("Peer_10.0.0.3", func(p *Peer) { p.Import = "" })
	l.apply(a, ca)
	a.want(t, "10.65.3.0/26 via 10.0.0.3 ibgp")

	// Another port is for the next attempt.
	set("Peer_10.0.0.3", func(p *Peer) { p.Port = 1790 })
	l.apply(a, ca)

	for peer, s := range map[string]PeerStatus{"10.0.0.2": a.state("10.0.0.2"), "10.0.0.3": a.state("10.0.0.3")} {
		if s.State != Established || l.now.Sub(s.Since) > 3*time.Second || s.Err != "" {
			t.Errorf("session with %s was disturbed: %+v", peer, s)
		}
	}
	// A peer taken out loses our routes, and we lose its, at once.
	ca.Peers = maps.Clone(ca.Peers)
	delete(ca.Peers, "Peer_10.0.0.3")
	l.apply(a, ca)
	c.want(t)
	a.want(t)
	if s := c.state("10.0.0.1"); !strings.Contains(s.Err, "peer de-configured") {
		t.Errorf("the removed peer was told %q", s.Err)
	}
	bad := ca
	bad.Networks = append(bad.Networks, Network{Prefix: netip.MustParsePrefix("10.0.0.1/8")})
	if err := a.Apply(l.now, bad); err == nil || !strings.Contains(err.Error(), "network 10.0.0.1/8: want a masked prefix") {
		t.Errorf("bad config: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		open wire.Open
		want string
	}{
		"as":       {wire.Open{ASN: 7, HoldTime: 90e9, ID: netip.MustParseAddr("1.1.1.1")}, "peer is AS 7, configured is 64512: OPEN message error: bad peer AS"},
		"own id":   {wire.Open{ASN: 64512, HoldTime: 90e9, ID: netip.MustParseAddr("10.0.0.1")}, "peer has our router id 10.0.0.1: OPEN message error: bad BGP identifier"},
		"families": {wire.Open{ASN: 64512, HoldTime: 90e9, ID: netip.MustParseAddr("1.1.1.1"), Capabilities: wire.Capabilities{Families: IPv6}}, "peer speaks ipv6, configured is ipv4: OPEN message error: unsupported capability"},
	} {
		r := NewRouter()
		now := time.Unix(1e9, 0)
		if err := r.Apply(now, withID(config(64512, "", "10.0.0.2 64512"), "10.0.0.1")); err != nil {
			t.Fatal(err)
		}
		id, err := r.Accept(now, netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		r.Received(now, id, wire.AppendOpen(nil, tt.open))
		if got := r.Status()[0].Err; got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
		var sent bool
		for _, e := range r.Effects() {
			sent = sent || e.Kind == Send && e.Data[18] == byte(wire.TypeNotification)
		}
		if !sent {
			t.Errorf("%s: the peer was not notified", name)
		}
	}
}

func withID(c Config, id string) Config {
	c.RouterID = netip.MustParseAddr(id)
	return c
}
