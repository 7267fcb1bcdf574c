package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/policy"
)

// TestExplainCLI asks `weft explain` as a user would: with every kind of end, and with
// names that do not exist.
func TestExplainCLI(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	topology := strings.Replace(counted, "resources:\n", `resources:
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: partners, labels: {role: partner}}, spec: {nets: [198.51.100.0/24]}}
- {apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: offices, namespace: default}, spec: {nets: [203.0.113.7]}}
`, 1) + `expect:
- {reachable: {from: pod/default/client, to: pod/default/web, port: 80}, by: NetworkPolicy/default/wbe, within: 1s}
- {unreachable: {from: pod/default/client, to: pod/default/web, port: 82}, by: NetworkPolicy/default/web, within: 2s}
- {reachable: {from: pod/default/client, to: pod/default/web, port: 80}, by: NetworkPolicy/default/web}
`
	if r := c.run("lab", "up", "-f", c.file(topology)); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	for args, want := range map[string][]string{
		"pod/default/client pod/default/web --protocol tcp --port 80": {
			"egress of WorkloadEndpoint/default/node--a-k8s-client-eth0 on node-a: Allow", "NetworkPolicy/default/out", "spec.egress[1]",
			"ingress of WorkloadEndpoint/default/node--a-k8s-web-eth0 on node-a: Allow", "GlobalNetworkPolicy/platform.web", "spec.ingress[2]", "Pass",
			"ALLOWED by NetworkPolicy/default/web spec.ingress[1]",
		},
		"pod/client pod/web --port 53 --protocol udp":                                      {"StagedNetworkPolicy/default/later", "would be", "ALLOWED by NetworkPolicy/default/web spec.ingress[0]"},
		"pod/client pod/web --protocol udp --port 7":                                       {"DENIED by GlobalNetworkPolicy/platform.web spec.ingress[0]"},
		"pod/client pod/web --protocol icmp":                                               {"DENIED by the default action of Tier/default"},
		"pod/client fd00:168::1:2 --port 80":                                               {"to fd00:168::1:2, WorkloadEndpoint/default/node--a-k8s-web-eth0", "ALLOWED"},
		"host/node-a pod/web --port 99":                                                    {"not policed", "ALLOWED"},
		"pod/client host/node-a --port 99":                                                 {"spec.defaultEndpointToHostAction"},
		"globalnetworkset/partners pod/web --port 80":                                      {"GlobalNetworkSet/partners", "ALLOWED by NetworkPolicy/default/web spec.ingress[1]"},
		"networkset/default/offices pod/web --port 81":                                     {"203.0.113.7", "DENIED by the default action of Tier/default"},
		"198.51.100.9 pod/web --port 80 --expect allow":                                    {"ALLOWED"},
		"workloadendpoint/default/node--a-k8s-client-eth0 pod/web --port 82 --expect deny": {"DENIED"},
	} {
		r := c.explained(args)
		for _, text := range want {
			if !strings.Contains(r.stdout, text) {
				t.Errorf("explain %s lacks %q:\n%s", args, text, r.stdout)
			}
		}
		if r.code != 0 || r.stderr != "" {
			t.Errorf("explain %s: exit code %d: %s", args, r.code, r.stderr)
		}
	}
	var e policy.Explanation
	r := c.explained("pod/client pod/web --port 80 -o json")
	if err := json.Unmarshal([]byte(strings.ReplaceAll(r.stdout, `"action"`, `"Action_"`)), &e); err != nil || !e.Allowed || len(e.Parts) != 2 || len(e.Staged) != 1 {
		t.Errorf("explain -o json: %v: %s", err, r.stdout)
	}
	if yaml := c.explained("pod/client pod/web --port 80 -o yaml"); !strings.Contains(yaml.stdout, "allowed: true\n") {
		t.Errorf("explain -o yaml: %s", yaml.stdout)
	}

	for args, want := range map[string]struct {
		code int
		text string
	}{
		"pod/wbe pod/web":                              {1, "explain: pod/default/wbe: there is no endpoint of such a pod: of 2 the nearest are pod/default/web, pod/default/client"},
		"pod/client host/node-z":                       {1, "explain: Node/node-z: there is no such object: of 1 the nearest are node-a"},
		"globalnetworkset/partner pod/web":             {1, "the nearest are partners"},
		"hostendpoint/x pod/web":                       {1, "the datastore has no HostEndpoint at all"},
		"client pod/web":                               {2, "must be pod/NAMESPACE/NAME, host/NODE"},
		"pod/client":                                   {2, "accepts 2 arg(s)"},
		"pod/client pod/web --protocol tpc":            {2, "--protocol tpc: must be tcp, udp"},
		"pod/client pod/web --port 70000":              {2, "70000"},
		"pod/client pod/web --protocol icmp --port 1":  {2, "ICMP has no ports"},
		"pod/client 2001:db8::1@10.0.0.1":              {2, "must be"},
		"pod/client pod/web --expect maybe":            {2, "must be allow or deny"},
		"pod/client pod/web --port 80 --expect deny":   {1, "expected deny"},
		"pod/client@192.168.1.1 pod/web@fd00:168::1:2": {1, "no addresses of one family"},
		"pod/client pod/web --with /no/such/file":      {1, "no such file"},
	} {
		r := c.explained(args)
		if line := r.line(t); r.code != want.code || !strings.Contains(line, want.text) {
			t.Errorf("explain %s: exit code %d, want %d, and %q in: %s", args, r.code, want.code, want.text, line)
		}
	}

	out, code := c.weft("lab", "check")
	for _, want := range []string{
		"by NetworkPolicy/default/wbe: pod/default/client to pod/default/web (192.168.1.2): policy allows it: true, decided by NetworkPolicy/default/web; want true, by NetworkPolicy/default/wbe",
		"decided by Tier/default; want false, by NetworkPolicy/default/web", "1 of 3 expectations hold",
	} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("lab check: exit code %d, want 1, and %q in:\n%s", code, want, out)
		}
	}
}
