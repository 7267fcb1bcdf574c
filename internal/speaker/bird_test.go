package speaker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/bgp"
	"github.com/weft-net/weft/internal/speaker"
	"github.com/weft-net/weft/internal/testenv"
)

// TestMain lets the test binary be a speaker, so that one can run in a
// namespace of its own and be killed.
func TestMain(m *testing.M) {
	if os.Getenv("WEFT_TEST_SPEAKER") != "" {
		beSpeaker()
		return
	}
	os.Exit(m.Run())
}

// beSpeaker reads configurations, one a line, and prints what it learns.
func beSpeaker() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s := speaker.New(log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	go func() {
		for b := range s.Learned() {
			printBatch(b)
		}
	}()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if in.Text() == "status" {
			for _, p := range s.Status() {
				fmt.Printf("status %s %v in=%d out=%d stale=%d err=%q\n", p.Addr, p.State, p.Received, p.Advertised, p.Stale, p.Err)
			}
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Printf("status heap %d\nstatus end\n", m.HeapAlloc)
			continue
		}
		if in.Text() == "stop" {
			s.Stop()
			continue
		}
		c, err := parseConfig(in.Text())
		if err == nil {
			err = s.Apply(c)
		}
		if err != nil {
			fmt.Println("error", err)
		}
	}
	cancel()
	<-done
}

func printBatch(b bgp.LearnedBatch) {
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for _, r := range b.Puts {
		fmt.Fprintf(out, "put %v via %v\n", r.Prefix, r.NextHops)
	}
	for _, p := range b.Deletes {
		fmt.Fprintf(out, "del %v\n", p)
	}
	if b.Synced {
		fmt.Fprintln(out, "synced")
	}
}

// parseConfig reads "asn=1 id=10.0.0.1 port=179 listen=10.0.0.1 net=10.1.0.0/24 peer=10.0.0.2,2,password=x restarting".
func parseConfig(line string) (bgp.Config, error) {
	c := bgp.Config{Peers: map[string]bgp.Peer{}}
	for _, f := range strings.Fields(line) {
		k, v, _ := strings.Cut(f, "=")
		var err error
		switch k {
		case "asn":
			_, err = fmt.Sscan(v, &c.ASN)
		case "id":
			c.RouterID, err = netip.ParseAddr(v)
		case "restarting":
			c.Restarting = true
		case "port":
			_, err = fmt.Sscan(v, &c.ListenPort)
		case "listen":
			var a netip.Addr
			a, err = netip.ParseAddr(v)
			c.ListenAddrs = append(c.ListenAddrs, a)
		case "net":
			var p netip.Prefix
			p, err = netip.ParsePrefix(v)
			c.Networks = append(c.Networks, bgp.Network{Prefix: p, Communities: []uint32{64512<<16 | 7}})
		case "peer":
			var p bgp.Peer
			p, err = parsePeer(strings.Split(v, ","))
			c.Peers["Global_"+p.Addr.String()] = p
		}
		if err != nil {
			return c, fmt.Errorf("%s: %w", f, err)
		}
	}
	return c, nil
}

func parsePeer(f []string) (p bgp.Peer, err error) {
	p.Addr, err = netip.ParseAddr(f[0])
	fmt.Sscan(f[1], &p.ASN)
	for _, o := range f[2:] {
		switch k, v, _ := strings.Cut(o, "="); k {
		case "password":
			p.Password = bgp.Secret(v)
		case "both":
			p.Families = bgp.IPv4 | bgp.IPv6
		case "ttl":
			fmt.Sscan(v, &p.TTLSecurity)
		case "local":
			p.Local = netip.MustParseAddr(v)
		case "hop6":
			p.NextHop6 = netip.MustParseAddr(v)
		case "restart":
			p.RestartTime, err = time.ParseDuration(v)
		case "passive":
			p.Passive = true
		}
	}
	return p, err
}

// ours is a speaker process.
type ours struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	mu    sync.Mutex
	table map[string]string
	lines []string
	sync  bool
}

func startOurs(t *testing.T, ns *testenv.Namespace, config string) *ours {
	t.Helper()
	o := &ours{t: t, table: map[string]string{}}
	o.cmd = exec.Command(os.Args[0])
	o.cmd.Env = append(os.Environ(), "WEFT_TEST_SPEAKER=1")
	var log strings.Builder
	o.cmd.Stderr = &log
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(o.cmd); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			o.line(sc.Text())
		}
	}()
	t.Cleanup(func() {
		o.kill()
		<-read
		_ = o.cmd.Wait()
		if t.Failed() {
			t.Logf("speaker's log:\n%s", log.String())
		}
	})
	o.send(config)
	return o
}

func (o *ours) send(line string) { fmt.Fprintln(o.in, line) }
func (o *ours) kill()            { _ = o.cmd.Process.Signal(syscall.SIGKILL) }

func (o *ours) line(s string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch f := strings.SplitN(s, " ", 3); f[0] {
	case "put":
		o.table[f[1]] = f[2]
	case "del":
		delete(o.table, f[1])
	case "synced":
		o.sync = true
	default:
		o.lines = append(o.lines, s)
	}
}

func (o *ours) routes() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []string
	for p, via := range o.table {
		out = append(out, p+" "+via)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// status asks the process, and waits for its answer.
func (o *ours) status() string {
	o.mu.Lock()
	o.lines = nil
	o.mu.Unlock()
	o.send("status")
	var got string
	until(o.t, "an answer to status", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		got = strings.Join(o.lines, "\n")
		return slices.Contains(o.lines, "status end")
	})
	return got
}

// until polls what another process does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testenv.Patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %v", what, testenv.Patience)
		}
	}
}

func (o *ours) wants(lines ...string) {
	o.t.Helper()
	want := strings.Join(lines, "\n")
	defer func() {
		if o.t.Failed() {
			o.t.Logf("routes are:\n%s", o.routes())
		}
	}()
	until(o.t, fmt.Sprintf("routes %q", want), func() bool { return o.routes() == want })
}

// bird is a bird process.
type bird struct {
	t            *testing.T
	ns           *testenv.Namespace
	dir, program string
	cmd          *exec.Cmd
}

func startBird(t *testing.T, ns *testenv.Namespace, config string) *bird {
	t.Helper()
	b := &bird{t: t, ns: ns, dir: t.TempDir(), program: testenv.Need(t, "bird", "birdc")}
	b.write(config)
	b.start()
	return b
}

func (b *bird) write(config string) {
	b.t.Helper()
	text := "log \"" + b.dir + "/log\" all;\nprotocol device {}\n" + config
	if err := os.WriteFile(b.dir+"/bird.conf", []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bird) start(args ...string) {
	b.t.Helper()
	args = append([]string{"-f", "-c", b.dir + "/bird.conf", "-s", b.dir + "/ctl", "-P", b.dir + "/pid"}, args...)
	b.cmd = exec.Command(b.program, args...)
	if err := b.ns.Start(b.cmd); err != nil {
		b.t.Fatal(err)
	}
	cmd := b.cmd
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if log, err := os.ReadFile(b.dir + "/log"); err == nil && b.t.Failed() {
			b.t.Logf("bird's log:\n%s", log)
		}
	})
	until(b.t, "answer from bird", func() bool { return strings.Contains(b.ask("show", "status"), "Daemon is up") })
}

func (b *bird) ask(command ...string) string {
	birdc := filepath.Join(filepath.Dir(b.program), "birdc")
	out, _ := exec.Command(birdc, append([]string{"-s", b.dir + "/ctl"}, command...)...).CombinedOutput()
	return string(out)
}

// has waits until bird's answer has every one of want, and none of the rest with "!" before.
func (b *bird) has(command string, want ...string) {
	b.t.Helper()
	var got string
	defer func() {
		if b.t.Failed() {
			b.t.Logf("bird answers %s with:\n%s", command, got)
		}
	}()
	until(b.t, fmt.Sprintf("%q in bird's answer to %s", want, command), func() bool {
		got = b.ask(strings.Fields(command)...)
		for _, w := range want {
			if not, ok := strings.CutPrefix(w, "!"); ok && strings.Contains(got, not) || !ok && !strings.Contains(got, w) {
				return false
			}
		}
		return true
	})
}

// pair is two namespaces joined by a wire: ours has .1, bird's has .2.
func pair(t *testing.T) (us, them *testenv.Namespace) {
	us, them = testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, us, "eth0", []string{"10.9.0.1/24", "fd09::1/64"}, them, "eth0", []string{"10.9.0.2/24", "fd09::2/64"})
	return us, them
}

const birdStatic = `
router id 10.9.0.2;
protocol static s4 { ipv4; route 192.0.2.0/24 blackhole; route 198.51.100.0/24 blackhole; }
protocol static s6 { ipv6; route 2001:db8::/32 blackhole; }
`

const birdPeers = birdStatic + `
protocol bgp w4 { local 10.9.0.2 as 65001; neighbor 10.9.0.1 as 64512; multihop; %[1]s connect delay time 1;
  ipv4 { import all; export where proto = "s4"; next hop self; }; }
protocol bgp w6 { local fd09::2 as 65001; neighbor fd09::1 as 64512; multihop; %[1]s connect delay time 1;
  ipv6 { import all; export where proto = "s6"; next hop self; }; }
`

func TestBirdBothWays(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ bird, ours string }{
		"plain":         {"", ""},
		"password":      {`password "s3cret";`, ",password=s3cret"},
		"ttl security":  {"ttl security on;", ",ttl=1"},
		"we dial":       {"passive;", ""},
		"bird dials":    {"", ",passive"},
		"2-byte AS":     {"enable as4 off;", ""},
		"no restart":    {"graceful restart off;", ""},
		"no refresh":    {"enable route refresh off;", ""},
		"password dial": {`passive; password "s3cret";`, ",password=s3cret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			us, them := pair(t)
			config := fmt.Sprintf(birdPeers, tt.bird)
			if strings.Contains(tt.bird, "ttl") {
				config = strings.ReplaceAll(config, "multihop;", "")
			}
			b := startBird(t, them, config)
			o := startOurs(t, us, "asn=64512 id=10.9.0.1 net=10.65.0.0/26 net=fd65::/122 peer=10.9.0.2,65001"+tt.ours+" peer=fd09::2,65001"+tt.ours)
			o.wants("192.0.2.0/24 via [10.9.0.2]", "198.51.100.0/24 via [10.9.0.2]", "2001:db8::/32 via [fd09::2]")
			b.has("show route all", "10.65.0.0/26", "fd65::/122", "BGP.as_path: 64512", "BGP.next_hop: 10.9.0.1", "BGP.community: (64512,7)", "BGP.next_hop: fd09::1")
			until(t, "Synced", func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.sync })
			b.ask("disable", "s4")
			o.wants("2001:db8::/32 via [fd09::2]")
			o.send("asn=64512 id=10.9.0.1 net=fd65::/122 peer=10.9.0.2,65001" + tt.ours + " peer=fd09::2,65001" + tt.ours)
			b.has("show route", "!10.65.0.0/26", "fd65::/122")
			if tt.bird != "enable route refresh off;" { // ask again in both directions
				b.ask("enable", "s4")
				b.ask("reload", "w4")
				o.wants("192.0.2.0/24 via [10.9.0.2]", "198.51.100.0/24 via [10.9.0.2]", "2001:db8::/32 via [fd09::2]")
				if s := o.status(); !strings.Contains(s, "status 10.9.0.2 Established") {
					t.Errorf("a refresh cost the session: %s", s)
				}
			}
		})
	}
}

func TestBirdWrongPassword(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	b := startBird(t, them, fmt.Sprintf(birdPeers, `password "right";`))
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,65001,password=wrong peer=fd09::2,65001,password=right")
	o.wants("2001:db8::/32 via [fd09::2]")
	b.has("show protocols", "w6         BGP        ---        up", "!w4         BGP        ---        up")
	if s := o.status(); strings.Contains(s, "status 10.9.0.2 Established") {
		t.Errorf("a session with a wrong password: %s", s)
	}
}

func TestBirdBothFamiliesOnOneSession(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	b := startBird(t, them, birdStatic+`
protocol bgp w4 { local 10.9.0.2 as 64512; neighbor 10.9.0.1 as 64512; connect delay time 1;
  ipv4 { import all; export all; next hop self; }; ipv6 { import all; export all; next hop address fd09::2; }; }`)
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 net=10.65.0.0/26 net=fd65::/122 peer=10.9.0.2,64512,both,hop6=fd09::1")
	o.wants("192.0.2.0/24 via [10.9.0.2]", "198.51.100.0/24 via [10.9.0.2]", "2001:db8::/32 via [fd09::2]")
	b.has("show route all", "10.65.0.0/26", "fd65::/122", "BGP.local_pref: 100", "BGP.next_hop: fd09::1")
}

// Calico's peers have additional paths on; both are taken, as one route.
func TestBirdAdditionalPaths(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	startBird(t, them, `
router id 10.9.0.2;
protocol static a { ipv4; route 192.0.2.0/24 via 10.9.0.66; }
protocol static b { ipv4; route 192.0.2.0/24 via 10.9.0.77; }
protocol bgp w4 { local 10.9.0.2 as 64512; neighbor 10.9.0.1 as 64512; connect delay time 1;
  ipv4 { import all; export all; add paths on; next hop keep; }; }`)
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,64512")
	o.wants("192.0.2.0/24 via [10.9.0.66 10.9.0.77]")
	if s := o.status(); !strings.Contains(s, "in=2") {
		t.Errorf("status: %s", s)
	}
}

func TestBirdKeepsOurRoutesWhileWeRestart(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	b := startBird(t, them, fmt.Sprintf(birdPeers, "graceful restart on;"))
	config := "asn=64512 id=10.9.0.1 net=10.65.0.0/26 net=10.65.0.64/26 net=fd65::/122 peer=10.9.0.2,65001 peer=fd09::2,65001"
	o := startOurs(t, us, config)
	b.has("show route", "10.65.0.0/26", "10.65.0.64/26", "fd65::/122")
	o.kill()
	b.has("show protocols all", "Neighbor graceful restart active")
	b.has("show route", "10.65.0.0/26", "10.65.0.64/26", "fd65::/122")
	// Nothing may be withdrawn in between: bird's log of the kept routes would show it.
	b.ask("debug", "w4", "{routes}")
	startOurs(t, us, strings.Replace(config, "net=10.65.0.64/26 ", "", 1)+" restarting")
	b.has("show route", "10.65.0.0/26", "!10.65.0.64/26", "fd65::/122")
	b.has("show protocols all", "!Neighbor graceful restart active", "BGP state:          Established")
	log, err := os.ReadFile(b.dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "removed 10.65.0.0/26") || !strings.Contains(string(log), "10.65.0.64/26") {
		t.Errorf("bird took away a route that was never gone:\n%s", log)
	}
}

func TestBirdForgetsUsAfterOurRestartTime(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	b := startBird(t, them, fmt.Sprintf(birdPeers, "graceful restart on;"))
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 net=10.65.0.0/26 peer=10.9.0.2,65001,restart=2s")
	b.has("show route", "10.65.0.0/26")
	o.kill()
	b.has("show route", "!10.65.0.0/26")
}

func TestWeKeepRoutesWhileBirdRestarts(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	b := startBird(t, them, fmt.Sprintf(birdPeers, "graceful restart on;"))
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,65001 peer=fd09::2,65001")
	all := []string{"192.0.2.0/24 via [10.9.0.2]", "198.51.100.0/24 via [10.9.0.2]", "2001:db8::/32 via [fd09::2]"}
	o.wants(all...)
	_ = b.cmd.Process.Kill()
	_ = b.cmd.Wait()
	until(t, "stale routes", func() bool { return strings.Contains(o.status(), "stale=2") })
	o.wants(all...)
	b.write(fmt.Sprintf(strings.Replace(birdPeers, "route 198.51.100.0/24 blackhole;", "", 1), "graceful restart on;"))
	b.start("-R")
	o.wants(all[0], all[2])
	until(t, "end of what is stale", func() bool { // of the other family's session, too
		s := o.status()
		return strings.Count(s, " Established ") == 2 && strings.Count(s, "stale=0") == 2
	})
}

func TestRemovedPeerIsTold(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	b := startBird(t, them, fmt.Sprintf(birdPeers, "graceful restart on;"))
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 net=10.65.0.0/26 peer=10.9.0.2,65001")
	b.has("show route", "10.65.0.0/26")
	o.send("asn=64512 id=10.9.0.1 net=10.65.0.0/26")
	b.has("show route", "!10.65.0.0/26")
	b.has("show protocols all w4", "Received: Peer de-configured")
	o.wants()
}

func TestLeavingForGood(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	b := startBird(t, them, fmt.Sprintf(birdPeers, "graceful restart on;"))
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 net=10.65.0.0/26 peer=10.9.0.2,65001")
	b.has("show route", "10.65.0.0/26")
	o.send("stop")
	b.has("show route", "!10.65.0.0/26")
	b.has("show protocols all w4", "Received: Administrative shutdown")
}

func TestPortTakenAndStrangers(t *testing.T) {
	t.Parallel()
	us, them := pair(t)
	var taken net.Listener
	us.MustDo(func() (err error) { taken, err = net.Listen("tcp4", "0.0.0.0:179"); return err })
	startBird(t, them, fmt.Sprintf(birdPeers, "passive;"))
	o := startOurs(t, us, "asn=64512 id=10.9.0.1 peer=10.9.0.2,65001 peer=10.9.0.77,65001")
	o.wants("192.0.2.0/24 via [10.9.0.2]", "198.51.100.0/24 via [10.9.0.2]") // we could dial
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	// Once the port is free it is listened on; a stranger is shown the door at once.
	var c net.Conn
	until(t, "listener", func() bool {
		return us.Do(func() (err error) { c, err = net.Dial("tcp", "127.0.0.1:179"); return err }) == nil
	})
	_ = c.SetReadDeadline(time.Now().Add(testenv.Patience))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stranger got %d bytes, %v", n, err)
	}
	if s := o.status(); !strings.Contains(s, "status 10.9.0.77 ") || strings.Contains(s, "10.9.0.77 Established") {
		t.Errorf("status: %s", s)
	}
}

// No way of printing a configuration shows a password.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	p := bgp.Peer{Password: "hunter2"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "peer", p, "key", p.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "peer", p, "key", p.Password)
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(text) + fmt.Sprintf("%v %+v %#v %s %q", p, p, p, p.Password, p.Password)
	if strings.Contains(all, "hunter2") {
		t.Errorf("the password is in: %s", all)
	}
}
