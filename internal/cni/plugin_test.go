package cni_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/weft-net/weft/internal/testenv"
)

// programDir is where programs builds; TestMain makes and removes it.
var programDir string

// programs builds the plugin and the tools that drive it, once, into programDir.
var programs = sync.OnceValue(func() error {
	for name, pkg := range map[string]string{
		"calico":     "github.com/weft-net/weft/cmd/weft-cni",
		"cnitool":    "github.com/containernetworking/cni/cnitool",
		"host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
		"portmap":    "github.com/containernetworking/plugins/plugins/meta/portmap",
	} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(programDir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", pkg, err, out)
		}
	}
	for _, name := range []string{"calico-ipam", "weft-cni", "weft-ipam"} {
		if err := os.Symlink("calico", filepath.Join(programDir, name)); err != nil {
			return err
		}
	}
	return nil
})

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "weft-cni-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	programDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// node is a node of the test: a namespace, an agent, and a place to work.
type node struct {
	t      testing.TB
	ns     *testenv.Namespace
	agent  *fakeAgent
	stop   func() // the agent
	socket string
	queue  string
	bin    string
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, ns: testenv.Netns(t), agent: newFakeAgent(), socket: socketIn(t), queue: filepath.Join(t.TempDir(), "del"), bin: programDir}
	if err := programs(); err != nil {
		t.Fatal(err)
	}
	n.stop = n.agent.serve(t, n.socket)
	return n
}

// pod is a container to be attached.
type pod struct {
	ns        *testenv.Namespace
	path      string // of its namespace
	container string
	args      string
}

func (n *node) pod(name string) pod {
	ns := testenv.Netns(n.t)
	return pod{
		ns: ns, path: ns.Path(), container: "c-" + name + "-0123456789abcdef",
		args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + name + ";K8S_POD_INFRA_CONTAINER_ID=c-" + name,
	}
}

const plainConf = `{"name":"k8s-pod-network","cniVersion":"1.0.0","type":"calico","datastore_type":"etcdv3","ipam":{"type":"calico-ipam"}}`

// with is a configuration with some keys replaced; each is "key=JSON".
func with(conf string, keys ...string) string {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(conf), &m); err != nil {
		panic(err)
	}
	for _, k := range keys {
		key, value, _ := strings.Cut(k, "=")
		m[key] = json.RawMessage(value)
	}
	out, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// run runs a plugin as a runtime does.
func (n *node) run(program, verb, conf string, p pod) (stdout string, err error) {
	cmd := n.command(program, conf, "CNI_COMMAND="+verb, "CNI_CONTAINERID="+p.container, "CNI_NETNS="+p.path,
		"CNI_IFNAME=eth0", "CNI_ARGS="+p.args, "CNI_PATH="+n.bin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := n.ns.Start(cmd); err != nil {
		return "", err
	}
	err = cmd.Wait()
	if err != nil && out.Len() == 0 {
		return "", fmt.Errorf("%w: %s", err, &stderr)
	}
	return strings.TrimSpace(out.String()), err
}

func (n *node) command(program, stdin string, env ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(n.bin, program))
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "WEFT_AGENT_SOCKET=" + n.socket, "WEFT_CNI_QUEUE=" + n.queue, "WEFT_MTU_FILE=" + n.socket + ".mtu"}, env...)
	cmd.Stdin = strings.NewReader(stdin)
	return cmd
}

// mustRun is run for what must succeed.
func (n *node) mustRun(program, verb, conf string, p pod) string {
	n.t.Helper()
	out, err := n.run(program, verb, conf, p)
	if err != nil {
		n.t.Fatalf("%s %s: %v: %s", program, verb, err, out)
	}
	return out
}

// refused runs what must fail with the code and text, as one line of CNI's form.
func (n *node) refused(program, verb, conf string, p pod, code uint, text string) {
	n.t.Helper()
	out, err := n.run(program, verb, conf, p)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		n.t.Fatalf("%s %s: got %v and %q, want a failure", program, verb, err, out)
	}
	var e struct {
		Code uint
		Msg  string
	}
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		n.t.Fatalf("%s %s: %v in %q", program, verb, err, out)
	}
	if e.Code != code || !strings.Contains(e.Msg, text) || strings.Contains(e.Msg, "\n") {
		n.t.Errorf("%s %s: got code %d: %s\nwant code %d with %q", program, verb, e.Code, e.Msg, code, text)
	}
}

// links are the names of a namespace's links but for lo.
func links(t testing.TB, ns *testenv.Namespace) (out []string) {
	t.Helper()
	ns.MustDo(func() error {
		list, err := netlink.LinkList()
		for _, l := range list {
			if l.Attrs().Name != "lo" {
				out = append(out, l.Attrs().Name)
			}
		}
		return err
	})
	return out
}

// untouched fails the test if anything of p is left on the node or in p.
func (n *node) untouched(p pod) {
	n.t.Helper()
	if got := append(links(n.t, n.ns), links(n.t, p.ns)...); len(got) > 0 {
		n.t.Errorf("links are left: %v", got)
	}
	if got := n.agent.count(); got > 0 {
		n.t.Errorf("the agent has %d attachments left", got)
	}
}

// ip is what `ip ARGS` prints in ns, trimmed.
func ip(t testing.TB, ns *testenv.Namespace, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Need(t, "ip"), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, &out)
	}
	var lines []string
	for l := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimSpace(l))
	}
	return strings.Join(lines, "\n")
}
