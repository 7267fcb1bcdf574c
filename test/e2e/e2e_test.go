// Package e2e_test runs the real executables, as a user does: `weft lab` makes a
// cluster, and the tests look at it, break it, and look again.
//
// Nothing here knows the inside of weft. Each test has labs of its own, in a
// directory of its own, so tests run beside each other and beside a lab of yours.
package e2e_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/lab"
	"github.com/weft-net/weft/internal/testenv"
)

// bin holds weft and weft-cni; set by TestMain before the first test.
var bin string

// TestMain builds the executables as `make build` does. The test binary is also
// the traffic generator that runs inside pods.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		if err := helper(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "helper:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "train" {
		if err := train(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
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
}

// newCluster takes down, when the test ends, whatever is up.
func newCluster(t testing.TB) *cluster {
	t.Helper()
	testenv.Need(t, "ip")
	dir, err := os.MkdirTemp("/tmp", "e2e") // short: it holds sockets
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, env: append(os.Environ(), "WEFT_LAB_DIR="+dir), dir: dir, shells: map[string]*shell{}}
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
func (c *cluster) await(what string, within time.Duration, so func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(within); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// train is the traffic generator. "train echo PORT" answers every datagram;
// "train send ADDRESS:PORT" sends one every millisecond until its standard input
// ends, then prints how many it sent and how many came back.
func train(args []string) error {
	switch args[0] {
	case "echo":
		conn, err := net.ListenPacket("udp", ":"+args[1])
		if err != nil {
			return err
		}
		_ = conn.(*net.UDPConn).SetReadBuffer(1 << 20)
		fmt.Println("ready")
		buf := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return err
			}
			_, _ = conn.WriteTo(buf[:n], from)
		}
	case "send":
		conn, err := net.Dial("udp", args[1])
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.(*net.UDPConn).SetReadBuffer(1 << 20) // a busy machine reads late
		return send(conn)
	}
	return fmt.Errorf("train: %q: must be echo or send", args[0])
}

func send(conn net.Conn) error {
	ended := make(chan struct{})
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		close(ended)
	}()
	back := make(chan int)
	go func() {
		seen := map[uint64]bool{}
		buf := make([]byte, 64)
		for {
			n, err := conn.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err == nil && n == 8 {
				seen[binary.BigEndian.Uint64(buf)] = true
			}
		}
		back <- len(seen)
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sent, refused := uint64(0), 0
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-tick.C:
			sent++
			if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, sent)); err != nil {
				refused++
			}
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // for the last ones
	fmt.Println(sent, <-back, refused)
	return nil
}

// traffic is a train that runs from one pod to another.
type traffic struct {
	t    testing.TB
	echo *exec.Cmd
	send *exec.Cmd
	out  bytes.Buffer
	stop func() error
}

// startTraffic sends a datagram every millisecond, each of which is answered.
func (c *cluster) startTraffic(from, to string) *traffic {
	c.t.Helper()
	self, err := os.Executable()
	if err != nil {
		c.t.Fatal(err)
	}
	var addr string
	for _, p := range c.status().Pods {
		if "pod/"+p.Namespace+"/"+p.Name == to {
			addr = p.Addresses[0].String()
		}
	}
	const port = 9000
	tr := &traffic{t: c.t}
	tr.echo = c.command("lab", "exec", to, "--", self, "train", "echo", strconv.Itoa(port))
	ready, err := tr.echo.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := tr.echo.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = tr.echo.Process.Kill(); _ = tr.echo.Wait() })
	if _, err := ready.Read(make([]byte, 16)); err != nil {
		c.t.Fatalf("the echo in %s does not start: %v", to, err)
	}
	tr.send = c.command("lab", "exec", from, "--", self, "train", "send", net.JoinHostPort(addr, strconv.Itoa(port)))
	tr.send.Stdout, tr.send.Stderr = &tr.out, &tr.out
	in, err := tr.send.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	tr.stop = in.Close
	if err := tr.send.Start(); err != nil {
		c.t.Fatal(err)
	}
	return tr
}

// end stops the train and returns how many datagrams went out and how many did
// not come back.
func (tr *traffic) end() (sent, lost int) {
	tr.t.Helper()
	_ = tr.stop()
	if err := tr.send.Wait(); err != nil {
		tr.t.Fatalf("train: %v: %s", err, tr.out.String())
	}
	var back, refused int
	if _, err := fmt.Sscan(tr.out.String(), &sent, &back, &refused); err != nil {
		tr.t.Fatalf("train: %q: %v", tr.out.String(), err)
	}
	return sent, sent - back
}
