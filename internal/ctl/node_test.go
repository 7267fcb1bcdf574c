package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/run"
)

// voice runs a command line under a name, and returns what it wrote and its exit code.
func voice(t *testing.T, program string, environ []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, log bytes.Buffer
	err := Execute(t.Context(), Process{
		Program: program, Args: args, Environ: environ, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &log, Version: "v0",
	})
	if err != nil && !errors.As(err, new(*ExitError)) {
		log.WriteString(err.Error() + "\n")
	}
	return out.String(), log.String(), ExitCode(err)
}

// fakeAgent answers on a socket with s and routes; it returns the setting that leads there.
func fakeAgent(t *testing.T, s *agent.Status, routes map[string]agent.PeerRoutes) (environ []string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = run.Pages(ctx, l, func() run.Health { return run.Health{Live: true, Ready: s.Ready, Why: s.Why} }, map[string]http.Handler{
			"status": run.Page(func(context.Context) (any, error) { return *s, nil }),
			"routes": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				of, ok := routes[r.FormValue("peer")]
				if !ok {
					http.Error(w, "peer "+r.FormValue("peer")+": this node has no such peer", http.StatusInternalServerError)
					return
				}
				_ = json.NewEncoder(w).Encode(of)
			}),
			"log": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("msg=hello\n")) }),
		})
	}()
	t.Cleanup(func() { cancel(); <-done })
	return []string{"WEFT_STATUS_SOCKET=" + socket}
}

// peers are one of each kind, over both families.
func peers() []agent.Peer {
	up := time.Now().Add(-time.Hour)
	old := time.Date(2020, 2, 3, 4, 5, 6, 0, time.Local)
	return []agent.Peer{
		{
			Name: "a", Type: "node-to-node mesh", Addr: "10.0.0.2", ASN: 64512, State: "Established", Since: up, Received: 5, Advertised: 2,
			IPv4: agent.Exchange{Negotiated: true, Received: 3, Advertised: 2}, IPv6: agent.Exchange{Negotiated: true, Received: 2},
		},
		{
			Name: "b", Type: "node specific", Addr: "fd00::2", ASN: 65001, State: "Established", Since: old,
			IPv6: agent.Exchange{Negotiated: true, Received: 7, Advertised: 1},
		},
		{Name: "c", Type: "global", Addr: "10.0.0.3", ASN: 65002, State: "Connect", Since: up, Info: "dial: connection refused"},
	}
}

func TestNodeStatusAsCalicoctl(t *testing.T) {
	t.Parallel()
	s := &agent.Status{Node: "node-a", Ready: true, BGP: true, Peers: peers()}
	env := fakeAgent(t, s, nil)
	clock := s.Peers[0].Since.Format(time.TimeOnly)
	want := `Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+----------+---------------------------------------+
| PEER ADDRESS |     PEER TYPE     | STATE |  SINCE   |                 INFO                  |
+--------------+-------------------+-------+----------+---------------------------------------+
| 10.0.0.2     | node-to-node mesh | up    | CLOCK    | Established                           |
| 10.0.0.3     | global            | start | CLOCK    | Connect       dial: connection refused |
+--------------+-------------------+-------+----------+---------------------------------------+

IPv6 BGP status
+--------------+---------------+-------+------------+-------------+
| PEER ADDRESS |   PEER TYPE   | STATE |   SINCE    |    INFO     |
+--------------+---------------+-------+------------+-------------+
| fd00::2      | node specific | up    | 2020-02-03 | Established |
+--------------+---------------+-------+------------+-------------+

`
	want = strings.NewReplacer("CLOCK   ", clock, "                 INFO                  |", "                  INFO                  |",
		"---------------------------------------+", "----------------------------------------+",
		"Established                           |", "Established                            |").Replace(want)
	out, log, code := voice(t, "calicoctl", env, "node", "status")
	if d := cmp.Diff(want, out); d != "" || code != 0 || log != "" {
		t.Errorf("exit %d, %s (-want +got):\n%s", code, log, d)
	}

	s.Peers, s.Ready, s.Why = nil, false, "waiting for the datastore"
	want = "Calico process is running.\n\nIPv4 BGP status\nNo IPv4 peers found.\n\nIPv6 BGP status\nNo IPv6 peers found.\n\n"
	if out, log, code = voice(t, "calicoctl", env, "node", "status"); out != want || code != 0 || !strings.Contains(log, s.Why) {
		t.Errorf("without peers: exit %d, %s\n%s", code, log, out)
	}

	nobody := []string{"WEFT_STATUS_SOCKET=" + filepath.Join(t.TempDir(), "none")}
	if out, log, code = voice(t, "calicoctl", nobody, "node", "status"); out != "Calico process is not running.\n" || code != 1 || !strings.Contains(log, "no agent answers") {
		t.Errorf("without an agent: exit %d, %q, %q", code, out, log)
	}
}

func TestNodePeersAndRoutes(t *testing.T) {
	t.Parallel()
	s := &agent.Status{Node: "node-a", Ready: true, BGP: true, Peers: peers()}
	routes := map[string]agent.PeerRoutes{
		"10.0.0.2": {
			Peer: "10.0.0.2",
			Received: []agent.PeerRoute{
				{Prefix: netip.MustParsePrefix("10.65.0.0/26"), NextHop: netip.MustParseAddr("10.0.0.2"), Best: true},
				{Prefix: netip.MustParsePrefix("10.66.0.0/26"), NextHop: netip.MustParseAddr("10.0.0.2"), ASPath: "65001 65002", Communities: []string{"65001:1"}},
			},
			Advertised: []agent.PeerRoute{{Prefix: netip.MustParsePrefix("fd65::/122"), NextHop: netip.MustParseAddr("fd00::1")}},
		},
		"10.0.0.3": {Peer: "10.0.0.3"}, "fd00::2": {Peer: "fd00::2"},
	}
	env := fakeAgent(t, s, routes)
	for line, wants := range map[string][]string{
		"node status": {
			"PEER ADDRESS  PEER TYPE          STATE        SINCE       IPV4 IN  OUT  IPV6 IN  OUT  INFO\n",
			"3        2    2        0    \n", "node specific      Established  2020-02-03  -        -    7        1", "-        -    dial: connection refused",
		},
		"node routes":                          {"PEER      DIRECTION  PREFIX", "10.0.0.2  in *       10.65.0.0/26  10.0.0.2  -            -\n", "in         10.66.0.0/26  10.0.0.2  65001 65002  65001:1\n", "out        fd65::/122    fd00::1"},
		"node status --peer 10.0.0.2":          {"10.65.0.0/26"},
		"node routes --peer 10.0.0.3":          {"PEER  DIRECTION"},
		"node routes --peer 10.0.0.2 -o json":  {`"nextHop": "fd00::1"`},
		"node status --peer 10.0.0.2 -o yaml":  {"asPath: 65001 65002"},
		"node routes --peer 10.0.0.9":          {"!node routes: peer 10.0.0.9: this node has no such peer\n"},
		"node routes --peer example.com":       {"!--peer example.com: must be the IP address of a peer"},
		"node status --peer 10.0.0.2 -o table": {"out"},
	} {
		out, log, code := voice(t, "weft", env, strings.Fields(line)...)
		for _, want := range wants {
			text := out
			fails := strings.HasPrefix(want, "!")
			if fails {
				text, want = log, want[1:]
			}
			if !strings.Contains(text, want) || fails != (code != 0) {
				t.Errorf("weft %s: exit %d, no %q in:\n%s%s", line, code, want, out, log)
			}
		}
	}
	// Sessions over IPv4 come first.
	if out, _, _ := voice(t, "weft", env, "node", "status"); strings.Index(out, "10.0.0.3") > strings.Index(out, "fd00::2") {
		t.Errorf("order:\n%s", out)
	}
}

// TestNodeRunFlags: what flags say wins over the environment, and a dry run prints it and runs
// nothing.
func TestNodeRunFlags(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "calicoctl.cfg")
	text := "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  etcdEndpoints: https://192.0.2.1:2379\n  etcdUsername: root\n  etcdPassword: hunter2\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, tt := range map[string]struct {
		program string
		code    int
		out     string // all of it, or with * at the end its beginning
		log     string // a part
	}{
		"--dryrun": {"weft", 0, "weft node run\n", ""},
		"--dryrun --ip 10.0.0.7/24 --ip6 none --as 64513 --name node-x --backend none --no-default-ippools --log-dir /var/log/calico": {
			"calicoctl", 0,
			"env NODENAME=node-x IP=10.0.0.7/24 IP6=none AS=64513 CALICO_NETWORKING_BACKEND=none NO_DEFAULT_POOLS=true calicoctl node run --log-dir /var/log/calico\n", "",
		},
		"--dryrun --ip-autodetection-method interface=eth.*,ens$ --ip6-autodetection-method first-found --felix-config /f": {
			"weft", 0, "env 'IP_AUTODETECTION_METHOD=interface=eth.*,ens$' IP6_AUTODETECTION_METHOD=first-found FELIX_FELIXCONFIGFILE=/f weft node run\n", "",
		},
		"--dryrun --config " + file: {
			"weft", 0, "env DATASTORE_TYPE=etcdv3 ETCD_ENDPOINTS=https://192.0.2.1:2379 'ETCD_PASSWORD=(secret)' ETCD_USERNAME=root weft node run\n", "",
		},
		"--dryrun --node-image calico/node:v3": {"calicoctl", 0, "calicoctl node run\n", "--node-image has no meaning here"},
		"--dryrun --init-system --ip auto":     {"weft", 2, "", `--ip "auto": must be autodetect, none, empty, or an IPv4 address`},
		"--dryrun --init-system --as 64512":    {"weft", 0, "[Unit]\nDescription=weft node agent\nAfter=network-online.target\nWants=network-online.target\n\n[Service]\nEnvironment=\"AS=64512\"\nExecStart=/*", ""},
		"--backend gobgp":                      {"weft", 2, "", `--backend "gobgp": must be bird, vxlan or none`},
		"--name A_B":                           {"calicoctl", 1, "", `--name "A_B": must be a node name`},
		"--ip6 10.0.0.1":                       {"weft", 2, "", `--ip6 "10.0.0.1": must be autodetect, none, empty, or an IPv6 address`},
		"--as x":                               {"weft", 2, "", `--as "x": must be`},
		"--ip-autodetection-method fastest":    {"weft", 2, "", `--ip-autodetection-method "fastest": `},
		"--config /nowhere/calicoctl.cfg":      {"weft", 1, "", "/nowhere/calicoctl.cfg"},
		"--log-dir " + file + "/below":         {"weft", 1, "", "log file: "},
	} {
		out, log, code := voice(t, tt.program, []string{"AS=65000", "IP=none", "NODENAME=node-a", "ETCD_ENDPOINTS=gopher://x"}, append([]string{"node", "run"}, strings.Fields(line)...)...)
		if tt.program == "calicoctl" {
			out = strings.Replace(out, "DATASTORE_TYPE=etcdv3 ETCD_ENDPOINTS=gopher://x ", "", 1) // of the environment
			out = strings.Replace(out, "env calicoctl", "calicoctl", 1)
		}
		begins, part := strings.CutSuffix(tt.out, "*")
		if code != tt.code || out != tt.out && (!part || !strings.HasPrefix(out, begins)) || !strings.Contains(log, tt.log) || strings.Contains(out+log, "hunter2") {
			t.Errorf("%s node run %s: exit %d\n%s%s\nwant %d\n%s%s", tt.program, line, code, out, log, tt.code, tt.out, tt.log)
		}
	}
	// Without a dry run the flags are in force: the agent gets past them to the datastore.
	_, log, code := voice(t, "weft", []string{"IP=nonsense", "ETCD_ENDPOINTS=gopher://x", "WEFT_STATUS_SOCKET=" + filepath.Join(t.TempDir(), "s")},
		"node", "run", "--name", "node-a", "--ip", "none")
	if code != 1 || !strings.Contains(log, "gopher") {
		t.Errorf("exit %d, %s; want the datastore's complaint", code, log)
	}
}
