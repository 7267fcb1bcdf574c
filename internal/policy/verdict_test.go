package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// parse makes a world of YAML documents; the built-in tiers are not in it.
func parse(t testing.TB, docs ...string) model.World {
	t.Helper()
	objects, err := v3.DecodeAll([]byte(strings.Join(docs, "\n---\n")))
	if err != nil {
		t.Fatal(err)
	}
	w := model.World{}
	for _, o := range objects {
		v, err := model.Parse(o)
		if err != nil || v == nil {
			t.Fatalf("%s: %v, %v", v3.Describe(o), v, err)
		}
		w[v.Key()] = v
	}
	return w
}

// usual are the settings that no test is about.
func usual(string) Settings {
	return Settings{
		Prefixes: []string{"cali"}, IPv6: true, VXLANPort: 4789, ToHost: model.Deny,
		WireGuardPort: 51820, ExternalNodes: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		FailsafeIn: []Failsafe{{Protocol: protoTCP, Port: 22}, {Protocol: protoTCP, Port: 2379, Net: netip.MustParsePrefix("10.0.0.0/24")}},
	}
}

// query reads "pod/shop/web > 10.0.0.1 tcp 80": an end is pod/NAMESPACE/NAME, host/NODE,
// networkset/NAMESPACE/NAME or an address, or one as the other: pod/shop/web@10.0.0.1.
func query(t testing.TB, v *View, text string) Query {
	t.Helper()
	words := strings.Fields(text)
	q := Query{Src: party(t, v, words[0]), Dst: party(t, v, words[2]), SrcPort: 40000}
	switch words[3] {
	case "tcp":
		q.Protocol = protoTCP
	case "udp":
		q.Protocol = protoUDP
	case "icmp":
		q.Protocol = protoICMP
	case "icmp6":
		q.Protocol = protoICMPv6
	case "ipip":
		q.Protocol = protoIPIP
	default:
		t.Fatalf("query %q", text)
	}
	if len(words) > 4 {
		n, err := strconv.Atoi(words[4])
		if err != nil {
			t.Fatal(err)
		}
		if HasPorts(q.Protocol) {
			q.DstPort = uint16(n)
		} else {
			q.ICMPType = uint8(n)
		}
	}
	return q
}

func party(t testing.TB, v *View, text string) Party {
	t.Helper()
	name, as, _ := strings.Cut(text, "@")
	var p Party
	if as != "" {
		p.Addr = netip.MustParseAddr(as)
	}
	parts := strings.Split(name, "/")
	switch parts[0] {
	case "pod":
		for _, s := range v.Subjects() {
			if ep, ok := v.World()[s.Key].(model.Endpoint); ok && ep.Namespace == parts[1] && ep.Pod == parts[2] {
				p.Key = s.Key
			}
		}
	case "host":
		p.Key = model.Node{Name: parts[1]}.Key()
	case "networkset":
		p.Key = model.NetworkSet{Namespace: parts[1], Name: parts[2]}.Key()
	default:
		p.Addr = netip.MustParseAddr(name)
		return p
	}
	if p.Key == (model.Key{}) {
		t.Fatalf("no pod %s", text)
	}
	return p
}

// brief is an explanation on one line: for each point its steps, then the verdict.
func brief(e Explanation) string {
	var points []string
	for _, p := range e.Parts {
		_, name, _ := strings.Cut(p.Endpoint, "/")
		at := strings.ToLower(p.Direction) + " " + or(name, p.Node)
		if p.Stage != Normal.String() {
			at += " " + p.Stage
		}
		var steps []string
		for _, s := range p.Steps {
			_, object, _ := strings.Cut(s.Object, "/")
			text := strings.TrimSpace(strings.Join([]string{string(s.Kind), object, s.Field, s.Action.String()}, " "))
			if s.Staged {
				text = "(" + text + ")"
			}
			steps = append(steps, strings.Join(strings.Fields(text), " "))
		}
		points = append(points, at+": "+strings.Join(steps, ", "))
	}
	verdict := "denied"
	if e.Allowed {
		verdict = "allowed"
	}
	return strings.Join(append(points, verdict), "; ")
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// town is two nodes, pods a and b of namespace x on node-1, c of namespace z on node-2.
const town = `
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: node-1}, spec: {bgp: {ipv4Address: 10.0.0.1/24, ipv6Address: "fd00::1/64"}}}
---
{apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: node-2}, spec: {bgp: {ipv4Address: 10.0.0.2/24, ipv6Address: "fd00::2/64"}}}
---
{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: kns.x}, spec: {ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.team: red, pcns.projectcalico.org/name: x}}}
---
{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: kns.z}, spec: {ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.team: blue, pcns.projectcalico.org/name: z}}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {namespace: x, name: node--1-k8s-a-eth0, labels: {app: a}},
 spec: {node: node-1, orchestrator: k8s, pod: a, endpoint: eth0, containerID: c1, interfaceName: cali1, ipNetworks: [10.1.0.1/32, "fd01::1/128"], profiles: [kns.x], allowSpoofedSourcePrefixes: [10.99.0.0/16]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {namespace: x, name: node--1-k8s-b-eth0, labels: {app: b}},
 spec: {node: node-1, orchestrator: k8s, pod: b, endpoint: eth0, containerID: c2, interfaceName: cali2, ipNetworks: [10.1.0.2/32], profiles: [kns.x], ports: [{name: web, protocol: TCP, port: 8080}]}}
---
{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {namespace: z, name: node--2-k8s-c-eth0, labels: {app: c}},
 spec: {node: node-2, orchestrator: k8s, pod: c, endpoint: eth0, containerID: c3, interfaceName: cali3, ipNetworks: [10.2.0.1/32, "fd02::1/128"], profiles: [kns.z]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: partners, labels: {role: partner}}, spec: {nets: [198.51.100.0/24, 203.0.113.7]}}
`

func np(name, spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: " + name + ", namespace: x}, spec: {" + spec + "}}"
}

func gnp(name, spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: " + name + "}, spec: {" + spec + "}}"
}

func tier(name, spec string) string {
	return "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: " + name + "}, spec: {" + spec + "}}"
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	const a, b, c = "egress x/node--1-k8s-a-eth0: ", "ingress x/node--1-k8s-b-eth0: ", "ingress z/node--2-k8s-c-eth0: "
	const fromX, toX, toY = a + "profile kns.x spec.egress[0] Allow; ", b + "profile kns.x spec.ingress[0] Allow; ", c + "profile kns.z spec.ingress[0] Allow; "
	allB := `selector: app == "b", `
	for name, tt := range map[string]struct{ docs, query, want string }{
		"no policy: profiles allow": {"", "pod/x/a > pod/x/b tcp 80", fromX + toX + "allowed"},
		"no profile allows": {
			"", "pod/x/a@10.1.0.1 > 192.0.2.1 tcp 80", fromX + "allowed",
		},
		"selected, and no rule matches": {
			np("p", allB+"types: [Ingress]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "default default Deny; denied",
		},
		"a policy for egress leaves ingress alone": {
			np("p", allB+"types: [Egress]"), "pod/x/a > pod/x/b tcp 80", fromX + toX + "allowed",
		},
		"log, then allow": {
			np("p", allB+"ingress: [{action: Log}, {action: Allow, protocol: TCP}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "rule x/p spec.ingress[0] Log, rule x/p spec.ingress[1] Allow; allowed",
		},
		"pass in the only tier leads to the profiles": {
			np("p", allB+"ingress: [{action: Pass}, {action: Deny}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "rule x/p spec.ingress[0] Pass, profile kns.x spec.ingress[0] Allow; allowed",
		},
		"order before name": {
			np("a", allB+"order: 2, ingress: [{action: Allow}]") + "\n---\n" + np("b", allB+"order: 1, ingress: [{action: Deny}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "rule x/b spec.ingress[0] Deny; denied",
		},
		"no order is last; names in order": {
			np("a", allB+"ingress: [{action: Allow}]") + "\n---\n" + np("b", allB+"ingress: [{action: Deny}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "rule x/a spec.ingress[0] Allow; allowed",
		},
		"tiers in order, with a default that passes": {
			tier("early", "order: 5, defaultAction: Pass") + "\n---\n" + np("early.p", allB+"tier: early, ingress: [{action: Deny, protocol: UDP}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "default early Pass, profile kns.x spec.ingress[0] Allow; allowed",
		},
		"tiers by order, not by name": {
			tier("zz", "order: 5") + "\n---\n" + tier("aa", "order: 6") + "\n---\n" + np("aa.p", allB+"tier: aa, ingress: [{action: Allow}]") + "\n---\n" + np("zz.p", allB+"tier: zz, ingress: [{action: Deny}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "rule x/zz.p spec.ingress[0] Deny; denied",
		},
		"a tier without order gets that of the default tier, and then names count": {
			tier("aa", "defaultAction: Deny") + "\n---\n" + np("aa.p", allB+"tier: aa, ingress: [{action: Deny}]") + "\n---\n" + np("p", allB+"ingress: [{action: Allow}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "rule x/aa.p spec.ingress[0] Deny; denied",
		},
		"a tier that is not there denies behind all others": {
			np("lost.p", allB+"tier: lost, ingress: [{action: Deny, protocol: UDP}]") + "\n---\n" + np("p", allB+"ingress: [{action: Pass}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "rule x/p spec.ingress[0] Pass, default lost Deny; denied",
		},
		"staged policies alone do not make a tier count": {
			"{apiVersion: projectcalico.org/v3, kind: StagedNetworkPolicy, metadata: {name: s, namespace: x}, spec: {" + allB + "ingress: [{action: Deny}]}}", "pod/x/a > pod/x/b tcp 80",
			fromX + b + "(rule x/s spec.ingress[0] Deny), profile kns.x spec.ingress[0] Allow; allowed",
		},
		"named port": {
			np("p", allB+"ingress: [{action: Allow, protocol: TCP, destination: {ports: [web]}}]"), "pod/x/a > pod/x/b tcp 8080",
			fromX + b + "rule x/p spec.ingress[0] Allow; allowed",
		},
		"named port of another number": {
			np("p", allB+"ingress: [{action: Allow, protocol: TCP, destination: {ports: [web]}}]"), "pod/x/a > pod/x/b tcp 80",
			fromX + b + "default default Deny; denied",
		},
		"not what the set has": {
			gnp("p", `selector: app == "b", ingress: [{action: Allow, source: {notSelector: role == "partner"}}]`), "198.51.100.9 > pod/x/b tcp 80",
			b + "default default Deny; denied",
		},
		"what no one has": {
			gnp("p", `selector: app == "b", ingress: [{action: Allow, source: {notSelector: role == "partner"}}]`), "198.51.101.9 > pod/x/b tcp 80",
			b + "rule p spec.ingress[0] Allow; allowed",
		},
		"nets of the other family match nothing, nor do their negations": {
			gnp("p", `selector: app == "c", ingress: [{action: Allow, source: {notNets: [10.0.0.0/8]}}]`), "pod/x/a@fd01::1 > pod/z/c tcp 80",
			fromX + c + "default default Deny; denied",
		},
		"types of ICMP": {
			gnp("p", `selector: app == "c", ingress: [{action: Deny, protocol: ICMPv6, icmp: {type: 128}}, {action: Allow}]`), "pod/x/a > pod/z/c icmp6 128",
			fromX + c + "rule p spec.ingress[0] Deny; denied",
		},
		"on two nodes": {"", "pod/x/a > pod/z/c tcp 80", fromX + toY + "allowed"},
		"from a foreign source": {
			"", "pod/x/a@10.1.0.9 > pod/z/c tcp 80", a + "source x/node--1-k8s-a-eth0 Deny; denied",
		},
		"from a prefix that it asked for, which the settings forbid": {
			"", "pod/x/a@10.99.0.9 > pod/z/c tcp 80", a + "source x/node--1-k8s-a-eth0 Deny; denied",
		},
		"self-made VXLAN":    {"", "pod/x/a > pod/z/c udp 4789", a + "encapsulation Deny; denied"},
		"self-made IP in IP": {"", "pod/x/a > pod/z/c ipip", a + "encapsulation Deny; denied"},
		"to the own node": {
			"", "pod/x/a > host/node-1 tcp 22", fromX + "ingress node-1: to host spec.defaultEndpointToHostAction Deny; denied",
		},
		"to another node":                  {"", "pod/x/a > host/node-2 tcp 22", fromX + "allowed"},
		"from the node to its own pod":     {np("p", allB+"types: [Ingress]"), "host/node-1 > pod/x/b tcp 80", "allowed"},
		"from another node to a pod":       {np("p", allB+"types: [Ingress]"), "host/node-2 > pod/x/b tcp 80", b + "default default Deny; denied"},
		"an address is who has it":         {"", "10.1.0.1 > 10.2.0.1 tcp 80", fromX + toY + "allowed"},
		"an address in a set is a source":  {"", "networkset//partners > pod/x/b tcp 80", toX + "allowed"},
		"a host endpoint denies":           {hep, "192.0.2.1 > host/node-2 tcp 80", "ingress h: end h Deny; denied"},
		"a host endpoint has failsafes":    {hep, "192.0.2.1 > host/node-2 tcp 22", "ingress h: failsafe spec.failsafeInboundHostPorts[0] Allow; allowed"},
		"failsafes for some":               {hep, "10.0.0.9 > host/node-2 tcp 2379", "ingress h: failsafe spec.failsafeInboundHostPorts[1] Allow; allowed"},
		"and not for others":               {hep, "192.0.2.1 > host/node-2 tcp 2379", "ingress h: end h Deny; denied"},
		"WireGuard of a node":              {hep, "host/node-1 > host/node-2 udp 51820", "ingress h: failsafe Allow; allowed"},
		"WireGuard of a stranger":          {hep, "192.0.2.1 > host/node-2 udp 51820", "ingress h: end h Deny; denied"},
		"WireGuard from its own port only": {hep, "host/node-2 > host/node-1 udp 51820", "egress h: end h Deny; denied"},
		"WireGuard over IPv6, not in use":  {hep, "host/node-1@fd00::1 > host/node-2@fd00::2 udp 51821", "ingress h: end h Deny; denied"},
		"VXLAN of an external node":        {hep, "198.51.100.1 > host/node-2 udp 4789", "ingress h: failsafe Allow; allowed"},
		"VXLAN of a stranger":              {hep, "192.0.2.1 > host/node-2 udp 4789", "ingress h: end h Deny; denied"},
		"IP in IP to an external node":     {hep, "host/node-2 > 198.51.100.1 ipip", "egress h: failsafe Allow; allowed"},
		"a host endpoint forwards":         {hep, "192.0.2.1 > pod/z/c tcp 80", toY + "allowed"},
		"unless a policy is about forward": {hep + "\n---\n" + gnp("f", `selector: has(host), applyOnForward: true, types: [Ingress], ingress: [{action: Allow, protocol: UDP}]`), "192.0.2.1 > pod/z/c tcp 80", "ingress h forwarded: default default Deny; denied"},
		"before NAT": {
			hep + "\n---\n" + gnp("f", `selector: has(host), applyOnForward: true, preDNAT: true, types: [Ingress], ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}]`), "192.0.2.1 > pod/z/c tcp 80",
			"ingress h before NAT: rule f spec.ingress[0] Deny; denied",
		},
		"nothing before NAT decides": {
			hep + "\n---\n" + gnp("f", `selector: has(host), applyOnForward: true, preDNAT: true, types: [Ingress], ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}]`), "192.0.2.1 > pod/z/c tcp 81",
			"ingress h before NAT: ; " + toY + "allowed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			docs := []string{town}
			if tt.docs != "" {
				docs = append(docs, tt.docs)
			}
			v := NewView(parse(t, docs...)).With(usual)
			e, err := v.Verdict(query(t, v, tt.query))
			if err != nil {
				t.Fatal(err)
			}
			if got := brief(e); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.query, got, tt.want)
			}
		})
	}
}

const hep = `{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h, labels: {host: ""}}, spec: {node: node-2, interfaceName: "*", expectedIPs: [10.0.0.2]}}`

func TestReasonsNameTheObject(t *testing.T) {
	t.Parallel()
	v := NewView(parse(t, town, gnp("p", `selector: app == "b", ingress: [{action: Deny, protocol: TCP, source: {selector: role == "partner" && !has(x)}, destination: {selector: pcns.team == "red", ports: ["80:90", web]}}]`))).With(usual)
	e, err := v.Verdict(query(t, v, "203.0.113.7 > pod/x/b tcp 8080"))
	if err != nil {
		t.Fatal(err)
	}
	s, ok := e.Decider()
	want := []Reason{
		{Field: "protocol", Value: "TCP"},
		{Field: "source.selector", Value: `(role == "partner" && !has(x))`, Object: "GlobalNetworkSet/partners", ObjectField: "spec.nets[1]", ObjectValue: "203.0.113.7/32", Labels: []string{"role=partner"}},
		{Field: "destination.selector", Value: `pcns.team == "red"`, Object: "WorkloadEndpoint/x/node--1-k8s-b-eth0", ObjectField: "spec.ipNetworks[0]", ObjectValue: "10.1.0.2/32", Labels: []string{"pcns.team=red (from Profile/kns.x)"}},
		{Field: "destination.ports", Value: "web", Object: "WorkloadEndpoint/x/node--1-k8s-b-eth0", ObjectField: "spec.ports[0]", ObjectValue: "TCP 8080"},
	}
	if !ok || s.Object != "GlobalNetworkPolicy/p" {
		t.Fatalf("decided by %+v", s)
	}
	if d := cmp.Diff(want, s.Reasons); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestVerboseSaysWhyNot(t *testing.T) {
	t.Parallel()
	v := NewView(parse(t, town, np("p", `selector: app == "b", ingress: [{action: Deny, protocol: UDP}, {action: Allow, source: {nets: [10.9.0.0/16]}}]`))).With(usual)
	q := query(t, v, "pod/x/a > pod/x/b tcp 80")
	q.Verbose = true
	e, err := v.Verdict(q)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range e.Parts[1].Steps {
		got = append(got, s.Text)
	}
	want := []string{"does not match: protocol UDP", "does not match: source.nets 10.9.0.0/16", "no rule of NetworkPolicy/x/p matches"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestStagedOutcomes(t *testing.T) {
	t.Parallel()
	staged := func(kind, name, spec string) string {
		return "{apiVersion: projectcalico.org/v3, kind: " + kind + ", metadata: {name: " + name + ", namespace: x}, spec: {" + spec + "}}"
	}
	const forB = `selector: app == "b", `
	for name, tt := range map[string]struct{ docs, query, want string }{
		"would deny": {staged("StagedNetworkPolicy", "s", forB+"ingress: [{action: Deny}]"), "pod/x/a > pod/x/b tcp 80", "x/s own spec.ingress[0] Deny: denied by x/s, differs"},
		"would let nothing match": {
			staged("StagedNetworkPolicy", "s", forB+"types: [Ingress]"), "pod/x/a > pod/x/b tcp 80",
			"x/s own none: denied by default, differs",
		},
		"would change nothing": {
			staged("StagedNetworkPolicy", "s", forB+"ingress: [{action: Allow}]"), "pod/x/a > pod/x/b tcp 80",
			"x/s own spec.ingress[0] Allow: allowed by x/s, same",
		},
		"would come too late": {
			np("a", forB+"ingress: [{action: Deny}]") + "\n---\n" + staged("StagedNetworkPolicy", "s", forB+"ingress: [{action: Allow}]"), "pod/x/a > pod/x/b tcp 80",
			"x/s: denied by x/a, same",
		},
		"would replace the one of its name": {
			np("a", forB+"ingress: [{action: Deny}]") + "\n---\n" + staged("StagedNetworkPolicy", "a", forB+"ingress: [{action: Allow}]"), "pod/x/a > pod/x/b tcp 80",
			"x/a own spec.ingress[0] Allow replaces x/a: allowed by x/a, differs",
		},
		"would replace it by one that selects others": {
			np("a", forB+"ingress: [{action: Deny}]") + "\n---\n" + staged("StagedNetworkPolicy", "a", `selector: app == "z", ingress: [{action: Deny}]`), "pod/x/a > pod/x/b tcp 80",
			"x/a replaces x/a: allowed by kns.x, differs",
		},
		"would delete": {
			np("a", forB+"ingress: [{action: Deny}]") + "\n---\n" + staged("StagedNetworkPolicy", "a", "stagedAction: Delete"), "pod/x/a > pod/x/b tcp 80",
			"x/a deletes x/a: allowed by kns.x, differs",
		},
		"is about others": {staged("StagedNetworkPolicy", "s", `selector: app == "z", ingress: [{action: Deny}]`), "pod/x/a > pod/x/b tcp 80", ""},
		"behind a denial": {
			np("a", `selector: app == "a", types: [Egress]`) + "\n---\n" + staged("StagedNetworkPolicy", "s", forB+"ingress: [{action: Deny}]"), "pod/x/a > pod/x/b tcp 80",
			"x/s own spec.ingress[0] Deny: denied by default, same",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := NewView(parse(t, town, tt.docs)).With(usual)
			e, err := v.Verdict(query(t, v, tt.query))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range e.Staged {
				got = append(got, briefStaged(s))
			}
			if g := strings.Join(got, "; "); g != tt.want {
				t.Errorf("\n got %s\nwant %s", g, tt.want)
			}
		})
	}
}

func briefStaged(s StagedOutcome) string {
	short := func(object string) string { _, name, _ := strings.Cut(object, "/"); return name }
	text := short(s.Policy)
	for _, own := range s.Own {
		if own.Kind == KindNoMatch {
			text += " own none"
		} else {
			text += fmt.Sprintf(" own %s %v", own.Field, own.Action)
		}
	}
	if s.Delete {
		text += " deletes " + short(s.Replaces)
	} else if s.Replaces != "" {
		text += " replaces " + short(s.Replaces)
	}
	verdict, differs := "denied", "same"
	if s.Allowed {
		verdict = "allowed"
	}
	if s.Differs {
		differs = "differs"
	}
	return text + ": " + verdict + " by " + short(s.By.Object) + ", " + differs
}

func TestVerdictOfUnknown(t *testing.T) {
	t.Parallel()
	v := NewView(parse(t, town)).With(usual)
	for text, want := range map[string]string{
		"pod/x/b > pod/z/c icmp6 128": "ICMPv6: the two ends must both have an IPv6 address",
		"host/node-9 > pod/z/c tcp 1": "Node/node-9: there is no such object",
		"fd00::9 > pod/x/b tcp 1":     "the two ends have no addresses of one family: the source has [fd00::9], the destination [10.1.0.2]",
	} {
		if _, err := v.Verdict(query(t, v, text)); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// Two endpoints with one interface, or one without, are not what a node enforces.
func TestVerdictNotesUnusualEndpoints(t *testing.T) {
	t.Parallel()
	endpoint := func(pod, link string) string {
		return `{apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {namespace: z, name: node--1-k8s-` + pod + `-eth0},
			spec: {node: node-1, orchestrator: k8s, pod: ` + pod + `, endpoint: eth0, containerID: ` + pod + `, interfaceName: ` + link + `, ipNetworks: [10.3.0.1/32]}}`
	}
	v := NewView(parse(t, town, endpoint("d", "cali1"))).With(usual)
	e, err := v.Verdict(query(t, v, "pod/z/d > 192.0.2.1 tcp 80"))
	want := "WorkloadEndpoint/x/node--1-k8s-a-eth0 says that it has the interface cali1 of node-1, too: its policies count there, not these"
	if err != nil || !slices.Contains(e.Notes, want) {
		t.Errorf("notes %q, %v; want %q", e.Notes, err, want)
	}
}
