package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/lab"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/store/datastore"
	"github.com/weft-net/weft/internal/testenv"
)

// up brings a lab up from a file, and reads its status.
func up(t testing.TB, file string) *cluster {
	t.Helper()
	c := newCluster(t)
	if r := c.run("lab", "up", "-f", file); r.code != 0 {
		t.Fatalf("lab up -f %s: %s", file, r.stderr)
	}
	c.refresh()
	return c
}

// refresh reads the status again.
func (c *cluster) refresh() { c.t.Helper(); c.now = c.status() }

// result is what a program did.
type result struct {
	stdout, stderr string
	code           int
}

// line is the one line of an error; it fails the test when there are more or none.
func (r result) line(t testing.TB) string {
	t.Helper()
	text := strings.TrimSpace(r.stderr)
	if text == "" || strings.Contains(text, "\n") {
		t.Errorf("want one line on stderr, got %q", r.stderr)
	}
	return text
}

// run runs weft to its end and keeps its streams apart.
func (c *cluster) run(args ...string) result {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*testenv.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "weft"), args...)
	cmd.Env = c.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		c.t.Fatalf("weft %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// eventually asks until it is told yes, and fails the test when patience is over, of which
// it has more where the machine is emulated. It returns how long that took.
func eventually(t testing.TB, what string, try func() error) time.Duration {
	t.Helper()
	limit := testenv.Patience
	if testenv.InVM() {
		limit *= 3
	}
	return within(t, limit, what, try)
}

// within is eventually, but for a time that means something: see testenv.ByEvent.
func within(t testing.TB, limit time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		<-tick.C
	}
}

// node is the status of a node.
func (c *cluster) node(name string) lab.NodeStatus {
	c.t.Helper()
	for _, n := range c.now.Nodes {
		if n.Name == name {
			return n
		}
	}
	c.t.Fatalf("no node %s", name)
	return lab.NodeStatus{}
}

// pod is the status of a pod of namespace default.
func (c *cluster) pod(name string) lab.PodStatus {
	c.t.Helper()
	for _, p := range c.now.Pods {
		if p.Name == name {
			return p
		}
	}
	c.t.Fatalf("no pod %s", name)
	return lab.PodStatus{}
}

// addr is the first address of a pod.
func (c *cluster) addr(pod string) string { return c.pod(pod).Addresses[0].String() }

// stop ends an agent or a router; with kill by SIGKILL.
func (c *cluster) stop(name string, kill bool) {
	c.t.Helper()
	c.must("lab", "stop", name, fmt.Sprintf("--kill=%v", kill))
}

// start starts it again and waits until it serves.
func (c *cluster) start(name string) { c.t.Helper(); c.must("lab", "start", name) }

// settings are what `lab env` prints.
func (c *cluster) settings() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(c.must("lab", "env")) {
		assignment, ok := strings.CutPrefix(strings.TrimSpace(line), "export ")
		name, value, ok2 := strings.Cut(assignment, "=")
		if !ok || !ok2 {
			c.t.Fatalf("lab env: %q is no export", line)
		}
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		out[name] = strings.Trim(value, "'")
	}
	return out
}

// etcd is a client of the lab's store, made of what `lab env` prints.
func (c *cluster) etcd() *clientv3.Client {
	c.t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(c.settings()["ETCD_ENDPOINTS"], ","), DialTimeout: testenv.Patience})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// etcdOnce is one client for the whole test.
func (c *cluster) etcdOnce() *clientv3.Client {
	c.t.Helper()
	if c.client == nil {
		c.client = c.etcd()
	}
	return c.client
}

// keys lists all keys below a prefix, and gives the store's revision.
func keys(t testing.TB, client *clientv3.Client, prefix string) (map[string]string, int64) {
	t.Helper()
	r, err := client.Get(t.Context(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range r.Kvs {
		out[string(kv.Key)] = string(kv.Value)
	}
	return out, r.Header.Revision
}

// store is the lab's datastore.
func (c *cluster) store() store.Store {
	c.t.Helper()
	env := c.settings()
	st, err := datastore.Open(c.t.Context(), func(name string) string { return env[name] })
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = st.Close() })
	return st
}

// st is one store for the whole test.
func (c *cluster) st() store.Store {
	c.t.Helper()
	if c.kept == nil {
		c.kept = c.store()
	}
	return c.kept
}

// put stores an object written as JSON, new or over what there is.
func put(t testing.TB, st store.Store, text string) {
	t.Helper()
	o, err := v3.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v3.Default(o)
	if err := v3.Validate(o); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(o)}); err != nil {
		if _, err := st.Commit(t.Context(), store.Op{Verb: store.Update, Object: store.New(o)}); err != nil {
			t.Fatal(err)
		}
	}
}

// statusSocket is where a node's agent tells its status.
func (c *cluster) statusSocket(node string) string {
	c.t.Helper()
	return filepath.Join(filepath.Dir(c.node(node).Socket), "status.sock")
}

// agentStatus is what `weft node status` says on a node.
func (c *cluster) agentStatus(node string) (agent.Status, error) {
	var s agent.Status
	out, code := c.sh(node).try("WEFT_STATUS_SOCKET=" + c.statusSocket(node) + " " + filepath.Join(bin, "weft") + " node status -o json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return s, fmt.Errorf("node status on %s: exit code %d: %s", node, code, out)
	}
	return s, nil
}

// established waits until a node has that many sessions and all of them are up.
func (c *cluster) established(node string, sessions int) agent.Status {
	c.t.Helper()
	var s agent.Status
	eventually(c.t, "BGP on "+node, func() (err error) {
		if s, err = c.agentStatus(node); err != nil {
			return err
		}
		if len(s.Peers) != sessions {
			return fmt.Errorf("%d sessions, want %d", len(s.Peers), sessions)
		}
		for _, p := range s.Peers {
			if p.State != "Established" {
				return fmt.Errorf("%s: %s %s", p.Addr, p.State, p.Info)
			}
		}
		return nil
	})
	return s
}

// routes are the lines of `ip route` at a target, without the spaces at their ends.
func (c *cluster) routes(target string) []string {
	c.t.Helper()
	var out []string
	for line := range strings.Lines(c.sh(target).run("ip route; ip -6 route")) {
		out = append(out, strings.TrimSpace(line))
	}
	return out
}

// hasRoute fails with the routes unless a line matches the whole of a pattern. What the kernel
// says of a carrier is left out: it hears of that a moment after the link is up.
func (c *cluster) hasRoute(target, pattern string) error {
	re := regexp.MustCompile("^(?:" + pattern + ")$")
	lines := c.routes(target)
	for _, line := range lines {
		if re.MatchString(strings.TrimSuffix(line, " linkdown")) {
			return nil
		}
	}
	return fmt.Errorf("%s has no route %s:\n%s", target, pattern, strings.Join(lines, "\n"))
}

// lacksRoute is the opposite of hasRoute.
func (c *cluster) lacksRoute(target, pattern string) error {
	if c.hasRoute(target, pattern) == nil {
		return fmt.Errorf("%s has a route %s", target, pattern)
	}
	return nil
}

// awaitRoute waits for a route.
func (c *cluster) awaitRoute(target, pattern string) time.Duration {
	c.t.Helper()
	return eventually(c.t, "route", func() error { return c.hasRoute(target, pattern) })
}

// process is a program that runs inside of a lab, started by `weft lab exec`.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	err   *bytes.Buffer
}

// begin starts a program at a target; it ends when the test does.
func (c *cluster) begin(target string, argv ...string) *process {
	c.t.Helper()
	args := append([]string{"lab", "exec", target, "--"}, argv...)
	p := &process{t: c.t, cmd: exec.Command(filepath.Join(bin, "weft"), args...), err: &bytes.Buffer{}}
	p.cmd.Env = c.env
	p.cmd.Stderr = p.err
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { p.stdin.Close(); _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() })
	return p
}

// read gives the next line of its output.
func (p *process) read() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("%s: %v: %s%s", strings.Join(p.cmd.Args, " "), err, line, p.err)
	}
	return strings.TrimSuffix(line, "\n")
}

// ask writes a line and reads one.
func (p *process) ask(line string) string {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
		p.t.Fatalf("%s: %v: %s", strings.Join(p.cmd.Args, " "), err, p.err)
	}
	return p.read()
}

// help starts a helper at a target.
func (c *cluster) help(target string, args ...string) *process {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	return c.begin(target, append([]string{self, "helper"}, args...)...)
}

// shell is a shell at a target that takes one command after the other: much
// cheaper than an exec for each.
type shell struct {
	p  *process
	mu sync.Mutex
}

// sh gives the shell of a target: a node, a router, a pod as pod/default/NAME.
func (c *cluster) sh(target string) *shell {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shells[target] == nil {
		c.shells[target] = &shell{p: c.begin(target, "sh")}
	}
	return c.shells[target]
}

// try runs a command and gives its output, both streams, and its exit code.
func (s *shell) try(command string) (string, int) {
	s.p.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := fmt.Fprintf(s.p.stdin, "{ %s\n} 2>&1 </dev/null; printf '\\n\\001%%d\\n' $?\n", command); err != nil {
		s.p.t.Fatalf("shell: %v: %s", err, s.p.err)
	}
	var out strings.Builder
	for {
		line := s.p.read()
		if code, ok := strings.CutPrefix(line, "\x01"); ok {
			n, err := strconv.Atoi(code)
			if err != nil {
				s.p.t.Fatal(err)
			}
			return strings.TrimRight(out.String(), "\n"), n
		}
		out.WriteString(line + "\n")
	}
}

// reach waits until an address answers a target: routes from node to node come by
// BGP, a while after the pods.
func (c *cluster) reach(target, addr string) {
	c.t.Helper()
	eventually(c.t, addr+" from "+target, func() error {
		if out, code := c.sh(target).try(ping(addr)); code != 0 {
			return errors.New(out)
		}
		return nil
	})
}

// run runs a command that must succeed and gives its output.
func (s *shell) run(command string) string {
	s.p.t.Helper()
	out, code := s.try(command)
	if code != 0 {
		s.p.t.Fatalf("%s: exit code %d: %s", command, code, out)
	}
	return out
}

// agentEnv is the environment of a node's agent, as it was started last.
func (c *cluster) agentEnv(node string) string {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.envs == nil {
		c.envs = map[string]string{}
	}
	if text, ok := c.envs[node]; ok {
		return text
	}
	p := c.begin(node, "cat", fmt.Sprintf("/proc/%d/environ", c.node(node).PID))
	text, err := io.ReadAll(p.out)
	if err != nil || len(text) == 0 {
		c.t.Fatalf("environment of %s: %v: %s", node, err, p.err)
	}
	c.envs[node] = string(text)
	return string(text)
}
