package forward_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/forward"
	"github.com/weft-net/weft/internal/testenv"
)

const (
	healed     = testenv.ByEvent // or by looking often, where nobody tells of changes
	eventually = testenv.Patience
)

// host is a namespace with other programs' packet filters.
type host struct {
	*testing.T
	ns  *testenv.Namespace
	env []string
}

func newHost(t *testing.T) host {
	testenv.Need(t, "nft", "iptables-nft", "ip6tables-nft")
	h := host{T: t, ns: testenv.Netns(t), env: os.Environ()}
	if !testenv.RealRoot() { // who may not have the machine's lock
		h.env = append(h.env, "XTABLES_LOCKFILE="+t.TempDir()+"/lock")
	}
	return h
}

// do runs commands inside, one a line, and gives what they print.
func (h host) do(script string) string {
	h.Helper()
	var out strings.Builder
	for line := range strings.Lines(script) {
		args := strings.Fields(line)
		if len(args) == 0 {
			continue
		}
		cmd := exec.Command(testenv.Need(h, args[0]), args[1:]...)
		cmd.Env, cmd.Stdout, cmd.Stderr = h.env, &out, &out
		if err := h.ns.Start(cmd); err != nil {
			h.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			h.Fatalf("%s: %v\n%s", line, err, out.String())
		}
	}
	return out.String()
}

// start runs a Forward inside until the test, or the returned stop, ends it.
func (h host) start(o forward.Options) (*forward.Forward, func()) {
	h.Helper()
	var f *forward.Forward
	stop := h.ns.Keep(func() (_ func(context.Context) error, err error) {
		if f, err = forward.New(o); err != nil {
			return nil, err
		}
		return f.Run, nil
	})
	return f, stop
}

var (
	counters = regexp.MustCompile(`packets \d+ bytes \d+ `)
	reasons  = regexp.MustCompile(` --reject-with \S+`)
)

// saved is the FORWARD chain as a program of the iptables family prints it.
func (h host) saved(program string) string {
	h.Helper()
	var out []string
	for line := range strings.Lines(h.do(program + " -w -S FORWARD")) {
		out = append(out, strings.TrimSpace(strings.TrimPrefix(reasons.ReplaceAllString(line, ""), "-A FORWARD ")))
	}
	return strings.Join(out, "\n")
}

// listed is a chain as nft prints it, without what surrounds the rules.
func (h host) listed(chain string) string {
	h.Helper()
	var out []string
	for line := range strings.Lines(h.do("nft list chain " + chain)) {
		line = strings.TrimSpace(counters.ReplaceAllString(line, ""))
		if line != "" && line != "}" && !strings.HasPrefix(line, "table ") && !strings.HasPrefix(line, "chain ") && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "type ") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// until waits for get to give want.
func (h host) until(within time.Duration, what string, get func() string, want string) {
	h.Helper()
	got := ""
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		if got = get(); got == want {
			return
		}
		if time.Now().After(end) {
			h.Fatalf("%s, not within %v:\ngot\n%s\nwant\n%s", what, within, got, want)
		}
	}
}

const (
	gates4 = "-i cali+ -m comment --comment weft -j ACCEPT\n-o cali+ -m comment --comment weft -j ACCEPT"
	gates  = "iifname \"cali*\" counter accept comment \"weft\"\noifname \"cali*\" counter accept comment \"weft\""
)

// TestIptables is Docker's host: FORWARD drops, in both families, and what the
// programs of iptables do to our rules is healed.
func TestIptables(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if strings.HasSuffix(program, "legacy") {
				testenv.Need(t, program)
			}
			h.do(program + " -w -P FORWARD ACCEPT\n" + program + " -w -A FORWARD -i docker0 -j ACCEPT\n" + program + " -w -A INPUT -i lo -j ACCEPT\n" +
				program + " -w -N USER\n" + program + " -w -A USER -p tcp --dport 9 -j DROP\n" + program + " -w -A OUTPUT -j USER")
			f, _ := h.start(forward.Options{})
			docker := "-i docker0 -j ACCEPT"
			for _, step := range []struct{ do, want string }{
				{"-P FORWARD DROP", "-P FORWARD DROP\n" + gates4 + "\n" + docker},
				{"-D FORWARD 1", "-P FORWARD DROP\n" + gates4 + "\n" + docker},
				{"-A FORWARD -j USER", "-P FORWARD DROP\n" + gates4 + "\n" + docker + "\n-j USER"},
				{"-F FORWARD", "-P FORWARD DROP\n" + gates4},
				{"-A FORWARD -j REJECT", "-P FORWARD DROP\n" + gates4 + "\n-j REJECT"},
				{"-P FORWARD ACCEPT", "-P FORWARD ACCEPT\n" + gates4 + "\n-j REJECT"},
				{"-D FORWARD -j REJECT", "-P FORWARD ACCEPT"},
				{"-A FORWARD -g USER", "-P FORWARD ACCEPT\n-g USER"},
				{"-A USER -j DROP", "-P FORWARD ACCEPT\n" + gates4 + "\n-g USER"},
			} {
				h.do(program + " -w " + step.do)
				h.until(healed, step.do, func() string { return h.saved(program) }, step.want)
			}
			if got := h.do(program + " -w -S INPUT\n" + program + " -w -S OUTPUT\n" + program + " -w -S USER"); got !=
				"-P INPUT ACCEPT\n-A INPUT -i lo -j ACCEPT\n-P OUTPUT ACCEPT\n-A OUTPUT -j USER\n-N USER\n-A USER -p tcp -m tcp --dport 9 -j DROP\n-A USER -j DROP\n" {
				t.Errorf("other chains changed:\n%s", got)
			}
			if s := f.State(); s.Err != "" || len(s.Chains) != 1 || s.Chains[0].Name != "FORWARD" {
				t.Errorf("state: %+v", s)
			}
		})
	}
}

// TestNft runs through the chains that nft users write.
func TestNft(t *testing.T) {
	t.Parallel()
	type step struct{ do, want string }
	for name, tt := range map[string]struct {
		family, policy string
		o              forward.Options
		steps          []step
	}{
		"policy drop": {"inet", "drop", forward.Options{}, []step{
			{"", gates},
			{"add rule inet t f iif lo accept", gates + "\niif \"lo\" accept"},
			{"flush chain inet t f", gates},
			{"flush table inet t", gates},
			{"chain inet t f { policy accept ; }", ""},
		}},
		"policy accept": {"ip", "accept", forward.Options{}, []step{
			{"add rule ip t f iif lo drop", "iif \"lo\" drop"},
			{"add rule ip t f counter drop", gates + "\niif \"lo\" drop\ncounter drop"},
		}},
		"firewalld": {"inet", "accept", forward.Options{}, []step{
			{"add rule inet t f ct state established,related accept", "ct state established,related accept"},
			{"add rule inet t f reject with icmpx type admin-prohibited", gates + "\nct state established,related accept\nreject with icmpx admin-prohibited"},
		}},
		"accepted in the end": {"ip6", "drop", forward.Options{}, []step{
			{"", gates},
			{"add rule ip6 t f log accept", "log accept"},
		}},
		"limited": {"ip", "accept", forward.Options{}, []step{
			{"add rule ip t f limit rate 1/second drop", "limit rate 1/second drop"},
			{"add rule ip t f log drop", gates + "\nlimit rate 1/second drop\nlog drop"},
		}},
		"by a jump": {"inet", "accept", forward.Options{}, []step{
			{"add chain inet t g", ""},
			{"add rule inet t f jump g", "jump g"},
			{"add rule inet t g iif lo return", "jump g"},
			{"add rule inet t g drop", gates + "\njump g"},
			{"flush chain inet t g", "jump g"},
			{"add rule inet t g return", "jump g"},
		}},
		"two prefixes": {"ip", "drop", forward.Options{Prefixes: []string{"cali", "tap"}}, []step{
			{"", gates + "\n" + strings.ReplaceAll(gates, "cali", "tap")},
		}},
		"append": {"inet", "drop", forward.Options{Append: true}, []step{
			{"", gates},
			{"insert rule inet t f iif lo accept", "iif \"lo\" accept\n" + gates},
			{"add rule inet t f drop", "iif \"lo\" accept\n" + gates + "\ndrop"},
			{"flush chain inet t f", gates},
		}},
		"append before the end": {"inet", "accept", forward.Options{Append: true}, []step{
			{"add rule inet t f iif lo accept", "iif \"lo\" accept"},
			{"add rule inet t f drop", "iif \"lo\" accept\n" + gates + "\ndrop"},
		}},
		"another got first": {"inet", "drop", forward.Options{}, []step{
			{"", gates},
			{"insert rule inet t f iif lo accept", gates + "\niif \"lo\" accept"},
		}},
		"like ours, but not": {"inet", "accept", forward.Options{}, []step{
			{"add rule inet t f iifname \"cali*\" counter accept", "iifname \"cali*\" counter accept"},
			{"add rule inet t f iifname \"cali*\" tcp dport 1 counter accept comment \"weft\"", "iifname \"cali*\" counter accept\niifname \"cali*\" tcp dport 1 counter accept comment \"weft\""},
		}},
		"of an earlier run": {"inet", "accept", forward.Options{}, []step{
			{"add rule inet t f iifname \"tap*\" counter accept comment \"weft\"", ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			chain := tt.family + " t f"
			h.do("nft add table " + tt.family + " t\nnft add chain " + chain + " { type filter hook forward priority 0 ; policy " + tt.policy + " ; }")
			f, _ := h.start(tt.o)
			h.until(eventually, "the first pass", func() string { return fmt.Sprint(f.State().Passes > 0) }, "true")
			for _, s := range tt.steps {
				if s.do != "" {
					h.do("nft " + s.do)
				}
				h.until(healed, s.do, func() string { return h.listed(chain) }, s.want)
				passes := f.State().Passes
				h.do("nft add table inet t2\nnft add chain inet t2 other { type filter hook forward priority 5 ; }")
				h.until(eventually, "a pass more", func() string { return fmt.Sprint(f.State().Passes > passes) }, "true")
				if got := h.listed(chain); got != s.want {
					t.Errorf("%q, and another pass:\n%s\nwant\n%s", s.do, got, s.want)
				}
				h.do("nft delete chain inet t2 other")
			}
		})
	}
}
