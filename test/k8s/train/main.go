// Command train counts what a network loses: it sends numbered messages, one each millisecond
// or -every so often, by UDP and by TCP, to a peer that echoes them, and says what came back.
//
//	train echo PORT                       echoes both at this port
//	train send [-every 1ms] [-to HOST:PORT]... PORT
//	                                      sends to each, and echoes at PORT, too
//	train knock [-to HOST:PORT]...        makes a TCP connection to each, one after the other
//	train first [-every 2ms] HOST:PORT    how many milliseconds after its start the first
//	                                      message by UDP came back
//
// Once a second `send` prints a line of JSON, a list with one object for each peer and
// protocol:
//
//	{"to":"10.244.1.2:9000","proto":"udp","sent":1000,"back":998,"lost":0,"gap_ms":3,"broken":0,"last":1767225600000}
//
// lost counts messages sent more than five seconds ago that have not come back, gap_ms is
// the longest time without an answer so far, broken counts TCP connections that ended, and
// last is when something came back last, in milliseconds since 1970. A message that the sender's own machine had no time to send is not counted: the
// rate is what is aimed at, not what is promised. SIGTERM ends it after a last line,
// printed when what is under way had its five seconds.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	size    = 64              // bytes of a message: its number, and filling
	patient = 5 * time.Second // then a message is lost
	burst   = 50              // at most, to catch up
)

type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// ended receives when the process is told to end.
func ended() <-chan os.Signal {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	return stop
}

func main() {
	log.SetFlags(log.LUTC | log.Ltime | log.Lmicroseconds)
	began := time.Now()
	if len(os.Args) < 2 || !slices.Contains([]string{"echo", "send", "knock", "first"}, os.Args[1]) {
		log.Fatal("usage: train echo PORT | train send [-every 1ms] [-to HOST:PORT]... PORT | train knock [-to HOST:PORT]... | train first [-every 2ms] HOST:PORT")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	every := flags.Duration("every", time.Millisecond, "a message so often")
	if os.Args[1] == "first" {
		*every = 2 * time.Millisecond
		_ = flags.Parse(os.Args[2:])
		first(flags.Arg(0), *every)
		fmt.Println(float64(time.Since(began).Microseconds()) / 1000)
		<-ended() // the kubelet would start it again
		return
	}
	var to list
	flags.Var(&to, "to", "peer to send to (repeatable)")
	_ = flags.Parse(os.Args[2:])
	if port := flags.Arg(0); port != "" {
		go echoUDP(port)
		go echoTCP(port)
	}
	stop := ended()
	if len(to) == 0 {
		<-stop
		return
	}
	var flows []*flow
	for _, peer := range to {
		if os.Args[1] == "knock" {
			k := &flow{To: peer, Proto: "connections"}
			flows = append(flows, k)
			go k.knock()
			continue
		}
		u, t := &flow{To: peer, Proto: "udp"}, &flow{To: peer, Proto: "tcp"}
		flows = append(flows, u, t)
		go u.overUDP(*every)
		go t.overTCP(*every)
	}
	out := json.NewEncoder(os.Stdout)
	report := time.NewTicker(time.Second)
	for {
		select {
		case <-report.C:
			_ = out.Encode(reports(flows))
		case <-stop:
			for _, f := range flows {
				f.end()
			}
			time.Sleep(patient + time.Second)
			_ = out.Encode(reports(flows))
			return
		}
	}
}

// first returns when a message came back; it sends one so often.
func first(to string, every time.Duration) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, size)
	for {
		_, _ = conn.Write(b)
		_ = conn.SetReadDeadline(time.Now().Add(every))
		if _, err := conn.Read(b); err == nil {
			return
		}
	}
}

func echoUDP(port string) {
	c, err := net.ListenPacket("udp", ":"+port)
	if err != nil {
		log.Fatal(err)
	}
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	buf := make([]byte, 2048)
	for {
		if n, from, err := c.ReadFrom(buf); err == nil {
			_, _ = c.WriteTo(buf[:n], from)
		}
	}
}

func echoTCP(port string) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

// flow is the messages to one peer by one protocol.
type flow struct {
	To     string `json:"to"`
	Proto  string `json:"proto"`
	Sent   int    `json:"sent"`
	Back   int    `json:"back"`
	Lost   int    `json:"lost"`
	GapMS  int64  `json:"gap_ms"`
	Broken int    `json:"broken"`
	Last   int64  `json:"last"`

	mu      sync.Mutex
	ended   bool
	waiting []sent // in the order of sending
	last    time.Time
}

type sent struct {
	at   time.Time
	back bool
}

func reports(flows []*flow) []json.RawMessage {
	var all []json.RawMessage
	for _, f := range flows {
		f.mu.Lock()
		f.expire(time.Now())
		b, _ := json.Marshal(f)
		f.mu.Unlock()
		all = append(all, b)
	}
	return all
}

func (f *flow) end() { f.mu.Lock(); defer f.mu.Unlock(); f.ended = true }

// expire forgets what was sent long ago; what of it did not come back is lost.
func (f *flow) expire(now time.Time) {
	n := 0
	for ; n < len(f.waiting) && now.Sub(f.waiting[n].at) > patient; n++ {
		if !f.waiting[n].back {
			f.Lost++
		}
	}
	f.waiting = f.waiting[n:]
}

// next numbers a message; false: no more are to be sent.
func (f *flow) next(b []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	binary.BigEndian.PutUint64(b, uint64(f.Sent))
	if f.ended {
		return false
	}
	f.Sent++
	f.waiting = append(f.waiting, sent{at: time.Now()})
	return true
}

// got takes an echo.
func (f *flow) got(b []byte) {
	number := int(binary.BigEndian.Uint64(b))
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.Sent - len(f.waiting)
	if number >= first && number < f.Sent && !f.waiting[number-first].back {
		f.waiting[number-first].back = true
		f.Back++
	}
	if !f.last.IsZero() {
		f.GapMS = max(f.GapMS, now.Sub(f.last).Milliseconds())
	}
	f.last, f.Last = now, now.UnixMilli()
}

// pace calls send so often, or as often as the machine lets it.
func pace(tick time.Duration, send func() bool) {
	begin, done := time.Now(), 0
	for range time.Tick(tick) {
		due := int(time.Since(begin) / tick)
		if due-done > burst {
			begin, done, due = time.Now(), 0, 1
		}
		for ; done < due; done++ {
			if !send() {
				return
			}
		}
	}
}

func (f *flow) overUDP(every time.Duration) {
	var conn net.Conn
	for {
		var err error
		if conn, err = net.Dial("udp", f.To); err == nil {
			break
		}
		log.Print(err)
		time.Sleep(time.Second)
	}
	_ = conn.(*net.UDPConn).SetReadBuffer(4 << 20)
	go func() {
		buf := make([]byte, 2048)
		for {
			if n, err := conn.Read(buf); err == nil && n == size {
				f.got(buf)
			}
		}
	}()
	f.await(func() { _, _ = conn.Write(make([]byte, size-1)) })
	b := make([]byte, size)
	pace(every, func() bool {
		if !f.next(b) {
			return false
		}
		_, _ = conn.Write(b) // an error is a message that does not come back
		return true
	})
}

// await waits until the peer answers at all: a train begins at a platform.
func (f *flow) await(knock func()) {
	host := f.To
	for {
		c, err := net.DialTimeout("tcp", host, time.Second)
		if err == nil {
			_ = c.Close()
			knock()
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// knock makes connections, and counts as broken those that are not made in time.
func (f *flow) knock() {
	for range time.Tick(5 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", f.To, 200*time.Millisecond)
		now := time.Now().UnixMilli()
		f.mu.Lock()
		f.Sent++
		if err == nil {
			f.Back++
			f.Last = now
		} else {
			f.Broken++
		}
		f.mu.Unlock()
		if err == nil {
			_ = conn.Close()
		}
	}
}

func (f *flow) overTCP(every time.Duration) {
	for {
		f.await(func() {})
		conn, err := net.Dial("tcp", f.To)
		if err != nil {
			continue
		}
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			b := make([]byte, size)
			for {
				if _, err := io.ReadFull(conn, b); err != nil {
					return
				}
				f.got(b)
			}
		}()
		b := make([]byte, size)
		pace(every, func() bool {
			select {
			case <-gone:
				return false
			default:
			}
			if !f.next(b) {
				return false
			}
			_, err := conn.Write(b)
			return err == nil
		})
		f.mu.Lock()
		ended := f.ended
		f.mu.Unlock()
		if ended {
			return
		}
		_ = conn.Close()
		<-gone
		f.mu.Lock()
		f.Broken++
		f.mu.Unlock()
	}
}
