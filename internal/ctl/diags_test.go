package ctl

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v3 "github.com/weft-net/weft/api/v3"
	"github.com/weft-net/weft/internal/agent"
	"github.com/weft-net/weft/internal/store"
)

// unpack reads a bundle: its files by name, without the directory.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		if out[name] = string(text); h.Mode != 0o600 {
			t.Errorf("%s: mode %o", name, h.Mode)
		}
	}
}

// plant writes files below a new directory.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestNodeDiags: everything there is gets into the bundle, and none of the secrets.
func TestNodeDiags(t *testing.T) {
	t.Parallel()
	dir := plant(t, map[string]string{
		"secrets/bgp/rr":         "rr-password-1\n",
		"key.pem":                "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIPlanted\n-----END EC PRIVATE KEY-----\n",
		"net.d/10-weft.conflist": `{"name": "k8s-pod-network", "plugins": [{"type": "weft", "policy": {"k8s_auth_token": "cni-token-1"}, "etcd_password": "x", "mtu": 1440}]}`,
		"net.d/weft-kubeconfig":  "token: kubeconfig-token-1\n",
		"log/a.log":              "started with etcd-password-1\nprivateKey=wgPrivateKey1=\nlines before MHcCAQEEIPlanted\n-----BEGIN PRIVATE KEY-----\nLoggedKey1\n-----END PRIVATE KEY-----\nlines after\n",
		"log/sub/b.log":          "rr-password-1 sent\n",
	})
	secrets := []string{
		"etcd-password-1", "rr-password-1", "MHcCAQEEIPlanted", "cni-token-1", "kubeconfig-token-1", "wgPrivateKey1", "LoggedKey1", "api-token-1", "inline-1", "annotated-1",
	}
	status := &agent.Status{Node: "node-a", Ready: true, BGP: true, Peers: peers()[:1], Notes: []string{"dial with etcd-password-1"}}
	env := slices.Concat(startEtcd(t), fakeAgent(t, status, map[string]agent.PeerRoutes{"10.0.0.2": {Peer: "10.0.0.2"}}))
	st := openTest(t, env)
	noteVersion(t, st, "v3.33.0", "k8s")
	for _, node := range []string{"node-a", "node-b"} {
		e := &v3.HostEndpoint{}
		e.Name, e.Spec.Node, e.Spec.InterfaceName = node+"-eth0", node, "eth0"
		e.Annotations = map[string]string{"deploy-token": "annotated-1"}
		if _, err := st.Commit(t.Context(), store.Op{Verb: store.Create, Object: store.New(e)}); err != nil {
			t.Fatal(err)
		}
	}
	env = append(env, "REGISTRY_PASSWORD=etcd-password-1", "K8S_API_TOKEN=api-token-1", "KUBECONFIG_INLINE=token: inline-1", "WEFT_SECRETS_DIR="+filepath.Join(dir, "secrets"), "WEFT_CNI_CONF_DIR="+filepath.Join(dir, "net.d"), "IP=autodetect", "K8S_KEY_FILE="+filepath.Join(dir, "key.pem"))
	path := filepath.Join(dir, "out.tar.gz")
	out, log, code := voice(t, "weft", env, "node", "diags", "--log-dir", filepath.Join(dir, "log"), "--file", path)
	if out != path+"\n" || code != 0 {
		t.Fatalf("exit %d, %q\n%s", code, out, log)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want a file of its owner's", info.Mode(), err)
	}
	files := unpack(t, path)
	for name, part := range map[string]string{
		"about.json": `"subject"`, "environment.txt": "IP=autodetect\n", "agent/status.json": `"node": "node-a"`, "agent/routes-10.0.0.2.json": `"peer": "10.0.0.2"`,
		"agent/log.txt": "msg=hello", "network/links.json": `"name": "lo"`, "network/links.txt": "NAME", "network/routes.json": "", "network/rules.txt": "",
		"network/neighbors.json": "", "network/sysctls.txt": "net.ipv4.ip_forward = ", "cni/10-weft.conflist": `"mtu": 1440`, "logs/a.log": "lines after", "logs/sub/b.log": "(secret) sent",
		"errors.txt": "agent/policy.json: ",
	} {
		if text, ok := files[name]; !ok || !strings.Contains(text, part) {
			t.Errorf("%s: want %q in %.300q", name, part, text)
		}
	}
	for name, text := range files {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s has the secret %q", name, s)
			}
		}
	}
	if files["cni/weft-kubeconfig"] != "" || !strings.Contains(log, "not in the bundle: agent/policy.json: ") {
		t.Errorf("stderr:\n%s", log)
	}
	if objects := files["datastore/hostendpoints.yaml"]; !strings.Contains(objects, "node-a-eth0") || !strings.Contains(objects, "kind: HostEndpoint") || strings.Contains(objects, "node-b-eth0") {
		t.Errorf("objects of the node:\n%s\n%s", objects, files["errors.txt"])
	}
	if _, _, code := voice(t, "weft", env, "node", "diags", "--file", path); code != 1 {
		t.Errorf("over a file that exists: exit %d", code)
	}
}

// TestNodeDiagsOfNothing: without an agent and a datastore there is a bundle, which says so.
func TestNodeDiagsOfNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "out.tar.gz")
	env := []string{"WEFT_STATUS_SOCKET=/nowhere/s", "WEFT_CNI_CONF_DIR=/nowhere/net.d", "ETCD_ENDPOINTS=unix:///nowhere/etcd", "ETCD_USERNAME=root", "ETCD_PASSWORD=hunter-2", "K8S_API_TOKEN=token-two"}
	out, log, code := voice(t, "calicoctl", env, "node", "diags", "--log-dir", "/nowhere/log", "--file", path)
	if out != path+"\n" || code != 0 {
		t.Fatalf("exit %d, %q\n%s", code, out, log)
	}
	files := unpack(t, path)
	for _, part := range []string{"agent: ", "cni: ", "logs: ", "datastore: "} {
		if !strings.Contains(files["errors.txt"], "\n"+part) && !strings.HasPrefix(files["errors.txt"], part) || !strings.Contains(log, "not in the bundle: "+part) {
			t.Errorf("no %q in\n%s\n%s", part, files["errors.txt"], log)
		}
	}
	if files["network/links.json"] == "" || !strings.Contains(files["environment.txt"], "ETCD_USERNAME=root\nK8S_API_TOKEN=(secret)\n") {
		t.Errorf("no links, or environment:\n%s", files["environment.txt"])
	}
	for name, text := range files {
		if strings.Contains(text, "hunter-2") || strings.Contains(text, "token-two") {
			t.Errorf("%s has a secret", name)
		}
	}
	if _, log, code := voice(t, "weft", env, "node", "diags", "--file", "/nowhere/dir/file"); code != 1 || !strings.Contains(log, "/nowhere/dir/file") {
		t.Errorf("no such directory: exit %d, %s", code, log)
	}
}

func TestClusterDiags(t *testing.T) {
	t.Parallel()
	env := startEtcd(t)
	st := openTest(t, env)
	noteVersion(t, st, "v3.33.0", "k8s")
	path := filepath.Join(t.TempDir(), "out.tar.gz")
	out, log, code := voice(t, "calicoctl", env, "cluster", "diags", "--since", "2h", "--max-logs", "1", "--max-parallelism", "2", "--focus-nodes", "a,b", "--skip-temp-dir-cleanup", "--file", path)
	if out != path+"\n" || code != 0 || !strings.Contains(log, "reading the datastore") {
		t.Fatalf("exit %d, %q\n%s", code, out, log)
	}
	if files := unpack(t, path); !strings.Contains(files["datastore/clusterinformations.yaml"], "calicoVersion: v3.33.0") {
		t.Errorf("files: %v", files)
	}
	for line, want := range map[string]string{"--max-logs -1": "--max-logs", "--max-parallelism 0": "--max-parallelism", "--since -1s": "--since", "extra": "extra"} {
		if _, log, code := voice(t, "weft", env, append([]string{"cluster", "diags"}, strings.Fields(line)...)...); code != 2 || !strings.Contains(log, want) {
			t.Errorf("%s: exit %d, %s", line, code, log)
		}
	}
	nowhere := filepath.Join(t.TempDir(), "x.tar.gz")
	if _, log, code := voice(t, "weft", nil, "cluster", "diags", "--file", nowhere); code != 1 || !strings.Contains(log, "no datastore is set") {
		t.Errorf("no datastore: exit %d, %s", code, log)
	} else if _, err := os.Stat(nowhere); !errors.Is(err, fs.ErrNotExist) {
		t.Error("there is a bundle of nothing")
	}
}
