package nflog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

const eventually = testenv.Patience

// host is a namespace whose rules log UDP to and from ports 7000 to 7999.
type host struct {
	*testing.T
	ns *testenv.Namespace
}

func newHost(t *testing.T) host {
	h := host{t, testenv.Netns(t)}
	script := `
		add table inet t
		add chain inet t in { type filter hook input priority 0; }
		add chain inet t out { type filter hook output priority 0; }
		add rule inet t in udp dport 7000-7999 log group 5 prefix "rule in" accept
		add rule inet t out udp dport 7000-7999 log group 6 prefix "rule out" accept`
	var out strings.Builder
	cmd := exec.Command(testenv.Need(t, "nft"), "-f", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), &out, &out
	if err := h.ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out.String())
	}
	return h
}

// send sends count datagrams to that address, from a socket of its own.
func (h host) send(addr string, count int) {
	h.Helper()
	h.ns.MustDo(func() error {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		for range count {
			_, _ = c.Write([]byte("hello")) // nobody listens: every other one is an ECONNREFUSED
			_, _ = c.Write([]byte("hello"))
		}
		return nil
	})
}

// listen runs a Listener inside until the test, or the returned stop, ends it.
func (h host) listen(o Options) (*Listener, func()) {
	h.Helper()
	var l *Listener
	h.ns.MustDo(func() (err error) {
		// A program that another test starts has our descriptors for a moment.
		for end := time.Now().Add(eventually); ; time.Sleep(time.Millisecond) {
			if l, err = New(o); !errors.Is(err, unix.EPERM) || time.Now().After(end) {
				return err
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- l.Run(ctx); close(done) }()
	stop := func() {
		cancel()
		if err, first := <-done; first && !errors.Is(err, context.Canceled) {
			h.Errorf("Run returned %v", err)
		}
	}
	h.Cleanup(stop)
	return l, stop
}

func next(t *testing.T, events <-chan Event) Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(eventually):
		t.Fatal("no event comes")
		return Event{}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			events := make(chan Event, 100)
			h.listen(Options{Groups: []uint16{5, 6}, Each: func(e Event) { events <- e }})
			h.send(net.JoinHostPort(addr, "7001"), 1)
			seen := map[plan.Hook]Event{}
			for len(seen) < 2 {
				e := next(t, events)
				seen[e.Hook] = e
			}
			for hook, want := range map[plan.Hook]string{plan.Input: "rule in lo>", plan.Output: "rule out >lo"} {
				e := seen[hook]
				if got := fmt.Sprintf("%s %s>%s", e.Prefix, e.Packet.InLink, e.Packet.OutLink); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if p := e.Packet; p.Src.String() != addr || p.Dst.String() != addr || p.Protocol != 17 || p.DstPort != 7001 || p.SrcPort == 0 {
					t.Errorf("packet %+v", p)
				}
				if e.Bytes < 33 || e.Bytes > 60 || time.Since(e.Time).Abs() > time.Hour {
					t.Errorf("%d bytes at %v", e.Bytes, e.Time)
				}
			}
		})
	}
}

// TestSlow: who is slow loses events, and knows how many.
func TestSlow(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	release, first := make(chan struct{}), make(chan Event, 1)
	l, _ := h.listen(Options{Groups: []uint16{6}, Each: func(e Event) {
		select {
		case first <- e:
		default:
		}
		<-release
	}})
	const count = 5000
	h.send("127.0.0.1:7001", count)
	next(t, first)
	total := func() uint64 { c := l.Counts(); return c.Events + c.Missed + c.Dropped }
	deadline := time.Now().Add(eventually)
	for ; l.Counts().Dropped == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing is dropped: %+v", l.Counts())
		}
	}
	close(release)
	deadline = time.Now().Add(eventually)
	for was := uint64(0); total() < count || was != total(); time.Sleep(150 * time.Millisecond) { // longer than the kernel gathers
		was = total()
		if time.Now().After(deadline) {
			t.Fatalf("%d packets are accounted for of at least %d: %+v", total(), count, l.Counts())
		}
	}
	if c := l.Counts(); c.Events < queueLength || total() > 2*count {
		t.Errorf("counts %+v of %d to %d packets", c, count, 2*count)
	}
}

// TestMissed: a gap in the numbers is what the kernel could not hand over.
func TestMissed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	var l *Listener
	h.ns.MustDo(func() (err error) {
		l, err = New(Options{Groups: []uint16{7}, Each: func(Event) {}})
		return err
	})
	defer l.close()
	for _, tt := range []struct {
		seq    uint32
		missed uint64
	}{{0, 0}, {1, 0}, {5, 3}, {6, 3}} {
		b := message(ip4(6, 0, 0))
		for i := range b { // the number is the only 11
			if b[i] == 11 {
				b[i] = byte(tt.seq)
			}
		}
		if l.packet(b); l.Counts().Missed != tt.missed {
			t.Errorf("after number %d: missed %d, want %d", tt.seq, l.Counts().Missed, tt.missed)
		}
	}
}

// TestGroups: a group has one listener in a namespace, until it stops; others have
// the same group in their own.
func TestGroups(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	fromA, fromB := make(chan Event, 100), make(chan Event, 100)
	_, stop := a.listen(Options{Groups: []uint16{5}, Each: func(e Event) { fromA <- e }})
	b.listen(Options{Groups: []uint16{5}, Each: func(e Event) { fromB <- e }})
	err := a.ns.Do(func() error { _, err := New(Options{Groups: []uint16{4, 5}, Each: func(Event) {}}); return err })
	if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "group 5") {
		t.Errorf("a second listener: %v, want EPERM of group 5", err)
	}
	a.send("127.0.0.1:7001", 1)
	b.send("127.0.0.1:7002", 1)
	if p := next(t, fromA).Packet; p.DstPort != 7001 {
		t.Errorf("A heard %+v", p)
	}
	if p := next(t, fromB).Packet; p.DstPort != 7002 {
		t.Errorf("B heard %+v", p)
	}
	stop()
	again := make(chan Event, 100)
	a.listen(Options{Groups: []uint16{5}, Each: func(e Event) { again <- e }})
	a.send("127.0.0.1:7003", 1)
	if p := next(t, again).Packet; p.DstPort != 7003 {
		t.Errorf("the successor heard %+v", p)
	}
}
