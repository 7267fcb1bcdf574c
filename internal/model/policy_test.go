package model_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
)

// parseIn is parse for an object of a namespace.
func parseIn(t *testing.T, namespace, kind, name, spec string) (model.Value, error) {
	t.Helper()
	o, err := decodeIn(namespace, kind, name, spec)
	if err != nil {
		return nil, err
	}
	return model.Parse(o)
}

func decodeIn(namespace, kind, name, spec string) (v3.Object, error) {
	meta := "name: " + name
	if namespace != "" {
		meta += ", namespace: " + namespace
	}
	return v3.Decode([]byte(fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {%s}\nspec: %s\n", kind, meta, spec)))
}

// policyText is a policy in a few lines:
//
//	TIER ORDER [staged] [delete] SELECTOR
//	ingress FIELD RULE
func policyText(p model.Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v", p.Tier, p.Order)
	for _, flag := range []struct {
		name string
		set  bool
	}{{"staged", p.Staged}, {"delete", p.Delete}, {"untracked", p.DoNotTrack}, {"preDNAT", p.PreDNAT}, {"forward", p.ApplyOnForward}} {
		if flag.set {
			b.WriteString(" " + flag.name)
		}
	}
	fmt.Fprintf(&b, " %v\n", p.Selector)
	for _, side := range []struct {
		name    string
		applies bool
		rules   []model.Rule
	}{{"ingress", p.AppliesIngress, p.Ingress}, {"egress", p.AppliesEgress, p.Egress}} {
		if side.applies && len(side.rules) == 0 {
			b.WriteString(side.name + "\n")
		}
		for _, r := range side.rules {
			fmt.Fprintf(&b, "%s %s %s\n", side.name, r.Field, ruleText(r))
		}
	}
	return b.String()
}

// ruleText is a rule: ACTION FAMILY PROTOCOL from ENTITY to ENTITY, without what
// matches everything.
func ruleText(r model.Rule) string {
	parts := []string{r.Action.String()}
	add := func(set bool, format string, args ...any) {
		if set {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(r.Family != 0, "v%d", r.Family)
	add(r.Protocol != 0, "proto %d", r.Protocol)
	add(r.NotProtocol != 0, "proto !%d", r.NotProtocol)
	add(r.ICMP != model.ICMP{}, "icmp %d/%d", int(r.ICMP.TypePlus1)-1, int(r.ICMP.CodePlus1)-1)
	add(r.NotICMP != model.ICMP{}, "icmp !%d/%d", int(r.NotICMP.TypePlus1)-1, int(r.NotICMP.CodePlus1)-1)
	from, to := entityText(r.Source), entityText(r.Destination)
	add(from != "", "from %s", from)
	add(to != "", "to %s", to)
	add(r.Unbuilt != "", "unbuilt %s", r.Unbuilt)
	return strings.Join(parts, " ")
}

func entityText(e model.Entity) string {
	var parts []string
	for _, n := range e.Nets {
		parts = append(parts, n.String())
	}
	for _, n := range e.NotNets {
		parts = append(parts, "!"+n.String())
	}
	if e.Selector != nil {
		parts = append(parts, e.Selector.String())
	}
	if e.Nodes != nil {
		parts = append(parts, "nodes "+e.Nodes.String())
	}
	if e.NotSelector != nil {
		parts = append(parts, "not "+e.NotSelector.String())
	}
	if e.Service != (model.Service{}) {
		parts = append(parts, "service "+e.Service.Namespace+"/"+e.Service.Name)
	}
	ports := func(sign string, ranges []model.PortRange, names []string) {
		for _, r := range ranges {
			parts = append(parts, fmt.Sprintf(":%s%d-%d", sign, r.First, r.Last))
		}
		for _, n := range names {
			parts = append(parts, ":"+sign+n)
		}
	}
	ports("", e.Ports, e.NamedPorts)
	ports("!", e.NotPorts, e.NotNamedPorts)
	return strings.Join(parts, " ")
}

func lines(text ...string) string { return strings.Join(text, "\n") + "\n" }

// TestEffectiveSelectors holds whom policies and rules select against what Calico's
// update processors make of the same fields.
func TestEffectiveSelectors(t *testing.T) {
	t.Parallel()
	const inA = `projectcalico.org/namespace == "a"`
	for name, tt := range map[string]struct{ kind, spec, want string }{
		"nothing":             {"NetworkPolicy", "{}", inA},
		"all of a namespace":  {"NetworkPolicy", "{selector: all()}", inA},
		"some of a namespace": {"NetworkPolicy", "{selector: x == 'y' || has(z)}", `((x == "y" || has(z)) && ` + inA + `)`},
		"conjunctions are one": {
			"NetworkPolicy", "{selector: has(x) && has(y), serviceAccountSelector: has(x)}",
			`(has(x) && has(y) && ` + inA + ` && has(pcsa.x))`,
		},
		"accounts of a namespace": {
			"NetworkPolicy", "{serviceAccountSelector: 'team in {\"a\", \"b\"}'}",
			`(` + inA + ` && pcsa.team in {"a", "b"})`,
		},
		"any account of a namespace": {"NetworkPolicy", "{serviceAccountSelector: all()}", inA},
		"staged":                     {"StagedNetworkPolicy", "{selector: has(x)}", `(has(x) && ` + inA + `)`},

		"everything":           {"GlobalNetworkPolicy", "{}", "all()"},
		"everything, said":     {"GlobalNetworkPolicy", "{selector: all()}", "all()"},
		"some":                 {"GlobalNetworkPolicy", "{selector: has(x)}", "has(x)"},
		"some namespaces":      {"GlobalNetworkPolicy", "{namespaceSelector: team == 'a'}", `pcns.team == "a"`},
		"all namespaces":       {"GlobalNetworkPolicy", "{namespaceSelector: all()}", `has(projectcalico.org/namespace)`},
		"other namespaces":     {"GlobalNetworkPolicy", "{selector: has(x), namespaceSelector: '!has(y)'}", `(has(x) && !has(pcns.y))`},
		"all() of namespaces":  {"GlobalNetworkPolicy", "{selector: all(), namespaceSelector: '!has(y)'}", `(has(projectcalico.org/namespace) && !has(pcns.y))`},
		"some accounts":        {"GlobalNetworkPolicy", "{serviceAccountSelector: has(x)}", `has(pcsa.x)`},
		"all accounts":         {"GlobalNetworkPolicy", "{selector: all(), serviceAccountSelector: all()}", `has(projectcalico.org/serviceaccount)`},
		"accounts, namespaces": {"GlobalNetworkPolicy", "{namespaceSelector: all(), serviceAccountSelector: has(x)}", `(has(projectcalico.org/namespace) && has(pcsa.x))`},
		"staged global":        {"StagedGlobalNetworkPolicy", "{namespaceSelector: has(x)}", `has(pcns.x)`},
	} {
		namespace := "a"
		if strings.Contains(tt.kind, "Global") {
			namespace = ""
		}
		v, err := parseIn(t, namespace, tt.kind, "p", tt.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := v.(model.Policy).Selector.String(); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
	}
}

// TestEffectiveRuleSelectors is the same for the ends of rules.
func TestEffectiveRuleSelectors(t *testing.T) {
	t.Parallel()
	const inA = `projectcalico.org/namespace == "a"`
	for name, tt := range map[string]struct{ kind, source, want string }{
		"nothing":                    {"NetworkPolicy", "{}", ""},
		"nets are of no namespace":   {"NetworkPolicy", "{nets: [10.0.0.0/8]}", "v4 from 10.0.0.0/8"},
		"own namespace":              {"NetworkPolicy", "{selector: has(x)}", `from (` + inA + ` && has(x))`},
		"all of the own namespace":   {"NetworkPolicy", "{selector: all()}", `from ` + inA},
		"not, in the own namespace":  {"NetworkPolicy", "{notSelector: has(x)}", `from ` + inA + ` not has(x)`},
		"other namespaces":           {"NetworkPolicy", "{selector: has(x), namespaceSelector: has(y)}", `from (has(pcns.y) && has(x))`},
		"not, in other namespaces":   {"NetworkPolicy", "{notSelector: has(x), namespaceSelector: has(y)}", `from has(pcns.y) not has(x)`},
		"all namespaces":             {"NetworkPolicy", "{namespaceSelector: all()}", `from has(projectcalico.org/namespace)`},
		"of no namespace":            {"NetworkPolicy", "{selector: has(x), namespaceSelector: global()}", `from (!has(projectcalico.org/namespace) && has(x))`},
		"accounts":                   {"NetworkPolicy", "{serviceAccounts: {names: [b, a, b], selector: has(y)}, selector: has(x)}", `from (` + inA + ` && has(pcsa.y) && projectcalico.org/serviceaccount in {"a", "b"} && has(x))`},
		"accounts, no word of which": {"NetworkPolicy", "{serviceAccounts: {}}", ``},

		"everywhere":             {"GlobalNetworkPolicy", "{selector: has(x)}", `from has(x)`},
		"all that is known":      {"GlobalNetworkPolicy", "{selector: all()}", `from all()`},
		"all but some, anywhere": {"GlobalNetworkPolicy", "{notSelector: has(x)}", `from not has(x)`},
		"namespaces":             {"GlobalNetworkPolicy", "{namespaceSelector: has(x) || all()}", `from (has(pcns.x) || has(projectcalico.org/namespace))`},
		"accounts anywhere":      {"GlobalNetworkPolicy", "{serviceAccounts: {names: [a]}}", `from projectcalico.org/serviceaccount in {"a"}`},

		"service of the own namespace": {"NetworkPolicy", "{services: {name: s}}", "from service a/s"},
		"service":                      {"GlobalNetworkPolicy", "{services: {name: s, namespace: b}}", "from service b/s"},
	} {
		namespace := "a"
		if strings.Contains(tt.kind, "Global") {
			namespace = ""
		}
		v, err := parseIn(t, namespace, tt.kind, "p", "{ingress: [{action: Allow, source: "+tt.source+"}]}")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := strings.TrimSpace("Allow " + tt.want)
		if got := ruleText(v.(model.Policy).Ingress[0]); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func TestParsePolicy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ kind, spec, want string }{
		"defaults": {"GlobalNetworkPolicy", "{}", lines("default +Inf all()", "ingress")},
		"only egress": {
			"GlobalNetworkPolicy", "{egress: [{action: Deny}]}",
			lines("default +Inf all()", "egress spec.egress[0] Deny"),
		},
		"all in all": {
			"GlobalNetworkPolicy",
			`{tier: security, order: 10.5, selector: has(x), types: [Ingress, Egress], applyOnForward: true, ingress: [
				{action: Log, protocol: TCP, destination: {ports: [80, '8000:8100', web], notPorts: [81, api]}},
				{action: Pass, notProtocol: 47, source: {nets: ['fd00::/64'], notNets: ['fd00::1/128']}},
				{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}, notICMP: {type: 3}},
				{action: Deny, ipVersion: 6, protocol: UDPLite}]}`,
			lines(
				"security 10.5 forward has(x)",
				"ingress spec.ingress[0] Log proto 6 to :80-80 :8000-8100 :web :!81-81 :!api",
				"ingress spec.ingress[1] Pass v6 proto !47 from fd00::/64 !fd00::1/128",
				"ingress spec.ingress[2] Allow v4 proto 1 icmp 8/0 icmp !3/-1",
				"ingress spec.ingress[3] Deny v6 proto 136",
				"egress",
			),
		},
		"excluded nets make a rule one of their family": {
			"GlobalNetworkPolicy", "{ingress: [{action: Allow, source: {notNets: [10.0.0.0/8]}}]}",
			lines("default +Inf all()", "ingress spec.ingress[0] Allow v4 from !10.0.0.0/8"),
		},
		"http is not built": {
			"GlobalNetworkPolicy", "{ingress: [{action: Allow, http: {methods: [GET]}}]}",
			lines("default +Inf all()", "ingress spec.ingress[0] Allow unbuilt http"),
		},
		"untracked": {
			"GlobalNetworkPolicy", "{doNotTrack: true, applyOnForward: true}",
			lines("default +Inf untracked forward all()", "ingress"),
		},
		"staged": {
			"StagedGlobalNetworkPolicy", "{egress: [{action: Allow}], ingress: [{action: Allow}]}",
			lines("default +Inf staged all()", "ingress spec.ingress[0] Allow", "egress spec.egress[0] Allow"),
		},
		"staged deletion": {
			"StagedGlobalNetworkPolicy", "{stagedAction: Delete, tier: t}",
			lines("t +Inf staged delete all()", "ingress"),
		},
	} {
		v, err := parse(t, tt.kind, "p", tt.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p := v.(model.Policy)
		if got := policyText(p); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
		if p.Key() != (model.Key{Kind: model.Kind(tt.kind), Name: "p"}) {
			t.Errorf("%s: key %v", name, p.Key())
		}
	}
}

func TestParseOfPolicyKinds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ namespace, kind, spec, want string }{
		"tier":           {"", "Tier", "{order: 5, defaultAction: Pass}", "{x 5 Pass}"},
		"tier, defaults": {"", "Tier", "{}", "{x 1e+06 Deny}"},
		"network set":    {"a", "NetworkSet", "{nets: [10.0.0.1, 10.1.2.3/16, '', 'fd00::1']}", "{a x [10.0.0.1/32 10.1.0.0/16 fd00::1/128] map[projectcalico.org/namespace:a] [kns.a]}"},
		"global set":     {"", "GlobalNetworkSet", "{nets: [10.0.0.0/8, 10.0.0.0/16]}", "{ x [10.0.0.0/8 10.0.0.0/16] map[] []}"},
		"host endpoint":  {"", "HostEndpoint", "{node: n1, interfaceName: eth0, expectedIPs: [10.0.0.1, 'fd00::1'], profiles: [p], ports: [{name: ssh, protocol: TCP, port: 22}]}", "{x n1 eth0 [10.0.0.1 fd00::1] map[] [p] [{ssh 6 22}]}"},
		"profile":        {"", "Profile", "{labelsToApply: {pcns.a: b}, ingress: [{action: Allow}], egress: [{action: Deny, source: {selector: has(x)}}]}", "{x map[pcns.a:b] [Allow] [Deny from has(x)]}"},
	} {
		v, err := parseIn(t, tt.namespace, tt.kind, "x", tt.spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := fmt.Sprint(v)
		if p, ok := v.(model.Profile); ok {
			got = fmt.Sprintf("{%s %v [%s] [%s]}", p.Name, p.Labels, ruleText(p.Ingress[0]), ruleText(p.Egress[0]))
		}
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
	}
}

func TestParseEndpointSlice(t *testing.T) {
	t.Parallel()
	text, port := func(s string) *string { return &s }, func(n int32) *int32 { return &n }
	o := &v3.KubernetesEndpointSlice{
		AddressType: "IPv4",
		Endpoints:   []v3.KubernetesEndpoint{{Addresses: []string{"10.0.0.1"}}, {Addresses: []string{"10.0.0.2"}}},
		Ports:       []v3.KubernetesEndpointPort{{Name: text("dns"), Protocol: text("UDP"), Port: port(53)}, {Port: port(80)}, {}},
	}
	o.Name, o.Namespace, o.Labels = "s-1", "a", map[string]string{"kubernetes.io/service-name": "s"}
	v, err := model.Parse(o)
	if got := fmt.Sprint(v); err != nil || got != "{a s-1 {a s} [10.0.0.1 10.0.0.2] [{dns 17 53} { 6 80} { 6 0}]}" {
		t.Errorf("got %s, %v", got, err)
	}
	o.AddressType, o.Endpoints[0].Addresses[0] = "FQDN", "example.org"
	if v, err = model.Parse(o); err != nil || len(v.(model.EndpointSlice).Addrs) != 0 {
		t.Errorf("of names: got %v, %v", v, err)
	}
}

// TestEndpointLabels: nobody may give itself labels of a namespace or an account.
func TestEndpointLabels(t *testing.T) {
	t.Parallel()
	o := &v3.WorkloadEndpoint{Spec: v3.WorkloadEndpointSpec{
		Orchestrator: "k8s", Node: "n", Pod: "p", Endpoint: "eth0", ServiceAccountName: "sa",
		InterfaceName: "cali1", IPNetworks: []string{"10.0.0.1/32"}, AllowSpoofedSourcePrefixes: []string{"10.9.9.9/16", "fd00::1"},
		Ports: []v3.WorkloadEndpointPort{
			{Name: "web", Protocol: v3.Protocol{Name: "TCP"}, Port: 80},
			{Protocol: v3.Protocol{Name: "TCP"}, Port: 81, HostPort: 8081},
		},
	}}
	labels := map[string]string{"x": "y", "pcns.team": "a", "pcsa.team": "a"}
	o.Namespace, o.Labels = "a", labels
	v, err := model.Parse(o)
	if err != nil {
		t.Fatal(err)
	}
	ep := v.(model.Endpoint)
	got := fmt.Sprint(ep.Labels, ep.Ports, ep.SourcePrefixes)
	if want := "map[projectcalico.org/namespace:a projectcalico.org/orchestrator:k8s projectcalico.org/serviceaccount:sa x:y] [{web 6 80}] [10.9.0.0/16 fd00::1/128]"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if len(labels) != 3 {
		t.Errorf("the object's own map was changed: %v", labels)
	}
	set := &v3.NetworkSet{}
	set.Name, set.Namespace, set.Labels = "s", "a", map[string]string{"pcns.team": "b", "x": "y"}
	v, err = model.Parse(set)
	if got := fmt.Sprint(v); err != nil || got != "{a s [] map[projectcalico.org/namespace:a x:y] [kns.a]}" {
		t.Errorf("network set: %s, %v", got, err)
	}
}

// TestParsePolicyRefuses: what validation may let through, the model does not.
func TestParsePolicyRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ kind, spec, want string }{
		"action":        {"Profile", "{ingress: [{action: Accept}]}", `spec.ingress[0].action: "Accept": must be`},
		"no action":     {"Profile", "{egress: [{action: Allow}, {}]}", `spec.egress[1].action: ""`},
		"ICMP code":     {"Profile", "{ingress: [{action: Allow, icmp: {code: 1}}]}", `spec.ingress[0].icmp.code`},
		"selector":      {"Profile", "{ingress: [{action: Allow, source: {selector: 'x ='}}]}", `spec.ingress[0].source.selector`},
		"account":       {"GlobalNetworkPolicy", `{ingress: [{action: Allow, source: {serviceAccounts: {names: ["a'||all()||x=='"]}}}]}`, `serviceAccounts.names[0]`},
		"http, denied":  {"Profile", "{ingress: [{action: Deny, http: {methods: [GET]}}]}", `spec.ingress[0].http`},
		"long selector": {"GlobalNetworkPolicy", "{selector: \"x == '" + strings.Repeat("y", 100_000) + "'\"}", `spec.selector`},
	} {
		_, err := parse(t, tt.kind, "x", tt.spec)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 3000 {
			t.Errorf("%s: got %v; want one line with %s", name, err, tt.want)
		}
	}
}

// TestParseWhatCalicoAccepts: a document that Calico's tools take is one that has a
// place in the model, except where they do not look.
func TestParseWhatCalicoAccepts(t *testing.T) {
	t.Parallel()
	// In profiles Calico takes any action and any IP version.
	stricter := map[string]bool{"profile-006": true, "profile-011": true}
	f, err := os.Open("../../test/fixtures/validation/cases.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	scan := bufio.NewScanner(f)
	scan.Buffer(nil, 1<<22)
	parsed := 0
	for scan.Scan() {
		var c struct{ ID, Input, Verdict string }
		if err := json.Unmarshal(scan.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		if c.Verdict != "accept" {
			continue
		}
		objects, err := v3.DecodeAll([]byte(c.Input))
		if err != nil {
			continue // of kinds that we do not have; package v3 tests that
		}
		for _, o := range objects {
			if _, err := model.Parse(o); (err != nil) != stricter[c.ID] {
				t.Errorf("%s: %v\n%s", c.ID, err, c.Input)
			}
			parsed++
		}
	}
	if err := scan.Err(); err != nil || parsed < 100 {
		t.Fatalf("parsed %d objects, %v", parsed, err)
	}
}

func TestDefaultAllow(t *testing.T) {
	t.Parallel()
	p := model.DefaultAllow()
	if len(p.Ingress) != 1 || len(p.Egress) != 1 || ruleText(p.Ingress[0]) != "Allow" || ruleText(p.Egress[0]) != "Allow" {
		t.Errorf("got %+v", p)
	}
}

// BenchmarkParsePolicy is a policy of a namespace as there are many of, with a rule
// each way.
func BenchmarkParsePolicy(b *testing.B) {
	o, err := decodeIn("a", "NetworkPolicy", "p", `{selector: app == 'web', types: [Ingress, Egress],
		ingress: [{action: Allow, protocol: TCP, source: {selector: app == 'api'}, destination: {ports: [80]}}],
		egress: [{action: Allow, protocol: UDP, destination: {nets: [10.0.0.0/8], ports: [53]}}]}`)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := model.Parse(o); err != nil {
			b.Fatal(err)
		}
	}
}
