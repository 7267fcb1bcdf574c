package topology_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/examples"
	"github.com/weft-net/weft/internal/lab/topology"
)

func TestQuickstart(t *testing.T) {
	t.Parallel()
	topo, err := topology.Parse("quickstart.yaml", examples.Quickstart)
	if err != nil {
		t.Fatal(err)
	}
	if n, p := len(topo.Nodes), len(topo.Pods); n != 3 || p != 6 {
		t.Errorf("%d nodes and %d pods, want 3 and 6", n, p)
	}
	if got := fmt.Sprint(topo.Nodes[2].Addresses); got != "[10.173.32.13]" {
		t.Errorf("node-c has %s, want [10.173.32.13]", got)
	}
}

// TestExamples reads what we give to users.
func TestExamples(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if topo, err := topology.Parse(filepath.Base(file), body); err != nil || len(topo.Expect) == 0 {
			t.Errorf("%v, or it expects nothing", err)
		}
	}
}

// TestDocumented reads the topology that docs/lab.md explains the fields by.
func TestDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/lab.md has no topology")
	}
	topo, err := topology.Parse("docs/lab.md", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if len(topo.Expect) != 9 || len(topo.Routers) != 1 || len(topo.Secrets) != 1 {
		t.Errorf("it lacks expectations, routers or secrets: %+v", topo)
	}
}

// two is what most cases start from.
const two = "racks: [{name: r1, subnets: [10.1.0.0/24, 'fd00:1::/64']}, {name: r2}]\n" +
	"nodes: [{name: a, rack: r1}, {name: b, rack: r2}]\n"

func TestDefaultsAndAddresses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"one rack by default":       {"nodes: [{name: a}, {name: b}]", "a 10.99.1.11; b 10.99.1.12"},
		"one of each subnet":        {two, "a 10.1.0.11 fd00:1::b; b 10.99.2.11"},
		"given ones are kept":       {"nodes: [{name: a}, {name: b, addresses: [10.99.1.11]}]", "a 10.99.1.12; b 10.99.1.11"},
		"routers come first":        {"nodes: [{name: a}]\nrouters: [{name: tor}]", "a 10.99.1.11; tor 10.99.1.2"},
		"half given":                {"racks: [{name: r, subnets: [10.1.0.0/24, 'fd00::/64']}]\nnodes: [{name: a, addresses: ['fd00::99']}]", "a 10.1.0.11 fd00::99"},
		"small subnet":              {"racks: [{name: r, subnets: [10.1.0.0/29]}]\nnodes: [{name: a}, {name: b}]", "a 10.1.0.2; b 10.1.0.3"},
		"address that another took": {"nodes: [{name: a, addresses: [10.99.1.12]}, {name: b}, {name: c}]", "a 10.99.1.12; b 10.99.1.11; c 10.99.1.13"},
		"links come last":           {"racks: [{name: r}, {name: s}]\nnodes: [{name: a, rack: r, links: [{rack: s}, {rack: s, addresses: [10.99.2.99]}]}, {name: b, rack: s}]", "a 10.99.1.11; a/eth1 10.99.2.12; a/eth2 10.99.2.99; b 10.99.2.11"},
		"outside":                   {"outside: [{name: o}, {name: p, addresses: [203.0.113.1]}, {name: q}]", "o 198.51.100.11; p 203.0.113.1; q 198.51.100.13"},
		"outside, of all families":  {"outside: [{name: o}]\n" + two, "a 10.1.0.11 fd00:1::b; b 10.99.2.11; o 198.51.100.11 2001:db8:51::b"},
		"outside, given":            {"outside: [{name: o}, {name: p, addresses: [198.51.100.11]}]", "o 198.51.100.12; p 198.51.100.11"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topo, err := topology.Parse("lab.yaml", []byte(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, addresses(topo)); d != "" {
				t.Errorf("addresses (-want +got):\n%s", d)
			}
		})
	}
}

func addresses(topo *topology.Topology) string {
	var out []string
	add := func(name string, addrs []netip.Addr) {
		out = append(out, name+" "+strings.Trim(fmt.Sprint(addrs), "[]"))
	}
	for _, n := range topo.Nodes {
		add(n.Name, n.Addresses)
		for _, i := range n.Interfaces()[1:] {
			add(n.Name+"/"+i.Name, i.Addresses)
		}
	}
	for _, r := range topo.Routers {
		add(r.Name, r.Addresses)
	}
	for _, o := range topo.Outside {
		add(o.Name, o.Addresses)
	}
	return strings.Join(out, "; ")
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"not YAML":            {"nodes: [", "line 1"},
		"not a mapping":       {"- a", "not a mapping: must have the fields racks"},
		"empty":               {"", "not a mapping"},
		"twice":               {"nodes: []\nnodes: []", `"nodes" already`},
		"unknown field":       {"nodes: [{name: a, rakc: r1}]", "nodes[0].rakc: no such field; allowed are name, rack,"},
		"not a list":          {"nodes: {name: a}", `nodes: {"name":"a"}: must be a list`},
		"not an address":      {"nodes: [{name: a, addresses: [10.1.0]}]", `nodes[0].addresses[0]: "10.1.0": must be an IP address`},
		"not text":            {"nodes: [{name: 1}]", `nodes[0].name: 1: must be text`},
		"not a duration":      {two + "expect: [{reachable: {from: a, to: b}, within: 5}]", "expect[0].within: 5: must be a duration"},
		"env is text":         {"env: {AS: [1]}", "env.AS: [1]: must be text"},
		"secret is a mapping": {"secrets: {a: b}", `secrets.a: "b": must be a mapping`},
		"secret with a path":  {"secrets: {a: {../b: c}}", "secrets.a.../b: must be 1 to 253 letters"},
		"number too large":    {"routers: [{name: a, asn: 4294967296}]", "routers[0].asn: 4294967296: must be a number from 0 to 4294967295"},
		"bad name":            {"nodes: [{name: Node_A}]", `nodes[0].name: "Node_A": must be 1 to 63 of`},
		"path in a name":      {"nodes: [{name: ../../etc}]", `must be 1 to 63 of`},
		"reserved name":       {"nodes: [{name: fabric}]", "the name of the router between the racks already"},
		"name given twice":    {"nodes: [{name: a}]\nrouters: [{name: a}]", `routers[0].name: "a": that is the name of nodes[0] already`},
		"no such rack":        {two + "routers: [{name: tor, rack: r3}]", `routers[0].rack: "r3": must be one of r1, r2`},
		"rack is needed":      {two + "routers: [{name: tor}]", `routers[0].rack: "": must be one of r1, r2`},
		"unmasked":            {"racks: [{name: r, subnets: [10.1.0.1/24]}]", "must be masked: 10.1.0.0/24"},
		"overlap":             {"racks: [{name: r, subnets: [10.1.0.0/16]}, {name: s, subnets: [10.1.2.0/24]}]", "overlaps a subnet of rack r"},
		"two of a family":     {"racks: [{name: r, subnets: [10.1.0.0/24, 10.2.0.0/24]}]", "at most one subnet of each family"},
		"subnet too small":    {"racks: [{name: r, subnets: [10.1.0.0/30]}]", "must have a length of 8 to 29"},
		"outside of the rack": {"nodes: [{name: a, addresses: [10.1.0.5]}]", "nodes[0].addresses[0]: 10.1.0.5: must be in a subnet of rack rack-1"},
		"the gateway's":       {"nodes: [{name: a, addresses: [10.99.1.1]}]", "that is the address of the fabric already"},
		"the broadcast":       {"nodes: [{name: a, addresses: [10.99.1.255]}]", "the subnet's broadcast already"},
		"address twice":       {"nodes: [{name: a, addresses: [10.99.1.5]}, {name: b, addresses: [10.99.1.5]}]", "that is the address of a already"},
		"rack is full":        {"racks: [{name: r, subnets: [10.1.0.0/29]}]\nnodes: [{name: a}, {name: b}, {name: c}, {name: d}, {name: e}, {name: f}]", "has no address left for node f"},
		"pod without a node":  {two + "pods: [{name: p, node: c}]", `pods[0].node: "c": must be one of a, b`},
		"pod twice":           {two + "pods: [{name: p, node: a}, {name: p, node: b}]", `namespace default has a pod of that name already`},
		"peer that is none":   {two + "routers: [{name: tor, rack: r1, peers: [x]}]", `routers[0].peers[0]: "x": must be one of a, b`},
		"resource no kind":    {"resources: [{apiVersion: projectcalico.org/v3}]", "resources[0].kind: missing"},
		"expects nothing":     {two + "expect: [{within: 5s}]", "expect[0]: must have exactly one of reachable, unreachable, route, noRoute, mtu"},
		"expects two things":  {two + "expect: [{reachable: {from: a, to: b}, unreachable: {from: a, to: b}}]", "expect[0]: must have exactly one"},
		"target unknown":      {two + "expect: [{reachable: {from: a, to: pod/default/x}}]", `expect[0].reachable.to: "pod/default/x": the lab has no such target: must be a, b, fabric`},
		"no target":           {two + "expect: [{reachable: {to: b}}]", "expect[0].reachable.from: missing"},
		"from an address":     {two + "expect: [{reachable: {from: 10.0.0.1, to: b}}]", "an address is no place in the lab"},
		"bad pattern":         {two + "expect: [{route: {at: a, line: '/(/'}}]", "expect[0].route.line"},
		"mtu too small":       {"racks: [{name: r, mtu: 67}]", "racks[0].mtu: 67: must be 68 to 65535 bytes"},
		"mtu of IPv6":         {"racks: [{name: r, subnets: ['fd00::/64'], mtu: 1279}]", "racks[0].mtu: 1279: must be 1280 at least, as the rack has an IPv6 subnet"},
		"mtu too large":       {"racks: [{name: r, mtu: 65536}]", "racks[0].mtu: 65536: must be a number from 0 to 65535"},
		"loss of more":        {"racks: [{name: r, loss: 100.5}]", "racks[0].loss: 100.5: must be 0 to 100 percent of packets"},
		"loss is a number":    {"racks: [{name: r, loss: some}]", `racks[0].loss: "some": must be a number`},
		"strict is a word":    {"strict: 1", "strict: 1: must be true or false"},
		"link to no rack":     {"racks: [{name: r}, {name: s}]\nnodes: [{name: a, rack: r, links: [{rack: s}, {}]}]", `nodes[0].links[1].rack: "": must be one of r, s`},
		"link out of rack":    {"racks: [{name: r}, {name: s}]\nnodes: [{name: a, rack: r, links: [{rack: s, addresses: [10.99.1.5]}]}]", "nodes[0].links[0].addresses[0]: 10.99.1.5: must be in a subnet of rack s"},
		"outside in a rack":   {"outside: [{name: o, addresses: [10.99.1.5]}]", "outside[0].addresses[0]: 10.99.1.5: is in a subnet of rack rack-1: must be outside of all racks"},
		"outside twice":       {"outside: [{name: o, addresses: [192.0.2.1]}, {name: p, addresses: [192.0.2.1]}]", "outside[1].addresses[0]: 192.0.2.1: that is the address of o already"},
		"outside, a family":   {"outside: [{name: o, addresses: [192.0.2.1, 192.0.2.2]}]", "outside[0].addresses[1]: 192.0.2.2: a host has at most one address of each family"},
		"outside, multicast":  {"outside: [{name: o, addresses: [224.0.0.1]}]", "outside[0].addresses[0]: 224.0.0.1: must be a unicast address"},
		"outside, no address": {"racks: [{name: r, subnets: [198.51.100.0/24]}]\noutside: [{name: o}]", "outside[0].addresses: missing: 198.51.100.0/24 has none for it: must be given"},
		"name of all":         {"outside: [{name: outside}]", `outside[0].name: "outside": that is the name of all hosts outside already`},
		"name of a source":    {"nodes: [{name: own}]", "that is the name of the sender's own address already"},
		"carried unknown":     {two + "expect: [{reachable: {from: a, to: b, carried: gre}}]", `expect[0].reachable.carried: "gre": must be none, ipip, vxlan or wireguard`},
		"carried, no answer":  {two + "expect: [{unreachable: {from: a, to: b, carried: ipip}}]", `expect[0].unreachable.carried: "ipip": goes with reachable only`},
		"source unknown":      {two + "expect: [{reachable: {from: a, to: b, source: c}}]", `expect[0].reachable.source: "c": must be own, node, an address, or one of a, b, fabric`},
		"source, no answer":   {two + "expect: [{unreachable: {from: a, to: b, source: own}}]", `expect[0].unreachable.source: "own": goes with reachable only`},
		"mtu of what":         {two + "expect: [{mtu: {from: a, to: b}}]", "expect[0].mtu.bytes: 0: must be 68 to 65534"},
		"mtu to nobody":       {two + "expect: [{mtu: {from: a, bytes: 1500}}]", "expect[0].mtu.to: missing: must be pods, nodes, or some of a, b"},
		"no pattern":          {two + "expect: [{route: {at: a}}]", "expect[0].route.line: empty"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := topology.Parse("lab.yaml", []byte(tt.in))
			if err == nil {
				t.Fatalf("no error, want %q", tt.want)
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "topology: lab.yaml: ") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant one line that names the file and has %q", err, tt.want)
			}
		})
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	topo, err := topology.Parse("lab.yaml", []byte(two+"routers: [{name: tor, rack: r1}]\noutside: [{name: web}, {name: dns}]\npods: [{name: p, node: a}, {name: q, namespace: blue, node: b}]"))
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"pods":          "[pod/default/p pod/blue/q]",
		"nodes":         "[a b]",
		"tor":           "[tor]",
		"fabric":        "[fabric]",
		"outside":       "[web dns]",
		"web":           "[web]",
		"pod/blue/q":    "[pod/blue/q]",
		"192.0.2.1":     "[192.0.2.1]",
		"2001:db8::1":   "[2001:db8::1]",
		"pod/default/q": `"pod/default/q": the lab has no such target: must be a, b, tor, web, dns, fabric, pod/default/p, pod/blue/q`,
	} {
		got, err := topo.Targets(ref)
		s := fmt.Sprint(got)
		if err != nil {
			s = err.Error()
		}
		if s != want {
			t.Errorf("%s: got %s, want %s", ref, s, want)
		}
	}
}

func TestMatcher(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		pattern, line string
		want          bool
	}{
		"literal":            {"default via 10.0.0.1 dev eth0", "default via 10.0.0.1 dev eth0", true},
		"dots are dots":      {"via 10.0.0.1", "via 10a0.0.1", false},
		"whole line":         {"default via 10.0.0.1", "default via 10.0.0.1 dev eth0", false},
		"star is one word":   {"192.168.*/26 via * dev eth0", "192.168.3.64/26 via 10.0.0.1 dev eth0", true},
		"star is no space":   {"default * eth0", "default via 10.0.0.1 dev eth0", false},
		"two stars":          {"default ** eth0", "default via 10.0.0.1 dev eth0", true},
		"white space":        {"a  b", "a b", true},
		"regular expression": {"/^default .* eth0$/", "default via 10.0.0.1 dev eth0", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			re, err := topology.Matcher(tt.pattern)
			if err != nil {
				t.Fatal(err)
			}
			if got := re.MatchString(tt.line); got != tt.want {
				t.Errorf("%q matches %q: %v, want %v", tt.pattern, tt.line, got, tt.want)
			}
		})
	}
}

// FuzzParse: hostile bytes never panic, an error is one line, and what was read
// keeps the invariant: no address twice, every one in its rack.
func FuzzParse(f *testing.F) {
	f.Add(examples.Quickstart)
	f.Add([]byte(two))
	f.Add([]byte("nodes: [{name: a, cni: {x: 1}, env: {AS: 1}}]\nexpect: [{noRoute: {at: a, line: '*'}, within: 1s}]"))
	f.Add([]byte("strict: true\nracks: [{name: r, mtu: 1400, loss: 0.5, strict: true}, {name: s}]\nnodes: [{name: a, rack: r, links: [{rack: s}]}]\noutside: [{name: o}]\nexpect: [{reachable: {from: a, to: o, carried: none, source: own}}, {mtu: {from: a, to: o, bytes: 1400}}]"))
	f.Add([]byte("racks: [{name: r, subnets: ['::/8']}]\nrouters: [{name: t, announce: [10.0.0.0/8], asn: 4200000000}]"))
	f.Fuzz(func(t *testing.T, in []byte) {
		topo, err := topology.Parse("f", in)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than a line: %q", err)
			}
			return
		}
		seen := map[netip.Addr]bool{}
		for _, n := range topo.Nodes {
			if len(n.Addresses) != len(topo.Rack(n.Rack).Subnets) {
				t.Fatalf("node %s has %v in rack %v", n.Name, n.Addresses, topo.Rack(n.Rack))
			}
			for _, a := range n.Addresses {
				if _, ok := topo.Rack(n.Rack).Subnet(a); !ok || seen[a] {
					t.Fatalf("node %s has %v: outside of its rack, or given twice", n.Name, a)
				}
				seen[a] = true
			}
		}
	})
}
