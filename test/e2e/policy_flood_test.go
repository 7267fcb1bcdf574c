package e2e_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A flood is a number of streams of UDP datagrams from one pod, sent at a steady
// rate in turn; a sink in another pod notes which of them came. A datagram names its
// stream and has a number, so that each one is accounted for.

// stream is one of a flood.
type stream struct {
	ID   int
	Kept bool // a flow that goes on and is answered; else each datagram is a flow of its own
	To   netip.AddrPort
}

// flooded is what became of a stream, as its sender sees it.
type flooded struct {
	Sent     int
	Answered int // of those of a kept flow
}

// datagram is 1 byte of stream and 8 of number.
const datagram = 9

func encode(b []byte, id, n int) {
	b[0] = byte(id)
	binary.BigEndian.PutUint64(b[1:], uint64(n))
}

// numbers are the datagrams of one stream that came.
type numbers struct {
	seen  []uint64 // bits
	Count int
}

func (m *numbers) add(n uint64) {
	for uint64(len(m.seen)) <= n/64 {
		m.seen = append(m.seen, make([]uint64, 1+len(m.seen))...)
	}
	if m.seen[n/64]&(1<<(n%64)) == 0 {
		m.seen[n/64] |= 1 << (n % 64)
		m.Count++
	}
}

// missing are the first of n that did not come.
func (m *numbers) missing(n int) (out []int) {
	for i := 0; i < n && len(out) < 20; i++ {
		if i/64 >= len(m.seen) || m.seen[i/64]&(1<<(i%64)) == 0 {
			out = append(out, i)
		}
	}
	return out
}

// bigBuffers keeps what comes while this process is not run.
func bigBuffers(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
}

// came is what a sink says of a stream.
type came struct {
	Count   int
	Missing []int // the first few, of those asked for
}

// sink takes in datagrams on some ports, of both families, and answers those of kept
// flows, which have one more byte, and the first packets of talks. A line on standard input asks for a report: the
// numbers of datagrams that were sent, by stream; those get their time to come.
func sink(ports []string, in io.Reader, out io.Writer) error {
	var mu sync.Mutex
	got := map[int]*numbers{}
	for _, port := range ports {
		n, err := strconv.Atoi(port)
		if err != nil {
			return err
		}
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: n})
		if err != nil {
			return err
		}
		if err := bigBuffers(conn); err != nil {
			return err
		}
		go func() {
			b := make([]byte, 64)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					continue
				}
				if n < datagram {
					_, _ = conn.WriteToUDPAddrPort(b[:n], from)
					continue
				}
				id := int(b[0])
				mu.Lock()
				if got[id] == nil {
					got[id] = &numbers{}
				}
				got[id].add(binary.BigEndian.Uint64(b[1:]))
				mu.Unlock()
				if n > datagram {
					_, _ = conn.WriteToUDPAddrPort(b[:n], from)
				}
			}
		}()
	}
	fmt.Fprintln(out, "ready")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var sent map[int]int
		if err := json.Unmarshal(lines.Bytes(), &sent); err != nil {
			return err
		}
		report := func() (all map[int]came, whole bool) {
			mu.Lock()
			defer mu.Unlock()
			all, whole = map[int]came{}, true
			for id, n := range sent {
				one := came{}
				if m := got[id]; m != nil {
					one = came{m.Count, m.missing(n)}
				}
				all[id] = one
				whole = whole && one.Count >= n
			}
			return all, whole
		}
		tick := time.NewTicker(time.Millisecond)
		all, whole := report()
		for end := time.Now().Add(20 * time.Second); !whole && time.Now().Before(end); all, whole = report() {
			<-tick.C
		}
		tick.Stop()
		if err := json.NewEncoder(out).Encode(all); err != nil {
			return err
		}
	}
	return nil
}

// flooder sends the datagrams of one stream.
type flooder struct {
	stream
	sent     int
	answered atomic.Int64
	send     func(n int) error

	since time.Time // since when no answer came, while too many were outstanding
	had   int       // answers by then
	lost  int       // given up
}

func newFlooder(s stream) (*flooder, error) {
	f := &flooder{stream: s}
	if s.Kept {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.To))
		if err != nil {
			return nil, err
		}
		if err := bigBuffers(conn); err != nil {
			return nil, err
		}
		b := make([]byte, datagram+1)
		f.send = func(n int) error { encode(b, s.ID, n); _, err := conn.Write(b); return err }
		go func() {
			answer := make([]byte, 64)
			for {
				if n, err := conn.Read(answer); err == nil && n > datagram {
					f.answered.Add(1)
				}
			}
		}()
		return f, nil
	}
	family := unix.AF_INET
	if s.To.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("raw socket: %w", err)
	}
	if s.To.Addr().Is6() {
		const ipv6Checksum, offset = 7, 6 // RFC 3542; of UDP's header
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, ipv6Checksum, offset); err != nil {
			return nil, fmt.Errorf("raw socket: checksum: %w", err)
		}
	}
	b := make([]byte, 8+datagram)
	to := sockaddr(s.To.Addr())
	f.send = func(n int) error {
		// No checksum in IPv4, which is allowed; the source port changes each time.
		binary.BigEndian.PutUint16(b[0:], uint16(1024+n%64000))
		binary.BigEndian.PutUint16(b[2:], s.To.Port())
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
		b[6], b[7] = 0, 0
		encode(b[8:], s.ID, n)
		return unix.Sendto(fd, b, 0, to)
	}
	return f, nil
}

// flood sends streams, in turn, at that many datagrams a second in sum until its
// standard input ends. It prints "ready" when it begins, and at the end what it sent.
func flood(perSecond int, streams []stream, in io.Reader, out io.Writer) error {
	var all []*flooder
	for _, s := range streams {
		f, err := newFlooder(s)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	end := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, in); close(end) }()
	fmt.Fprintln(out, "ready")
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	total, began := 0, time.Now()
	for over := false; !over; {
		select {
		case <-end:
			over = true
		case <-tick.C:
		}
		due := int(time.Since(began).Seconds() * float64(perSecond))
		if behind(all) {
			began = began.Add(time.Since(began) - time.Duration(float64(total)/float64(perSecond)*float64(time.Second)))
			continue
		}
		// When this process was not run for long, the time is made up for in bursts that
		// no queue on the way overflows from.
		due = min(due, total+perSecond/50)
		for ; total < due; total++ {
			f := all[total%len(all)]
			// What the sender itself can't send (no route yet, a full queue) was not sent.
			if f.send(f.sent) == nil {
				f.sent++
			}
		}
	}
	deadline := time.Now().Add(20 * time.Second)
	for _, f := range all {
		for f.Kept && f.answered.Load() < int64(f.sent) && f.answered.Load() > 0 && time.Now().Before(deadline) {
			<-tick.C
		}
	}
	report := map[int]flooded{}
	for _, f := range all {
		report[f.ID] = flooded{f.sent, int(f.answered.Load())}
	}
	return json.NewEncoder(out).Encode(report)
}

// mostUnanswered is how far the answers of a kept flow may be behind: what is in no
// buffer's way to hold.
const mostUnanswered = 2000

// behind reports whether the receiver is slower than the flood, on a machine that has much
// else to do: then its buffer would overflow, which is no loss that is looked for. What
// is lost for good is waited for once, for a second.
func behind(all []*flooder) bool {
	for _, f := range all {
		answered := int(f.answered.Load())
		if answered == 0 || f.sent-f.lost-answered < mostUnanswered {
			f.since = time.Time{}
			continue
		}
		if f.since.IsZero() || answered != f.had {
			f.since, f.had = time.Now(), answered
		}
		if time.Since(f.since) < time.Second {
			return true
		}
		f.lost = f.sent - answered
	}
	return false
}

// floodArgs reads what startFlood gave.
func floodArgs(args []string) error {
	rate, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var streams []stream
	if err := json.Unmarshal([]byte(args[1]), &streams); err != nil {
		return err
	}
	return flood(rate, streams, os.Stdin, os.Stdout)
}

// startSink starts a sink in a pod.
func (c *cluster) startSink(pod string, ports ...int) *process {
	c.t.Helper()
	args := []string{"sink"}
	for _, p := range ports {
		args = append(args, strconv.Itoa(p))
	}
	p := c.help("pod/default/"+pod, args...)
	if got := p.read(); got != "ready" {
		c.t.Fatalf("sink: %s", got)
	}
	return p
}

// startFlood sends from a pod until the returned function is called, which gives what
// was sent.
func (c *cluster) startFlood(pod string, perSecond int, streams ...stream) func() map[int]flooded {
	c.t.Helper()
	text, err := json.Marshal(streams)
	if err != nil {
		c.t.Fatal(err)
	}
	p := c.help("pod/default/"+pod, "flood", strconv.Itoa(perSecond), string(text))
	if got := p.read(); got != "ready" {
		c.t.Fatalf("flood: %s", got)
	}
	return func() map[int]flooded {
		c.t.Helper()
		p.stdin.Close()
		var r map[int]flooded
		if err := json.Unmarshal([]byte(p.read()), &r); err != nil {
			c.t.Fatal(err)
		}
		return r
	}
}

// arrived asks a sink what came of some streams.
func arrived(sink *process, sent map[int]int) map[int]came {
	sink.t.Helper()
	line, err := json.Marshal(sent)
	if err != nil {
		sink.t.Fatal(err)
	}
	var out map[int]came
	if err := json.Unmarshal([]byte(sink.ask(string(line))), &out); err != nil {
		sink.t.Fatal(err)
	}
	return out
}

// policyHelper is what the policy tests run inside of a lab.
func policyHelper(args []string) error {
	switch {
	case args[0] == "sink" && len(args) > 1:
		return sink(args[1:], os.Stdin, os.Stdout)
	case args[0] == "flood" && len(args) == 3:
		return floodArgs(args[1:])
	case args[0] == "serve" && len(args) > 1:
		return serveTalks(args[1:])
	case args[0] == "talk" && len(args) == 1:
		return talks(os.Stdin, os.Stdout)
	case args[0] == "newcomer" && len(args) == 2:
		return newcomers(args[1], os.Stdin, os.Stdout)
	}
	return fmt.Errorf("%q: no such helper", args)
}

// putPolicy stores an object of a name; a policy of namespaces in namespace default.
func putPolicy(t testing.TB, put func(string), kind, name, spec string) {
	t.Helper()
	namespace := ""
	if !strings.HasPrefix(kind, "Global") && kind != "Tier" && kind != "FelixConfiguration" {
		namespace = `, "namespace": "default"`
	}
	put(fmt.Sprintf(`{"apiVersion": "projectcalico.org/v3", "kind": %q, "metadata": {"name": %q%s}, "spec": %s}`, kind, name, namespace, spec))
}
