package e2e_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// The kinds of talks: one side of the first two sends, the other answers; of the last
// the server sends and the client only acknowledges.
const (
	talkTCP    = "tcp"
	talkUDP    = "udp"
	talkStream = "stream"
)

const (
	// dialWithin is the time for a connection and its first answer: less than that
	// after which a lost SYN is sent again, so that none may be lost.
	dialWithin = 500 * time.Millisecond
	// deniedFor is for how long there must be no answer to what is denied.
	deniedFor = 300 * time.Millisecond
)

// talkEvery is the time between two packets of a talk.
const talkEvery = 5 * time.Millisecond

// serveTalks answers talks on some ports, in both families, until standard input ends.
func serveTalks(ports []string) error {
	for _, port := range ports {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go serveTalk(conn)
			}
		}()
		udp, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			return err
		}
		go func() {
			b := make([]byte, 64)
			for {
				if n, from, err := udp.ReadFrom(b); err == nil {
					_, _ = udp.WriteTo(b[:n], from)
				}
			}
		}()
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// serveTalk does what the first byte asks for.
func serveTalk(conn net.Conn) {
	defer conn.Close()
	b := make([]byte, 1)
	if _, err := io.ReadFull(conn, b); err != nil {
		return
	}
	if b[0] == talkStream[0] {
		for tick := time.NewTicker(talkEvery); ; <-tick.C {
			if _, err := conn.Write(make([]byte, 100)); err != nil {
				return
			}
		}
	}
	_, _ = io.Copy(conn, conn)
}

// talk is one conversation, as its client sees it.
type talk struct {
	mu        sync.Mutex
	exchanges int
	last      time.Time
	broken    string
}

// talkState is what a client says of it.
type talkState struct {
	Exchanges int           // packets from the server
	Idle      time.Duration // since the last of them
	Broken    string        // the socket's error
}

// beginTalk dials and waits for the first packet of the server.
func beginTalk(kind, to string, within time.Duration) (*talk, net.Conn, error) {
	network := talkTCP
	if kind == talkUDP {
		network = talkUDP
	}
	conn, err := net.DialTimeout(network, to, within)
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*talk, net.Conn, error) { return nil, nil, errors.Join(err, conn.Close()) }
	if _, err := conn.Write([]byte{kind[0]}); err != nil {
		return fail(err)
	}
	if kind == talkTCP {
		if _, err := conn.Write([]byte{'x'}); err != nil { // the first byte is not answered
			return fail(err)
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(within))
	if _, err := conn.Read(make([]byte, 200)); err != nil {
		return fail(err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	return &talk{last: time.Now()}, conn, nil
}

// run goes on for ever.
func (k *talk) run(kind string, conn net.Conn) {
	if kind != talkStream {
		go func() {
			for tick := time.NewTicker(talkEvery); ; <-tick.C {
				if _, err := conn.Write([]byte{'x'}); err != nil && kind == talkTCP {
					return
				}
			}
		}()
	}
	b := make([]byte, 4096)
	for {
		_, err := conn.Read(b)
		k.mu.Lock()
		switch {
		case err == nil:
			k.exchanges++
			k.last = time.Now()
		case kind != talkUDP:
			k.broken = err.Error()
		}
		over := k.broken != ""
		k.mu.Unlock()
		if over {
			return
		}
	}
}

// talks takes orders, a line each: "begin NAME KIND ADDRESS:PORT" for a talk that goes
// on, "dial KIND ADDRESS:PORT" for a try and "denied KIND ADDRESS:PORT" for a short
// one, all answered with "ok" or why not; and "state", answered with the state of all
// talks.
func talks(in io.Reader, out io.Writer) error {
	all := map[string]*talk{}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 4 && words[0] == "begin":
			k, conn, err := beginTalk(words[2], words[3], dialWithin)
			if err != nil {
				fmt.Fprintln(out, err)
				continue
			}
			all[words[1]] = k
			go k.run(words[2], conn)
			fmt.Fprintln(out, "ok")
		case len(words) == 3:
			within := dialWithin
			if words[0] == "denied" {
				within = deniedFor
			}
			_, conn, err := beginTalk(words[1], words[2], within)
			if err != nil {
				fmt.Fprintln(out, err)
				continue
			}
			_ = conn.Close()
			fmt.Fprintln(out, "ok")
		default:
			states := map[string]talkState{}
			for name, k := range all {
				k.mu.Lock()
				states[name] = talkState{k.exchanges, time.Since(k.last), k.broken}
				k.mu.Unlock()
			}
			if err := json.NewEncoder(out).Encode(states); err != nil {
				return err
			}
		}
	}
	return nil
}

// serve answers talks in a pod until the test ends.
func (c *cluster) serve(pod string, ports ...string) {
	c.t.Helper()
	if got := c.help("pod/default/"+pod, append([]string{"serve"}, ports...)...).read(); got != "ready" {
		c.t.Fatalf("serve: %s", got)
	}
}

// talker holds the talks of a pod.
type talker struct{ *process }

func (c *cluster) talker(pod string) talker {
	c.t.Helper()
	return talker{c.help("pod/default/"+pod, "talk")}
}

// begin begins a talk, which must work within a while.
func (k talker) begin(name, kind, to string) {
	k.t.Helper()
	eventually(k.t, name, func() error {
		if got := k.ask("begin " + name + " " + kind + " " + to); got != "ok" {
			return errors.New(got)
		}
		return nil
	})
}

// dial tries once.
func (k talker) dial(kind, to string) error {
	k.t.Helper()
	if got := k.ask("dial " + kind + " " + to); got != "ok" {
		return errors.New(got)
	}
	return nil
}

// denied tries once, and gives an error if there is an answer.
func (k talker) denied(kind, to string) error {
	k.t.Helper()
	if got := k.ask("denied " + kind + " " + to); got == "ok" {
		return fmt.Errorf("%s to %s is answered", kind, to)
	}
	return nil
}

func (k talker) state() map[string]talkState {
	k.t.Helper()
	var out map[string]talkState
	if err := json.Unmarshal([]byte(k.ask("state")), &out); err != nil {
		k.t.Fatal(err)
	}
	return out
}

// quietFor is for how long a talk that ended must have been silent: longer than a busy
// machine lets one wait that has not.
const quietFor = 3 * time.Second

// ended waits until these talks have ended, and fails the test if one of the others
// does not go on after that.
func (k talker) ended(t testing.TB, names ...string) {
	t.Helper()
	took := eventually(t, "talks to end", func() error {
		now := k.state()
		for _, name := range names {
			if now[name].Idle < quietFor {
				return fmt.Errorf("%s goes on", name)
			}
		}
		return nil
	})
	t.Logf("ended within %v: %v", took-quietFor, names)
	k.goOn(t, names...)
}

// goOn fails the test unless all talks but those named get further packets.
func (k talker) goOn(t testing.TB, but ...string) {
	t.Helper()
	before := k.state()
	eventually(t, "other talks to go on", func() error {
		now := k.state()
		for _, name := range slices.Sorted(maps.Keys(before)) {
			if !slices.Contains(but, name) && now[name].Exchanges < before[name].Exchanges+20 {
				return fmt.Errorf("%s: %+v, was %+v", name, now[name], before[name])
			}
		}
		return nil
	})
	for name, now := range k.state() {
		if slices.Contains(but, name) && now.Exchanges > before[name].Exchanges {
			t.Errorf("%s has ended and yet goes on", name)
		}
	}
}
