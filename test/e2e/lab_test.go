package e2e_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/testenv"
)

// TestExamples runs every topology that we give to users.
func TestExamples(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "bird")
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			out, code := c.weft("lab", "run", "-f", file)
			if code == 1 && strings.Contains(out, "needs kernel wireguard, which this kernel does not have: as root: modprobe wireguard") {
				t.Skip("it needs the full kernel, where TestVMExamples runs it")
			}
			if code == 1 && strings.Contains(out, "needs kernel ipip, which this kernel does not have, or TUN devices: open /dev/net/tun: permission denied") {
				t.Skip("this user may make no TUN devices; TestVMExamples runs it")
			}
			if code != 0 {
				t.Fatalf("exit code %d:\n%s", code, out)
			}
			if strings.Contains(out, "✗") || !strings.Contains(out, "✓ pods reach pods") {
				t.Errorf("not every pod reaches every pod:\n%s", out)
			}
		})
	}
}

// TestRunFails: an expectation that does not come true is said, with what is the
// case instead, and the exit code is 1.
func TestRunFails(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	out, code := c.weft("lab", "run", "-f", c.file(`
nodes: [{name: a}]
pods: [{name: p, node: a}, {name: q, node: a}]
expect:
- {unreachable: {from: pod/default/p, to: pod/default/q}, within: 1s}
- {route: {at: a, line: 192.0.2.0/24 via *}, within: 100ms}
- {reachable: {from: a, to: pods}}
`))
	for _, want := range []string{
		"✗ pod/default/p do not reach pod/default/q: pod/default/p to pod/default/q (192.168.",
		"not within 6s: it answers",
		"✗ route on a: 192.0.2.0/24 via *: not within 600ms: a has: default via 10.99.1.1 dev eth0; ",
		"✓ a reach pods",
		"1 of 3 expectations hold",
		"2 of 3 expectations of ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("lacks %q", want)
		}
	}
	if code != 1 || t.Failed() {
		t.Errorf("exit code %d, want 1; output:\n%s", code, out)
	}
}

// TestUpAndDown is the session of a user: up, look, enter, leave nothing.
func TestUpAndDown(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	if out, code := c.weft("lab", "status"); code != 1 || !strings.Contains(out, "not up in "+c.dir+"/default: start it with: weft lab up") {
		t.Errorf("status before up: exit code %d: %s", code, out)
	}
	start := time.Now()
	c.must("lab", "up")
	t.Logf("lab up of 3 nodes and 6 pods: %v", time.Since(start))
	s := c.status()
	if len(s.Nodes) != 3 || len(s.Pods) != 6 {
		t.Fatalf("%d nodes and %d pods, want 3 and 6", len(s.Nodes), len(s.Pods))
	}
	for _, p := range s.Pods {
		out := c.must("lab", "exec", "pod/"+p.Namespace+"/"+p.Name, "--", "ip", "-4", "-br", "addr", "show", "eth0")
		if want := p.Addresses[0].String() + "/32"; !strings.Contains(out, want) {
			t.Errorf("pod %s has %q, want %s", p.Name, out, want)
		}
	}
	out := c.must("lab", "exec", "node-a", "--", filepath.Join(bin, "weft"), "node", "status")
	if !strings.Contains(out, "\nready\n") {
		t.Errorf("node status in node-a:\n%s", out)
	}
	if out, want := c.must("lab", "env"), "export DATASTORE_TYPE=etcdv3\nexport ETCD_ENDPOINTS="+s.Endpoint+"\n"; out != want {
		t.Errorf("lab env prints %q, want %q", out, want)
	}
	if out := c.must("lab", "check"); !strings.Contains(out, "17 of 17 expectations hold") {
		t.Errorf("lab check:\n%s", out)
	}
	if out, code := c.weft("lab", "exec", "node-a", "--", "sh", "-c", "exit 9"); code != 9 || out != "" {
		t.Errorf("exec: exit code %d and %q, want 9 and nothing", code, out)
	}
	if out, code := c.weft("lab", "exec", "node-a"); code != 2 {
		t.Errorf("exec without a command: exit code %d, want 2: %s", code, out)
	}
	c.must("lab", "down")
	if _, err := os.Stat(c.dir + "/default"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after down there is still %s/default", c.dir)
	}
	if n := len(processes(c.dir)); n != 0 {
		t.Errorf("after down there are %d processes left", n)
	}
}

// TestRunKilled: kill -9 of a `lab run` takes its lab along, directory and all.
func TestRunKilled(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	cmd := c.command("lab", "run", "-f", c.file(`
nodes: [{name: a}, {name: b}]
expect: [{reachable: {from: a, to: 198.51.100.1}, within: 5m}]
`))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() && !strings.Contains(lines.Text(), "up: 2 nodes") {
	}
	if n := len(processes(c.dir)); n < 4 {
		t.Fatalf("%d processes in the lab, want the holder, the store and two agents", n)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	c.await("no process and no directory is left", func() bool {
		labs, _ := filepath.Glob(c.dir + "/*")
		return len(labs) == 0 && len(processes(c.dir)) == 0
	})
}

// processes lists those that have files below dir as an argument, in their
// environment or, the holder, as a mount.
func processes(dir string) []string {
	var out []string
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		for _, file := range []string{"cmdline", "environ"} {
			body, err := os.ReadFile(p + "/" + file)
			if err == nil && strings.Contains(string(body), dir+"/") {
				out = append(out, p)
				break
			}
		}
		if body, err := os.ReadFile(p + "/cmdline"); err == nil && strings.HasPrefix(string(body), "weft-lab:") {
			if mounts, err := os.ReadFile(p + "/mountinfo"); err == nil && strings.Contains(string(mounts), dir+"/") {
				out = append(out, p)
			}
		}
	}
	return out
}

// TestOrdinaryUser runs the quickstart without root, from executables that
// somebody else owns.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	if !testenv.RealRoot() {
		t.Skip("the other tests run as an ordinary user here")
	}
	testenv.Need(t, "ip")
	const nobody = 65534
	dir, err := os.MkdirTemp("/tmp", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	script := fmt.Sprintf("cp %[1]s/weft %[1]s/weft-cni %[2]s && chmod -R a+rX %[2]s && mkdir -m 700 %[2]s/labs && chown %[3]d %[2]s/labs", bin, dir, nobody)
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(dir+"/weft", "lab", "run")
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH"), "WEFT_LAB_DIR=" + dir + "/labs"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "17 of 17 expectations hold") {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}
