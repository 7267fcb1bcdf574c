package v3

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// policyDoc is a document of a kind named p with this spec, in flow YAML.
func policyDoc(kind, spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: " + kind + "\nmetadata: {name: p}\nspec: {" + spec + "}\n"
}

func TestPolicyErrorsSayWhatWhereWhy(t *testing.T) {
	t.Parallel()
	const global, inNamespace = "GlobalNetworkPolicy", "NetworkPolicy"
	rule := func(rule string) string { return "ingress: [{action: Allow, " + rule + "}]" }
	for _, tt := range []struct{ kind, spec, want string }{
		{inNamespace, "ingress: [{action: allow}]", `spec.ingress[0].action: "allow": must be Allow, Deny, Log or Pass`},
		{inNamespace, "egress: [{}]", `spec.egress[0].action: "": must be Allow, Deny, Log or Pass`},
		{inNamespace, rule("ipVersion: 5"), "spec.ingress[0].ipVersion: 5: must be 4 or 6"},
		{inNamespace, rule("icmp: {type: 8}"), "spec.ingress[0].icmp: needs the rule's protocol to be ICMP or ICMPv6"},
		{inNamespace, rule("protocol: 58, icmp: {code: 0}"), "spec.ingress[0].icmp.code: 0: needs a type"},
		{inNamespace, rule("notICMP: {code: 3}"), "spec.ingress[0].notICMP.code: 3: needs a type"},
		{inNamespace, rule("protocol: 1, ipVersion: 6"), "spec.ingress[0].protocol: \"1\": needs ipVersion 4, not 6"},
		{inNamespace, rule("notProtocol: ICMPv6, ipVersion: 4"), `spec.ingress[0].notProtocol: "ICMPv6": needs ipVersion 6, not 4`},
		{inNamespace, rule("source: {namespaceSelector: global() && has(a)}"), `spec.ingress[0].source.namespaceSelector: "global() && has(a)": must be global() alone: it can't be combined`},
		{inNamespace, rule("source: {selector: global()}"), `spec.ingress[0].source.selector: "global()": must not use global(): it is for the namespaceSelector of a rule`},
		{inNamespace, rule("source: {services: {name: a}, nets: [10.0.0.0/8]}"), "spec.ingress[0].source.nets: must be left out with services"},
		{inNamespace, rule("source: {services: {}}"), `spec.ingress[0].source.services.name: "": must be the name of a service`},
		{inNamespace, rule("destination: {services: {name: a}}"), "spec.ingress[0].destination.services: must be left out of ingress rules, where a service may be the source"},
		{global, rule("source: {services: {name: a}}"), "spec.ingress[0].source.services.namespace: must be set in a policy of no namespace"},
		{inNamespace, "egress: [{action: Allow, protocol: TCP, destination: {services: {name: a}, ports: [1]}}]", "spec.egress[0].destination.ports: must be left out with services, which have ports of their own"},
		{inNamespace, "egress: [{action: Allow, http: {methods: [GET]}}]", "spec.egress[0].http: must be left out of egress rules"},
		{inNamespace, rule("protocol: UDP, http: {methods: [GET]}"), "spec.ingress[0].http: needs the rule's protocol to be TCP or left out, not UDP"},
		{inNamespace, "ingress: [{action: Log, http: {methods: [GET]}}]", "spec.ingress[0].http: must be left out unless the action is Allow"},
		{inNamespace, "types: [Ingress, Both]", `spec.types[1]: "Both": must be Ingress or Egress`},
		{inNamespace, "types: [Egress, Egress]", `spec.types[1]: "Egress": must stand once`},
		{inNamespace, "performanceHints: [Fast]", `spec.performanceHints[0]: "Fast": must be AssumeNeededOnEveryNode`},
		{inNamespace, "tier: a.b", `spec.tier: "a.b": must be the name of a tier: 1 to 63 lower-case letters, digits and inner dashes`},
		{global, "preDNAT: true, applyOnForward: true, types: [Egress]", "spec.types: must be Ingress with preDNAT, which is for packets that come in"},
		{global, "doNotTrack: true", "spec.applyOnForward: must be true with doNotTrack or preDNAT"},
		{global, "doNotTrack: true, preDNAT: true, applyOnForward: true", "spec.preDNAT: must not be true together with doNotTrack"},
		{"StagedNetworkPolicy", "stagedAction: Undo", `spec.stagedAction: "Undo": must be Set, Delete, Learn or Ignore`},
		{"StagedGlobalNetworkPolicy", "stagedAction: Delete, order: 1", "spec.order: must be left out: stagedAction Delete goes with a tier only"},
		{"NetworkSet", "nets: [10.0.0.0/33]", `spec.nets[0]: "10.0.0.0/33": must be a prefix such as "10.0.0.0/8" or an address`},
		{"HostEndpoint", "node: n", "spec.interfaceName: must be set, or else expectedIPs"},
		{"HostEndpoint", "node: n, expectedIPs: [eth0]", `spec.expectedIPs[0]: "eth0": must be an IPv4 or IPv6 address`},
	} {
		err := judge(policyDoc(tt.kind, tt.spec), nil)
		object := strings.ToLower(tt.kind) + " p"
		if k, _ := KindByName(tt.kind); k.Namespaced {
			object = strings.ToLower(tt.kind) + " default/p"
		}
		want := object + ": " + tt.want
		if tt.spec == "tier: a.b" {
			want += "\n" + object + `: spec.tier: "a.b": must be a tier that exists: make the tier first`
		}
		if fmt.Sprint(err) != want {
			t.Errorf("%s %s:\n got %v\nwant %s", tt.kind, tt.spec, err, want)
		}
	}
}

// Where weft refuses what Calico's tools take. Whoever adds to this says why.
func TestStricterThanCalico(t *testing.T) {
	t.Parallel()
	for about, input := range map[string]string{
		"global() negated selects what no address tells from outside":      policyDoc("NetworkPolicy", "ingress: [{action: Deny, source: {notSelector: global()}}]"),
		"global() is about namespaces, service accounts have one":          policyDoc("NetworkPolicy", "ingress: [{action: Deny, source: {serviceAccounts: {selector: global()}}}]"),
		"a tier of this name can't exist":                                  policyDoc("GlobalNetworkPolicy", "tier: a.b"),
		"Calico drops such a rule silently, and the user thinks it is one": policyDoc("StagedKubernetesNetworkPolicy", "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/9]}}]}]"),
	} {
		if err := judge(input, nil); err == nil {
			t.Errorf("%s: accepted", about)
		}
	}
}

func TestPolicyNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		// by NetworkPolicy and GlobalNetworkPolicy: y accepted, n refused, r read-only
		"a": "yy", "default.a": "yy", "tier-a.b": "yy", "a.b.c": "nn", "A": "nn", "": "nn", ".a": "nn", "a-": "nn", "a..b": "nn",
		"knp.default.a": "rn", "knp.default.a.b.c": "rn", "ossg.default.a.b": "yn", "knp.other.a": "nn", "knp.default": "yy", "ossg.default.": "nn",
		strings.Repeat("a", 253): "yy", strings.Repeat("a", 254): "nn",
	} {
		got := ""
		for _, kind := range []string{"NetworkPolicy", "GlobalNetworkPolicy"} {
			o, _ := New(kind)
			o.Meta().Name = name
			Default(o)
			switch {
			case Validate(o) != nil:
				got += "n"
			case CheckWritable(o) != nil:
				got += "r"
			default:
				got += "y"
			}
		}
		if got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// Hostile sizes give one clear line.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	list := func(n int, item string) string {
		return "[" + strings.TrimSuffix(strings.Repeat(item+", ", n), ", ") + "]"
	}
	for want, spec := range map[string]string{
		"spec.ingress: has 10000 entries: must be at most 1024":                   "ingress: " + list(10000, "{action: Nothing}"),
		"spec.egress[0].source.nets: has 257 entries: must be at most 256":        "egress: [{action: Deny, source: {nets: " + list(257, "nowhere") + "}}]",
		"spec.egress[0].source.notPorts: has 51 entries: must be at most 50":      "egress: [{action: Deny, source: {notPorts: " + list(51, "1") + "}}]",
		"spec.ingress[0].http.paths: has 21 entries: must be at most 20":          "ingress: [{action: Allow, http: {paths: " + list(21, "{exact: /}") + "}}]",
		"spec.ingress[0].http.paths[0]: is too long: must have at most 1024 byte": "ingress: [{action: Allow, http: {paths: [{exact: /" + strings.Repeat("a", 1024) + "}]}}]",
		"invalid selector: 102400 bytes, want at most 1024":                       "selector: " + strings.Repeat("a", 102400),
		"100003 bytes, want at most 1024":                                         `ingress: [{action: Deny, source: {selector: "` + strings.Repeat("(", 50000) + "a=b" + strings.Repeat(")", 50000) + `"}}]`,
		"(100000 bytes): must be a prefix":                                        "ingress: [{action: Deny, source: {nets: [" + strings.Repeat("1", 100000) + "]}}]",
	} {
		err := judge(policyDoc("NetworkPolicy", spec), nil)
		if text := fmt.Sprint(err); !strings.Contains(text, want) || strings.Contains(text, "\n") || len(text) > 400 {
			t.Errorf("got %.500s\nwant one line with %s", text, want)
		}
	}
	// What is wrong a thousand times is told some times.
	for what, input := range map[string]string{
		"rules":  policyDoc("NetworkPolicy", "ingress: "+list(1000, "{action: Nothing}")),
		"fields": policyDoc("NetworkPolicy", "ingress: "+list(1000, "{axion: Deny}")),
	} {
		if n := strings.Count(fmt.Sprint(judge(input, nil)), "\n"); n < 1 || n > maxErrors+1 {
			t.Errorf("%s: %d lines", what, n)
		}
	}
}

func TestDefaultsOfPolicies(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"":                               "Ingress",
		"ingress: [{}]":                  "Ingress",
		"egress: [{}]":                   "Egress",
		"ingress: [{}], egress: [{}]":    "Ingress Egress",
		"types: [Egress], ingress: [{}]": "Egress",
		"types: []":                      "Ingress",
		"stagedAction: Delete":           "",
		"stagedAction: Learn":            "Ingress",
	} {
		o, err := Decode([]byte(policyDoc("StagedNetworkPolicy", spec)))
		if err != nil {
			t.Fatal(err)
		}
		given := o.Meta().Labels
		Default(o)
		p := o.(*StagedNetworkPolicy)
		var got []string
		for _, ty := range p.Spec.Types {
			got = append(got, string(ty))
		}
		if strings.Join(got, " ") != want || p.Spec.Tier != "default" || p.Labels[LabelTier] != "default" || p.Spec.StagedAction == "" {
			t.Errorf("%s: types %v, tier %q, labels %v, action %q; want types %s", spec, got, p.Spec.Tier, p.Labels, p.Spec.StagedAction, want)
		}
		if len(given) != 0 {
			t.Errorf("%s: the caller's map was changed to %v", spec, given)
		}
	}
}

func TestCheckTier(t *testing.T) {
	t.Parallel()
	exists := func(tier string) bool { return slices.Contains([]string{"default", "a"}, tier) }
	for want, o := range map[string]Object{
		"":                         &NetworkPolicy{},
		" a":                       &GlobalNetworkPolicy{Spec: GlobalNetworkPolicySpec{Tier: "a"}},
		"  no tier at all":         &NetworkSet{},
		`spec.tier: "b": must be`:  &StagedGlobalNetworkPolicy{Spec: StagedGlobalNetworkPolicySpec{Tier: "b"}},
		`spec.tier: "B c": must b`: &StagedNetworkPolicy{Spec: StagedNetworkPolicySpec{Tier: "B c"}},
	} {
		err := CheckTier(o, exists)
		if isOK := !strings.HasPrefix(want, "spec"); (err == nil) != isOK || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%T of tier %q: %v, want %q", o, TierOf(o), err, want)
		}
	}
}
