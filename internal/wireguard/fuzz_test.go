package wireguard

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

// FuzzGraph holds a Graph against Compile over any history of few objects, so that they
// collide often, and in any order.
func FuzzGraph(f *testing.F) {
	for seed := range uint64(64) {
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
			text, script = randomStep(script)
			w.run(t, text)
		}
		replay(t, w)
	})
}

// randomStep spends bytes of script on the text of one step.
func randomStep(script []byte) (string, []byte) {
	next := func(n int) int {
		if len(script) == 0 {
			return 0
		}
		b := script[0]
		script = script[1:]
		return int(b) % n
	}
	pick := func(list string) string { words := strings.Split(list, "|"); return words[next(len(words))] }
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
	for range 1 + next(4) {
		sign := pick("||||-|!")
		switch next(8) {
		case 0, 1, 2:
			name := pick("a|b|c")
			add(name, fmt.Sprintf("%snode %s %s %s %s %s %s %s", sign, name, pick("|192.168.0.1/24|192.168.0.2/24"), pick("|fd00::1/64|fd00::2/64"),
				pick("|k=1|k=2|k=3"), pick("|k6=1|k6=2"), pick("|wg=10.0.0.9|wg=10.0.1.9|ipip=10.0.1.9"), pick("|x=y")))
		case 3, 4:
			cidr := pick("10.0.0.0/26|10.0.1.0/26|10.0.0.9/32|fd10::/122")
			lent := pick("|10.0.0.9=b|10.0.0.9=c|10.0.0.9=a")
			if cidr == "fd10::/122" || cidr == "10.0.1.0/26" {
				lent = ""
			}
			add(cidr, fmt.Sprintf("%sblock %s %s %s", sign, cidr, pick("a|b|c"), lent))
		case 5:
			name := pick("default|node.a|node.b|some")
			sel := ""
			if name == "some" {
				sel = "x=='y'"
			}
			add("felix"+name, fmt.Sprintf("%sfelix %s %s %s %s %s %s %s", sign, name, sel, pick("|on|on"), pick("|on6"), pick("|strict"), pick("|hosts|nohosts"), pick("|port=7|link=wg9|link=wg-v6.cali|table=9")))
		case 6:
			cidr := pick("10.0.0.0/16|10.0.0.0/26|10.0.0.0/8|fd10::/64|192.168.0.0/16")
			add("pool"+cidr, fmt.Sprintf("%spool %s %s", sign, cidr, pick("||lb")))
		case 7:
			name := pick("web|app")
			add(name, fmt.Sprintf("%sep %s %s %s", sign, name, pick("a|b"), pick("10.0.0.9|10.0.1.5|10.0.0.9+fd10::5")))
		}
	}
	text := strings.Join(items, ", ")
	if snapshot && next(2) == 0 {
		return text + "; synced", script
	}
	if snapshot {
		text += ", synced"
	}
	if next(6) == 0 {
		text += "; key " + pick("wireguard.cali|wg9|wg-v6.cali") + " " + pick("1|2|0")
	}
	if next(10) == 0 {
		text += "; mtu " + pick("0|1500")
	}
	return text, script
}

// replay tells a new Graph the same world one by one, backwards and shuffled.
func replay(t *testing.T, w *twin) {
	t.Helper()
	values := slices.SortedFunc(maps.Values(w.world), func(a, b model.Value) int { return strings.Compare(a.Key().String(), b.Key().String()) })
	for seed := range uint64(3) {
		slices.Reverse(values)
		if seed > 0 {
			rnd := rand.New(rand.NewPCG(seed, 2))
			rnd.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
		}
		g, got := NewGraph(Options{Node: "a"}), plan.Node{}
		for _, v := range values {
			got = got.Apply(g.Step(model.Batch{Puts: []model.Value{v}}))
		}
		got = got.Apply(g.SetUnderlay(w.underlay))
		for link, key := range w.keys {
			got = got.Apply(g.SetKey(link, key))
		}
		if d := plan.Diff(w.got, got); d != "" {
			t.Fatalf("replayed in another order (-want +got):\n%s", d)
		}
	}
}

func large(nodes int) []model.Value {
	yes := true
	values := []model.Value{model.FelixConfig{Name: "default", Tunnel: model.TunnelConfig{WireGuard: &yes}}}
	for i := range nodes {
		n := model.Node{Name: fmt.Sprintf("node-%d", i), IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}), 16)}
		n.WireGuardKey[0], n.WireGuardKey[1], n.WireGuardKey[2] = 1, byte(i), byte(i>>8)
		n.WireGuardAddr = netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i<<6) + 1})
		values = append(values, n, model.Block{CIDR: netip.PrefixFrom(n.WireGuardAddr, 26).Masked(), Owner: model.HostAffinity(n.Name)})
	}
	return values
}

// BenchmarkSnapshot is a cluster of 5,000 nodes at once.
func BenchmarkSnapshot(b *testing.B) {
	values := large(5000)
	b.ReportAllocs()
	for b.Loop() {
		d := NewGraph(Options{Node: "node-7"}).Step(model.Batch{Reset: true, Puts: values, Synced: true})
		if len(d.PutPeers) != 4999 {
			b.Fatalf("%d peers", len(d.PutPeers))
		}
	}
}

// BenchmarkStepOne is one node that comes and goes among 5,000.
func BenchmarkStepOne(b *testing.B) {
	values := large(5001)
	one := values[len(values)-2:]
	g := NewGraph(Options{Node: "node-7"})
	g.Step(model.Batch{Reset: true, Puts: values[:len(values)-2], Synced: true})
	b.ReportAllocs()
	for b.Loop() {
		g.Step(model.Batch{Puts: one})
		g.Step(model.Batch{Deletes: []model.Key{one[0].Key(), one[1].Key()}})
	}
}
