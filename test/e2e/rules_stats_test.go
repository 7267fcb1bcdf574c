package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/agent"
)

// policyCLI runs `weft policy ARGS` on a node.
func (c *cluster) policyCLI(node, args string) (string, int) {
	c.t.Helper()
	socket := filepath.Join(filepath.Dir(c.node(node).Socket), "status.sock")
	return c.sh(node).try("WEFT_STATUS_SOCKET=" + socket + " " + filepath.Join(bin, "weft") + " policy " + args)
}

// stats are the counters of a node by "OBJECT DIRECTION INDEX", with more flags.
func (c *cluster) stats(node string, flags ...string) map[string]agent.RuleStat {
	c.t.Helper()
	args := "stats -o json"
	for _, f := range flags {
		args += " " + f
	}
	out, code := c.policyCLI(node, args)
	var all []agent.RuleStat
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
		c.t.Fatalf("policy %s on %s: exit code %d, %v: %s", args, node, code, err, out)
	}
	byRule := map[string]agent.RuleStat{}
	for _, s := range all {
		byRule[fmt.Sprintf("%s %s %d", s.Object, s.Direction, s.Rule)] = s
	}
	return byRule
}

// read is a file's content.
func (c *cluster) read(path string) string {
	c.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// counted has policies whose rules log, count, and are not met.
const counted = `
racks: [{name: rack-1, subnets: [10.1.0.0/24, "fd00:1::/64"]}]
nodes: [{name: node-a}]
env: {CALICO_IPV4POOL_CIDR: 192.168.0.0/16, CALICO_IPV4POOL_IPIP: Never, CALICO_IPV6POOL_CIDR: "fd00:168::/48"}
pods:
- {name: client, node: node-a, labels: {app: client}, addresses: [192.168.1.1, "fd00:168::1:1"]}
- {name: web, node: node-a, labels: {app: web}, addresses: [192.168.1.2, "fd00:168::1:2"]}
resources:
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: platform}, spec: {order: 10}}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: platform.web}
  spec:
    tier: platform
    selector: app == "web"
    types: [Ingress]
    ingress: [{action: Deny, protocol: UDP, destination: {ports: [7]}}, {action: Log, protocol: UDP, destination: {ports: [53]}}, {action: Pass}]
- apiVersion: projectcalico.org/v3
  kind: NetworkPolicy
  metadata: {name: web, namespace: default}
  spec: {selector: app == "web", types: [Ingress], ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}, {action: Allow, protocol: TCP, destination: {ports: [80]}}]}
- apiVersion: projectcalico.org/v3
  kind: StagedNetworkPolicy
  metadata: {name: later, namespace: default}
  spec: {selector: app == "web", types: [Ingress], ingress: [{action: Deny, protocol: UDP, destination: {ports: [53]}}]}
- apiVersion: projectcalico.org/v3
  kind: NetworkPolicy
  metadata: {name: out, namespace: default}
  spec: {selector: app == "client", types: [Egress], egress: [{action: Log, protocol: TCP, destination: {ports: [81]}}, {action: Allow}]}
`

// logged are the lines of a node's agent about packets that have all of some words.
func (c *cluster) logged(node string, words ...string) []string {
	c.t.Helper()
	var out []string
	for line := range strings.Lines(c.agentLog(node)) {
		has := strings.Contains(line, "packet logged")
		for _, w := range words {
			has = has && slices.Contains(strings.Fields(line), w)
		}
		if has {
			out = append(out, line)
		}
	}
	return out
}

// TestStatsAndLogs: rules count exactly what was sent, keep their counters when another
// rule of the policy changes, and log with everything that is known of a packet.
func TestStatsAndLogs(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", c.file(counted)); r.code != 0 {
		t.Fatalf("lab up: %s", r.stderr)
	}
	c.refresh()
	client := c.prober("pod/default/client")
	c.listen("pod/default/web", "192.168.1.2", "udp:53", "tcp:80")
	client.must("udp 192.168.1.2 53 12 hello", "12 answered, 0 refused")
	client.must("udp fd00:168::1:2 53 3 hello", "3 answered, 0 refused")
	client.must("udp 192.168.1.2 7 5 hello", "0 answered, 0 refused")
	client.must("tcp 192.168.1.2 80", "answer")
	client.must("udp 192.168.1.2 99 4 hello", "0 answered, 0 refused")

	const first, second = "GlobalNetworkPolicy/platform.web Ingress ", "NetworkPolicy/default/web Ingress "
	const bytes = 12*(20+8+5) + 3*(40+8+5)
	counts := func(want map[string][2]uint64) {
		t.Helper()
		got := c.stats("node-a")
		for rule, n := range want {
			if s, ok := got[rule]; !ok || s.Packets != n[0] || n[1] != 0 && s.Bytes != n[1] {
				t.Errorf("%s: %+v, want %d packets, %d bytes", rule, s, n[0], n[1])
			}
		}
	}
	counts(map[string][2]uint64{
		first + "0": {5, 5 * 33}, first + "1": {15, bytes}, first + "2": {20, 0}, // TCP and port 99 are in it
		second + "0": {15, bytes}, second + "1": {1, 60}, "Tier/default Ingress -1": {4, 4 * 33},
		"StagedNetworkPolicy/default/later Ingress 0": {15, bytes}, "NetworkPolicy/default/out Egress 0": {0, 0},
		"NetworkPolicy/default/out Egress 1": {25, 0},
	})
	unused := c.stats("node-a", "--unused")
	if _, ok := unused["NetworkPolicy/default/out Egress 0"]; !ok {
		t.Errorf("--unused does not list a rule that nothing has met: %v", unused)
	}
	if _, ok := unused[first+"0"]; ok {
		t.Error("--unused lists a rule that packets have met")
	}
	table, _ := c.policyCLI("node-a", "stats")
	for _, want := range []string{
		`platform +GlobalNetworkPolicy/platform.web +Ingress +0 +Deny +5 +165\n`,
		`default +StagedNetworkPolicy/default/later +Ingress +0 +would Deny +15 `,
		`default +NetworkPolicy/default/web +Ingress +1 +Allow +1 +60\n`,
		`default +Tier/default +Ingress +end +Deny +4 `,
	} {
		if !regexp.MustCompile(want).MatchString(table) {
			t.Errorf("the table has no %q:\n%s", want, table)
		}
	}
	if strings.Index(table, "\nplatform") > strings.Index(table, "\ndefault") {
		t.Errorf("the first tier does not come first:\n%s", table)
	}

	if out, code := c.sh("node-a").try("WEFT_STATUS_SOCKET=/none " + filepath.Join(bin, "weft") + " policy stats"); code != 1 || strings.Contains(out, "\n") || !strings.Contains(out, "/none") {
		t.Errorf("without an agent: exit code %d: %s", code, out)
	}

	// One rule changes: the others count on.
	st := c.store()
	put(t, st, `{"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "web", "namespace": "default"}, "spec": {"selector": "app == \"web\"", "types": ["Ingress"],
		"ingress": [{"action": "Allow", "protocol": "UDP", "destination": {"ports": [53]}}, {"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, 81]}}]}}`)
	client.becomes("tcp 192.168.1.2 81", "refused") // by the pod itself
	client.must("udp 192.168.1.2 53 1 hello", "1 answered, 0 refused")
	counts(map[string][2]uint64{second + "0": {16, bytes + 33}})
	logs(t, c, client)
}

// logs looks at lines of the log, and floods a rule that logs.
func logs(t *testing.T, c *cluster, client prober) {
	t.Helper()
	for _, want := range [][]string{
		{
			"tier=platform", "policy=GlobalNetworkPolicy/platform.web", "rule=1", "direction=Ingress", "src=192.168.1.1", "dst=192.168.1.2",
			"dport=53", "protocol=UDP", "prefix=calico-packet",
		},
		{"policy=GlobalNetworkPolicy/platform.web", "src=fd00:168::1:1", "dst=fd00:168::1:2", "dport=53"},
		{"tier=default", "policy=NetworkPolicy/default/out", "direction=Egress", "rule=0", "dport=81", "protocol=TCP"},
	} {
		eventually(t, "log", func() error {
			if len(c.logged("node-a", want...)) == 0 {
				return fmt.Errorf("no line with %v", want)
			}
			return nil
		})
	}
	if lines := c.logged("node-a", "dport=7"); len(lines) > 0 {
		t.Errorf("what no rule logs is logged: %s", lines)
	}
	st := c.store()
	put(t, st, felix(`"logActionRateLimit": "2/hour", "logActionRateLimitBurst": 5, "logDefaultDeny": "Enabled", "logPrefix": "slow"`))
	eventually(t, "a default deny", func() error {
		client.ask("udp 192.168.1.2 98 1 x")
		if len(c.logged("node-a", "prefix=slow", "policy=Tier/default", "rule=end", "tier=default", "dport=98")) == 0 {
			return errors.New("it is not logged")
		}
		return nil
	})
	before := c.stats("node-a")["GlobalNetworkPolicy/platform.web Ingress 1"].Packets
	const flood = 400
	client.must(fmt.Sprintf("udp 192.168.1.2 53 %d x", flood), fmt.Sprintf("%d answered, 0 refused", flood))
	if n := c.stats("node-a")["GlobalNetworkPolicy/platform.web Ingress 1"].Packets - before; n > flood || n < flood-20 {
		t.Errorf("a rule that logs has counted %d of %d packets, want all but those of flows that are known from before", n, flood)
	}
	// The mark of another rule comes after the flood's lines in the log.
	client.ask("tcp 192.168.1.2 81")
	eventually(t, "the mark", func() error {
		if len(c.logged("node-a", "prefix=slow", "dport=81")) == 0 {
			return errors.New("it is not logged")
		}
		return nil
	})
	if n := len(c.logged("node-a", "prefix=slow", "dport=53")); n < 1 || n > 7 {
		t.Errorf("%d of %d packets are logged, want at least one, and no more than 5 at once and 2 in an hour", n, flood)
	}
}
