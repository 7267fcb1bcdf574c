package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// runAgent runs a second agent in node-a, with other settings, to its end, which
// must come by itself. It returns what it wrote and its exit code.
func (c *cluster) runAgent(over ...string) (string, int) {
	c.t.Helper()
	env, argv := c.agentCommand("node-a", append([]string{
		"NODENAME=node-x", "CALICO_NODENAME_FILE=/dev/null",
		"WEFT_AGENT_SOCKET=" + filepath.Join(c.now.Dir, "x.sock"), "WEFT_STATUS_SOCKET=" + filepath.Join(c.now.Dir, "y.sock"),
	}, over...)...)
	return c.sh("node-a").try("env -i " + env + " timeout 30 " + argv)
}

// TestSettings starts agents with settings that are wrong: each ends with one line
// that names the variable, the value and what is allowed, and changes nothing.
func TestSettings(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	_, before := keys(t, c.etcd(), "/calico/")
	links := c.sh("node-a").run("ip -o link; ip route")
	for setting, want := range map[string]string{
		"IP=10.1.0.300":                           `IP="10.1.0.300": must be autodetect, none, empty, or an IPv4 address`,
		"IP=fd00::1":                              `IP="fd00::1": must be`,
		"IP6=10.1.0.11":                           `IP6="10.1.0.11": must be`,
		"IP_AUTODETECTION_METHOD=nearest":         `IP_AUTODETECTION_METHOD="nearest": method is unknown; allowed are first-found, `,
		"IP_AUTODETECTION_METHOD=interface=(":     `IP_AUTODETECTION_METHOD="interface=(": `,
		"IP_AUTODETECTION_METHOD=cidr=10.0.0.0/x": `IP_AUTODETECTION_METHOD="cidr=10.0.0.0/x": `,
		"IP_AUTODETECTION_METHOD=interface=wlan9": "no IPv4 address for this node by IP_AUTODETECTION_METHOD=interface=wlan9: ",
		"IP=none":                             "no address",
		"AS=0":                                `AS="0": must be an AS number`,
		"AS=65536.1":                          `AS="65536.1": must be an AS number`,
		"CALICO_IPV4POOL_CIDR=192.168.0.1/16": `CALICO_IPV4POOL_CIDR="192.168.0.1/16": must be none, or a masked IPv4 CIDR`,
		"CALICO_IPV4POOL_BLOCK_SIZE=19":       `CALICO_IPV4POOL_BLOCK_SIZE="19": must be 20 to 32`,
		"CALICO_IPV4POOL_IPIP=Sometimes":      `CALICO_IPV4POOL_IPIP="Sometimes": must be Always, CrossSubnet, or Never`,
		"CALICO_IPV4POOL_NAT_OUTGOING=maybe":  `CALICO_IPV4POOL_NAT_OUTGOING="maybe": must be true or false`,
		"NO_DEFAULT_POOLS=true":               `NO_DEFAULT_POOLS="true": must be false or empty when CALICO_IPV4POOL_CIDR is set`,
		"AUTODETECT_POLL_INTERVAL=soon":       `AUTODETECT_POLL_INTERVAL="soon": must be a duration`,
		"DISABLE_NODE_IP_CHECK=perhaps":       `DISABLE_NODE_IP_CHECK="perhaps": must be true or false`,
		"CALICO_ROUTER_ID=fd00::1":            `CALICO_ROUTER_ID="fd00::1": must be an IPv4 address, hash, or empty`,
		"CALICO_NETWORKING_BACKEND=frr":       `CALICO_NETWORKING_BACKEND="frr": must be bird, vxlan or none`,
		"DATASTORE_TYPE=redis":                `DATASTORE_TYPE: "redis": must be etcdv3 or kubernetes`,
		"ETCD_ENDPOINTS=ftp://x":              `ETCD_ENDPOINTS: endpoint 1: "ftp://x": must begin with http://`,
		"ETCD_USERNAME=root":                  "ETCD_USERNAME and ETCD_PASSWORD: one is set and the other is not",
		"ETCD_ENDPOINTS=https://127.0.0.1:1|ETCD_CA_CERT_FILE=/nowhere/ca.pem": "/nowhere/ca.pem",
		"FELIX_ROUTEREFRESHINTERVAL=often":                                     `FELIX_ROUTEREFRESHINTERVAL="often": must be seconds`,
		"FELIX_LOGSEVERITYSCREEN=Loud":                                         `FELIX_LOGSEVERITYSCREEN="Loud": must be`,
		"NODENAME=UPPER CASE":                                                  "NODENAME",
	} {
		out, code := c.runAgent(strings.Split(setting, "|")...)
		var errors []string
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "weft: ") {
				errors = append(errors, strings.TrimSpace(line))
			}
		}
		if code != 1 || len(errors) != 1 || strings.Count(out, "\n") > 0 {
			t.Errorf("%s: exit code %d, want 1, and one line: %s", setting, code, out)
			continue
		}
		if !strings.Contains(errors[0], want) {
			t.Errorf("%s: got %q, want %q in it", setting, errors[0], want)
		}
	}
	if _, after := keys(t, c.etcd(), "/calico/"); after != before {
		t.Errorf("etcd is at revision %d, was at %d: something was written", after, before)
	}
	if got := c.sh("node-a").run("ip -o link; ip route"); got != links {
		t.Errorf("the node changed:\n%s", diff(got, links))
	}
}

// TestConflict: a node that finds its address taken does not start, says which node
// has it, and leaves that in its Node.
func TestConflict(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	out, code := c.runAgent()
	if code != 1 || !strings.Contains(lastLine(out), "weft: startup: node node-x: address 10.1.0.11 is that of node node-a: ") {
		t.Errorf("exit code %d: %s", code, out)
	}
	client := c.etcd()
	all, _ := keys(t, client, "/calico/resources/v3/projectcalico.org/nodes/")
	var n struct {
		Metadata struct{ Annotations map[string]string }
		Spec     struct{ BGP struct{ IPv4Address string } }
	}
	const path = "/calico/resources/v3/projectcalico.org/nodes/node-x"
	if err := json.Unmarshal([]byte(all[path]), &n); err != nil {
		t.Fatalf("%s: %v: %s", path, err, all[path])
	}
	if got := n.Metadata.Annotations["weft.net/address-conflict"]; got != "10.1.0.11 is the address of node node-a" {
		t.Errorf("annotation %q", got)
	}
	if n.Spec.BGP.IPv4Address != "" {
		t.Errorf("the node still says that it has %s", n.Spec.BGP.IPv4Address)
	}
	// The one that has it goes on, and can come again.
	c.stop("node-a", false)
	c.start("node-a")
}

// TestDefaultPools makes pools from settings.
func TestDefaultPools(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		env  string
		want map[string]string // parts of each pool, by name
	}{
		"none":          {"NO_DEFAULT_POOLS: true", map[string]string{}},
		"of one family": {"CALICO_IPV4POOL_CIDR: none", map[string]string{}},
		"of both": {
			"{CALICO_IPV4POOL_CIDR: 172.30.0.0/16, CALICO_IPV4POOL_BLOCK_SIZE: 24, CALICO_IPV4POOL_NAT_OUTGOING: false, CALICO_IPV4POOL_IPIP: cross-subnet, CALICO_IPV4POOL_NODE_SELECTOR: has(x), IP6: 'fd00:9::1', CALICO_IPV6POOL_CIDR: 'fd00:77::/64'}",
			map[string]string{
				"default-ipv4-ippool": `{"blockSize":24,"cidr":"172.30.0.0/16","ipipMode":"CrossSubnet","nodeSelector":"has(x)","vxlanMode":"Never"}`,
				"default-ipv6-ippool": `{"blockSize":122,"cidr":"fd00:77::/64","ipipMode":"Never","nodeSelector":"all()","vxlanMode":"Never"}`,
			},
		},
		// A host address lies in the usual pool, so it is another.
		"out of the way": {"IP: autodetect", map[string]string{
			"default-ipv4-ippool": `{"blockSize":26,"cidr":"172.16.0.0/16","ipipMode":"Never","natOutgoing":true,"nodeSelector":"all()","vxlanMode":"Never"}`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			subnet := "10.1.0.0/24"
			if name == "out of the way" {
				subnet = "192.168.55.0/24"
			}
			env := tt.env
			if !strings.HasPrefix(env, "{") {
				env = "{" + env + "}"
			}
			c.must("lab", "up", "-f", c.file(fmt.Sprintf("racks: [{name: r, subnets: [%s]}]\nnodes: [{name: a}]\nenv: %s\n", subnet, env)))
			all, _ := keys(t, c.etcd(), "/calico/resources/v3/projectcalico.org/ippools/")
			if len(all) != len(tt.want) {
				t.Errorf("pools %v, want %d", all, len(tt.want))
			}
			for pool, want := range tt.want {
				var got struct{ Spec map[string]any }
				_ = json.Unmarshal([]byte(all["/calico/resources/v3/projectcalico.org/ippools/"+pool]), &got)
				for _, k := range []string{"allowedUses", "assignmentMode", "disabled", "disableBGPExport"} {
					delete(got.Spec, k)
				}
				if text, _ := json.Marshal(got.Spec); string(text) != want {
					t.Errorf("%s:\n%s, want\n%s", pool, text, want)
				}
			}
		})
	}
}

// TestAddresses prints the ranking of a machine with interfaces of all sorts.
func TestAddresses(t *testing.T) {
	t.Parallel()
	c := up(t, "topologies/single.yaml")
	n := c.sh("node-a")
	n.run(`for l in docker0 br-1 aaa0 zzz0; do ip link add $l type bridge; ip link set $l up; done
		ip addr add 172.17.0.1/16 dev docker0; ip addr add 172.18.0.1/16 dev br-1
		ip addr add 10.8.0.1/24 dev aaa0; ip addr add 10.9.0.1/24 dev zzz0; ip link set zzz0 down`)
	weft := filepath.Join(bin, "weft")
	for args, want := range map[string]string{
		"":                            "10.1.0.11/24",
		"--method interface=aaa.*":    "10.8.0.1/24",
		"--method skip-interface=eth": "10.8.0.1/24",
		"--method cidr=10.8.0.0/16":   "10.8.0.1/24",
		"--method can-reach=10.8.0.9": "10.8.0.1/24",
		"--method interface=docker0":  "172.17.0.1/16",
	} {
		out, code := n.try(weft + " node addresses " + args)
		rows := strings.Split(out, "\n")
		if code != 0 || len(rows) < 2 {
			t.Errorf("%s: exit code %d: %s", args, code, out)
			continue
		}
		if f := strings.Fields(rows[1]); len(f) < 4 || f[0] != "1" || f[1] != want || f[3] != "taken" {
			t.Errorf("%s: first is %q, want %s", args, rows[1], want)
		}
	}
	for args, want := range map[string]string{
		"--method nearest": "allowed are first-found", "--method cidr=10": "", "--ipv4": "unknown flag",
	} {
		if out, code := n.try(weft + " node addresses " + args); code != 2 || strings.Contains(out, "\n") || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d, want 2 and %q: %s", args, code, want, out)
		}
	}
	out := n.run(weft + " node addresses -o json")
	var ranked []map[string]any
	if err := json.Unmarshal([]byte(out), &ranked); err != nil || len(ranked) < 4 {
		t.Errorf("-o json: %v: %s", err, out)
	}
}

// TestStartsNoProgram traces the agent for a whole life, with BGP, an ADD, a DEL,
// policy and repairs in it: it starts no other program.
func TestStartsNoProgram(t *testing.T) {
	t.Parallel()
	strace := testenv.Need(t, "strace", "nft", "iptables-nft")
	if out, err := exec.Command(strace, "-f", "-e", "trace=execve", "true").CombinedOutput(); err != nil {
		testenv.Skip(t, "strace does not work here: %v: %s", err, out)
	}
	c := up(t, "topologies/pair.yaml")
	env, argv := c.agentCommand("node-a")
	c.stop("node-a", false)
	trace := filepath.Join(c.now.Dir, "trace")
	p := c.begin("node-a", "sh", "-c", "exec env -i "+env+strace+" -f -q -e trace=execve,execveat,fork,vfork -o "+trace+" "+argv)
	c.established("node-a", 2)
	h := c.runtime("node-a")
	for _, a := range h.must("ADD", containerNames("traced", 3)...) {
		c.reach("pod/default/b1", addressOf(t, a).String())
	}
	c.sh("node-a").run("ip route flush proto bird")
	c.awaitRoute("node-a", `192\.168\..*/26 via 10\.1\.0\.12 dev eth0 proto bird`)
	st := c.store()
	putPolicy(t, func(text string) { t.Helper(); put(t, st, text) }, "NetworkPolicy", "traced", `{"ingress": [{"action": "Log"}, {"action": "Allow", "protocol": "ICMP"}]}`)
	c.serve("a1", "81")
	denied := func() error { return c.talker("b1").denied(talkUDP, net.JoinHostPort(c.addr("a1"), "81")) }
	eventually(t, "policy in force", denied)
	c.sh("node-a").run("nft delete table ip weft; iptables-nft -w -P FORWARD DROP")
	eventually(t, "policy in force again", denied)
	c.reach("pod/default/b1", c.addr("a1"))
	h.must("DEL", containerNames("traced", 3)...)
	s, err := c.agentStatus("node-a")
	if err != nil {
		t.Fatal(err)
	}
	c.sh("node-a").run(fmt.Sprintf("kill %d", s.PID))
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the agent's end: %v: %s", err, p.err)
	}
	var started []string
	for line := range strings.Lines(c.sh("node-a").run("cat " + trace)) {
		if strings.Contains(line, "exec") || strings.Contains(line, "fork(") {
			started = append(started, strings.TrimSpace(line))
		}
	}
	if len(started) != 1 || !strings.Contains(started[0], `"node", "run"`) {
		t.Errorf("programs started, beside the agent itself:\n%s", strings.Join(started, "\n"))
	}
}
