package edge

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
)

// batch reads a list of objects separated by ",":
//
//	pool NAME CIDR [nat] [ipip] [vxlan] [disabled]      node NAME ADDR... [label=value]
//	felix NAME [ports=F-L] [addr=A] [hosts] [link=L] [ipip=B] [vxlan=B] [port=N] [external=NET] [ipv6=B] [wg] [wg6] [wglink=L] [wghosts]
//	ep NAME NODE LINK ADDR... [float=EXTERNAL>INTERNAL] [in=RATE/BURST] [out=RATE/BURST] [inconns=N] [outconns=N] [dscp=N] [inbits=N] [outbits=N]
//	reset  synced
//
// "-" before an object deletes it, "!" says that it is invalid.
func batch(t testing.TB, script string) model.Batch {
	t.Helper()
	var b model.Batch
	for item := range strings.SplitSeq(script, ",") {
		f := strings.Fields(item)
		switch {
		case len(f) == 0:
		case f[0] == "reset":
			b.Reset = true
		case f[0] == "synced":
			b.Synced = true
		case f[0][0] == '-':
			b.Deletes = append(b.Deletes, value(t, f[0][1:], f[1:]).Key())
		case f[0][0] == '!':
			b.Invalids = append(b.Invalids, model.Invalid{Key: value(t, f[0][1:], f[1:]).Key(), Err: fmt.Errorf("bad")})
		default:
			b.Puts = append(b.Puts, value(t, f[0], f[1:]))
		}
	}
	return b
}

func value(t testing.TB, kind string, f []string) model.Value {
	t.Helper()
	switch kind {
	case "pool":
		return pool(f)
	case "node":
		n := model.Node{Name: f[0], Labels: map[string]string{}}
		for _, s := range f[1:] {
			k, v, label := strings.Cut(s, "=")
			switch p, _ := netip.ParsePrefix(s); {
			case label:
				n.Labels[k] = v
			case p.Addr().Is4():
				n.IPv4 = p
			default:
				n.IPv6 = p
			}
		}
		return n
	case "felix":
		return felix(t, f)
	case "ep":
		return endpoint(t, f)
	}
	t.Fatalf("unknown kind %q", kind)
	return nil
}

func pool(f []string) model.Pool {
	p := model.Pool{Name: f[0], CIDR: netip.MustParsePrefix(f[1]), IPIP: model.EncapNever}
	for _, s := range f[2:] {
		switch s {
		case "nat":
			p.NATOutgoing = true
		case "ipip":
			p.IPIP = model.EncapCrossSubnet
		case "vxlan":
			p.VXLAN = model.EncapAlways
		case "disabled":
			p.Disabled = true
		}
	}
	return p
}

func felix(t testing.TB, f []string) model.FelixConfig {
	c, yes := model.FelixConfig{Name: f[0]}, true
	for _, s := range f[1:] {
		k, v, _ := strings.Cut(s, "=")
		on := v == "true"
		n, _ := strconv.Atoi(v)
		port := uint16(n)
		switch k {
		case "ports":
			if _, err := fmt.Sscanf(v, "%d-%d", &c.NAT.FirstPort, &c.NAT.LastPort); err != nil {
				t.Fatal(err)
			}
		case "addr":
			c.NAT.Addr = netip.MustParseAddr(v)
		case "hosts":
			c.NAT.ExcludeHosts = &yes
		case "link":
			c.NAT.Link = v
		case "ipip":
			c.Tunnel.IPIP = &on
		case "vxlan":
			c.Tunnel.VXLAN = &on
		case "port":
			c.Filter.VXLANPort = &port
		case "external":
			c.Tunnel.ExternalNodes = append(c.Tunnel.ExternalNodes, netip.MustParsePrefix(v))
		case "ipv6":
			c.Filter.IPv6 = &on
		case "wg":
			c.Tunnel.WireGuard = &yes
		case "wg6":
			c.Tunnel.WireGuardV6 = &yes
		case "wglink":
			c.Tunnel.WireGuardLink = v
		case "floating":
			c.NAT.FloatingIPs = true
		case "wghosts":
			c.Tunnel.WireGuardHosts = &yes
		default:
			t.Fatalf("unknown setting %q", s)
		}
	}
	return c
}

func endpoint(t testing.TB, f []string) model.Endpoint {
	e := model.Endpoint{Namespace: "shop", Name: f[0], Pod: f[0]}
	if len(f) < 3 {
		return e // to be deleted
	}
	e.Node, e.Link = f[1], f[2]
	for _, s := range f[3:] {
		k, v, pair := strings.Cut(s, "=")
		if !pair {
			e.Addrs = append(e.Addrs, netip.MustParseAddr(s))
			continue
		}
		first, second, _ := strings.Cut(v, "/")
		n, _ := strconv.ParseUint(first, 10, 32)
		m, _ := strconv.ParseUint(second, 10, 32)
		switch k {
		case "float":
			external, internal, _ := strings.Cut(v, ">")
			e.FloatingIPs = append(e.FloatingIPs, model.FloatingIP{External: netip.MustParseAddr(external), Internal: netip.MustParseAddr(internal)})
		case "in":
			e.QoS.Ingress.Packets, e.QoS.Ingress.PacketBurst = uint32(n), uint32(m)
		case "out":
			e.QoS.Egress.Packets, e.QoS.Egress.PacketBurst = uint32(n), uint32(m)
		case "inconns":
			e.QoS.Ingress.Connections = uint32(n)
		case "outconns":
			e.QoS.Egress.Connections = uint32(n)
		case "inbits":
			e.QoS.Ingress.Bandwidth = model.Bandwidth{Rate: n, Burst: m}
		case "outbits":
			e.QoS.Egress.Bandwidth = model.Bandwidth{Rate: n, Burst: m}
		case "dscp":
			e.QoS.DSCP, e.QoS.Marked = uint8(n), true
		default:
			t.Fatalf("unknown limit %q", s)
		}
	}
	return e
}

func options() Options { return Options{Node: "a"} }

func TestTables(t *testing.T) {
	t.Parallel()
	const pools = "pool p 10.65.0.0/16 nat, pool q 10.66.0.0/16, "
	const outgoing = "chain nat-postrouting {\n\ttype nat hook postrouting priority srcnat; policy accept;\n"
	const from = "\tsaddr @masq-ipam-pools daddr != @all-ipam-pools "
	const comment = ` comment "natOutgoing of IP pools"` + "\n"
	const sets = "set all-ipam-pools {\n\ttype addr; flags interval\n\t10.65.0.0/16\n\t10.66.0.0/16\n}\nset masq-ipam-pools {\n\ttype addr; flags interval\n\t10.65.0.0/16\n}\n"
	const hosts = "set all-hosts {\n\ttype addr\n\t192.0.2.1\n}\n"
	tunnel := func(dev string) string {
		return fmt.Sprintf("\toifname %q fib saddr . oif type != local fib saddr type local counter masquerade fully-random comment %q\n", dev, commentTunnel)
	}
	for name, tt := range map[string]struct{ world, want string }{
		"nothing":        {"node a 192.0.2.1/24", ""},
		"no natOutgoing": {"pool p 10.65.0.0/16", outgoing + "}\n"},
		"masquerade":     {pools, sets + outgoing + from + "counter masquerade fully-random" + comment + "}\n"},
		"pools in each other": {
			"pool a 10.0.0.0/8 disabled, pool p 10.65.0.0/16 nat, pool q 10.65.1.0/24 nat disabled",
			strings.ReplaceAll(strings.ReplaceAll(sets, "\t10.66.0.0/16\n", ""), "set all-ipam-pools {\n\ttype addr; flags interval\n\t10.65.0.0/16", "set all-ipam-pools {\n\ttype addr; flags interval\n\t10.0.0.0/8") +
				outgoing + from + "counter masquerade fully-random" + comment + "}\n",
		},
		"hosts excluded": {
			pools + "node a 192.0.2.1/24, felix default hosts",
			hosts + sets + outgoing + from + "daddr != @all-hosts counter masquerade fully-random" + comment + "}\n",
		},
		"address, other family": {pools + "felix default addr=2001:db8::1", sets + outgoing + from + "counter masquerade fully-random" + comment + "}\n"},
		"address":               {pools + "felix default addr=192.0.2.9 link=eth0", sets + outgoing + from + `oifname "eth0" counter snat to 192.0.2.9 fully-random` + comment + "}\n"},
		"any interface":         {pools + "felix default link=+", sets + outgoing + from + "counter masquerade fully-random" + comment + "}\n"},
		"ports": {
			pools + "felix default ports=1024-65535 link=eth+",
			sets + outgoing +
				from + `oifname "eth*" meta l4proto tcp counter masquerade to :1024-65535 fully-random` + comment +
				from + `oifname "eth*" meta l4proto udp counter masquerade to :1024-65535 fully-random` + comment +
				from + `oifname "eth*" counter masquerade fully-random` + comment + "}\n",
		},
		"IPIP": {
			"pool p 10.65.0.0/16 ipip, node a 192.0.2.1/24",
			hosts + outgoing + tunnel("tunl0") + "}\n" +
				"chain tunnels-input {\n\ttype filter hook input priority -20; policy accept;\n" +
				"\tmeta l4proto 4 saddr != @all-hosts counter drop comment \"IP in IP from an address that no node has\"\n" +
				"\tmeta l4proto 4 fib daddr type != local counter drop comment \"IP in IP that is not to an address of this node\"\n}\n",
		},
		"VXLAN, external nodes": {
			"pool p 10.65.0.0/16 vxlan, node a 192.0.2.1/24, felix default port=8472 external=198.51.100.0/24 external=198.51.100.7/32",
			hosts + "set external-nodes {\n\ttype addr; flags interval\n\t198.51.100.0/24\n}\n" + outgoing + tunnel("vxlan.calico") + "}\n" +
				"chain tunnels-input {\n\ttype filter hook input priority -20; policy accept;\n" +
				"\tmeta l4proto udp th dport 8472 saddr != @all-hosts saddr != @external-nodes counter drop comment \"VXLAN from an address that no node has, and that is not in externalNodesList\"\n" +
				"\tmeta l4proto udp th dport 8472 fib daddr type != local counter drop comment \"VXLAN that is not to an address of this node\"\n}\n" +
				"chain tunnels-output {\n\ttype filter hook output priority -300; policy accept;\n\tmeta l4proto udp th dport 8472 notrack\n}\n" +
				"chain tunnels-prerouting {\n\ttype filter hook prerouting priority -300; policy accept;\n\tmeta l4proto udp th dport 8472 fib daddr type local notrack\n}\n",
		},
		"IPIP is off":             {"pool p 10.65.0.0/16 ipip, felix default ipip=false", outgoing + "}\n"},
		"both modes":              {"pool p 10.65.0.0/16 ipip vxlan", outgoing + "}\n"},
		"WireGuard":               {"felix default wg wglink=wg7", outgoing + tunnel("wg7") + "}\n"},
		"WireGuard between hosts": {"felix default wg wghosts", ""},
		"nearest configuration":   {pools + "felix default ports=1-2 addr=192.0.2.9, felix node.b addr=192.0.2.10, felix node.a ports=7-7", sets + outgoing + from + "meta l4proto tcp counter snat to 192.0.2.9:7 fully-random" + comment + from + "meta l4proto udp counter snat to 192.0.2.9:7 fully-random" + comment + from + "counter snat to 192.0.2.9 fully-random" + comment + "}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := Compile(options(), model.World{}.Apply(batch(t, tt.world)))
			if d := cmp.Diff(tt.want, f.V4.Text(false)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if len(f.V6.Sets)+len(f.V6.Chains) > 0 {
				t.Errorf("in the table of IPv6:\n%s", f.V6.Text(true))
			}
		})
	}
}

// IPv6 is the same code: what it has of its own is here.
func TestTableOfIPv6(t *testing.T) {
	t.Parallel()
	world := "pool p fd00:65::/64 nat vxlan, pool bad fd00:66::/64 ipip, node a fd00::1/64, felix default wg6 vxlan=false ipip=true"
	f := Compile(options(), model.World{}.Apply(batch(t, world)))
	got := f.V6.Text(true)
	for _, want := range []string{"\tfd00:65::/64\n", "\tfd00::1\n", `oifname "vxlan-v6.calico" fib`, `oifname "wg-v6.cali" fib`, "th dport 4789", "masquerade fully-random"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "l4proto 4 ") {
		t.Errorf("IPIP in\n%s", got)
	}
	if f = Compile(options(), model.World{}.Apply(batch(t, world+" ipv6=false"))); len(f.V6.Chains)+len(f.V6.Sets) > 0 {
		t.Errorf("with ipv6Support false:\n%s", f.V6.Text(true))
	}
}

// TestDeltasAreMinimal: a change costs what it changes.
func TestDeltasAreMinimal(t *testing.T) {
	t.Parallel()
	const start = "reset, synced, pool p 10.65.0.0/16 nat ipip, node a 192.0.2.1/24 x=y, node b 192.0.2.2/24 fd00::2/64"
	for name, tt := range map[string]struct{ batch, want string }{
		"a node":                     {"node c 192.0.2.3/24", "+all-hosts 192.0.2.3/32"},
		"a node moves":               {"node b 192.0.2.4/24", "+all-hosts 192.0.2.4/32\n-all-hosts 192.0.2.2/32"},
		"a node goes":                {"-node b", "-all-hosts 192.0.2.2/32"},
		"an address that two have":   {"node c 192.0.2.2/24", ""},
		"a label of another":         {"node b 192.0.2.2/24 fd00::2/64 z=z", ""},
		"a label of its own":         {"node a 192.0.2.1/24 x=z", ""},
		"the same snapshot":          {start, ""},
		"a snapshot without a node":  {"reset, synced, pool p 10.65.0.0/16 nat ipip, node a 192.0.2.1/24", "-all-hosts 192.0.2.2/32"},
		"a snapshot under way":       {"reset, pool p 10.65.0.0/16", ""},
		"invalid ones stay":          {"reset, synced, !pool p 10.65.0.0/16, !node b, !node a", ""},
		"a pool in another":          {"pool q 10.65.1.0/24", ""},
		"a pool":                     {"pool q 10.66.0.0/16", "+all-ipam-pools 10.66.0.0/16"},
		"natOutgoing is turned off":  {"pool p 10.65.0.0/16 ipip", "chain nat-postrouting\n-set all-ipam-pools\n-set masq-ipam-pools"},
		"IPIP is turned off":         {"pool p 10.65.0.0/16 nat", "chain nat-postrouting\n-chain tunnels-input\n-set all-hosts"},
		"a configuration of another": {"felix node.b ports=1-2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewGraph(options())
			g.Step(batch(t, start))
			d := g.Step(batch(t, tt.batch))
			if got := brief(d.V4, false) + brief(d.V6, true); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func brief(d plan.TableDelta, v6 bool) string {
	var out []string
	for _, s := range d.PutSets {
		out = append(out, "set "+s.Name)
	}
	for _, c := range d.Changes {
		for _, m := range c.Put {
			out = append(out, fmt.Sprintf("+%s %v", c.Set, m.Net(v6)))
		}
		for _, m := range c.Delete {
			out = append(out, fmt.Sprintf("-%s %v", c.Set, m.Net(v6)))
		}
	}
	for _, c := range d.PutChains {
		out = append(out, "chain "+c.Name)
	}
	for _, c := range d.DeleteChains {
		out = append(out, "-chain "+c)
	}
	for _, s := range d.DeleteSets {
		out = append(out, "-set "+s)
	}
	return strings.Join(out, "\n")
}

// FuzzGraph: whatever happens, the Graph has emitted what Compile makes of it; and a
// packet's translation is what the rules say.
func FuzzGraph(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed, uint16(40))
	}
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) {
		r := rand.New(rand.NewPCG(seed, 7))
		g, world, got := NewGraph(options()), model.World{}, plan.Filter{}
		loading := false
		for range min(steps, 100) {
			script := randomStep(r)
			b := batch(t, script)
			if loading {
				b.Invalids = nil // a World does not know what was there before the snapshot
			}
			got, world = got.Apply(g.Step(b)), world.Apply(b)
			if loading = (loading || b.Reset) && !b.Synced; loading {
				continue
			}
			want := Compile(options(), world)
			if shapes := Shapes(options(), world); !maps.Equal(shapes, g.Shapes()) {
				t.Fatalf("after %q: got %v, want %v", script, g.Shapes(), shapes)
			}
			if d := plan.DiffFilters(want, got); d != "" {
				t.Fatalf("after %q (-want +got):\n%s", script, d)
			}
			for range 4 {
				checkTranslation(t, world, want, randomPacket(r))
			}
		}
	})
}

func checkTranslation(t *testing.T, world model.World, f plan.Filter, p plan.Packet) {
	t.Helper()
	table := f.V4
	if p.Src.Is6() {
		table = f.V6
	}
	said := Translate(options(), world, p)
	verdict, nat := plan.Continue, plan.NAT{}
	if rule := table.Machine().NAT(plan.Postrouting, p); rule != nil {
		verdict, nat = rule.Verdict, *rule.NAT
	}
	if said.Verdict != verdict || said.NAT != nat || said.Text == "" {
		t.Fatalf("%+v: rules say %v%v, Translate %+v\n%s", p, verdict, &nat, said, table.Text(p.Src.Is6()))
	}
}

func pick(r *rand.Rand, of ...string) string { return of[r.IntN(len(of))] }

func randomStep(r *rand.Rand) string {
	var items []string
	if r.IntN(12) == 0 {
		items = append(items, "reset")
	}
	if r.IntN(6) == 0 {
		items = append(items, "synced")
	}
	used := map[string]bool{}
	for range 1 + r.IntN(3) {
		sign := pick(r, "", "", "", "-", "!")
		item := ""
		switch r.IntN(4) {
		case 3:
			item = "ep " + pick(r, "w", "x", "y") + " " + pick(r, "a", "a", "b") + " " + pick(r, "cali1", "cali2") + " 10.65.0.1 fd00:65::1" +
				pick(r, "", " float=203.0.113.1>10.65.0.1", " float=2001:db8::1>fd00:65::1") + pick(r, "", " in=7/9", " out=8") +
				pick(r, "", " inconns=3", " outconns=4") + pick(r, "", " dscp=46") + pick(r, "", " inbits=1000", " outbits=2000")
		case 0:
			item = "pool " + pick(r, "p", "q", "r") + " " + pick(r, "10.0.0.0/8", "10.65.0.0/16", "10.65.1.0/24", "fd00:65::/64", "fd00::/16") +
				pick(r, "", " nat") + pick(r, "", " ipip", " vxlan") + pick(r, "", " disabled")
		case 1:
			item = "node " + pick(r, "a", "b", "c") + " " + pick(r, "192.0.2.1/24", "192.0.2.2/24", "fd01::1/64") + pick(r, "", " fd01::2/64") + pick(r, "", " x=y")
		default:
			item = "felix " + pick(r, "default", "node.a", "node.b") + pick(r, "", " ports=7-9") + pick(r, "", " addr=192.0.2.9", " addr=fd01::9") +
				pick(r, "", " hosts") + pick(r, "", " link=eth+", " link=eth1") + pick(r, "", " vxlan=false", " ipip=true") +
				pick(r, "", " external=198.51.100.0/24", " external=fd02::/64") + pick(r, "", "", "", " ipv6=false") + pick(r, "", " wg", " wg6 wghosts") + pick(r, "", " floating")
		}
		if id := strings.Join(strings.Fields(item)[:2], " "); !used[id] {
			used[id] = true
			items = append(items, sign+item)
		}
	}
	return strings.Join(items, ", ")
}

func randomPacket(r *rand.Rand) plan.Packet {
	addr := func() netip.Addr {
		return netip.MustParseAddr(pick(r, "10.1.0.1", "10.65.0.1", "10.65.1.1", "192.0.2.1", "192.0.2.2", "203.0.113.1"))
	}
	if r.IntN(2) == 0 {
		addr = func() netip.Addr {
			return netip.MustParseAddr(pick(r, "fd00:65::1", "fd00:1::1", "fd01::1", "2001:db8::1"))
		}
	}
	return plan.Packet{
		Src: addr(), Dst: addr(), Protocol: []uint8{6, 17, 1, 132}[r.IntN(4)], State: plan.StateNew,
		OutLink: pick(r, "eth0", "eth1", "tunl0", "vxlan.calico", "vxlan-v6.calico", "wireguard.cali"), SrcLocal: r.IntN(2) == 0, SrcLink: r.IntN(4) == 0,
	}
}

// The names of ours and those of policy have nothing in common, since both stand in one
// table.
func TestNamesAreOurOwn(t *testing.T) {
	t.Parallel()
	world := model.World{}.Apply(batch(t, "pool p 10.65.0.0/16 nat ipip, pool q 10.66.0.0/16 vxlan, felix default hosts external=198.51.100.0/24 floating, ep w a cali1 10.65.0.1 float=192.0.2.7>10.65.0.1 in=1 out=1 dscp=1"))
	ours := Compile(options(), world).V4
	used := policy.PointsFor(true, func(policy.Stage, policy.Direction) bool { return true })
	theirs := policy.Emitter{Settings: policy.DefaultSettings()}.Base(used)
	if len(ours.Sets) != 8 || len(ours.Chains) != 13 || len(theirs.Chains) < 10 {
		t.Fatalf("sets and chains are missing in\n%s", ours.Text(false))
	}
	prefixes := []string{"all-", "masq-", "external-", "nat-", "limit-", "tunnels-"}
	check := func(name string, want bool) {
		if got := slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(name, p) }); got != want {
			t.Errorf("name %s: is one of ours by its look: %t, want %t", name, got, want)
		}
	}
	for name := range ours.Sets {
		check(name, true)
	}
	for name := range ours.Chains {
		check(name, true)
	}
	for name := range theirs.Sets {
		check(name, false)
	}
	for name := range theirs.Chains {
		check(name, false)
	}
}

// One node more among 5,000, and the snapshot of all.
func BenchmarkGraph5000Nodes(b *testing.B) {
	nodes := func(n int) model.Value {
		a := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
		return model.Node{Name: fmt.Sprintf("node-%d", n), IPv4: netip.PrefixFrom(a, 24), Labels: map[string]string{"zone": "a"}}
	}
	all := batch(b, "reset, synced, pool p 10.65.0.0/16 nat ipip")
	for n := range 5000 {
		all.Puts = append(all.Puts, nodes(n))
	}
	b.Run("snapshot", func(b *testing.B) {
		for b.Loop() {
			NewGraph(options()).Step(all)
		}
	})
	b.Run("one more", func(b *testing.B) {
		g := NewGraph(options())
		g.Step(all)
		for b.Loop() {
			g.Step(model.Batch{Puts: []model.Value{nodes(5000)}})
			g.Step(model.Batch{Deletes: []model.Key{nodes(5000).Key()}})
		}
	})
}
