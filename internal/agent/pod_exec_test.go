package agent

import (
	"bytes"
	"context"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-net/weft/internal/cni/rpc"
	"github.com/weft-net/weft/internal/kube"
	"github.com/weft-net/weft/internal/testenv"
)

// TestExecutable: the real executable, which has no credentials, gives a pod what the API
// server's annotations of pod and namespace say, because the agent has read them.
func TestExecutable(t *testing.T) {
	t.Parallel()
	ns := testenv.Netns(t)
	program := filepath.Join(t.TempDir(), "calico")
	build := exec.Command("go", "build", "-o", program, "github.com/weft-net/weft/cmd/weft-cni")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := newBench(t, "10.0.0.0/24", 26)
	c := &cluster{pods: map[string]kube.Pod{
		"web-1": {
			UID: "u1", Node: "node-a", ServiceAccount: "robot",
			Annotations:          map[string]string{annotated + "ipAddrs": `["10.0.0.9"]`},
			NamespaceAnnotations: map[string]string{annotated + "hwAddr": "02:00:00:00:00:09", annotated + "ipv4pools": `["nowhere"]`},
		},
		"pool-1": {UID: "u2", Node: "node-a", NamespaceAnnotations: map[string]string{annotated + "ipv4pools": `["nowhere"]`}},
		"six-1":  {UID: "u3", Node: "node-a", Annotations: map[string]string{annotated + "ipFamilies": `["IPv6"]`}},
		"own-1":  {UID: "u4", Node: "node-a", Annotations: map[string]string{annotated + "ipAddrsNoIpam": `["10.8.0.9"]`}},
	}}
	b.orchestrator = c
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := rpc.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = rpc.Serve(ctx, l, b.attachments, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-done })

	const conf = `{"name":"net","cniVersion":"1.0.0","type":"calico","feature_control":{"ip_addrs_no_ipam":true},"ipam":{"type":"calico-ipam"}}`
	run := func(verb, name, uid, container string, pod *testenv.Namespace) (string, error) {
		cmd := exec.Command(program)
		cmd.Env = []string{
			"WEFT_AGENT_SOCKET=" + socket, "WEFT_CNI_QUEUE=" + filepath.Join(filepath.Dir(socket), "del"), "CNI_COMMAND=" + verb,
			"CNI_CONTAINERID=" + container, "CNI_NETNS=" + pod.Path(), "CNI_IFNAME=eth0", "CNI_PATH=/nowhere",
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=" + name + ";K8S_POD_UID=" + uid,
		}
		cmd.Stdin = strings.NewReader(conf)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		err := cmd.Wait()
		return out.String(), err
	}
	for _, tt := range []struct{ name, uid, want string }{
		{"web-1", "u1", `"10.0.0.9/32"`},
		{"own-1", "u4", `"10.8.0.9/32"`},
		{"web-1", "u0", "deleted and made anew"},
		{"pool-1", "u2", "nowhere"},
		{"six-1", "u3", "IPv6"},
		{"gone-1", "u1", "the API server does not have it"},
	} {
		pod := testenv.Netns(t)
		out, err := run("ADD", tt.name, tt.uid, "c-"+tt.name+tt.uid, pod)
		if good := strings.HasPrefix(tt.want, `"`); !strings.Contains(out, tt.want) || (err == nil) != good {
			t.Errorf("%s: got %v and %s, want %s", tt.name, err, out, tt.want)
		}
		if tt.name == "web-1" && tt.uid == "u1" {
			if link := pod.MustRun("ip", "link", "show", "eth0"); !strings.Contains(link, "02:00:00:00:00:09") {
				t.Errorf("link: %s", link)
			}
			if ep := b.endpoint(); ep.Spec.MAC != "02:00:00:00:00:09" || ep.Spec.ServiceAccountName != "robot" {
				t.Errorf("endpoint: %+v", ep.Spec)
			}
			again, err := run("ADD", tt.name, tt.uid, "c-"+tt.name+tt.uid, pod)
			if err != nil || again != out {
				t.Errorf("asked twice: %v\n%s\nwas\n%s", err, again, out)
			}
			// The pod is gone from the API server when its DEL comes.
			c.change(func(pods map[string]kube.Pod) { delete(pods, "web-1") })
			if out, err := run("DEL", tt.name, tt.uid, "c-"+tt.name+tt.uid, pod); err != nil {
				t.Errorf("DEL: %v: %s", err, out)
			}
			c.change(func(pods map[string]kube.Pod) { pods["web-1"] = kube.Pod{UID: "u1", Node: "node-a"} })
		}
	}
	if s := b.state(); s != "node--a-k8s-own--1-eth0=10.8.0.9/32@c-own-1u4" {
		t.Errorf("left: %s", s)
	}
}
