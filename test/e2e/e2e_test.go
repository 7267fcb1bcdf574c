// Package e2e_test runs the real executables, as a user does: `weft lab` makes a
// cluster, and the tests look at it, break it, and look again.
//
//	test ── weft lab up -f topologies/x.yaml ──► fabric, nodes, pods, routers
//	  ├── weft lab exec TARGET -- sh ───────────────┘   one shell per target, kept
//	  └── etcd client, with what weft lab env prints
//
// Nothing here knows the inside of weft. Each test has labs of its own, in a
// directory of its own, so tests run beside each other and beside a lab of yours.
// What must come true is asked for again and again until a deadline; packets, route
// changes and etcd keys are counted, and the count is the assertion. In the log of
// an agent a line of level ERROR fails its test.
//
// topologies/ holds labs that several tests use, topologies/run/ those whose
// expectations are the whole test. WEFT_BIN names a directory that has the
// executables, when they are not to be built.
package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-net/weft/internal/lab"
	"github.com/weft-net/weft/internal/store"
	"github.com/weft-net/weft/internal/testenv"
)

// bin holds weft and weft-cni; set by TestMain before the first test.
var bin string

// TestMain builds the executables as `make build` does. The test binary is also
// what runs inside of labs, such as trains of pings.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		if err := helper(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if bin = os.Getenv("WEFT_BIN"); bin != "" { // built already
		return m.Run()
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "./cmd/weft", "./cmd/weft-cni")
	build.Dir, build.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	bin = dir
	return m.Run()
}

// cluster is a directory for labs; its methods run `weft lab`.
type cluster struct {
	t   testing.TB
	env []string
	dir string

	now    lab.Status // as it was when it was last read
	mu     sync.Mutex
	shells map[string]*shell // by target
	client *clientv3.Client  // nil until it is asked for
	kept   store.Store       // nil until st is asked for it
	envs   map[string]string // of agents, by node
	// expected is in those lines that ask for a person which the test brings about; empty: none are.
	expected string
}

// newCluster takes down, when the test ends, whatever is up.
func newCluster(t testing.TB) *cluster {
	t.Helper()
	testenv.Need(t, "ip")
	dir, err := os.MkdirTemp("/tmp", "e2e") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, env: append(os.Environ(), "WEFT_LAB_DIR="+dir, "WEFT_LAB_PATIENCE=6"), dir: dir, shells: map[string]*shell{}}
	t.Cleanup(func() {
		c.noErrors()
		if t.Failed() {
			c.logs()
		}
		if out, code := c.weft("lab", "down"); code != 0 {
			t.Errorf("lab down: exit code %d: %s", code, out)
		}
		_ = os.RemoveAll(dir)
	})
	return c
}

// logs shows the ends of all logs of labs that are up.
func (c *cluster) logs() {
	files, _ := filepath.Glob(c.dir + "/*/*/*/log")
	more, _ := filepath.Glob(c.dir + "/*/*.log")
	for _, f := range append(files, more...) {
		body, _ := os.ReadFile(f)
		c.t.Logf("%s:\n%s", f, body[max(0, len(body)-4000):])
	}
}

// noErrors fails the test if a log has a line that asks for a person.
func (c *cluster) noErrors() {
	files, _ := filepath.Glob(c.dir + "/*/nodes/*/log")
	for _, f := range files {
		body, _ := os.ReadFile(f)
		for line := range strings.Lines(string(body)) {
			if c.expected != "" && strings.Contains(line, c.expected) {
				continue
			}
			if strings.Contains(line, "level=ERROR") || strings.Contains(line, "panic:") || strings.Contains(line, "DATA RACE") {
				c.t.Errorf("%s: %s", f, line)
			}
		}
	}
}

// command is weft with those arguments, not started.
func (c *cluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "weft"), args...)
	cmd.Env = c.env
	return cmd
}

// weft runs weft and returns what it printed, to both streams, and its exit code.
func (c *cluster) weft(args ...string) (string, int) {
	c.t.Helper()
	out, err := c.command(args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		c.t.Fatalf("weft %s: %v", strings.Join(args, " "), err)
	}
	return string(out), 0
}

// must is weft for steps that have to succeed.
func (c *cluster) must(args ...string) string {
	c.t.Helper()
	out, code := c.weft(args...)
	if code != 0 {
		c.t.Fatalf("weft %s: exit code %d:\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// file writes a topology and returns its path.
func (c *cluster) file(topology string) string {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "lab.yaml")
	if err := os.WriteFile(path, []byte(topology), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// status is that of the lab that is up.
func (c *cluster) status() lab.Status {
	c.t.Helper()
	var s lab.Status
	if err := json.Unmarshal([]byte(c.must("lab", "status", "-o", "json")), &s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// await tries until what is asked for is so; the processes are real, so it looks
// again and again.
func (c *cluster) await(what string, so func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(testenv.Patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %v: %s", testenv.Patience, what)
		}
	}
}
