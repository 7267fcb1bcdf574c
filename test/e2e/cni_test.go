package e2e_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// host is a container runtime on a node of a lab.
type host struct {
	c    *cluster
	node string
	p    *process
	conf map[string]any
	env  []string // of the CNI executable, beside its own
}

// runtime starts a container runtime on a node.
func (c *cluster) runtime(node string) *host {
	c.t.Helper()
	n := c.node(node)
	return &host{c: c, node: node, p: c.help(node, "runtime"), conf: map[string]any{
		"cniVersion": "1.0.0", "name": "net", "type": "calico", "datastore_type": "etcdv3",
		"nodename": node, "agent_socket": n.Socket, "ipam": map[string]any{"type": "calico-ipam"},
	}}
}

// with is the configuration with some keys replaced.
func (h *host) with(over map[string]any) map[string]any {
	out := maps.Clone(h.conf)
	maps.Copy(out, over)
	return out
}

// call makes one call and gives the answers in the order of the containers.
func (h *host) call(call cniCall) []cniAnswer {
	h.c.t.Helper()
	line, err := json.Marshal(call)
	if err != nil {
		h.c.t.Fatal(err)
	}
	var out []cniAnswer
	if err := json.Unmarshal([]byte(h.p.ask(string(line))), &out); err != nil {
		h.c.t.Fatal(err)
	}
	return out
}

// cni runs the CNI executable for containers, all at once.
func (h *host) cni(command string, conf map[string]any, containers ...string) []cniAnswer {
	h.c.t.Helper()
	return h.cniKilled(command, conf, 0, containers...)
}

// cniKilled is cni with executables that are killed, one after the other.
func (h *host) cniKilled(command string, conf map[string]any, every time.Duration, containers ...string) []cniAnswer {
	h.c.t.Helper()
	text, err := json.Marshal(conf)
	if err != nil {
		h.c.t.Fatal(err)
	}
	queue := filepath.Join(filepath.Dir(h.c.node(h.node).Socket), "queue")
	return h.call(cniCall{
		Containers: containers, Command: command, Conf: text, KillEvery: every,
		Program: filepath.Join(h.c.now.Dir, "cni", "calico"), Env: append([]string{"WEFT_CNI_QUEUE=" + queue}, h.env...),
	})
}

// must is cni for calls that have to succeed.
func (h *host) must(command string, containers ...string) []cniAnswer {
	h.c.t.Helper()
	answers := h.cni(command, h.conf, containers...)
	for _, a := range answers {
		if a.Code != 0 {
			h.c.t.Fatalf("%s of %s: exit code %d: %s%s", command, a.Container, a.Code, a.Stdout, a.Stderr)
		}
		if command == "ADD" && !a.Routed {
			h.c.t.Errorf("the ADD of %s returned before its routes were there", a.Container)
		}
	}
	return answers
}

// refused is cni for a call that must fail with a CNI error that has all of these
// words, on one line.
func (h *host) refused(command string, conf map[string]any, words ...string) string {
	h.c.t.Helper()
	a := h.cni(command, conf, "refused")[0]
	var e struct {
		Code         int
		Msg, Details string
	}
	if err := json.Unmarshal([]byte(a.Stdout), &e); err != nil || a.Code == 0 || e.Code == 0 {
		h.c.t.Errorf("%s: exit code %d, want a CNI error: %s%s", command, a.Code, a.Stdout, a.Stderr)
		return ""
	}
	text := strings.TrimSuffix(e.Msg+": "+e.Details, ": ")
	for _, word := range words {
		if !strings.Contains(text, word) {
			h.c.t.Errorf("%s: error %q lacks %q", command, text, word)
		}
	}
	if strings.Contains(text, "\n") {
		h.c.t.Errorf("%s: error of more than one line: %q", command, text)
	}
	return text
}

// addressOf is the first address that an ADD printed.
func addressOf(t testing.TB, a cniAnswer) netip.Addr {
	t.Helper()
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal([]byte(a.Stdout), &result); err != nil || len(result.IPs) == 0 {
		t.Fatalf("result of %s: %v: %s", a.Container, err, a.Stdout)
	}
	return result.IPs[0].Address.Addr()
}

// containerNames are n names.
func containerNames(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s-%d", prefix, i)
	}
	return out
}

// held is what etcd holds of addresses and endpoints, without what stays by design
// when the last container of a node is gone: its empty block, and how its addresses
// are ordered.
func (c *cluster) held() map[string]string {
	c.t.Helper()
	client := c.client
	if client == nil {
		client = c.etcd()
		c.client = client
	}
	out := map[string]string{}
	all, _ := keys(c.t, client, "/calico/")
	for key, value := range all {
		switch {
		case strings.HasPrefix(key, "/calico/ipam/v2/assignment/"):
			var b struct {
				Allocations []*int
				Attributes  []struct {
					Handle     string  `json:"handle_id"`
					ReleasedAt *string `json:"releasedAt"`
				}
			}
			if err := json.Unmarshal([]byte(value), &b); err != nil {
				c.t.Fatal(err)
			}
			n := 0
			for _, a := range b.Allocations {
				if a != nil {
					n++
				}
			}
			out[key] = fmt.Sprintf("%d addresses, %d attributes", n, len(b.Attributes))
		case strings.HasPrefix(key, "/calico/ipam/v2/handle/"), strings.Contains(key, "/workloadendpoints/"):
			out[key] = value
		}
	}
	return out
}

// links are the names of a node's workload links.
func (c *cluster) links(node string) []string {
	c.t.Helper()
	var out []string
	for line := range strings.Lines(c.sh(node).run("ip -o link show")) {
		if name := strings.Fields(line)[1]; strings.HasPrefix(name, "cali") {
			out = append(out, name)
		}
	}
	return out
}

// TestAttach takes containers through ADD, CHECK and DEL.
func TestAttach(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	// The first container makes the node claim its block, which stays.
	h.must("ADD", "first")
	h.must("DEL", "first")
	before := c.held()

	first := h.must("ADD", "web")[0]
	if again := h.must("ADD", "web")[0]; again.Stdout != first.Stdout {
		t.Errorf("a second ADD gave %s, the first %s", again.Stdout, first.Stdout)
	}
	addr := addressOf(t, first)
	if err := c.hasRoute("node-a", strings.ReplaceAll(addr.String(), ".", `\.`)+" dev cali.* scope link"); err != nil {
		t.Error(err)
	}
	c.sh("node-a").run(ping(addr.String()))
	var result json.RawMessage = json.RawMessage(first.Stdout)
	checked := h.with(map[string]any{"prevResult": result})
	if a := h.cni("CHECK", checked, "web")[0]; a.Code != 0 {
		t.Errorf("CHECK: %s%s", a.Stdout, a.Stderr)
	}
	// CHECK looks: at the pod's routes here.
	broken := h.call(cniCall{Containers: []string{"web"}, Exec: []string{"ip", "route", "del", "default"}})[0]
	if broken.Code != 0 {
		t.Fatal(broken.Stderr)
	}
	if a := h.cni("CHECK", checked, "web")[0]; a.Code == 0 {
		t.Error("CHECK finds nothing wrong with a pod without a default route")
	}
	h.must("DEL", "web")
	h.must("DEL", "web")
	h.must("DEL", "never-added")
	if after := c.held(); !maps.Equal(before, after) {
		t.Errorf("what DEL left in etcd: before %v, after %v", before, after)
	}
	eventually(t, "links to go", func() error {
		if l := c.links("node-a"); len(l) > 0 {
			return fmt.Errorf("%v", l)
		}
		return nil
	})
}

// TestHundredAtOnce attaches and detaches 100 containers at the same time, twice:
// each has an address of its own and is reached, and nothing is left.
func TestHundredAtOnce(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	names := containerNames("pod", 100)
	h.must("ADD", "first")
	h.must("DEL", "first")
	var before map[string]string
	for round := range 2 {
		start := time.Now()
		answers := h.must("ADD", names...)
		t.Logf("100 ADDs at once: %v", time.Since(start))
		seen := map[netip.Addr]string{}
		for _, a := range answers {
			addr := addressOf(t, a)
			if other, ok := seen[addr]; ok {
				t.Fatalf("%s and %s both have %v", other, a.Container, addr)
			}
			seen[addr] = a.Container
		}
		for addr := range seen {
			c.sh("node-a").run(ping(addr.String()))
			break
		}
		h.must("DEL", names...)
		after := c.held()
		if round == 0 {
			before = after // two blocks now, and no address
			continue
		}
		if !maps.Equal(before, after) {
			t.Errorf("a second round left in etcd:\n%s", diff(lines(after), lines(before)))
		}
	}
	for key, value := range c.held() {
		if !strings.Contains(key, "/assignment/") || !strings.HasPrefix(value, "0 addresses, 0 ") {
			t.Errorf("left in etcd: %s: %s", key, value)
		}
	}
	eventually(t, "links to go", func() error {
		if l := c.links("node-a"); len(l) > 0 {
			return fmt.Errorf("%d links", len(l))
		}
		return nil
	})
}

func lines(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+" "+v)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// TestDelWithoutAgent: a DEL that finds no agent succeeds and takes the container
// off the node; its address is free when the agent is back. An ADD that finds no
// agent fails and says so.
func TestDelWithoutAgent(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	h := c.runtime("node-a")
	h.must("ADD", "first")
	h.must("DEL", "first")
	before := c.held()
	addr := addressOf(t, h.must("ADD", "web")[0])
	c.stop("node-a", true)
	during := c.held()
	h.refused("ADD", h.conf, "agent", c.node("node-a").Socket)
	h.must("DEL", "web")
	if err := c.lacksRoute("node-a", strings.ReplaceAll(addr.String(), ".", `\.`)+" dev .*"); err != nil {
		t.Error(err)
	}
	if got := c.held(); !maps.Equal(got, during) {
		t.Errorf("without an agent etcd changed:\n%s", diff(lines(got), lines(during)))
	}
	c.start("node-a")
	eventually(t, "the address to be free", func() error {
		if got := c.held(); !maps.Equal(got, before) {
			return fmt.Errorf("etcd differs:\n%s", diff(lines(got), lines(before)))
		}
		return nil
	})
	h.must("ADD", "web")
	h.must("DEL", "web")
}

// TestExhausted: who gets no address is told which pools were tried and who holds
// the blocks, and gets nothing else either.
func TestExhausted(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/exhausted.yaml")
	h := c.runtime("node-a")
	h.must("ADD", "p1", "p2")
	before, links := c.held(), c.links("node-a")
	h.refused("ADD", h.conf, "tiny 192.168.7.0/30", "4 of 4 in use", "node-a 1 block", "node-b 1 block")
	if after := c.held(); !maps.Equal(before, after) {
		t.Errorf("a refused ADD left in etcd:\n%s", diff(lines(after), lines(before)))
	}
	eventually(t, "links", func() error {
		if now := c.links("node-a"); !slices.Equal(now, links) {
			return fmt.Errorf("%v, were %v", now, links)
		}
		return nil
	})
	h.must("DEL", "p1")
	h.must("ADD", "p3")
}

// cnitool builds the driver of the CNI project, once.
var cnitool = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cnitool-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "cnitool")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/containernetworking/cni/cnitool")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cnitool: %w: %s", err, out)
	}
	return path, nil
})

// TestCNITool drives the plugin as its standard's own tool does, against a real
// agent.
func TestCNITool(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "unshare")
	tool, err := cnitool()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(tool)) })
	c := up(t, "topologies/single.yaml")
	dir := filepath.Join(c.now.Dir, "net.d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": "k8s-pod-network",
		"plugins": []any{map[string]any{
			"type": "calico", "datastore_type": "etcdv3", "nodename": "node-a",
			"agent_socket": c.node("node-a").Socket, "ipam": map[string]any{"type": "calico-ipam"},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "10-weft.conflist"), conf, 0o600); err != nil {
		t.Fatal(err)
	}
	// The tool keeps results below /var/lib, which is nobody's here; and the pod is
	// the namespace of a process that waits.
	s := &shell{p: c.begin("node-a", "unshare", "--mount", "sh")}
	s.run("mount -t tmpfs none /var/lib && mkdir /var/lib/cni")
	pod := c.begin("node-a", "unshare", "--net", "sh", "-c", "echo $$; exec cat")
	netns := "/proc/" + pod.read() + "/ns/net"
	s.run("export NETCONFPATH=" + dir + " CNI_PATH=" + filepath.Join(c.now.Dir, "cni") + " CNI_IFNAME=eth0")
	s.run("export CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=tool;K8S_POD_INFRA_CONTAINER_ID=tool'")
	s.run("ip link set lo up")
	run := func(verb string) string { return s.run(tool + " " + verb + " k8s-pod-network " + netns) }
	run("status")
	out := run("add")
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):]), &result); err != nil || len(result.IPs) != 1 {
		t.Fatalf("cnitool add: %v: %s", err, out)
	}
	c.sh("node-a").run(ping(result.IPs[0].Address.Addr().String()))
	run("check")
	run("gc")
	run("del")
	run("del")
	for key, value := range c.held() {
		if !strings.HasPrefix(value, "0 addresses") {
			t.Errorf("left in etcd: %s: %s", key, value)
		}
	}
}
