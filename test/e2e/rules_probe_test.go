package e2e_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// How long a probe waits for what must not come. One of TCP that should be answered, or
// refused, is sent again where it was not, since the machine may be busy; those of UDP are
// counted, and wait for as long as it takes.
const (
	waitTCP = 400 * time.Millisecond
	waitUDP = 2 * time.Second
)

// hear answers at ports until standard input ends, and prints a line for each datagram
// and packet: its source and its payload. A port is tcp:80, udp:53, or ip:4 for a
// protocol of IPv4 that has no ports.
func hear(ports []string, in io.Reader, out io.Writer) error {
	lines := make(chan string, 1<<16)
	for _, p := range ports {
		network, port, _ := strings.Cut(p, ":")
		if network == "tcp" {
			l, err := net.Listen("tcp", ":"+port)
			if err != nil {
				return err
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					_ = c.Close()
				}
			}()
			continue
		}
		var c net.PacketConn
		var err error
		if network == "udp" {
			c, err = net.ListenPacket("udp", ":"+port)
		} else {
			c, err = net.ListenPacket("ip4:"+port, "0.0.0.0")
		}
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				lines <- fmt.Sprintf("%v %s", from, b[:n])
				if network == "udp" {
					_, _ = c.WriteTo(b[:n], from)
				}
			}
		}()
	}
	fmt.Fprintln(out, "ready")
	go func() { _, _ = io.Copy(io.Discard, in); os.Exit(0) }()
	for line := range lines {
		fmt.Fprintln(out, line)
	}
	return nil
}

// probes carries out what the lines of in ask for, one after the other, and answers
// each with a line:
//
//	tcp ADDRESS PORT                      answer, refused or silence
//	udp ADDRESS PORT COUNT WORD [all]     COUNT datagrams, each of a flow of its own:
//	                                      how many were answered and refused; with
//	                                      all, each will be, and is waited for
//	raw SOURCE ADDRESS PROTOCOL PORT WORD sent
func probes(in io.Reader, out io.Writer) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		f := strings.Fields(lines.Text())
		var said string
		var err error
		switch {
		case len(f) == 3 && f[0] == "tcp":
			said = probeTCP(net.JoinHostPort(f[1], f[2]))
		case len(f) == 5 && f[0] == "udp":
			said, err = probeUDP(net.JoinHostPort(f[1], f[2]), f[3], f[4], waitUDP)
		case len(f) == 6 && f[0] == "udp" && f[5] == "all":
			said, err = probeUDP(net.JoinHostPort(f[1], f[2]), f[3], f[4], testenv.Patience)
		case len(f) == 6 && f[0] == "raw":
			said, err = "sent", sendRaw(f[1], f[2], f[3], f[4], f[5])
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			said = "error: " + err.Error()
		}
		fmt.Fprintln(out, said)
	}
	return nil
}

func probeTCP(to string) string {
	c, err := net.DialTimeout("tcp", to, waitTCP)
	switch {
	case err == nil:
		_ = c.Close()
		return "answer"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	}
	return "silence"
}

// probeUDP sends all datagrams and then waits for the answers.
func probeUDP(to, count, word string, wait time.Duration) (string, error) {
	n, err := strconv.Atoi(count)
	if err != nil {
		return "", err
	}
	conns := make([]net.Conn, n)
	for i := range conns {
		if conns[i], err = net.Dial("udp", to); err != nil {
			return "", err
		}
		defer conns[i].Close()
		if _, err := conns[i].Write([]byte(word)); err != nil {
			return "", err
		}
	}
	answered, refused := 0, 0
	deadline := time.Now().Add(wait)
	for _, c := range conns {
		_ = c.SetReadDeadline(deadline)
		switch _, err := c.Read(make([]byte, 2048)); {
		case err == nil:
			answered++
		case errors.Is(err, unix.ECONNREFUSED):
			refused++
		}
	}
	return fmt.Sprintf("%d answered, %d refused", answered, refused), nil
}

// sendRaw sends one packet with whatever source. Of UDP the checksum is left out,
// which IPv4 allows; in IPv6 it is computed.
func sendRaw(source, to, protocol, port, word string) error {
	src, err := netip.ParseAddr(source)
	dst, err2 := netip.ParseAddr(to)
	proto, err3 := strconv.ParseUint(protocol, 10, 8)
	dport, err4 := strconv.ParseUint(port, 10, 16)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return err
	}
	body := []byte(word)
	if proto == unix.IPPROTO_UDP {
		h := make([]byte, 8)
		binary.BigEndian.PutUint16(h, 40000)
		binary.BigEndian.PutUint16(h[2:], uint16(dport))
		binary.BigEndian.PutUint16(h[4:], uint16(8+len(body)))
		body = append(h, body...)
		if src.Is6() {
			binary.BigEndian.PutUint16(body[6:], sum6(src, dst, body))
		}
	}
	var head []byte
	family := unix.AF_INET
	if src.Is4() {
		head = make([]byte, 20) // the kernel fills in length and checksum
		head[0], head[8], head[9] = 0x45, 64, uint8(proto)
		copy(head[12:], src.AsSlice())
		copy(head[16:], dst.AsSlice())
	} else {
		family = unix.AF_INET6
		head = make([]byte, 40)
		head[0], head[6], head[7] = 0x60, uint8(proto), 64
		binary.BigEndian.PutUint16(head[4:], uint16(len(body)))
		copy(head[8:], src.AsSlice())
		copy(head[24:], dst.AsSlice())
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, append(head, body...), 0, sockaddr(dst))
}

// sum6 is the checksum of a UDP datagram over IPv6 (RFC 8200 §8.1).
func sum6(src, dst netip.Addr, datagram []byte) uint16 {
	b := append(src.AsSlice(), dst.AsSlice()...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(datagram)))
	b = append(b, 0, 0, 0, unix.IPPROTO_UDP)
	b = append(b, datagram...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// prober sends probes from a target.
type prober struct{ *process }

func (c *cluster) prober(target string) prober { c.t.Helper(); return prober{c.help(target, "probe")} }

// says fails unless a probe has that answer.
func (p prober) says(probe, want string) error {
	p.t.Helper()
	if f := strings.Fields(probe); f[0] == "udp" && strings.HasPrefix(want, f[3]+" answered") {
		probe += " all"
	}
	if got := p.ask(probe); got != want {
		return fmt.Errorf("%s: %s, want %s", probe, got, want)
	}
	return nil
}

// must is says at once; an answer, or a refusal, of TCP may take some tries.
func (p prober) must(probe, want string) {
	p.t.Helper()
	if want == "answer" || want == "refused" {
		p.becomes(probe, want)
		return
	}
	if err := p.says(probe, want); err != nil {
		p.t.Error(err)
	}
}

// becomes waits for an answer.
func (p prober) becomes(probe, want string) {
	p.t.Helper()
	eventually(p.t, want, func() error { return p.says(probe, want) })
}

// ear listens in a target.
type ear struct {
	*process
	addr  string
	n     int
	lines chan string // what it hears
}

// readWithin gives the next line that it hears; false when none comes for a time.
func (e *ear) readWithin(wait time.Duration) (string, bool) {
	e.t.Helper()
	select {
	case line, ok := <-e.lines:
		if !ok {
			e.t.Fatalf("hear at %s has ended: %s", e.addr, e.err)
		}
		return line, true
	case <-time.After(wait):
		return "", false
	}
}

// read gives the next line that it hears, which is waited for.
func (e *ear) read() string {
	e.t.Helper()
	line, ok := e.readWithin(testenv.Patience)
	if !ok {
		e.t.Fatalf("hear at %s: nothing comes", e.addr)
	}
	return line
}

// listen starts an ear; port 9 of UDP is for marks.
func (c *cluster) listen(target, addr string, ports ...string) *ear {
	c.t.Helper()
	e := &ear{process: c.help(target, append([]string{"hear", "udp:9"}, ports...)...), addr: addr, lines: make(chan string, 1<<16)}
	if line := e.process.read(); line != "ready" {
		c.t.Fatalf("hear at %s: %s", target, line)
	}
	go func() { // until the process ends
		defer close(e.lines)
		for s := bufio.NewScanner(e.out); s.Scan(); {
			e.lines <- s.Text()
		}
	}()
	return e
}

// hears reports whether the packet that a probe sends arrives. After it go marks that
// nobody denies: what has not come before the last of them does not come. One would not do,
// since it is heard by another socket, whose reader may be the faster one.
func (e *ear) hears(t testing.TB, from prober, source, to, protocol, port string) bool {
	t.Helper()
	e.n++
	word := fmt.Sprintf("word-%d", e.n)
	if got := from.ask(strings.Join([]string{"raw", source, to, protocol, port, word}, " ")); got != "sent" {
		t.Fatalf("packet from %s: %s", source, got)
	}
	for i := range 5 {
		mark := fmt.Sprintf("mark-%d-%d", e.n, i)
		if got := from.ask("udp " + e.addr + " 9 1 " + mark + " all"); got != "1 answered, 0 refused" {
			t.Fatalf("mark to %s: %s", e.addr, got)
		}
		if e.until(word, mark) {
			return true
		}
	}
	return false
}

// until reads up to a mark, and reports whether a word came before.
func (e *ear) until(word, mark string) (heard bool) {
	for {
		line := e.read()
		heard = heard || strings.HasSuffix(line, word)
		if strings.HasSuffix(line, " "+mark) {
			return heard
		}
	}
}
