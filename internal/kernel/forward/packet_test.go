package forward_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/forward"
	"github.com/weft-net/weft/internal/testenv"
)

// router joins a pod behind cali1 and a peer behind eth0 to h.
type router struct {
	host
	pod, peer *testenv.Namespace
}

func newRouter(t *testing.T) router {
	r := router{newHost(t), testenv.Netns(t), testenv.Netns(t)}
	testenv.Veth(t, r.pod, "eth0", []string{"10.0.1.2/24", "fd00:1::2/64"}, r.ns, "cali1", []string{"10.0.1.1/24", "fd00:1::1/64"})
	testenv.Veth(t, r.peer, "eth0", []string{"10.0.2.2/24", "fd00:2::2/64"}, r.ns, "eth0", []string{"10.0.2.1/24", "fd00:2::1/64"})
	host{T: t, ns: r.pod}.do("ip route add default via 10.0.1.1\nip -6 route add default via fd00:1::1")
	host{T: t, ns: r.peer}.do("ip route add default via 10.0.2.1\nip -6 route add default via fd00:2::1")
	r.ns.MustDo(func() error {
		for _, path := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	return r
}

// passes reports whether a datagram from one to the other's address is answered.
func (r router) passes(from, to *testenv.Namespace, addr string) bool {
	r.Helper()
	var server net.PacketConn
	to.MustDo(func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(addr, "7000"))
		return err
	})
	defer server.Close()
	go func() {
		b := make([]byte, 16)
		for {
			n, peer, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:n], peer)
		}
	}()
	var c net.Conn
	from.MustDo(func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(addr, "7000"))
		return err
	})
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		return false
	}
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	_, err := c.Read(make([]byte, 16))
	return err == nil
}

// TestPacketsPass is what all of it is for: the pod's packets pass in both
// directions, whoever drops, and a drop of our own stays final.
func TestPacketsPass(t *testing.T) {
	t.Parallel()
	for name, drop := range map[string]string{
		"iptables-nft":    "iptables-nft -w -P FORWARD DROP\nip6tables-nft -w -P FORWARD DROP",
		"iptables-legacy": "iptables-legacy -w -P FORWARD DROP\nip6tables-legacy -w -P FORWARD DROP",
		"nft":             "nft add table inet t\nnft add chain inet t f { type filter hook forward priority 10 ; policy drop ; }",
		"all of them":     "iptables-nft -w -P FORWARD DROP\nip6tables-nft -w -P FORWARD DROP\niptables-legacy -w -P FORWARD DROP\nip6tables-legacy -w -P FORWARD DROP\nnft add table inet t\nnft add chain inet t f { type filter hook forward priority 10 ; policy drop ; }",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRouter(t)
			if strings.Contains(drop, "legacy") {
				testenv.Need(t, "iptables-legacy", "ip6tables-legacy")
			}
			r.do(drop)
			flows := func() string {
				return fmt.Sprint(r.passes(r.pod, r.peer, "10.0.2.2"), r.passes(r.pod, r.peer, "fd00:2::2"), r.passes(r.peer, r.pod, "10.0.1.2"), r.passes(r.peer, r.pod, "fd00:1::2"))
			}
			if got := flows(); got != "false false false false" {
				t.Fatalf("%s passes at the start: this test shows nothing", got)
			}
			r.start(forward.Options{})
			r.until(eventually, "packets pass", flows, "true true true true")
			r.do("nft add table ip weft\nnft add chain ip weft f { type filter hook forward priority 0 ; policy accept ; }\nnft add rule ip weft f drop")
			r.until(eventually, "our own drop", flows, "false true false true")
		})
	}
}

// TestLegacyCounters: the rules of others keep their counters when ours come and go.
func TestLegacyCounters(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "iptables-legacy")
	h := newHost(t)
	h.do("iptables-legacy -w -A FORWARD -i docker0 -c 11 1111 -j ACCEPT\niptables-legacy -w -A INPUT -c 22 2222 -i lo -j ACCEPT\niptables-legacy -w -A OUTPUT -c 33 3333 -o eth7 -j ACCEPT")
	h.do("iptables-legacy -w -P FORWARD DROP")
	f, _ := h.start(forward.Options{})
	fields := regexp.MustCompile(`-c (\d+ \d+)`)
	counters := func() string {
		var out []string
		for _, m := range fields.FindAllStringSubmatch(h.do("iptables-legacy -w -v -S"), -1) {
			out = append(out, m[1])
		}
		return strings.Join(out, ", ")
	}
	h.until(eventually, "ours are there", func() string { return fmt.Sprint(f.State().Edits) }, "1")
	want := "0 0, 0 0, 0 0, 22 2222, 0 0, 0 0, 11 1111, 33 3333"
	if got := counters(); got != want {
		t.Errorf("with ours: %s, want %s", got, want)
	}
	if err := f.Configure(forward.Options{Prefixes: []string{}}); err != nil {
		t.Fatal(err)
	}
	h.until(eventually, "ours are gone", func() string { return fmt.Sprint(f.State().Edits) }, "2")
	if got := counters(); got != "0 0, 0 0, 0 0, 22 2222, 11 1111, 33 3333" {
		t.Errorf("without ours: %s", got)
	}
}

// TestLegacyIsNotMade: looking for legacy tables does not make one.
func TestLegacyIsNotMade(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	f, _ := h.start(forward.Options{})
	h.until(eventually, "two looks", func() string { return fmt.Sprint(f.State().Passes >= 2) }, "true")
	h.ns.MustDo(func() error {
		names, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
		if err == nil && len(names) > 0 {
			t.Errorf("there are tables now: %q", names)
		}
		return nil
	})
}

// TestRestart: what an earlier run left is taken over as it is, also when the programs
// of iptables wrote it anew in their own words; and ended runs leave it.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			testenv.Need(t, program)
			h := newHost(t)
			h.do(program + " -w -P FORWARD DROP\n" + program + " -w -A FORWARD -i docker0 -j ACCEPT")
			f, stop := h.start(forward.Options{})
			saved := func() string { return h.saved(program) }
			want := "-P FORWARD DROP\n" + gates4 + "\n-i docker0 -j ACCEPT"
			h.until(eventually, "the first run", saved, want)
			stop()
			if got := saved(); got != want {
				t.Errorf("after the run:\n%s", got)
			}
			file := t.TempDir() + "/rules"
			if err := os.WriteFile(file, []byte(h.do(program+"-save")), 0o600); err != nil {
				t.Fatal(err)
			}
			h.do(program + " -w -F\n" + program + "-restore " + file)
			f, _ = h.start(forward.Options{})
			h.until(eventually, "the second run", func() string { return fmt.Sprint(f.State().Passes > 0) }, "true")
			if s := f.State(); s.Edits != 0 || len(s.Chains) != 1 || s.Err != "" {
				t.Errorf("the second run: %+v, want no edits of one chain", s)
			}
			if got := saved(); got != want {
				t.Errorf("after the second run:\n%s", got)
			}
			if err := f.Configure(forward.Options{Prefixes: []string{"tap"}, Append: true}); err != nil {
				t.Fatal(err)
			}
			h.until(healed, "another prefix, at the end", saved, "-P FORWARD DROP\n-i docker0 -j ACCEPT\n"+strings.ReplaceAll(gates4, "cali", "tap"))
		})
	}
}

// TestForeignTables: what is not ours, or must not be ours to change, stays.
func TestForeignTables(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do(`nft add table ip weft
		nft add chain ip weft f { type filter hook forward priority 0 ; policy drop ; }
		nft add table inet t
		nft add chain inet t i { type filter hook input priority 0 ; policy drop ; }
		nft add chain inet t o { type filter hook output priority 0 ; policy drop ; }
		nft add chain inet t x
		nft add table bridge t
		nft add chain bridge t f { type filter hook forward priority 0 ; policy drop ; }`)
	was := h.do("nft list ruleset")
	f, _ := h.start(forward.Options{})
	h.until(eventually, "a pass", func() string { return fmt.Sprint(f.State().Passes > 0) }, "true")
	if got := h.do("nft list ruleset"); got != was || f.State().Edits != 0 {
		t.Errorf("%d edits made\n%s\nof\n%s", f.State().Edits, got, was)
	}

	// A table whose owner lives cannot be changed, and others still are.
	owner := exec.Command(testenv.Need(t, "nft"), "-i")
	in, err := owner.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.ns.Start(owner); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = owner.Wait() }()
	fmt.Fprintln(in, "add table inet owned { flags owner; }")
	fmt.Fprintln(in, "add chain inet owned f { type filter hook forward priority 0; policy drop; }")
	h.until(eventually, "an error that names the chain", func() string {
		err := f.State().Err
		return fmt.Sprint(strings.Contains(err, "inet owned f") && strings.Contains(err, "owner"))
	}, "true")
	h.do("nft add table inet u\nnft add chain inet u f { type filter hook forward priority 0 ; policy drop ; }")
	h.until(healed, "the chain of another", func() string { return h.listed("inet u f") }, gates)
	_, _ = io.WriteString(in, "quit\n")
	h.until(eventually, "no error when the owner is gone", func() string { return f.State().Err }, "")
}

// TestMovesAreCalm: with a program that wants to be first as well there is no race.
func TestMovesAreCalm(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do("nft add table inet t\nnft add chain inet t f { type filter hook forward priority 0 ; policy drop ; }")
	f, _ := h.start(forward.Options{})
	h.until(eventually, "ours", func() string { return h.listed("inet t f") }, gates)
	for i := range 20 {
		passes := f.State().Passes
		h.do(fmt.Sprintf("nft insert rule inet t f tcp dport %d accept", i+1))
		h.until(eventually, "a pass", func() string { return fmt.Sprint(f.State().Passes > passes) }, "true")
	}
	if s := f.State(); s.Edits > 3 || s.Err != "" {
		t.Errorf("20 rules before ours led to %d edits (%q), want the first and one or two moves", s.Edits, s.Err)
	}
}

func TestBadPrefix(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for _, prefix := range []string{"", "sixteen-bytes-xx"} {
		err := h.ns.Do(func() error { _, err := forward.New(forward.Options{Prefixes: []string{"cali", prefix}}); return err })
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", prefix)) {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}
