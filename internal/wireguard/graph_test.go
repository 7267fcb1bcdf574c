package wireguard

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// twin runs a Graph for node a and folds what it says, to compare it with Compile.
type twin struct {
	graph    *Graph
	world    model.World
	underlay int
	keys     map[string]plan.PublicKey
	got      plan.Node
	filter   plan.Filter
	partial  bool   // a snapshot is in progress
	last     string // what the last step changed
}

func newTwin() *twin {
	return &twin{graph: NewGraph(Options{Node: "a"}), world: model.World{}, keys: map[string]plan.PublicKey{}}
}

// run takes steps, separated by ";", each a list of objects separated by ",":
//
//	node NAME [ADDR/LEN]... [k=KEY] [k6=KEY] [wg=ADDR] [wg6=ADDR] [ipip=ADDR] [vxlan=ADDR] [label=VALUE]
//	block CIDR OWNER [ADDR=NODE]...     pool CIDR [lb]      ep NAME NODE ADDR[+ADDR]
//	felix NAME [on] [on6] [strict] [hosts] [nohosts] [threaded] [port=N] [link=NAME] [mtu=N] [keep=DURATION] [table=N] [prio=N] [SELECTOR]
//	key LINK KEY     mtu N     reset     synced
//
// "-" before an object deletes it, "!" says that it is invalid. A KEY is a number.
func (w *twin) run(t testing.TB, script string) {
	t.Helper()
	for step := range strings.SplitSeq(script, ";") {
		w.step(t, step)
	}
}

func (w *twin) step(t testing.TB, step string) {
	t.Helper()
	var b model.Batch
	w.last = ""
	for item := range strings.SplitSeq(step, ",") {
		f := strings.Fields(item)
		if len(f) == 0 {
			continue
		}
		sign, word := "+", f[0]
		if word[0] == '-' || word[0] == '!' {
			sign, word = word[:1], word[1:]
		}
		switch word {
		case "reset":
			b.Reset = true
		case "synced":
			b.Synced = true
		case "mtu":
			w.underlay = number(f[1])
			w.apply(t, w.graph.SetUnderlay(w.underlay))
		case "key":
			w.keys[f[1]] = key(f[2])
			w.apply(t, w.graph.SetKey(f[1], key(f[2])))
		default:
			v := value(t, word, f[1:])
			switch sign {
			case "-":
				b.Deletes = append(b.Deletes, v.Key())
			case "!":
				b.Invalids = append(b.Invalids, model.Invalid{Key: v.Key(), Err: fmt.Errorf("bad")})
			default:
				b.Puts = append(b.Puts, v)
			}
		}
	}
	if !b.Empty() {
		w.apply(t, w.graph.Step(b))
		w.world = w.world.Apply(b)
		w.partial = (b.Reset || w.partial) && !b.Synced
	}
	d := w.graph.Filter()
	w.filter = w.filter.Apply(d)
	if w.partial {
		return
	}
	want, filter := Compile(Options{Node: "a"}, w.world, w.underlay, w.keys)
	if d := plan.Diff(want, w.got); d != "" {
		t.Fatalf("after %s (-want +got):\n%s", step, d)
	}
	if d := plan.DiffFilters(filter, w.filter); d != "" {
		t.Fatalf("filter after %s (-want +got):\n%s", step, d)
	}
}

// apply folds d and checks that it says nothing twice and nothing needless.
func (w *twin) apply(t testing.TB, d plan.Delta) {
	t.Helper()
	seen := map[any]bool{}
	once := func(k any, needless bool) {
		if seen[k] || needless {
			t.Fatalf("delta says of %v something twice or needless: %+v", k, d)
		}
		seen[k] = true
		w.last += fmt.Sprintf(" %v", k)
	}
	for _, r := range d.PutRoutes {
		once(r.RouteKey, w.got.Routes[r.RouteKey] == r.RouteAttrs)
	}
	for _, k := range d.DeleteRoutes {
		_, had := w.got.Routes[k]
		once(k, !had)
	}
	for _, p := range d.PutPeers {
		once(p.WireGuardPeerKey, w.got.Peers[p.WireGuardPeerKey] == p.WireGuardPeerAttrs)
	}
	for _, k := range d.DeletePeers {
		_, had := w.got.Peers[k]
		once(k, !had)
	}
	for _, p := range d.PutDevices {
		once(p.Name, w.got.Devices[p.Name] == p)
	}
	for _, k := range d.DeleteDevices {
		_, had := w.got.Devices[k]
		once(k, !had)
	}
	for _, r := range d.PutRules {
		_, had := w.got.Rules[r]
		once(r, had)
	}
	for _, r := range d.DeleteRules {
		_, had := w.got.Rules[r]
		once(r, !had)
	}
	w.got = w.got.Apply(d)
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func key(s string) (k plan.PublicKey) {
	k[0] = byte(number(s))
	return k
}

func value(t testing.TB, word string, f []string) model.Value {
	t.Helper()
	switch word {
	case "node":
		return nodeValue(f)
	case "pool":
		p := model.Pool{Name: strings.NewReplacer("/", "-", ":", "-").Replace(f[0]), CIDR: netip.MustParsePrefix(f[0]), Uses: model.UseWorkload | model.UseTunnel}
		if len(f) > 1 {
			p.Uses = model.UseLoadBalancer
		}
		return p
	case "ep":
		e := model.Endpoint{Namespace: "default", Name: f[0], Node: f[1], Link: "cali1"}
		for a := range strings.SplitSeq(f[2], "+") {
			e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
		}
		return e
	case "block":
		f = append(f, "")
		b := model.Block{CIDR: netip.MustParsePrefix(f[0]), Owner: model.HostAffinity(f[1])}
		at := map[netip.Addr]int{}
		for i, s := range f[2:] {
			if s == "" {
				continue
			}
			addr, node, _ := strings.Cut(s, "=")
			at[netip.MustParseAddr(addr)] = i
			b.Attributes = append(b.Attributes, model.Attribute{Secondary: map[string]string{"node": node}})
		}
		for a := b.CIDR.Addr(); b.CIDR.Contains(a) && len(b.Allocations) < 64; a = a.Next() {
			n := -1
			if i, ok := at[a]; ok {
				n = i
			}
			b.Allocations = append(b.Allocations, n)
		}
		return b
	case "felix":
		return felixValue(t, f)
	}
	t.Fatalf("unknown word %q", word)
	return nil
}

func nodeValue(f []string) model.Value {
	n := model.Node{Name: f[0], Labels: map[string]string{}}
	for _, s := range f[1:] {
		k, v, ok := strings.Cut(s, "=")
		switch p, _ := netip.ParsePrefix(s); {
		case !ok && p.Addr().Is4():
			n.IPv4 = p
		case !ok:
			n.IPv6 = p
		case k == "k":
			n.WireGuardKey = key(v)
		case k == "k6":
			n.WireGuardKeyV6 = key(v)
		case k == "wg":
			n.WireGuardAddr = netip.MustParseAddr(v)
		case k == "wg6":
			n.WireGuardAddrV6 = netip.MustParseAddr(v)
		case k == "ipip":
			n.IPIPTunnel = netip.MustParseAddr(v)
		case k == "vxlan":
			n.VXLANTunnel = netip.MustParseAddr(v)
		default:
			n.Labels[k] = v
		}
	}
	return n
}

func felixValue(t testing.TB, f []string) model.Value {
	c := model.FelixConfig{Name: f[0]}
	yes, no := true, false
	for _, s := range f[1:] {
		k, v, _ := strings.Cut(s, "=")
		n, _ := strconv.Atoi(v)
		port, keep := uint16(n), time.Duration(0)
		switch u := &c.Tunnel; k {
		case "on":
			u.WireGuard = &yes
		case "on6":
			u.WireGuardV6 = &yes
		case "strict":
			u.WireGuardStrict = &yes
		case "hosts":
			u.WireGuardHosts = &yes
		case "nohosts":
			u.WireGuardHosts = &no
		case "threaded":
			u.WireGuardThreaded = &yes
		case "port":
			u.WireGuardPort = &port
		case "link":
			u.WireGuardLink = v
		case "mtu":
			u.WireGuardMTU = &n
		case "prio":
			u.WireGuardPriority = &n
		case "table":
			u.Tables = []model.TableRange{{First: uint32(n), Last: uint32(n) + 9}}
		case "keep":
			keep, _ = time.ParseDuration(v)
			u.WireGuardKeepalive = &keep
		default:
			sel, err := selector.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			c.NodeSelector = sel
		}
	}
	return c
}

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
		"lax": {ab, ""},
		"strict": {
			ab + "; felix default on strict, pool 10.0.0.0/16, pool 10.0.4.0/24, pool fd10::/64, pool 10.9.0.0/16 lb",
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
		"back": {ab + "; felix default on hosts strict; felix default on", ""},
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
