package peering

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

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/selector"
)

// world reads objects separated by ";":
//
//	node NAME ADDR/LEN… [as=N] [rr=ID] [LABEL=VALUE…]    pool CIDR [noexport]
//	block CIDR OWNER      ep NAME NODE ADDR[+ADDR] [FLOATING]    bgp NAME [mesh=off as=N port=N bind=node password=S restart=D]
//	peer NAME [node=N | nodes=SELECTOR] [ip=ADDR[:PORT] | peers=SELECTOR] [as=N localas=N
//	          password=S keep self nosource manual filter=F via=ADDR keepalive=D restart=D ttl=N allow=N]
func world(t testing.TB, text string) model.World {
	t.Helper()
	w := model.World{}
	for item := range strings.SplitSeq(text, ";") {
		f := strings.Fields(item)
		var v model.Value
		switch f[0] {
		case "node":
			v = node(t, f[1:])
		case "pool":
			v = model.Pool{Name: model.CIDRName(netip.MustParsePrefix(f[1])), CIDR: netip.MustParsePrefix(f[1]), DisableBGPExport: len(f) > 2}
		case "block":
			v = model.Block{CIDR: netip.MustParsePrefix(f[1]), Owner: model.HostAffinity(f[2])}
		case "ep":
			e := model.Endpoint{Name: f[1], Node: f[2], Link: "cali" + f[1]}
			for a := range strings.SplitSeq(f[3], "+") {
				e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
			}
			if len(f) > 4 {
				e.FloatingIPs = []model.FloatingIP{{External: netip.MustParseAddr(f[4]), Internal: e.Addrs[0]}}
			}
			v = e
		case "bgp":
			v = bgpConfig(t, f[1:])
		case "peer":
			v = peer(t, f[1:])
		default:
			t.Fatalf("unknown object %q", item)
		}
		w[v.Key()] = v
	}
	return w
}

func node(t testing.TB, f []string) model.Node {
	n := model.Node{Name: f[0], Labels: map[string]string{}}
	for _, s := range f[1:] {
		k, v, isField := strings.Cut(s, "=")
		p, _ := netip.ParsePrefix(s)
		switch {
		case k == "as":
			n.ASN = number(t, v)
		case k == "rr":
			n.RouteReflector = netip.MustParseAddr(v)
		case isField:
			n.Labels[k] = v
		case p.Addr().Is4():
			n.IPv4 = p
		default:
			n.IPv6 = p
		}
	}
	return n
}

func bgpConfig(t testing.TB, f []string) model.BGPConfig {
	c := model.BGPConfig{Name: f[0]}
	for _, s := range f[1:] {
		switch k, v, _ := strings.Cut(s, "="); k {
		case "mesh":
			c.Mesh = new(bool)
		case "as":
			c.ASN = new(uint32)
			*c.ASN = number(t, v)
		case "port":
			c.ListenPort = new(uint16)
			*c.ListenPort = uint16(number(t, v))
		case "bind":
			c.BindNodeIP = true
		case "password":
			c.MeshPassword = model.SecretRef{Name: v, Key: "key"}
		case "restart":
			c.MeshRestartTime = duration(t, v)
		}
	}
	return c
}

func peer(t testing.TB, f []string) model.Peer {
	p := model.Peer{Name: f[0]}
	for _, s := range f[1:] {
		switch k, v, _ := strings.Cut(s, "="); k {
		case "node":
			p.Node = v
		case "nodes":
			p.NodeSelector = sel(t, v)
		case "peers":
			p.PeerSelector = sel(t, v)
		case "ip":
			var err error
			if p.Addr, err = netip.ParseAddrPort(v); err != nil {
				p.Addr = netip.AddrPortFrom(netip.MustParseAddr(v), 0)
			}
		case "as":
			p.ASN = number(t, v)
		case "localas":
			p.LocalASN = number(t, v)
		case "password":
			p.Password = model.SecretRef{Name: v, Key: "key"}
		case "keep":
			p.NextHop = model.NextHopKeep
		case "self":
			p.NextHop = model.NextHopSelf
		case "nosource":
			p.NoSourceAddr = true
		case "manual":
			p.Manual = true
		case "filter":
			p.Filters = append(p.Filters, v)
		case "via":
			p.ReachableBy = netip.MustParseAddr(v)
		case "keepalive":
			p.Keepalive = duration(t, v)
		case "restart":
			p.RestartTime = duration(t, v)
		case "ttl":
			p.TTLSecurity = uint8(number(t, v))
		case "allow":
			p.AllowLocalAS = int(number(t, v))
		default:
			t.Fatalf("unknown field %q", s)
		}
	}
	return p
}

func number(t testing.TB, s string) uint32 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

func duration(t testing.TB, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func sel(t testing.TB, s string) *selector.Selector {
	t.Helper()
	out, err := selector.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// show prints sessions: NAME AS [what is not the default …].
func show(c bgp.Config) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		p := c.Peers[name]
		s := fmt.Sprintf("%s %d", name, p.ASN)
		add := func(set bool, format string, a any) {
			if set {
				s += " " + fmt.Sprintf(format, a)
			}
		}
		add(p.Port != 0, "port=%v", p.Port)
		add(p.LocalASN != 0, "localas=%v", p.LocalASN)
		add(p.RRClient, "client=%v", p.ClusterID)
		add(!p.RRClient && p.ClusterID.IsValid(), "cluster=%v", p.ClusterID)
		add(p.Password != "", "password=%v", string(p.Password))
		add(p.NextHop != bgp.NextHopAuto, "nexthop=%v", p.NextHop)
		add(!p.Local.IsValid(), "nosource%v", "")
		add(p.KeepaliveTime != 0, "keepalive=%v", p.KeepaliveTime)
		add(p.RestartTime != 0, "restart=%v", p.RestartTime)
		add(p.TTLSecurity != 0, "ttl=%v", p.TTLSecurity)
		add(p.AllowLocalAS != 0, "allow=%v", p.AllowLocalAS)
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

var secrets = map[model.SecretRef]string{{Name: "tor", Key: "key"}: "hush", {Name: "empty", Key: "key"}: ""}

func TestSessions(t *testing.T) {
	const three = "node a 10.0.0.1/24; node b 10.0.0.2/24 rack=1; node c 10.0.0.3/24 rack=1; "
	for name, tt := range map[string]struct{ world, want, problem string }{
		"alone":                  {world: "node a 10.0.0.1/24"},
		"mesh":                   {world: three + "bgp default", want: "Mesh_10_0_0_2 64512; Mesh_10_0_0_3 64512"},
		"mesh without config":    {world: "node a 10.0.0.1/24; node b 10.0.0.2/24", want: "Mesh_10_0_0_2 64512"},
		"mesh of both":           {world: "node a 10.0.0.1/24 fd00::1/64; node b 10.0.0.2/24 fd00::2/64", want: "Mesh_10_0_0_2 64512; Mesh_fd00__2 64512"},
		"mesh of v6":             {world: "node a fd00::1/64; node b 10.0.0.2/24 fd00::2/64", want: "Mesh_fd00__2 64512"},
		"no common family":       {world: "node a fd00::1/64; node b 10.0.0.2/24"},
		"mesh off":               {world: three + "bgp default mesh=off"},
		"not yet known":          {world: "node b 10.0.0.2/24", problem: "Node/a: not in the datastore: no BGP sessions until it is"},
		"no address":             {world: "node a; node b 10.0.0.2/24"},
		"our address twice":      {world: "node a 10.0.0.1/24; node b 10.0.0.1/24"},
		"one address, two nodes": {world: "node a 10.0.0.1/24; node b 10.0.0.2/24; node c 10.0.0.2/24", want: "Mesh_10_0_0_2 64512"},

		"AS of the cluster":   {world: "node a 10.0.0.1/24; node b 10.0.0.2/24; bgp default as=65000", want: "Mesh_10_0_0_2 65000"},
		"AS of the node":      {world: "node a 10.0.0.1/24; node b 10.0.0.2/24 as=65001; bgp default as=65000", want: "Mesh_10_0_0_2 65001"},
		"port of the cluster": {world: "node a 10.0.0.1/24; node b 10.0.0.2/24; bgp default port=1790", want: "Mesh_10_0_0_2 64512 port=1790"},
		"port of the node":    {world: "node a 10.0.0.1/24; node b 10.0.0.2/24; bgp default port=1790; bgp node.b port=1791", want: "Mesh_10_0_0_2 64512 port=1791"},
		"mesh password":       {world: "node a 10.0.0.1/24; node b 10.0.0.2/24; bgp default password=tor", want: "Mesh_10_0_0_2 64512 password=hush"},
		"mesh restart":        {world: "node a 10.0.0.1/24; node b 10.0.0.2/24; bgp default restart=60s", want: "Mesh_10_0_0_2 64512 restart=1m0s"},
		"mesh password lost": {
			world:   three + "bgp default password=nowhere",
			problem: "BGPConfiguration/default: no session: its password, key key of secret nowhere, is not to be found",
		},

		"global":            {world: "node a 10.0.0.1/24; peer tor ip=10.0.0.254 as=65000", want: "Global_10_0_0_254 65000"},
		"global v6":         {world: "node a fd00::1/64; peer tor ip=fd00::fe as=65000", want: "Global_fd00__fe 65000"},
		"global, no family": {world: "node a 10.0.0.1/24; peer tor ip=fd00::fe as=65000"},
		"port":              {world: "node a 10.0.0.1/24; peer tor ip=10.0.0.254:1790 as=65000", want: "Global_10_0_0_254_port_1790 65000 port=1790"},
		"port v6":           {world: "node a fd00::1/64; peer tor ip=[fd00::fe]:1790 as=65000", want: "Global_fd00__fe_port_1790 65000 port=1790"},
		"for this node":     {world: "node a 10.0.0.1/24; peer tor node=a ip=10.0.0.254 as=65000", want: "Node_10_0_0_254 65000"},
		"for another":       {world: "node a 10.0.0.1/24; peer tor node=b ip=10.0.0.254 as=65000"},
		"selected":          {world: "node a 10.0.0.1/24 rack=1; peer tor nodes=rack=='1' ip=10.0.0.254 as=65000", want: "Node_10_0_0_254 65000"},
		"not selected":      {world: "node a 10.0.0.1/24 rack=2; peer tor nodes=rack=='1' ip=10.0.0.254 as=65000"},
		"AS left out":       {world: "node a 10.0.0.1/24 as=65009; bgp default as=65000; peer tor ip=10.0.0.254", want: "Global_10_0_0_254 65000"},
		"node, no family": {
			world:   "node a 10.0.0.1/24; peer tor node=a ip=fd00::fe as=65000",
			problem: "BGPPeer/tor: no session with fd00::fe: node a has no address of that family",
		},
		"workload selector": {
			world:   "node a 10.0.0.1/24; peer pods as=65000",
			problem: "BGPPeer/pods: localWorkloadSelector has no effect in this version: set peerIP or peerSelector",
		},
		"all settings": {
			world: "node a 10.0.0.1/24; peer tor ip=10.0.0.254 as=65000 localas=65001 password=tor self nosource keepalive=10s restart=60s ttl=2 allow=3",
			want:  "Global_10_0_0_254 65000 localas=65001 password=hush nexthop=1 nosource keepalive=10s restart=1m0s ttl=2 allow=3",
		},
		"keep next hop":    {world: "node a 10.0.0.1/24; peer tor ip=10.0.0.254 as=65000 keep", want: "Global_10_0_0_254 65000 nexthop=2"},
		"local AS is ours": {world: "node a 10.0.0.1/24; peer tor ip=10.0.0.254 as=65000 localas=64512", want: "Global_10_0_0_254 65000"},
		"password lost": {
			world:   "node a 10.0.0.1/24; peer tor ip=10.0.0.254 as=65000 password=nowhere",
			problem: "BGPPeer/tor: no session: its password, key key of secret nowhere, is not to be found",
		},
		"password empty": {
			world:   "node a 10.0.0.1/24; peer tor ip=10.0.0.254 as=65000 password=empty",
			problem: "BGPPeer/tor: no session: its password, key key of secret empty, is not to be found",
		},
		"filters": {
			world:   "node a 10.0.0.1/24; peer tor ip=10.0.0.254 as=65000 filter=f1 filter=f2",
			problem: "BGPPeer/tor: no session: filters f1, f2 have no effect in this version, and without them it would be more open than asked for",
		},
		"impossible, others stay": {
			world:   "node a 10.0.0.1/24; node b 10.0.0.2/24; peer tor ip=10.0.0.254 as=65000 keepalive=30000s",
			want:    "Mesh_10_0_0_2 64512",
			problem: "BGPPeer/tor: no session with 10.0.0.254: bgp: config: peer Global_10_0_0_254: keepalive time 8h20m0s: want up to 6h4m5s",
		},

		"explicit beats mesh":  {world: three + "peer b ip=10.0.0.2", want: "Global_10_0_0_2 64512; Mesh_10_0_0_3 64512"},
		"never with ourselves": {world: "node a 10.0.0.1/24; peer a ip=10.0.0.1 as=65000; peer all peers=all()"},
		"node's AS and port":   {world: "node a 10.0.0.1/24; node b 10.0.0.2/24 as=65001; bgp node.b port=1791; peer b ip=10.0.0.2", want: "Global_10_0_0_2 65001 port=1791"},
		"node beats global":    {world: "node a 10.0.0.1/24; peer a1 ip=10.0.0.254 as=65000; peer z1 node=a ip=10.0.0.254 as=65000", want: "Node_10_0_0_254 65000"},
		"asked for in two ways": {
			world:   "node a 10.0.0.1/24; peer one ip=10.0.0.254 as=65000; peer two ip=10.0.0.254 as=65001",
			want:    "Global_10_0_0_254 65000",
			problem: "BGPPeer/two: no session with 10.0.0.254: BGPPeer/one asks for it already, in another way; an address has one session",
		},

		"peers by label":          {world: three + "bgp default mesh=off; peer r node=a peers=rack=='1'", want: "Node_10_0_0_2 64512; Node_10_0_0_3 64512"},
		"answered":                {world: "node a 10.0.0.1/24 rack=1; node b 10.0.0.2/24; node c 10.0.0.3/24; bgp default mesh=off; peer r node=b peers=rack=='1'", want: "Node_10_0_0_2 64512"},
		"answered by selector":    {world: "node a 10.0.0.1/24 rr=1.0.0.1 r=1; node b 10.0.0.2/24; node c 10.0.0.3/24; peer r nodes=!has(r) peers=has(r)", want: "Node_10_0_0_2 64512 client=1.0.0.1; Node_10_0_0_3 64512 client=1.0.0.1"},
		"not answered":            {world: "node a 10.0.0.1/24 rack=1; node b 10.0.0.2/24; bgp default mesh=off; peer r node=b peers=rack=='1' manual"},
		"both ways is one":        {world: "node a 10.0.0.1/24 rack=1; node b 10.0.0.2/24 rack=1; bgp default mesh=off; peer r nodes=has(rack) peers=has(rack)", want: "Node_10_0_0_2 64512"},
		"asked for alike":         {world: "node a 10.0.0.1/24 rack=1; node b 10.0.0.2/24 rack=1; bgp default mesh=off; peer r nodes=has(rack) peers=has(rack); peer s peers=has(rack)", want: "Node_10_0_0_2 64512"},
		"local AS, asking":        {world: "node a 10.0.0.1/24; node b 10.0.0.2/24 r=1 as=65001; bgp default mesh=off; peer r node=a peers=has(r) localas=65007", want: "Node_10_0_0_2 65001 localas=65007"},
		"local AS, answering":     {world: "node a 10.0.0.1/24 r=1 as=65001; node b 10.0.0.2/24; bgp default mesh=off; peer r node=b peers=has(r) localas=65007", want: "Node_10_0_0_2 65007"},
		"by label, both families": {world: "node a 10.0.0.1/24 fd00::1/64; node b 10.0.0.2/24 fd00::2/64; bgp default mesh=off; peer r peers=all()", want: "Global_10_0_0_2 64512; Global_fd00__2 64512"},

		"reflector leaves the mesh": {world: "node a 10.0.0.1/24; node b 10.0.0.2/24 rr=1.0.0.1; node c 10.0.0.3/24", want: "Mesh_10_0_0_3 64512"},
		"we are a reflector":        {world: "node a 10.0.0.1/24 rr=1.0.0.1; node b 10.0.0.2/24"},
		"client by address":         {world: "node a 10.0.0.1/24 rr=1.0.0.1; node b 10.0.0.2/24; peer b node=a ip=10.0.0.2", want: "Node_10_0_0_2 64512 client=1.0.0.1"},
		"same cluster":              {world: "node a 10.0.0.1/24 rr=1.0.0.1; node b 10.0.0.2/24 rr=1.0.0.1; peer r peers=all()", want: "Global_10_0_0_2 64512 cluster=1.0.0.1"},
		"other cluster":             {world: "node a 10.0.0.1/24 rr=1.0.0.1; node b 10.0.0.2/24 rr=1.0.0.2; peer r peers=all()", want: "Global_10_0_0_2 64512 client=1.0.0.1"},
		"outside client":            {world: "node a 10.0.0.1/24 rr=1.0.0.1; peer tor ip=10.0.0.254 as=64512", want: "Global_10_0_0_254 64512 client=1.0.0.1"},
		"eBGP is no client":         {world: "node a 10.0.0.1/24 rr=1.0.0.1; peer tor ip=10.0.0.254 as=65000", want: "Global_10_0_0_254 65000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _, problems := Plan("a", world(t, tt.world), Options{Secrets: secrets})
			if got := show(cfg); got != tt.want {
				t.Errorf("sessions\n got %s\nwant %s", got, tt.want)
			}
			if got := fmt.Sprint(problems); got != "["+tt.problem+"]" {
				t.Errorf("problems\n got %s\nwant [%s]", got, tt.problem)
			}
			if err := cfg.Validate(); err != nil {
				t.Errorf("the speaker refuses it: %v", err)
			}
		})
	}
}

func TestNetworks(t *testing.T) {
	const node = "node a 10.0.0.1/24; "
	for name, tt := range map[string]struct{ world, want string }{
		"none":               {"pool 10.65.0.0/16", ""},
		"own block":          {"pool 10.65.0.0/16; block 10.65.1.0/26 a", "10.65.1.0/26"},
		"block of v6":        {"pool fd00::/48; block fd00::40/122 a", "fd00::40/122"},
		"block of another":   {"pool 10.65.0.0/16; block 10.65.1.0/26 b", ""},
		"block of one":       {"pool 10.65.0.0/16; block 10.65.1.7/32 a; ep web a 10.65.1.7", "10.65.1.7/32"},
		"block in no pool":   {"pool 10.65.0.0/16; block 10.66.1.0/26 a", ""},
		"larger than pool":   {"pool 10.65.1.0/28; block 10.65.1.0/26 a", ""},
		"aggregated":         {"pool 10.65.0.0/16; block 10.65.1.0/26 a; ep web a 10.65.1.7", "10.65.1.0/26"},
		"borrowed":           {"pool 10.65.0.0/16; block 10.65.1.0/26 b; ep web a 10.65.1.7", "10.65.1.7/32"},
		"borrowed v6":        {"pool fd00::/48; block fd00::40/122 b; ep web a fd00::47", "fd00::47/128"},
		"pod in no pool":     {"pool 10.65.0.0/16; ep web a 10.66.1.7", ""},
		"pod elsewhere":      {"pool 10.65.0.0/16; ep web b 10.65.1.7", ""},
		"kept in":            {"pool 10.65.0.0/16 noexport; block 10.65.1.0/26 a; ep web a 10.65.2.7", ""},
		"pool kept in pool":  {"pool 10.65.0.0/16; pool 10.65.1.0/24 noexport; block 10.65.1.0/26 a; block 10.65.2.0/26 a", "10.65.2.0/26"},
		"pool let out again": {"pool 10.65.0.0/16 noexport; pool 10.65.1.0/24; block 10.65.1.0/26 a; block 10.65.2.0/26 a", "10.65.1.0/26"},
		"several, in order":  {"pool 10.65.0.0/16; block 10.65.10.0/26 a; block 10.65.9.0/26 a; ep web a 10.65.9.200", "10.65.9.0/26 10.65.9.200/32 10.65.10.0/26"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _, _ := Plan("a", world(t, node+tt.world), Options{})
			var got []string
			for _, n := range cfg.Networks {
				got = append(got, n.Prefix.String())
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
		})
	}
}

func TestFloatingAddressesAreAnnounced(t *testing.T) {
	t.Parallel()
	w := world(t, "node a 10.0.0.1/24; pool 10.65.0.0/16; block 10.65.1.0/26 a; ep web a 10.65.1.7 10.65.9.9; ep app a 10.65.1.8 192.0.2.9; ep far b 10.65.2.1 10.65.9.8")
	for on, want := range map[bool]string{false: "10.65.1.0/26", true: "10.65.1.0/26 10.65.9.9/32"} {
		cfg, _, _ := Plan("a", w, Options{FloatingIPs: on})
		var got []string
		for _, n := range cfg.Networks {
			got = append(got, n.Prefix.String())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("floating addresses %t: got %q, want %q", on, s, want)
		}
	}
}

// Learned routes obey the same rule as our own, by the policy of every peer.
func TestExport(t *testing.T) {
	cfg, _, _ := Plan("a", world(t, "node a 10.0.0.1/24; node b 10.0.0.2/24; peer tor ip=10.0.0.254 as=65000; "+
		"pool 10.65.0.0/16; pool 10.65.1.0/24 noexport; pool fd00::/48"), Options{})
	const want = "fd00::/48 true; 10.65.1.0/24 false; 10.65.0.0/16 true"
	var rules []string
	for _, r := range cfg.Policies["pools"] {
		if r.Op != bgp.In {
			t.Errorf("rule %+v does not match what is inside", r)
		}
		rules = append(rules, fmt.Sprintf("%v %t", r.Prefix, r.Accept))
	}
	if got := strings.Join(rules, "; "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for name, p := range cfg.Peers {
		if p.Export != "pools" || p.Import != "" {
			t.Errorf("%s exports by %q and imports by %q, want pools and everything", name, p.Export, p.Import)
		}
	}
}

func TestSpeaker(t *testing.T) {
	for name, tt := range map[string]struct {
		world string
		opt   Options
		want  string // AS, router ID, port, addresses to listen on
	}{
		"default":          {"node a 10.0.0.1/24", Options{}, "64512 10.0.0.1 0 []"},
		"given router ID":  {"node a 10.0.0.1/24", Options{RouterID: netip.MustParseAddr("1.2.3.4")}, "64512 1.2.3.4 0 []"},
		"hashed router ID": {"node a 10.0.0.1/24", Options{HashRouterID: true}, "64512 202.151.129.18 0 []"},
		"v6 only":          {"node a fd00::1/64", Options{}, "64512 202.151.129.18 0 []"},
		"port":             {"node a 10.0.0.1/24; bgp default port=1790", Options{}, "64512 10.0.0.1 1790 []"},
		"port of the node": {"node a 10.0.0.1/24; bgp default port=1790; bgp node.a port=1791", Options{}, "64512 10.0.0.1 1791 []"},
		"bound":            {"node a 10.0.0.1/24 fd00::1/64; bgp default bind=node", Options{}, "64512 10.0.0.1 0 [10.0.0.1 fd00::1]"},
		"AS":               {"node a 10.0.0.1/24 as=65001", Options{}, "65001 10.0.0.1 0 []"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _, _ := Plan("a", world(t, tt.world), tt.opt)
			if got := fmt.Sprint(cfg.ASN, cfg.RouterID, cfg.ListenPort, cfg.ListenAddrs); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestReachableBy(t *testing.T) {
	for name, tt := range map[string]struct{ peer, want string }{
		"v4":           {"ip=10.9.0.1 as=65000 via=10.0.0.254", "10.9.0.1/32 via 10.0.0.254"},
		"v6":           {"ip=fd09::1 as=65000 via=fd00::fe", "fd09::1/128 via fd00::fe"},
		"no session":   {"ip=10.9.0.1 as=65000 via=10.0.0.254 password=nowhere", ""},
		"not for us":   {"node=b ip=10.9.0.1 as=65000 via=10.0.0.254", ""},
		"without path": {"ip=10.9.0.1 as=65000", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, fixed, _ := Plan("a", world(t, "node a 10.0.0.1/24 fd00::1/64; peer tor "+tt.peer), Options{})
			got := ""
			for p, via := range fixed {
				got += fmt.Sprintf("%v via %v", p, via)
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestView(t *testing.T) {
	start := slices.Collect(maps.Values(world(t,
		"node a 10.0.0.1/24; node b 10.0.0.2/24; pool 10.65.0.0/16; block 10.65.1.0/26 a; ep web a 10.65.1.7; peer tor ip=10.0.0.254 as=65000 password=tor")))
	for name, tt := range map[string]struct {
		batch model.Batch
		want  bool
	}{
		"the same again":    {model.Batch{Puts: start}, false},
		"the same snapshot": {model.Batch{Reset: true, Puts: start, Synced: true}, false},
		"half a snapshot":   {model.Batch{Reset: true}, false},
		"less":              {model.Batch{Reset: true, Puts: start[:3], Synced: true}, true},
		"node gone":         {model.Batch{Deletes: []model.Key{{Kind: model.KindNode, Name: "b"}}}, true},
		"stranger gone":     {model.Batch{Deletes: []model.Key{{Kind: model.KindNode, Name: "x"}}}, false},
		"invalid":           {model.Batch{Invalids: []model.Invalid{{Key: model.Key{Kind: model.KindNode, Name: "b"}}}}, false},
		"invalid, snapshot": {model.Batch{
			Reset: true, Synced: true,
			Puts:     slices.DeleteFunc(slices.Clone(start), func(v model.Value) bool { return v.Key().Name == "b" }),
			Invalids: []model.Invalid{{Key: model.Key{Kind: model.KindNode, Name: "b"}}},
		}, false},
		"pod elsewhere":      {model.Batch{Puts: []model.Value{model.Endpoint{Name: "x", Node: "b", Link: "cali9"}}}, false},
		"address taken":      {model.Batch{Puts: []model.Value{model.Block{CIDR: netip.MustParsePrefix("10.65.1.0/26"), Owner: model.HostAffinity("a"), Sequence: 9}}}, false},
		"block changes hand": {model.Batch{Puts: []model.Value{model.Block{CIDR: netip.MustParsePrefix("10.65.1.0/26"), Owner: model.HostAffinity("b")}}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := NewView("a")
			if !v.Step(model.Batch{Reset: true, Puts: start, Synced: true}) {
				t.Fatal("the first snapshot changes nothing")
			}
			if got := v.Step(tt.batch); got != tt.want {
				t.Errorf("changed: %t, want %t", got, tt.want)
			}
		})
	}
	v := NewView("a")
	v.Step(model.Batch{Puts: start})
	if got := fmt.Sprint(v.Secrets()); got != "[{tor key}]" {
		t.Errorf("secrets %s", got)
	}
}

// FuzzView holds a View against Plan on the whole world, over any history of
// few objects. Whatever they say, a speaker can run the result.
func FuzzView(f *testing.F) {
	objects := []string{
		"node a 10.0.0.1/24", "node a 10.0.0.1/24 fd00::1/64 rr=1.0.0.1 rack=1", "node a as=7", "node b 10.0.0.2/24 rack=1",
		"node b 10.0.0.1/24", "node c 10.0.0.3/24 fd00::3/64 rr=1.0.0.1 as=7", "node c fd00::3/64", "bgp default mesh=off as=9",
		"bgp default port=1790 password=tor", "bgp default password=nowhere", "bgp node.b port=1791", "bgp node.a bind=node",
		"pool 10.65.0.0/16", "pool 10.65.0.0/16 noexport", "pool 10.65.1.0/24", "pool fd65::/48", "block 10.65.1.0/26 a",
		"block 10.65.1.0/26 b", "block fd65::/122 a", "ep web a 10.65.1.7", "ep web b 10.65.1.7", "ep app a 10.65.2.7+fd65::7", "ep app a 10.65.2.7 10.65.9.9",
		"peer p ip=10.0.0.254 as=65000", "peer p node=a ip=10.0.0.2 as=65000", "peer p peers=has(rack)", "peer q nodes=has(rack) peers=all() localas=7",
		"peer q ip=10.0.0.3 localas=7 via=10.0.0.9", "peer q ip=fd00::3 password=tor", "peer p as=1", "peer q ip=10.0.0.254 keepalive=99999s",
		"peer p ip=224.0.0.1 as=1", "peer q ip=0.0.0.0 as=1", "peer r nodes=all() peers=all() manual ttl=1",
	}
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, 300)
		for i := range script {
			script[i] = byte(rnd.Uint32())
		}
		f.Add(script)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		view, w := NewView("a"), model.World{}
		var last string
		for len(script) >= 3 {
			verb, at, n := script[0], int(script[1]), 1+int(script[2])%3
			script = script[3:]
			var b model.Batch
			touched := world(t, objects[at%len(objects)])
			for i := range n {
				maps.Copy(touched, world(t, objects[(at+i*7)%len(objects)]))
			}
			switch {
			case verb < 180:
				b.Puts = slices.Collect(maps.Values(touched))
			case verb < 220:
				b.Deletes = slices.Collect(maps.Keys(touched))
			default:
				b.Reset, b.Synced = true, true
				for k, v := range w {
					if _, ok := touched[k]; !ok {
						b.Puts = append(b.Puts, v)
					} else if verb < 240 {
						b.Invalids = append(b.Invalids, model.Invalid{Key: k})
					}
				}
			}
			changed := view.Step(b)
			w = w.Apply(b)
			cfg, fixed, problems := Plan("a", w, Options{Secrets: secrets})
			if err := cfg.Validate(); err != nil {
				t.Fatalf("after %+v the speaker refuses %+v: %v", b, cfg, err)
			}
			got := fmt.Sprintf("%+v %v %v", cfg, fixed, problems)
			if gotCfg, gotFixed, gotProblems := view.Plan(Options{Secrets: secrets}); fmt.Sprintf("%+v %v %v", gotCfg, gotFixed, gotProblems) != got {
				t.Fatalf("after %+v\n got %+v %v %v\nwant %s", b, gotCfg, gotFixed, gotProblems, got)
			}
			if !changed && last != "" && got != last {
				t.Fatalf("after %+v the view says that nothing changed\n got %s\nwant %s", b, got, last)
			}
			last = got
		}
	})
}

// Who looks at a node of a cluster of thousands does so often.
func BenchmarkPlan(b *testing.B) {
	w := model.World{}
	for i := range 5000 {
		n := model.Node{Name: fmt.Sprintf("n%d", i), IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 16)}
		w[n.Key()] = n
	}
	b.ReportAllocs()
	for b.Loop() {
		if cfg, _, _ := Plan("n7", w, Options{}); len(cfg.Peers) != 4999 {
			b.Fatal(len(cfg.Peers))
		}
	}
}
