package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-net/weft/internal/reconcile"
	"github.com/weft-net/weft/internal/testenv"
)

// node is a machine with the directories that an installer sees.
type node struct {
	t                 *testing.T
	conf, bin, source string
}

func newNode(t *testing.T) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, conf: filepath.Join(dir, "net.d"), bin: filepath.Join(dir, "bin"), source: filepath.Join(dir, "image")}
	for _, d := range []string{n.conf, n.bin, n.source} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"weft-cni", "portmap", "bandwidth", "loopback", "host-local"} {
		n.put(filepath.Join(n.source, name), "program "+name, 0o755)
	}
	return n
}

func (n *node) put(path, text string, mode fs.FileMode) {
	n.t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) get(path string) string {
	n.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(text)
}

// list is the names in a directory, with spaces between them.
func (n *node) list(dir string) string {
	n.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

// config reads the environment, "NAME=value" a line.
func (n *node) config(environment ...string) (Config, bool, error) {
	values := map[string]string{"WEFT_CNI_CONF_DIR": n.conf, "WEFT_CNI_BIN_DIR": n.bin, "WEFT_CNI_SOURCE": n.source}
	for _, line := range environment {
		name, value, _ := strings.Cut(line, "=")
		values[name] = value
	}
	return ConfigFromEnv("node-a", func(name string) string { return values[name] }, slog.New(slog.DiscardHandler))
}

func (n *node) installer(environment ...string) *Installer {
	n.t.Helper()
	c, wanted, err := n.config(environment...)
	if err != nil || !wanted {
		n.t.Fatalf("wanted %t, %v", wanted, err)
	}
	i := New(c)
	i.files.unsynced = true
	return i
}

// install makes one pass of a new life of the agent.
func (n *node) install(environment ...string) *Installer {
	n.t.Helper()
	i := n.installer(environment...)
	i.Serve(Families{V4: true})
	if err := i.pass(n.t.Context(), reconcile.Resync); err != nil {
		n.t.Fatal(err)
	}
	return i
}

func TestInstall(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	i := n.install()
	if got, want := n.list(n.bin), "bandwidth calico calico-ipam host-local loopback portmap weft-cni weft-ipam"; got != want {
		t.Errorf("executables %s\nwant %s", got, want)
	}
	for name, of := range map[string]string{"calico": "weft-cni", "calico-ipam": "weft-cni", "weft-ipam": "weft-cni", "portmap": "portmap"} {
		path := filepath.Join(n.bin, name)
		if got := n.get(path); got != "program "+of {
			t.Errorf("%s is %q", name, got)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	const want = `{"cniVersion":"1.0.0","name":"k8s-pod-network","plugins":[` +
		`{"capabilities":{"bandwidth":true},"datastore_type":"kubernetes","ipam":{"assign_ipv4":"true","assign_ipv6":"false","type":"weft-ipam"},"nodename":"node-a","type":"weft-cni"},` +
		`{"capabilities":{"portMappings":true},"snat":true,"type":"portmap"}]}`
	path := filepath.Join(n.conf, "10-weft.conflist")
	if got := compact(t, n.get(path)); got != want {
		t.Errorf("conflist\n%s\nwant\n%s", got, want)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("conflist has mode %v, want 0600: templates may hold secrets", info.Mode())
	}
	if !i.Installed() || i.Problem() != "" {
		t.Errorf("installed %t, problem %q", i.Installed(), i.Problem())
	}
	before, _ := os.Stat(path)
	if err := i.pass(t.Context(), reconcile.Kick); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.Stat(path); !os.SameFile(before, after) || n.list(n.conf) != "10-weft.conflist" {
		t.Errorf("a second pass wrote again: %s", n.list(n.conf))
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	out, _ := json.Marshal(v)
	return string(out)
}

// TestConflistComesLast: before the agent serves there are executables and no conflist.
func TestConflistComesLast(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	i := n.installer()
	if err := i.pass(t.Context(), reconcile.Resync); err != nil {
		t.Fatal(err)
	}
	if got := n.list(n.conf); got != "" || n.list(n.bin) == "" || i.Installed() {
		t.Errorf("before the agent serves: configurations %q, executables %q", got, n.list(n.bin))
	}
	if err := os.Remove(filepath.Join(n.source, "weft-cni")); err != nil {
		t.Fatal(err)
	}
	i.Serve(Families{V4: true})
	if err := i.pass(t.Context(), reconcile.Kick); err == nil || !strings.Contains(err.Error(), "WEFT_CNI_SOURCE") || n.list(n.conf) != "" {
		t.Errorf("without executables: %v, configurations %q", err, n.list(n.conf))
	}
}

// TestNames: which file the conflist is, and what becomes of Calico's.
func TestNames(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ have, env, want string }{
		"fresh":                 {"", "", "10-weft.conflist"},
		"taken over in place":   {"10-calico.conflist calico-kubeconfig", "", "10-calico.conflist calico-kubeconfig"},
		"taken over, new name":  {"10-calico.conflist", "CNI_CONF_NAME=10-weft.conflist", "10-weft.conflist"},
		"other old name":        {"10-calico.conflist 05-old.conf", "CNI_CONF_NAME=10-weft.conflist|CNI_OLD_CONF_NAME=05-old.conf", "10-calico.conflist 10-weft.conflist"},
		"others' stay":          {"99-loopback.conf", "", "10-weft.conflist 99-loopback.conf"},
		"left by a killed life": {".weft-install-123", "", "10-weft.conflist"},
	} {
		n := newNode(t)
		for _, file := range strings.Fields(tt.have) {
			n.put(filepath.Join(n.conf, file), `{"name":"k8s-pod-network","plugins":[{"type":"calico"}]}`, 0o644)
		}
		n.install(strings.Split(tt.env, "|")...)
		if got := n.list(n.conf); got != tt.want {
			t.Errorf("%s: got %s, want %s", name, got, tt.want)
		}
		first := strings.Fields(tt.want)[0]
		if strings.HasPrefix(name, "taken over") && !strings.Contains(n.get(filepath.Join(n.conf, first)), "weft-cni") {
			t.Errorf("%s: %s is not ours", name, first)
		}
	}
}

// TestKilled ends the process at every step of an installation over an older one: each file is
// the old one or the new one, whole, and the next life finishes the work.
func TestKilled(t *testing.T) {
	t.Parallel()
	killed := errors.New("killed")
	for at := 0; ; at++ {
		n := newNode(t)
		n.install()
		old := map[string]string{}
		for _, dir := range []string{n.conf, n.bin} {
			for _, name := range strings.Fields(n.list(dir)) {
				old[filepath.Join(dir, name)] = n.get(filepath.Join(dir, name))
			}
		}
		for _, name := range strings.Fields(n.list(n.source)) {
			n.put(filepath.Join(n.source, name), "newer program "+name, 0o755)
		}
		i, steps := n.installer("CNI_MTU=1400"), 0
		i.files.step = func(string) error {
			if steps++; steps > at {
				return killed
			}
			return nil
		}
		i.Serve(Families{V4: true, V6: true})
		err := i.pass(t.Context(), reconcile.Resync)
		for path, was := range old {
			now := n.get(path)
			if now != was && !strings.HasPrefix(now, "newer program ") && !strings.Contains(now, `"mtu": 1400`) {
				t.Fatalf("killed at step %d: %s is\n%s", at, path, now)
			}
			if strings.HasSuffix(path, ".conflist") && now != was && strings.HasPrefix(n.get(filepath.Join(n.bin, "weft-cni")), "program") {
				t.Fatalf("killed at step %d: a new conflist with old executables", at)
			}
		}
		n.install("CNI_MTU=1400")
		if got := n.list(n.conf); got != "10-weft.conflist" || strings.Contains(n.list(n.bin), temporary) || n.get(filepath.Join(n.bin, "calico")) != "newer program weft-cni" {
			t.Fatalf("killed at step %d: afterwards %s; %s", at, got, n.list(n.bin))
		}
		if err == nil {
			if at < 4*6+3*4 { // executables, names and a conflist
				t.Errorf("only %d steps", at)
			}
			return
		}
	}
}

// TestComesBack: what somebody removes while the agent runs is there again; what somebody
// changed stays until the next start.
func TestComesBack(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	i := n.installer()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- i.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	}()
	conflist, plugin := filepath.Join(n.conf, "10-weft.conflist"), filepath.Join(n.bin, "calico")
	i.Serve(Families{V4: true})
	there := func(path, text string) {
		t.Helper()
		eventually(t, func() error {
			if got, err := os.ReadFile(path); err != nil || !strings.Contains(string(got), text) {
				return fmt.Errorf("%s: %q, %v; problem %q", path, got, err, i.Problem())
			}
			return nil
		})
	}
	there(conflist, "weft-cni")
	for _, path := range []string{conflist, plugin} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	there(conflist, "weft-cni")
	there(plugin, "program weft-cni")
	n.put(conflist, "{", 0o600) // as a crash of another program leaves it
	there(conflist, "weft-cni")
	changed := strings.Replace(n.get(conflist), "k8s-pod-network", "my-network", 1)
	n.put(filepath.Join(n.conf, "edited"), changed, 0o600)
	if err := os.Rename(filepath.Join(n.conf, "edited"), conflist); err != nil { // a half one would be put right
		t.Fatal(err)
	}
	if err := os.Remove(plugin); err != nil {
		t.Fatal(err)
	}
	there(plugin, "program weft-cni") // so a pass has been since
	there(conflist, "my-network")
	i.Serve(Families{V4: true, V6: true})
	there(conflist, `"assign_ipv6": "true"`)
	n.install()
	there(conflist, `"assign_ipv6": "false"`)
}

// TestDirectoryFaults: a directory that can't be used is one clear error; when it can be, the
// work is done.
func TestDirectoryFaults(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]func(*node) string{
		"configurations": func(n *node) string { return n.conf },
		"plugins":        func(n *node) string { return n.bin },
	} {
		n := newNode(t)
		path := dir(n)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		i := n.installer()
		i.config.ConfName = "10-weft.conflist"
		n.put(path, "no directory", 0o644)
		i.Serve(Families{V4: true})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- i.Run(ctx) }()
		eventually(t, func() error {
			if p := i.Problem(); !strings.Contains(p, path) || !strings.Contains(p, "mounted") || strings.Contains(p, "\n") {
				return fmt.Errorf("%s: problem %q", name, p)
			}
			return nil
		})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if i.Problem() != "" || !i.Installed() {
				return fmt.Errorf("%s: problem %q", name, i.Problem())
			}
			return nil
		})
		cancel()
		<-done
	}
}

func TestRemove(t *testing.T) {
	t.Parallel()
	const calicos = `{"name":"k8s-pod-network","plugins":[{"type":"calico"}]}`
	for name, tt := range map[string]struct {
		env    string
		change string // what the file holds in the end; empty: as installed; "-": nothing
		fresh  bool   // by a life that has installed nothing
		stays  bool
	}{
		"ours":                        {},
		"ours, of an earlier life":    {fresh: true},
		"a template's":                {env: "CNI_NETWORK_CONFIG=" + calicos},
		"Calico's, installed since":   {change: calicos, stays: true},
		"gone already":                {change: "-"},
		"Calico's, of before our own": {change: calicos, fresh: true, stays: true},
	} {
		n := newNode(t)
		i := n.install("CNI_CONF_NAME=10-calico.conflist", tt.env)
		path := filepath.Join(n.conf, "10-calico.conflist")
		switch tt.change {
		case "":
		case "-":
			_ = os.Remove(path)
		default:
			n.put(path, tt.change, 0o644)
		}
		if tt.fresh {
			i = n.installer()
		}
		err := i.Remove()
		_, statErr := os.Stat(path)
		if stays := statErr == nil; stays != tt.stays || (err != nil) != tt.stays {
			t.Errorf("%s: stays %t, %v; want %t", name, stays, err, tt.stays)
		}
		if !strings.Contains(n.list(n.bin), "weft-cni") {
			t.Errorf("%s: executables are gone, which a runtime needs for DEL", name)
		}
	}
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	// As Calico's manifests have it.
	const template = `{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{"type": "calico",
 "log_level": "__LOG_LEVEL__", "datastore_type": "kubernetes", "nodename": "__KUBERNETES_NODE_NAME__", "mtu": __CNI_MTU__,
 "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"}},
 {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}]}`
	file := filepath.Join(n.conf, "template")
	n.put(file, template, 0o644)
	const want = `{"cniVersion":"0.3.1","name":"k8s-pod-network","plugins":[{"datastore_type":"kubernetes","ipam":{"type":"calico-ipam"},` +
		`"kubernetes":{"kubeconfig":"/etc/kubernetes/cni/calico-kubeconfig"},"log_level":"info","mtu":1450,"nodename":"worker-1","policy":{"type":"k8s"},"type":"calico"},` +
		`{"capabilities":{"portMappings":true},"snat":true,"type":"portmap"}]}`
	for _, given := range []string{"CNI_NETWORK_CONFIG=" + template, "CNI_NETWORK_CONFIG_FILE=" + file} {
		c, _, err := n.config(given, "CNI_MTU=1450", "KUBERNETES_NODE_NAME=worker-1", "CNI_NET_DIR=/etc/kubernetes/cni")
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Conflist(Families{V4: true})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, compact(t, string(got))); d != "" {
			t.Errorf("%.20s (-want +got):\n%s", given, d)
		}
	}
}

func TestConfigFromEnv(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]string{
		"":                                     "true",
		"CALICO_MANAGE_CNI=false":              "false",
		"WEFT_CNI_CONF_DIR=":                   "false", // not in a container
		"CALICO_MANAGE_CNI=true":               "true",
		"CALICO_MANAGE_CNI=yes":                `CALICO_MANAGE_CNI="yes": must be true, false or empty`,
		"CNI_CONF_NAME=../x.conflist":          `CNI_CONF_NAME="../x.conflist": must be the name of a file, without a directory`,
		"CNI_MTU=big":                          `CNI_MTU="big": must be 68 to 65535, or 0 for what the tunnels leave`,
		"UPDATE_CNI_BINARIES=maybe":            `UPDATE_CNI_BINARIES="maybe": must be true or false`,
		"CNI_NETWORK_CONFIG={":                 "CNI_NETWORK_CONFIG: is no JSON",
		`CNI_NETWORK_CONFIG={"name":"__ME__"}`: "CNI_NETWORK_CONFIG: __ME__: unknown placeholder",
		`CNI_NETWORK_CONFIG={"name":"a"}`:      "CNI_NETWORK_CONFIG: must have a name, and plugins or a type",
		"CNI_NETWORK_CONFIG_FILE=/nowhere":     "CNI_NETWORK_CONFIG_FILE: open /nowhere",
	} {
		_, wanted, err := newNode(t).config(env)
		got := fmt.Sprint(wanted)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
			t.Errorf("%s: got %s, want %s", env, got, want)
		}
	}
}

func TestWhichExecutables(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.put(filepath.Join(n.bin, "portmap"), "of the distribution", 0o755)
	n.install("UPDATE_CNI_BINARIES=false", "SKIP_CNI_BINARIES=bandwidth, loopback")
	if got, want := n.list(n.bin), "calico calico-ipam host-local portmap weft-cni weft-ipam"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := n.get(filepath.Join(n.bin, "portmap")); got != "of the distribution" {
		t.Errorf("portmap is %q", got)
	}
	n.install("USE_POD_CIDR=true")
	if got := n.get(filepath.Join(n.bin, "portmap")); got != "program portmap" {
		t.Errorf("portmap is %q", got)
	}
	if got := n.get(filepath.Join(n.conf, "10-weft.conflist")); !strings.Contains(got, `"subnet": "usePodCidr"`) {
		t.Errorf("conflist %s", got)
	}
}

// eventually waits until what nobody tells of is so.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(testenv.Patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
