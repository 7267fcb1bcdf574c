package nft_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/kernel/nft"
	"github.com/weft-net/weft/internal/plan"
	"github.com/weft-net/weft/internal/testenv"
)

// sendUDP sends one datagram from inside.
func (k kernel) sendUDP(to string) {
	k.Helper()
	k.ns.MustDo(func() error {
		c, err := net.Dial("udp", to)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("x"))
		return err
	})
}

// connect says how a TCP connection from inside goes: open, refused or timeout.
func connect(ns *testenv.Namespace, to, want string) string {
	wait := 300 * time.Millisecond
	if want != "timeout" {
		wait = eventually
	}
	var c net.Conn
	err := ns.Do(func() (err error) {
		d := net.Dialer{Timeout: wait}
		c, err = d.Dial("tcp", to)
		return err
	})
	switch {
	case err == nil:
		c.Close()
		return "open"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case os.IsTimeout(err):
		return "timeout"
	}
	return err.Error()
}

// TestPackets sends connections through dispatch, a policy, and a source check.
func TestPackets(t *testing.T) {
	t.Parallel()
	k := newKernel(t)
	client, server := testenv.Netns(t), testenv.Netns(t)
	testenv.Veth(t, k.ns, "cali1", []string{"10.0.1.1/24", "fd01::1/64"}, client, "eth0", []string{"10.0.1.2/24", "fd01::2/64"})
	testenv.Veth(t, k.ns, "cali2", []string{"10.0.2.1/24", "fd02::1/64"}, server, "eth0", []string{"10.0.2.2/24", "fd02::2/64"})
	k.ns.MustDo(func() error {
		for _, f := range []string{"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"} {
			if err := os.WriteFile(f, []byte("1"), 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	for ns, gw := range map[*testenv.Namespace]string{client: "1", server: "2"} {
		x := kernel{t, ns}
		x.run("ip", "route", "add", "default", "via", "10.0."+gw+".1")
		x.run("ip", "-6", "route", "add", "default", "via", "fd0"+gw+"::1")
	}
	for _, port := range []string{"80", "81", "82", "83"} {
		server.MustDo(func() error {
			l, err := net.Listen("tcp", ":"+port)
			if err == nil {
				t.Cleanup(func() { _ = l.Close() })
			}
			return err
		})
	}
	n, _ := k.start(nft.Options{})
	n.Apply(plan.FilterDelta{V4: dispatching(), V6: dispatching()})
	n.Synced()
	k.wait(n)
	for port, want := range map[int]string{80: "open", 81: "refused", 82: "timeout", 83: "timeout"} {
		for _, host := range []string{"10.0.2.2", "[fd02::2]"} {
			if got := connect(client, fmt.Sprintf("%s:%d", host, port), want); got != want {
				t.Errorf("to %s port %d: %s, want %s\n%s", host, port, got, want, k.nft("list", "ruleset"))
			}
		}
	}
	// Another class for the interface is one element; and none drops.
	for class, want := range map[string]string{"open": "open", "": "timeout"} {
		c := plan.SetChange{Set: "classes", DeleteElement: []plan.Element{{Link: "cali1"}}}
		if class != "" {
			c.PutElement = []plan.Element{{Link: "cali1", Value: class}}
		}
		n.Apply(plan.FilterDelta{V4: plan.TableDelta{Changes: []plan.SetChange{c}}})
		k.wait(n)
		if got := connect(client, "10.0.2.2:83", want); got != want {
			t.Errorf("class %q: %s, want %s", class, got, want)
		}
	}
}

// dispatching sends packets from cali1 to a policy: port 80 is allowed, 81 rejected,
// 82 dropped as from a source that is not listed.
func dispatching() plan.TableDelta {
	tcp := func(port uint16, more ...plan.Match) []plan.Match {
		return append(more, plan.Match{Kind: plan.MatchDstPort, Low: port, High: port}, plan.Match{Kind: plan.MatchProtocol, Low: 6})
	}
	return plan.TableDelta{
		PutSets: []plan.Set{
			{Name: "classes", Type: plan.MapClasses}, {Name: "chains", Type: plan.MapChains}, {Name: "sources", Type: plan.SetAddrPorts}, {Name: "links", Type: plan.SetLinkNets},
		},
		Changes: []plan.SetChange{
			{Set: "classes", PutElement: []plan.Element{{Link: "cali1", Value: "a-class"}}},
			{Set: "chains", PutElement: []plan.Element{{Link: "a-class", Value: "policy"}, {Link: "open", Value: "open"}}},
		},
		PutChains: []plan.Chain{
			{Name: "forward", Base: &plan.Base{Hook: plan.Forward}, Rules: []plan.Rule{
				{Match: []plan.Match{{Kind: plan.MatchState, Low: plan.StateEstablished | plan.StateRelated}}, Verdict: plan.Accept},
				{Match: []plan.Match{{Kind: plan.MatchInLink, Link: "cali1"}}, Dispatch: &plan.Dispatch{Classes: "classes", Chains: "chains"}},
				{Match: []plan.Match{{Kind: plan.MatchInLink, Link: "cali*"}, {Kind: plan.MatchProtocol, Low: 6}}, Verdict: plan.Drop},
			}},
			{Name: "open", Rules: []plan.Rule{{Verdict: plan.Accept}}},
			{Name: "policy", Rules: []plan.Rule{
				{Match: tcp(80, plan.Match{Kind: plan.MatchInSource, Set: "links", Not: true}), Log: &plan.NFLog{Group: 9, Prefix: "x", Rate: 1, Burst: 1, PerSeconds: 60}, Verdict: plan.Accept},
				{Match: tcp(81), Verdict: plan.Reject},
				{Match: tcp(82, plan.Match{Kind: plan.MatchDstAddrPort, Set: "sources", Not: true}), Verdict: plan.Drop},
				{Match: []plan.Match{{Kind: plan.MatchProtocol, Low: 6}}, Verdict: plan.Drop},
			}},
		},
	}
}
