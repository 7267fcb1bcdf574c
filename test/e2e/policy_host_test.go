package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/policy"
	"github.com/weft-net/weft/internal/testenv"
)

// denyPort82 is a policy for the servers of a lab: clients reach port 81, nobody port 82.
const denyPort82 = `{"selector": "app == 'server'", "ingress": [
	{"action": "Allow", "protocol": "UDP", "source": {"selector": "app == 'client'"}, "destination": {"ports": [81]}},
	{"action": "Allow", "protocol": "ICMP"}, {"action": "Allow", "protocol": "ICMPv6"}]}`

// enforced waits until a talker reaches port 81 of the servers and not port 82.
func (c *cluster) enforced(client talker, servers ...string) {
	c.t.Helper()
	for _, server := range servers {
		for _, addr := range c.pod(server).Addresses {
			eventually(c.t, "policy of "+server, func() error {
				if err := client.denied(talkUDP, net.JoinHostPort(addr.String(), "82")); err != nil {
					return err
				}
				return client.dial(talkUDP, net.JoinHostPort(addr.String(), "81"))
			})
		}
	}
}

// foreign is a table of another program, with a bit of everything, which decides
// nothing about pods.
const foreign = `table inet other {
	set banned { type ipv4_addr; flags interval, timeout; timeout 1h; elements = { 203.0.113.0/24 expires 59m, 198.51.100.1 expires 58m } }
	map ports { type inet_service : verdict; elements = { 22 : accept, 25 : drop } }
	chain input { type filter hook input priority filter; policy accept;
		tcp dport vmap @ports
		ip saddr 203.0.113.7 counter drop comment "cali"
	}
	chain forward { type filter hook forward priority filter; policy accept;
		iifname "docker0" oifname "docker0" drop
	}
}
table ip weft-not {
	chain weft {
		counter drop
	}
}
table bridge weft {
	chain weft {
		drop
	}
}`

// others is what nft lists of tables that are not ours, without what a clock changes.
func others(s *shell) string {
	var out strings.Builder
	for line := range strings.Lines(s.run("nft list tables")) {
		if table := strings.TrimSpace(strings.TrimPrefix(line, "table")); table != "ip weft" && table != "ip6 weft" && table != "" {
			out.WriteString(s.run("nft list table "+table) + "\n")
		}
	}
	return regexp.MustCompile(`expires [0-9a-z]+`).ReplaceAllString(out.String(), "expires")
}

// TestOthersTables: over start, work and end of an agent, another's tables are as they
// were.
func TestOthersTables(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "nft")
	c := up(t, "topologies/policy.yaml")
	st := c.store()
	object := func(text string) { t.Helper(); put(t, st, text) }
	n := c.sh("node-a")
	c.stop("node-a", false)
	n.run("nft flush ruleset && nft -f - <<'END'\n" + foreign + "\nEND")
	want := others(n)
	if strings.Count(want, "table ") != 3 {
		t.Fatalf("the test's own tables:\n%s", want)
	}
	same := func(when string) {
		t.Helper()
		if got := others(n); got != want {
			t.Errorf("%s, tables of others differ:\n%s", when, diff(got, want))
		}
	}
	c.start("node-a")
	c.serve("a2", "81", "82")
	client := c.talker("a1")
	same("after the start")
	putPolicy(t, object, "NetworkPolicy", "server", denyPort82)
	c.enforced(client, "a2")
	h := c.runtime("node-a")
	h.must("ADD", containerNames("new", 3)...)
	same("after work")
	h.must("DEL", containerNames("new", 3)...)
	c.stop("node-a", false)
	same("after the end")
	c.start("node-a")
	c.enforced(client, "a2")
	same("after another start")
}

// shape is what nft lists of our tables, without counters and handles, such that equal
// texts are equal tables: blocks and elements sorted, and without flows that ended.
func shape(s *shell) string {
	var blocks []string
	var block strings.Builder
	text, _ := s.try("nft -s list table ip weft; nft -s list table ip6 weft")
	for line := range strings.Lines(text) {
		block.WriteString(line)
		if line == "\t}\n" || line == "}\n" {
			blocks = append(blocks, block.String())
			block.Reset()
		}
	}
	elements := regexp.MustCompile(`(?s)elements = \{(.*?)\}`)
	for i, b := range blocks {
		if strings.Contains(b, "set "+policy.EndedFlows+" {") {
			blocks[i] = regexp.MustCompile(`(?s)\s*elements = \{.*?\}`).ReplaceAllString(b, "")
			continue
		}
		blocks[i] = elements.ReplaceAllStringFunc(b, func(list string) string {
			all := strings.Split(elements.FindStringSubmatch(list)[1], ",")
			for i := range all {
				all[i] = strings.TrimSpace(all[i])
			}
			slices.Sort(all)
			return strings.Join(all, ", ")
		})
	}
	blocks = append(blocks, block.String()) // an error's text
	slices.Sort(blocks)
	return strings.Join(blocks, "")
}

// TestPolicyRepaired does to our tables on node-a what somebody might do, under
// denied traffic: they are as they were by what the kernel tells of it, which takes a
// fraction of a second where the machine has nothing else to do.
func TestPolicyRepaired(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "nft")
	c := up(t, "topologies/policy.yaml")
	st := c.store()
	putPolicy(t, func(text string) { t.Helper(); put(t, st, text) }, "NetworkPolicy", "server", denyPort82)
	c.serve("a2", "81")
	receiver := c.startSink("a2", 82)
	client := c.talker("a1")
	c.enforced(client, "a2")
	n := c.sh("node-a")
	want := shape(n)
	chain := regexp.MustCompile(`chain (policy-i-\S+)`).FindStringSubmatch(want)
	set := regexp.MustCompile(`set (sa-\S+)`).FindStringSubmatch(want)
	if chain == nil || set == nil {
		t.Fatalf("no policy, or no set, in\n%s", want)
	}
	const perSecond = 2000
	at := netip.AddrPortFrom(c.pod("a2").Addresses[0], 82)
	end := c.startFlood("a1", perSecond, stream{ID: 1, To: at})
	through := 0
	for _, tt := range []struct{ what, command string }{
		{"table flushed", "nft flush table ip weft"},
		{"table deleted", "nft delete table ip weft"},
		{"both tables deleted", "nft 'delete table ip weft; delete table ip6 weft'"},
		{"everything flushed", "nft flush ruleset"},
		{"rule inserted that accepts", "nft insert rule ip weft " + chain[1] + " accept"},
		{"rule added", "nft add rule ip weft " + chain[1] + " counter"},
		{"policy's rules flushed", "nft flush chain ip weft " + chain[1]},
		{"set emptied", "nft flush set ip weft " + set[1]},
		{"element removed", "nft delete element ip weft " + set[1] + " '{ " + c.addr("a1") + " }'"},
		{"element added", "nft add element ip weft " + set[1] + " '{ 203.0.113.9 }'"},
		{"policy of a base chain changed", "nft 'chain ip weft forward-to { policy drop; }'"},
		{"chain, set and table of their own in ours", "nft 'add set ip weft mine { type ipv4_addr; }; add chain ip weft mine'"},
	} {
		if got := shape(n); got != want {
			t.Fatalf("before %s:\n%s", tt.what, diff(got, want))
		}
		if out, code := n.try(tt.command); code != 0 {
			t.Errorf("%s: %s: %s", tt.what, tt.command, out)
			continue
		}
		took := within(t, testenv.ByEvent, tt.what, func() error {
			if got := shape(n); got != want {
				return errors.New(diff(got, want))
			}
			return nil
		})
		came := arrived(receiver, map[int]int{1: 0})[1].Count
		t.Logf("%s: right again within %v; %d denied packets came, at %d a second", tt.what, took, came-through, perSecond)
		if most := int((took + time.Second).Seconds() * perSecond); came-through > most {
			t.Errorf("%s: denied packets came for longer than that", tt.what)
		}
		through = came
	}
	end()
	c.enforced(client, "a2")
}

// TestForwardDrop: where another table drops what is forwarded, pods talk; and when
// somebody flushes that table's chain, they do again within a second.
func TestForwardDrop(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ need, drop, flush string }{
		"nft": {"nft", "nft 'add table inet docker; add chain inet docker fw { type filter hook forward priority 0; policy drop; }'", "nft flush chain inet docker fw"},
		"iptables-nft": {
			"iptables-nft", "iptables-nft -w -P FORWARD DROP && ip6tables-nft -w -P FORWARD DROP",
			"iptables-nft -w -F FORWARD; ip6tables-nft -w -F FORWARD",
		},
		"iptables-legacy": {
			"iptables-legacy", "iptables-legacy -w -P FORWARD DROP && ip6tables-legacy -w -P FORWARD DROP",
			"iptables-legacy -w -F FORWARD; ip6tables-legacy -w -F FORWARD",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testenv.Need(t, tt.need)
			c := up(t, "topologies/policy.yaml")
			st := c.store()
			putPolicy(t, func(text string) { t.Helper(); put(t, st, text) }, "NetworkPolicy", "server", denyPort82)
			for _, server := range []string{"a2", "b1"} {
				c.serve(server, "81", "82")
			}
			client := c.talker("a1")
			c.enforced(client, "a2", "b1")
			n := c.sh("node-a")
			n.run(tt.drop)
			passes := func() error {
				for _, server := range []string{"a2", "b1"} {
					for _, addr := range c.pod(server).Addresses {
						if client.denied(talkUDP, net.JoinHostPort(addr.String(), "81")) == nil {
							return fmt.Errorf("%v does not answer", addr)
						}
					}
				}
				return nil
			}
			t.Logf("passes %v after the default became to drop", eventually(t, "pods talk", passes))
			c.enforced(client, "a2", "b1") // what is denied stays so
			n.run(tt.flush)
			t.Logf("passes %v after the flush", eventually(t, "pods talk after the flush", passes))
			c.enforced(client, "a2", "b1")
		})
	}
}

// TestDeadAgent: a killed agent leaves its rules in force, and an interface of our
// prefix that it never knew gets nothing and sends nothing.
func TestDeadAgent(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "nft")
	c := up(t, "topologies/policy.yaml")
	st := c.store()
	putPolicy(t, func(text string) { t.Helper(); put(t, st, text) }, "NetworkPolicy", "server", denyPort82)
	for _, server := range []string{"a2", "b1"} {
		c.serve(server, "81", "82")
	}
	client := c.talker("a1")
	c.enforced(client, "a2", "b1")
	n := c.sh("node-a")
	want := shape(n)
	c.stop("node-a", true)
	c.stop("node-b", true)
	c.enforced(client, "a2", "b1")

	// A pod by hand, once behind an interface that is not a workload's and once behind
	// one that is: everything is the same but the interface's name.
	for _, tt := range []struct {
		link   string
		passes bool
	}{{"tap0", true}, {"cali0", false}} {
		pod := c.begin("node-a", "unshare", "--net", "sh")
		s := &shell{p: pod}
		pid := s.run("echo $$")
		tries := 20
		if tt.passes {
			tries = pingTries
		}
		n.run(strings.ReplaceAll(strings.ReplaceAll(`ip link add LINK type veth peer name eth0 netns /proc/PID/ns/net && ip link set LINK up &&
			ip addr add 172.30.0.1/24 dev LINK && ip route replace 172.30.0.2 dev LINK`, "LINK", tt.link), "PID", pid))
		s.run("ip link set lo up && ip link set eth0 up && ip addr add 172.30.0.2/24 dev eth0 && ip route add default via 172.30.0.1")
		for what, try := range map[string]func() (string, int){
			"from the pod to another":  func() (string, int) { return s.try(pingTimes(c.addr("a3"), tries)) },
			"from the pod to its node": func() (string, int) { return s.try(pingTimes("172.30.0.1", tries)) },
			"to the pod from another":  func() (string, int) { return c.sh("pod/default/a3").try(pingTimes("172.30.0.2", tries)) },
		} {
			if out, code := try(); (code == 0) != tt.passes {
				t.Errorf("%s, behind %s: exit code %d, want it to pass: %v: %s", what, tt.link, code, tt.passes, out)
			}
		}
		echoes := s.run(`awk '$1 == "Icmp:" && at { print $at } $1 == "Icmp:" { for (i = 2; i <= NF; i++) if ($i == "InEchos") at = i }' /proc/net/snmp`)
		if (echoes != "0") != tt.passes {
			t.Errorf("behind %s, the pod got %s echo requests, want some: %v", tt.link, echoes, tt.passes)
		}
		n.run("ip link del " + tt.link)
	}
	if got := shape(n); got != want {
		t.Errorf("rules without an agent:\n%s", diff(got, want))
	}
	c.start("node-a")
	c.start("node-b")
	c.enforced(client, "a2", "b1")
}
