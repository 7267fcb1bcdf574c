package route

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// FuzzGraph holds a Graph against Compile over any history of few objects, so
// that they collide often.
func FuzzGraph(f *testing.F) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 1500)
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		w := newTwinOf(Options{Node: "a", NoBGP: len(script) > 0 && script[0]%4 == 0})
		for len(script) > 0 {
			var text string
			text, script = randomStep(script, w)
			for _, e := range events(t, text) {
				w.step(t, e)
				kept := w.graph.Problems()
				w.graph.trouble.stuckKnown = false
				if now := w.graph.Problems(); !slices.Equal(kept, now) {
					t.Fatalf("after %+v: problems\n%v\nwant\n%v", e, kept, now)
				}
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
		kind, item := randomObject(next)
		switch {
		case kind == "learn" && sign == "!":
			sign = ""
		case kind == "mtu":
			sign = ""
		}
		add(kind+strings.Fields(item)[0], sign+kind+" "+item)
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

// randomObject is the word of an object and the rest of its text, whose first word is its name.
func randomObject(next func(int) int) (kind, item string) {
	pick := func(list ...string) string { return list[next(len(list))] }
	switch next(13) {
	case 0, 1:
		addr := pick("10.0.0.1", "10.0.0.2", "10.0.0.1+fd00::1", "10.0.1.5", "-")
		return "ep", pick("web", "app", "db") + " " + pick("a", "a", "b") + " " + pick("cali1", "cali2", "-") + " " + addr + " " + pick("", "02:00:00:00:00:01")
	case 2, 3:
		cidr := pick("10.0.0.0/26", "10.0.1.0/26", "10.0.0.1/32", "fd00::/122", "fd00:0:1::/122", "192.168.0.0/24")
		loan := pick("", "", "10.0.0.1@c", "10.0.1.5@b", "10.0.0.1@a", "fd00::1@b")
		if at, _, _ := strings.Cut(loan, "@"); loan != "" && !netip.MustParsePrefix(cidr).Contains(netip.MustParseAddr(at)) {
			loan = ""
		}
		return "block", cidr + " " + pick("a", "b", "b", "c", "-") + " " + pick("", "", "", "deleted") + " " + loan
	case 4:
		return "node", "a " + pick("", "10.0.1.5/26", "192.168.0.1/24 x=y", "192.168.0.1/24 fd02::1/64", "192.168.0.1/30 fd02::1/64 ipip=10.0.0.9 vxlan=10.0.0.8 vxlan6=fd00::8")
	case 5, 6:
		addr := pick("", "192.168.0.2/24", "192.168.0.3/24", "192.168.1.2/24 fd02::2/64", "192.168.0.2/24 fd03::2/64")
		return "node", pick("b", "b", "c", "d") + " " + addr + " " + pick("", "vxlan=10.0.1.8", "vxlan=10.0.1.9 vxlan6=fd00::9", "vxlan=10.0.0.8 vxlan6=fd00::8", "mac=66:00:00:00:00:01 vxlan=10.0.1.8")
	case 7:
		return "felix", pick("default", "node.a", "some x=='y'", "node.b") + " " +
			pick("metric4=0", "metric4=1", "metric6=2", "ipip=false", "ipip=true", "vxlan=false", "vxlan=true", "ipipmtu=1400", "vxlanmtu6=1279", "vxlanmtu6=1400", "wg=true", "vni=7 port=8472")
	case 8, 9:
		cidr := pick("10.0.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "fd00::/32", "fd00::/64")
		return "pool", pick("p", "q", "r") + " " + cidr + " " + pick("", "ipip=Always", "ipip=CrossSubnet", "vxlan=Always", "vxlan=CrossSubnet", "ipip=Always vxlan=Always")
	case 10:
		return "mtu", pick("0", "1500", "9000", "1349", "1200", "500")
	}
	p := pick("10.0.0.0/26", "10.0.1.0/26", "10.0.0.1/32", "10.0.1.5/32", "0.0.0.0/0", "192.168.0.0/24", "fd00::/122", "fd00:0:1::/122")
	if strings.Contains(p, "::") {
		return "learn", p + " " + pick("fd02::2", "fd03::2", "fd02::2+fd03::2")
	}
	return "learn", p + " " + pick("192.168.0.2", "192.168.0.3", "192.168.1.2", "192.168.0.2+192.168.0.3")
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
		g, got := NewGraph(w.options), plan.Node{}
		got = got.Apply(g.Fix(w.fixed))
		for _, l := range learned {
			got = got.Apply(g.Learn(bgp.LearnedBatch{Puts: []bgp.Learned{l}}))
		}
		for i, v := range values {
			got = got.Apply(g.Step(model.Batch{Puts: []model.Value{v}}))
			if i == len(values)/2 {
				got = got.Apply(g.SetUnderlay(w.underlay))
			}
		}
		got = got.Apply(g.SetUnderlay(w.underlay))
		if d := plan.Diff(w.got, got); d != "" {
			t.Fatalf("replayed in another order (-want +got):\n%s", d)
		}
		if want, got := w.graph.Problems(), g.Problems(); !slices.Equal(want, got) {
			t.Fatalf("replayed in another order: problems\n%v\nwant\n%v", got, want)
		}
	}
}
