package ct

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// conns is a connection table without a kernel. It writes down what is asked of it.
type conns struct {
	slow time.Duration // for each flow

	mu    sync.Mutex
	flows []Flow
	log   []string
	err   error // of the next list
}

func (c *conns) note(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = append(c.log, line)
}

// put adds a flow, and fails the next list with err.
func (c *conns) put(f Flow, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flows, c.err = append(c.flows, f), err
}

// lines and left are how many lines the log has, and how many flows there are.
func (c *conns) lines() int { c.mu.Lock(); defer c.mu.Unlock(); return len(c.log) }
func (c *conns) left() int  { c.mu.Lock(); defer c.mu.Unlock(); return len(c.flows) }

func (c *conns) Empty() bool { return c.left() == 0 }

func (c *conns) Flows(ctx context.Context, _ Filter, each func(*Flow) bool) error {
	c.note("scan")
	c.mu.Lock()
	err, flows := c.err, slices.Clone(c.flows)
	c.err = nil
	c.mu.Unlock()
	if err != nil {
		return err
	}
	for _, f := range flows {
		time.Sleep(c.slow)
		if !each(&f) {
			break
		}
	}
	return ctx.Err()
}

func (c *conns) Local() (map[netip.Addr]bool, error) {
	return map[netip.Addr]bool{netip.MustParseAddr("172.16.0.1"): true}, nil
}

func (c *conns) Delete(flows []Flow) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ids := len(c.flows), map[uint32]bool{}
	for _, f := range flows {
		ids[f.ID] = true
		c.log = append(c.log, fmt.Sprint("delete ", f.ID))
	}
	c.flows = slices.DeleteFunc(c.flows, func(f Flow) bool { return ids[f.ID] })
	return n - len(c.flows), nil
}

// flow is a TCP flow to that port, which its ID says too.
func flow(port uint16) Flow {
	orig := Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: 6, SrcPort: 40000, DstPort: port}
	return Flow{Orig: orig, Reply: reversed(orig), ID: uint32(port), Status: SeenReply | Assured | Confirmed}
}

// ender runs an Ender in a bubble over the flows. Ports from 1000 on are forbidden.
func ender(t *testing.T, c *conns, script func(*Ender, *atomic.Bool)) []string {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool // the set of tombstones
		e := NewEnder(EnderOptions{
			Conns: c,
			Judge: func(flows []Flow, forbidden []bool) {
				for i := range flows {
					forbidden[i] = flows[i].Orig.DstPort >= 1000
				}
			},
			Entomb: func(_ context.Context, tuples []Tuple) error {
				for _, tuple := range tuples {
					c.note(fmt.Sprint("entomb ", tuple.SrcPort))
				}
				if full.Load() {
					return errors.New("no room")
				}
				return nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { _ = e.Run(ctx); close(done) }()
		sleep(20 * time.Millisecond) // the scan of the beginning
		script(e, &full)
		cancel()
		<-done
	})
	return c.log
}

// sleep lets the Ender work for d, until it waits.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestEnderEndsTheForbidden(t *testing.T) {
	t.Parallel()
	child, orphan := flow(20), flow(21)
	child.Status, child.Master = child.Status|Expected, flow(1001).Orig
	orphan.Status, orphan.Master = orphan.Status|Expected, flow(1).Orig
	ping := flow(3000)
	ping.Orig.Protocol, ping.Reply.Protocol = 1, 1
	probe := flow(3001) // the kubelet's, say
	probe.Orig.Src, probe.Reply.Dst = netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("172.16.0.1")
	c := &conns{flows: []Flow{child, flow(1), flow(1001), flow(2), flow(1002), orphan, ping, probe}}
	got := strings.Join(ender(t, c, func(*Ender, *atomic.Bool) {}), ", ")
	want := "scan, entomb 1001, entomb 1002, entomb 20, delete 1001, delete 1002, delete 3000, delete 20"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(c.flows) != 4 {
		t.Errorf("left are %v, want the allowed two, what is related to one of them, and what the node began", c.flows)
	}
}

func TestEnderScansSeldom(t *testing.T) {
	t.Parallel()
	c := &conns{flows: []Flow{flow(1)}}
	ender(t, c, func(e *Ender, _ *atomic.Bool) {
		for range 1000 { // four seconds of changes
			e.Kick()
			sleep(4 * time.Millisecond)
		}
		if n := c.lines(); n < 4 || n > 5 {
			t.Errorf("%d scans in 4.02 s of kicks, want one each second", n)
		}
		sleep(time.Hour)
		n := c.lines()
		e.Kick()
		sleep(15 * time.Millisecond)
		if c.lines() != n+1 {
			t.Errorf("%d scans in an hour without a kick and 15 ms after one, want 1 at once", c.lines()-n)
		}
	})
}

// TestEnderLeavesAnEmptyTable: where there are no flows, none are looked for.
func TestEnderLeavesAnEmptyTable(t *testing.T) {
	t.Parallel()
	c := &conns{}
	ender(t, c, func(e *Ender, _ *atomic.Bool) {
		sleep(time.Minute)
		if c.lines() != 0 || e.State().Scans != 1 {
			t.Errorf("asked for %d lists in %d scans of an empty table, want none in 1", c.lines(), e.State().Scans)
		}
		c.put(flow(1001), nil)
		e.Kick()
		sleep(100 * time.Millisecond)
		if c.left() != 0 {
			t.Error("a flow that came is not ended")
		}
	})
}

// TestEnderWorksLittle: however long scans take, they take a tenth of a core.
func TestEnderWorksLittle(t *testing.T) {
	t.Parallel()
	c := &conns{slow: 10 * time.Microsecond}
	for range 10000 {
		c.flows = append(c.flows, flow(1))
	}
	ender(t, c, func(e *Ender, _ *atomic.Bool) {
		for range 10000 {
			e.Kick()
			sleep(time.Millisecond)
		}
		work := time.Duration(c.lines()) * 100 * time.Millisecond
		if work < time.Second/2 || work > 12*time.Second/10 {
			t.Errorf("%v of work in 10 s of kicks, want about a second", work)
		}
	})
}

func TestEnderKeepsMemory(t *testing.T) {
	t.Parallel()
	c := &conns{}
	for port := range mostEnded*2 + 100 {
		c.flows = append(c.flows, flow(uint16(1000+port)))
	}
	ender(t, c, func(e *Ender, _ *atomic.Bool) {
		sleep(time.Second)
		if s := e.State(); c.left() > 0 || s.Scans != 3 || s.Ended != mostEnded*2+100 {
			t.Errorf("after one kick %d flows are left, and %+v; want none, in 3 scans", len(c.flows), s)
		}
	})
}

// TestEnderSpares: what rules came to allow again while the scan went on stays.
func TestEnderSpares(t *testing.T) {
	t.Parallel()
	c := &conns{}
	for port := range 2 * judgeFlows {
		c.flows = append(c.flows, flow(uint16(1+port)))
	}
	calls := 0
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := NewEnder(EnderOptions{
			Conns: c,
			Judge: func(flows []Flow, forbidden []bool) {
				calls++
				for i := range flows {
					forbidden[i] = calls <= 2 && flows[i].Orig.DstPort%2 == 0 || flows[i].Orig.DstPort == 8
				}
			},
			Entomb: func(context.Context, []Tuple) error { return nil },
		})
		done := make(chan struct{})
		go func() { _ = e.Run(ctx); close(done) }()
		sleep(100 * time.Millisecond)
		cancel()
		<-done
	})
	if got := c.log; !slices.Equal(got, []string{"scan", "delete 8"}) {
		t.Errorf("got %v, want the end of the one that stayed forbidden", got)
	}
}

// TestEnderFailures: what fails is tried again, and no flow goes without its
// tombstone.
func TestEnderFailures(t *testing.T) {
	t.Parallel()
	c := &conns{flows: []Flow{flow(1)}}
	ender(t, c, func(e *Ender, full *atomic.Bool) {
		sleep(time.Second)
		c.put(flow(1001), nil)
		full.Store(true)
		e.Kick()
		sleep(400 * time.Millisecond)
		if e.State().Err == "" || c.left() != 2 {
			t.Errorf("a set that refuses: %+v, %d flows", e.State(), c.left())
		}
		full.Store(false)
		sleep(2 * time.Second)
		if e.State().Err != "" || c.left() != 1 {
			t.Errorf("the set takes tuples again: %+v, %d flows", e.State(), c.left())
		}
		c.put(flow(1001), errors.New("lost"))
		e.Kick()
		sleep(5 * time.Second)
		if e.State().Err != "" || c.left() != 1 {
			t.Errorf("a list failed once: %+v, %d flows", e.State(), c.left())
		}
	})
}
