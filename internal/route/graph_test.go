package route

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// event is one step of a test: a batch, what BGP learned, or fixed routes.
type event struct {
	batch   model.Batch
	learned bgp.LearnedBatch
	fixed   map[netip.Prefix]plan.Hops // nil: no change
}

// events reads steps, separated by ";", each a list of objects or of learned
// routes separated by ",":
//
//	ep NAME NODE LINK ADDR[+ADDR] [MAC]      block CIDR OWNER [deleted]
//	node NAME ADDR [ADDR6] [label=value]     felix NAME [selector] [metric4=N metric6=N proto=N src=ADDR]
//	bgp NAME metric4=N                       learn PREFIX VIA[+VIA]
//	fix PREFIX VIA                           reset  synced  rset  rsynced
//
// "-" before an object deletes it, "!" says that it is invalid.
func events(t testing.TB, script string) []event {
	t.Helper()
	var out []event
	for step := range strings.SplitSeq(script, ";") {
		var e event
		for item := range strings.SplitSeq(step, ",") {
			if f := strings.Fields(item); len(f) > 0 {
				e.add(t, f)
			}
		}
		out = append(out, e)
	}
	return out
}

func (e *event) add(t testing.TB, f []string) {
	sign, word := "+", f[0]
	if word[0] == '-' || word[0] == '!' {
		sign, word = word[:1], word[1:]
	}
	switch word {
	case "reset":
		e.batch.Reset = true
	case "synced":
		e.batch.Synced = true
	case "rset":
		e.learned.Reset = true
	case "rsynced":
		e.learned.Synced = true
	case "learn":
		p := netip.MustParsePrefix(f[1])
		if sign == "-" {
			e.learned.Deletes = append(e.learned.Deletes, p)
			return
		}
		e.learned.Puts = append(e.learned.Puts, bgp.Learned{Prefix: p, NextHops: addrs(f[2]), Source: bgp.FromIBGP})
	case "fix":
		if e.fixed == nil {
			e.fixed = map[netip.Prefix]plan.Hops{}
		}
		if len(f) > 1 {
			e.fixed[netip.MustParsePrefix(f[1])] = plan.MakeHops(addrs(f[2])...)
		}
	default:
		v := value(t, word, f[1:])
		switch sign {
		case "-":
			e.batch.Deletes = append(e.batch.Deletes, v.Key())
		case "!":
			e.batch.Invalids = append(e.batch.Invalids, model.Invalid{Key: v.Key(), Err: fmt.Errorf("bad")})
		default:
			e.batch.Puts = append(e.batch.Puts, v)
		}
	}
}

func value(t testing.TB, word string, f []string) model.Value {
	t.Helper()
	f = append(f, "", "", "", "")
	switch word {
	case "ep":
		return model.Endpoint{Namespace: "default", Name: f[0], Node: f[1], Link: strings.Trim(f[2], "-"), Addrs: addrs(f[3]), MAC: f[4]}
	case "block":
		owner := model.Affinity{}
		if f[1] != "" {
			owner = model.HostAffinity(f[1])
		}
		return model.Block{CIDR: netip.MustParsePrefix(f[0]), Owner: owner, Deleted: f[2] == "deleted"}
	case "node":
		n := model.Node{Name: f[0], Labels: map[string]string{}}
		for _, s := range f[1:] {
			k, v, label := strings.Cut(s, "=")
			switch p, _ := netip.ParsePrefix(s); {
			case label:
				n.Labels[k] = v
			case p.Addr().Is4():
				n.IPv4 = p
			case p.Addr().Is6():
				n.IPv6 = p
			}
		}
		return n
	case "felix", "bgp":
		c, b := model.FelixConfig{Name: f[0]}, model.BGPConfig{Name: f[0]}
		for _, s := range f[1:] {
			k, v, _ := strings.Cut(s, "=")
			n, _ := strconv.Atoi(v)
			switch k {
			case "":
			case "metric4":
				c.IPv4Priority, b.IPv4Priority = &n, &n
			case "metric6":
				c.IPv6Priority, b.IPv6Priority = &n, &n
			case "proto":
				c.DeviceRouteProtocol = &n
			case "src":
				c.DeviceRouteSource = netip.MustParseAddr(v)
			default:
				sel, err := selector.Parse(s)
				if err != nil {
					t.Fatal(err)
				}
				c.NodeSelector = sel
			}
		}
		if word == "bgp" {
			return b
		}
		return c
	}
	t.Fatalf("unknown word %q", word)
	return nil
}

func addrs(s string) []netip.Addr {
	var out []netip.Addr
	for a := range strings.SplitSeq(s, "+") {
		if a != "" && a != "-" {
			out = append(out, netip.MustParseAddr(a))
		}
	}
	return out
}

// twin runs a Graph and folds what it was told, to compare it with Compile.
type twin struct {
	graph   *Graph
	world   model.World
	learned map[netip.Prefix]bgp.Learned
	fixed   map[netip.Prefix]plan.Hops
	got     plan.Node
	partial [2]bool // a snapshot is in progress: of the model, of BGP
	last    string
}

func newTwin() *twin {
	return &twin{graph: NewGraph("a"), world: model.World{}, learned: map[netip.Prefix]bgp.Learned{}}
}

func (w *twin) step(t testing.TB, e event) {
	t.Helper()
	w.last = ""
	if !e.batch.Empty() {
		w.apply(t, w.graph.Step(e.batch))
		w.world = w.world.Apply(e.batch)
		w.partial[0] = (e.batch.Reset || w.partial[0]) && !e.batch.Synced
	}
	if l := e.learned; l.Reset || l.Synced || len(l.Puts)+len(l.Deletes) > 0 {
		w.apply(t, w.graph.Learn(l))
		if l.Reset {
			clear(w.learned)
		}
		for _, p := range l.Puts {
			w.learned[p.Prefix] = p
		}
		for _, p := range l.Deletes {
			delete(w.learned, p)
		}
		w.partial[1] = (l.Reset || w.partial[1]) && !l.Synced
	}
	if e.fixed != nil {
		w.apply(t, w.graph.Fix(e.fixed))
		w.fixed = e.fixed
	}
	if w.partial != [2]bool{} {
		return
	}
	if d := plan.Diff(Compile("a", w.world, w.learned, w.fixed), w.got); d != "" {
		t.Fatalf("after %+v (-want +got):\n%s", e, d)
	}
}

// apply folds d and checks that it says nothing twice and nothing needless.
func (w *twin) apply(t testing.TB, d plan.Delta) {
	t.Helper()
	seen := map[plan.RouteKey]bool{}
	for _, r := range d.PutRoutes {
		if seen[r.RouteKey] {
			t.Fatalf("delta puts %v twice", r)
		}
		if w.got.Routes[r.RouteKey] == r.RouteAttrs {
			t.Fatalf("delta puts %v, which is there already", r)
		}
		seen[r.RouteKey] = true
		w.last += " +" + r.String()
	}
	for _, k := range d.DeleteRoutes {
		if _, ok := w.got.Routes[k]; seen[k] || !ok {
			t.Fatalf("delta deletes %v, which it puts too or is not there", k)
		}
		seen[k] = true
		w.last += fmt.Sprintf(" -%v", k.Dst)
	}
	w.got = w.got.Apply(d)
}

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
	g := NewGraph("a", model.FelixConfig{IPv4Priority: &seven})
	d := g.Step(model.Batch{Puts: []model.Value{
		model.FelixConfig{Name: "node.a", IPv4Priority: &eight},
		model.Endpoint{Name: "web", Node: "a", Link: "cali1", Addrs: addrs("10.0.0.1")},
	}})
	if got := d.PutRoutes[0].Priority; got != 7 {
		t.Errorf("metric %d, want the 7 of the environment", got)
	}
}

// FuzzGraph holds a Graph against Compile over any history of few objects, so
// that they collide often.
func FuzzGraph(f *testing.F) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 600)
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		w := newTwin()
		for len(script) > 0 {
			var text string
			text, script = randomStep(script, w)
			for _, e := range events(t, text) {
				w.step(t, e)
			}
		}
		replay(t, w)
	})
}

// randomStep spends bytes of script on the text of one step.
func randomStep(script []byte, w *twin) (string, []byte) {
	next := func(n int) int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b) % n
	}
	seen := map[string]bool{}
	var items []string
	add := func(key, item string) {
		if !seen[key] { // a key stands once in a batch
			seen[key] = true
			items = append(items, item)
		}
	}
	snapshot := next(12) == 0
	if snapshot {
		items = append(items, "reset")
	}
	for range 1 + next(5) {
		sign := []string{"", "", "", "-", "!"}[next(5)]
		switch next(7) {
		case 0, 1:
			name := []string{"web", "app", "db"}[next(3)]
			addr := []string{"10.0.0.1", "10.0.0.2", "10.0.0.1+fd00::1", "10.0.1.5", "-"}[next(5)]
			node, link := []string{"a", "a", "b"}[next(3)], []string{"cali1", "cali2", "-"}[next(3)]
			add(name, fmt.Sprintf("%sep %s %s %s %s %s", sign, name, node, link, addr, []string{"", "02:00:00:00:00:01"}[next(2)]))
		case 2:
			cidr := []string{"10.0.0.0/26", "10.0.1.0/26", "10.0.0.1/32", "fd00::/122"}[next(4)]
			add(cidr, fmt.Sprintf("%sblock %s %s", sign, cidr, []string{"a", "b", ""}[next(3)]))
		case 3:
			add("node", sign+"node a "+[]string{"", "10.0.1.5/26", "192.168.0.1/24 x=y"}[next(3)])
		case 4:
			name := []string{"default", "node.a", "some x=='y'", "node.b"}[next(4)]
			add(name, fmt.Sprintf("%sfelix %s metric4=%d", sign, name, next(3)))
		default:
			p := []string{"10.0.0.0/26", "10.0.1.0/26", "10.0.0.1/32", "10.0.1.5/32", "0.0.0.0/0", "192.168.0.0/24"}[next(6)]
			via := []string{"192.168.0.2", "192.168.0.3", "192.168.0.2+192.168.0.3"}[next(3)]
			add("learn"+p, fmt.Sprintf("%slearn %s %s", strings.Trim(sign, "!"), p, via))
		}
	}
	if next(16) == 0 {
		items = append(items, "rset", "rsynced")
	}
	if next(9) == 0 {
		items = append(items, "fix 10.0.1.5/32 192.168.0.9")
	}
	text := strings.Join(items, ", ")
	if snapshot && next(2) == 0 {
		return text + "; synced", script
	}
	if snapshot {
		text += ", synced"
	}
	return text, script
}

// replay tells a new Graph the same world at once, backwards and shuffled: the
// order in which facts become known must not show.
func replay(t *testing.T, w *twin) {
	t.Helper()
	values := slices.SortedFunc(maps.Values(w.world), func(a, b model.Value) int { return compareKeys(a.Key(), b.Key()) })
	learned := slices.SortedFunc(maps.Values(w.learned), func(a, b bgp.Learned) int { return comparePrefixes(a.Prefix, b.Prefix) })
	for seed := range uint64(3) {
		slices.Reverse(values)
		slices.Reverse(learned)
		if seed > 0 {
			rnd := rand.New(rand.NewPCG(seed, 2))
			rnd.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
		}
		g, got := NewGraph("a"), plan.Node{}
		got = got.Apply(g.Fix(w.fixed))
		for _, l := range learned {
			got = got.Apply(g.Learn(bgp.LearnedBatch{Puts: []bgp.Learned{l}}))
		}
		for _, v := range values {
			got = got.Apply(g.Step(model.Batch{Puts: []model.Value{v}}))
		}
		if d := plan.Diff(w.got, got); d != "" {
			t.Fatalf("replayed in another order (-want +got):\n%s", d)
		}
	}
}

func BenchmarkLearn(b *testing.B) {
	const routes = 100_000
	batches := make([]bgp.LearnedBatch, routes/1000)
	for i := range routes {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)})
		l := bgp.Learned{Prefix: netip.PrefixFrom(a, 26), NextHops: addrs("192.168.0.2")}
		batches[i/1000].Puts = append(batches[i/1000].Puts, l)
	}
	b.ReportAllocs()
	for b.Loop() {
		g := NewGraph("a")
		n := 0
		for _, batch := range batches {
			n += len(g.Learn(batch).PutRoutes)
		}
		if n != routes {
			b.Fatalf("%d routes, want %d", n, routes)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/routes, "ns/route")
}

func BenchmarkStepOne(b *testing.B) {
	g := NewGraph("a")
	for i := range 100_000 {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		g.Learn(bgp.LearnedBatch{Puts: []bgp.Learned{{Prefix: netip.PrefixFrom(a, 32), NextHops: addrs("192.168.0.2")}}})
	}
	e := model.Endpoint{Name: "web", Node: "a", Link: "cali1", Addrs: addrs("10.0.0.1"), MAC: "02:00:00:00:00:01"}
	b.ReportAllocs()
	for b.Loop() {
		g.Step(model.Batch{Puts: []model.Value{e}})
		g.Step(model.Batch{Deletes: []model.Key{e.Key()}})
	}
}
