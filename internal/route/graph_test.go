package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
)

func TestGraph(t *testing.T) {
	for name, tt := range map[string]struct{ steps, want string }{
		"workload":              {"ep web a cali1 10.0.0.1", "10.0.0.1/32 dev cali1 proto 3; link cali1 v4=true v6=false"},
		"workload with MAC":     {"ep web a cali1 10.0.0.1 02:00:00:00:00:01", "neighbor 10.0.0.1 dev cali1 lladdr 02:00:00:00:00:01; 10.0.0.1/32 dev cali1 proto 3; link cali1 v4=true v6=false"},
		"workload of both":      {"ep web a cali1 10.0.0.1+fd00::1", "10.0.0.1/32 dev cali1 proto 3; fd00::1/128 dev cali1 proto 3; link cali1 v4=true v6=true"},
		"elsewhere":             {"ep web b cali1 10.0.0.1, block 10.0.0.0/26 b", ""},
		"no link yet":           {"ep web a - 10.0.0.1", ""},
		"gone":                  {"ep web a cali1 10.0.0.1 02:00:00:00:00:01; -ep web a", ""},
		"moved away":            {"ep web a cali1 10.0.0.1; ep web b cali1 10.0.0.1", ""},
		"other link":            {"ep web a cali1 10.0.0.1; ep web a cali2 10.0.0.1", "10.0.0.1/32 dev cali2 proto 3; link cali2 v4=true v6=false"},
		"same address, first":   {"ep web a cali1 10.0.0.1; ep app a cali2 10.0.0.1", "10.0.0.1/32 dev cali2 proto 3; link cali1 v4=true v6=false; link cali2 v4=true v6=false"},
		"same address, then":    {"ep web a cali1 10.0.0.1, ep app a cali2 10.0.0.1; -ep app a", "10.0.0.1/32 dev cali1 proto 3; link cali1 v4=true v6=false"},
		"own block":             {"block 10.0.0.0/26 a", "blackhole 10.0.0.0/26 proto 12"},
		"own block v6":          {"block fd00::/122 a", "blackhole fd00::/122 proto 12"},
		"block of one":          {"block 10.0.0.7/32 a, block fd00::7/128 a", ""},
		"block given up":        {"block 10.0.0.0/26 a; block 10.0.0.0/26", ""},
		"block being deleted":   {"block 10.0.0.0/26 a; block 10.0.0.0/26 a deleted", ""},
		"learned":               {"learn 10.0.1.0/26 192.168.0.2", "10.0.1.0/26 via 192.168.0.2 proto 12"},
		"learned v6":            {"learn fd01::/122 fd00::2", "fd01::/122 via fd00::2 proto 12"},
		"learned default":       {"learn 0.0.0.0/0 192.168.0.2, learn ::/0 fd00::2", "0.0.0.0/0 via 192.168.0.2 proto 12; ::/0 via fd00::2 proto 12"},
		"learned ECMP":          {"learn 10.0.1.0/26 192.168.0.2+192.168.0.3", "10.0.1.0/26 via 192.168.0.2 via 192.168.0.3 proto 12"},
		"learned withdrawn":     {"learn 10.0.1.0/26 192.168.0.2; -learn 10.0.1.0/26", ""},
		"learned changed":       {"learn 10.0.1.0/26 192.168.0.2; learn 10.0.1.0/26 192.168.0.3", "10.0.1.0/26 via 192.168.0.3 proto 12"},
		"learned own block":     {"block 10.0.1.0/26 a; learn 10.0.1.0/26 192.168.0.2", "blackhole 10.0.1.0/26 proto 12"},
		"own block released":    {"block 10.0.1.0/26 a; learn 10.0.1.0/26 192.168.0.2; -block 10.0.1.0/26", "10.0.1.0/26 via 192.168.0.2 proto 12"},
		"borrowed by another":   {"block 10.0.1.0/26 a; learn 10.0.1.5/32 192.168.0.2", "10.0.1.5/32 via 192.168.0.2 proto 12; blackhole 10.0.1.0/26 proto 12"},
		"workload over learned": {"learn 10.0.1.5/32 192.168.0.2; ep web a cali1 10.0.1.5", "10.0.1.5/32 dev cali1 proto 3; link cali1 v4=true v6=false"},
		"learned after workload": {
			"learn 10.0.1.5/32 192.168.0.2; ep web a cali1 10.0.1.5; learn 10.0.1.5/32 192.168.0.3; -ep web a",
			"10.0.1.5/32 via 192.168.0.3 proto 12",
		},
		"learned own subnet":   {"node a 192.168.0.1/24; learn 192.168.0.0/24 192.168.0.2, learn 192.168.0.1/32 192.168.0.2", ""},
		"node gets an address": {"node a; learn 192.168.0.0/24 192.168.0.2; node a 192.168.0.1/24", ""},
		"node loses it":        {"node a 192.168.0.1/24; learn 192.168.0.0/24 192.168.0.2; node a", "192.168.0.0/24 via 192.168.0.2 proto 12"},
		"fixed":                {"fix 10.9.0.1/32 192.168.0.9; learn 10.9.0.1/32 192.168.0.2", "10.9.0.1/32 via 192.168.0.9 proto 12"},
		"fixed no more":        {"fix 10.9.0.1/32 192.168.0.9; learn 10.9.0.1/32 192.168.0.2; fix", "10.9.0.1/32 via 192.168.0.2 proto 12"},

		"metric":              {"felix default metric4=1024, ep web a cali1 10.0.0.1, block 10.0.0.0/26 a; learn 10.0.1.0/26 192.168.0.2", "10.0.0.1/32 dev cali1 proto 3 metric 1024; 10.0.1.0/26 via 192.168.0.2 proto 12 metric 1024; blackhole 10.0.0.0/26 proto 12; link cali1 v4=true v6=false"},
		"metric later":        {"learn 10.0.1.0/26 192.168.0.2; felix default metric4=7", "10.0.1.0/26 via 192.168.0.2 proto 12 metric 7"},
		"metric per family":   {"learn 10.0.1.0/26 192.168.0.2, learn fd01::/122 fd00::2; felix default metric6=7", "10.0.1.0/26 via 192.168.0.2 proto 12; fd01::/122 via fd00::2 proto 12 metric 7"},
		"metric of v6 kernel": {"learn fd01::/122 fd00::2; felix default metric6=7; felix default metric6=1024", "fd01::/122 via fd00::2 proto 12"},
		"metric of BGP":       {"learn 10.0.1.0/26 192.168.0.2; felix default metric4=7, bgp default metric4=8", "10.0.1.0/26 via 192.168.0.2 proto 12 metric 8"},
		"metric of node":      {"learn 10.0.1.0/26 192.168.0.2; bgp default metric4=8, bgp node.a metric4=9, bgp node.b metric4=10", "10.0.1.0/26 via 192.168.0.2 proto 12 metric 9"},
		"nearest setting":     {"felix default metric4=1, felix some x=='y' metric4=2, felix node.a metric4=3, node a x=y; learn 10.0.1.0/26 192.168.0.2", "10.0.1.0/26 via 192.168.0.2 proto 12 metric 3"},
		"selected setting":    {"felix default metric4=1, felix some x=='y' metric4=2, node a x=y; learn 10.0.1.0/26 192.168.0.2", "10.0.1.0/26 via 192.168.0.2 proto 12 metric 2"},
		"selects no more":     {"felix default metric4=1, felix some x=='y' metric4=2, node a x=y; learn 10.0.1.0/26 192.168.0.2; node a", "10.0.1.0/26 via 192.168.0.2 proto 12 metric 1"},
		"proto":               {"felix default proto=80; ep web a cali1 10.0.0.1", "10.0.0.1/32 dev cali1 proto 80; link cali1 v4=true v6=false"},

		"invalid stays":          {"ep web a cali1 10.0.0.1; !ep web a", "10.0.0.1/32 dev cali1 proto 3; link cali1 v4=true v6=false"},
		"invalid in a snapshot":  {"ep web a cali1 10.0.0.1; reset, synced, !ep web a", "10.0.0.1/32 dev cali1 proto 3; link cali1 v4=true v6=false"},
		"gone in a snapshot":     {"ep web a cali1 10.0.0.1; reset, ep app a cali2 10.0.0.2; synced", "10.0.0.2/32 dev cali2 proto 3; link cali2 v4=true v6=false"},
		"relearned":              {"learn 10.0.1.0/26 192.168.0.2, learn 10.0.2.0/26 192.168.0.2; rset, learn 10.0.1.0/26 192.168.0.2; rsynced", "10.0.1.0/26 via 192.168.0.2 proto 12"},
		"two snapshots in a row": {"ep web a cali1 10.0.0.1; reset, ep web a cali1 10.0.0.1, ep app a cali2 10.0.0.2; reset, ep app a cali2 10.0.0.2; synced", "10.0.0.2/32 dev cali2 proto 3; link cali2 v4=true v6=false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			for _, e := range events(t, tt.steps) {
				w.step(t, e)
			}
			got := strings.ReplaceAll(strings.ReplaceAll(w.got.String(), "route ", ""), "\n", "; ")
			if want := sorted(tt.want); sorted(got) != want {
				t.Errorf("\n got %s\nwant %s", sorted(got), want)
			}
		})
	}
}

func sorted(s string) string {
	return strings.Join(slices.Sorted(strings.SplitSeq(s, "; ")), "; ")
}

// A snapshot of what is known already, or one that is not complete, must leave
// the kernel alone.
func TestGraphKeepsQuiet(t *testing.T) {
	const known = "node a 192.168.0.1/24, ep web a cali1 10.0.0.1 02:00:00:00:00:01, block 10.0.0.0/26 a, felix default metric4=5; learn 10.0.1.0/26 192.168.0.2, rsynced"
	for name, steps := range map[string]string{
		"same snapshot":       "reset, synced, node a 192.168.0.1/24, ep web a cali1 10.0.0.1 02:00:00:00:00:01, block 10.0.0.0/26 a, felix default metric4=5",
		"unfinished snapshot": "reset",
		"same routes":         "rset, rsynced, learn 10.0.1.0/26 192.168.0.2",
		"unfinished routes":   "rset",
		"others":              "node b 192.168.0.2/24, ep web2 b cali1 10.0.0.2, block 10.0.1.0/26 b, felix node.b metric4=6",
		"unknown goes":        "-ep nobody a; -learn 10.7.0.0/26",
		"setting is the same": "felix other x=='y' metric4=9",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			for _, e := range events(t, known) {
				w.step(t, e)
			}
			for _, e := range events(t, steps) {
				if w.step(t, e); w.last != "" {
					t.Errorf("changes %s", w.last)
				}
			}
		})
	}
}

func TestProblems(t *testing.T) {
	w := newTwin()
	for _, e := range events(t, "ep web a cali1 10.0.0.1, ep app a cali2 10.0.0.1+10.0.0.2, ep db a cali3 10.0.0.3") {
		w.step(t, e)
	}
	const want = "[WorkloadEndpoint/default/web: address 10.0.0.1: no route to it on link cali1: WorkloadEndpoint/default/app has it already; an address belongs to one workload]"
	if got := fmt.Sprint(w.graph.Problems()); got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

// Sets of next hops that nobody uses any more must not pile up: a router that
// flaps makes a new one each time.
func TestLearnedForgetsHops(t *testing.T) {
	l := newLearned()
	for i := range 1000 {
		a := netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)})
		l.put(netip.MustParsePrefix("10.0.0.0/26"), []netip.Addr{a})
		l.put(netip.MustParsePrefix("10.0.1.0/26"), []netip.Addr{a})
		l.delete(netip.MustParsePrefix("10.0.1.0/26"))
	}
	if len(l.hops) > 3 || len(l.byHops) != 1 {
		t.Errorf("%d numbers and %d sets of next hops for one route", len(l.hops), len(l.byHops))
	}
}

func TestEnvWins(t *testing.T) {
	seven, eight := 7, 8
	g := NewGraph(Options{Node: "a", Env: []model.FelixConfig{{IPv4Priority: &seven}}})
	d := g.Step(model.Batch{Puts: []model.Value{
		model.FelixConfig{Name: "node.a", IPv4Priority: &eight},
		model.Endpoint{Name: "web", Node: "a", Link: "cali1", Addrs: addrs("10.0.0.1")},
	}})
	if got := d.PutRoutes[0].Priority; got != 7 {
		t.Errorf("metric %d, want the 7 of the environment", got)
	}
}
