package bgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// lines prints routes as "prefix via hop as path".
func lines(list []PeerRoute) string {
	var out []string
	for _, r := range list {
		line := fmt.Sprintf("%v via %v as %q", r.Prefix, r.NextHop, r.ASPath)
		if r.Best {
			line += " best"
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// TestRoutesOfPeer: what a peer told and was told, and how much of it is of which family, on
// one session that carries both.
func TestRoutesOfPeer(t *testing.T) {
	t.Parallel()
	// far (65001) – a (64512) = b (64512)
	l := newLab(t)
	with := func(c Config, hop6 string) Config {
		for name, p := range c.Peers {
			p.NextHop6, p.Families = netip.MustParseAddr(hop6), IPv4|IPv6
			c.Peers[name] = p
		}
		return c
	}
	l.router("10.0.0.9", with(config(65001, "10.9.0.0/16 fd09::/64 fd09:1::/64", "10.0.0.1 64512"), "fd00::9"))
	a := l.router("10.0.0.1", with(config(64512, "10.65.1.0/26", "10.0.0.9 65001", "10.0.0.2 64512"), "fd00::1"))
	b := l.router("10.0.0.2", with(config(64512, "10.9.0.0/16 fd65::/122", "10.0.0.1 64512"), "fd00::2"))
	l.run(3 * time.Second)

	s := a.state("10.0.0.9")
	if got := [4]int{s.Received, s.Received6, s.Advertised, s.Advertised6}; got != [4]int{3, 2, 3, 1} || s.Families != IPv4|IPv6 {
		t.Errorf("in, of IPv6, out, of IPv6: %v, families %v; want 3 2 3 1 of both", got, s.Families)
	}
	far, ok := a.Routes(netip.MustParseAddr("10.0.0.9"))
	if !ok {
		t.Fatal("no such peer")
	}
	// b's own 10.9.0.0/16 has the shorter path.
	want := "10.9.0.0/16 via 10.0.0.9 as \"65001\"\nfd09::/64 via fd00::9 as \"65001\" best\nfd09:1::/64 via fd00::9 as \"65001\" best"
	if d := cmp.Diff(want, lines(far.Received)); d != "" {
		t.Errorf("received (-want +got):\n%s", d)
	}
	want = "10.9.0.0/16 via 10.0.0.1 as \"64512\" best\n10.65.1.0/26 via 10.0.0.1 as \"64512\" best\nfd65::/122 via fd00::1 as \"64512\" best"
	if d := cmp.Diff(want, lines(far.Advertised)); d != "" {
		t.Errorf("advertised (-want +got):\n%s", d)
	}
	if _, ok := a.Routes(netip.MustParseAddr("10.0.0.77")); ok {
		t.Error("routes of a peer that is none")
	}

	l.apply(b, with(config(64512, "10.9.0.0/16", "10.0.0.1 64512"), "fd00::2")) // takes fd65::/122 back
	l.run(3 * time.Second)
	if s := a.state("10.0.0.2"); s.Received != 1 || s.Received6 != 0 {
		t.Errorf("after a withdrawal: %+v", s)
	}
	if s := a.state("10.0.0.9"); s.Advertised != 2 || s.Advertised6 != 0 {
		t.Errorf("after a withdrawal: %+v", s)
	}
}
