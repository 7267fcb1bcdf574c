package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/selector"
)

// readRule reads a rule as the tests write it: an action, then fields such as
//
//	Allow v4 tcp from 10.0.0.0/8,10.1.0.0/16 !selector a==1 to ports 80,8080-8090,http
func readRule(t testing.TB, text string) model.Rule {
	t.Helper()
	var r model.Rule
	words := strings.Fields(text)
	r.Action = map[string]model.Action{"Allow": model.Allow, "Deny": model.Deny, "Log": model.Log, "Pass": model.Pass}[words[0]]
	end := &r.Source
	for i := 1; i < len(words); i++ {
		not, word := strings.HasPrefix(words[i], "!"), strings.TrimPrefix(words[i], "!")
		next := func() string { i++; return words[i] }
		switch word {
		case "v4":
			r.Family = 4
		case "v6":
			r.Family = 6
		case "http":
			r.Unbuilt = "http"
		case "from":
			end = &r.Source
		case "to":
			end = &r.Destination
		case "selector":
			sel, err := selector.Parse(strings.ReplaceAll(next(), "_", " "))
			if err != nil {
				t.Fatal(err)
			}
			*pick(not, &end.NotSelector, &end.Selector) = sel
		case "service":
			ns, name, _ := strings.Cut(next(), "/")
			end.Service = model.Service{Namespace: ns, Name: name}
		case "ports":
			ranges, names := readPorts(t, next())
			*pick(not, &end.NotPorts, &end.Ports) = ranges
			*pick(not, &end.NotNamedPorts, &end.NamedPorts) = names
		case "type", "code":
			n, _ := strconv.Atoi(next())
			field := pick(not, &r.NotICMP, &r.ICMP)
			*pick(word == "type", &field.TypePlus1, &field.CodePlus1) = uint16(n) + 1
		default:
			if proto := readProtocol(word); proto != 0 {
				*pick(not, &r.NotProtocol, &r.Protocol) = proto
				continue
			}
			for n := range strings.SplitSeq(word, ",") {
				list := pick(not, &end.NotNets, &end.Nets)
				*list = append(*list, netip.MustParsePrefix(n))
			}
		}
	}
	return r
}

func pick[T any](first bool, a, b *T) *T {
	if first {
		return a
	}
	return b
}

func readProtocol(word string) uint8 {
	return map[string]uint8{"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58, "sctp": 132, "udplite": 136, "89": 89}[word]
}

func readPorts(t testing.TB, text string) (ranges []model.PortRange, names []string) {
	t.Helper()
	for p := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(p, "-")
		a, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			names = append(names, p)
			continue
		}
		b := a
		if isRange {
			b, _ = strconv.ParseUint(last, 10, 16)
		}
		ranges = append(ranges, model.PortRange{First: uint16(a), Last: uint16(b)})
	}
	return ranges, names
}

// readable puts what a set is for in the place of its name.
func readable(text string, needs []Need) string {
	for _, n := range needs {
		about := n.Selector + n.Const
		switch n.Kind {
		case SetNamedPort:
			about = fmt.Sprintf("%s:%s/%d", n.Selector, n.Port, n.Protocol)
		case SetServiceAddrs, SetServicePorts:
			about = n.Service.Namespace + "/" + n.Service.Name
		case SetServiceAnyPort:
			about = n.Service.Namespace + "/" + n.Service.Name + "/" + ProtocolName(n.Protocol)
		}
		text = strings.ReplaceAll(text, "@"+n.Set().Name, "@["+about+"]")
		text = strings.ReplaceAll(text, "@"+n.NetSet().Name, "@[nets of "+about+"]")
	}
	return text
}

func TestRule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ rule, v4, v6 string }{
		{rule: "Allow", v4: "accept", v6: "accept"},
		{rule: "Deny v4", v4: "drop"},
		{rule: "Deny v6", v6: "drop"},
		{rule: "Pass tcp", v4: "meta l4proto tcp return", v6: "meta l4proto tcp return"},
		{rule: "Allow !udp", v4: "meta l4proto != udp accept", v6: "meta l4proto != udp accept"},
		{rule: "Allow tcp !tcp"},
		{rule: "Allow 10.0.0.0/8", v4: "saddr 10.0.0.0/8 accept"},
		{rule: "Allow to 10.0.0.1/32", v4: "daddr 10.0.0.1 accept"},
		{rule: "Allow 0.0.0.0/0 to fd00::/8"},
		{rule: "Allow 0.0.0.0/0", v4: "accept"},
		{rule: "Deny !0.0.0.0/0"},
		{rule: "Deny !10.0.0.0/8", v4: "saddr != 10.0.0.0/8 drop"},
		{rule: "Deny !10.0.0.0/8,fd00::/8", v4: "saddr != 10.0.0.0/8 drop", v6: "saddr != fd00::/8 drop"},
		{rule: "Allow 10.1.0.0/16,10.0.0.0/8,10.0.0.0/8", v4: "saddr 10.0.0.0/8 accept"},
		{
			rule: "Allow 10.1.0.0/16,192.168.0.0/16,fd00::/8 !10.1.1.0/24,10.1.2.0/24,fd00:1::/32",
			v4:   "saddr @[10.1.0.0/16,192.168.0.0/16] saddr != @[10.1.1.0/24,10.1.2.0/24] accept",
			v6:   "saddr fd00::/8 saddr != fd00:1::/32 accept",
		},
		{rule: "Allow icmp type 8", v4: "meta l4proto icmp icmp type 8 accept"},
		{rule: "Allow icmp type 3 code 4", v4: "meta l4proto icmp icmp type . icmp code 3 . 4 accept"},
		{rule: "Deny icmp !type 3 !code 4", v4: "meta l4proto icmp icmp type . icmp code != 3 . 4 drop"},
		{rule: "Deny icmp6 !type 128", v6: "meta l4proto ipv6-icmp icmp type != 128 drop"},
		{rule: "Allow tcp to ports 80", v4: "meta l4proto tcp th dport 80 accept", v6: "meta l4proto tcp th dport 80 accept"},
		{rule: "Allow v4 tcp to ports 80-81,82,443,60000-65535", v4: "meta l4proto tcp th dport @[80-82,443-443,60000-65535] accept"},
		{rule: "Allow v4 tcp to ports 80-81,82,443", v4: "meta l4proto tcp th dport 80-82 accept\nmeta l4proto tcp th dport 443 accept"},
		{rule: "Allow v4 tcp to !ports 80,443-445", v4: "meta l4proto tcp th dport != 80 th dport != 443-445 accept"},
		{rule: "Allow v4 icmp to ports 80"},
		{rule: "Allow v4 udp from !ports 53", v4: "meta l4proto udp th sport != 53 accept"},
		{
			rule: "Allow v4 from selector a=='x' to ports 80",
			v4: "meta l4proto tcp th dport 80 saddr @[a == \"x\"] accept\nmeta l4proto udp th dport 80 saddr @[a == \"x\"] accept\n" +
				"meta l4proto sctp th dport 80 saddr @[a == \"x\"] accept\nmeta l4proto udplite th dport 80 saddr @[a == \"x\"] accept",
		},
		{rule: "Allow v4 selector a=='x' to !selector has(b)", v4: `saddr @[a == "x"] daddr != @[has(b)] accept`},
		{
			rule: "Allow v4 tcp to selector a=='x' ports http",
			v4:   `meta l4proto tcp daddr . meta l4proto . th dport @[a == "x":http/6] accept`,
		},
		{
			rule: "Allow v4 tcp to selector a=='x' ports 80,http",
			v4: "meta l4proto tcp th dport 80 daddr @[a == \"x\"] accept\n" +
				`meta l4proto tcp daddr @[a == "x"] daddr . meta l4proto . th dport @[a == "x":http/6] accept`,
		},
		{
			rule: "Log v4 tcp to ports 80,http,admin",
			v4: "meta l4proto tcp th dport 80 continue\n" +
				"meta l4proto tcp th dport != 80 daddr . meta l4proto . th dport @[all():http/6] continue\n" +
				"meta l4proto tcp th dport != 80 daddr . meta l4proto . th dport @[all():admin/6] daddr . meta l4proto . th dport != @[all():http/6] continue",
		},
		{rule: "Allow v4 selector has(nets) !selector has(nets2)", v4: "saddr @[nets of has(nets)] saddr != @[nets of has(nets2)] accept"},
		{rule: "Allow v4 tcp selector has(mixed)", v4: "meta l4proto tcp saddr @[has(mixed)] accept\nmeta l4proto tcp saddr @[nets of has(mixed)] accept"},
		{rule: "Log v4 selector has(mixed)", v4: "saddr @[has(mixed)] continue\nsaddr @[nets of has(mixed)] saddr != @[has(mixed)] continue"},
		{rule: "Deny v4 !selector has(mixed)", v4: "saddr != @[has(mixed)] saddr != @[nets of has(mixed)] drop"},
		{
			rule: "Deny v4 selector has(mixed) to selector has(mixed2)",
			v4: "saddr @[has(mixed)] daddr @[has(mixed2)] drop\nsaddr @[has(mixed)] daddr @[nets of has(mixed2)] drop\n" +
				"saddr @[nets of has(mixed)] daddr @[has(mixed2)] drop\nsaddr @[nets of has(mixed)] daddr @[nets of has(mixed2)] drop",
		},
		{
			rule: "Log v4 tcp to selector has(mixed) ports 80,443,8443,http",
			v4: "meta l4proto tcp th dport @[80-80,443-443,8443-8443] daddr @[has(mixed)] continue\n" +
				"meta l4proto tcp th dport != @[80-80,443-443,8443-8443] daddr @[has(mixed)] daddr . meta l4proto . th dport @[has(mixed):http/6] continue\n" +
				"meta l4proto tcp th dport @[80-80,443-443,8443-8443] daddr @[nets of has(mixed)] daddr != @[has(mixed)] continue\n" +
				"meta l4proto tcp th dport != @[80-80,443-443,8443-8443] daddr @[nets of has(mixed)] daddr != @[has(mixed)] daddr . meta l4proto . th dport @[has(mixed):http/6] continue",
		},
		{rule: "Allow v4 to ports http", v4: "daddr . meta l4proto . th dport @[all():http/0] accept"},
		{rule: "Allow v4 tcp to !ports http,admin", v4: "meta l4proto tcp daddr . meta l4proto . th dport != @[all():http/6] daddr . meta l4proto . th dport != @[all():admin/6] accept"},
		{rule: "Allow v4 to service shop/web", v4: "daddr . meta l4proto . th dport @[shop/web] accept"},
		{
			rule: "Allow v4 to service shop/open",
			v4: "daddr . meta l4proto . th dport @[shop/open] accept\n" +
				"meta l4proto tcp daddr @[shop/open/TCP] daddr . meta l4proto . th dport != @[shop/open] accept\n" +
				"meta l4proto udp daddr @[shop/open/UDP] daddr . meta l4proto . th dport != @[shop/open] accept",
		},
		{
			rule: "Deny v4 udp to service shop/open",
			v4: "meta l4proto udp daddr . meta l4proto . th dport @[shop/open] drop\n" +
				"meta l4proto udp daddr @[shop/open/UDP] daddr . meta l4proto . th dport != @[shop/open] drop",
		},
		{
			rule: "Allow v4 !tcp to service shop/open",
			v4: "meta l4proto != tcp daddr . meta l4proto . th dport @[shop/open] accept\n" +
				"meta l4proto udp meta l4proto != tcp daddr @[shop/open/UDP] daddr . meta l4proto . th dport != @[shop/open] accept",
		},
		{rule: "Allow v4 from service shop/web", v4: "saddr @[shop/web] accept"},
		{rule: "Allow tcp http"},
		{rule: "Pass http"},
		{rule: "Deny tcp http", v4: "meta l4proto tcp drop", v6: "meta l4proto tcp drop"},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			t.Parallel()
			r := readRule(t, tt.rule)
			for v6, want := range map[bool]string{false: tt.v4, true: tt.v6} {
				e := Emitter{V6: v6, Parts: func(r SetRef) Parts {
					if r.Kind == SetServiceAnyPort {
						return Parts{Addrs: r.Service.Name == "open" && r.Protocol != protoSCTP}
					}
					return Parts{Addrs: !strings.Contains(r.Selector, "nets"), Nets: strings.Contains(r.Selector, "nets") || strings.Contains(r.Selector, "mixed")}
				}}
				like := e.enforced()(r.Action)
				like.Log = nil
				var lines []string
				for _, got := range e.rule(&r, like) {
					line := got.String()
					if got.Verdict == plan.Continue {
						line += " continue"
					}
					lines = append(lines, readable(line, Needs([]model.Rule{r}, v6)))
				}
				if got := strings.Join(lines, "\n"); got != want {
					t.Errorf("v6=%t:\ngot  %s\nwant %s", v6, got, want)
				}
			}
		})
	}
}

func TestRuleID(t *testing.T) {
	t.Parallel()
	key := model.Key{Kind: model.KindNetworkPolicy, Namespace: "shop", Name: "web"}
	for _, index := range []int{Default, 0, 7, 9999} {
		for _, d := range []Direction{Ingress, Egress} {
			id := RuleID(key, d, index)
			owner, gotD, got, ok := ParseRuleID(id)
			if !ok || owner != Owner(key) || gotD != d || got != index || len(id) > 24 {
				t.Errorf("%s: %s %v %d %t", id, owner, gotD, got, ok)
			}
		}
	}
	for _, bad := range []string{"", ".", "abc", "abc.", "abc.i", "abc.x1", ".i1", "abc.i-1", "abc.e+1"} {
		if _, _, _, ok := ParseRuleID(bad); ok {
			t.Errorf("%q is taken for an ID", bad)
		}
	}
	if a, b := RuleID(model.Key{Kind: "A", Name: "bc"}, Ingress, 1), RuleID(model.Key{Kind: "Ab", Name: "c"}, Ingress, 1); a == b {
		t.Errorf("two keys have one ID %s", a)
	}
}

func TestSetNames(t *testing.T) {
	t.Parallel()
	a := SetRef{Kind: SetSelected, Selector: "has(a)"}
	seen := map[string]string{}
	for what, name := range map[string]string{
		"addresses": a.Set().Name, "nets": a.NetSet().Name,
		"other":      SetRef{Kind: SetSelected, Selector: "has(b)"}.Set().Name,
		"named port": SetRef{Kind: SetNamedPort, Selector: "has(a)", Port: "p"}.Set().Name,
		"udp":        SetRef{Kind: SetNamedPort, Selector: "has(a)", Port: "p", Protocol: 17}.Set().Name,
		"service":    SetRef{Kind: SetServicePorts, Service: model.Service{Namespace: "a", Name: "b"}}.Set().Name,
		"backends":   SetRef{Kind: SetServiceAddrs, Service: model.Service{Namespace: "a", Name: "b"}}.Set().Name,
	} {
		if seen[name] != "" || len(name) > 31 {
			t.Errorf("%s and %s: %s", what, seen[name], name)
		}
		seen[name] = what
	}
}

func FuzzMaximalNets(f *testing.F) {
	f.Add("10.0.0.0/8 10.1.0.0/16 10.0.0.0/8 fd00::/8", "10.1.2.3")
	f.Add("0.0.0.0/0 1.2.3.4/32", "9.9.9.9")
	f.Fuzz(func(t *testing.T, text, addr string) {
		var nets []netip.Prefix
		for w := range strings.FieldsSeq(text) {
			if p, err := netip.ParsePrefix(w); err == nil && !p.Addr().Is4In6() && p.Addr().Zone() == "" {
				nets = append(nets, p.Masked())
			}
		}
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return
		}
		in := func(list []netip.Prefix) (n int) {
			for _, p := range list {
				if p.Contains(a) {
					n++
				}
			}
			return n
		}
		max := MaximalNets(nets, !a.Is4())
		if got, want := in(max), min(1, in(nets)); got != want {
			t.Errorf("%v is in %d of %v, which stand for %v", a, got, max, nets)
		}
	})
}
