package cni_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/weft-net/weft/internal/testenv"
)

// The reference driver of the CNI project takes the plugin through a life.
func TestCNITool(t *testing.T) {
	t.Parallel()
	if err := os.MkdirAll("/var/lib/cni/results", 0o700); err != nil {
		testenv.Skip(t, "cnitool keeps its results there: %v", err)
	}
	n := newNode(t)
	p := n.pod("web-0")
	dir := t.TempDir()
	list := `{"cniVersion":"1.1.0","name":"k8s-pod-network","plugins":[{"type":"calico","agent_socket":"` + n.socket +
		`","datastore_type":"kubernetes","kubernetes":{"kubeconfig":"/etc/cni/net.d/calico-kubeconfig"},"policy":{"type":"k8s"},"ipam":{"type":"calico-ipam"}}]}`
	if err := os.WriteFile(filepath.Join(dir, "10-calico.conflist"), []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	tool := func(verb string) string {
		t.Helper()
		cmd := n.command("cnitool", "", "NETCONFPATH="+dir, "CNI_PATH="+n.bin, "CNI_ARGS="+p.args, "CNI_IFNAME=eth0")
		cmd.Env = append(cmd.Env, "HOME="+dir)
		cmd.Args = append(cmd.Args, verb, "k8s-pod-network", p.path)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := n.ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("cnitool %s: %v: %s", verb, err, &out)
		}
		return out.String()
	}
	tool("status")
	if out := tool("add"); !contains(out, "10.65.0.1/32") {
		t.Errorf("cnitool add printed %s", out)
	}
	tool("check")
	tool("gc")
	tool("del")
	tool("del")
	if n.agent.count() != 0 {
		t.Error("an attachment is left")
	}
}
