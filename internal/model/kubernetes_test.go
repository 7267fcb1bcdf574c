package model_test

import (
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/model"
	"sigs.k8s.io/yaml"
)

// kubernetesPolicy reads a spec of networking.k8s.io/v1.
func kubernetesPolicy(t *testing.T, spec string) *v3.KubernetesNetworkPolicy {
	t.Helper()
	o := &v3.KubernetesNetworkPolicy{}
	o.Name, o.Namespace = "p", "a"
	if err := yaml.UnmarshalStrict([]byte(spec), &o.Spec); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return o
}

// clusterPolicy reads a spec of policy.networking.k8s.io/v1alpha2.
func clusterPolicy(t *testing.T, spec string) *v3.KubernetesClusterNetworkPolicy {
	t.Helper()
	o := &v3.KubernetesClusterNetworkPolicy{}
	o.Name = "p"
	if err := yaml.Unmarshal([]byte(spec), &o.Spec); err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	return o
}

// short leaves out what every line of a converted policy says.
func short(text string) string {
	return strings.NewReplacer(
		`projectcalico.org/orchestrator == "k8s"`, "k8s", `projectcalico.org/namespace == "a"`, "inA",
		"projectcalico.org/namespace", "NS",
	).Replace(text)
}

// TestKubernetesPolicy is the examples of the Kubernetes documentation, and what
// else the API has.
func TestKubernetesPolicy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ spec, want string }{
		"default deny ingress": {
			"{podSelector: {}, policyTypes: [Ingress]}",
			lines("default 1000 (k8s && inA)", "ingress"),
		},
		"default deny all": {
			"{podSelector: {}, policyTypes: [Ingress, Egress]}",
			lines("default 1000 (k8s && inA)", "ingress", "egress"),
		},
		"allow all ingress": {
			"{podSelector: {}, ingress: [{}], policyTypes: [Ingress]}",
			lines("default 1000 (k8s && inA)", "ingress spec.ingress[0] Allow"),
		},
		"allow all egress": {
			"{podSelector: {}, egress: [{}], policyTypes: [Egress]}",
			lines("default 1000 (k8s && inA)", "egress spec.egress[0] Allow"),
		},
		"types by rules": {
			"{podSelector: {}, egress: [{}]}",
			lines("default 1000 (k8s && inA)", "ingress", "egress spec.egress[0] Allow"),
		},
		"the example of the documentation": {
			`{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress],
			  ingress: [{from: [
			    {ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}},
			    {namespaceSelector: {matchLabels: {project: myproject}}},
			    {podSelector: {matchLabels: {role: frontend}}}],
			    ports: [{protocol: TCP, port: 6379}]}],
			  egress: [{to: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{protocol: TCP, port: 5978}]}]}`,
			lines(
				`default 1000 (k8s && role == "db" && inA)`,
				`ingress spec.ingress[0].from[0] Allow v4 proto 6 from 172.17.0.0/16 !172.17.1.0/24 to :6379-6379`,
				`ingress spec.ingress[0].from[1] Allow proto 6 from (pcns.project == "myproject" && k8s) to :6379-6379`,
				`ingress spec.ingress[0].from[2] Allow proto 6 from (inA && k8s && role == "frontend") to :6379-6379`,
				`egress spec.egress[0].to[0] Allow v4 proto 6 to 10.0.0.0/24 :5978-5978`,
			),
		},
		"a range of ports": {
			"{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 'fd00::/64'}}], ports: [{protocol: TCP, port: 32000, endPort: 32768}]}]}",
			lines("default 1000 (k8s && inA)", "egress spec.egress[0].to[0] Allow v6 proto 6 to fd00::/64 :32000-32768"),
		},
		"namespaces and pods": {
			"{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {user: alice}}, podSelector: {matchLabels: {role: client}}}]}]}",
			lines("default 1000 (k8s && inA)", `ingress spec.ingress[0].from[0] Allow from (pcns.user == "alice" && k8s && role == "client")`),
		},
		"all namespaces, all pods, a peer that says nothing": {
			"{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}, {podSelector: {}}, {}]}]}",
			lines(
				"default 1000 (k8s && inA)",
				"ingress spec.ingress[0].from[0] Allow from (has(NS) && k8s)",
				"ingress spec.ingress[0].from[1] Allow from (inA && k8s)",
				"ingress spec.ingress[0].from[2] Allow from (inA && k8s)",
			),
		},
		"ports, by protocol and joined": {
			"{podSelector: {}, ingress: [{ports: [{port: 443}, {port: web}, {port: 80}, {port: 81}, {port: 80, endPort: 90}, {protocol: UDP, port: 53}, {protocol: UDP}, {protocol: SCTP, port: 7}]}]}",
			lines(
				"default 1000 (k8s && inA)",
				"ingress spec.ingress[0] Allow proto 132 to :7-7",
				"ingress spec.ingress[0] Allow proto 6 to :80-90 :443-443 :web",
				"ingress spec.ingress[0] Allow proto 17",
			),
		},
		"expressions": {
			`{podSelector: {matchExpressions: [{key: b, operator: In, values: [w, x]}, {key: c, operator: NotIn, values: [z]}, {key: d, operator: Exists}, {key: e/f, operator: DoesNotExist}], matchLabels: {z: '1', a: ''}}}`,
			lines(`default 1000 (k8s && a == "" && z == "1" && b in {"w", "x"} && c not in {"z"} && has(d) && !has(e/f) && inA)`, "ingress"),
		},
	} {
		o := kubernetesPolicy(t, tt.spec)
		v, err := model.Parse(o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := short(policyText(v.(model.Policy))); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
		if v.Key() != (model.Key{Kind: model.KindKubernetesNetworkPolicy, Namespace: "a", Name: "p"}) {
			t.Errorf("%s: key %v", name, v.Key())
		}
		// What a controller stores means the same as what was converted.
		stored, err := model.FromKubernetes(o)
		if err != nil || stored.Name != "knp.default.p" || stored.Namespace != "a" {
			t.Errorf("%s: %+v, %v", name, stored, err)
		}
		again, err := model.Parse(stored)
		if err != nil {
			t.Errorf("%s: as our own policy: %v", name, err)
			continue
		}
		if got, want := withoutPlaces(again), withoutPlaces(v); got != want {
			t.Errorf("%s: as our own policy:\n got %s\nwant %s", name, got, want)
		}
	}
}

// withoutPlaces is the text of a policy without the fields of its rules.
func withoutPlaces(v model.Value) string {
	p := v.(model.Policy)
	for _, rules := range []*[]model.Rule{&p.Ingress, &p.Egress} {
		var out []model.Rule
		for _, r := range *rules {
			r.Field = ""
			out = append(out, r)
		}
		*rules = out
	}
	return policyText(p)
}

func TestKubernetesPolicyStaged(t *testing.T) {
	t.Parallel()
	o := &v3.StagedKubernetesNetworkPolicy{Spec: v3.StagedKubernetesNetworkPolicySpec{
		Ingress: []v3.KubernetesNetworkPolicyIngress{{}},
	}}
	o.Name, o.Namespace = "p", "a"
	v, err := model.Parse(o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := short(policyText(v.(model.Policy))), lines("default 1000 staged (k8s && inA)", "ingress spec.ingress[0] Allow"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	staged, err := model.FromStagedKubernetes(o)
	if err != nil || staged.Spec.StagedAction != v3.StagedSet || staged.Name != "knp.default.p" || len(staged.Spec.Ingress) != 1 {
		t.Errorf("got %+v, %v", staged, err)
	}
}

// TestKubernetesPolicyRefuses: a rule that has no meaning is named, and left out.
func TestKubernetesPolicyRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ spec, want string }{
		"protocol":       {"{podSelector: {}, ingress: [{}, {ports: [{protocol: GRE}]}]}", `spec.ingress[1].ports[0].protocol: "GRE": must be TCP, UDP or SCTP`},
		"end of a name":  {"{podSelector: {}, ingress: [{}, {ports: [{port: web, endPort: 90}]}]}", `spec.ingress[1].ports[0].endPort: 90`},
		"end of nothing": {"{podSelector: {}, ingress: [{}, {ports: [{endPort: 90}]}]}", `spec.ingress[1].ports[0].endPort`},
		"end before":     {"{podSelector: {}, ingress: [{}, {ports: [{port: 91, endPort: 90}]}]}", `spec.ingress[1].ports[0].endPort: 90`},
		"port":           {"{podSelector: {}, ingress: [{}, {ports: [{port: 0}]}]}", `spec.ingress[1].ports[0].port: 0`},
		"block":          {"{podSelector: {}, ingress: [{}, {from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}", `spec.ingress[1].from[0].ipBlock.cidr: "10.0.0.0/33"`},
		"except":         {"{podSelector: {}, ingress: [{}, {from: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}]}", `spec.ingress[1].from[0].ipBlock.except: "x"`},
		"operator":       {"{podSelector: {}, ingress: [{}, {from: [{podSelector: {matchExpressions: [{key: a, operator: Near}]}}]}]}", `from[0].podSelector.matchExpressions[0].operator: "Near"`},
		"no values":      {"{podSelector: {}, ingress: [{}, {from: [{podSelector: {matchExpressions: [{key: a, operator: NotIn}]}}]}]}", `matchExpressions[0].values: must not be empty`},
		"a key of words": {"{podSelector: {}, ingress: [{}, {from: [{podSelector: {matchLabels: {'a) || all() || has(b': x}}}]}]}", `podSelector.matchLabels: "a) || all() || has(b"`},
		"a quoted value": {"{podSelector: {}, ingress: [{}, {from: [{podSelector: {matchLabels: {a: \"x'\\\" || all()\"}}}]}]}", `podSelector.matchLabels`},
	} {
		p, err := model.FromKubernetes(kubernetesPolicy(t, tt.spec))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v; want one line with %s", name, err, tt.want)
		}
		if len(p.Spec.Ingress) != 1 {
			t.Errorf("%s: rules %+v, want only the first", name, p.Spec.Ingress)
		}
		if v, err := model.Parse(kubernetesPolicy(t, tt.spec)); err == nil {
			t.Errorf("%s: parsed as %+v", name, v)
		}
		strict := model.Strict(kubernetesPolicy(t, tt.spec))
		if got := short(policyText(strict.(model.Policy))); got != lines("default 1000 (k8s && inA)", "ingress spec Deny") {
			t.Errorf("%s: strict: %s", name, got)
		}
	}
}

func TestClusterPolicy(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ spec, want string }{
		"no rules": {
			"{tier: Admin, priority: 10, subject: {namespaces: {}}}",
			lines("kube-admin 10 (k8s && has(NS))"),
		},
		"baseline": {
			"{tier: Baseline, priority: 0, subject: {pods: {namespaceSelector: {matchLabels: {x: v}}, podSelector: {matchLabels: {z: w}}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}",
			lines(`kube-baseline 0 (k8s && z == "w" && pcns.x == "v")`, "ingress spec.ingress[0].from[0] Deny from (has(NS) && k8s)"),
		},
		"peers and protocols": {
			`{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [
			  {action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}, {networks: [10.0.0.0/8, 'fd00::/8', 11.0.0.0/8]}],
			   protocols: [{tcp: {destinationPort: {number: 80}}}, {tcp: {destinationPort: {range: {start: 81, end: 90}}}}, {udp: {}}, {destinationNamedPort: web}]},
			  {action: Pass, to: [{namespaces: {}}]}]}`,
			lines(
				"kube-admin 1 (k8s && has(NS))",
				`egress spec.egress[0].to[0] Allow to (has(NS) && k8s && a == "b") :web`,
				`egress spec.egress[0].to[0] Allow proto 6 to (has(NS) && k8s && a == "b") :80-90`,
				`egress spec.egress[0].to[0] Allow proto 17 to (has(NS) && k8s && a == "b")`,
				`egress spec.egress[0].to[1] Allow v4 to 10.0.0.0/8 11.0.0.0/8 :web`,
				`egress spec.egress[0].to[1] Allow v4 proto 6 to 10.0.0.0/8 11.0.0.0/8 :80-90`,
				`egress spec.egress[0].to[1] Allow v4 proto 17 to 10.0.0.0/8 11.0.0.0/8`,
				`egress spec.egress[0].to[1] Allow v6 to fd00::/8 :web`,
				`egress spec.egress[0].to[1] Allow v6 proto 6 to fd00::/8 :80-90`,
				`egress spec.egress[0].to[1] Allow v6 proto 17 to fd00::/8`,
				`egress spec.egress[1].to[0] Pass to (has(NS) && k8s)`,
			),
		},
		"what cannot be accepted matches nothing": {
			"{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [example.org]}, {networks: [10.0.0.0/8]}]}]}",
			lines(
				"kube-admin 1 (k8s && has(NS))",
				"egress spec.egress[0].to[1] Allow v4 to 10.0.0.0/8",
				"egress spec.egress[0].to[0] Allow to !all() unbuilt domainNames",
			),
		},
		"what cannot be denied or passed denies all": {
			"{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{moons: {}}], protocols: [{tcp: {}}]}, {action: Pass, to: [{moons: {}}, {namespaces: {}}]}]}",
			lines(
				"kube-admin 1 (k8s && has(NS))",
				"egress spec.egress[0].to[0] Deny proto 6",
				"egress spec.egress[1].to[1] Pass to (has(NS) && k8s)",
				"egress spec.egress[1].to[0] Deny",
			),
		},
		"nodes": {
			"{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{nodes: {matchLabels: {zone: a}}}], protocols: [{tcp: {}}]}, {action: Deny, to: [{nodes: {}}]}]}",
			lines(
				"kube-admin 1 (k8s && has(NS))",
				`egress spec.egress[0].to[0] Allow proto 6 to nodes zone == "a"`,
				"egress spec.egress[1].to[0] Deny to nodes all()",
			),
		},
		"a peer of a later version": {
			"{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{moons: {}}]}, {action: Deny, from: [{moons: {}}]}]}",
			lines(
				"kube-admin 1 (k8s && has(NS))",
				"ingress spec.ingress[0].from[0] Allow from !all() unbuilt a peer of unknown kind",
				"ingress spec.ingress[1].from[0] Deny",
			),
		},
		"a protocol of a later version": {
			"{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{quic: {}}]}, {action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {}}, {quic: {}}]}]}",
			lines(
				"kube-admin 1 (k8s && has(NS))",
				"ingress spec.ingress[0] Allow from !all() unbuilt a protocol of unknown kind",
				"ingress spec.ingress[1] Deny",
			),
		},
	} {
		o := clusterPolicy(t, tt.spec)
		v, err := model.Parse(o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := short(policyText(v.(model.Policy))); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, tt.want)
		}
		p, err := model.FromClusterPolicy(o)
		if err != nil || p.Name != "p" || p.Spec.Order == nil || p.Spec.Tier == "" {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

func TestClusterPolicyRefuses(t *testing.T) {
	t.Parallel()
	const subject = "tier: Admin, priority: 1, subject: {namespaces: {}}, "
	for name, tt := range map[string]struct{ spec, want, strict string }{
		"tier":       {"{tier: Middle, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}", "tier", lines("kube-admin 0 (k8s && has(NS))", "ingress spec Deny")},
		"action":     {"{" + subject + "ingress: [{action: Allow, from: [{namespaces: {}}]}]}", "spec.ingress[0].action", lines("kube-admin 1 (k8s && has(NS))", "ingress spec Deny")},
		"no peers":   {"{" + subject + "egress: [{action: Deny}]}", "spec.egress[0].to", lines("kube-admin 1 (k8s && has(NS))", "egress spec Deny")},
		"network":    {"{" + subject + "egress: [{action: Pass, to: [{networks: [10.0.0.0]}]}]}", "networks[0]", lines("kube-admin 1 (k8s && has(NS))", "egress spec Deny")},
		"port":       {"{" + subject + "egress: [{action: Pass, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 70000}}}]}]}", "70000", lines("kube-admin 1 (k8s && has(NS))", "egress spec Deny")},
		"no subject": {"{tier: Admin, priority: 1, subject: {}, egress: [{action: Deny, to: [{namespaces: {}}]}]}", "spec.subject", ""},
	} {
		o := clusterPolicy(t, tt.spec)
		if v, err := model.Parse(o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v; want an error with %s", name, v, err, tt.want)
		}
		p, err := model.FromClusterPolicy(o)
		if err == nil {
			t.Errorf("%s: converted to %+v", name, p)
		}
		for _, r := range append(p.Spec.Ingress, p.Spec.Egress...) {
			if name != "tier" && name != "no subject" && r.Action != v3.ActionDeny {
				t.Errorf("%s: in place of the rule stands %+v", name, r)
			}
		}
		got := ""
		if v, ok := model.Strict(o).(model.Policy); ok {
			got = short(policyText(v))
		}
		if got != tt.strict {
			t.Errorf("%s: strict:\n got %s\nwant %s", name, got, tt.strict)
		}
	}
}
