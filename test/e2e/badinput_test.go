package e2e_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestBadTopology gives the lab what it can't have: it says what and where, in one
// line, and leaves nothing.
func TestBadTopology(t *testing.T) {
	t.Parallel()
	pool := func(name, spec string) string {
		return "\n- {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: " + name + "}, spec: " + spec + "}"
	}
	for name, tt := range map[string]struct{ text, want string }{
		"not YAML":             {"nodes: [", "topology: "},
		"unknown field":        {"nodes: [{name: a, colour: red}]", "nodes[0].colour: no such field; allowed are name, rack, "},
		"malformed pool":       {"resources:" + pool("p", "{cidr: 192.168.0.0/99}"), `resources[0]: ippool p: spec.cidr: "192.168.0.0/99": `},
		"unmasked pool":        {"resources:" + pool("p", "{cidr: 192.168.0.1/16}"), `resources[0]: ippool p: spec.cidr: "192.168.0.1/16": `},
		"block over pool":      {"resources:" + pool("p", "{cidr: 192.168.0.0/28, blockSize: 26}"), `resources[0]: ippool p: spec.cidr: "192.168.0.0/28": must hold at least one block: blockSize is 26`},
		"both encapsulations":  {"resources:" + pool("p", "{cidr: 192.168.0.0/16, ipipMode: Always, vxlanMode: Always}"), "resources[0]: ippool p: "},
		"overlapping pools":    {"resources:" + pool("p", "{cidr: 192.168.0.0/16}") + pool("q", "{cidr: 192.168.4.0/24}"), `resources[1]: ippool q: spec.cidr: "192.168.4.0/24": overlaps ippool p 192.168.0.0/16`},
		"unknown kind":         {"resources: [{apiVersion: projectcalico.org/v3, kind: Wish, metadata: {name: x}}]", "resources[0]: "},
		"unknown field of one": {"resources:" + pool("p", "{cidr: 192.168.0.0/16, colour: red}"), "colour"},
		"read-only kind":       {"resources: [{apiVersion: projectcalico.org/v3, kind: IPAMHandle, metadata: {name: x}, spec: {handleID: x, block: {}}}]", "read-only"},
		"label key":            {"nodes: [{name: a}]\npods: [{name: p, node: a, labels: {'no spaces please': x}}]", "no spaces please"},
		"label value":          {"nodes: [{name: a}]\npods: [{name: p, node: a, labels: {x: 'a/b/c d'}}]", "a/b/c d"},
		"name of a pod":        {"nodes: [{name: a}]\npods: [{name: ../../etc, node: a}]", `pods[0].name: "../../etc": must be a DNS name`},
		"name of a node":       {"nodes: [{name: 'a;reboot'}]", `nodes[0].name: "a;reboot": must be`},
		"namespace":            {"nodes: [{name: a}]\npods: [{name: p, namespace: 'x/y', node: a}]", `pods[0].namespace: "x/y": must be`},
		"two of one name":      {"nodes: [{name: a}, {name: a}]", "nodes[1].name: "},
		"address twice":        {"nodes: [{name: a, addresses: [10.99.1.20]}, {name: b, addresses: [10.99.1.20]}]", "10.99.1.20"},
		"address elsewhere":    {"nodes: [{name: a, addresses: [192.0.2.1]}]", "192.0.2.1"},
		"setting of an agent":  {"nodes: [{name: a, env: {AS: many}}]", `AS="many": must be an AS number`},
		"no address":           {"nodes: [{name: a, env: {IP_AUTODETECTION_METHOD: interface=nope}}]", "no IPv4 address for this node"},
		"expectation":          {"expect: [{reachable: {from: p, to: q}}]", "expect[0].reachable.from: "},
		"no pool for a pod":    {"nodes: [{name: a}]\nenv: {NO_DEFAULT_POOLS: true}\npods: [{name: p, node: a}]", "no IPv4 pool"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			r := c.run("lab", "up", "-f", c.file(tt.text))
			// Progress comes first, and is not the error.
			var problems []string
			for line := range strings.Lines(r.stderr) {
				if strings.HasPrefix(line, "weft: ") || !strings.Contains(line, "s ") {
					problems = append(problems, strings.TrimSpace(line))
				}
			}
			if r.code != 1 || len(problems) != 1 || !strings.Contains(problems[0], tt.want) {
				t.Errorf("exit code %d, want 1 and one line with %q: %s", r.code, tt.want, r.stderr)
			}
			if left, _ := filepath.Glob(c.dir + "/*"); len(left) > 0 || len(processes(c.dir)) > 0 {
				t.Errorf("left behind: %v and processes %v", left, processes(c.dir))
			}
		})
	}
}

// TestBadCNI gives the CNI executable what it can't work with: each is a CNI error
// of one line, and nothing changes.
func TestBadCNI(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	h.must("ADD", "first")
	h.must("DEL", "first")
	before := c.held()
	view := func() string { return c.sh("node-a").run("ip -o link | grep -c . ; ip route") }
	eventually(t, "the first link to go", func() error {
		if l := c.links("node-a"); len(l) > 0 {
			return fmt.Errorf("%v", l)
		}
		return nil
	})
	node := view()
	for name, tt := range map[string]struct {
		over map[string]any
		want []string
	}{
		"datastore":     {map[string]any{"datastore_type": "redis"}, []string{"datastore_type", `"redis"`, "etcdv3"}},
		"log level":     {map[string]any{"log_level": "loud"}, []string{"log_level", `"loud"`}},
		"type of a key": {map[string]any{"mtu": "big"}, []string{"mtu"}},
		"MTU":           {map[string]any{"mtu": 10}, []string{"mtu"}},
		"other node":    {map[string]any{"nodename": "node-z"}, []string{"node-z", "node-a"}},
		"pool":          {map[string]any{"ipam": map[string]any{"type": "calico-ipam", "ipv4_pools": []string{"nope"}}}, []string{"nope"}},
		"IPAM plugin":   {map[string]any{"ipam": map[string]any{"type": "no-such-plugin"}}, []string{"no-such-plugin"}},
		"no family":     {map[string]any{"ipam": map[string]any{"type": "calico-ipam", "assign_ipv4": "false"}}, []string{"assign_ipv4"}},
		"address":       {map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{"10.250.0.1"}}}}, []string{"10.250.0.1"}},
		"no address":    {map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{"hello"}}}}, []string{"hello"}},
		"label":         {map[string]any{"args": map[string]any{"cni": map[string]any{"labels": []map[string]string{{"key": "no spaces please", "value": "x"}}}}}, []string{"no spaces please"}},
		"version":       {map[string]any{"cniVersion": "9.9.9"}, []string{"9.9.9"}},
		"name":          {map[string]any{"name": ""}, []string{"name"}},
		"device type":   {map[string]any{"device_type": "carrier pigeon"}, []string{"carrier pigeon"}},
	} {
		if got := h.refused("ADD", h.with(tt.over), tt.want...); got != "" {
			t.Logf("%s: %s", name, got)
		}
	}
	// The variable is stronger than the configuration.
	h.env = []string{"WEFT_AGENT_SOCKET=/nowhere/agent.sock"}
	h.refused("ADD", h.conf, "/nowhere/agent.sock")
	h.env = nil
	a := h.call(cniCall{
		Containers: []string{"lost"}, Command: "ADD", Netns: map[string]string{"lost": "/run/netns/gone"},
		Conf:    []byte(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"calico","agent_socket":%q,"ipam":{"type":"calico-ipam"}}`, c.node("node-a").Socket)),
		Program: filepath.Join(c.now.Dir, "cni", "calico"),
	})[0]
	if a.Code == 0 || !strings.Contains(a.Stdout, "/run/netns/gone") {
		t.Errorf("ADD into a namespace that does not exist: exit code %d: %s", a.Code, a.Stdout)
	}
	a = h.call(cniCall{Containers: []string{"lost"}, Command: "ADD", Conf: []byte("{"), Program: filepath.Join(c.now.Dir, "cni", "calico")})[0]
	if a.Code == 0 || !strings.Contains(a.Stdout, `"code": 6`) {
		t.Errorf("ADD with half a configuration: exit code %d: %s", a.Code, a.Stdout)
	}
	if after := c.held(); lines(after) != lines(before) {
		t.Errorf("etcd has changed:\n%s", diff(lines(after), lines(before)))
	}
	eventually(t, "the node as before", func() error {
		if now := view(); now != node {
			return fmt.Errorf("the node has changed:\n%s", diff(now, node))
		}
		return nil
	})
}

// TestBadStore starts agents against a datastore that is not as it should be: one
// line each, within seconds, and nothing written.
func TestBadStore(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	garbage := garbageServer(t, c.dir)
	for name, tt := range map[string]struct{ env, want string }{
		"refuses":      {"ETCD_ENDPOINTS=http://127.0.0.1:9", "etcd: http://127.0.0.1:9: connection refused"},
		"not there":    {"ETCD_ENDPOINTS=unix:///nowhere/etcd.sock", "etcd: unix:///nowhere/etcd.sock: "},
		"garbage":      {"ETCD_ENDPOINTS=unix://" + garbage, "etcd: unix://" + garbage + ": "},
		"TLS expected": {"ETCD_ENDPOINTS=unixs://" + strings.TrimPrefix(c.now.Endpoint, "unix://"), "etcd: unixs://"},
	} {
		start := time.Now()
		out, code := c.runAgent(tt.env)
		if code != 1 || strings.Contains(out, "\n") || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit code %d, want 1 and one line with %q: %s", name, code, tt.want, out)
		}
		t.Logf("%s: after %v: %s", name, time.Since(start), out)
	}
	readOnly(t, c.etcd())
	for setting, want := range map[string]string{
		"ETCD_USERNAME=reader|ETCD_PASSWORD=reader": "permission denied",
		"ETCD_USERNAME=reader|ETCD_PASSWORD=wrong":  "authentication failed",
		"AS=64512": "authentication is needed: ETCD_USERNAME and ETCD_PASSWORD must be set",
	} {
		out, code := c.runAgent(strings.Split(setting, "|")...)
		if code != 1 || strings.Contains(out, "\n") || !strings.Contains(out, want) {
			t.Errorf("%q: exit code %d, want 1 and one line with %q: %s", setting, code, want, out)
		}
	}
}

// readOnly makes etcd ask for a user; the one named reader may only read.
func readOnly(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	_, err := client.RoleAdd(ctx, "read")
	if err == nil {
		_, err = client.RoleGrantPermission(ctx, "read", "\x00", "\x00", clientv3.PermissionType(clientv3.PermRead))
	}
	for user, role := range map[string]string{"root": "root", "reader": "read"} {
		if err == nil {
			_, err = client.UserAdd(ctx, user, user)
		}
		if err == nil && role == "root" {
			_, err = client.RoleAdd(ctx, "root")
		}
		if err == nil {
			_, err = client.UserGrantRole(ctx, user, role)
		}
	}
	if err == nil {
		_, err = client.AuthEnable(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// garbageServer answers everything with something that is no etcd.
func garbageServer(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "garbage.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); _ = os.Remove(path) })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, "220 mail.example.net ESMTP\r\n")
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return path
}
