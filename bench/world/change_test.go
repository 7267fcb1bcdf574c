package world_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/bench/world"
	"golang.org/x/sys/unix"
)

// event is one change of a kernel table, as the kernel announces it to whoever
// listens: the moment is that of its reception.
type event struct {
	at   time.Time
	kind uint16 // type of the netlink message
	data []byte
}

// Types of events.
const (
	newRoute   = unix.RTM_NEWROUTE
	newRule    = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE
	newElement = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM
	delElement = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM
)

// listen hears of routes and of nftables in the namespace until the benchmark ends.
func (g *ground) listen() <-chan event {
	events := make(chan event, 1<<16)
	for protocol, group := range map[int]int{unix.NETLINK_ROUTE: unix.RTNLGRP_IPV4_ROUTE, unix.NETLINK_NETFILTER: unix.NFNLGRP_NFTABLES} {
		var socket int
		g.ns.MustDo(func() (err error) {
			if socket, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
				return err
			}
			timeout := unix.Timeval{Usec: 200_000}
			return errors.Join(
				unix.Bind(socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
				unix.SetsockoptInt(socket, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group),
				unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
				unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
			)
		})
		done := make(chan struct{})
		stop := g.b.Context().Done()
		g.b.Cleanup(func() {
			<-done
			_ = unix.Close(socket)
		})
		go func() {
			defer close(done)
			receive(socket, events, stop)
		}()
	}
	return events
}

// receive passes on what arrives at a socket until stop is closed.
func receive(socket int, events chan<- event, stop <-chan struct{}) {
	buf := make([]byte, 1<<20)
	for {
		n, _, err := unix.Recvfrom(socket, buf, 0)
		now := time.Now()
		select {
		case <-stop:
			return
		default:
		}
		if err != nil {
			continue // nothing came, or too much
		}
		for text := buf[:n]; len(text) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(text))
			if size < unix.SizeofNlMsghdr || size > len(text) {
				break
			}
			select {
			case events <- event{now, binary.NativeEndian.Uint16(text[4:]), bytes.Clone(text[unix.SizeofNlMsghdr:size])}:
			case <-stop:
				return
			}
			text = text[min((size+3)&^3, len(text)):]
		}
	}
}

// change writes e and returns the time from then on until the last event arrived
// that wanted is true for, once each of those wanted has. The last one is known by
// 50 ms in which none comes.
func (g *ground) change(events <-chan event, e world.Entry, wanted ...func(event) bool) time.Duration {
	for len(events) > 0 {
		<-events
	}
	start := time.Now()
	if _, err := g.etcd.Put(g.b.Context(), e.Key, e.Value); err != nil {
		g.b.Fatal(err)
	}
	var last time.Time
	seen := make([]bool, len(wanted))
	deadline := time.After(5 * time.Second)
	for {
		var quiet <-chan time.Time
		if !slices.Contains(seen, false) {
			quiet = time.After(50 * time.Millisecond)
		}
		select {
		case ev := <-events:
			for i, is := range wanted {
				if is(ev) {
					seen[i], last = true, ev.at
				}
			}
		case <-quiet:
			return last.Sub(start)
		case <-deadline:
			g.b.Fatalf("5 s after %s was written the kernel has not changed as it must: %v", e.Key, seen)
		}
	}
}

// of is true for events of these types that hold data.
func of(data []byte, kinds ...uint16) func(event) bool {
	return func(e event) bool { return slices.Contains(kinds, e.kind) && bytes.Contains(e.data, data) }
}

// report reports the distribution of durations.
func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(took[len(took)/2]), "ms-median")
	b.ReportMetric(ms(took[len(took)*99/100]), "ms-p99")
	b.ReportMetric(0, "ns/op")
}

// measureChanges measures b.N changes in a large world with an agent that runs.
func measureChanges(b *testing.B, change func(g *ground, events <-chan event, i int) time.Duration) {
	g := newGround(b, world.Large())
	g.startAgent()
	time.Sleep(time.Second)
	events := g.listen()
	var took []time.Duration
	before := g.cpu()
	for i := range b.N {
		took = append(took, change(g, events, i))
	}
	b.ReportMetric(float64((g.cpu()-before).Microseconds())/1000/float64(b.N), "agent-cpu-ms/op")
	report(b, took)
}

// BenchmarkLabel changes a label of a pod elsewhere, which puts its address into
// one set and takes it out again.
func BenchmarkLabel(b *testing.B) {
	measureChanges(b, func(g *ground, events <-chan event, i int) time.Duration {
		pod := g.w.Local + i/2*g.w.Namespaces
		addr := g.w.Address(pod).As4()
		if i%2 == 0 {
			return g.change(events, g.w.Endpoint(pod, `,"canary":"yes"`), of(addr[:], newElement))
		}
		return g.change(events, g.w.Endpoint(pod, ""), of(addr[:], delElement))
	})
}

// BenchmarkEndpoint makes pods on this node, whose links are there already, and
// ends each when its route, its element of the map of interfaces and its
// address in the sets are in the kernel.
func BenchmarkEndpoint(b *testing.B) {
	measureChanges(b, func(g *ground, events <-chan event, i int) time.Duration {
		pod := g.w.Local + g.w.Remote + 2*i
		g.ns.MustDo(func() error { return pair(g.w.Link(pod), g.w.Link(pod+1)) })
		time.Sleep(20 * time.Millisecond) // the agent hears of the links, too
		addr, link := g.w.Address(pod).As4(), append([]byte(g.w.Link(pod)), 0)
		return g.change(events, g.w.On(0, pod, ""), of(addr[:], newRoute), of(link, newElement))
	})
}

// BenchmarkRule changes the port in a rule of a policy that applies to a pod of
// this node.
func BenchmarkRule(b *testing.B) {
	measureChanges(b, func(g *ground, events <-chan event, i int) time.Duration {
		return g.change(events, g.w.Policy(i%g.w.Policies, 10_000+i), of(nil, newRule))
	})
}
