package nft

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/weft-net/weft/internal/kernel/netlink"
	"github.com/weft-net/weft/internal/plan"
)

// TestInterval: the ends of intervals, and the way back.
func TestInterval(t *testing.T) {
	t.Parallel()
	for prefix, end := range map[string]string{
		"10.0.0.0/24":        "10.0.1.0",
		"10.0.0.1/32":        "10.0.0.2",
		"10.255.0.0/16":      "11.0.0.0",
		"10.0.0.2/31":        "10.0.0.4",
		"0.0.0.0/0":          "",
		"0.0.0.0/1":          "128.0.0.0",
		"128.0.0.0/1":        "",
		"255.255.255.255/32": "",
		"fd00::/64":          "fd00:0:0:1::",
		"fd00::ffff/128":     "fd00::1:0",
		"::/0":               "",
		"ff00::/8":           "",
	} {
		p := netip.MustParsePrefix(prefix)
		v6 := p.Addr().Is6()
		var s scratch
		m := plan.NetMember(p)
		first, got := interval(&s, m, plan.SetNets, v6)
		var want []byte
		if end != "" {
			want = netip.MustParseAddr(end).AsSlice()
		}
		if !bytes.Equal(first, p.Addr().AsSlice()) || !bytes.Equal(got, want) {
			t.Errorf("%s: from %x to before %x, want %x", prefix, first, got, want)
		}
		if back, ok := parseInterval(bytes.Clone(first), bytes.Clone(got), plan.SetNets, v6); !ok && end != "" || ok && back != m {
			t.Errorf("%s: back as %v, %t", prefix, back.Net(v6), ok)
		}
	}
	a := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	for _, odd := range [][2]string{{"10.0.0.1", "10.0.0.3"}, {"10.0.0.0", "10.0.0.3"}, {"10.0.0.4", "10.0.0.12"}} {
		if m, ok := parseInterval(a(odd[0]), a(odd[1]), plan.SetNets, false); ok {
			t.Errorf("%v is taken for %v", odd, m.Net(false))
		}
	}
}

// TestCommon: pairs of rules that stay rise on both sides, are equal, and are as many
// as can be where no rule stands twice.
func TestCommon(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		actual, wanted string
		keep           []int
	}{
		"same":       {"abc", "abc", []int{0, 1, 2}},
		"insert":     {"abc", "abxc", []int{0, 1, -1, 2}},
		"delete":     {"abc", "ac", []int{0, 2}},
		"replace":    {"abc", "axc", []int{0, -1, 2}},
		"move":       {"abcde", "bcdae", []int{1, 2, 3, -1, 4}},
		"empty":      {"", "ab", []int{-1, -1}},
		"to nothing": {"ab", "", []int{}},
		"twice":      {"aab", "aba", []int{0, 2, -1}},
	} {
		var actual []rule
		for _, c := range tt.actual {
			actual = append(actual, rule{body: body(string(c))})
		}
		wanted := []body{}
		for _, c := range tt.wanted {
			wanted = append(wanted, body(string(c)))
		}
		got := common(actual, wanted)
		if name != "twice" && !slices.Equal(got, tt.keep) {
			t.Errorf("%s: %v, want %v", name, got, tt.keep)
		}
		last := -1
		for i, k := range got {
			if k >= 0 && (k <= last || !bytes.Equal(actual[k].body, wanted[i])) {
				t.Errorf("%s: %v does not rise, or pairs what differs", name, got)
			}
			last = max(last, k)
		}
	}
}

// FuzzRead feeds hostile attributes to the readers, which must not panic, and builds
// what they lead to.
func FuzzRead(f *testing.F) {
	var e encoder
	e.str(1, tableName)
	e.str(2, "s")
	list := e.open(3)
	e.elem(&elem{key: []byte{10, 0, 0, 1}})
	e.elem(&elem{key: []byte{10, 0, 0, 2}, flags: 1})
	e.close(list)
	f.Add(bytes.Clone(e.b), uint8(plan.SetNets))
	f.Add(bytes.Clone(e.b), uint8(plan.SetAddrs))
	e.b = e.b[:0]
	e.str(1, tableName)
	e.str(2, "a")
	e.u64(3, 7)
	list = e.open(4)
	e.counter()
	e.verdict(0, "")
	e.close(list)
	f.Add(bytes.Clone(e.b), uint8(plan.SetLinkNets))
	f.Fuzz(func(_ *testing.T, b []byte, typ uint8) {
		n := blank(Options{})
		t := n.tables[0]
		t.apply(&plan.TableDelta{
			PutSets:   []plan.Set{{Name: "s", Type: plan.SetType(typ % 10)}},
			PutChains: []plan.Chain{{Name: "a", Rules: []plan.Rule{{Verdict: plan.Drop}}}},
		})
		s := t.sets["s"]
		t.chainMet(b)
		t.setMet(b)
		for _, v := range netlink.Attributes(b) {
			n.elementMet(s, v)
			for _, v := range netlink.Attributes(v) {
				n.elementMet(s, v)
			}
		}
		n.pairUp(s)
		if r, ok := parseRuleAttrs(bytes.Clone(b)); ok {
			t.chains["a"].ruleMet(&r)
		}
		t.chains["a"].scanned()
		n.heard(b)
		count(map[string]Counter{}, b)
		n.build(n.tables[:]...)
	})
}
