package policy_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/policy"
)

// brief prints a delta, a line a change; names lose their hashes.
func briefDelta(d plan.FilterDelta) string {
	var out []string
	for v6, t := range map[bool]*plan.TableDelta{false: &d.V4, true: &d.V6} {
		say := func(verb, name string, what ...any) {
			if i := strings.LastIndexByte(name, '-'); len(name)-i > 12 {
				name = name[:i]
			}
			family := map[bool]string{false: "v4", true: "v6"}[v6]
			out = append(out, strings.TrimSpace(fmt.Sprintln(append([]any{family, verb, name}, what...)...)))
		}
		for _, s := range t.PutSets {
			say("put set", s.Name)
		}
		for _, s := range t.DeleteSets {
			say("delete set", s)
		}
		for _, c := range t.PutChains {
			say("put chain", c.Name)
		}
		for _, c := range t.DeleteChains {
			say("delete chain", c)
		}
		for _, c := range t.Changes {
			for _, m := range c.Put {
				say("+", c.Set, m.Net(v6))
			}
			for _, m := range c.Delete {
				say("-", c.Set, m.Net(v6))
			}
			for _, e := range c.PutElement {
				say("+", c.Set, e.Link)
			}
			for _, e := range c.DeleteElement {
				say("-", c.Set, e.Link)
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// webPolicy selects web, and lets in what from selects to a port.
func webPolicy(t testing.TB, from string, port uint16) model.Policy {
	return model.Policy{
		Origin: model.Key{Kind: model.KindGlobalNetworkPolicy, Name: "web"}, Tier: "default", Order: 10,
		Selector: parsed(t, `app == "web"`), AppliesIngress: true,
		Ingress: []model.Rule{{
			Action: model.Allow, Protocol: 6, Source: model.Entity{Selector: parsed(t, "%s", from)},
			Destination: model.Entity{Ports: []model.PortRange{{First: port, Last: port}}},
		}},
	}
}

func endpoint(node, name, app string, addrs ...string) model.Endpoint {
	e := model.Endpoint{
		Namespace: "ns", Name: name, Node: node, Link: "cali" + name, Labels: map[string]string{"app": app}, Profiles: []string{"kns.ns"},
	}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
	}
	return e
}

// smallWorld is one local web pod with a policy, and a client elsewhere.
func smallWorld(t testing.TB) []model.Value {
	allow := []model.Rule{{Action: model.Allow}}
	return []model.Value{
		model.Profile{Name: "kns.ns", Labels: map[string]string{"pcns.a": "b"}, Ingress: allow, Egress: allow},
		webPolicy(t, `role == "client"`, 80),
		endpoint(benchNode, "web1", "web", "10.0.0.1"),
		client("10.0.0.9", "client"),
		model.NetworkSet{Name: "s", Nets: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}, Labels: map[string]string{"role": "client"}},
	}
}

func client(addr, role string) model.Endpoint {
	e := endpoint("elsewhere", "c1", "x", addr)
	e.Labels["role"] = role
	return e
}

func netSet(nets ...string) model.NetworkSet {
	s := model.NetworkSet{Name: "s", Labels: map[string]string{"role": "client"}}
	for _, n := range nets {
		s.Nets = append(s.Nets, netip.MustParsePrefix(n))
	}
	return s
}

// A change costs what it changes.
func TestDeltasAreMinimal(t *testing.T) {
	t.Parallel()
	put := func(vs ...model.Value) model.Batch { return model.Batch{Puts: vs} }
	web2, dual := endpoint(benchNode, "web2", "web", "10.0.0.2"), endpoint(benchNode, "web1", "web", "10.0.0.1", "fd00::1")
	bare := web2
	bare.Profiles = nil
	relabelled := client("10.0.0.9", "client")
	relabelled.Labels["more"] = "labels"
	unused := webPolicy(t, `role == "client"`, 80)
	unused.Origin.Name, unused.Selector = "unused", parsed(t, `app == "nobody"`)
	later := webPolicy(t, `role == "client"`, 80)
	later.Order = 20
	passing := webPolicy(t, `role == "client"`, 80)
	passing.Ingress[0].Action = model.Pass
	// What comes to be behind a tier makes another list.
	const relisted = "v4 + to-workload-links caliweb1\nv4 + to-workload-lists\nv4 - to-workload-lists\n"
	deny, ask := []model.Rule{{Action: model.Deny}}, []model.Rule{{Action: model.Allow, Protocol: 6}}
	denying := model.Profile{Name: "kns.ns", Labels: map[string]string{"pcns.a": "b"}, Ingress: deny, Egress: deny}
	asking := model.Profile{Name: "kns.ns", Labels: denying.Labels, Ingress: ask, Egress: ask}
	for name, tt := range map[string]struct {
		batch model.Batch
		want  string
	}{
		"a client stops being one":    {put(client("10.0.0.9", "other")), "v4 - sa 10.0.0.9/32"},
		"a client moves":              {put(client("10.0.0.8", "client")), "v4 + sa 10.0.0.8/32\nv4 - sa 10.0.0.9/32"},
		"a label nobody asks for":     {put(relabelled), ""},
		"a policy without endpoints":  {put(unused), ""},
		"an order that changes none":  {put(later), ""},
		"the same snapshot again":     {model.Batch{Reset: true, Puts: smallWorld(t), Synced: true}, ""},
		"an invalid policy":           {model.Batch{Invalids: []model.Invalid{{Key: unused.Origin}, {Key: later.Origin, Strict: unused}}}, ""},
		"a rule":                      {put(webPolicy(t, `role == "client"`, 81)), "v4 put chain policy-i"},
		"a Pass rule":                 {put(passing), relisted + "v4 delete chain list\nv4 delete chain policy-i\nv4 put chain list\nv4 put chain tier-i"},
		"a tier that passes":          {put(model.Tier{Name: "default", Order: 1e6, Default: model.Pass}), relisted + "v4 delete chain list\nv4 put chain list"},
		"a tier of nobody":            {put(model.Tier{Name: "other", Default: model.Pass}), ""},
		"a profile that denies":       {put(denying), "v4 put chain list"},
		"a profile that asks":         {put(asking), "v4 put chain list\nv4 put chain profile-e"},
		"another address in a set":    {put(netSet("192.0.2.1/32", "192.0.2.2/32")), "v4 + sa 192.0.2.2/32"},
		"an address that two give":    {put(netSet("192.0.2.1/32", "10.0.0.9/32")), ""},
		"a CIDR makes another set":    {put(netSet("192.0.2.0/24", "192.0.2.1/32")), "v4 + sn 192.0.2.0/24\nv4 put chain policy-i\nv4 put set sn"},
		"CIDRs alone need no other":   {model.Batch{Puts: []model.Value{netSet("192.0.2.0/24", "192.0.0.0/16")}, Deletes: []model.Key{client("10.0.0.9", "").Key()}}, "v4 + sn 192.0.0.0/16\nv4 delete set sa\nv4 put chain policy-i\nv4 put set sn"},
		"a net that another one has":  {put(netSet("192.0.2.1/32", "192.0.2.1/32")), ""},
		"an endpoint of a known list": {put(web2), "v4 + from-workload-links caliweb2\nv4 + source-addrs caliweb2\nv4 + to-workload-links caliweb2"},
		"an endpoint without profile": { // which only matters where no policy is
			put(bare), "v4 + from-workload-links caliweb2\nv4 + from-workload-lists\nv4 + source-addrs caliweb2\nv4 + to-workload-links caliweb2\nv4 put chain list",
		},
		"an endpoint goes": {
			model.Batch{Deletes: []model.Key{client("10.0.0.9", "").Key()}}, "v4 - sa 10.0.0.9/32",
		},
		"the last endpoint of a list goes": {
			model.Batch{Deletes: []model.Key{dual.Key()}},
			"v4 - from-workload-links caliweb1\nv4 - from-workload-lists\nv4 - source-addrs caliweb1\nv4 - to-workload-links caliweb1\nv4 - to-workload-lists\n" +
				"v4 delete chain list\nv4 delete chain list\nv4 delete chain policy-i\nv4 delete set sa",
		},
		"a second family": {
			put(dual), "v6 + from-workload-links caliweb1\nv6 + from-workload-lists\nv6 + source-addrs caliweb1\nv6 + to-workload-links caliweb1\nv6 + to-workload-lists\n" +
				"v6 put chain list\nv6 put chain list\nv6 put chain policy-i\nv6 put set sa",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := policy.NewGraph(benchNode)
			g.Step(model.Batch{Reset: true, Puts: smallWorld(t), Synced: true})
			got := briefDelta(g.Step(tt.batch))
			// The keys of maps of lists are hashes.
			lines := strings.Split(got, "\n")
			for i, l := range lines {
				if f := strings.Fields(l); len(f) == 4 && strings.HasSuffix(f[2], "-lists") {
					lines[i] = strings.Join(f[:3], " ")
				}
			}
			if d := cmp.Diff(tt.want, strings.Join(lines, "\n")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// A snapshot takes away what it does not mention, only once it is complete; objects that
// are invalid now stay as they were.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	g := policy.NewGraph(benchNode)
	world := smallWorld(t)
	g.Step(model.Batch{Reset: true, Puts: world, Synced: true})
	if d := g.Step(model.Batch{Reset: true}); !d.Empty() {
		t.Errorf("the begin of a snapshot changes\n%s", briefDelta(d))
	}
	other := webPolicy(t, `role == "client"`, 81)
	for _, b := range []model.Batch{
		{Puts: []model.Value{world[0], other, world[2]}},
		{Invalids: []model.Invalid{{Key: world[3].Key()}}},
	} {
		if d := g.Step(b); !d.Empty() {
			t.Errorf("its middle changes\n%s", briefDelta(d))
		}
	}
	if d := g.SetLinks([]policy.Link{{Name: "eth0"}}); !d.Empty() {
		t.Errorf("interfaces in its middle change\n%s", briefDelta(d))
	}
	if got, want := briefDelta(g.Step(model.Batch{Synced: true})), "v4 - sa 192.0.2.1/32\nv4 put chain policy-i"; got != want {
		t.Errorf("its end changes\n%s, want\n%s", got, want)
	}
}

// What can be understood of an invalid object counts for who never knew a good version.
func TestStrict(t *testing.T) {
	t.Parallel()
	invalid := func(port uint16) model.Batch {
		v := webPolicy(t, `role == "client"`, port)
		return model.Batch{Invalids: []model.Invalid{{Key: v.Key(), Err: errors.New("broken"), Strict: v}}}
	}
	good := model.Batch{Puts: []model.Value{webPolicy(t, `role == "client"`, 80)}}
	gone := model.Batch{Deletes: []model.Key{good.Puts[0].Key()}}
	again := model.Batch{Reset: true, Puts: smallWorld(t)[:1], Synced: true}
	again.Puts = append(again.Puts, smallWorld(t)[2:]...)
	snapshot := func(in model.Batch) model.Batch {
		in.Reset, in.Synced, in.Puts = true, true, again.Puts
		return in
	}
	for name, tt := range map[string]struct {
		batches []model.Batch
		want    string // port that the policy lets in at the end
	}{
		"never known":                    {[]model.Batch{gone, invalid(81)}, "81"},
		"known":                          {[]model.Batch{invalid(81)}, "80"},
		"strict, and strict again":       {[]model.Batch{gone, invalid(81), invalid(82)}, "82"},
		"strict, then good, then broken": {[]model.Batch{gone, invalid(81), good, invalid(82)}, "80"},
		"deleted in between":             {[]model.Batch{gone, invalid(82)}, "82"},
		"known, in a snapshot":           {[]model.Batch{snapshot(invalid(81))}, "80"},
		"strict, in a snapshot":          {[]model.Batch{gone, invalid(81), snapshot(invalid(82))}, "82"},
		"gone by a snapshot":             {[]model.Batch{again}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := policy.NewGraph(benchNode)
			table := plan.Filter{}.Apply(g.Step(model.Batch{Reset: true, Puts: smallWorld(t), Synced: true}))
			for _, b := range tt.batches {
				table = table.Apply(g.Step(b))
			}
			got := ""
			for name, c := range table.V4.Chains {
				if strings.HasPrefix(name, "policy-") {
					got = fmt.Sprint(c.Rules[0].Match[slices.IndexFunc(c.Rules[0].Match, func(m plan.Match) bool { return m.Kind == plan.MatchDstPort })].Low)
				}
			}
			if got != tt.want {
				t.Errorf("port %q, want %q", got, tt.want)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	g := policy.NewGraph(benchNode)
	rival := endpoint(benchNode, "web2", "web", "10.0.0.2")
	rival.Link, rival.Profiles = "caliweb1", []string{"none"}
	odd := webPolicy(t, "all()", 80)
	odd.Origin.Name, odd.Tier = "odd", "gone"
	odd.Ingress[0].Field, odd.Ingress[0].Unbuilt = "spec.ingress[0]", "http"
	g.Step(model.Batch{Reset: true, Puts: append(smallWorld(t), rival, odd)})
	if got := g.Problems(); len(got) > 0 {
		t.Errorf("within the first snapshot: %v", got)
	}
	g.Step(model.Batch{Synced: true})
	var got []string
	for _, p := range g.Problems() {
		got = append(got, p.String())
	}
	want := []string{
		`GlobalNetworkPolicy/odd: spec.ingress[0]: http is not built: the rule allows nothing`,
		`GlobalNetworkPolicy/odd: tier "gone": there is no such object: the policy is enforced in a tier behind all others`,
		`WorkloadEndpoint/ns/web2: interface caliweb1: WorkloadEndpoint/ns/web1 has it already: policy of that endpoint applies, not of this one; an interface belongs to one workload`,
		`WorkloadEndpoint/ns/web2: profile "none": there is no such object: it gives neither labels nor rules`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	g.Step(model.Batch{Puts: []model.Value{model.Tier{Name: "gone"}}, Deletes: []model.Key{rival.Key()}})
	if got := g.Problems(); len(got) != 1 {
		t.Errorf("with the tier, without the rival: %v, want the one about http", got)
	}
	g.Step(model.Batch{Deletes: []model.Key{odd.Origin}})
	if got := g.Problems(); len(got) != 0 {
		t.Errorf("at last: %v", got)
	}
}
