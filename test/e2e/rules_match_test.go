package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"github.com/weft-net/weft/internal/store"
)

// matches is one pod for each kind of match, on node-b, and a global policy with the
// pod's name that selects it and nothing else. Who asks is web, probe and other.
const matches = `
racks: [{name: rack-1, subnets: [10.1.0.0/24, "fd00:1::/64"]}]
nodes: [{name: node-a}, {name: node-b}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16, CALICO_IPV4POOL_IPIP: Never, CALICO_IPV6POOL_CIDR: "fd00:168::/48"}
namespaces:
- {name: shop, labels: {team: sales}}
- {name: ops, labels: {team: platform}}
- {name: dst}
- {name: shut}
pods:
- {name: web, namespace: shop, node: node-a, labels: {app: web, projectcalico.org/serviceaccount: robot}, addresses: [192.168.1.1, "fd00:168::1:1"]}
- {name: probe, namespace: ops, node: node-a, labels: {app: probe}, addresses: [192.168.1.2, "fd00:168::1:2"]}
- {name: other, namespace: shop, node: node-b, labels: {app: other}, addresses: [192.168.2.200, "fd00:168::2:200"]}
- {name: caller, namespace: ops, node: node-a, labels: {app: caller}, addresses: [192.168.1.3, "fd00:168::1:3"]}
- {name: plain, namespace: dst, node: node-b, addresses: [192.168.2.1, "fd00:168::2:1"]}
- {name: shut, namespace: shut, node: node-b, addresses: [192.168.2.2, "fd00:168::2:2"]}
%s
resources:
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: first}, spec: {order: 10}}
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: second}, spec: {order: 20}}
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: soft}, spec: {order: 30, defaultAction: Pass}}
- apiVersion: projectcalico.org/v3
  kind: Profile
  metadata: {name: kns.shut}
  spec: {egress: [{action: Allow}], ingress: [{action: Deny, protocol: UDP}, {action: Allow, source: {selector: app == "web"}}]}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkSet
  metadata: {name: known, labels: {role: known}}
  spec: {nets: [192.168.1.0/31, 192.168.1.1, 10.9.0.0/16, "fd00:168::1:1"]}
- apiVersion: projectcalico.org/v3
  kind: NetworkSet
  metadata: {name: known, namespace: ops, labels: {role: here}}
  spec: {nets: [192.168.1.2/32, "fd00:168::1:2/128"]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: front-4, namespace: shop, labels: {kubernetes.io/service-name: front}}
  addressType: IPv4
  endpoints: [{addresses: [192.168.1.1]}]
  ports: [{name: http, port: 8080, protocol: TCP}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: front-6, namespace: shop, labels: {kubernetes.io/service-name: front}}
  addressType: IPv6
  endpoints: [{addresses: ["fd00:168::1:1"]}]
  ports: [{name: http, port: 8080, protocol: TCP}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: back-4, namespace: dst, labels: {kubernetes.io/service-name: back}}
  addressType: IPv4
  endpoints: [{addresses: [192.168.2.1]}]
  ports: [{name: dns, port: 5300, protocol: UDP}, {name: http, port: 8080, protocol: TCP}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: back-6, namespace: dst, labels: {kubernetes.io/service-name: back}}
  addressType: IPv6
  endpoints: [{addresses: ["fd00:168::2:1"]}]
  ports: [{name: dns, port: 5300, protocol: UDP}, {name: http, port: 8080, protocol: TCP}]
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: caller}
  spec:
    selector: app == "caller"
    types: [Egress]
    egress: [{action: Allow, destination: {services: {name: back, namespace: dst}}}, {action: Allow, protocol: ICMP}]
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: first.pass}
  spec:
    tier: first
    selector: is == "pass"
    ingress: [{action: Pass, source: {selector: app == "web"}}, {action: Log}, {action: Deny, source: {selector: app == "probe"}}]
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: second.pass}
  spec:
    tier: second
    selector: is == "pass"
    ingress: [{action: Pass, protocol: TCP}]
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: soft.soft}
  spec:
    tier: soft
    selector: is == "soft"
    ingress: [{action: Deny, protocol: UDP, destination: {ports: [53]}}]
- apiVersion: projectcalico.org/v3
  kind: StagedGlobalNetworkPolicy
  metadata: {name: staged}
  spec: {selector: is == "staged", types: [Ingress, Egress], ingress: [{action: Deny}]}
- apiVersion: projectcalico.org/v3
  kind: StagedNetworkPolicy
  metadata: {name: staged, namespace: dst}
  spec: {selector: is == "staged", ingress: [{action: Deny}]}
- apiVersion: projectcalico.org/v3
  kind: StagedKubernetesNetworkPolicy
  metadata: {name: staged, namespace: dst}
  spec: {podSelector: {matchLabels: {is: staged}}, policyTypes: [Ingress]}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: kube, namespace: dst}
  spec:
    podSelector: {matchLabels: {is: kube}}
    ingress: [{from: [{namespaceSelector: {matchLabels: {team: sales}}, podSelector: {matchLabels: {app: web}}}], ports: [{port: 80, endPort: 82, protocol: TCP}]}]
- apiVersion: policy.networking.k8s.io/v1alpha2
  kind: ClusterNetworkPolicy
  metadata: {name: admin}
  spec:
    tier: Admin
    priority: 5
    subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {is: admin}}}}
    ingress: [{name: no-ops, action: Deny, from: [{namespaces: {matchLabels: {team: platform}}}]}]
%s
expect:
%s
`

// match is one pod with a policy, and what is expected of it: lines of
// "SOURCE ok|no PROTOCOL[/PORT][ over 4|6] [by OBJECT]", by is the policy where ok is
// expected, and the end of its tier where not.
type match struct {
	name, rules string // of spec.ingress; empty: no policy of that name
	want        []string
}

// allMatches has a line for each kind of match and of action.
var allMatches = []match{
	{"named", `[{action: Allow, protocol: TCP, destination: {ports: [http, 9000]}}]`, []string{"web ok tcp/8080", "web ok tcp/9000", "web no tcp/80", "web no udp/8080"}},
	{"not-named", `[{action: Allow, protocol: TCP, destination: {notPorts: [http]}}]`, []string{"web no tcp/8080", "web ok tcp/80"}},
	{"not-ports", `[{action: Allow, protocol: UDP, destination: {notPorts: [81, "90:95"]}}]`, []string{"web ok udp/80", "web no udp/81", "web no udp/92", "web ok udp/96"}},
	{"ports", `[{action: Allow, protocol: UDP, destination: {ports: ["1000:2000", 3000]}}]`, []string{"web ok udp/1000", "web ok udp/2000", "web ok udp/3000", "web no udp/2001", "web no tcp/1500"}},
	{"source-ports", `[{action: Allow, protocol: TCP, source: {ports: ["1024:65535"]}}]`, []string{"web ok tcp/80", "web no udp/80"}},
	{"not-protocol", `[{action: Allow, notProtocol: TCP}]`, []string{"web ok icmp", "web ok udp/53", "web no tcp/53"}},
	{"number", `[{action: Allow, protocol: 17}]`, []string{"web ok udp/53", "web no tcp/53", "web no icmp"}},
	{"nets", `[{action: Allow, source: {nets: [192.168.1.0/31]}}, {action: Allow, source: {nets: ["fd00:168::1:0/127"]}}]`, []string{"web ok tcp/80", "probe no tcp/80"}},
	{
		"not-nets", `[{action: Allow, source: {notNets: [192.168.1.0/31, 10.7.0.0/16]}}, {action: Allow, source: {notNets: ["fd00:168::1:0/127"]}}]`,
		[]string{"web no tcp/80", "probe ok tcp/80"},
	},
	{"own-net", `[{action: Allow, destination: {nets: [192.168.2.0/24]}}]`, []string{"web ok tcp/80 over 4", "web no tcp/80 over 6"}},
	{"selector", `[{action: Allow, source: {selector: app == "web"}}]`, []string{"web ok udp/53", "probe no udp/53", "other no icmp"}},
	{"not-selector", `[{action: Allow, source: {notSelector: app == "web"}}]`, []string{"web no udp/53", "probe ok udp/53", "node-a ok tcp/80"}},
	{"both", `[{action: Allow, source: {selector: has(app), notSelector: app == "web"}}]`, []string{"web no tcp/80", "probe ok tcp/80", "node-a no tcp/80"}},
	{"namespaces", `[{action: Allow, source: {namespaceSelector: team == "sales"}}]`, []string{"web ok tcp/80", "other ok icmp", "probe no tcp/80"}},
	{
		"in-namespaces", `[{action: Allow, source: {namespaceSelector: team == "sales", selector: app == "other"}}]`,
		[]string{"other ok tcp/80", "web no tcp/80", "probe no tcp/80"},
	},
	{"account", `[{action: Allow, source: {serviceAccounts: {names: [robot]}}}]`, []string{"web ok tcp/80", "probe no tcp/80"}},
	{"service", `[{action: Allow, source: {services: {name: front, namespace: shop}}}]`, []string{"web ok icmp", "web ok tcp/80", "probe no tcp/80"}},
	{"set", `[{action: Allow, source: {selector: role == "known", namespaceSelector: global()}}]`, []string{"web ok tcp/80", "probe no tcp/80"}},
	{"own-set", `[{action: Allow, source: {selector: role == "here", namespaceSelector: team == "platform"}}]`, []string{"probe ok tcp/80", "web no tcp/80"}},
	{
		"icmp", `[{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}, {action: Allow, protocol: ICMPv6, icmp: {type: 1}}]`,
		[]string{"web ok icmp over 4", "web no icmp over 6"},
	},
	{
		"not-icmp", `[{action: Allow, protocol: ICMP, notICMP: {type: 8}}, {action: Allow, protocol: ICMPv6, notICMP: {type: 128, code: 1}}]`,
		[]string{"web no icmp over 4", "web ok icmp over 6"},
	},
	{"version", `[{action: Allow, ipVersion: 6, protocol: TCP}]`, []string{"web no tcp/80 over 4", "web ok tcp/80 over 6"}},
	{"order", `[{action: Deny, protocol: UDP, destination: {ports: [53]}}, {action: Allow, protocol: UDP}]`, []string{"web ok udp/54", "web no udp/53 by GlobalNetworkPolicy/order"}},
	{"log", `[{action: Log}, {action: Allow, protocol: UDP}, {action: Log}]`, []string{"web ok udp/53", "web no tcp/53"}},
	{
		"pass", `[{action: Allow, protocol: TCP, destination: {ports: [80]}}]`,
		[]string{"web ok tcp/80", "web no tcp/81", "probe no tcp/80 by GlobalNetworkPolicy/first.pass", "other no tcp/80 by Tier/first", "web no udp/80 by Tier/second"},
	},
	{"soft", "", []string{"web no udp/53 by GlobalNetworkPolicy/soft.soft", "web ok udp/54 by Profile/kns.dst"}},
	{"staged", "", []string{"web ok tcp/80 by Profile/kns.dst", "web ok icmp by Profile/kns.dst"}},
	{"kube", "", []string{
		"web ok tcp/81 by KubernetesNetworkPolicy/dst/kube", "web no tcp/83 by Tier/default", "other no tcp/80 by Tier/default", "probe no icmp by Tier/default",
	}},
	{"admin", "", []string{"probe no tcp/80 by KubernetesClusterNetworkPolicy/admin", "web ok tcp/80 by Profile/kns.dst"}},
}

// moreMatches are expectations of pods without a policy of their own: the line, where
// to, and who decides.
var moreMatches = [][3]string{
	{"caller ok udp/5300", "pod/dst/plain", "Profile/kns.dst"},
	{"caller no tcp/5300", "pod/dst/plain", ""},
	{"caller ok tcp/8080", "pod/dst/plain", "Profile/kns.dst"},
	{"caller no tcp/8080", "pod/shop/other", ""},
	{"web ok tcp/80", "pod/shut/shut", "Profile/kns.shut"},
	{"web no udp/80 by Profile/kns.shut", "pod/shut/shut", ""},
	{"probe no tcp/80 by WorkloadEndpoint/shut/node--b-k8s-shut-eth0", "pod/shut/shut", ""},
}

// TestMatches has packets sent past every kind of match and action, and explained: the
// kernel does what the explanation says, and the policy that is meant decides it.
func TestMatches(t *testing.T) {
	t.Parallel()
	const labs = 3 // beside each other
	each := (len(allMatches) + labs - 1) / labs
	for i, some := range slices.Collect(slices.Chunk(allMatches, each)) {
		t.Run(some[0].name, func(t *testing.T) {
			t.Parallel()
			var more [][3]string
			if i == 0 {
				more = moreMatches
			}
			testMatches(t, some, more)
		})
	}
}

func testMatches(t *testing.T, some []match, more [][3]string) {
	c, topology := newCluster(t), matchTopology(some, more)
	if r := c.run("lab", "up", "-f", c.file(topology)); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	st := c.store()
	for _, m := range some {
		if strings.Contains(m.rules, "[http") {
			edit(t, st, "dst", "node--b-k8s-"+strings.ReplaceAll(m.name, "-", "--")+"-eth0", func(ep *v3.WorkloadEndpoint) {
				ep.Spec.Ports = []v3.WorkloadEndpointPort{{Name: "http", Protocol: v3.Protocol{Name: "TCP"}, Port: 8080}}
			})
		}
	}
	out, code := c.weft("lab", "check")
	expectations := strings.Count(topology, "able: {from")
	if want := fmt.Sprintf("%d of %d expectations hold", expectations, expectations); code != 0 || !strings.Contains(out, want) {
		t.Errorf("lab check: exit code %d, want %q:\n%s", code, want, crosses(out))
	}
	if slices.ContainsFunc(some, func(m match) bool { return m.name == "staged" }) {
		stats := c.stats("node-b")
		for _, staged := range []string{"StagedGlobalNetworkPolicy/staged", "StagedNetworkPolicy/dst/staged"} {
			if s, ok := stats[staged+" Ingress 0"]; !ok || s.Packets == 0 || !s.Staged {
				t.Errorf("%s has counted %+v, want packets, as staged", staged, s)
			}
		}
	}
	if bad := notesAbout(c, "node-b", "Policy"); bad != "" {
		t.Errorf("problems with policies: %s", bad)
	}
}

// matchTopology fills in pods, policies and expectations.
func matchTopology(some []match, more [][3]string) string {
	var pods, policies, expect strings.Builder
	for i, m := range some {
		four, six := fmt.Sprintf("192.168.2.%d", i+10), fmt.Sprintf("fd00:168::2:%x", i+10)
		fmt.Fprintf(&pods, "- {name: %s, namespace: dst, node: node-b, labels: {is: %s}, addresses: [%s, %q]}\n", m.name, m.name, four, six)
		if m.rules != "" {
			fmt.Fprintf(&policies, "- apiVersion: projectcalico.org/v3\n  kind: GlobalNetworkPolicy\n  metadata: {name: %s}\n  spec: {selector: is == %q, ingress: %s}\n",
				m.name, m.name, m.rules)
		}
		for _, want := range m.want {
			expect.WriteString(expectation(want, "pod/dst/"+m.name, "GlobalNetworkPolicy/"+m.name, four, six))
		}
	}
	for _, x := range more {
		expect.WriteString(expectation(x[0], x[1], x[2], "", ""))
	}
	return fmt.Sprintf(matches, pods.String(), policies.String(), expect.String())
}

// expectation is such a line as the lab has it.
func expectation(line, to, by, four, six string) string {
	line, decider, named := strings.Cut(line, " by ")
	f := strings.Fields(line)
	from, verb := map[string]string{
		"web": "pod/shop/web", "other": "pod/shop/other", "probe": "pod/ops/probe", "caller": "pod/ops/caller", "node-a": "node-a",
	}[f[0]], "reachable"
	if f[1] == "no" {
		verb, by = "unreachable", "Tier/default"
	}
	if named {
		by = decider
	}
	if len(f) == 5 {
		to = map[string]string{"4": four, "6": six}[f[4]]
	}
	protocol, port, has := strings.Cut(f[2], "/")
	if has {
		port = ", port: " + port
	}
	return fmt.Sprintf("- {%s: {from: %s, to: %q, protocol: %s%s}, by: %s}\n", verb, from, to, protocol, port, by)
}

// edit changes a workload endpoint in the datastore, as whoever keeps labels and ports
// of pods does.
func edit(t testing.TB, st store.Store, namespace, name string, change func(*v3.WorkloadEndpoint)) {
	t.Helper()
	o, err := st.Get(t.Context(), model.Key{Kind: model.KindWorkloadEndpoint, Namespace: namespace, Name: name})
	if err != nil {
		t.Fatal(err)
	}
	ep := *o.Object.(*v3.WorkloadEndpoint)
	change(&ep)
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Update, Object: o.With(&ep)}); err != nil {
		t.Fatal(err)
	}
}

// crosses are the lines of a report about what does not hold.
func crosses(report string) string {
	var out []string
	for line := range strings.Lines(report) {
		if strings.Contains(line, " reach ") && strings.HasPrefix(line, "✗") || strings.Contains(line, "expectations") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

// notesAbout are a node's notes that mention a word; empty: there are none.
func notesAbout(c *cluster, node, word string) string {
	c.t.Helper()
	s, err := c.agentStatus(node)
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, n := range s.Notes {
		if strings.Contains(n, word) {
			out = append(out, n)
		}
	}
	return strings.Join(out, "\n")
}
