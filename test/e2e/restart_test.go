package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// monitor is `ip monitor route` on a node.
type monitor struct {
	c      *cluster
	target string
	p      *process
	marks  int
}

// watchRoutes begins to listen to all changes of routes on a node.
func (c *cluster) watchRoutes(target string) *monitor {
	c.t.Helper()
	m := &monitor{c: c, target: target, p: c.begin(target, "ip", "monitor", "route")}
	// It has no way to say that it listens: change a route until it says so.
	heard := make(chan struct{})
	go func() { m.p.read(); close(heard) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		m.mark()
		select {
		case <-heard:
			m.changes() // what is left of the marks
			return m
		case <-tick.C:
		}
	}
}

// mark makes a route of the test's own, in a table of the test's own.
func (m *monitor) mark() string {
	m.c.t.Helper()
	m.marks++
	m.c.sh(m.target).run(fmt.Sprintf("ip route replace 198.51.100.%d/32 dev lo table 4242", m.marks%256))
	return fmt.Sprintf("198.51.100.%d ", m.marks%256)
}

// changes are the changes of routes since it was last called, other than the
// marks and what the kernel does by itself (a pod's link-local address becomes
// usable a while after its link). The last of them happened before this call.
func (m *monitor) changes() []string {
	m.c.t.Helper()
	last := m.mark()
	var out []string
	for {
		line := m.p.read()
		if strings.HasPrefix(line, last) {
			return out
		}
		if !strings.Contains(line, "table 4242") && !strings.Contains(line, "proto kernel") {
			out = append(out, line)
		}
	}
}

// TestRestart ends node agents in every way and starts them again, under traffic
// in both directions and both families: no packet is lost, and the kernel's routes
// are not touched.
func TestRestart(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		nodes []string
		kill  bool
	}{
		"one killed":  {[]string{"node-a"}, true},
		"both killed": {[]string{"node-a", "node-b"}, true},
		"both ended":  {[]string{"node-a", "node-b"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := up(t, "topologies/pair.yaml")
			for _, n := range []string{"node-a", "node-b"} {
				c.established(n, 2)
			}
			a, b := c.pod("a1").Addresses, c.pod("b1").Addresses
			trains := map[string]func() trainResult{
				"IPv4 a to b": c.startTrain("a1", b[0].String()), "IPv6 a to b": c.startTrain("a1", b[1].String()),
				"IPv4 b to a": c.startTrain("b1", a[0].String()), "IPv6 b to a": c.startTrain("b1", a[1].String()),
			}
			before := map[string]string{}
			watch := map[string]*monitor{}
			for _, n := range []string{"node-a", "node-b"} {
				before[n] = strings.Join(c.routes(n), "\n")
				watch[n] = c.watchRoutes(n)
			}
			for _, n := range tt.nodes {
				c.stop(n, tt.kill)
			}
			for _, n := range tt.nodes {
				c.start(n)
			}
			for _, n := range []string{"node-a", "node-b"} {
				s := c.established(n, 2)
				for _, p := range s.Peers {
					if p.Stale != 0 || p.Received == 0 {
						eventually(t, "routes confirmed", func() error { return c.confirmed(n) })
					}
				}
			}
			for what, end := range trains {
				noLoss(t, what, end)
			}
			for n, m := range watch {
				for _, change := range m.changes() {
					t.Errorf("a route was changed on %s: %s", n, change)
				}
				if after := strings.Join(c.routes(n), "\n"); after != before[n] {
					t.Errorf("routes of %s before:\n%s\nafter:\n%s", n, before[n], after)
				}
			}
		})
	}
}

// confirmed reports whether all peers of a node have said all that they had to.
func (c *cluster) confirmed(node string) error {
	s, err := c.agentStatus(node)
	if err != nil {
		return err
	}
	for _, p := range s.Peers {
		if p.State != "Established" || p.Stale != 0 || p.Received == 0 {
			return fmt.Errorf("%s: %s, %d routes, %d stale", p.Addr, p.State, p.Received, p.Stale)
		}
	}
	return nil
}
