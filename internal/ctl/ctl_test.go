package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/kernel/fib"
	"github.com/weft-net/weft/internal/run"
	"github.com/weft-net/weft/internal/store/etcd/server"
)

// weft runs a command line and returns what it wrote, and its exit code.
func weft(ctx context.Context, environ []string, args ...string) (stdout string, code int, err error) {
	var out, log bytes.Buffer
	err = Execute(ctx, Process{Args: args, Environ: environ, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &log, Version: "v0"})
	return out.String(), ExitCode(err), err
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	nowhere := "WEFT_STATUS_SOCKET=" + filepath.Join(t.TempDir(), "none")
	for line, tt := range map[string]struct {
		code int
		says string // in stdout or in the error
	}{
		"version":                             {0, "weft v0"},
		"":                                    {0, "node"},
		"--help":                              {0, "lab"},
		"node run --help":                     {0, "IP_AUTODETECTION_METHOD"},
		"bogus":                               {2, `unknown command "weft bogus"`},
		"node bogus":                          {2, `unknown command "weft node bogus"`},
		"version extra":                       {2, "see 'weft version --help'"},
		"node status --bogus":                 {2, "see 'weft node status --help'"},
		"node status":                         {1, "no such file or directory: is 'weft node run' running"},
		"node addresses -o table":             {0, "RANK"},
		"node addresses -o xml":               {2, "must be table, json or yaml"},
		"node addresses -o yaml":              {0, "\n"},
		"node addresses --method fastest":     {2, "allowed are first-found"},
		"node addresses --method cidr=::1/64": {0, "BY cidr="},
	} {
		out, code, err := weft(t.Context(), []string{nowhere}, strings.Fields(line)...)
		text := out
		if err != nil {
			text += err.Error()
		}
		if code != tt.code || !strings.Contains(text, tt.says) || err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("weft %s: exit %d, %q; want %d and one line with %q", line, code, text, tt.code, tt.says)
		}
	}
}

// TestBadEnvironment: each wrong variable stops the start with one line, before
// anything is touched (there is no store to talk to).
func TestBadEnvironment(t *testing.T) {
	t.Parallel()
	for _, env := range []string{
		"NODENAME=a_b", "IP=nonsense", "AS=0", "CALICO_IPV4POOL_IPIP=Sometimes", "CALICO_ROUTER_ID=fd00::1",
		"CALICO_NETWORKING_BACKEND=gobgp", "DATASTORE_TYPE=zookeeper",
		"FELIX_REMOVEEXTERNALROUTES=perhaps", "WAIT_FOR_DATASTORE=forever", "ETCD_ENDPOINTS=gopher://x",
	} {
		name, value, _ := strings.Cut(env, "=")
		_, code, err := weft(t.Context(), []string{"NODENAME=node-a", env}, "node", "run")
		if code != 1 || err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), value) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: exit %d, %v; want one line that names both", env, code, err)
		}
	}
}

func TestNodeStatus(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := agent.Status{
		Node: "node-a", Ready: true, BGP: true, Since: time.Now().Add(-time.Minute),
		Peers:  []agent.Peer{{Name: "Mesh_10_0_0_2", Type: "node-to-node mesh", Addr: "10.0.0.2", State: "Established", Received: 3}},
		Kernel: fib.State{Routes: 5, Applied: 4, Pending: []fib.Pending{{Object: "route 10.0.0.0/26", Why: "link eth1 is down"}}},
		Tunnels: []agent.Tunnel{
			{Device: "tunl0", Kind: "ipip", UserSpace: true, Addr: netip.MustParseAddr("10.0.0.64"), MTU: 1480, Up: true},
			{Device: "vxlan.calico", Kind: "vxlan", MTU: 1450, Ends: 7},
			{Device: "wireguard.cali", Kind: "wireguard", Addr: netip.MustParseAddr("10.0.0.65"), MTU: 1440, Up: true, Ends: 6, Key: "AAAA="},
		},
		MTU:   agent.MTU{Underlay: 1500, Pods: 1440},
		Notes: []string{"IPPool/p: invalid"},
	}
	go func() {
		_ = run.Pages(t.Context(), l, func() run.Health { return run.Health{} }, map[string]http.Handler{
			"status": run.Page(func(context.Context) (any, error) { return s, nil }),
		})
	}()
	env := []string{"WEFT_STATUS_SOCKET=" + socket}
	out, code, err := weft(t.Context(), env, "node", "status")
	if err != nil || code != 0 {
		t.Fatal(err, code)
	}
	for _, want := range []string{
		"of node node-a", "up 1m0s", "10.0.0.2      node-to-node mesh  Established", "routes 5, in the kernel 4", "route 10.0.0.0/26: link eth1 is down", "note: IPPool/p: invalid",
		"MTU: of the underlay 1500, of pods 1440", "tunl0           ipip, user space  10.0.0.64  1480  up             any", "vxlan.calico    vxlan             none       1450  not as wanted  7",
		"wireguard.cali  wireguard         10.0.0.65  1440  up             6      AAAA=",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	out, _, _ = weft(t.Context(), env, "node", "status", "-o", "json")
	var got agent.Status
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Node != "node-a" || len(got.Peers) != 1 || got.Kernel.Applied != 4 || !slices.Equal(got.Tunnels, s.Tunnels) {
		t.Errorf("json: %+v, %v", got, err)
	}
	out, _, _ = weft(t.Context(), env, "node", "status", "-o", "yaml")
	if !strings.Contains(out, "\nnode: node-a\n") || !strings.Contains(out, "  asNumber: ") {
		t.Errorf("yaml:\n%s", out)
	}
	s.Ready, s.Why = false, "reading the datastore"
	if out, code, _ := weft(t.Context(), env, "node", "status"); code != 1 || !strings.Contains(out, "not ready: reading the datastore") {
		t.Errorf("not ready: exit %d\n%s", code, out)
	}
}

func TestWaitForDatastore(t *testing.T) {
	t.Parallel()
	url := "unix://" + filepath.Join(t.TempDir(), "etcd.sock")
	p := Process{Environ: []string{"ETCD_ENDPOINTS=" + url, "WAIT_FOR_DATASTORE=true"}}
	var log firstLine
	log.written = make(chan struct{})
	opened := make(chan error, 1)
	go func() {
		st, err := openStore(t.Context(), p, run.Logger(&log, slog.LevelInfo))
		if err == nil {
			err = st.Close()
		}
		opened <- err
	}()
	<-log.written // it has tried, and waits
	s, err := server.Start(t.Context(), server.Config{Dir: t.TempDir(), ClientURLs: []string{url}, Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	p.Environ = append(p.Environ, "WAIT_FOR_DATASTORE=false", "ETCD_ENDPOINTS=unix:///nowhere")
	if _, err := openStore(t.Context(), p, run.Logger(&log, slog.LevelInfo)); err == nil {
		t.Error("no error without waiting")
	}
}

// firstLine tells when something was written.
type firstLine struct{ written chan struct{} }

func (f *firstLine) Write(b []byte) (int, error) {
	select {
	case <-f.written:
	default:
		close(f.written)
	}
	return len(b), nil
}
