package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-net/weft/internal/testenv"
)

// interval is what became of the echo requests of some time.
type interval struct {
	Sent, Lost int
	Outage     time.Duration // longest time from a request that was lost to the next that was not
}

// pace is how often a watch sends, how much later the request was sent whose answer says
// that no other will come, and how long that is waited for. Where machines are emulated
// they have to do with less.
func pace() (every, behind, latest time.Duration) {
	if testenv.InVM() {
		return 50 * time.Millisecond, 2 * time.Second, 5 * time.Second
	}
	return trainEvery, 300 * time.Millisecond, 3 * time.Second
}

// watch sends echo requests all the time. For each line that it reads it tells, after
// those that are under way have had their time, what became of those since the last line.
func watch(to netip.Addr, in io.Reader, out io.Writer) error {
	fd, err := echoSocket(to)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	answered, newest := map[int]bool{}, 0
	go func() {
		for {
			if n, ok := echoReply(fd, to.Is6()); ok {
				mu.Lock()
				answered[n], newest = true, max(newest, n)
				mu.Unlock()
			}
		}
	}()
	marks := make(chan struct{})
	go func() {
		for lines := bufio.NewScanner(in); lines.Scan(); {
			marks <- struct{}{}
		}
		close(marks)
	}()
	var sent []time.Time
	every, behind, latest := pace()
	first, last := 0, -1 // of the interval that is to be told; -1: none is
	for tick := time.NewTicker(every); ; {
		select {
		case _, ok := <-marks:
			if !ok {
				return nil
			}
			last = len(sent)
		case now := <-tick.C:
			_ = unix.Sendto(fd, echoRequest(len(sent), to.Is6()), 0, sockaddr(to))
			sent = append(sent, now)
		}
		mu.Lock()
		told := last >= 0 && (all(answered, first, last) || newest >= last+int(behind/every) || time.Since(sent[last-1]) > latest)
		if told {
			err = json.NewEncoder(out).Encode(intervalOf(sent, answered, first, last))
			first, last = last, -1
		}
		mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func all(answered map[int]bool, first, last int) bool {
	for i := first; i < last; i++ {
		if !answered[i] {
			return false
		}
	}
	return true
}

// intervalOf is what became of requests from first to before last. A request without an answer
// that is followed by none is out until last.
func intervalOf(sent []time.Time, answered map[int]bool, first, last int) interval {
	r := interval{Sent: last - first}
	since := -1
	for i := first; i < last; i++ {
		if !answered[i] {
			r.Lost++
			if since < 0 {
				since = i
			}
		}
		if since >= 0 && (answered[i] || i == last-1) {
			r.Outage = max(r.Outage, sent[i].Sub(sent[since]))
			if answered[i] {
				since = -1
			}
		}
	}
	return r
}

// watcher is a watch from a pod.
type watcher struct {
	to string
	p  *process
}

// watch has a pod of namespace default send an address echo requests at that pace.
func (c *cluster) watch(fromPod, to string) watcher {
	c.t.Helper()
	return watcher{to, c.help("pod/default/"+fromPod, "watch", to)}
}

// mark ends an interval and begins the next.
func (w watcher) mark() { w.p.t.Helper(); fmt.Fprintln(w.p.stdin) }

// read tells what became of the interval that mark has ended.
func (w watcher) read() interval {
	w.p.t.Helper()
	var r interval
	if err := json.Unmarshal([]byte(w.p.read()), &r); err != nil {
		w.p.t.Fatal(err)
	}
	return r
}
