package wireguard

import (
	"fmt"
	"net/netip"
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
