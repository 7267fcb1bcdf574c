package wireguard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
)

const (
	// ab is two nodes with keys and a block each, and the encryption of IPv4.
	ab     = "felix default on, node a 192.168.0.1/24 k=1 wg=10.0.0.9, node b 192.168.0.2/24 k=2 wg=10.0.1.9, block 10.0.0.0/26 a, block 10.0.1.0/26 b; key wireguard.cali 1; mtu 1500"
	device = "device wireguard.cali wireguard mtu 1440 address 10.0.0.9 port 51820 fwmark 0x100000; "
	rule   = "rule 99: not from all fwmark 0x100000/0x100000 lookup 1 family 4; "
	peerB  = "peer 02000000 dev wireguard.cali endpoint 192.168.0.2:51820 allowed [10.0.1.0/26 10.0.1.9/32 192.168.0.2/32] keepalive 0s; "
	ownA   = "throw 10.0.0.0/26 proto 12 table 1; "
	toB    = "10.0.1.0/26 dev wireguard.cali proto 12 table 1; 10.0.1.9/32 dev wireguard.cali proto 12 table 1; "
	all    = device + rule + peerB + ownA + toB
)

func TestGraph(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ steps, want string }{
		"off":        {strings.Replace(ab, " on", "", 1), ""},
		"two nodes":  {ab, all},
		"turned off": {ab + "; felix default", ""},
		"turned on":  {strings.Replace(ab, " on", "", 1) + "; felix default on", all},
		"settings": {
			ab + "; felix default on port=7 link=wg9 mtu=1300 prio=5 table=40 keep=25s threaded",
			"device wg9 wireguard mtu 1300 address 10.0.0.9 port 7 fwmark 0x100000 threaded; rule 5: not from all fwmark 0x100000/0x100000 lookup 40 family 4; " +
				"peer 02000000 dev wg9 endpoint 192.168.0.2:7 allowed [10.0.1.0/26 10.0.1.9/32 192.168.0.2/32] keepalive 25s; " +
				"throw 10.0.0.0/26 proto 12 table 40; 10.0.1.0/26 dev wg9 proto 12 table 40; 10.0.1.9/32 dev wg9 proto 12 table 40",
		},
		"port of that node":    {ab + "; felix node.b port=7", strings.Replace(all, "0.2:51820", "0.2:7", 1)},
		"main is no table":     {ab + "; felix default on table=253", strings.NewReplacer("table 1;", "table 256;", "lookup 1 ", "lookup 256 ").Replace(all)},
		"underlay grows":       {ab + "; mtu 9000", strings.Replace(all, "1440", "8940", 1)},
		"underlay not known":   {ab + "; mtu 0", strings.Replace(all, "1440", "0", 1)},
		"own node not known":   {ab + "; -node a", rule + ownA + "throw 10.0.1.0/26 proto 12 table 1; throw 10.0.1.9/32 proto 12 table 1"},
		"no key yet":           {ab + "; node b 192.168.0.2/24 wg=10.0.1.9", device + rule + ownA + "throw 10.0.1.0/26 proto 12 table 1; throw 10.0.1.9/32 proto 12 table 1"},
		"no address":           {ab + "; node b k=2 wg=10.0.1.9", device + rule + ownA + "throw 10.0.1.0/26 proto 12 table 1; throw 10.0.1.9/32 proto 12 table 1"},
		"new key":              {ab + "; node b 192.168.0.2/24 k=3 wg=10.0.1.9", strings.Replace(all, "peer 02", "peer 03", 1)},
		"node leaves":          {ab + "; -node b, -block 10.0.1.0/26", device + rule + ownA},
		"node without record":  {ab + "; -node b", device + rule + ownA + "throw 10.0.1.0/26 proto 12 table 1"},
		"keys swapped at once": {ab + "; node c 192.168.0.3/24 k=3; node b 192.168.0.2/24 k=3 wg=10.0.1.9, node c 192.168.0.3/24 k=2", device + rule + ownA + toB + strings.Replace(peerB, "peer 02", "peer 03", 1) + "peer 02000000 dev wireguard.cali endpoint 192.168.0.3:51820 allowed [192.168.0.3/32] keepalive 0s"},
		"one key of two":       {ab + "; node c 192.168.0.3/24 k=2", device + rule + ownA + "throw 10.0.1.0/26 proto 12 table 1; throw 10.0.1.9/32 proto 12 table 1"},
		"one key no more":      {ab + "; node c 192.168.0.3/24 k=2; -node c", all},
		"the other has ours":   {ab + "; node b 192.168.0.2/24 k=1 wg=10.0.1.9", device + rule + ownA + "throw 10.0.1.0/26 proto 12 table 1; throw 10.0.1.9/32 proto 12 table 1"},
		"address moves":        {ab + "; node b 192.168.0.7/24 k=2 wg=10.0.1.9", strings.ReplaceAll(all, "192.168.0.2", "192.168.0.7")},
		"borrowed by us":       {ab + "; block 10.0.1.0/26 b 10.0.1.5=a", all + "throw 10.0.1.5/32 proto 12 table 1"},
		"borrowed from us":     {ab + "; block 10.0.0.0/26 a 10.0.0.5=b", device + rule + ownA + toB + strings.Replace(peerB, "[", "[10.0.0.5/32 ", 1) + "10.0.0.5/32 dev wireguard.cali proto 12 table 1"},
		"borrowed, no key":     {ab + "; block 10.0.1.0/26 b 10.0.1.5=c", all + "throw 10.0.1.5/32 proto 12 table 1"},
		"returned":             {ab + "; block 10.0.1.0/26 b 10.0.1.5=c; block 10.0.1.0/26 b", all},
		"workload of ours":     {ab + "; ep web a 10.0.1.5", all + "throw 10.0.1.5/32 proto 12 table 1"},
		"workload of others":   {ab + "; ep web b 10.0.1.5", all},
		"workload moved here":  {ab + "; block 10.0.0.0/26 a 10.0.0.5=b; ep web a 10.0.0.5", all + "throw 10.0.0.5/32 proto 12 table 1"},
		"block changes hands":  {ab + "; node c 192.168.0.3/24 k=3; block 10.0.1.0/26 c", device + rule + ownA + strings.Replace(peerB, "10.0.1.0/26 ", "", 1) + toB + "peer 03000000 dev wireguard.cali endpoint 192.168.0.3:51820 allowed [10.0.1.0/26 192.168.0.3/32] keepalive 0s"},
		"IPIP and VXLAN":       {ab + "; node b 192.168.0.2/24 k=2 wg=10.0.1.9 ipip=10.0.1.9 vxlan=10.5.0.1", device + rule + ownA + toB + strings.Replace(peerB, "10.0.1.9/32 ", "10.0.1.9/32 10.5.0.1/32 ", 1) + "10.5.0.1/32 dev wireguard.cali proto 12 table 1"},
		"pools do not matter":  {ab + "; pool 10.0.0.0/16", all},

		"strict":                  {ab + "; pool 10.0.0.0/16; felix default on strict", all + "blackhole 10.0.0.0/16 proto 12 table 1"},
		"strict, services":        {ab + "; pool 10.0.0.0/16, pool 10.9.0.0/16 lb; felix default on strict", all + "blackhole 10.0.0.0/16 proto 12 table 1"},
		"strict, joining":         {ab + "; felix default on strict; node c 192.168.0.3/24, block 10.7.0.0/26 c", all + "blackhole 10.7.0.0/26 proto 12 table 1"},
		"strict, joined":          {ab + "; felix default on strict; node c 192.168.0.3/24, block 10.7.0.0/26 c; node c 192.168.0.3/24 k=3", all + "10.7.0.0/26 dev wireguard.cali proto 12 table 1; peer 03000000 dev wireguard.cali endpoint 192.168.0.3:51820 allowed [10.7.0.0/26 192.168.0.3/32] keepalive 0s"},
		"strict, borrowed":        {ab + "; felix default on strict; block 10.0.0.0/26 a 10.0.0.5=c", all + "blackhole 10.0.0.5/32 proto 12 table 1"},
		"strict, no device yet":   {"felix default on strict, pool 10.0.0.0/16, block 10.0.1.0/26 b, block 10.0.0.0/26 a", rule + ownA + "blackhole 10.0.1.0/26 proto 12 table 1; blackhole 10.0.0.0/16 proto 12 table 1"},
		"strict, pool is a block": {ab + "; felix default on strict, pool 10.0.0.0/26, pool 10.0.1.0/26", all},
		"strict, pool goes":       {ab + "; felix default on strict, pool 10.0.0.0/16; -pool 10.0.0.0/16", all},
		"strict, node in a pool":  {ab + "; felix default on strict, pool 192.168.0.0/16", all + "blackhole 192.168.0.0/16 proto 12 table 1; throw 192.168.0.2/32 proto 12 table 1"},
		"lax again":               {ab + "; felix default on strict, pool 10.0.0.0/16; felix default on", all},

		"hosts":                 {ab + "; felix default on hosts", hosts(all) + "192.168.0.2/32 dev wireguard.cali proto 12 src 192.168.0.1 table 1"},
		"hosts, not published":  {ab + "; felix default on hosts; key wireguard.cali 9", hosts(all)},
		"hosts, published":      {ab + "; felix default on hosts; key wireguard.cali 9; node a 192.168.0.1/24 k=9 wg=10.0.0.9", hosts(all) + "192.168.0.2/32 dev wireguard.cali proto 12 src 192.168.0.1 table 1"},
		"hosts, not there":      {ab + "; felix default on hosts; felix node.b nohosts", hosts(all)},
		"hosts, not here":       {ab + "; felix default on hosts; felix node.a nohosts", all},
		"hosts, left out":       {ab + "; felix default on hosts; felix some x=='y' nohosts; node b 192.168.0.2/24 k=2 wg=10.0.1.9 x=y", hosts(all)},
		"hosts, no key":         {ab + "; felix default on hosts; node c 192.168.0.3/24", hosts(all) + "192.168.0.2/32 dev wireguard.cali proto 12 src 192.168.0.1 table 1"},
		"hosts, in a pool":      {ab + "; felix default on hosts strict, pool 192.168.0.0/16; node c 192.168.0.3/24", hosts(all) + "192.168.0.2/32 dev wireguard.cali proto 12 src 192.168.0.1 table 1; blackhole 192.168.0.0/16 proto 12 table 1; throw 192.168.0.3/32 proto 12 table 1"},
		"one name for both":     {"felix default on on6 link=wg-v6.cali, node a 192.168.0.1/24 fd00::1/64 k=1 k6=2", "device wg-v6.cali wireguard mtu 0 port 51820 fwmark 0x100000; " + rule + strings.Replace(rule, "family 4", "family 6", 1)},
		"gone in a snapshot":    {ab + "; reset, felix default on, node a 192.168.0.1/24 k=1 wg=10.0.0.9, block 10.0.0.0/26 a; synced", device + rule + ownA},
		"invalid in a snapshot": {ab + "; reset, felix default on, node a 192.168.0.1/24 k=1 wg=10.0.0.9, block 10.0.0.0/26 a, !node b, !block 10.0.1.0/26 b; synced", all},

		"IPv6": {
			"felix default on6, node a fd00::1/64 k6=1 wg6=fd10::9, node b fd00::2/64 k6=2, block fd10::/122 a, block fd10::40/122 b; mtu 1500",
			"device wg-v6.cali wireguard mtu 1420 address fd10::9 port 51821 fwmark 0x100000; rule 99: not from all fwmark 0x100000/0x100000 lookup 1 family 6; " +
				"peer 02000000 dev wg-v6.cali endpoint [fd00::2]:51821 allowed [fd00::2/128 fd10::40/122] keepalive 0s; " +
				"throw fd10::/122 proto 12 table 1; fd10::40/122 dev wg-v6.cali proto 12 table 1",
		},
		"IPv6, underlay too small": {"felix default on6, node a fd00::1/64 k6=1, node b fd00::2/64 k6=2, block fd10::40/122 b; mtu 1300", strings.Replace(rule, "family 4", "family 6", 1) + "throw fd10::40/122 proto 12 table 1"},
		"both": {
			"felix default on on6, node a 192.168.0.1/24 fd00::1/64 k=1 k6=5, node b 192.168.0.2/24 fd00::2/64 k=2 k6=2, block 10.0.1.0/26 b, block fd10::40/122 b; mtu 1500",
			"device wireguard.cali wireguard mtu 1440 port 51820 fwmark 0x100000; device wg-v6.cali wireguard mtu 1420 port 51821 fwmark 0x100000; " +
				rule + strings.Replace(rule, "family 4", "family 6", 1) +
				"peer 02000000 dev wireguard.cali endpoint 192.168.0.2:51820 allowed [10.0.1.0/26 192.168.0.2/32] keepalive 0s; " +
				"peer 02000000 dev wg-v6.cali endpoint [fd00::2]:51821 allowed [fd00::2/128 fd10::40/122] keepalive 0s; " +
				"10.0.1.0/26 dev wireguard.cali proto 12 table 1; fd10::40/122 dev wg-v6.cali proto 12 table 1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			w.run(t, tt.steps)
			got := strings.ReplaceAll(strings.ReplaceAll(w.got.String(), "route ", ""), "\n", "; ")
			if want := sorted(tt.want); sorted(got) != want {
				t.Errorf("\n got %s\nwant %s", sorted(got), want)
			}
		})
	}
}

// hosts is the plan s where the device is for hosts, too.
func hosts(s string) string {
	return strings.Replace(s, "fwmark 0x100000; ", "fwmark 0x100000 hosts; ", 1)
}

func sorted(s string) string {
	return strings.Join(slices.Sorted(strings.SplitSeq(strings.TrimSuffix(s, "; "), "; ")), "; ")
}

// TestGraphKeepsQuiet: what changes nothing for this node leaves the kernel alone.
func TestGraphKeepsQuiet(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]string{
		"unfinished snapshot": "reset",
		"same snapshot":       "reset, synced, felix default on, node a 192.168.0.1/24 k=1 wg=10.0.0.9, node b 192.168.0.2/24 k=2 wg=10.0.1.9, block 10.0.0.0/26 a, block 10.0.1.0/26 b",
		"address taken":       "block 10.0.1.0/26 b 10.0.1.7=b",
		"same key":            "key wireguard.cali 1",
		"label":               "node b 192.168.0.2/24 k=2 wg=10.0.1.9 x=y",
		"unknown goes":        "-node c, -block 10.9.0.0/26 c",
		"others' workload":    "ep web b 10.0.1.7",
		"others' setting":     "felix node.c port=7",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			w.run(t, ab)
			if w.step(t, step); w.last != "" {
				t.Errorf("changes %s", w.last)
			}
		})
	}
}

// TestOrder: nothing is dropped for the time between two routes of one delta, and what
// belongs to another key now is not deleted with the old one.
func TestOrder(t *testing.T) {
	t.Parallel()
	w := newTwin()
	w.run(t, strings.Replace(ab, " on", "", 1)+"; pool 10.0.0.0/16")
	yes := true
	d := w.graph.Step(model.Batch{Puts: []model.Value{model.FelixConfig{Name: "default", Tunnel: model.TunnelConfig{WireGuard: &yes, WireGuardStrict: &yes}}}})
	var got []string
	for _, r := range d.PutRoutes {
		got = append(got, r.Dst.String())
	}
	if want := "[10.0.0.0/26 10.0.1.0/26 10.0.1.9/32 10.0.0.0/16]"; fmt.Sprint(got) != want {
		t.Errorf("routes in the order %v, want %s", got, want)
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	const outside = `iifname != "lo" iifname != "wireguard.cali" iifname != "cali*" `
	for name, tt := range map[string]struct{ steps, want string }{
		"off": {strings.Replace(ab, " on", "", 1), ""},
		"lax": {
			ab + "; pool 10.0.0.0/16",
			"+ip chain wireguard-forget type filter hook input priority 400; +ip chain wireguard-mark type filter hook prerouting priority -89; +ip element wireguard-pools { 10.0.0.0/16 }; " +
				"+ip rule wireguard-forget 0: mark and 0x100000 != 0 meta mark set mark and 0xffefffff; " +
				"+ip rule wireguard-mark 0: " + outside + `saddr @wireguard-pools fib daddr type local meta mark set mark or 0x100000 comment "from a pod to this host in clear"; ` +
				"+ip set wireguard-pools { type addr; flags interval }",
		},
		"strict": {
			"felix default on strict, pool 10.0.0.0/16, pool 10.0.4.0/24, pool fd10::/64, pool 10.9.0.0/16 lb",
			"+ip chain wireguard-clear type filter hook prerouting priority -90; +ip element wireguard-pools { 10.0.0.0/16 }; " +
				"+ip rule wireguard-clear 0: " + outside + `saddr @wireguard-pools fib daddr type != local counter drop comment "from a pod in clear (wireguardCleartext)"; ` +
				"+ip set wireguard-pools { type addr; flags interval }",
		},
		"hosts": {
			ab + "; felix default on hosts",
			"+ip chain wireguard-forget type filter hook input priority 400; +ip chain wireguard-mark type filter hook prerouting priority -89; " +
				"+ip element wireguard-nodes { 192.168.0.2 }; +ip rule wireguard-forget 0: mark and 0x100000 != 0 meta mark set mark and 0x100000; " +
				"+ip rule wireguard-mark 0: " + outside + `saddr @wireguard-nodes fib daddr type local meta mark set mark or 0x100000 comment "asked in clear, answered in clear"; ` +
				"+ip set wireguard-nodes { type addr }",
		},
		"back": {ab + "; felix default on hosts strict; felix default", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			w.run(t, tt.steps)
			got := strings.ReplaceAll(plan.DiffFilters(plan.Filter{}, w.filter), "\n", "; ")
			if got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestFilterJudges: what the chains do with packets.
func TestFilterJudges(t *testing.T) {
	t.Parallel()
	w := newTwin()
	w.run(t, ab+"; felix default on hosts strict, pool 10.0.0.0/16")
	machine := w.filter.V4.Machine()
	for name, tt := range map[string]struct {
		link, src string
		local     bool
		want      plan.Verdict
		mark      uint32
	}{
		"pod through WireGuard":      {"wireguard.cali", "10.0.1.5", false, plan.Accept, 0},
		"pod in clear":               {"eth0", "10.0.1.5", false, plan.Drop, 0},
		"pod in clear, to the host":  {"eth0", "10.0.1.5", true, plan.Accept, 0},
		"pod in VXLAN":               {"vxlan.calico", "10.0.1.5", false, plan.Drop, 0},
		"own pod":                    {"cali1", "10.0.0.5", false, plan.Accept, 0},
		"from elsewhere":             {"eth0", "10.9.1.5", false, plan.Accept, 0},
		"host in clear":              {"eth0", "192.168.0.2", true, plan.Accept, Mark},
		"host in clear, to a pod":    {"eth0", "192.168.0.2", false, plan.Accept, 0},
		"host through WireGuard":     {"wireguard.cali", "192.168.0.2", true, plan.Accept, 0},
		"stranger":                   {"eth0", "192.168.0.77", true, plan.Accept, 0},
		"own pod that says it is it": {"cali1", "192.168.0.2", true, plan.Accept, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := plan.Packet{InLink: tt.link, Src: netip.MustParseAddr(tt.src), Dst: netip.MustParseAddr("192.168.0.1"), DstLocal: tt.local, Protocol: 6, State: plan.StateNew}
			got := machine.Judge(plan.Prerouting, p)
			if got.Verdict != tt.want || got.Mark != tt.mark {
				t.Errorf("%v with mark %#x, want %v with %#x", got.Verdict, got.Mark, tt.want, tt.mark)
			}
			p.Mark = got.Mark | 0x4000 // somebody else's
			if got := machine.Judge(plan.Input, p).Mark; got != tt.mark && got != 0x4000 {
				t.Errorf("mark is %#x where connections are accepted", got)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ steps, want string }{
		"none":         {ab, "[]"},
		"no address":   {ab + "; node a", "[Node/a: wireguardEnabled: the node has no IPv4 address, so its IPv4 packets are not encrypted; give it one]"},
		"same key":     {ab + "; node c 192.168.0.3/24 k=2", "[Node/b: status.wireguardPublicKey: of IPv4: not taken as a peer: nodes b, c have the same key; each must have its own Node/c: status.wireguardPublicKey: of IPv4: not taken as a peer: nodes b, c have the same key; each must have its own]"},
		"small for v6": {"felix default on6, node a fd00::1/64; mtu 1300", "[Node/a: wireguardEnabledV6: no device of MTU 1220: IPv6 needs at least 1280, that is 1360 on the underlay]"},
		"one name":     {"felix default on on6 link=wg-v6.cali, node a 192.168.0.1/24 fd00::1/64", `[wireguardInterfaceNameV6: "wg-v6.cali": no device for IPv6: that of IPv4 has this name; they must differ]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTwin()
			w.run(t, tt.steps)
			if got := fmt.Sprint(w.graph.Problems()); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestEnv: what the environment says wins, and alone is enough.
func TestEnv(t *testing.T) {
	t.Parallel()
	yes := true
	g := NewGraph(Options{Node: "a", Env: []model.FelixConfig{{Tunnel: model.TunnelConfig{WireGuard: &yes}}}})
	d := g.Step(model.Batch{Puts: []model.Value{value(t, "node", strings.Fields("a 192.168.0.1/24"))}})
	if !g.Enabled(false) || g.Enabled(true) || len(d.PutDevices) != 1 || len(d.PutRules) != 1 {
		t.Errorf("enabled %t, %t; %+v", g.Enabled(false), g.Enabled(true), d)
	}
}
