package policy_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/selector"
)

func TestSettingsFor(t *testing.T) {
	t.Parallel()
	yes, no, accept, burst := true, false, model.Allow, uint32(50)
	sel, err := selector.Parse("zone == 'east'")
	if err != nil {
		t.Fatal(err)
	}
	node := model.Node{Name: "a", Labels: map[string]string{"zone": "east"}}
	nets, port := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, uint16(7)
	rate := &model.LogRate{Packets: 10, Per: time.Minute}
	configs := map[string]model.FelixConfig{
		"default": {Name: "default", InterfacePrefixes: []string{"tap"}, Filter: model.FilterConfig{ToHost: &accept, Reject: &yes, AllowIPIP: &yes, LogRate: rate}},
		"east":    {Name: "east", NodeSelector: sel, Filter: model.FilterConfig{Reject: &no, FailsafeIn: []model.Failsafe{}}},
		"own":     {Name: "node.a", Filter: model.FilterConfig{AllowIPIP: &no}},
		"other":   {Name: "node.b", Filter: model.FilterConfig{ToHost: new(model.Action)}},
		"burst":   {Name: "east", NodeSelector: sel, Filter: model.FilterConfig{LogBurst: &burst}},
		"wg":      {Name: "default", Tunnel: model.TunnelConfig{WireGuard: &yes, WireGuardV6: &yes, ExternalNodes: nets, WireGuardPort: &port}},
		"wg off":  {Name: "node.a", Tunnel: model.TunnelConfig{WireGuardV6: &no, ExternalNodes: []netip.Prefix{}}},
		"process": {Filter: model.FilterConfig{KeepDenied: &yes}},
	}
	for name, tt := range map[string]struct {
		from []string
		want func(*policy.Settings)
	}{
		"nothing":        {nil, func(*policy.Settings) {}},
		"another node's": {[]string{"other"}, func(*policy.Settings) {}},
		"default": {[]string{"default"}, func(s *policy.Settings) {
			s.Prefixes, s.ToHost, s.Reject, s.AllowIPIP = []string{"tap"}, model.Allow, true, true
			s.LogRate, s.LogPerSeconds, s.LogBurst = 10, 60, 5
		}},
		"selected over default": {[]string{"east", "default"}, func(s *policy.Settings) {
			s.Prefixes, s.ToHost, s.AllowIPIP = []string{"tap"}, model.Allow, true
			s.LogRate, s.LogPerSeconds, s.LogBurst = 10, 60, 5
			s.FailsafeIn = []model.Failsafe{}
		}},
		"own over all": {[]string{"default", "own"}, func(s *policy.Settings) {
			s.Prefixes, s.ToHost, s.Reject = []string{"tap"}, model.Allow, true
			s.LogRate, s.LogPerSeconds, s.LogBurst = 10, 60, 5
		}},
		"WireGuard, external nodes": {[]string{"wg"}, func(s *policy.Settings) {
			s.WireGuardPort, s.WireGuardPortV6, s.ExternalNodes = 7, model.DefaultWireGuardPortV6, nets
		}},
		"of IPv4 only, no external nodes": {[]string{"wg", "wg off"}, func(s *policy.Settings) { s.WireGuardPort = 7 }},
		"a burst without a rate":          {[]string{"burst"}, func(s *policy.Settings) { s.LogBurst = 50 }},
		"a burst beside a rate": {[]string{"burst", "default"}, func(s *policy.Settings) {
			s.Prefixes, s.ToHost, s.Reject, s.AllowIPIP = []string{"tap"}, model.Allow, true, true
			s.LogRate, s.LogPerSeconds, s.LogBurst = 10, 60, 50
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var values []model.Value
			for _, n := range tt.from {
				values = append(values, configs[n])
			}
			want := policy.DefaultSettings()
			tt.want(&want)
			if got := policy.SettingsFor(node, slices.Values(values)); !got.Equal(want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			want.EndFlows = false
			if got := policy.SettingsFor(node, slices.Values(values), configs["process"]); !got.Equal(want) {
				t.Errorf("with the process's own: got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// base judges packets by the base alone: no endpoint has policy.
func TestBase(t *testing.T) {
	t.Parallel()
	with := func(change func(*policy.Settings)) policy.Settings {
		s := policy.DefaultSettings()
		s.Prefixes = []string{"cali", "tap"}
		change(&s)
		return s
	}
	usual := with(func(*policy.Settings) {})
	hosts := policy.PointsFor(true, func(policy.Stage, policy.Direction) bool { return true })
	p := func(in, out, src string, proto uint8, port uint16, state uint16) plan.Packet {
		dst := netip.MustParseAddr("10.9.9.9")
		if a := netip.MustParseAddr(src); !a.Is4() {
			dst = netip.MustParseAddr("2001:db8::9")
		}
		return plan.Packet{InLink: in, OutLink: out, Src: netip.MustParseAddr(src), Dst: dst, Protocol: proto, DstPort: port, State: state}
	}
	icmp6 := func(p plan.Packet, typ uint8) plan.Packet {
		p.Protocol, p.ICMPType = 58, typ
		return p
	}
	const n, est, inv = plan.StateNew, plan.StateEstablished, plan.StateInvalid
	for name, tt := range map[string]struct {
		settings policy.Settings
		used     policy.Points
		hook     plan.Hook
		packet   plan.Packet
		allowed  bool
	}{
		"neither end is ours":                      {usual, 0, plan.Forward, p("eth0", "eth1", "10.0.0.1", 6, 80, n), true},
		"invalid, neither end is ours":             {usual, 0, plan.Forward, p("eth0", "eth1", "10.0.0.1", 6, 80, inv), true},
		"unknown interface in":                     {usual, 0, plan.Forward, p("cali9", "eth1", "10.0.0.1", 6, 80, n), false},
		"unknown interface of the other prefix in": {usual, 0, plan.Forward, p("tap9", "eth1", "10.0.0.1", 6, 80, n), false},
		"unknown interface out":                    {usual, 0, plan.Forward, p("eth0", "cali9", "10.0.0.1", 6, 80, n), false},
		"established":                              {usual, hosts, plan.Forward, p("cali9", "cali8", "10.0.0.1", 6, 80, est), true},
		"source of nobody":                         {usual, 0, plan.Prerouting, p("cali9", "", "10.0.0.1", 6, 80, est), false},
		"source from elsewhere":                    {usual, hosts, plan.Prerouting, p("eth0", "", "10.0.0.1", 6, 80, n), true},
		"link-local source":                        {usual, 0, plan.Prerouting, p("cali9", "", "fe80::1", 6, 80, n), true},
		"no source, looking for duplicates":        {usual, 0, plan.Prerouting, icmp6(p("cali9", "", "::", 58, 0, plan.StateUntracked), 135), true},
		"no source, something else":                {usual, 0, plan.Prerouting, p("cali9", "", "::", 17, 0, n), false},
		"link-local is not forwarded":              {usual, 0, plan.Forward, p("cali9", "eth0", "fe80::1", 6, 80, n), false},
		"neighbour solicitation":                   {usual, 0, plan.Input, icmp6(p("cali9", "", "fe80::1", 58, 0, plan.StateUntracked), 135), true},
		"router advertisement of a workload":       {usual, 0, plan.Input, icmp6(p("cali9", "", "fe80::1", 58, 0, plan.StateUntracked), 134), false},
		"workload to its host":                     {usual, 0, plan.Input, p("cali9", "", "10.0.0.1", 6, 80, n), false},
		"from elsewhere to the host":               {usual, 0, plan.Input, p("eth0", "", "10.0.0.1", 6, 80, n), true},
		"host to its workload":                     {usual, hosts, plan.Output, p("", "cali9", "10.0.0.1", 6, 80, n), true},
		"host to elsewhere, without a list":        {usual, hosts, plan.Output, p("", "eth0", "10.0.0.1", 6, 80, n), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := policy.Emitter{Settings: tt.settings, V6: !tt.packet.Src.Is4()}.Base(tt.used)
			if j := table.Judge(tt.hook, tt.packet); j.Denied() == tt.allowed {
				t.Errorf("%+v", j)
			}
		})
	}
}

// A failsafe port is never closed: not by a host endpoint without policy, not by one
// that denies all before connection tracking.
func TestFailsafe(t *testing.T) {
	t.Parallel()
	s := policy.DefaultSettings()
	s.FailsafeIn = []policy.Failsafe{{Protocol: 6, Port: 22, Net: netip.MustParsePrefix("10.0.0.0/8")}}
	e := policy.Emitter{Settings: s}
	deny := &model.Policy{
		Origin: model.Key{Kind: model.KindGlobalNetworkPolicy, Name: "deny"}, AppliesIngress: true, DoNotTrack: true, ApplyOnForward: true,
		Ingress: []model.Rule{{Action: model.Deny}},
	}
	for _, tt := range []struct {
		src  string
		port uint16
		want bool
	}{{"10.1.1.1", 22, true}, {"192.0.2.1", 22, false}, {"10.1.1.1", 23, false}} {
		table := e.Base(policy.PointsFor(true, func(policy.Stage, policy.Direction) bool { return true }))
		for _, l := range []policy.List{
			{Host: true, Stage: policy.Untracked, Tiers: []policy.TierList{{Policies: []*model.Policy{deny}}}},
			{Host: true, Stage: policy.Normal},
		} {
			table = table.Apply(plan.TableDelta{PutChains: []plan.Chain{
				e.ListChain(l), l.Point().AnyChain(l.Name()), e.PolicyChain(deny, policy.Ingress),
			}})
		}
		p := plan.Packet{InLink: "eth0", Src: netip.MustParseAddr(tt.src), Dst: netip.MustParseAddr("10.0.0.1"), Protocol: 6, DstPort: tt.port, State: plan.StateNew}
		for _, hook := range []plan.Hook{plan.Prerouting, plan.Input} {
			if j := table.Judge(hook, p); j.Denied() == tt.want {
				t.Errorf("%v port %d at %v: %+v", p.Src, p.DstPort, hook, j)
			}
		}
	}
}

// Chains have one name for what is equal, and different ones for what is not.
func TestListNames(t *testing.T) {
	t.Parallel()
	pol := func(name string) *model.Policy {
		return &model.Policy{Origin: model.Key{Kind: model.KindGlobalNetworkPolicy, Name: name}}
	}
	tiers := func(names ...string) []policy.TierList {
		var ps []*model.Policy
		for _, n := range names {
			ps = append(ps, pol(n))
		}
		return []policy.TierList{{Tier: model.Tier{Name: "default"}, Policies: ps}}
	}
	lists := map[string]policy.List{
		"ingress":   {Tiers: tiers("a", "b")},
		"egress":    {Tiers: tiers("a", "b"), Direction: policy.Egress},
		"order":     {Tiers: tiers("b", "a")},
		"host":      {Tiers: tiers("a", "b"), Host: true},
		"forwarded": {Tiers: tiers("a", "b"), Host: true, Stage: policy.Forwarded},
		"untracked": {Tiers: tiers("a", "b"), Host: true, Stage: policy.Untracked},
		"profile":   {Tiers: tiers("a", "b"), Profiles: []*model.Profile{{Name: "p"}}},
		"two tiers": {Tiers: append(tiers("a"), tiers("b")...)},
		"none":      {},
	}
	seen := map[string]string{}
	for name, l := range lists {
		if other, ok := seen[l.Class()]; ok {
			t.Errorf("%s and %s are one class", name, other)
		}
		seen[l.Class()] = name
		again := l
		again.Tiers = slices.Clone(l.Tiers)
		if len(l.Class()) > 15 || l.Name() != again.Name() {
			t.Errorf("%s: class %q, names %q and %q", name, l.Class(), l.Name(), again.Name())
		}
	}
	normal, forwarded := lists["host"], lists["forwarded"]
	if a, b := policy.TierChainName(normal.Tiers[0], normal.Stage, normal.Direction), policy.TierChainName(forwarded.Tiers[0], forwarded.Stage, forwarded.Direction); a != b {
		t.Errorf("normal and forwarded do not share a tier's chain: %s, %s", a, b)
	}
}

// A packet of the node to a service is judged by the interface that it leaves by after
// destination NAT, not by the one that it was first routed to.
func TestHostEgressAfterNAT(t *testing.T) {
	t.Parallel()
	s := policy.DefaultSettings()
	e := policy.Emitter{Settings: s}
	l := policy.List{Host: true, Stage: policy.Normal, Direction: policy.Egress} // denies all
	table := e.Base(policy.PointsFor(true, func(policy.Stage, policy.Direction) bool { return false }))
	table = table.Apply(plan.TableDelta{
		PutChains: []plan.Chain{e.ListChain(l)},
		Changes: []plan.SetChange{
			{Set: policy.HostOut.Classes(), PutElement: []plan.Element{{Link: "eth0", Value: l.Class()}}},
			{Set: policy.HostOut.Chains(), PutElement: []plan.Element{{Link: l.Class(), Value: l.Name()}}},
		},
	})
	for _, tt := range []struct {
		first, last string
		want        bool
	}{{"eth0", "cali1", true}, {"cali1", "eth0", false}, {"eth0", "eth0", false}, {"eth0", "eth1", true}} {
		p := plan.Packet{OutLink: tt.first, Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.9.0.1"), Protocol: 6, DstPort: 80, State: plan.StateNew}
		j := table.Judge(plan.Output, p)
		if !j.Denied() {
			p.Mark, p.OutLink = j.Mark, tt.last
			j = table.Judge(plan.Postrouting, p)
		}
		if j.Denied() == tt.want || j.Mark != 0 {
			t.Errorf("%s, then %s: %+v", tt.first, tt.last, j)
		}
	}
	// What is forwarded is none of this.
	p := plan.Packet{OutLink: "eth0", Src: netip.MustParseAddr("10.9.0.2"), Dst: netip.MustParseAddr("10.9.0.1"), Protocol: 6, State: plan.StateNew}
	if j := table.Judge(plan.Postrouting, p); j.Denied() {
		t.Errorf("forwarded: %+v", j)
	}
}
