package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/bgp/wire"
	"github.com/weft-net/weft/internal/speaker"
	"github.com/weft-net/weft/internal/testenv"
)

const feedRoutes = 100_000

// TestBGPSpeakerProcess is not a test: BenchmarkBGPFeed runs the test binary
// again with this name, as the process to be measured. It prints one line
// when it has learned all routes, and ends when its input does.
func TestBGPSpeakerProcess(t *testing.T) {
	if os.Getenv("WEFT_BENCH_SPEAKER") == "" {
		t.Skip("only for BenchmarkBGPFeed")
	}
	s := speaker.New(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	err := s.Apply(bgp.Config{ASN: 64512, RouterID: netip.MustParseAddr("10.9.0.1"), Peers: map[string]bgp.Peer{
		"Global_10_9_0_2": {Addr: netip.MustParseAddr("10.9.0.2"), ASN: 65001, Passive: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for n := 0; n < feedRoutes; {
			b := <-s.Learned()
			n += len(b.Puts) - len(b.Deletes)
		}
		fmt.Println("all routes are here")
		for range s.Learned() {
		}
	}()
	_, _ = os.Stdin.Read(make([]byte, 1))
	cancel()
	<-done
}

// cost is what a process used.
type cost struct {
	wall, cpu time.Duration
	rss       int // kB, at most
}

// BenchmarkBGPFeed tells 100,000 routes to one speaker: to Debian's bird2, to a
// bird2 that writes them into the kernel, and to ours. The routes come from
// ready-made messages, since a bird2 as feeder holds back the last of them for
// up to 3 s. Wall time, of which the least is reported, is from the first
// message to the moment when the receiver has the last route; CPU time and
// memory are those of the receiving process over its life.
func BenchmarkBGPFeed(b *testing.B) {
	testenv.Need(b, "bird", "birdc")
	for _, bb := range []struct {
		name    string
		receive func(*feed) cost
	}{
		{"bird2", func(f *feed) cost { return f.bird("") }},
		{"bird2-kernel", func(f *feed) cost { return f.bird("protocol kernel { ipv4 { export all; }; }") }},
		{"weft", (*feed).weft},
	} {
		b.Run(bb.name, func(b *testing.B) {
			sum := cost{wall: time.Hour}
			for range b.N {
				c := bb.receive(newFeed(b))
				sum = cost{min(sum.wall, c.wall), sum.cpu + c.cpu, max(sum.rss, c.rss)}
			}
			b.ReportMetric(float64(sum.wall.Milliseconds()), "wall-ms")
			b.ReportMetric(float64(sum.cpu.Milliseconds())/float64(b.N), "cpu-ms/op")
			b.ReportMetric(float64(sum.rss)/1024, "rss-MB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// feed is many routes, a namespace for who shall get them, and another for who has them.
type feed struct {
	b        *testing.B
	dir      string
	ns, them *testenv.Namespace
	messages []byte
	open     time.Time // when the first of them was sent
}

func newFeed(b *testing.B) *feed {
	f := &feed{b: b, dir: b.TempDir(), ns: testenv.Netns(b), them: testenv.Netns(b)}
	testenv.Veth(b, f.ns, "eth0", []string{"10.9.0.1/24"}, f.them, "eth0", []string{"10.9.0.2/24"})
	prefixes := make([]netip.Prefix, feedRoutes)
	a := netip.MustParseAddr("16.0.0.0")
	for i := range prefixes {
		prefixes[i] = netip.PrefixFrom(a, 32)
		a = a.Next()
	}
	attrs := &wire.Attrs{ASPath: wire.ASPath{{Kind: wire.Sequence, ASNs: []uint32{65001}}}, NextHop: netip.MustParseAddr("10.9.0.2")}
	f.messages, _ = wire.AppendReach(nil, wire.IPv4, attrs, prefixes, wire.Options{ASN4: true})
	f.messages = wire.AppendEndOfRIB(f.messages, wire.IPv4)
	return f
}

// begin makes a session with the receiver, and tells it everything.
func (f *feed) begin() {
	var c net.Conn
	f.until(func() bool {
		return f.them.Do(func() (err error) { c, err = net.Dial("tcp", "10.9.0.1:179"); return err }) == nil
	})
	f.b.Cleanup(func() { _ = c.Close() })
	hello := wire.AppendOpen(nil, wire.Open{
		ASN: 65001, HoldTime: 0, ID: netip.MustParseAddr("10.9.0.2"),
		Capabilities: wire.Capabilities{ASN4: true, Families: wire.IPv4, Restart: wire.Restart{Known: true}},
	})
	_, _ = c.Write(wire.AppendKeepalive(hello))
	buf, n := make([]byte, 4096), 0
	for up := false; !up; {
		k, err := c.Read(buf[n:])
		if err != nil {
			f.b.Fatal(err)
		}
		n += k
		for rest := buf[:n]; ; {
			t, body, more, err := wire.Frame(rest)
			if err != nil {
				f.b.Fatal(err)
			}
			if body == nil {
				break
			}
			up, rest = up || t == wire.TypeKeepalive, more
		}
	}
	f.open = time.Now()
	go func() {
		_, _ = c.Write(f.messages)
		_, _ = io.Copy(io.Discard, c)
	}()
}

// start runs a bird2 until the benchmark ends.
func (f *feed) start(ns *testenv.Namespace, name, config string) *exec.Cmd {
	base := filepath.Join(f.dir, name)
	if err := os.WriteFile(base+".conf", []byte(config), 0o600); err != nil {
		f.b.Fatal(err)
	}
	cmd := exec.Command(testenv.Need(f.b, "bird"), "-f", "-c", base+".conf", "-s", base+".ctl", "-P", base+".pid")
	if err := ns.Start(cmd); err != nil {
		f.b.Fatal(err)
	}
	f.b.Cleanup(func() { f.end(cmd) })
	f.until(func() bool { return strings.Contains(f.ask(name, "show", "status"), "Daemon is up") })
	return cmd
}

func (f *feed) ask(name string, command ...string) string {
	out, _ := exec.Command(testenv.Need(f.b, "birdc"), append([]string{"-s", filepath.Join(f.dir, name+".ctl")}, command...)...).CombinedOutput()
	return string(out)
}

func (f *feed) until(ok func() bool) {
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			f.b.Fatal("nothing happened for a minute")
		}
	}
}

// bird measures another bird2, whose configuration gets extra.
func (f *feed) bird(extra string) cost {
	cmd := f.start(f.ns, "peer", "router id 10.9.0.1;\nprotocol device {}\n"+extra+
		"\nprotocol bgp w { local 10.9.0.1 as 64512; neighbor 10.9.0.2 as 65001; multihop; passive;\n ipv4 { import all; export none; }; }\n")
	f.begin()
	f.until(func() bool {
		if extra != "" {
			return f.inKernel(cmd.Process.Pid) >= feedRoutes
		}
		return strings.Contains(f.ask("peer", "show", "protocols", "all", "w"), fmt.Sprintf("Routes:         %d imported", feedRoutes))
	})
	return f.measure(cmd)
}

// inKernel counts the IPv4 routes in the main table of a process's namespace,
// in a way that does not have the kernel list them.
func (f *feed) inKernel(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/fib_triestat", pid))
	if err != nil {
		f.b.Fatal(err)
	}
	_, main, _ := strings.Cut(string(stat), "Main:")
	_, after, _ := strings.Cut(main, "Prefixes:")
	n, err := strconv.Atoi(strings.Fields(after + " 0")[0])
	if err != nil {
		f.b.Fatal(err)
	}
	return n
}

// weft measures our speaker, without the kernel.
func (f *feed) weft() cost {
	cmd := exec.Command(os.Args[0], "-test.run=^TestBGPSpeakerProcess$")
	cmd.Env = append(os.Environ(), "WEFT_BENCH_SPEAKER=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.b.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		f.b.Fatal(err)
	}
	if err := f.ns.Start(cmd); err != nil {
		f.b.Fatal(err)
	}
	f.b.Cleanup(func() { _ = in.Close(); f.end(cmd) })
	f.begin()
	if _, err := out.Read(make([]byte, 64)); err != nil {
		f.b.Fatal(err)
	}
	return f.measure(cmd)
}

// measure reads what the process used so far, and ends it.
func (f *feed) measure(cmd *exec.Cmd) cost {
	c := cost{wall: time.Since(f.open)}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		f.b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	if c.rss, err = strconv.Atoi(strings.Fields(after)[0]); err != nil {
		f.b.Fatal(err)
	}
	f.end(cmd)
	u := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	c.cpu = time.Duration(u.Utime.Nano() + u.Stime.Nano())
	return c
}

func (f *feed) end(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
